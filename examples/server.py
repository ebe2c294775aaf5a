"""A web server for a folder: its files, a full-text search over them, and a call that blocks now and then.

    python examples/server.py FOLDER --port 8000

Everything it does is plain blocking code: `os.open` and `read`, SQLite, a slow driver. `--mode` decides how these
functions are run, and is all that differs: called directly on the event loop's thread, sent to a thread each time with
`asyncio.to_thread`, or as threadlets. `examples/demo.py` runs it each way under load and compares.

It listens on 127.0.0.1 only: it has no users and no passwords.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import functools
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

try:
    import pages
    import uvicorn
    from folders import Document, Folder
    from heartbeats import Heartbeat, late_for, timeline, worst
    from indexes import Index
    from preparations import build_with_progress, fail, open_folder
    from starlette.applications import Starlette
    from starlette.datastructures import QueryParams
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route
    from starlette.types import Receive, Scope, Send

    from threadlets import Entrypoint, threadlet
except ModuleNotFoundError as missing:
    sys.exit(f"the package {str(missing.name).partition('.')[0]!r} is missing: pip install 'threadlets[demo]'")

HOST = "127.0.0.1"
PIECE = 256 * 1024  # bytes; arbitrary: a large file goes out in pieces of this size, so that it needs no more memory
SLICES = 200  # arbitrary: about the dots that a plot of the loop's lag has room for

P = ParamSpec("P")
T = TypeVar("T")


class Way(Protocol):
    """A way to make a coroutine function of a blocking function."""

    def __call__(self, function: Callable[P, T], /) -> Callable[P, Awaitable[T]]: ...


def direct(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """Call it where we are: quick, and whatever blocks holds everybody up."""

    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)

    return call


def to_thread(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """Send each call to a thread of asyncio's own pool: nobody is held up, and each call pays for the journey."""
    return functools.partial(asyncio.to_thread, function)


def as_threadlet(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """Make it a threadlet: in place while it is quick, on a thread when it is not."""
    return threadlet(function)


MODES: dict[str, Way] = {"direct": direct, "to_thread": to_thread, "threadlets": as_threadlet}


class Upstream:
    """Stands for a driver without an asyncio version: one call in every hundred waits for 100 ms.

    Which of the hundred it is comes from a seeded generator: every run of the server meets the same sequence.
    """

    def __init__(self, every: int = 100, seconds: float = 0.1) -> None:
        self._every = every
        self._seconds = seconds
        self._random = random.Random(2007)
        self._lock = threading.Lock()
        self._calls = 0
        self._slow = 0

    def ask(self) -> float:
        """Answer, and say how many seconds it waited.

        Thread: any. Cancel: none.
        """
        with self._lock:
            place = self._calls % self._every
            self._calls += 1
            if place == 0:
                self._slow = self._random.randrange(self._every)
            slow = place == self._slow
        if not slow:
            return 0.0
        time.sleep(self._seconds)
        return self._seconds


class FileBody(Response):
    """A file too large for one piece, sent as it is read. Closes the file descriptor, whatever happens."""

    def __init__(self, found: Document, descriptor: int, read: Callable[[int, int], Awaitable[bytes]]) -> None:
        headers = {"content-length": str(found.size), "x-content-type-options": "nosniff"}
        super().__init__(None, headers=headers, media_type=found.media_type)
        self._found = found
        self._descriptor = descriptor
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, then the body; to a HEAD request the head only."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            piece = b"" if scope["method"] == "HEAD" else self._found.first
            left = self._found.size - len(piece) if piece else 0
            while left and piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await self._read(self._descriptor, min(left, PIECE))
                left -= len(piece)
            await send({"type": "http.response.body", "body": piece})
        finally:
            os.close(self._descriptor)


def make_app(folder: Folder, index: Index, mode: str, started: Callable[[], None]) -> Starlette:
    """Make the application.

    Args:
        folder: what is served.
        index: what is searched.
        mode: one of `MODES`: how the blocking functions are run.
        started: called once, when the server is about to accept.
    """
    way = MODES[mode]
    find = way(folder.find)
    read = way(os.read)
    search = way(index.search)
    ask = way(Upstream().ask)
    heartbeat = Heartbeat()

    async def files(request: Request) -> Response:
        found = await find(request.path_params.get("path", ""))
        if not isinstance(found, Document):
            return HTMLResponse(pages.listing(found, os.path.basename(folder.root), mode))
        if found.rest is not None:
            return FileBody(found, found.rest, read)
        return Response(found.first, headers={"x-content-type-options": "nosniff"}, media_type=found.media_type)

    async def search_page(request: Request) -> Response:
        words = request.query_params.get("q", "")
        return HTMLResponse(pages.results(words, await search(words), mode))

    async def search_data(request: Request) -> Response:
        hits = await search(request.query_params.get("q", ""))
        return JSONResponse([{"path": hit.path, "line": hit.line, "excerpt": hit.excerpt} for hit in hits])

    async def sometimes(request: Request) -> Response:
        return PlainTextResponse(f"waited {await ask() * 1000:3.0f} ms\n")

    async def statistics(request: Request) -> Response:
        now = time.monotonic()
        since = _moment(request.query_params, "since", now - 10)
        until = _moment(request.query_params, "until", now)
        stalls = heartbeat.stalls(since, until)
        lag = {
            "worst_ms": worst(stalls) * 1000,
            "p99_of_time_ms": late_for(stalls, until - since, 0.01) * 1000,
            "timeline_ms": [seconds * 1000 for seconds in timeline(stalls, since, until, SLICES)],
        }
        loop = asyncio.get_running_loop()
        found = {
            "mode": mode,
            "loop": f"{type(loop).__module__}.{type(loop).__qualname__}",
            "since": since,
            "until": until,
            "lag": lag,
        }
        for call in (find, read, search, ask):
            if isinstance(call, Entrypoint):  # where its calls have run since the start
                found[call.name] = asdict(call.statistics())
        if statistics_of_loop := getattr(loop, "statistics", None):  # one that changes hands
            found["takeovers"] = asdict(statistics_of_loop())
        return JSONResponse(found)

    async def refused(request: Request, error: Exception) -> Response:
        number = error.errno if isinstance(error, OSError) else None
        status, reason = {
            errno.EACCES: (403, "not allowed"),
            errno.EPERM: (403, "not allowed"),
            errno.ENOENT: (404, "not found"),
            errno.ENOTDIR: (404, "not found"),
            errno.ELOOP: (404, "not found"),
            errno.ENAMETOOLONG: (404, "not found"),
        }.get(number or 0, (500, "it cannot be read"))
        return HTMLResponse(pages.error(status, reason, mode), status)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        beating = asyncio.create_task(heartbeat.run())
        started()
        yield
        beating.cancel()
        await asyncio.wait([beating])

    routes = [
        Route("/", files),
        Route("/files/{path:path}", files),
        Route("/search", search_page),
        Route("/api/search", search_data),
        Route("/sometimes", sometimes),
        Route("/statistics", statistics),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={OSError: refused})


def _moment(query: QueryParams, name: str, default: float) -> float:
    try:
        return float(query.get(name, default))
    except ValueError:
        return default


def listen(port: int) -> socket.socket:
    """Bind the port (0: any free one) on the loopback interface; exit with a message if it is taken."""
    listener = socket.socket(proto=socket.IPPROTO_TCP)  # asyncio sends small pieces at once only if it knows this
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            fail(f"port {port} on {HOST} is in use: choose another with --port, or --port 0 for any free one")
        fail(f"port {port} on {HOST} cannot be used: {error.strerror}")
    return listener


@contextlib.contextmanager
def the_index(folder: Folder, ready_made: Path | None) -> Iterator[Path]:
    """Yield the file of the index: the one that was given, or a new one that is deleted in the end."""
    if ready_made is not None:
        if not ready_made.is_file():
            fail(f"there is no index {ready_made}")
        yield ready_made
        return
    with tempfile.TemporaryDirectory(prefix="threadlets-") as place:
        database = Path(place) / "index.sqlite"
        built = build_with_progress(folder, database)
        print(f"{folder.root}: {len(built.files)} files, {built.searchable} of them searchable", flush=True)
        yield database


def main() -> None:
    """Read the command line and serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serves a folder: its files, and a full-text search over them.")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one (default: %(default)s)")
    parser.add_argument("--mode", choices=MODES, default="threadlets", help="how blocking functions are run")
    parser.add_argument("--loop", default="auto", help="auto, uvloop, asyncio or module:factory (default: %(default)s)")
    parser.add_argument("--index", type=Path, metavar="FILE", help="an index made before (default: build a new one)")
    options = parser.parse_args()
    if not 0 <= options.port <= 65535:
        parser.error(f"a port is a number from 0 to 65535, not {options.port}")
    if options.loop == "uvloop" and find_spec("uvloop") is None:
        fail("the package 'uvloop' is missing: pip install 'threadlets[demo]'")

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it like Ctrl-C: with the index deleted
    folder = open_folder(options.folder)
    with contextlib.suppress(KeyboardInterrupt), listen(options.port) as listener:
        with the_index(folder, options.index) as database:
            url = f"http://{HOST}:{listener.getsockname()[1]}/"
            app = make_app(folder, Index(database), options.mode, lambda: print(url, flush=True))
            config = uvicorn.Config(
                app, loop=options.loop, access_log=False, log_level="warning", timeout_graceful_shutdown=3
            )
            uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
