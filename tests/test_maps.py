"""``Pool.map``: what it gives for any source and any function, and its place in the pool."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import pytest

from tests.conftest import Run
from tests.sources import Source, counted, double, double_later, orders, patience, settled, sources
from tests.workbench import ON_WORKER, entrypoint, forever, rounds, until
from threadlets import Concurrency, Pool, threadlet
from threadlets.errors import PoolClosed, Shed, WrongLoop


@sources
@orders
@pytest.mark.parametrize("options", [{}, {"limit": 1}, {"limit": 3}], ids=["", "limit=1", "limit=3"])
@pytest.mark.parametrize("function", [double, entrypoint("worker", lambda n: 2 * n), double_later])
def test_every_item_gives_a_result(run: Run, source: Any, ordered: bool, options: Any, function: Any) -> None:
    """Whatever the function and the source, each item is handed over once, in order if that is asked for."""

    async def main() -> None:
        async with Pool(Concurrency(4), capacity=5) as pool:
            results = [result async for result in pool.map(function, source(range(50)), ordered=ordered, **options)]
            assert sorted(results) == [2 * number for number in range(50)]
            assert results == sorted(results) or not ordered
            await settled(pool)

    run(main)


@sources
def test_as_completed_does_not_wait_for_the_slow_ones(run: Run, source: Any) -> None:
    """With ``ordered=False`` a result comes when it is ready, though an earlier item never ends."""

    async def main() -> None:
        async with Pool() as pool, aclosing(pool.map(patience, source(range(6)), ordered=False)) as results:
            assert [await anext(results) for _ in range(3)] == [0, 2, 4]

    run(main)


@sources
@orders
def test_an_endless_source_is_read_as_far_as_needed(run: Run, source: Any, ordered: bool) -> None:
    """At most ``limit`` items are started and not handed over, and no item is taken before there is room for it."""

    async def main() -> None:
        taken = itertools.count()
        async with Pool() as pool, aclosing(pool.map(double_later, source(taken), limit=3, ordered=ordered)) as results:
            for consumed in range(1, 30):
                await anext(results)
                await rounds()
                assert len(pool) <= 3
                assert next(taken) <= consumed + 3 + consumed  # each look takes one, too

    run(main)


def test_an_async_source_is_read_while_the_consumer_is_away(run: Run) -> None:
    """The task that reads goes on up to the limit, and waits for room beyond."""

    async def main() -> None:
        source = Source(itertools.count())
        async with Pool() as pool, aclosing(pool.map(double, source, limit=4)) as results:
            await anext(results)
            await rounds(50)
            assert source.given == 5

    run(main)


def test_a_source_that_waits_does_not_hold_results_back(run: Run) -> None:
    """What is ready is handed over while an async source waits for its next item."""

    async def main() -> None:
        async def source() -> AsyncIterator[int]:
            yield 1
            await forever()

        async with Pool() as pool, aclosing(pool.map(double_later, source())) as results:
            assert await anext(results) == 2

    run(main)


def test_functions_see_the_context_of_the_consumer(run: Run) -> None:
    """Items of a synchronous source run in the context of whoever asks for the result that makes room for them."""
    variable = ContextVar("variable", default=0)

    async def main() -> None:
        async with Pool() as pool, aclosing(pool.map(threadlet(variable.get), [1, 2, 3], limit=1)) as results:
            for number in range(3):
                variable.set(number)
                assert await anext(results) == number

    # ContextVar.get takes a default: the item, which is not needed since main() sets the variable.
    run(main)


def test_a_map_over_a_map(run: Run) -> None:
    """The results of one are a source for another: each bounded by itself, both closed when the outer one is left."""

    async def main() -> None:
        async with Pool(Concurrency(3), capacity=5) as pool:
            inner = pool.map(double_later, itertools.count(), limit=2)
            async with aclosing(pool.map(double_later, inner, limit=2)) as outer:
                assert [await anext(outer) for _ in range(20)] == [4 * number for number in range(20)]
            with pytest.raises(StopAsyncIteration):
                await anext(inner)
            await settled(pool)

    run(main)


def test_a_map_in_a_function_of_a_map(run: Run) -> None:
    """A function may iterate over a map itself, in a pool of its level."""

    async def main() -> None:
        async with Pool(Concurrency(2)) as outer, Pool(Concurrency(2)) as inner:

            async def row(number: int) -> list[int]:
                return [result async for result in inner.map(double_later, range(number))]

            rows = [result async for result in outer.map(row, range(5))]
            assert rows == [[2 * number for number in range(length)] for length in range(5)]

    run(main)


def test_two_maps_share_an_iterator(run: Run) -> None:
    """Each item of a synchronous iterator goes to one of them."""

    async def main() -> None:
        async with Pool() as pool:
            shared = iter(range(40))

            async def collect() -> list[int]:
                return [result async for result in pool.map(double_later, shared, limit=3)]

            first, second = await asyncio.gather(collect(), collect())
            assert first and second
            assert sorted(first + second) == [2 * number for number in range(40)]

    run(main)


def test_a_full_pool_is_waited_for(run: Run) -> None:
    """While others fill the pool no item is taken; room for one is used, even if our own items are slow."""

    async def main() -> None:
        for source in (counted, Source):
            pool = Pool(capacity=3)
            others = [pool.start(forever) for _ in range(3)]
            taken = []

            def items(taken: list[int] = taken) -> Iterator[int]:
                for number in (1, 3, 5):
                    taken.append(number)
                    yield number

            consumer = asyncio.create_task(anext(pool.map(patience, source(items()))))
            await rounds(20)
            assert not taken
            for place, other in enumerate(others, 1):
                other.cancel()
                await rounds(20)
                assert len(taken) == place and len(pool) == 3
            consumer.cancel()
            await rounds(20)
            await settled(pool)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main)


@sources
def test_a_capacity_per_tag_is_waited_for(run: Run, source: Any) -> None:
    """Where the pool has room, but not for the tags of the function or of the map, the map waits for that."""

    async def main() -> None:
        tagged = threadlet(tags={"host:a"})(double_later)
        pool = Pool(tag_capacity={"host:": 1})
        for function, tags in ((tagged, ()), (double_later, {"host:a"})):
            assert [result async for result in pool.map(function, source(range(9)), tags=tags)] == [*range(0, 18, 2)]
        assert pool.statistics().rejected == 0
        await settled(pool)

    run(main)


@sources
def test_a_source_that_fills_the_pool_itself(run: Run, source: Any) -> None:
    """An item that was taken when the pool became full waits for room, and PoolFull is not raised."""

    async def main() -> None:
        pool = Pool(capacity=2)

        def items() -> Iterator[int]:
            for number in range(10):
                while not pool.is_full():
                    pool.start(asyncio.sleep, 0)
                yield number

        assert [result async for result in pool.map(double_later, source(items()))] == list(range(0, 20, 2))
        await settled(pool)
        assert pool.statistics().rejected == 0

    run(main)


def test_producers_and_maps_share_a_pool(run: Run) -> None:
    """Several maps and a producer in a pool of two places all come to their end, and nobody meets PoolFull."""

    async def main() -> None:
        pool = Pool(capacity=2)

        async def consume(source: Any) -> list[int]:
            return [result async for result in pool.map(double_later, source, limit=3)]

        async def produce() -> list[int]:
            for _ in range(20):
                await pool.room()
                pool.start(asyncio.sleep, 0)
            return []

        results = await asyncio.gather(consume(range(20)), consume(Source(range(20))), produce(), consume(range(20)))
        assert results == [*[list(range(0, 40, 2))] * 2, [], list(range(0, 40, 2))]
        assert pool.statistics().rejected == 0
        await settled(pool)

    run(main)


@sources
def test_a_pool_closed_meanwhile(run: Run, source: Any) -> None:
    """After close() the items that had been started are handed over, then PoolClosed is raised."""

    async def main() -> None:
        pool = Pool()
        results = []
        with pytest.raises(PoolClosed):
            async for result in pool.map(double_later, source(itertools.count()), limit=3):
                results.append(result)
                pool.close()
        assert results[:3] == [0, 2, 4]
        await settled(pool)

    run(main)


def test_an_item_that_a_full_pool_drops(run: Run) -> None:
    """A pool that sheds may drop items of a map for more urgent work: they raise Shed, or are that value."""

    async def main() -> None:
        pool = Pool(Concurrency(1), capacity=2, overflow="shed")
        async with aclosing(pool.map(patience, [1, 2], return_exceptions=True, ordered=False, priority=5)) as results:
            waiting = asyncio.create_task(anext(results))
            await until(pool.is_full)
            urgent = pool.start(forever, priority=1)
            assert isinstance(await waiting, Shed)
            urgent.cancel()
        await settled(pool)

    run(main)


def test_another_loop(run: Run) -> None:
    """An iterator belongs to the loop of its pool: elsewhere it raises WrongLoop, even over nothing, or half-way."""
    pool = Pool()

    async def use() -> list[int]:
        return [result async for result in pool.map(double, [])]

    assert run(use) == []
    with pytest.raises(WrongLoop):
        run(use)

    async def ask(iteration: AsyncIterator[int]) -> int:
        return await anext(iteration)

    iteration = Pool().map(patience, [2, 1])
    loop = run.new_loop()
    try:
        assert loop.run_until_complete(ask(iteration)) == 2
        with pytest.raises(WrongLoop):
            run(ask, iteration)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((3, [1]), {}, TypeError, "made from a function, not from 3"),
        ((double, 3), {}, TypeError, "items=3: expected an iterable"),
        ((double, [1]), {"limit": 0}, ValueError, "at least 1"),
        ((double, [1]), {"limit": True}, TypeError, "a whole number"),
        ((double, [1]), {"limit": 1.5}, TypeError, "a whole number"),
        ((double, [1]), {"priority": float("nan")}, ValueError, "nan"),
        ((double, [1]), {"tags": "abc"}, TypeError, "one tag per character"),
        ((double, [1]), {"progress": 3}, TypeError, "progress=3: expected True, a label, or an object"),
        ((double, [1]), {"progress": None}, TypeError, "expected True"),
        ((double, [1]), {"progress": asyncio.Event}, TypeError, "expected True"),
    ],
)
def test_wrong_arguments(arguments: Any, options: Any, error: type[Exception], words: str) -> None:
    """What is wrong is said at the call, before anything is iterated over."""
    with pytest.raises(error, match=words):
        Pool().map(*arguments, **options)


def test_many_on_workers(run: Run) -> None:
    """A function on worker threads gives its results in order, though they end in any."""
    function = threadlet(contract=ON_WORKER)(lambda number: sum(range(number % 7 * 100)))

    async def main() -> None:
        async with Pool(Concurrency(3)) as pool:
            results = [result async for result in pool.map(function, range(200), limit=10)]
            assert results == [sum(range(number % 7 * 100)) for number in range(200)]

    run(main)
