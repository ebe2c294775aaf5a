"""What the kernel says of a machine in small files: lists of CPUs, the nodes of devices, the limits of a cgroup.

Why a room of its own: these files are read by everybody and specified by nobody. Whatever they say, or if they are not
there - containers mask some, kernels without NUMA have no nodes, an offline CPU belongs to none - what is returned is
"unknown", never an exception. The root of the files is an argument, so that tests can show a machine of eight nodes.

How the node of a device is found: a device is a folder below ``devices``, at the end of links such as
``class/net/eth0``; the nearest folder above it with a ``numa_node`` is that of the card that it sits on. A device that
is made of others (LVM, RAID, bonds, bridges, NVMe with several paths) has no card: it is on a node if all its parts
that are on any node are on the same one.

Rejected:

- cgroups of version 1: what they say of CPUs, ``sched_getaffinity`` knows as well, and their shares are seldom set.
- ``memory.high``: it makes a program slow, it is not what the program has.

Assumes: the layout of Linux 2.6.26 and later (sysfs-devices-node, sysfs-class-net, cgroup-v2 in its documentation).

Invariants: nothing outside of the root is looked at; a name cannot lead there.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from os import stat_result
    from pathlib import Path  # whoever hands paths over has imported it

__all__ = [
    "Limits",
    "amount",
    "device",
    "device_of",
    "hardware",
    "limits",
    "listed",
    "named",
    "node_of",
    "numbers",
    "own_cgroup",
    "spell",
    "text",
]

# At most four digits: no kernel has more than 8192 CPUs or 1024 nodes, and garbage is not to fill the memory.
SPAN = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
SHARE = re.compile(r"([0-9]{1,15})\s+([0-9]{1,15})")
WHOLE = re.compile(r"[0-9]{1,18}")


# ------------------------------------------------------------------------------------------------------------- words


def text(path: Path) -> str:
    """Return what a small file says; nothing, if it cannot be read."""
    try:
        return path.read_bytes().decode("ascii", "replace").strip()
    except (OSError, ValueError):  # a name with a null in it is a ValueError
        return ""


def listed(folder: Path) -> list[Path]:
    """Return what is in a folder, in order of names; nothing, if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except (OSError, ValueError):
        return []


def numbers(words: str) -> frozenset[int]:
    """Return the numbers of a list as the kernel writes it; what makes no sense in it is left out.

    >>> sorted(numbers("0-3,8,10-11"))
    [0, 1, 2, 3, 8, 10, 11]
    """
    found: set[int] = set()
    for part in words.split(","):
        if span := SPAN.fullmatch(part.strip()):
            found.update(range(int(span[1]), int(span[2] or span[1]) + 1))
    return frozenset(found)


def spell(these: Iterable[int]) -> str:
    """Write numbers as the kernel does.

    >>> spell({0, 1, 2, 3, 8, 10, 11})
    '0-3,8,10-11'
    """
    spans: list[list[int]] = []
    for number in sorted(set(these)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(f"{first}-{last}" if first < last else f"{first}" for first, last in spans)


def amount(words: str, name: str) -> int | None:
    """Return an amount of memory in bytes, out of a table such as ``meminfo``.

    >>> amount("Node 0 MemTotal:       2048 kB", "MemTotal")
    2097152
    """
    found = re.search(rf"\b{name}:\s*([0-9]{{1,15}}) kB", words)
    return int(found[1]) * 1024 if found else None


# ----------------------------------------------------------------------------------------------------------- devices


def device_of(status: stat_result) -> tuple[int, str]:
    """Return the number of the device that a file is on, or is, and what kind it is: "block" or "char"."""
    kind = "char" if stat.S_ISCHR(status.st_mode) else "block"
    its_own = kind == "char" or stat.S_ISBLK(status.st_mode)
    return status.st_rdev if its_own else status.st_dev, kind


def device(root: Path, numbered: tuple[int, int], kind: str = "block") -> Path:
    """Return where a device is that has a major and a minor number; kind is "block" or "char"."""
    return root / "dev" / kind / f"{numbered[0]}:{numbered[1]}"


def named(root: Path, kind: str, name: str) -> Path | None:
    """Return where a device of a class ("block", "net") is; None if there is none of that name."""
    folder = root / "class" / kind / name.replace("/", "!")  # as the kernel does: cciss/c0d0
    return folder if _real(folder, root) else None


def hardware(root: Path, kind: str) -> Iterator[tuple[str, int | None]]:
    """Give the devices of a class that are there, or are made of such: their names and nodes; no partitions."""
    for folder in listed(root / "class" / kind):
        real = _real(folder, root)
        if real is None or text(real / "partition"):
            continue
        node = node_of(real, root)
        if node is not None or not real.is_relative_to(root.resolve() / "devices/virtual"):
            yield folder.name.replace("!", "/"), node


def node_of(folder: Path, root: Path) -> int | None:
    """Return the number of the node that a device is on, by its folder or a link to that; None if it is not known."""
    todo, seen, nodes = [folder], set(), set()
    while todo:
        place = _real(todo.pop(), root)
        if place is None or place in seen:
            continue
        seen.add(place)
        node = _node_above(place, root)
        if node is None:
            todo += _parts(place)
        else:
            nodes.add(node)
    return nodes.pop() if len(nodes) == 1 else None


def _real(folder: Path, root: Path) -> Path | None:
    """Follow links; None if they lead to no device: nowhere, or out of the root."""
    try:
        place = folder.resolve(strict=True)
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links in a circle, before Python 3.13
        return None
    return place if place.is_relative_to(root.resolve() / "devices") else None  # class/net/bonding_masters is a file


def _node_above(place: Path, root: Path) -> int | None:
    top = root.resolve() / "devices"
    for folder in (place, *place.parents):
        if folder == top:
            break
        if SPAN.fullmatch(number := text(folder / "numa_node")) and number.isdecimal():  # -1: it does not know
            return int(number)
    return None


def _parts(place: Path) -> Iterator[Path]:
    """Give the devices that a device is made of."""
    if text(place / "partition"):
        yield place.parent
    yield from listed(place / "slaves")  # of LVM, RAID, encryption
    yield from (each for each in listed(place) if each.name.startswith("lower_"))  # of bonds, bridges, VLANs
    if place.parent.name.startswith("nvme-subsys"):
        yield from (each for each in listed(place.parent) if re.fullmatch("nvme[0-9]+", each.name))  # its controllers


# ------------------------------------------------------------------------------------------------------------ limits


class Limits(NamedTuple):
    """What a cgroup and those above it allow; None is no limit.

    Attributes:
        cpus: The CPUs.
        quota: How many CPUs' worth of time.
        memory: Bytes.
    """

    cpus: frozenset[int] | None = None
    quota: float | None = None
    memory: int | None = None


def own_cgroup(words: str) -> str:
    r"""Return the path of a process in the tree of version 2, out of its ``/proc/self/cgroup``.

    >>> own_cgroup("4:memory:/old\n0::/user.slice/app")
    '/user.slice/app'
    """
    return next((line[3:] for line in words.splitlines() if line.startswith("0::")), "/")


def limits(root: Path, own: str = "/") -> Limits:
    """Read the limits of a cgroup of version 2.

    Args:
        root: Where the tree is mounted.
        own: The path of the cgroup in it. What of it is not there is left out: in a container, the path may be that of
            the host, and the root is the container's.
    """
    parts = [part for part in own.split("/") if part not in ("", ".", "..")]
    folders = [root.joinpath(*parts[:length]) for length in range(len(parts), -1, -1)]
    cpus = (numbers(text(folder / "cpuset.cpus.effective")) for folder in folders)
    shares = (SHARE.fullmatch(text(folder / "cpu.max")) for folder in folders)
    sizes = (text(folder / "memory.max") for folder in folders)
    return Limits(
        next(filter(None, cpus), None),
        min((int(share[1]) / int(share[2]) for share in shares if share and int(share[2])), default=None),
        min((int(size) for size in sizes if WHOLE.fullmatch(size)), default=None),
    )
