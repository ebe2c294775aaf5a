"""A real HTTP server under load: uvicorn in one process, connections that ask as fast as it answers in another.

The application is bare ASGI and does nothing but call one function, some of whose calls block for 100 ms: the
difference between two ways to call it is not to drown in a framework's work. The server measures how late its loop is,
as shares of *time*: a loop that stands still for 100 ms is late once, and a percentile of beats would not show it.

The server alone, as the parent runs it: ``python -m benchmarks.serving WAY LOOP PERCENT``; load generator and heartbeat
are those of the examples.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from urllib.request import urlopen

__all__ = ["LOOPS", "WAYS", "Served", "listening", "load", "new_loop", "serve", "server"]

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
BLOCKS = 0.1  # seconds that some calls block
CONNECTIONS = 64
PATIENCE = 30.0  # seconds for the server to start or to stop, and for the last answers
WAYS = ("nothing", "direct", "to_thread", "to_thread_wide", "threadlet")
LOOPS = {  # what uvicorn is told
    "asyncio": {"plain": "asyncio", "ours": "threadlets:new_event_loop"},
    "uvloop": {"plain": "uvloop", "ours": "threadlets.adapters.uvloop:new_event_loop"},
}


@dataclass(frozen=True, slots=True)
class Served:
    """What one run has found: answers per second; how late the loop was, in milliseconds; takeovers, if there can be.

    ``p99_lag`` is the lag that was exceeded during 1 % of the time.
    """

    per_second: float
    p99_lag: float
    worst_lag: float
    takeovers: int | None


class Sometimes:
    """A function that blocks in some percent of its calls; which ones is chance, but the same chance for everybody."""

    def __init__(self, percent: float) -> None:
        self._every = round(100 / percent) if percent else 0
        self._random = random.Random(2007)
        self._lock = threading.Lock()
        self._calls = self._slow = 0

    def __call__(self) -> bytes:
        """Answer. Thread: any."""
        if self._every:
            with self._lock:
                place = self._calls % self._every
                self._calls += 1
                if place == 0:
                    self._slow = self._random.randrange(self._every)
                slow = place == self._slow
            if slow:
                time.sleep(BLOCKS)
        return b"answered"


def serve(way: str, loop: str, percent: float, seconds: float, warm_up: float = 1.0) -> Served:
    """Run a server and the load, each in a process of its own, and return what was measured.

    Args:
        way: One of ``WAYS``: how the function is called.
        loop: As uvicorn's ``--loop``.
        percent: Of the calls: how many block.
        seconds: How long to measure.
        warm_up: The same load before that, in seconds, is not measured.

    Raises:
        RuntimeError: If a request failed, or the loop is not the one that was asked for.
    """
    with server(__name__, way, loop, str(percent)) as url:
        found = ask(url, "/", CONNECTIONS, seconds, warm_up)
        with urlopen(f"{url}?since={found['since']}&until={found['until']}", timeout=PATIENCE) as answer:
            about = json.load(answer)
    if (about["takeovers"] is None) is loop.startswith("threadlets"):
        raise RuntimeError(f"the server did not run on {loop}")
    return Served(found["answered"] / seconds, about["p99_lag"], about["worst_lag"], about["takeovers"])


@contextlib.contextmanager
def server(module: str, *args: str) -> Iterator[str]:
    """Run a server, ``python -m MODULE ARGS``, which prints its URL first, and yield that."""
    command = [sys.executable, "-m", module, *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=EXAMPLES.parent, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the server ended with exit code {process.wait()}")
            yield url
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def ask(url: str, path: str, connections: int, seconds: float, warm_up: float = 0.2) -> dict[str, Any]:
    """Ask a server from another process, and return what was found.

    Raises:
        RuntimeError: If a request failed.
    """
    command = [sys.executable, EXAMPLES / "load.py", url, "--path", path, "--connections", connections]
    command += ["--seconds", seconds, "--warm-up", warm_up]
    limit = seconds + warm_up + PATIENCE
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, timeout=limit, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    if found["errors"]:
        raise RuntimeError(f"{found['errors']} errors, first: {found['first_error']}")
    return found


def load(url: str, path: str, connections: int, seconds: float) -> float:
    """Return how many requests per second a server answers."""
    return float(ask(url, path, connections, seconds)["answered"] / seconds)


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """Make the loop that uvicorn's word for it means."""
    if name == "asyncio":
        return asyncio.new_event_loop()
    module, _, function = name.partition(":")
    made: asyncio.AbstractEventLoop = getattr(import_module(module), function or "new_event_loop")()
    return made


def listening() -> tuple[socket.socket, str]:
    """Return a socket that listens on some port, and the URL of what is served there."""
    listener = socket.socket(proto=socket.IPPROTO_TCP)  # asyncio sends small pieces at once only if it knows this
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}/"


def make_app(function: Callable[[], Awaitable[bytes]] | None, url: str, wide: bool) -> Callable[..., Awaitable[None]]:
    """Make the application: it answers with what the function returns; with a query, with what is known of the loop.

    Args:
        function: What is called.
        url: Printed when it has started.
        wide: Give the loop a thread for each connection.
    """
    from heartbeats import Heartbeat, late_for, worst  # of the examples

    heartbeat = Heartbeat()
    kept: list[asyncio.Task[None]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            if wide:
                asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(CONNECTIONS))
            kept.append(asyncio.create_task(heartbeat.run()))
            await send({"type": "lifespan.startup.complete"})
            print(url, flush=True)
            await receive()
            kept.pop().cancel()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["query_string"]:
            body = statistics(parse_qs(scope["query_string"].decode()))
        else:
            body = b"answered" if function is None else await function()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def statistics(query: dict[str, list[str]]) -> bytes:
        since, until = float(query["since"][0]), float(query["until"][0])
        stalls = heartbeat.stalls(since, until)
        takeovers = getattr(asyncio.get_running_loop(), "statistics", None)
        found = {
            "p99_lag": late_for(stalls, until - since, 0.01) * 1000,
            "worst_lag": worst(stalls) * 1000,
            "takeovers": None if takeovers is None else takeovers().takeovers,
        }
        return json.dumps(found).encode()

    return app


def call(way: str, function: Callable[[], bytes]) -> Callable[[], Awaitable[bytes]] | None:
    """Return the way to call a function from a coroutine."""
    if way == "nothing":
        return None
    if way.startswith("to_thread"):
        return functools.partial(asyncio.to_thread, function)
    if way == "threadlet":
        from threadlets import threadlet

        return threadlet(function.__call__)

    async def direct() -> bytes:
        return function()

    return direct


def main() -> None:
    """Serve until terminated."""
    import uvicorn

    way, loop, percent = sys.argv[1:]
    sys.path.insert(0, str(EXAMPLES))
    # asyncio's own transports receive into 256 KiB. Whether the C library maps that memory anew for each piece, at half
    # of the rate, depends on what it has freed before: by this, no server does.
    bytes(1 << 20)
    listener, url = listening()
    app = make_app(call(way, Sometimes(float(percent))), url, way == "to_thread_wide")
    config = uvicorn.Config(app, loop=loop, http="httptools", access_log=False, log_level="warning", lifespan="on")
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
