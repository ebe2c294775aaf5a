"""Whose turn it is, by throttles that look at tags, rank, or count time; and by age or deadline."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import forever, rounds, until
from threadlets import Concurrency, FairShare, PerTag, Pool, Rate, Threadlet
from threadlets.errors import DeadlineExceeded

SLOWLY = 1_000  # in place of ten or a hundred times as many, where the loop is in debug mode


class Counting(Concurrency):
    """A limit that counts how often it is asked; its copies count together."""

    __slots__ = ("asked",)

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.asked = [0]

    def ready(self, key: Any, now: int) -> bool:
        self.asked[0] += 1
        return super().ready(key, now)


class Notes:
    """Keeps who has started, in order."""

    def __init__(self) -> None:
        self.started: list[Any] = []

    async def note(self, name: Any) -> None:
        self.started.append(name)

    async def hold(self, name: Any) -> None:
        self.started.append(name)
        await forever()


async def stop(*pools: Pool) -> None:
    """Cancel everything and see that the books are in order."""
    for pool in pools:
        pool.cancel()
    for pool in pools:
        await pool.drain()
        pool._check()
        assert len(pool) == 0 and pool.statistics().queued == pool.statistics().admitted == 0


def test_a_saturated_tag_delays_nobody_else(run: Run) -> None:
    """However many are queued for a busy host, and however urgent they are, others start in the next round."""

    async def main() -> None:
        notes = Notes()
        pool = Pool(PerTag("host:", Concurrency(1)))
        for number in range(100):
            pool.start(notes.hold, "slow", priority=-number, tags={"host:slow"})
        assert notes.started == ["slow"]
        for number in range(10):
            pool.start(notes.hold, number, priority=number, tags={f"host:{number}"})
        pool.start(notes.hold, "none", priority=10**9)
        await rounds(3)
        pool._check()
        assert notes.started == ["slow", *range(10), "none"]
        await stop(pool)

    run(main)


def test_priorities_hold_among_tags_that_may_start(run: Run) -> None:
    """Of all that no throttle holds back the most urgent goes first, whatever its tag."""

    async def main() -> None:
        notes, total = Notes(), Concurrency(1)
        pool = Pool(total, PerTag("host:", Concurrency(1)))
        blocker = pool.start(forever, tags={"host:a"})
        for number, priority in enumerate([5, 1, 4, 2, 3, 0]):
            pool.start(notes.note, (priority, "ab"[number % 2]), priority=priority, tags={f"host:{'ab'[number % 2]}"})
        total.limit = 2  # host:a is still busy
        await until(lambda: len(notes.started) == 3)
        await rounds()
        assert notes.started == [(0, "b"), (1, "b"), (2, "b")]
        blocker.cancel()
        await pool.drain()
        assert notes.started[3:] == [(3, "a"), (4, "a"), (5, "a")]
        await stop(pool)

    run(main)


def test_one_with_several_tags_needs_all_of_them(run: Run) -> None:
    """It starts when none of its tags is full, and takes a place of each."""

    async def main() -> None:
        notes, per_host = Notes(), PerTag("host:", Concurrency(1))
        pool = Pool(per_host)
        a = pool.start(forever, tags={"host:a"})
        b = pool.start(forever, tags={"host:b"})
        both = pool.start(notes.hold, "both", tags={"host:a", "host:b"})
        a.cancel()
        await rounds()
        assert both.state == "queued" and per_host["host:a"].taken == 0
        pool._check()
        b.cancel()
        await rounds()
        assert notes.started == ["both"]
        assert per_host["host:a"].taken == per_host["host:b"].taken == 1
        await stop(pool)
        assert per_host["host:a"].taken == per_host["host:b"].taken == 0

    run(main)


@pytest.mark.parametrize("many", [10, 10_000])
def test_blocked_lanes_do_not_make_a_start_slow(run: Run, many: int) -> None:
    """A start costs the same few questions with ten blocked tags, and with ten thousand."""
    blocked = min(many, SLOWLY if run.debug else many)

    async def main() -> None:
        notes, limit = Notes(), Counting(1)
        pool = Pool(PerTag("host:", limit))
        for number in range(blocked):
            pool.start(notes.hold, number, tags={f"host:{number}"})
            pool.start(notes.hold, number, tags={f"host:{number}"})
        await until(lambda: len(notes.started) == blocked)
        await rounds()
        assert len(notes.started) == blocked
        limit.asked[0] = 0
        for number in range(100):
            pool.start(notes.note, number, tags={"host:free"})
        await until(lambda: len(notes.started) == blocked + 100)
        assert limit.asked[0] <= 100 * 4
        pool._check()
        await stop(pool)

    run(main)


def test_a_place_that_is_given_back_wakes_its_own_tag(run: Run) -> None:
    """What ends on one host starts the next one there, with no question about ten thousand others."""
    many = SLOWLY if run.debug else 10_000

    async def main() -> None:
        notes, limit = Notes(), Counting(1)
        pool = Pool(PerTag("host:", limit))
        blockers = []
        for number in range(many):
            blockers.append(pool.start(notes.hold, "blocker", tags={f"host:{number}"}))
            pool.start(notes.hold, number, tags={f"host:{number}"})
        await until(lambda: len(notes.started) == many)
        await rounds()
        limit.asked[0] = 0
        for blocker in blockers[:50]:
            blocker.cancel()
        await until(lambda: len(notes.started) == many + 50)
        assert sorted(notes.started[many:]) == list(range(50))
        assert limit.asked[0] <= 50 * 6
        await stop(pool)

    run(main)


def test_a_crowd_of_one_tenant_does_not_delay_another(run: Run) -> None:
    """With 100,000 of one tenant queued, the first of another one is the next to start, and then they take turns."""
    many = SLOWLY if run.debug else 100_000

    async def main() -> None:
        notes, limit = Notes(), Concurrency(1)
        pool = Pool(limit, FairShare("tenant:"))
        blocker = pool.start(forever)
        for _ in range(many):
            pool.start(notes.hold, "crowd", tags={"tenant:crowd"})
        for _ in range(3):
            pool.start(notes.hold, "one", tags={"tenant:one"})
        limit.limit = 9
        await until(lambda: len(notes.started) == 8)
        await rounds()
        assert notes.started[:2] in (["crowd", "one"], ["one", "crowd"])
        assert Counter(notes.started[:6]) == {"crowd": 3, "one": 3}
        assert notes.started[6:] == ["crowd", "crowd"]
        blocker.cancel()
        assert pool.select(tag="tenant:crowd", state="queued").cancel("enough") == many - 5
        await stop(pool)

    run(main)


def test_what_a_tenant_did_not_use_it_cannot_claim_later(run: Run) -> None:
    """Who comes late gets its turns from now on, not those of the time before."""

    async def main() -> None:
        notes, limit = Notes(), Concurrency(1)
        pool = Pool(limit, FairShare("tenant:"))
        for _ in range(50):
            pool.start(notes.note, "early", tags={"tenant:early"})
        await until(lambda: len(notes.started) == 50)
        blocker = pool.start(forever)
        for name in ("early", "late"):
            for _ in range(10):
                pool.start(notes.note, name, tags={f"tenant:{name}"})
        blocker.cancel()
        await pool.drain()
        assert Counter(notes.started[50:60]) in ({"early": 5, "late": 5}, {"early": 4, "late": 6})
        await stop(pool)

    run(main)


def test_shares_go_by_weight_and_priorities_within_a_tenant(run: Run) -> None:
    """Three starts of one tenant for each of another; within a tenant the most urgent first."""

    async def main() -> None:
        notes, limit = Notes(), Concurrency(1)
        pool = Pool(limit, FairShare("tenant:", {"tenant:a": 3}))
        blocker = pool.start(forever)
        for number in range(60):
            pool.start(notes.note, ("a", -number), tags={"tenant:a"}, priority=-number)
            pool.start(notes.note, ("b", -number), tags={"tenant:b"}, priority=-number)
        blocker.cancel()
        await pool.drain()
        first = Counter(tenant for tenant, _ in notes.started[:40])
        assert abs(first["a"] - 30) <= 1
        for tenant in "ab":
            mine = [priority for name, priority in notes.started if name == tenant]
            assert mine == sorted(mine)
        await stop(pool)

    run(main)


def test_weights_may_be_changed_while_they_wait(run: Run) -> None:
    """A tenant that has become important has its share from now on, not after what it would have waited before."""

    async def main() -> None:
        notes, limit = Notes(), Concurrency(1)
        fair = FairShare("tenant:", {"tenant:a": 0.01})
        pool = Pool(limit, fair)
        blocker = pool.start(forever)
        for name, count in {"a": 20, "b": 100}.items():
            for _ in range(count):
                pool.start(notes.note, name, tags={f"tenant:{name}"})
        first = pool.start(notes.note, "a", tags={"tenant:a"}, priority=-2)  # it costs a hundred of b
        gate = pool.start(forever, tags={"tenant:b"}, priority=-1)
        blocker.cancel()
        await until(lambda: gate.state != "queued")
        assert first.done()
        pool._check()
        started = len(notes.started)
        fair["tenant:a"] = 1000.0
        pool._check()
        gate.cancel()
        await pool.drain()
        assert "a" in notes.started[started : started + 3]
        assert notes.started[started : started + 24].count("a") >= 18
        await stop(pool)

    run(main)


def test_a_rate_in_a_pool(run: Run) -> None:
    """Starts come in order, the burst at once, and no sooner than the rate allows."""

    async def main() -> None:
        notes = Notes()
        pool = Pool(Rate(200, burst=3))
        begin = time.monotonic()
        for number in range(13):
            pool.start(notes.note, number)
        assert notes.started == [0, 1, 2]
        await pool.drain()
        assert notes.started == list(range(13))
        assert time.monotonic() - begin >= 9 / 200 - 0.01  # ten more than the burst; 10 ms may be made up for
        await stop(pool)

    run(main)


def test_a_rate_per_tag_delays_nobody_else(run: Run) -> None:
    """Who waits for the next start of one host does so alone; a faster rate, set meanwhile, counts at once."""

    async def main() -> None:
        notes, per_host = Notes(), PerTag("host:", Rate(1, per=1000.0))
        pool = Pool(per_host)
        for number in range(5):
            pool.start(notes.note, ("slow", number), tags={"host:slow"})
        for number in range(5):
            pool.start(notes.note, number, tags={f"host:{number}"})
        await rounds()
        assert notes.started == [("slow", 0), 0, 1, 2, 3, 4]
        pool._check()
        per_host["host:slow"].limit = 10**6
        await pool.drain()
        assert notes.started[6:] == [("slow", number) for number in range(1, 5)]
        await stop(pool)

    run(main)


def test_age_makes_urgent(run: Run) -> None:
    """With aging, who has waited long enough goes before the more urgent that come later; without, he never does."""

    async def main(aging: float | None) -> list[Any]:
        notes = Notes()
        pool = Pool(Concurrency(1), aging=aging)
        blocker = pool.start(forever)
        old = pool.start(notes.note, "old", priority=5)
        end = time.monotonic() + 0.01
        await until(lambda: time.monotonic() > end)
        for number in range(3):
            pool.start(notes.note, number, priority=4)
        pool._check()
        assert old.priority == old.effective_priority == 5
        blocker.cancel()
        await pool.drain()
        await stop(pool)
        return notes.started

    assert run(main, 0.005) == ["old", 0, 1, 2]
    assert run(main, 1000.0) == [0, 1, 2, "old"]
    assert run(main, None) == [0, 1, 2, "old"]


def test_with_aging_equal_ones_go_by_arrival_and_priorities_may_be_anything(run: Run) -> None:
    """Numbers that no float can hold, and infinite ones, keep their places; a changed priority keeps the age."""

    async def main() -> None:
        notes = Notes()
        pool = Pool(Concurrency(1), aging=1000.0)
        blocker = pool.start(forever)
        handles = [
            pool.start(notes.note, number, priority=priority)
            for number, priority in enumerate([0, 10**400, -(10**400), float("inf"), float("-inf"), 0, 7])
        ]
        pool._check()
        handles[6].priority = 0
        blocker.cancel()
        await pool.drain()
        assert set(notes.started[:2]) == {2, 4}
        assert notes.started[2:5] == [0, 5, 6]
        assert set(notes.started[5:]) == {1, 3}
        await stop(pool)

    run(main)


def test_order_by_deadline(run: Run) -> None:
    """Whose deadline is the earliest starts first, those without one last, and equal ones by priority."""

    async def main() -> None:
        notes = Notes()
        pool = Pool(Concurrency(1), order="deadline")
        blocker = pool.start(forever)
        handles: list[Threadlet[None]] = []
        for number, (priority, deadline) in enumerate([(5, None), (1, None), (9, 900), (0, 1000), (5, 800), (3, 2000)]):
            handles.append(pool.start(notes.note, number, priority=priority, deadline=deadline))
        pool._check()
        handles[3].deadline = 700
        handles[5].deadline = None
        pool._check()
        blocker.cancel()
        await pool.drain()
        assert notes.started == [3, 4, 2, 1, 5, 0]
        await stop(pool)

    run(main)


def test_an_overdue_one_never_starts_and_lets_the_others_pass(run: Run) -> None:
    """A queued threadlet whose deadline passes fails at once, wherever it stands, and takes no place."""

    async def main() -> None:
        notes, per_host = Notes(), PerTag("host:", Concurrency(1))
        pool = Pool(per_host, order="deadline")
        blocker = pool.start(forever, tags={"host:a"})
        late = pool.start(notes.note, "late", tags={"host:a"}, deadline=0.01)
        next_ = pool.start(notes.note, "next", tags={"host:a"})
        with pytest.raises(DeadlineExceeded):
            await late
        pool._check()
        over = pool.start(notes.note, "over", deadline=0)
        assert over.done()
        with pytest.raises(DeadlineExceeded):
            await over
        blocker.cancel()
        await next_
        assert notes.started == ["next"]
        await stop(pool)

    run(main)
