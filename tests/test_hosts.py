"""Hosts: pools whose functions run outside of this process, and threadlets that are moved there and back.

The host here is one that runs each function in its task, on the loop: all that a pool sees of a host is true of it.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import ended, forever, rounds, until
from threadlets import Chain, Concurrency, Contract, Host, Pool, current_threadlet, threadlet
from threadlets.errors import DeadlineExceeded, NodeLost, PoolClosed, Shed
from threadlets.topology import machine

PURE = Contract(pure=True)
PURE_ON_WORKER = Contract(pure=True, blocks="always")


@threadlet(contract=PURE)
def double(number: Any) -> Any:
    """Return twice the number, or list."""
    return number * 2


@threadlet(contract=PURE)
def fail(number: int) -> None:
    """Raise."""
    raise KeyError(number)


@threadlet
def plain(number: int) -> int:
    """Return what it gets; it is not said to be pure."""
    return number


class Nearby(Host):
    """A host in this process."""

    def __init__(self, slots: int = 2, is_open: bool = True) -> None:
        self.slots = Concurrency(slots)
        self.runs: list[tuple[Any, ...]] = []
        self.stopped: list[Any] = []
        self.checked = 0
        self.lost = False
        self.open = asyncio.Event()
        if is_open:
            self.open.set()

    def __repr__(self) -> str:
        return "<Nearby>"

    def check(self, entrypoint: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse what is an object of no use elsewhere."""
        self.checked += 1
        if any(type(arg) is object for arg in (*args, *kwargs.values())):
            raise TypeError(f"{entrypoint.name} got a thing that cannot be sent")

    async def run(self, entrypoint: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, priority: float) -> Any:
        """Call the function when the host is open."""
        assert entrypoint is current_threadlet().entrypoint  # type: ignore[union-attr]
        self.runs.append((entrypoint, args, kwargs, priority))
        try:
            await self.open.wait()
        except CancelledError as error:
            self.stopped.append(error.args)
            raise
        if self.lost:
            raise NodeLost("the host is gone")
        return entrypoint.function(*args, **kwargs)


def numbers(host: Nearby) -> list[Any]:
    """Return the first arguments of what has run, in order."""
    return [args[0] for _, args, _, _ in host.runs]


def test_a_pool_at_a_host(run: Run) -> None:
    """What is started runs at the host, with the arguments as they are, and is "missed" while it does."""

    async def main() -> None:
        host = Nearby(is_open=False)
        before = double.statistics()
        async with Pool(node=host) as pool:
            assert pool.node is host
            thing = [1]
            handle = pool.start(double, thing, priority=3)
            assert (handle.state, handle.node) == ("queued", host)
            await until(lambda: host.runs)
            assert (handle.state, handle.missed, handle.node) == ("missed", True, host)
            assert host.runs == [(double, (thing,), {}, 3)] and host.runs[0][1][0] is thing
            pool._check()
            host.open.set()
            assert await handle == [1, 1]
            assert await double.using(pool=pool)(number=4) == 8
            assert host.runs[1][1:3] == ((), {"number": 4})
            assert [each async for each in pool.map(double, range(5))] == [0, 2, 4, 6, 8]
            pool._check()
            figures = pool.statistics()
            assert (figures.done, figures.failed, host.slots.taken) == (7, 0, 0)
        after = double.statistics()
        assert (after.in_place, after.on_workers) == (before.in_place, before.on_workers)
        assert after.on_hosts == before.on_hosts + 7

    run(main)


def test_what_cannot_be_sent(run: Run) -> None:
    """Whoever starts it is told at once, and nothing of it is left behind."""

    async def main() -> None:
        host = Nearby()
        pure_coroutine = threadlet(contract=PURE)(forever)
        alone = threadlet(contract=Contract(pure=True, affinity="one"))(double.function)
        async with Pool(node=host, capacity=1) as pool:
            chain: Any = Chain().then(len, "abc")
            for function, args in ((plain, (1,)), (len, ("abc",)), (pure_coroutine, ()), (alone, (1,)), (chain, ())):
                with pytest.raises(TypeError, match=r"only plain functions with Contract\(pure=True\)"):
                    pool.start(function, *args)
            with pytest.raises(TypeError, match="cannot be sent"):
                pool.start(double, object())
            assert host.checked == 1 and not len(pool) and not host.runs
            pool._check()

    run(main)


def test_slots_hold_back_and_priorities_decide(run: Run) -> None:
    """What finds no free slot waits in the pool: there it can be put in order, cancelled, shed."""

    async def main() -> None:
        host = Nearby(slots=1, is_open=False)
        async with Pool(node=host, capacity=5, overflow="shed") as pool, Pool(node=host) as other:
            handles = [pool.start(double, n, priority=5, tags={f"n:{n}"}) for n in range(5)]
            await until(lambda: host.runs)
            assert [handle.state for handle in handles] == ["missed", *["queued"] * 4]
            beside = other.start(double, 9)
            await rounds()
            assert beside.state == "queued"  # the slots are those of both
            handles[4].priority = 1
            assert pool.select(tag="n:3").reprioritize(2) == 1
            assert pool.select(tag="n:2").cancel("no need") == 1
            newcomer, last = pool.start(double, 10, priority=0), pool.start(double, 11, priority=0)
            assert isinstance(await ended(handles[1]), Shed)
            pool._check()
            host.open.set()
            assert await newcomer == 20 and await last == 22 and await beside == 18
            await pool.drain()
            assert numbers(host) in ([0, 9, 10, 11, 4, 3], [0, 10, 11, 4, 3, 9], [0, 10, 9, 11, 4, 3])
            assert handles[2].cancelled()

    run(main)


def test_cancel_reaches_the_host(run: Run) -> None:
    """A cancel is a CancelledError in the host's run(), with its reason; so is a deadline, and the end of a scope."""

    async def main() -> None:
        host = Nearby(slots=3, is_open=False)
        pool = Pool(node=host)
        first, second = pool.start(double, 1), pool.start(double, 2, deadline=0.01)
        early = pool.start(double, 0)
        assert early.cancel() and early.cancelled()
        await until(lambda: len(host.runs) == 2)
        assert first.cancel("enough")
        assert str(await ended(first)) == "enough"
        assert isinstance(await ended(second), DeadlineExceeded)
        assert host.stopped == [("enough",), ("its deadline has passed",)]
        assert host.slots.taken == 0 and not len(pool)
        third = pool.start(double, 3)
        await until(lambda: len(host.runs) == 3)
        await pool.aclose()
        assert third.cancelled() and len(host.stopped) == 3
        with pytest.raises(PoolClosed):
            pool.start(double, 4)

    run(main)


def test_equal_calls_share_a_run_there(run: Run) -> None:
    """Equal calls are one run at the host; the last one that is cancelled stops it."""

    async def main() -> None:
        host = Nearby(is_open=False)
        async with Pool(node=host) as pool:
            one, two, three = (pool.start(double, 7) for _ in range(3))
            await until(lambda: host.runs)
            assert one.state == two.state == "missed" and one.node is two.node is host
            assert one.cancel() and one.cancelled()
            pool._check()
            host.open.set()
            assert await two == await three == 14
            host.open.clear()
            four = pool.start(double, 8)
            await until(lambda: len(host.runs) == 2)
            four.cancel()
            assert isinstance(await ended(four), CancelledError) and len(host.stopped) == 1

    run(main)


def test_failures(run: Run) -> None:
    """What the function raises there is what awaiting raises here; so is a host that is lost, or is none."""

    async def main() -> None:
        host = Nearby()
        pool = Pool(node=host)
        assert repr(await ended(pool.start(fail, 3))) == "KeyError(3)"
        host.lost = True
        error = await ended(pool.start(double, 1))
        assert isinstance(error, NodeLost) and isinstance(error, ConnectionError)
        broken: Any = Host()
        broken.slots = Concurrency(1)
        assert isinstance(await ended(Pool(node=broken).start(double, 1)), NotImplementedError)
        broken.run = lambda *args, **kwargs: None
        assert isinstance(await ended(Pool(node=broken).start(double, 1)), TypeError)
        broken.run = None
        assert isinstance(await ended(Pool(node=broken).start(double, 1)), TypeError)
        assert broken.slots.taken == host.slots.taken == 0
        assert fail.statistics().failed and pool.statistics().failed == 2

    run(main)


def test_where_a_part_of_a_pool_may_be() -> None:
    """A part is where the whole is, if that is a host; it may be at a node of its own, if it is not."""
    with pytest.raises(TypeError, match="expected a node of"):
        Pool(node=3)  # type: ignore[arg-type]
    host, node = Nearby(), machine().nodes[0]
    whole = Pool(node=host)
    part = Pool(parent=whole)
    assert part.node is host and part._throttles == (host.slots,)
    assert Pool(parent=whole, node=host)._throttles == (host.slots,)
    assert Pool(host.slots, node=host)._throttles == (host.slots,)
    for other in (Nearby(), node):
        with pytest.raises(ValueError, match="is there, too"):
            Pool(parent=whole, node=other)
    assert Pool(parent=Pool(node=node)).node is node
    assert Pool(parent=Pool(node=node), node=host).node is host
    unfit = Nearby()
    unfit.slots = 3  # type: ignore[assignment]
    with pytest.raises(TypeError, match="no throttle"):
        Pool(node=unfit)


def test_a_host_that_is_none(run: Run) -> None:
    """One without slots, and a class instead of one, are refused by name."""

    class Unfinished(Host):
        """Something has been forgotten."""

    async def main() -> None:
        with pytest.raises(TypeError, match="slots"):
            Pool(node=Unfinished())
        async with Pool() as pool:
            with pytest.raises(TypeError, match="expected"):
                pool.select().move(Unfinished)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="expected"):
                pool.select().move(Pool)  # type: ignore[arg-type]

    run(main)
