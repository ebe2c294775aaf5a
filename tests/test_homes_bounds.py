"""What runs in place does not starve the loop: counted in rounds of the loop, never in seconds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import IN_PLACE, ON_WORKER, rounds
from threadlets import Concurrency, Pool, Threadlet, homes, threadlet

identity = threadlet(contract=IN_PLACE)(lambda value: value)
fail = threadlet(contract=IN_PLACE)(lambda value: {}["missing"])


@threadlet
async def identity_coroutine(value: Any) -> Any:
    return value


class Ticker:
    """Counts the rounds of the loop while a test does something else."""

    def __init__(self) -> None:
        self.ticks = 0
        self._running = False

    async def _tick(self) -> None:
        while self._running:
            self.ticks += 1
            await asyncio.sleep(0)

    async def __aenter__(self) -> Ticker:
        self._running = True
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running = False
        await self._task


CHAINS = {"plain": identity, "coroutine": identity_coroutine}


@pytest.mark.parametrize("pooled", [False, True], ids=["default pool", "throttled pool"])
@pytest.mark.parametrize("kind", [*CHAINS, "failing"])
def test_a_chain_of_awaits_lets_the_loop_go_round(run: Run, kind: str, pooled: bool) -> None:
    """20,000 awaits of what ends in place let other tasks run: every few milliseconds, however quick each is."""

    async def main() -> None:
        pool = Pool(Concurrency(10)) if pooled else Pool()
        count = 5_000 if run.debug else 20_000
        async with Ticker() as ticker:
            for number in range(count):
                if kind == "failing":
                    with pytest.raises(KeyError):
                        await pool.start(fail, number)
                else:
                    assert await pool.start(CHAINS[kind], number) == number
        assert ticker.ticks > 2  # one was before; and no machine makes 20,000 calls within two turns of 2 ms
        pool._check()

    run(main)


@pytest.mark.parametrize("kind", CHAINS)
def test_each_start_of_a_chain_is_in_place(run: Run, kind: str) -> None:
    """The loop goes round between an await and the next start, so that a chain of awaits never has to queue."""

    async def main() -> None:
        pool = Pool()
        async with Ticker() as ticker:
            for number in range(5_000):
                handle = pool.start(CHAINS[kind], number)
                assert handle.done()
                await handle
        assert ticker.ticks >= 2

    run(main)


@pytest.mark.parametrize("kind", CHAINS)
def test_a_loop_of_starts_does_not_keep_the_loop(run: Run, kind: str) -> None:
    """Of 10,000 starts without an await, a few thousand at most run at once; the rest take turns with the loop."""

    async def main() -> None:
        pool = Pool()
        count = 10_000 if kind == "plain" or not run.debug else 2_500
        async with Ticker() as ticker:
            handles = [pool.start(CHAINS[kind], number) for number in range(count)]
            at_once = sum(handle.done() for handle in handles)
            assert ticker.ticks == 1
            assert at_once < count // 2
            assert [handle.done() for handle in handles] == [True] * at_once + [False] * (count - at_once)
            seen = 0
            while not handles[-1].done():
                ended = sum(handle.done() for handle in handles)
                assert ended - seen < count // 2 or not seen
                seen = ended
                await asyncio.sleep(0)
            assert ticker.ticks >= 3
        assert [handle.result() for handle in handles] == list(range(count))
        pool._check()

    run(main)


def test_the_order_of_starts_is_kept_when_the_turn_is_used_up(run: Run) -> None:
    """What has to wait for the loop starts in order of arrival, and nothing overtakes it."""

    async def main() -> None:
        order: list[int] = []
        pool = Pool()
        note = threadlet(contract=IN_PLACE)(order.append)
        for number in range(5_000):
            pool.start(note, number)
        await asyncio.sleep(0)
        for number in range(5_000, 10_000):
            pool.start(note, number)
        await pool.drain()
        assert order == list(range(10_000))

    run(main)


def test_coroutines_nest_in_place_only_so_deep(run: Run) -> None:
    """Coroutines that start each other in their first steps nest up to a limit; beyond it they wait for the loop."""
    deepest = 0

    @threadlet
    async def nest(depth: int) -> None:
        nonlocal deepest
        deepest = max(deepest, depth)
        handles.append(nest(depth + 1) if depth < 1_000 else None)

    handles: list[Threadlet[None] | None] = []

    async def main() -> None:
        handle = nest(1)
        assert handle.done()
        assert deepest == homes.DEPTH
        for _ in range(1_000):
            await asyncio.sleep(0)
        assert deepest == 1_000
        assert all(handle is None or handle.done() for handle in handles)

    run(main)


def test_rounds_between_turns_are_bounded_for_long_calls(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that take half a turn each, by the clock, run two or three to a round of the loop."""
    now = 0
    monkeypatch.setattr(homes, "monotonic_ns", lambda: now)

    @threadlet(contract=IN_PLACE)
    def work() -> None:
        nonlocal now
        now += homes.TURN // 2

    async def main() -> None:
        pool = Pool()
        async with Ticker() as ticker:
            handles = [pool.start(work) for _ in range(30)]
            assert sum(handle.done() for handle in handles) <= 3
            await asyncio.gather(*handles)
        assert ticker.ticks >= 30 // 3

    monkeypatch.setattr("threadlets.admissions.monotonic_ns", lambda: now)
    run(main)


def test_work_for_workers_does_not_use_up_the_turn(run: Run) -> None:
    """Starts that go to workers stay direct: their functions take none of the loop's time."""

    async def main() -> None:
        pool = Pool()
        handles = [pool.start(threadlet(contract=ON_WORKER)(lambda: None)) for _ in range(3)]
        await asyncio.gather(*handles)
        handle = pool.start(identity, 5)
        assert handle.done()
        await rounds()

    run(main)
