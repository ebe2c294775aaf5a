"""Pools: what may be asked of one, its words when it refuses, and its life from the first use to the last."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import IN_PLACE, ON_WORKER, PLACES, Gate, entrypoint, forever, rounds
from threadlets import Call, Concurrency, Contract, Pool, PoolStatistics, Threadlet, threadlet
from threadlets.errors import NoRunningLoop, PoolClosed, WrongLoop

EMPTY = PoolStatistics(
    queued=0, admitted=0, done=0, failed=0, cancelled=0, shed=0, rejected=0, abandoned=0, unretrieved=0
)

identity = threadlet(contract=IN_PLACE)(lambda value: value)


class Adder:
    """Has a plain method, and one that is an entrypoint."""

    def __init__(self, base: int) -> None:
        self.base = base

    def plain(self, number: int, times: int = 1) -> int:
        return self.base + number * times

    @threadlet(contract=IN_PLACE)
    def decorated(self, number: int, times: int = 1) -> int:
        return self.base + number * times


async def add_later(number: int, times: int = 1) -> int:
    await asyncio.sleep(0)
    return 10 + number * times


def nested_partial() -> Any:
    """Make a partial of a partial that functools does not flatten, since the inner one has an attribute."""
    inner = functools.partial(add_later, 5, times=3)
    inner.mark = True  # type: ignore[attr-defined]
    return functools.partial(inner, times=2)


@pytest.mark.parametrize(
    ("function", "args", "result"),
    [
        (identity, (5,), 5),
        (abs, (-5,), 5),
        (int, ("5",), 5),
        (Adder(10).plain, (5,), 15),
        (Adder(10).decorated, (5,), 15),
        (Adder(10).decorated.using(priority=2), (5,), 15),
        (add_later, (5,), 15),
        (threadlet(add_later), (5,), 15),
        (functools.partial(add_later, times=2), (5,), 20),
        (functools.partial(Adder(10).decorated, times=2), (5,), 20),
        (functools.partial(functools.partial(Adder(10).plain, times=3), times=2), (5,), 20),
        (functools.partial(Adder(10).plain, 5, 2), (), 20),
        (nested_partial(), (), 20),
        ("{}".format, (5,), "5"),
    ],
)
def test_start_takes_any_function(run: Run, function: Any, args: tuple[Any, ...], result: Any) -> None:
    """Entrypoints, functions, coroutine functions, methods, builtins, types and partials of them all can be started."""

    async def main() -> None:
        async with Pool() as pool:
            handle = pool.start(function, *args, tags={"tag"})
            assert "tag" in handle.tags
            assert handle.pool is pool
            assert await handle == result
            assert handle.priority == (2 if isinstance(function, Call) and function.priority else 0)

    run(main)


@pytest.mark.parametrize(
    ("use", "error", "words"),
    [
        (lambda pool: pool.start(3), TypeError, "made from a function, not from 3"),
        (lambda pool: pool.start(identity, 1, priority=float("nan")), ValueError, "nan"),
        (lambda pool: pool.start(identity, 1, priority="high"), TypeError, "real number"),
        (lambda pool: pool.start(identity, 1, tags="abc"), TypeError, "one tag per character"),
        (lambda pool: pool.start(identity, 1, tags=[[]]), TypeError, "hashable"),
        (lambda pool: pool.select(state="asleep"), ValueError, "expected one of 'queued', 'running', 'missed'"),
        (lambda pool: pool.select(where=3), TypeError, "expected a function of one threadlet"),
        (lambda pool: pool.select(tag=[]), TypeError, "unhashable"),
        (lambda pool: pool.select(entrypoint=3), TypeError, "made from a function"),
        (lambda pool: Pool(Concurrency), TypeError, "is no throttle"),
        (lambda pool: Pool(3), TypeError, "is no throttle"),
        (lambda pool: Pool(capacity=0), ValueError, "at least 1"),
        (lambda pool: Pool(capacity=True), TypeError, "a whole number"),
        (lambda pool: Pool(capacity=1.5), TypeError, "a whole number"),
        (lambda pool: Pool(overflow="explode"), ValueError, "expected 'reject' or 'shed'"),
        (lambda pool: Pool(on_failure="explode"), ValueError, "expected 'collect' or 'cancel'"),
    ],
)
def test_wrong_arguments_change_nothing(run: Run, use: Any, error: type[Exception], words: str) -> None:
    """What is refused is refused at once, in words, and leaves the pool's books as they were."""

    async def main() -> None:
        pool = Pool(Concurrency(1))
        pool.start(forever)
        before = pool.statistics()
        with pytest.raises(error, match=words):
            use(pool)
        assert pool.statistics() == before
        pool._check()
        pool.cancel()
        await pool.drain()

    run(main)


def test_a_pool_without_a_loop_says_so() -> None:
    """Where no loop runs, a pool can be made and looked at, and nothing else."""
    pool = Pool(name="mine")
    assert pool.statistics() == EMPTY
    assert len(pool) == 0 and bool(pool) and list(pool) == []
    assert repr(pool) == "<Pool 'mine': 0 queued, 0 admitted>"
    for use in (lambda: pool.start(identity, 1), pool.get_loop):
        with pytest.raises(NoRunningLoop, match="used on a thread where no event loop runs"):
            use()


def test_a_pool_made_at_import_time_belongs_to_its_first_loop(run: Run) -> None:
    """It binds to a loop when it is first used; a second one is told WrongLoop, and that the first is over."""
    pool = Pool(Concurrency(1), name="mine")

    async def use() -> int:
        return await pool.start(identity, 5)

    async def scope() -> None:
        async with pool:
            pass

    assert run(use) == 5
    for again in (use, pool.drain, pool.room, scope):
        with pytest.raises(WrongLoop, match="belongs to another event loop, which is closed: make one pool for each"):
            run(again)
    assert pool.statistics().done == 1


def test_a_throttle_made_at_import_time_serves_loop_after_loop(run: Run) -> None:
    """A throttle belongs to no loop: pools of one loop after the other may share it."""
    throttle = Concurrency(1)

    async def leave_work_behind() -> None:
        pool = Pool(throttle)
        for _ in range(3):
            pool.start(forever)
        await rounds(3)

    async def use() -> list[int]:
        async with Pool(throttle) as pool:
            return await asyncio.gather(*[pool.start(add_later, number) for number in range(3)])

    run(leave_work_behind)
    assert throttle.taken == 0
    assert run(use) == run(use) == [10, 11, 12]
    assert throttle.taken == 0


@pytest.mark.parametrize("way", ["close", "aclose", "scope"])
def test_a_closed_pool_takes_no_more_work(run: Run, way: str) -> None:
    """After close(), aclose() or the end of its scope, start raises PoolClosed, and no new scope can begin."""

    async def main() -> None:
        pool = Pool()
        if way == "close":
            pool.close()
            pool.close()
        elif way == "aclose":
            await pool.aclose()
            await pool.aclose()
        else:
            async with pool:
                pass
        for start in (lambda: pool.start(identity, 1), lambda: identity.using(pool=pool)(1)):
            with pytest.raises(PoolClosed, match="takes no more work"):
                start()
        with pytest.raises(PoolClosed, match="make a new one for each scope"):
            async with pool:
                pass
        assert "closed" in repr(pool)
        assert pool.statistics() == EMPTY

    run(main)


def test_close_lets_what_is_there_go_on(run: Run) -> None:
    """close() refuses newcomers alone: what is there ends as it would, and drain() waits for it."""
    gate = Gate()

    async def main() -> None:
        pool = Pool(Concurrency(2))
        on_worker = pool.start(threadlet(contract=ON_WORKER)(gate), 1)
        suspended = pool.start(add_later, 2)
        queued = [pool.start(add_later, number) for number in range(3, 6)]
        pool.close()
        drained = asyncio.create_task(pool.drain())
        assert await asyncio.gather(suspended, *queued) == [12, 13, 14, 15]
        await rounds()
        assert not drained.done()
        gate.open()
        await drained
        assert on_worker.result() == 1
        assert pool.statistics().done == 5

    run(main)


def test_aclose_cancels_and_waits_for_cleanup(run: Run) -> None:
    """aclose() cancels everything, and returns when it has stopped: coroutines have cleaned up, functions ended."""
    gate = Gate()

    async def main() -> None:
        cleaned: list[int] = []

        async def tidy() -> None:
            try:
                await forever()
            finally:
                await rounds(3)
                cleaned.append(1)

        pool = Pool(Concurrency(2))
        handles = [pool.start(tidy), pool.start(threadlet(contract=ON_WORKER)(gate)), pool.start(tidy)]
        gate.wait_arrived()
        closing = asyncio.create_task(pool.aclose())
        await rounds(20)
        assert cleaned == [1]
        assert not closing.done()
        gate.open()
        await closing
        assert [handle.state for handle in handles] == ["cancelled"] * 3
        assert len(pool) == 0

    run(main)


def test_drain_can_be_cancelled_and_waited_for_by_many(run: Run) -> None:
    """Any number of tasks may wait in drain(); cancelling one leaves the others, and the pool, alone."""

    async def main() -> None:
        pool = Pool()
        handle = pool.start(forever)
        waiting = [asyncio.create_task(pool.drain()) for _ in range(3)]
        await rounds()
        waiting[0].cancel()
        await rounds()
        assert [task.done() for task in waiting] == [True, False, False]
        assert not handle.done()
        handle.cancel()
        await asyncio.gather(*waiting[1:])
        assert waiting[0].cancelled()

    run(main)


def test_looking_at_a_pool(run: Run) -> None:
    """len, in, iteration and statistics() are about the threadlets that are not final, whatever happens meanwhile."""

    async def main() -> None:
        pool = Pool(Concurrency(1))
        handles = [pool.start(forever) for _ in range(4)]
        done = identity(1)
        assert len(pool) == 4
        assert all(handle in pool for handle in handles)
        assert done not in pool and 3 not in pool
        seen = []
        for handle in pool:
            seen.append(handle)
            handle.cancel()
            pool.start(forever)
        assert seen == handles
        statistics = pool.statistics()
        assert (statistics.queued + statistics.admitted, statistics.cancelled) == (5, 3)  # one is still stopping
        await rounds()
        assert pool.statistics().cancelled == 4
        pool._check()
        assert pool.cancel("over") == 4
        await pool.drain()
        assert pool.statistics() == PoolStatistics(**{**as_dict(EMPTY), "cancelled": 8})

    run(main)


def as_dict(statistics: PoolStatistics) -> dict[str, int]:
    return {name: getattr(statistics, name) for name in statistics.__slots__}


@pytest.mark.parametrize("place", PLACES)
def test_statistics_count_each_end_once(run: Run, place: str) -> None:
    """Every threadlet is counted once: as done, failed, cancelled, shed or rejected."""

    async def main() -> None:
        pool = Pool(Concurrency(2))
        function = entrypoint(place, lambda number: 10 // number)
        handles = [pool.start(function, number) for number in (0, 1, 2, 0, 3)]
        handles += [pool.start(forever), pool.start(forever)]
        handles[-1].cancel()
        handles[-2].cancel()
        await asyncio.gather(*handles, return_exceptions=True)
        await pool.drain()
        statistics = pool.statistics()
        assert (statistics.done, statistics.failed, statistics.cancelled) == (3, 2, 2)
        pool._check()

    run(main)


def test_one_worker_of_their_own(run: Run) -> None:
    """``affinity="one"`` is one thread for all calls of an entrypoint, ``"one:NAME"`` for all of that name."""
    alone = threadlet(contract=Contract(affinity="one"))(threading.get_ident)
    first = threadlet(contract=Contract(affinity="one:tests"))(threading.get_ident)
    second = threadlet(contract=Contract(affinity="one:tests", blocks="always"))(lambda: threading.get_ident())

    async def main() -> tuple[set[int], set[int], set[int]]:
        async with Pool() as pool:
            idents = []
            for function in (alone, first, second):
                handles: list[Threadlet[int]] = [pool.start(function) for _ in range(20)]
                idents.append(set(await asyncio.gather(*handles)))
        assert threading.get_ident() not in set.union(*idents)
        return idents[0], idents[1], idents[2]

    one, two, three = run(main)
    assert len(one) == len(two) == 1
    assert two == three != one
    assert run(main) == (one, two, three)
    # the same thread for calls from where no loop runs
    assert {alone().result()} == one
