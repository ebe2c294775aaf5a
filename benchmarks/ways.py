"""What is asked of every way to hold work that waits for its turn; and ours: ``threadlets.Pool``.

Every way does the same. ``LIMIT`` places are taken by work that waits for a gate; what is started then is *pending*,
until the gate opens. A way that has no method ``select``, ``rekey`` or ``cancel`` cannot do that at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import ClassVar

from threadlets import Concurrency, Pool, threadlet

__all__ = ["CLASSES", "LIMIT", "TAGS", "OurPool", "Way"]

LIMIT = 64
TAGS = 10
CLASSES = 3  # arbitrary: how many priorities there are


class Way:
    """One way; made on its loop, used once.

    Attributes:
        name: Shown in the tables.
        package: What it needs; "" for nothing.
        ran: How many items have run.
    """

    name: ClassVar[str]
    package: ClassVar[str] = ""

    def __init__(self) -> None:
        self.ran = 0
        self.gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @staticmethod
    def make_loop(kind: str) -> asyncio.AbstractEventLoop:
        """Return the loop that it runs on: asyncio's, or uvloop's."""
        if kind == "uvloop":
            import uvloop

            return uvloop.new_event_loop()
        return asyncio.new_event_loop()

    async def work(self, number: int) -> None:
        """Do next to nothing: one of four awaits once."""
        if not number & 3:
            await asyncio.sleep(0)
        self.ran += 1

    async def block(self) -> None:
        """Hold a place until the gate opens."""
        await self.gate

    async def open(self) -> None:
        """Take all places."""
        raise NotImplementedError

    async def start(self, numbers: Iterable[int]) -> None:
        """Queue work without tags, all of one priority."""
        raise NotImplementedError

    async def start_tagged(self, numbers: Iterable[int]) -> None:
        """Queue work with a tag and a priority, as far as this way knows such things."""
        await self.start(numbers)

    async def drain(self) -> None:
        """Open the gate, and wait until everything is done."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Let the loop go round, until what is pending has come to rest, or what was cancelled has ended."""
        for _ in range(4):
            await asyncio.sleep(0)


class OurPool(Way):
    """``threadlets.Pool``."""

    name = "threadlets.Pool"

    async def open(self) -> None:
        self.pool = Pool(Concurrency(LIMIT))
        self.entrypoint = threadlet(self.work)
        for _ in range(LIMIT):
            self.pool.start(self.block)

    async def start(self, numbers: Iterable[int]) -> None:
        start, entrypoint = self.pool.start, self.entrypoint
        for number in numbers:
            start(entrypoint, number)

    async def start_tagged(self, numbers: Iterable[int]) -> None:
        start, entrypoint = self.pool.start, self.entrypoint
        tags = [frozenset({tag}) for tag in range(TAGS)]
        for number in numbers:
            start(entrypoint, number, priority=number % CLASSES, tags=tags[number % TAGS])

    async def select(self, tag: int) -> int:
        """Look at all that carry a tag; return how many there are."""
        return sum([handle.state == "queued" for handle in self.pool.select(tag=tag)])

    async def rekey(self, tag: int, priority: float) -> int:
        """Give all that carry a tag another priority; return how many."""
        return self.pool.select(tag=tag).reprioritize(priority)

    async def cancel(self, tag: int) -> int:
        """Cancel all that carry a tag; return how many."""
        return self.pool.select(tag=tag).cancel()

    async def drain(self) -> None:
        self.gate.set_result(None)
        await self.pool.drain()
