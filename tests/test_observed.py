"""The example that watches itself is run as people run it: its page, its spans, its end."""

from __future__ import annotations

import os
import re

import pytest

from .programs import run

pytest.importorskip("prometheus_client")
pytest.importorskip("opentelemetry.sdk")


def test_the_page_and_the_spans_tell_of_the_same_orders() -> None:
    """The program scrapes itself and prints spans; its figures agree, and it leaves nothing on stderr."""
    done = run("observed.py", "--seconds", "0.4", env={**os.environ, "PYTHONWARNINGS": "error"})
    assert (done.returncode, done.stderr) == (0, ""), done
    figures = dict(re.findall(r"^  (threadlets_.+) ([\d.]+)$", done.stdout, re.MULTILINE))
    outcomes = [float(value) for name, value in figures.items() if "ended_total" in name and 'pool="orders"' in name]
    calls = float(figures['threadlets_entrypoint_calls_total{entrypoint="order",place="in place"}'])
    assert 0 < sum(outcomes) <= calls <= 16
    orders, declined = map(int, re.findall(r"^(\d+) orders were taken, (\d+) cards declined", done.stdout, re.M)[0])
    assert declined == orders // 4
    assert f"\n{3 * orders} spans in all" in done.stdout
    first = re.findall(r"^order 1\n  order .*\n    customer .*\n    charge .*worker.*$", done.stdout, re.M)
    assert len(first) == 1, done.stdout
