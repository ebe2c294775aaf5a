"""The Prometheus adapter: what a scrape is told, from any thread, while everything changes; and that it is true."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.conftest import Run
from tests.workbench import Gate, until
from threadlets import Concurrency, Contract, Entrypoint, Pool, blocking, threadlet
from threadlets.adapters.measures import MEASURES
from threadlets.adapters.prometheus import PoolCollector
from threadlets.histograms import Histogram
from threadlets.ledgers import Tallies
from threadlets.pools import named_pools

ALWAYS, NEVER = Contract(blocks="always"), Contract(blocks="never")


@threadlet(contract=NEVER)
def double(n: int) -> int:
    return 2 * n


@threadlet(contract=ALWAYS)
def triple(n: int) -> int:
    return 3 * n


def figures(collector: PoolCollector) -> dict[str, float]:
    """Scrape once, as text: what is told, by name and labels."""
    registry = CollectorRegistry()
    registry.register(collector)
    found = {}
    for line in generate_latest(registry).decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def ended(pool: str, entrypoint: str, outcome: str = "done") -> str:
    """The name of a counter."""
    return f'threadlets_pool_ended_total{{entrypoint="{entrypoint}",outcome="{outcome}",pool="{pool}"}}'


def test_what_is_there_is_told_with_its_type_and_unit(run: Run) -> None:
    """A pool at work, its entrypoints, the workers, and the loop if it changes hands; OpenMetrics takes it, too."""
    registry = CollectorRegistry()

    async def main() -> None:
        gate = Gate()

        @threadlet(contract=ALWAYS)
        def hold() -> None:
            gate()

        async with Pool(Concurrency(1), name="measured") as pool:
            collector = PoolCollector(registry, pools=[pool], entrypoints=[double, hold])
            calls = 'threadlets_entrypoint_calls_total{entrypoint="double",place="in place"}'
            before = figures(collector).get(calls, 0)
            await pool.start(double, 1)
            pool.start(hold)
            for _ in range(3):
                pool.start(double, 2)
            found = figures(collector)
            assert found['threadlets_pool_queued{pool="measured"}'] == 3
            assert found['threadlets_pool_admitted{pool="measured"}'] == 1
            gate.open()
            await pool.drain()
            found = figures(collector)
            with collector.register():
                text = generate_openmetrics(registry).decode()
        assert found[ended("measured", "double")] == 4
        assert found[ended("measured", "hold")] == 1
        assert found[calls] == before + 4
        waits = 'threadlets_pool_wait_seconds{}{{entrypoint="double",pool="measured"{}}}'
        assert found[waits.format("_count", "")] == 3
        median, longest = (found[waits.format("", f',quantile="{q}"')] for q in ("0.5", "1"))
        assert 0 < median <= longest < found[waits.format("_sum", "")]
        assert 'threadlets_workers_threads{group="worker"}' in found
        changes_hands = hasattr(asyncio.get_running_loop(), "statistics")
        assert not changes_hands or 'threadlets_loop_takeovers_total{loop="MainThread"}' in found
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert {family.type for family in families.values()} == {"gauge", "counter", "summary"}
        assert families["threadlets_pool_run_seconds"].type == "summary"
        assert families["threadlets_entrypoint_spent_seconds"].type == "counter"
        assert len(families) == len(MEASURES)
        assert all(family.documentation for family in families.values())

    run(main)


def test_every_named_pool_and_called_entrypoint_is_told_of_unless_somebody_chose(once: Run) -> None:
    """Pools without a name are not; a function is asked each time; and none is kept alive by being measured."""
    collector, chosen = PoolCollector(), list[Pool]()
    choosing = PoolCollector(pools=lambda: chosen, entrypoints=[])

    async def main() -> None:
        async with Pool(name="named") as pool, Pool() as nameless:
            await pool.start(triple, 1)
            await nameless.start(triple, 1)
            await double(1)
            assert pool in named_pools()
            found = figures(collector)
            assert found[ended("named", "triple")] == 1
            assert found[ended("default", "double")] == 1
            assert found['threadlets_entrypoint_calls_total{entrypoint="triple",place="worker"}'] >= 2
            assert not any("pool=" in name for name in figures(choosing))
            chosen.append(pool)
            found = figures(choosing)
            assert found[ended("named", "triple")] == 1
            assert not any('pool="default"' in name or "entrypoint_" in name for name in found)
        gone = weakref.ref(pool)
        del pool
        chosen.clear()
        await until(lambda: gc.collect() >= 0 and gone() is None)  # a worker is just letting go of it

    once(main)
    assert ended("named", "triple") not in figures(collector)


def test_counters_of_one_name_are_added_and_do_not_go_down_when_one_dies(once: Run) -> None:
    """Two pools have a name; what the one that dies has counted stays, until the last one of that name is gone."""
    collector = PoolCollector()

    async def main() -> None:
        first, second = Pool(name="twin"), Pool(name="twin")
        for _ in range(3):
            await first.start(double, 1)
        await second.start(double, 1)
        await second.start(triple, 1)
        runs = 'threadlets_pool_run_seconds_count{entrypoint="triple",pool="twin"}'
        assert figures(collector)[ended("twin", "double")] == 4
        await first.aclose()
        gone = weakref.ref(first)
        del first
        await until(lambda: gc.collect() >= 0 and gone() is None)
        found = figures(collector)
        assert (found[ended("twin", "double")], found[runs]) == (4, 1)
        await second.start(double, 1)
        assert figures(collector)[ended("twin", "double")] == 5
        await second.aclose()
        gone = weakref.ref(second)
        del second
        await until(lambda: gc.collect() >= 0 and gone() is None)  # a worker is just letting go of it
        assert ended("twin", "double") not in figures(collector)
        third = Pool(name="twin")
        await third.start(double, 1)
        assert figures(collector)[ended("twin", "double")] == 1, "nothing of the others is left"
        await third.aclose()

    once(main)


def test_a_scrape_is_true_while_everything_changes(once: Run) -> None:
    """Threads scrape while parts come, count, and hand over to the whole: no error, and no counter ever goes down."""
    stop = threading.Event()
    wrong: list[Any] = []

    def scrape(collector: PoolCollector, started: Callable[[], int]) -> None:
        latest, scrapes = 0.0, 0
        while not stop.is_set() or not scrapes:
            try:
                found = figures(collector)
            except Exception as error:
                wrong.append(error)
                return
            scrapes += 1
            now = sum(value for name, value in found.items() if name.startswith("threadlets_pool_ended_total"))
            if not latest <= now <= started():
                wrong.append((latest, now, started()))
            if found['threadlets_pool_admitted{pool="whole"}'] < 0:
                wrong.append(found)
            latest = now

    async def main() -> None:
        whole, starts = Pool(Concurrency(4), name="whole"), 0
        collector = PoolCollector(pools=[whole], entrypoints=[])
        threads = [threading.Thread(target=scrape, args=(collector, lambda: starts)) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            until, number = time.monotonic() + 0.2, 0
            while time.monotonic() < until and not wrong:
                number += 1
                entrypoint = Entrypoint(double.function, contract=NEVER)  # so that books get new entries all the time
                entrypoint.name = f"double_{number % 50}"
                async with Pool(parent=whole) as part:
                    starts += 8
                    for n in range(4):
                        part.start(entrypoint, n, tags={n, number})
                        part.start(triple, n)
                await asyncio.sleep(0)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert whole.statistics().done == starts
        await whole.aclose()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that threads come in between everywhere
    try:
        once(main)
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


def test_what_is_handed_over_in_the_middle_of_a_reading_is_counted_once(once: Run) -> None:
    """The whole was read, then a part adds its figures to it and is a part no more: so all is read again."""

    class Interrupted(Tallies):
        """The books of a pool; between its own figures and those of its parts, something happens."""

        def copy(self) -> Any:
            copied = dict(self)
            if part in whole._children:
                part._hand_over()
            return copied

    async def main() -> None:
        await part.start(double, 1)
        part.close()
        whole._tallies = Interrupted(whole)
        assert part in whole._children
        assert whole.statistics().done == 1
        assert part not in whole._children

    whole = Pool(name="whole")
    part = Pool(parent=whole)
    once(main)


def test_a_histogram_is_read_while_it_grows() -> None:
    """After each step of a reading, another thread adds a number of a new size: the reading is one of its beginning."""
    growing, read, steps = Histogram(), Histogram(), iter(range(40, 60))

    class Interrupted(dict[int, int]):
        def __setitem__(self, place: int, count: int) -> None:
            growing.add(1 << next(steps))
            super().__setitem__(place, count)

    for number in range(10):
        growing.add(number)
    read._counts = Interrupted()
    read.merge(growing)
    assert (read.count, growing.count) == (10, 20)


def test_a_queue_that_changes_while_it_is_counted_is_estimated(once: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part has no queue of its own; if the whole one changes under a scrape, the books tell how many are left."""

    def disturbed() -> int:
        raise RuntimeError("dictionary changed size during iteration")

    async def main() -> None:
        async with Pool(Concurrency(1)) as whole, Pool(parent=whole, name="part") as part:
            for _ in range(5):
                part.start(triple, 1)
            exact = part.statistics()
            monkeypatch.setattr(part, "_queued", disturbed)
            assert part.statistics() == exact
            assert (exact.queued, exact.admitted) == (4, 1)
            monkeypatch.undo()

    once(main)


def test_a_scrape_needs_no_loop(run: Run) -> None:
    """On the loop's own thread, while it is blocked, in a threadlet, and when it is closed, there are figures."""
    collector = PoolCollector()

    @threadlet(contract=NEVER)
    def inside() -> dict[str, float]:
        return figures(collector)

    async def main() -> None:
        async with Pool(name="self") as pool:
            await pool.start(triple, 1)
            key = ended("self", "triple")
            assert (
                figures(collector)[key] == (await inside())[key] == (await asyncio.to_thread(figures, collector))[key]
            )
            with blocking():
                assert figures(collector)[key] == 1
            elsewhere: list[float] = []
            thread = threading.Thread(target=lambda: elsewhere.append(figures(collector)[key]))
            thread.start()
            thread.join()  # the loop stands still meanwhile
            assert elsewhere == [1]

    run(main)
    figures(collector)


def test_registering_is_counted_and_names_do_not_clash_silently() -> None:
    """A registry refuses a second collector with the same prefix; another prefix is welcome; all can be undone."""
    registry = CollectorRegistry()
    collector, other = PoolCollector(registry), PoolCollector(registry, prefix="mine")
    with collector.register():
        collector.register()
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            PoolCollector(registry).register()
        with other.register():
            assert b"\nmine_workers_threads" in generate_latest(registry)
    assert b"\nthreadlets_workers_threads" in generate_latest(registry)
    assert b"\nmine_workers_threads" not in generate_latest(registry)
    collector.unregister()
    collector.unregister()
    assert generate_latest(registry) == b""
    with pytest.raises(ValueError, match="no digit first"):
        PoolCollector(registry, prefix="1-mine")
    with pytest.raises(TypeError, match=r"pools has 'crawler': expected a threadlets\.Pool"):
        PoolCollector(registry, pools=["crawler"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"expected a threadlets\.Entrypoint"):
        PoolCollector(registry, entrypoints=[print])  # type: ignore[list-item]


def test_one_that_cannot_be_measured_does_not_hide_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """A function that raises, or something that is no pool, is logged; the rest is told."""

    def fail() -> list[Pool]:
        raise LookupError("no pools today")

    assert 'threadlets_workers_threads{group="worker"}' in figures(PoolCollector(pools=fail))
    strange: Any = [object(), 7]
    assert 'threadlets_workers_threads{group="worker"}' in figures(PoolCollector(pools=lambda: strange))
    assert [record.message.startswith("nobody could say") for record in caplog.records] == [True, False, False]


def test_without_the_library_the_error_names_the_extra() -> None:
    """Whoever has not installed it is told how to."""
    code = "import sys; sys.modules['prometheus_client'] = None; import threadlets.adapters.prometheus"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert "ImportError: metrics for Prometheus need prometheus_client" in done.stderr
    assert "pip install 'threadlets[metrics]'" in done.stderr
