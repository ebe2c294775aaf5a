"""Lending when somebody stops waiting for the one that it has vouched for, or when that one gives the place up."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Run
from tests.test_lending import TAG, Meter, settled, soon
from tests.workbench import rounds
from threadlets import Concurrency, PerTag, Pool, Threadlet


@pytest.mark.parametrize("first", ["the holder", "the one that it left"])
def test_two_that_have_parted_do_not_hold_each_other_up(run: Run, first: str) -> None:
    """Places of the whole: 2, of the part: 1.

    The holder has a place in the part. It starts another one in the whole, lends it its place there, and leaves it.
    Then each of them waits for one in the part: the other one has the place in the part, the holder has lent the one in
    the whole. Whoever waits first (the parameter), both end.
    """

    async def main() -> None:
        whole = Pool(Concurrency(2))
        part = Pool(Concurrency(1), parent=whole)
        begun, leave, holder_waits, other_waits = (asyncio.Event() for _ in range(4))

        async def work() -> int:
            return 1

        async def other() -> int:
            begun.set()
            await other_waits.wait()
            return await part.start(work)

        async def holder() -> int:
            handle = whole.start(other)
            waiter = asyncio.ensure_future(handle)
            await asyncio.wait([waiter, asyncio.create_task(begun.wait())], return_when=asyncio.FIRST_COMPLETED)
            left.append(handle)
            await holder_waits.wait()
            return await part.start(work)

        left: list[Threadlet[int]] = []
        blocker = whole.start(leave.wait)
        one = part.start(holder)
        await begun.wait()
        await rounds()
        leave.set()
        await blocker
        for event in (holder_waits, other_waits) if first == "the holder" else (other_waits, holder_waits):
            event.set()
            await rounds()
            whole._check()
        assert await soon(one, "the holder") == 1
        assert await soon(left[0], "the one that it left") == 1
        await settled(part, whole)

    run(main)


def test_one_that_has_been_left_and_works_keeps_the_place(run: Run) -> None:
    """Who stops waiting for what it vouches for cannot have one after the other start by trying again."""

    async def main() -> None:
        pool, meter = Pool(Concurrency(1)), Meter()
        end = asyncio.Event()

        async def work() -> None:
            with meter:
                await end.wait()

        async def impatient() -> None:
            handles = [pool.start(work) for _ in range(5)]
            for _ in range(5):
                for handle in handles:
                    await asyncio.wait([asyncio.ensure_future(handle)], timeout=0)
                await rounds()
            end.set()
            await asyncio.gather(*handles)

        await soon(pool.start(impatient))
        assert meter.most == 1
        await settled(pool)

    run(main)


def test_one_that_loses_its_tag_gives_the_lent_place_back(run: Run) -> None:
    """A borrower whose tags change, so that it needs no place any more, leaves it to the next one."""

    async def main() -> None:
        pool = Pool(PerTag("host:", Concurrency(1)))
        go = asyncio.Event()

        async def work() -> int:
            return 5

        async def borrower() -> int:
            await go.wait()
            return await pool.start(work, tags=TAG)

        async def waiter() -> int:
            handles.append(pool.start(borrower, tags=TAG))
            return await handles[0]

        handles: list[Threadlet[int]] = []
        handle = pool.start(waiter, tags=TAG)
        await rounds()
        handles[0].tags = {"other"}
        pool._check()
        go.set()
        assert await soon(handle) == 5
        await settled(pool)

    run(main)
