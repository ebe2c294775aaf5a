"""What entrypoints and pools tell about themselves: frozen records, each true of one moment."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EntrypointStatistics", "PoolStatistics", "TakeoverStatistics"]


@dataclass(frozen=True, slots=True)
class EntrypointStatistics:
    """What one entrypoint has done so far.

    Attributes:
        in_place: Calls of a plain function that ran in place, or first steps of a coroutine.
        on_workers: Calls of a plain function that ran on a worker thread.
        missed: Coroutines that were suspended and went on later.
        failed: Calls that ended with an exception.
        cancelled: Calls that were cancelled.
        seconds_in_place: What the calls in place took the event loop, in seconds.
        seconds_on_workers: What the calls on workers took these, in seconds.
        overdrafts: How often it was sent back to the workers because its calls in place took too long.
        placement: Where the next call will run: ``"in place"`` or ``"worker"``.
    """

    in_place: int
    on_workers: int
    missed: int
    failed: int
    cancelled: int
    seconds_in_place: float
    seconds_on_workers: float
    overdrafts: int
    placement: str


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """What a pool holds, and what has become of the rest.

    Attributes:
        queued: Threadlets that wait for the pool's throttles, or for their turn.
        admitted: Threadlets that wait for a worker, run, or are suspended.
        done: How many have returned.
        failed: How many have raised, not counting those that were shed.
        cancelled: How many were cancelled.
        shed: How many were dropped because the pool was full.
        rejected: How many starts were refused because the pool was full.
        abandoned: Functions of cancelled threadlets that still run, with ``Contract(cancel="abandon")``.
        unretrieved: Failures that nobody has looked at, in a scope.
    """

    queued: int
    admitted: int
    done: int
    failed: int
    cancelled: int
    shed: int
    rejected: int
    abandoned: int
    unretrieved: int


@dataclass(frozen=True, slots=True)
class TakeoverStatistics:
    """What has happened on an event loop that changes hands.

    Attributes:
        takeovers: How often another thread went on with the loop while a call blocked.
        stalls: Blocking calls that stalled the loop, since it could not go on from there: why and where, and how often.
        away: How many threads are blocked now while the loop goes on without them.
        seconds_away: How long threads were away in all, in seconds; they may be so at the same time.
        longest_away: The longest of these times, in seconds.
        set_aside: How many callbacks had to wait until a thread came back, whose context or whose task they needed.
        threshold: How long a call may block now until the loop goes on without it, in seconds; inf: takeovers are off.
    """

    takeovers: int
    stalls: dict[str, int]
    away: int
    seconds_away: float
    longest_away: float
    set_aside: int
    threshold: float
