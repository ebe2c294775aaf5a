"""What the tests of rules and machinery share: a clock that is told, a lock to stop a thread at, patience."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from threadlets import probes

__all__ = ["FakeClock", "HookedLock", "descriptors", "eventually", "fork_beside_threads", "read_now"]


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


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until a condition holds, for what tells nobody that it has happened; fail if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what was waited for has not happened"
        time.sleep(0.0005)


def read_now(path: Any, buffer: Any = None) -> Any:
    """Return the bytes of a file, or how many are in the buffer, if it is in the page cache; else ``MISS``."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        status = os.fstat(descriptor)
        return probes.read_now(descriptor, status, buffer) if probes.takes_probes(status) else probes.MISS
    finally:
        os.close(descriptor)


def descriptors(place: Path) -> int:
    """Return how many descriptors there are of what is below a folder, or was."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").startswith(f"{os.path.realpath(place)}/")
        except FileNotFoundError:  # that of the listing itself
            pass
    return count


def fork_beside_threads() -> int:
    """Fork, in a process with threads: Python warns of that, and it is what a test is about."""
    with warnings.catch_warnings():
        if sys.version_info >= (3, 12):
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        return os.fork()
