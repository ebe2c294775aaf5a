"""Lending where it is hard: several throttles, several waiters, others in between, and changes during the wait."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from tests.conftest import Run
from tests.test_lending import ALL_WAYS, TAG, Meter, join_start, settled, soon
from tests.waitings import all_of
from tests.workbench import Gate, forever, rounds, until
from threadlets import Concurrency, Contract, PerTag, Pool, Threadlet, threadlet


def test_each_throttle_is_lent_by_itself(run: Run) -> None:
    """Who holds places of two throttles lends one of them to one that it awaits, and the other to whom that awaits."""

    async def main() -> None:
        one, other = Concurrency(1), Concurrency(1)
        both, first, second = Pool(one, other), Pool(one), Pool(other)

        async def end() -> int:
            return 1

        async def middle() -> int:
            return 1 + await second.start(end)

        async def begin() -> int:
            return 1 + await first.start(middle)

        assert await soon(both.start(begin)) == 3
        await settled(both, first, second)

    run(main)


def test_what_another_throttle_holds_back_starts_when_that_agrees(run: Run) -> None:
    """A lent place is no use while another throttle says no; it is used as soon as that one has changed its mind."""

    async def main() -> None:
        one, other = Concurrency(1), Concurrency(1)
        first, both, second = Pool(one), Pool(one, other), Pool(other)

        async def work() -> int:
            return 7

        blocker = second.start(forever)
        waiter = first.start(join_start, both, work)
        await rounds()
        assert (len(both), one.taken, other.taken) == (1, 1, 1)
        both._check()
        blocker.cancel()
        assert await soon(waiter) == 7
        await settled(first, both, second)

    run(main)


def test_lending_through_one_that_holds_nothing(run: Run) -> None:
    """A threadlet of a free pool in between passes places on, for one after the other of those that it awaits."""

    async def main() -> None:
        pool, free, meter = Pool(Concurrency(1)), Pool(), Meter()

        async def work(_: int) -> None:
            with meter:
                await rounds(3)

        async def middle(way: str) -> None:
            await all_of(way, pool, work, range(5))

        async def outer(way: str) -> None:
            await free.start(middle, way)

        for way in ALL_WAYS:
            await soon(pool.start(outer, way), way)
        assert meter.most == 1
        await settled(pool, free)

    run(main)


def test_one_that_is_started_while_its_pool_is_drained(run: Run) -> None:
    """A drain lends to those that come while it waits, too: new ones, and those that are moved in."""

    async def main(way: str) -> None:
        throttle = Concurrency(1)
        pool, part, blocked = Pool(throttle), Pool(throttle), Pool(Concurrency(1))
        blocker = blocked.start(forever)
        late = blocked.start(rounds)

        async def work() -> None:
            await rounds()
            if way == "start":
                part.start(rounds)
            else:
                assert blocked.select(where=lambda handle: handle is late).move(part) == 1

        async def drain() -> None:
            part.start(work)
            await part.drain()

        await soon(pool.start(drain))
        blocker.cancel()
        await settled(pool, part, blocked)

    async def both() -> None:
        await main("start")
        await main("move")

    run(both)


def test_whoever_awaits_it_last_does_not_take_the_others_away(run: Run) -> None:
    """One that several await can use the place of any of them, whoever came last."""

    async def main() -> None:
        pool, other = Pool(Concurrency(1)), Pool(Concurrency(1))
        go = asyncio.Event()
        awaited: list[Threadlet[int]] = []

        async def busy() -> None:
            await go.wait()

        async def work() -> int:
            return 3

        async def first() -> int:
            blocker = pool.start(busy)
            awaited.append(pool.start(work, priority=1))
            await asyncio.gather(blocker, *awaited)
            return awaited[0].result()

        async def second() -> int:
            return await awaited[0]

        one = pool.start(first)
        await rounds()
        two = other.start(second)
        await rounds()
        go.set()
        assert [await soon(one), await soon(two)] == [3, 3]
        await settled(pool, other)

    run(main)


def test_a_place_is_lent_for_what_it_is_a_place_of(run: Run) -> None:
    """Who holds a place of one tag lends nothing of another one, which somebody at work holds."""

    async def main() -> None:
        pool = Pool(PerTag("host:", Concurrency(1)))
        meters = {"host:a": Meter(), "host:b": Meter()}

        async def work(*tags: str) -> None:
            with meters[tags[0]], meters[tags[-1]] if len(tags) > 1 else threading.Lock():
                await rounds(20)

        async def wait() -> None:
            await pool.start(work, "host:a", "host:b", tags={"host:a", "host:b"})

        holder = pool.start(work, "host:b", tags={"host:b"})
        await soon(pool.start(wait, tags={"host:a"}))
        await soon(holder)
        assert meters["host:b"].most == 1
        await settled(pool)

    run(main)


def test_tags_that_change_during_the_wait(run: Run) -> None:
    """A waiter that gets a tag, and with it a place that is needed, lends this one."""

    async def main() -> None:
        pool = Pool(PerTag("host:", Concurrency(1)))

        async def work() -> int:
            return 7

        async def wait() -> int:
            return await pool.start(work, tags=TAG)

        blocker = pool.start(forever, tags=TAG)
        waiter = pool.start(wait)
        await rounds()
        waiter.tags = TAG
        blocker.cancel()
        assert await soon(waiter) == 7
        await settled(pool)

    run(main)


def test_one_that_was_vouched_for_moves_away(run: Run) -> None:
    """A threadlet that waits for a worker on a lent place gives that back when it is moved to another pool."""
    gate = Gate()

    async def main() -> None:
        one = threadlet(contract=Contract(affinity="one"))(gate)
        pool, other, free = Pool(Concurrency(1)), Pool(Concurrency(1)), Pool()
        handles: list[Threadlet[int]] = []
        busy = free.start(one, 0)
        gate.wait_arrived()

        async def work() -> int:
            return 3

        async def wait() -> list[int]:
            handles.extend([pool.start(one, 1), pool.start(work)])
            return list(await asyncio.gather(*handles))

        async def block() -> int:
            return await handles[1]

        waiter = pool.start(wait)
        await until(lambda: len(handles) == 2)
        await rounds()
        blocker = other.start(block)
        await rounds()
        assert pool.select(where=lambda handle: handle is handles[0]).move(other) == 1
        pool._check()
        other._check()
        gate.open()
        assert await soon(waiter) == [1, 3]
        await asyncio.gather(busy, blocker)
        await settled(pool, other, free)

    run(main)


def test_who_awaits_nothing_lends_nothing(run: Run) -> None:
    """What a threadlet has started and does not await has to wait for it, also behind one of a free pool."""

    async def main() -> None:
        pool, free = Pool(Concurrency(1)), Pool()
        order: list[str] = []

        async def work() -> None:
            order.append("work")

        async def middle() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(join_start(pool, work))

        async def at_work() -> None:
            pool.start(work)
            free.start(middle)
            await rounds(30)
            order.append("at work")

        pool.start(at_work)
        await pool.drain()
        await free.drain()
        assert order == ["at work", "work", "work"]
        await settled(pool, free)

    run(main)


class Refusing(Concurrency):
    """Fails where it is to take more than there is."""

    __slots__ = ()

    def take(self, key: Any, now: int) -> None:
        if self.taken == 1:
            raise ZeroDivisionError("one is enough")
        super().take(key, now)


def test_a_throttle_that_raises_when_it_is_lent(run: Run) -> None:
    """It is asked again a second later, not in every round of the loop; nothing is lost, and it can be cancelled."""

    async def main() -> None:
        pool = Pool(Refusing(1))
        waiter = pool.start(join_start, pool, rounds)
        await rounds(100)
        assert 1 <= len(run.told()) <= 2
        pool._check()
        waiter.cancel()
        await settled(pool)

    run(main)
