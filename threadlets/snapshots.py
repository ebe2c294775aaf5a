"""What entrypoints and pools tell about themselves: frozen records, each true of one moment."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

__all__ = ["EntrypointStatistics", "GroupStatistics", "Percentiles", "PoolStatistics", "TakeoverStatistics"]


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
        on_hosts: Calls of a plain function that a ``Host`` ran; they count as missed, too, while it does.
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
    on_hosts: int = 0


@dataclass(frozen=True, slots=True)
class Percentiles:
    """How long something took, in seconds; each figure is right to about 6 %, and ``most`` exactly.

    Of many, a sample is measured: then ``count`` and the percentiles are estimates.

    Attributes:
        count: How many there were.
        p50: Half of them took no longer than this.
        p90: 90 % took no longer.
        p99: 99 % took no longer.
        most: None took longer.
        total: What they took together; of a sample, an estimate, as ``count``.
    """

    count: int
    p50: float
    p90: float
    p99: float
    most: float
    total: float = 0.0


NOTHING = Percentiles(0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class GroupStatistics:
    """What has become of a pool's threadlets of one entrypoint, or with one tag.

    Attributes:
        done: How many have returned.
        failed: How many have raised.
        cancelled: How many were cancelled.
        waits: How long those that the pool could not start at once were in its queue.
        runs: How long they ran: on a worker, or, for a coroutine that was suspended, from then to its end. Of those in
            place one of sixteen is measured.

    Of the times, a pool notes the first 1,000, and then one in seven, which counts for all seven; and the longest.
    """

    done: int
    failed: int
    cancelled: int
    waits: Percentiles
    runs: Percentiles


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """What a pool holds, with those that are parts of it, and what has become of the rest.

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
        waits: How long threadlets were in the queue, as far as they were. (This and what follows does not count when
            snapshots are compared.)
        runs: How long they ran; see ``GroupStatistics``.
        entrypoints: The same figures by name of the entrypoint; those of one name are taken together.
        tags: The same by tag, for 1,000 tags: of more, the one that came up first is forgotten.
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
    waits: Percentiles = field(default=NOTHING, compare=False)
    runs: Percentiles = field(default=NOTHING, compare=False)
    entrypoints: dict[str, GroupStatistics] = field(default_factory=dict, compare=False)
    tags: dict[Hashable, GroupStatistics] = field(default_factory=dict, compare=False)


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
