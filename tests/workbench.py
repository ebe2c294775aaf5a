"""What the tests of the doors share: contracts that fix the placement, gates that stop threads, rounds of the loop."""

from __future__ import annotations

import asyncio
import threading
import weakref
from asyncio import CancelledError
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from threadlets import Contract, Threadlet, threadlet
from threadlets.homes import Home

T = TypeVar("T")

IN_PLACE = Contract(blocks="never")
ON_WORKER = Contract(blocks="always")
ABANDON = Contract(blocks="always", cancel="abandon")
PLACES = {"in place": IN_PLACE, "worker": ON_WORKER}

PATIENCE = 20  # seconds; arbitrary: a thread that waits longer has been forgotten, and its test fails


class Gate:
    """A place where a function on a worker thread stops until the test lets it go on."""

    def __init__(self) -> None:
        self._arrived = threading.Semaphore(0)
        self._open = threading.Event()

    def __call__(self, value: Any = None) -> Any:
        """Stop here; return the value once the gate is open."""
        self._arrived.release()
        assert self._open.wait(PATIENCE), "the gate stayed closed"
        return value

    def wait_arrived(self) -> None:
        """Wait, blocking this thread, until one more has arrived."""
        assert self._arrived.acquire(timeout=PATIENCE), "nobody arrived at the gate"

    def open(self) -> None:
        """Let everybody through, now and later."""
        self._open.set()


class Token:
    """An argument that can be watched: weak references to it tell when nothing holds it any more."""

    def __init__(self, on_delete: Callable[[], object] | None = None) -> None:
        if on_delete is not None:
            weakref.finalize(self, on_delete)


def hold_workers_before_running(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Stop every worker between its taking a job out of the queue and its running it."""
    gate = Gate()
    really = Home.run_on_worker

    def stop_first(home: Home, handle: Threadlet[Any]) -> None:
        gate()
        really(home, handle)

    monkeypatch.setattr(Home, "run_on_worker", stop_first)
    return gate


def entrypoint(place: str, function: Callable[..., T]) -> Callable[..., Threadlet[T]]:
    """Make an entrypoint that runs "in place" or on a "worker"."""
    return threadlet(contract=PLACES[place])(function)


async def rounds(count: int = 10) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go round until the condition holds."""
    while not condition():  # noqa: ASYNC110 - a condition of anything, which nobody could set an event for
        await asyncio.sleep(0)


async def ended(handle: Threadlet[Any]) -> BaseException | None:
    """Wait for a threadlet; return what awaiting it raises."""
    try:
        await handle
    except (Exception, CancelledError) as error:
        return error
    return None


async def forever() -> None:
    """Wait until cancelled."""
    await asyncio.get_running_loop().create_future()
