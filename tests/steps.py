"""What the tests of chains share: chains run as simply as can be, steps in place and away, and a log of them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from threadlets.chainings import Chain
from threadlets.chains import Steps, arg, ref
from threadlets.courses import Course, Raised

from .workbench import entrypoint

LINUX = Path("/proc/self/fd").exists()


def perform(steps: Steps, values: Mapping[str, Any] | None = None, log: list[Any] | None = None) -> Any:
    """Run a chain as simply as that can be done; return what the course returns."""
    course = Course(steps).begin(values or {})
    outcome: Any = None
    try:
        while True:
            call, args, kwargs = course.send(outcome)
            if log is not None:
                log.append((call.step, *args))
            try:
                outcome = call.function(*args, **kwargs)
            except BaseException as error:
                outcome = Raised(error)
    except StopIteration as end:
        return end.value


def then(steps: Steps, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Steps:
    """Add a step."""
    return steps.then(function, args, kwargs)


def finally_(steps: Steps, function: Callable[..., Any], *args: Any) -> Steps:
    """Add a step of the end."""
    return steps.finally_(function, args, {})


def same(*args: Any, **kwargs: Any) -> Any:
    """Return the argument, or all of them."""
    return args[0] if len(args) == 1 and not kwargs else (args, kwargs)


def fail(*args: Any) -> Any:
    """Raise."""
    raise LookupError(*args)


def boom() -> None:
    """Raise what is no failure."""
    raise KeyboardInterrupt


def boom_of(value: Any) -> None:
    """Raise what is no failure."""
    raise KeyboardInterrupt


class Log:
    """What was called, with what, and on which thread."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, Any]] = []
        self.threads: list[int] = []

    def __call__(self, name: str, value: Any = None) -> Any:
        self.entries.append((name, value))
        self.threads.append(threading.get_ident())
        return value

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.entries]


def here(function: Callable[..., Any]) -> Any:
    """Make a step that runs in place."""
    return entrypoint("in place", function)


def away(function: Callable[..., Any]) -> Any:
    """Make a step that runs on a worker."""
    return entrypoint("worker", function)


def rest_pool() -> Any:
    """Return the pool of what is left of chains."""
    return getattr(asyncio.get_running_loop(), "_threadlets_rests", None)


def open_in(folder: Path) -> list[str]:
    """Return which files of a folder are open."""
    found = []
    for number in os.listdir("/proc/self/fd") if LINUX else []:
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:  # that of the listing
            pass
    return [path for path in found if path.startswith(str(folder))]


READ = (
    Chain("read")
    .then(os.open, arg("path"), os.O_RDONLY)
    .named("fd")
    .then(os.fstat, ref("fd"))
    .named("stat")
    .then(os.read, ref("fd"), 100)
    .finally_(os.close, ref("fd"))
)
