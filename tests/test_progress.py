"""Progress: what is told, how often, and that whoever is told stops no work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from tests.conftest import Run
from tests.support import FakeClock
from tests.workbench import IN_PLACE, ON_WORKER, forever, until
from threadlets import Concurrency, Pool, threadlet
from threadlets.progress import OFTEN, Reporter


@threadlet(contract=IN_PLACE)
def inverse(number: int) -> float:
    return 1 / number


class Listener:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def update(self, done: int, failed: int, total: int | None) -> None:
        self.told.append((done, failed, total))

    def close(self) -> None:
        self.told.append("closed")

    def ends(self) -> list[Any]:
        """Return what was told first and at the end: a slow machine may have more between them."""
        assert self.told.count("closed") == 1
        return [self.told[0], *self.told[-2:]]


def test_an_object_is_told(run: Run) -> None:
    """It learns the total at the beginning and all counts at the end, cancelled items among the failed ones."""

    async def main() -> None:
        listener = Listener()
        async with Pool() as pool:
            async for _ in pool.map(inverse, [1, 0, 2], return_exceptions=True, progress=listener):
                pass
        assert listener.ends() == [(0, 0, 3), (3, 1, 3), "closed"]

    run(main)


@pytest.mark.parametrize("way", ["break", "failure", "source", "cancel"])
def test_it_is_closed_on_every_way_out(run: Run, way: str) -> None:
    """However the iteration ends, the last counts are told, then that it is over, once."""

    async def source() -> AsyncIterator[int]:
        yield 1
        yield 1
        if way == "source":
            raise KeyError
        yield 0 if way == "failure" else 1

    async def main() -> None:
        listener = Listener()
        async with Pool() as pool:
            try:
                async with aclosing(pool.map(inverse, source(), limit=1, progress=listener)) as results:
                    async for _ in results:
                        if way == "break":
                            break
                        if way == "cancel":
                            raise OSError
            except (ZeroDivisionError, KeyError, OSError):
                pass
        ends = {"break": (1, 0, None), "failure": (3, 1, None), "source": (2, 0, None), "cancel": (1, 0, None)}
        assert listener.ends() == [(0, 0, None), ends[way], "closed"]

    run(main)


@pytest.mark.parametrize(
    ("items", "total"),
    [
        ([1, 2], 2),
        (iter([1, 2]), 2),
        ({1: 2}, 1),
        ((n for n in [1]), None),
        (range(10**30), None),  # more than len() can say
        (type("Broken", (), {"__len__": lambda self: 1 // 0})(), None),
    ],
)
def test_the_total_is_what_the_source_tells(items: object, total: int | None) -> None:
    """len() and length_hint() are asked; a source that has neither, or fails, has no total."""
    listener = Listener()
    Reporter(listener, items)
    assert listener.told == [(0, 0, total)]


def test_a_total_that_was_too_small_is_forgotten() -> None:
    """When more items end than were announced, nobody knows how many there are."""
    listener = Listener()
    reporter = Reporter(listener, [1])
    for _ in range(2):
        reporter.ended(False)
    reporter.close(True)
    assert listener.told == [(0, 0, 1), (2, 0, None), "closed"]


def test_it_is_told_ten_times_a_second() -> None:
    """However often items end, a tenth of a second passes between updates; the last one comes in any case."""
    clock = FakeClock()
    listener = Listener()
    reporter = Reporter(listener, range(1000), clock)
    for _ in range(1000):
        clock.pass_(ms=1)
        reporter.ended(False)
    assert [done for done, _, _ in listener.told] == [0, *range(100, 1001, 100)]
    clock.pass_(ns=OFTEN - 1)
    reporter.ended(True)
    assert len(listener.told) == 11
    reporter.close(True)
    reporter.close(True)
    assert listener.told[11:] == [(1001, 1, None), "closed"]


def test_results_on_workers_are_counted_once(run: Run) -> None:
    """An item is counted before its result is handed over, wherever it ran."""

    async def main() -> None:
        listener = Listener()
        async with Pool() as pool:
            function = threadlet(contract=ON_WORKER)(abs)
            async for _ in pool.map(function, range(30), ordered=False, limit=3, progress=listener):
                pass
        assert listener.told[-2:] == [(30, 0, 30), "closed"]

    run(main)


def test_an_item_that_ends_at_once_is_counted_first(run: Run) -> None:
    """An item that is cancelled just before its result is asked for is counted before that is handed over."""

    async def main() -> None:
        listener = Listener()
        async with Pool(Concurrency(1)) as pool:
            options: Any = {"return_exceptions": True, "progress": listener, "priority": 5}
            async with aclosing(pool.map(asyncio.sleep, [0, 0], **options)) as results:
                first = asyncio.create_task(anext(results))
                await until(lambda: len(pool) == 2)
                urgent = pool.start(forever, priority=1)
                await first
                assert pool.select(state="queued").cancel() == 1
                assert len([result async for result in results]) == 1
            urgent.cancel()
        assert listener.ends() == [(0, 0, 2), (2, 1, 2), "closed"]

    run(main)


@pytest.mark.parametrize("method", ["update", "close"])
def test_an_object_that_fails_stops_no_work(run: Run, method: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its exception is logged once, as a warning; it is told nothing more, but closed."""

    class Broken(Listener):
        def update(self, done: int, failed: int, total: int | None) -> None:
            super().update(done, failed, total)
            assert method != "update", "mine"

        def close(self) -> None:
            super().close()
            assert method != "close", "mine"

    async def main() -> None:
        listener = Broken()
        async with Pool() as pool:
            assert [_ async for _ in pool.map(inverse, [1, 1], progress=listener)] == [1, 1]
        last = (2, 0, 2) if method == "close" else (0, 0, 2)
        assert listener.ends() == [(0, 0, 2), last, "closed"]

    run(main)
    records = [record for record in caplog.records if record.name == "threadlets"]
    assert [record.levelno for record in records] == [logging.WARNING]
    assert "mine" in caplog.text
