"""``Pool.map``: failures of items and of sources, raised or as values, and what a scope makes of them."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import Run
from tests.sources import Source, double, double_later, orders, patience, settled, sources, ten_over
from tests.workbench import PLACES, entrypoint, until
from threadlets import Concurrency, Pool


@sources
@orders
@pytest.mark.parametrize("place", [*PLACES, "task"])
def test_a_failure_is_raised_in_its_place(run: Run, source: Any, ordered: bool, place: str) -> None:
    """It comes where its result would have, the rest is cancelled, and no scope tells of other failures again."""
    function = ten_over if place == "task" else entrypoint(place, lambda number: 10 / number)

    async def main() -> None:
        results = []
        async with Pool() as pool:
            with pytest.raises(ZeroDivisionError):
                async for result in pool.map(function, source([1, 2, 0, 5, 0, 0]), ordered=ordered):
                    results.append(result)  # noqa: PERF401 - what came before the failure counts
            await settled(pool)
        assert results == [10, 5] or not ordered

    run(main)


@sources
@orders
def test_an_error_of_the_source_comes_last(run: Run, source: Any, ordered: bool) -> None:
    """What a source gave before it raised is handed over, then its exception is raised; even a CancelledError."""

    async def main() -> None:
        async with Pool() as pool:
            for error in (OSError("broken"), *([CancelledError("mine")] if source is Source else [])):
                results = []
                with pytest.raises(type(error), match=str(error)):
                    async for result in pool.map(double_later, source([1, 2, 3], error), ordered=ordered):
                        results.append(result)  # noqa: PERF401
                assert sorted(results) == [2, 4, 6]
                await settled(pool)

    run(main)


@pytest.mark.parametrize("source", [{}.keys() | set(), Source([])], ids=["sync", "async"])
def test_nothing_gives_nothing(run: Run, source: Any) -> None:
    """An empty source ends the iteration at once."""

    async def main() -> None:
        async with Pool() as pool:
            assert [result async for result in pool.map(double, source)] == []

    run(main)


@sources
@orders
def test_failures_as_values(run: Run, source: Any, ordered: bool) -> None:
    """With ``return_exceptions=True`` failures are handed over like results, and nothing is cancelled."""

    async def main() -> None:
        async with Pool(Concurrency(2)) as pool:
            options = {"ordered": ordered, "return_exceptions": True}
            results = [result async for result in pool.map(ten_over, source([5, 0, 2, 0, 1]), **options)]
            assert sorted(map(repr, results)) == ["10.0", "2.0", "5.0", *["ZeroDivisionError('division by zero')"] * 2]
            assert isinstance(results[1], ZeroDivisionError) or not ordered

    run(main)


@sources
def test_an_item_that_somebody_cancels(run: Run, source: Any) -> None:
    """It raises CancelledError, as in gather, and the consumer can tell: its task was not asked to stop."""

    async def main() -> None:
        async with Pool() as pool:

            async def cancel_soon() -> None:
                await until(lambda: len(pool) == 2)
                pool.cancel("left")

            canceller = asyncio.create_task(cancel_soon())
            values = [value async for value in pool.map(patience, source([2, 1, 4, 3]), return_exceptions=True)]
            assert list(map(repr, values)) == ["2", "CancelledError('left')", "4", "CancelledError('left')"]
            await canceller

            canceller = asyncio.create_task(cancel_soon())
            results: list[Any] = []
            with pytest.raises(CancelledError, match="left"):
                async for result in pool.map(patience, source([2, 1, 4, 3])):
                    results.append(result)  # noqa: PERF401
            assert results == [2]
            task = asyncio.current_task()
            assert task is not None and not task.cancelling()
            await canceller
            await settled(pool)

    run(main)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("place", [*PLACES, "task"])
def test_exits_are_never_values(run: Run, kind: type[BaseException], place: str) -> None:
    """KeyboardInterrupt and SystemExit leave the loop, as from any task, whatever was asked for."""

    def stop(number: int) -> None:
        raise kind("now")

    async def stop_later(number: int) -> None:
        await asyncio.sleep(0)
        stop(number)

    async def main() -> None:
        function = stop_later if place == "task" else entrypoint(place, stop)
        async for result in Pool().map(function, [1], return_exceptions=True):
            pytest.fail(f"given as a value: {result!r}")

    with pytest.raises(kind, match="now"):
        run(main)


@pytest.mark.parametrize("scope", ["collect", "cancel"])
@pytest.mark.parametrize("lenient", [True, False])
def test_in_a_scope(run: Run, scope: Any, lenient: bool) -> None:
    """Failures that are handed over, raised, or left behind are not raised by the scope as well."""

    async def main() -> None:
        results = []
        async with Pool(Concurrency(2), on_failure=scope) as pool:
            async for result in pool.map(ten_over, [1, 0, 0, 2], return_exceptions=lenient):
                results.append(result)  # noqa: PERF401
        assert lenient

    @contextmanager
    def expected() -> Iterator[None]:
        if lenient and scope == "collect":
            yield
        else:
            with pytest.raises(ZeroDivisionError) if scope == "collect" else pytest.raises(ExceptionGroup) as caught:
                yield
            if scope == "cancel":
                assert {type(error) for error in caught.value.exceptions} == {ZeroDivisionError}

    with expected():
        run(main)
