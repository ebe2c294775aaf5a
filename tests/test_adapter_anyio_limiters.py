"""A limiter of anyio that is a view of a pool."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("anyio")

from anyio import CancelScope, CapacityLimiter, WouldBlock, to_thread

from tests.conftest import Run
from tests.workbench import rounds
from threadlets import Concurrency, Pool
from threadlets.adapters import anyio as adapter


def test_a_limiter_that_is_a_view_of_a_pools_concurrency(run: Run) -> None:
    """Tokens are places in the pool, for functions and for whoever holds one otherwise."""

    async def main() -> None:
        adapter.install()
        concurrency = Concurrency(2)
        async with Pool(concurrency) as pool:
            limiter = adapter.PoolLimiter(pool, concurrency)
            assert isinstance(limiter, CapacityLimiter)
            assert (limiter.total_tokens, limiter.borrowed_tokens, limiter.available_tokens) == (2, 0, 2)
            async with limiter:
                assert limiter.borrowed_tokens == concurrency.taken == 1
                with pytest.raises(RuntimeError, match="already holding"):
                    await limiter.acquire()
                assert await to_thread.run_sync(lambda: concurrency.taken, limiter=limiter) == 2
                await limiter.acquire_on_behalf_of("a")
                with pytest.raises(WouldBlock):
                    limiter.acquire_on_behalf_of_nowait("b")
                waits = asyncio.ensure_future(limiter.acquire_on_behalf_of("c"))
                await rounds()
                assert limiter.statistics().tasks_waiting == 1
                assert not waits.done()
                limiter.total_tokens = 3
                await waits
                assert "c" in limiter.statistics().borrowers
                limiter.release_on_behalf_of("a")
                limiter.release_on_behalf_of("c")
                with pytest.raises(RuntimeError, match="isn't holding"):
                    limiter.release_on_behalf_of("c")
                await rounds()
            assert concurrency.taken <= 1
        assert concurrency.taken == 0

    try:
        run(main)
    finally:
        adapter.uninstall()


def test_who_waits_for_a_token_can_be_cancelled(run: Run) -> None:
    """He takes none, and nothing is left of him in the pool."""

    async def main() -> None:
        concurrency = Concurrency(1)
        pool = Pool(concurrency)
        limiter = adapter.PoolLimiter(pool, concurrency)
        async with limiter:
            with CancelScope() as scope:
                asyncio.get_running_loop().call_soon(scope.cancel)
                await limiter.acquire_on_behalf_of("a")
            assert scope.cancelled_caught
            await rounds()
            assert (concurrency.taken, pool.statistics().queued, limiter.statistics().borrowers) == (
                1,
                0,
                (asyncio.current_task(),),
            )
        await pool.aclose()

    run(main)


def test_mistakes_are_told_at_the_call() -> None:
    """What is no pool, or no Concurrency, is refused."""
    for pool, concurrency in ((3, Concurrency(1)), (Pool(), 3)):
        with pytest.raises(TypeError, match="expected a threadlets"):
            adapter.PoolLimiter(pool, concurrency)  # type: ignore[arg-type]
