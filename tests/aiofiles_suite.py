"""Runs aiofiles' own tests on our adapter, installed and as a drop-in, and tells which fail.

The tests come with aiofiles' source distribution, for pytest with pytest-asyncio, of which they need little: that is
done here. pip downloads that of the installed version, once, and compiles nothing. Or --source names a folder that has
been unpacked. On which loop is said by --loop; with --compare they run on aiofiles as it is, too.

What is known to fail is in KNOWN, with its reason.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import json
import os
import pkgutil
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
WAYS = ("installed", "drop-in")
MODULES = ("os", "ospath", "tempfile", "threadpool", "threadpool.binary", "threadpool.text")  # below aiofiles
RESULT = "aiofiles-suite: "  # begins the line of a child's output that is for us

# What is known to fail, on aiofiles as it is too, and why. All else passes, in both ways.
KNOWN = {"test_os.py::test_access": "root may read and write whatever the mode says"} if os.geteuid() == 0 else {}


class Plugin:
    """What the tests need of pytest-asyncio, and a record of how they ended."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.outcomes: dict[str, tuple[str, str]] = {}

    @pytest.fixture
    def unused_tcp_port(self) -> int:
        """Return the number of a port that is free."""
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            return int(one.getsockname()[1])

    def pytest_pyfunc_call(self, pyfuncitem: Any) -> bool | None:
        """Run a coroutine function on a loop of its own."""
        if not inspect.iscoroutinefunction(pyfuncitem.obj):
            return None
        wanted = pyfuncitem._fixtureinfo.argnames
        main = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted})
        with asyncio.Runner(loop_factory=self.loop) as runner:
            runner.run(asyncio.wait_for(main, 60))
        return True

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep how a test ended."""
        if report.when == "call" or report.outcome != "passed":
            why = report.longreprtext.strip().splitlines() if report.failed else [""]
            self.outcomes[report.nodeid] = (report.outcome, why[-1])


def run_child(way: str, loop: str, folder: str, arguments: list[str]) -> int:
    """Run the tests in this process, and print how they ended."""
    sys.path[:0] = [str(ROOT)]
    factory = pkgutil.resolve_name(loop)
    if way == "installed":
        importlib.import_module("aiofiles.os")
        importlib.import_module("threadlets.adapters.aiofiles").install()
    elif way == "drop-in":
        ours = importlib.import_module("threadlets.adapters.aiofiles")
        sys.modules["aiofiles"] = ours
        for name in MODULES:
            sys.modules[f"aiofiles.{name}"] = sys.modules[f"{ours.__name__}.{name}"]
    plugin = Plugin(factory)
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", folder, "-c", "/dev/null", "--import-mode=importlib"]
    pytest.main([*options, *arguments, folder], plugins=[plugin])
    print(RESULT + json.dumps(plugin.outcomes), flush=True)
    return 0


def run(way: str, loop: str, folder: Path, arguments: list[str], verbose: bool) -> dict[str, tuple[str, str]]:
    """Run the tests in a process of their own; return how each ended, and why."""
    with tempfile.TemporaryDirectory(prefix="aiofiles-suite-") as copy:
        tests = shutil.copytree(folder, Path(copy) / "tests")  # they leave files when they fail
        command = [sys.executable, os.path.abspath(__file__), "--child", way, loop, str(tests), *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=copy)
    if verbose:
        print(done.stdout, done.stderr)
    lines = [line for line in done.stdout.splitlines() if line.startswith(RESULT)]
    if not lines:
        return {"all of it": ("failed", f"exit status {done.returncode}: {done.stderr[-300:]}")}
    return {test: (how, why) for test, (how, why) in json.loads(lines[-1].removeprefix(RESULT)).items()}


def download(version: str, folder: Path) -> str:
    """Put aiofiles' source distribution into a folder; return what went wrong, or nothing."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", "aiofiles", "--dest", str(folder), f"aiofiles=={version}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["pip failed"])[-1]


def report(way: str, outcomes: dict[str, tuple[str, str]], stock: dict[str, tuple[str, str]]) -> int:
    """Print how tests ended; return how many have failed, and ought not to."""
    counts = ", ".join(f"{n} {how}" for how, n in Counter(how for how, _ in outcomes.values()).most_common())
    print(f"aiofiles' tests, {way}: {counts}")
    bad = 0
    for test, (how, why) in sorted(outcomes.items()):
        if how != "failed":
            continue
        name = test.rpartition("tests/")[2]
        known = KNOWN.get(name) or ("so it does with aiofiles" if stock.get(test, ("",))[0] == "failed" else "")
        bad += not known
        print(f"  {'known' if known else 'FAILS'}: {name}: {known or why}"[:220])
    missing = sorted(set(stock) - set(outcomes))
    if missing:
        print(f"  not run: {len(missing)}, the first is {missing[0]}")
    return bad + len(missing)


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    if sys.argv[1:2] == ["--child"]:
        return run_child(*sys.argv[2:5], arguments=sys.argv[5:])  # type: ignore[misc]
    parser = argparse.ArgumentParser(description="Run aiofiles' tests on our adapter.")
    parser.add_argument("arguments", nargs="*", help="for pytest: -k and so on, after --")
    parser.add_argument("--loop", action="append", metavar="MODULE:FACTORY", help="the event loop; may be repeated")
    parser.add_argument("--compare", action="store_true", help="run on aiofiles as it is, too; count what differs")
    parser.add_argument("--source", type=Path, metavar="FOLDER", help="aiofiles' source, unpacked; else pip gets it")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep what pip gets here, for the next time")
    parser.add_argument("--verbose", action="store_true", help="show what pytest prints")
    chosen = parser.parse_args()
    try:
        version = metadata.version("aiofiles")
    except metadata.PackageNotFoundError:
        print("skipped: aiofiles is not installed.")
        return 0
    with tempfile.TemporaryDirectory(prefix="aiofiles-suite-") as name:
        folder = Path(name)
        source = chosen.source
        if source is None:
            cache = chosen.cache or folder
            archive = cache / f"aiofiles-{version}.tar.gz"
            wrong = "" if archive.exists() else download(version, cache)
            if wrong or not archive.exists():
                print(f"skipped: pip did not get the source distribution of aiofiles {version}: {wrong}")
                return 0
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            source = folder / f"aiofiles-{version}"
        bad = 0
        for loop in chosen.loop or ["threadlets:EventLoop", "asyncio:SelectorEventLoop"]:
            print(f"aiofiles {version} on {loop}:")
            stock: dict[str, Any] = {}
            if chosen.compare:
                stock = run("stock", loop, source / "tests", chosen.arguments, chosen.verbose)
                report("stock", stock, stock)
            for way in WAYS:
                outcomes = run(way, loop, source / "tests", chosen.arguments, chosen.verbose)
                bad += report(way, outcomes, stock)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
