"""How late an event loop is: a task that wants to run every two milliseconds, and writes down how late it ran.

Why not a percentile of the beats: a loop that stands still for 100 ms delays one beat, and beats that would have been
late are never made, so that stall is one in thousands, although every request of those 100 ms waited (the mistake is
known as coordinated omission). The worst lag, and shares of *time* instead of shares of beats, do not hide it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

EVERY = 0.002  # seconds between beats; libuv's timers know whole milliseconds, and this costs about 1 % of a core
KEPT = 100_000  # beats: the last three minutes or more


class Heartbeat:
    """Measures the lag of the loop on which `run` runs. Times are seconds on `time.monotonic`."""

    def __init__(self) -> None:
        self._beats: deque[tuple[float, float]] = deque(maxlen=KEPT)  # (when the beat was due, when it ran)
        self._due = float("inf")

    async def run(self) -> None:
        """Beat until cancelled.

        Thread: loop. Cancel: point.
        """
        while True:
            self._due = time.monotonic() + EVERY
            await asyncio.sleep(EVERY)
            self._beats.append((self._due, time.monotonic()))

    def stalls(self, since: float, until: float) -> list[tuple[float, float]]:
        """Return when the loop was late in a window of time, and for how long: pairs of start and seconds.

        A beat that is due now and has not run yet counts.

        Thread: loop. Cancel: none.
        """
        beats = [*self._beats, (self._due, max(self._due, time.monotonic()))]
        clipped = ((max(due, since), min(ran, until)) for due, ran in beats)
        return [(start, end - start) for start, end in clipped if end > start]


def worst(stalls: list[tuple[float, float]]) -> float:
    """Return the longest stall, in seconds; 0.0 if there was none.

    >>> worst([(1.0, 0.002), (2.0, 0.1)])
    0.1
    """
    return max((seconds for _, seconds in stalls), default=0.0)


def late_for(stalls: list[tuple[float, float]], window: float, share: float) -> float:
    """Return how late the loop was at least, in seconds, during the worst `share` of a window of time.

    During a stall of s seconds the lag falls from s to 0 as its end comes nearer, so a stall gives max(0, s - x)
    seconds in which the loop is more than x late. Found by halving.

    >>> round(late_for([(0.0, 0.1)], window=10.0, share=0.005), 3)
    0.05
    """
    low, high = 0.0, worst(stalls)
    for _ in range(30):
        middle = (low + high) / 2
        if sum(seconds - middle for _, seconds in stalls if seconds > middle) > share * window:
            low = middle
        else:
            high = middle
    return high


def timeline(stalls: list[tuple[float, float]], since: float, until: float, slices: int) -> list[float]:
    """Return the worst lag of each of `slices` equal parts of a window, in seconds.

    >>> timeline([(1.0, 2.5)], since=0.0, until=5.0, slices=5)
    [0.0, 2.5, 1.5, 0.5, 0.0]
    """
    found = [0.0] * slices
    step = (until - since) / slices
    for start, seconds in stalls:
        end = start + seconds
        place = max(0, int((start - since) / step))
        while place < slices and since + place * step < end:
            found[place] = max(found[place], end - max(start, since + place * step))
            place += 1
    return found
