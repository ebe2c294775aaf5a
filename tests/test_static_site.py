"""The example of a static site is run as people run it, and asked as browsers and strangers ask."""

from __future__ import annotations

import http.client
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .programs import EXAMPLES, LARGE, PATIENCE, Answer, make_folder, needs_packages, run, serving

pytestmark = needs_packages


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that a folder can hold."""
    return make_folder(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module", params=["threadlets.adapters.uvloop:new_event_loop", "asyncio"])
def url(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The URL of the site, on each of two loops; it ends as it should when it is told to."""
    with serving(EXAMPLES / "static_site.py", folder, "--loop", request.param) as (url, process):
        yield url
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0 and not errors


def ask(url: str, path: str, method: str = "GET", **headers: str) -> Answer:
    """Send one request, with the path exactly as given."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    connection.close()
    return found


def test_files_and_parts_of_them(url: str) -> None:
    """Whole, in parts, not at all if they are known already; and a list of all."""
    body = LARGE.encode()
    whole = ask(url, "/large.txt")
    assert (whole.status, whole.body) == (200, body)
    assert ask(url, "/large.txt", "HEAD").headers["content-length"] == str(len(body))
    part = ask(url, "/large.txt", range="bytes=100-299999")
    assert (part.status, part.body) == (206, body[100:300_000])
    parts = ask(url, "/large.txt", range="bytes=0-9,-10")
    assert parts.headers["content-type"].startswith("multipart/byteranges") and body[-10:] in parts.body
    assert ask(url, "/large.txt", range="bytes=99999999-").status == 416
    known = ask(url, "/large.txt", if_none_match=whole.headers["etag"])
    assert (known.status, known.body) == (304, b"")
    assert ask(url, "/large.txt", if_modified_since=whole.headers["last-modified"]).status == 304
    assert ask(url, "/inner-link.md").body == ask(url, "/readme.md").body != b""
    assert b'href="code"' in ask(url, "/").body


def test_strangers_find_nothing(url: str) -> None:
    """What is outside, what is no file, and what is not there at all: 404, at once."""
    outside = [
        "/../outside/secret.txt",
        "/code/../../outside/secret.txt",
        "/..%2foutside%2fsecret.txt",
        "/outer-folder/secret.txt",
    ]
    for path in [
        *outside,
        "/outer-link.txt",
        "//etc/passwd",
        "/pipe",
        "/code",
        "/dangling.txt",
        "/%00",
        "/" + "x" * 5000,
    ]:
        assert ask(url, path).status == 404, path[:40]


def test_what_cannot_be_served() -> None:
    """A folder that is not there is an error of the command line."""
    done = run("static_site.py", "no/such/folder")
    assert done.returncode == 2 and "no folder" in done.stderr
