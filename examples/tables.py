"""A plain table for a terminal: the first column to the left, the figures to the right."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows with columns of equal width, two blanks apart. O(cells).

    >>> print(aligned([["", "done"], ["swift", "7"], ["slow", "12"]]))
           done
    swift     7
    slow     12
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
