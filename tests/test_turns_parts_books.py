"""The books of pools that are parts of others: who is in which, and what has become of them."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Run
from tests.test_turns import stop
from tests.test_turns_parts import check, counts
from tests.workbench import ABANDON, IN_PLACE, PLACES, Gate, entrypoint, forever, rounds, until
from threadlets import Concurrency, Contract, Pool, threadlet
from threadlets.errors import PoolFull


def test_books_of_the_whole_have_the_parts(run: Run) -> None:
    """Counting, iteration, membership, selections and bulk operations of the whole see the parts; not the reverse."""

    async def main() -> None:
        root = Pool(Concurrency(3), name="root")
        one, two = Pool(parent=root), Pool(parent=root)
        leaf = Pool(parent=one)
        handles = {
            name: [pool.start(forever, tags={name, "all"}) for _ in range(3)]
            for name, pool in {"root": root, "one": one, "two": two, "leaf": leaf}.items()
        }
        assert [len(pool) for pool in (root, one, two, leaf)] == [12, 6, 3, 3]
        assert set(root) == set(root.select()) == {handle for mine in handles.values() for handle in mine}
        assert set(one) == {*handles["one"], *handles["leaf"]} == set(one.select(tag="all"))
        for handle in handles["leaf"]:
            assert handle.pool is leaf
            assert handle in root and handle in one and handle in leaf and handle not in two
            assert handle in root.select(tag="leaf") and handle not in two.select()
        assert len(root.select(state="queued")) == 9 and len(one.select(state="queued")) == 6
        assert len(two.select(state="missed")) == 0 and len(root.select(state="missed")) == 3
        assert one.select(tag="all").reprioritize(-1) == 6
        assert {handle.priority for handle in handles["leaf"]} == {-1}
        assert {handle.priority for handle in handles["two"]} == {0}
        check(root, one, two, leaf)
        assert one.cancel("enough") == 6
        assert all(handle.cancelled() for handle in [*handles["one"], *handles["leaf"]])
        assert counts(root, one, two, leaf) == [(6, 3, 3), (0, 0, 0), (3, 3, 0), (0, 0, 0)]
        assert root.cancel() == 6
        await stop(leaf, one, two, root)

    run(main)


def test_figures_of_parts_are_kept_by_the_whole(run: Run) -> None:
    """The whole's statistics have those of its parts, and keep them when a part is closed, at every level."""
    fails = threadlet(contract=IN_PLACE)(lambda: 1 // 0)

    async def main() -> None:
        root = Pool(Concurrency(2))
        kept = []
        for _ in range(3):
            middle = Pool(parent=root)
            leaf = Pool(parent=middle, capacity=3)
            for pool in (leaf, middle):
                await pool.start(asyncio.sleep, 0, tags={"t"})
                with pytest.raises(ZeroDivisionError):
                    await pool.start(fails)
                pool.start(forever).cancel()
                queued = [pool.start(forever, tags={"t"}) for _ in range(2)]
                for handle in queued:
                    handle.cancel()
                await pool.drain()
            for _ in range(3):
                leaf.start(forever)
            with pytest.raises(PoolFull):
                leaf.start(forever)
            before = root.statistics()
            kept.append((middle, leaf))
            await middle.aclose()
            after = root.statistics()
            assert (before.done, before.failed, before.rejected) == (after.done, after.failed, after.rejected)
            assert after.cancelled == before.cancelled + 3
        await rounds()
        statistics = root.statistics()
        assert (statistics.done, statistics.failed, statistics.rejected, statistics.cancelled) == (6, 6, 3, 27)
        assert statistics.tags["t"].done == 6 and statistics.tags["t"].cancelled == 12
        assert statistics.entrypoints["sleep"].done == 6
        assert not root._children, "closed parts are forgotten"
        check(root, *[pool for pair in kept for pool in pair])

    run(main)


@pytest.mark.parametrize("place", PLACES)
def test_a_part_that_is_closed_from_within(run: Run, place: str) -> None:
    """What ends after its part was closed counts for the whole all the same."""

    async def main() -> None:
        root = Pool()
        part = Pool(parent=root)
        await part.start(entrypoint(place, lambda: None))
        await part.start(threadlet(contract=IN_PLACE)(part.close))
        assert root.statistics().done == 2
        check(root, part)

    run(main)


def test_what_a_closed_part_has_abandoned_is_counted(run: Run) -> None:
    """An abandoned function that still runs is shown by the whole, also if its part is closed."""
    gate = Gate()

    async def main() -> None:
        limit = Concurrency(1)
        root = Pool(limit)
        part = Pool(parent=root)
        handle = part.start(threadlet(contract=ABANDON)(gate))
        gate.wait_arrived()
        await until(lambda: handle.state == "running")
        handle.cancel()
        await part.aclose()
        assert (root.statistics().abandoned, root.statistics().cancelled, limit.taken) == (1, 1, 1)
        gate.open()
        await until(lambda: not limit.taken)
        assert root.statistics().abandoned == 0
        check(root, part)

    run(main)


def test_shared_runs_in_a_part_are_counted_once(run: Run) -> None:
    """Equal pure calls that wait in a part are queued threadlets of it and of the whole; their run is none."""
    pure = threadlet(contract=Contract(blocks="always", pure=True))(abs)

    async def main() -> None:
        root = Pool(Concurrency(1))
        part = Pool(parent=root)
        blocker = root.start(forever)
        handles = [pool.start(pure, -3) for pool in (part, part, part, root, root)]
        assert counts(root, part) == [(6, 5, 1), (3, 3, 0)]
        assert handles[0].cancel() and handles[3].cancel()
        assert counts(root, part) == [(4, 3, 1), (2, 2, 0)]
        blocker.cancel()
        assert list(await asyncio.gather(handles[1], handles[2], handles[4])) == [3, 3, 3]
        await stop(part, root)

    run(main)
