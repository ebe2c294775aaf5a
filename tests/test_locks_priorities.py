"""Priorities: who gets a lock first, and how urgent its holder is meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Run
from tests.lockers import LOCAL, Party, Step, in_line, is_free
from tests.support import eventually
from tests.workbench import ON_WORKER, PATIENCE, Gate, rounds, until
from threadlets import Concurrency, Lock, Pool, Threadlet, threadlet
from threadlets.cancellation import holds
from threadlets.deadlocks import for_locks
from threadlets.surroundings import waiting
from threadlets.waits import in_line as waiters_in_line

PLAIN = ["worker", "coroutine"]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """See that nothing is known any more of those that held locks, or waited for them."""
    yield
    assert not holds and not waiting and not for_locks and not waiters_in_line


class Line:
    """A lock of a holder, and those that wait for it: each with a priority."""

    def __init__(self, kind: str, priority: float = 9) -> None:
        self.lock = Lock()
        self.pool = Pool()
        self.holder = Party(self.lock, kind, pool=self.pool, priority=priority)
        self.got: list[float] = []

    async def join(self, kind: str, priority: float) -> Party:
        """Have one more wait."""
        count = len(self.lock._line)
        party = Party(
            self.lock, kind, pool=self.pool, priority=priority, inside=lambda: self.got.append(party.future.priority)
        )
        await in_line(self.lock, count + 1)
        self.pool._check()
        return party

    @property
    def urgency(self) -> float:
        """How urgent the holder is."""
        return self.holder.future.effective_priority  # type: ignore[no-any-return]

    async def end(self, *parties: Party) -> None:
        """Have everybody get it and go."""
        for party in (self.holder, *parties):
            party.go()
        for party in (self.holder, *parties):
            await party.ended()
        await is_free(self.lock)
        await rounds()
        self.pool._check()


@pytest.mark.parametrize("kind", PLAIN)
def test_the_most_urgent_first(run: Run, kind: str) -> None:
    """It goes to the most urgent one, and among equals to the first."""

    async def main() -> None:
        line = Line("task")
        await line.holder.has_it()
        parties = [await line.join(kind, priority) for priority in (5, 1, 5, -3, 0)]
        task = Party(line.lock, "task", inside=lambda: line.got.append(0.5))
        await in_line(line.lock, 6)
        await line.end(*parties, task)
        assert line.got == [-3, 0, 0.5, 1, 5, 5]

    run(main)


@pytest.mark.parametrize("holder", PLAIN)
@pytest.mark.parametrize("kind", PLAIN)
def test_a_holder_is_as_urgent_as_who_waits(run: Run, holder: str, kind: str) -> None:
    """The most urgent of those that wait counts, and no longer than it waits; the holder's own priority stays."""

    async def main() -> None:
        line = Line(holder)
        await line.holder.has_it()
        assert line.urgency == 9
        seven = await line.join(kind, 7)
        assert line.urgency == 7
        twenty = await line.join(kind, 20)
        assert line.urgency == 7
        three = await line.join(kind, 3)
        assert line.urgency == 3 and line.holder.future.priority == 9
        three.future.cancel()
        await three.ended()
        await in_line(line.lock, 2)
        assert line.urgency == 7
        seven.future.cancel()
        await seven.ended()
        await in_line(line.lock, 1)
        assert line.urgency == 9
        await line.end(twenty)

    run(main)


@pytest.mark.parametrize("kind", PLAIN)
def test_the_next_holder_is_hurried_by_the_others(run: Run, kind: str) -> None:
    """Who gets the lock is as urgent as those behind him; who has released it is so no more."""

    async def main() -> None:
        line = Line(kind, 20)
        await line.holder.has_it()
        first = await line.join(kind, 1)
        second = await line.join(kind, 5)
        assert line.urgency == 1
        second.future.priority = 0  # he comes first now
        await until(lambda: line.urgency == 0)
        second.future.priority = 5
        await until(lambda: line.urgency == 1)
        await line.holder.gone()
        await first.has_it()
        await until(lambda: not line.lock._posted)
        assert line.urgency == 20
        first.future.priority = 8
        await until(lambda: first.future.effective_priority == 5)
        await line.end(first, second)
        assert line.got == [8, 5] or line.got == [1, 5]

    run(main)


@pytest.mark.parametrize("kind", PLAIN)
def test_along_a_chain(run: Run, kind: str) -> None:
    """The holder of a lock that a holder waits for is hurried, too, and calmed with him."""

    async def main() -> None:
        one, two, gate, go = Lock("one"), Lock("two"), Gate(), asyncio.Event()

        def on_thread() -> None:
            with two:
                gate()
                with one:
                    pass

        async def in_task() -> None:
            async with two:
                await go.wait()
                async with one:
                    pass

        async with Pool() as pool:
            last = await Party(one, kind, pool=pool, priority=9).has_it()
            start: Any = threadlet(contract=ON_WORKER)(on_thread) if kind == "worker" else threadlet(in_task)
            middle = pool.start(start, priority=5)
            await until(two.locked)
            first = Party(two, kind, pool=pool, priority=1)
            await in_line(two, 1)
            assert middle.effective_priority == 1 and last.future.effective_priority == 9
            gate.open()
            go.set()
            await in_line(one, 1)
            assert last.future.effective_priority == 1
            second = Party(one, kind, pool=pool, priority=2)  # behind the one that is hurried
            await in_line(one, 2)
            assert one._line.first().owner is middle  # type: ignore[union-attr]
            first.future.cancel()
            await first.ended()
            await until(lambda: middle.effective_priority == 5)
            assert one._line.first().owner is second.future  # type: ignore[union-attr]
            await until(lambda: last.future.effective_priority == 2)
            pool._check()
            second.go()
            await last.gone()

    run(main)


@pytest.mark.parametrize("kind", LOCAL)
def test_what_the_holder_awaits_is_hurried(run: Run, kind: str) -> None:
    """A queued threadlet that the holder of a lock awaits starts before more urgent ones, for the sake of who waits."""
    started: list[str] = []

    async def main() -> None:
        lock, gate = Lock(), Gate()
        pool = Pool(Concurrency(1))

        @threadlet(contract=ON_WORKER)
        def block() -> None:
            gate()

        @threadlet
        async def step(name: str) -> None:
            started.append(name)

        async def hold() -> None:
            async with lock:
                await pool.start(step, "awaited", priority=9)

        blocker = pool.start(block)
        other = pool.start(step, "other", priority=5)
        holder = Pool().start(threadlet(hold), priority=9)
        waits = Party(lock, kind, pool=holder.pool, priority=0)
        await in_line(lock, 1)
        gate.open()
        await blocker
        await asyncio.wait([other, holder])
        await waits.gone()

    run(main)
    assert started == (["awaited", "other"] if kind != "task" else ["other", "awaited"])


def test_a_place_that_who_waits_lends(run: Run) -> None:
    """What the holder awaits may start in the place of one who waits for the lock: or it would be for ever."""

    async def main() -> None:
        lock, entered = Lock(), asyncio.Event()
        pool = Pool(Concurrency(1))

        async def nothing() -> str:
            return "started"

        async def hold() -> str:
            async with lock:
                entered.set()
                await in_line(lock, 1)
                return await pool.start(nothing)

        async def wait() -> None:
            await entered.wait()
            async with lock:
                pass

        waits = pool.start(wait)
        assert await Pool().start(hold) == "started"
        await waits
        pool._check()

    run(main)


@pytest.mark.parametrize("kind", PLAIN)
def test_behind_one_that_is_no_threadlet(run: Run, kind: str) -> None:
    """If a task is first in line, the most urgent of the threadlets behind it counts."""

    async def main() -> None:
        line = Line(kind)
        await line.holder.has_it()
        task = Party(line.lock, "task")
        await in_line(line.lock, 1)
        assert line.urgency == 9
        parties = [await line.join(kind, priority) for priority in (5, 3, 8)]
        assert line.urgency == 3
        await line.end(task, *parties)
        assert line.got == [3, 5, 8]

    run(main)


def test_two_loops() -> None:
    """Those of another loop wait in the same order; but only its own loop makes a holder hurry."""
    lock, ready, order = Lock(), threading.Event(), list[float]()

    async def other() -> None:
        async with Pool() as pool:
            parties = [
                Party(
                    lock,
                    "worker",
                    pool=pool,
                    priority=priority,
                    inside=lambda priority=priority: order.append(priority),
                )  # type: ignore[misc]
                for priority in (4, 2)
            ]
            await until(lambda: len(lock._line) == 2)
            ready.set()
            for party in parties:
                party.go()

    async def main() -> None:
        async with Pool() as pool:
            holder = await Party(lock, "coroutine", pool=pool, priority=9).has_it()
            thread = threading.Thread(target=asyncio.run, args=(other(),))
            thread.start()
            await until(ready.is_set)
            party = Party(lock, "worker", pool=pool, priority=3, inside=lambda: order.append(3))
            await in_line(lock, 3)
            assert holder.future.effective_priority == 3
            party.go()
            await holder.gone()
            await party.ended()
            await asyncio.to_thread(thread.join)
            await is_free(lock)

    asyncio.run(main())
    assert order == [2, 3, 4]


def test_changed_at_every_step_into_the_line() -> None:
    """A priority that changes while its threadlet joins the line is not missed, wherever that is."""

    async def at_step(number: int) -> bool:
        lock, pool = Lock(), Pool()
        holder = await Party(lock, "thread").has_it()
        first = Party(lock, "worker", pool=pool, priority=5)
        await in_line(lock, 1)
        step = Step(number, "locks", "parking")

        def late() -> None:
            with step:
                lock.acquire()
            lock.release()

        handle: Threadlet[None] = pool.start(threadlet(contract=ON_WORKER)(late), priority=9)
        await until(lambda: step.arrived.is_set() or len(lock._line) == 2)
        if lock._mutex.locked():
            step.go()  # what comes now has to wait for it
        handle.priority = 1
        step.go()
        await in_line(lock, 2)
        assert lock._line.first().owner is handle  # type: ignore[union-attr]
        await holder.gone()
        await handle
        await first.gone()
        await is_free(lock)
        return step.came

    number = 1
    while asyncio.run(at_step(number)):
        number += 1
    assert number > 20


@pytest.mark.parametrize("kind", ["coroutine", "task"])
@pytest.mark.parametrize("heard", [True, False])
def test_a_holder_keeps_no_callbacks(heard: bool, kind: str) -> None:
    """However often others wait for one that lives long: nothing is left with it.

    Its loop hears of each of them before the lock is released, or only afterwards, when there is nothing to watch for.
    """

    async def main() -> None:
        lock = Lock()

        def use() -> None:
            with lock:
                pass

        async def hold() -> int:
            await asyncio.sleep(0)
            for _ in range(3):
                thread = threading.Thread(target=use)
                async with lock:
                    owner: Any = lock.owner
                    thread.start()
                    if heard:
                        await in_line(lock, 1)
                        assert lock._noted
                    else:
                        eventually(lambda: len(lock._line))
                thread.join(PATIENCE)
                assert heard or lock._posted
                await until(lambda: not lock._posted)
            return owner.remove_done_callback(lock._owner_ended)  # type: ignore[no-any-return]

        assert await (threadlet(hold)() if kind == "coroutine" else asyncio.create_task(hold())) == 0
        await is_free(lock)

    asyncio.run(main())
