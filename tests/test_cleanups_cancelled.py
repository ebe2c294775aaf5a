"""Cancels and cleanup: the first lets it begin, and nothing interrupts it."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError

import pytest

from tests.conftest import Run
from tests.workbench import ABANDON, ON_WORKER, Gate, ended, forever, rounds, until
from threadlets import Pool, checkpoint, current_threadlet, defer, threadlet


def test_a_cancelled_coroutine(run: Run) -> None:
    """A cancel ends the body, not the cleanup; the reason stays."""
    seen: list[object] = []

    @threadlet
    async def work() -> None:
        async def close() -> None:
            await asyncio.sleep(0)
            seen.append(current_threadlet())

        defer(close)
        await forever()

    async def main() -> None:
        handle = work()
        handle.cancel("tenant left")
        error = await ended(handle)
        assert isinstance(error, CancelledError) and error.args == ("tenant left",)
        assert seen == [handle] and handle.cancelled()

    run(main)


def test_a_cancelled_function_on_a_worker(run: Run) -> None:
    """A function that stops at a checkpoint is cleaned up, and checkpoints in the cleanup say nothing more."""
    seen: list[str] = []

    async def main() -> None:
        gate = Gate()

        def close() -> None:
            checkpoint()
            seen.append("closed")

        @threadlet(contract=ON_WORKER)
        def work() -> None:
            defer(close)
            gate()
            checkpoint()

        handle = work()
        await asyncio.to_thread(gate.wait_arrived)
        handle.cancel("enough")
        gate.open()
        error = await ended(handle)
        assert isinstance(error, CancelledError) and error.args == ("enough",)
        assert seen == ["closed"]

    run(main)


def test_a_second_cancel_changes_nothing(run: Run) -> None:
    """While a coroutine cleans up, cancels of its handle, its pool, its awaiter and of all tasks do not get through."""

    async def main() -> None:
        go, seen = asyncio.Event(), []

        async def close() -> None:
            await go.wait()
            seen.append("closed")

        async def work() -> str:
            defer(close)
            await asyncio.sleep(0)
            return "value"

        async def wait() -> str:
            value: str = await handle
            return value

        pool = Pool()
        handle = pool.start(work)
        awaiter = asyncio.create_task(wait())
        await until(lambda: handle.state == "cleaning")
        assert list(pool.select(state="cleaning")) == [handle]
        assert "cleaning" in repr(handle)
        assert not handle.cancel("again")
        assert pool.cancel() == 0
        handle.deadline = 0.0
        awaiter.cancel()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if task is not awaiter:
                task.cancel()
        await asyncio.sleep(0.002)
        assert not awaiter.done()
        go.set()
        with pytest.raises(CancelledError):
            await awaiter
        assert seen == ["closed"] and handle.result() == "value"
        pool._check()

    run(main)


def test_a_second_cancel_on_a_worker(run: Run) -> None:
    """A function that cleans up on a worker cannot be cancelled, nor abandoned."""

    async def main() -> None:
        gate = Gate()

        @threadlet(contract=ABANDON)
        def work() -> str:
            defer(gate)
            return "value"

        handle = work()
        await asyncio.to_thread(gate.wait_arrived)
        assert handle.state == "cleaning"
        assert not handle.cancel()
        gate.open()
        assert await handle == "value"

    run(main)


def test_an_abandoned_function_cleans_up(run: Run) -> None:
    """A function that nobody waits for calls what it has deferred; its errors are told to the loop."""

    async def main() -> None:
        gate = Gate()

        def fail() -> None:
            raise ValueError("cleanup")

        def work() -> None:
            defer(fail)
            gate()

        async with Pool() as pool:
            handle = pool.start(threadlet(contract=ABANDON)(work))
            await asyncio.to_thread(gate.wait_arrived)
            handle.cancel()
            assert handle.cancelled()
            gate.open()
            await until(lambda: not pool._abandoned)
        assert [str(report["exception"]) for report in run.told()] == ["cleanup"]

    run(main)


def test_an_error_in_the_cleanup_of_a_cancelled_one(run: Run) -> None:
    """The error is raised, since it would be lost otherwise; the cancel is its context."""

    async def main() -> None:
        @threadlet
        async def work() -> None:
            async def fail() -> None:
                raise ValueError("cleanup")

            defer(fail)
            await forever()

        handle = work()
        handle.cancel("why")
        error = await ended(handle)
        assert isinstance(error, ValueError)
        assert isinstance(error.__context__, CancelledError) and error.__context__.args == ("why",)

    run(main)


def test_a_callback_that_is_cancelled(run: Run) -> None:
    """A callback that ends with a cancel of its own cancels the threadlet."""

    async def main() -> None:
        async def close() -> None:
            task = asyncio.ensure_future(forever())
            task.cancel()
            await task

        @threadlet
        async def work() -> str:
            defer(close)
            return "value"

        handle = work()
        assert isinstance(await ended(handle), CancelledError)
        assert handle.cancelled()

    run(main)


def test_the_pool_waits_for_it(run: Run) -> None:
    """A scope ends when all has been cleaned up, also when it is cancelled."""
    seen: list[str] = []

    async def main() -> None:
        async def close() -> None:
            await rounds()
            seen.append("closed")

        async def work() -> None:
            defer(close)
            await forever()

        with pytest.raises(KeyError):
            async with Pool() as pool:
                pool.start(work)
                raise KeyError
        assert seen == ["closed"]

    run(main)
