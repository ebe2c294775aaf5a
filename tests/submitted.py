"""What the tests of executors submit, and a thread that does nothing for the library."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any, TypeVar

from threadlets import current_threadlet

__all__ = ["divide", "in_thread", "tags_here", "thread_of", "twice"]

T = TypeVar("T")


def thread_of(_: object = None) -> int:
    """Return the thread that this runs on."""
    return threading.get_ident()


def twice(value: int) -> int:
    """Return twice the value."""
    return 2 * value


def divide(value: int) -> float:
    """Divide by zero."""
    return value / 0


def tags_here() -> tuple[float, frozenset[Any]]:
    """Return priority and tags of the threadlet that this is."""
    handle = current_threadlet()
    assert handle is not None
    return handle.priority, handle.tags


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Call a function on a thread that does nothing for the library, and wait for it."""
    with futures.ThreadPoolExecutor(1) as executor:
        return await asyncio.get_running_loop().run_in_executor(executor, function, *args)
