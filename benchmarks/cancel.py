"""Cancelling in bulk, and locks: ours beside those of asyncio, threading, anyio and concurrent.futures.

*Bulk*: so many are started, which is not timed; then all that have a tag are cancelled, and the time is taken until the
last one has ended. Others find theirs in a set that the program keeps for each tag. Those in workers wait for a socket,
from which nothing ever comes: ours are woken by the cancel; others can only look every 50 ms whether they are to stop,
which is what they are told to do, or would have to have their sockets closed.

*Locks*: alone, and with others who want the same one. ``threading.Lock`` is unfair: whoever runs takes it again, and
nobody has to be woken. Ours goes to the first in line, as ``asyncio.Lock`` does, and knows who holds it and from where.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import Any

from threadlets import Concurrency, Contract, Lock, Pool, checkpoint_wait, threadlet
from threadlets.workers import shared_group

from .harness import Comparison, Contender, Effort, compare, has, versus

__all__ = ["measure"]

QUEUED, SUSPENDED, IN_WORKERS = 100_000, 10_000, 500
LOOK = 0.05  # seconds: how often those who cannot be woken look whether they are to stop; arbitrary, and usual
PEOPLE = 8  # who want the same lock

Once = Callable[[int], Awaitable[float]]  # starts so many, cancels them, returns how long that took in seconds


async def measure(effort: Effort) -> list[Comparison]:
    """Measure cancels in bulk, then locks."""
    shared_group().limit = IN_WORKERS + 1
    rounds = 3 if effort.quick else 7
    in_workers: dict[str, Once] = {
        "checkpoint_wait": _our_sockets,
        "threads that look every 50 ms": _polling,
        **({"anyio.to_thread, the same": _anyio_polling} if has("anyio") else {}),
    }
    return [
        await _bulk(
            f"cancel {QUEUED:,} queued, by tag",
            QUEUED,
            {
                "pool.select(tag=...).cancel()": _our_queued,
                "asyncio tasks": _tasks,
                "concurrent.futures": _futures,
            },
            rounds,
        ),
        await _bulk(
            f"cancel {SUSPENDED:,} suspended, by tag",
            SUSPENDED,
            {
                "pool.select(tag=...).cancel()": _our_suspended,
                "asyncio tasks": _tasks,
                "asyncio.TaskGroup": _group,
                **({"anyio task group": _anyio_group} if has("anyio") else {}),
            },
            rounds,
        ),
        await _bulk(
            f"cancel {IN_WORKERS} that wait for sockets in workers",
            IN_WORKERS,
            in_workers,
            rounds,
        ),
        await _bulk("cancel one that waits for a socket in a worker", 1, in_workers, rounds),
        *await _locks(effort),
    ]


async def _bulk(title: str, size: int, ways: dict[str, Once], rounds: int) -> Comparison:
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, once in ways.items():
            gc.collect()
            spent = await once(size)
            if number:  # the first round warms up
                found[name].append(spent / size)
    return Comparison(title, next(iter(ways)), found, note="For one of them, until the last one has ended.")


# ------------------------------------------------------------------------------------------------------ in bulk


async def _wait() -> None:
    """Wait at a future of its own: at an ``asyncio.Event`` or ``Semaphore`` each cancel looks through all that wait."""
    await asyncio.get_running_loop().create_future()


waits = threadlet(_wait)


async def _our_queued(size: int) -> float:
    async with Pool(Concurrency(1)) as pool:
        first = pool.start(waits)
        handles = [pool.start(waits, tags={"tenant:7"}) for _ in range(size)]
        started = perf_counter()
        assert pool.select(tag="tenant:7").cancel() == size
        spent = perf_counter() - started
        assert handles[-1].cancelled() and len(pool) == 1
        first.cancel()
    return spent


async def _our_suspended(size: int) -> float:
    async with Pool() as pool:
        for _ in range(size):
            pool.start(waits, tags={"tenant:7"})
        started = perf_counter()
        assert pool.select(tag="tenant:7").cancel() == size
        await pool.drain()
        return perf_counter() - started


async def _tasks(size: int) -> float:
    tags = {"tenant:7": {asyncio.create_task(_wait()) for _ in range(size)}}
    await asyncio.sleep(0)
    started = perf_counter()
    for task in tags["tenant:7"]:
        task.cancel()
    await asyncio.wait(tags["tenant:7"])
    return perf_counter() - started


async def _group(size: int) -> float:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_wait()) for _ in range(size)]
        await asyncio.sleep(0)
        started = perf_counter()
        for task in tasks:
            task.cancel()
    return perf_counter() - started


async def _anyio_group(size: int) -> float:
    import anyio

    async with anyio.create_task_group() as group:
        for _ in range(size):
            group.start_soon(_wait)
        await asyncio.sleep(0)
        started = perf_counter()
        group.cancel_scope.cancel()
    return perf_counter() - started


async def _futures(size: int) -> float:
    gate = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(gate.wait)
        futures: list[Future[Any]] = [executor.submit(gate.wait) for _ in range(size)]
        started = perf_counter()
        assert sum(future.cancel() for future in futures) == size
        spent = perf_counter() - started
        gate.set()
    return spent


class _Sockets:
    """Pairs of sockets, and a count of those who wait for one."""

    def __init__(self, size: int) -> None:
        self.pairs = [socket.socketpair() for _ in range(size)]
        self.waiting = threading.Semaphore(0)

    def __enter__(self) -> _Sockets:
        return self

    def __exit__(self, *_: object) -> None:
        for pair in self.pairs:
            for each in pair:
                each.close()

    async def all_wait(self) -> None:
        for _ in self.pairs:
            await asyncio.to_thread(self.waiting.acquire)

    def receive(self, one: socket.socket) -> None:
        """Wait for what never comes, and hear of a cancel at once."""
        self.waiting.release()
        checkpoint_wait(one)

    def look(self, one: socket.socket, stopped: Callable[[], bool]) -> None:
        """Wait for what never comes, and look now and then."""
        self.waiting.release()
        one.settimeout(LOOK)
        while not stopped():
            try:
                one.recv(1)
            except TimeoutError:
                pass


async def _our_sockets(size: int) -> float:
    with _Sockets(size) as sockets:
        async with Pool() as pool:
            receive = threadlet(contract=Contract(blocks="always"))(sockets.receive)
            for one, _ in sockets.pairs:
                pool.start(receive, one, tags={"tenant:7"})
            await sockets.all_wait()
            started = perf_counter()
            assert pool.select(tag="tenant:7").cancel() == size
            await pool.drain()
            return perf_counter() - started


async def _polling(size: int) -> float:
    stop = threading.Event()
    with _Sockets(size) as sockets, ThreadPoolExecutor(size) as executor:
        loop = asyncio.get_running_loop()
        waits = [loop.run_in_executor(executor, sockets.look, one, stop.is_set) for one, _ in sockets.pairs]
        await sockets.all_wait()
        started = perf_counter()
        stop.set()
        await asyncio.wait(waits)
        return perf_counter() - started


async def _anyio_polling(size: int) -> float:
    import anyio
    from anyio import from_thread, to_thread

    def stopped() -> bool:
        from_thread.check_cancelled()
        return False

    with _Sockets(size) as sockets:
        limiter = anyio.CapacityLimiter(size)
        async with anyio.create_task_group() as group:
            for one, _ in sockets.pairs:
                group.start_soon(partial(to_thread.run_sync, sockets.look, one, stopped, limiter=limiter))
            await sockets.all_wait()
            started = perf_counter()
            group.cancel_scope.cancel()
        return perf_counter() - started


# -------------------------------------------------------------------------------------------------------- locks


async def _locks(effort: Effort) -> list[Comparison]:
    on_thread = Contender("threadlets.Lock", partial(_on_thread, Lock()))
    return [
        await compare(
            "take and release a free lock, in a coroutine",
            versus(
                Contender("threadlets.Lock", partial(_in_task, Lock())),
                Contender("asyncio.Lock", partial(_in_task, asyncio.Lock())),
                Contender("anyio.Lock", partial(_in_task, _anyio_lock())) if has("anyio") else None,
            ),
            effort,
        ),
        await compare(
            "take and release a free lock, on a thread",
            versus(on_thread, Contender("threading.Lock", partial(_on_thread, threading.Lock()))),
            effort,
        ),
        await compare(
            f"one lock for {PEOPLE} tasks, each lets the loop go round with it in hand",
            versus(
                Contender("threadlets.Lock", partial(_among_tasks, Lock()), step=PEOPLE),
                Contender("asyncio.Lock", partial(_among_tasks, asyncio.Lock()), step=PEOPLE),
                Contender("anyio.Lock", partial(_among_tasks, _anyio_lock()), step=PEOPLE) if has("anyio") else None,
            ),
            effort,
        ),
        await compare(
            f"one lock for {PEOPLE} threads",
            versus(
                Contender("threadlets.Lock", partial(_among_threads, Lock()), step=PEOPLE),
                Contender("threading.Lock, unfair", partial(_among_threads, threading.Lock()), step=PEOPLE),
            ),
            effort,
            note="Ours changes threads each time; the other one hardly ever.",
        ),
    ]


def _anyio_lock() -> Any:
    import anyio

    return anyio.Lock()


async def _in_task(lock: Any, count: int) -> int:
    held = 0
    for _ in range(count):
        async with lock:
            held += lock.locked()
    return held


async def _on_thread(lock: Any, count: int) -> int:
    def work() -> int:
        held = 0
        for _ in range(count):
            with lock:
                held += lock.locked()
        return held

    return await asyncio.to_thread(work)


async def _among_tasks(lock: Any, count: int) -> int:
    held = 0

    async def work() -> None:
        nonlocal held
        for _ in range(count // PEOPLE):
            async with lock:
                await asyncio.sleep(0)
                held += 1

    await asyncio.gather(*(work() for _ in range(PEOPLE)))
    return held


async def _among_threads(lock: Any, count: int) -> int:
    held = 0

    def work() -> None:
        nonlocal held
        for _ in range(count // PEOPLE):
            with lock:
                held += 1

    with ThreadPoolExecutor(PEOPLE) as executor:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(executor, work) for _ in range(PEOPLE)))
    return held
