"""Capacity: what a full pool refuses, what it drops instead, and what does not count."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import IN_PLACE, ON_WORKER, Gate, forever, until
from threadlets import Concurrency, Pool, threadlet
from threadlets.errors import PoolFull, Shed
from threadlets.workers import WorkerGroup


def test_a_full_pool_rejects(run: Run) -> None:
    """With ``overflow="reject"`` start raises PoolFull beyond the capacity, counts it, and changes nothing else."""

    async def main() -> None:
        pool = Pool(Concurrency(1), capacity=3, name="small")
        handles = [pool.start(forever) for _ in range(3)]
        for _ in range(2):
            with pytest.raises(PoolFull, match=r"<Pool 'small': 2 queued, 1 admitted> is full \(capacity=3\)"):
                pool.start(forever, priority=-1)
        assert pool.statistics().rejected == 2
        handles[2].cancel()
        handles.append(pool.start(forever))
        assert [handle.state for handle in handles] == ["missed", "queued", "cancelled", "queued"]
        pool._check()
        await pool.aclose()

    run(main)


def test_a_full_pool_sheds_the_least_urgent(run: Run) -> None:
    """With ``overflow="shed"`` the least urgent goes: one in the queue, or the newcomer if that is it."""

    async def main() -> None:
        pool = Pool(Concurrency(1), capacity=4, overflow="shed")
        running = pool.start(forever, priority=100)
        five, seven, seven_too = (pool.start(forever, priority=priority) for priority in (5, 7, 7))
        six = pool.start(forever, priority=6)
        assert seven_too.done() and not seven.done()
        eight = pool.start(forever, priority=8)
        assert eight.done()
        tie = pool.start(forever, priority=7)
        assert tie.done() and not seven.done()  # ties go in order of arrival: it came last
        for shed in (seven_too, eight, tie):
            assert shed.state == "failed" and shed not in pool
            with pytest.raises(Shed, match=r"was dropped by.*before it ran: capacity=4 was reached"):
                await shed
        assert [handle.state for handle in (running, five, six, seven)] == ["missed"] + ["queued"] * 3
        statistics = pool.statistics()
        assert (statistics.shed, statistics.failed, statistics.rejected, len(pool)) == (3, 0, 0, 4)
        pool._check()
        await pool.aclose()

    run(main)


def test_a_full_pool_sheds_at_the_workers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without throttles the queue is that of the workers: what waits there can be shed, what runs cannot."""
    gate = Gate()
    step = threadlet(contract=ON_WORKER)(gate)
    monkeypatch.setattr(step, "workers", WorkerGroup("one", limit=1, idle_seconds=0))

    async def main() -> None:
        pool = Pool(capacity=3, overflow="shed")
        running = pool.start(step, "ran", priority=9)
        gate.wait_arrived()
        low, high = pool.start(step, "low", priority=5), pool.start(step, "high", priority=1)
        middle = pool.start(step, "middle", priority=3)
        assert low.state == "failed"
        lowest = pool.start(step, "lowest", priority=8)
        assert lowest.state == "failed"
        pool._check()
        gate.open()
        assert await asyncio.gather(running, high, middle) == ["ran", "high", "middle"]
        for shed in (low, lowest):
            with pytest.raises(Shed):
                await shed
        assert step.workers.waiting == 0

    run(main)


def test_when_nothing_is_queued_the_newcomer_is_shed(run: Run) -> None:
    """What has started is never shed, however urgent the newcomer."""

    async def main() -> None:
        pool = Pool(capacity=1, overflow="shed")
        running = pool.start(forever, priority=9)
        newcomer = pool.start(forever, priority=-9)
        assert (running.state, newcomer.state) == ("missed", "failed")
        with pytest.raises(Shed):
            newcomer.result()
        await pool.aclose()

    run(main)


@pytest.mark.parametrize("overflow", ["reject", "shed"])
def test_capacity_counts_what_is_unfinished(run: Run, overflow: Any) -> None:
    """A plain function that ends in place is never held; a full pool takes no further one, even so."""
    identity = threadlet(contract=IN_PLACE)(lambda value: value)

    async def main() -> None:
        pool = Pool(capacity=1, overflow=overflow)
        assert [await pool.start(identity, number) for number in range(5)] == [0, 1, 2, 3, 4]
        assert pool.statistics().done == 5
        handle = pool.start(forever)
        if overflow == "reject":
            with pytest.raises(PoolFull):
                pool.start(identity, 1)
        else:
            with pytest.raises(Shed):
                await pool.start(identity, 1)
        handle.cancel()
        await until(handle.done)
        assert await pool.start(identity, 1) == 1
        pool._check()

    run(main)
