"""Static files over HTTP: those of Starlette and of aiohttp, and ours; the same files, the same server, in turns.

All servers are up at the same time, and one at a time is asked, by 32 connections from another process. What has no
files, bare ASGI that answers with bytes which it has, is the most that there is to be had from this server.

With files of 1 MiB most of the time goes into copying them through the system's sockets, and into the load generator.

A server alone, as the parent runs it: ``python -m benchmarks.static KIND LOOP FOLDER``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from .harness import Comparison, Effort, has
from .serving import EXAMPLES, LOOPS, PATIENCE

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
            name: stack.enter_context(_server(kind, LOOPS[loop][which], folder))
            for name, (kind, which) in contenders.items()
        }
        for _ in range(rounds):
            for size, lists in samples.items():
                for name, url in urls.items():
                    lists[name].append(_load(url, f"/{SIZES[size]}", seconds))
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


@contextmanager
def _server(kind: str, loop: str, folder: str) -> Iterator[str]:
    """Run a server, and yield its URL."""
    command = [sys.executable, "-m", __name__ if __spec__ is None else __spec__.name, kind, loop, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=EXAMPLES.parent, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the server ended with exit code {server.wait()}")
            yield url
        finally:
            server.terminate()
            try:
                server.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                server.kill()


def _load(url: str, path: str, seconds: float) -> float:
    """Ask from another process, and return the answers per second."""
    command = [sys.executable, EXAMPLES / "load.py", url, "--path", path, "--connections", CONNECTIONS]
    command += ["--seconds", seconds, "--warm-up", 0.2]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, timeout=seconds + PATIENCE, check=True)
    found = json.loads(done.stdout)
    if found["errors"]:
        raise RuntimeError(f"{found['errors']} errors, first: {found['first_error']}")
    return float(found["answered"] / seconds)


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


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """Make the loop that uvicorn's word for it means."""
    if name == "asyncio":
        return asyncio.new_event_loop()
    module, _, function = name.partition(":")
    made: asyncio.AbstractEventLoop = getattr(import_module(module), function or "new_event_loop")()
    return made


def main() -> None:
    """Serve until terminated."""
    kind, loop, folder = sys.argv[1:]
    listener = socket.socket(proto=socket.IPPROTO_TCP)  # asyncio sends small pieces at once only if it knows this
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        (serve_aiohttp if kind.startswith("aiohttp") else serve_asgi)(kind, loop, folder, listener)


if __name__ == "__main__":
    main()
