"""Shared runs beside the rest: deadlines, statistics, lending, workers, and memory."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import pytest

from tests.conftest import Run
from tests.test_sharings import LATER, PURE, PURE_AT_WORKER, Counted, settled
from tests.workbench import Gate, Token, forever, rounds, until
from threadlets import Concurrency, Contract, Pool, Threadlet, call_async, threadlet
from threadlets.errors import DeadlineExceeded, Shed


@pytest.mark.parametrize("where", ["suspended", "queued", "worker"])
@pytest.mark.parametrize("others", [0, 2])
def test_a_deadline_of_one_call(run: Run, where: str, others: int) -> None:
    """A call that shares a run has its own deadline, and fails by it; the others go on, or the run is stopped."""
    gate = Gate()

    async def main() -> None:
        counted = Counted()
        pool = Pool(Concurrency(1))
        if where == "queued":
            pool.start(forever)
        function = threadlet(contract=PURE_AT_WORKER)(gate) if where == "worker" else counted.entrypoint
        kept = [pool.start(function, 1, deadline=LATER) for _ in range(others)]
        handle = pool.start(function, 1, deadline=0.001)
        if where == "worker":
            gate.wait_arrived()
            await asyncio.sleep(0.002)
            gate.open()
        with pytest.raises(DeadlineExceeded):
            await handle
        assert handle.state == "failed"
        pool._check()
        if where != "queued":
            counted.go.set()
            await asyncio.gather(*kept)
        assert not any(each.cancelled() or each.state == "failed" for each in kept)
        await settled(pool)

    run(main)


def test_the_earliest_deadline_of_them_orders(run: Run) -> None:
    """In a pool with order="deadline" a run goes by the earliest deadline of its calls."""

    async def main() -> None:
        order: list[int] = []

        async def note(n: int) -> None:
            order.append(n)

        pure = threadlet(contract=PURE)(note)
        pool = Pool(Concurrency(1), order="deadline")
        blocker = pool.start(forever)
        pool.start(note, 1, deadline=100)
        pool.start(pure, 2, deadline=200)
        pool.start(pure, 2, deadline=50)
        pool.start(note, 3)
        blocker.cancel()
        await pool.drain()
        assert order == [2, 1, 3]
        await settled(pool)

    run(main)


def test_parts_and_wholes_count_them(run: Run) -> None:
    """What is queued is counted as such in a part and in the whole, however many share a run."""

    async def main() -> None:
        counted = Counted()
        whole = Pool(Concurrency(1))
        part = Pool(parent=whole)
        whole.start(forever)
        for count in (1, 2, 3):
            part.start(counted.entrypoint, 1)
            statistics = part.statistics(), whole.statistics()
            assert [(each.queued, each.admitted) for each in statistics] == [(count, 0), (count, 1)]
        await settled(whole, part)
        part.close()

    run(main)


def test_recursion_shares_and_lends(run: Run) -> None:
    """Fibonacci by pure threadlets in a pool of one place takes as many runs as there are numbers, at the most."""

    async def main() -> None:
        runs: list[int] = []
        pool = Pool(Concurrency(1))

        @threadlet(contract=PURE)
        async def fibonacci(n: int) -> int:
            runs.append(n)
            if n < 2:
                return n
            return sum(await asyncio.gather(pool.start(fibonacci, n - 1), pool.start(fibonacci, n - 2)))

        async with asyncio.timeout(20):
            assert await pool.start(fibonacci, 15) == 610
        assert len(runs) < 100
        await settled(pool)

    run(main)


def test_workers_share_too(run: Run) -> None:
    """Calls on workers share a run, also through call_async, and see the first caller's context variables."""
    gate, variable = Gate(), contextvars.ContextVar("variable", default=0)

    @threadlet(contract=PURE_AT_WORKER)
    def look(n: int) -> list[int]:
        gate()
        return [n, variable.get()]

    async def main() -> None:
        pool = Pool()

        async def join() -> list[int]:
            return await pool.start(look, 1)

        variable.set(7)
        first = pool.start(look, 1)
        variable.set(8)
        outer = pool.start(threadlet(contract=Contract(blocks="always"))(lambda: call_async(join)))
        gate.wait_arrived()
        await until(lambda: len(pool) == 3)
        gate.open()
        assert await outer is await first
        assert await first == [1, 7]
        await settled(pool)

    run(main)


def test_nothing_is_kept(run: Run) -> None:
    """When a run has ended nothing holds its arguments, its result or its handles any more."""

    async def main() -> None:
        counted, pool = Counted(), Pool()
        watched: list[weakref.ref[Any]] = []
        keep: list[Callable[[], Hashable]] = []
        for _ in range(20):
            token = Token()
            watched.append(weakref.ref(token))
            handles: list[Threadlet[Any]] = [pool.start(threadlet(contract=PURE)(keep_nothing), token) for _ in "ab"]
            watched += [weakref.ref(handle) for handle in handles]
            await asyncio.gather(*handles)
            del token, handles
        await rounds()
        assert not keep and not run.told()
        assert not any(reference() for reference in watched)
        counted.go.set()
        await settled(pool)

    async def keep_nothing(token: Token) -> None:
        await rounds(2)

    run(main)


def test_a_drain_that_ends_early_takes_its_urgency_back(run: Run) -> None:
    """A run is as urgent as a drain of its pool that waits for its calls, and no longer than that."""

    async def main() -> None:
        pool, others, counted = Pool(Concurrency(1)), Pool(), Counted()
        pool.start(forever)
        drain = others.start(pool.drain, priority=1)
        await rounds()
        handle = pool.start(counted.entrypoint, 1, priority=9)
        (carrier,) = pool._runs
        assert handle.effective_priority == carrier.effective_priority == 1
        drain.cancel()
        await rounds()
        assert handle.effective_priority == carrier.effective_priority == 9
        await settled(pool, others)

    run(main)


def test_one_of_many_leaves_the_order_of_deadlines(run: Run) -> None:
    """When the call with the earliest deadline is cancelled, or gets more time, the run goes by the next one."""

    async def main() -> None:
        order: list[int] = []

        @threadlet(contract=PURE)
        async def note(n: int) -> None:
            order.append(n)

        pool = Pool(Concurrency(1), order="deadline")
        blocker = pool.start(forever)
        first, second, _ = (pool.start(note, 1, deadline=seconds) for seconds in (100, 200, 500))
        pool.start(note, 2, deadline=300)
        pool.start(note, 3, deadline=400)
        first.cancel()
        second.deadline = 350
        pool._check()
        blocker.cancel()
        await pool.drain()
        assert order == [2, 1, 3]
        await settled(pool)

    run(main)


def test_the_run_that_it_would_share_is_dropped_to_make_room(run: Run) -> None:
    """A call for which a pool sheds an equal one, with its run, has a run of its own."""

    @threadlet(contract=PURE_AT_WORKER)
    def square(number: int) -> int:
        return number * number

    async def main() -> None:
        async with Pool(Concurrency(1), capacity=2, overflow="shed") as pool:
            first = pool.start(threadlet(forever))
            dropped = pool.start(square, 5, priority=9)
            kept = pool.start(square, 5, priority=1)
            pool._check()
            assert dropped.done() and not kept.done() and len(pool) == 2
            first.cancel()
            assert await kept == 25
            with pytest.raises(Shed):
                await dropped

    run(main)
