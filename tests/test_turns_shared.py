"""Several pools under one throttle."""

from __future__ import annotations

import asyncio

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
