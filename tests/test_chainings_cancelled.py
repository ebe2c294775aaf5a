"""Chains that are cancelled: at every step, before a worker has begun, again and again, at the end of the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from asyncio import CancelledError
from typing import Any

import pytest

from threadlets import Concurrency, Pool, checkpoint, holding
from threadlets.chainings import Chain
from threadlets.chains import AEIOU, ref
from threadlets.errors import DeadlineExceeded
from threadlets.lifecycles import OVERDUE

from .conftest import Run
from .steps import Log, away, fail, here, rest_pool
from .workbench import Gate, ended, hold_workers_before_running, rounds, until

# ------------------------------------------------------------------------------------------------------------ cancel


STEPS = 4


@pytest.mark.parametrize("at", range(STEPS))
def test_cancel_at_every_step_on_a_worker(run: Run, at: int) -> None:
    """The step that runs ends; then comes the end, and then the chain is cancelled."""
    log, gate = Log(), Gate()

    def step(number: int) -> None:
        log(f"step {number}")
        if number == at:
            gate()

    chain: Any = Chain().then(here(log), "fd").named("fd")
    for number in range(STEPS):
        chain = chain.then(away(step), number)
    chain = chain.finally_(here(log), "close", ref("fd")).finally_(here(log), "end")

    async def main() -> None:
        handle = chain()
        await asyncio.sleep(0)
        gate.wait_arrived()
        assert handle.cancel("why")
        await rounds()
        assert not handle.done()
        gate.open()
        error = await ended(handle)
        assert isinstance(error, CancelledError) and error.args == ("why",) and handle.cancelled()
        assert log.names == ["fd", *(f"step {number}" for number in range(at + 1)), "end", "close"]

    run(main)


@pytest.mark.parametrize("close", [here, away])
def test_cancelled_before_a_worker_has_begun(run: Run, close: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has begun in place is undone, although no worker has ever seen the chain; then it is cancelled."""
    log = Log()
    chain = Chain().then(here(log), "open", 7).named("fd").then(away(log), "never").then(here(log), "never")
    chain = chain.finally_(close(log), "close", ref("fd"))

    async def main() -> None:
        gate = hold_workers_before_running(monkeypatch)
        handle = chain()
        await asyncio.sleep(0)
        gate.wait_arrived()
        assert handle.cancel("why")
        gate.open()
        error = await ended(handle)
        assert isinstance(error, CancelledError) and handle.cancelled()
        assert log.entries == [("open", 7), ("close", 7)]

    run(main)


@pytest.mark.parametrize("failing", [False, True])
def test_cancelled_when_only_the_end_is_left(run: Run, failing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps were done in place, and the end waits for a worker: it runs; the chain is cancelled, or has failed."""
    log = Log()
    step = fail if failing else log
    chain = Chain().then(here(log), "open").named("fd").then(here(step), "last").finally_(away(log), "close", ref("fd"))

    async def main() -> None:
        gate = hold_workers_before_running(monkeypatch)
        handle = chain()
        await asyncio.sleep(0)
        gate.wait_arrived()
        assert handle.cancel("why")
        gate.open()
        error = await ended(handle)
        assert isinstance(error, AEIOU if failing else CancelledError) and handle.cancelled() is not failing
        assert log.names == ["open", *([] if failing else ["last"]), "close"]

    run(main)


def test_the_end_runs_here_if_no_worker_does_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """If what undoes is called back, too, as at the end of a loop, it is done on the loop's thread after all."""
    log = Log()
    chain = Chain().then(here(log), "open").then(away(log), "never").finally_(away(log), "close").finally_(fail, "late")

    async def main() -> None:
        gate = hold_workers_before_running(monkeypatch)
        handle = chain()
        await asyncio.sleep(0)
        gate.wait_arrived()
        handle.cancel("why")
        gate.open()
        gate = hold_workers_before_running(monkeypatch)
        await until(lambda: gate._arrived._value)  # type: ignore[attr-defined]
        assert rest_pool().cancel() == 1
        gate.open()
        error = await ended(handle)
        assert isinstance(error, AEIOU) and error.nap.args == ("late",)
        assert log.names == ["open", "close"]
        assert log.threads[1] == threading.get_ident()
        assert asyncio.get_running_loop() is handle.get_loop()

    run(main)


def test_cancelled_again_and_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What undoes is not stopped by further cancels, of the chain or of who awaits it, nor by its waiting in a lock."""
    log, gate = Log(), Gate()

    def close() -> None:
        gate()
        checkpoint()
        log("close")

    chain = Chain().then(here(log), "open").named("fd").then(away(log), "never").finally_(away(close))

    async def main() -> None:
        with monkeypatch.context() as patched:
            hold = hold_workers_before_running(patched)
            handle = chain()
            task = asyncio.ensure_future(ended_of(handle))
            await rounds()
            hold.wait_arrived()
            handle.cancel("first")
            hold.open()
            await until(lambda: gate._arrived._value)  # type: ignore[attr-defined]
        for _ in range(3):
            handle.cancel("again")
            task.cancel()
            await rounds()
        assert not handle.done()
        gate.open()
        assert isinstance(await task, CancelledError) and handle.cancelled()
        assert log.names == ["open", "close"]

    async def ended_of(handle: Any) -> BaseException | None:
        while True:
            error = await ended(handle)
            if handle.done():
                return error

    run(main)


def test_the_end_is_not_interrupted(run: Run) -> None:
    """A cancel that comes when finally_ runs on a worker is not heard by it, and then the chain is cancelled."""
    log, gate = Log(), Gate()

    def close() -> None:
        gate()
        checkpoint()
        log("closed")

    chain = Chain().then(away(log), "work").finally_(here(log), "last").finally_(here(close))

    async def main() -> None:
        handle = chain()
        await asyncio.sleep(0)
        gate.wait_arrived()
        handle.cancel()
        gate.open()
        assert isinstance(await ended(handle), CancelledError)
        assert log.names == ["work", "closed", "last"]

    run(main)


def test_a_step_that_holds_is_told_later(run: Run) -> None:
    """Inside of ``holding`` a step does not hear a cancel; the chain hears it between its steps."""
    log, gate = Log(), Gate()

    def holds() -> None:
        with holding("half done"):
            gate()
            checkpoint()
            log("whole")

    async def main() -> None:
        handle = Chain().then(away(holds)).then(here(log), "never").finally_(here(log), "end")()
        await asyncio.sleep(0)
        gate.wait_arrived()
        handle.cancel()
        gate.open()
        assert isinstance(await ended(handle), CancelledError)
        assert log.names == ["whole", "end"]

    run(main)


def test_a_failure_beats_a_cancel(run: Run) -> None:
    """A chain that has failed when it hears, or whose end has failed, is failed: nothing is lost."""
    gate = Gate()

    async def main() -> None:
        handle = Chain().then(away(gate), 1).then(here(str)).finally_(here(fail), "late")()
        await asyncio.sleep(0)
        gate.wait_arrived()
        handle.cancel()
        gate.open()
        error = await ended(handle)
        assert isinstance(error, AEIOU) and error.nap.args == ("late",)

    run(main)


def test_queued_in_a_pool_it_never_runs(run: Run) -> None:
    """Cancelled while it waits for a throttle, nothing of it is called, its end neither."""
    log = Log()

    async def main() -> None:
        async with Pool(Concurrency(1)) as pool:
            gate = asyncio.Event()
            first = pool.start(gate.wait)
            handle = Chain().then(here(log), "never").finally_(here(log), "end").using(pool=pool)()
            assert handle.state == "queued" and handle.cancel()
            assert isinstance(await ended(handle), CancelledError)
            gate.set()
            await first
        assert log.names == []

    run(main)


def test_the_deadline_of_a_chain(run: Run) -> None:
    """It stops between two steps; awaiting says why."""
    log, gate = Log(), Gate()
    chain = Chain().then(away(gate)).then(here(log), "never").finally_(here(log), "end")

    async def main() -> None:
        handle = chain()
        await asyncio.sleep(0)
        gate.wait_arrived()
        handle.deadline = 0.001
        await until(lambda: handle._marks & OVERDUE)
        gate.open()
        assert isinstance(await ended(handle), DeadlineExceeded)
        assert log.names == ["end"]
        assert isinstance(await ended(chain.using(deadline=-1)()), DeadlineExceeded)
        assert log.names == ["end"]

    run(main)


def test_the_loop_shuts_down(run: Run) -> None:
    """A chain that nobody waits for is told to stop, and its end runs before the loop is closed."""
    log, gate = Log(), Gate()

    def waits(_: Any) -> None:
        gate()
        while True:
            checkpoint()
            time.sleep(0.001)

    chain = Chain().then(here(log), "open").then(away(waits)).then(here(log), "never").finally_(away(log), "close")

    async def main() -> None:
        handle = chain()
        await asyncio.sleep(0)
        gate.wait_arrived()
        gate.open()
        assert not handle.done()

    run(main)
    assert log.names == ["open", "close"]


def test_cancelled_right_behind_a_failure(run: Run) -> None:
    """The worker has ended, and the chain was not told yet: it has failed, and nothing is left to be told of."""

    async def main() -> None:
        chain = Chain().then(away(fail), "why")
        handle = chain()
        (rest,) = rest_pool()

        def look() -> None:
            if rest.done():
                assert not handle.done() and handle.cancel()
            else:
                loop.call_soon(look)

        loop = asyncio.get_running_loop()
        loop.call_soon(look)
        error = await ended(handle)
        assert isinstance(error, AEIOU) and error.nap.args == ("why",)

    run(main)
