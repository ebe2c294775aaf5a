"""Histograms: what they tell of numbers, beside the sorted list of them."""

from __future__ import annotations

import sys
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from threadlets.histograms import Histogram

DAY = 86_400 * 10**9  # ns
values = st.one_of(st.integers(0, 100), st.integers(0, DAY), st.integers(0, 70).map(lambda bits: 1 << bits))
percents = st.one_of(st.integers(0, 100), st.floats(0, 100), st.sampled_from([0.1, 50, 90, 99, 99.9, 99.99]))


class HistogramMachine(RuleBasedStateMachine):
    """Two histograms beside two lists."""

    @initialize()
    def begin(self) -> None:
        self.histograms = Histogram(), Histogram()
        self.lists: tuple[list[int], list[int]] = [], []

    @rule(which=st.integers(0, 1), added=st.lists(values, max_size=20))
    def add(self, which: int, added: list[int]) -> None:
        for value in added:
            self.histograms[which].add(value)
        self.lists[which].extend(added)

    @rule(which=st.integers(0, 1), value=values, times=st.integers(1, 9))
    def add_often(self, which: int, value: int, times: int) -> None:
        self.histograms[which].add(value, times)
        self.lists[which].extend([value] * times)

    @rule(into=st.integers(0, 1))
    def merge(self, into: int) -> None:
        if len(self.lists[into]) < 1000:
            self.histograms[into].merge(self.histograms[1 - into])
            self.lists[into].extend(self.lists[1 - into])

    @rule(which=st.integers(0, 1), q=percents)
    def percentile(self, which: int, q: float) -> None:
        told, numbers = self.histograms[which].percentile(q), sorted(self.lists[which])
        if not numbers:
            assert told == 0
            return
        exact = numbers[max(1, ceil(Fraction(str(q)) * len(numbers) / 100)) - 1]
        assert exact <= told <= min(exact + exact / 16, numbers[-1])

    @invariant()
    def same(self) -> None:
        for histogram, numbers in zip(self.histograms, self.lists, strict=True):
            histogram._check()
            assert histogram.count == len(numbers)
            assert histogram.total == sum(numbers)
            assert histogram.mean == sum(numbers) / (len(numbers) or 1)
            assert (histogram.smallest, histogram.largest) == (min(numbers, default=0), max(numbers, default=0))


HistogramMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)
TestHistogram = HistogramMachine.TestCase


@given(st.lists(values))
def test_counts_have_no_gaps(numbers: list[int]) -> None:
    """Each number is counted between one bound and the next, and bounds ascend."""
    histogram = Histogram()
    for number in numbers:
        histogram.add(number)
    low = -1
    for upper, count in histogram.counts():
        assert low < upper
        assert count == sum(low < number <= upper for number in numbers)
        low = upper
    assert all(number <= low for number in numbers)


def test_small_numbers_are_exact() -> None:
    """Below 32, each number has a count of its own; from there on, each sixteenth of a power of two."""
    histogram = Histogram()
    for number in range(128):
        histogram.add(number)
    assert list(histogram.counts())[:32] == [(number, 1) for number in range(32)]
    assert list(histogram.counts())[32:] == [(n, 2) for n in range(33, 64, 2)] + [(n, 4) for n in range(67, 128, 4)]


def test_memory_is_bounded() -> None:
    """From a nanosecond to a day there are less than 700 counts, however many numbers are added."""
    histogram, number = Histogram(), 1.0
    while number < DAY:
        histogram.add(int(number))
        number *= 1.001
    assert 600 < len(list(histogram.counts())) < 700
    assert sys.getsizeof(histogram._counts) < 64 * 1024
    assert repr(histogram).startswith(f"<Histogram of {histogram.count}: 1 to {histogram.largest}, mean ")


def test_what_others_stand_for() -> None:
    """A number that is not counted is known if it is an extreme, and changes nothing else."""
    histogram = Histogram()
    histogram.add(1000, 0)
    histogram._check()
    assert (histogram.count, histogram.total, histogram.smallest, histogram.largest) == (0, 0, 1000, 1000)
    for value, times in ((100, 7), (5, 0), (5000, 0)):
        histogram.add(value, times)
    histogram._check()
    assert (histogram.count, histogram.total, histogram.smallest, histogram.largest) == (7, 700, 5, 5000)
    assert 100 <= histogram.percentile(50) <= 106
    merged = Histogram()
    merged.merge(histogram)
    assert (merged.count, merged.smallest, merged.largest) == (7, 5, 5000)


def test_mistakes() -> None:
    """Numbers below 0 and percentages that are none are refused, and leave no trace."""
    histogram = Histogram()
    histogram.add(7)
    for value in (-1, -(1 << 40)):
        with pytest.raises(ValueError, match="only numbers from 0 on"):
            histogram.add(value)
    for q in (-1, 100.5, float("nan")):
        with pytest.raises(ValueError, match="expected a number from 0 to 100"):
            histogram.percentile(q)
    histogram._check()
    assert (histogram.count, histogram.total) == (1, 7)
