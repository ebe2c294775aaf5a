"""Hash the files of a folder, each on the node of the machine that its disk hangs on.

    python examples/near_data.py [FOLDER] [--sysfs FOLDER]

Draws the machine, then hashes every file in a worker thread: on a machine with several NUMA nodes that is one which is
bound to the CPUs of the node that is near to the file's disk. On a machine with one node all workers are near, and the
program says so. Without a FOLDER: that of this library.

With ``--sysfs``, a copy of another machine's ``/sys`` (or a mount of it), nothing is hashed: it says on which node of
that machine each file would be, if it were on the disk of the same number there.

What to look at:

- ``Contract(near="path")``: the function says which of its arguments it is about; where that leads is not its business.
- ``current_threadlet().node``: where a call runs. Ask there: it is forgotten when the call has ended.
- ``Pool(Concurrency(8))``: how many run at a time is said in one place, for all nodes together.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tables import aligned

import threadlets
from threadlets import Concurrency, Contract, Host, Pool, current_threadlet, run, threadlet, topology
from threadlets.topology import Machine, Node

TOGETHER = 8  # files at a time


@dataclass(frozen=True)
class Hashed:
    """What came of a file."""

    path: Path
    size: int
    digest: str
    node: Node | Host | None  # where it was hashed


@threadlet(contract=Contract(blocks="always", near="path"))
def hashed(path: Path) -> Hashed:
    """Read and hash a file.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        here = current_threadlet()
        return Hashed(path, file.tell(), digest, None if here is None else here.node)


async def hash_all(paths: list[Path]) -> list[Hashed | BaseException]:
    """Hash files, some at a time; a failure is in the place of its result."""
    async with Pool(Concurrency(TOGETHER)) as pool:
        return [found async for found in pool.map(hashed, paths, return_exceptions=True)]


def files_in(folder: Path) -> list[Path]:
    """Return the ordinary files below a folder, in order."""
    return sorted(Path(root, name) for root, _, names in os.walk(folder) for name in names)


def name_of(node: Node | Host | None) -> str:
    """Return how a node is called in what is printed."""
    return f"node {node.number}" if isinstance(node, Node) else "any node"


def report(found: list[Hashed | BaseException], machine: Machine) -> str:
    """Return what is to be told of all files, by node."""
    by_node: dict[str, list[Hashed]] = defaultdict(list)
    for each in found:
        if isinstance(each, Hashed):
            by_node[name_of(each.node)].append(each)
    rows = [["", "files", "bytes", "first of them", "sha256"]]
    for name, those in sorted(by_node.items()):
        first = those[0]
        size = sum(each.size for each in those)
        rows.append([name, f"{len(those):,}", f"{size:,}", first.path.name, first.digest[:12]])
    lines = [aligned(rows)]
    lines += [f"not hashed: {each}" for each in found if not isinstance(each, Hashed)]
    usable = [node for node in machine.nodes if node.usable]
    if len(usable) == 1:
        lines.append(f"There is one node to work on, {name_of(usable[0])}: every worker is as near as another.")
    return "\n".join(lines)


def forecast(paths: list[Path], machine: Machine) -> str:
    """Return on which node of a machine each file would be."""
    rows = []
    for path in paths:
        try:
            rows.append([name_of(topology.node_near(path, of=machine)), str(path)])
        except OSError as error:
            rows.append(["", f"not found: {error}"])
    return aligned(sorted(rows))


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description="Hash the files of a folder, each near to its disk.")
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(threadlets.__file__).parent, help="default: this library"
    )
    parser.add_argument("--sysfs", type=Path, metavar="FOLDER", help="tell it for a machine whose /sys is there")
    options = parser.parse_args()
    paths = files_in(options.folder)
    if not paths:
        print(f"there are no files in {options.folder}", file=sys.stderr)
        return 1
    if options.sysfs is not None and not options.sysfs.is_dir():
        print(f"{options.sysfs} is no folder: name a copy of /sys", file=sys.stderr)
        return 1
    machine = topology.machine() if options.sysfs is None else topology.read_machine(options.sysfs)
    print(machine.draw(shutil.get_terminal_size().columns, sys.stdout.encoding), end="\n\n")
    if options.sysfs is not None:
        print(forecast(paths, machine))
    else:
        print(report(run(hash_all(paths)), machine))
    return 0


if __name__ == "__main__":
    sys.exit(main())
