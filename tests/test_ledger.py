"""The bank's transfers are made as people make them, by a program; what it prints has to add up."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from .programs import run

pytest.importorskip("sqlalchemy")

OPTIONS: dict[str, Any] = {"env": {**os.environ, "PYTHONWARNINGS": "error"}, "stdin": subprocess.DEVNULL}


def test_no_money_is_lost_by_transfers_that_are_cancelled() -> None:
    """Some are made, some cancelled; the sum is the same at every moment, and the ledger has those that were made."""
    done = run("ledger.py", "--transfers", "120", "--cancels", "40", **OPTIONS)
    assert (done.returncode, done.stderr) == (0, ""), done
    rows = Counter({words: int(count) for words, count in re.findall(r"^  (.+?)  +(\d+)$", done.stdout, re.MULTILINE)})
    assert rows.total() == 120
    assert rows["made"] > 0
    assert rows["cancelled before it began"] > 0
    made = sum(count for words, count in rows.items() if words.startswith("made"))
    assert f"In the end: 20,000, and {made} entries in the ledger." in done.stdout
    assert re.search(r"Audits meanwhile: \d+, which found 20,000\.", done.stdout)
    assert "Connections that were not given back: 0." in done.stdout
    assert "what the ledger says" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--accounts", "1"], "two accounts"), (["--url", "sqlite:////nowhere/at/all.db"], "cannot be used")],
)
def test_bad_options_are_refused(options: list[str], words: str, tmp_path: Path) -> None:
    """What cannot be done is refused at once, in words."""
    done = run("ledger.py", *options, cwd=tmp_path, **OPTIONS)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
