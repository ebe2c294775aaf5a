"""Blocks that a cancel does not break into: what holds it back, and for how long."""

from __future__ import annotations

import asyncio
import threading
from asyncio import CancelledError

import pytest

from tests.conftest import Run
from tests.workbench import ON_WORKER, Gate, ended, forever, rounds
from threadlets import Pool, Threadlet, checkpoint, current_threadlet, holding, threadlet
from threadlets.cancellation import holds, why


def test_holding_defers_a_cancel_on_a_thread(run: Run) -> None:
    """Checkpoints inside of the block do nothing; the first one behind the outermost block raises."""
    seen: list[str] = []

    async def main() -> None:
        gate, gates = Gate(), Gate()

        @threadlet(contract=ON_WORKER)
        def work() -> None:
            with holding("outer"):
                with holding("inner"):
                    gate()
                    checkpoint()
                    seen.append("inner")
                checkpoint()
                seen.append("outer")
            gates()
            checkpoint()
            seen.append("behind")

        handle = work()
        await asyncio.to_thread(gate.wait_arrived)
        handle.cancel("wait for it")
        assert why(handle) == "inside of holding('outer'), holding('inner')"
        gate.open()
        gates.open()
        error = await ended(handle)
        assert error is not None and error.args == ("wait for it",)
        assert seen == ["inner", "outer"]
        assert not holds

    run(main)


@pytest.mark.parametrize("way", ["handle", "awaiter", "pool", "deadline"])
def test_holding_defers_a_cancel_of_a_coroutine(run: Run, way: str) -> None:
    """Awaits inside of the block are not disturbed, whoever asks; the first one behind it raises."""
    seen: list[str] = []

    async def main() -> None:
        go = asyncio.Event()

        async def work() -> None:
            with holding("two writes"):
                await go.wait()
                seen.append("inside")
            await asyncio.sleep(0)
            seen.append("behind")

        async def wait(handle: Threadlet[None]) -> None:
            await handle

        pool = Pool()
        handle = pool.start(work)
        awaiter = asyncio.create_task(wait(handle))
        await rounds()
        if way == "handle":
            handle.cancel()
        elif way == "awaiter":
            awaiter.cancel()
        elif way == "pool":
            pool.cancel()
        else:
            handle.deadline = 0.0
            await asyncio.sleep(0.01)
        await rounds()
        assert handle.state == "missed" and not awaiter.done()
        go.set()
        with pytest.raises((CancelledError, TimeoutError)):
            await awaiter
        assert seen == ["inside"]
        assert not holds
        pool._check()

    run(main)


def test_what_its_own_code_asks_is_not_deferred(run: Run) -> None:
    """A timeout inside of the block ends its part of it, as it should."""

    async def main() -> None:
        @threadlet
        async def work() -> str:
            with holding("with a timeout"):
                try:
                    async with asyncio.timeout(0.001):
                        await forever()
                except TimeoutError:
                    return "in time"
            return "never"

        assert await work() == "in time"

    run(main)


def test_each_deferred_cancel_counts(run: Run) -> None:
    """After the block the task has been cancelled as often as it was asked, for ``uncancel`` and its like."""

    async def main() -> None:
        go = asyncio.Event()

        @threadlet
        async def work() -> int:
            with holding("a while"):
                await go.wait()
            task = asyncio.current_task()
            assert task is not None
            try:
                await asyncio.sleep(1)
            except CancelledError:
                pass
            return task.cancelling()

        handle = work()
        handle.cancel()
        handle.cancel()
        go.set()
        assert await handle == 2

    run(main)


def test_a_deferred_cancel_in_the_first_step(run: Run) -> None:
    """A coroutine that is asked to stop before it was ever suspended is told after its block."""

    async def main() -> None:
        seen = []

        @threadlet
        async def work() -> None:
            handle = current_threadlet()
            assert handle is not None
            with holding("from the beginning"):
                handle.cancel()
                await asyncio.sleep(0)
                seen.append("inside")
            await asyncio.sleep(0)
            seen.append("behind")

        assert isinstance(await ended(work()), CancelledError)
        assert seen == ["inside"]

    run(main)


def test_grace_on_a_thread(run: Run) -> None:
    """When the grace has run out, a checkpoint inside of the block raises."""

    async def main() -> None:
        forced = threading.Event()

        @threadlet(contract=ON_WORKER)
        def work() -> None:
            with holding("too long", grace=0.01):
                while True:
                    forced.set()
                    checkpoint()

        handle = work()
        await asyncio.to_thread(forced.wait)
        handle.cancel("now")
        error = await ended(handle)
        assert error is not None and error.args == ("now",)
        assert not holds

    run(main)


def test_grace_in_a_coroutine(run: Run) -> None:
    """When the grace has run out, the await inside of the block raises."""

    async def main() -> None:
        @threadlet
        async def work() -> None:
            with holding("too long", grace=0.01):
                await forever()

        handle = work()
        handle.cancel("now")
        error = await ended(handle)
        assert error is not None and error.args == ("now",)
        assert not holds

    run(main)


def test_the_grace_of_the_outermost_block_counts(run: Run) -> None:
    """An inner block with less patience does not let a cancel into the outer one."""

    async def main() -> None:
        go = asyncio.Event()
        seen = []

        @threadlet
        async def work() -> None:
            with holding("outer", grace=float("inf")), holding("inner", grace=0):
                await go.wait()
                seen.append("whole")

        handle = work()
        handle.cancel()
        await asyncio.sleep(0.01)
        assert not handle.done()
        go.set()
        assert isinstance(await ended(handle), CancelledError)  # as with any task that is asked and then returns
        assert seen == ["whole"]

    run(main)


def test_what_is_no_threadlet_is_not_protected(run: Run) -> None:
    """In a plain task ``holding`` does nothing."""

    async def main() -> None:
        async def work() -> None:
            with holding("in vain"):
                await forever()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(CancelledError):
            await task
        with holding("outside of everything"):
            pass
        assert not holds

    run(main)


def test_timers_end_with_the_block(run: Run) -> None:
    """A threadlet that has left its block is not kept by the timer of its grace."""

    async def main() -> None:
        gate = Gate()

        @threadlet(contract=ON_WORKER)
        def work() -> None:
            with holding("a while", grace=3600):
                gate()

        handle = work()
        await asyncio.to_thread(gate.wait_arrived)
        handle.cancel()
        hold = holds[handle]
        assert hold.timer is not None
        gate.open()
        await ended(handle)
        await rounds()
        assert hold.timer is None

    run(main)


def test_somebody_asks_again_and_again(run: Run) -> None:
    """Who asks in every round, as anyio does, does not fill the memory while a block lasts."""

    async def main() -> None:
        go = asyncio.Event()

        @threadlet
        async def work() -> None:
            with holding("a while"):
                await go.wait()
            await forever()

        handle = work()
        for _ in range(1000):
            handle.cancel()
        assert len(holds[handle].pending) < 100
        go.set()
        assert isinstance(await ended(handle), CancelledError)

    run(main)


def test_bad_arguments() -> None:
    """What is no reason, or no time, is refused at once; a block is for one use at a time."""
    with pytest.raises(TypeError, match="says what for"):
        holding(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected seconds"):
        holding("x", grace="1")  # type: ignore[arg-type]
    for grace in (-1, float("nan")):
        with pytest.raises(ValueError, match="0 or more seconds"):
            holding("x", grace=grace)
    block = holding("x")
    with block, pytest.raises(RuntimeError, match="in use"), block:
        pass
