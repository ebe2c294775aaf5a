"""The types of a pool's methods. Checked by mypy and pyright, never run."""

from __future__ import annotations

import functools
from typing import assert_type

from threadlets import Concurrency, Pool, PoolStatistics, Selection, Threadlet, threadlet


def plain(path: str, limit: int) -> bytes:
    return path.encode()[:limit]


async def coroutine(number: int) -> str:
    return str(number)


@threadlet
def entrypoint(path: str) -> bytes:
    return path.encode()


@threadlet(priority=3)
async def coroutine_entrypoint(number: int) -> list[int]:
    return [number]


class Shelf:
    def method(self, number: int) -> str:
        return str(number)

    @threadlet
    def decorated(self, number: int) -> bytes:
        return bytes(number)


async def start(shelf: Shelf) -> None:
    async with Pool(Concurrency(3), name="pool", capacity=3, overflow="shed", on_failure="cancel") as pool:
        assert_type(pool, Pool)
        assert_type(pool.start(plain, "a", 3), Threadlet[bytes])
        assert_type(await pool.start(coroutine, 3), str)
        assert_type(pool.start(entrypoint, "a"), Threadlet[bytes])
        assert_type(await pool.start(coroutine_entrypoint, 3, priority=1, tags={"a"}), list[int])
        assert_type(pool.start(shelf.method, 3), Threadlet[str])
        assert_type(pool.start(shelf.decorated, 3), Threadlet[bytes])
        assert_type(pool.start(entrypoint.using(priority=1), "a"), Threadlet[bytes])
        assert_type(pool.start(functools.partial(plain, limit=3), "a"), Threadlet[bytes])
        assert_type(pool.start(len, "abc"), Threadlet[int])
        pool.start(plain, "a")  # type: ignore[arg-type]  # pyright: ignore
        pool.start(coroutine, "a")  # type: ignore[arg-type]  # pyright: ignore


async def the_rest(pool: Pool) -> None:
    selection = pool.select(entrypoint=plain, tag="a", state="queued", where=lambda handle: handle.age > 3)
    assert_type(selection, Selection)
    assert_type(selection.cancel("reason"), int)
    assert_type(selection.reprioritize(3), int)
    assert_type(len(selection), int)
    assert_type(await selection.wait(), None)
    assert_type(pool.statistics(), PoolStatistics)
    assert_type(await pool.room(), None)
    Pool(overflow="explode")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Pool(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
