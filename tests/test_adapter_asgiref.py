"""asgiref's sync_to_async with the adapter installed: where functions run, and what they see and set."""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import sys
import threading
import time
from contextvars import ContextVar
from typing import Any

import pytest

from .conftest import Run

asgiref_sync = pytest.importorskip("asgiref.sync")
adapter = pytest.importorskip("threadlets.adapters.asgiref")
calls = importlib.import_module("threadlets.adapters.asgiref_calls")

from asgiref.local import Local  # noqa: E402
from asgiref.sync import (  # noqa: E402
    AsyncToSync,
    SyncToAsync,
    ThreadSensitiveContext,
    async_to_sync,
    iscoroutinefunction,
    sync_to_async,
)

MODES = ["worker", "home"]
free = functools.partial(sync_to_async, thread_sensitive=False)
here = threading.get_ident
variable: ContextVar[str] = ContextVar("variable", default="unset")


@pytest.fixture(autouse=True)
def nothing_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions of one test are those of its next round, to whoever knows them by their code."""
    monkeypatch.setattr(calls, "entries", calls.Known())


def bridge(function: Any, *args: Any) -> Any:
    """What synchronous code does to await."""
    return async_to_sync(function)(*args)


async def running_loop() -> Any:
    return asyncio.get_running_loop()


# --------------------------------------------------------------------------------------------------- the change itself


def test_it_is_made_and_taken_back() -> None:
    """What was asgiref's is so again when the last one has gone; a wrapper from before is changed with the rest."""
    before = SyncToAsync.__call__, AsyncToSync.__call__, ThreadSensitiveContext.__aexit__
    with adapter.install() as outer, adapter.install(thread_sensitive="home") as inner:
        assert SyncToAsync.__call__ is not before[0]
        assert inner.value.thread_sensitive == "home" and outer.value.thread_sensitive == "worker"
        assert iscoroutinefunction(SyncToAsync.__call__) and iscoroutinefunction(sync_to_async(len))
    assert (SyncToAsync.__call__, AsyncToSync.__call__, ThreadSensitiveContext.__aexit__) == before
    assert importlib.import_module("asgiref.local").threading is threading
    adapter.uninstall()


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pool, another word, asgiref of another make, and none at all."""
    with pytest.raises(TypeError, match=r"expected a threadlets\.Pool"):
        adapter.install(3)
    with pytest.raises(ValueError, match="expected 'worker' or 'home'"):
        adapter.install(thread_sensitive=True)
    with monkeypatch.context() as patch:
        patch.setattr(asgiref_sync.SyncToAsync, "thread_handler", lambda self, loop, source_task: None)
        with pytest.raises(RuntimeError, match=r"has no SyncToAsync that .* can change"):
            adapter.install()
        patch.setattr("asgiref.__version__", "99.0")
        with pytest.warns(RuntimeWarning, match="was tested with asgiref"), pytest.raises(RuntimeError):
            adapter.install()
    monkeypatch.setitem(sys.modules, "asgiref.sync", None)
    monkeypatch.delitem(sys.modules, "threadlets.adapters.asgiref")
    with pytest.raises(ImportError, match=r"pip install 'threadlets\[django\]'"):
        importlib.import_module("threadlets.adapters.asgiref")


# --------------------------------------------------------------------------------------- where functions run, and what


class Callables:
    """One of each kind."""

    def method(self, _: object = None) -> int:
        return here()

    def __call__(self) -> int:
        return here()


def make(kind: str) -> Any:
    """Make one anew, as code does that wraps at each call."""
    plain = lambda _=None: here()  # noqa: E731
    return {
        "lambda": plain,
        "partial": functools.partial(functools.partial(plain), 1),
        "method": Callables().method,
        "object": Callables(),
        "wrapped": functools.wraps(plain)(lambda: plain()),
    }[kind]


def test_a_quick_function_comes_to_run_in_place(run: Run) -> None:
    """Whatever callable it is, and made anew for each call."""

    async def main() -> None:
        for kind in "lambda partial method object wrapped".split():
            for _ in range(200):  # a busy machine may make it look slow at first
                if await free(make(kind))() == here():
                    break
            else:
                pytest.fail(f"a quick {kind} stayed on workers")
            assert await free(time.monotonic)() <= time.monotonic()

    with adapter.install():
        run(main)


def test_functions_behind_one_decorator_are_told_apart(once: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only so many are remembered."""

    def decorated(function: Any) -> Any:
        return functools.wraps(function)(lambda *args: function(*args))

    async def main() -> None:
        names = [eval(f"lambda: {n}") for n in range(20)]
        assert [await free(decorated(name))() for name in names] == list(range(20))
        assert len(calls.entries) == 8

    monkeypatch.setattr(calls, "entries", calls.Known(8))
    with adapter.install():
        once(main)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sensitive", [True, False])
def test_what_a_function_sees_and_sets(run: Run, mode: Any, sensitive: bool) -> None:
    """Context variables and Locals go in and come back, also if it fails; the error that is handled is seen, too."""
    local, critical = Local(), Local(thread_critical=True)

    def function(fails: bool) -> tuple[str, str, Any, bool]:
        seen = variable.get(), local.name, sys.exc_info()[1], hasattr(critical, "name")
        variable.set("inside")
        local.name = "inside"
        if fails:
            raise LookupError("so what")
        return seen

    async def main() -> None:
        call = sync_to_async(function, thread_sensitive=sensitive)
        async with ThreadSensitiveContext():
            for _ in range(12):
                for fails in (False, True):
                    variable.set("outside")
                    local.name = critical.name = "outside"
                    error = KeyError("outer")
                    try:
                        raise error
                    except KeyError:
                        if fails:
                            with pytest.raises(LookupError, match="so what"):
                                await call(True)
                        else:
                            assert await call(False) == ("outside", "outside", error, False)
                    assert (variable.get(), local.name, critical.name) == ("inside", "inside", "outside")
            with pytest.raises(RuntimeError, match="StopIteration"):
                await sync_to_async(next, thread_sensitive=sensitive)(iter(()))

    with adapter.install(thread_sensitive=mode):
        run(main)


@pytest.mark.parametrize("mode", MODES)
def test_a_context_of_its_own_and_a_subclass(run: Run, mode: Any) -> None:
    """A context that was given is used, and keeps what is set in it; what a subclass does around a function is done."""
    import contextvars

    around: list[str] = []

    class Channels(SyncToAsync):  # type: ignore[misc]  # as channels.db has it
        def thread_handler(self, loop: Any, *args: Any, **kwargs: Any) -> Any:
            around.append("before")
            try:
                return super().thread_handler(loop, *args, **kwargs)
            finally:
                around.append("after")

    async def main() -> None:
        context = contextvars.copy_context()
        for sensitive in (True, False):
            if "context" in SyncToAsync.__init__.__annotations__:
                await sync_to_async(variable.set, thread_sensitive=sensitive, context=context)("theirs")
                assert context[variable] == "theirs" and variable.get() == "unset"
            await Channels(lambda: around.append("inside"), thread_sensitive=sensitive)()
        assert around == ["before", "inside", "after"] * 2

    with adapter.install(thread_sensitive=mode):
        run(main)


# ------------------------------------------------------------------------------------------------------- the way back


@pytest.mark.parametrize("mode", MODES)
def test_there_and_back(run: Run, mode: Any) -> None:
    """A function that awaits has its coroutine on the loop, from its first call on, and sensitive code comes back."""

    async def inner() -> tuple[Any, int]:
        variable.set("from the loop")
        return asyncio.get_running_loop(), await sync_to_async(here)()

    def function() -> tuple[Any, bool, str]:
        loop, thread = bridge(inner)
        return loop, thread == here(), variable.get()

    async def main() -> None:
        for _ in range(12):
            assert await free(function)() == (asyncio.get_running_loop(), True, "from the loop")
        async with ThreadSensitiveContext():
            loop, same, seen = await sync_to_async(function)()
            assert same and seen == "from the loop"
            assert mode == "home" or loop is asyncio.get_running_loop()

    with adapter.install(thread_sensitive=mode):
        run(main)


def test_one_that_takes_everybody_by_surprise(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """In place on a loop that cannot go on, its coroutine has a loop of its own, once; after that it is on workers."""

    def function(awaits: bool) -> tuple[Any, int]:
        return bridge(running_loop) if awaits else None, here()

    async def main() -> None:
        loop, call = asyncio.get_running_loop(), free(function)
        changes_hands = hasattr(loop, "_threadlets_token")
        for _ in range(200):
            if (await call(False))[1] == here():
                break
        found, thread = await call(True)
        assert thread == here() and (found is loop) == changes_hands
        for _ in range(20):
            found, thread = await call(True)
            assert found is loop and thread != here()
        told = [record.args[0] for record in caplog.records if record.args]
        assert told == ([] if changes_hands else [function.__qualname__])

    caplog.set_level(logging.WARNING, "threadlets")
    with adapter.install():
        run(main)
