"""Backpressure: ``await pool.room()`` wakes who waits, one for each place, whatever becomes of who was woken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import IN_PLACE, forever, rounds, until
from threadlets import Concurrency, Pool, threadlet
from threadlets.errors import PoolFull

identity = threadlet(contract=IN_PLACE)(lambda value: value)


def test_room_returns_at_once_if_there_is_some(run: Run) -> None:
    """Without a capacity, or below it, nobody waits, not even for one round of the loop."""

    async def main() -> None:
        for pool in (Pool(), Pool(capacity=1)):
            with pytest.raises(StopIteration):
                pool.room().send(None)

    run(main)


def test_room_is_waited_for(run: Run) -> None:
    """A producer that waits for room fills the pool to its capacity, never beyond, and never meets PoolFull."""

    async def main() -> None:
        most = 0
        pool = Pool(Concurrency(2), capacity=4)
        for _ in range(50):
            await pool.room()
            pool.start(asyncio.sleep, 0)
            most = max(most, len(pool))
        assert most == 4
        await pool.drain()
        assert pool.statistics().done == 50

    run(main)


def test_each_place_wakes_one(run: Run) -> None:
    """Waiters are served in the order in which they came, one for each place; the others go on waiting."""

    async def main() -> None:
        pool = Pool(capacity=2)
        handles = [pool.start(forever), pool.start(forever)]
        order: list[int] = []

        async def produce(number: int) -> None:
            await pool.room()
            order.append(number)
            handles.append(pool.start(forever))

        tasks = [asyncio.create_task(produce(number)) for number in range(4)]
        await rounds()
        for left in range(4):
            assert order == list(range(left))
            handles[left].cancel()
            await rounds()
            assert len(pool) == 2
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3]
        await pool.aclose()

    run(main)


@pytest.mark.parametrize("use", ["start in place", "do nothing", "raise"])
def test_a_place_that_is_not_taken_goes_to_the_next(run: Run, use: str) -> None:
    """Whoever was woken and does not fill the place leaves it to the next: no producer waits beside an empty pool."""

    async def main() -> None:
        pool = Pool(capacity=1)
        blocker = pool.start(forever)

        async def produce(number: int) -> int:
            await pool.room()
            if use == "raise":
                raise ValueError(number)
            return await pool.start(identity, number) if use == "start in place" else number

        tasks = [asyncio.create_task(produce(number)) for number in range(5)]
        await rounds()
        blocker.cancel()
        await rounds(50)
        assert all(task.done() for task in tasks)
        results: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
        assert list(map(repr, results)) == [f"ValueError({n})" if use == "raise" else str(n) for n in range(5)]

    run(main)


WAYS: dict[str, Callable[[Any, Any], None]] = {
    # the task is cancelled while it waits, and the place becomes free in the same round: before or after
    "cancel, then free": lambda task, free: (task.cancel(), free()),  # type: ignore[dict-item]
    "free, then cancel": lambda task, free: (free(), task.cancel()),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("way", WAYS)
def test_a_cancelled_waiter_hands_on_its_wake_up(run: Run, way: str) -> None:
    """Cancelled in the round in which it is woken, a waiter ends with CancelledError, and the next gets the place."""
    # loop, one step:  task.cancel()    the waiter is cancelled, and the task's own step is scheduled
    #                  a place is free  the waiter in front is skipped, or has been woken already
    # loop, next:      the task gets CancelledError

    async def main() -> None:
        pool = Pool(Concurrency(1), capacity=2)
        pool.start(forever)
        queued = pool.start(forever)
        first, second = (asyncio.create_task(pool.room()) for _ in range(2))
        await rounds()
        WAYS[way](first, queued.cancel)
        await rounds()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert second.done()
        await second
        await pool.aclose()

    run(main)


def test_a_cancelled_waiter_leaves_no_trace(run: Run) -> None:
    """Waiters that are cancelled are forgotten, wherever they stand in the row."""

    async def main() -> None:
        pool = Pool(capacity=1)
        blocker = pool.start(forever)
        tasks = [asyncio.create_task(pool.room()) for _ in range(5)]
        await rounds()
        for task in (tasks[2], tasks[0], tasks[4]):
            task.cancel()
        await rounds()
        assert [task.done() for task in tasks] == [True, False, True, False, True]
        blocker.cancel()
        await until(tasks[1].done)
        await rounds(20)
        assert tasks[3].done()

    run(main)


def test_room_for_many_producers_and_cancels(run: Run) -> None:
    """Producers that are cancelled at any moment neither lose a place nor exceed the capacity."""

    async def main() -> None:
        pool = Pool(Concurrency(3), capacity=5)

        async def produce() -> None:
            for _ in range(20):
                await pool.room()
                try:
                    pool.start(asyncio.sleep, 0)
                except PoolFull:  # another one was faster, as the docstring of room() says
                    continue

        tasks = [asyncio.create_task(produce()) for _ in range(20)]
        for number, task in enumerate(tasks):
            await rounds(number % 3)
            if number % 2:
                task.cancel()
            assert len(pool) <= 5
        await asyncio.gather(*tasks, return_exceptions=True)
        await pool.drain()
        assert not pool._room_waiters
        pool._check()

    run(main)
