"""Machines that are made of files: what is read of them, and that something sensible is read of any."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sysfs import EIGHT, Made, eight_nodes, two_nodes
from threadlets.nodes import Machine, Node, read_machine

GIB = 1 << 30


def cpus(machine: Machine) -> dict[int, list[int]]:
    """Return the CPUs of each node."""
    return {node.number: sorted(node.cpus) for node in machine.nodes}


def order(machine: Machine, number: int) -> list[int]:
    """Return the numbers of the nodes to work on, as they are near to one."""
    node = machine.node(number)
    assert node is not None
    return [each.number for each in machine.nearest(node)]


def test_two_nodes(tmp_path: Path) -> None:
    """All there is to read: CPUs, memory, distances, sockets, caches."""
    machine = two_nodes(tmp_path).read(*range(8))
    assert cpus(machine) == {0: [0, 1, 2, 3], 1: [4, 5, 6, 7]}
    assert [(node.memory, node.free) for node in machine.nodes] == [(16 * GIB, 4 * GIB), (32 * GIB, 8 * GIB)]
    assert [node.distances for node in machine.nodes] == [{0: 10, 1: 21}, {0: 21, 1: 10}]
    assert [sorted(each) for each in machine.packages] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [sorted(each) for each in machine.caches] == [[0, 1], [2, 3], [4, 5, 6, 7]]
    assert machine.cpus == machine.allowed == frozenset(range(8))
    assert machine.parallelism == 8 and machine.quota is None and machine.memory_limit is None
    assert repr(machine.nodes[1]) == "<threadlets Node 1 with CPUs 4-7>"


def test_eight_nodes(tmp_path: Path) -> None:
    """The nearest come first: itself, those of its socket, the others; ties by number."""
    machine = eight_nodes(tmp_path).read()
    assert [[node.distance(other) for other in machine.nodes] for node in machine.nodes] == EIGHT
    assert order(machine, 0) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert order(machine, 5) == [5, 4, 6, 7, 0, 1, 2, 3]


def test_offline_cpus(tmp_path: Path) -> None:
    """A CPU that is offline is on no node, also if the node still has a link to it."""
    made = two_nodes(tmp_path)
    made.cpus("0-4,7", "0-1")
    made.node(0, "", "10 21")  # its list cannot be read: the links are
    for cpu in range(4):
        made.write(f"devices/system/node/node0/cpu{cpu}/topology/core_id", cpu)
    made.node(1, "4-7", "21 10")
    machine = made.read()
    assert cpus(machine) == {0: [0, 1, 2, 3], 1: [4, 7]}
    assert machine.node_of_cpu(7) == machine.node(1)
    assert machine.node_of_cpu(5) is None


def test_memory_alone(tmp_path: Path) -> None:
    """A node without CPUs is one, with a hole in the numbers; near to it are those to work on, the nearest first."""
    made = Made(tmp_path)
    made.cpus("0-3", "0-1,4")
    made.node(0, "0-1", "10 21 40")
    made.node(1, "2-3", "21 10 14")
    made.node(4, "", "40 14 10", gigabytes=256)
    made.node(3, "", "")  # offline: a folder that is being taken away
    machine = made.read()
    assert cpus(machine) == {0: [0, 1], 1: [2, 3], 4: []}
    far = machine.nodes[2]
    assert not far.usable and far.memory == 256 * GIB and far.distances == {0: 40, 1: 14, 4: 10}
    assert order(machine, 4) == [1, 0]
    assert repr(far) == "<threadlets Node 4 with CPUs of none>"


@pytest.mark.parametrize("distance", ["", "10", "10 21 31", "10 far", "10 0", "10 -1", "10 99999"])
def test_distances_that_are_not_told(tmp_path: Path, distance: str) -> None:
    """Without distances, or with nonsense, oneself is near and others are farther."""
    made = two_nodes(tmp_path)
    made.node(0, "0-3", distance)
    machine = made.read()
    here, there = machine.nodes
    assert here.distances == {} and (here.distance(here), here.distance(there)) == (10, 20)
    assert order(machine, 0) == [0, 1] and order(machine, 1) == [1, 0]


def test_nodes_that_are_made_up(tmp_path: Path) -> None:
    """With ``numa=fake``, all are equally near; oneself is the nearest all the same."""
    made = two_nodes(tmp_path)
    for number in range(2):
        made.node(number, f"{number * 4}-{number * 4 + 3}", "10 10")
    machine = made.read()
    assert order(machine, 0) == [0, 1] and order(machine, 1) == [1, 0]


def test_memory_that_is_not_told(tmp_path: Path) -> None:
    """What the system says of all memory is that of the only node, and of none if there are several."""
    made = two_nodes(tmp_path)
    for number in range(2):
        made.write(f"devices/system/node/node{number}/meminfo", "")
    assert [node.memory for node in read_machine(made.root, memory=(GIB, 0)).nodes] == [None, None]
    shutil.rmtree(made.root / "devices/system/node/node1")
    assert [(node.memory, node.free) for node in read_machine(made.root, memory=(GIB, 0)).nodes] == [(GIB, 0)]


def test_a_masked_node(tmp_path: Path) -> None:
    """A node whose folder is not to be seen is none; distances go by the list of those online, all the same."""
    made = two_nodes(tmp_path)
    shutil.rmtree(made.root / "devices/system/node/node0")
    machine = made.read()
    assert cpus(machine) == {1: list(range(8))}
    assert machine.nodes[0].distances == {1: 10}


def test_a_kernel_without_nodes(tmp_path: Path) -> None:
    """One node, with what is told otherwise."""
    made = Made(tmp_path)
    assert cpus(made.read()) == {0: [0]}
    assert cpus(made.read(count=3)) == {0: [0, 1, 2]}
    assert cpus(made.read(2, 5)) == {0: [2, 5]}
    made.write("devices/system/cpu/online", "0-3")
    machine = made.read(2, 3, count=8)
    assert cpus(machine) == {0: [0, 1, 2, 3]} and machine.allowed == {2, 3}
    assert machine.nodes[0].memory is None and machine.packages == machine.caches == ()


def test_no_files_at_all() -> None:
    """Systems that have none: one node, of as many CPUs, and the memory there is."""
    machine = read_machine(None, count=4, memory=(8 * GIB, GIB))
    machine._check()
    assert cpus(machine) == {0: [0, 1, 2, 3]}
    assert (machine.nodes[0].memory, machine.nodes[0].free) == (8 * GIB, GIB)
    assert machine.node_of_block("sda") == machine.node_of_interface("eth0") == machine.nodes[0]
    assert machine.disks() == machine.interfaces() == {}
    assert cpus(read_machine(None, count=0)) == {0: [0]}


# ------------------------------------------------------------------------------------------------- what is for us


def test_affinity(tmp_path: Path) -> None:
    """A node of which we may use nothing is kept, and nobody works there."""
    machine = two_nodes(tmp_path).read(4, 5)
    assert [(node.usable, sorted(node.allowed)) for node in machine.nodes] == [(False, []), (True, [4, 5])]
    assert order(machine, 0) == order(machine, 1) == [1]
    assert machine.parallelism == 2


def test_what_the_system_says_counts(tmp_path: Path) -> None:
    """A CPU that we may run on is there, whatever the files say, and a cgroup that forbids all of them is not ours."""
    made = two_nodes(tmp_path)
    made.limit("cpuset.cpus.effective", "0-1")
    machine = made.read(6, 9)
    assert machine.allowed == {6, 9}
    assert cpus(machine) == {0: [0, 1, 2, 3, 9], 1: [4, 5, 6, 7]}


def test_limits(tmp_path: Path) -> None:
    """The CPUs, the time and the memory of a cgroup."""
    made = two_nodes(tmp_path)
    made.limit("app/cpuset.cpus.effective", "2-5")
    made.limit("app/cpu.max", "250000 100000")
    made.limit("memory.max", str(GIB))
    machine = made.read(cgroup="/app")
    assert sorted(machine.allowed) == [2, 3, 4, 5]
    assert (machine.quota, machine.parallelism, machine.memory_limit) == (2.5, 3, GIB)
    assert made.read(3, cgroup="/app").parallelism == 1
    made.limit("app/cpu.max", "1000 100000")
    assert made.read(cgroup="/app").parallelism == 1


def test_cpus_that_two_nodes_claim(tmp_path: Path) -> None:
    """They are on the first of these."""
    made = two_nodes(tmp_path)
    made.node(1, "2-7")
    assert cpus(made.read()) == {0: [0, 1, 2, 3], 1: [4, 5, 6, 7]}


# --------------------------------------------------------------------------------------------------- near to what


def test_devices(tmp_path: Path) -> None:
    """By name and by number; what is not known, and numbers of nodes that there are not, are None."""
    made = two_nodes(tmp_path)
    made.interface("eth1", made.card("card", -1))
    made.interface("eth2", made.card("other", 7))
    machine = made.read()
    second = machine.nodes[1]
    assert machine.node_of_block("sda1") == machine.node_of_device(8, 0) == machine.node_of_interface("eth0") == second
    for none in ("eth1", "eth2", "eth3", "", "../eth0"):
        assert machine.node_of_interface(none) is None
    assert machine.node_of_device(0, 25) is None and machine.node_of_device(8, 0, "char") is None
    assert machine.disks() == {"sda": second}
    assert machine.interfaces() == {"eth0": second, "eth1": None, "eth2": None}


def test_one_node_is_near_to_everything(tmp_path: Path) -> None:
    """On a machine with one node nothing is looked up."""
    made = Made(tmp_path)
    made.interface("eth0", made.card("card", -1))
    machine = made.read(0, 1)
    assert {machine.node_of_interface("eth0"), machine.node_of_device(0, 25), machine.node_of_cpu(99)} == {
        machine.nodes[0]
    }
    assert machine.interfaces() == {"eth0": machine.nodes[0]}


def test_a_node_stays_the_same(tmp_path: Path) -> None:
    """Nodes are equal by number, whatever else is known of them, and travel."""
    made = two_nodes(tmp_path)
    before = made.read()
    made.node(1, "4-5")
    after = made.read(4)
    assert before.nodes == after.nodes and len({*before.nodes, *after.nodes}) == 2
    assert before.nodes[0] != before.nodes[1] and before != after
    travelled = pickle.loads(pickle.dumps(before))
    travelled._check()
    assert [each.cpus for each in travelled.nodes] == [each.cpus for each in before.nodes]
    assert travelled.nodes[1] == before.node(1) != Node(0, frozenset(), frozenset())


# --------------------------------------------------------------------------------------------------- any machine

LISTS = st.sampled_from(["", "0", "0-3", "4-7", "0-7", "2,5", "7-4", "0-1,x", "nonsense", "0-9999", "\0\xff"])
WORDS = LISTS | st.text("0123456789 -,x\n", max_size=12)
NODES = [f"devices/system/node/node{number}" for number in (0, 1, 5, 300)]
PATHS = [
    "devices/system/cpu/online",
    "devices/system/node/online",
    "devices/system/node/nodex/cpulist",
    "devices/system/node/node99999/cpulist",
    *(f"{node}/{name}" for node in NODES for name in ("cpulist", "distance", "meminfo", "cpu1/uevent")),
    *(f"devices/system/cpu/cpu{n}/topology/core_siblings_list" for n in (0, 2)),
    *(f"devices/system/cpu/cpu{n}/cache/index{index}/{name}" for n in (0, 2) for index in (0, 3)
      for name in ("level", "shared_cpu_list")),
    "cgroup/cpuset.cpus.effective",
    "cgroup/cpu.max",
    "devices/card/net/eth0/numa_node",
    "devices/card/numa_node",
]  # fmt: skip


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=60)
@given(
    st.dictionaries(st.sampled_from(PATHS), WORDS, max_size=24),
    st.lists(st.sampled_from(PATHS), max_size=2),
    st.frozensets(st.integers(0, 12)),
    st.integers(-1, 9),
)
def test_any_machine(files: dict[str, str], folders: list[str], affinity: frozenset[int], count: int) -> None:
    """Whatever is in the files, or if folders are in their place: a machine, each CPU on one node, and a drawing."""
    with TemporaryDirectory() as place:
        for path in folders:
            (Path(place) / path).mkdir(parents=True, exist_ok=True)
        for path, words in files.items():
            if path not in folders:
                file = Path(place) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(words, encoding="utf-8")
        root = Path(place)
        (root / "class/net").mkdir(parents=True)
        (root / "class/net/eth0").symlink_to("../../devices/card/net/eth0")
        machine = read_machine(root, affinity=affinity, count=count, cgroups=root / "cgroup", cgroup="/x")
        machine._check()
        assert affinity <= machine.cpus and (not affinity or machine.allowed <= affinity)
        assert all(machine.node_of_cpu(cpu) for cpu in machine.cpus)
        assert max(map(len, machine.draw(60).splitlines())) <= 60
        machine.node_of_interface("eth0")
