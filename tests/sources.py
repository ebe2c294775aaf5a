"""What the tests of ``Pool.map`` share: sources that can be watched, and functions for their items."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest

from tests.workbench import IN_PLACE, forever, rounds
from threadlets import Pool, threadlet

double = threadlet(contract=IN_PLACE)(lambda number: 2 * number)


async def double_later(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def ten_over(number: int) -> float:
    await rounds(number)
    return 10 / number


async def patience(number: int) -> int:
    """Return even numbers; wait for ever on odd ones."""
    if number % 2:
        await forever()
    return number


class Source:
    """An asynchronous generator that can be watched: what it gave, and whether it was closed."""

    def __init__(self, items: Iterable[Any], error: BaseException | None = None) -> None:
        self.items = items
        self.error = error
        self.given = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            for item in self.items:
                await asyncio.sleep(0)
                self.given += 1
                yield item
            if self.error is not None:
                raise self.error
        finally:
            await rounds(3)
            self.closed = True


def counted(items: Iterable[Any], error: BaseException | None = None) -> Iterator[Any]:
    yield from items
    if error is not None:
        raise error


SOURCES: dict[str, Callable[..., Any]] = {"sync": counted, "async": Source}
sources = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])


async def settled(pool: Pool) -> None:
    """See that an iteration which is over leaves the pool empty, with its books in order."""
    await pool.drain()
    pool._check()
