"""Static files over HTTP: those of Starlette and of aiohttp, and ours; the same files, the same server, in turns.

All servers are up at the same time, and one at a time is asked, by 32 connections from another process. What has no
files, bare ASGI that answers with bytes which it has, is the most that there is to be had from this server.

With files of 1 MiB most of the time goes into copying them through the system's sockets, and into the load generator.

A server alone, as the parent runs it: ``python -m benchmarks.static KIND LOOP FOLDER``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .harness import Comparison, Effort, has
from .serving import LOOPS, listening, load, new_loop, server

__all__ = ["measure"]

SIZES = {"10 KiB": 10 << 10, "1 MiB": 1 << 20}
CONNECTIONS = 32
FLOOR = 8.0  # times as many requests/s as Starlette, at 10 KiB
STARLETTE = {  # contender: what is served, and on which loop
    "ours": ("ours", "plain"),
    "ours, changes hands": ("ours", "ours"),
    "Starlette": ("starlette", "plain"),
    "no files": ("bare", "plain"),
}
AIOHTTP = {
    "ours": ("aiohttp-ours", "plain"),
    "ours, changes hands": ("aiohttp-ours", "ours"),
    "aiohttp": ("aiohttp", "plain"),
}


def measure(loop: str, effort: Effort) -> list[Comparison]:
    """Measure all of it for one kind of loop."""
    rounds, seconds = (1, 0.7) if effort.quick else (7, 1.0)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES.values():
            Path(folder, str(size)).write_bytes(os.urandom(size))
        if has("starlette") and has("uvicorn"):
            found += _compare("Starlette", STARLETTE, loop, folder, rounds, seconds)
        if has("aiohttp"):
            found += _compare("aiohttp", AIOHTTP, loop, folder, rounds, seconds)
    return found


def _compare(
    theirs: str, contenders: dict[str, tuple[str, str]], loop: str, folder: str, rounds: int, seconds: float
) -> list[Comparison]:
    samples: dict[str, dict[str, list[float]]] = {size: {name: [] for name in contenders} for size in SIZES}
    with ExitStack() as stack:
        urls = {
            name: stack.enter_context(server(__name__, kind, LOOPS[loop][which], folder))
            for name, (kind, which) in contenders.items()
        }
        for _ in range(rounds):
            for size, lists in samples.items():
                for name, url in urls.items():
                    lists[name].append(load(url, f"/{SIZES[size]}", CONNECTIONS, seconds))
    return [
        Comparison(
            size,
            "ours",
            lists,
            floors={theirs: FLOOR} if (theirs, size, loop) == ("Starlette", "10 KiB", "uvloop") else {},
            against=theirs,
            unit="/s",
            note=f"{CONNECTIONS} connections; one file, which is in memory.",
            table=f"requests/s for static files, beside those of {theirs}",
        )
        for size, lists in samples.items()
    ]


# ---------------------------------------------------------------------------------------------------- a server, alone


def make_bare(folder: str) -> Any:
    """Make an application that has all files of a folder as bytes."""
    bodies = {f"/{file.name}": file.read_bytes() for file in Path(folder).iterdir()}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = bodies[scope["path"]]
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def serve_asgi(kind: str, loop: str, folder: str, listener: socket.socket) -> None:
    """Serve with uvicorn until terminated."""
    import uvicorn

    app: Any
    if kind == "bare":
        app = make_bare(folder)
    elif kind == "starlette":
        from starlette.staticfiles import StaticFiles

        app = StaticFiles(directory=folder)
    else:
        from threadlets.adapters.starlette import StaticFiles as OurStaticFiles

        app = OurStaticFiles(directory=folder)
    config = uvicorn.Config(app, loop=loop, http="httptools", access_log=False, log_level="warning", lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


def serve_aiohttp(kind: str, loop: str, folder: str, listener: socket.socket) -> None:
    """Serve with aiohttp's runner until terminated."""
    from aiohttp import web

    app = web.Application()
    if kind == "aiohttp":
        app.router.add_static("/", folder)
    else:
        from threadlets.adapters.aiohttp import add_static

        add_static(app.router, "/", folder)
    web.run_app(app, sock=listener, access_log=None, print=None, loop=new_loop(loop))


def main() -> None:
    """Serve until terminated."""
    kind, loop, folder = sys.argv[1:]
    listener, url = listening()
    print(url, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        (serve_aiohttp if kind.startswith("aiohttp") else serve_asgi)(kind, loop, folder, listener)


if __name__ == "__main__":
    main()
