"""Counts of whole numbers, close enough to say what is usual, in little memory.

Each power of two is divided into 16 equal parts, as in HdrHistogram (Gil Tene): the five highest bits of a number
decide where it is counted. So what is told of it later is too much by less than a sixteenth, at any size; below 32 it
is exact. From a nanosecond to a day there are less than 700 counts, and only those are kept that are not 0: there is
one histogram for each kind of work, and most kinds need a few dozen.

Rejected: a sample of the numbers, which loses the rare ones; t-digests, better in the tails, but more work to add to.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil

__all__ = ["Histogram"]

PARTS = 16  # of each power of two
BITS = 5  # of a number are kept: the highest, and those that tell 16 parts apart
HUGE = 1 << 1000  # more than any number that is added


class Histogram:
    """How often numbers of about the same size were added: latencies in ns, and other whole numbers from 0 on.

    >>> histogram = Histogram()
    >>> for latency in range(1000):
    ...     histogram.add(latency)
    >>> histogram.count, histogram.total, histogram.mean, histogram.smallest, histogram.largest
    (1000, 499500, 499.5, 0, 999)
    >>> histogram.percentile(50), histogram.percentile(99), histogram.percentile(100)
    (511, 991, 999)

    Attributes:
        total: The sum of all numbers that are counted, exactly.
        largest: The largest of all, exactly; 0 if there are none.

    Thread: one at a time.
    """

    __slots__ = ("_counts", "_smallest", "largest", "total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}  # how many numbers; by their place, see _upper()
        self._smallest = HUGE
        self.total = self.largest = 0

    def __repr__(self) -> str:
        return f"<Histogram of {self.count}: {self.smallest} to {self.largest}, mean {self.mean:.6g}>"

    def add(self, value: int, times: int = 1) -> None:
        """Count a number. O(1).

        Args:
            value: The number.
            times: How often, if it stands for others, too; 0: it is not counted, and known only if it is an extreme.

        Raises:
            ValueError: If it is less than 0.
        """
        if value < self._smallest:
            if value < 0:
                raise ValueError(f"{value}: only numbers from 0 on are counted")
            self._smallest = value
        if value > self.largest:
            self.largest = value
        if not times:
            return
        self.total += value * times
        shift = value.bit_length() - BITS
        place = value if shift <= 0 else shift * PARTS + (value >> shift)
        try:
            self._counts[place] += times
        except KeyError:
            self._counts[place] = times

    @property
    def count(self) -> int:
        """How many numbers there are. O(different counts)."""
        return sum(self._counts.values())

    @property
    def mean(self) -> float:
        """Their average, exactly; 0 if there are none. O(different counts)."""
        return self.total / (self.count or 1)

    @property
    def smallest(self) -> int:
        """The smallest number, exactly; 0 if there are none."""
        return 0 if self._smallest is HUGE else self._smallest

    def percentile(self, q: float) -> int:
        """Return a number that ``q`` percent of all numbers do not exceed; 0 if there are none.

        It is the least one that was added of which this is so, or more by less than a sixteenth. O(n log n) in the
        different counts.

        Raises:
            ValueError: If ``q`` is not between 0 and 100.
        """
        if not 0 <= q <= 100:
            raise ValueError(f"percentile {q!r}: expected a number from 0 to 100")
        missing = ceil(Fraction(str(q)) * self.count / 100)
        if missing <= 1:
            return self.smallest
        for upper, count in self.counts():
            missing -= count
            if missing <= 0:
                return min(upper, self.largest)
        raise AssertionError("all numbers together are 100 percent")

    def counts(self) -> Iterator[tuple[int, int]]:
        """Yield what is known, in ascending order: a number, and how many are up to it, but above the one before."""
        for place in sorted(self._counts):
            yield _upper(place), self._counts[place]

    def merge(self, other: Histogram) -> None:
        """Add all numbers of another histogram. O(its different counts)."""
        for place, count in other._counts.copy().items():  # another thread may add to it
            self._counts[place] = self._counts.get(place, 0) + count
        self.total += other.total
        self.largest = max(self.largest, other.largest)
        self._smallest = min(self._smallest, other._smallest)

    def _check(self) -> None:
        """Assert every invariant."""
        assert all(count > 0 for count in self._counts.values()), "only what was added is counted"
        if not self._counts:
            assert self.total == 0, "nothing was counted"
            return
        places = sorted(self._counts)
        assert 0 <= self._smallest <= _upper(places[0]), "no number that is counted is smaller"
        assert _upper(places[-1] - 1) < self.largest or not places[-1], "nor larger"
        assert self.count * self._smallest <= self.total <= self.count * self.largest, "the mean is between the two"


def _upper(place: int) -> int:
    """Return the largest number that has this place."""
    shift = place // PARTS - 1
    return place if shift <= 0 else ((place - shift * PARTS + 1) << shift) - 1
