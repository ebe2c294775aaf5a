"""The example suite: it passes as it stands, and what it shows to fail does so for the reason that it gives."""

from __future__ import annotations

import re
import shutil

import pytest

from .plugins import ALONE, PLUGIN, suite
from .programs import EXAMPLES

pytest_plugins = ["pytester"]


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run a copy of the suite."""
    for file in (EXAMPLES / "suite").iterdir():
        if file.is_file():
            shutil.copy(file, pytester.path)
    beside = [*ALONE, "-W", "ignore:Unknown config option"]  # pytest-asyncio's
    return pytester.runpytest_inprocess(*PLUGIN, *beside, *options)


@pytest.mark.parametrize("option", ["--threadlets-strict", "--threadlets-loop=asyncio", "--threadlets-seed=random"])
def test_it_passes(pytester: pytest.Pytester, option: str) -> None:
    """It does on every loop, and in any order."""
    run(pytester, option).assert_outcomes(passed=8, xfailed=4)


def test_what_is_shown_to_fail_does(pytester: pytest.Pytester) -> None:
    """The tests that are marked to fail do so by the plugin, and say why."""
    result = run(pytester, "--runxfail")
    result.assert_outcomes(passed=8, failed=4)
    result.stdout.fnmatch_lines(
        [
            "*unretrieved failures in pool*",
            "*No such file or directory*",
            "threadlets: <Threadlet deliver missed> was not final when the test had ended:",
            "threadlets: task*holds <Lock 'the till': taken>, taken at *test_left.py:*",
            "threadlets: the event loop stood still for 0.* s, and max_stall=0.02 is allowed:",
            "    time.sleep(seconds)",
        ]
    )


def test_what_the_documentation_shows(pytester: pytest.Pytester) -> None:
    """The tests in docs/testing.md pass; its programs are run by test_docs.py."""
    page = (EXAMPLES.parent / "docs" / "testing.md").read_text()
    tests = re.findall(r"^``` python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(tests) == 1
    suite(pytester, "\n".join(tests)).assert_outcomes(passed=2)
