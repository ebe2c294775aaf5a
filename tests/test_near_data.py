"""The example of data that is near is run as people run it; and, as if this machine had two nodes, in this process."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.programs import EXAMPLES, run
from tests.sysfs import Made, two_nodes
from tests.test_groups import numbers
from threadlets import groups, topology

QUIET = {**os.environ, "PYTHONWARNINGS": "error", "COLUMNS": "100"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three files, one of which cannot be read."""
    folder = tmp_path / "data"
    (folder / "inside").mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"abc")
    (folder / "inside" / "b.bin").write_bytes(bytes(300_000))
    (folder / "vanished").symlink_to(folder / "nowhere")
    return folder


def test_hash_a_folder(folder: Path) -> None:
    """All files are hashed, what cannot be read is told; and so it is that all workers are near."""
    done = run("near_data.py", folder, env=QUIET)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    if len(topology.machine().nodes) == 1:
        row = next(line for line in lines if line.startswith("any node"))
        assert row.split()[2:] == ["2", "300,003", "a.bin", hashlib.sha256(b"abc").hexdigest()[:12]]
        assert lines[-1].startswith("There is one node to work on, node 0: every worker is as near")
    assert any(line.startswith("not hashed: ") and "vanished" in line for line in lines)


def test_another_machine(folder: Path, tmp_path: Path) -> None:
    """It is drawn, and told on which of its nodes each file would be."""
    made = two_nodes(tmp_path)
    made.disk("sdx", numbers(folder), made.card("0000:00:09.0", 0))
    done = run("near_data.py", folder, "--sysfs", made.root, env=QUIET)
    assert (done.returncode, done.stderr) == (0, "")
    assert "sdx" in done.stdout
    assert f"node 0  {folder / 'a.bin'}".split() in [line.split() for line in done.stdout.splitlines()]
    assert "not found: " in done.stdout


def test_mistakes(tmp_path: Path) -> None:
    """A folder without files, and a /sys that is none, are named."""
    (tmp_path / "empty").mkdir()
    for options in ([tmp_path / "empty"], [EXAMPLES, "--sysfs", tmp_path / "nowhere"]):
        done = run("near_data.py", *options, env=QUIET)
        assert done.returncode == 1 and str(options[-1]) in done.stderr and "Traceback" not in done.stderr


def test_two_nodes(once: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two nodes the files are hashed on that of their disk, and the report has it so."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import near_data

    made = Made(tmp_path)
    made.cpus("0-1", "0-1")
    made.node(0, "0", "10 20")
    made.node(1, "1", "20 10")
    made.disk("sdx", numbers(folder), made.card("0000:00:09.0", 1))
    machine = made.read(0, 1)
    monkeypatch.setattr(groups, "machine", lambda: machine)
    found = once(near_data.hash_all, near_data.files_in(folder))
    assert [each.node for each in found if isinstance(each, near_data.Hashed)] == [machine.nodes[1]] * 2
    text = near_data.report(found, machine)
    assert text.splitlines()[1].split()[:4] == ["node", "1", "2", "300,003"]
    assert "There is one node" not in text and "not hashed: " in text
    del sys.modules["near_data"]
