"""Stacked areas over time, one panel above the other, as an SVG file: with the standard library alone.

Why stacked: shares of one whole are what is compared, and the eye sees at once who gets how much of it. The colours are
Okabe and Ito's, which colour-blind readers tell apart too, and every area is named in the legend in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as Xml

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00")  # Okabe and Ito
INK, FAINT = "#222222", "#8a8a8a"
WIDTH, LEFT, RIGHT = 960, 60, 30  # pixels
HEAD, PANEL, GAP = 96, 220, 76  # pixels: above the panels, each of them, below each of them
ROW = 18  # pixels: a line of text


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: What is shown.
        shares: For each slice of time the share of each area, from 0 to 1; all 0: nothing happened.
        ends: For each area, when it ended, in seconds.
    """

    title: str
    shares: Sequence[Sequence[float]]
    ends: Sequence[float]


def draw(title: str, names: Sequence[str], panels: Sequence[Panel], seconds: float, output: Path) -> None:
    """Draw panels with the same axes into a file.

    Args:
        title: What was compared.
        names: What the areas are, from below to above; up to five.
        panels: From above to below.
        seconds: How long the axis of time is.
        output: Where to.

    Raises:
        OSError: The file cannot be written.
    """
    height = HEAD + len(panels) * (PANEL + GAP)
    svg = Xml.Element(
        "svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDTH} {height}", width=f"{WIDTH}", height=f"{height}"
    )
    svg.set("font-family", "sans-serif")
    svg.set("font-size", "13")
    _box(svg, 0, 0, WIDTH, height, "white")
    _text(svg, LEFT, 36, title, size=19, bold=True)
    step = (WIDTH - LEFT - RIGHT) / len(names)
    for place, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        _box(svg, LEFT + place * step, 53, 14, 14, colour)
        _text(svg, LEFT + place * step + 20, 65, name)
    for place, panel in enumerate(panels):
        _panel(svg, panel, HEAD + place * (PANEL + GAP) + 20, seconds, names)
    Xml.indent(svg)
    Xml.ElementTree(svg).write(output, encoding="utf-8", xml_declaration=True)


def _panel(svg: Xml.Element, panel: Panel, top: float, seconds: float, names: Sequence[str]) -> None:
    """Draw one panel whose areas begin at a height of ``top``."""
    wide = WIDTH - LEFT - RIGHT
    bottom = top + PANEL
    _text(svg, LEFT, top - 12, panel.title, bold=True)
    _box(svg, LEFT, top, wide, PANEL, "#f4f4f4")
    step = wide / len(panel.shares)
    floor = [0.0] * len(panel.shares)
    for place, colour in zip(range(len(names)), COLOURS, strict=False):
        ceiling = [below + shares[place] for below, shares in zip(floor, panel.shares, strict=True)]
        corners = [*_stairs(ceiling, step, bottom), *reversed(_stairs(floor, step, bottom))]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        Xml.SubElement(svg, "polygon", points=points, fill=colour)
        floor = ceiling
    for percent in (0, 50, 100):
        y = bottom - PANEL * percent / 100
        _line(svg, LEFT - 4, y, LEFT, y, FAINT)
        _text(svg, LEFT - 8, y + 4, f"{percent} %", anchor="end")
    for tick in ticks(seconds):
        x = LEFT + wide * tick / seconds
        _line(svg, x, bottom, x, bottom + 4, FAINT)
        _text(svg, x, bottom + ROW, f"{tick:g} s", anchor="middle")
    for place, (name, end) in enumerate(zip(names, panel.ends, strict=True)):
        x = LEFT + wide * end / seconds
        _line(svg, x, top, x, bottom, INK, dashed=True)
        to_the_left = end > seconds / 2
        label = f"{name.partition(',')[0]} done"
        place_of_text = (x - 6 if to_the_left else x + 6, top + ROW * (place + 1))
        _text(svg, *place_of_text, label, anchor="end" if to_the_left else "start", halo=True)


def _stairs(values: Sequence[float], step: float, bottom: float) -> list[tuple[float, float]]:
    """Return the corners of a line that has each value for one step."""
    return [(LEFT + x * step, bottom - PANEL * value) for place, value in enumerate(values) for x in (place, place + 1)]


def ticks(seconds: float) -> list[float]:
    """Return round numbers along an axis, from 0 on; at most eleven.

    >>> ticks(2.6)
    [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    """
    unit = 1e-6
    for factor in (2, 2.5, 2) * 6:  # 1, 2, 5, 10, ...
        if seconds / unit < 11:
            break
        unit *= factor
    return [round(place * unit, 9) for place in range(int(seconds / unit) + 1)]


def _box(svg: Xml.Element, x: float, y: float, width: float, height: float, colour: str) -> None:
    Xml.SubElement(svg, "rect", x=f"{x:.1f}", y=f"{y:.1f}", width=f"{width:.1f}", height=f"{height:.1f}", fill=colour)


def _line(svg: Xml.Element, x: float, y: float, to_x: float, to_y: float, colour: str, dashed: bool = False) -> None:
    made = Xml.SubElement(svg, "line", x1=f"{x:.1f}", y1=f"{y:.1f}", x2=f"{to_x:.1f}", y2=f"{to_y:.1f}", stroke=colour)
    if dashed:
        made.set("stroke-dasharray", "3 3")


def _text(
    svg: Xml.Element,
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    size: int = 13,
    bold: bool = False,
    halo: bool = False,
) -> None:
    made = Xml.SubElement(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "fill": INK, "text-anchor": anchor})
    made.text = words
    made.set("font-size", f"{size}")
    if bold:
        made.set("font-weight", "bold")
    if halo:
        made.set("style", "paint-order: stroke; stroke: white; stroke-width: 4px; stroke-linejoin: round")
