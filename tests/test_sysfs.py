"""What the kernel says in small files, and what is made of it when it says something else."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sysfs import Made
from threadlets import sysfs

NUMBERS = st.frozensets(st.integers(0, 9999), max_size=40)


@given(NUMBERS)
def test_a_list_is_read_as_it_is_written(these: frozenset[int]) -> None:
    """What is written is read again, and is as short as can be: no two spans touch each other."""
    words = sysfs.spell(these)
    assert sysfs.numbers(words) == sysfs.numbers(f" {words}\n") == these
    ends = [tuple(map(int, span.split("-"))) for span in words.split(",") if span]
    assert all(before[-1] + 1 < after[0] for before, after in pairwise(ends))


@given(st.text(max_size=50) | st.text("0123456789,- \n", max_size=30))
def test_any_text_is_a_list(words: str) -> None:
    """Whatever a file says, what is read of it are some numbers, and reading them again gives the same."""
    these = sysfs.numbers(words)
    assert len(these) <= 10_000
    assert sysfs.numbers(sysfs.spell(these)) == these


@pytest.mark.parametrize(
    ("words", "these"),
    [
        ("", []),
        ("\n", []),
        ("5", [5]),
        ("0,2", [0, 2]),
        ("3-3", [3]),
        ("3-1", []),
        ("-1", []),
        ("0-3,x,7", [0, 1, 2, 3, 7]),
        ("0-99999999999,0-12345,4", [4]),
        ("1_0,+2,\u0663,4.0,0x5,6", [6]),
        ("0-3:1/2", []),
    ],
)
def test_lists(words: str, these: list[int]) -> None:
    """Empty lists, single numbers, and parts that make no sense, which are left out."""
    assert sorted(sysfs.numbers(words)) == these


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """Files that are not there, are folders, have impossible names or odd bytes: nothing, or what there is of it."""
    (tmp_path / "bytes").write_bytes(b"\xff0-1\xe2\x82\n")
    for path in (
        tmp_path / "absent",
        tmp_path,
        tmp_path / "bytes" / "below",
        tmp_path / "a\0b",
        tmp_path / ("x" * 999),
    ):
        assert sysfs.text(path) == ""
        assert not [each for each in sysfs.listed(path) if each.name != "bytes"]
    assert sysfs.numbers(sysfs.text(tmp_path / "bytes")) == frozenset()
    if os.getuid():
        (tmp_path / "secret").write_text("0-3")
        (tmp_path / "secret").chmod(0)
        assert sysfs.text(tmp_path / "secret") == ""


def test_amounts() -> None:
    """A table of memory, for one node and for all; names are whole words."""
    table = "Node 1 MemTotal:        1024 kB\nNode 1 HugePages_Total:   3\nNode 1 SwapMemFree:  5 kB\n"
    assert sysfs.amount(table, "MemTotal") == 1 << 20
    for name in ("MemFree", "HugePages_Total", "Absent"):
        assert sysfs.amount(table, name) is None


# ----------------------------------------------------------------------------------------------------------- devices


def node_of(made: Made, kind: str, name: str) -> int | None:
    """Look a device up by its name; it is there."""
    folder = sysfs.named(made.root, kind, name)
    assert folder is not None
    return sysfs.node_of(folder, made.root)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Make a machine without anything."""
    return Made(tmp_path)


def test_a_device_is_on_the_node_of_its_card(made: Made) -> None:
    """A disk, a partition of it, and an interface, by their names and numbers: also far below of the card."""
    card = made.card("0000:17:00.0", 3)
    made.disk("sda", "8:0", card)
    made.interface("ens1", f"{card}/virtio2")
    assert node_of(made, "block", "sda") == node_of(made, "block", "sda1") == node_of(made, "net", "ens1") == 3
    for numbers in ((8, 0), (8, 1)):
        assert sysfs.node_of(sysfs.device(made.root, numbers), made.root) == 3
    assert sysfs.node_of(sysfs.device(made.root, (0, 25)), made.root) is None


@pytest.mark.parametrize("said", [-1, "", "x", "1-2", "99999", "\u00b2"])
def test_a_card_that_does_not_know_is_asked_no_more(made: Made, said: object) -> None:
    """A card without a node, or with nonsense: the bridge above it may know; else nobody does."""
    made.write("devices/pci0000:00/bridge/card/numa_node", said)
    made.interface("eth0", "devices/pci0000:00/bridge/card")
    assert node_of(made, "net", "eth0") is None
    made.write("devices/pci0000:00/bridge/numa_node", 1)
    assert node_of(made, "net", "eth0") == 1


def test_what_is_made_of_others_is_where_all_of_them_are(made: Made) -> None:
    """LVM on RAID on partitions, bridges on bonds: one node, if the parts agree; one that is nowhere has no say."""
    disks = [made.disk(f"sd{'abc'[n]}", f"8:{16 * n}", made.card(f"card{n}", n // 2)) for n in range(3)]
    parts = [f"{disk}/{Path(disk).name}1" for disk in disks]
    made.stack("dm-0", "253:0", made.stack("md0", "9:0", *parts[:2]))
    made.stack("dm-1", "253:1", *parts)
    made.stack("dm-2", "253:2", parts[2], made.stack("zram0", "252:0"))
    assert [node_of(made, "block", name) for name in ("md0", "dm-0", "dm-1", "dm-2", "zram0")] == [0, 0, None, 1, None]

    cards = [made.interface(f"eth{n}", made.card(f"net{n}", 1)) for n in range(2)]
    made.bond("br0", made.bond("bond0", *cards), made.bond("veth0"))
    assert [node_of(made, "net", name) for name in ("bond0", "br0", "veth0")] == [1, 1, None]


def test_a_partition_of_a_stack(made: Made) -> None:
    """A part of a RAID is where the RAID is."""
    raid = made.stack("md0", "9:0", made.disk("sda", "8:0", made.card("card", 2)))
    made.write(f"{made.device('block', 'md0p1', raid)}/partition", 1)
    assert node_of(made, "block", "md0p1") == 2


def test_nvme_with_several_paths(made: Made) -> None:
    """Its disk is no card's: the controllers know, if they agree."""
    made.device("block", "nvme0n1", "devices/virtual/nvme-subsystem/nvme-subsys0", "259:0")
    for n in range(2):
        folder = f"{made.card(f'nvme{n}', 1)}/nvme/nvme{n}"
        made.write(f"{folder}/state", "live")
        made.link(f"devices/virtual/nvme-subsystem/nvme-subsys0/nvme{n}", folder)
    assert node_of(made, "block", "nvme0n1") == 1
    made.card("nvme0", 0)
    assert node_of(made, "block", "nvme0n1") is None


def test_circles_end(made: Made) -> None:
    """Disks that are made of each other, and links that lead to themselves, are on no node."""
    first = made.stack("dm-0", "253:0")
    made.link(f"{first}/slaves/dm-1", made.stack("dm-1", "253:1", first))
    assert node_of(made, "block", "dm-0") is None
    made.link("class/net/eth0", "class/net/eth0")
    assert sysfs.named(made.root, "net", "eth0") is None
    assert sysfs.node_of(made.root / "class/net/eth0", made.root) is None


def test_names_do_not_lead_out(made: Made, tmp_path: Path) -> None:
    """A name is no path, and a link out of the root is not followed."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "numa_node").write_text("1")
    made.interface("eth0", made.card("card", 1))
    made.interface("eth1", made.card("other", -1))
    for folder in (tmp_path, made.root):
        (folder / "numa_node").write_text("1")
    made.link("class/net/out", "../out")
    assert node_of(made, "net", "eth1") is None
    for name in ("out", "../../../out", "..", ".", "", "eth0/device", "eth0\0", "x" * 999, "\udcff"):
        assert sysfs.named(made.root, "net", name) is None
    assert sysfs.node_of(made.root / "class/net/out", made.root) is None


def test_a_slash_in_a_name(made: Made) -> None:
    """The kernel writes an exclamation mark for it."""
    made.device("block", "cciss!c0d0", made.card("card", 1))
    assert node_of(made, "block", "cciss/c0d0") == 1
    assert list(sysfs.hardware(made.root, "block")) == [("cciss/c0d0", 1)]


def test_hardware(made: Made) -> None:
    """What is made up is left out, if it is not made of something on a node; also partitions, and what is no device."""
    disk = made.disk("sda", "8:0", made.card("card", 1))
    made.disk("sdb", "8:16", made.card("other", -1))
    made.stack("loop0", "7:0")
    made.stack("dm-0", "253:0", disk)
    made.link("class/block/gone", "devices/gone")
    made.write("class/net/bonding_masters", "bond0")
    assert sysfs.named(made.root, "net", "bonding_masters") is None
    assert list(sysfs.hardware(made.root, "block")) == [("dm-0", 1), ("sda", 1), ("sdb", None)]
    assert list(sysfs.hardware(made.root, "net")) == []


# ------------------------------------------------------------------------------------------------------------ limits


def test_limits_of_those_above_count(made: Made) -> None:
    """Of times and memory, the least from the root down; of CPUs, what the nearest says that says anything."""
    made.limit("cpuset.cpus.effective", "0-7")
    made.limit("a/cpuset.cpus.effective", "0-3")
    made.limit("a/b/cpuset.cpus.effective", "")
    made.limit("a/cpu.max", "150000 100000")
    made.limit("a/b/cpu.max", "400000 100000")
    made.limit("a/memory.max", "max")
    made.limit("a/b/memory.max", "4096")
    made.limit("a/b/c/memory.max", "8192")
    assert sysfs.limits(made.cgroups, "/a/b/c") == (frozenset(range(4)), 1.5, 4096)
    assert sysfs.limits(made.cgroups, "/a") == (frozenset(range(4)), 1.5, None)
    assert sysfs.limits(made.cgroups, "/elsewhere/on/the/host") == (frozenset(range(8)), None, None)
    assert sysfs.limits(made.cgroups, "/../../a") == sysfs.limits(made.cgroups, "/a")


@pytest.mark.parametrize("share", ["max 100000", "100000 0", "100000", "-1 100000", "x y", ""])
def test_no_share_is_no_limit(made: Made, share: str) -> None:
    """No quota, half a line, or a period of nothing."""
    made.limit("cpu.max", share)
    made.limit("memory.max", "lots")
    assert sysfs.limits(made.cgroups) == (None, None, None)


@given(st.text(max_size=40))
def test_any_text_is_a_cgroup(words: str) -> None:
    """Whatever stands where the path of a cgroup is to be, there are no limits below a folder that is not there."""
    assert sysfs.limits(Path("/absent"), sysfs.own_cgroup(f"3:cpu:/x\n0::{words}")) == (None, None, None)
    assert sysfs.own_cgroup("3:cpu:/x") == "/"
