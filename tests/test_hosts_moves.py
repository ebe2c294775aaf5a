"""Hosts: threadlets that wait in a pool are moved to one, from one to another, and back.

A second file of tests for ``threadlets/hosts.py``; ``test_hosts.py`` has the rest, and the host.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Run
from tests.test_hosts import PURE_ON_WORKER, Nearby, double, numbers, plain
from tests.workbench import forever, rounds, until
from threadlets import Concurrency, FairShare, Pool, Threadlet, threadlet
from threadlets.errors import PoolFull, WrongLoop
from threadlets.lifecycles import State
from threadlets.topology import machine


@pytest.mark.parametrize("things", ["shared", "alone"])
def test_moved_to_a_host(run: Run, things: str) -> None:
    """Those that wait go to the host, stay in their pool, and are held back by its throttles as before."""

    async def main() -> None:
        host = Nearby(slots=8)
        limit = Concurrency(1)
        wrap: Any = (lambda n: n) if things == "shared" else (lambda n: [n])  # no list is equal to another call's
        async with Pool(limit, capacity=12, name="here") as pool:
            first = pool.start(threadlet(forever))
            pures = [pool.start(double, wrap(n), priority=n, tags={"some"} if n < 3 else ()) for n in range(4)]
            others = [pool.start(plain, 1), pool.start(threadlet(forever))]
            assert pool.select(tag="some").move(host) == 3
            assert [handle.node for handle in [first, *pures, *others]] == [None, *[host] * 3, *[None] * 3]
            assert pool.select().move(host) == 1  # the others are there
            assert len(pool) == 7 and all(handle in pool for handle in pures)
            assert set(pool.select(entrypoint=double, state="queued")) == set(pures)
            for each in (pool, *pool._children):
                each._check()
                figures = each.statistics()
                assert (figures.queued + figures.admitted, figures.admitted) == (len(each), each is pool)
            assert len(pool._children) == 1 and "here" in repr(*pool._children) and limit.taken == 1
            await rounds()
            assert not host.runs  # there are slots, and the pool's own limit is reached
            others[1].cancel()
            first.cancel()
            assert [await handle for handle in pures] == [wrap(n) * 2 for n in range(4)]
            assert numbers(host) == [wrap(n) for n in range(4)]
            assert limit.taken == host.slots.taken == 0
        await rounds()
        assert pool.statistics().done == 5 and not pool._children

    run(main)


def test_moved_from_the_workers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait for a worker are called back, and run at the host."""

    async def main() -> None:
        host = Nearby()
        alone = threadlet(contract=PURE_ON_WORKER)(double.function)
        async with Pool() as pool:
            handles = [pool.start(alone, thing) for thing in (1, 2, [3])]
            moved = pool.select().move(host)  # a worker may have been quicker
            assert [await handle for handle in handles] == [2, 4, [3, 3]]
            assert len(host.runs) == moved
            pool._check()

    run(main)


def test_equal_calls_go_on_to_share_what_was_moved(run: Run) -> None:
    """A call that is equal to one that was moved to a host shares its run there; in the pool's queue or not."""

    async def main() -> None:
        host = Nearby(is_open=False)
        async with Pool(limit := Concurrency(1), order="deadline") as pool:
            first = pool.start(threadlet(forever))
            one = pool.start(double, 7, tags={"mine"})
            two = pool.start(double, 7)
            stays = pool.start(plain, 1)
            assert pool.select(tag="mine").move(host) == 1
            three = pool.start(double, 7, deadline=100)
            assert one.node is two.node is three.node is host
            for each in (pool, *pool._children):
                each._check()
            assert len(pool) == 5 and pool.statistics().queued == 4
            two.cancel("out")
            one.deadline = 50
            first.cancel()
            await until(lambda: host.runs)
            four = pool.start(double, 7)
            assert three.state == four.state == "missed" and limit.taken == 1
            host.open.set()
            assert [await one, await three, await four] == [14] * 3 and len(host.runs) == 1
            assert two.cancelled() and await stays == 1
            assert await pool.start(double, 7) == 14 and len(host.runs) == 1  # that one was here
            pool._check()
        assert pool.statistics().done == 5 and pool.statistics().cancelled == 2

    run(main)


def test_all_are_asked_for_before_any_moves(run: Run) -> None:
    """If one of them cannot be sent, whoever moves them is told, and all stay where they were."""

    async def main() -> None:
        host = Nearby()
        async with Pool(Concurrency(1)) as pool:
            first = pool.start(threadlet(forever))
            handles = [pool.start(double, 1), pool.start(double, object()), pool.start(double, [2])]
            with pytest.raises(TypeError, match="cannot be sent"):
                pool.select().move(host)
            assert [handle.node for handle in handles] == [None] * 3 and not pool._children
            with pytest.raises(TypeError, match="a Node or a Host"):
                pool.select().move(7)  # type: ignore[arg-type]
            handles[1].cancel()
            assert pool.select().move(host) == 2
            ranking = Nearby()
            ranking.slots = FairShare("tenant:")
            with pytest.raises(ValueError, match="outermost"):
                pool.select().move(ranking)
            first.cancel()
            await pool.drain()
            assert len(host.runs) == 2

    run(main)


def test_moved_on_and_back(run: Run) -> None:
    """From one host to another one, and back to this machine; the parts for that are made once, and end with it."""

    async def main() -> None:
        one, two = Nearby(), Nearby()
        pool = Pool(Concurrency(1))
        first = pool.start(threadlet(forever))
        handles = [pool.start(double, 1), pool.start(double, 1), pool.start(double, [2]), pool.start(double, [3])]
        for _ in range(2):
            assert pool.select(state="queued").move(one) == 4
            assert pool.select(state="queued").move(two) == 4
        assert {handle.node for handle in handles} == {two} and len(pool._children) == 2
        assert pool.select(where=lambda each: each in handles[2:3]).move(machine().nodes[0]) == 1
        assert handles[2].node is machine().nodes[0] and handles[2].pool is pool
        assert pool.select(where=lambda each: each in handles[:1]).move(machine().nodes[0]) == 1
        assert handles[1].node is machine().nodes[0]
        assert pool.select(where=lambda each: each in handles[3:]).move(other := Pool()) == 1
        assert await handles[3] == [3, 3] and handles[3].pool is other
        for each in (pool, *pool._children):
            each._check()
        assert len(pool) == 4
        first.cancel()
        await pool.drain()
        assert [await handle for handle in handles] == [2, 2, [2, 2], [3, 3]] and not (one.runs or two.runs)
        pool.close()
        await rounds()
        assert not pool._children

    run(main)


def test_a_pool_that_drains(run: Run) -> None:
    """What is in a closed pool may still be moved to a host; the part is gone when it has ended."""

    async def main() -> None:
        host = Nearby()
        pool = Pool(Concurrency(1))
        first = pool.start(threadlet(forever))
        handles = [pool.start(double, 1), pool.start(double, [2])]
        pool.close()
        assert pool.select(where=lambda each: each in handles[:1]).move(host) == 1
        assert pool.select(where=lambda each: each in handles[1:]).move(host) == 1
        assert all(part._closed for part in pool._children)
        first.cancel()
        await pool.drain()
        assert [await handle for handle in handles] == [2, [2, 2]] and len(host.runs) == 2
        await rounds()
        assert not pool._children and pool.statistics().done == 2

    run(main)


def test_moved_into_the_pool_of_a_host(run: Run) -> None:
    """Another pool, that is at a host, takes those that can be sent, as far as there is room; and keeps them."""

    async def main() -> None:
        host = Nearby(is_open=False)
        async with Pool(Concurrency(1)) as pool, Pool(node=host, capacity=3) as there:
            first = pool.start(threadlet(forever))
            handles = [pool.start(double, n) for n in (1, 1, 2, 2)]
            others = [pool.start(plain, 1), pool.start(double, [5])]
            assert pool.select().move(there) == 3  # two share a run; of those that would be the next there is no room
            assert len(there) == 3 and [handle.pool for handle in others] == [pool, there]
            with pytest.raises(PoolFull):
                there.start(double, 9)
            assert there.select().move(Nearby()) == there.select().move(machine().nodes[0]) == 0
            again = pool.start(double, 1)
            assert again.pool is pool and handles[0].pool is there
            for each in (pool, there):
                each._check()
            first.cancel()
            await until(lambda: len(host.runs) == 2)
            host.open.set()
            assert [await handle for handle in [*handles, again, *others]] == [2, 2, 4, 4, 2, 1, [5, 5]]
            assert numbers(host) == [1, [5]]

    run(main)


def test_who_waits_for_a_host_lends_its_place(run: Run) -> None:
    """A threadlet that awaits one at a host, under the same limit, cannot lock both out."""

    async def main() -> None:
        host = Nearby()
        async with Pool(Concurrency(1)) as pool:

            async def outer() -> int:
                inner: Threadlet[int] = pool.start(double, 4)
                assert pool.select(where=lambda each: each is inner).move(host) == 1
                return await inner

            assert await pool.start(outer) == 8 and numbers(host) == [4]

    run(main)


def test_a_host_of_another_loop(run: Run) -> None:
    """Its slots belong to one loop: on another one it is refused, and nothing is left of the attempt."""

    async def main() -> None:
        host = Nearby()
        other = asyncio.new_event_loop()
        host.slots.owner = other  # as if it had been used there
        async with Pool(Concurrency(1), name="here") as pool:
            first, handle = pool.start(threadlet(forever)), pool.start(double, 1)
            with pytest.raises(WrongLoop):
                pool.select().move(host)
            assert handle.pool is pool and not pool._children
            other.close()
            assert pool.select().move(host) == 1  # its loop is gone
            first.cancel()
            assert await handle == 2 and len(host.runs) == 1

    run(main)


def test_those_that_have_started_stay(run: Run) -> None:
    """What runs, here or at a host, is moved nowhere."""

    async def main() -> None:
        host = Nearby(is_open=False)
        async with Pool(node=host) as pool:
            handles = [pool.start(double, 1), pool.start(double, [2])]
            await until(lambda: len(host.runs) == 2)
            assert {handle.state for handle in handles} == {State.MISSED}
            for target in (host, Nearby(), Pool(), Pool(node=Nearby()), machine().nodes[0]):
                assert pool.select().move(target) == 0
            host.open.set()

    run(main)


def test_moved_with_all_that_share_the_run(run: Run) -> None:
    """To a pool of a host's, or to one of this process, and each is counted; but no more than have room, by tag too."""

    async def main() -> None:
        host, limit = Nearby(slots=8), Concurrency(1)
        async with Pool(limit) as pool, Pool(node=host, tag_capacity={"t:": 4}) as there, Pool() as here:
            pool.start(threadlet(forever))
            handles = [pool.start(double, 1, tags={"t:1"}) for _ in range(5)]
            assert pool.select(entrypoint=double).move(there) == 0 and len(there) == 0
            handles.pop().cancel()
            assert pool.select(entrypoint=double).move(there) == 4 and len(there) == 4
            assert there.select().move(here) == 4 and len(here) == 4
            assert await asyncio.gather(*handles) == [2] * 4
            pool.cancel()

    run(main)


def test_parts_for_hosts_that_are_not_used_any_more_are_given_up(run: Run) -> None:
    """Hosts come and go: a pool keeps no more parts than have something in them, and one."""

    async def main() -> None:
        limit = Concurrency(1)
        async with Pool(limit) as pool:
            for number in range(20):
                first, moved = pool.start(threadlet(forever)), pool.start(double, number)
                assert pool.select(entrypoint=double).move(Nearby(slots=8)) == 1
                first.cancel()
                assert await moved == 2 * number
            await rounds()
            assert len(pool._parts) == 1 and len(pool._children) == 1
        assert pool.statistics().done == 20

    run(main)
