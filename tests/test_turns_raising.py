"""Throttles of the user's own that raise: nobody is lost, nobody runs twice, and somebody is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import pytest

from tests.conftest import Run
from tests.test_turns import Notes, stop
from tests.workbench import IN_PLACE, ON_WORKER, forever, rounds, until
from threadlets import Concurrency, Pool, threadlet, turns
from threadlets.throttles import Throttle

AT_START = ["key", "ready", "take"]
IN_PUMP = ["ready", "due", "take", "wait", "rank"]


class Moody(Throttle):
    """Allows ``limit`` at a time for each key, counts what it is told, and raises in one of its methods, on demand."""

    keyed = True
    clocked = True
    ranks = True

    def __init__(self, limit: int = 1, raises: str = "") -> None:
        self.limit = limit
        self.raises = raises
        self.raised = 0
        super().__init__()

    def renew(self) -> None:
        super().renew()
        self.taken: Counter[Hashable] = Counter()

    def _may_raise(self, method: str) -> bool:
        if method == self.raises:
            self.raised += 1
            raise LookupError(f"{method} raises")
        return True

    def key(self, tags: frozenset[Hashable]) -> Hashable:
        self._may_raise("key")
        return tags

    def ready(self, key: Any, now: int) -> bool:
        self._may_raise("ready")
        return self.taken[key] < self.limit

    def due(self, key: Any, now: int) -> int | None:
        self._may_raise("due")
        return None

    def take(self, key: Any, now: int) -> None:
        self._may_raise("take")
        self.taken[key] += 1

    def give_back(self, key: Any, now: int, began: int, failed: bool) -> None:
        self.taken[key] -= 1  # it is given back, whatever it says
        self._wake()
        self._may_raise("give_back")

    def rank(self, key: Any) -> float:
        self._may_raise("rank")
        return 0

    def wait(self, key: Any, wake: Callable[[], None]) -> None:
        self._may_raise("wait")
        super().wait(key, wake)

    def unwait(self, key: Any, wake: Callable[[], None]) -> None:
        self._may_raise("unwait")
        super().unwait(key, wake)


def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have throttles that have raised asked again without a wait."""
    monkeypatch.setattr(turns, "AGAIN", 0.001)


def told(run: Run, method: str) -> int:
    """Return how often the loop's exception handler was told of this method, and of nothing else."""
    reports = run.told()
    for report in reports:
        assert isinstance(report["exception"], LookupError) and str(report["exception"]) == f"{method} raises"
        assert "raised" in report["message"]
    return len(reports)


@pytest.mark.parametrize("method", AT_START)
@pytest.mark.parametrize("place", ["coroutine", "in place", "worker"])
def test_what_raises_at_a_start_is_seen_by_the_caller(run: Run, method: str, place: str) -> None:
    """start() raises it; the function does not run, nothing is on the books, no throttle keeps a place."""

    async def main() -> None:
        notes, moody, before, after = Notes(), Moody(), Concurrency(2), Concurrency(2)
        contract = {"in place": IN_PLACE, "worker": ON_WORKER}.get(place)
        function: Any = notes.note if contract is None else threadlet(contract=contract)(notes.started.append)
        pool = Pool(before, moody, after)
        moody.raises = method
        for number in range(3):
            with pytest.raises(LookupError, match=f"{method} raises"):
                pool.start(function, number, tags={"tag"})
            assert (len(pool), before.taken, after.taken, +moody.taken) == (0, 0, 0, Counter())
            pool._check()
        moody.raises = ""
        await pool.start(function, 3, tags={"tag"})
        assert notes.started == [3]
        await stop(pool)
        assert (before.taken, after.taken, +moody.taken) == (0, 0, Counter())

    run(main)


@pytest.mark.parametrize("method", IN_PUMP)
def test_what_raises_in_the_pump_is_told_and_asked_again(
    run: Run, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop's exception handler is told; who waits starts when it does not raise any more, once each."""
    soon(monkeypatch)

    async def main() -> None:
        notes, moody, limit = Notes(), Moody(), Concurrency(1)
        pool = Pool(limit, moody)
        blocker = pool.start(forever, tags={"a"})
        for number in range(9):
            pool.start(notes.note, number, tags={"abc"[number % 3]})
        await rounds()
        limit.limit = 2  # those of b and c may start; but for a, there is no place
        moody.raises = method
        await until(lambda: moody.raised >= 3)
        moody.raises = ""
        await until(lambda: len(notes.started) == 6)
        blocker.cancel()
        await pool.drain()
        assert sorted(notes.started) == list(range(9))
        assert [number for number in notes.started if number % 3 == 1] == [1, 4, 7]
        await stop(pool)
        assert limit.taken == 0 and not +moody.taken

    run(main)
    assert told(run, method) >= 1


def test_what_raises_does_not_hold_up_others(run: Run) -> None:
    """A throttle that raises for one tag is asked again for that one later; the others start meanwhile."""

    class Picky(Moody):
        def ready(self, key: Any, now: int) -> bool:
            return self._may_raise("ready") if "bad" in key else self.taken[key] < self.limit

    async def main() -> None:
        notes, picky, limit = Notes(), Picky(limit=100), Concurrency(1)
        pool = Pool(limit, picky)
        blocker = pool.start(forever)
        for number in range(10):
            pool.start(notes.note, number, tags={"bad"}, priority=-1)
            pool.start(notes.note, number + 10, tags={"good"})
        picky.raises = "ready"
        blocker.cancel()
        await until(lambda: len(notes.started) == 10)
        assert notes.started == list(range(10, 20))
        assert picky.raised == 1
        pool._check()
        await stop(pool)

    run(main)
    assert told(run, "ready") == 1


@pytest.mark.parametrize("method", ["ready", "due", "take", "wait"])
def test_one_for_all_that_raises(run: Run, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A throttle that looks at no tags holds back the whole queue while it raises; then all start in order."""
    soon(monkeypatch)

    class Plain(Moody):
        keyed = ranks = False

    async def main() -> None:
        notes, plain, limit = Notes(), Plain(), Concurrency(1)
        pool = Pool(limit, plain)
        blocker = pool.start(forever)
        for number in range(5):
            pool.start(notes.note, number)
        limit.limit = 2 if method in ("due", "wait") else 1
        plain.raises = method
        if method in ("ready", "take"):
            blocker.cancel()
        await until(lambda: plain.raised >= 3)
        plain.raises = ""
        blocker.cancel()
        await pool.drain()
        assert notes.started == list(range(5))
        await stop(pool)
        assert limit.taken == 0 and not +plain.taken

    run(main)
    assert told(run, method) >= 3


def test_what_raises_at_the_end_is_told(run: Run) -> None:
    """give_back() that raises does not change how it ended, and the other throttles have their places back."""

    async def main() -> None:
        before, moody, after = Concurrency(2), Moody(limit=9, raises="give_back"), Concurrency(2)
        pool = Pool(before, moody, after)
        for number in range(6):
            assert await pool.start(add_one, number, tags={"x"}) == number + 1
        assert await pool.start(threadlet(contract=ON_WORKER)(abs), -3) == 3
        pool._check()
        assert before.taken == after.taken == 0
        await stop(pool)

    run(main)
    assert told(run, "give_back") == 7


async def add_one(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1


def test_keys_that_raise_at_the_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sets of tags come by, what was taken is given back, though key() would raise by now."""
    monkeypatch.setattr(turns, "KEYS", 3)

    async def main() -> None:
        moody, limit = Moody(limit=2), Concurrency(20)
        pool = Pool(limit, moody)
        handles = [pool.start(forever, tags={number}) for number in range(10)]
        moody.raises = "key"
        for handle in handles:
            handle.cancel()
        await pool.drain()
        pool._check()
        assert limit.taken == 0 and len(pool) == 0

    run(main)
    told(run, "key")  # it may be, or need not be


def test_a_rank_that_raises_at_a_start(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether start() raises it or the handler is told: who was refused never runs, and all others do, once."""
    soon(monkeypatch)

    async def main() -> None:
        notes, moody = Notes(), Moody(limit=9)
        pool = Pool(Concurrency(1), moody)
        blocker = pool.start(forever)
        moody.raises = "rank"
        accepted = []
        for number in range(6):
            try:
                pool.start(notes.note, number, tags={"abc"[number % 3]})
            except LookupError:
                pass
            else:
                accepted.append(number)
            assert len(pool) == len(accepted) + 1
        moody.raises = ""
        pool._check()
        blocker.cancel()
        await pool.drain()
        assert sorted(notes.started) == accepted
        await stop(pool)

    run(main)
    told(run, "rank")


def test_a_key_that_is_not_hashable(run: Run) -> None:
    """start() says so, and nothing is left on the books."""

    class Unhashable(Throttle):
        keyed = True

        def key(self, tags: frozenset[Hashable]) -> Hashable:
            return list(tags)  # type: ignore[return-value]

    async def main() -> None:
        limit = Concurrency(1)
        pool = Pool(limit, Unhashable())
        started = 0
        for _ in range(2):
            try:
                pool.start(forever)
            except TypeError:
                break
            started += 1
        assert started < 2
        assert len(pool) == limit.taken == started
        pool._check()
        await stop(pool)
        assert limit.taken == 0

    run(main)


@pytest.mark.parametrize("where", ["queued", "running"])
@pytest.mark.parametrize("method", ["key", "take", "give_back"])
def test_retagging_that_raises(run: Run, where: str, method: str) -> None:
    """Either the tags are changed and so is what is held, or neither; at the end all places are back."""

    async def main() -> None:
        moody, limit = Moody(limit=5), Concurrency(1)
        pool = Pool(limit, moody)
        handle = pool.start(forever, tags={"old"})
        if where == "queued":
            handle = pool.start(forever, tags={"old"})
        moody.raises = method
        try:
            handle.tags = {"new"}
        except LookupError:
            assert handle.tags == {"old"}
        moody.raises = ""
        pool._check()
        assert handle in pool.select(tag=next(iter(handle.tags)))
        await stop(pool)
        assert limit.taken == 0
        assert not any(moody.taken.values())

    run(main)
    told(run, method)


def test_a_lent_place_whose_throttle_raises(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may start in another one's place is asked for again later, and not round after round."""
    monkeypatch.setattr(turns, "AGAIN", 0.05)

    class Plain(Moody):
        keyed = ranks = False

    async def main() -> int:
        plain = Plain(limit=9)
        pool = Pool(Concurrency(1), plain)

        async def outer() -> int:
            inner = pool.start(add_one, 1)
            plain.raises = "take"
            return await inner

        handle = pool.start(outer)
        await rounds(20)
        pool._check()
        raised = plain.raised
        plain.raises = ""
        assert await handle == 2
        await stop(pool)
        assert not +plain.taken
        return raised

    assert run(main) <= 3
    assert 1 <= told(run, "take") <= 3


def test_a_shed_victim_is_not_dropped_for_one_that_cannot_start(run: Run) -> None:
    """If key() raises for a newcomer to a full pool, nobody has to leave for it."""

    async def main() -> None:
        moody = Moody(limit=9)
        pool = Pool(Concurrency(1), moody, capacity=2, overflow="shed")
        pool.start(forever)
        victim = pool.start(forever, priority=5)
        moody.raises = "key"
        with pytest.raises(LookupError):
            pool.start(forever, tags={"new"})
        moody.raises = ""
        assert victim.state == "queued"
        pool._check()
        await stop(pool)

    run(main)
