"""What the demo has measured, and what it says about it: pure arithmetic, no clock and no I/O.

Why the words are computed: a sentence written beforehand goes on praising when the figures no longer do. Here each
comparison ends in better, worse or about the same; figures that lie nearer than the rounds' own spread are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

CLEAR = 0.1  # arbitrary: figures nearer to each other than this share are "about the same"


@dataclass(frozen=True, slots=True)
class Round:
    """One server under load, once. All times in milliseconds; the latencies are sorted."""

    per_second: float
    latencies: tuple[float, ...]
    worst_lag: float
    learning_lag: float
    timeline: tuple[float, ...]
    errors: int
    first_error: str


@dataclass(frozen=True, slots=True)
class Result:
    """All rounds of one way."""

    name: str
    rounds: tuple[Round, ...]

    @property
    def per_second(self) -> Spread:
        """Good answers per second."""
        return Spread([found.per_second for found in self.rounds])

    @property
    def p50(self) -> Spread:
        """The latency that half of the answers stayed below, in milliseconds."""
        return Spread([percentile(found.latencies, 0.5) for found in self.rounds])

    @property
    def p99(self) -> Spread:
        """The latency that 99 % of the answers stayed below, in milliseconds."""
        return Spread([percentile(found.latencies, 0.99) for found in self.rounds])

    @property
    def worst_lag(self) -> Spread:
        """How long the loop was held up at most, in milliseconds: the worst of all rounds, no median."""
        return Spread([max(found.worst_lag for found in self.rounds)])

    @property
    def learning_lag(self) -> float:
        """The same in the warm-ups, in milliseconds."""
        return max(found.learning_lag for found in self.rounds)

    @property
    def latencies(self) -> list[float]:
        """The latencies of all rounds together, sorted, in milliseconds."""
        return sorted(latency for found in self.rounds for latency in found.latencies)


class Spread:
    """One figure of several rounds: their median, and from where to where they lie.

    Args:
        values: one of each round, at least one.
    """

    def __init__(self, values: Sequence[float]) -> None:
        self.value = median(values)
        self.low = min(values)
        self.high = max(values)

    def apart(self, other: Spread) -> bool:
        """Whether two figures differ by more than the rounds differ among themselves, and by more than `CLEAR`."""
        overlap = self.low <= other.high and other.low <= self.high
        return not overlap and abs(self.value - other.value) > CLEAR * max(self.value, other.value)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the sorted values do not exceed; NaN if there are none.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0, 2.0, 3.0, 4.0], 0.99)
    (2.0, 4.0)
    """
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def findings(results: Sequence[Result], subject: str) -> list[str]:
    """Say in three lines what the reader sees: throughput, latency, loop lag.

    Args:
        results: all ways, at least two.
        subject: the name of the one that the lines are about.
    """
    ours = next(result for result in results if result.name == subject)
    rivals = [result for result in results if result.name != subject]
    ratios = [_ratio(ours.per_second, rival.per_second, rival.name) for rival in rivals if _apart(ours, rival)]
    alike = [rival.name for rival in rivals if not _apart(ours, rival)]
    if alike:
        ratios.append(f"about the same as {_names(alike)}")
    p50 = _verdict(ours.p50, [(rival.name, rival.p50) for rival in rivals])
    p99 = _verdict(ours.p99, [(rival.name, rival.p99) for rival in rivals])
    lag = _verdict(ours.worst_lag, [(rival.name, rival.worst_lag) for rival in rivals])
    return [
        f"Throughput: {subject} serves {number(ours.per_second.value)} requests/s: {', '.join(ratios)}.",
        f"Latency: p50 is {number(ours.p50.value)} ms, {p50}; p99 is {number(ours.p99.value)} ms, {p99}.",
        f"Loop lag: {number(ours.worst_lag.value)} ms at worst, {lag}{_learning(ours)}.",
    ]


def number(value: float) -> str:
    """Write a figure with the digits that a reader can use.

    >>> number(12345.6), number(99.96), number(7.123), number(0.04)
    ('12,346', '100', '7.1', '0.04')
    """
    if value >= 99.5:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.95 else f"{value:.2g}"


def _apart(ours: Result, rival: Result) -> bool:
    """Whether the throughputs differ, and can be divided."""
    return bool(rival.per_second.value) and ours.per_second.apart(rival.per_second)


def _names(names: Sequence[str]) -> str:
    """Join names as people do.

    >>> _names(["a"]), _names(["a", "b"]), _names(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _ratio(ours: Spread, rival: Spread, name: str) -> str:
    """Compare figures of which the higher is the better one."""
    ratio = ours.value / rival.value
    return f"{ratio:.1f} times {name}" if ratio > 1 else f"only {ratio:.2f} times {name}, which wins"


def _verdict(ours: Spread, rivals: Sequence[tuple[str, Spread]]) -> str:
    """Compare figures of which the lower is the better one."""
    arms: dict[str, list[str]] = {"better than": [], "about the same as": [], "worse than": []}
    for name, rival in rivals:
        if not ours.apart(rival):
            arms["about the same as"].append(name)
        else:
            arms["better than" if ours.value < rival.value else "worse than"].append(name)
    return ", ".join(f"{words} {_names(names)}" for words, names in arms.items() if names)


def _learning(ours: Result) -> str:
    """Own up to what learning cost, where that was more than anything that was measured afterwards."""
    if ours.learning_lag <= ours.worst_lag.value:
        return ""
    return f" (while it was learning, in the warm-up: {number(ours.learning_lag)} ms)"
