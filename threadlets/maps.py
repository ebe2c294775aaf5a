"""One function over many items: bounded in flight, as lazy as its source, and nothing left behind when it is left."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Event
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .handles import Threadlet

if TYPE_CHECKING:
    from .pools import Pool

__all__ = ["mapped"]

IN_FLIGHT = 64  # arbitrary: as many as the shared worker group has threads


async def mapped(
    pool: Pool,
    begin: Callable[[Any], Threadlet[Any]],
    items: Iterable[Any] | AsyncIterable[Any],
    limit: int,
    ordered: bool,
) -> AsyncGenerator[Any, None]:
    """Yield ``await begin(item)`` for each item: the engine of ``Pool.map``, which has the description.

    An async source is read by a task of its own, so that waiting for its next item does not hold results back.
    """
    flight = _Flight(pool, begin, limit, ordered)
    feeder = None
    if isinstance(items, AsyncIterable):
        feeder = asyncio.create_task(flight.feed(items))
    else:
        flight.source = iter(items)
    try:
        while True:
            if feeder is None:
                flight.refill()
            handle = flight.next_result()
            if handle is not None:
                yield handle.result()
            elif flight.exhausted and not flight.handles:
                break
            elif feeder is None and not flight.handles:
                await pool.room()  # the pool is full of other work
            else:
                flight.news.clear()
                await flight.news.wait()
        if flight.error is not None:
            raise flight.error
    finally:
        if feeder is not None:
            feeder.cancel()
            try:
                await feeder
            except CancelledError:
                pass
        for handle in list(flight.handles):
            handle.cancel("the iteration that started it was left")


class _Flight:
    """What one ``map`` has started and not yet handed over."""

    def __init__(self, pool: Pool, begin: Callable[[Any], Threadlet[Any]], limit: int, ordered: bool) -> None:
        self.pool = pool
        self.begin = begin
        self.limit = limit
        self.ordered = ordered
        self.source: Iterator[Any] = iter(())
        self.handles: set[Threadlet[Any]] = set()  # started and not handed over
        self.line: deque[Threadlet[Any]] = deque()  # ordered: all of these; else those that are final
        self.news = Event()  # something was started, or has ended
        self.space = Event()  # something was handed over
        self.exhausted = False
        self.error: BaseException | None = None  # what the source raised; told when all that it gave has been

    def start(self, item: Any) -> None:
        """Start one item's threadlet."""
        handle = self.begin(item)
        self.handles.add(handle)
        if self.ordered:
            self.line.append(handle)
        if handle.done():
            self.ended(handle)
        else:
            handle.add_done_callback(self.ended)

    def ended(self, handle: Threadlet[Any]) -> None:
        """Note that a threadlet is final."""
        if not self.ordered:
            self.line.append(handle)
        self.news.set()

    def refill(self) -> None:
        """Start as many items as there is room for."""
        while not self.exhausted and len(self.handles) < self.limit and not self.pool.is_full():
            try:
                item = next(self.source)
            except StopIteration:
                self.exhausted = True
            except Exception as error:
                self.exhausted, self.error = True, error
            else:
                self.start(item)

    async def feed(self, items: AsyncIterable[Any]) -> None:
        """Start items as an async source brings them, when there is room."""
        try:
            async for item in items:
                while len(self.handles) >= self.limit:
                    self.space.clear()
                    await self.space.wait()
                await self.pool.room()
                self.start(item)
        except Exception as error:
            self.error = error
        self.exhausted = True
        self.news.set()

    def next_result(self) -> Threadlet[Any] | None:
        """Take out the next threadlet to hand over, if there is one."""
        if not self.line or not self.line[0].done():
            return None
        handle = self.line.popleft()
        self.handles.remove(handle)
        self.space.set()
        return handle
