"""Finds what a test has left behind: threadlets, busy worker threads, held locks. For the pytest plugin.

What is a leak: a threadlet that is not final ``GRACE`` seconds after the test has returned, whatever pool it is in; a
worker thread that still runs a function then, as one of an abandoned threadlet does; a ``Lock`` whose holder - a
threadlet, a task, a thread - has ended, or is the test itself. What was there before the test began is not this test's:
a server that a fixture of the module has started, say.

Idle worker threads are none: they end by themselves. Nor are tasks: pytest-asyncio, anyio and ``asyncio.run`` cancel
those.

What was left behind is then stopped, so that the loop can be closed: cancelled, and abandoned where that does not help.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable
from typing import Any

from threadlets import Pool, Threadlet
from threadlets.cancellation import why
from threadlets.departures import busy_on, leave, wait_out
from threadlets.holders import all_held
from threadlets.trials import now
from threadlets.whereabouts import at_work, stack_of

__all__ = ["Leaks"]

GRACE = 0.1  # seconds; arbitrary: what was told to stop may take so long; and a thread to come to rest
STOP = 0.5  # seconds; arbitrary: how long the rest is waited for, before it is abandoned
ROUNDS = 5  # of the loop, which a coroutine without cleanup takes to end when it was cancelled
LOOK = 0.005  # seconds; arbitrary
MANY = 5  # arbitrary: so many of each kind are shown


class Leaks:
    """What one test leaves behind; ``found`` says it. Thread: that of the test."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._known: set[Threadlet[Any]] = set()  # from before, or told already
        self._at_work = {(thread, handle) for thread, handle, _ in at_work()}
        self._held = [(lock, owner) for lock, owner, _ in all_held()]

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note which threadlets are there before the test is called, in its task."""
        self._known.update(busy_on(loop))

    async def end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look for threadlets that are not final when the test has returned, and stop them. Cancel: point."""
        for _ in range(ROUNDS):
            if not (left := self._left(busy_on(loop))):
                return
            await asyncio.sleep(0)
        await _wait(left, GRACE)
        await self._stop(self._left(busy_on(loop)), "not final when the test had ended")

    async def finish(self, pool: Pool, seconds: float) -> None:
        """Wait until the test's own pool is empty, so many seconds; then stop what is left. Cancel: point."""
        if left := await wait_out([pool], now() / 1e9 + seconds):
            await self._stop(left, f"not final {seconds:g} s after the test had ended")

    async def abort(self, pool: Pool) -> None:
        """Stop what is in the test's own pool, since the test has failed: that is no leak. Cancel: point."""
        await self._stop(list(pool), None)

    def _left(self, handles: Iterable[Threadlet[Any]]) -> list[Threadlet[Any]]:
        return [handle for handle in handles if handle not in self._known and not handle.done()]

    async def _stop(self, handles: list[Threadlet[Any]], what: str | None) -> None:
        self._known.update(handles)
        if what is not None:
            self._tell([_shown(handle, what) for handle in handles])
        for handle in handles:
            handle.cancel("the test has ended")
        await _wait(handles, STOP)
        leave([handle for handle in handles if not handle.done()])

    def look(self) -> None:
        """Look for busy threads and held locks when the test is over."""
        until = time.monotonic() + GRACE
        while (busy := self._busy()) and time.monotonic() < until:
            time.sleep(LOOK)
        self._tell(busy)
        self._tell(
            f"{words}, and {'the test' if isinstance(owner, int) else 'that'} has ended"
            for lock, owner, words in all_held()
            if _has_ended(owner) and not any(lock is each and owner == before for each, before in self._held)
        )

    def _busy(self) -> list[str]:
        return [
            f"the worker thread {thread.name!r} still runs {handle or 'a function'}:\n{''.join(stack)}"
            for thread, handle, stack in at_work()
            if (thread, handle) not in self._at_work and handle not in self._known
        ]

    def _tell(self, found: Iterable[str]) -> None:
        found = list(found)
        self.found += found[:MANY]
        if len(found) > MANY:
            self.found.append(f"and {len(found) - MANY} more")


async def _wait(handles: list[Any], seconds: float) -> None:
    """Wait for threadlets, so many seconds of the loop's time."""
    if handles:
        await asyncio.wait(handles, timeout=seconds)


def _shown(handle: Threadlet[Any], what: str) -> str:
    inside = why(handle)
    stack = "".join(stack_of(handle))
    return f"{handle!r} was {what}{', ' + inside if inside else ''}{':' if stack else ''}\n{stack}"


def _has_ended(owner: Any) -> bool:
    if isinstance(owner, int):
        return owner == threading.get_ident() or all(thread.ident != owner for thread in threading.enumerate())
    return bool(owner.done())
