"""Runs the tests of Starlette, FastAPI, anyio, aiohttp and asgiref with our adapters, and tells which fail.

Each suite runs as it is, on the plain loop; then with the adapters, on that loop and on the one that changes hands.
What fails with the adapters and not without is printed, and counts, unless it is among what is known, with its reason.

The tests come with the source distributions. pip downloads that of the installed version, once, and compiles nothing.
Or --source names a folder with unpacked ones or checkouts: FOLDER/starlette, FOLDER/anyio and so on. The tests are
copied from there, so that they import what is installed. They run with a configuration of ours: a warning fails a test
if it is about something that was left open, never awaited, or that failed where nobody saw it. Tests of trio are left
out. What fails for want of a network, or because root may do everything, fails without the adapters, too.

blockbuster, which Starlette, anyio and aiohttp use if it is there, is hidden from them: it forbids calls such as
os.stat on the thread of a running loop, and our file operations make some there that do not wait. --blockbuster
shows it.

This file is also the plugin that pytest loads in each process: it makes the changes before a test module is imported,
and writes down how each test began and ended. A test that hangs or crashes ends its process; what is left runs in
another.

Over 400 lines: a third of them is the list of what is run, and what is known.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import pkgutil
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata, util
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LOOPS = ("asyncio:SelectorEventLoop", "threadlets:EventLoop")
PLAIN = {"threadlets:EventLoop": LOOPS[0], "threadlets.adapters.uvloop:EventLoop": "uvloop:Loop"}  # to compare with
GOOD = ("passed", "skipped")
NONE = "all of it"  # the name of what failed if no test was run
ORDER = "THREADLETS_FOREIGN_SUITES"  # the environment variable with what the plugin is to do, as JSON
Tests = dict[str, tuple[str, str]]  # how each test ended - passed, skipped, failed, hung, crashed - and why

INI = """[pytest]
xfail_strict = true
faulthandler_timeout = {limit}
faulthandler_exit_on_timeout = true
filterwarnings =
    default
    error::ResourceWarning
    error::RuntimeWarning
    error::pytest.PytestUnraisableExceptionWarning
    error::pytest.PytestUnhandledThreadExceptionWarning
{lost}
{more}"""
LOST = r"    ignore:unclosed .socket\.socket .*family=10:ResourceWarning"


class Known(NamedTuple):
    """Tests that fail with the adapters and not without, and why that is right."""

    why: str
    tests: dict[str, str]  # by file: their names, without parameters
    loop: str = ""  # what the name of the loop begins with


class Suite(NamedTuple):
    """The tests of one library: what of them is run, and how."""

    adapters: tuple[str, ...]
    needs: str  # modules that they import; without one of them they are skipped
    known: tuple[Known, ...]
    copied: str = "tests"  # folders
    chosen: str = "tests"  # what of these, as for glob
    ini: str = ""  # more lines of pytest.ini
    options: str = "-p no:asyncio"  # for pytest


ANOTHER_THREAD = "asserts that it runs on another thread than the loop; in place it does not"
UNTIL_BLOCKED = "releases the function after wait_all_tasks_blocked(): a function in place runs, and is waited for"
WORDS = "expects other words of the same error"

SUITES = {
    "starlette": Suite(
        ("anyio", "starlette"),
        "httpx2 itsdangerous jinja2 opentelemetry.sdk python_multipart trio yaml",
        (
            Known(
                "counts the files that anyio opens; ours opens them itself",
                {
                    "test_responses.py": "test_file_response_closes_on_cancellation"
                    " test_file_response_closes_on_send_error test_file_response_stops_on_disconnect"
                },
            ),
            Known(
                "asks for more than the file has; ours answers for the file that is open, not for an old stat_result",
                {"test_responses.py": "test_file_response_multi_range_unexpected_eof"},
            ),
            Known(
                ANOTHER_THREAD,
                {"test_formparsers.py": "test_multipart_request_large_file_rollover_in_background_thread"},
                "threadlets",
            ),
        ),
    ),
    "fastapi": Suite(
        ("anyio", "starlette"),
        "a2wsgi dirty_equals email_validator flask httpx httpx2 inline_snapshot itsdangerous jinja2 jwt"
        " opentelemetry.sdk pwdlib pydantic_settings python_multipart sqlmodel yaml",
        (
            Known(
                ANOTHER_THREAD,
                {
                    "test_concurrency.py": "test_asyncio_cancellation_in_body_runs_cleanup"
                    " test_cancelled_body_exits_in_worker test_cancelled_request_closes_nested_sync_dependencies"
                    " test_cancelled_scope_exits_before_next_checkpoint test_cleanup_exception_propagates"
                    " test_cleanup_does_not_need_default_worker_capacity test_exit_receives_body_exception"
                    " test_contextmanager_returns_value_and_exits_in_worker"
                },
            ),
            Known(
                UNTIL_BLOCKED,
                {
                    "test_concurrency.py": "test_cancellation_waits_for_worker_and_cleanup",
                    "test_dependency_concurrency.py": "test_shared_declaration_limits_both_routes_before_worker_entry"
                    " test_declaration_survives_parameterless_and_inferred_dependencies"
                    " test_resource_limit_allows_sync_endpoint_and_response_validation",
                },
                "threadlets",
            ),
        ),
        copied="tests docs_src",
        options="-p no:asyncio --inline-snapshot=disable"
        # about other things: telemetry, the command line, GraphQL, scripts that are not in the archive
        " --ignore=tests/test_telemetry --ignore=tests/test_prepare_release.py --ignore=tests/test_translate.py"
        " --ignore=tests/test_fastapi_cli.py --ignore=tests/test_tutorial/test_debugging"
        " --ignore=tests/test_tutorial/test_graphql",
    ),
    "anyio": Suite(
        ("anyio",),
        "hypothesis psutil pytest_mock trustme truststore uvloop",
        (
            Known(
                "asserts how many of anyio's own worker threads there are, and when they end; threadlets has others",
                {
                    "test_from_thread.py": "test_run_sync_from_thread_pooling",
                    "test_to_thread.py": "test_asyncio_worker_reused_after_cancelled_call"
                    " test_asyncio_worker_thread_loop_closed_during_result_report",
                },
            ),
            Known(WORDS, {"test_to_thread.py": "test_stopiteration"}),
            Known(
                "cancels before the function has begun: it never does; anyio's goes once round the loop before",
                {
                    "test_from_thread.py": "test_thread_cancelled_and_abandoned",
                    "test_to_thread.py": "test_cancel_wait_on_thread",
                },
            ),
            Known(
                "is unsteady without us: a worker thread of anyio's that is about to end still holds the loop",
                {"test_to_thread.py": "test_asyncio_run_does_not_leak_event_loop"},
            ),
            Known(
                ANOTHER_THREAD,
                {
                    "test_from_thread.py": "test_run_async_from_thread_exception test_run_asyncgen_from_thread"
                    " test_run_corofunc_from_thread test_run_sync_from_thread test_run_sync_from_thread_exception"
                },
                "threadlets",
            ),
            Known(
                "asserts that the loop runs on the main thread; while that is blocked another one drives",
                {"test_from_thread.py": "test_call_corofunc test_call_non_corofunc"},
                "threadlets",
            ),
            Known(UNTIL_BLOCKED, {"test_from_thread.py": "test_thread_cancelled"}, "threadlets"),
            Known(
                "is skipped on uvloop, which it knows by the module of the loop's class",
                {"test_sockets.py": "test_close_during_send", "test_subprocesses.py": "test_user_group_arguments"},
                "threadlets",
            ),
        ),
        ini="anyio_mode = auto\nmarkers = network\n",
        options="-p no:asyncio -m 'not network'",
    ),
    "aiohttp": Suite(
        ("aiohttp",),
        "isal pytest_mock trustme zlib_ng",
        (
            Known(
                "the file is a mock, or pathlib is; ours asks the kernel",
                {
                    "test_web_sendfile.py": "test_gzip_if_header_not_present_and_file_available"
                    " test_gzip_if_header_not_present_and_file_not_available"
                    " test_gzip_if_header_present_and_file_not_available test_status_controlled_by_user"
                    " test_using_gzip_if_header_present_and_file_available",
                    "test_web_urldispatcher.py": "test_access_mock_special_resource"
                    " test_static_file_with_mock_permission_error",
                },
            ),
        ),
        chosen="tests/test_web_*.py tests/test_urldispatch.py tests/test_route_def.py tests/test_run_app.py",
        ini="markers =\n    skip_blockbuster\n    dev_mode\n    internal\n    autobahn\n",
        options="-p no:asyncio --aiohttp-fast",  # no gc.collect() after each test
    ),
    "asgiref": Suite(
        ("asgiref",),
        "packaging pytest_asyncio",
        (
            Known(
                "asserts that two contexts have two threads; ours are used again when a context has ended",
                {
                    "test_sync_contextvars.py": "test_thread_sensitive_with_context_different",
                    "test_sync_thread_sensitive_context.py": "test_plain_context_allows_calls_after_exit",
                },
            ),
        ),
        ini="asyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n",
        options="",
    ),
}


# -------------------------------------------------------------------------------------------------- in pytest's process


def change(adapter: str) -> None:
    """Install an adapter; one that is imported by its users is put in the place of what they would have imported."""
    ours: Any = importlib.import_module(f"threadlets.adapters.{adapter}")
    if adapter == "starlette":
        where: Any = importlib.import_module("starlette.staticfiles")
        where.StaticFiles, where.FileResponse = ours.StaticFiles, ours.FileResponse
        importlib.import_module("starlette.responses").FileResponse = ours.FileResponse  # type: ignore[attr-defined]
    elif adapter == "aiohttp":
        for name in ("web", "web_fileresponse", "web_urldispatcher"):
            where = importlib.import_module(f"aiohttp.{name}")
            where.FileResponse = ours.FileResponse
            if hasattr(where, "StaticResource"):
                where.StaticResource = ours.StaticResource
    else:
        ours.install()


def has_ipv6() -> bool:
    """Whether this machine calls itself localhost by IPv6. Where not, what is about IPv6 fails, and leaves sockets."""
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(socket.getaddrinfo("localhost", 0, socket.AF_INET6)[0][4])
    except OSError:
        return False
    return True


class Plugin:
    """Makes the changes, and writes down what happens. Its methods are pytest's hooks."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.loops: Counter[str] = Counter()
        if not order["blockbuster"]:
            sys.modules["blockbuster"] = None  # type: ignore[assignment]
        self.change_loops(pkgutil.resolve_name(order["loop"]))
        for adapter in order["adapters"]:
            change(adapter)

    def report(self, **facts: Any) -> None:
        """Write facts into the report."""
        with open(self.order["report"], "a") as file:
            file.write(json.dumps(facts) + "\n")

    def change_loops(self, loop: type) -> None:
        """Let asyncio's policy make loops of this class, and uvloop its twin; count those of the policy, by class."""

        def made(*_: Any) -> Any:
            one = loop()
            self.loops[f"{type(one).__module__}.{type(one).__qualname__}"] += 1
            return one

        policy: Any = asyncio.DefaultEventLoopPolicy
        policy._loop_factory = made
        if loop.__module__.startswith("threadlets") and util.find_spec("uvloop"):
            uvloop: Any = importlib.import_module("uvloop")
            uvloop.new_event_loop = importlib.import_module("threadlets.adapters.uvloop").new_event_loop

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Leave out what has been run, in another process, and what is not wanted."""
        done, without = set(self.order["done"]), ("trio",) if has_ipv6() else ("trio", "ipv6")
        items[:] = [one for one in items if one.nodeid not in done and not any(it in one.nodeid for it in without)]

    def pytest_collectreport(self, report: Any) -> None:
        """Note that a module cannot be imported."""
        if report.failed:
            self.report(test=report.nodeid, outcome=("failed", report.longreprtext.strip().splitlines()[-1]))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note that a test begins."""
        self.report(begun=nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note how a test ended."""
        if report.when == "call" or report.outcome != "passed":
            lines = report.longreprtext.strip().splitlines() if report.failed else []
            errors = [line for line in lines if line.startswith("E  ")] or lines[-1:] or [""]
            self.report(test=report.nodeid, outcome=(report.outcome, errors[0].removeprefix("E").strip()))

    def pytest_sessionfinish(self) -> None:
        """Note that all of them have been run, and on which loops."""
        self.report(done=True, loops=self.loops)


def pytest_addhooks(pluginmanager: Any) -> None:
    """Be the plugin, in a process that has an order: this is the earliest hook."""
    if ORDER in os.environ:
        pluginmanager.register(Plugin(json.loads(os.environ[ORDER])))


# ------------------------------------------------------------------------------------------------------ in our process


class Way:
    """A suite, with or without the adapters, on a loop: in as many processes as it takes."""

    def __init__(self, name: str, loop: str, adapted: bool, folder: Path, options: argparse.Namespace) -> None:
        self.name, self.loop, self.adapted, self.folder, self.options = name, loop, adapted, folder, options
        self.suite = SUITES[name]
        self.title = f"{name} {metadata.version(name)}, {'adapted' if adapted else 'stock'}, on {loop}"
        self.tests: Tests = {}
        self.loops: Counter[str] = Counter()

    def run(self) -> None:
        """Run it, and print the counts."""
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="foreign-suites-") as name:
            here = Path(name)
            for copied in self.suite.copied.split():
                shutil.copytree(self.folder / copied, here / copied)
            shutil.copy(__file__, here / "foreign_suites.py")
            lost = "" if has_ipv6() else LOST  # or whoever runs next is blamed
            (here / "pytest.ini").write_text(INI.format(limit=self.options.timeout, lost=lost, more=self.suite.ini))
            while not self._step(here):
                pass
        counts = ", ".join(f"{n} {how}" for how, n in Counter(how for how, _ in self.tests.values()).most_common())
        loops = ", ".join(f"{n} {kind}" for kind, n in self.loops.most_common())
        print(f"{self.title}, in {time.monotonic() - began:.0f} s: {counts}; loops: {loops}", flush=True)

    def _step(self, here: Path) -> bool:
        """Run tests until the end, or until a process is lost; return whether that was the end."""
        suite, options, report = self.suite, self.options, here / "report.jsonl"
        report.write_text("")
        order = {"loop": self.loop, "adapters": suite.adapters if self.adapted else (), "report": str(report)}
        order |= {"done": list(self.tests), "blockbuster": options.blockbuster}
        path = [str(here), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), str(ROOT)]
        env = os.environ | {ORDER: json.dumps(order), "PYTHONPATH": os.pathsep.join(path)}
        files = [str(file.relative_to(here)) for glob in suite.chosen.split() for file in sorted(here.glob(glob))]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "foreign_suites"]
        command += ["--continue-on-collection-errors", *shlex.split(suite.options), *(options.only or files)]
        quiet: dict[str, Any] = {} if options.verbose else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(command, cwd=here, env=env, stdin=subprocess.DEVNULL, text=True, **quiet)
        facts = [json.loads(line) for line in report.read_text().splitlines()]
        for fact in facts:
            if "test" in fact and self.tests.get(fact["test"], GOOD)[0] in GOOD:  # of test and teardown, what failed
                self.tests[fact["test"]] = (fact["outcome"][0], fact["outcome"][1])
            self.loops.update(fact.get("loops", {}))
        last = next((fact["begun"] for fact in reversed(facts) if "begun" in fact), "")
        if facts and "done" in facts[-1] and self.tests:
            return True
        said = " ".join((done.stdout or "").split())[-400:]
        how = "hung" if last and done.returncode == 1 else "crashed"  # 1 is faulthandler's
        self.tests[last or NONE] = (how, f"exit status {done.returncode}: {said}")
        return not last

    def differences(self, stock: Way) -> Iterator[tuple[str, str, str]]:
        """Yield tests that do not end as in stock, unless they have failed there: how, which, and why."""
        for test, (how, why) in sorted(self.tests.items()):
            there = stock.tests.get(test, ("missing",))[0]
            if test == NONE or (how != there and not (how in GOOD and there not in GOOD)):
                yield f"{how}, {there} in stock", test, why
        for test in sorted(set(stock.tests) - set(self.tests)):
            yield "missing", test, ""

    def compare(self, stock: Way) -> int:
        """Print what differs; return how much of that is not known."""
        known = {
            (f"tests/{file}", name): each.why
            for each in (self.suite.known if self.adapted else ())
            if self.loop.startswith(each.loop)
            for file, names in each.tests.items()
            for name in names.split()
        }
        found = [(how, test, why, known.get(named(test))) for how, test, why in self.differences(stock)]
        bad = [(how, test, why) for how, test, why, reason in found if not reason]
        print(f"{self.title}: {len(bad)} fail that should not, {len(found) - len(bad)} are known")
        if self.options.known:
            for reason in dict.fromkeys(known.values()):
                tests = [test for _, test, _, why in found if why == reason]
                print(f"  known: {reason}:", *tests, sep="\n      ")
        for how, test, why in bad:
            print(f"  {test}: {how}: {why}"[:300])
        return len(bad)


def named(test: str) -> tuple[str, str]:
    """Return the file and the name of a test, without its class and its parameters."""
    path = test.partition("[")[0].split("::")
    return path[0], path[-1]


def source_of(name: str, options: argparse.Namespace, folder: Path) -> Path | str:
    """Return where the source of the installed version is; or why it is not there."""
    if options.source:
        places = [options.source / name, *sorted(options.source.glob(f"{name}-[0-9]*"))]
        found = [place for place in places if (place / "tests").is_dir()]
        return found[-1] if found else f"{options.source} has no folder {name} with tests"
    version = metadata.version(name)
    cache = options.cache or folder
    archive = cache / f"{name}-{version}.tar.gz"
    if not archive.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", name, "--dest", str(cache), f"{name}=={version}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if not archive.exists():
            return f"pip did not get its source distribution: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    source = folder / f"{name}-{version}"
    return source if (source / "tests").is_dir() else f"the source distribution of {version} has no tests"


def lacks(module: str) -> bool:
    """Whether a module is not installed."""
    try:
        return util.find_spec(module) is None
    except ModuleNotFoundError:
        return True


def run(name: str, options: argparse.Namespace, folder: Path) -> int:
    """Run one suite in all ways; return how many tests failed that should not."""
    if gone := [module for module in (name, "pytest", *SUITES[name].needs.split()) if lacks(module)]:
        print(f"skipped: {name}'s tests: not installed: {', '.join(gone)}")
        return 0
    source = source_of(name, options, folder)
    if isinstance(source, str):
        print(f"skipped: {name}'s tests: {source}")
        return 0
    plain = {loop: PLAIN.get(loop, loop) for loop in options.loop or LOOPS}
    stock = {loop: Way(name, loop, False, source, options) for loop in dict.fromkeys(plain.values())}
    ways = [Way(name, loop, not options.stock, source, options) for loop in plain]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(Way.run, [*stock.values(), *ways]))
    return sum(way.compare(stock[plain[way.loop]]) for way in ways)


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(description="Run the tests of other libraries with our adapters installed.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; all if none is named")
    parser.add_argument("--loop", action="append", metavar="MODULE:CLASS", help="the event loop; may be repeated")
    parser.add_argument("--stock", action="store_true", help="without the adapters: compare the loops alone")
    parser.add_argument("--only", action="append", metavar="TEST", help="a file or a test, as pytest names it")
    parser.add_argument("--known", action="store_true", help="list what is known to fail, too")
    parser.add_argument("--blockbuster", action="store_true", help="let the tests use blockbuster")
    parser.add_argument("--source", type=Path, metavar="FOLDER", help="sources, unpacked; else pip gets them")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep what pip gets here, for the next time")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (%(default)s)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds that a test may take (%(default)s)")
    parser.add_argument("--verbose", action="store_true", help="show what pytest prints")
    options = parser.parse_args()
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"there is no suite {', '.join(sorted(unknown))}: choose from {', '.join(SUITES)}")
    with tempfile.TemporaryDirectory(prefix="foreign-suites-") as name:
        bad = sum(run(suite, options, Path(name)) for suite in options.suites or SUITES)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
