"""Several pools under one throttle."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Run
from threadlets import Concurrency, Pool


def test_pools_that_share_a_throttle_take_turns(run: Run) -> None:
    """None of them is served before the others time and again."""

    async def main() -> None:
        throttle = Concurrency(1)
        pools = {name: Pool(throttle) for name in "abc"}
        started: list[str] = []

        async def work(name: str) -> None:
            started.append(name)
            await asyncio.sleep(0)

        for name, pool in pools.items():
            for _ in range(8):
                pool.start(work, name)
        for pool in pools.values():
            await pool.drain()
            pool._check()
        assert len(started) == 24
        for first in range(0, 15, 3):
            assert set(started[first : first + 3]) == set(pools)

    run(main)


def test_what_makes_no_sense_is_told_at_the_call(run: Run) -> None:
    """A throttle that would be taken twice for each threadlet could never be; other bad arguments are named."""

    async def main() -> None:
        throttle = Concurrency(1)
        whole = Pool(throttle)
        for make in (lambda: Pool(throttle, throttle), lambda: Pool(throttle, parent=whole)):
            with pytest.raises(ValueError, match="twice"):
                make()
        with pytest.raises(TypeError, match="mapping"):
            Pool(tag_capacity=5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="to move to"):
            whole.select().move(3)  # type: ignore[arg-type]
        whole._check()

    run(main)


def test_a_threadlet_lends_to_any_that_it_waits_for(run: Run) -> None:
    """However many others it waits for that its place is of no use to, the one that needs it is found."""

    async def main() -> None:
        pool, other = Pool(Concurrency(1)), Pool(Concurrency(1))

        async def number(n: int) -> int:
            await asyncio.sleep(0)
            return n

        async def wait() -> int:
            strangers = [other.start(number, 1, tags={n}) for n in range(100)]
            return sum(await asyncio.gather(*strangers, pool.start(number, 1)))

        async with asyncio.timeout(20):
            assert await pool.start(wait) == 101
        pool._check()
        other._check()

    run(main)
