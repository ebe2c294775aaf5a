"""Prints comparisons: with rich if it is installed, else as plain text.

Why the words "met" and "missed" are computed here, from the ratio just measured: a verdict written beforehand goes on
praising when the figures no longer do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from .harness import Comparison, Spread, spread

__all__ = ["Row", "headline", "rows", "show", "verdicts"]

HEADER = ("", "each", "quartiles", "ours / this", "quartiles", "budget", "")


class Row(NamedTuple):
    """One line of a table, as text."""

    name: str
    each: str
    each_quartiles: str
    ratio: str
    ratio_quartiles: str
    budget: str
    verdict: str


def rows(found: Comparison) -> list[Row]:
    """Return a comparison as text, a row for each contender.

    >>> one, two = rows(Comparison("", "a", {"a": [1e-6] * 3, "b": [4e-6] * 3}, budgets={"b": 0.2}))
    >>> two.ratio, two.budget, two.verdict
    ('1/4.00', '<= 1/5.00', 'missed')
    """
    return [_row(found, name) for name in found.samples]


def _row(found: Comparison, name: str) -> Row:
    each = spread(found.samples[name])
    ratio = None if name == found.ours else found.ratio(name)
    budget, floor, ceiling = found.budgets.get(name), found.floors.get(name), found.ceilings.get(name)
    words, verdict = "", ""
    if budget is not None and ratio is not None:
        words, verdict = f"<= {_times(budget)}", _verdict(ratio.middle, budget)
    elif floor is not None and ratio is not None:
        words, verdict = f">= {_times(floor)}", _verdict(floor, ratio.middle)
    elif ceiling is not None:
        words, verdict = f"<= {_figure(ceiling, found.unit)}", _verdict(each.middle, ceiling)
    return Row(
        name=name,
        each=_figure(each.middle, found.unit),
        each_quartiles=_quartiles(each, found.unit),
        ratio="" if ratio is None else _times(ratio.middle),
        ratio_quartiles=""
        if ratio is None or ratio.low == ratio.high
        else f"{_times(ratio.low)} - {_times(ratio.high)}",
        budget=words,
        verdict=verdict,
    )


def _verdict(measured: float, most: float) -> str:
    return "met" if measured <= most else "missed"


def _figure(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1e6:,.2f} us"
    return f"{value:,.0f} {unit}" if value >= 100 or value.is_integer() else f"{value:.2f} {unit}"


def _quartiles(found: Spread, unit: str) -> str:
    if found.low == found.high:
        return ""
    return f"{_figure(found.low, unit).split()[0]} - {_figure(found.high, unit).split()[0]}"


def _times(ratio: float) -> str:
    """Return a ratio as people say it.

    >>> _times(0.0125), _times(1.5)
    ('1/80.0', '1.50 x')
    """
    if ratio >= 0.8:  # arbitrary: 0.85 x reads better than 1/1.18
        return f"{ratio:.2f} x"
    inverse = 1 / ratio
    return f"1/{inverse:.1f}" if inverse >= 10 else f"1/{inverse:.2f}"


def verdicts(comparisons: Iterable[Comparison]) -> tuple[int, int]:
    """Return how many budgets were met, and how many missed."""
    words = [row.verdict for found in comparisons for row in rows(found)]
    return words.count("met"), words.count("missed")


def headline(around: dict[str, Any]) -> str:
    """Return in one line what the figures depend on."""
    return ", ".join(
        (
            f"{around['python']} on {around['system']} {around['machine']}",
            f"{around['cpus']} CPUs with a load of {around['load']}",
            f"garbage collector {around['gc']}",
            f"anyio {around['anyio']}",
            f"uvloop {around['uvloop']}",
        )
    )


def show(where: str, comparisons: Iterable[Comparison]) -> None:
    """Print a table for each comparison, or one for neighbours that share it; ``where`` names the loop."""
    for table, found in groupby(comparisons, key=lambda comparison: comparison.table or comparison.title):
        members = list(found)
        lines = _pivot(members) if members[0].table else [HEADER, *rows(members[0])]
        _print(f"{table} [{where}]", lines, members[0].ours, members[0].note)
    sys.stdout.flush()


def _pivot(comparisons: list[Comparison]) -> list[tuple[str, ...]]:
    """Return one line for each comparison, with a column for each contender."""
    first = comparisons[0]
    against = first.against or next((name for found in comparisons for name in found.budgets), first.ours)
    compared = () if against == first.ours else (f"{first.ours} / {against}", "quartiles")
    lines: list[tuple[str, ...]] = [("", *first.samples, *compared, "budget", "")]
    for found in comparisons:
        row = _row(found, against)
        each = [_figure(spread(figures).middle, found.unit) for figures in found.samples.values()]
        ratios = (row.ratio, row.ratio_quartiles) if compared else ()
        lines.append((found.title, *each, *ratios, row.budget, row.verdict))
    return lines


def _print(title: str, lines: Sequence[Sequence[str]], ours: str, note: str) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        _print_plain(title, lines, note)
        return
    bold = Text(title, style="bold")
    table = Table(title=bold, title_justify="left", caption=note or None, caption_justify="left")
    for place, word in enumerate(lines[0]):
        table.add_column(word, justify="left" if place in (0, len(lines[0]) - 1) else "right", no_wrap=True)
    styles = {"met": "green", "missed": "red"}
    for line in lines[1:]:
        table.add_row(*(Text(cell, style=styles.get(cell, "bold" if line[0] == ours else "")) for cell in line))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _print_plain(title: str, lines: Sequence[Sequence[str]], note: str) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}")
    for line in lines:
        first, *others = line
        cells = [cell.rjust(width) for cell, width in zip(others[:-1], widths[1:-1], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells, others[-1]]).rstrip())
    if note:
        print(note)
