"""What the tests of the examples share: they run programs as people do, and ask servers as browsers do."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NEEDED = ("matplotlib", "rich", "starlette", "uvicorn", "uvloop")
ABSENT = [name for name in NEEDED if importlib.util.find_spec(name) is None]
needs_packages = pytest.mark.skipif(
    bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)} (they are in the demo extra)"
)

MODES = ("direct", "to_thread", "threadlets")
PATIENCE = 30.0  # seconds until a program that ought to have ended is taken for hung
LARGE = "".join(f"line {number} of a large file\n" for number in range(20_000))


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


def make_folder(place: Path) -> Path:
    """Make a folder with everything that a folder can hold, and something outside of it."""
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
