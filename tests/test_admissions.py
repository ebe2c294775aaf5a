"""Admission: limits that are never exceeded, order by priority, and what a full pool does."""

from __future__ import annotations

import asyncio
import weakref

import pytest

from tests.conftest import Run
from tests.workbench import ON_WORKER, PLACES, Gate, Token, entrypoint, forever, rounds
from threadlets import Concurrency, Pool, Threadlet, threadlet
from threadlets.workers import WorkerGroup


class Crowd:
    """Coroutines that count how many of them run, and end when they are told."""

    def __init__(self) -> None:
        self.inside = 0
        self.order: list[int] = []
        self._waiting: list[asyncio.Future[None]] = []

    async def enter(self, number: int) -> int:
        self.order.append(number)
        self.inside += 1
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        finally:
            self.inside -= 1
        return number

    def let_out(self, count: int = 1) -> None:
        for _ in range(count):
            waiter = self._waiting.pop(0)
            if not waiter.done():
                waiter.set_result(None)


def test_a_limit_is_never_exceeded(run: Run) -> None:
    """As many as the limit run, one more starts for each that ends, in order of arrival."""

    async def main() -> None:
        crowd, throttle = Crowd(), Concurrency(3)
        async with Pool(throttle) as pool:
            for number in range(10):
                pool.start(crowd.enter, number)
                pool._check()
            assert crowd.inside == throttle.taken == 3
            for left in range(9, -1, -1):
                crowd.let_out()
                await rounds(5)
                assert crowd.inside == throttle.taken == min(3, left)
                pool._check()
        assert crowd.order == list(range(10))

    run(main)


def test_a_limit_is_kept_on_workers(run: Run) -> None:
    """A function on a worker holds its place until its end has been delivered."""
    gate = Gate()

    async def main() -> None:
        throttle = Concurrency(2)
        pool = Pool(throttle)
        handles = [pool.start(threadlet(contract=ON_WORKER)(gate)) for _ in range(5)]
        gate.wait_arrived()
        gate.wait_arrived()
        await rounds()
        assert [handle.state for handle in handles] == ["running"] * 2 + ["queued"] * 3
        assert throttle.taken == 2
        gate.open()
        await asyncio.gather(*handles)
        assert throttle.taken == 0
        pool._check()

    run(main)


def test_a_limit_can_be_changed_while_they_run(run: Run) -> None:
    """Raising the limit starts more at once; lowering it stops nobody, and nobody starts until enough have ended."""

    async def main() -> None:
        crowd, throttle = Crowd(), Concurrency(2)
        async with Pool(throttle) as pool:
            for number in range(12):
                pool.start(crowd.enter, number)
            throttle.limit = 5
            await rounds(5)
            assert crowd.inside == 5
            throttle.limit = 1
            for left in (4, 3, 2, 1):
                crowd.let_out()
                await rounds(5)
                assert (crowd.inside, len(crowd.order)) == (left, 5)
                pool._check()
            for started in (6, 7):
                crowd.let_out()
                await rounds(5)
                assert (crowd.inside, len(crowd.order)) == (1, started)
            throttle.limit = 100
            await rounds(5)
            assert crowd.inside == 6
            crowd.let_out(6)
        assert crowd.order == list(range(12))

    run(main)


def test_nobody_overtakes_the_queue(run: Run) -> None:
    """When places become free, those who wait get them, also before one who starts in that very moment."""

    async def main() -> None:
        crowd, throttle = Crowd(), Concurrency(1)
        async with Pool(throttle) as pool:
            for number in range(3):
                pool.start(crowd.enter, number)
            throttle.limit = 2  # the pump will run in the next round
            newcomer = pool.start(crowd.enter, 3)
            assert newcomer.state == "queued"
            pool._check()
            await rounds()
            assert crowd.order == [0, 1]
            throttle.limit = 4
            await rounds()
            crowd.let_out(4)
        assert crowd.order == [0, 1, 2, 3]

    run(main)


def test_several_throttles_must_all_agree(run: Run) -> None:
    """The tightest throttle decides, and none of them keeps a place for what another one holds back."""

    async def main() -> None:
        crowd, wide, narrow = Crowd(), Concurrency(3), Concurrency(1)
        async with Pool(wide, narrow) as pool:
            for number in range(4):
                pool.start(crowd.enter, number)
            assert (crowd.inside, wide.taken, narrow.taken) == (1, 1, 1)
            narrow.limit = 10
            await rounds(5)
            assert (crowd.inside, wide.taken, narrow.taken) == (3, 3, 3)
            wide.limit = 10
            await rounds(5)
            assert crowd.inside == 4
            crowd.let_out(4)
        assert wide.taken == narrow.taken == 0

    run(main)


def test_two_pools_share_a_throttle(run: Run) -> None:
    """A throttle in two pools limits both together; whichever waits goes on when the other gives a place back."""

    async def main() -> None:
        crowd, throttle = Crowd(), Concurrency(2)
        async with Pool(throttle) as one, Pool(throttle) as two:
            for number in range(4):
                one.start(crowd.enter, number)
                two.start(crowd.enter, 10 + number)
            for left in range(7, -1, -1):
                assert crowd.inside == throttle.taken <= 2
                crowd.let_out()
                await rounds(5)
                assert crowd.inside == min(2, left)
                one._check()
                two._check()
        assert sorted(crowd.order) == [0, 1, 2, 3, 10, 11, 12, 13]
        assert [number for number in crowd.order if number < 10] == [0, 1, 2, 3]

    run(main)


@pytest.mark.parametrize("place", [*PLACES, "coroutine"])
def test_lower_numbers_start_first_and_ties_by_arrival(run: Run, place: str) -> None:
    """Queued threadlets start by priority, equal ones in order of arrival, also after their priority was changed."""

    async def main() -> None:
        order: list[int] = []

        async def note_later(number: int) -> None:
            order.append(number)

        throttle = Concurrency(1)
        pool = Pool(throttle)
        blocker = pool.start(forever)
        function = note_later if place == "coroutine" else entrypoint(place, order.append)
        handles = [
            pool.start(function, number, priority=priority)
            for number, priority in enumerate([3, 1, 2.5, 1, float("inf"), -5, 2, float("-inf"), 10**30])
        ]
        handles[0].priority = 1  # arrived before the others with 1
        handles[6].priority = float("inf")
        pool._check()
        blocker.cancel()
        await pool.drain()
        assert order == [7, 5, 0, 1, 3, 2, 8, 4, 6]

    run(main)


def test_priorities_hold_among_those_at_workers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a thread goes by priority too, can be re-keyed there, and cancelled there."""
    gate = Gate()
    order: list[int] = []

    @threadlet(contract=ON_WORKER)
    def step(number: int) -> None:
        if number == 0:
            gate()
        order.append(number)

    monkeypatch.setattr(step, "workers", WorkerGroup("one", limit=1, idle_seconds=0))

    async def main() -> None:
        pool = Pool()
        handles = [pool.start(step, 0)]
        gate.wait_arrived()
        handles += [pool.start(step, number, priority=priority) for number, priority in [(1, 1), (2, 3), (3, 2)]]
        handles[2].priority = 0
        assert handles[3].cancel()
        assert handles[3].cancelled()
        gate.open()
        await asyncio.gather(*handles[:3])
        assert order == [0, 2, 1]
        pool._check()

    run(main)


@pytest.mark.parametrize("where", ["pool", "worker"])
def test_cancelled_while_queued_it_never_runs_and_is_freed(
    run: Run, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is cancelled in a queue, the pool's or the workers', does not run; its arguments are freed at once."""
    gate = Gate()

    @threadlet(contract=ON_WORKER)
    def step(token: Token | None = None) -> None:
        assert token is None, "it was cancelled and ran"
        gate()

    monkeypatch.setattr(step, "workers", WorkerGroup("one", limit=1, idle_seconds=0))

    async def main() -> None:
        pool = Pool(Concurrency(1)) if where == "pool" else Pool()
        first = pool.start(step)
        gate.wait_arrived()
        handles, watched = [], []
        for _ in range(50):
            token = Token()
            watched.append(weakref.ref(token))
            handles.append(pool.start(step, token))
            del token
        for handle in handles[::2]:
            assert handle.cancel("unwanted")
            assert handle.cancelled() and not handle.cancel()
        assert [ref() is None for ref in watched] == [True, False] * 25
        pool._check()
        watched_handles = [weakref.ref(handle) for handle in handles]
        with pytest.raises(asyncio.CancelledError, match="unwanted"):
            await handles[0]
        assert pool.cancel() == 26
        del handle, handles
        assert not any(ref() for ref in [*watched, *watched_handles])
        gate.open()
        await asyncio.gather(first, return_exceptions=True)
        assert pool.statistics().cancelled == 51
        pool._check()

    run(main)


def test_deep_nesting_under_a_limit_that_allows_it(run: Run) -> None:
    """Threadlets that start others in their own pool and await them end, as long as the limit covers the nesting."""

    async def main() -> None:
        pool = Pool(Concurrency(8))

        async def nest(depth: int) -> int:
            if depth == 0:
                return 0
            handle: Threadlet[int] = pool.start(nest, depth - 1)
            return 1 + await handle

        assert await pool.start(nest, 7) == 7
        pool._check()

    run(main)
