"""A limit that is found: as many at a time as a service can use, learned from how long they take and how many fail.

Why: a service with k places serves no more with 3 k threadlets at a time than with k, but each takes three times as
long. Where k is depends on the machine, the day and the neighbours, so it is better measured than written down.

The idea is that of TCP Vegas (Brakmo and Peterson, 1995), as Netflix' concurrency-limits brought it to services: if a
call takes ``base`` with nobody before it, and ``latency`` now, then of ``limit`` calls about ``limit * (1 - base /
latency)`` stand in a queue somewhere. While there are few, the limit grows; when there are many, it shrinks. Departures
from theirs:

- Latency is a mean over a window of calls, without the slowest tenth, and the base is one, too. The least that was ever
  seen, or a median, makes a queue of what is only jitter.
- A window counts the calls that were started under its limit, and no others: so each step sees the effect of the last
  one.
- The base is found by shrinking the limit for one window. If latency shrinks along with it, there was a queue, and the
  next step goes on from there; if not, what was measured is the base. This happens at first and then every 40 windows,
  sooner if latency stays high: a service that is slower for good has its limit back after a while.
- Failures count if there are many, so that a few that have nothing to do with load do no harm.

Rejected: the gradient of two averages (Netflix' later Gradient2): a lasting queue becomes its idea of normal.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import isqrt

from .throttles import LONG_AGO, SECOND, Concurrency, whole

__all__ = ["Adaptive"]

# Chosen by simulation, tests/test_limits.py.
FEWEST = 40  # calls in a window; with 20, exponential service times looked like queues
EVERY = 40  # windows from one measurement of the base to the next
PROBE = 0.7  # of the limit is left for the measurement
FELL = 0.85  # of latency: halfway between 0.7, there was nothing but a queue, and 1, there was none
FASTER = 0.6  # of the base: no chance, but a service that has become faster
FAILED = 0.1  # of a window's calls are too many
BACK_OFF = 0.8  # of the limit is left when too many fail
STALE = 60 * SECOND  # ns; arbitrary: what was learned is worth keeping for so long after the last call


class Adaptive(Concurrency):
    """At most ``limit`` threadlets at a time, where the limit is found from their latency and their failures.

    It grows while more at a time do not take longer, and shrinks when they queue up inside the service or when more
    than a tenth of them fail. It learns only while it is used to capacity. What a threadlet waits before it starts does
    not count; what it waits for others, while it runs, does: so give a service a throttle of its own.

    ``limit`` may be set at any time; it is then looked for from there. Every method is O(1), but for every 40th call or
    more, when a window is sorted.

    >>> throttle = Adaptive(initial=2, most=100)
    >>> now = 0
    >>> for _ in range(5_000):                   # a service that can do any number at a time, in 5 ms each
    ...     while throttle.ready(None, now):
    ...         throttle.take(None, now)
    ...     began, now = now, now + 5_000_000
    ...     while throttle.taken:
    ...         throttle.give_back(None, now, began, False)
    >>> throttle.limit
    100

    Args:
        initial: The limit to begin with.
        least: It never goes below.
        most: It never goes above.

    Raises:
        TypeError: If an argument is not a whole number.
        ValueError: If not 1 <= least <= initial <= most.
    """

    __slots__ = (
        "_base",  # ns; latency without a queue; 0: not yet known
        "_before",  # the limit before it was lowered to measure the base; 0: it was not
        "_busy",  # samples of this window during which there was no place left, at some time
        "_ceiling",  # the limit at which too many failed
        "_failed",
        "_found",  # the limit at which there was a queue: up to its half, the limit is doubled
        "_full",  # ns; when the last place was taken
        "_initial",
        "_last",  # ns; the end of the last call
        "_latency",  # ns; at the limit before
        "_least",
        "_most",
        "_samples",  # ns; latencies
        "_since",  # ns; calls that were started earlier do not count; None: than the next end of a call
        "_windows",  # since the base was measured
    )

    clocked = True

    def __init__(self, initial: int = 8, *, least: int = 1, most: int = 1000) -> None:
        self._least, self._most = whole("Adaptive least", least), whole("Adaptive most", most)
        self._initial = self._expect("initial", initial)
        super().__init__(initial)

    @property
    def limit(self) -> int:
        """How many may run at a time, as far as is known now."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = self._expect("limit", limit)
        self._before = 0
        self._open(None)
        if self._taken < limit:
            self._wake()

    @property
    def least(self) -> int:
        """The limit never goes below."""
        return self._least

    @property
    def most(self) -> int:
        """The limit never goes above."""
        return self._most

    def renew(self) -> None:
        """Forget what was taken, who waits, and what was learned: the loop that it belonged to is gone."""
        super().renew()
        self._limit, self._ceiling, self._found = self._initial, self._most, self._most
        self._base = self._latency = 0.0
        self._before, self._windows = 0, EVERY
        self._full = self._last = LONG_AGO
        self._since: int | None
        self._busy: int
        self._failed: int
        self._open(None)

    def take(self, key: Hashable, now: int) -> None:
        """Count one more as started, at ``now``, in ns."""
        self._taken += 1
        if self._taken >= self._limit:
            self._full = now

    def give_back(self, key: Hashable, now: int, began: int, failed: bool) -> None:
        """Count one as ended, and learn from how long it took: ``now - began``, in ns."""
        super().give_back(key, now, began, failed)
        self._last, busy = now, self._full >= began
        if self._since is None:
            self._since = now
        if began < self._since:
            return
        many = max(FEWEST, 2 * self._limit)
        if failed:  # it says nothing about latency: it may have failed at once, or waited for an answer in vain
            self._failed += busy
            if self._failed > FAILED * many:
                self._ceiling, self._before = self._limit, 0
                self._move(int(self._limit * BACK_OFF), now)
            return
        self._samples.append(now - began)
        self._busy += busy
        if len(self._samples) >= many:
            self._learn(now)

    def is_idle(self, now: int) -> bool:
        """Say whether nothing is taken, nobody waits, and the last call was a minute ago or more."""
        return super().is_idle(now) and now - self._last >= STALE

    def _expect(self, name: str, limit: int) -> int:
        if not self._least <= whole(f"Adaptive {name}", limit) <= self._most:
            raise ValueError(f"Adaptive {name} {limit}: expected {self._least} to {self._most}, from least to most")
        return limit

    def _open(self, since: int | None) -> None:
        """Begin a new window."""
        self._since = since
        self._samples: list[int] = []
        self._busy, self._failed = 0, 0

    def _move(self, limit: int, now: int) -> None:
        """Change the limit, and begin a new window."""
        self._limit = min(self._most, max(self._least, limit))
        self._open(now)
        if self._waiting and self._taken < self._limit:
            self._wake()

    def _learn(self, now: int) -> None:
        """Change the limit by what a window has shown. O(n log n) in its calls."""
        usual = sorted(self._samples)[: len(self._samples) * 9 // 10]
        latency = max(1.0, sum(usual) / len(usual))
        if self._before:
            self._measure(latency, now)
            return
        if latency < FASTER * self._base or not self._base:
            self._base = latency
        elif latency < self._base:
            self._base -= (self._base - latency) / 3  # more by chance than not: the least of many is too little
        if 2 * self._busy < len(self._samples):
            self._open(now)  # there was no demand for more
        elif self._windows >= EVERY:
            self._probe(latency, now)
        else:
            self._windows += 1
            self._step(latency, now)

    def _probe(self, latency: float, now: int) -> None:
        """Lower the limit for one window, to see whether latency falls, too."""
        self._before, self._latency = self._limit, latency
        self._move(int(self._limit * PROBE), now)

    def _measure(self, latency: float, now: int) -> None:
        """Take the latency at the lower limit for the base; go back to the limit before, unless it was too high."""
        self._base = latency
        if latency <= FELL * self._latency and self._limit > self._least:
            self._found = min(self._found, self._limit)
            self._probe(latency, now)
        else:
            limit, self._before, self._windows = self._before, 0, 0
            self._move(limit, now)

    def _step(self, latency: float, now: int) -> None:
        """Grow or shrink by the number of those that are in the queue."""
        limit, room = self._limit, max(2, isqrt(self._limit))
        queue = limit * (1 - self._base / latency)
        if limit > self._ceiling + room:
            self._ceiling = self._most  # what failed there does not fail any more
        if queue < room:
            if limit + room >= 0.9 * self._ceiling:
                step = 1
            elif queue >= room / 2:
                step = max(1, room // 3)
            else:
                step = limit if 2 * limit <= min(self._found, 0.9 * self._ceiling) else room
            self._move(limit + step, now)
        elif queue <= 2 * room:
            self._open(now)
            self._found = min(self._found, limit)
        else:
            self._found = min(self._found, limit)
            self._windows += 8  # is it the limit that is wrong, or the base?
            self._move(max(limit // 2, limit - int(queue - room) // 2), now)

    def _check(self) -> None:
        super()._check()
        assert self._least <= self._limit <= self._most, "the limit stays where it may be"
        assert len(self._samples) < max(FEWEST, 2 * self._limit), "a full window is looked at"
        assert 0 <= self._busy <= len(self._samples) and self._failed >= 0, "samples are counted"
        assert not self._before or self._before >= self._limit, "to measure the base, the limit is lowered"
