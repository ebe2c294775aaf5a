"""Prints comparisons: with rich if it is installed, else as plain text.

Why the words "met" and "missed" are computed here, from the ratio just measured: a verdict written beforehand goes on
praising when the figures no longer do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
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
    ('1/4.00', '1/5.00', 'missed')
    """
    return [_row(found, name) for name in found.samples]


def _row(found: Comparison, name: str) -> Row:
    each = spread(found.samples[name])
    ratio = None if name == found.ours else found.ratio(name)
    budget, ceiling = found.budgets.get(name), found.ceilings.get(name)
    words, verdict = "", ""
    if budget is not None and ratio is not None:
        words, verdict = _times(budget), _verdict(ratio.middle, budget)
    elif ceiling is not None:
        words, verdict = _figure(ceiling, found.unit), _verdict(each.middle, ceiling)
    return Row(
        name=name,
        each=_figure(each.middle, found.unit),
        each_quartiles=_quartiles(each, found.unit),
        ratio="" if ratio is None else _times(ratio.middle),
        ratio_quartiles="" if ratio is None else f"{_times(ratio.low)} - {_times(ratio.high)}",
        budget=words and f"<= {words}",
        verdict=verdict,
    )


def _verdict(measured: float, most: float) -> str:
    return "met" if measured <= most else "missed"


def _figure(value: float, unit: str) -> str:
    return f"{value * 1e6:,.2f} us" if unit == "s" else f"{value:,.0f} {unit}"


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
            f"{around['python']} on {around['system']} ({around['machine']}, {around['cpus']} CPUs, load {around['load']})",
            f"garbage collector {around['gc']}",
            f"anyio {around['anyio']}",
            f"uvloop {around['uvloop']}",
        )
    )


def show(where: str, comparisons: Iterable[Comparison]) -> None:
    """Print one table for each comparison; ``where`` names the loop."""
    for found in comparisons:
        title = f"{found.title} [{where}]"
        if not _show_rich(title, found):
            _show_plain(title, found)
        sys.stdout.flush()


def _show_rich(title: str, found: Comparison) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(title=Text(title, style="bold"), title_justify="left", caption=found.note or None, caption_justify="left")
    for place, word in enumerate(HEADER):
        table.add_column(word, justify="left" if place in (0, 6) else "right", no_wrap=True)
    styles = {"met": "green", "missed": "red"}
    for row in rows(found):
        style = "bold" if row.name == found.ours else ""
        table.add_row(*(Text(cell, style=styles.get(cell, style)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    return True


def _show_plain(title: str, found: Comparison) -> None:
    lines = [HEADER, *rows(found)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEADER))]
    print(f"\n{title}")
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:6], widths[1:6], strict=True)]
        print("  ".join([*cells, line[6]]).rstrip())
    if found.note:
        print(found.note)
