"""A coroutine that ends in its first step: started from a pool, called, and as a task in the ways people start one now.

Like is compared with like in two tables. *One at a time*: start one, wait for it, take its result. *A batch*: start a
hundred, then wait for all; what holds them - a pool, a task group - is made anew for each batch, as one does for a
request. anyio's task group returns no results, so its children count themselves.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from threadlets import Pool, threadlet

from .harness import Comparison, Contender, Effort, compare, has, versus

__all__ = ["measure"]

BATCH = 100
EAGER = sys.version_info >= (3, 12)
ANYIO = 1 / 8 if EAGER else None  # the budget is for eager tasks; 3.11 has to make do without


async def triple(number: int) -> int:
    """Return at once."""
    return number * 3


fast = threadlet(triple)


async def measure(effort: Effort) -> list[Comparison]:
    """Measure one coroutine at a time, then batches."""
    async with Pool() as pool:
        one = await compare(
            "start a coroutine, await its result",
            versus(
                Contender("pool.start(entrypoint, 3)", _from_pool(pool)),
                Contender("entrypoint(3)", _called),
                Contender("asyncio.Task(..., eager_start=True)", _eager, budget=2.0) if EAGER else None,
                Contender("asyncio.create_task", _created),
                Contender("asyncio.TaskGroup, entered once", _grouped),
                Contender("asyncio.TaskGroup, one each", _group_each),
                Contender("anyio task group, one each", _anyio_each(), budget=ANYIO) if has("anyio") else None,
            ),
            effort,
            note="One at a time. The pool is entered once, around everything.",
        )
    many = await compare(
        f"start {BATCH} coroutines, wait for all",
        versus(
            Contender("async with Pool()", _pool_batch, step=BATCH),
            Contender("asyncio.Task(..., eager_start=True)", _eager_batch, step=BATCH) if EAGER else None,
            Contender("asyncio.create_task and gather", _gather_batch, step=BATCH),
            Contender("asyncio.TaskGroup", _group_batch, step=BATCH),
            Contender("anyio task group", _anyio_batch(), budget=ANYIO, step=BATCH) if has("anyio") else None,
        ),
        effort,
        note=f"Figures are for one of {BATCH} children. A pool or a group is made for each batch.",
    )
    return [one, many]


def _from_pool(pool: Pool) -> Callable[[int], Any]:
    async def run(count: int) -> int:
        total = 0
        for _ in range(count):
            total += await pool.start(fast, 3)
        return total // 9

    return run


async def _called(count: int) -> int:
    total = 0
    for _ in range(count):
        total += await fast(3)
    return total // 9


async def _eager(count: int) -> int:
    total = 0
    loop = asyncio.get_running_loop()
    make: Any = asyncio.Task  # eager_start came with 3.12
    for _ in range(count):
        total += await make(triple(3), loop=loop, eager_start=True)
    return total // 9


async def _created(count: int) -> int:
    total = 0
    for _ in range(count):
        total += await asyncio.create_task(triple(3))
    return total // 9


async def _grouped(count: int) -> int:
    total = 0
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            total += await group.create_task(triple(3))
    return total // 9


async def _group_each(count: int) -> int:
    total = 0
    for _ in range(count):
        async with asyncio.TaskGroup() as group:
            child = group.create_task(triple(3))
        total += child.result()
    return total // 9


def _anyio_each() -> Callable[[int], Any]:
    from anyio import create_task_group

    async def run(count: int) -> int:
        total = 0

        async def child(number: int) -> None:
            nonlocal total
            total += number * 3

        for _ in range(count):
            async with create_task_group() as group:
                group.start_soon(child, 3)
        return total // 9

    return run


async def _pool_batch(count: int) -> int:
    total = 0
    for _ in range(count // BATCH):
        async with Pool() as pool:
            started = [pool.start(fast, 3) for _ in range(BATCH)]
        total += sum([handle.result() for handle in started])
    return total // 9


async def _eager_batch(count: int) -> int:
    total = 0
    loop = asyncio.get_running_loop()
    make: Any = asyncio.Task
    for _ in range(count // BATCH):
        started = [make(triple(3), loop=loop, eager_start=True) for _ in range(BATCH)]
        for task in started:
            total += await task
    return total // 9


async def _gather_batch(count: int) -> int:
    total = 0
    for _ in range(count // BATCH):
        total += sum(await asyncio.gather(*[asyncio.create_task(triple(3)) for _ in range(BATCH)]))
    return total // 9


async def _group_batch(count: int) -> int:
    total = 0
    for _ in range(count // BATCH):
        async with asyncio.TaskGroup() as group:
            started = [group.create_task(triple(3)) for _ in range(BATCH)]
        total += sum([task.result() for task in started])
    return total // 9


def _anyio_batch() -> Callable[[int], Any]:
    from anyio import create_task_group

    async def run(count: int) -> int:
        total = 0

        async def child(number: int) -> None:
            nonlocal total
            total += number * 3

        for _ in range(count // BATCH):
            async with create_task_group() as group:
                for _ in range(BATCH):
                    group.start_soon(child, 3)
        return total // 9

    return run
