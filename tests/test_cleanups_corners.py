"""Cleanup where it is easily forgotten: odd exceptions, first steps, nested calls, inner loops, the end of a loop."""

from __future__ import annotations

import asyncio
import gc
import time
import traceback
import weakref
from asyncio import CancelledError
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import ON_WORKER, Gate, Token, ended, entrypoint, forever, rounds
from threadlets import Concurrency, Contract, Lock, Pool, checkpoint, current_threadlet, defer, errors, threadlet
from threadlets.cancellation import holds
from threadlets.cleanups import deferred
from threadlets.whereabouts import stack_of

SHORT = Contract(cleanup=0.01)


@dataclass(frozen=True)
class Frozen(Exception):
    """An exception that forbids assignment."""

    text: str


@pytest.mark.parametrize("place", ["in place", "worker", "coroutine"])
@pytest.mark.parametrize("cancels", [False, True])
def test_an_exception_that_forbids_assignment(run: Run, place: str, cancels: bool) -> None:
    """It is raised like any other, from the function or from a callback, with a cancel as its context or without."""

    def fail() -> None:
        raise Frozen("cleanup")

    def work() -> None:
        defer(fail)
        if cancels:
            raise CancelledError("body")

    async def in_coroutine() -> None:
        work()

    async def main() -> None:
        handle = threadlet(in_coroutine)() if place == "coroutine" else entrypoint(place, work)()
        error = await ended(handle)
        assert error == Frozen("cleanup")
        assert isinstance(error.__context__, CancelledError) is cancels

    run(main)


def test_a_cancel_in_the_first_step(run: Run) -> None:
    """A coroutine that has deferred something is told of a cancel that came in its first step."""
    seen: list[str] = []

    @threadlet
    async def work() -> None:
        defer(seen.append, "cleaned")
        handle = current_threadlet()
        assert handle is not None
        handle.cancel("in the first step")
        await forever()

    async def main() -> None:
        error = await ended(work())
        assert error is not None and error.args == ("in the first step",)
        assert seen == ["cleaned"]

    run(main)


def test_a_loop_inside_of_a_function(run: Run) -> None:
    """A threadlet of a loop that a worker's function runs defers, listens and locks for itself."""
    seen: list[Any] = []
    lock = Lock()

    @threadlet
    async def inner() -> None:
        defer(seen.append, "inner cleaned")
        async with lock:
            seen.append(lock.owner is current_threadlet())

    def outer() -> None:
        defer(seen.append, "outer cleaned")

        async def main() -> None:
            await asyncio.gather(inner(), inner())
            checkpoint()

        asyncio.run(main())
        seen.append("inner loop ended")

    async def main() -> None:
        await threadlet(contract=ON_WORKER)(outer)()
        assert seen == [True, "inner cleaned"] * 2 + ["inner loop ended", "outer cleaned"]

    run(main)


def test_the_cleanup_of_a_nested_call_is_limited(run: Run) -> None:
    """A function that another one has called, right there, has its own time; the rest of the other one is not told."""

    def clean() -> None:
        while True:
            checkpoint()

    @threadlet(contract=SHORT)
    def inner() -> None:
        defer(clean)

    @threadlet(contract=ON_WORKER)
    def outer() -> str:
        error = inner().exception()
        checkpoint()
        return type(error).__name__

    async def main() -> None:
        assert await outer() == "CleanupTimeout"

    run(main)


def test_where_a_nested_call_is(run: Run) -> None:
    """Who hangs in a function that it has called, right there, is found."""

    async def main() -> None:
        gate = Gate()
        inner = threadlet(gate)
        handle = threadlet(contract=ON_WORKER)(lambda: inner())()
        await asyncio.to_thread(gate.wait_arrived)
        assert "_open.wait(" in "".join(stack_of(handle))
        gate.open()
        await handle

    run(main)


def test_an_entrypoint_is_deferred(run: Run) -> None:
    """In a plain function a plain entrypoint runs right there, and its error is that of the callback."""
    seen: list[str] = []

    @threadlet
    def close(text: str) -> None:
        seen.append(text)
        if text == "fails":
            raise ValueError(text)

    async def main() -> None:
        await threadlet(contract=ON_WORKER)(lambda: defer(close, "closed"))()
        with pytest.raises(ValueError, match="fails"):
            await threadlet(contract=ON_WORKER)(lambda: defer(close, "fails"))()
        assert seen == ["closed", "fails"]

    run(main)


def test_many_timers(run: Run) -> None:
    """The timers of cleanups on workers are set and cancelled on the loop's thread; uvloop's crash elsewhere."""

    @threadlet(contract=ON_WORKER)
    def work() -> None:
        defer(time.sleep, 0.0005)

    async def main() -> None:
        for _ in range(10):
            await asyncio.gather(*[work() for _ in range(30)])

    run(main)


@pytest.mark.parametrize("place", ["in place", "worker"])
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_kept(run: Run, place: str, fails: bool) -> None:
    """No cycle keeps the arguments of callbacks."""

    def close(argument: Token) -> None:
        pass

    def work() -> None:
        argument = Token()
        gone.append(weakref.ref(argument))
        defer(close, argument)
        del argument
        if fails:
            raise KeyError

    gone: list[Any] = []

    async def main() -> None:
        gc.collect()
        gc.disable()
        try:
            handle = entrypoint(place, work)()
            await ended(handle)
            del handle
            await rounds()
            assert gone[0]() is None
        finally:
            gc.enable()

    run(main)


@pytest.mark.parametrize("place", ["in place", "worker", "coroutine"])
@pytest.mark.parametrize("fails_before", [False, True])
def test_tracebacks_are_theirs(run: Run, place: str, fails_before: bool) -> None:
    """The traceback of an error shows the function or the callback that has raised it, and nothing of ours below."""

    def close() -> None:
        raise ValueError

    def work() -> None:
        defer(close)
        if fails_before:
            raise KeyError

    async def in_coroutine() -> None:
        await asyncio.sleep(0)
        work()

    async def main() -> None:
        handle = threadlet(in_coroutine)() if place == "coroutine" else entrypoint(place, work)()
        error = await ended(handle)
        errors = list(error.exceptions) if isinstance(error, ExceptionGroup) else [error]
        for each, name in zip(errors, ["work", "close"] if fails_before else ["close"], strict=True):
            assert each is not None
            assert traceback.extract_tb(each.__traceback__)[-1].name == name
            if isinstance(error, ExceptionGroup):
                assert not any("cleanups.py" in frame.filename for frame in traceback.extract_tb(each.__traceback__))

    run(main)


# ------------------------------------------------------------------------------------------------- the end of a loop


def test_a_cleanup_may_start_threadlets_at_the_end(run: Run) -> None:
    """While its pool ends a threadlet may start what it needs to clean up; others may not."""
    seen: list[str] = []

    @threadlet
    async def rollback(text: str) -> None:
        await asyncio.sleep(0)
        seen.append(text)

    @threadlet
    async def work() -> None:
        async def clean() -> None:
            await rollback("rolled back")

        defer(rollback, "deferred itself")
        defer(clean)
        await forever()

    async def main() -> None:
        work()

    run(main)
    assert seen == ["rolled back", "deferred itself"]


def test_a_pool_with_a_limit_ends(run: Run) -> None:
    """So it is if the threadlet that cleans up has the only place of its pool."""
    seen: list[str] = []

    async def main() -> None:
        pool = Pool(Concurrency(1))

        async def rollback() -> None:
            seen.append("rolled back")

        async def clean() -> None:
            await pool.start(rollback)

        async def work() -> None:
            defer(clean)
            await forever()

        pool.start(work)
        await pool.aclose(timeout=20)
        assert seen == ["rolled back"]
        with pytest.raises(errors.PoolClosed):
            pool.start(rollback)

    run(main)


def test_the_end_of_asyncio_run_breaks_into_no_lock(run: Run) -> None:
    """What cancels all tasks does not know of locks: a threadlet that holds one comes to the end of that."""
    seen: list[str] = []
    lock = Lock()

    @threadlet
    async def work(suspended_before: bool) -> None:
        if suspended_before:
            await asyncio.sleep(0)
        async with lock:
            seen.append("first half")
            for _ in range(5):
                await asyncio.sleep(0)
            seen.append("second half")
        await forever()

    async def main(suspended_before: bool) -> None:
        handle = work(suspended_before)
        while "first half" not in seen:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert handle.state == "missed"

    for suspended_before in (False, True):
        seen.clear()
        run(main, suspended_before)
        assert seen == ["first half", "second half"]
        assert not lock.locked() and not holds


def test_a_loop_that_is_closed_in_the_middle() -> None:
    """Threadlets of a loop that was closed without more ado are forgotten when the next loop is used."""

    async def main() -> None:
        @threadlet
        async def work() -> None:
            defer(print)
            await forever()

        work()

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # tasks are destroyed while they are pending
    loop.run_until_complete(main())
    loop.close()
    assert deferred
    asyncio.run(entry())
    assert not deferred


async def entry() -> None:
    await threadlet(rounds)()
