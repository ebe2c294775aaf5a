"""The ways in which one threadlet can wait for others: each starts a function once per argument, and waits for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from importlib.util import find_spec
from typing import Any

from threadlets import Pool, Threadlet

__all__ = ["LEAVING", "STARTING", "WAYS", "all_of", "join"]

Way = Callable[[list[Threadlet[Any]]], Awaitable[list[Any]]]

PATIENCE = 40  # seconds; arbitrary: beyond it a test has failed


async def join(handle: Threadlet[Any]) -> Any:
    return await handle


async def each(handles: list[Threadlet[Any]]) -> list[Any]:
    return [await handle for handle in handles]


async def gather(handles: list[Threadlet[Any]]) -> list[Any]:
    return await asyncio.gather(*handles)


async def gather_coroutines(handles: list[Threadlet[Any]]) -> list[Any]:
    return await asyncio.gather(*map(join, handles))


async def wait(handles: list[Threadlet[Any]]) -> list[Any]:
    await asyncio.wait(handles)  # type: ignore[type-var]  # at run time it takes them
    return [handle.result() for handle in handles]


async def wait_for(handles: list[Threadlet[Any]]) -> list[Any]:
    return [await asyncio.wait_for(handle, PATIENCE) for handle in handles]


async def timeout(handles: list[Threadlet[Any]]) -> list[Any]:
    async with asyncio.timeout(PATIENCE):
        return [await handle for handle in handles]


async def shield(handles: list[Threadlet[Any]]) -> list[Any]:
    return [await asyncio.shield(handle) for handle in handles]


async def as_completed(handles: list[Threadlet[Any]]) -> list[Any]:
    return [await next_one for next_one in asyncio.as_completed(handles)]


async def task_group(handles: list[Threadlet[Any]]) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(join(handle)) for handle in handles]
    return [task.result() for task in tasks]


async def anyio_group(handles: list[Threadlet[Any]]) -> list[Any]:
    import anyio

    async with anyio.create_task_group() as group:
        for handle in handles:
            group.start_soon(join, handle)
    return [handle.result() for handle in handles]


async def selection(handles: list[Threadlet[Any]]) -> list[Any]:
    for pool in {handle.pool for handle in handles}:
        assert pool is not None
        await pool.select(where=handles.__contains__).wait()
    return [handle.result() for handle in handles]


# Those that start what they wait for, one after the other or all at once, and then wait.
WAYS: dict[str, Way] = {
    way.__name__: way
    for way in (
        *(each, gather, gather_coroutines, wait, wait_for, timeout, shield, as_completed, task_group, selection),
        *([anyio_group] if find_spec("anyio") else []),
    )
}

LEAVING = ("wait", "shield", "selection")  # a cancel of who waits leaves the others alone


async def by_map(pool: Pool, function: Callable[..., Any], items: Iterable[Any], **options: Any) -> list[Any]:
    return [result async for result in pool.map(function, items, ordered=False, **options)]


async def by_drain(pool: Pool, function: Callable[..., Any], items: Iterable[Any], **options: Any) -> list[Any]:
    part = Pool(parent=pool)
    handles = [part.start(function, item, **options) for item in items]
    try:
        await part.drain()
    finally:
        part.close()
    return [handle.result() for handle in handles]


async def by_scope(pool: Pool, function: Callable[..., Any], items: Iterable[Any], **options: Any) -> list[Any]:
    async with Pool(parent=pool) as part:
        handles = [part.start(function, item, **options) for item in items]
    return [handle.result() for handle in handles]


async def one_by_one(pool: Pool, function: Callable[..., Any], items: Iterable[Any], **options: Any) -> list[Any]:
    return [await pool.start(function, item, **options) for item in items]


async def by_another(pool: Pool, function: Callable[..., Any], items: Iterable[Any], **options: Any) -> list[Any]:
    """Wait for a threadlet of a pool without throttles, which waits for them."""

    async def middle() -> list[Any]:
        return await asyncio.gather(*[pool.start(function, item, **options) for item in items])

    return await Pool().start(middle, priority=100)


STARTING: dict[str, Callable[..., Awaitable[list[Any]]]] = {
    way.__name__: way for way in (by_map, by_drain, by_scope, one_by_one, by_another)
}


async def all_of(way: str, pool: Pool, function: Callable[..., Any], items: Iterable[Any], **options: Any) -> list[Any]:
    """Start ``function(item)`` for each item, wait in this way, return the results in any order."""
    if way in STARTING:
        return await STARTING[way](pool, function, items, **options)
    return await WAYS[way]([pool.start(function, item, **options) for item in items])
