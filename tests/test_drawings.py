"""A machine as text: what it says, and that it fits on any terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sysfs import Made, eight_nodes, two_nodes
from threadlets.drawings import size
from threadlets.nodes import read_machine

TWO = """\
2 nodes, 2 sockets, 8 CPUs, 48.0 GiB

┌─ node 0 ───────────────┐   ┌─ node 1 ───────────────┐
│ CPUs 0-3               │   │ CPUs 4-7               │
│ 16.0 GiB, 4.0 GiB free │   │ 32.0 GiB, 8.0 GiB free │
│ 2 last-level caches    │   │ distance 21: node 0    │
│ distance 21: node 1    │   └─┬──────────────────────┘
└────────────────────────┘     ├─ disks dm-0, sda
                               └─ net eth0

Nobody knows on which node: net eth1."""

NARROW = """\
2 nodes, 2 sockets, 8 CPUs,
  48.0 GiB; for this
  process: 1 CPU, the time
  of 1.50 CPUs, 512.0 MiB

+- node 0 ---------------+
| CPUs 0-3               |
| for us: 0              |
| 16.0 GiB, 4.0 GiB free |
| 2 last-level caches    |
| distance 21: node 1    |
+------------------------+

+- node 1 ---------------+
| CPUs 4-7               |
| none of them for us    |
| 32.0 GiB, 8.0 GiB free |
| distance 21: node 0    |
+-+----------------------+
  +- disk sda
  +- net eth0"""


WIDE = """\
2 nodes, 2 sockets, 8 CPUs, 48.0 GiB

┌─ node 0 ─────────────────────────┐   ┌─ node 1 ─────────────────────────┐
│ CPUs 0-3                         │   │ CPUs 4-7                         │
│ 16.0 GiB, 4.0 GiB free           │   │ 32.0 GiB, 8.0 GiB free           │
│ 2 last-level caches              │   │ distance 21: node 0              │
│ distance 21: node 1              │   └─┬────────────────────────────────┘
└─┬────────────────────────────────┘     ├─ disk sda
  └─ net a-long-name-of-an-interface     └─ net eth0"""


def test_two_nodes(tmp_path: Path) -> None:
    """Boxes side by side, with what hangs on them, and what hangs nowhere."""
    made = two_nodes(tmp_path)
    made.link(f"{made.stack('dm-0', '253:0')}/slaves/sda", "class/block/sda")
    made.interface("eth1", made.card("card", -1))
    assert made.read().draw() == TWO


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", None, "no such thing"])
def test_a_narrow_terminal_with_plain_letters(tmp_path: Path, encoding: str | None) -> None:
    """Boxes one below the other, of ASCII, and what is for us of it."""
    made = two_nodes(tmp_path)
    made.limit("cpu.max", "150000 100000")
    made.limit("memory.max", str(1 << 29))
    assert made.read(0).draw(10, encoding) == NARROW


def test_one_node_is_short() -> None:
    """What is not known is not drawn."""
    assert read_machine(None).draw() == "\n".join(["1 node, 1 CPU", "", "┌─ node 0 ─┐", "│ CPUs 0   │", "└──────────┘"])


def test_the_only_box_has_all_of_the_width() -> None:
    """It is not cut at half of it, as it is with others beside it."""
    machine = read_machine(None, affinity=range(0, 40, 3), count=40)
    assert "│ CPUs 0-39 by 3 │" in machine.draw()
    machine = read_machine(None, affinity=[0, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20])
    assert "│ CPUs 0, 2-3, 5-6, 8-9, 11-12, 14-15, 17-18, 20 │" in machine.draw()


def test_boxes_are_below_each_other(tmp_path: Path) -> None:
    """What hangs on a box may be wider than it: the next box makes room, in all of its lines."""
    made = two_nodes(tmp_path)
    made.interface("a-long-name-of-an-interface", made.card("card", 0))
    assert made.read().draw() == WIDE


def test_memory_alone(tmp_path: Path) -> None:
    """A node without CPUs says so; of distances, equal ones are told together."""
    made = Made(tmp_path)
    made.cpus("0-3", "0-3")
    for number in range(3):
        made.node(number, str(number), "10 20 20 14")
    made.node(3, "", "14 14 14 10")
    drawing = made.read().draw()
    assert "no CPUs" in drawing and "for us" not in drawing
    assert "distance 14: nodes 0-2" in drawing
    assert drawing.index("distance 14: node 3") < drawing.index("distance 20: nodes 1-2")


@pytest.mark.parametrize("width", [28, 40, 80, 133, 1000])
def test_everything_fits(tmp_path: Path, width: int) -> None:
    """Many CPUs, counted across the nodes or with holes, many disks and long names: never too wide, all names there."""
    made = eight_nodes(tmp_path)
    made.cpus("0-255", "0-7")
    for number in range(8):
        made.node(number, ",".join(map(str, range(number, 256, 8))), "10 21 21 21 21 21 21 21")
    card = made.card("card", 3)
    for number in range(12):
        made.device("block", f"nvme{number}n1", card)
        made.device("net", f"enp129s0f{number}np{number}", card)
    made.device("net", "x" * 40, card)
    drawing = made.read(*(cpu for cpu in range(256) if cpu % 3)).draw(width)
    assert max(map(len, drawing.splitlines())) <= width
    words = drawing.replace(",", " ").split()
    names = [f"nvme{number}n1" for number in range(12)]
    assert [word for word in words if word in names] == names, "the tenth comes after the ninth"
    assert sum(word.startswith("enp") for word in words) == 12
    assert "0-248 by 8" in drawing


def test_sizes() -> None:
    """The largest unit of which there is one; the largest there is, for more."""
    assert [size(1 << exponent) for exponent in (10, 20, 39, 40, 61)] == [
        *("0.0 MiB", "1.0 MiB", "512.0 GiB", "1.0 TiB", "2048.0 PiB")
    ]
