"""The types of machines and of what is near to what. Checked by mypy and pyright, never run."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import assert_type

from threadlets import files, topology


def machines() -> None:
    machine = topology.machine()
    assert_type(machine, topology.Machine)
    assert_type(machine.nodes, tuple[topology.Node, ...])
    assert_type(machine.nodes[0].cpus, frozenset[int])
    assert_type(machine.nodes[0].memory, int | None)
    assert_type(machine.nearest(machine.nodes[0]), tuple[topology.Node, ...])
    assert_type(machine.node_of_cpu(0), topology.Node | None)
    assert_type(machine.disks(), dict[str, topology.Node | None])
    assert_type(machine.draw(width=100, encoding=None), str)
    assert_type(topology.machine(again=True).parallelism, int)
    assert_type(topology.read_machine(Path("/sys"), affinity={0, 1}), topology.Machine)
    machine.nodes[0].number = 1  # type: ignore[misc]  # pyright: ignore
    topology.machine(True)  # type: ignore[call-arg]  # pyright: ignore


async def near(path: Path, connection: socket.socket, stream: asyncio.StreamWriter) -> None:
    assert_type(topology.node_near(path), topology.Node | None)
    for thing in ("eth0", b"file", path, 0, connection, stream, stream.transport):
        topology.node_near(thing)
    with open(path) as file:
        topology.node_near(file, of=topology.machine())
    async with files.open(path) as ours:
        topology.node_near(ours)
    topology.node_near(3.5)  # type: ignore[arg-type]  # pyright: ignore
