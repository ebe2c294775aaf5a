"""The types of entrypoints, as users write them. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_type

from threadlets import Contract, Pool, Threadlet, threadlet


@threadlet
def plain(path: str, *, limit: int = 3) -> bytes:
    return path.encode()[:limit]


@threadlet
async def coroutine(url: str, retries: int = 0) -> list[int]:
    return [retries]


@threadlet(contract=Contract(blocks="always"), priority=5, tags={"cpu", 7})
def with_options(number: int) -> float:
    return number / 2


@threadlet(priority=-1.5)
async def coroutine_with_options(number: int) -> None:
    pass


class Shelf:
    @threadlet
    def method(self, number: int) -> str:
        return str(number)

    @threadlet(priority=2)
    async def coroutine_method(self, number: int) -> bytes:
        return bytes(number)


async def calls() -> None:
    assert_type(plain("a"), Threadlet[bytes])
    assert_type(plain("a", limit=5), Threadlet[bytes])
    assert_type(await plain("a"), bytes)
    assert_type(coroutine("a"), Threadlet[list[int]])
    assert_type(await coroutine("a", retries=2), list[int])
    assert_type(with_options(3), Threadlet[float])
    assert_type(await with_options(3), float)
    assert_type(coroutine_with_options(3), Threadlet[None])

    plain(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plain()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    plain("a", limit="b")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    coroutine("a", tries=2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    with_options("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def methods(shelf: Shelf) -> None:
    assert_type(shelf.method(3), Threadlet[str])
    assert_type(await shelf.coroutine_method(3), bytes)
    assert_type(Shelf.method(shelf, 3), Threadlet[str])
    bound: Callable[[int], Threadlet[str]] = shelf.method
    unbound: Callable[[Shelf, int], Threadlet[str]] = Shelf.method
    assert_type(bound(3), Threadlet[str])
    assert_type(unbound(shelf, 3), Threadlet[str])
    shelf.method("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def options(shelf: Shelf, pool: Pool) -> None:
    call: Callable[[int], Threadlet[float]] = with_options.using(priority=3)
    assert_type(call(3), Threadlet[float])
    assert_type(plain.using(priority=3, tags={"a"}, pool=pool)("a", limit=4), Threadlet[bytes])
    assert_type(await coroutine.using(tags=["a"])("a", 1), list[int])
    assert_type(shelf.method.using(priority=1)(3), Threadlet[str])
    assert_type(plain.using(priority=3).using(tags={"a"})("a"), Threadlet[bytes])
    plain.using(priority="high")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    plain.using(priority=3)(4)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def the_rest() -> None:
    Contract(blocks="perhaps")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    threadlet(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
