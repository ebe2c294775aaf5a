"""The command line, as a program and as a function."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import threadlets
from threadlets.cli import main


def test_as_a_program() -> None:
    """Without a command it says what there is, and that is no mistake."""
    done = subprocess.run([sys.executable, "-m", "threadlets"], capture_output=True, text=True, check=True, timeout=60)
    assert "topology" in done.stdout
    assert not done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """It knows which one it is."""
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert threadlets.__version__ in capsys.readouterr().out


def test_mistakes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What is no command, or no folder, is told on stderr, with 2."""
    with pytest.raises(SystemExit) as left:
        main(["topologie"])
    assert left.value.code == 2
    assert "topologie" in capsys.readouterr().err
    assert main(["topology", "--sysfs", str(tmp_path / "none")]) == 2
    assert "no folder" in capsys.readouterr().err


def test_topology(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """This machine, and one whose /sys says nothing: each has a node."""
    assert main(["topology"]) == 0
    assert "node 0" in capsys.readouterr().out
    assert main(["topology", "--sysfs", str(tmp_path)]) == 0
    assert "node 0" in capsys.readouterr().out


def test_who_reads_leaves() -> None:
    """A pipe whose reader has gone is no error."""
    command = [sys.executable, "-m", "threadlets", "topology"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.close()
        assert program.stderr is not None
        assert program.stderr.read() == b""
        assert program.wait(60) == 0
