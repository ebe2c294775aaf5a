"""The shop with a rude tenant is run as people run it, as a program; what it prints is read."""

from __future__ import annotations

import re

import pytest

from .programs import run


def test_only_the_rude_tenant_is_refused() -> None:
    """Without a pool nobody is refused; with one the rude tenant is, the polite ones are not, and it is served, too."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    done = run("shop.py", "--quick")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "Traceback" not in done.stdout
    tables = done.stdout.split("\n\n")
    assert [table.split("  ")[0] for table in tables[:2]] == ["As it is", "With a pool"]
    for table, refuses in zip(tables, (False, True), strict=False):
        rows = re.findall(r"^  (\w+), \d+ at once +(\d+) +(\d+) +(?:\d+|nan) ms +(?:\d+|nan) ms$", table, re.MULTILINE)
        assert [name for name, _, _ in rows] == ["rude", "polite", "courteous"], table
        assert int(rows[0][1]) > 0
        assert [int(refused) > 0 for _, _, refused in rows] == [refuses, False, False]
    assert re.fullmatch(r"99 % of the polite tenants' pages came within .* ms as it is, within .*\n", tables[2])
