"""Looks after one test: what is around its coroutine, in its task, and around its call. For the pytest plugin.

From the outside to the inside: the seed's order of tasks, the virtual clock, the watch for stalls, the look for leaks,
and the open pool. What was found is told when the test is over: it fails by that, unless it has failed already, and
then it is a section of its report.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from threadlets import Pool
from threadlets.tasks import running_loop

from .pytest_clock import VirtualClock, has_selector
from .pytest_leaks import Leaks
from .pytest_stalls import Stalls

if TYPE_CHECKING:
    import asyncio

    from .pytest import Settings

__all__ = ["Trial"]

FINISH = 5.0  # seconds; arbitrary: how long what is left in threadlet_pool may take
ARGUMENTS = {"max_stall", "finish"}  # of the marker


class Trial:
    """One test while it runs.

    Args:
        item: The test.
        settings: What the options ask for.
        checks: Whether it fails if it leaks.
    """

    def __init__(self, item: pytest.Function, settings: Settings, checks: bool) -> None:
        self._item = item
        self._settings = settings
        self._pool: Pool | None = _among(item, "threadlet_pool", Pool)
        self._clock: VirtualClock | None = _among(item, "virtual_clock", VirtualClock)
        marks = _arguments(item)
        self._max_stall: float | None = marks.get("max_stall")
        self._finish: float = marks.get("finish", FINISH)
        self._leaks = Leaks() if checks else None
        self._found: list[str] = []

    @contextmanager
    def around(self) -> Iterator[None]:
        """Be around the call of a test."""
        __tracebackhide__ = True
        target: tuple[Any, str] = self._item, "obj"
        if hasattr(self._item.obj, "hypothesis"):
            target = self._item.obj.hypothesis, "inner_test"
        function = getattr(*target)
        is_async = inspect.iscoroutinefunction(function)
        if self._pool is not None and not is_async:
            pytest.fail("threadlet_pool is open in the task of an async test: this test has none", pytrace=False)
        failed = True
        with ExitStack() as stack:
            if is_async:
                setattr(*target, self._wrap(function))
                stack.callback(setattr, *target, function)
            elif self._clock is not None:
                stack.enter_context(self._clock.running())
            try:
                yield
                failed = False
            finally:
                self._conclude(failed)

    def _conclude(self, failed: bool) -> None:
        __tracebackhide__ = True
        if self._leaks is not None:
            self._leaks.look()
            self._found += self._leaks.found
        if not self._found:
            return
        text = "threadlets: " + "\n".join(self._found).rstrip()
        if failed:
            self._item.add_report_section("call", "threadlets", text)
        else:
            pytest.fail(text, pytrace=False)

    def _wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def test(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            loop = running_loop()
            if loop is not None:
                return await self._run(loop, function, args, kwargs)
            if self._clock is not None:  # trio runs it
                raise RuntimeError("virtual_clock goes by an event loop of asyncio's, and none runs here")
            return await function(*args, **kwargs)

        return test

    async def _run(self, loop: asyncio.AbstractEventLoop, function: Any, args: Any, kwargs: Any) -> Any:
        """Call the test, in its task."""
        __tracebackhide__ = True
        with ExitStack() as stack:
            if self._settings.seeds is not None:
                stack.enter_context(self._settings.seeds.shuffled(loop))
            if self._clock is not None:
                if self._settings.loop == "uvloop" and not has_selector(loop):
                    pytest.skip("virtual_clock goes by asyncio's loop, and --threadlets-loop=uvloop asks for another")
                stack.enter_context(self._clock.running(loop))
            if self._max_stall is not None:
                self._found_by(stack, Stalls(loop, self._max_stall))
            leaks = self._leaks
            if leaks is None:
                return await function(*args, **kwargs)
            leaks.begin(loop)
            try:
                if self._pool is None:
                    return await function(*args, **kwargs)
                return await self._run_in(self._pool, leaks, function(*args, **kwargs))
            finally:
                await leaks.end(loop)

    def _found_by(self, stack: ExitStack, stalls: Stalls) -> None:
        stack.callback(lambda: self._found.extend(stalls.found))  # when it has ended
        stack.enter_context(stalls)

    async def _run_in(self, pool: Pool, leaks: Leaks, test: Any) -> Any:
        """Call the test while its pool is open."""
        __tracebackhide__ = True
        async with pool:
            try:
                value = await test
            except BaseException:
                await leaks.abort(pool)
                raise
            await leaks.finish(pool, self._finish)
        return value


def _among(item: pytest.Function, name: str, kind: type[Any]) -> Any:
    """Return what a fixture of ours has made for a test; another one of that name is not ours."""
    value = item.funcargs.get(name)
    return value if isinstance(value, kind) else None


def _arguments(item: pytest.Item) -> dict[str, Any]:
    """Return the arguments of a test's markers; the closest one counts."""
    found: dict[str, Any] = {}
    for mark in item.iter_markers("threadlets"):
        if mark.args or mark.kwargs.keys() - ARGUMENTS:
            pytest.fail(f"{mark}: the arguments of this marker are max_stall=seconds and finish=seconds", pytrace=False)
        for name, value in mark.kwargs.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                pytest.fail(f"pytest.mark.threadlets({name}={value!r}): expected seconds, above 0", pytrace=False)
            found.setdefault(name, value)
    return found
