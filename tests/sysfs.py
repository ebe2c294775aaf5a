"""Machines that are made of files: the parts of sysfs, and of the tree of cgroups, that ``threadlets.nodes`` reads."""

from __future__ import annotations

import os
from pathlib import Path

from threadlets.nodes import Machine, read_machine

__all__ = ["Made", "eight_nodes", "two_nodes"]

EIGHT = [  # two sockets of four nodes each, as an EPYC has them
    [10 if here == there else 12 if here // 4 == there // 4 else 32 for there in range(8)] for here in range(8)
]


class Made:
    """A machine in a folder. Links are as sysfs has them: relative."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "sys"
        self.cgroups = folder / "cgroup"
        self.root.mkdir()

    def read(self, *affinity: int, cgroup: str = "/", count: int = 1) -> Machine:
        """Read it, and check what was read."""
        machine = read_machine(self.root, affinity=affinity, cgroups=self.cgroups, cgroup=cgroup, count=count)
        machine._check()
        return machine

    def write(self, path: str, text: object) -> None:
        """Write a file below the root, as the kernel does, with the end of a line."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def link(self, path: str, to: str) -> None:
        """Make a link below the root, to what is below the root."""
        link = self.root / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(self.root / to, link.parent))

    def limit(self, path: str, text: str) -> None:
        """Write a file of a cgroup."""
        file = self.cgroups / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    # ------------------------------------------------------------------------------------------------------- parts

    def cpus(self, online: str, nodes: str) -> None:
        """Say which CPUs and nodes are online."""
        self.write("devices/system/cpu/online", online)
        self.write("devices/system/node/online", nodes)

    def node(self, number: int, cpus: str, distance: str = "", gigabytes: int = 16) -> None:
        """Make a node; a quarter of its memory is free."""
        folder = f"devices/system/node/node{number}"
        self.write(f"{folder}/cpulist", cpus)
        self.write(f"{folder}/distance", distance)
        total = gigabytes << 20  # kB
        lines = [("MemTotal", total), ("MemFree", total // 4), ("MemUsed", total - total // 4), ("HugePages_Total", 0)]
        text = "\n".join(f"Node {number} {name}: {amount:14} kB" for name, amount in lines)
        self.write(f"{folder}/meminfo", text)

    def share(self, cpus: str, each: range, *, package: bool) -> None:
        """Let CPUs share a socket, or a last-level cache."""
        for cpu in each:
            folder = f"devices/system/cpu/cpu{cpu}"
            if package:
                self.write(f"{folder}/topology/package_cpus_list", cpus)
            else:
                for index, (level, shared) in enumerate([(1, cpu), (1, cpu), (2, cpu), (3, cpus)]):
                    self.write(f"{folder}/cache/index{index}/level", level)
                    self.write(f"{folder}/cache/index{index}/shared_cpu_list", shared)

    def card(self, address: str, node: int) -> str:
        """Put a PCI card in; return its folder."""
        folder = f"devices/pci0000:00/{address}"
        self.write(f"{folder}/numa_node", node)
        return folder

    def device(self, kind: str, name: str, folder: str, numbers: str = "") -> str:
        """Make a device of a class below a folder: a card, or a whole disk for a part of it. Return its own folder."""
        folder = f"{folder}/{name}"
        self.write(f"{folder}/uevent", f"DEVNAME={name}")
        self.link(f"class/{kind}/{name}", folder)
        if numbers:
            self.link(f"dev/{kind}/{numbers}", folder)
        return folder

    def disk(self, name: str, numbers: str, card: str) -> str:
        """Make a disk with one partition, ``1`` at the end of its name, of the next number."""
        folder = self.device("block", name, f"{card}/ata1/host0/target0:0:0/0:0:0:0/block", numbers)
        major, _, minor = numbers.partition(":")
        self.write(f"{self.device('block', f'{name}1', folder, f'{major}:{int(minor) + 1}')}/partition", 1)
        return folder

    def stack(self, name: str, numbers: str, *parts: str) -> str:
        """Make a disk of disks, such as LVM does; of their folders."""
        folder = self.device("block", name, "devices/virtual/block", numbers)
        for part in parts:
            self.link(f"{folder}/slaves/{Path(part).name}", part)
        return folder

    def interface(self, name: str, card: str) -> str:
        """Make a network interface of a card."""
        folder = self.device("net", name, f"{card}/net")
        self.link(f"{folder}/device", card)
        return folder

    def bond(self, name: str, *parts: str) -> str:
        """Make an interface of interfaces; of their folders."""
        folder = self.device("net", name, "devices/virtual/net")
        for part in parts:
            self.link(f"{folder}/lower_{Path(part).name}", part)
        return folder


def two_nodes(folder: Path) -> Made:
    """Make a machine of two nodes, of four CPUs each, with a disk and an interface on the second."""
    made = Made(folder)
    made.cpus("0-7", "0-1")
    made.node(0, "0-3", "10 21")
    made.node(1, "4-7", "21 10", gigabytes=32)
    for cpus, each in (("0-3", range(4)), ("4-7", range(4, 8))):
        made.share(cpus, each, package=True)
    for cpus, each in (("0-1", range(2)), ("2-3", range(2, 4)), ("4-7", range(4, 8))):
        made.share(cpus, each, package=False)
    made.disk("sda", "8:0", card := made.card("0000:00:02.0", 1))
    made.interface("eth0", card)
    return made


def eight_nodes(folder: Path) -> Made:
    """Make a machine of eight nodes, of two CPUs each, on two sockets."""
    made = Made(folder)
    made.cpus("0-15", "0-7")
    for number, row in enumerate(EIGHT):
        made.node(number, f"{number * 2}-{number * 2 + 1}", " ".join(map(str, row)))
    return made
