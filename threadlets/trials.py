"""What a test may put in the place of chance and of time: the clock that pools go by, and the order of equals.

Why: rates, deadlines, aging and timeouts are decided by a clock, and so are the timers of an event loop. A test that
has its loop skip the hours in which nothing happens needs pools to skip them, too. And of threadlets with the same
priority the first to come starts first: a program that works in this order only has a fault, which another order shows.

How: the rooms that decide by the time ask ``trials.now()``, through the module, so there is one place to exchange.
What measures how long code has really taken - the learner, takeovers, workers - looks at the machine's clock, as ever.
A pool asks for ``trials.tie`` when it is bound to its loop; where there is none it pays nothing for that.

Rejected: a clock as an argument of ``Pool`` (the default pools, and those of libraries, would go by another one); the
loop's own ``time()`` (uvloop's stands still within a round, and has milliseconds).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic_ns

__all__ = ["now", "tie", "trial"]

now: Callable[[], int] = monotonic_ns  # nanoseconds
tie: Callable[[], float] | None = None  # says in which order those of one priority start, smaller numbers first


@contextmanager
def trial(*, clock: Callable[[], int] | None = None, ties: Callable[[], float] | None = None) -> Iterator[None]:
    """Have pools go by another clock, or start equals in another order, within this block. Thread: any; for all.

    Args:
        clock: Returns nanoseconds, and never less than before; it begins where ``time.monotonic_ns()`` is now.
        ties: Called once for each threadlet that has to wait in the queue of a pool: of equal ones those with smaller
            numbers go first. It holds for pools that are first used within the block.
    """
    global now, tie
    before = now, tie
    now, tie = clock or now, ties or tie
    try:
        yield
    finally:
        now, tie = before
