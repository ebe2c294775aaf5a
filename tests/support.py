"""What several tests share: loops to run on, a clock that is told, and means to stop a thread at a chosen place."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

__all__ = ["Complaints", "FakeClock", "HookedLock", "each_loop", "run_on"]

LOOPS = ["asyncio", "debug"]
try:
    import uvloop
except ImportError:  # not on Windows, not on every new Python
    uvloop = None  # type: ignore[assignment]
else:
    LOOPS.append("uvloop")

each_loop = pytest.mark.parametrize("loop_name", LOOPS)


def run_on(loop_name: str, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine function as ``asyncio.run`` does, on the loop of this name."""
    factory = uvloop.new_event_loop if loop_name == "uvloop" else asyncio.SelectorEventLoop
    if sys.platform == "win32" and loop_name != "uvloop":
        factory = asyncio.new_event_loop
    with asyncio.Runner(debug=loop_name == "debug", loop_factory=factory) as runner:
        return runner.run(main())


class FakeClock:
    """Nanoseconds that pass when they are told to."""

    def __init__(self, now: int = 0) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def pass_(self, *, ns: int = 0, ms: float = 0, seconds: float = 0) -> int:
        """Let time pass; return the new time."""
        self.now += ns + round(ms * 1e6) + round(seconds * 1e9)
        return self.now


class HookedLock:
    """A lock that calls ``hook()`` before each acquire: a hook that waits stops the thread there."""

    def __init__(self, hook: Callable[[], None]) -> None:
        self.hook = hook
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.hook()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Complaints:
    """What the exception handler of the running loop was told, as messages; each also has its exception."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.exceptions: list[BaseException | None] = []
        asyncio.get_running_loop().set_exception_handler(self._hear)

    def _hear(self, loop: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
        self.messages.append(told["message"])
        self.exceptions.append(told.get("exception"))
