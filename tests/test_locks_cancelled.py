"""Waits for a lock that end before they have it: cancelled or out of time, at every moment; and the bugs of others.

Each of the known bugs is named where it is tested for. What they have in common: for a while a lock, or a token, is on
its way to somebody, and nobody has it.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import CancelledError
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Run
from tests.lockers import LOCAL, Party, in_line, is_free
from tests.workbench import ON_WORKER, PATIENCE, Gate, ended, rounds, until
from threadlets import Lock, holding, threadlet
from threadlets.cancellation import holds
from threadlets.deadlocks import for_locks
from threadlets.surroundings import waiting
from threadlets.waits import in_line as waiters_in_line


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """See that nothing is known any more of those that held locks, or waited for them."""
    yield
    assert not holds and not waiting and not for_locks and not waiters_in_line


@pytest.mark.parametrize("kind", LOCAL)
def test_cancelled_in_line(run: Run, kind: str) -> None:
    """Who is cancelled leaves the line; those behind him get the lock as if he had not come."""

    async def main() -> None:
        lock = Lock()
        holder = await Party(lock, "task").has_it()
        parties = []
        for number, each in enumerate(("thread", kind, "worker")):
            parties.append(Party(lock, each))
            await in_line(lock, number + 1)
        first, second, third = parties
        second.future.cancel("enough")
        error = await second.ended()
        assert isinstance(error, CancelledError) and error.args == ("enough",)
        assert len(lock._line) == 2
        lock._check()
        await holder.gone()
        await (await first.has_it()).gone()
        await (await third.has_it()).gone()
        assert not second.has
        await is_free(lock)

    run(main)


def test_cancelled_in_a_region(hands: Run) -> None:
    """A task that waits in ``with blocking()`` is told there, although its cancel wakes nobody."""

    async def main() -> None:
        lock = Lock()
        holder = await Party(lock, "task").has_it()
        party = Party(lock, "region")
        await in_line(lock, 1)
        party.future.cancel()
        assert isinstance(await party.ended(), CancelledError)
        await holder.gone()
        await is_free(lock)

    hands(main)


def test_asked_before_it_waits(run: Run) -> None:
    """To acquire is a checkpoint on a thread, also if the lock is free; but not in ``holding``."""

    async def main() -> None:
        lock, gate = Lock(), Gate()
        passed: list[int] = []

        @threadlet(contract=ON_WORKER)
        def work() -> None:
            gate()
            with holding("something"), lock:
                passed.append(1)
            with lock:
                passed.append(2)

        handle = work()
        await until(lambda: handle.state == "running")
        handle.cancel("before")
        gate.open()
        error = await ended(handle)
        assert isinstance(error, CancelledError) and error.args == ("before",) and passed == [1]
        await is_free(lock)

    run(main)


@pytest.mark.parametrize("kind", ["coroutine", "task"])
def test_a_timeout_in_a_coroutine(run: Run, kind: str) -> None:
    """``asyncio.timeout`` ends the wait, and the lock goes past."""

    async def main() -> None:
        lock = Lock()

        async def wait() -> str:
            try:
                async with asyncio.timeout(0.001), lock:
                    return "had it"
            except TimeoutError:
                return "out of time"

        async with lock:
            assert await (threadlet(wait)() if kind == "coroutine" else asyncio.create_task(wait())) == "out of time"
        await is_free(lock)

    run(main)


# ------------------------------------------------------------------------------------------- between grant and wake


@pytest.mark.parametrize("kind", ["coroutine", "task"])
@pytest.mark.parametrize("first", ["cancel", "release"])
def test_cancelled_as_it_is_released(run: Run, kind: str, first: str) -> None:
    """In one step of the loop he is cancelled and the lock is given to him, in either order: the next one gets it.

    (bpo-27585, ``asyncio.Lock``: "if the waiter who is about to take the lock is cancelled" nobody else was woken.)
    """

    async def main() -> None:
        lock = Lock()
        await lock.acquire_async()
        party, next_one = Party(lock, kind), Party(lock, "task")
        await in_line(lock, 2)
        if first == "cancel":
            party.future.cancel()
        lock.release()
        party.future.cancel()
        assert isinstance(await party.ended(), CancelledError) and not party.has
        await next_one.has_it()
        await next_one.gone()
        await is_free(lock)

    run(main)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_all_that_are_cancelled_after_a_release(run: Run, count: int) -> None:
    """It is handed on from one to the next as each is cancelled, and not lost at the last.

    (anyio#947, in its limiter: a token that was granted to a task which was cancelled in the same cycle was gone.)
    """

    async def main() -> None:
        lock = Lock()
        await lock.acquire_async()
        parties = [Party(lock, "task") for _ in range(count)]
        await in_line(lock, count)
        lock.release()
        for party in parties:
            party.future.cancel()
        for party in parties:
            assert isinstance(await party.ended(), CancelledError) and not party.has
        await is_free(lock)

    run(main)


def test_only_cancelled_ones_in_line(run: Run) -> None:
    """Who comes while those in line are cancelled, and have not run yet, gets the lock all the same.

    (anyio#1145: the line had cancelled tasks only, the lock was released, and who came then waited for ever.)
    """

    async def main() -> None:
        lock = Lock()
        await lock.acquire_async()
        party = Party(lock, "task")
        await in_line(lock, 1)
        late = Party(lock, "task")
        party.future.cancel()
        lock.release()
        await late.has_it()
        await late.gone()
        assert isinstance(await party.ended(), CancelledError)
        await is_free(lock)

    run(main)


def test_a_cancel_and_a_release_in_one_callback(run: Run) -> None:
    """Who waits behind a task that is cancelled as the lock is released does not get it together with another one.

    (bpo-32734, ``asyncio.Lock``: two tasks had it at the same time.)
    """

    async def main() -> None:
        lock = Lock()
        await lock.acquire_async()
        parties = [Party(lock, "task") for _ in range(3)]
        await in_line(lock, 3)
        parties[0].future.cancel()
        lock.release()
        await rounds()
        assert [party.has for party in parties] == [False, True, False]
        await parties[1].gone()
        await parties[2].has_it()
        await parties[2].gone()
        await is_free(lock)

    run(main)


def test_nobody_is_overtaken(run: Run) -> None:
    """Who asks again right after his release stands behind those that wait, every time.

    (gh-90155, ``asyncio.Semaphore``: a woken waiter and a newcomer could swap, and one was forgotten.)
    """
    got: list[str] = []

    async def main() -> None:
        lock = Lock()

        async def use(name: str) -> None:
            for _ in range(5):
                async with lock:
                    got.append(name)
                    await asyncio.sleep(0)

        await asyncio.gather(*map(use, "abc"))
        await is_free(lock)

    run(main)
    assert got == list("abc" * 5)


def test_a_cancel_that_is_on_its_way(run: Run) -> None:
    """A cancel from another thread may arrive after the grant: a coroutine hands the lock on, a worker keeps it.

    another thread: cancels, which is told to the loop
    the loop: the lock is released, and given to him
    the loop: is told
    """

    async def main() -> None:
        for kind, has in (("coroutine", False), ("worker", True)):
            lock = Lock()
            await lock.acquire_async()
            party = Party(lock, kind)
            await in_line(lock, 1)
            thread = threading.Thread(target=party.future.cancel)
            thread.start()
            thread.join(PATIENCE)  # the loop is blocked meanwhile, and has not been told
            lock.release()
            if has:
                await party.has_it()
            party.go()
            assert isinstance(await party.ended(), CancelledError)
            assert party.has == has
            await is_free(lock)

    run(main)


# --------------------------------------------------------------------------------------------------- on a thread


@pytest.mark.parametrize("ours", [True, False])
def test_a_cancelled_wait_on_a_worker(ours: bool) -> None:
    """A wait on a worker that is cancelled leaves the lock free.

    (The live bug of many programs: ``await loop.run_in_executor(None, lock.acquire)`` is cancelled, the thread waits
    on, takes a ``threading.Lock``, and nobody releases it. That is shown here, too.)
    """

    async def main() -> None:
        lock: Any = Lock() if ours else threading.Lock()
        began = threading.Event()

        def wait() -> None:
            began.set()
            lock.acquire()

        thread = threading.Thread(target=lambda: (lock.acquire(), gate(), lock.release()))
        gate = Gate()
        thread.start()
        gate.wait_arrived()
        future: Any = threadlet(contract=ON_WORKER)(wait)() if ours else None
        if not ours:
            future = asyncio.get_running_loop().run_in_executor(None, wait)
        await asyncio.to_thread(began.wait)
        if ours:
            await in_line(lock, 1)
        future.cancel()
        with pytest.raises(CancelledError):
            await future
        gate.open()
        await asyncio.to_thread(thread.join)
        if ours:
            await is_free(lock)
        else:
            await asyncio.get_running_loop().shutdown_default_executor()
            assert lock.locked()

    asyncio.run(main())
