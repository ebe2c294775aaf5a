"""Pools that are parts of others: one queue, and the rules of all that one is in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Run
from tests.test_turns import Notes, stop
from tests.workbench import ON_WORKER, PLACES, entrypoint, forever, rounds
from threadlets import Concurrency, FairShare, PerTag, Pool, Rate, threadlet
from threadlets.errors import PoolClosed, PoolFull, Shed


def check(*pools: Pool) -> None:
    for pool in pools:
        pool._check()


def counts(*pools: Pool) -> list[tuple[int, int, int]]:
    """Return how many each holds, has queued, and has admitted."""
    check(*pools)
    every = [(len(pool), pool.statistics().queued, pool.statistics().admitted) for pool in pools]
    assert all(total == queued + admitted and queued >= 0 for total, queued, admitted in every)
    return every


def test_three_levels_are_throttled_together(run: Run) -> None:
    """What is in a part takes a place of each pool that it is in, and starts when all of them have one."""

    async def main() -> None:
        notes, limits = Notes(), [Concurrency(4), Concurrency(3), Concurrency(2)]
        root = Pool(limits[0])
        middle = Pool(limits[1], parent=root)
        leaf = Pool(limits[2], parent=middle)
        for number in range(5):
            for name, pool in {"leaf": leaf, "middle": middle, "root": root}.items():
                pool.start(notes.hold, (name, number))
        await rounds()
        assert [limit.taken for limit in limits] == [4, 3, 2]
        assert counts(root, middle, leaf) == [(15, 11, 4), (10, 7, 3), (5, 3, 2)]
        assert notes.started == [("leaf", 0), ("middle", 0), ("root", 0), ("leaf", 1)]
        limits[2].limit = 5
        await rounds()
        assert len(notes.started) == 4
        limits[0].limit = 6
        await rounds()
        assert notes.started[4:] == [("root", 1), ("root", 2)]
        limits[1].limit = 100
        limits[0].limit = 100
        await rounds()
        assert len(notes.started) == 15
        await stop(leaf, middle, root)
        assert [limit.taken for limit in limits] == [0, 0, 0]

    run(main)


def test_a_full_part_does_not_hold_back_the_others(run: Run) -> None:
    """Those of other parts, and of the whole, start past a part whose throttle says no; however urgent its are."""

    async def main() -> None:
        notes, root = Notes(), Pool()
        full, rated, other = Pool(Concurrency(1), parent=root), Pool(Rate(1, 1000.0), parent=root), Pool(parent=root)
        for number in range(20):
            full.start(notes.hold, "full", priority=-number)
            rated.start(notes.hold, "rated", priority=-number)
        check(root, full, rated, other)
        other.start(notes.hold, "other", priority=5)
        root.start(notes.hold, "root", priority=5)
        await rounds()
        assert notes.started == ["full", "rated", "other", "root"]
        assert counts(root, full, rated, other) == [(42, 38, 4), (20, 19, 1), (20, 19, 1), (1, 0, 1)]
        await stop(full, rated, other, root)

    run(main)


@pytest.mark.parametrize("place", [*PLACES, "coroutine"])
def test_one_order_for_all_parts(run: Run, place: str) -> None:
    """The most urgent goes first, whichever part it is in; equal ones by arrival."""

    async def main() -> None:
        notes, limit = Notes(), Concurrency(1)
        root = Pool(limit)
        parts = [Pool(parent=root), Pool(Concurrency(5), parent=root), root]
        parts.append(Pool(parent=parts[0]))
        blocker = root.start(forever)
        function: Any = notes.note if place == "coroutine" else entrypoint(place, notes.started.append)
        handles = [parts[number % 4].start(function, number, priority=number % 3) for number in range(24)]
        handles[23].priority = -1
        check(*parts)
        blocker.cancel()
        await root.drain()
        expected = sorted(range(23), key=lambda number: number % 3)
        assert notes.started == [23, *expected]
        await stop(*parts)

    run(main)


def test_nothing_overtakes_in_any_part(run: Run) -> None:
    """While somebody is queued in one part, a start in another one goes by the queue, and all books are in order."""

    async def main() -> None:
        notes, limit = Notes(), Concurrency(1)
        root = Pool()
        one, two = Pool(limit, parent=root), Pool(parent=root)
        leaf = Pool(parent=two)
        for pool in (root, one, two, leaf):
            pool.start(notes.note, 0)
            check(root, one, two, leaf)
        for _ in range(3):
            one.start(forever)
            check(root, one, two, leaf)
        for pool in (root, two, leaf):
            pool.start(notes.note, 1)
            check(root, one, two, leaf)
        await rounds()
        assert notes.started == [0] * 4 + [1] * 3
        await stop(leaf, two, one, root)
        for pool in (root, one, two, leaf):
            assert pool.start(notes.note, 2).done(), "with nobody in the queue, a start is at once again"
            check(root, one, two, leaf)

    run(main)


def test_capacities_count_what_is_in_the_parts(run: Run) -> None:
    """A part is full when it, or a pool that it is in, is; the error names the one; room() waits for the right one."""

    async def main() -> None:
        root = Pool(Concurrency(1), capacity=4, tag_capacity={"t:": 2}, name="root")
        one, two = Pool(parent=root, capacity=3, name="one"), Pool(parent=root, name="two")
        for _ in range(3):
            one.start(forever, tags={"t:a"} if len(one) < 2 else ())
        with pytest.raises(PoolFull, match=r"'one'.*capacity=3"):
            one.start(forever)
        with pytest.raises(PoolFull, match=r"'root'.*tag_capacity\['t:'\]=2 for 't:a'"):
            two.start(forever, tags={"t:a"})
        last = two.start(forever)
        for pool in (two, root):
            with pytest.raises(PoolFull, match=r"'root'.*capacity=4"):
                pool.start(forever)
        assert one.is_full() and two.is_full() and root.is_full()
        waiting = [asyncio.ensure_future(pool.room()) for pool in (one, two, root)]
        await rounds()
        last.cancel()
        await rounds()
        assert [task.done() for task in waiting] == [False, True, True]
        next(iter(one)).cancel()
        await rounds()
        assert waiting[0].done()
        check(root, one, two)
        assert (root.statistics().rejected, one.statistics().rejected) == (4, 1)
        await stop(one, two, root)

    run(main)


def test_shedding_takes_the_least_urgent_of_the_pool_that_is_full(run: Run) -> None:
    """A full whole drops the least urgent of all its parts; a full part one of its own."""

    async def main() -> None:
        root = Pool(Concurrency(1), capacity=5, overflow="shed")
        one, two = Pool(parent=root, capacity=2, overflow="shed"), Pool(parent=root)
        root.start(forever)
        mine = [one.start(forever, priority=priority) for priority in (1, 2)]
        theirs = [two.start(forever, priority=priority) for priority in (8, 9)]
        newcomer = one.start(forever, priority=0)
        assert [handle.done() for handle in (*mine, *theirs, newcomer)] == [False, True, False, False, False]
        urgent = root.start(forever, priority=0)
        assert [handle.done() for handle in (mine[0], *theirs, urgent)] == [False, False, True, False]
        for handle in (mine[1], theirs[1]):
            with pytest.raises(Shed):
                await handle
        assert counts(root, one, two) == [(5, 4, 1), (2, 2, 0), (1, 1, 0)]
        assert root.statistics().shed == 2
        await stop(one, two, root)

    run(main)


def test_closing_the_whole_closes_the_parts(run: Run) -> None:
    """close() lets what is there go on, everywhere; aclose() cancels it; a closed pool takes no new parts."""

    async def main() -> None:
        root = Pool(Concurrency(2))
        one = Pool(parent=root)
        leaf = Pool(parent=one)
        gate = asyncio.Event()
        handles = [pool.start(gate.wait) for pool in (root, one, leaf, leaf)]
        one.close()
        for pool in (one, leaf):
            with pytest.raises(PoolClosed):
                pool.start(forever)
        with pytest.raises(PoolClosed):
            Pool(parent=leaf)
        more = root.start(gate.wait)
        check(root, one, leaf)
        gate.set()
        assert await asyncio.gather(*handles, more) == [True] * 5
        check(root, one, leaf)
        assert root.statistics().done == 5
        two = Pool(parent=root)
        stuck = [two.start(forever) for _ in range(4)]
        await root.aclose()
        assert all(handle.cancelled() for handle in stuck)
        assert counts(root, two) == [(0, 0, 0), (0, 0, 0)]
        assert (root.statistics().done, root.statistics().cancelled) == (5, 4)

    run(main)


def test_draining_a_part_and_the_whole(run: Run) -> None:
    """drain() of a part waits for that part and its own parts; that of the whole for all."""

    async def main() -> None:
        root = Pool()
        one, two = Pool(parent=root), Pool(parent=root)
        leaf = Pool(parent=one)
        gates = {name: asyncio.Event() for name in ("root", "one", "two", "leaf")}
        for name, pool in {"root": root, "one": one, "two": two, "leaf": leaf}.items():
            pool.start(gates[name].wait)
        drains = {name: asyncio.ensure_future(pool.drain()) for name, pool in {"one": one, "root": root}.items()}
        for name, expected in {"one": [], "two": [], "leaf": ["one"], "root": ["one", "root"]}.items():
            gates[name].set()
            await rounds()
            assert [name for name, drain in drains.items() if drain.done()] == expected
        await stop(leaf, two, one, root)

    run(main)


def test_moving_between_parts(run: Run) -> None:
    """What is queued may go to another part; also if the whole is full, for it gets no fuller."""

    async def main() -> None:
        notes, root = Notes(), Pool(Concurrency(1), capacity=5)
        narrow, wide = Pool(Concurrency(1), parent=root), Pool(parent=root)
        blocker = root.start(forever)
        for number in range(4):
            narrow.start(notes.note, number)
        assert narrow.select().move(wide) == 4
        assert counts(root, narrow, wide) == [(5, 4, 1), (0, 0, 0), (4, 4, 0)]
        assert wide.select().move(root) == 4
        assert counts(root, wide) == [(5, 4, 1), (0, 0, 0)]
        blocker.cancel()
        await root.drain()
        assert notes.started == [0, 1, 2, 3]
        await stop(narrow, wide, root)

    run(main)


def test_fair_shares_across_parts(run: Run) -> None:
    """A whole that gives fair turns does so for all its parts, by tag and not by part."""

    async def main() -> None:
        notes, root = Notes(), Pool(Concurrency(1), FairShare("tenant:"))
        parts = [Pool(parent=root), Pool(PerTag("tenant:", Concurrency(5)), parent=root)]
        blocker = root.start(forever)
        for number in range(200):
            parts[number % 2].start(notes.note, "crowd", tags={"tenant:crowd"})
        for number in range(6):
            parts[number % 2].start(notes.note, "one", tags={"tenant:one"})
        check(root, *parts)
        blocker.cancel()
        await root.drain()
        assert notes.started[:12].count("one") in (5, 6)
        await stop(*parts, root)

    run(main)


def test_only_the_outermost_decides_on_the_order(run: Run) -> None:
    """Order, aging and throttles that rank belong to the whole: a part that asks for them is refused."""

    async def main() -> None:
        root = Pool()
        options: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((), {"order": "deadline"}),
            ((), {"aging": 1.0}),
            ((FairShare(""),), {}),
        ]
        for throttles, more in options:
            with pytest.raises(ValueError, match="belong to the outermost pool"):
                Pool(*throttles, parent=root, **more)
        assert not root._children

    run(main)


def test_awaiting_across_parts_under_one_limit(run: Run) -> None:
    """Threadlets that await others in parts of their pool lend them their places: nesting is no deadlock."""

    async def main() -> None:
        limit = Concurrency(1)
        root = Pool(limit)
        one = Pool(parent=root)
        leaf = Pool(Concurrency(1), parent=one)
        order = [root, one, leaf, one, leaf, root]

        async def nest(depth: int) -> int:
            check(root, one, leaf)
            assert limit.taken <= depth + 1
            return 0 if depth == 5 else 1 + await order[depth].start(nest, depth + 1)

        assert await root.start(nest, 0) == 5
        handles = [order[number].start(nest, 0) for number in range(6)]
        assert await asyncio.gather(*handles) == [5] * 6
        await stop(leaf, one, root)
        assert limit.taken == 0

    run(main)


def test_scopes_within_scopes(run: Run) -> None:
    """A part's scope waits for the part and has its failures; the whole's scope has the others."""
    fails = threadlet(contract=ON_WORKER)(lambda: 1 // 0)

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as outer:
            async with Pool(Concurrency(2), name="outer") as root:
                with pytest.raises(ExceptionGroup) as inner:
                    async with Pool(parent=root, name="inner") as part:
                        part.start(fails)
                        Pool(parent=part).start(fails)
                        root.start(fails)
                assert len(inner.value.exceptions) == 2
                assert len(part) == 0
                check(root, part)
                Pool(parent=root).start(fails)
        assert len(outer.value.exceptions) == 2

    run(main)
