"""The types of ``Pool.map``: what it takes, and what its iterator gives. Checked by mypy and pyright, never run."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator
from typing import assert_type

from threadlets import Pool, threadlet
from threadlets.progress import Progress


def plain(path: str) -> bytes:
    return path.encode()


def pair(path: str, limit: int) -> list[int]:
    return [len(path), limit]


async def coroutine(number: int) -> str:
    return str(number)


@threadlet
def entrypoint(path: str) -> bytes:
    return path.encode()


@threadlet(priority=3)
async def coroutine_entrypoint(number: int) -> list[int]:
    return [number]


async def numbers() -> AsyncIterator[int]:
    yield 1


class Listener:
    def update(self, done: int, failed: int, total: int | None) -> None:
        print(done, failed, total)

    def close(self) -> None:
        print("closed")


class Deaf:
    def close(self) -> None:
        print("closed")


async def results(pool: Pool) -> None:
    assert_type(pool.map(plain, ["a"]), AsyncGenerator[bytes, None])
    assert_type(pool.map(coroutine, [1]), AsyncGenerator[str, None])
    assert_type(pool.map(entrypoint, iter("abc")), AsyncGenerator[bytes, None])
    assert_type(pool.map(coroutine_entrypoint, numbers()), AsyncGenerator[list[int], None])
    assert_type(pool.map(entrypoint.using(priority=1), ["a"]), AsyncGenerator[bytes, None])
    assert_type(pool.map(functools.partial(pair, limit=3), ["a"]), AsyncGenerator[list[int], None])
    assert_type(pool.map(coroutine, pool.map(len, ["a"])), AsyncGenerator[str, None])
    async for data in pool.map(plain, ["a"], limit=3, ordered=False, priority=1, tags={"a"}, progress="files"):
        assert_type(data, bytes)


async def failures_as_values(pool: Pool, lenient: bool) -> None:
    assert_type(pool.map(plain, ["a"], return_exceptions=True), AsyncGenerator[bytes | BaseException, None])
    assert_type(pool.map(coroutine, [1], return_exceptions=True), AsyncGenerator[str | BaseException, None])
    assert_type(pool.map(entrypoint, ["a"], return_exceptions=True), AsyncGenerator[bytes | BaseException, None])
    assert_type(pool.map(entrypoint, ["a"], return_exceptions=lenient), AsyncGenerator[bytes | BaseException, None])
    assert_type(pool.map(entrypoint, ["a"], return_exceptions=False), AsyncGenerator[bytes, None])
    async for title in pool.map(coroutine, numbers(), ordered=False, return_exceptions=True):
        if isinstance(title, BaseException):
            raise title
        assert_type(title, str)


async def progress(pool: Pool, told: Progress) -> None:
    told = Listener()
    assert_type(pool.map(plain, ["a"], progress=told), AsyncGenerator[bytes, None])
    assert_type(pool.map(plain, ["a"], progress=True), AsyncGenerator[bytes, None])
    assert_type(pool.map(plain, ["a"], progress=Listener(), return_exceptions=False), AsyncGenerator[bytes, None])


async def mistakes(pool: Pool) -> None:
    pool.map(plain, [1])  # type: ignore[arg-type]  # pyright: ignore
    pool.map(plain, "abc", progress=Deaf())  # type: ignore[call-overload]  # pyright: ignore
    pool.map(plain, "abc", limits=3)  # type: ignore[call-overload]  # pyright: ignore
    pool.map(plain, "abc", return_exceptions="no")  # type: ignore[call-overload]  # pyright: ignore
