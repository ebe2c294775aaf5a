"""A shop with many tenants on one server: what one rude tenant does to two polite ones, without a pool and with one.

    python examples/shop.py

The shop is a FastAPI application. Each page asks a database that answers 4 questions at a time, in 10 ms each; here
a sleep stands for it. The tenant is in a header, ``x-tenant``. The program starts the shop under uvicorn, as a process
of its own, sends it the requests of three tenants for a few seconds, prints how each was served, and ends; twice:

- as it is: whoever comes first is served first, and all wait behind the rude tenant's crowd;
- with three lines more: a pool that shares its starts fairly between tenants, holds at most 8 requests of each, and
  answers the rest at once with 503 and ``Retry-After``, which costs next to nothing.

``python examples/shop.py --serve pool`` only serves, for requests of your own: curl -H 'x-tenant: me' URL.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from tables import aligned

from threadlets import Concurrency, FairShare, Pool

HOST = "127.0.0.1"
CONNECTIONS, QUERY = 4, 0.01  # of the database; seconds for each question
WARM = 0.3  # seconds until all are connected, arbitrary: what comes before is not counted
PAUSE = 0.01  # seconds after each page
TITLES = {"none": "As it is", "pool": "With a pool"}


def make_app(pooled: bool) -> Any:
    """Make the shop."""
    from fastapi import FastAPI

    from threadlets.adapters.asgi import PoolMiddleware, Rules

    app, database = FastAPI(), asyncio.Semaphore(CONNECTIONS)

    @app.get("/")
    async def page() -> dict[str, str]:
        async with database:
            await asyncio.sleep(QUERY)
        return {"page": "welcome"}

    if pooled:
        rules = Rules(tag_header="x-tenant", deadline=5.0)
        pool = Pool(
            Concurrency(CONNECTIONS), FairShare("tenant:"), tag_capacity={"tenant:": 2 * CONNECTIONS}, overflow="shed"
        )
        app.add_middleware(PoolMiddleware, pool=pool, options=rules, owns=True)
    return app


def serve(pooled: bool) -> None:
    """Serve the shop on a free port, which is printed, until a signal comes."""
    import uvicorn

    with socket.create_server((HOST, 0), backlog=1024) as listens:
        print(f"http://{HOST}:{listens.getsockname()[1]}", flush=True)
        server = uvicorn.Server(uvicorn.Config(make_app(pooled), log_level="warning", access_log=False))
        server.run(sockets=[listens])


# ------------------------------------------------------------------------------------------------- the load


@dataclass
class Tenant:
    """Who sends requests: on how many connections at once, and how long each waits after a refusal, in seconds."""

    name: str
    connections: int
    pause: float
    latencies: list[float] = field(default_factory=list)  # seconds, of the pages that came
    refused: int = 0

    @property
    def row(self) -> list[str]:
        """What the table says of it."""
        times = [f"{1000 * percentile(self.latencies, share):.0f} ms" for share in (0.5, 0.99)]
        return [f"  {self.name}, {self.connections} at once", f"{len(self.latencies)}", f"{self.refused}", *times]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all is not above; NaN if there are none.

    >>> percentile([3, 1, 2], 0.5), percentile([3, 1, 2], 0.99)
    (2, 3)
    """
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if values else float("nan")


async def visit(tenant: Tenant, port: int, since: float, until: float) -> None:
    """Ask for a page again and again, on one connection, whatever the answer is; note it from some time on."""
    reader, writer = await asyncio.open_connection(HOST, port)
    question = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nx-tenant: {tenant.name}\r\n\r\n".encode()
    while (began := perf_counter()) < until:
        writer.write(question)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
        status = head.split(" ")[1]
        if began < since:
            pass
        elif status == "200":
            tenant.latencies.append(perf_counter() - began)
        elif status == "503":
            tenant.refused += 1
        if status not in ("200", "503"):
            raise RuntimeError(f"the shop answered {head.splitlines()[0]!r}")
        await asyncio.sleep(tenant.pause if status == "503" else PAUSE)
    writer.close()
    await writer.wait_closed()


async def all_visit(port: int, seconds: float) -> list[Tenant]:
    """Send the requests of three tenants for some time; return how they fared."""
    tenants = [Tenant("rude", 60, 0.1), Tenant("polite", 2, 1.0), Tenant("courteous", 2, 1.0)]
    since = perf_counter() + WARM
    async with asyncio.TaskGroup() as group:
        for tenant in tenants:
            for _ in range(tenant.connections):
                group.create_task(visit(tenant, port, since, since + seconds))
    return tenants


@contextmanager
def shop(kind: str) -> Iterator[int]:
    """Run the shop as a process of its own; yield its port."""
    command = [sys.executable, os.path.abspath(__file__), "--serve", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline()
            if not url:
                sys.exit("shop.py: the server did not start")
            yield int(url.rpartition(":")[2])
            process.send_signal(signal.SIGINT)
            process.wait(10)
        finally:
            process.kill()


def main() -> None:
    """Read the command line; serve, or show."""
    parser = argparse.ArgumentParser(description="Shows what one rude tenant does to two polite ones, and what helps.")
    parser.add_argument("--quick", action="store_true", help="half a second of load each, not three")
    parser.add_argument("--serve", choices=TITLES, help="only serve, without a pool or with one")
    options = parser.parse_args()
    try:
        if options.serve:
            serve(options.serve == "pool")
            return
        slowest = {}
        for kind, title in TITLES.items():
            with shop(kind) as port:
                tenants = asyncio.run(all_visit(port, 1.0 if options.quick else 3.0))
            rows = [[title, "answered", "503", "p50", "p99"], *(tenant.row for tenant in tenants)]
            print(f"{aligned(rows)}\n")
            slowest[kind] = max(percentile(tenant.latencies, 0.99) for tenant in tenants[1:])
    except ImportError as error:
        sys.exit(f"shop.py: {error.name} is not installed: pip install fastapi uvicorn")
    before, after = (1000 * slowest[kind] for kind in TITLES)
    print(f"99 % of the polite tenants' pages came within {before:.0f} ms as it is, within {after:.0f} ms with a pool.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
