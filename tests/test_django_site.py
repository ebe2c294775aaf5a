"""The example of a Django site is run as people run it."""

from __future__ import annotations

import re

import pytest

from .programs import needs_packages, run

pytestmark = needs_packages
pytest.importorskip("django")


def test_it_prints_its_table_and_ends() -> None:
    """Four ways to serve the site, with as many figures each, and each page was served in each way."""
    done = run("django_site.py", "--quick")
    assert done.returncode == 0 and not done.stderr, done.stderr
    rows = [re.findall(r"([\d,]+) +([\d.]+) x", line) for line in done.stdout.splitlines()]
    assert [len(row) for row in rows if row] == [4, 4, 4, 4]
    assert all(int(rate.replace(",", "")) > 0 for row in rows for rate, _ in row)


def test_it_explains_itself() -> None:
    """With --help it says what it does."""
    assert "Django site" in run("django_site.py", "--help").stdout
