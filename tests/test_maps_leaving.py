"""``Pool.map``: left early, or cancelled at any moment, it leaves nothing behind."""

from __future__ import annotations

import asyncio
import itertools
import warnings
from asyncio import CancelledError
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from tests.conftest import Run
from tests.sources import Source, counted, double, double_later, orders, patience, settled, sources
from tests.workbench import ON_WORKER, Gate, forever, rounds, until
from threadlets import Concurrency, Pool, blocking, threadlet


@sources
@orders
@pytest.mark.parametrize("way", ["break", "aclosing", "body raises", "aclose twice"])
def test_leaving_early_leaves_nothing(run: Run, source: Any, ordered: bool, way: str) -> None:
    """Whatever is in flight is cancelled, an async source is closed, and its cleanup is waited for by aclose()."""

    async def main() -> None:
        items = source(range(100))
        async with Pool() as pool:
            iteration = pool.map(patience, items, ordered=ordered, limit=5)
            if way == "break":
                async for _ in iteration:
                    break
                del iteration  # the loop is told by the interpreter, and closes it soon
                await until(lambda: not isinstance(items, Source) or items.closed)
            elif way == "aclosing":
                async with aclosing(iteration):
                    async for _ in iteration:
                        break
            elif way == "body raises":
                with pytest.raises(KeyError):
                    async with aclosing(iteration):
                        async for _ in iteration:
                            raise KeyError
            else:
                await anext(iteration)
                await iteration.aclose()
                await iteration.aclose()
            assert not isinstance(items, Source) or items.closed
            await settled(pool)
            assert pool.statistics().failed == 0

    run(main)


@sources
@pytest.mark.parametrize("pause", range(12))
@pytest.mark.parametrize("capacity", [None, 3])
def test_cancelled_at_any_await(run: Run, source: Any, pause: int, capacity: int | None) -> None:
    """Wherever its consumer is cancelled, that is raised, nothing goes on, and the source is closed.

    At once; or soon, if it was in the body of the loop, since then it is the interpreter that closes the iteration.
    """

    async def main() -> None:
        items = source(itertools.count())
        async with Pool(Concurrency(2), capacity=capacity) as pool:
            other = pool.start(forever)

            async def consume() -> None:
                async for _ in pool.map(double_later, items, limit=2):
                    await asyncio.sleep(0)

            task = asyncio.create_task(consume())
            await rounds(pause)
            task.cancel("enough")
            with pytest.raises(CancelledError):
                await task
            await until(lambda: len(pool) == 1 and (source is counted or items.closed or not items.given))
            other.cancel()
            await settled(pool)

    run(main)


def test_cancelled_while_the_source_cleans_up(run: Run) -> None:
    """A cancel that comes while the source is being closed reaches the source, and is not lost."""

    async def main() -> None:
        cleaning = asyncio.Event()
        seen = []

        async def source() -> AsyncIterator[int]:
            try:
                yield 1
                await forever()
            finally:
                cleaning.set()
                try:
                    await forever()
                except CancelledError:
                    seen.append("cancelled again")
                    raise

        async def consume(pool: Pool) -> None:
            async with aclosing(pool.map(double, source())) as results:
                await anext(results)

        async with Pool() as pool:
            task = asyncio.create_task(consume(pool))
            await cleaning.wait()
            task.cancel()
            with pytest.raises(CancelledError):
                await task
            assert seen == ["cancelled again"]

    run(main)


def test_a_source_that_fails_while_it_is_closed(run: Run) -> None:
    """What an async source raises in its cleanup comes out of aclose(), as if it had been closed by hand."""

    async def main() -> None:
        async def source() -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
            finally:
                raise OSError("no cleanup")

        async with Pool() as pool:
            results = pool.map(double, source(), limit=1)
            await anext(results)
            with pytest.raises(OSError, match="no cleanup"):
                await results.aclose()

    run(main)


def test_a_source_that_ignores_being_cancelled(run: Run) -> None:
    """It is not read any more, though it goes on giving."""

    async def main() -> None:
        given = []

        async def stubborn() -> AsyncIterator[int]:
            for number in itertools.count():
                try:
                    await (asyncio.sleep(0) if number < 2 else forever())
                except CancelledError:
                    pass
                given.append(number)
                yield number

        async with Pool() as pool, aclosing(pool.map(double, stubborn(), limit=8)) as results:
            assert [await anext(results) for _ in range(2)] == [0, 2]
            await rounds()
        assert given == [0, 1, 2]
        assert pool.statistics().done == 2

    run(main)


@pytest.mark.parametrize("closable", [True, False])
def test_only_generators_are_closed(run: Run, closable: bool) -> None:
    """A stream that happens to have an aclose() belongs to whoever made it: it can be read on."""

    class Stream:
        closed = False
        numbers = itertools.count()

        def __aiter__(self) -> Stream:
            return self

        async def __anext__(self) -> int:
            return next(self.numbers)

        if closable:

            async def aclose(self) -> None:
                self.closed = True

    async def main() -> None:
        stream = Stream()
        async with Pool() as pool, aclosing(pool.map(double, stream, limit=1)) as results:
            await anext(results)
        assert not stream.closed
        assert await anext(stream) > 0

    run(main)


def test_nobody_waits_for_room_any_more(run: Run) -> None:
    """Though the pool stays full, since an item runs on a worker thread, nothing goes on waiting for it."""
    gate = Gate()

    async def main() -> None:
        pool = Pool(capacity=1)
        consumer = asyncio.create_task(anext(pool.map(threadlet(contract=ON_WORKER)(gate), [1, 2])))
        await until(pool.is_full)
        gate.wait_arrived()
        await rounds()
        consumer.cancel()
        await rounds()
        assert pool.is_full() and asyncio.all_tasks() == {asyncio.current_task()}
        gate.open()
        await settled(pool)

    run(main)


def test_never_iterated(run: Run) -> None:
    """Nothing starts before somebody asks for a result, and nobody complains if nobody does."""

    async def main() -> None:
        source = Source([1, 2])
        async with Pool() as pool:
            iteration = pool.map(double, source, progress=True)
            await rounds()
            del iteration
            unused = pool.map(double, Source([1, 2]))
            await unused.aclose()
            assert source.given == 0
            assert pool.statistics().done == 0

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(main)


def test_a_call_that_blocks_while_the_iteration_is_left(hands: Run) -> None:
    """A call that an async source's task makes in place may block: what it starts after we have left is cancelled."""
    gate = Gate()

    async def first_step_blocks(number: int) -> None:
        with blocking():
            gate()
        await forever()

    async def main() -> None:
        async with Pool() as pool:
            iteration = pool.map(first_step_blocks, Source([1]))
            consumer = asyncio.create_task(anext(iteration))
            await asyncio.to_thread(gate.wait_arrived)
            consumer.cancel()
            await rounds()
            gate.open()
            with pytest.raises(CancelledError):
                await consumer
            await settled(pool)

    hands(main)
