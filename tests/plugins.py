"""Runs suites of others with the pytest plugin, in this process: a new one costs a second."""

from __future__ import annotations

import importlib.util
from importlib.metadata import entry_points

import pytest

if importlib.util.find_spec("pytest_asyncio") is not None:
    import pytest_asyncio.plugin  # noqa: F401  # or each suite would import it anew

INSTALLED = any(entry.name == "threadlets" for entry in entry_points(group="pytest11"))  # or it is an older one
PLUGIN = [*([] if INSTALLED else ["-p", "threadlets.adapters.pytest"]), "-p", "no:cacheprovider"]
ALONE = ["-p", "no:asyncio", "-p", "no:anyio", "-p", "no:hypothesispytest", "-p", "no:xdist"]
BESIDE = ["-p", "no:hypothesispytest", "-p", "no:xdist", "-o", "asyncio_default_fixture_loop_scope=function"]


def suite(pytester: pytest.Pytester, text: str, *options: str, beside: list[str] = ALONE) -> pytest.RunResult:
    """Run a suite of one file with some options; beside no other plugins, unless it is said which."""
    pytester.makepyfile(text)
    return pytester.runpytest_inprocess(*PLUGIN, *beside, *options)
