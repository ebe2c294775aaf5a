"""Cleanup that takes too long, and cleanup that an exit comes out of."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from asyncio import CancelledError
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import ON_WORKER, Gate, ended, until
from threadlets import Contract, checkpoint, defer, errors, threadlet
from threadlets.cleanups import deferred

SHORT = Contract(cleanup=0.01)
SHORT_ON_WORKER = Contract(blocks="always", cleanup=0.01)


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Any:
    """No threadlet stays in a table after its end."""
    yield
    assert not deferred


def listen() -> None:
    """Do nothing but listen."""
    while True:
        checkpoint()


def test_a_coroutine_that_takes_too_long(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Each callback that is left is begun, and told to stop at its first await; the log says where it was."""
    seen: list[str] = []

    async def close(name: str) -> None:
        seen.append(name)
        try:
            await asyncio.Event().wait()
        except CancelledError as error:
            seen.append(str(error))
            raise

    @threadlet(contract=SHORT)
    async def work() -> str:
        defer(close, "last")
        defer(close, "first")
        return "value"

    async def main() -> None:
        handle = work()
        error = await ended(handle)
        assert isinstance(error, errors.CleanupTimeout) and isinstance(error, TimeoutError)
        assert "the cleanup of work() took" in str(error) and "Contract(cleanup=" in str(error)
        why = "the cleanup took longer than 0.01 s"
        assert seen == ["first", why, "last", why]
        assert handle.state == "failed"

    with caplog.at_level(logging.WARNING, "threadlets"):
        run(main)
    assert "cleaning up for" in caplog.text and "close(), at " + __file__ in caplog.text


def test_a_worker_that_takes_too_long(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A callback on a worker stops where it listens."""

    @threadlet(contract=SHORT_ON_WORKER)
    def work() -> None:
        defer(listen)
        raise LookupError("body")

    async def main() -> None:
        error = await ended(work())
        assert isinstance(error, ExceptionGroup)
        assert list(map(type, error.exceptions)) == [LookupError, errors.CleanupTimeout]

    with caplog.at_level(logging.WARNING, "threadlets"):
        run(main)
    assert "listen(), at " + __file__ in caplog.text


def test_what_does_not_listen_is_waited_for(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A callback on a worker that does not listen ends when it ends; then it is known that it was late."""

    async def main() -> None:
        gate = Gate()
        handle = threadlet(contract=SHORT_ON_WORKER)(lambda: defer(gate))()
        await until(lambda: "cleaning up for" in caplog.text)
        assert handle.state == "cleaning"
        gate.open()
        assert isinstance(await ended(handle), errors.CleanupTimeout)

    with caplog.at_level(logging.WARNING, "threadlets"):
        run(main)


def test_in_place_where_nothing_can_be_told() -> None:
    """A callback in place that blocks its loop is found out afterwards; so without any loop."""
    work = threadlet(contract=Contract(blocks="never", cleanup=1e-9))(lambda: defer(time.sleep, 0.0001))

    async def main() -> None:
        assert isinstance(await ended(work()), errors.CleanupTimeout)

    asyncio.run(main())
    assert isinstance(work().exception(), errors.CleanupTimeout)


def test_a_cleanup_that_is_taken_over(hands: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A callback that blocks in place is left behind by the loop, and stops where it listens when its time is over."""
    beside = threading.Event()

    def close() -> None:
        assert beside.wait(20)
        listen()

    async def main() -> None:
        work = threadlet(contract=SHORT)(lambda: defer(close))
        asyncio.get_running_loop().call_soon(beside.set)
        assert isinstance(await ended(work()), errors.CleanupTimeout)

    hands(main)


def test_a_function_that_was_taken_over(hands: Run) -> None:
    """The cleanup of a function that has missed has its time, too."""
    gate = Gate()

    def body() -> None:
        defer(listen)
        gate()

    async def main() -> None:
        async def open_gate() -> None:
            gate.open()

        opener = asyncio.create_task(open_gate())
        assert isinstance(await ended(threadlet(contract=SHORT)(body)()), errors.CleanupTimeout)
        await opener

    hands(main)


def test_any_time(run: Run) -> None:
    """With ``cleanup=inf`` no timer is set."""

    async def main() -> None:
        go = asyncio.Event()

        @threadlet(contract=Contract(cleanup=float("inf")))
        async def work() -> str:
            defer(go.wait)
            return "value"

        handle = work()
        go.set()
        assert await handle == "value"

    run(main)


# ------------------------------------------------------------------------------------------------------------ exits


def leave() -> None:
    """Be the place where somebody presses Ctrl-C."""
    raise KeyboardInterrupt


def test_an_exit_in_place(run: Run) -> None:
    """An exit goes on through the caller, after all was called; what else has failed is told to the loop."""
    seen: list[str] = []

    def fail() -> None:
        raise ValueError("cleanup")

    def work() -> None:
        defer(seen.append, "called")
        defer(fail)
        defer(leave)

    async def in_coroutine() -> None:
        work()

    async def main() -> None:
        for function in (threadlet(contract=Contract(blocks="never"))(work), threadlet(in_coroutine)):
            with pytest.raises(KeyboardInterrupt):
                function()
            await asyncio.sleep(0)  # on a busy machine the next one would have to wait for a round
        assert seen == ["called"] * 2
        assert [str(report["exception"]) for report in run.told()] == ["cleanup"] * 2

    run(main)


def test_an_exit_on_a_worker(run: Run) -> None:
    """From a worker an exit is raised by the await."""

    async def main() -> None:
        handle = threadlet(contract=ON_WORKER)(lambda: defer(leave))()
        with pytest.raises(KeyboardInterrupt):
            await handle

    run(main)


@pytest.mark.parametrize("where", ["body", "cleanup"])
def test_an_exit_of_a_suspended_coroutine(run: Run, where: str) -> None:
    """An exit leaves the loop, from the coroutine as from its cleanup; nothing that was deferred is forgotten."""
    seen: list[str] = []

    @threadlet
    async def work() -> None:
        async def close() -> None:
            await asyncio.sleep(0)
            if where == "cleanup":
                leave()
            seen.append("first")

        defer(seen.append, "last")
        defer(close)
        await asyncio.sleep(0)
        if where == "body":
            leave()

    loop = run.new_loop()
    handles: list[Any] = []

    async def main() -> None:
        handles.append(work())
        await asyncio.wait(handles)

    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.run_until_complete(task)
    assert seen == (["last"] if where == "cleanup" else ["first", "last"])
    with pytest.raises(KeyboardInterrupt):
        handles[0].result()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
