"""The plot of the demo: throughput, the curve of latencies, and the loop's lag over time.

Why these three: a mean hides the tail, so the latencies are a curve over percentiles, with the tail stretched; a worst
lag hides how often it happens, so the lag is drawn as it happened. The colours are Okabe and Ito's, which colour-blind
readers tell apart too, and every line is labelled where it ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from figures import Result, number, percentile
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00")  # Okabe and Ito
INK, FAINT = "#222222", "#8a8a8a"
TICKS = (0.0, 0.5, 0.9, 0.99, 0.995)  # a thousandth of the demo's requests wait for 100 ms in any way
FORMATS = (".svg", ".png", ".pdf")
LOOK: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "threadlets",  # the same figures give the same file
}


def draw(results: Sequence[Result], title: str, subtitle: str, seconds: float, output: Path) -> None:
    """Draw all results into one file.

    Args:
        results: one for each way, in the order of the table; up to five.
        title: what was compared, in one line.
        subtitle: under which conditions, in one line.
        seconds: how long each round was.
        output: where to, with one of the endings in `FORMATS`.

    Raises:
        OSError: the file cannot be written.
    """
    with mpl.rc_context(LOOK):
        space = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.1, hspace=0.04, wspace=0.05)
        figure = Figure(figsize=(13, 4.6 + 0.85 * len(results)), facecolor="white", layout=space)
        figure.suptitle(f"{title}\n", x=0.015, ha="left", fontsize=15, fontweight="bold")
        figure.text(0.015, 0.945, subtitle, fontsize=10, color="#555555", va="center")
        heights = [3.6, 0.6 + 0.85 * len(results)]
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights).flat
        left, right = above.subplots(1, 2, width_ratios=[2, 3])
        _throughput(left, results)
        _latencies(right, results)
        rows = below.subplots(len(results), 1, sharex=True, sharey=True, squeeze=False)
        _lags([row[0] for row in rows], results, seconds)
        figure.savefig(output, metadata={"Date": None} if output.suffix == ".svg" else None)


def _throughput(axes: Axes, results: Sequence[Result]) -> None:
    """Bars for the medians, and a dot for each round."""
    axes.set_title("Requests per second (more is better)")
    highest = max(result.per_second.high for result in results) or 1.0
    for place, (result, colour) in enumerate(zip(results, COLOURS, strict=False)):
        axes.barh(place, result.per_second.value, height=0.6, color=colour)
        dots = [found.per_second for found in result.rounds]
        axes.plot(dots, [place] * len(dots), "o", color="white", markeredgecolor=INK, markersize=5, clip_on=False)
    labels = [f"{_broken(result.name)}\n{number(result.per_second.value)}" for result in results]
    axes.set_yticks(range(len(results)), labels, fontweight="bold")
    for label, colour in zip(axes.get_yticklabels(), COLOURS, strict=False):
        label.set_color(colour)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, highest * 1.05)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("bar: median; dots: each round")


def _latencies(axes: Axes, results: Sequence[Result]) -> None:
    """One curve for each way: the latency over the percentile, both stretched towards the tail."""
    axes.set_title("Latency (lower is better)")
    curves = [(result.name, colour, result.latencies) for result, colour in zip(results, COLOURS, strict=False)]
    shares = [1 - (1 - TICKS[-1]) ** (step / 300) for step in range(301)]
    ends = []
    for name, colour, latencies in curves:
        if latencies:
            values = [percentile(latencies, share) for share in shares]
            axes.plot([_stretched(share) for share in shares], values, color=colour, linewidth=2.2)
            ends.append((values[-1], name, colour))
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5 * min(percentile(latencies, 0.1) for _, _, latencies in curves))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel("milliseconds")
    axes.set_xticks([_stretched(share) for share in TICKS], [f"{share * 100:g} %" for share in TICKS])
    axes.set_xlim(0, _stretched(TICKS[-1]))
    axes.set_xlabel("share of the answers that came within this time")
    axes.grid(axis="both", color="#e5e5e5")
    axes.set_axisbelow(True)
    low, high = axes.get_ylim()
    ends.sort()
    heights = _spread([value for value, _, _ in ends], high / low)
    for height, (value, name, colour) in zip(heights, ends, strict=True):
        place = (_stretched(TICKS[-1]) * 1.015, height)
        label = f"{name} {number(value)} ms"
        axes.text(*place, label, va="center", color=colour, fontweight="bold", clip_on=False)


def _lags(rows: Sequence[Axes], results: Sequence[Result], seconds: float) -> None:
    """One strip for each way: how late the loop was, moment by moment, all rounds in a row."""
    rows[0].set_title("How late the event loop was, moment by moment (less is better)")
    highest = max(result.worst_lag.high for result in results)
    rounds = len(results[0].rounds)
    for axes, result, colour in zip(rows, results, COLOURS, strict=False):
        lags = [lag for found in result.rounds for lag in found.timeline]
        step = rounds * seconds / len(lags)
        axes.stairs(lags, [place * step for place in range(len(lags) + 1)], fill=True, color=colour)
        axes.set_ylim(0, highest * 1.1)
        axes.set_ylabel("ms")
        for end in range(1, rounds):
            axes.axvline(end * seconds, color="#bbbbbb", linewidth=0.8, linestyle=(0, (2, 3)))
        label = f"{_broken(result.name)}\nworst {number(result.worst_lag.value)} ms"
        axes.text(1.01, 0.5, label, transform=axes.transAxes, va="center", color=colour, fontweight="bold")
        axes.tick_params(axis="x", length=0)
    rows[-1].set_xlim(0, rounds * seconds)
    rows[-1].set_xlabel(f"seconds of load, {rounds} rounds in a row" if rounds > 1 else "seconds of load")


def _broken(name: str) -> str:
    """Return a long name as two short lines, which leave more room for the figures."""
    return name.replace(" on ", "\non ")


def _stretched(share: float) -> float:
    """Return the place of a percentile on the axis: it is as far from 0 to 90 % as from there to 99 %."""
    return -math.log10(1 - share)


def _spread(values: Sequence[float], whole: float) -> list[float]:
    """Move labels at these heights of a logarithmic axis apart, upwards, so that none covers another."""
    gap = whole**0.075  # a line of text is about a fourteenth of the panel
    placed: list[float] = []
    for value in values:
        placed.append(max(value, placed[-1] * gap) if placed else value)
    return placed
