"""Waits: whoever waits hands its urgency on, along every way of waiting, and takes it back when the wait ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.conftest import Run
from tests.support import eventually
from tests.waitings import LEAVING, STARTING, WAYS, all_of, join
from tests.workbench import ON_WORKER, Gate, forever, rounds, until
from threadlets import Concurrency, Pool, Threadlet, call_async, threadlet
from threadlets.homes import home_of
from threadlets.waits import Waits, is_wait
from threadlets.workers import WorkerGroup

OTHERS: dict[str, Callable[[], Pool]] = {"free": Pool, "throttled": lambda: Pool(Concurrency(100))}
ALL_WAYS = [*WAYS, *STARTING]
# In a task that a threadlet has started, nobody knows who that was, unless it has a place in a throttle.
IN_TASKS = {"gather_coroutines", "wait", "task_group", "anyio_group"}


def waits() -> Waits:
    return home_of(asyncio.get_running_loop()).waits


async def number(n: int) -> int:
    return n


def blocked() -> tuple[Pool, Threadlet[Any]]:
    """Make a pool of one place, which is taken."""
    pool = Pool(Concurrency(1))
    return pool, pool.start(forever)


async def empty(*pools: Pool) -> None:
    """Cancel everything, and see that nothing is left."""
    for pool in pools:
        pool._check()
        pool.cancel()
    for pool in pools:
        await pool.drain()
        pool._check()
    await rounds()
    assert len(waits()) == 0


async def one_after_the_other(main: Callable[[str], Coroutine[Any, Any, None]], ways: list[str]) -> None:
    for way in ways:
        await main(way)


def test_what_counts_as_a_wait() -> None:
    """Callbacks of the functions that wait are waits; those of others are not."""
    assert not is_wait(print) and not is_wait(lambda handle: None)
    assert is_wait(asyncio.gather)


@pytest.mark.parametrize("other", OTHERS)
def test_urgency_goes_along_every_way_of_waiting(run: Run, other: str) -> None:
    """What a threadlet waits for is as urgent as itself, whichever way it waits; its own priority is what it was."""

    async def main(way: str) -> None:
        (pool, blocker), others = blocked(), OTHERS[other]()

        async def wait() -> list[int]:
            return await all_of(way, pool, number, [7], priority=9)

        waiter = others.start(wait, priority=1)
        await until(lambda: len(pool) == 2)
        await rounds()
        (handle,) = pool.select(entrypoint=number)
        assert (handle.priority, handle.effective_priority) == (9, 1), way
        pool._check()
        blocker.cancel()
        assert await waiter == [7]
        assert (handle.priority, handle.effective_priority) == (9, 9), way
        await empty(pool, others)

    run(one_after_the_other, main, [way for way in ALL_WAYS if other == "throttled" or way not in IN_TASKS])


def test_urgency_goes_through_call_async(run: Run) -> None:
    """A function on a worker that waits by call_async hands its urgency on, whichever way the async function waits."""

    async def main(way: str) -> None:
        pool, blocker = blocked()

        @threadlet(contract=ON_WORKER)
        def wait() -> list[int]:
            async def options() -> list[int]:
                return await all_of(way, pool, number, [7], priority=9)

            return call_async(options)

        others = Pool(Concurrency(3))
        waiter = others.start(wait, priority=1)
        await until(lambda: len(pool) == 2)
        await rounds()
        (handle,) = pool.select(entrypoint=number)
        assert (handle.priority, handle.effective_priority) == (9, 1), way
        blocker.cancel()
        assert await waiter == [7]
        await empty(pool, others)

    run(one_after_the_other, main, ALL_WAYS)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("end", ["cancelled", "timed out", "failed"])
def test_urgency_is_taken_back_when_the_wait_ends(run: Run, end: str, other: str) -> None:
    """A wait that ends before the other threadlet does leaves it with its own priority, in its place in the queue."""

    async def main(way: str) -> None:
        (pool, _), others = blocked(), OTHERS[other]()
        handle = pool.start(number, 7, priority=9)
        left = asyncio.Event()

        async def wait() -> None:
            try:
                async with asyncio.timeout(0.001 if end == "timed out" else None):
                    if end == "failed":
                        async with asyncio.TaskGroup() as group:
                            group.create_task(really_wait())
                            group.create_task(fail())
                    else:
                        await really_wait()
            except* (TimeoutError, asyncio.CancelledError, ZeroDivisionError):
                left.set()
                await forever()

        async def really_wait() -> None:
            if way == "drain":
                await pool.drain()
            elif way == "as_completed":
                for each in asyncio.as_completed([handle]):
                    await each
            else:
                await WAYS[way]([handle])

        async def fail() -> None:
            await rounds(3)
            raise ZeroDivisionError

        waiter = others.start(wait, priority=1)
        if end != "timed out":
            await until(lambda: handle.effective_priority == 1)
        if end == "cancelled":
            waiter.cancel()
        await left.wait()
        await rounds()
        if way != "as_completed":  # it goes on to listen, for whoever asks for the next one
            assert (handle.priority, handle.effective_priority) == (9, 9), way
        assert not handle.done()
        await empty(pool, others)
        assert (handle.priority, handle.effective_priority) == (9, 9), way

    if (end, other) != ("failed", "free"):  # there the threadlet waits in tasks of its own
        run(one_after_the_other, main, [*LEAVING, "drain", "as_completed"])


@pytest.mark.parametrize("way", ["task", "gather", "drain"])
def test_a_waiter_that_ends_first_takes_back_all_that_it_handed_on(run: Run, way: str) -> None:
    """Who was hurried itself and ends while a wait of its own goes on, leaves the others as they were."""

    async def main() -> None:
        (pool, _), others = blocked(), Pool(Concurrency(9))
        handle = pool.start(number, 7, priority=9)
        kept: list[asyncio.Future[Any]] = []

        async def middle() -> None:
            if way == "task":
                kept.append(asyncio.create_task(asyncio.wait([handle])))
            elif way == "gather":
                kept.append(asyncio.gather(handle, return_exceptions=True))
            else:
                kept.append(asyncio.create_task(pool.drain()))
            await rounds(5)

        hurried = others.start(middle, priority=5)
        outer = others.start(join, hurried, priority=1)
        await rounds(3)
        assert handle.effective_priority == hurried.effective_priority == 1
        pool._check()
        await outer
        assert (handle.priority, handle.effective_priority) == (9, 9)
        await empty(pool, others)
        await asyncio.wait(kept)

    run(main)


def test_urgency_goes_down_a_chain_and_a_tree(run: Run) -> None:
    """It reaches whatever is waited for in turn, follows every change at the top, and the most urgent one counts."""

    async def main() -> None:
        (pool, _), others = blocked(), Pool()
        last = pool.start(number, 7, priority=99)
        chain = [others.start(join, last, priority=50)]
        for _ in range(60):
            chain.append(others.start(join, chain[-1], priority=50))
        second = others.start(join, chain[30], priority=20)
        await rounds()
        assert last.effective_priority == chain[0].effective_priority == 20
        chain[-1].priority = 10
        assert {handle.effective_priority for handle in [last, *chain]} == {10}
        assert {handle.priority for handle in chain[:-1]} == {50} and chain[-1].priority == 10
        chain[-1].priority = 70
        assert [chain[60].effective_priority, chain[40].effective_priority, chain[9].effective_priority] == [70, 50, 20]
        last.priority = 5
        assert (last.priority, last.effective_priority) == (5, 5)
        last.priority = 30
        assert (last.priority, last.effective_priority) == (30, 20)
        second.priority = 40
        assert (last.priority, last.effective_priority) == (30, 30)
        others._check()
        last.priority = 99
        assert last.effective_priority == 40
        await empty(others, pool)

    run(main)


def test_one_that_waits_twice_has_to_stop_twice(run: Run) -> None:
    """Several waits of one threadlet for the same one count as several."""

    async def main() -> None:
        (pool, _), others = blocked(), Pool(Concurrency(3))
        handle = pool.start(number, 7, priority=9)
        tasks: list[asyncio.Task[Any]] = []

        async def wait() -> None:
            tasks.extend(asyncio.ensure_future(WAYS["shield"]([handle])) for _ in range(3))
            await forever()

        others.start(wait, priority=1)
        await rounds()
        for left in (2, 1, 0):
            assert handle.effective_priority == 1
            tasks[left].cancel()
            await rounds()
        assert handle.effective_priority == 9
        await empty(pool, others)

    run(main)


def test_the_order_of_start_is_that_of_what_counts(run: Run) -> None:
    """A queued threadlet starts by the urgency it inherits, and by its own again after the wait."""

    async def main() -> None:
        order: list[int] = []

        async def note(n: int) -> None:
            order.append(n)

        (pool, blocker), others = blocked(), Pool()
        handles = [pool.start(note, n, priority=n) for n in range(6)]
        waiter = others.start(WAYS["shield"], handles[5:], priority=-2)
        others.start(WAYS["gather"], handles[3:5], priority=-1)
        brief = others.start(WAYS["shield"], handles[1:2], priority=-9)
        await rounds()
        brief.cancel()
        await rounds()
        pool._check()
        blocker.cancel()
        await waiter
        await pool.drain()
        assert order == [5, 3, 4, 0, 1, 2]
        await empty(pool, others)

    run(main)


def test_it_counts_for_workers_and_deliveries(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a worker goes by what it inherits, and so does what has ended while the loop was busy."""
    gate = Gate()
    order: list[int] = []
    told: list[int] = []

    @threadlet(contract=ON_WORKER)
    def step(n: int) -> int:
        if n == 0:
            gate()
        order.append(n)
        return n

    monkeypatch.setattr(step, "workers", WorkerGroup("one", limit=1, idle_seconds=0))

    async def main() -> None:
        pool, others = Pool(), Pool()
        handles = [pool.start(step, n, priority=n) for n in range(5)]
        for handle in handles:
            handle.add_done_callback(lambda handle: told.append(handle.result()))
        gate.wait_arrived()
        others.start(WAYS["each"], handles[4:], priority=-1)
        await rounds()
        assert handles[4].effective_priority == -1
        mailbox = home_of(asyncio.get_running_loop()).mailbox
        gate.open()
        eventually(lambda: len(mailbox._letters) == 5)  # the loop is kept from going round
        await pool.drain()
        await rounds()
        assert order == [0, 4, 1, 2, 3]
        assert told == [4, 0, 1, 2, 3]
        await empty(pool, others)

    run(main)


def test_who_waits_for_itself_or_has_ended_waits_for_nothing(run: Run) -> None:
    """A task that outlives the threadlet that started it hands nothing on; nor does a drain of one's own pool."""

    async def main() -> None:
        (pool, _), others = blocked(), Pool(Concurrency(2))
        handle = pool.start(number, 7, priority=9)
        tasks: list[asyncio.Task[Any]] = []

        async def leave_behind() -> None:
            async def later() -> None:
                await rounds(5)
                await WAYS["shield"]([handle])

            tasks.append(asyncio.create_task(later()))

        await others.start(leave_behind, priority=1)
        own = others.start(others.drain)
        await rounds()
        assert handle.effective_priority == 9 and own.effective_priority == 0
        assert len(waits()) == 0
        await empty(pool, others)
        await asyncio.wait(tasks)

    run(main)


def test_one_that_is_moved_away_is_not_hurried_by_a_drain(run: Run) -> None:
    """Who drains a pool waits for what is in it: what is moved out loses that urgency, what is moved in gets it."""

    async def main() -> None:
        (pool, _), (target, _), others = blocked(), blocked(), Pool()
        handle = pool.start(number, 7, priority=9)
        others.start(pool.drain, priority=1)
        await rounds()
        assert handle.effective_priority == 1
        assert pool.select(entrypoint=number).move(target) == 1
        assert handle.effective_priority == 9
        assert target.select(entrypoint=number).move(pool) == 1
        assert handle.effective_priority == 1
        await empty(pool, target, others)

    run(main)
