"""Waits that look like circles, or were about to be one, and are none: nobody gets an error."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Run
from tests.lockers import KINDS, LOCAL, Party, in_line, is_free
from tests.support import eventually
from tests.takeovers import program
from tests.workbench import ON_WORKER, Gate, until
from threadlets import Lock, Pool, deadlocks, threadlet
from threadlets.cancellation import holds
from threadlets.deadlocks import _waiters, for_locks
from threadlets.errors import Deadlock, LockPoisoned
from threadlets.surroundings import waiting
from threadlets.waits import in_line as waiters_in_line


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """See that nothing is known any more of those that waited."""
    yield
    assert not holds and not waiting and not _waiters and not for_locks and not waiters_in_line


@pytest.mark.parametrize("first", ["timed", "other"])
def test_a_wait_with_a_timeout(run: Run, first: str) -> None:
    """One of the two waits ends by itself: the other one waits for that, and then has the lock."""

    async def main() -> None:
        one, two, gate, late = Lock(), Lock(), Gate(), Gate()

        @threadlet(contract=ON_WORKER)
        def timed() -> bool:
            with one:
                gate()
                return two.acquire(timeout=0.01)

        @threadlet(contract=ON_WORKER)
        def other() -> None:
            with two:
                late()
                with one:
                    pass

        handles = timed(), other()
        await until(lambda: one.locked() and two.locked())
        if first == "timed":
            gate.open()
            await in_line(two, 1)
            late.open()
        else:
            late.open()
            await in_line(one, 1)
            gate.open()
        assert await handles[0] is False
        await handles[1]
        for lock in (one, two):
            await is_free(lock)

    run(main)


@pytest.mark.parametrize("kind", LOCAL)
def test_a_wait_that_is_being_cancelled(run: Run, kind: str) -> None:
    """One of the two was cancelled, and has not left yet: the other one waits, and has the lock in a moment."""

    async def main() -> None:
        one, two, go = Lock(), Lock(), asyncio.Event()

        async def climb() -> None:
            async with one:
                await go.wait()
                async with two:
                    pass

        def climb_on_thread() -> None:
            with one, two:
                pass

        await two.acquire_async()
        if kind == "worker":
            other: Any = threadlet(contract=ON_WORKER)(climb_on_thread)()
        else:
            other = threadlet(climb)() if kind == "coroutine" else asyncio.create_task(climb())
        await until(one.locked)
        go.set()
        await in_line(two, 1)
        with pytest.raises(Deadlock):
            await one.acquire_async()
        # Nothing of this loop runs from here on; and a coroutine that holds a lock is told when its grace is over.
        waiter = two._line.first()
        assert waiter is not None
        if kind == "coroutine":
            other._task.cancel()
        elif kind == "task":
            other.cancel()
        else:
            holds[other].forced = True
            other.cancel()
        assert waiter.is_leaving
        if kind == "worker":
            with pytest.raises(LockPoisoned):  # he has left it by force
                await one.acquire_async()
            one.repair()
        else:
            async with one:
                pass
        two.release()
        with pytest.raises(CancelledError):
            await other
        for lock in (one, two):
            await is_free(lock)

    run(main)


def test_a_loop_that_has_not_heard_of_a_release() -> None:
    """Who was waited for a moment ago, as far as a blocked loop knows, is not waited for any more.

    The loop notes that one worker makes another one hurry, and is blocked while the lock goes from one to the other.
    """
    gates = [Gate() for _ in range(4)]
    first, second = Lock("first"), Lock("second")

    @threadlet(contract=ON_WORKER)
    def owner() -> None:
        with first:
            gates[0]()
        gates[1]()
        with second:
            pass

    @threadlet(contract=ON_WORKER)
    def other() -> None:
        with second:
            gates[2]()
            with first:
                gates[3]()

    async def main() -> None:
        async with Pool() as pool:
            handles = pool.start(owner), pool.start(other)
            await until(lambda: first.locked() and second.locked())
            gates[2].open()
            await in_line(first, 1)
            assert for_locks == {(handles[1], handles[0]): 1}
            # From here on the loop is blocked.
            gates[0].open()
            eventually(lambda: first.owner is handles[1])
            gates[1].open()
            eventually(lambda: len(second._line) or handles[0].done())
            assert for_locks and not handles[0].done()
            gates[3].open()
            eventually(lambda: not second.locked())

    asyncio.run(main())


def test_one_of_several(run: Run) -> None:
    """A holder that awaits the first of two is not in a circle with the other one, which wants its lock."""

    async def main() -> None:
        lock, gate = Lock(), Gate()

        @threadlet(contract=ON_WORKER)
        def wants() -> str:
            with lock:
                return "had it"

        @threadlet
        async def holder() -> str:
            async with lock:
                handles = wants(), threadlet(contract=ON_WORKER)(gate)()
                waits = asyncio.create_task(asyncio.wait(handles, return_when=asyncio.FIRST_COMPLETED))
                await in_line(lock, 1)
                gate.open()
                await waits
            return await handles[0]

        assert await holder() == "had it"
        await is_free(lock)

    run(main)


def test_many_in_the_same_order(run: Run) -> None:
    """However long the chain is: if all take two locks in the same order there is no circle."""

    async def main() -> None:
        one, two = Lock(), Lock()

        async def use() -> None:
            async with one, two:
                await asyncio.sleep(0)

        def use_on_thread() -> None:
            with one, two:
                pass

        parties = [threadlet(contract=ON_WORKER)(use_on_thread)() for _ in range(10)]
        await asyncio.gather(*parties, *[threadlet(use)() for _ in range(10)], *[use() for _ in range(10)])
        for lock in (one, two):
            await is_free(lock)

    run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_circle(run: Run, kind: str) -> None:
    """Who got the error may use all of it again, and so may the others."""

    async def main() -> None:
        lock = Lock()

        def use() -> None:
            for _ in range(3):
                with lock, pytest.raises(Deadlock):
                    lock.acquire()

        async def use_async() -> None:
            for _ in range(3):
                async with lock:
                    with pytest.raises(Deadlock):
                        await lock.acquire_async()

        if kind == "worker":
            await threadlet(contract=ON_WORKER)(use)()
        elif kind == "thread":
            await asyncio.to_thread(use)
        else:
            await (threadlet(use_async)() if kind == "coroutine" else asyncio.create_task(use_async()))
        for each in KINDS:
            await (await Party(lock, each).has_it()).gone()
        await is_free(lock)

    run(main)


def test_who_has_found_a_circle_waits_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """His wait is taken back before anybody else can look: he is on his way out, and closes no circle of others."""
    seen: list[bool] = []
    really = deadlocks._deadlock

    def tell(chain: list[Any]) -> Deadlock:
        seen.append(chain[0] in waiting)
        return really(chain)

    monkeypatch.setattr(deadlocks, "_deadlock", tell)
    lock = Lock()
    with lock, pytest.raises(Deadlock):
        lock.acquire()
    assert seen == [False]


FORKED = """
lock, other, held = threadlets.Lock(), threadlets.Lock(), threading.Event()

def wait():
    with other:
        held.set()
        lock.acquire()
        lock.release()

thread = threading.Thread(target=wait)
with lock:
    thread.start()
    held.wait()
    while not len(lock._line):
        time.sleep(0.001)
    with threadlets.deadlocks._mutex:
        child = os.fork()
    assert lock.owner == threading.get_ident()
    if child == 0:
        assert not threadlets.surroundings.waiting
        assert not other.acquire(timeout=0.01)  # its holder is not there
        try:
            lock.acquire()
        except threadlets.errors.Deadlock:
            lock.release()  # to nobody: who was in line is not there
            with lock:
                os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
thread.join()
print("done")
"""


@pytest.mark.parametrize("loop", ["hands"])
def test_after_a_fork(loop: str) -> None:
    """In the child who held a lock holds it, nobody else waits, and circles are found, whatever was locked."""
    ran = program(FORKED, loop, "-W", "ignore:.*fork.*:DeprecationWarning")
    assert (ran.stdout, ran.stderr, ran.returncode) == ("done\n", "", 0)
