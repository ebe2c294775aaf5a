"""A load generator: N connections that ask a server as fast as it answers, and measure each answer.

    python examples/load.py http://127.0.0.1:8000/ --path /files/README.md --path /sometimes

Each connection is kept alive and has one request under way at a time (a closed loop), so a server that stands still for
100 ms delays one request per connection, not all those that users would have sent meanwhile: the latencies here flatter
a server that stalls. The loop lag that the server measures of itself does not; read both.

Checks each answer: status 200, and the length that the same path had when it was asked for before the start. Requests
of the warm-up are checked, but not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import cast
from urllib.parse import urlsplit

LAST_ANSWERS = 10.0  # seconds that requests under way may still take when the time is up


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of request: the group under which it is counted, and its path."""

    group: str
    path: str


@dataclass(slots=True)
class Measured:
    """What a load run has found. `since` and `until` are seconds on `time.monotonic`, as are the server's beats.

    `answered` counts the good answers between the two. `latencies` has whole microseconds by group, for requests that
    were sent between the two.
    """

    since: float
    until: float
    answered: int = 0
    latencies: dict[str, list[int]] = field(default_factory=dict)
    errors: int = 0
    first_error: str = ""

    def wrong(self, what: str) -> None:
        """Count an error; keep the first one's words."""
        self.errors += 1
        self.first_error = self.first_error or what


class Answer:
    """Reads one answer of HTTP/1.1 with a content-length, from the pieces in which it arrives."""

    __slots__ = ("_count", "_end", "_received", "length", "status")

    def __init__(self) -> None:
        self._received = b""  # until all of the head is there
        self._count = 0  # bytes, in all
        self._end = 0
        self.status = 0
        self.length = 0

    def feed(self, piece: bytes) -> bool:
        """Take a piece; return whether the answer is complete.

        Raises:
            ValueError: it is not an answer that this class can read.
        """
        self._count += len(piece)
        if not self._end:
            self._received += piece
            head, found, _ = self._received.partition(b"\r\n\r\n")
            if not found:
                return False
            first, _, fields = head.lower().partition(b"\r\n")
            length = (b"\r\n" + fields).partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            self.status, self.length = int(first.split()[1]), int(length)
            self._end = len(head) + 4 + self.length
        if self._count > self._end:
            raise ValueError("more bytes than announced")
        return self._count == self._end


class Connection(asyncio.Protocol):
    """One kept-alive connection: sends the next request when the answer to the last one is complete."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._ask = 0
        self._sent = 0.0
        self._answer = Answer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not derive from it
        self._next()

    def data_received(self, data: bytes) -> None:
        """Read on; when the answer is complete, write it down and go on."""
        try:
            if not self._answer.feed(data):
                return
        except (ValueError, IndexError) as error:
            self._load.measured.wrong(f"unreadable answer: {error}")
            self.close()
            return
        self._load.note(self._ask, self._answer, self._sent, time.monotonic())
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the load; a loss that it did not ask for is an error."""
        self._load.lost(self, error)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()

    def _next(self) -> None:
        assert self._transport is not None
        self._sent = time.monotonic()
        if self._sent >= self._load.measured.until:
            self._load.open.discard(self)
            self.close()
            return
        self._ask = self._load.turn()
        self._answer = Answer()
        self._transport.write(self._load.requests[self._ask])


class Load:
    """One run: which requests in which order, and what came of them.

    Args:
        url: where the server is.
        asks: the requests of one cycle, in order. The connections share it: each takes the next one.
        lengths: the length in bytes that each answer must have.
        warm_up: seconds before the measuring.
        seconds: how long to measure.
    """

    def __init__(self, url: str, asks: Sequence[Ask], lengths: Sequence[int], warm_up: float, seconds: float) -> None:
        since = time.monotonic() + warm_up
        self.measured = Measured(since, since + seconds, latencies={ask.group: [] for ask in asks})
        self.requests = [request(url, ask.path) for ask in asks]
        self.open: set[Connection] = set()
        self._asks = asks
        self._lengths = lengths
        self._turns = count()
        self._all_closed = asyncio.Event()

    def turn(self) -> int:
        """Return the position of the next request."""
        return next(self._turns) % len(self._asks)

    def note(self, position: int, answer: Answer, sent: float, now: float) -> None:
        """Check an answer and write its latency down."""
        measured, ask = self.measured, self._asks[position]
        if answer.status != 200:
            measured.wrong(f"{ask.path}: status {answer.status}")
        elif answer.length != self._lengths[position]:
            measured.wrong(f"{ask.path}: {answer.length} bytes, and {self._lengths[position]} before (has it changed?)")
        else:
            measured.answered += measured.since <= now <= measured.until
            if sent >= measured.since:
                measured.latencies[ask.group].append(round((now - sent) * 1e6))

    def lost(self, connection: Connection, error: Exception | None) -> None:
        """Note that a connection is gone."""
        if connection in self.open:
            self.open.discard(connection)
            self.measured.wrong(f"the server hung up{f': {error}' if error else ''}")
        if not self.open:
            self._all_closed.set()

    async def run(self, host: str, port: int, connections: int) -> Measured:
        """Open the connections, and return when all are closed again.

        Raises:
            OSError: a connection could not be made.
        """
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            connection = Connection(self)
            self.open.add(connection)
            await loop.create_connection(lambda made=connection: made, host, port)  # type: ignore[misc]
        try:
            async with asyncio.timeout(self.measured.until + LAST_ANSWERS - time.monotonic()):
                await self._all_closed.wait()
        except TimeoutError:
            for _ in self.open:
                self.measured.wrong(f"no answer within {LAST_ANSWERS:.0f} s")
        return self.measured


def request(url: str, path: str) -> bytes:
    """Return the bytes of a GET request."""
    return f"GET {path} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\n\r\n".encode("ascii")


async def fetch(url: str, path: str) -> tuple[int, bytes]:
    """Ask once, on a connection of its own; return status and body.

    Raises:
        OSError: the server could not be reached.
        ValueError: its answer could not be read.
    """
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port or 80)
    try:
        writer.write(request(url, path).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        received = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    answer = Answer()
    if not received or not answer.feed(received):
        raise ValueError(f"{path}: the answer is incomplete")
    return answer.status, received[len(received) - answer.length :]


async def measure(url: str, asks: Sequence[Ask], connections: int, warm_up: float, seconds: float) -> Measured:
    """Ask for everything once to learn the lengths, then run the load.

    Args:
        url: where the server is.
        asks: the requests, in order; begun again from the first when all were sent.
        connections: how many ask at the same time.
        warm_up: seconds before the measuring.
        seconds: how long to measure.

    Raises:
        OSError: the server cannot be reached.
        ValueError: one of the requests is refused, or not answered as HTTP/1.1 with a content-length.
    """
    lengths: dict[str, int] = {}
    for ask in asks:
        if ask.path not in lengths:
            status, body = await fetch(url, ask.path)
            if status != 200:
                raise ValueError(f"{ask.path}: status {status}")
            lengths[ask.path] = len(body)
    address = urlsplit(url)
    load = Load(url, asks, [lengths[ask.path] for ask in asks], warm_up, seconds)
    return await load.run(address.hostname or "127.0.0.1", address.port or 80, connections)


def main() -> None:
    """Read the command line, run the load, and write what was found as JSON."""
    parser = argparse.ArgumentParser(description="Asks a server as fast as it answers, and writes what it measured.")
    parser.add_argument("url", metavar="URL")
    parser.add_argument("--path", action="append", help="what to ask for; may be repeated (default: /)")
    parser.add_argument("--plan", action="store_true", help="read [group, path] pairs from standard input, as JSON")
    parser.add_argument("--connections", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--warm-up", type=float, default=1.0, metavar="SECONDS", help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="(default: %(default)s)")
    parser.add_argument("--latencies", action="store_true", help="write each latency, not only percentiles")
    options = parser.parse_args()
    pairs = json.load(sys.stdin) if options.plan else [("all", path) for path in options.path or ["/"]]
    asks = [Ask(group, path) for group, path in pairs]
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ModuleNotFoundError:
        factory = None
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            found = runner.run(measure(options.url, asks, options.connections, options.warm_up, options.seconds))
    except (OSError, ValueError) as error:
        sys.exit(f"load.py: {options.url}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    written = asdict(found)
    if not options.latencies:
        written["latencies"] = {group: summary(sorted(values)) for group, values in found.latencies.items()}
    json.dump(written, sys.stdout)
    print()


def summary(values: list[int]) -> dict[str, float]:
    """Return what a person wants to know of sorted latencies, in milliseconds."""
    if not values:
        return {"count": 0}
    places = {"p50": 0.5, "p99": 0.99}
    found = {name: values[min(len(values) - 1, int(len(values) * place))] / 1000 for name, place in places.items()}
    return {"count": len(values), **found, "worst": values[-1] / 1000}


if __name__ == "__main__":
    main()
