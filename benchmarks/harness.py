"""Times contenders against each other, in turns, in one process: A B C, A B C, ...

Why: on a machine that does other things too, a time says little; it may be twice as long a minute later. But two
samples taken within the same tenth of a second meet much the same machine. So the figure that counts here is the
*ratio* of ours to a contender, computed for each round, and the median of these over the rounds. The times are shown
beside it for orientation.

Rejected: a process per contender, as pyperf has it. It gives better times, and ratios of things that were measured
minutes apart.

Invariants: each sample lasts about ``SAMPLE`` seconds or more, as measured before the first round; its results are
checked; the garbage collector is on, as in the programs that this is about, and what earlier samples have left is
collected before each round.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from statistics import median, quantiles
from time import perf_counter
from typing import Any, TypeVar

__all__ = [
    "LOOPS",
    "Comparison",
    "Contender",
    "Effort",
    "Spread",
    "compare",
    "environment",
    "has",
    "run_on",
    "spread",
    "until",
    "versus",
]

T = TypeVar("T")

SAMPLE = 0.020  # seconds; arbitrary: 10^5 times the clock's resolution, and several of the system's time slices
MARGIN = 1.3  # arbitrary: samples are made this much longer than SAMPLE, since a later one may run faster
LOOPS = ("asyncio", "uvloop")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much time to spend: ``rounds`` of samples; ``quick`` for whoever wants to know whether it works at all."""

    rounds: int
    quick: bool

    @classmethod
    def of(cls, quick: bool) -> Effort:
        """Return the usual effort, or the small one."""
        return cls(rounds=5 if quick else 25, quick=quick)


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do something.

    Attributes:
        name: Shown in the table.
        run: ``await run(count)`` does it ``count`` times and returns how many of the results were right.
        budget: Ours may take this many times as long as this contender; None: shown for orientation.
        step: ``count`` is a multiple of this.
    """

    name: str
    run: Callable[[int], Awaitable[int]]
    budget: float | None = None
    step: int = 1


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some figures, and the quartiles around it."""

    middle: float
    low: float
    high: float


@dataclass(slots=True)
class Comparison:
    """What was measured of several contenders, round by round; it can be written as JSON as it is.

    Attributes:
        title: What was done.
        ours: The contender whose ratio to each of the others is of interest.
        samples: By contender: a figure per round.
        budgets: By contender: the most that our ratio to it may be.
        floors: By contender: the least that our ratio to it may be, where more is better.
        ceilings: By contender: the most that its own figure may be.
        unit: What is measured: "s" is shown in microseconds.
        against: The contender that a table of neighbours compares ours with; by default one with a budget.
        note: A sentence on how like is compared with like.
        table: Neighbours with the same word here are shown in one table, a line each.
    """

    title: str
    ours: str
    samples: dict[str, list[float]]
    budgets: dict[str, float] = field(default_factory=dict)
    floors: dict[str, float] = field(default_factory=dict)
    ceilings: dict[str, float] = field(default_factory=dict)
    unit: str = "s"
    against: str = ""
    note: str = ""
    table: str = ""

    def ratio(self, other: str) -> Spread:
        """Return ours / other: the median of the rounds' ratios, not the ratio of medians."""
        return spread([mine / its for mine, its in zip(self.samples[self.ours], self.samples[other], strict=True)])


def spread(figures: Sequence[float]) -> Spread:
    """Return the median and the quartiles.

    >>> spread([1, 2, 3, 4, 50])
    Spread(middle=3, low=2.0, high=4.0)
    """
    if len(figures) < 2:
        return Spread(figures[0], figures[0], figures[0])
    low, _, high = quantiles(figures, n=4, method="inclusive")
    return Spread(median(figures), low, high)


async def compare(title: str, contenders: Sequence[Contender], effort: Effort, *, note: str = "") -> Comparison:
    """Measure contenders in turns; the first one is ours.

    Raises:
        AssertionError: If a contender's results are not right.
    """
    counts = [await _calibrate(contender) for contender in contenders]
    found = Comparison(
        title=title,
        ours=contenders[0].name,
        samples={contender.name: [] for contender in contenders},
        budgets={contender.name: contender.budget for contender in contenders if contender.budget is not None},
        note=note,
    )
    for _ in range(effort.rounds):
        gc.collect()
        for contender, count in zip(contenders, counts, strict=True):
            found.samples[contender.name].append(await _sample(contender, count) / count)
    return found


async def _calibrate(contender: Contender) -> int:
    """Return how often something must be done for a sample to be long enough; on the way, warm everything up."""
    count = contender.step
    while True:
        spent = await _sample(contender, count)
        if spent >= SAMPLE * MARGIN:
            return count
        wanted = min(10.0, max(2.0, SAMPLE * MARGIN * 1.1 / spent))  # at most tenfold: the first call is a slow one
        count = ceil(count * wanted / contender.step) * contender.step


async def _sample(contender: Contender, count: int) -> float:
    started = perf_counter()
    right = await contender.run(count)
    spent = perf_counter() - started
    assert right == count, f"{contender.name}: {right} of {count} results are right"
    return spent


async def until(condition: Callable[[], bool], act: Callable[[], Awaitable[object]], most: int = 10_000) -> None:
    """Act until a condition holds.

    Raises:
        RuntimeError: If it does not after ``most`` times.
    """
    for _ in range(most):
        if condition():
            return
        await act()
    raise RuntimeError(f"{condition} did not come true in {most} attempts")


def run_on(loop: str, main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a new loop of this kind: asyncio's or uvloop's."""
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def has(package: str) -> bool:
    """Say whether a package is installed."""
    return importlib.util.find_spec(package) is not None


def versus(*contenders: Contender | None) -> list[Contender]:
    """Return those contenders that this Python and its packages have."""
    return [contender for contender in contenders if contender is not None]


def environment() -> dict[str, Any]:
    """Return what the figures depend on, as far as it can be told."""
    versions = {}
    for package in ("anyio", "uvloop"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(terse=True),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "switch interval": sys.getswitchinterval(),
        "gc": f"{'on' if gc.isenabled() else 'off'}, thresholds {gc.get_threshold()}",
        **versions,
    }
