"""Conditions: those that wait release the lock meanwhile, and go on one after the other when they are notified."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.conftest import Run
from tests.waiters import KINDS, in_line, outcome, start
from tests.workbench import rounds
from threadlets import Lock, Pool, threadlet
from threadlets.conditions import Condition


class Waiting:
    """Somebody who waits at a condition, and tells what he sees when he goes on."""

    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        self.went_on: list[str] = []

    def start(self, kind: str, name: str = "", **options: Any) -> Any:
        def wait() -> None:
            with self.condition:
                assert self.condition.wait() is True
                self._goes_on(name)

        async def wait_async() -> None:
            async with self.condition:
                await self.condition.wait_async()
                self._goes_on(name)

        return start(kind, wait, wait_async, **options)

    def _goes_on(self, name: str) -> None:
        self.condition.notify(0)  # an error if the lock is not held
        self.went_on.append(name)


async def notify(condition: Condition, n: int = 1) -> None:
    async with condition:
        condition.notify(n)


def test_on_threads() -> None:
    """On threads it is used as one of ``threading`` is."""
    condition = Condition(Lock("shelf"))
    shelf: list[int] = []

    def take() -> None:
        with condition:
            while not shelf:
                condition.wait()
            shelf.pop()

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in threads:
        with condition:
            shelf.append(1)
            condition.notify()
    for thread in threads:
        thread.join()
    assert not shelf and repr(condition) == "<Condition of <Lock 'shelf': free>>"
    condition._check()


def test_in_coroutines(run: Run) -> None:
    """In coroutines it is used as one of ``asyncio`` is."""

    async def main() -> None:
        condition = Condition()
        waiting = Waiting(condition)
        tasks = [waiting.start("task", str(number)) for number in range(3)]
        await in_line(condition, 3)
        assert repr(condition) == "<Condition of <Lock: free>, 3 waiting>"
        async with condition:
            condition.notify_all()
            await rounds()
            assert not waiting.went_on and not len(condition._line), "they wait for the lock by now"
        await asyncio.gather(*tasks)
        assert waiting.went_on == ["0", "1", "2"]
        assert not condition.lock.locked()

    run(main)


def test_wait_for(run: Run) -> None:
    """``wait_for`` looks before it waits and whenever it is notified, and returns what it has seen."""

    async def main() -> None:
        condition, stock = Condition(), []

        def take() -> list[int]:
            with condition:
                return condition.wait_for(lambda: stock[:2] if len(stock) >= 2 else [])

        async def take_async() -> list[int]:
            async with condition:
                return await condition.wait_for_async(lambda: stock[:2] if len(stock) >= 2 else [])

        waiting = [start(kind, take, take_async) for kind in KINDS]
        await in_line(condition, len(KINDS))
        for each in (1, 2):
            await in_line(condition, len(KINDS))  # notified, and back
            assert not any(each.done() for each in waiting)
            async with condition:
                stock.append(each)
                condition.notify_all()
        assert await asyncio.gather(*waiting) == [[1, 2]] * len(KINDS)
        assert await take_async() == [1, 2] == await start("worker", take, take_async)

    run(main)


def test_wait_for_in_time() -> None:
    """``wait_for`` returns what is false when the time is up, also if there is none, and has looked once."""
    condition, looks = Condition(), []
    with condition:
        for timeout in (0, 0.002):
            assert condition.wait_for(lambda: looks.append(1) or 0, timeout) == 0
        assert 3 <= len(looks) <= 4
        assert condition.wait_for(lambda: "there", 0) == "there"
        assert condition.wait(0) is False
        assert condition.wait(0.002) is False
        assert condition.lock.locked()


def test_a_predicate_that_raises(run: Run) -> None:
    """What the predicate raises comes out of the wait; the lock is held in between, and free after the block."""

    async def main() -> None:
        condition, stock = Condition(), []

        def take() -> None:
            with condition:
                condition.wait_for(lambda: 1 / len(stock) if stock else stock.append)  # type: ignore[operator]
                stock.clear()
                condition.wait_for(lambda: 1 / len(stock))

        async def take_async() -> None:
            async with condition:
                await condition.wait_for_async(lambda: 1 / len(stock))

        for kind in KINDS:
            assert isinstance(await outcome(start(kind, take, take_async)), ZeroDivisionError)
            assert not condition.lock.locked()

    run(main)


def test_what_it_refuses(run: Run) -> None:
    """Locks of others, the wrong way round, and all that asks for the lock to be held; the messages say what to do."""
    for lock in (threading.Lock(), asyncio.Lock(), object()):
        with pytest.raises(TypeError, match=r"expected a threadlets\.Lock"):
            Condition(lock)  # type: ignore[arg-type]
    condition = Condition()
    for call in (condition.wait, lambda: condition.wait_for(lambda: True), condition.notify, condition.notify_all):
        with pytest.raises(RuntimeError, match="which does not hold its lock"):
            call()
    for coroutine in (condition.wait_async(), condition.__aenter__()):
        with pytest.raises(RuntimeError, match="outside of a task: on a thread, use"):
            coroutine.send(None)
    with condition:
        for bad in (True, 1.5, "1"):
            with pytest.raises(TypeError, match=r"n=.*: expected an integer"):
                condition.notify(bad)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="n=-1: expected 0 or more"):
            condition.notify(-1)
        with pytest.raises(ValueError, match="timeout=nan"):
            condition.wait(float("nan"))
        with pytest.raises(TypeError, match="timeout='1'"):
            condition.wait_for(lambda: True, "1")  # type: ignore[arg-type]

    async def main() -> None:
        for call in (condition.wait_async, lambda: condition.wait_for_async(lambda: True)):
            with pytest.raises(RuntimeError, match=r"task .* does not hold its lock"):
                await call()
        with pytest.raises(RuntimeError, match=r"'with' of .* would stall its event loop: use 'async with'"):
            condition.__enter__()
        async with condition:
            with pytest.raises(RuntimeError, match=r"would stall its event loop: use wait_async\(\)"):
                condition.wait()
            other = asyncio.create_task(condition.wait_async())
            with pytest.raises(RuntimeError, match="does not hold its lock"):
                await other

    run(main)
    assert not condition.lock.locked() and not len(condition._line)


def test_left_without_the_lock() -> None:
    """To release the lock in the block is an error at its end, unless there is one already."""
    condition = Condition()
    with pytest.raises(RuntimeError, match="does not hold it"):
        with condition:
            condition.lock.release()
    with pytest.raises(ZeroDivisionError):
        with condition:
            condition.lock.release()
            raise ZeroDivisionError


def test_the_lock_is_where_it_was_taken() -> None:
    """After a wait the lock tells the line at which the block began, and not one of the library."""
    condition = Condition()
    with condition:
        before = condition.lock._taken_at()
        condition.wait(0)
        assert condition.lock._taken_at() == before and __file__ in before


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_as_are_notified(run: Run, kind: str) -> None:
    """Each notification lets one go on, in order of arrival; one that nobody waits for is nobody's."""

    async def main() -> None:
        condition = Condition()
        waiting = Waiting(condition)
        await notify(condition, 5)
        futures = []
        for number in range(5):
            futures.append(waiting.start(kind, str(number)))
            await in_line(condition, number + 1)
        await notify(condition, 0)
        await notify(condition)
        await futures[0]
        await notify(condition, 2)
        await asyncio.gather(*futures[:3])
        assert len(condition._line) == 2 and len(waiting.went_on) == 3
        await notify(condition, 100)
        await asyncio.gather(*futures)
        assert sorted(waiting.went_on) == ["0", "1", "2", "3", "4"] and waiting.went_on[0] == "0"
        condition._check()

    run(main)


@pytest.mark.parametrize("kind", ["worker", "coroutine"])
def test_the_most_urgent_first(run: Run, kind: str) -> None:
    """Notifications go by priority; a change of priority counts while somebody waits."""

    async def main() -> None:
        condition, pool = Condition(), Pool()
        waiting = Waiting(condition)
        handles = {}
        for count, (name, priority) in enumerate([("late", 3), ("first", 1), ("second", 1), ("third", 9)]):
            handles[name] = waiting.start(kind, name, pool=pool, priority=priority)
            await in_line(condition, count + 1)
        handles["third"].priority = 2
        for name in ("first", "second", "third", "late"):
            await notify(condition)
            await handles[name]
        assert waiting.went_on == ["first", "second", "third", "late"]

    run(main)


def test_two_of_one_lock(run: Run) -> None:
    """Conditions may share a lock, and whoever holds that, however he took it, may notify (anyio's #1319)."""

    async def main() -> None:
        lock = Lock()
        full, empty = Condition(lock), Condition(lock)
        first, second = Waiting(full).start("task"), Waiting(empty).start("worker")
        await in_line(full, 1)
        await in_line(empty, 1)
        async with lock:
            full.notify()
        await first
        assert not second.done()
        await asyncio.to_thread(with_lock, lock, empty)
        await second

    def with_lock(lock: Lock, condition: Condition) -> None:
        with lock:
            condition.notify_all()

    run(main)


def test_a_queue_of_all_kinds(run: Run) -> None:
    """A bounded queue between threads, workers, and coroutines of two loops loses nothing, and never is too full."""
    lock = Lock()
    full, empty = Condition(lock), Condition(lock)
    queue: list[int] = []
    taken: list[int] = []

    def put(item: int) -> None:
        assert len(queue) < 2
        queue.append(item)
        empty.notify()

    def take() -> None:
        taken.append(queue.pop(0))
        full.notify()

    def produce() -> None:
        for item in range(20):
            with full:
                full.wait_for(lambda: len(queue) < 2)
                put(item)

    async def produce_async() -> None:
        for item in range(20):
            async with full:
                await full.wait_for_async(lambda: len(queue) < 2)
                put(item)

    def consume() -> None:
        for _ in range(20):
            with empty:
                empty.wait_for(lambda: queue)
                take()

    async def consume_async() -> None:
        for _ in range(20):
            async with empty:
                await empty.wait_for_async(lambda: queue)
                take()

    async def crowd() -> None:
        producers = [start(kind, produce, produce_async) for kind in KINDS]
        consumers = [start(kind, consume, consume_async) for kind in KINDS]
        await asyncio.gather(*producers, *consumers)

    other = threading.Thread(target=lambda: asyncio.run(crowd()))
    other.start()
    run(crowd)
    other.join()
    assert sorted(taken) == sorted([*range(20)] * 2 * len(KINDS)) and not queue
    assert not len(full._line) and not len(empty._line) and not lock.locked()


def test_in_place(hands: Run) -> None:
    """What waits in place, or in a region, on a loop that changes hands is notified by a coroutine of that loop."""

    async def main() -> None:
        condition = Condition()

        async def give() -> None:
            for _ in range(2):
                await in_line(condition, 1)
                await notify(condition)

        @threadlet
        def wait() -> bool:
            with condition:
                return condition.wait()

        giver = asyncio.create_task(give())
        await Waiting(condition).start("region")
        assert await wait() is True
        await giver

    hands(main)
