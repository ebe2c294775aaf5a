"""Shared runs: equal calls of what is pure run once, and are several threadlets in every other respect."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import Gate, forever, rounds
from threadlets import Concurrency, Contract, Pool, threadlet
from threadlets.errors import PoolClosed, PoolFull, Shed
from threadlets.homes import home_of

PURE = Contract(pure=True)
PURE_AT_WORKER = Contract(pure=True, blocks="always")
LATER = 3600.0


class Counted:
    """A pure coroutine function that counts its runs, and goes on when it is told."""

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.stopped = 0
        self.go = asyncio.Event()
        self.error: BaseException | None = None
        self.entrypoint = threadlet(contract=PURE)(self.run)

    async def run(self, *args: Any, **kwargs: Any) -> list[Any]:
        self.runs.append(args)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        if self.error is not None:
            raise self.error
        return [args]


async def settled(*pools: Pool) -> None:
    for pool in pools:
        pool._check()
        pool.cancel()
        await pool.drain()
        pool._check()
        assert not pool._runs and not pool._sharable and not pool._followers
        for throttle in pool._throttles:
            assert getattr(throttle, "taken", 0) == 0
    await rounds()
    home = home_of(asyncio.get_running_loop())
    assert len(home.waits) == len(home.expiries) == 0


def test_equal_calls_share_one_run(run: Run) -> None:
    """Calls that are equal while one goes on run once, on one place, and get the same object; later ones run again."""

    async def main() -> None:
        throttle, counted = Concurrency(3), Counted()
        pool = Pool(throttle)
        handles = [pool.start(counted.entrypoint, 1) for _ in range(10)]
        other = pool.start(counted.entrypoint, 2)
        assert len(set(handles)) == len(pool) - 1 == 10
        assert throttle.taken == 2 and counted.runs == [(1,), (2,)]
        pool._check()
        counted.go.set()
        results = await asyncio.gather(*handles, other)
        assert all(result is results[0] for result in results[:10]) and results[10] is not results[0]
        again = await pool.start(counted.entrypoint, 1)
        assert again == results[0] and again is not results[0] and len(counted.runs) == 3
        assert pool.statistics().done == 12
        await settled(pool)

    run(main)


class Loose:
    """Equal to all of its kind."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loose)

    def __hash__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (((1,), {}), ((1,), {}), True),
        (((1,), {}), ((True,), {}), False),
        (((1,), {}), ((1.0,), {}), False),
        ((("a",), {}), ((b"a",), {}), False),
        ((((1, 2),), {}), (((1, 2),), {}), True),
        ((([1],), {}), (([1],), {}), False),
        ((({"a": 1},), {}), (({"a": 1},), {}), False),
        (((1, {2}), {}), ((1, {2}), {}), False),
        (((), {"a": 1, "b": 2}), ((), {"b": 2, "a": 1}), True),
        (((), {"a": 1}), ((), {"a": True}), False),
        (((), {"a": 1}), ((1,), {}), False),
        (((1,), {"a": [1]}), ((1,), {"a": [1]}), False),
        (((Loose(),), {}), ((Loose(),), {}), True),
        (((), {}), ((), {}), True),
        (((1, 2), {}), ((1,), {}), False),
    ],
)
def test_which_calls_are_equal(run: Run, one: Any, other: Any, shared: bool) -> None:
    """Equal are arguments of the same types that are equal; what is not hashable is equal to nothing."""

    async def main() -> None:
        counted, pool = Counted(), Pool()
        handles = [counted.entrypoint.using(pool=pool)(*args, **kwargs) for args, kwargs in (one, other)]
        assert len(counted.runs) == (1 if shared else 2)
        assert len(pool) == 2
        counted.go.set()
        await asyncio.gather(*handles)
        await settled(pool)

    run(main)


def test_methods_share_by_their_object(run: Run) -> None:
    """A method of equal objects is the same call; different entrypoints and pools share nothing."""

    class Shelf(Loose):
        runs = 0

        @threadlet(contract=PURE)
        async def read(self, key: str) -> str:
            Shelf.runs += 1
            await rounds(3)
            return key

        @threadlet(contract=PURE)
        async def look(self, key: str) -> str:
            Shelf.runs += 1
            await rounds(3)
            return key

    async def main() -> None:
        pool, other = Pool(), Pool()
        handles = [pool.start(Shelf().read, "a") for _ in range(3)]
        assert Shelf.runs == 1
        handles += [pool.start(Shelf().look, "a"), other.start(Shelf().read, "a"), Shelf().read("a")]
        assert Shelf.runs == 4
        assert await asyncio.gather(*handles) == ["a"] * 6
        Shelf.runs = 0
        await settled(pool, other)

    run(main)


def test_cancels_of_some_and_of_all(run: Run) -> None:
    """Who is cancelled is out at once; the run goes on for the others, and stops with the last of them."""

    async def main() -> None:
        counted, throttle = Counted(), Concurrency(1)
        pool = Pool(throttle)
        handles = [
            pool.start(counted.entrypoint, 1, tags={f"n:{n}", "even" if n % 2 == 0 else "odd"}) for n in range(6)
        ]
        assert handles[0].cancel("unwanted") and handles[0].cancelled() and not handles[0].cancel()
        assert pool.select(tag="odd").cancel("odd") == 3
        pool._check()
        waiter = asyncio.gather(handles[2])
        await rounds()
        waiter.cancel()
        await rounds()
        assert (counted.stopped, throttle.taken, len(pool)) == (0, 1, 1)
        with pytest.raises(asyncio.CancelledError, match="odd"):
            await handles[1]
        assert handles[4].cancel("the last")
        newcomer = pool.start(counted.entrypoint, 1)
        assert newcomer.state == "queued"
        with pytest.raises(asyncio.CancelledError, match="the last"):
            await handles[4]
        assert counted.stopped == 1
        counted.go.set()
        assert await newcomer == [(1,)] and len(counted.runs) == 2
        assert pool.statistics().cancelled == 6
        await asyncio.gather(waiter, return_exceptions=True)
        await settled(pool)

    run(main)


@pytest.mark.parametrize("seen", [0, 1, 4])
def test_a_failure_is_everybodys(run: Run, seen: int) -> None:
    """Each of the calls fails, with one exception; those failures that nobody retrieves are told one by one."""

    async def main() -> None:
        counted, pool = Counted(), Pool()
        counted.error = ValueError("wrong")
        handles = [pool.start(counted.entrypoint, 1) for _ in range(4)]
        counted.go.set()
        await pool.drain()
        assert [handle.state for handle in handles] == ["failed"] * 4
        for handle in handles[:seen]:
            with pytest.raises(ValueError, match="wrong"):
                await handle
        handles.clear()
        handle = None  # type: ignore[assignment]
        assert len(run.told()) == 4 - seen
        assert pool.statistics().failed == 4
        await settled(pool)

    run(main)


@pytest.mark.parametrize("contract", [PURE, PURE_AT_WORKER], ids=["suspended", "worker"])
@pytest.mark.parametrize("on_failure", ["collect", "cancel"])
def test_a_failure_in_a_scope(run: Run, on_failure: Any, contract: Contract) -> None:
    """A scope raises what each call has failed with and nobody has retrieved, and the run itself is not among them."""

    async def main() -> None:
        gate = Gate()

        async def fail() -> None:
            await rounds(2)
            raise ValueError

        def fail_there() -> None:
            gate()
            raise ValueError

        function = threadlet(contract=contract)(fail_there if contract is PURE_AT_WORKER else fail)
        with pytest.raises(BaseExceptionGroup) as caught:
            async with Pool(on_failure=on_failure) as pool:
                handles = [pool.start(function) for _ in range(3)]
                gate.open()
                if on_failure == "collect":
                    with pytest.raises(ValueError):
                        await handles[0]
                else:
                    await forever()
        count = 2 if on_failure == "collect" else 3
        assert [type(error) for error in caught.value.exceptions] == [ValueError] * count
        await settled(pool)

    run(main)


def test_the_most_urgent_of_them_counts(run: Run) -> None:
    """A run is queued by the most urgent of its calls, as they come, go, and change; they can be selected."""

    async def main() -> None:
        order: list[int] = []

        @threadlet(contract=PURE)
        async def note(n: int) -> None:
            order.append(n)

        pool = Pool(Concurrency(1))
        blocker = pool.start(forever)
        handles = {n: [pool.start(note, n, priority=9 - n, tags={f"{n}"}) for _ in range(3)] for n in range(4)}
        handles[0][1].priority = 1
        pool.start(note, 1, priority=0).cancel()
        assert pool.select(tag="2", state="queued").reprioritize(50) == 3
        handles[2][0].priority = 4
        handles[2][0].cancel()
        assert pool.select(state="queued", entrypoint=note).__len__() == 11
        assert pool.statistics().queued == 11 and pool.statistics().admitted == 1
        pool._check()
        blocker.cancel()
        await pool.drain()
        assert order == [0, 3, 1, 2]
        await settled(pool)

    run(main)


def test_each_call_counts_against_the_capacity(run: Run) -> None:
    """A follower takes room like any other threadlet; a closed pool takes none."""

    async def main() -> None:
        counted = Counted()
        pool = Pool(capacity=3)
        for _ in range(3):
            pool.start(counted.entrypoint, 1)
        for argument in (1, 2):
            with pytest.raises(PoolFull):
                pool.start(counted.entrypoint, argument)
        assert len(counted.runs) == 1
        await settled(pool)
        pool.close()
        with pytest.raises(PoolClosed):
            pool.start(counted.entrypoint, 1)
        closing = Pool()
        handle = closing.start(counted.entrypoint, 5)
        closing.close()
        with pytest.raises(PoolClosed):
            closing.start(counted.entrypoint, 5)
        counted.go.set()
        assert await handle == [(5,)]
        await settled(closing)

    run(main)


def test_shed_runs_are_shed_and_no_failures(run: Run) -> None:
    """Where a queued run is dropped, each of its calls is shed: whoever awaits one learns, and nobody else is told."""

    async def main() -> None:
        counted = Counted()
        async with Pool(Concurrency(1), capacity=3, overflow="shed") as pool:
            blocker = pool.start(forever)
            handles = [pool.start(counted.entrypoint, 1, priority=5) for _ in range(2)]
            urgent = pool.start(counted.entrypoint, 2)
            pool._check()
            shed = [handle for handle in handles if handle.done()]
            assert shed and pool.statistics().shed == len(shed) and pool.statistics().failed == 0
            with pytest.raises(Shed):
                await shed[0]
            assert not urgent.done()
            blocker.cancel()
            counted.go.set()
        assert urgent.done()
        await settled(pool)

    run(main)
