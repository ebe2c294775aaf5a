"""What the loop serves goes on while home is away: connections, processes, signals, calls from other threads."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from typing import Any

import pytest

from tests.conftest import Run
from tests.takeovers import Away, at_home
from tests.workbench import PATIENCE
from threadlets import blocking


def test_streams(hands: Run) -> None:
    """Connections made at home serve on spares, and the other way round."""

    async def main() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.readline():
                writer.write(data.upper())
                await writer.drain()
            writer.close()

        async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for size in (1, 100_000):
                writer.write(b"x" * size + b"\n")
                assert await reader.readexactly(size + 1) == b"X" * size + b"\n"

        async def connect(server: asyncio.Server) -> Any:
            return await asyncio.open_connection(*server.sockets[0].getsockname(), limit=2**20)

        async def serve() -> asyncio.Server:
            return await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**20)

        servers = [await serve()]
        connections = [await connect(servers[0])]
        async with Away():
            servers.append(await serve())
            connections += [await connect(server) for server in servers]
            for connection in connections:
                await ask(*connection)
            assert not at_home()
        assert at_home()
        connections += [await connect(server) for server in servers]
        await asyncio.gather(*(ask(*connection) for connection in connections))
        async with Away():
            await asyncio.gather(*(ask(*connection) for connection in connections))
            for _, writer in connections:
                writer.close()
                await writer.wait_closed()
            for server in servers:
                server.close()
                await server.wait_closed()
            assert not at_home()

    hands(main)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # asyncio's, about child watchers
def test_subprocesses(hands: Run) -> None:
    """Processes are started, talked to and waited for at home and on spares."""

    async def echo() -> None:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", "cat; exit 3"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert await process.communicate(b"hello") == (b"hello", None)
        assert await process.wait() == 3

    async def main() -> None:
        await echo()
        async with Away():
            await echo()
            assert not at_home()
            both = asyncio.create_task(echo())
            await asyncio.sleep(0)
        await both

    hands(main)


def test_signal_while_home_is_away(hands: Run) -> None:
    """A signal whose handler was added at home is handled by whoever drives; no handler is added or removed there."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[bool] = asyncio.Queue()
        loop.add_signal_handler(signal.SIGUSR1, lambda: arrived.put_nowait(at_home()))
        os.kill(os.getpid(), signal.SIGUSR1)
        assert await arrived.get() is True
        async with Away():
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGUSR1)
                assert await arrived.get() is False
            with pytest.raises(RuntimeError, match="pinned"):
                loop.add_signal_handler(signal.SIGUSR2, print)
            with pytest.raises(RuntimeError, match="pinned"):
                loop.remove_signal_handler(signal.SIGUSR1)
        assert loop.remove_signal_handler(signal.SIGUSR1)

    hands(main)


def test_executor_and_threadsafe_calls(hands: Run) -> None:
    """What other threads hand to the loop arrives while home is away, also from the one that is away."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Away():
            assert await loop.run_in_executor(None, threading.get_ident) != threading.get_ident()
            assert await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(told(), loop).result()) == 1
        arrived, home = asyncio.Event(), threading.get_ident()

        async def block() -> None:
            with blocking():
                loop.call_soon_threadsafe(arrived.set)
                assert asyncio.run_coroutine_threadsafe(told(), loop).result(PATIENCE) == 1
            assert threading.get_ident() == home

        await asyncio.create_task(block())
        assert arrived.is_set()

    async def told() -> int:
        await asyncio.sleep(0)
        return 1

    hands(main)


def test_order_among_callbacks_of_transports(run: Run) -> None:
    """What a transport has asked for and what users ask for run in the order in which they were asked for."""

    class Protocol(asyncio.Protocol):
        def connection_lost(self, error: Exception | None) -> None:
            order.append("lost")
            asyncio.get_running_loop().call_soon(order.append, "after")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            transport, _ = await loop.create_unix_connection(Protocol, sock=ours)
            loop.call_soon(order.append, "first")
            transport.abort()
            loop.call_soon(order.append, "second")
            for _ in range(4):
                await asyncio.sleep(0)

    order: list[str] = []
    run(main)
    assert order == ["first", "lost", "second", "after"]
