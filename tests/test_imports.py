"""What ``import threadlets`` does to the rest of the program: nothing. Seen from a fresh Python, before and after."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Imports threadlets in a fresh Python, from the given folder; prints what that brought in, changed or started.
LOOK = """
import asyncio, asyncio.base_events, concurrent.futures, contextvars, os, select, selectors, sys, threading, time

def names():
    seen = {}
    for module in [m for n, m in sys.modules.items() if n.split(".")[0] in WATCHED]:
        for name, value in vars(module).items():
            seen[module.__name__, name] = id(value)
            if isinstance(value, type):
                seen.update({(module.__name__, name, inner): id(held) for inner, held in vars(value).items()})
    return seen

WATCHED = {"asyncio", "concurrent", "contextvars", "os", "select", "selectors", "threading", "time"}
before, modules, threads = names(), set(sys.modules), threading.active_count()
sys.path.insert(0, sys.argv[1])
import threadlets
getattr(threadlets, "Pool", None)  # the first name that is asked for brings the rest
for name in sorted(set(sys.modules) - modules):
    if name.split(".")[0] not in sys.stdlib_module_names | {"threadlets"} or name.startswith("threadlets.adapters"):
        print("imported", name)
after = names()
for name in before:
    # A submodule that was imported on the way is a new name, not a changed one.
    if after.get(name) != before[name] and name[-1] not in ("__annotations__", "__abstractmethods__", "_abc_impl"):
        print("changed", *name)
if threading.active_count() != threads:
    print("started a thread")
"""


def look(root: Path) -> list[str]:
    """Import the threadlets of this folder in a fresh Python; return what that did to the rest."""
    done = subprocess.run([sys.executable, "-c", LOOK, str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_importing_threadlets_touches_nothing_else() -> None:
    """``import threadlets`` brings no adapter, needs nothing beyond Python, patches no asyncio and starts no thread."""
    assert look(ROOT) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import pytest", "imported pytest"),
        ("import threadlets.adapters", "imported threadlets.adapters"),
        ("import asyncio\nasyncio.sleep = None", "changed asyncio sleep"),
        ("import asyncio\nasyncio.BaseEventLoop.call_soon = None", "changed asyncio BaseEventLoop call_soon"),
        ("import threading\nthreading.Timer(0.3, int).start()", "started a thread"),
    ],
)
def test_an_import_that_touches_something_is_told(text: str, told: str, tmp_path: Path) -> None:
    """A threadlets that imported a third party, patched asyncio or started a thread would be found out."""
    package = tmp_path / "threadlets"
    (package / "adapters").mkdir(parents=True)
    (package / "__init__.py").write_text(text)
    (package / "adapters/__init__.py").touch()
    assert told in look(tmp_path)


def run(code: str) -> str:
    """Run code in a fresh Python, and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_face_comes_when_it_is_asked_for() -> None:
    """Who imports threadlets and no name of it waits for nothing; a room may be imported before the face, or alone."""
    code = """
import sys, threadlets
assert "asyncio" not in sys.modules and "threadlets.pools" not in sys.modules
assert threadlets.__version__
for absent in ("nothing", "a.b", ".x", "_x", "__wrapped__"):
    assert not hasattr(threadlets, absent), absent
import threadlets.admissions
from threadlets import *
assert Pool is threadlets.Pool is threadlets.pools.Pool
assert threadlets.files.read_text and set(threadlets.__all__) <= set(dir(threadlets))
print("well")
"""
    assert run(code) == "well\n"


def test_what_somebody_has_put_in_the_place_of_a_name_stays() -> None:
    """A mock is not undone by the next look for a name that is not there, nor by the first look at all."""
    code = """
import threadlets
threadlets.run = "mine"
assert not hasattr(threadlets, "nothing")
threadlets.Pool
print(threadlets.run)
"""
    assert run(code) == "mine\n"
