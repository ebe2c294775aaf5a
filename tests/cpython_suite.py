"""Runs CPython's own asyncio tests on our event loop, and tells which fail.

With --compare they run on asyncio's own loop first, and only what fails on ours alone counts: without IPv6, say, some
fail on any loop. The package ``test.test_asyncio`` must be installed; Debian's python3 lacks it.

Each test module has a process of its own, two run at a time. A test that hangs or crashes ends its process; the module
goes on in a new one, with the next test. tests/uvloop_suite.py does the same with uvloop's tests.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import unittest
from asyncio import base_events, selector_events, unix_events
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

Report = Callable[..., None]
Tests = dict[str, tuple[str, str]]  # how each test ended - passed, skipped, failed, hung, crashed - and why
ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "test.test_asyncio"
GOOD = ("passed", "skipped")
# The tests of these make BaseEventLoop itself; those of others patch its methods, and mean asyncio's own.
MAKE_BASE_LOOPS = {f"{PACKAGE}.{name}" for name in ("test_base_events", "test_pep492", "test_runners")}


class Recorder(unittest.TestResult):
    """Reports each test as it begins and as it ends, and ends the process if one takes too long."""

    def __init__(self, report: Report, limit: float) -> None:
        super().__init__()
        self._report, self._limit, self._outcome = report, limit, ("passed", "")

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._outcome = ("passed", "")
        self._report(begun=test.id())
        faulthandler.dump_traceback_later(self._limit, exit=True, file=2)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self._report(test=test.id(), outcome=self._outcome)

    def _set(self, test: Any, how: str, why: str) -> None:
        if not isinstance(test, unittest.TestCase):  # what a class or a module sets up
            self._report(test=test.id(), outcome=(how, why))
        elif self._outcome[0] != "failed":
            self._outcome = (how, why)

    def addError(self, test: Any, err: Any) -> None:
        print(test.id(), "".join(traceback.format_exception(*err)), sep="\n", file=sys.__stderr__, flush=True)
        self._set(test, "failed", f"{err[0].__name__}: {err[1]}")

    addFailure = addError

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.addError(test, err)

    def addUnexpectedSuccess(self, test: Any) -> None:
        self._set(test, "failed", "passed, against expectation")

    def addSkip(self, test: Any, reason: str) -> None:
        self._set(test, "skipped", reason)


def count_loops(base: Any, loop: type, report: Report) -> None:
    """Report each loop that is made: whether it is of the wanted class, or else what it is."""

    def init(self: Any, *args: Any, original: Any = base.__init__) -> None:
        report(loop="wanted" if isinstance(self, loop) else type(self).__qualname__)
        original(self, *args)

    base.__init__ = init


def tests_of(suite: Any) -> list[unittest.TestCase]:
    """Flatten a suite of suites."""
    return [suite] if isinstance(suite, unittest.TestCase) else [test for each in suite for test in tests_of(each)]


def run_child(replace: Callable[[Any, str, Report], None]) -> int:
    """Be the process of one module: read the orders, run its tests, and write down what happens."""
    order = json.load(sys.stdin)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in its background without it

    def report(**facts: Any) -> None:
        with open(order["report"], "a") as file:
            file.write(json.dumps(facts) + "\n")

    faulthandler.dump_traceback_later(order["limit"], exit=True, file=2)
    replace(pkgutil.resolve_name(order["loop"]), order["module"], report)
    try:
        importlib.import_module(order["module"])
    except (ModuleNotFoundError, unittest.SkipTest) as error:
        report(test=order["module"], outcome=("skipped", str(error)))
    else:
        tests = tests_of(unittest.defaultTestLoader.loadTestsFromName(order["module"]))
        wanted = [test for test in tests if order["only"] in test.id() and test.id() not in order["skip"]]
        unittest.TestSuite(wanted).run(Recorder(report, order["limit"]))
    report(done=True)
    faulthandler.dump_traceback_later(order["limit"], exit=True, file=2)  # should a thread keep the process
    return 0


def replace(loop: Any, module: str, report: Report) -> None:
    """Put a class in the place of asyncio's selector loop, and beneath the loops that the tests derive themselves."""
    base, selector = base_events.BaseEventLoop, asyncio.SelectorEventLoop
    count_loops(base, loop, report)
    if module == f"{PACKAGE}.test_selector_events":
        selector_events.BaseSelectorEventLoop = loop  # type: ignore[misc]
    for where in (asyncio, unix_events):
        for name, value in list(vars(where).items()):
            if value is selector:
                setattr(where, name, loop)
            elif isinstance(value, type) and "_loop_factory" in vars(value):  # the default policy
                value._loop_factory = loop  # type: ignore[attr-defined]

    # For BaseEventLoop: itself, with what the class changes. A test that makes one gives it a selector of its own.
    ours = {name for cls in loop.__mro__[: loop.__mro__.index(selector)] for name in vars(cls)} | {"__init__", "close"}
    over = {name for name in vars(base) if getattr(base, name) is not getattr(selector, name)} - ours
    body = {name: vars(base)[name] for name in over if callable(vars(base)[name])}
    body |= dict.fromkeys(("_make_self_pipe", "_close_self_pipe"), lambda self: None)
    asyncio.BaseEventLoop = base_events.BaseEventLoop = type("BaseEventLoop", (loop,), body)  # type: ignore[assignment, misc]
    importlib.import_module(f"{PACKAGE}.utils")
    if module not in MAKE_BASE_LOOPS:
        asyncio.BaseEventLoop = base_events.BaseEventLoop = base  # type: ignore[misc]


class Suite:
    """The test modules of a package, to be run with one script."""

    def __init__(self, title: str, package: str, options: argparse.Namespace, *paths: Path) -> None:
        self.title, self.package, self.options = title, package, options
        path = [*map(str, paths), *os.environ.get("PYTHONPATH", "").split(os.pathsep), str(ROOT)]
        self.env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}

    def module(self, module: str, loop: str) -> tuple[Tests, Counter[str]]:
        """Run a module, in as many processes as it takes; return how its tests ended, and what loops were made."""
        tests: Tests = {}
        loops: Counter[str] = Counter()
        quiet = () if self.options.verbose else ("stdout", "stderr")
        options: dict[str, Any] = {"start_new_session": True} | dict.fromkeys(quiet, subprocess.DEVNULL)
        command = [sys.executable, "-X", "faulthandler", sys.argv[0], "--child"]
        while True:
            with tempfile.NamedTemporaryFile("r") as report:
                order = {"module": module, "loop": loop, "skip": list(tests), "report": report.name}
                order |= {"only": self.options.only, "limit": self.options.timeout}
                process = subprocess.Popen(command, env=self.env, stdin=subprocess.PIPE, text=True, **options)
                process.communicate(json.dumps(order))
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what the tests have left
                facts = [json.loads(line) for line in report]
            tests |= {fact["test"]: tuple(fact["outcome"]) for fact in facts if "test" in fact}
            loops.update(fact["loop"] for fact in facts if "loop" in fact)
            last = next((fact["begun"] for fact in reversed(facts) if "begun" in fact), "")
            done = {"done": True} in facts or not last
            if (status := process.returncode) or not done:  # 1 is faulthandler's
                test = f"{module} as a whole" if done else last
                tests[test] = ("hung" if status == 1 else "crashed", f"exit status {status}")
            if done:
                return tests, loops

    def loop(self, loop: str, names: Sequence[str]) -> Tests:
        """Run modules on a loop and print the counts; return how the tests ended."""
        began = time.monotonic()
        tests: Tests = {}
        loops: Counter[str] = Counter()
        with ThreadPoolExecutor(2) as pool:
            for more in pool.map(lambda name: self.module(f"{self.package}.{name}", loop), names):
                tests |= more[0]
                loops += more[1]
        hows = ", ".join(f"{n} {how}" for how, n in Counter(how for how, _ in tests.values()).most_common())
        others = ", ".join(f"{n} {name}" for name, n in loops.most_common() if name != "wanted")
        print(f"{self.title} on {loop}, in {time.monotonic() - began:.0f} s: {hows}")
        print(f"  loops made: {loops['wanted']} of this class; of others {others or 'none'}", flush=True)
        return tests

    def run(self, folder: Path, plain: str) -> int:
        """Run the modules of a folder, and print which tests fail; return the exit status."""
        sizes = {file.stem: file.stat().st_size for file in folder.glob("test_*.py")}
        names = sorted(self.options.modules or sizes, key=lambda name: -sizes[name])  # long ones first
        known = {f"{self.package}.{line.partition('#')[0].strip()}" for line in self.options.list}
        pkgutil.resolve_name(self.options.loop)  # or fail at once
        base = self.loop(plain, names) if self.options.compare else {}
        ours = self.loop(self.options.loop, names)
        groups: dict[str, list[str]] = {"Fail": []}
        for test, (how, _) in sorted(ours.items()):
            there = base.get(test, ("passed", ""))[0]
            if how not in GOOD:
                title = "Fail" if there in GOOD else "Fail on the plain loop, too"
                groups.setdefault("Known to fail" if test in known else title, []).append(test)
            elif base and how != there:
                groups.setdefault(f"Are {how}, and {there} on the plain loop", []).append(test)
        for title, tests in sorted(groups.items(), key=lambda group: group[0] == "Fail"):
            lines = [f"{test.removeprefix(self.package + '.')}: {': '.join(ours[test])}" for test in tests]
            print(f"{title}: {len(tests)}", *(" ".join(line.split())[:220] for line in lines), sep="\n  ")
        return 1 if groups["Fail"] else 0


def parser(description: str, loop: str) -> argparse.ArgumentParser:
    """Make the parser of what both scripts take."""
    sys.path.append(str(ROOT))
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("modules", nargs="*", help="names of test modules; all of them if none is named")
    parser.add_argument("--loop", default=loop, metavar="MODULE:CLASS", help="the event loop class (%(default)s)")
    parser.add_argument("--compare", action="store_true", help="run on the plain loop too; count only what differs")
    parser.add_argument("--list", type=open, default=(), metavar="FILE", help="tests that may fail, one a line")
    parser.add_argument("--only", default="", metavar="TEXT", help="only tests whose name contains this")
    parser.add_argument("--timeout", type=float, default=60, help="seconds that a test may take (%(default)s)")
    parser.add_argument("--verbose", action="store_true", help="show what the tests print, and all tracebacks")
    return parser


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    if sys.argv[1:2] == ["--child"]:
        return run_child(replace)
    options = parser("Run CPython's asyncio tests on our event loop.", "threadlets:EventLoop").parse_args()
    try:
        (folder,) = importlib.import_module(PACKAGE).__path__
    except ModuleNotFoundError:
        print(f"skipped: this Python comes without {PACKAGE}, CPython's tests of asyncio.")
        return 0
    title = f"asyncio's tests of CPython {sys.version.split()[0]}"
    return Suite(title, PACKAGE, options).run(Path(folder), "asyncio:SelectorEventLoop")


if __name__ == "__main__":
    sys.exit(main())
