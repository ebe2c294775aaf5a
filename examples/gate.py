"""A gate before an aiohttp server: what one crowd of clients asks for too much is its own loss, not everybody's.

    python examples/gate.py

The same server is asked the same way twice, without a pool and with one. It can do ``TOGETHER`` things at a time, each
of which takes some milliseconds; its clients want three times as much: most of it a crowd that comes all at once, some
of it two modest tenants who ask one thing after the other. What the tenants wait for tells the difference.

The pool: a limit on what runs, ``FairShare`` by tenant, and room for so many requests of each tenant: beyond that they
are sent away at once, with 503 and a ``Retry-After``. Half of the crowd's clients hang up early: their requests are
dropped, where otherwise the work is done for nobody.

The server and its clients are one program, and talk over real connections.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from figures import number
from tables import aligned

from threadlets import Concurrency, FairShare, Pool, run

TOGETHER = 4  # things that the server can do at a time: its database's connections, say
WORK = 0.01  # seconds for each of them
QUEUE = 40  # requests that one tenant may have in the pool
PATIENCE = 0.3  # seconds until a client of the crowd hangs up, at most, if it does
CROWD, MODEST = "crowd", ("anna", "bert")


@dataclass
class Tally:
    """What one tenant's clients have seen."""

    served: list[float] = field(default_factory=list)  # seconds for each answer
    refused: int = 0
    left: int = 0  # hung up

    def row(self, name: str) -> list[str]:
        """Lay it out."""
        times = sorted(self.served)
        shown = [times[len(times) // 2], times[-1]] if times else []
        cells = [f"{number(1000 * seconds)} ms" for seconds in shown] or ["-", "-"]
        return [f"  {name}", str(len(times)), str(self.refused), str(self.left), *cells]


class Service:
    """What the server does, and how much of it was for nobody."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(TOGETHER)
        self.done = 0

    async def work(self, request: Any) -> Any:
        """Answer a request."""
        from aiohttp import web

        async with self.places:
            await asyncio.sleep(WORK)
        self.done += 1
        return web.Response(text="done")


@asynccontextmanager
async def serving(service: Service, pool: Pool | None) -> AsyncIterator[str]:
    """Serve on a free port; yield the address."""
    from aiohttp import web

    from threadlets.adapters.aiohttp_requests import add_pool, pooled

    app = web.Application(middlewares=[] if pool is None else [pooled(pool, tag_header="x-tenant")])
    app.router.add_get("/", service.work)
    if pool is not None:
        add_pool(app, pool, drain=1.0)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield "http://{}:{}/".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


async def ask(client: Any, url: str, tenant: str, tally: Tally, patience: float) -> None:
    """Send one request, and note what came of it."""
    began = perf_counter()
    try:
        async with asyncio.timeout(patience), client.get(url, headers={"x-tenant": tenant}) as answer:
            await answer.read()
    except TimeoutError:
        tally.left += 1
        return
    if answer.status == 200:
        tally.served.append(perf_counter() - began)
    else:
        assert answer.headers["retry-after"], answer
        tally.refused += 1


async def all_asked(pool: Pool | None, seconds: float) -> tuple[dict[str, Tally], Service]:
    """Serve, and ask for some seconds; return what each tenant has seen."""
    import aiohttp

    service = Service()
    tallies = {name: Tally() for name in (CROWD, *MODEST)}
    end = perf_counter() + seconds
    connector = aiohttp.TCPConnector(limit=0)

    async with serving(service, pool) as url, aiohttp.ClientSession(connector=connector) as client:

        async def be_many(tasks: asyncio.TaskGroup) -> None:
            count = 0
            while perf_counter() < end:  # three times as many as can be served
                patience = random.uniform(0, PATIENCE) if count % 2 else 60.0
                tasks.create_task(ask(client, url, CROWD, tallies[CROWD], patience))
                count += 1
                await asyncio.sleep(WORK / TOGETHER / 3)

        async def be_modest(name: str) -> None:
            while perf_counter() < end:
                await ask(client, url, name, tallies[name], 60.0)
                await asyncio.sleep(2 * WORK)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(be_many(tasks))
            for name in MODEST:
                tasks.create_task(be_modest(name))
    return tallies, service


def gate() -> Pool:
    """Make the pool."""
    return Pool(Concurrency(TOGETHER), FairShare("tenant:"), tag_capacity={"tenant:": QUEUE}, overflow="shed")


def main() -> None:
    """Read the command line, serve and ask both ways, tell."""
    options = read_options()
    try:
        import aiohttp
    except ModuleNotFoundError:
        sys.exit("the package 'aiohttp' is missing: pip install 'threadlets[aiohttp]'")
    seconds = 0.5 if options.quick else options.seconds
    print(f"aiohttp {aiohttp.__version__}: three times the load that it can bear, for {seconds:g} s each.\n")
    ways: dict[str, Callable[[], Pool | None]] = {"Without a pool": lambda: None, "With a pool": gate}
    for title, make in ways.items():
        pool = make()
        tallies, service = run(all_asked(pool, seconds))
        rows = [[title, "served", "refused", "hung up", "median", "longest"]]
        rows += [tally.row(name) for name, tally in tallies.items()]
        print(aligned(rows))
        vain = service.done - sum(len(tally.served) for tally in tallies.values())
        print(f"  Work done for clients who had gone: {vain}")
        if pool is not None:
            seen = pool.statistics()
            print(f"  The pool: {seen.done} done, {seen.shed} shed, {seen.cancelled} cancelled")
        print()


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Overloads a server of aiohttp, without a pool and with one.")
    parser.add_argument("--seconds", type=float, default=2.5, help="of load, each time (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="half a second each")
    options = parser.parse_args()
    if not 0.1 <= options.seconds <= 600:
        parser.error("--seconds must be between 0.1 and 600")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
