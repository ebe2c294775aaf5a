"""Leaving the loop: the coroutine itself goes to a worker, or to another loop, and comes back; beside calling there.

*A hop*: to a thread that sleeps, and back to a loop that sleeps. *At once*: a thousand coroutines leave together.
*Several calls*: ten blocking calls of a millionth of a second each, with something to do between them: one block has
one hop, functions have ten. *Another loop*: to one that runs in another thread, and back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from threadlets import Contract, migrate, new_event_loop, offload, threadlet

from .harness import Comparison, Contender, Effort, compare, has, versus

__all__ = ["measure"]

MANY = 1000
CALLS = 10


def nothing() -> int:
    """Do nothing."""
    return 1


on_worker = threadlet(contract=Contract(blocks="always"))(nothing)
Once = Callable[[], Awaitable[int]]


async def measure(effort: Effort) -> list[Comparison]:
    """Measure one at a time, many at once, several calls, another loop."""
    anyio = has("anyio")
    return [
        await compare(
            "leave the loop and come back, one at a time",
            versus(
                Contender("async with offload()", _one_by_one(_offload)),
                Contender("asyncio.to_thread", _one_by_one(_to_thread), budget=1.0),
                Contender("anyio.to_thread.run_sync", _one_by_one(_anyio()), budget=1.0) if anyio else None,
                Contender("loop.run_in_executor", _one_by_one(_in_executor)),
                Contender("a threadlet on a worker", _one_by_one(_threadlet)),
            ),
            effort,
            note="What runs there does nothing.",
        ),
        await compare(
            f"{MANY:,} coroutines leave at once, and come back",
            versus(
                Contender("async with offload()", _gathered(_offload), step=MANY),
                Contender("loop.run_in_executor", _gathered(_in_executor), budget=1.0, step=MANY),
                Contender("asyncio.to_thread", _gathered(_to_thread), step=MANY),
                Contender("anyio.to_thread.run_sync", _gathered(_anyio()), step=MANY) if anyio else None,
            ),
            effort,
            note="Each in a coroutine of its own. Figures are for one of them.",
        ),
        await compare(
            f"{CALLS} blocking calls in a row",
            versus(
                Contender("one block of offload()", _one_by_one(_block_of_calls)),
                Contender("asyncio.to_thread for each", _one_by_one(_each(_to_thread))),
                Contender("anyio.to_thread.run_sync for each", _one_by_one(_each(_anyio()))) if anyio else None,
            ),
            effort,
            note="The calls are short: what is measured is what it costs to make them elsewhere.",
        ),
        await _loops(effort),
    ]


def _one_by_one(once: Once) -> Callable[[int], Any]:
    async def run(count: int) -> int:
        right = 0
        for _ in range(count):
            right += await once()
        return right

    return run


def _gathered(once: Once) -> Callable[[int], Any]:
    async def run(count: int) -> int:
        right = 0
        for _ in range(count // MANY):
            right += sum(await asyncio.gather(*[once() for _ in range(MANY)]))
        return right

    return run


async def _offload() -> int:
    async with offload():
        return nothing()


async def _to_thread() -> int:
    return await asyncio.to_thread(nothing)


async def _in_executor() -> int:
    return await asyncio.get_running_loop().run_in_executor(None, nothing)


async def _threadlet() -> int:
    return await on_worker()


def _anyio() -> Once:
    from anyio import CapacityLimiter, to_thread

    limiters: list[CapacityLimiter] = []

    async def once() -> int:
        if not limiters:
            limiters.append(CapacityLimiter(64))  # as many threads as we have
        return await to_thread.run_sync(nothing, limiter=limiters[0])

    return once


async def _block_of_calls() -> int:
    async with offload():
        return sum(nothing() for _ in range(CALLS)) // CALLS


def _each(once: Once) -> Once:
    async def run() -> int:
        right = 0
        for _ in range(CALLS):
            right += await once()
        return right // CALLS

    return run


# ------------------------------------------------------------------------------------------------------ another loop


async def _loops(effort: Effort) -> Comparison:
    async with _another() as loop:

        async def migrating() -> int:
            await migrate(loop)
            result = nothing()
            await migrate(None)
            return result

        async def there() -> int:
            return nothing()

        async def sending() -> int:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), loop))

        return await compare(
            "to an event loop in another thread, and back",
            [
                Contender("await migrate(loop)", _one_by_one(migrating)),
                Contender("asyncio.run_coroutine_threadsafe", _one_by_one(sending)),
            ],
            effort,
        )


@asynccontextmanager
async def _another() -> AsyncIterator[asyncio.AbstractEventLoop]:
    loop = new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
