"""Rules that say whether one more threadlet may start now, and if not, when.

A throttle is pure: it knows no clock and no loop; times are integer nanoseconds of any one clock, and come as
arguments. A pool asks ``ready()`` of every throttle it has and then, if all agree, calls ``take()`` of each;
``give_back()`` follows exactly once per ``take()``. A throttle that has become more generous - a place given back, a
limit raised - calls the wake-ups that were left with ``wait()``, once each, so that one throttle can be shared by
several pools of one event loop. Thread: loop.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from copy import copy
from fractions import Fraction
from math import inf
from typing import Any, Self

__all__ = ["Concurrency", "Rate", "Throttle"]

SECOND = 1_000_000_000  # ns
LATE = 10_000_000  # ns; arbitrary: timers of event loops are late by up to a few ms
LONG_AGO = -(1 << 63)  # ns; before any time of a clock


def whole(what: str, value: object) -> int:
    """Return a whole number of at least 1; ``what`` is the subject of the error for everything else."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} {value!r}: expected a whole number")
    if value < 1:
        raise ValueError(f"{what} {value}: at least 1 is needed, or nothing would ever start")
    return value


def positive(what: str, value: object) -> Fraction:
    """Return a finite number above 0 as a fraction; a float means the decimal number that it is written as.

    >>> positive("Rate per", 0.1)
    Fraction(1, 10)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        raise TypeError(f"{what} {value!r}: expected a number")
    if not 0 < value < inf:  # so is NaN
        raise ValueError(f"{what} {value!r}: expected a finite number above 0")
    return Fraction(float.__repr__(value) if isinstance(value, float) else value)


class Throttle:
    """A rule of a pool; this one never says no. Subclass it for a rule of your own, and override what differs.

    Most rules are ``ready()``, ``take()``, ``give_back()`` and ``renew()``; one that can become ready by itself says
    when in ``due()``, any other calls ``_wake()``. All methods are called on the thread of the event loop, and are
    quick.

    >>> class Weekdays(Throttle):
    ...     clocked = True
    ...     def ready(self, key, now):
    ...         return now // DAY % 7 < 5
    ...     def due(self, key, now):
    ...         return (now // DAY // 7 + 1) * 7 * DAY
    >>> DAY = 86_400 * 10**9
    >>> throttle = Weekdays()
    >>> throttle.ready(None, 5 * DAY), throttle.due(None, 5 * DAY) == 7 * DAY, throttle.ready(None, 7 * DAY)
    (False, True, True)

    Attributes:
        keyed: Its answers depend on the tags of the threadlet: ``key()`` is asked. Otherwise every key is ``None``.
        clocked: It needs the time: ``now`` and ``began`` are 0 otherwise.
        lends: It counts places: a threadlet that waits for another one may let it use its own.
        ranks: ``rank()`` puts those that may start in order.
        owner: The event loop whose pools use it; ``None`` before there is one.
    """

    __slots__ = ("_waiting", "owner")

    keyed: bool = False
    clocked: bool = False
    lends: bool = False
    ranks: bool = False
    owner: object

    def __init__(self) -> None:
        self.owner = None
        self.renew()

    def renew(self) -> None:
        """Forget what was taken and who waits: the loop that it belonged to is gone, and another one takes it over.

        A subclass that counts something forgets it here, and calls ``super().renew()``.
        """
        self._waiting: dict[Callable[[], None], None] = {}

    def key(self, tags: frozenset[Hashable]) -> Hashable:
        """Return what it knows a threadlet by, from its tags: threadlets with equal keys are alike to it."""
        return None

    def ready(self, key: Any, now: int) -> bool:
        """Say whether one more may start at ``now``, in ns."""
        return True

    def ready_if_lent(self, key: Any, now: int) -> bool:
        """Say whether one more may start at ``now`` if somebody lets it have a place; asked if it ``lends``."""
        return True

    def due(self, key: Any, now: int) -> int | None:
        """Return the time (ns) from which ``ready()``, which has just said no, says yes by itself.

        ``None``: only after a wake-up.
        """
        return None

    def due_if_lent(self, key: Any, now: int) -> int | None:
        """Return the same for ``ready_if_lent()``, which has just said no."""
        return self.due(key, now)

    def take(self, key: Any, now: int) -> None:
        """Count one more as started, at ``now``, in ns; more than there is, if need be: a lent place, a changed tag."""

    def give_back(self, key: Any, now: int, began: int, failed: bool) -> None:
        """Count one as ended, which was started at ``began``; both times in ns. Called once per ``take()``."""

    def rank(self, key: Any) -> float:
        """Return a number: smaller goes first. For one key it never gets smaller, but by a wake-up."""
        return 0

    def wait(self, key: Any, wake: Callable[[], None]) -> None:
        """Call ``wake()`` once, when ``ready()`` may have changed from no to yes. Equal wake-ups count once. O(1)."""
        self._waiting[wake] = None

    def unwait(self, key: Any, wake: Callable[[], None]) -> None:
        """Forget a wake-up that was left with ``wait()``, if it is still there. O(1)."""
        self._waiting.pop(wake, None)

    def copy(self) -> Self:
        """Return a fresh one with the same settings: ``PerTag`` makes one for each tag.

        Here it is a shallow copy, renewed: enough for those whose ``renew()`` forgets everything but settings.
        """
        fresh = copy(self)
        fresh.owner = None
        fresh.renew()
        return fresh

    def is_idle(self, now: int) -> bool:
        """Say whether it is as good as a fresh one at ``now``, in ns: ``PerTag`` may then forget it.

        Here it is always no, the safe answer: a subclass knows better what it counts.
        """
        return False

    def _wake(self) -> None:
        """Wake all who wait, each time another one first: pools that share a throttle take turns."""
        waiting, self._waiting = list(self._waiting), {}
        for wake in waiting[1:] + waiting[:1]:
            wake()

    def _check(self) -> None:
        """Assert every invariant."""
        assert all(map(callable, self._waiting)), "who waits can be woken"


class Concurrency(Throttle):
    """At most ``limit`` threadlets at a time; the limit may be changed while they run.

    Lowering the limit stops nothing: those who run go on, and none starts until enough of them have ended. Every method
    is O(1), but for waking up everyone who waits.

    >>> throttle = Concurrency(1)
    >>> throttle.take(None, 0); throttle.ready(None, 0)
    False
    >>> throttle.limit = 2; throttle.ready(None, 0)
    True

    Raises:
        TypeError: If ``limit`` is not a whole number.
        ValueError: If ``limit`` is less than 1.
    """

    __slots__ = ("_limit", "_taken")

    lends = True

    def __init__(self, limit: int) -> None:
        self._limit = whole("Concurrency limit", limit)
        super().__init__()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._taken} of {self._limit} taken>"

    @property
    def limit(self) -> int:
        """How many may run at a time."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = whole("Concurrency limit", limit)
        if self._taken < limit:
            self._wake()

    @property
    def taken(self) -> int:
        """How many run now."""
        return self._taken

    def renew(self) -> None:
        """Forget what was taken and who waits: the loop that it belonged to is gone."""
        super().renew()
        self._taken = 0

    def ready(self, key: Hashable, now: int) -> bool:
        """Say whether one more may start."""
        return self._taken < self._limit

    def take(self, key: Hashable, now: int) -> None:
        """Count one more as started, also beyond the limit."""
        self._taken += 1

    def give_back(self, key: Hashable, now: int, began: int, failed: bool) -> None:
        """Count one as ended."""
        self._taken -= 1
        if self._waiting and self._taken < self._limit:
            self._wake()

    def is_idle(self, now: int) -> bool:
        """Say whether nothing is taken and nobody waits."""
        return not (self._taken or self._waiting)

    def _check(self) -> None:
        super()._check()
        assert self._taken >= 0, "nothing is given back that was not taken"
        assert self._limit >= 1, "the limit lets something start"


class Rate(Throttle):
    """At most ``limit`` starts in ``per`` seconds, on average, and at most ``burst`` at once: a token bucket.

    The bucket begins full; it is filled evenly, up to ``burst``. Without a pause, one start follows the other after
    exactly ``per / limit`` seconds, rounded up to a nanosecond but with no error that adds up: the arithmetic is that
    of whole numbers, and a float means the decimal number that it is written as. All three settings may be changed at
    any time; the starts that were saved up stay, up to the new ``burst``, and the time since it was last asked counts
    at the new rate.

    Timers of event loops are late by a few milliseconds, in which a high rate would fill its bucket many times over. So
    while somebody waits nothing is lost for the first 10 ms: if the loop comes late, it may start what was due
    meanwhile. What nobody uses melts away in the next 10 ms. So in T seconds there are never more than ``burst + 1 + (T
    + 0.01) * limit / per`` starts. Every method is O(1), but for waking up everyone who waits.

    >>> throttle = Rate(5, burst=2)
    >>> throttle.take(None, 0); throttle.take(None, 0)
    >>> throttle.ready(None, 0), throttle.due(None, 0)
    (False, 200000000)
    >>> throttle.limit = 50; throttle.due(None, 0)
    20000000

    Args:
        limit: How many starts; any number above 0, also less than 1.
        per: In how many seconds.
        burst: How many starts may be saved up.

    Raises:
        TypeError: If a setting is not a number, or ``burst`` not a whole one.
        ValueError: If a setting is not finite or not above 0.
    """

    # Credit is counted in units of which one start costs `_token` and one nanosecond brings `_gain`. Up to the time
    # `_until` it may grow beyond `_full`: somebody was promised a start, and no longer than LATE ago.
    __slots__ = ("_at", "_burst", "_credit", "_full", "_gain", "_limit", "_per", "_token", "_until")

    clocked = True

    def __init__(self, limit: float | Fraction, per: float | Fraction = 1.0, burst: int = 1) -> None:
        self._credit, self._token = 0, 1
        self._tune(limit, per, burst)
        super().__init__()

    def __repr__(self) -> str:
        return f"<Rate of {self._limit} in {self._per} s, burst {self._burst}>"

    @property
    def limit(self) -> float | Fraction:
        """How many may start in ``per`` seconds, on average."""
        return self._limit

    @limit.setter
    def limit(self, limit: float | Fraction) -> None:
        self._tune(limit, self._per, self._burst)
        self._wake()

    @property
    def per(self) -> float | Fraction:
        """In how many seconds ``limit`` may start."""
        return self._per

    @per.setter
    def per(self, per: float | Fraction) -> None:
        self._tune(self._limit, per, self._burst)
        self._wake()

    @property
    def burst(self) -> int:
        """How many may start at once after a pause."""
        return self._burst

    @burst.setter
    def burst(self, burst: int) -> None:
        self._tune(self._limit, self._per, burst)
        self._wake()

    def renew(self) -> None:
        """Fill the bucket and forget who waits: the loop that it belonged to is gone."""
        super().renew()
        self._credit = self._full
        self._at = self._until = LONG_AGO

    def ready(self, key: Hashable, now: int) -> bool:
        """Say whether one more may start at ``now``, in ns."""
        if now > self._at:
            self._fill(now)
        return self._credit >= self._token

    def due(self, key: Hashable, now: int) -> int:
        """Return the first nanosecond in which one more may start; whoever is told so is taken to wait for it."""
        if self.ready(key, now):
            return now
        due = self._at - (self._credit - self._token) // self._gain  # rounded up
        self._until = due + LATE
        return due

    def take(self, key: Hashable, now: int) -> None:
        """Count one more start at ``now``, in ns; the next ones wait for it, if it came too early."""
        if now > self._at:
            self._fill(now)
        self._credit -= self._token

    def is_idle(self, now: int) -> bool:
        """Say whether the bucket is full. Who may be waiting then has been told when to come."""
        if now > self._at:
            self._fill(now)
        return self._credit >= self._full

    def _tune(self, limit: float | Fraction, per: float | Fraction, burst: int) -> None:
        """Change the settings; keep what was saved up."""
        pace = positive("Rate limit", limit) / (positive("Rate per", per) * SECOND)
        self._burst = whole("Rate burst", burst)
        self._limit, self._per = limit, per
        self._credit = self._credit * pace.denominator // self._token
        self._gain, self._token = pace.as_integer_ratio()
        self._full = self._burst * self._token
        self._credit = min(self._credit, self._full)
        self._until = LONG_AGO  # what was promised is not true any more

    def _fill(self, now: int) -> None:
        """Add what came since the last time; ``now`` is later than that."""
        free = min(now, self._until)
        if free > self._at:
            self._credit += (free - self._at) * self._gain
            self._at = free
        gained = (now - self._at) * self._gain
        if self._credit <= self._full:
            self._credit = min(self._credit + gained, self._full)
        else:
            self._credit = max(self._credit - gained, self._full)
        self._at = now

    def _check(self) -> None:
        super()._check()
        assert self._gain > 0 < self._token, "credit comes, and starts cost"
        assert self._full == self._burst * self._token, "the bucket is as large as the burst"
        late = self._token + (LATE + 1) * self._gain
        assert self._credit <= max(self._full, late), "no more is saved up than the burst, or than was late"
