"""What a threadlet has deferred is called when it has ended: on every way out, on every road, last in first out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import IN_PLACE, ON_WORKER, ended, entrypoint, forever
from threadlets import Contract, call_async, current_threadlet, defer, threadlet
from threadlets.cancellation import holds
from threadlets.cleanups import deferred

ROADS = ["in place", "worker", "here", "one", "coroutine", "suspended"]


def on_road(road: str, function: Callable[[], Any]) -> Callable[[], Any]:
    """Make an entrypoint that runs on this road, and does what the function does."""
    if road in ("in place", "worker"):
        return entrypoint(road, function)
    if road == "here":  # called by a plain function, right there
        inner = threadlet(function)
        return threadlet(contract=ON_WORKER)(lambda: inner().result())
    if road == "one":
        inner = threadlet(contract=Contract(affinity="one"))(function)
        return threadlet(contract=ON_WORKER)(lambda: inner().result())

    async def in_coroutine() -> Any:
        if road == "suspended":
            await asyncio.sleep(0)
        return function()

    return threadlet(in_coroutine)


@pytest.fixture(params=ROADS)
def road(request: pytest.FixtureRequest) -> str:
    """Return one road after the other."""
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Any:
    """No threadlet stays in a table after its end."""
    yield
    assert not deferred and not holds


def test_last_in_first_out(run: Run, road: str) -> None:
    """The callbacks are called after the function, the last one first, with their arguments."""
    seen: list[Any] = []

    def work() -> str:
        defer(seen.append, "first")
        defer(lambda *args: seen.append(args), 2, 3)
        seen.append("body")
        return "value"

    async def main() -> None:
        assert await on_road(road, work)() == "value"
        assert seen == ["body", (2, 3), "first"]

    run(main)


def test_on_the_way_of_an_error(run: Run, road: str) -> None:
    """They are called when the function fails, and its error is what the await raises."""
    seen: list[str] = []

    def work() -> None:
        defer(seen.append, "called")
        raise LookupError("body")

    async def main() -> None:
        with pytest.raises(LookupError, match="body"):
            await on_road(road, work)()
        assert seen == ["called"]

    run(main)


def test_each_is_called_though_others_raise(run: Run, road: str) -> None:
    """Errors of callbacks stop nobody; with that of the function they come as a group, in order."""
    seen: list[str] = []

    def fail(text: str) -> None:
        seen.append(text)
        raise ValueError(text)

    def work() -> None:
        defer(fail, "third")
        defer(seen.append, "second")
        defer(fail, "first")
        raise LookupError("body")

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await on_road(road, work)()
        assert list(map(str, caught.value.exceptions)) == ["body", "first", "third"]
        assert seen == ["first", "second", "third"]

    run(main)


def test_one_error_is_raised_as_it_is(run: Run, road: str) -> None:
    """The only error, of a callback, is what the await raises."""

    def fail() -> None:
        raise ValueError("cleanup")

    async def main() -> None:
        handle = on_road(road, lambda: defer(fail))()
        error = await ended(handle)
        assert isinstance(error, ValueError)
        assert handle.state == "failed"

    run(main)


def test_callbacks_may_defer_more(run: Run, road: str) -> None:
    """What a callback defers is called next."""
    seen: list[str] = []

    def more() -> None:
        seen.append("outer")
        defer(seen.append, "inner")

    def work() -> None:
        defer(seen.append, "last")
        defer(more)

    async def main() -> None:
        await on_road(road, work)()
        assert seen == ["outer", "inner", "last"]

    run(main)


def test_surroundings_of_a_callback(run: Run, road: str) -> None:
    """A callback sees the threadlet, the thread and the context variables of its function."""
    variable: ContextVar[str] = ContextVar("variable")
    seen: list[Any] = []

    def look() -> tuple[Any, ...]:
        return current_threadlet(), threading.get_ident(), variable.get(None)

    def work() -> None:
        variable.set("set")
        seen.append(look())
        defer(lambda: seen.append(look()))

    async def main() -> None:
        await on_road(road, work)()
        assert seen[0] == seen[1] and seen[0][0] is not None

    run(main)


def test_a_callback_in_a_coroutine_runs_in_a_task(run: Run) -> None:
    """It may use what needs a current task: a timeout, a task group."""
    seen: list[object] = []

    async def close() -> None:
        try:
            async with asyncio.timeout(0.001):
                await forever()
        except TimeoutError:
            seen.append("timeout")
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        seen.append(current_threadlet())

    @threadlet
    async def work() -> None:
        defer(close)

    async def main() -> None:
        handle = work()
        assert handle.state == "cleaning"
        await handle
        assert seen == ["timeout", handle]

    run(main)


def test_call_async_from_a_worker(run: Run) -> None:
    """A plain function may have an async function called on the loop."""
    seen: list[str] = []

    async def close(name: str) -> None:
        await asyncio.sleep(0)
        seen.append(name)

    async def main() -> None:
        await threadlet(contract=ON_WORKER)(lambda: defer(call_async, close, "file"))()
        assert seen == ["file"]

    run(main)


def test_bad_arguments(run: Run) -> None:
    """What cannot be called, or not awaited, is refused at the call; and so is a place where nothing ends."""
    with pytest.raises(RuntimeError, match="where no threadlet runs"):
        defer(print)
    with pytest.raises(TypeError, match="expected a function"):
        defer(3)  # type: ignore[arg-type]

    async def main() -> None:
        with pytest.raises(RuntimeError, match="ExitStack"):
            defer(print)
        for contract in (IN_PLACE, ON_WORKER):
            with pytest.raises(TypeError, match="defer\\(call_async, forever"):
                await threadlet(contract=contract)(lambda: defer(forever))()
            with pytest.raises(TypeError, match="nobody here can await"):
                await threadlet(contract=contract)(lambda: defer(lambda: forever()))()

    run(main)
    for cleanup in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="more than 0 seconds"):
            Contract(cleanup=cleanup)
    with pytest.raises(TypeError, match="expected seconds"):
        Contract(cleanup="5")  # type: ignore[arg-type]
