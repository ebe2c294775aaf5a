"""Runs each async test on every kind of loop: asyncio's and uvloop's, each in debug mode too."""

from __future__ import annotations

import asyncio
import gc
import importlib
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from threadlets import EventLoop

T = TypeVar("T")

LOOPS = ["asyncio", "uvloop", "hands", "uvhands"]
if sys.version_info >= (3, 13):  # on one Python is enough: debug mode is the same on all
    LOOPS += ["asyncio-debug", "uvloop-debug", "hands-debug", "uvhands-debug"]
HANDS = [loop for loop in LOOPS if "hands" in loop]  # those that change hands
SECONDS = 50  # arbitrary: beyond it a test has failed, whatever it waits for; no test's outcome depends on it


class Run:
    """Runs a coroutine function to its end on a new loop, as ``asyncio.run`` does.

    What the loop's exception handler is told is kept in ``reports``. A test takes what it expects with ``told()``; at
    the end of the test nothing may be left, so that no error of the library or of a test goes unseen.
    """

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop], debug: bool) -> None:
        self.factory = factory
        self.debug = debug
        self.reports: list[dict[str, Any]] = []

    def __call__(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Run ``function(*args)``."""
        with asyncio.Runner(loop_factory=self.new_loop, debug=self.debug) as runner:
            return runner.run(self._within_time(function(*args)))

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop of this kind; for tests that run and close it themselves."""
        loop = self.factory()
        loop.set_debug(self.debug)
        loop.set_exception_handler(lambda loop, context: self.reports.append(context))
        return loop

    def told(self) -> list[dict[str, Any]]:
        """Take what the loop's exception handler was told so far."""
        gc.collect()
        reports, self.reports = self.reports, []
        return reports

    async def _within_time(self, main: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        alarm = asyncio.get_running_loop().call_later(SECONDS, task.cancel, f"not finished after {SECONDS} seconds")
        try:
            return await main
        finally:
            alarm.cancel()


def pytest_configure() -> None:
    """Let Ctrl-C be heard, here and in the programs that tests start: a shell's background does not."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let nobody fail since a busy machine made a function wait: ``pytest.warns`` still sees what a test expects."""
    for item in items:
        if {"run", "hands"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.filterwarnings("ignore::threadlets.errors.ContractViolation"))


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> None:
    """Leave what imports and earlier tests have made out of garbage collections: there is one after every test."""
    gc.collect()
    gc.freeze()


def factory_of(kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes a loop of this kind."""
    if kind.startswith("uv"):
        pytest.importorskip("uvloop")
        if kind == "uvloop":
            return importlib.import_module("uvloop").new_event_loop
        return importlib.import_module("threadlets.adapters.uvloop").EventLoop
    return EventLoop if kind == "hands" else asyncio.SelectorEventLoop


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Return a function that runs a coroutine function on the loop that this round of the test is about."""
    yield from run_on(request.param)


@pytest.fixture(params=HANDS)
def hands(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Return the same for a test that is about loops which change hands."""
    yield from run_on(request.param)


@pytest.fixture
def once() -> Iterator[Run]:
    """Return what runs a coroutine function on asyncio's loop, for what depends on no loop."""
    yield from run_on("asyncio")


def run_on(loop: str) -> Iterator[Run]:
    """Make the function that ``run`` and ``hands`` return, and see that nothing goes unseen."""
    kind, _, mode = loop.partition("-")
    run = Run(factory_of(kind), mode == "debug")
    yield run
    assert not run.told(), "the loop's exception handler was told of errors"
