"""Web servers on event loops that change hands: under load, when requests block every answer arrives, and is right.

Over 400 lines: every server is asked the same questions, by the same client.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import PATIENCE, Gate
from threadlets import blocking, threadlet

HOST = "127.0.0.1"
CONNECTIONS, REQUESTS = 32, 30  # each connection asks so often: one in six requests blocks for 20 ms or more
SIZES = (0, 10, 3_000, 150_000)  # bytes; the last one fills the buffers of a socket
changing = pytest.mark.parametrize("run", ["hands", "uvhands"], indirect=True)

Answer = Callable[[str, int, bytes], Awaitable[bytes]]  # the kind of request, the size of the answer, the body
Serve = Callable[[Answer, "Certificate | None"], AbstractAsyncContextManager[int]]


# ------------------------------------------------------------------------------------------- what is asked


@threadlet
def doze(seconds: float) -> None:
    """Block, as a threadlet that runs in place until it is known."""
    time.sleep(seconds)


async def answer(kind: str, size: int, body: bytes) -> bytes:
    """Answer a request in one of several ways."""
    if kind == "region":
        with blocking():
            time.sleep(0.02)
    elif kind == "threadlet":
        await doze(0.03)
    elif kind == "await":
        await asyncio.sleep(0.001)
    elif kind == "echo":
        return body
    return body[:1] + b"x" * size


KINDS = ("quick", "region", "await", "quick", "echo", "quick", "threadlet", "await", "echo", "quick", "quick", "quick")


class Certificate:
    """A certificate for this host, and who trusts it."""

    def __init__(self, folder: Path) -> None:
        trustme = pytest.importorskip("trustme")
        authority = trustme.CA()
        issued = authority.issue_cert(HOST)
        self.path = str(folder / "server.pem")
        issued.private_key_and_cert_chain_pem.write_to_path(self.path)
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.client = ssl.create_default_context()
        issued.configure_cert(self.server)
        authority.configure_trust(self.client)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Make a certificate, once."""
    return Certificate(tmp_path_factory.mktemp("certificate"))


class Connection:
    """A client's connection, which is kept for many requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, kind: str, size: int = 0, body: bytes = b"") -> bytes:
        """Send a request; return the body of the answer."""
        head = f"POST /{kind}/{size} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        assert " 200 " in head.partition("\r\n")[0], head
        length = re.search("content-length: ([0-9]+)", head.lower())
        assert length is not None, head
        return await self._reader.readexactly(int(length[1]))

    async def close(self) -> None:
        """Close it."""
        self._writer.close()
        await self._writer.wait_closed()


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext | None = None) -> AsyncIterator[Connection]:
    """Connect to the server."""
    connection = Connection(*await asyncio.open_connection(HOST, port, ssl=context))
    try:
        yield connection
    finally:
        await connection.close()


async def load(port: int, context: ssl.SSLContext | None) -> int:
    """Ask for many answers on many connections; return how many were right: all of them, or an assertion fails."""

    async def visit(client: int) -> int:
        async with connected(port, context) as connection:
            for number in range(REQUESTS):
                kind = KINDS[(client + number) % len(KINDS)]
                size = SIZES[(client + number // 7) % len(SIZES)]
                body = bytes([client]) * (size or 1)
                got = await connection.ask(kind, size, body)
                assert got == (body if kind == "echo" else body[:1] + b"x" * size), (client, number, kind)
            return REQUESTS

    return sum(await asyncio.gather(*(visit(client) for client in range(CONNECTIONS))))


def elsewhere(main: Callable[[], Any]) -> Awaitable[Any]:
    """Run a client on a thread and a loop of its own."""
    return asyncio.to_thread(lambda: asyncio.run(asyncio.wait_for(main(), PATIENCE)))


# ------------------------------------------------------------------------------------------- who answers


def listening() -> socket.socket:
    """Listen on a free port."""
    return socket.create_server((HOST, 0), backlog=128)


@asynccontextmanager
async def streams(answer: Answer, certificate: Certificate | None) -> AsyncIterator[int]:
    """Serve with ``asyncio.start_server``."""

    serving: set[asyncio.Task[Any] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                _, kind, size = head.split(" ")[1].split("/")
                length = re.search("Content-Length: ([0-9]+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                told = await answer(kind, int(size), body)
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(told)}\r\n\r\n".encode() + told)
                await writer.drain()
        except asyncio.IncompleteReadError:  # the client has closed the connection
            pass
        finally:
            writer.close()
            await writer.wait_closed()

    context = certificate.server if certificate else None
    server = await asyncio.start_server(serve, sock=listening(), ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
    await asyncio.gather(*filter(None, serving))  # before 3.12, wait_closed() does not wait for them


@asynccontextmanager
async def asgi(app: Any, certificate: Certificate | None, **options: Any) -> AsyncIterator[int]:
    """Serve an ASGI application with uvicorn; leaving stops it gracefully."""
    uvicorn = pytest.importorskip("uvicorn")
    listens = listening()
    if certificate:
        options["ssl_certfile"] = certificate.path
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_keep_alive=60, **options))
    serving = asyncio.create_task(server.serve(sockets=[listens]))
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.001)
        yield listens.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
        listens.close()


@asynccontextmanager
async def uvicorn_server(answer: Answer, certificate: Certificate | None, **options: Any) -> AsyncIterator[int]:
    """Serve with uvicorn, without a framework."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            body, more = body + message["body"], message["more_body"]
        _, kind, size = scope["path"].split("/")
        told = await answer(kind, int(size), body)
        headers = [(b"content-length", str(len(told)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": told})

    async with asgi(app, certificate, lifespan="off", **options) as port:
        yield port


@asynccontextmanager
async def aiohttp_server(answer: Answer, certificate: Certificate | None) -> AsyncIterator[int]:
    """Serve with aiohttp."""
    web = pytest.importorskip("aiohttp.web")

    async def handle(request: Any) -> Any:
        told = await answer(request.match_info["kind"], int(request.match_info["size"]), await request.read())
        return web.Response(body=told)

    app = web.Application()
    app.router.add_post("/{kind}/{size}", handle)
    runner = web.AppRunner(app, shutdown_timeout=PATIENCE)
    await runner.setup()
    listens = listening()
    await web.SockSite(runner, listens, ssl_context=certificate.server if certificate else None).start()
    try:
        yield listens.getsockname()[1]
    finally:
        await runner.cleanup()


SERVERS: dict[str, Serve] = {
    "streams": streams,
    "uvicorn-h11": partial(uvicorn_server, http="h11"),
    "uvicorn-httptools": partial(uvicorn_server, http="httptools"),
    "aiohttp": aiohttp_server,
}
each_server = pytest.mark.parametrize("server", SERVERS)


def serve_with(server: str) -> Serve:
    """Return a server whose library is there."""
    if server != "streams":
        pytest.importorskip(server.partition("-")[0])
    if server.endswith("httptools"):
        pytest.importorskip("httptools")
    return SERVERS[server]


# ------------------------------------------------------------------------------------------- load


@changing
@each_server
@pytest.mark.parametrize("transport", ["plain", "TLS"])
def test_every_answer_arrives(run: Run, server: str, transport: str, certificate: Certificate) -> None:
    """Many connections, some requests block in regions and threadlets: no error, no lost answer, each body is right."""
    trusts = certificate if transport == "TLS" else None

    async def main() -> None:
        async with serve_with(server)(answer, trusts) as port:
            asked = await elsewhere(lambda: load(port, trusts.client if trusts else None))
            assert asked == CONNECTIONS * REQUESTS
        loop: Any = asyncio.get_running_loop()
        assert loop.statistics().takeovers > 0

    run(main)


@changing
@each_server
def test_shutdown_while_requests_are_blocked(run: Run, server: str) -> None:
    """A server that is stopped while requests block, one of them on the home thread, answers all of them first."""

    async def main() -> None:
        gate, stopping = Gate(), asyncio.Event()
        loop = asyncio.get_running_loop()

        async def blocked(kind: str, size: int, body: bytes) -> bytes:
            with blocking():
                gate()
            return body

        async def clients() -> list[bytes]:
            async def ask(number: int) -> bytes:
                async with connected(port) as connection:
                    return await connection.ask("blocked", 0, bytes([number]))

            asking = [asyncio.create_task(ask(number)) for number in range(8)]
            for _ in asking:
                await asyncio.to_thread(gate.wait_arrived)
            loop.call_soon_threadsafe(stopping.set)
            return await asyncio.gather(*asking)

        async with serve_with(server)(blocked, None) as port:
            asking = asyncio.ensure_future(elsewhere(clients))
            await stopping.wait()
            loop.call_later(0.05, gate.open)  # while it is being stopped
        assert await asking == [bytes([number]) for number in range(8)]

    run(main)


# ------------------------------------------------------------------------------------------- frameworks


@changing
def test_starlette(run: Run, tmp_path: Path) -> None:
    """Plain endpoints on threads, files, streams, background tasks, and the lifespan of a Starlette application."""
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    (tmp_path / "large.bin").write_bytes(large := os.urandom(400_000))
    seen: list[str] = []

    def plain(request: Request) -> Response:
        with blocking():  # on a thread of anyio's: it does nothing
            time.sleep(0.001)
        return PlainTextResponse("plain", background=BackgroundTask(seen.append, "background"))

    async def file(request: Request) -> Response:
        return FileResponse(tmp_path / "large.bin")

    async def stream(request: Request) -> Response:
        def pieces() -> Iterator[bytes]:  # which Starlette runs on threads
            for _ in range(5):
                time.sleep(0.001)
                yield b"piece"

        return StreamingResponse(pieces(), headers={"Content-Length": "25"})

    async def body(request: Request) -> Response:
        with blocking():
            time.sleep(0.005)
        return JSONResponse({"length": len(await request.body())})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        seen.append("started")
        yield
        with blocking():
            time.sleep(0.005)
        seen.append("stopped")

    endpoints = {"plain": plain, "file": file, "stream": stream, "body": body}
    routes = [Route(f"/{name}/0", endpoint, methods=["POST"]) for name, endpoint in endpoints.items()]
    expected = {"plain": b"plain", "file": large, "stream": b"piece" * 5, "body": b'{"length":4}'}

    async def clients(port: int) -> None:
        async def visit() -> None:
            async with connected(port) as connection:
                for name in ["body", "plain", "file", "stream"] * 3:
                    assert await connection.ask(name, 0, b"body") == expected[name], name

        await asyncio.gather(*(visit() for _ in range(8)))

    async def main() -> None:
        async with asgi(Starlette(routes=routes, lifespan=lifespan), None, lifespan="on") as port:
            await elsewhere(lambda: clients(port))
        assert (seen[0], seen[-1], seen.count("background")) == ("started", "stopped", 24)

    run(main)


@changing
@pytest.mark.parametrize("served", ["aiohttp", "starlette"])
def test_websockets(run: Run, served: str) -> None:
    """Messages of many websockets arrive in order, although some of them make the server block."""
    aiohttp = pytest.importorskip("aiohttp")

    def chew(text: str) -> str:
        if text.endswith("7"):
            with blocking():
                time.sleep(0.01)
        return text

    @asynccontextmanager
    async def starlette() -> AsyncIterator[int]:
        pytest.importorskip("uvicorn")
        pytest.importorskip("websockets")
        from starlette.applications import Starlette
        from starlette.routing import WebSocketRoute

        async def talk(socket: Any) -> None:
            await socket.accept()
            async for text in socket.iter_text():
                await socket.send_text(chew(text))

        async with asgi(Starlette(routes=[WebSocketRoute("/", talk)]), None, ws="websockets-sansio") as port:
            yield port

    @asynccontextmanager
    async def of_aiohttp() -> AsyncIterator[int]:
        async def talk(request: Any) -> Any:
            socket = aiohttp.web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(chew(message.data))
            return socket

        app = aiohttp.web.Application()
        app.router.add_get("/", talk)
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        listens = listening()
        await aiohttp.web.SockSite(runner, listens).start()
        yield listens.getsockname()[1]
        await runner.cleanup()

    async def clients(port: int) -> None:
        async def talk(client: int) -> None:
            async with session.ws_connect(f"http://{HOST}:{port}/") as socket:
                for number in range(20):
                    await socket.send_str(f"{client}.{number}")
                assert [await socket.receive_str() for _ in range(20)] == [f"{client}.{n}" for n in range(20)]

        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(talk(client) for client in range(10)))

    async def main() -> None:
        async with starlette() if served == "starlette" else of_aiohttp() as port:
            await elsewhere(lambda: clients(port))

    run(main)


# ------------------------------------------------------------------------------------------- programs

APP = """
import asyncio, time
from threadlets import blocking

async def app(scope, receive, send):
    assert scope["type"] == "http"
    loop = asyncio.get_running_loop()
    if scope["path"].startswith("/blocked"):
        print("blocked", flush=True)
        with blocking():
            time.sleep(0.3)
    text = f"{type(loop).__module__} {loop.statistics().takeovers}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})
"""

AIOHTTP = """
import asyncio, sys, time
from importlib import import_module
from aiohttp import web
from threadlets import blocking

async def handle(request):
    loop = asyncio.get_running_loop()
    if request.match_info["kind"] == "blocked":
        print("blocked", flush=True)
        with blocking():
            time.sleep(0.3)
    return web.Response(text=f"{type(loop).__module__} {loop.statistics().takeovers}")

async def stopped(app):
    print("stopped", flush=True)

app = web.Application()
app.router.add_post("/{kind}/{size}", handle)
app.on_cleanup.append(stopped)
sock = __import__("socket").create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
web.run_app(app, sock=sock, loop=import_module(sys.argv[1]).new_event_loop(), print=None)
print("left", flush=True)
"""


@contextmanager
def program(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a server as a program; give it and its port, as soon as it says so."""
    process = subprocess.Popen(
        [sys.executable, "-u", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    alarm = threading.Timer(PATIENCE, process.kill)
    alarm.start()
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(rf"http://{HOST}:([0-9]+)", line):
                yield process, int(found[1])
                return
        raise AssertionError("".join(said))
    finally:
        alarm.cancel()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def rest_of(process: subprocess.Popen[str]) -> str:
    """Wait until a program has ended; return what else it said."""
    assert process.stdout is not None
    said = process.stdout.read()
    process.wait()
    return said


async def ask_and_stop(process: subprocess.Popen[str], port: int, number: int) -> tuple[str, str]:
    """Send two requests at once, and a signal while one of them blocks; return what both were told."""
    async with connected(port) as first, connected(port) as second:
        quick = (await first.ask("quick")).decode()
        asking = asyncio.create_task(second.ask("blocked"))
        assert process.stdout is not None
        while (line := await asyncio.to_thread(process.stdout.readline)) != "blocked\n":
            assert line, "it has ended"
        await first.ask("quick")  # another thread answers
        process.send_signal(number)
        return quick, (await asking).decode()


LOOPS = {"hands": "threadlets", "uvhands": "threadlets.adapters.uvloop"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", LOOPS)
def test_uvicorn_as_a_program(kind: str, number: int, tmp_path: Path) -> None:
    """``uvicorn --loop threadlets:new_event_loop`` runs on our loop, and a signal lets blocked requests end."""
    pytest.importorskip("uvicorn", minversion="0.36")
    if kind == "uvhands":
        pytest.importorskip("uvloop")
    (tmp_path / "served.py").write_text(APP)
    arguments = ["--app-dir", str(tmp_path), "--port", "0", "--lifespan", "off", "--no-access-log"]
    with program("-m", "uvicorn", "served:app", "--loop", f"{LOOPS[kind]}:new_event_loop", *arguments) as (
        process,
        port,
    ):
        quick, blocked = asyncio.run(ask_and_stop(process, port, number))
        assert quick.partition(" ")[0] == (LOOPS[kind] if kind == "uvhands" else "threadlets.loops")
        assert int(blocked.partition(" ")[2]) > 0
        said = rest_of(process)
        assert "Finished server process" in said and "Traceback" not in said, said
        assert process.returncode in (0, -number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", LOOPS)
def test_aiohttp_as_a_program(kind: str, number: int, tmp_path: Path) -> None:
    """``web.run_app(app, loop=...)`` runs on our loop, and a signal lets blocked requests end."""
    pytest.importorskip("aiohttp")
    if kind == "uvhands":
        pytest.importorskip("uvloop")
    (tmp_path / "served.py").write_text(AIOHTTP)
    with program(str(tmp_path / "served.py"), LOOPS[kind]) as (process, port):
        quick, blocked = asyncio.run(ask_and_stop(process, port, number))
        assert quick.partition(" ")[0] == (LOOPS[kind] if kind == "uvhands" else "threadlets.loops")
        assert int(blocked.partition(" ")[2]) > 0
        said = rest_of(process)
        assert said == "stopped\nleft\n" and process.returncode == 0
