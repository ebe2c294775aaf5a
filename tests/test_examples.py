"""The example server is run as people run it: as a program, on a small folder, over real sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from .programs import EXAMPLES, MODES, PATIENCE, ask, environment, make_folder, needs_packages, run, serving

pytestmark = needs_packages

# Runs a program without root's right to read everything, so that permission bits bind even root.
WITHOUT_PRIVILEGES = """
import ctypes, os, sys
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if ctypes.CDLL(None).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
        sys.exit(77)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that a folder can hold."""
    return make_folder(tmp_path_factory.mktemp("examples"))


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
