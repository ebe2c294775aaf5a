"""A queue of up to a million: what an item costs to start, select, re-key, cancel and run, here and in other ways.

All places are taken; then N items are started, each with one of ten tags and one of three priorities; all of one tag
are looked at, all of another one get a new priority, all of a third one are cancelled; then the places are given back,
and everything that is left runs. Items do next to nothing, so what is measured is what holds them. What ran and what
was cancelled is counted. *Plain* is the same without tags, priorities and changes.

Each way and each size has a process of its own, in turns. The garbage collector is on, as in the programs that this is
about, and its passes are part of the figures; for ours, more tables have it off, or have what is queued frozen.

A way that would take longer than ``PATIENCE``, or half of the memory that is free, judging by the size before, is left
out at that size; so is one that is not installed. Either is said.

One way alone, as the parent runs it: ``python -m benchmarks.pool LOOP NAME SIZE [MANNER]``, with one of ``MANNERS``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from statistics import fmean, median
from time import perf_counter

from . import tables
from .curves import Panel, draw
from .harness import Comparison, Effort, has, spread
from .memory import BYTES, GROWTH, _resident
from .rivals import RIVALS
from .ways import OurPool, Way

__all__ = ["measure", "plot", "show"]

SIZES = (1_000, 10_000, 100_000, 1_000_000)
SMALL = 10_000  # the budget of growth compares the largest size with this one
COMMON = 100_000  # where all ways are compared
ROUNDS = {1_000: 3, 10_000: 3, 100_000: 2, 1_000_000: 1}  # arbitrary: all of it takes about five minutes
ENOUGH = 20_000  # items per process, so that a small size is measured long enough: it is filled up several times
PATIENCE, PATIENCE_QUICK = 75.0, 12.0  # seconds for one process; arbitrary

WAYS: tuple[type[Way], ...] = (OurPool, *RIVALS)
OURS = OurPool.name
START, DRAIN, BOTH = "start", "drain", "start + drain"
CHANGES: dict[str, tuple[str, tuple[int, ...]]] = {  # methods that some ways have, and their arguments: the tag, ...
    "select": ("select", (7,)),
    "re-key": ("rekey", (3, -1)),
    "cancel": ("cancel", (5,)),
}
COLLECTORS = {"gc-off": "the garbage collector off", "gc-frozen": "what is queued frozen (gc.freeze())"}
MANNERS = ("plain", "traced", *COLLECTORS)
GRIDS = {f"time per item, {size:,} queued": size for size in SIZES}

Figures = dict[str, float]
Found = dict[str, list[Figures]]  # by way: of each round


def measure(loop: str, effort: Effort) -> list[Comparison]:
    """Measure all ways at all sizes, on this kind of loop; asynkit has its own."""
    sizes = SIZES[:-1] if effort.quick else SIZES
    names = [way.name for way in WAYS if _installed(way)]
    packages = {way.package for way in WAYS if way.name in names and way.package}
    print(f"\nLibraries: {', '.join(f'{package} {version(package)}' for package in sorted(packages))}")
    found: dict[int, Found] = {}
    for size in sizes:
        if size > sizes[0]:
            names = [name for name in names if _bearable(name, size, found[size // 10], effort)]
        found[size] = _in_turns(loop, names, size, 1 if effort.quick else ROUNDS[size])
    able = list(found[COMMON])
    plain_size, plain_rounds = (SMALL, 1) if effort.quick else (COMMON, 2)
    plain = _in_turns(loop, able, plain_size, plain_rounds, "plain")
    traced = _in_turns(loop, able, SMALL, 1, "traced")
    return [
        *(column for size in sizes for column in _grid(size, found[size])),
        _ratios(f"{BOTH}, plain, {plain_size:,} queued", plain, budget=1.0),
        _memory("resident", COMMON, found[COMMON]),
        _memory("allocated", SMALL, traced),
        *_growth(loop, sizes, effort),
    ]


def show(where: str, comparisons: Sequence[Comparison]) -> None:
    """Print all tables; those that have a line for each way say "-" where one cannot do what is in the column."""
    for table, members in groupby(comparisons, key=lambda comparison: comparison.table):
        columns = list(members)
        if table not in GRIDS:
            tables.show(where, columns)
            continue
        cells = [{row.name: row.each for row in tables.rows(column)} for column in columns]
        lines = [[name, *(cell.get(name, "-") for cell in cells), ""] for name in cells[0]]
        note = "Selected, re-keyed and cancelled: a tenth each, by tag."
        tables._print(f"{table} [{where}]", [["", *(column.title for column in columns), ""], *lines], OURS, note)


def plot(file: Path, conditions: str, comparisons: Sequence[Comparison]) -> None:
    """Draw start and drain, a line for each way; and every operation of ours.

    Raises:
        OSError: If the file cannot be written.
    """
    ways: dict[str, list[tuple[float, float]]] = {}
    ours: dict[str, list[tuple[float, float]]] = {}
    for column in comparisons:
        if column.table in GRIDS and column.unit == "s":
            for name, figures in column.samples.items():
                point = (float(GRIDS[column.table]), spread(figures).middle * 1e6)
                if column.title == BOTH:
                    ways.setdefault(name, []).append(point)
                elif name == OURS:
                    ours.setdefault(column.title, []).append(point)
    drawn = [Panel(f"{BOTH}, microseconds", ways), Panel(f"{OURS}: each operation, microseconds", ours)]
    draw(file, "What one item costs, among as many as are queued", conditions, "items that are queued", drawn)


# ---------------------------------------------------------------------------------------------- comparisons


def _grid(size: int, found: Found) -> list[Comparison]:
    """Return one comparison for each column; ways that cannot do it are not in it."""
    table = next(title for title, of_size in GRIDS.items() if of_size == size)
    columns = [
        Comparison(title, OURS, samples, table=table)
        for title in (START, *CHANGES, DRAIN, BOTH)
        if (samples := {name: [each[title] for each in rounds] for name, rounds in found.items() if title in rounds[0]})
    ]
    if size >= SMALL:  # fewer have their place in what was allocated before
        resident = {name: [each["resident"] for each in rounds] for name, rounds in found.items()}
        columns.append(Comparison("resident", OURS, resident, unit="bytes", table=table))
    return columns


def _ratios(title: str, found: Found, budget: float) -> Comparison:
    samples = {name: [each[BOTH] for each in rounds] for name, rounds in found.items()}
    return Comparison(
        title,
        OURS,
        samples,
        budgets={name: budget for name in samples if name != OURS},
        note="One priority, no tags, nothing is changed. What gives no handle or no result: see benchmarks/rivals.py.",
    )


def _memory(kind: str, size: int, found: Found) -> Comparison:
    samples = {name: [each[kind] for each in rounds] for name, rounds in found.items()}
    title = f"{kind} memory, for each of {size:,} that are queued with a tag"
    return Comparison(title, OURS, samples, ceilings={OURS: BYTES}, unit="bytes")


def _growth(loop: str, sizes: Sequence[int], effort: Effort) -> list[Comparison]:
    """Compare ours with itself: all sizes, then two with the collector out of the way."""
    large = max(sizes)
    found: dict[str, dict[int, list[Figures]]] = {"": {size: [] for size in sizes}}
    found |= {how: {SMALL: [], large: []} for how in COLLECTORS}
    for turn in range(1 if effort.quick else 2):
        for how, by_size in found.items():
            for size, rounds in by_size.items():
                if not (how and turn):
                    rounds.append(_required(loop, OURS, size, how))
    return [
        Comparison(
            title,
            f"{large:,}",
            {f"{size:,}": [each[title] for each in rounds] for size, rounds in by_size.items()},
            budgets={} if how else {f"{SMALL:,}": GROWTH},
            against=f"{SMALL:,}",
            table=f"{OURS} with {COLLECTORS[how]}" if how else f"{OURS}, time per item, N queued",
        )
        for how, by_size in found.items()
        for title in (START, *CHANGES, DRAIN)
    ]


# ------------------------------------------------------------------------------------------------ processes


def _installed(way: type[Way]) -> bool:
    if way.package and not has(way.package):
        print(f"{way.name} is left out: {way.package} is not installed")
        return False
    return True


def _bearable(name: str, size: int, before: Found, effort: Effort) -> bool:
    """Judge by the size before, a tenth of this one."""
    if name not in before:
        return False
    seconds = 10 * median(each["seconds"] for each in before[name])
    memory = size * median(each["resident"] for each in before[name])
    if seconds <= (PATIENCE_QUICK if effort.quick else PATIENCE) and memory <= _free() / 2:
        return True
    print(f"{name} is left out at {size:,}: it would take about {seconds:.0f} s and {memory / 1e9:.1f} GB")
    return False


def _free() -> float:
    """Return the bytes of memory that are free; where the system does not say, as many as anybody might want."""
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (FileNotFoundError, StopIteration):
        return float("inf")


def _in_turns(loop: str, names: Sequence[str], size: int, rounds: int, how: str = "") -> Found:
    """Run each way in each round; one that fails is left out."""
    found: Found = {name: [] for name in names}
    for _ in range(rounds):
        for name in list(found):
            figures = _in_process(loop, name, size, how)
            if figures is None:
                del found[name]
                print(f"{name} is left out at {size:,}: it has failed, see above")
            else:
                found[name].append(figures)
    return found


def _in_process(loop: str, name: str, size: int, how: str) -> Figures | None:
    command = [sys.executable, "-m", __name__, loop, name, str(size), *filter(None, [how])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return None
    figures: Figures = json.loads(done.stdout)
    return figures


def _required(loop: str, name: str, size: int, how: str) -> Figures:
    figures = _in_process(loop, name, size, how)
    assert figures is not None, f"{name} has failed at {size:,}: see above"
    return figures


def _be_process(loop: str, name: str, size: int, how: str = "") -> Figures:
    """Fill and empty it as often as it takes; return the means, and the first one's memory."""
    assert not how or how in MANNERS, f"{how!r} is none of {MANNERS}"
    way = next(way for way in WAYS if way.name == name)
    if how == "gc-off":
        gc.disable()
    with asyncio.Runner(loop_factory=partial(way.make_loop, loop)) as runner:
        runner.run(_fill_and_empty(way, 100, ""))  # what only the first call of each kind pays for
        if how == "traced":
            return runner.run(_trace(way, size))
        began = perf_counter()
        found = [runner.run(_fill_and_empty(way, size, how)) for _ in range(max(1, ENOUGH // size))]
        seconds = (perf_counter() - began) / len(found)
    means = {title: fmean([each[title] for each in found]) for title in found[0]}
    return {**means, "resident": found[0]["resident"], "seconds": seconds}


async def _fill_and_empty(make: Callable[[], Way], size: int, how: str) -> Figures:
    way = make()
    await way.open()
    start = way.start if how == "plain" else way.start_tagged
    found: Figures = {}
    gc.collect()

    before, began = _resident(), perf_counter()
    await start(range(size))
    await way.settle()
    found[START] = (perf_counter() - began) / size
    found["resident"] = (_resident() - before) / size

    if how == "gc-frozen":
        gc.freeze()
    cancelled = 0
    for title, (word, arguments) in CHANGES.items():
        method: Callable[..., Awaitable[int]] | None = getattr(way, word, None)
        if method is not None and how != "plain":
            began = perf_counter()
            reached = await method(*arguments)
            found[title] = (perf_counter() - began) / reached
            if title == "cancel":
                cancelled = reached

    early = way.ran  # aiojobs lets some run meanwhile
    began = perf_counter()
    await way.drain()
    found[DRAIN] = (perf_counter() - began) / (size - cancelled - early)
    assert way.ran == size - cancelled, f"{way.name}: {way.ran} have run, not {size} less {cancelled}"
    gc.unfreeze()
    return {**found, BOTH: found[START] + found[DRAIN]}


async def _trace(make: Callable[[], Way], size: int) -> Figures:
    """Return the bytes that one queued item has allocated."""
    way = make()
    await way.open()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    await way.start_tagged(range(size))
    await way.settle()
    allocated = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    await way.drain()
    return {"allocated": allocated / size}


if __name__ == "__main__":
    on_loop, of_name, of_size, *in_manner = sys.argv[1:]
    print(json.dumps(_be_process(on_loop, of_name, int(of_size), *in_manner)))
