"""Worker groups of nodes: who is served by whom, on which CPUs, and which node a call is for.

The machines are made of files (``sysfs``); two nodes of one CPU each, so that threads can really be bound to them where
there are two. On a machine with one CPU both nodes have that one.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import fork_beside_threads
from tests.sysfs import Made, eight_nodes, two_nodes
from tests.workbench import forever
from threadlets import Contract, groups, threadlet, workers
from threadlets.groups import finder, site_of_call, workers_at
from threadlets.probes import ABSENT
from threadlets.topology import Machine, Node, machine
from threadlets.workers import WorkerGroup, roam, serving_group, shared_group

LINUX = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind threads to CPUs")
SECONDS = 20


def numbers(path: Path) -> str:
    """Return the numbers of the device that a file is on."""
    device = path.stat().st_dev
    return f"{os.major(device)}:{os.minor(device)}"


@pytest.fixture(name="two")
def of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Make this machine one of two nodes, with the disk of this test's folder on the second, while the test runs."""
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    made = Made(tmp_path)
    made.cpus("0-4095", "0-1")
    made.node(0, str(mine[0]), "10 20")
    made.node(1, str(mine[-1]) if len(mine) > 1 else "4095", "20 10")
    made.disk("sdx", numbers(tmp_path), made.card("0000:00:01.0", 1))
    found = made.read(mine[0], mine[-1] if len(mine) > 1 else 4095)
    monkeypatch.setattr(groups, "machine", lambda: found)
    monkeypatch.setattr(groups, "_groups", {})
    monkeypatch.setattr(workers, "_everywhere", frozenset())
    yield found
    for group in groups._groups.values():
        group._check()
        group._idle_seconds = 0.0  # their threads end when they have had nothing to do


def cpus() -> set[int]:
    """Return the CPUs that this thread may use."""
    return os.sched_getaffinity(0)


# -------------------------------------------------------------------------------------------- groups and threads


def test_one_node_is_the_shared_group(tmp_path: Path) -> None:
    """Where there is one node to work on there is one group; what is no node is refused."""
    here = two_nodes(tmp_path).read(5)
    assert [node.usable for node in here.nodes] == [False, True]
    for node in here.nodes:
        assert workers_at(node, of=here) is shared_group()
    if len(machine().nodes) == 1:
        assert workers_at(machine().nodes[0]) is shared_group()
    for wrong in (None, 0, "node0", shared_group()):
        with pytest.raises(TypeError, match="expected a node of"):
            workers_at(wrong, of=here)  # type: ignore[arg-type]


def test_each_node_has_its_group(tmp_path: Path) -> None:
    """A node has one group, the same one each time; a node without CPUs for us is served by the nearest that has."""
    made = eight_nodes(tmp_path)
    here = made.read(0, 1, 8, 9, 10)
    first, fifth, sixth = (workers_at(here.nodes[number], of=here) for number in (0, 4, 5))
    assert len({first, fifth, sixth, shared_group()}) == 4
    assert (first.cpus, fifth.cpus, sixth.cpus) == ({0, 1}, {8, 9}, {10})
    assert first.name == "node-0" and shared_group().cpus is None
    again = made.read(0, 1, 8, 9, 10)
    assert workers_at(again.nodes[0], of=again) is first
    assert workers_at(here.nodes[3], of=here) is first  # on the same socket
    assert workers_at(here.nodes[7], of=here) is fifth


@LINUX
def test_threads_are_bound(two: Machine) -> None:
    """The threads of a node's group may use its CPUs, and those of other groups any, whoever has started them."""
    everywhere = cpus()
    free = WorkerGroup("free", idle_seconds=0.0)
    assert free.call(cpus) == everywhere and not workers._everywhere
    for node in two.nodes:
        group = workers_at(node)
        assert group.call(serving_group) is group and serving_group() is None
        if node.cpus <= everywhere:
            assert group.call(cpus) == node.cpus
        late = WorkerGroup("late", idle_seconds=0.0)
        assert group.call(lambda late=late: late.call(cpus)) == everywhere
    assert workers._everywhere == everywhere == cpus()
    roam()
    assert workers._everywhere == everywhere


@LINUX
def test_cpus_that_are_not_there(two: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """What the system refuses is logged, for those who debug, and the threads run anywhere."""
    everywhere = cpus()
    bound = workers_at(two.nodes[0])
    group = WorkerGroup("far", cpus=frozenset({5000, 5001}), idle_seconds=0.0)
    with caplog.at_level(logging.DEBUG, "threadlets"):
        assert bound.call(lambda: group.call(cpus)) == everywhere
    assert len(caplog.records) == 1
    assert "cannot be bound to the CPUs [5000, 5001]" in caplog.text


def test_systems_that_bind_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no such call, nothing is bound, and everything runs."""
    monkeypatch.setattr(workers, "_everywhere", frozenset())
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    group = WorkerGroup("bound", cpus=frozenset({0}), idle_seconds=0.0)
    assert group.call(serving_group) is group and not workers._everywhere


@LINUX
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
def test_a_forked_child(two: Machine) -> None:
    """A child makes threads of its own, bound as those of its parent are."""
    group, free = workers_at(two.nodes[0]), WorkerGroup("free", idle_seconds=0.0)
    everywhere, mine = cpus(), group.call(cpus)
    child = fork_beside_threads()
    if child == 0:
        status = 1
        try:
            signal.alarm(SECONDS)  # should the child hang, that ends it
            if workers_at(two.nodes[0]) is group and group.call(cpus) == mine == group.cpus:
                status = 0 if group.call(lambda: free.call(cpus)) == everywhere else 2
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == 0


# -------------------------------------------------------------------------------------- what a call is about


def test_the_argument_that_is_named() -> None:
    """It is found by position, by name, or by its default."""

    def function(a: Any, /, b: Any, c: Any = "c", *rest: Any, d: Any = "d", **more: Any) -> None: ...

    for name, found in {"a": 1, "b": 2, "c": 3, "d": "d"}.items():
        assert finder(function, name)((1, 2, 3, 4), None) == found
    assert finder(function, "c")((1, 2), None) == finder(function, "c")((1,), {"b": 2}) == "c"
    assert finder(function, "b")((1,), {"b": 2}) == 2
    assert finder(function, "d")((1, 2), {"d": 5, "a": 6}) == 5
    assert finder(function, "b")((1,), None) is None  # the call will fail, and not for this
    for name in ("e", "rest", "more", ""):
        with pytest.raises(ValueError, match=r"has 'a', 'b', 'c', 'd'"):
            finder(function, name)
    with pytest.raises(ValueError, match="has no parameters"):
        finder(lambda: None, "path")
    with pytest.raises(ValueError, match="is not known"):
        finder(max, "path")


def test_the_argument_that_is_found(tmp_path: Path) -> None:
    """It is the first one that is a path object, an open file, a socket, or a transport."""
    find = finder(print, None)
    here = Path(".")
    with open(os.devnull) as file, socket.socket() as connection:
        assert find((1, "path", here, file), None) is here
        assert find((b"path", file, here), {"to": connection}) is file
        assert find((1,), {"a": "b", "to": connection}) is connection
        assert find((), None) is find((1, "a", None), {"b": 2}) is None


def test_where_a_call_belongs(two: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of any kind, also of what is not there yet in a folder that is; files; devices; and what is unknown."""
    second = two.nodes[1]
    file = tmp_path / "file"
    file.touch()

    def site(thing: Any) -> Node | None:
        found = site_of_call(lambda args, kwargs: args[0], (thing,), None)
        assert found is None or found.workers is workers_at(found.node)
        return None if found is None else found.node

    for path in (file, str(file), bytes(file), tmp_path, f"{file}/../file", os.path.relpath(file)):
        assert site(path) == second
    with file.open() as opened:
        assert site(opened) == site(opened.fileno()) == second
    monkeypatch.chdir("/dev/shm" if sys.platform == "linux" else "/")  # which is on no disk
    assert site("sdx") == site("sdx1") == second
    for unknown in ("/nowhere/at/all", "eth17", None, 1.5, object(), "a\0b", b"\xff", Path("nowhere"), "", 10**9):
        assert site(unknown) is None
    one, other = socket.socketpair()
    with one, other:
        assert site(one) is None  # it is no card that this comes from


def test_names_that_the_kernel_has_not_at_hand(two: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is asked then, and the one around it; without the call for that, the file itself, as ever."""
    asked: list[Any] = []
    really = groups.glance

    def glance(path: Any) -> Any:
        asked.append(os.fspath(path))
        return groups.MISS if len(asked) < 3 else really(path)

    monkeypatch.setattr(groups, "glance", glance)
    found = site_of_call(lambda *_: tmp_path / "a" / "b", (), None)
    assert found is not None and found.node.number == 1
    assert asked == [f"{tmp_path}/a/b", f"{tmp_path}/a", str(tmp_path)]
    monkeypatch.setattr(groups, "glance", lambda path: groups.MISS)
    assert site_of_call(lambda *_: "a", (), None) is None
    assert site_of_call(lambda *_: b"/a/b", (), None) is None
    monkeypatch.setattr(groups, "has_openat2", lambda: False)
    found = site_of_call(lambda *_: tmp_path, (), None)
    assert found is not None and found.node.number == 1
    answers = iter([groups.MISS, ABSENT])
    monkeypatch.setattr(groups, "has_openat2", lambda: True)
    monkeypatch.setattr(groups, "glance", lambda path: next(answers))
    assert site_of_call(lambda *_: "a/b", (), None) is None


def test_one_node_looks_at_nothing(tmp_path: Path) -> None:
    """With one node to work on, not even the argument is looked for."""
    here = two_nodes(tmp_path).read(0)
    assert site_of_call(lambda *_: pytest.fail("looked at"), (), None, of=here) is None


def test_contracts() -> None:
    """near= implies placement="near"; both are refused for what is bound to a thread, or to the loop."""
    assert Contract(near="path").placement == Contract(placement="near").placement == "near"
    assert Contract().placement == "any"
    for affinity in ("one", "one:db", "home"):
        with pytest.raises(ValueError, match="choose one"):
            Contract(near="path", affinity=affinity)
    with pytest.raises(ValueError, match=r"placement='far': expected one of 'any', 'near'"):
        Contract(placement="far")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="near=1: expected the name of an argument"):
        Contract(near=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="near='file'"):
        threadlet(contract=Contract(near="file"))(lambda path: None)
    for contract in (Contract(near="path"), Contract(placement="near")):
        with pytest.raises(ValueError, match="is a coroutine function"):
            threadlet(contract=contract)(forever)
