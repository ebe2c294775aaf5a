"""Coroutines that go on on another event loop."""

from __future__ import annotations

import asyncio
import threading
import traceback
from typing import Any

import pytest

from tests.conftest import Run
from tests.travels import NODE, in_worker, nothing_is_left
from threadlets import (
    Lock,
    current_threadlet,
    migrate,
    new_event_loop,
    offload,
    threadlet,
)

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
