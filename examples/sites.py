"""A site of several hosts to crawl: made-up pages with links, some slow, some broken, some that never come.

Each host is a server on a port of its own. All of them run on one thread, on a plain asyncio loop of their own, so that
nothing a crawler does on its loop can hide what it does to the hosts. They keep a record of it: how many requests there
were at once, and when each one came.

Why a request counts from when it was read until its answer is about to be closed, or its visitor has hung up: a visitor
that waits for the end of the answer cannot be quicker than the record; nor can one that hangs up and then comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from time import monotonic

TOPICS = ("bridges", "clouds", "kettles", "lanterns", "maps", "parrots", "tides", "violins")
PAGES = 1000  # of each host; arbitrary: far more than anybody visits
LINKS = 8  # on each page; arbitrary
NEVER = None  # seconds that asyncio.wait() takes for no end


@dataclass(frozen=True, slots=True)
class Host:
    """How a host behaves.

    Attributes:
        name: Its name in URLs.
        seconds: How long a page takes it, on average.
        broken: The share of pages that are not there, fail, or end in the middle.
        stuck: The share of pages that never come.
        delay: Seconds from one request to the next that its robots.txt asks for; 0: none.
    """

    name: str
    seconds: float = 0.08
    broken: float = 0.0
    stuck: float = 0.0
    delay: float = 0.0


HOSTS = (
    Host("swift.example", seconds=0.02),
    Host("slow.example", seconds=0.15),
    Host("flaky.example", broken=0.2),
    Host("strict.example", delay=0.2),
    Host("stuck.example", stuck=0.1),
    Host("calm.example"),
    Host("shy.example", delay=0.4),
    Host("worn.example", seconds=0.1, broken=0.1, stuck=0.05),
    Host("brisk.example", seconds=0.002),
)


class Visits:
    """What a host has seen of its visitors. Thread: that of the site, until this has ended."""

    def __init__(self) -> None:
        self.most = 0  # requests at once
        self._now = 0
        self._times: list[float] = []

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Count a request that is being answered."""
        self._times.append(monotonic())
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            yield
        finally:
            self._now -= 1

    def busiest(self, seconds: float = 1.0) -> int:
        """Return how many requests came within any so many seconds, at most. O(requests)."""
        return most_within(self._times, seconds)


def most_within(times: Sequence[float], seconds: float) -> int:
    """Return how many of the times lie within any so many seconds, at most; they are in order.

    >>> most_within([0.0, 0.9, 1.0, 1.5], 1.0)
    3
    """
    first = most = 0
    for last, time in enumerate(times):
        while times[first] <= time - seconds:
            first += 1
        most = max(most, last + 1 - first)
    return most


class Site:
    """The hosts, while ``with Site(HOSTS) as site:`` lasts.

    Attributes:
        hosts: Their behaviour.
        ports: On which port of 127.0.0.1 each one is, by name.
        visits: What each one has seen, by name; to be read after the end.

    Raises:
        OSError: If there is no port to be had.
    """

    def __init__(self, hosts: Sequence[Host]) -> None:
        self.hosts = hosts
        self.ports: dict[str, int] = {}
        self.visits = {host.name: Visits() for host in hosts}
        self._opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="site", daemon=True)

    def __enter__(self) -> Site:
        self._thread.start()
        self._loop, self._closed = self._opened.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join()

    async def _serve(self) -> None:
        """Serve until told to stop."""
        closed = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            try:
                for host in self.hosts:
                    server = await asyncio.start_server(partial(self._answer, host), "127.0.0.1", 0)
                    stack.callback(server.close)
                    self.ports[host.name] = server.sockets[0].getsockname()[1]
            except OSError as error:
                self._opened.set_exception(error)
                return
            self._opened.set_result((asyncio.get_running_loop(), closed))
            await closed.wait()

    async def _answer(self, host: Host, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close the connection."""
        # The visitor has gone; or the site is being closed. A task that ends as cancelled would be reported by asyncio.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            request = await reader.readuntil(b"\r\n\r\n")
            with self.visits[host.name].one():
                seconds, answer = self._page(host, request.split()[1].decode())
                hangs_up = asyncio.ensure_future(reader.read())
                await asyncio.wait([hangs_up], timeout=seconds)
                if not hangs_up.done():
                    hangs_up.cancel()
                    writer.write(answer)
        writer.close()

    def _page(self, host: Host, path: str) -> tuple[float | None, bytes]:
        """Return after how many seconds what is to be sent: the same for a path each time."""
        if path == "/robots.txt":
            return 0.0, answered(
                200, f"User-agent: *\nCrawl-delay: {host.delay}\n" if host.delay else "User-agent: *\n"
            )
        chance = random.Random(f"{host.name}{path}")
        seconds = chance.uniform(0.5, 1.5) * host.seconds
        body = f"<title>About {topic_of(host.name, path)}</title>\n"
        for _ in range(LINKS):
            name = host.name if chance.random() < 0.6 else chance.choice(self.hosts).name
            target = f"/{chance.randrange(PAGES)}"
            text = f"about {topic_of(name, target)}" if chance.random() < 0.7 else "more"
            body += f'<a href="http://{name}{target}">{text}</a>\n'
        whole = answered(200, body)
        if path == "/":
            return seconds, whole
        if chance.random() < host.stuck:
            return NEVER, whole
        if chance.random() < host.broken:
            return seconds, chance.choice(
                [answered(404, "no such page"), answered(500, "oh"), whole[: len(whole) // 2]]
            )
        return seconds, whole


def topic_of(name: str, path: str) -> str:
    """Return what a page is about."""
    return random.Random(f"topic of {name}{path}").choice(TOPICS)


def answered(status: int, body: str) -> bytes:
    """Return an answer as it is sent; bodies are ASCII."""
    return f"HTTP/1.1 {status} .\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
