"""The example of chains is run as people run it: as a program, on a folder with all that may go wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from .programs import run

QUIET = {**os.environ, "PYTHONWARNINGS": "error"}


def table(text: str) -> dict[str, str]:
    """Return the rows of the table that it prints last."""
    return dict(re.split(r"  +", line.strip(), maxsplit=1) for line in text.partition("\n\n")[2].splitlines())


@pytest.mark.parametrize("options", [[], ["--plain"]])
def test_a_folder_with_all_that_may_go_wrong(tmp_path: Path, options: list[str]) -> None:
    """Words are counted; what cannot be read, has vanished, or is no text, is told by its step."""
    for n in range(50):
        (tmp_path / f"{n}.txt").write_text("one two three\n" * n)
    (tmp_path / "picture").write_bytes(b"\xff\xfe\xfd")
    (tmp_path / "vanished").symlink_to(tmp_path / "nowhere")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "deep.txt").write_text("four")
    done = run("chain_index.py", *options, tmp_path, env=QUIET)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("index(path)\n  1  file    open(arg('path'), ")
    rows = table(done.stdout)
    assert rows["files"] == "53"
    assert rows["words"] == f"{3 * sum(range(50)) + 1:,}"
    assert rows["failed at file: FileNotFoundError"] == "1"
    assert rows["failed at words: UnicodeDecodeError"] == "1"
    assert int(rows["in place, a round"]) + int(rows["hops, a round"]) == 53
    assert float(rows["chains, us a file"]) > 0


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """It fails at the step that opens it, and the others are read."""
    (tmp_path / "a").write_text("a b")
    (tmp_path / "secret").write_text("c")
    (tmp_path / "secret").chmod(0)
    if os.access(tmp_path / "secret", os.R_OK):
        pytest.skip("we may read everything")
    rows = table(run("chain_index.py", tmp_path, env=QUIET).stdout)
    assert rows["words"] == "2"
    assert rows["failed at file: PermissionError"] == "1"


def test_a_folder_without_files(tmp_path: Path) -> None:
    """That is said, and nothing else."""
    done = run("chain_index.py", tmp_path, env=QUIET)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there are no files in" in done.stderr


def test_without_a_folder() -> None:
    """It counts the words of this library."""
    done = run("chain_index.py", env=QUIET)
    assert done.returncode == 0, done
    assert int(table(done.stdout)["words"].replace(",", "")) > 10_000
