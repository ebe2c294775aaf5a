"""Static files for Starlette: the same answers as Starlette's own classes give, and none from outside of the folder.

Over 400 lines: every answer is compared with Starlette's, of one folder and through one client.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("starlette")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette import responses, staticfiles
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from tests.conftest import Run
from tests.support import descriptors
from threadlets import folders, syscalls
from threadlets.adapters.starlette import FileResponse, StaticFiles

LARGE = bytes(range(256)) * 1400  # more than one piece
App = Callable[[Any, Any, Any], Awaitable[None]]


class Answer(NamedTuple):
    """What an application has answered, or how it has failed; the boundary of parts is the only thing left out."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    failure: str = ""

    def header(self, name: str) -> str:
        return dict(self.headers)[name.encode()].decode()


def scope_of(path: str, method: str = "GET", spec: str = "2.4", **headers: str) -> dict[str, Any]:
    fields = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    about = {"method": method, "path": path, "root_path": "", "query_string": b"", "scheme": "http"}
    return {"type": "http", **about, "server": ("host", 80), "headers": fields, "asgi": {"spec_version": spec}}


async def never() -> Any:
    await asyncio.get_running_loop().create_future()


async def call(app: App, scope: Any, on_body: Callable[[], object] = lambda: None) -> Answer:
    """Ask an application; ``on_body`` is called after each piece of the body."""
    status, headers, body, failure, ended = 0, [], b"", "", False

    async def send(message: Any) -> None:
        nonlocal status, headers, body, ended
        assert not ended, "something came after the end"
        if message["type"] == "http.response.start":
            assert not status
            status, headers = message["status"], list(message["headers"])
        elif message["type"] == "http.response.pathsend":
            body, ended = message["path"].encode(), True
        else:
            assert status
            body += message["body"]
            ended = not message.get("more_body", False)
            on_body()

    try:
        await app(scope, never, send)
    except HTTPException as error:
        return Answer(error.status_code, sorted((error.headers or {}).items()), error.detail.encode())  # type: ignore[type-var]
    except Exception as error:
        failure = type(error).__name__
    assert ended or failure
    for name, value in headers:
        if name == b"content-type" and b"boundary=" in value:
            boundary = value.partition(b"boundary=")[2]
            assert failure or not body or len(body) == int(dict(headers)[b"content-length"])
            body = body.replace(boundary, b"BOUNDARY")
            headers = [(name, value.replace(boundary, b"BOUNDARY")) for name, value in headers]
    return Answer(status, headers, body, failure)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that one may meet, and its neighbours."""
    around = tmp_path_factory.mktemp("around")
    site = around / "site"
    for folder in ("sub/deep", "empty", "unindexed"):
        (site / folder).mkdir(parents=True)
    (around / "site-secrets").mkdir()
    for name in ("secret.txt", "site-secrets/secret.txt"):
        (around / name).write_bytes(b"nobody is to read this")
    texts = {
        "index.html": "home",
        "404.html": "lost",
        "sub/index.html": "sub",
        "sub/deep/a.css": "a {}",
        "none.txt": "",
    }
    odd = {
        "no_end": "?",
        "a..b.txt": "dots",
        "...": "three",
        "q%3F.txt": "quoted",
        "x.tar.gz": "z",
        "x.UNKNOWN": "u",
        "ü.TXT": "ü",
    }
    for name, text in {**texts, **odd, "b\\c.txt": "backslash", "sp ace.js": "1"}.items():
        (site / name).write_text(text)
    (site / "large.bin").write_bytes(LARGE)
    Path(os.fsdecode(bytes(site) + b"/\xff.txt")).write_bytes(b"no UTF-8")
    links = {
        "near.css": "none.txt",
        "sub/up.txt": "../index.html",
        "folder": "sub",
        "dangling": "nothing",
        "loop": "loop",
    }
    outside = {
        "far.txt": "../secret.txt",
        "far": "../site-secrets",
        "absolute.txt": str(around / "secret.txt"),
        "root": "/",
    }
    for name, target in {**links, **outside, "inside.html": str(site / "index.html"), "self": "../site/sub"}.items():
        (site / name).symlink_to(target)
    os.mkfifo(site / "fifo.txt")
    (site / "null").symlink_to("/dev/null")
    return site


NAMES = r"""
index.html 404.html sub sub/ sub/index.html sub/deep/a.css none.txt no_end a..b.txt ... q%3F.txt x.tar.gz x.UNKNOWN
ü.TXT
b\c.txt large.bin near.css sub/up.txt folder folder/ folder/up.txt dangling loop far.txt far far/secret.txt absolute.txt
root root/etc/passwd inside.html self self/up.txt fifo.txt null empty empty/ unindexed nothing none.txt/ none.txt/x
../secret.txt ../site/index.html sub/../index.html nothing/../index.html ../site-secrets/secret.txt /etc/passwd
//etc/passwd \etc\passwd ..\secret.txt %2e%2e/secret.txt ..%2fsecret.txt . .. / ./index.html sub//index.html
""".split()
NAMES += ["sp ace.js", "", "\0", "a\0b", "x" * 300, "x/" * 3000, "\udcff.txt", "\ud800", "../" * 40 + "etc/passwd"]


@pytest.fixture(params=["in place", "elsewhere", "without O_PATH"])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look names up in each of the ways that there are, whatever this system has."""
    if request.param != "in place":
        monkeypatch.setattr(syscalls, "_openat2", lambda *_: -11)
    if request.param == "without O_PATH":
        monkeypatch.setattr(folders, "O_PATH", 0)


@pytest.mark.usefixtures("road")
@pytest.mark.parametrize("options", [{}, {"html": True}, {"follow_symlink": True, "html": True}], ids=str)
def test_every_name_is_answered_as_by_starlette(site: Path, options: dict[str, Any]) -> None:
    """Names of all kinds, good and bad: the same status, headers and body."""

    async def main() -> None:
        ours, theirs = StaticFiles(directory=site, **options), staticfiles.StaticFiles(directory=site, **options)
        for name in NAMES:
            if "loop" in name:  # an error, whichever
                continue
            for method in ("GET", "HEAD"):
                found = await call(ours, scope_of("/" + name, method))
                if (site / "fifo.txt").name == name or name == "null":
                    assert found.status == 404, "devices and FIFOs are nothing to be sent"
                    continue
                assert found == await call(theirs, scope_of("/" + name, method)), name[:40]
                assert b"nobody" not in found.body or "follow_symlink" in options

    asyncio.run(main())


HEADERS = [
    {"range": "bytes=0-4"},
    {"range": "bytes=5-"},
    {"range": "bytes=-7"},
    {"range": "bytes=0-0,10-20,15-30,-1"},
    {"range": "bytes=0-200000"},
    {"range": "bytes=0-1,3-200000,300000-"},
    {"range": "bytes=9999999-"},
    {"range": "bytes=7-3"},
    {"range": "lines=1-2"},
    {"range": "bytes"},
    {"range": "bytes="},
    {"range": "bytes=" + ",".join(f"{i * 3}-{i * 3}" for i in range(101))},
    {"range": "bytes=0-4", "if_range": "ETAG"},
    {"range": "bytes=0-4", "if_range": "W/ETAG"},
    {"range": "bytes=0-4", "if_range": "DATE"},
    {"range": "bytes=0-4", "if_range": '"other"'},
    {"if_range": "ETAG"},
    {"if_none_match": "ETAG"},
    {"if_none_match": 'W/ETAG, "other"'},
    {"if_none_match": "*"},
    {"if_none_match": '"other"', "if_modified_since": "DATE"},
    {"if_modified_since": "DATE"},
    {"if_modified_since": "Thu, 01 Jan 1970 00:00:00 GMT"},
    {"if_modified_since": "yesterday"},
    {"if_none_match": "ETAG", "range": "bytes=0-4"},
]


@pytest.mark.parametrize("name", ["large.bin", "index.html", "none.txt"])
@pytest.mark.parametrize("spec", ["2.3", "2.4"])
def test_conditions_and_ranges_are_answered_as_by_starlette(site: Path, name: str, spec: str) -> None:
    """304, 206, 400 and 416: the same status, headers and body, for GET, HEAD, and methods that there are not."""

    async def main() -> None:
        ours, theirs = StaticFiles(directory=site), staticfiles.StaticFiles(directory=site)
        known = await call(theirs, scope_of("/" + name))
        for headers in HEADERS:
            etag, date = known.header("etag"), known.header("last-modified")
            given = {key: value.replace("ETAG", etag).replace("DATE", date) for key, value in headers.items()}
            for method in ("GET", "HEAD", "POST", "get"):
                scope = scope_of("/" + name, method, spec, **given)
                assert await call(ours, scope) == await call(theirs, scope), (method, given)

    asyncio.run(main())


part = st.builds(
    "{}{}-{}{}".format,
    *[st.sampled_from(["", " ", "x"]), *[st.sampled_from(["", "0", "1", "9", "10", "99", "300000"])] * 2, st.just("")],
)
ranges = st.builds(
    "{}{}".format,
    st.sampled_from(["bytes=", "bytes =", "Bytes=", "bytes", "b="]),
    st.lists(part, max_size=5).map(",".join),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=ranges | st.text("bytes=0123-, ", max_size=20))
def test_any_range_is_answered_as_by_starlette(site: Path, asked: str) -> None:
    """Whatever is in a Range header."""
    ours, theirs = StaticFiles(directory=site), staticfiles.StaticFiles(directory=site)
    name = "/large.bin" if len(asked) % 2 else "/a..b.txt"
    with asyncio.Runner() as runner:
        assert runner.run(call(ours, scope_of(name, range=asked))) == runner.run(
            call(theirs, scope_of(name, range=asked))
        )


segment = st.sampled_from(
    [
        "..",
        ".",
        "",
        "sub",
        "deep",
        "folder",
        "self",
        "far",
        "site",
        "site-secrets",
        "secret.txt",
        "up.txt",
        "a.css",
        "index.html",
        "\\",
        "root",
        "etc",
    ]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.lists(segment, max_size=6).map("/".join), html=st.booleans())
def test_any_path_is_answered_as_by_starlette(site: Path, path: str, html: bool) -> None:
    """Paths that go in and out, by dots and by links."""
    ours, theirs = StaticFiles(directory=site, html=html), staticfiles.StaticFiles(directory=site, html=html)
    with asyncio.Runner() as runner:
        found = runner.run(call(ours, scope_of("/" + path)))
        assert found == runner.run(call(theirs, scope_of("/" + path)))
    assert b"nobody" not in found.body


@pytest.mark.parametrize(
    "options",
    [
        {"filename": "ü.css"},
        {"filename": "a.css", "content_disposition_type": "inline"},
        {"media_type": "text/odd"},
        {"status_code": 201},
        {"headers": {"ETag": '"mine"', "Content-Type": "a/b", "X-Y": "z"}},
        {"stat": True},
        {"stat": True, "headers": {"Last-Modified": "now"}},
    ],
    ids=str,
)
def test_a_file_response_is_that_of_starlette(site: Path, options: dict[str, Any]) -> None:
    """All of its arguments do what they do there."""

    async def main() -> None:
        for name in ("large.bin", "ü.TXT", "near.css", "nothing", "sub", "fifo.txt"):
            if options.get("stat") and name in ("nothing", "sub", "fifo.txt"):
                continue
            given = {key: value for key, value in options.items() if key != "stat"}
            if options.get("stat"):
                given["stat_result"] = os.stat(site / name)
            for method, headers in [
                ("GET", {}),
                ("HEAD", {}),
                ("GET", {"range": "bytes=1-2,5-7"}),
                ("POST", {"range": "bytes=1-2"}),
            ]:
                answers = []
                for kind in (FileResponse, responses.FileResponse):
                    ran: list[int] = []
                    response = kind(site / name, background=BackgroundTask(ran.append, 1), **given)
                    answers.append((await call(response, scope_of("/", method, **headers)), ran))  # type: ignore[arg-type]
                assert answers[0] == answers[1], (name, method)

    asyncio.run(main())


def test_a_server_that_sends_files_itself_is_told_the_path(site: Path) -> None:
    """``http.response.pathsend``: the real path, and only for whole files."""

    async def main() -> None:
        ours, theirs = StaticFiles(directory=site), staticfiles.StaticFiles(directory=site)
        for headers in ({}, {"range": "bytes=1-2"}):
            for name in ("large.bin", "folder/deep/a.css"):
                scope = scope_of("/" + name, **headers) | {"extensions": {"http.response.pathsend": {}}}  # type: ignore[arg-type]
                assert await call(ours, scope) == await call(theirs, scope)
                assert await call(FileResponse(site / name), scope) == await call(
                    responses.FileResponse(site / name), scope
                )

    asyncio.run(main())


def test_packages_and_several_folders(site: Path) -> None:
    """Files of packages are found, after those of the folder; a folder that is missing is an error, as it is there."""

    async def main() -> None:
        packages = [("hypothesis", "vendor"), ("hypothesis", "internal")]
        for name in ("index.html", "tlds-alpha-by-domain.txt", "floats.py", "nothing"):
            answers = [
                await call(kind(directory=site, packages=packages), scope_of("/" + name))  # type: ignore[arg-type]
                for kind in (StaticFiles, staticfiles.StaticFiles)
            ]
            assert answers[0] == answers[1]
            assert answers[0].status == 404 if name == "nothing" else 200
        with pytest.raises(RuntimeError):
            StaticFiles(directory=site / "nothing")
        missing = StaticFiles(directory=site / "nothing", check_dir=False)
        assert (await call(missing, scope_of("/a"))).failure == "RuntimeError"

    asyncio.run(main())


def test_a_websocket_is_closed(site: Path) -> None:
    """As Starlette does it."""

    async def main() -> None:
        said: list[Any] = []

        async def send(message: Any) -> None:
            said.append(message)

        await StaticFiles(directory=site)({"type": "websocket", "path": "/index.html"}, never, send)
        assert said[0]["type"] == "websocket.close"

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------- subclasses of ours


def test_subclasses_have_their_say(site: Path) -> None:
    """Methods of Starlette that a subclass overrides are called, and headers that it sets are its own."""

    class Mine(StaticFiles):
        async def get_response(self, path: str, scope: Any) -> Any:
            try:
                response = await super().get_response(path, scope)
            except HTTPException:
                response = await super().get_response("index.html", scope)
            response.headers["cache-control"] = "no-store"
            return response

        def file_response(self, full_path: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(full_path)
            return super().file_response(full_path, *args, **kwargs)

        def is_not_modified(self, *args: Any) -> bool:
            return bool(seen) and seen[-1].endswith(".css")

    class Moved(StaticFiles):
        def lookup_path(self, path: str) -> Any:
            assert threading.current_thread() is not threading.main_thread()
            return super().lookup_path(path.removeprefix("moved/"))

    async def main() -> None:
        app = Mine(directory=site)
        first = await call(app, scope_of("/nothing"))
        assert first.body == b"home" and first.header("cache-control") == "no-store"
        assert (await call(app, scope_of("/sub/deep/a.css"))).status == 304
        plain = await call(StaticFiles(directory=site), scope_of("/index.html"))
        assert plain.status == 200 and (b"cache-control", b"no-store") not in plain.headers
        assert seen == [str(site / "index.html"), str(site / "sub/deep/a.css")]
        assert (await call(Moved(directory=site), scope_of("/moved/index.html"))).body == b"home"
        assert (await call(Moved(directory=site), scope_of("/moved/far.txt"))).status == 404

    seen: list[str] = []
    asyncio.run(main())


# ------------------------------------------------------------------------------------------------- files that change


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "site" / "file.bin"
    file.parent.mkdir()
    file.write_bytes(LARGE)
    return file


def test_a_file_on_every_loop(run: Run, file: Path) -> None:
    """A large file, a part of it, and a small one, in memory and not, arrive whole, and nothing is left open."""

    async def main() -> None:
        app = StaticFiles(directory=file.parent)
        for spec in ("2.3", "2.4"):
            scope = scope_of("/file.bin", spec=spec)
            await call(app, scope)
            before = descriptors(file.parent.parent)
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
            answers = [await call(app, scope) for _ in range(2)]
            assert [answer.body for answer in answers] == [LARGE] * 2
            assert (await call(app, scope_of("/file.bin", spec=spec, range="bytes=1000-299999"))).body == LARGE[
                1000:300000
            ]
            assert descriptors(file.parent.parent) == before

    run(main)


@pytest.mark.parametrize("change", ["grows", "is replaced", "vanishes", "becomes a link"])
def test_what_is_sent_is_what_was_found(file: Path, change: str, tmp_path: Path) -> None:
    """A file that changes its name or grows, before it is opened and while it is sent, arrives as it was."""
    other = tmp_path / "other"

    def happen() -> None:
        if change == "grows":
            with open(file, "ab") as more:
                more.write(b"more" * 100_000)
        elif change == "vanishes":
            file.unlink(missing_ok=True)
        else:
            file.unlink(missing_ok=True)
            other.write_bytes(b"secret" * 100_000)
            file.symlink_to(other) if change == "becomes a link" else other.replace(file)

    async def main() -> None:
        app = StaticFiles(directory=file.parent)
        file.unlink(missing_ok=True)
        file.write_bytes(LARGE)
        scope = scope_of("/file.bin")
        response = await app.get_response("file.bin", scope)
        happen()
        assert (await call(response, scope)).body == LARGE
        file.unlink(missing_ok=True)
        file.write_bytes(LARGE)
        once = iter([happen])
        found = await call(app, scope, lambda: next(once, int)())
        assert found.body == LARGE and not found.failure
        found = await call(app, scope)
        if change == "grows":
            assert found.body == file.read_bytes() and int(found.header("content-length")) == len(found.body)
        else:
            assert found.status == (200 if change == "is replaced" else 404)

    asyncio.run(main())


def test_a_file_that_is_cut_off_is_an_error(file: Path) -> None:
    """Before the answer begins, it is one like any other; while it is sent, the end of the answer is never said."""

    async def main() -> None:
        app = StaticFiles(directory=file.parent)
        for spec in ("2.3", "2.4"):
            for headers in ({}, {"range": "bytes=10-300000"}, {"range": "bytes=0-1,10-300000"}):
                file.write_bytes(LARGE)
                found = await call(app, scope_of("/file.bin", spec=spec, **headers), lambda: os.truncate(file, 1000))
                assert found.failure == "EOFError" and len(found.body) < 300_000
        for size in (100, len(LARGE)):
            file.write_bytes(LARGE[:size])
            response = await app.get_response("file.bin", scope_of("/file.bin"))
            os.truncate(file, 10)
            assert await call(response, scope_of("/file.bin")) == Answer(0, [], b"", "EOFError")

    asyncio.run(main())


def test_a_status_that_is_no_longer_true_is_not_told(file: Path) -> None:
    """With ``stat_result=``, the headers are those of the file that is sent, but for those that were set otherwise."""

    async def main() -> None:
        before = os.stat(file)
        file.write_bytes(b"new")
        os.utime(file, (1, 1))
        found = await call(FileResponse(file, stat_result=before), scope_of("/"))
        assert (
            found == await call(responses.FileResponse(file, media_type=None), scope_of("/")) and found.body == b"new"
        )
        found = await call(FileResponse(file, stat_result=before, headers={"etag": '"mine"'}), scope_of("/"))
        assert found.header("etag") == '"mine"' and found.header("content-length") == "3"

    asyncio.run(main())


@pytest.mark.usefixtures("road")
def test_a_folder_that_is_swapped_for_a_link_after_the_check(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Between the resolving of a name and the opening, its folder becomes a link to outside: nothing is found."""
    inside, outside = file.parent / "sub", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.txt").write_text(folder.name)
    really = os.path.realpath

    def realpath(path: Any, **options: Any) -> str:
        found = really(path, **options)
        if inside.is_dir() and not inside.is_symlink() and str(path).endswith("a.txt"):
            inside.rename(tmp_path / "moved")
            inside.symlink_to(outside)
        return found

    async def main() -> None:
        app = StaticFiles(directory=file.parent)
        before = descriptors(file.parent.parent)
        monkeypatch.setattr(os.path, "realpath", realpath)
        found = await call(app, scope_of("/sub/a.txt"))
        assert found.body == b"sub" if syscalls.openat2(-1, b"", 2) != -11 else found.status == 404  # type: ignore[misc]
        assert (await call(app, scope_of("/sub/a.txt"))).status == (404 if inside.is_symlink() else 200)
        assert descriptors(file.parent.parent) == before

    asyncio.run(main())


def test_nobody_listens_any_more(file: Path) -> None:
    """A server that says so is sent no more; nothing is left open, and the background task runs."""

    async def main() -> None:
        file.write_bytes(LARGE * 20)
        ran: list[int] = []
        sent: list[Any] = []
        gone = asyncio.Event()

        async def receive() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) == 3:
                gone.set()
                await never()

        before = descriptors(file.parent.parent)
        response = FileResponse(file, background=BackgroundTask(ran.append, 1))
        await response(scope_of("/", spec="2.3"), receive, send)
        assert ran and len(sent) == 3 and descriptors(file.parent.parent) == before

    asyncio.run(main())


def test_an_answer_that_nobody_sends_is_closed(file: Path) -> None:
    """What ``get_response`` returns may be dropped, sent twice, or be cancelled in the middle."""

    async def main() -> None:
        app = StaticFiles(directory=file.parent)
        await call(app, scope_of("/file.bin"))
        before = descriptors(file.parent.parent)
        response = await app.get_response("file.bin", scope_of("/file.bin"))
        assert descriptors(file.parent.parent) == before + 1
        del response
        assert descriptors(file.parent.parent) == before
        response = await app.get_response("file.bin", scope_of("/file.bin"))
        for _ in range(2):
            assert (await call(response, scope_of("/file.bin"))).body == LARGE

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                await never()

        for spec in ("2.3", "2.4"):
            task = asyncio.create_task(app(scope_of("/file.bin", spec=spec), never, send))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert descriptors(file.parent.parent) == before

    asyncio.run(main())


def test_headers_are_kept_for_each_state_of_a_file(file: Path) -> None:
    """Many states of one file, and many requests: each answer is that of Starlette at that time."""

    async def main() -> None:
        ours, theirs = StaticFiles(directory=file.parent), staticfiles.StaticFiles(directory=file.parent)
        for size in (1, 2, 1):
            for mtime in (1_000_000_000_000, 1_000_000_000_999, 2**60):
                file.write_bytes(b"x" * size)
                os.utime(file, ns=(0, mtime))
                for _ in range(2):
                    assert await call(ours, scope_of("/file.bin")) == await call(theirs, scope_of("/file.bin"))

    asyncio.run(main())
