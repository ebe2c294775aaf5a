"""A hundred thousand threadlets of all kinds through one pool: every one ends once, and nothing stays behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import tracemalloc
from collections import Counter
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import ABANDON, IN_PLACE, ON_WORKER, forever, until
from threadlets import Concurrency, Pool, Threadlet, threadlet
from threadlets.errors import PoolFull, Shed
from threadlets.workers import WorkerGroup

COUNT = {"asyncio": 100_000, "uvloop": 25_000}


class Expected(Exception):
    """Raised by the functions of these tests."""


def work(number: int, fails: bool) -> int:
    if fails:
        raise Expected(number)
    return number


async def work_at_once(number: int, fails: bool) -> int:
    return work(number, fails)


async def work_later(number: int, fails: bool) -> int:
    await asyncio.sleep(0)
    return work(number, fails)


KINDS: list[Any] = [
    threadlet(contract=IN_PLACE)(work),
    threadlet(contract=ON_WORKER)(work),
    threadlet(contract=ABANDON)(work),
    threadlet(work_at_once),
    threadlet(work_later),
    work,
]


@pytest.fixture
def chance() -> random.Random:
    """Return a generator whose seed is printed."""
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed}")
    return random.Random(seed)


def outcome(handle: Threadlet[int], number: int) -> str:
    """Check that a handle has ended as its threadlet could, and say how."""
    if handle.cancelled():
        return "cancelled"
    error = handle.exception()
    if error is None:
        assert handle.result() == number
        return "done"
    if isinstance(error, Shed):
        return "shed"
    assert isinstance(error, Expected) and error.args == (number,)
    return "failed"


@pytest.mark.parametrize(("run", "count"), COUNT.items(), indirect=["run"])
def test_a_hundred_thousand(run: Run, count: int, chance: random.Random) -> None:
    """Mixed kinds, priorities, cancels and failures under a limit: books right at every thousandth, memory flat."""

    async def main() -> None:
        throttle = Concurrency(50)
        pool = Pool(throttle)
        ended: Counter[str] = Counter()
        waiting: list[tuple[int, Threadlet[int]]] = []
        tracemalloc.start()
        sizes = []
        for number in range(count):
            handle = pool.start(
                chance.choice(KINDS), number, chance.random() < 0.02, priority=chance.randrange(5), tags={number % 7}
            )
            waiting.append((number, handle))
            dice = chance.random()
            if dice < 0.02:
                chance.choice(waiting[-60:])[1].cancel()
            elif dice < 0.04:
                chance.choice(waiting[-60:])[1].priority = chance.randrange(-5, 5)
            elif dice < 0.05:
                throttle.limit = chance.randrange(1, 100)
            elif dice < 0.1:
                await asyncio.sleep(0)
            if number % 5_000 == 4_999:
                pool._check()
                assert 0 <= throttle.taken <= 100
                assert len(pool.select(tag=3)) == sum(3 in handle.tags for handle in pool)
                throttle.limit = 50
                await pool.drain()
                ended.update(outcome(handle, number) for number, handle in waiting)
                waiting.clear()
                del handle
                await until(lambda: not pool._abandoned)
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
                pool._check()
                assert throttle.taken == 0
        tracemalloc.stop()
        statistics = pool.statistics()
        assert ended.total() == count
        assert ended == Counter(done=statistics.done, failed=statistics.failed, cancelled=statistics.cancelled)
        assert min(ended.values()) > count / 1_000, "the mix has some of each"
        assert max(sizes[2:]) - min(sizes[2:]) < 200_000, f"memory is flat: {sizes}"  # arbitrary

    run(main)
    run.told()  # abandoned functions that failed


def test_every_operation_in_any_order(run: Run, chance: random.Random) -> None:
    """Random operations on small pools, the books checked after each: no threadlet is lost, none ends twice."""

    async def main() -> None:
        for _ in range(15):
            await play()

    async def play() -> None:
        throttle = Concurrency(chance.randrange(1, 4))
        sheds = chance.random() < 0.5
        pool = Pool(throttle, capacity=chance.choice([None, 8]), overflow="shed" if sheds else "reject")
        handles: list[tuple[int, Threadlet[int]]] = []
        ends: Counter[Threadlet[int]] = Counter()
        kinds = [*KINDS, endless]
        for number in range(150):
            dice = chance.randrange(10)
            if dice < 5:
                try:
                    handle = pool.start(chance.choice(kinds), number, chance.random() < 0.1, priority=chance.random())
                except PoolFull:
                    assert len(pool) == 8
                else:
                    handles.append((number, handle))
                    handle.add_done_callback(lambda handle: ends.update([handle]))
            elif dice == 5 and handles:
                chance.choice(handles)[1].cancel("chance")
            elif dice == 6 and handles:
                chance.choice(handles)[1].priority = chance.random()
            elif dice == 7:
                throttle.limit = chance.randrange(1, 6)
            elif dice == 8:
                pool.select(where=lambda handle: chance.random() < 0.2).cancel()
            else:
                await asyncio.sleep(0)
            pool._check()
            throttle._check()
        await pool.aclose()
        await until(lambda: not pool._abandoned)
        for _ in range(3):
            await asyncio.sleep(0)
        assert ends == Counter([handle for _, handle in handles])
        ended = Counter(outcome(handle, number) for number, handle in handles)
        statistics = pool.statistics()
        assert (ended["done"], ended["failed"], ended["cancelled"], ended["shed"]) == (
            statistics.done,
            statistics.failed,
            statistics.cancelled,
            statistics.shed,
        )
        assert throttle.taken == 0

    run(main)
    run.told()  # abandoned functions that failed


async def endless(number: int, fails: bool) -> int:
    await forever()
    return number


def test_cancels_race_with_workers(run: Run, chance: random.Random) -> None:
    """Cancels at any moment of a job's way through a worker: one end each, every place given back, no thread lost."""
    group = WorkerGroup("races", limit=3, idle_seconds=0.01)

    async def main() -> None:
        throttle = Concurrency(8)
        pool = Pool(throttle)
        for contract in (ON_WORKER, ABANDON):
            function = threadlet(contract=contract)(work)
            function.workers = group
            for start in range(0, 2_000, 20):
                handles = [pool.start(function, number, False) for number in range(start, start + 20)]
                for handle in chance.sample(handles, 10):
                    for _ in range(chance.randrange(3)):
                        await asyncio.sleep(0)
                    handle.cancel()
                await pool.drain()
                for number, handle in enumerate(handles, start):
                    assert outcome(handle, number) in ("done", "cancelled")
            await until(lambda: throttle.taken == 0)
        statistics = pool.statistics()
        assert statistics.done + statistics.cancelled == 4_000
        assert statistics.abandoned == 0
        pool._check()
        group._check()

    run(main)
