"""The old code on two executors is run as people run it, by a program; what it prints is read."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

import pytest

from .programs import run

OPTIONS: dict[str, Any] = {"env": {**os.environ, "PYTHONWARNINGS": "error"}, "stdin": subprocess.DEVNULL}
PICTURES = 40


@pytest.fixture(scope="module")
def printed() -> list[str]:
    """The two parts of what the program has printed."""
    done = run("thumbnails.py", "--pictures", str(PICTURES), **OPTIONS)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.split("\n\n")


def rows(part: str) -> dict[str, list[int]]:
    """Read a table: thumbnails, first and last in ms, how many at a time, by customer."""
    found = re.findall(r"^  (\w+) +(\d+) +(?:(\d+) ms|-) +(?:(\d+) ms|-) +(\d+)$", part, re.MULTILINE)
    return {name: [int(cell or 0) for cell in cells] for name, *cells in found}


def test_first_come_first_served_as_before(printed: list[str]) -> None:
    """On the plain thread pool both albums are done, and the single photo waits for those that came before."""
    seen = rows(printed[0])
    assert [seen[name][0] for name in ("holiday", "wedding", "passport")] == [PICTURES, PICTURES, 1]
    assert seen["passport"][1] >= seen["holiday"][2] > seen["holiday"][1]


def test_the_pool_has_its_rules_kept(printed: list[str]) -> None:
    """In the pool the photo goes first, nobody has more than two threads, and what is dropped is never run."""
    seen = rows(printed[1])
    assert seen["holiday"][0] == PICTURES and seen["passport"][0] == 1
    assert seen["passport"][1] <= seen["holiday"][2]
    assert max(seen["holiday"][3], seen["wedding"][3]) <= 2
    (dropped,) = (int(count) for count in re.findall(r"hung up: (\d+)", printed[1]))
    assert seen["wedding"][0] + dropped == PICTURES and dropped > PICTURES / 2
    assert f"shrink(): {2 * PICTURES + 1 - dropped} done, {dropped} cancelled" in printed[1]
    assert f"weigh(): {PICTURES} done" in printed[1]


def test_too_few_pictures_are_refused() -> None:
    """A number that shows nothing is a usage error."""
    done = run("thumbnails.py", "--pictures", "3", **OPTIONS)
    assert done.returncode == 2 and "--pictures must be at least 20" in done.stderr
