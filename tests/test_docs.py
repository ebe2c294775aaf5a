"""What the documentation shows is true: the doctests of every module, and the Python blocks of the README."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import threadlets

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]

MODULES = ["threadlets", *sorted(f"threadlets.{found.name}" for found in pkgutil.iter_modules(threadlets.__path__))]
MODULES = [name for name in MODULES if name not in ("threadlets.adapters", "threadlets.__main__")]
FLAGS = doctest.NORMALIZE_WHITESPACE


def python_blocks(text: str) -> list[tuple[int, str]]:
    """Return the Python blocks of a Markdown text, each with the number of its first line."""
    blocks = re.finditer(r"^```(?:python|py|pycon)[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, block.start(1)) + 1, block[1]) for block in blocks]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    """The examples in a module's docstrings give what they show."""
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert failed == 0


def test_rules_have_doctests() -> None:
    """The doctests are found: the modules of which it is known that they have some have been looked into."""
    for name in ("lifecycles", "placements", "queues", "throttles"):
        module = importlib.import_module(f"threadlets.{name}")
        assert sum(len(test.examples) for test in doctest.DocTestFinder().find(module)) > 1


BLOCKS = [(page, line, code) for page in PAGES for line, code in python_blocks(page.read_text())]


@pytest.mark.parametrize(("page", "line", "code"), BLOCKS, ids=[f"{page.stem}-{line}" for page, line, _ in BLOCKS])
def test_pages(page: Path, line: int, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python block of the documentation is a program that runs as it stands, or a session that goes as it shows."""
    monkeypatch.chdir(ROOT)
    if ">>>" in code:
        test = doctest.DocTestParser().get_doctest(code, {}, page.name, str(page), line)
        assert doctest.DocTestRunner(optionflags=FLAGS).run(test).failed == 0
    else:
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), {"__name__": "__main__"})
