"""Draws lines over a logarithmic grid, as an SVG file; nothing but the standard library is needed.

Every line is labelled where it ends; the colours are Okabe and Ito's, which colour-blind readers tell apart too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from pathlib import Path

__all__ = ["Panel", "draw"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00", "#555555")  # Okabe and Ito
WIDTH, HEIGHT = 480, 360  # of a panel's grid, in pixels
LEFT, TOP, RIGHT, BOTTOM = 60, 80, 190, 60  # around it
LINE = 16  # pixels between two labels
SUBDIVISIONS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Panel:
    """Some curves that share their axes.

    Attributes:
        title: What is drawn.
        lines: By name: points, each of them an abscissa and an ordinate above zero.
    """

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def draw(file: Path, title: str, subtitle: str, below: str, panels: Sequence[Panel]) -> None:
    """Draw panels side by side into one file.

    Args:
        file: Where to.
        title: What this is about.
        subtitle: Under which conditions.
        below: What the axes to the right say.
        panels: The first one's first line is drawn boldest.

    Raises:
        OSError: If the file cannot be written.
    """
    step = LEFT + WIDTH + RIGHT
    parts = [_text(LEFT, 28, title, size=20, weight="bold"), _text(LEFT, 48, subtitle, colour="#555555")]
    for place, panel in enumerate(panels):
        parts += [f'<g transform="translate({place * step} 0)">', *_panel(panel, below), "</g>"]
    width, height = step * len(panels), TOP + HEIGHT + BOTTOM
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    style = ' font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    file.write_text("\n".join([head + style, *parts, "</svg>", ""]), encoding="utf-8")


def _panel(panel: Panel, below: str) -> list[str]:
    points = [point for line in panel.lines.values() for point in line]
    across = _Axis([x for x, _ in points], LEFT, LEFT + WIDTH)
    upwards = _Axis([y for _, y in points], TOP + HEIGHT, TOP)
    parts = [_text(LEFT, TOP - 10, panel.title, weight="bold")]
    for value in across.ticks(whole=True):
        x = across.place(value)
        parts += [_line(x, TOP, x, TOP + HEIGHT), _text(x, TOP + HEIGHT + 18, f"{value:,.0f}", anchor="middle")]
    for value in upwards.ticks():
        y = upwards.place(value)
        parts += [_line(LEFT, y, LEFT + WIDTH, y), _text(LEFT - 8, y + 4, f"{value:g}", anchor="end")]
    parts.append(_text(LEFT + WIDTH / 2, TOP + HEIGHT + 42, below, anchor="middle"))
    ends = []
    for number, (name, line) in enumerate(panel.lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [(across.place(x), upwards.place(y)) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{2 if number else 3.5}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        short = "" if places[-1][0] > LEFT + WIDTH - 1 else f" at {line[-1][0]:,.0f}"
        ends.append((*places[-1], f"{name} {line[-1][1]:.2g}{short}", colour))
    for (x, _, label, colour), y in zip(sorted(ends, key=lambda end: end[1]), _apart(ends), strict=True):
        parts.append(_text(max(x, LEFT + WIDTH) + 10, y + 4, label, colour=colour, weight="bold"))
    return parts


class _Axis:
    """A logarithmic axis from pixel ``start`` to pixel ``end``, over all values and no more than it takes."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self._start, self._end = start, end
        self._low, self._high = self._around(min(values), max(values))

    def _around(self, least: float, most: float) -> tuple[float, float]:
        steps = [digit * 10.0**power for power in _powers(least, most) for digit in SUBDIVISIONS]
        low, high = max(step for step in steps if step <= least), min(step for step in steps if step >= most)
        return low, high if high > low else 10 * low

    def place(self, value: float) -> float:
        """Return the pixel of a value."""
        share = log10(value / self._low) / log10(self._high / self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self, *, whole: bool = False) -> list[float]:
        """Return the values to mark: powers of ten, and unless ``whole``, what divides them."""
        digits = (1,) if whole else SUBDIVISIONS
        values = [digit * 10.0**power for power in _powers(self._low, self._high) for digit in digits]
        return [value for value in values if self._low <= value <= self._high]


def _powers(least: float, most: float) -> range:
    return range(floor(log10(least)), ceil(log10(most)) + 1)


def _apart(ends: Sequence[tuple[float, float, str, str]]) -> list[float]:
    """Return the heights of labels, from the top: as near to their lines as they can be without covering each other."""
    heights: list[float] = []
    for y in sorted(end[1] for end in ends):
        heights.append(max(y, heights[-1] + LINE) if heights else y)
    return heights


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e0e0e0"/>'


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 12,
    weight: str = "normal",
    anchor: str = "start",
    colour: str = "#222222",
) -> str:
    look = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(words)}</text>'
