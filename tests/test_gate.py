"""The gate is shown as people run it; what the program prints is read."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

import pytest

from .programs import run

pytest.importorskip("aiohttp")

OPTIONS: dict[str, Any] = {"env": {**os.environ, "PYTHONWARNINGS": "error"}, "stdin": subprocess.DEVNULL}


def test_the_load_of_one_is_not_the_loss_of_others() -> None:
    """With the pool it is the crowd alone that is refused; nothing is done for clients that have gone."""
    done = run("gate.py", "--quick", **OPTIONS)
    assert (done.returncode, done.stderr) == (0, ""), done
    parts = done.stdout.split("\n\n")
    tables = []
    for part in parts[1:3]:
        rows = re.findall(r"^  (\w+) +(\d+) +(\d+) +(\d+) ", part, re.MULTILINE)
        tables.append({name: [int(each) for each in counts] for name, *counts in rows})
    without, within = tables
    assert list(without) == list(within) == ["crowd", "anna", "bert"]
    for served, refused, _ in without.values():
        assert served > 0
        assert refused == 0
    for name in ("anna", "bert"):
        served, refused, left = within[name]
        assert served > 0
        assert (refused, left) == (0, 0)
    found = re.search(r"The pool: (\d+) done, (\d+) shed, (\d+) cancelled", done.stdout)
    assert found is not None
    made, shed, cancelled = map(int, found.groups())
    vain = [int(count) for count in re.findall(r"for clients who had gone: (\d+)", done.stdout)]
    assert shed >= within["crowd"][1]
    assert made == sum(row[0] for row in within.values()) + vain[1]
    assert 0 <= vain[1] <= within["crowd"][2] - cancelled


def test_bad_options_are_refused() -> None:
    """What cannot be done is refused at once, with the name of the option."""
    done = run("gate.py", "--seconds", "0", **OPTIONS)
    assert done.returncode == 2
    assert "--seconds" in done.stderr
