"""The examples are run as people run them: as programs, on a small folder, over real sockets."""

from __future__ import annotations

import contextlib
import http.client
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NEEDED = ("matplotlib", "rich", "starlette", "uvicorn", "uvloop")
ABSENT = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)} (they are in the demo extra)")

MODES = ("direct", "to_thread", "threadlets")
PATIENCE = 30.0  # seconds until a program that ought to have ended is taken for hung
LARGE = "".join(f"line {number} of a large file\n" for number in range(20_000))

# Runs a program without root's right to read everything, so that permission bits bind even root.
WITHOUT_PRIVILEGES = """
import ctypes, os, sys
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if ctypes.CDLL(None).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
        sys.exit(77)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def ask(url: str, path: str, method: str = "GET") -> Answer:
    """Send one request, with the path exactly as given."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def environment(tmp: Path, sitecustomize: str = "") -> dict[str, str]:
    """Make an environment whose temporary files go to a folder of ours, and which runs some code in each Python."""
    (tmp / "site").mkdir()
    (tmp / "temporary").mkdir()
    (tmp / "site" / "sitecustomize.py").write_text(sitecustomize)
    path = os.pathsep.join(filter(None, [str(tmp / "site"), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp / "temporary"), "COLUMNS": "100"}


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program of the examples to its end."""
    command = (sys.executable, EXAMPLES / command[0], *command[1:])
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)


@contextlib.contextmanager
def serving(*command: str | Path, **options: Any) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the server; yield its URL once it has printed it, and the process."""
    program = (sys.executable, *command, "--port", "0")
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline()]
            while lines[-1] and not lines[-1].startswith("http://"):
                lines.append(process.stdout.readline())
            if not lines[-1]:
                pytest.fail(f"the server did not start: {process.communicate(timeout=PATIENCE)}")
            yield lines[-1].strip(), process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that a folder can hold."""
    place = tmp_path_factory.mktemp("examples")
    (place / "outside").mkdir()
    (place / "outside" / "secret.txt").write_text("a secret")
    root = place / "folder"
    (root / "code").mkdir(parents=True)
    (root / "code" / "main.py").write_text("def takeover():\n    return 'the loop changes hands'\n")
    (root / "readme.md").write_text("# Readme\n\nThe loop goes on.\n")
    (root / "a b#ü?.txt").write_text("odd names work")
    (root / "<b>.txt").write_text("&")
    (root / "large.txt").write_text(LARGE)
    (root / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0takeover")
    (root / "unknown").write_bytes(b"\0\1\2")
    (root / "empty.txt").touch()
    (root / "inner-link.md").symlink_to("readme.md")
    (root / "outer-link.txt").symlink_to(place / "outside" / "secret.txt")
    (root / "outer-folder").symlink_to(place / "outside")
    (root / "dangling.txt").symlink_to("nowhere")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("token = takeover")
    (root / "git-link").symlink_to(".git")
    (root / "env").mkdir()
    (root / "env" / "pyvenv.cfg").touch()
    os.mkfifo(root / "pipe")
    return root


@pytest.fixture(scope="module", params=MODES)
def url(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The URL of a server that runs in each mode in turn."""
    with serving(EXAMPLES / "server.py", folder, "--mode", request.param) as (url, _):
        yield url


def test_files_are_served_with_length_and_type(url: str, folder: Path) -> None:
    """A file comes as it is on disk, with its length and its type."""
    for name, kind in {
        "readme.md": "text/markdown; charset=utf-8",
        "code/main.py": "text/plain; charset=utf-8",
        "a b#ü?.txt": "text/plain; charset=utf-8",
        "image.png": "image/png",
        "unknown": "application/octet-stream",
        "empty.txt": "text/plain; charset=utf-8",
        "inner-link.md": "text/markdown; charset=utf-8",
        "large.txt": "text/plain; charset=utf-8",
    }.items():
        body = (folder / name).read_bytes()
        for method, expected in [("GET", body), ("HEAD", b"")]:
            answer = ask(url, "/files/" + quote(name), method)
            assert (answer.status, answer.body) == (200, expected), name
            assert answer.headers["content-length"] == str(len(body)), name
            assert answer.headers["content-type"] == kind, name


@pytest.mark.parametrize(
    "path",
    [
        "/files/../outside/secret.txt",
        "/files/code/../../outside/secret.txt",
        "/files/..%2foutside%2fsecret.txt",
        "/files/%2e%2e/outside/nothing-there",
        "/files/outer-link.txt",
        "/files/outer-folder",
        "/files/outer-folder/secret.txt",
        "/files/outer-folder/nothing-there",
    ],
)
def test_nothing_outside_is_served(url: str, path: str) -> None:
    """What lies outside is refused in the same words whether or not it exists."""
    answer = ask(url, path)
    assert answer.status == 403
    assert "403: not allowed" in answer.text
    assert "secret</" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "nowhere",
        "dangling.txt",
        "readme.md/x",
        "pipe",
        "a%00b",
        "x" * 300,
        ".git/config",
        "git-link/config",
        "/etc/passwd",
    ],
)
def test_what_is_not_there_is_404(url: str, path: str) -> None:
    """Missing, hidden and unfit things are not found; a named pipe does not hang the server."""
    assert ask(url, f"/files/{path}").status == 404


def test_other_methods_are_refused(url: str) -> None:
    """Nothing can be written."""
    assert ask(url, "/files/readme.md", "PUT").status == 405


def test_folders_are_listed(url: str) -> None:
    """A listing shows what can be fetched, and no more, and its links lead there."""
    page = ask(url, "/").text
    for name in ("code/", "readme.md", "large.txt", "inner-link.md"):
        assert f">{name}</a>" in page
    for hidden in ("outer", "dangling", ".git", "git-link", "env", "pipe", "<b>"):
        assert hidden not in page
    assert "&lt;b&gt;.txt" in page
    link = page.split('">a b#ü?.txt<')[0].rpartition('href="')[2]
    assert ask(url, link).text == "odd names work"
    inner = ask(url, "/files/code").text
    assert 'href="/files/code/main.py"' in inner
    assert ">..</a>" in inner


def hits(url: str, words: str) -> list[tuple[str, int]]:
    """Search, and return where the words were found."""
    answer = ask(url, "/api/search?q=" + quote(words))
    assert answer.status == 200
    return [(hit["path"], hit["line"]) for hit in json.loads(answer.body)]


def test_search_finds_words_together(url: str) -> None:
    """All words must be there, and a hit says where; binary and hidden files are found by their names at most."""
    assert hits(url, "loop takeover") == [("code/main.py", 1)]
    assert hits(url, "takeover") == [("code/main.py", 1)]
    assert hits(url, "unknown") == [("unknown", 1)]
    assert hits(url, "config") == []
    (found,) = hits(url, "19999")
    assert found[0] == "large.txt"
    assert 19980 <= found[1] <= 19999
    assert "<mark>takeover</mark>" in ask(url, "/search?q=takeover").text


@pytest.mark.parametrize(
    "words", ["", " ", '"', "loop AND", "NEAR(", "*", "colon:word", "^", "\0", "'; DROP TABLE passages", "<script>"]
)
def test_no_search_is_an_error(url: str, words: str) -> None:
    """Whatever a person types is words, not a query language, and comes back escaped."""
    assert hits(url, words) == []
    page = ask(url, "/search?q=" + quote(words))
    assert page.status == 200
    assert "<script>" not in page.text


def test_one_call_in_a_hundred_blocks(url: str) -> None:
    """The blocking route waits exactly once in a hundred calls, and the server measures what that does to its loop."""
    mode = json.loads(ask(url, "/statistics").body)["mode"]
    since = time.monotonic()
    waits = [ask(url, "/sometimes").text for _ in range(100)]
    assert sorted(waits) == ["waited   0 ms\n"] * 99 + ["waited 100 ms\n"]
    found = json.loads(ask(url, f"/statistics?since={since}&until={time.monotonic()}").body)
    assert found["lag"]["worst_ms"] == pytest.approx(max(found["lag"]["timeline_ms"]))
    assert found["lag"]["worst_ms"] > 90 or mode != "direct"
    assert ask(url, "/statistics?since=nonsense").status == 200


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", MODES)
def test_the_server_ends_cleanly(folder: Path, tmp_path: Path, mode: str, sign: signal.Signals) -> None:
    """Ctrl-C ends the server without a word, without a file left behind, and with exit code 0."""
    env = environment(tmp_path)
    with serving(EXAMPLES / "server.py", folder, "--mode", mode, env=env) as (url, process):
        assert os.listdir(tmp_path / "temporary")
        assert ask(url, "/files/readme.md").status == 200
        process.send_signal(sign)
        said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0
    assert [line for line in said.splitlines() if not line.startswith("skipped ")] == []
    assert os.listdir(tmp_path / "temporary") == []


def test_files_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    """What cannot be read is named while indexing, and refused when asked for; all else is served."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "open.txt").write_text("takeover")
    (tmp_path / "folder" / "closed.txt").write_text("takeover")
    (tmp_path / "folder" / "closed.txt").chmod(0)
    (tmp_path / "folder" / "dangling.txt").symlink_to("nowhere")
    (tmp_path / "folder" / "leaving.txt").symlink_to(folder / "readme.md")
    command: list[str | Path] = [EXAMPLES / "server.py", tmp_path / "folder"]
    if os.geteuid() == 0:
        command[:0] = ["-c", WITHOUT_PRIVILEGES]
        if subprocess.run([sys.executable, "-c", WITHOUT_PRIVILEGES, "-c", ""], check=False).returncode:
            pytest.skip("we are root, and cannot give up root's right to read everything")
    with serving(*command) as (url, process):
        assert ask(url, "/files/closed.txt").status == 403
        assert ask(url, "/files/open.txt").text == "takeover"
        assert hits(url, "takeover") == [("open.txt", 1)]
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=PATIENCE)[1]
    assert sorted(line for line in said.splitlines() if line) == [
        "skipped 'closed.txt': Permission denied",
        "skipped 'dangling.txt': No such file or directory",
        "skipped 'leaving.txt': leads out of the folder",
    ]


def test_a_port_in_use(folder: Path) -> None:
    """A taken port is named, with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("server.py", folder, "--port", str(port))
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use: choose another with --port" in done.stderr
    assert "Traceback" not in done.stderr


def test_folders_that_cannot_be_served(folder: Path, tmp_path: Path) -> None:
    """Server and demo say what is wrong with the folder, and end with 1."""
    (tmp_path / "empty").mkdir()
    for place, message in [
        (tmp_path / "empty", "holds no file that can be served"),
        (tmp_path / "nowhere", "there is no folder"),
        (folder / "readme.md", "is not a folder"),
    ]:
        done = run("server.py", place, "--port", "0")
        assert done.returncode == 1, done
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    done = run("demo.py", "--folder", tmp_path / "empty", cwd=tmp_path)
    assert done.returncode == 1
    assert "holds no file that can be served" in done.stderr


def test_sqlite_without_full_text_search(folder: Path, tmp_path: Path) -> None:
    """A SQLite without FTS5 is named, with what to do."""
    env = environment(
        tmp_path,
        """
import sqlite3
class Connection(sqlite3.Connection):
    def execute(self, sql, *args):
        if "fts5" in sql:
            raise sqlite3.OperationalError("no such module: fts5")
        return super().execute(sql, *args)
connect = sqlite3.connect
sqlite3.connect = lambda *args, **options: connect(*args, factory=Connection, **options)
""",
    )
    done = run("server.py", folder, "--port", "0", env=env)
    assert done.returncode == 1
    assert (
        "has no full-text search (no such module: fts5): use a Python whose sqlite3 was built with FTS5" in done.stderr
    )


@pytest.mark.parametrize(
    ("program", "package"),
    [("server.py", "uvicorn"), ("server.py", "threadlets"), ("demo.py", "starlette"), ("demo.py", "matplotlib")],
)
def test_missing_packages(folder: Path, tmp_path: Path, program: str, package: str) -> None:
    """A package that is not installed is named, with the command that installs it."""
    env = environment(tmp_path, f"import sys; sys.modules[{package!r}] = None")
    done = run(program, *([folder] if program == "server.py" else []), env=env)
    assert done.returncode == 1
    assert package in done.stderr
    assert "pip install 'threadlets[demo]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_compares_and_draws(folder: Path, tmp_path: Path) -> None:
    """The demo prints one table and three lines, writes a plot, and leaves nothing else behind."""
    env = environment(tmp_path)
    done = run("demo.py", "--seconds", "0.5", "--rounds", "1", "--folder", folder, cwd=tmp_path, env=env)
    assert done.returncode == 0, done
    assert done.stderr.replace("\n", "").startswith("skipped ")
    for mode in MODES:
        assert sum(line.split()[:2] == ["│", mode] for line in done.stdout.splitlines()) == 1, (
            "one row of the table for each"
        )
    for word in (
        "requests/s",
        "p50",
        "p99",
        "worst loop lag",
        "\nThroughput: threadlets serves ",
        "\nLatency: ",
        "\nLoop lag: ",
    ):
        assert word in done.stdout
    picture = (tmp_path / "demo.svg").read_text()
    assert picture.startswith("<?xml")
    assert picture.rstrip().endswith("</svg>")
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
        "only 0.51 times better, which wins, 2.0 times worse, about the same as alike, about the same as spiky.",
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
