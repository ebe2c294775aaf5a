"""Lending: who waits lets those that it waits for use its places, so nesting needs no more of them than there are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

import pytest

from tests.conftest import Run
from tests.waitings import STARTING, WAYS, all_of
from tests.workbench import ON_WORKER, rounds
from threadlets import Adaptive, Concurrency, PerTag, Pool, Rate, Threadlet, Throttle, call_async, threadlet
from threadlets.homes import home_of

T = TypeVar("T")

ALL_WAYS = [*WAYS, *STARTING]
PATIENCE = 20  # seconds; arbitrary: beyond it something waits for ever
TAG = {"host:a"}
FAST = 500  # starts per second: the rate says no now and then, but not for long

THROTTLES: dict[str, Callable[[], tuple[Throttle, ...]]] = {
    "concurrency": lambda: (Concurrency(1),),
    "adaptive": lambda: (Adaptive(initial=1, most=1),),
    "per tag": lambda: (PerTag("host:", Concurrency(1)),),
    "per tag with a rate": lambda: (PerTag("host:", Concurrency(1), Rate(FAST)),),
    "several": lambda: (PerTag("host:", Concurrency(1)), Concurrency(1), PerTag("", Concurrency(1))),
    "rate last": lambda: (Concurrency(1), Rate(FAST)),
    "rate first": lambda: (Rate(FAST), Concurrency(1)),
}


class Meter:
    """Counts how many are at work at a time."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


async def settled(*pools: Pool) -> None:
    """See that nothing is left, of the threadlets or of their waits."""
    for pool in pools:
        await pool.drain()
    for pool in pools:
        pool._check()
        for throttle in pool._throttles:
            assert getattr(throttle, "taken", 0) == 0
    await rounds()
    home = home_of(asyncio.get_running_loop())
    assert len(home.waits) == len(home.expiries) == 0


async def soon(handle: Threadlet[T], what: str = "it") -> T:
    """Wait for a threadlet; tell of a deadlock, and leave it to the end of the loop to break it."""
    await asyncio.wait([cast("asyncio.Future[Any]", handle)], timeout=PATIENCE)
    assert handle.done(), f"{what}: a deadlock"
    return handle.result()


@pytest.mark.parametrize("throttle", THROTTLES)
def test_nesting_under_a_limit_of_one(run: Run, throttle: str) -> None:
    """A hundred threadlets that await each other need one place: one of them is at work at a time."""

    async def main() -> None:
        pool, meter = Pool(*THROTTLES[throttle]()), Meter()

        async def nest(depth: int) -> int:
            with meter:
                await rounds(2)
            result = 0 if depth == 0 else 1 + await pool.start(nest, depth - 1, tags=TAG)
            with meter:
                await rounds(1)
            return result

        assert await soon(pool.start(nest, 100, tags=TAG)) == 100
        assert meter.most == 1
        await settled(pool)

    run(main)


def test_every_way_of_waiting_lends(run: Run) -> None:
    """Trees of threadlets end in a pool of one place, whichever way they wait for their branches."""

    async def main() -> None:
        for way in ALL_WAYS:
            throttle, meter = Concurrency(1), Meter()
            pool = Pool(throttle)

            async def tree(depth: int, way: str = way, pool: Pool = pool, meter: Meter = meter) -> int:
                with meter:
                    await rounds(1)
                branches = await all_of(way, pool, tree, [depth - 1] * 2) if depth else []
                with meter:
                    await rounds(1)
                return 1 + int(sum(branches))

            assert await soon(pool.start(tree, 4), way) == 31
            assert meter.most == 1, way
            await settled(pool)

    run(main)


async def join_start(pool: Pool, function: Callable[..., Any], *args: Any) -> Any:
    return await pool.start(function, *args)


def test_every_way_of_waiting_lends_on_workers(run: Run) -> None:
    """Functions on workers that wait by call_async lend as coroutines do, in turns with these, too."""

    async def main() -> None:
        for way in ALL_WAYS:
            pool, meter = Pool(Concurrency(1)), Meter()

            @threadlet(contract=ON_WORKER)
            def worker(depth: int, way: str = way, pool: Pool = pool, meter: Meter = meter) -> int:
                with meter:
                    pass
                branches = call_async(all_of, way, pool, coroutine, [depth - 1] * 2) if depth else []
                with meter:
                    return 1 + int(sum(branches))

            async def coroutine(depth: int, way: str = way, pool: Pool = pool, worker: Any = worker) -> int:
                return 1 + int(sum(await all_of(way, pool, worker, [depth - 1] * 2) if depth else []))

            assert await soon(pool.start(worker, 3), way) == 15
            assert meter.most == 1, way
            await settled(pool)

    run(main)


@pytest.mark.parametrize("pools", [0, 1, 2])
def test_more_workers_may_wait_than_there_are_threads(run: Run, pools: int) -> None:
    """Two hundred functions that wait for each other on workers do not run out of threads, nor of places."""

    async def main() -> None:
        made = [Pool(Concurrency(1)) for _ in range(pools)] or [Pool()]

        @threadlet(contract=ON_WORKER)
        def nest(depth: int) -> int:
            return 1 + int(call_async(join_start, made[depth % len(made)], nest, depth - 1)) if depth else 0

        assert await soon(made[0].start(nest, 200)) == 200
        await settled(*made)

    run(main)


def test_two_pools_that_await_each_other(run: Run) -> None:
    """Two throttles of one place each, in a circle of waits a hundred deep, need no second place."""

    async def main() -> None:
        pools = Pool(Concurrency(1)), Pool(Concurrency(1))

        async def nest(depth: int) -> int:
            return 1 + await pools[depth % 2].start(nest, depth - 1) if depth else 0

        assert await soon(pools[0].start(nest, 100)) == 100
        await settled(*pools)

    run(main)


def test_part_and_whole_await_each_other(run: Run) -> None:
    """One of a part awaits one of the whole, which awaits one of the part: it lends each throttle by itself."""

    async def main() -> None:
        whole = Pool(Concurrency(1))
        pools = Pool(Concurrency(1), parent=whole), whole

        async def nest(depth: int) -> int:
            return 1 + await pools[depth % 2].start(nest, depth - 1) if depth else 0

        for depth in (2, 3, 10):
            assert await soon(pools[depth % 2].start(nest, depth)) == depth
        await settled(*pools)
        pools[0].close()

    run(main)
