"""Static files for aiohttp: the same answers as aiohttp's own classes give, over real connections."""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("aiohttp")

from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Run
from tests.support import descriptors
from threadlets import folders, syscalls
from threadlets.adapters import aiohttp as adapter
from threadlets.adapters.aiohttp import FileResponse, StaticResource, add_static

LARGE = bytes(range(256)) * 1400  # more than one piece


class Answer(NamedTuple):
    """What a server has answered, without the date."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    def header(self, name: str) -> str:
        found = re.search(rb"\r\n%s: (.*?)\r\n" % name.encode(), self.head)
        assert found
        return found[1].decode()


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[int]:
    """Serve an application, and yield its port."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        await web.SockSite(runner, listener).start()
        yield listener.getsockname()[1]
    finally:
        await runner.cleanup()


async def ask(port: int, target: str, method: str = "GET", **headers: str) -> Answer:
    """Ask on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    writer.write(f"{method} {target} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{fields}\r\n".encode("latin-1"))
    try:
        received = await reader.read()
    except ConnectionResetError:
        received = b""
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionResetError:
        pass
    head, _, body = received.partition(b"\r\n\r\n")
    if b"chunked" in head:
        body = whole(body)
    return Answer(re.sub(rb"\r\nDate: .*?(?=\r\n)", b"", head), body)


def whole(rest: bytes) -> bytes:
    """Return a body that came in chunks; how many is nobody's business, but the last one must be there."""
    pieces = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        pieces.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    assert not pieces or not pieces[-1]
    return b"".join(pieces)


def both(site: Path, **options: Any) -> web.Application:
    """An application with our static files below /a, and aiohttp's own below /b."""
    app = web.Application()
    add_static(app.router, "/a/", site, **options)
    app.router.add_static("/b", site, **options)
    app.router.add_get("/file/a/{name}", partial(respond, FileResponse, site))
    app.router.add_get("/file/b/{name}", partial(respond, web.FileResponse, site))
    return app


async def respond(kind: Any, site: Path, request: web.Request) -> web.StreamResponse:
    response = kind(site / request.match_info["name"], status=201 if request.query else 200, headers={"X-Y": "z"})
    assert isinstance(response, web.StreamResponse)
    if request.query:
        response.enable_compression()
    return response


def like_ours(answer: Answer) -> Answer:
    return Answer(answer.head, answer.body.replace(b'"/b', b'"/a'))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that one may meet, and its neighbours."""
    around = tmp_path_factory.mktemp("around")
    site = around / "site"
    (site / "sub/deep").mkdir(parents=True)
    (around / "site-secrets").mkdir()
    for name in ("secret.txt", "site-secrets/secret.txt"):
        (around / name).write_bytes(b"nobody is to read this")
    texts = {
        "index.html": "home",
        "sub/x.txt": "x",
        "none.txt": "",
        "a..b.txt": "dots",
        "q%3F.txt": "quoted",
        "no_end": "?",
    }
    for name, text in {**texts, "x.UNKNOWN": "u", "ü.TXT": "ü", "b\\c.txt": "backslash", "z.js": "1" * 1000}.items():
        (site / name).write_text(text)
    for name in ("z.js.gz", "only.css.gz", "sub/x.txt.br"):
        (site / name).write_bytes(gzip.compress(b"compressed"))
    (site / "large.bin").write_bytes(LARGE)
    links = {
        "near.js": "z.js",
        "sub/up.txt": "../index.html",
        "folder": "sub",
        "dangling": "nothing",
        "index.html.gz": "z.js.gz",
    }
    outside = {
        "far.txt": "../secret.txt",
        "far": "../site-secrets",
        "absolute.txt": str(around / "secret.txt"),
        "root": "/",
    }
    for name, target in {
        **links,
        **outside,
        "inside.html": str(site / "index.html"),
        "far.js.gz": "../secret.txt",
    }.items():
        (site / name).symlink_to(target)
    (site / "loop").symlink_to("loop")
    (site / "far.js").write_text("near")
    os.mkfifo(site / "fifo.txt")
    (site / "null").symlink_to("/dev/null")
    return site


NAMES = r"""
index.html sub sub/ sub/x.txt none.txt no_end a..b.txt q%253F.txt q%3F.txt x.UNKNOWN %C3%BC.TXT b%5Cc.txt z.js only.css
large.bin near.js sub/up.txt folder folder/ folder/up.txt dangling loop far.txt far far/secret.txt absolute.txt root
root/etc/passwd inside.html fifo.txt null nothing none.txt/ none.txt/x ../secret.txt %2e%2e/secret.txt ..%2fsecret.txt
sub/../index.html nothing/../index.html
%2fetc%2fpasswd //etc/passwd \etc\passwd . .. ./index.html sub//x.txt sub%2fx.txt
z.js.gz far.js %00 a%00b.txt %ff.txt
""".split()
NAMES += ["", "x" * 300, "x/" * 2500, "..%2f" * 40 + "etc%2fpasswd"]


@pytest.mark.parametrize("road", ["in place", "elsewhere"])
@pytest.mark.parametrize("options", [{}, {"show_index": True}, {"follow_symlinks": True}], ids=str)
def test_every_name_is_answered_as_by_aiohttp(
    site: Path, options: dict[str, Any], road: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of all kinds, good and bad, with and without compressed files beside them: the same answer."""
    if road == "elsewhere":
        monkeypatch.setattr(syscalls, "_openat2", lambda *_: -11)

    async def main() -> None:
        async with served(both(site, **options)) as port:
            for name in NAMES:
                for headers in ({}, {"accept_encoding": "gzip, BR"}):
                    found = await ask(port, f"/a/{name}", **headers)
                    assert found == like_ours(await ask(port, f"/b/{name}", **headers)), name[:40]
                    assert b"nobody" not in found.body or "follow_symlinks" in options

    asyncio.run(main())


HEADERS = [
    {"range": "bytes=0-4"},
    {"range": "bytes=5-"},
    {"range": "bytes=-7"},
    {"range": "bytes=-999999"},
    {"range": "bytes=0-200000"},
    {"range": "bytes=9999999-"},
    {"range": "bytes=7-3"},
    {"range": "bytes=0-1,3-4"},
    {"range": "lines=1-2"},
    {"range": "bytes=0-4", "if_range": "DATE"},
    {"range": "bytes=0-4", "if_range": "Thu, 01 Jan 1970 00:00:00 GMT"},
    {"range": "bytes=0-4", "if_range": "ETAG"},
    {"if_none_match": "ETAG"},
    {"if_none_match": 'W/ETAG, "other"'},
    {"if_none_match": "*"},
    {"if_none_match": '"other"', "if_modified_since": "DATE"},
    {"if_match": '"other"'},
    {"if_match": "ETAG", "if_unmodified_since": "Thu, 01 Jan 1970 00:00:00 GMT"},
    {"if_unmodified_since": "Thu, 01 Jan 1970 00:00:00 GMT"},
    {"if_unmodified_since": "DATE", "if_modified_since": "Fri, 01 Jan 2100 00:00:00 GMT"},
    {"if_modified_since": "yesterday"},
]


def test_conditions_and_ranges_are_answered_as_by_aiohttp(site: Path) -> None:
    """206, 304, 412 and 416: the same answer, for all methods, from a folder and from a response of its own."""

    async def main() -> None:
        async with served(both(site)) as port:
            for name in ("large.bin", "index.html", "none.txt"):
                known = await ask(port, f"/b/{name}")
                for headers in HEADERS:
                    etag, date = known.header("Etag"), known.header("Last-Modified")
                    asked = {key: value.replace("ETAG", etag).replace("DATE", date) for key, value in headers.items()}
                    for method in ("GET", "HEAD", "POST"):
                        found = await ask(port, f"/a/{name}", method, **asked)
                        assert found == await ask(port, f"/b/{name}", method, **asked), (name, method, headers)

    asyncio.run(main())


def test_file_responses_are_those_of_aiohttp(site: Path) -> None:
    """A response of its own: files, links, compressed ones, what is no file; with a status, headers, compression."""

    async def main() -> None:
        async with served(both(site)) as port:
            for name in (
                "index.html",
                "large.bin",
                "z.js",
                "near.js",
                "none.txt",
                "nothing",
                "sub",
                "fifo.txt",
                "loop",
                "only.css",
            ):
                for query in ("", "?x"):
                    for headers in ({}, {"accept_encoding": "deflate, gzip"}, {"range": "bytes=1-2"}):
                        found = await ask(port, f"/file/a/{name}{query}", **headers)
                        assert found == await ask(port, f"/file/b/{name}{query}", **headers), (name, query, headers)

    asyncio.run(main())


field = st.builds(
    "{}{}-{}".format,
    st.sampled_from(["bytes=", "bytes =", "b="]),
    *[st.sampled_from(["", "0", "1", "3", "4", "99"])] * 2,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(field | st.text("bytes=01-,", max_size=12), min_size=20, max_size=20))
def test_any_range_is_answered_as_by_aiohttp(site: Path, asked: list[str]) -> None:
    """Whatever is in a Range header."""

    async def main() -> None:
        async with served(both(site)) as port:
            for each in asked:
                assert await ask(port, "/a/index.html", range=each) == await ask(port, "/b/index.html", range=each), (
                    each
                )

    asyncio.run(main())


def test_a_static_resource_has_all_that_aiohttps_has(site: Path) -> None:
    """URLs with versions, names, what ``get_info`` tells; and what is no folder is an error."""
    app = web.Application()
    resource = add_static(app.router, "/s", site, name="static", append_version=True)
    theirs = web.Application().router.add_static("/s", site, append_version=True)
    assert isinstance(resource, StaticResource) and app.router["static"] is resource
    assert resource.url_for(filename="z.js") == theirs.url_for(filename="z.js") != resource.url_for(filename="nothing")
    assert resource.get_info()["directory"] == theirs.get_info()["directory"]
    with pytest.raises(ValueError):
        add_static(app.router, "/t", site / "nothing")


def test_a_file_on_every_loop(run: Run, tmp_path: Path) -> None:
    """A large file, in memory and not, a part of it, and a small one arrive whole, and nothing is left open."""
    file = tmp_path / "file.bin"
    file.write_bytes(LARGE)

    async def main() -> None:
        app = web.Application()
        add_static(app.router, "/", tmp_path)
        async with served(app) as port:
            await ask(port, "/file.bin")
            before = descriptors(tmp_path)
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
            for _ in range(2):
                assert (await ask(port, "/file.bin")).body == LARGE
            assert (await ask(port, "/file.bin", range="bytes=1000-299999")).body == LARGE[1000:300000]
            assert (await ask(port, "/file.bin", range="bytes=0-9")).body == LARGE[:10]
            assert descriptors(tmp_path) == before

    run(main)


@pytest.mark.parametrize("way", ["piece by piece", "by the kernel"])
@pytest.mark.parametrize("change", ["grows", "is replaced", "vanishes", "is cut off"])
def test_a_file_that_changes_while_it_is_sent(
    tmp_path: Path, change: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It arrives as it was found, or, if it was cut off, the connection ends before the announced length."""
    file = tmp_path / "file.bin"
    really_read, really_known = folders.Found.read, folders.Found.is_at_hand

    def happen() -> None:
        if change == "grows":
            with open(file, "ab") as more:
                more.write(b"more" * 10_000)
        elif change == "vanishes":
            file.unlink(missing_ok=True)
        elif change == "is replaced":
            (tmp_path / "other").write_bytes(b"other" * 100_000)
            (tmp_path / "other").replace(file)
        else:
            os.truncate(file, 200)

    async def read(self: Any, offset: int, size: int) -> bytes:
        if offset:
            happen()
        return await really_read(self, offset, size)

    def is_at_hand(self: Any, offset: int, size: int) -> bool:
        if way == "piece by piece":
            return False
        known = really_known(self, offset, size)
        if offset:
            happen()
        return known

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        app = web.Application()
        add_static(app.router, "/", tmp_path)
        monkeypatch.setattr(folders.Found, "read", read)
        monkeypatch.setattr(folders.Found, "is_at_hand", is_at_hand)
        monkeypatch.setattr(adapter, "WINDOW", 1 << 17)
        async with served(app) as port:
            file.write_bytes(LARGE)
            found = await ask(port, "/file.bin")
            if change == "is cut off":
                assert len(found.body) < len(LARGE)
            else:
                assert found.body == LARGE and found.header("Content-Length") == str(len(LARGE))
            file.unlink(missing_ok=True)
            file.write_bytes(LARGE[:100])
            assert (await ask(port, "/file.bin")).body == LARGE[:100]

    asyncio.run(main())
