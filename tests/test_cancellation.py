"""Where a threadlet listens when it is asked to stop, and from where it may be asked."""

from __future__ import annotations

import asyncio
import threading
from asyncio import CancelledError
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import ABANDON, ON_WORKER, Gate, ended, forever, rounds, until
from threadlets import (
    Contract,
    Pool,
    Threadlet,
    blocking,
    call_async,
    checkpoint,
    current_threadlet,
    threadlet,
)


class Worker:
    """A function on a worker that stops at a gate before each of its steps."""

    def __init__(self, *steps: Callable[[], object], contract: Contract = ON_WORKER) -> None:
        self.gates = [Gate() for _ in steps]
        self.steps = steps
        self.passed = 0
        self.function = threadlet(contract=contract)(self.run)

    def run(self) -> str:
        for gate, step in zip(self.gates, self.steps, strict=True):
            gate()
            step()
            self.passed += 1
        return "done"

    async def at(self, place: int) -> None:
        """Let it come as far as this gate."""
        for gate in self.gates[:place]:
            gate.open()
        await asyncio.to_thread(self.gates[place].wait_arrived)


def test_a_checkpoint_raises_the_reason(run: Run) -> None:
    """A plain function that was asked to stop does so at its next checkpoint, and the reason is to be seen."""

    async def main() -> None:
        worker = Worker(checkpoint, checkpoint)
        handle = worker.function()
        await worker.at(1)
        assert handle.cancel("tenant left")
        assert not handle.cancelled()
        worker.gates[1].open()
        error = await ended(handle)
        assert isinstance(error, CancelledError) and error.args == ("tenant left",)
        assert handle.cancelled() and worker.passed == 1

    run(main)


def test_a_checkpoint_does_nothing_for_the_others() -> None:
    """Outside of any loop, of any threadlet, and in one that was not asked to stop, it returns."""
    checkpoint()
    threadlet(checkpoint)()

    async def main() -> None:
        checkpoint()
        await threadlet(checkpoint)()
        await threadlet(contract=ON_WORKER)(checkpoint)()

    asyncio.run(main())


def test_a_checkpoint_in_the_first_step_of_a_coroutine(run: Run) -> None:
    """A coroutine that cancels itself in its first step is told by a checkpoint, too."""

    @threadlet
    async def stops() -> None:
        handle = current_threadlet()
        assert handle is not None
        handle.cancel("by itself")
        checkpoint()

    async def main() -> None:
        error = await ended(stops())
        assert isinstance(error, CancelledError) and error.args == ("by itself",)

    run(main)


def test_a_checkpoint_in_a_region_is_about_the_task(hands: Run) -> None:
    """Code in ``with blocking()`` whose task is cancelled meanwhile stops at its next checkpoint."""
    gate = Gate()
    passed = []

    async def main() -> None:
        async def work() -> None:
            with blocking():
                gate()
                checkpoint()
                passed.append(True)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel("enough")
        gate.open()
        with pytest.raises(CancelledError):
            await task
        assert not passed

    hands(main)


def test_cancelling_twice_keeps_the_last_reason(run: Run) -> None:
    """A second cancel of a function that runs changes nothing but the reason."""

    async def main() -> None:
        worker = Worker(checkpoint)
        handle = worker.function()
        await worker.at(0)
        assert handle.cancel("first") and handle.cancel("second")
        worker.gates[0].open()
        error = await ended(handle)
        assert error is not None and error.args == ("second",)
        assert not handle.cancel()

    run(main)


@pytest.mark.parametrize("kind", ["worker", "suspended", "queued"])
def test_cancelling_from_another_thread(run: Run, kind: str) -> None:
    """``cancel`` may be called on any thread; it is done on the loop's."""

    async def main() -> None:
        async with Pool() as pool:
            worker = Worker(checkpoint)
            blocker = Gate()
            if kind == "worker":
                handle: Threadlet[Any] = pool.start(worker.function)
                await worker.at(0)
            elif kind == "suspended":
                handle = pool.start(forever)
            else:
                one = threadlet(contract=Contract(affinity="one"))(blocker)
                pool.start(one)
                handle = pool.start(one)
            thread = threading.Thread(target=handle.cancel, args=("from afar",))
            thread.start()
            await asyncio.to_thread(thread.join)
            await rounds()
            worker.gates[0].open()
            error = await ended(handle)
            assert isinstance(error, CancelledError) and error.args == ("from afar",)
            blocker.open()

    run(main)


def test_an_abandoned_function_is_told(run: Run) -> None:
    """A function whose threadlet was abandoned still stops at its next checkpoint."""

    async def main() -> None:
        worker = Worker(checkpoint, lambda: None, contract=ABANDON)
        async with Pool() as pool:
            handle = pool.start(worker.function)
            await worker.at(0)
            handle.cancel()
            assert handle.cancelled()
            worker.gates[0].open()
            await until(lambda: not pool._abandoned)
        assert worker.passed == 0

    run(main)


def test_call_async_is_a_checkpoint(run: Run) -> None:
    """A cancel reaches the async function that a worker waits for, and then the worker."""

    async def main() -> None:
        begun = asyncio.Event()
        seen: list[object] = []

        async def wait() -> None:
            begun.set()
            try:
                await forever()
            except CancelledError as error:
                seen.extend(error.args)
                raise

        @threadlet(contract=ON_WORKER)
        def work() -> None:
            call_async(wait)

        handle = work()
        await begun.wait()
        handle.cancel("both")
        assert isinstance(await ended(handle), CancelledError)
        assert seen == ["both"]

    run(main)
