"""A limiter of anyio that is a view of a pool: whoever takes its tokens, and whatever the pool runs, share one limit.

How: a token is a threadlet of the pool, which waits until the token is given back. So it is under all of the pool's
throttles, stands in its queue, and can be selected there; and functions that are started in the pool need no token.
One that was given back is free when the loop has gone round: until then ``acquire_nowait`` may raise ``WouldBlock``.
"""

from __future__ import annotations

import asyncio
import math

import anyio.lowlevel
from anyio import CapacityLimiter, CapacityLimiterStatistics, WouldBlock

from threadlets import Concurrency, Pool, Threadlet

__all__ = ["PoolLimiter"]


class PoolLimiter(CapacityLimiter):
    """A ``CapacityLimiter`` that is a view of a pool's ``Concurrency``: tokens are its places.

    ``run_sync(..., limiter=limiter)`` starts the function in the pool, under all of its throttles. In other hands, as
    in ``async with limiter:``, a token is a threadlet of the pool that does nothing until it is given back: it can be
    seen, selected and cancelled there, which frees its place.

    Args:
        pool: Where the threadlets are.
        concurrency: One of its throttles.

    Raises:
        TypeError: If it is no pool, or no ``Concurrency``.

    Thread: loop.
    """

    __slots__ = ("_held", "concurrency", "pool")

    def __new__(cls, pool: Pool, concurrency: Concurrency) -> PoolLimiter:  # noqa: D102
        return object.__new__(cls)

    def __init__(self, pool: Pool, concurrency: Concurrency) -> None:
        if not isinstance(pool, Pool):
            raise TypeError(f"PoolLimiter({pool!r}, ...): expected a threadlets.Pool")
        if not isinstance(concurrency, Concurrency):
            raise TypeError(f"PoolLimiter(..., {concurrency!r}): expected a threadlets.Concurrency")
        self.pool = pool
        self.concurrency = concurrency
        self._held: dict[object, tuple[Threadlet[None], asyncio.Event]] = {}

    def __repr__(self) -> str:
        return f"<PoolLimiter {self.concurrency!r} of {self.pool!r}>"

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()

    @property
    def total_tokens(self) -> float:
        """The limit; setting it sets that of the ``Concurrency``."""
        return self.concurrency.limit

    @total_tokens.setter
    def total_tokens(self, value: float) -> None:
        if value == math.inf:
            raise ValueError("a Concurrency has a limit: set total_tokens to a large number")
        self.concurrency.limit = value  # type: ignore[assignment]  # which says what is wrong with others

    @property
    def borrowed_tokens(self) -> int:
        """How many run."""
        return self.concurrency.taken

    @property
    def available_tokens(self) -> float:
        """How many more may run; less than 0 after the limit was lowered."""
        return self.concurrency.limit - self.concurrency.taken

    def acquire_nowait(self) -> None:
        """Take a token for the current task, or raise ``WouldBlock``."""
        self.acquire_on_behalf_of_nowait(asyncio.current_task())

    def acquire_on_behalf_of_nowait(self, borrower: object) -> None:
        """Take a token, or raise ``WouldBlock``: if a throttle of the pool says so, or the loop has to go round."""
        handle, _ = self._start(borrower)
        if handle.state == "queued":
            self.release_on_behalf_of(borrower)
            raise WouldBlock

    async def acquire(self) -> None:
        """Take a token for the current task. Cancel: point."""
        await self.acquire_on_behalf_of(asyncio.current_task())

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Take a token. Cancel: point."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        _, begun = self._start(borrower)
        try:
            await begun.wait()
        except BaseException:
            self.release_on_behalf_of(borrower)
            raise

    def release(self) -> None:
        """Give back the token of the current task."""
        self.release_on_behalf_of(asyncio.current_task())

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give back a token."""
        try:
            handle, _ = self._held.pop(borrower)
        except KeyError:
            raise RuntimeError("this borrower isn't holding any of this CapacityLimiter's tokens") from None
        handle.cancel("the token was given back")

    def statistics(self) -> CapacityLimiterStatistics:
        """Return what anyio asks for: the borrowers are those that have a token by ``acquire``."""
        held = tuple(borrower for borrower, (handle, _) in self._held.items() if handle.state != "queued")
        waiting = self.pool.statistics().queued
        return CapacityLimiterStatistics(self.borrowed_tokens, self.total_tokens, held, waiting)

    def _start(self, borrower: object) -> tuple[Threadlet[None], asyncio.Event]:
        if borrower in self._held:
            raise RuntimeError("this borrower is already holding one of this CapacityLimiter's tokens")
        begun = asyncio.Event()
        held = self._held[borrower] = self.pool.start(_hold, begun), begun
        return held


async def _hold(begun: asyncio.Event) -> None:
    begun.set()
    await asyncio.get_running_loop().create_future()
