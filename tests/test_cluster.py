"""The example of a cluster is run as people run it, with processes of its own."""

from __future__ import annotations

import os
import re

import pytest

from tests.programs import run

QUIET = {**os.environ, "PYTHONWARNINGS": "ignore"}


def test_a_cluster_under_rules() -> None:
    """One tenant's jobs are all done, some of the other's are cancelled, and a dead worker loses none."""
    pytest.importorskip("distributed")
    done = run("cluster.py", "--jobs", "40", env=QUIET)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "2 workers, 4 slots" and "a worker is killed" in lines
    assert "Traceback" not in done.stderr
    ended = re.search(r"(\d+) jobs done in .* s, (\d+) cancelled, (\d+) failed", done.stdout)
    assert ended is not None
    finished, cancelled, failed = map(int, ended.groups())
    assert finished + cancelled == 40 and finished >= 20 and cancelled and not failed
    assert lines[-1].endswith("lost 0")


def test_mistakes() -> None:
    """Too few workers to kill one are refused."""
    pytest.importorskip("distributed")
    done = run("cluster.py", "--workers", "1", env=QUIET)
    assert done.returncode == 2 and "--workers 2" in done.stderr
