"""What it costs to say where a call belongs: with one node nothing; with several a look at the file, and a lookup.

Each call goes to a worker, a thousand at a time. The claim is that on a machine with one node to work on all this is
one group of threads, and there is nothing to pay but to see that. The same is then done as if the machine had two
nodes, with half of its CPUs each, and a disk on the second: what is paid there is the look, and threads that are bound
to few CPUs.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from threadlets import Contract, Pool, groups, threadlet
from threadlets.topology import Machine, Node, machine

from .harness import Comparison, Contender, Effort, compare, versus

__all__ = ["measure"]

MANY = 1000
FREE = 1.1  # ours may take so many times as long: to see that there is no choice takes 0.3 us of 10


def _nothing(path: Any) -> int:
    """Do nothing."""
    return 1


plain = threadlet(contract=Contract(blocks="always"))(_nothing)
near = threadlet(contract=Contract(blocks="always", near="path"))(_nothing)
placed = threadlet(contract=Contract(blocks="always", placement="near"))(_nothing)


async def measure(effort: Effort) -> list[Comparison]:
    """Measure this machine as if it had one node, then as if it had two."""
    with tempfile.TemporaryDirectory() as folder:
        here = machine()
        with _machine(Machine((here.nodes[0],))):
            one = await _compare_all("one node", here.nodes[0], Path(folder), effort, FREE)
        with _machine(_two_nodes(Path(folder))) as two:
            several = await _compare_all("two nodes", two.nodes[1], Path(folder), effort, None)
    return [*one, *several]


async def _compare_all(title: str, node: Node, path: Path, effort: Effort, budget: float | None) -> list[Comparison]:
    async with Pool(name="anywhere") as anywhere, Pool(name="there", node=node) as there:
        usual = Contender("a call on a worker", _gathering(partial(anywhere.start, plain, path)), budget, step=MANY)
        ways: dict[str, Callable[[], Any]] = {
            'Contract(near="path")': partial(anywhere.start, near, path),
            'Contract(placement="near")': partial(anywhere.start, placed, path),
            "Pool(node=node)": partial(there.start, plain, path),
        }
        return [
            await compare(
                f"{name}, with {title}",
                versus(Contender(name, _gathering(start), step=MANY), usual),
                effort,
                note=f"Figures are for one of {MANY:,}.",
            )
            for name, start in ways.items()
        ]


def _gathering(start: Callable[[], Any]) -> Callable[[int], Any]:
    async def run(count: int) -> int:
        right = 0
        for _ in range(count // MANY):
            right += sum(await asyncio.gather(*[start() for _ in range(MANY)]))
        return right

    return run


@contextmanager
def _machine(other: Machine) -> Iterator[Machine]:
    """Take this machine for another one."""
    really, groups.machine = groups.machine, lambda: other
    try:
        yield other
    finally:
        groups.machine = really


def _two_nodes(folder: Path) -> Machine:
    """Return a machine with half of our CPUs on each node, and the disk that a folder is on at the second."""
    device = folder.stat().st_dev
    disk = folder / "sys/devices/card/disk"
    disk.mkdir(parents=True)
    (disk.parent / "numa_node").write_text("1\n")
    link = folder / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
    link.parent.mkdir(parents=True)
    link.symlink_to(disk)
    cpus = sorted(machine().allowed)
    halves = frozenset(cpus[: (len(cpus) + 1) // 2]), frozenset(cpus[len(cpus) // 2 :])
    nodes = (Node(number, half, half) for number, half in enumerate(halves))
    return Machine(tuple(nodes), sysfs=folder / "sys")
