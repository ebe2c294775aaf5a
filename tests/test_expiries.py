"""Deadlines as numbers, and the queue of them with its one timer."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from time import monotonic_ns
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import Run
from tests.workbench import forever
from threadlets import Pool
from threadlets.expiries import deadline_of, seconds_until
from threadlets.homes import home_of

DAY = 86_400.0


@pytest.mark.parametrize("seconds", [0, -0.0, 1, 0.25, -5, 10**6])
def test_seconds_from_now(seconds: float) -> None:
    """A number is seconds from now, of either sign; the result is on the clock of time.monotonic_ns."""
    before = monotonic_ns()
    deadline = deadline_of(seconds)
    assert before + seconds * 1e9 - 1e6 <= deadline <= monotonic_ns() + seconds * 1e9 + 1e6
    assert isinstance(deadline, int)


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-11))])
def test_points_in_time(zone: timezone) -> None:
    """A datetime with a time zone is that point in time, whatever the zone."""
    assert 3599 < seconds_until(deadline_of(datetime.now(zone) + timedelta(hours=1))) <= 3600
    assert -3601 < seconds_until(deadline_of(datetime.now(zone) - timedelta(hours=1))) <= -3600


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (math.nan, ValueError, "finite"),
        (math.inf, ValueError, "finite"),
        (-math.inf, ValueError, "finite"),
        (datetime.now(), ValueError, "time zone"),
        (True, TypeError, "seconds from now, or a datetime"),
        (False, TypeError, "seconds from now, or a datetime"),
        ("5", TypeError, "seconds from now, or a datetime"),
        (timedelta(seconds=5), TypeError, "seconds from now, or a datetime"),
        (Decimal(5), TypeError, "seconds from now, or a datetime"),
        (Fraction(5), TypeError, "seconds from now, or a datetime"),
        (5j, TypeError, "seconds from now, or a datetime"),
        ([5], TypeError, "seconds from now, or a datetime"),
    ],
)
def test_what_is_no_deadline(run: Run, wrong: Any, error: type[Exception], words: str) -> None:
    """NaN, infinities, booleans, words and the like are refused wherever a deadline is given, and change nothing."""

    async def main() -> None:
        pool = Pool()
        handle = pool.start(forever, deadline=DAY)
        with pytest.raises(error, match=words):
            pool.start(forever, deadline=wrong)
        with pytest.raises(error, match=words):
            handle.deadline = wrong
        left = handle.deadline
        assert left is not None and DAY - 60 < left <= DAY
        assert len(pool) == 1
        await pool.aclose()
        pool._check()

    with pytest.raises(error, match=words):
        deadline_of(wrong)
    run(main)


@pytest.mark.parametrize("seconds", [1e20, 1e300, 10**400, 1.7e308])
def test_far_away(run: Run, seconds: float) -> None:
    """Any finite number of seconds will do, also one that no clock will ever show."""

    async def main() -> None:
        pool = Pool()
        handle = pool.start(forever, deadline=seconds)
        left = handle.deadline
        assert left is not None and left > 1e8
        late = pool.start(forever, deadline=-seconds)
        assert late.done() and isinstance(late.exception(), TimeoutError)
        pool._check()
        handle.cancel()
        await pool.drain()
        pool._check()

    run(main)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.none() | st.integers(-3, 9)), max_size=60))
def test_any_changes_of_deadlines(changes: list[tuple[int, int | None]]) -> None:
    """However deadlines are set, changed and taken away, the queue has each once, and the timer is early enough."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        pool = Pool()
        handles = [pool.start(forever) for _ in range(8)]
        expiries = home_of(loop).expiries
        model: dict[int, int] = {}
        for name, hours in changes:
            if hours is not None and hours < 0:
                handles[name].deadline = None
                model.pop(name, None)
            else:
                model[name] = deadlines[hours or 0]
                pool._limit_time(handles[name], model[name])
            expiries._check()
            assert len(expiries) == len(model)
            assert [expiries.get(handle) for handle in handles] == [model.get(n, math.inf) for n in range(8)]
            timer = expiries._timer
            if model and timer is not None:
                assert timer.when() <= loop.time() + seconds_until(min(model.values())) + 0.01
        pool.cancel()
        await pool.drain()
        assert len(expiries) == 0
        expiries._check()

    deadlines = [monotonic_ns() + (1 + hours) * 3600 * 10**9 for hours in range(10)]
    asyncio.run(main())


def test_a_chain_longer_than_the_recursion_limit(run: Run) -> None:
    """A deadline stops a chain of coroutines that await each other, however long it is, and others are kept, too."""

    async def main() -> None:
        pool, other = Pool(), Pool()

        async def nest(depth: int) -> None:
            await pool.start(nest, depth - 1) if depth else await forever()

        outer = pool.start(nest, 1500)
        while len(pool) <= 1500:  # noqa: ASYNC110 - deeper ones start in later rounds
            await asyncio.sleep(0)
        late = other.start(forever, deadline=0.002)
        outer.deadline = 0.001
        for handle in (late, outer):
            with pytest.raises(TimeoutError):
                await handle
        assert not len(pool)

    run(main)
