"""Worker threads: a thousand short functions at once, and one at a time.

Threads are warm on every side: the calls that find out how long a sample must be have started them. Two rows say what
can be reached at all: ``gather`` of futures that one callback resolves, with no thread anywhere; and the least that can
be called a worker: one thread, two queues, one wake-up of the loop for all that is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any

from threadlets import Contract, threadlet

from .harness import Comparison, Contender, Effort, compare, has, versus

__all__ = ["measure"]

MANY = 1000


def nothing() -> int:
    """Do nothing."""
    return 1


on_worker = threadlet(contract=Contract(blocks="always"))(nothing)


async def measure(effort: Effort) -> list[Comparison]:
    """Measure a thousand at once, then one at a time."""
    async with _sketch() as submit:
        many = await compare(
            f"{MANY:,} functions that do nothing, on workers, gathered",
            versus(
                Contender("threadlets", _gathering(lambda _: on_worker()), step=MANY),
                Contender("loop.run_in_executor", _gathering(_in_executor), budget=1 / 12, step=MANY),
                Contender("asyncio.to_thread", _gathering(lambda _: asyncio.to_thread(nothing)), step=MANY),
                Contender("floor: gather alone, no threads", _gathered_futures, step=MANY),
                Contender("sketch: one thread, no features", _gathering(lambda _: submit(nothing)), step=MANY),
            ),
            effort,
            note="Figures are for one of them. The last two rows are no alternatives; they say what could be reached.",
        )
        one = await compare(
            "a function that does nothing, on a worker, one at a time",
            versus(
                Contender("threadlet", _one_by_one(lambda _: on_worker())),
                Contender("loop.run_in_executor", _one_by_one(_in_executor)),
                Contender("asyncio.to_thread", _one_by_one(lambda _: asyncio.to_thread(nothing))),
                Contender("anyio.to_thread.run_sync", _anyio_one_by_one()) if has("anyio") else None,
                Contender("sketch: one thread, no features", _one_by_one(lambda _: submit(nothing))),
            ),
            effort,
            note="A hop: to a thread that sleeps, and back to a loop that sleeps.",
        )
    return [many, one]


def _in_executor(loop: asyncio.AbstractEventLoop) -> asyncio.Future[int]:
    return loop.run_in_executor(None, nothing)


def _gathering(start: Callable[[asyncio.AbstractEventLoop], Any]) -> Callable[[int], Any]:
    async def run(count: int) -> int:
        loop = asyncio.get_running_loop()
        right = 0
        for _ in range(count // MANY):
            right += sum(await asyncio.gather(*[start(loop) for _ in range(MANY)]))
        return right

    return run


def _one_by_one(start: Callable[[asyncio.AbstractEventLoop], Any]) -> Callable[[int], Any]:
    async def run(count: int) -> int:
        loop = asyncio.get_running_loop()
        right = 0
        for _ in range(count):
            right += await start(loop)
        return right

    return run


def _anyio_one_by_one() -> Callable[[int], Any]:
    from anyio import to_thread

    return _one_by_one(lambda _: to_thread.run_sync(nothing))


async def _gathered_futures(count: int) -> int:
    loop = asyncio.get_running_loop()
    right = 0
    for _ in range(count // MANY):
        futures = [loop.create_future() for _ in range(MANY)]
        loop.call_soon(_resolve, futures)
        right += sum(await asyncio.gather(*futures))
    return right


def _resolve(futures: list[asyncio.Future[int]]) -> None:
    for future in futures:
        future.set_result(1)


@contextlib.asynccontextmanager
async def _sketch() -> AsyncIterator[Callable[[Callable[[], int]], asyncio.Future[int]]]:
    """Run one worker thread that knows no priorities, no cancelling, no failures and no context."""
    loop = asyncio.get_running_loop()
    asked: SimpleQueue[tuple[Callable[[], int], asyncio.Future[int]] | None] = SimpleQueue()
    ended: deque[tuple[asyncio.Future[int], int]] = deque()

    def work() -> None:
        while (item := asked.get()) is not None:
            function, future = item
            ended.append((future, function()))
            if len(ended) == 1:
                loop.call_soon_threadsafe(deliver)

    def deliver() -> None:
        while ended:
            future, value = ended[0]
            future.set_result(value)
            ended.popleft()  # last: a worker that sees another letter here relies on this loop

    def submit(function: Callable[[], int]) -> asyncio.Future[int]:
        future = loop.create_future()
        asked.put((function, future))
        return future

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        yield submit
    finally:
        asked.put(None)
        thread.join()
