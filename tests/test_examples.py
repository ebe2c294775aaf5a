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
    ["nowhere", "dangling.txt", "readme.md/x", "pipe", "a%00b", "x" * 300, ".git/config", "git-link/config", "/etc/passwd"],
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


def test_search_finds_words_together(url: str) -> None:
    """All words must be there; the hit says where; binary and hidden files are not searched."""
    assert [(hit["path"], hit["line"]) for hit in ask_json(url, "/api/search?q=loop+takeover")] == [("code/main.py", 1)]
    assert [hit["path"] for hit in ask_json(url, "/api/search?q=takeover")] == ["code/main.py"]
    (by_name,) = ask_json(url, "/api/search?q=unknown")  # a binary file is not in the index, not even by name
    assert by_name == {}


def ask_json(url: str, path: str) -> Any:
    answer = ask(url, path)
    assert answer.status == 200
    return json.loads(answer.body)
