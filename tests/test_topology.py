"""This machine as it is, and what is near to files, sockets, disks and interfaces, on one that is made."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sysfs import Made, two_nodes
from threadlets import files, topology
from threadlets.topology import Machine, Node, machine, node_near

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="one node, elsewhere")


# ------------------------------------------------------------------------------------------------------ this machine


def test_this_machine() -> None:
    """It has what every machine has, is read once, and can be drawn."""
    here = machine()
    here._check()
    assert machine() is here
    assert sum(node.memory or 0 for node in here.nodes) > 1 << 20
    for node in here.nodes:
        assert f"node {node.number} " in here.draw()
    assert {*here.disks().values(), *here.interfaces().values()} <= {*here.nodes, None}


@LINUX
def test_the_cpus_are_those_of_the_process() -> None:
    """A thread that is bound to a CPU does not see a smaller machine; one that reads it again sees a new one."""
    everywhere = os.sched_getaffinity(os.getpid())
    old = machine()
    seen: list[Machine] = []

    def look() -> None:
        os.sched_setaffinity(0, {min(everywhere)})
        seen.append(machine(again=True))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen[0] is machine() is not old
    assert seen[0].allowed == everywhere <= seen[0].cpus


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_another_system(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without sysfs and affinity, and with no memory that could be asked for: one node with all CPUs."""
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    if platform == "win32":
        monkeypatch.delattr(os, "sysconf", raising=False)
    try:
        there = machine(again=True)
        there._check()
        assert [sorted(node.cpus) for node in there.nodes] == [list(range(os.cpu_count() or 1))]
        assert there.sysfs is None and (there.nodes[0].memory is None) == (platform == "win32")
        assert node_near(__file__) == node_near(os.getcwd()) == there.nodes[0]
    finally:
        monkeypatch.undo()
        machine(again=True)


def test_nothing_is_read_at_import() -> None:
    """The import neither opens a file nor lists a folder of the system."""
    program = """
import sys
seen = []
sys.addaudithook(lambda name, args: seen.append(args[0]) if name in ("open", "os.listdir", "os.scandir") else None)
import threadlets.topology
print([each for each in seen if str(each).startswith(("/sys", "/proc"))])
threadlets.topology.machine()
print(len(seen) > 0)
"""
    root = Path(__file__).resolve().parent.parent
    output = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert output.stdout.split("\n")[:2] == ["[]", "True"]


# ---------------------------------------------------------------------------------------------------------- near to

Near = Callable[[Any], Node | None]


def numbers(device: int) -> str:
    """Write the numbers of a device as sysfs does."""
    return f"{os.major(device)}:{os.minor(device)}"


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Make a machine of two nodes; the disk that this folder is on is on the second, and so is the null device."""
    made = two_nodes(tmp_path)
    folder = made.device("block", "vdz", made.card("card", 1))
    made.link(f"dev/block/{numbers(tmp_path.stat().st_dev)}", folder)
    made.link(f"dev/char/{numbers(os.stat('/dev/null').st_rdev)}", folder)
    return made


@pytest.fixture
def near(made: Made) -> Near:
    """Look for what is near on the made machine; return the number of a node."""
    of = made.read()
    return lambda thing: node_near(thing, of=of)


@LINUX
def test_files(tmp_path: Path, near: Near, monkeypatch: pytest.MonkeyPatch) -> None:
    """By path, of any kind, and open, of any kind; a device is itself, the process's own folder is on no disk."""
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"x")
    with open("file") as text, open("file", "rb", buffering=0) as raw:
        for thing in ("file", b"file", "./file", ".", tmp_path, Path("file"), text, raw, raw.fileno(), "/dev/null"):
            assert (node := near(thing)) is not None and node.number == 1, thing
    assert near("/proc/self") is None


@LINUX
def test_names(tmp_path: Path, made: Made, near: Near, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word is an interface, or a disk, before it is a file; as a path it is a file."""
    monkeypatch.chdir(tmp_path)
    for name in ("eth0", "sda", "sda1"):
        assert (node := near(name)) is not None and node.number == 1
        with pytest.raises(FileNotFoundError):
            near(Path(name))
    made.device("net", "a!b", made.card("other", 0))
    with pytest.raises(FileNotFoundError):
        near("a/b")
    with pytest.raises(FileNotFoundError, match="eth7"):
        near("eth7")


@LINUX
def test_a_device_of_which_nothing_is_known_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interface on no known node is None, although there is a file of that name on a disk."""
    made = two_nodes(tmp_path)
    made.interface("eth1", made.card("card", -1))
    monkeypatch.chdir(tmp_path)
    made.link(f"dev/block/{numbers(tmp_path.stat().st_dev)}", "class/block/sda")
    Path("eth1").touch()
    of = made.read()
    assert node_near("eth1", of=of) is None
    assert node_near("./eth1", of=of) == of.nodes[1]


@LINUX
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_sockets(tmp_path: Path, family: socket.AddressFamily) -> None:
    """A connection is where its packets came in; one within this machine, and one that listens, came in nowhere."""
    made = two_nodes(tmp_path)
    made.cpus("0-99", "0-1")
    made.node(0, "")  # whichever CPU it was, it is of the second node
    made.node(1, "0-99")
    of = made.read()
    address = ("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "s")
    with socket.socket(family) as listener, socket.socket(family) as client:
        listener.bind(address)
        listener.listen()
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            client.send(b"x")
            server.recv(1)
            expected = of.nodes[1] if family == socket.AF_INET else None
            assert [node_near(each, of=of) for each in (server, client, listener)] == [expected, expected, None]
            with pytest.raises(TypeError, match="hand over the socket itself"):
                node_near(server.fileno(), of=of)


@LINUX
def test_a_socket_that_listens_on_an_interface(tmp_path: Path) -> None:
    """Before the first packet, the interface that it is bound to counts."""
    made = two_nodes(tmp_path)
    made.interface("lo", made.card("card", 1))
    of = made.read()
    with socket.socket() as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        except PermissionError:
            pytest.skip("needs a right that we do not have")
        assert node_near(listener, of=of) == of.nodes[1]


@LINUX
def test_streams(run: Any, made: Made) -> None:
    """A stream or transport of any loop, a pipe, and a file of ours, are what is below them."""
    made.cpus("0-99", "0-1")
    made.node(0, "")
    made.node(1, "0-99")
    of = made.read()

    async def main() -> None:
        async with await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await reader.read()
            for thing in (writer, writer.transport, writer.get_extra_info("socket")):
                assert node_near(thing, of=of) == of.nodes[1]
            assert node_near(server.sockets[0], of=of) is None
            writer.close()
            await writer.wait_closed()
        async with files.open(made.root / "devices/system/cpu/online") as file:
            assert node_near(file, of=of) == of.nodes[1]
        end, other = os.pipe()
        pipe = os.fdopen(end, "rb", 0)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(asyncio.Protocol, pipe)
        assert node_near(transport, of=of) is None
        transport.close()
        os.close(other)
        await asyncio.sleep(0)

    run(main)


@pytest.mark.parametrize("thing", [3.5, None, [], object()])
def test_what_is_nowhere(thing: Any) -> None:
    """The error says what was handed over and what is expected."""
    with pytest.raises(TypeError, match="expected a path, an open file, a socket"):
        node_near(thing)
    with pytest.raises(io.UnsupportedOperation):
        node_near(io.StringIO())


def test_the_face() -> None:
    """What a user of the module finds."""
    assert set(topology.__all__) == {"Machine", "Node", "machine", "node_near", "read_machine"}
