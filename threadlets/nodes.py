"""A machine as data: its NUMA nodes, what of them this process may use, and which of them is near to what.

Why: memory, disks and network cards hang on one node each, and code on the CPUs of another pays for every byte that it
fetches from there. So work wants to be done on the node whose memory and devices it uses, if that has CPUs for us.

How: ``read_machine`` reads it once, from files that are arguments (``sysfs.py``), and facts that need a system call are
arguments too. Devices come and go, so they are looked up when they are asked for.

What is true when sources disagree: a CPU that this process may run on is there, whatever the files say. A CPU that
several nodes claim is on the first of them; one that none claims is on the first of all.

Invariants of what is read, whatever the files say: at least one node, at least one CPU, at least one of them allowed;
each CPU on exactly one node. A node without CPUs is a node (memory alone: CXL, persistent memory); so is one whose CPUs
are not for us.

Sources: sysfs-devices-node, sysfs-devices-system-cpu and cputopology of the kernel's documentation; the file
``distance`` has a number for each node that is online, which is not its place if there are holes
(``node_read_distance`` in drivers/base/node.c).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

from . import drawings, sysfs

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from pathlib import Path

__all__ = ["Machine", "Node", "read_machine"]

LOCAL, REMOTE = 10, 20  # borrowed: ACPI's, and the kernel's for what it has not been told


@dataclass(frozen=True, slots=True)
class Node:
    """Some CPUs and the memory that is near to them.

    What is known of a node may change, and it stays the same node: nodes are equal if their numbers are.

    Attributes:
        number: The kernel's number for it; there may be holes between them.
        cpus: Its CPUs that are online; none, if it is memory alone.
        allowed: Those of them that this process may use.
        memory: Its memory in bytes; None if it is not known.
        free: How much of that nobody used when it was read; the page cache uses it, and gives it back when it must.
        distances: How far it is to the memory of each node, by the other's number: 10 is its own, 20 twice that.
        loops: Gives a node its event loop.
    """

    number: int
    cpus: frozenset[int] = field(compare=False)
    allowed: frozenset[int] = field(compare=False)
    memory: int | None = field(default=None, compare=False)
    free: int | None = field(default=None, compare=False)
    distances: dict[int, int] = field(default_factory=dict, compare=False)
    loops: Callable[[Node], AbstractEventLoop] | None = field(default=None, compare=False, repr=False)

    @property
    def usable(self) -> bool:
        """Whether this process may work there."""
        return bool(self.allowed)

    def distance(self, other: Node) -> int:
        """Return how far it is to the memory of a node: 10 if it is its own."""
        return self.distances.get(other.number, LOCAL if self == other else REMOTE)

    def loop(self) -> AbstractEventLoop:
        """Return the node's own event loop, which runs in a thread on its CPUs: for ``await migrate(node)``.

        It is started at the first call, and runs until the process ends.

        Raises:
            RuntimeError: If the node belongs to a machine that was read from files alone: ``topology.machine()`` is
                the one that the program runs on.

        Thread: any.
        """
        if self.loops is None:
            raise RuntimeError(
                f"{self!r} was read from files and has no event loop: topology.machine() has nodes that do"
            )
        return self.loops(self)

    def __repr__(self) -> str:
        return f"<threadlets Node {self.number} with CPUs {sysfs.spell(self.cpus) or 'of none'}>"


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """What a machine is made of, and what of it this process may use, as of when it was read.

    Thread: any. Cancel: none.

    Attributes:
        nodes: In order of their numbers; at least one.
        packages: The CPUs of each socket; none, if it is not known.
        caches: The CPUs that share a last-level cache; none, if it is not known.
        quota: How many CPUs' worth of time the process may use, by its cgroup; None: no limit.
        memory_limit: How much memory it may use, in bytes, by its cgroup; None: no limit.
        sysfs: Where the files are in which devices are looked up; None: no device is known.
    """

    nodes: tuple[Node, ...]
    packages: tuple[frozenset[int], ...] = ()
    caches: tuple[frozenset[int], ...] = ()
    quota: float | None = None
    memory_limit: int | None = None
    sysfs: Path | None = None

    @property
    def cpus(self) -> frozenset[int]:
        """All CPUs that are online."""
        return frozenset[int]().union(*(node.cpus for node in self.nodes))

    @property
    def allowed(self) -> frozenset[int]:
        """The CPUs that this process may use."""
        return frozenset[int]().union(*(node.allowed for node in self.nodes))

    @property
    def parallelism(self) -> int:
        """How many threads can really run at a time: by the CPUs that are allowed, and the quota, rounded up."""
        return min(len(self.allowed), ceil(self.quota or len(self.allowed)))

    def node(self, number: int) -> Node | None:
        """Return the node with this number; None if there is none."""
        return next((node for node in self.nodes if node.number == number), None)

    def nearest(self, node: Node) -> tuple[Node, ...]:
        """Return the nodes that this process may work on, the nearest to a node first: itself, if it is one of them.

        Two that are as far away come in the order of their numbers.
        """
        usable = (each for each in self.nodes if each.usable)
        return tuple(sorted(usable, key=lambda each: (node.distance(each), each != node, each.number)))

    # What is near to what. On a machine with one node that one is, whatever it is; on others, None: it is not known.

    def node_of_cpu(self, cpu: int) -> Node | None:
        """Return the node of a CPU."""
        return next((node for node in self.nodes if cpu in node.cpus), self._near(None))

    def node_of_block(self, name: str) -> Node | None:
        """Return the node of a disk, or a part of one, by its name: ``"nvme0n1p2"``."""
        return self._near_to(lambda root: sysfs.named(root, "block", name))

    def node_of_interface(self, name: str) -> Node | None:
        """Return the node of a network interface, by its name: ``"eth0"``."""
        return self._near_to(lambda root: sysfs.named(root, "net", name))

    def node_of_device(self, major: int, minor: int, kind: str = "block") -> Node | None:
        """Return the node of a device, by its numbers; ``kind`` is ``"block"`` or ``"char"``.

        Files are on the block device that their ``st_dev`` says. A file system that has none of its own - tmpfs,
        overlayfs, btrfs, NFS - has made a number up, and is on no node.
        """
        return self._near_to(lambda root: sysfs.device(root, (major, minor), kind))

    def disks(self) -> dict[str, Node | None]:
        """Return the nodes of all disks, by their names, without those that are only made up."""
        return self._hardware("block")

    def interfaces(self) -> dict[str, Node | None]:
        """Return the nodes of all network interfaces, by their names, without those that are only made up."""
        return self._hardware("net")

    def _near(self, number: int | None) -> Node | None:
        if len(self.nodes) == 1:
            return self.nodes[0]
        return None if number is None else self.node(number)

    def _near_to(self, find: Callable[[Path], Path | None]) -> Node | None:
        if self.sysfs is None or len(self.nodes) == 1:
            return self._near(None)
        folder = find(self.sysfs)
        return self._near(sysfs.node_of(folder, self.sysfs) if folder else None)

    def _hardware(self, kind: str) -> dict[str, Node | None]:
        there = sysfs.hardware(self.sysfs, kind) if self.sysfs else ()
        return {name: self._near(number) for name, number in there}

    def draw(self, width: int = 80, encoding: str | None = "utf-8") -> str:
        """Return a drawing: each node a box, and below it the disks and interfaces that hang on it.

        Args:
            width: How many columns there are.
            encoding: What the terminal can write. If that has no lines, they are made of ASCII.
        """
        return drawings.draw(self, width, encoding)

    def _check(self) -> None:
        """Assert what holds of each machine that was read."""
        assert self.nodes and self.allowed
        assert sorted({node.number for node in self.nodes}) == [node.number for node in self.nodes]
        assert sum(len(node.cpus) for node in self.nodes) == len(self.cpus), "a CPU is on two nodes"
        for node in self.nodes:
            assert node.allowed <= node.cpus
            assert all(self.node(other) and distance > 0 for other, distance in node.distances.items())
            assert set(self.nearest(node)) == {each for each in self.nodes if each.usable}
        for groups in (self.packages, self.caches):
            assert all(groups) and sum(map(len, groups)) == len(frozenset[int]().union(*groups))
        assert 1 <= self.parallelism <= len(self.allowed)


def read_machine(
    root: Path | None,
    *,
    affinity: Collection[int] = (),
    count: int = 1,
    memory: tuple[int | None, int | None] = (None, None),
    cgroups: Path | None = None,
    cgroup: str = "/",
    loops: Callable[[Node], AbstractEventLoop] | None = None,
) -> Machine:
    """Read what a machine is made of. Whatever the files say, or if there are none, there is a machine.

    Args:
        root: Where sysfs is mounted; None: the system has none.
        affinity: The CPUs that this process may run on, as the system says; nothing: it does not say.
        count: How many CPUs there are, if no file says which.
        memory: How many bytes of memory there are, and free, if the machine has one node and no file says it.
        cgroups: Where cgroups of version 2 are mounted; None: there are none.
        cgroup: The path of this process in them.
        loops: Gives a node its event loop; None: these nodes have none.

    Thread: any. Cancel: none.
    """
    bounds = sysfs.limits(cgroups, cgroup) if cgroups else sysfs.Limits()
    claims = _claims(root) if root else {}
    claimed = frozenset[int]().union(*claims.values())
    online = sysfs.numbers(sysfs.text(root / "devices/system/cpu/online")) if root else frozenset()
    cpus = (online or claimed) | frozenset(affinity) or frozenset(range(max(count, 1)))
    allowed = frozenset(affinity) or cpus
    allowed = allowed & (bounds.cpus or allowed) or allowed

    nodes, left = list[Node](), cpus
    for number in sorted(claims or {0}):
        mine = (claims.get(number, cpus) | (cpus - claimed)) & left
        left -= mine
        folder = root and _folder(root, number)
        about = sysfs.text(folder / "meminfo") if folder else ""
        total, free = sysfs.amount(about, "MemTotal"), sysfs.amount(about, "MemFree")
        if total is None and len(claims) <= 1:
            total, free = memory
        distances = _distances(root, folder, claims) if root and folder and claims else {}
        nodes.append(Node(number, mine, mine & allowed, total, free, distances, loops))
    packages = _groups(root, cpus, _package) if root else ()
    caches = _groups(root, cpus, _last_cache) if root else ()
    return Machine(tuple(nodes), packages, caches, bounds.quota, bounds.memory, root)


def _folder(root: Path, number: int) -> Path:
    return root / f"devices/system/node/node{number}"


def _online(root: Path) -> frozenset[int]:
    return sysfs.numbers(sysfs.text(root / "devices/system/node/online"))


def _claims(root: Path) -> dict[int, frozenset[int]]:
    """Return which CPUs each node says are its own; nothing, if the kernel knows of no nodes."""
    there = {number for place in sysfs.listed(root / "devices/system/node") for number in _numbered(place, "node")}
    return {number: _cpus(_folder(root, number)) for number in there & _online(root) or there}


def _cpus(folder: Path) -> frozenset[int]:
    listed = sysfs.numbers(sysfs.text(folder / "cpulist"))  # nothing, if it cannot be read: but there are links, too
    return listed or frozenset(number for place in sysfs.listed(folder) for number in _numbered(place, "cpu"))


def _numbered(place: Path, word: str) -> frozenset[int]:
    """Return the number in a name such as "node3"."""
    before, _, number = place.name.partition(word)
    return sysfs.numbers(number) if not before and number.isdecimal() else frozenset()


def _distances(root: Path, folder: Path, known: Collection[int]) -> dict[int, int]:
    """Return how far it is from a node to each that is known; nothing, if it does not say, or makes no sense."""
    words = sysfs.text(folder / "distance").split()
    numbers = sorted(_online(root) or known)
    if len(words) != len(numbers) or not all(re.fullmatch("[1-9][0-9]{0,3}", word) for word in words):
        return {}
    return {number: int(word) for number, word in zip(numbers, words, strict=True) if number in known}


def _groups(root: Path, cpus: frozenset[int], find: Callable[[Path], frozenset[int]]) -> tuple[frozenset[int], ...]:
    """Return who shares something with whom, each CPU once; nothing, if the first does not say it."""
    groups, left = list[frozenset[int]](), set(cpus)
    for cpu in sorted(cpus):
        if cpu in left:
            found = find(root / f"devices/system/cpu/cpu{cpu}")
            if not (groups or found):
                return ()
            groups.append((found | {cpu}) & left)
            left -= groups[-1]
    return tuple(groups)


def _package(folder: Path) -> frozenset[int]:
    shared = sysfs.text(folder / "topology/package_cpus_list")  # the name before Linux 5.3: core_siblings_list
    return sysfs.numbers(shared or sysfs.text(folder / "topology/core_siblings_list"))


def _last_cache(folder: Path) -> frozenset[int]:
    def level(cache: Path) -> int:
        return max(sysfs.numbers(sysfs.text(cache / "level")), default=0)

    last = max(sysfs.listed(folder / "cache"), key=level, default=None)
    return sysfs.numbers(sysfs.text(last / "shared_cpu_list")) if last else frozenset()
