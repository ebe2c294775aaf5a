"""Coroutines that go on on another event loop."""

from __future__ import annotations

import asyncio
import threading
import traceback
from typing import Any

import pytest

from tests.conftest import Run
from tests.travels import NODE, in_worker, nothing_is_left
from tests.workbench import until
from threadlets import (
    Lock,
    current_threadlet,
    migrate,
    new_event_loop,
    offload,
    threadlet,
)
from threadlets.surroundings import trips

__all__ = ["nothing_is_left"]


# --------------------------------------------------------------------------------------------------- other event loops


def test_on_the_loop_of_a_node(run: Run) -> None:
    """After migrate() that loop is the running one: what is awaited belongs there, and all of asyncio works."""

    async def main() -> None:
        home, thread = asyncio.get_running_loop(), threading.get_ident()
        name = asyncio.current_task().get_name()  # type: ignore[union-attr]
        await migrate(NODE)
        assert asyncio.get_running_loop() is NODE.loop() and threading.get_ident() != thread
        assert asyncio.current_task().get_name() == name  # type: ignore[union-attr]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(20)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.sleep(0.001, 5))
        assert task.result() == 5
        async with offload() as away:
            assert in_worker()
            async with away.home():
                assert asyncio.get_running_loop() is home
            assert in_worker()
        assert asyncio.get_running_loop() is NODE.loop()
        await migrate(home)
        assert asyncio.get_running_loop() is home
        await migrate(home)
        await migrate(None)

    run(main)


def test_a_coroutine_may_end_elsewhere(run: Run) -> None:
    """Its result, or what it raises, or that it was cancelled, is its task's all the same."""

    async def ends(how: str) -> Any:
        await migrate(NODE)
        await asyncio.sleep(0)
        handle = current_threadlet()
        if how == "fails":
            raise KeyError("elsewhere")
        if how == "is cancelled":
            asyncio.current_task().cancel("by itself")  # type: ignore[union-attr]
            await asyncio.sleep(0)
        return handle

    async def main() -> None:
        for start in (threadlet(ends), lambda how: asyncio.create_task(ends(how))):
            returns, fails, cancelled = (start(how) for how in ("returns", "fails", "is cancelled"))
            assert await returns is (returns if not isinstance(returns, asyncio.Task) else None)
            try:
                await fails
            except KeyError as error:
                names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
            assert names[0] == "main" and names[-1] == "ends" and not {"send", "_step"} & set(names)
            with pytest.raises(asyncio.CancelledError, match="by itself"):
                await cancelled
            assert cancelled.cancelled()

    run(main)


def test_a_cancel_reaches_a_coroutine_on_another_loop(run: Run) -> None:
    """It is told at its await there, and asyncio.timeout at home counts it once."""

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await migrate(NODE)
                try:
                    await asyncio.sleep(20)
                finally:
                    assert asyncio.get_running_loop() is NODE.loop()
                    await migrate(None)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    run(main)


def test_a_lock_across_loops(run: Run) -> None:
    """A coroutine that holds a lock holds it wherever it is, whichever side has taken it."""
    lock = Lock()

    async def main() -> None:
        await migrate(NODE)
        async with lock:
            await migrate(None)
            assert lock.locked()
        async with lock:
            await migrate(NODE)
        await migrate(None)
        assert not lock.locked()

    run(main)


def test_two_loops_send_each_other_coroutines(run: Run) -> None:
    """Coroutines of two loops, each in a thread of its own, change places all the time."""
    other = new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()

    async def back_and_forth(there: asyncio.AbstractEventLoop, number: int) -> int:
        here = asyncio.get_running_loop()
        for _ in range(10):
            await migrate(there)
            assert asyncio.get_running_loop() is there
            await asyncio.sleep(0)
            await migrate(here)
            assert asyncio.get_running_loop() is here
        return number

    async def main() -> None:
        loop = asyncio.get_running_loop()
        theirs = [asyncio.run_coroutine_threadsafe(back_and_forth(loop, each), other) for each in range(10)]
        mine = [asyncio.create_task(back_and_forth(other, each)) for each in range(10)]
        assert await asyncio.gather(*mine) == list(range(10))
        assert await asyncio.gather(*map(asyncio.wrap_future, theirs)) == list(range(10))

    try:
        run(main)
    finally:
        other.call_soon_threadsafe(other.stop)
        thread.join()
        other.close()


def test_cancels_are_counted_on_both_sides(run: Run) -> None:
    """A timeout that was entered at home ends on the other loop; and neither side has a cancel left over."""

    async def fails() -> None:
        raise KeyError

    async def main() -> None:
        home = asyncio.current_task()
        assert home is not None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.003):
                await migrate(NODE)
                await asyncio.sleep(20)
        there = asyncio.current_task()
        assert there is not None and there is not home and there.cancelling() == home.cancelling() == 0
        for _ in range(2):  # where a cancel left over would be raised instead
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(fails())
                    await asyncio.sleep(20)
            await migrate(None)
        assert home.cancelling() == 0

    run(main)


def test_one_takes_back_a_cancel_of_the_other_side(run: Run) -> None:
    """uncancel() on the other loop is for what was asked at home."""

    async def stubborn() -> list[int]:
        await migrate(NODE)
        task = asyncio.current_task()
        assert task is not None
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            counts = [task.cancelling(), task.uncancel()]
        task.cancel()
        counts.append(task.cancelling())
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(20)
        counts.append(task.uncancel())
        await migrate(None)
        return counts

    async def main() -> None:
        task = asyncio.create_task(stubborn())
        await until(lambda: any(trip.underway for trip in trips))
        task.cancel()
        assert await task == [1, 0, 1, 0] and task.cancelling() == 0

    run(main)


def test_its_other_loop_is_closed(run: Run) -> None:
    """Nobody drives it there any more: a cancel is told at home."""
    other = new_event_loop()

    async def visits() -> None:
        try:
            await migrate(other)
            await asyncio.sleep(20)
        finally:
            assert asyncio.get_running_loop() is not other

    async def main() -> None:
        thread = threading.Thread(target=other.run_forever)
        thread.start()
        task = asyncio.create_task(visits())
        await until(lambda: any(trip.underway for trip in trips))
        other.call_soon_threadsafe(other.stop)
        thread.join()
        other.close()
        task.cancel("no more")
        with pytest.raises(asyncio.CancelledError, match="no more"):
            await task

    run(main)
    assert other.is_closed()
