"""Seeds: another order of equals, the same one for the same number, in the whole suite as in a test by itself."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from random import Random

import pytest

from threadlets import Concurrency, FairShare, Pool, threadlet, trials

from .conftest import Run
from .plugins import PLUGIN, suite

pytest_plugins = ["pytester"]

ORDERS = """
    import asyncio, pytest
    from pathlib import Path
    from threadlets import Concurrency, Pool, threadlet

    shared = Pool(Concurrency(1))  # made at import

    async def orders(test):
        order, woken = [], []

        @threadlet
        async def work(number):
            order.append(number)
            await asyncio.sleep(0)

        async with Pool(Concurrency(1)) as pool:
            for number in range(8):
                pool.start(work, number, priority=int(number < 2))

        async def task(number):
            await asyncio.sleep(0)
            woken.append(number)

        await asyncio.gather(*map(task, range(6)))
        Path(__file__).with_name(test).write_text(f"{order} {woken}")

    @pytest.mark.threadlets
    async def test_one():
        await orders("one")

    @pytest.mark.threadlets
    async def test_two():
        await orders("two")

    @pytest.mark.threadlets
    def test_fails():
        assert 1 == 2
"""


def read(path: Path) -> tuple[str, str]:
    """Return the orders that the two tests have seen."""
    return (path / "one").read_text(), (path / "two").read_text()


def test_same_seed_same_order(pytester: pytest.Pytester) -> None:
    """The order depends on the number and on the test alone, and a failure says how to have it again."""
    seen = set()
    for seed in ("1", "1", "2"):
        result = suite(pytester, ORDERS, f"--threadlets-seed={seed}")
        result.assert_outcomes(passed=2, failed=1)
        seen.add(read(pytester.path))
    assert len(seen) == 2
    result.stdout.fnmatch_lines(
        [
            "threadlets: seed=2, again with --threadlets-seed=2",
            "this order again: --threadlets-seed=2 'test_same_seed_same_order.py::test_fails'",
        ]
    )
    whole = read(pytester.path)
    assert whole[0] != whole[1], "each test has an order of its own"
    (pytester.path / "two").unlink()
    suite(pytester, ORDERS, "--threadlets-seed=2", "-k", "two").assert_outcomes(passed=1, deselected=2)
    assert read(pytester.path) == whole
    priorities = eval(whole[0].partition("] [")[0] + "]")
    assert priorities[0] == 0 and priorities[-1] == 1, "what may start does; less urgent ones are last in any order"
    suite(pytester, ORDERS).assert_outcomes(passed=2, failed=1)
    assert read(pytester.path) == ("[0, 2, 3, 4, 5, 6, 7, 1] [0, 1, 2, 3, 4, 5]",) * 2


def test_workers_of_xdist_have_the_same_seed(pytester: pytest.Pytester) -> None:
    """A random number is drawn once, and tests on two workers have the order that it gives in one process."""
    if importlib.util.find_spec("xdist") is None:
        pytest.skip("pytest-xdist is not installed")
    pytester.makepyfile(ORDERS)
    options = [*PLUGIN, "-p", "no:asyncio", "-p", "no:anyio", "-p", "no:hypothesispytest"]
    result = pytester.runpytest_inprocess(*options, "-n", "2", "--threadlets-seed=random", "--threadlets-loop=asyncio")
    result.assert_outcomes(passed=2, failed=1)
    line = next(line for line in result.outlines if line.startswith("threadlets: "))
    spread = read(pytester.path)
    suite(pytester, ORDERS, line.rpartition(" ")[2], "--threadlets-loop=asyncio").assert_outcomes(passed=2, failed=1)
    assert read(pytester.path) == spread
    result.stdout.fnmatch_lines([f"this order again: {line.rpartition(' ')[2]} '*::test_fails'"])


@pytest.mark.parametrize("order", ["priority", "deadline"])
def test_ties_in_every_kind_of_pool(once: Run, order: str) -> None:
    """Pools by deadline, with aging, that shed, that rank, and parts of pools keep their order but for equals."""

    async def main() -> None:
        with trials.trial(ties=Random(7).random):
            pools = [
                Pool(Concurrency(1), order=order, capacity=100, overflow="shed"),  # type: ignore[arg-type]
                Pool(Concurrency(1), order=order, aging=1e6),  # type: ignore[arg-type]
                Pool(Concurrency(1), FairShare("of:"), order=order),  # type: ignore[arg-type]
                Pool(parent=Pool(Concurrency(1), order=order)),  # type: ignore[arg-type]
            ]
            for pool in pools:
                started: list[int] = []

                @threadlet
                async def work(number: int, started: list[int] = started) -> None:
                    started.append(number)
                    await asyncio.sleep(0)

                handles = [
                    pool.start(work, number, priority=float(number < 20), tags={f"of:{number % 2}"}, deadline=3600)
                    for number in range(40)
                ]
                pool._root._check()
                handles[30].priority = -1
                handles[31].cancel()
                pool._root._check()
                await pool.drain()
                assert sorted(started) == sorted({*range(40)} - {31})
                assert started != sorted(started, key=lambda number: (number < 20, number))

    once(main)
