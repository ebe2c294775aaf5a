"""Rules that say whether one more threadlet may start now.

A throttle is pure: it knows no clock and no loop. A pool asks ``ready()`` of every throttle it has and then, if all
agree, calls ``take()`` of each; ``give_back()`` follows exactly once per ``take()``. A throttle that has become more
generous - a place given back, a limit raised - calls the wake-ups that were left with ``wait()``, once each, so that
one throttle can be shared by several pools of one event loop. Thread: loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Concurrency", "Throttle"]


class Throttle(Protocol):
    """What a pool needs of a throttle."""

    owner: object  # the event loop whose pools use it; None before there is one

    def renew(self) -> None:
        """Forget what was taken and who waits: the loop that it belonged to is gone, and another one takes it over."""

    def ready(self) -> bool:
        """Say whether one more may start."""

    def take(self) -> None:
        """Count one more as started."""

    def give_back(self) -> None:
        """Count one as ended."""

    def wait(self, wake: Callable[[], None]) -> None:
        """Call ``wake()`` once, when an answer of ``ready()`` may have changed from False to True."""


class Concurrency:
    """At most ``limit`` threadlets at a time; the limit may be changed while they run.

    Lowering the limit stops nothing: those who run go on, and none starts until enough of them have ended.

    >>> throttle = Concurrency(1)
    >>> throttle.take(); throttle.ready()
    False
    >>> throttle.limit = 2; throttle.ready()
    True

    Raises:
        TypeError: If ``limit`` is not a whole number.
        ValueError: If ``limit`` is less than 1.
    """

    __slots__ = ("_limit", "_taken", "_waiting", "owner")

    def __init__(self, limit: int) -> None:
        self.owner: object = None
        self.renew()
        self.limit = limit

    def __repr__(self) -> str:
        return f"<Concurrency {self._taken} of {self._limit} taken>"

    @property
    def limit(self) -> int:
        """How many may run at a time."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"Concurrency limit {limit!r}: expected a whole number")
        if limit < 1:
            raise ValueError(f"Concurrency limit {limit}: at least 1 is needed, or nothing would ever start")
        self._limit = limit
        if self.ready():
            self._wake()

    @property
    def taken(self) -> int:
        """How many run now."""
        return self._taken

    def renew(self) -> None:
        """Forget what was taken and who waits: the loop that it belonged to is gone."""
        self._waiting: list[Callable[[], None]] = []
        self._taken = 0

    def ready(self) -> bool:
        """Say whether one more may start."""
        return self._taken < self._limit

    def take(self) -> None:
        """Count one more as started."""
        self._taken += 1

    def give_back(self) -> None:
        """Count one as ended."""
        self._taken -= 1
        if self._waiting and self.ready():
            self._wake()

    def wait(self, wake: Callable[[], None]) -> None:
        """Call ``wake()`` once, when one more may start."""
        if wake not in self._waiting:
            self._waiting.append(wake)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    def _check(self) -> None:
        """Assert every invariant."""
        assert self._taken >= 0, "nothing is given back that was not taken"
        assert self._limit >= 1, "the limit lets something start"
