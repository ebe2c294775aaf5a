"""The demo and its load generator are run as programs: what they print and write, and what they leave behind."""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .programs import EXAMPLES, MODES, PATIENCE, environment, make_folder, needs_packages, run

pytestmark = needs_packages


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that a folder can hold."""
    return make_folder(tmp_path_factory.mktemp("examples"))


def test_the_demo_compares_and_draws(folder: Path, tmp_path: Path) -> None:
    """The demo prints one table and three lines, writes a plot, and leaves nothing else behind."""
    env = environment(tmp_path)
    done = run("demo.py", "--seconds", "0.5", "--rounds", "1", "--folder", folder, cwd=tmp_path, env=env)
    assert done.returncode == 0, done
    assert done.stderr.replace("\n", "").startswith("skipped ")
    rows = [line.split("│")[1].strip() for line in done.stdout.splitlines() if line.startswith("│")]
    assert rows == [*MODES, "threadlets.run on asyncio", "threadlets.run on uvloop"], "one row of the table for each"
    for word in (
        "requests/s",
        "p50",
        "p99",
        "worst loop lag",
        "\nThroughput: threadlets.run on uvloop serves ",
        "\nLatency: ",
        "\nLoop lag: ",
    ):
        assert word in done.stdout
    picture = (tmp_path / "demo.svg").read_text()
    assert picture.startswith("<?xml")
    assert picture.rstrip().endswith("</svg>")
    assert "cannot be had here" not in done.stdout, "the loops are ours"
    assert os.listdir(tmp_path / "temporary") == []


@pytest.mark.parametrize(
    "options", [["--output", "demo.txt"], ["--output", "nowhere/demo.svg"], ["--seconds", "0"], ["--connections", "0"]]
)
def test_the_demo_refuses_bad_options_at_once(tmp_path: Path, options: list[str]) -> None:
    """What would fail after a minute is refused before it."""
    done = run("demo.py", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert options[0] in done.stderr


def test_the_demo_shows_why_a_server_died(folder: Path, tmp_path: Path) -> None:
    """When a server ends at its start, the demo shows what that server said."""
    env = environment(
        tmp_path,
        "import sys\nif any(word.endswith('server.py') for word in sys.orig_argv): sys.modules['starlette'] = None",
    )
    done = run("demo.py", "--folder", folder, cwd=tmp_path, env=env)
    assert done.returncode == 1
    assert "demo.py: the server (direct) ended with exit code 1 instead of starting" in done.stderr
    assert "the package 'starlette' is missing" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_leaves_no_processes(folder: Path, tmp_path: Path, sign: signal.Signals, code: int) -> None:
    """Ctrl-C in the middle of the load ends the server and the load as well."""
    command: list[str | Path] = [sys.executable, EXAMPLES / "demo.py", "--seconds", "60", "--folder", folder]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            deadline = time.monotonic() + PATIENCE
            while not {"server.py", "load.py"} <= programs(process.pid):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(sign)
            _, said = process.communicate(timeout=PATIENCE)
            assert process.returncode == code
            assert "Traceback" not in said
            assert programs(process.pid) == set()
            assert os.listdir(tmp_path / "temporary") == []
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def programs(session: int) -> set[str]:
    """Return the names of the examples that run in a session."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                found |= {Path(word).name for word in (place / "cmdline").read_text().split("\0")}
    return found & {"demo.py", "server.py", "load.py"}


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("status", "/: status 500"),
        ("length", "/: 6 bytes, and 5 before (has it changed?)"),
        ("hang up", "the server hung up"),
    ],
)
def test_the_load_counts_what_is_wrong(behaviour: str, message: str) -> None:
    """Wrong statuses, wrong lengths and lost connections are errors, not answers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        answers = 0

        def do_GET(self) -> None:
            Handler.answers += 1
            wrong = Handler.answers > 5
            if wrong and behaviour == "hang up":
                self.close_connection = True
                return
            body = b"longer" if wrong and behaviour == "length" else b"right"
            self.send_response(500 if wrong and behaviour == "status" else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/"
            done = run("load.py", url, "--connections", "2", "--warm-up", "0", "--seconds", "0.1")
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == 0, done
    found = json.loads(done.stdout)
    assert found["errors"] >= 1
    assert found["first_error"] == message
    assert found["answered"] <= 5


def test_the_load_says_when_there_is_no_server() -> None:
    """A server that is not there is a message, not a stack trace."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = run("load.py", f"http://127.0.0.1:{port}/")
    assert done.returncode == 1
    assert f"load.py: http://127.0.0.1:{port}/: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the examples that compares."""
    spec = importlib.util.spec_from_file_location("examples_figures", EXAMPLES / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_losses_are_called_losses(figures: ModuleType) -> None:
    """The three lines follow the figures: for better, for worse, and when the rounds do not tell."""

    def result(name: str, *rounds: tuple[float, float, float]) -> Any:
        return figures.Result(
            name, tuple(figures.Round(speed, (ms,) * 100, lag, 50.0, (), 0, "") for speed, ms, lag in rounds)
        )

    ours = result("ours", (100, 5, 20), (110, 6, 10))
    better = result("better", (200, 1, 2), (210, 1, 3))
    worse = result("worse", (50, 50, 90), (55, 60, 100))
    alike = result("alike", (105, 5.5, 15), (90, 5, 21))
    spiky = result("spiky", (105, 5.5, 5), (105, 5.5, 15))
    assert figures.findings([ours, better, worse, alike, spiky], "ours") == [
        "Throughput: ours serves 105 requests/s: "
        "only 0.51 times better, which wins, 2.0 times worse, about the same as alike and spiky.",
        "Latency: p50 is 5.5 ms, better than worse, about the same as alike and spiky, worse than better; "
        "p99 is 5.5 ms, better than worse, about the same as alike and spiky, worse than better.",
        "Loop lag: 20.0 ms at worst, better than worse, about the same as alike, worse than better and spiky "
        "(while it was learning, in the warm-up: 50.0 ms).",
    ]


def test_the_doctests_of_the_examples() -> None:
    """The examples' own examples hold."""
    command: list[str | Path] = [sys.executable, "-m", "doctest", *sorted(EXAMPLES.glob("*.py"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
