"""How long a blocking call may hold an event loop before the loop is taken from it.

Why: a takeover costs two thread switches, and it is worth them only if the call lasts. As with skis that one may rent
or buy, waiting for about as long as the takeover costs is never worse than twice the best choice (Karlin, Manasse,
Rudolph and Sleator, "Competitive snoopy caching", 1988). What it costs depends on the machine: on its timers, and on
how long a thread waits for the interpreter lock. Both are seen in how late the sentinel wakes up.

The rule: a region is taken when it is ``after`` old. That is a millisecond, or what the sentinel is usually late, if
that is more. When takeovers follow each other closely it is widened step by step, and narrowed again once they do not.

Pure: times are arguments, in nanoseconds, and nothing here knows a clock.
"""

from __future__ import annotations

__all__ = ["LEAST", "Threshold"]

LEAST = 1_000_000  # ns; arbitrary: five times what a takeover costs (benchmarks/takeover.py)
MOST = 8_000_000  # ns; arbitrary: half of what one frame of a smooth animation may take
CLOSE = 4_000_000  # ns; arbitrary: takeovers closer than this are too many: they would cost 5 % of the time
WIDER, NARROWER = 1.25, 0.9  # arbitrary
MEMORY = 1 / 16  # arbitrary: the weight of the last look in the average of how late they are


class Threshold:
    """The rule for one event loop.

    >>> rule = Threshold()
    >>> rule.after
    1000000

    Attributes:
        after: How old a region must be to be taken, in nanoseconds.
    """

    __slots__ = ("_fixed", "_late", "_taken_at", "_widened", "after")

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._late = 0.0  # how late the alarm is, on the average
        self._widened = 1.0
        self._taken_at = -CLOSE
        self.after = LEAST if fixed is None else fixed

    def __repr__(self) -> str:
        return f"<Threshold: taken after {self.after / 1e6:.2f} ms>"

    def looked(self, late: int) -> None:
        """Learn from an alarm that came ``late`` ns after it was due."""
        self._late += (min(late, MOST) - self._late) * MEMORY
        self._set()

    def took(self, now: int) -> None:
        """Learn from a takeover."""
        if now - self._taken_at < CLOSE:
            self._widened = min(self._widened * WIDER, MOST / LEAST)
        else:
            self._widened = max(self._widened * NARROWER, 1.0)
        self._taken_at = now
        self._set()

    def _set(self) -> None:
        if self._fixed is None:
            self.after = int(min(max(LEAST, self._late) * self._widened, MOST))

    def _check(self) -> None:
        assert self._fixed is not None or LEAST <= self.after <= MOST, "the threshold stays in its bounds"
