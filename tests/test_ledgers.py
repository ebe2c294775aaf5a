"""The books of a pool: counts and times by entrypoint and by tag, in bounded memory, of parts and wholes."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import weakref
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import ABANDON, IN_PLACE, ON_WORKER, Gate, forever, rounds, until
from threadlets import Concurrency, Contract, Pool, PoolStatistics, admissions, ledgers, threadlet, turns
from threadlets.errors import PoolFull
from threadlets.ledgers import MANY, SAMPLE, TAGS


@threadlet
async def quick(fails: bool = False) -> None:
    if fails:
        raise ValueError


@threadlet
async def slow(fails: bool = False) -> None:
    await rounds(2)
    if fails:
        raise ValueError


in_place = threadlet(contract=IN_PLACE)(lambda: None)
on_worker = threadlet(contract=ON_WORKER)(lambda: None)


def outcome(statistics: Any) -> tuple[int, int, int]:
    return statistics.done, statistics.failed, statistics.cancelled


async def fill(pool: Pool, tag: str) -> None:
    """Let 4 of each kind return, 2 coroutines fail, and 2 be cancelled, with a tag."""
    handles = [
        pool.start(function, tags={tag, "all"}) for function in (quick, slow, in_place, on_worker) for _ in "1234"
    ]
    handles += [pool.start(function, True, tags={tag, "all"}) for function in (quick, slow)]
    doomed = [pool.start(function, tags={tag, "all"}) for function in (forever, slow)]
    for handle in doomed:
        handle.cancel()
    await asyncio.gather(*handles, *doomed, return_exceptions=True)
    await pool.drain()


@pytest.mark.parametrize("limit", [None, 1, 3])
def test_counts_by_entrypoint_and_tag(run: Run, limit: int | None) -> None:
    """Every outcome is counted once: in all, by the name of the entrypoint, and for each of its tags."""

    async def main() -> None:
        pool = Pool() if limit is None else Pool(Concurrency(limit))
        await fill(pool, "a")
        await fill(pool, "b")
        statistics = pool.statistics()
        assert outcome(statistics) == (32, 4, 4)
        assert {name: outcome(each) for name, each in statistics.entrypoints.items()} == {
            "quick": (8, 2, 0),
            "slow": (8, 2, 2),
            "<lambda>": (16, 0, 0),
            "forever": (0, 0, 2),
        }
        assert {tag: outcome(each) for tag, each in statistics.tags.items()} == {
            "a": (16, 2, 2),
            "b": (16, 2, 2),
            "all": (32, 4, 4),
        }
        assert (statistics.queued, statistics.admitted, statistics.unretrieved) == (0, 0, 0)
        assert statistics.waits.count > 0 or limit is None  # where nothing limits, a busy machine may make some wait
        assert statistics.runs.count >= 18 - 2
        pool._check()

    run(main)


def test_times_are_those_of_the_queue_and_of_the_run(run: Run) -> None:
    """Percentiles are in seconds and in order; who waited, waited as long as it did, and so for those who ran."""

    async def main() -> None:
        pool = Pool(Concurrency(1))
        loop = asyncio.get_running_loop()
        began = loop.time()
        handles = [pool.start(slow, tags={"t"}) for _ in range(200)]
        await asyncio.gather(*handles)
        elapsed = loop.time() - began
        statistics = pool.statistics()
        for each in (statistics, statistics.entrypoints["slow"], statistics.tags["t"]):
            waits, runs = each.waits, each.runs
            assert (waits.count, runs.count) == (199, 200)
            for times in (waits, runs):
                assert 0 < times.p50 <= times.p90 * 1.07 <= times.p99 * 1.15 <= times.most * 1.23
                assert times.most <= elapsed * 1.01 + 0.001
        assert statistics.waits.most >= statistics.runs.p50

    run(main)


def test_a_sample_counts_for_all() -> None:
    """Beyond the first times one in seven is noted, and weighs as much as seven; the longest is exact in any case."""

    async def main() -> None:
        pool = Pool()
        handle = pool.start(slow, tags={"t"})
        for _ in range(MANY):
            pool._waited(handle, 1_000)
        for n in range(9 * MANY):
            pool._waited(handle, 2_000_000 + n)
            pool._ran(handle, n)
        statistics = pool.statistics()
        for waits in (statistics.waits, statistics.entrypoints["slow"].waits, statistics.tags["t"].waits):
            assert abs(waits.count - 10 * MANY) <= SAMPLE
            assert waits.p50 > 0.0019
            assert waits.most == (2_000_000 + 9 * MANY - 1) / 1e9
        assert statistics.runs.most == (9 * MANY - 1) / 1e9
        await handle

    asyncio.run(main())


def test_memory_is_bounded_whatever_the_tags(run: Run) -> None:
    """Of ten thousand different tags the last thousand are kept, and those are right."""

    async def main() -> None:
        pool = Pool()
        for n in range(10_000):
            await pool.start(in_place, tags={f"tag:{n}"})
        statistics = pool.statistics()
        assert len(statistics.tags) == TAGS and statistics.done == 10_000
        assert set(statistics.tags) == {f"tag:{n}" for n in range(10_000 - TAGS, 10_000)}
        assert {each.done for each in statistics.tags.values()} == {1}
        assert len(pool._index._tags) == 0
        pool._check()

    run(main)


def test_memory_is_bounded_whatever_the_functions(once: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of functions that are made for each call the last ones are kept; all are counted, by their name."""
    monkeypatch.setattr(ledgers, "FUNCTIONS", 10)

    async def main() -> None:
        pool = Pool()
        part = Pool(parent=pool)
        gone = []
        for n in range(30):
            function = eval("lambda: 1")
            await (part if n % 3 else pool).start(function)
            gone.append(weakref.ref(function))
            del function
        gc.collect()
        assert sum(each() is not None for each in gone) <= 20
        await pool.start(quick)
        statistics = pool.statistics()
        assert (statistics.done, statistics.entrypoints["<lambda>"].done) == (31, 30)
        assert len(pool._tallies) <= 11
        pool._check()
        await part.aclose()
        assert pool.statistics().done == 31

    once(main)


def test_memory_stays_flat() -> None:
    """A hundred thousand threadlets of every kind leave no more objects behind than the first thousand did."""

    async def some(pool: Pool, count: int) -> None:
        for n in range(count):
            await pool.start(in_place, tags={"a"}, priority=n)
            await pool.start(quick)
            if n % 10 == 0:
                await pool.start(slow, deadline=3600, tags={f"b:{n % 7}"})
            if n % 100 == 0:
                await asyncio.gather(*[pool.start(on_worker) for _ in range(5)])
                pool.start(forever, deadline=3600).cancel()

    async def main() -> None:
        pool = Pool(Concurrency(3))
        await some(pool, 1_000)
        gc.collect()
        objects, blocks = len(gc.get_objects()), sys.getallocatedblocks()
        await some(pool, 45_000)
        gc.collect()
        assert len(gc.get_objects()) - objects < 200
        assert sys.getallocatedblocks() - blocks < 5_000
        assert pool.statistics().done > 92_000
        pool._check()

    asyncio.run(main())


def test_a_whole_counts_its_parts(run: Run) -> None:
    """Figures of parts are in those of the whole, while they live and when they have been closed; each once."""

    async def main() -> None:
        whole = Pool(Concurrency(2))
        part = Pool(parent=whole)
        inner = Pool(parent=part)
        for pool, tag in ((whole, "w"), (part, "p"), (inner, "i")):
            await fill(pool, tag)
        expected = [outcome(pool.statistics()) for pool in (whole, part, inner)]
        assert expected == [(48, 6, 6), (32, 4, 4), (16, 2, 2)]
        before = whole.statistics()
        inner.close()
        inner.close()
        assert outcome(part.statistics()) == expected[1]
        part.close()
        after = whole.statistics()
        assert after == before
        assert (after.entrypoints, after.tags, after.runs, after.waits) == (
            *(before.entrypoints, before.tags, before.runs, before.waits),
        )
        await rounds()
        assert not whole._children
        whole._check()

    run(main)


def test_a_part_that_is_closed_while_it_works(run: Run) -> None:
    """What ends in a part after it was closed is counted, too, by the part and by the whole."""

    async def main() -> None:
        whole = Pool()
        async with Pool(parent=whole) as part:
            part.start(slow, tags={"t"})
            part.close()
            assert whole._children
        await rounds()
        assert not whole._children
        assert outcome(whole.statistics()) == (1, 0, 0) and outcome(whole.statistics().tags["t"]) == (1, 0, 0)
        assert outcome(part.statistics()) == (1, 0, 0)
        for _ in range(100):
            async with Pool(parent=whole) as part:
                part.start(slow)
        await rounds()
        assert outcome(whole.statistics()) == (101, 0, 0) and not whole._children

    run(main)


def test_a_part_that_is_closed_by_its_own_call_in_place(run: Run) -> None:
    """The call that closes a part is counted, by the part and by the whole, although it ends only after that."""

    async def main() -> None:
        whole = Pool()
        part = Pool(parent=whole)
        await part.start(threadlet(contract=Contract(blocks="never"))(part.close))
        await rounds()
        assert outcome(part.statistics()) == outcome(whole.statistics()) == (1, 0, 0)
        assert not whole._children

    run(main)


def test_what_is_shed_rejected_and_abandoned(run: Run) -> None:
    """These are counted where they happen, and in the whole, also when the part is gone."""
    gate = Gate()

    async def main() -> None:
        whole = Pool()
        part = Pool(Concurrency(1), parent=whole, capacity=2)
        shedding = Pool(Concurrency(1), parent=whole, capacity=2, overflow="shed")
        for pool in (part, shedding):
            pool.start(forever)
            pool.start(forever, priority=5)
        await rounds()
        for _ in range(3):
            with pytest.raises(PoolFull):
                part.start(quick)
            shedding.start(quick, priority=9)
        assert (part.statistics().rejected, shedding.statistics().shed) == (3, 3)
        figures: PoolStatistics = whole.statistics()
        assert (figures.rejected, figures.shed, figures.queued, figures.admitted) == (3, 3, 2, 2)
        for pool in (part, shedding):
            pool.close()
            pool.cancel()
            await pool.drain()
        figures = whole.statistics()
        assert (figures.rejected, figures.shed, figures.cancelled, figures.failed) == (3, 3, 4, 0)
        abandoning = Pool(parent=whole)
        handle = abandoning.start(threadlet(contract=ABANDON)(gate))
        gate.wait_arrived()
        handle.cancel()
        abandoning.close()
        assert whole.statistics().abandoned == 1
        gate.open()
        await until(lambda: not whole.statistics().abandoned)
        await rounds()
        assert not whole._children
        whole._check()

    run(main)


def test_a_clock_that_hardly_moves(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the clock shows one time for long, nothing has waited less than no time, and nothing is lost."""

    async def main() -> None:
        pool = Pool(Concurrency(1))
        blocker = pool.start(forever)
        handles = [pool.start(slow) for _ in range(50)]
        blocker.cancel()
        await asyncio.wait({asyncio.ensure_future(handle) for handle in handles}, timeout=20)
        assert pool.statistics().waits.count == 50
        pool._check()

    now = time.monotonic_ns()
    for module in (admissions, turns):
        monkeypatch.setattr(module, "monotonic_ns", lambda: now)
    run(main)
