"""The middleware for ASGI applications on the servers that people run: uvicorn and hypercorn."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.test_servers import asgi as uvicorn_server
from tests.test_servers import listening
from tests.workbench import PATIENCE, forever, until
from threadlets import Concurrency, Pool
from threadlets.adapters.asgi import PoolMiddleware, lifespan

Serving = Callable[[Any], AbstractAsyncContextManager[int]]  # serves an application; yields its port
ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"


@asynccontextmanager
async def on_uvicorn(app: Any) -> AsyncIterator[int]:
    """Serve with uvicorn."""
    async with uvicorn_server(app, None, lifespan="on") as port:
        yield port


@asynccontextmanager
async def on_hypercorn(app: Any) -> AsyncIterator[int]:
    """Serve with hypercorn, on the loop that runs: its own programs choose theirs by themselves."""
    pytest.importorskip("hypercorn")
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config, stop = Config(), asyncio.Event()
    listens = listening()
    port = listens.getsockname()[1]
    config.bind = [f"fd://{listens.detach()}"]  # it closes that
    config.errorlog = None
    serving = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))
    try:
        yield port
    finally:
        stop.set()
        await serving


SERVERS: dict[str, Serving] = {
    "uvicorn": on_uvicorn,
    "hypercorn": on_hypercorn,
}


async def connect(port: int, request: str, body: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request on a connection of its own."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(f"{request} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode())
    writer.write(body)
    return reader, writer


async def ask(port: int, request: str, body: bytes = b"") -> bytes:
    """Send a request, and return all that comes back."""
    reader, writer = await connect(port, request, body)
    answered = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answered


class Shop:
    """An application of Starlette's, with a middleware of its own inside of ours."""

    def __init__(self, pool: Pool, **options: Any) -> None:
        applications = pytest.importorskip("starlette.applications")
        from starlette.background import BackgroundTask
        from starlette.middleware.base import BaseHTTPMiddleware
        from starlette.responses import PlainTextResponse, StreamingResponse

        self.events: list[str] = []
        self.arrived, self.go = asyncio.Event(), asyncio.Event()

        async def echo(request: Any) -> Any:
            await asyncio.sleep(0)
            return PlainTextResponse(await request.body())

        async def stream(request: Any) -> Any:
            async def pieces() -> AsyncIterator[bytes]:
                for number in range(3):
                    await asyncio.sleep(0)
                    yield b"piece %d," % number

            return StreamingResponse(pieces())

        async def background(request: Any) -> Any:
            async def work() -> None:
                await self.go.wait()
                self.events.append("worked")

            return PlainTextResponse("soon", background=BackgroundTask(work))

        async def forever_(request: Any) -> Any:
            self.arrived.set()
            try:
                await forever()
            except CancelledError:
                self.events.append("cancelled")
                raise

        async def polls(request: Any) -> Any:
            while not await request.is_disconnected():
                self.arrived.set()
                await asyncio.sleep(0)
            self.events.append("told")
            return PlainTextResponse("for nobody")

        async def dispatch(request: Any, call_next: Any) -> Any:
            response = await call_next(request)
            response.headers["x-seen"] = "yes"
            return response

        def but_for_polls(app: Any) -> Any:  # in a BaseHTTPMiddleware is_disconnected() is never true, on any server
            base = BaseHTTPMiddleware(app, dispatch=dispatch)

            async def either(scope: Any, receive: Any, send: Any) -> None:
                await (app if scope.get("path") == "/polls" else base)(scope, receive, send)

            return either

        app = applications.Starlette(lifespan=lifespan(pool))
        app.add_route("/echo", echo, methods=["POST"])
        for path, endpoint in {"stream": stream, "background": background, "forever": forever_, "polls": polls}.items():
            app.add_route(f"/{path}", endpoint)
        app.add_middleware(but_for_polls)
        app.add_middleware(PoolMiddleware, pool=pool, **options)
        self.app = app


def test_starlette_on_uvicorn(run: Run) -> None:
    """Bodies, streams, background work, clients that go while they are queued, run, or ask: all as it should be."""
    run(everything, on_uvicorn)


@pytest.mark.parametrize("run", ["asyncio", "uvhands"], indirect=True)
def test_starlette_on_hypercorn(run: Run) -> None:
    """The same."""
    run(everything, on_hypercorn)


async def everything(serving: Serving) -> None:
    """Ask for it."""
    pool = Pool(Concurrency(1))
    shop = Shop(pool)
    async with serving(shop.app) as port:
        body = b"0123456789" * 20_000
        assert (await ask(port, "POST /echo", body)).endswith(b"\r\n\r\n" + body)
        assert b"x-seen: yes" in (answered := await ask(port, "GET /stream"))
        assert all(b"piece %d," % number in answered for number in range(3))
        assert (await ask(port, "GET /nothing")).startswith(b"HTTP/1.1 404")

        shop.go.clear()
        assert (await ask(port, "GET /background")).endswith(b"soon")
        assert len(pool) == 1
        shop.go.set()
        await pool.drain()

        for path in ("/forever", "/polls"):
            shop.arrived.clear()
            _, first = await connect(port, f"GET {path}")
            await shop.arrived.wait()
            _, second = await connect(port, "POST /echo", b"x" * 1000)
            await until(lambda: len(pool) == 2)
            second.close()
            await until(lambda: len(pool) == 1)
            first.close()
            await until(lambda: not len(pool))
        assert shop.events == ["worked", "cancelled", "told"]
    assert "closed" in repr(pool)


@pytest.mark.parametrize("server", SERVERS)
def test_refused_and_cut_off_on_real_servers(once: Run, server: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A client that is not served is told when to come again; one whose response had begun sees that it is cut off."""

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"content-length", b"2")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"1", "more_body": True})
            await forever()

        pool = Pool(Concurrency(1), capacity=1)
        served = PoolMiddleware(app, pool, owns=True)
        async with SERVERS[server](served) as port:
            reader, writer = await connect(port, "GET /")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200") and await reader.readexactly(1) == b"1"
            refused = await ask(port, "POST /", b"x" * 100)
            assert refused.startswith(b"HTTP/1.1 503") and b"\r\nretry-after: 1\r\n" in refused
            pool.cancel("enough")
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    once(main)
    assert server != "uvicorn" or "Interrupted" in capsys.readouterr().err


HYPERCORN = """
import asyncio, socket, sys, time
from hypercorn.asyncio import serve
from hypercorn.config import Config
import threadlets

async def app(scope, receive, send):
    blocked = scope["path"] == "/blocked"
    with threadlets.blocking():
        time.sleep(0.1 if blocked else 0)
    loop = asyncio.get_running_loop()
    body = f"{type(loop).__module__} {loop.statistics().takeovers}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})

listens = socket.create_server(("127.0.0.1", 0))
print(listens.getsockname()[1], flush=True)
config = Config()
config.bind = [f"fd://{listens.detach()}"]
threadlets.run(serve(app, config, mode="asgi"), loop=sys.argv[1])
"""


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_hypercorn_as_a_program(kind: str, tmp_path: Path) -> None:
    """``threadlets.run(serve(app, config), loop=...)``: hypercorn on a loop that changes hands, until SIGTERM."""
    pytest.importorskip("hypercorn")
    pytest.importorskip(kind)
    (tmp_path / "served.py").write_text(HYPERCORN)

    async def both(port: int) -> tuple[bytes, bytes]:
        blocked = asyncio.create_task(ask(port, "GET /blocked"))
        quick = b" 0"
        while quick.endswith(b" 0"):  # until another thread answers
            quick = await ask(port, "GET /quick")
            assert not blocked.done()
        return quick, await blocked

    command = [sys.executable, str(tmp_path / "served.py"), kind]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as served:
        try:
            assert served.stdout is not None
            port = int(served.stdout.readline())
            quick, _ = asyncio.run(asyncio.wait_for(both(port), PATIENCE))
            module = "threadlets.loops" if kind == "asyncio" else "threadlets.adapters.uvloop"
            assert module.encode() in quick
            served.send_signal(signal.SIGTERM)
            said = served.communicate(timeout=PATIENCE)[0]
            assert "Traceback" not in said and served.returncode == 0, said
        finally:
            served.kill()
