"""A plain function: called, as a threadlet that has proved to be fast, and sent to a thread as people do now.

The threadlets here have an ordinary contract: they start on workers, and are measured once the library has learned that
they may run in place. Everything is awaited one call at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from threadlets import Entrypoint, threadlet

from .harness import Comparison, Contender, Effort, compare, has, until, versus

__all__ = ["measure"]

BUSY = 20e-6  # seconds


def nothing() -> int:
    """Do nothing."""
    return 1


def make_busy(seconds: float) -> Callable[[], int]:
    """Return a function that computes for about this long, in Python, without calling anything."""

    def made(steps: int) -> Callable[[], int]:
        def busy() -> int:
            left = steps
            while left:
                left -= 1
            return 1

        return busy

    steps, spent = 64, 0.0
    while spent < 2e-3:
        steps *= 2
        function = made(steps)
        spent = min(_timed(function) for _ in range(5))
    return made(max(1, round(steps * seconds / spent)))


def _timed(function: Callable[[], int]) -> float:
    started = perf_counter()
    function()
    return perf_counter() - started


async def measure(effort: Effort) -> list[Comparison]:
    """Measure a function that does nothing, and one of about 20 us."""
    busy = make_busy(BUSY)
    return [
        await _one("await of a function that does nothing", nothing, effort, thread=1 / 60),
        await _one("await of a function that computes for about 20 us", busy, effort, direct=1.15),
    ]


async def _one(
    title: str, function: Callable[[], int], effort: Effort, *, thread: float | None = None, direct: float | None = None
) -> Comparison:
    entrypoint: Entrypoint[[], int] = threadlet(function)
    await until(lambda: entrypoint.statistics().placement == "in place", lambda: _call(entrypoint))
    found = await compare(
        title,
        versus(
            Contender("threadlet, in place", _awaiting(entrypoint)),
            Contender("direct call", _calling(function), budget=direct),
            Contender("asyncio.to_thread", _to_thread(function), budget=thread),
            Contender("anyio.to_thread.run_sync", _anyio_to_thread(function)) if has("anyio") else None,
        ),
        effort,
        note="One call at a time; the threadlet runs where the learner has placed it.",
    )
    after = entrypoint.statistics()
    assert after.placement == "in place", f"the learner has sent {title!r} back to the workers"
    return found


async def _call(entrypoint: Entrypoint[[], int]) -> None:
    await entrypoint()


def _awaiting(entrypoint: Entrypoint[[], int]) -> Callable[[int], Any]:
    async def run(count: int) -> int:
        right = 0
        for _ in range(count):
            right += await entrypoint()
        return right

    return run


def _calling(function: Callable[[], int]) -> Callable[[int], Any]:
    async def run(count: int) -> int:
        right = 0
        for _ in range(count):
            right += function()
        return right

    return run


def _to_thread(function: Callable[[], int]) -> Callable[[int], Any]:
    async def run(count: int) -> int:
        right = 0
        for _ in range(count):
            right += await asyncio.to_thread(function)
        return right

    return run


def _anyio_to_thread(function: Callable[[], int]) -> Callable[[int], Any]:
    from anyio import to_thread

    async def run(count: int) -> int:
        right = 0
        for _ in range(count):
            right += await to_thread.run_sync(function)
        return right

    return run
