"""What changes while threadlets wait: limits, tags, pools; and capacities by tag."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Run
from tests.test_turns import Notes, stop
from tests.workbench import ON_WORKER, Gate, forever, rounds, until
from threadlets import Concurrency, PerTag, Pool, Rate, threadlet
from threadlets.errors import PoolFull, Shed
from threadlets.workers import WorkerGroup


def test_limits_of_tags_changed_in_every_direction(run: Run) -> None:
    """Up: as many more start at once; down: nobody is stopped, nobody starts; for one tag, others stay as they are."""

    async def main() -> None:
        notes, per_host, total = Notes(), PerTag("host:", Concurrency(1)), Concurrency(4)
        pool = Pool(total, per_host)
        handles = {(host, number): None for host in "ab" for number in range(5)}
        running = {key: pool.start(notes.hold, key, tags={f"host:{key[0]}"}) for key in handles}

        async def expect(a: int, b: int) -> None:
            await rounds()
            pool._check()
            assert (per_host["host:a"].taken, per_host["host:b"].taken, total.taken) == (a, b, a + b)

        await expect(1, 1)
        per_host["host:a"].limit = 3
        await expect(3, 1)
        per_host["host:b"].limit = 5
        await expect(3, 1)  # the total is reached
        total.limit = 6
        await expect(3, 3)
        total.limit = 1
        per_host["host:a"].limit = 1
        await expect(3, 3)
        for key in [("a", 0), ("a", 1), ("b", 0), ("b", 1)]:
            running[key].cancel()
        await expect(1, 1)
        total.limit = 100
        await expect(1, 3)
        per_host["host:a"].limit = 100
        await expect(3, 3)
        assert [number for host, number in notes.started if host == "a"] == list(range(5))
        await stop(pool)

    run(main)


def test_a_rate_that_is_changed_counts_at_once(run: Run) -> None:
    """Who waits for a start in a thousand seconds starts now if the rate, its time or its burst is changed so."""

    async def main() -> None:
        notes = Notes()
        for change in ({"limit": 10**6}, {"per": 1e-6}):
            rate = Rate(1, per=1000.0)
            pool = Pool(rate)
            for number in range(3):
                pool.start(notes.note, number)
            await rounds()
            assert len(pool) == 2
            pool._check()
            for name, value in change.items():
                setattr(rate, name, value)
            await pool.drain()
            await stop(pool)
        assert notes.started == [0, 1, 2] * 2

    run(main)


def test_several_pools_share_a_throttle_by_tag(run: Run) -> None:
    """A tag is limited in all pools together; a place given back in one of them starts the next in another."""

    async def main() -> None:
        notes, per_host = Notes(), PerTag("host:", Concurrency(2))
        pools = [Pool(per_host, name=str(number)) for number in range(3)]
        handles = {
            (number, host, place): pools[place].start(notes.hold, (number, host, place), tags={f"host:{host}"})
            for number in range(4)
            for host in "ab"
            for place in range(3)
        }
        for left in range(24, 0, -1):
            await rounds()
            for pool in pools:
                pool._check()
            now = [handle for handle in handles.values() if handle.state == "missed"]
            assert len(now) == per_host["host:a"].taken + per_host["host:b"].taken
            assert per_host["host:a"].taken <= 2 and per_host["host:b"].taken <= 2
            assert len(now) == min(left, 4)
            busiest = max(
                "ab", key=lambda host: sum(not handle.done() for (_, h, _), handle in handles.items() if h == host)
            )
            next(handle for handle in now if f"host:{busiest}" in handle.tags).cancel()
        await rounds()
        assert sorted(notes.started) == sorted(handles)
        for place in range(3):
            for host in "ab":
                mine = [number for number, h, p in notes.started if (h, p) == (host, place)]
                assert mine == sorted(mine)
        await stop(*pools)

    run(main)


@pytest.mark.parametrize("where", ["queued", "running", "worker"])
def test_tags_changed_wherever_they_are(run: Run, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """New tags count at once: for selections, for who may start, and for what is held and given back."""
    gate = Gate()
    on_worker = threadlet(contract=ON_WORKER)(lambda number: gate())
    monkeypatch.setattr(on_worker, "workers", WorkerGroup("one", limit=1, idle_seconds=0))

    async def main() -> None:
        per_host = PerTag("host:", Concurrency(1))
        pool = Pool(per_host)
        function: Any = on_worker if where == "worker" else forever
        args = [1] * (where == "worker")
        first = pool.start(function, *args)
        if where == "worker":
            gate.wait_arrived()
        blocker = pool.start(forever, tags={"host:a"})
        handle = pool.start(function, *args, tags={"host:a" if where == "queued" else "host:b"})
        later = pool.start(forever, tags={"host:b"})
        await rounds()
        a, b = per_host["host:a"], per_host["host:b"]
        if where == "queued":
            assert (handle.state, later.state) == ("queued", "missed")
            handle.tags = {"host:c", "other"}
            await rounds()
            assert handle.state == "missed" and per_host["host:c"].taken == 1
        else:
            assert later.state == "queued" and (a.taken, b.taken) == (1, 1)
            handle.tags = {"host:a", "other"}  # more than there are places: it runs already
            assert (a.taken, b.taken) == (2, 0)
            await rounds()
            assert later.state == "missed"
            assert handle.state == ("queued" if where == "worker" else "missed")
        pool._check()
        assert list(pool.select(tag="other")) == [handle]
        blocker.cancel()
        handle.cancel()
        gate.open()
        await asyncio.gather(blocker, handle, return_exceptions=True)
        await rounds()
        assert a.taken == 0
        pool._check()
        first.cancel()
        await stop(pool)
        assert a.taken == b.taken == per_host["host:c"].taken == 0

    run(main)


def test_tags_taken_away_and_given_while_queued(run: Run) -> None:
    """One that is held back by a tag starts when it loses it; one that gets a busy tag waits; age is kept."""

    async def main() -> None:
        notes, per_host, limit = Notes(), PerTag("host:", Concurrency(1)), Concurrency(2)
        pool = Pool(limit, per_host)
        pool.start(forever, tags={"host:a"})
        blocker = pool.start(forever)
        handles = [pool.start(notes.hold, number, tags={"host:a"} if number % 2 else ()) for number in range(6)]
        handles[0].tags, handles[3].tags = {"host:a"}, ()
        handles[4].tags, handles[5].tags = {"host:b"}, {"host:b"}
        pool._check()
        limit.limit = 100
        await rounds()
        assert notes.started == [2, 3, 4]
        handles[1].tags = ()
        await rounds()
        assert notes.started == [2, 3, 4, 1]
        blocker.cancel()
        await stop(pool)

    run(main)


@pytest.mark.parametrize("place", ["pool", "worker"])
def test_moved_to_another_pool(run: Run, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is queued, for the pool or a worker, gives back what it holds and waits by the rules of the other pool."""
    gate = Gate()
    order: list[int] = []
    step = threadlet(contract=ON_WORKER)(lambda number: gate() if number < 0 else order.append(number))
    monkeypatch.setattr(step, "workers", WorkerGroup("one", limit=1, idle_seconds=0))

    async def main() -> None:
        narrow, wide = Concurrency(1), Concurrency(100)
        one, two = Pool(wide if place == "worker" else Concurrency(1)), Pool(narrow)
        blocker = one.start(step, -1)
        gate.wait_arrived()
        handles = [one.start(step, number, priority=number % 3, tags={"x"}) for number in range(9)]
        resident = two.start(forever)
        assert one.select(tag="x").move(two) == 9
        assert one.select(tag="x").move(two) == 0
        one._check()
        two._check()
        assert (len(one), len(two)) == (1, 10)
        assert all(handle.pool is two and handle.state == "queued" for handle in handles)
        if place == "worker":
            assert wide.taken == 1
        gate.open()
        await blocker
        await rounds()
        assert order == []
        resident.cancel()
        await asyncio.gather(*handles)
        assert order == [0, 3, 6, 1, 4, 7, 2, 5, 8]
        assert one.statistics().done == 1 and two.statistics().done == 9
        await stop(one, two)
        assert wide.taken == narrow.taken == 0

    run(main)


def test_moving_obeys_the_capacities_of_where_it_goes(run: Run) -> None:
    """As many are moved as there is room for, also for one tag; the rest stays and runs where it was."""

    async def main() -> None:
        one, two = Pool(Concurrency(1)), Pool(Concurrency(1), capacity=6, tag_capacity={"t:": 2})
        one.start(forever)
        for number in range(6):
            one.start(forever, tags={"t:a" if number < 4 else "t:b"})
        assert one.select(state="queued").move(two) == 4
        assert len(two.select(tag="t:a")) == len(two.select(tag="t:b")) == 2
        two.start(forever)
        assert one.select(tag="t:a").move(two) == 0
        one._check()
        two._check()
        await stop(one, two)

    run(main)


def test_capacity_by_tag_rejects(run: Run) -> None:
    """A tag whose capacity is reached gets PoolFull, which names it; other tags, and none, are let in."""

    async def main() -> None:
        pool = Pool(Concurrency(1), tag_capacity={"tenant:": 2, "user:": 1})
        for _ in range(2):
            pool.start(forever, tags={"tenant:a"})
        with pytest.raises(PoolFull, match=r"tag_capacity\['tenant:'\]=2 for 'tenant:a'"):
            pool.start(forever, tags={"tenant:a", "user:x"})
        pool.start(forever, tags={"tenant:b", "user:x"})
        with pytest.raises(PoolFull, match=r"tag_capacity\['user:'\]=1 for 'user:x'"):
            pool.start(forever, tags={"tenant:b", "user:x"})
        for _ in range(5):
            pool.start(forever)
            pool.start(forever, tags={7, ("tenant:a",)})
        pool._check()
        assert pool.statistics().rejected == 2
        next(iter(pool.select(tag="tenant:a", state="queued"))).cancel()
        pool.start(forever, tags={"tenant:a"})
        await stop(pool)

    run(main)


def test_capacity_by_tag_sheds(run: Run) -> None:
    """The least urgent queued one of that tag is dropped; the newcomer, if none is less urgent; others stay."""

    async def main() -> None:
        pool = Pool(Concurrency(1), tag_capacity={"tenant:": 3}, overflow="shed")
        running = pool.start(forever, tags={"tenant:a"}, priority=99)
        worst = pool.start(forever, priority=1000)
        handles = [pool.start(forever, tags={"tenant:a"}, priority=priority) for priority in (5, 7)]
        newcomer = pool.start(forever, tags={"tenant:a"}, priority=6)
        assert [handle.done() for handle in (running, worst, *handles, newcomer)] == [False, False, False, True, False]
        with pytest.raises(Shed, match=r"tag_capacity\['tenant:'\]=3 for 'tenant:a'"):
            await handles[1]
        late = pool.start(forever, tags={"tenant:a"}, priority=6)
        with pytest.raises(Shed):
            await late
        pool._check()
        assert pool.statistics().shed == 2 and pool.statistics().failed == 0
        await stop(pool)

    run(main)


def test_room_for_a_tag(run: Run) -> None:
    """room(tags=...) waits for a place of those tags alone, and everybody who waits is told in turn."""

    async def main() -> None:
        pool = Pool(tag_capacity={"tenant:": 1}, capacity=10)
        a = pool.start(forever, tags={"tenant:a"})
        b = pool.start(forever, tags={"tenant:b"})
        await pool.room()
        await pool.room(tags={"tenant:c"})
        waiting = {tag: asyncio.ensure_future(pool.room(tags={f"tenant:{tag}"})) for tag in ("a", "b")}
        again = asyncio.ensure_future(pool.room(tags={"tenant:b"}))
        await rounds()
        assert not any(task.done() for task in [*waiting.values(), again])
        b.cancel()
        await rounds()
        assert [waiting["a"].done(), waiting["b"].done(), again.done()] == [False, True, True]
        a.cancel()
        await asyncio.gather(*waiting.values())
        await stop(pool)

    run(main)


def test_room_for_a_tag_that_somebody_has_lost(run: Run) -> None:
    """A place that becomes free since another one's tags were changed is told of, as if it had ended."""

    async def main() -> None:
        pool = Pool(tag_capacity={"tenant:": 1})
        handle = pool.start(forever, tags={"tenant:a"})
        waiting = asyncio.ensure_future(pool.room(tags={"tenant:a"}))
        await rounds()
        handle.tags = {"tenant:b"}
        await rounds()
        assert waiting.done()
        pool.start(forever, tags={"tenant:a"})
        pool._check()
        await stop(pool)

    run(main)


def test_a_throttle_of_a_closed_loop_serves_the_next(run: Run) -> None:
    """Rules by tag that were left with work that never ended begin anew on another loop."""
    per_host = PerTag("host:", Concurrency(1))
    per_host["host:a"].limit = 2

    async def leave() -> None:
        pool = Pool(per_host)
        for _ in range(5):
            pool.start(forever, tags={"host:a"})
            pool.start(forever, tags={"host:b"})

    async def use() -> None:
        notes, pool = Notes(), Pool(per_host)
        for number in range(5):
            pool.start(notes.hold, number, tags={"host:a"})
        await rounds()
        assert notes.started == [0, 1]
        pool._check()
        await stop(pool)

    run(leave)
    run(use)
    run(use)


def test_a_limit_changed_from_within(run: Run) -> None:
    """What runs in place may change the limit that it started under; the queue follows."""

    async def main() -> None:
        limit = Concurrency(1)
        pool = Pool(limit)
        running: Iterator[int] = iter(range(100))
        most = 0

        async def step(new: int) -> None:
            nonlocal most
            limit.limit = new
            most = max(most, limit.taken)
            next(running)
            await asyncio.sleep(0)

        handles = [pool.start(step, new) for new in (1, 3, 1, 5, 2, 2, 7, 1, 1, 1)]
        await until(lambda: all(handle.done() for handle in handles))
        assert most <= 7 and next(running) == 10
        await stop(pool)
        assert limit.taken == 0

    run(main)
