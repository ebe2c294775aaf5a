"""What the tests of coroutines that leave their event loop share."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from threadlets import topology
from threadlets.surroundings import travellers, trips

__all__ = ["NODE", "at_home", "in_worker", "nothing_is_left", "number"]

NODE = topology.machine().nodes[0]
number: ContextVar[int] = ContextVar("number", default=0)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """See that no coroutine is away when a test has ended."""
    yield
    gc.collect()
    assert not trips and not travellers


def at_home() -> bool:
    """Say whether an event loop runs here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def in_worker() -> bool:
    """Say whether this thread is one of those that serve all."""
    return threading.current_thread().name.startswith("threadlets-worker")
