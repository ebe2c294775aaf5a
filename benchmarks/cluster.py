"""Small pure calls on a Dask cluster: through a pool with throttles, and as Dask's client sends them by itself.

The cluster is on this machine: two workers of one thread each, in processes of their own, and the scheduler in the
process of the client, as a ``LocalCluster`` has it. The function adds one, so all that is measured is the way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from threadlets import Concurrency, Contract, Pool, Rate, threadlet

from .harness import Comparison, Effort, has

__all__ = ["measure"]

CALLS, CALLS_QUICK = 10_000, 1_000
BUDGET = 1.3


@threadlet(contract=Contract(pure=True))
def inc(number: int) -> int:
    """Add one."""
    return number + 1


async def measure(effort: Effort) -> list[Comparison]:
    """Measure many calls at once."""
    if not has("distributed"):
        return []
    from distributed import Client, LocalCluster

    from threadlets.adapters.dask import cluster_nodes

    options: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    count = CALLS_QUICK if effort.quick else CALLS
    async with LocalCluster(asynchronous=True, silence_logs=logging.CRITICAL, **options) as cluster:
        async with Client(cluster, asynchronous=True) as client:
            await client.wait_for_workers(2)
            nodes = await cluster_nodes(client)

            async def through_pool() -> int:
                async with Pool(Concurrency(1_000), Rate(1_000_000, burst=1_000_000), node=nodes) as pool:
                    return sum(await asyncio.gather(*[pool.start(inc, number) for number in range(count)]))

            async def through_map() -> int:
                async with Pool(Concurrency(1_000), node=nodes) as pool:
                    return sum([value async for value in pool.map(inc, range(count), limit=1_000)])

            async def by_map() -> int:
                return sum(await client.gather(client.map(inc.function, range(count), pure=False)))

            async def by_submit() -> int:
                futures = [client.submit(inc.function, number, pure=False) for number in range(count)]
                return sum(await asyncio.gather(*futures))

            ways = {
                "Pool(Concurrency, Rate, node=cluster)": through_pool,
                "Client.map and gather": by_map,
                "the same pool.map": through_map,
                "Client.submit for each": by_submit,
            }
            return [await _compare(f"{count:,} small calls on a Dask cluster", ways, count, 3)]


async def _compare(title: str, ways: dict[str, Callable[[], Awaitable[int]]], count: int, rounds: int) -> Comparison:
    right = sum(range(1, count + 1))
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, once in ways.items():
            started = perf_counter()
            assert await once() == right
            spent = perf_counter() - started
            await asyncio.sleep(0.3)  # Dask forgets what is not needed any more
            if number:  # the first round warms up
                found[name].append(spent / count)
    ours, peer = list(ways)[:2]
    return Comparison(title, ours, found, budgets={peer: BUDGET}, note="Figures are for one of them.")
