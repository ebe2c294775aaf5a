"""A machine as text: each node a box, and below it what hangs on it; no wider than the terminal.

    2 nodes, 16 CPUs, 64.0 GiB

    ┌─ node 0 ───────────────┐   ┌─ node 1 ────────────────┐
    │ CPUs 0-7               │   │ CPUs 8-15               │
    │ 32.0 GiB, 2.1 GiB free │   │ 32.0 GiB, 19.7 GiB free │
    │ distance 21: node 1    │   │ distance 21: node 0     │
    └─┬──────────────────────┘   └─────────────────────────┘
      ├─ disk nvme0n1
      └─ net eth0

Why not a matrix of distances: eight nodes have sixty-four, of which three or four differ. Here each box says how far it
is to which others.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from itertools import groupby, zip_longest
from textwrap import wrap
from typing import TYPE_CHECKING

from .sysfs import spell

if TYPE_CHECKING:
    from .nodes import Machine, Node

__all__ = ["draw", "size"]

NARROW = 28  # columns; arbitrary: with fewer, a box is not readable
GAP = "   "
ASCII = str.maketrans("─│┌┐└┘├┬", "-|++++++")


def draw(machine: Machine, width: int = 80, encoding: str | None = "utf-8") -> str:
    """Return a drawing of so many columns, with lines of ASCII if the encoding has no others."""
    disks, interfaces = machine.disks(), machine.interfaces()
    width = max(width, NARROW)
    widest = width if len(machine.nodes) == 1 else max((width - len(GAP)) // 2, NARROW)
    boxes, hangings = list[list[str]](), list[list[str]]()
    for node in machine.nodes:
        boxes.append([line for each in _facts(machine, node) for line in _wrapped(each, widest - 4)])
        hangings.append(_branches(_kinds(disks, interfaces, node), widest))
    column = max(len(f"node {node.number}") + 6 for node in machine.nodes)
    column = max(column, *(len(line) + 4 for box in boxes for line in box))
    column = max([column, *(len(line) for hanging in hangings for line in hanging)])
    stacks = [
        _stack(f"node {node.number}", box, hanging, column)
        for node, box, hanging in zip(machine.nodes, boxes, hangings, strict=True)
    ]

    beside = (width + len(GAP)) // (column + len(GAP))
    parts = [_wrapped(_summary(machine), width)]
    for start in range(0, len(stacks), beside):
        lines = zip_longest(*stacks[start : start + beside], fillvalue="")
        parts.append([GAP.join(line.ljust(column) for line in row).rstrip() for row in lines])
    if adrift := _kinds(disks, interfaces, None):
        parts.append(_wrapped(f"Nobody knows on which node: {'; '.join(adrift)}.", width))
    drawing = "\n\n".join("\n".join(part) for part in parts)
    return drawing if _has_lines(encoding) else drawing.translate(ASCII).encode("ascii", "replace").decode()


def size(amount: int) -> str:
    """Write an amount of memory.

    >>> size(16 * 2**30), size(3 * 2**19)
    ('16.0 GiB', '1.5 MiB')
    """
    value, units = amount / 2**20, ["MiB", "GiB", "TiB", "PiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.1f} {units[0]}"


def _summary(machine: Machine) -> str:
    sizes = [node.memory for node in machine.nodes if node.memory is not None]
    words = [
        _many(len(machine.nodes), "node"),
        *([_many(len(machine.packages), "socket")] if machine.packages else []),
        _many(len(machine.cpus), "CPU"),
        *([size(sum(sizes))] if sizes else []),
    ]
    bounds = []
    if machine.allowed != machine.cpus:
        bounds.append(_many(len(machine.allowed), "CPU"))
    if machine.quota is not None:
        bounds.append(f"the time of {machine.quota:.2f} CPUs")
    if machine.memory_limit is not None:
        bounds.append(size(machine.memory_limit))
    return ", ".join(words) + (f"; for this process: {', '.join(bounds)}" if bounds else "")


def _facts(machine: Machine, node: Node) -> list[str]:
    """Say what is in a box."""
    facts = [f"CPUs {_spelled(node.cpus)}" if node.cpus else "no CPUs"]
    if node.cpus and node.cpus != node.allowed:
        facts += [f"for us: {_spelled(node.allowed)}" if node.allowed else "none of them for us"]
    if node.memory is not None:
        facts += [size(node.memory) + ("" if node.free is None else f", {size(node.free)} free")]
    caches = [cache & node.cpus for cache in machine.caches if cache & node.cpus]
    if len(caches) > 1:
        facts += [f"{len(caches)} last-level caches"]
    others = sorted((distance, number) for number, distance in node.distances.items() if number != node.number)
    for distance, those in groupby(others, key=lambda other: other[0]):
        numbers = [number for _, number in those]
        facts += [f"distance {distance}: node{'s' * (len(numbers) > 1)} {_spelled(numbers)}"]
    return facts


def _kinds(disks: Mapping[str, Node | None], interfaces: Mapping[str, Node | None], node: Node | None) -> list[str]:
    """Say what hangs on a node."""
    disk, net = (
        sorted((name for name, its in there.items() if its == node), key=_counted) for there in (disks, interfaces)
    )
    kinds = [(f"disk{'s' * (len(disk) > 1)} ", disk), ("net ", net)]
    return [word + ", ".join(names) for word, names in kinds if names]


def _counted(name: str) -> list[tuple[str, int]]:
    """Return what to sort a name by, so that the tenth comes after the ninth."""
    return [(word, int(number or 0)) for word, number in re.findall("([^0-9]*)([0-9]{0,9})", name)]


def _branches(kinds: list[str], width: int) -> list[str]:
    lines = []
    for kind in kinds:
        last = kind == kinds[-1]
        first, *rest = _wrapped(kind, width - 5)
        lines += [f"  {'└' if last else '├'}─ {first}", *(f"  {' ' if last else '│'}  {line}" for line in rest)]
    return lines


def _stack(title: str, box: list[str], hanging: list[str], width: int) -> list[str]:
    return [
        f"┌─ {title} ".ljust(width - 1, "─") + "┐",
        *(f"│ {line.ljust(width - 4)} │" for line in box),
        ("└─┬" if hanging else "└").ljust(width - 1, "─") + "┘",
        *hanging,
    ]


def _many(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _spelled(numbers: Collection[int]) -> str:
    """Write numbers so that lines can be broken; those of machines that count their CPUs across, in short.

    >>> _spelled({0, 1, 2, 5}), _spelled(range(1, 64, 2))
    ('0-2, 5', '1-63 by 2')
    """
    these = sorted(numbers)
    step = these[1] - these[0] if len(these) > 2 else 1
    if step > 1 and these == list(range(these[0], these[-1] + 1, step)):
        return f"{these[0]}-{these[-1]} by {step}"
    return spell(these).replace(",", ", ")


def _wrapped(line: str, width: int) -> list[str]:
    return wrap(line, width, subsequent_indent="  ", break_on_hyphens=False)


def _has_lines(encoding: str | None) -> bool:
    try:
        return bool("─│┌┐└┘├┬".encode(encoding or "ascii"))
    except (UnicodeError, LookupError):
        return False
