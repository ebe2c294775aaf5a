"""Deadlines of threadlets on one event loop: a queue of them, and one timer for the earliest."""

from __future__ import annotations

import math
from asyncio import AbstractEventLoop, TimerHandle
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from . import trials
from .queues import PriorityQueue

if TYPE_CHECKING:
    from .handles import Threadlet

__all__ = ["Expiries", "deadline_of", "seconds_until"]

ENDLESS = math.inf
LONG = 3e9  # seconds, 95 years; arbitrary: what is longer is as good as this, and event loops can count it


def deadline_of(deadline: float | datetime) -> int:
    """Return a deadline on the clock of ``time.monotonic_ns()``.

    Args:
        deadline: Seconds from now, or a point in time that has a time zone; taken for 95 years if it is longer.

    Raises:
        TypeError: If it is neither.
        ValueError: If it is NaN, infinite, or a point in time without a time zone.
    """
    if isinstance(deadline, datetime):
        if deadline.tzinfo is None:
            raise ValueError(f"deadline={deadline!r} has no time zone: write datetime.now(UTC) + ..., or seconds")
        deadline = (deadline - datetime.now(UTC)).total_seconds()
    elif isinstance(deadline, bool) or not isinstance(deadline, (int, float)):
        raise TypeError(f"deadline={deadline!r}: expected seconds from now, or a datetime with a time zone")
    if deadline != deadline or abs(deadline) == ENDLESS:
        raise ValueError(f"deadline={deadline!r}: expected a finite number of seconds; None: no deadline")
    return trials.now() + round(max(-LONG, min(deadline, LONG)) * 1e9)


def seconds_until(time: int) -> float:
    """Return how many seconds are left until a time of ``time.monotonic_ns()``."""
    return (time - trials.now()) / 1e9


class _Expiry:
    """One threadlet's deadline."""

    __slots__ = ("_arrived", "deadline", "handle", "ticket")

    def __init__(self, handle: Threadlet[Any], deadline: int) -> None:
        self.handle = handle
        self.deadline = deadline
        self.ticket: Any = None
        self._arrived = 0


class Expiries:
    """The deadlines of one event loop's threadlets. Thread: loop."""

    __slots__ = ("_expiries", "_loop", "_queue", "_timer", "_when")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: PriorityQueue[_Expiry] = PriorityQueue()
        self._expiries: dict[Threadlet[Any], _Expiry] = {}
        self._timer: TimerHandle | None = None
        self._when = ENDLESS  # the timer's time: uvloop's handle of a call that is due does not tell it

    def __len__(self) -> int:
        return len(self._expiries)

    def get(self, handle: Threadlet[Any]) -> float:
        """Return a threadlet's deadline in ns; inf if it has none."""
        expiry = self._expiries.get(handle)
        return ENDLESS if expiry is None else expiry.deadline

    def set(self, handle: Threadlet[Any], deadline: int | None) -> None:
        """Give a threadlet another deadline, or none. O(log n)."""
        old = self._expiries.pop(handle, None)
        if old is not None:
            self._queue.remove(old)
        if deadline is not None:
            new = self._expiries[handle] = _Expiry(handle, deadline)
            self._queue.push(new, deadline)
        self._set_timer()

    def _set_timer(self) -> None:
        """See that the timer is that of the earliest deadline, or an earlier one."""
        if not self._queue:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        when = self._loop.time() + seconds_until(self._queue.peek().deadline)
        if self._timer is None or when < self._when - 0.001:
            if self._timer is not None:
                self._timer.cancel()
            self._when = when
            self._timer = self._loop.call_at(when, self._due)

    def _due(self) -> None:
        """Stop those whose deadlines have passed."""
        self._timer = None
        now = trials.now()
        try:
            while self._queue and self._queue.peek().deadline <= now:
                handle = self._queue.pop().handle
                del self._expiries[handle]
                handle.pool._expire(handle)  # type: ignore[union-attr]  # what has a deadline is in a pool
        finally:
            self._set_timer()  # RecursionError: asyncio cannot cancel a very long chain of tasks; the others are next

    def _check(self) -> None:
        """Assert every invariant. O(n log n)."""
        self._queue._check()
        assert {expiry.handle for expiry in self._queue} == self._expiries.keys(), "each deadline is in the queue"
        assert not any(handle.done() for handle in self._expiries), "what is final has none"
        assert bool(self._queue) == (self._timer is not None), "the timer is set while there are deadlines"
