"""Circles of waits: each kind that is promised to be found, and that all goes on afterwards."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from tests.conftest import Run
from tests.lockers import KINDS, Step, in_line, is_free
from tests.support import eventually
from tests.workbench import ON_WORKER, PATIENCE, Gate, until
from threadlets import Lock, Pool, Threadlet, blocking, call_async, deadlocks, threadlet
from threadlets.cancellation import holds
from threadlets.deadlocks import for_locks
from threadlets.errors import Deadlock
from threadlets.surroundings import waiting
from threadlets.waits import in_line as waiters_in_line


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """See that nothing is known any more of those that waited."""
    yield
    assert not holds and not waiting and not for_locks and not waiters_in_line


class Climber:
    """Somebody who takes one lock after the other, and stops at a gate before each but the first."""

    def __init__(self, kind: str, *locks: Lock) -> None:
        self.locks = locks
        self.gates = [Gate() for _ in locks[1:]]
        self.events = [asyncio.Event() for _ in locks[1:]]
        self.future: Any
        pool = Pool()
        if kind == "worker":
            self.future = pool.start(threadlet(contract=ON_WORKER)(self.on_thread))
        elif kind == "coroutine":
            self.future = pool.start(threadlet(self.in_task))
        elif kind == "task":
            self.future = asyncio.create_task(self.in_task())
        else:
            self.future = asyncio.create_task(asyncio.to_thread(self.on_thread))

    def on_thread(self, place: int = 0) -> None:
        if place < len(self.locks):
            if place:
                self.gates[place - 1]()
            with self.locks[place]:
                self.on_thread(place + 1)

    async def in_task(self, place: int = 0) -> None:
        if place < len(self.locks):
            if place:
                await self.events[place - 1].wait()
            async with self.locks[place]:
                await self.in_task(place + 1)

    async def has(self, lock: Lock) -> Climber:
        await until(lock.locked)
        return self

    def climb(self, place: int = 0) -> None:
        """Let it want its next lock. Thread: loop."""
        self.gates[place].open()
        self.events[place].set()


# ------------------------------------------------------------------------------------------------------- who finds it


def test_a_thread_that_has_it_already() -> None:
    """Without any loop: the second ``with`` is an error at once, with or without a timeout, and tells where."""
    lock = Lock("index")
    with lock:
        for timeout in (None, 0, PATIENCE):
            with pytest.raises(Deadlock) as caught:
                lock.acquire(timeout)
            assert "thread 'MainThread'" in str(caught.value) and "<Lock 'index': taken>" in str(caught.value)
            assert f"taken at {__file__}:" in str(caught.value)
        assert lock.locked()
    assert not lock.locked()
    lock._check()


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_has_it_already(run: Run, kind: str) -> None:
    """Whoever takes the same lock twice gets an error at the second time, and has it still."""

    async def main() -> None:
        lock = Lock()
        climber = await Climber(kind, lock, lock).has(lock)
        climber.climb()
        with pytest.raises(Deadlock, match=r"a circle of waits: .* waits for <Lock: taken>; .* holds <Lock: taken>"):
            await climber.future
        await is_free(lock)

    run(main)


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_two_locks_in_different_orders(run: Run, first: str, second: str) -> None:
    """The one that closes the circle gets the error; the other one goes on, and both locks are free in the end."""

    async def main() -> None:
        one, two = Lock("one"), Lock("two")
        early = await Climber(first, one, two).has(one)
        late = await Climber(second, two, one).has(two)
        early.climb()
        await in_line(two, 1)
        late.climb()
        with pytest.raises(Deadlock) as caught:
            await late.future
        await early.future
        text = str(caught.value)
        assert text.count("waits for <Lock") == 2 and text.count("taken at ") == 2
        assert (
            text.index("waits for <Lock 'one'") < text.index("holds <Lock 'one'") < text.index("waits for <Lock 'two'")
        )
        await is_free(one)
        await is_free(two)

    run(main)


def test_a_long_circle(run: Run) -> None:
    """Many, of every kind, each of which has what the one before wants."""

    async def main() -> None:
        locks = [Lock(str(number)) for number in range(12)]
        climbers = []
        for number, lock in enumerate(locks):
            climber = Climber(KINDS[number % 4], lock, locks[(number + 1) % len(locks)])
            climbers.append(await climber.has(lock))
        for number, climber in enumerate(climbers[:-1]):
            climber.climb()
            await in_line(locks[number + 1], 1)
        climbers[-1].climb()
        with pytest.raises(Deadlock) as caught:
            await climbers[-1].future
        assert str(caught.value).count("holds <Lock") == 12
        for climber in climbers[:-1]:
            await climber.future
        for lock in locks:
            await is_free(lock)

    run(main)


def test_closed_by_two_at_once() -> None:
    """Wherever one is on its way when the other one closes the circle, too: exactly one of them gets the error."""

    def at_step(number: int) -> bool:
        one, two = Lock(), Lock()
        step = Step(number, "locks", "deadlocks", "parking", "holders")
        errors: list[BaseException] = []
        has, may_go = threading.Event(), threading.Event()

        def climb(first: Lock, second: Lock, step: Any) -> None:
            with first:
                if step is not early:
                    has.set()
                    assert may_go.wait(PATIENCE)
                try:
                    with step, second:
                        pass
                except Deadlock as error:
                    errors.append(error)

        early = step
        late = threading.Thread(target=climb, args=(two, one, nullcontext()))
        late.start()
        assert has.wait(PATIENCE)
        thread = threading.Thread(target=climb, args=(one, two, step))
        thread.start()
        eventually(lambda: step.arrived.is_set() or len(two._line))
        may_go.set()
        mutexes: list[Any] = [deadlocks._mutex, one._mutex, two._mutex]
        eventually(lambda: not late.is_alive() or len(one._line) or any(mutex.locked() for mutex in mutexes))
        step.go()
        for each in (thread, late):
            each.join(PATIENCE)
            assert not each.is_alive()
        assert len(errors) == 1
        for lock in (one, two):
            lock._check()
            assert not lock.locked()
        return step.came

    number = 1
    while at_step(number):
        number += 1
    assert number > 30


# ----------------------------------------------------------------------------------------------------------- awaits


@pytest.mark.parametrize("first", ["lock", "await"])
@pytest.mark.parametrize("between", [0, 1, 2])
def test_a_holder_that_awaits_who_waits_for_it(run: Run, first: str, between: int) -> None:
    """A coroutine awaits, directly or through others, a function that wants its lock: whichever comes last finds it."""

    async def main() -> None:
        lock, gate, go = Lock("index"), Gate(), asyncio.Event()

        @threadlet(contract=ON_WORKER)
        def inner() -> None:
            if first == "await":
                gate()
            with lock:
                pass

        @threadlet
        async def middle(handle: Threadlet[None], last: bool) -> None:
            if last and first == "lock":
                await go.wait()
            await handle

        @threadlet
        async def outer() -> None:
            async with lock:
                handle = inner()
                for number in range(between):
                    handle = middle(handle, number == 0)
                if first == "lock":
                    await in_line(lock, 1)
                    asyncio.get_running_loop().call_later(0, go.set)
                else:
                    asyncio.get_running_loop().call_soon(gate.open)
                await handle

        with pytest.raises(Deadlock) as caught:
            await outer()
        assert all(
            word in str(caught.value) for word in ("inner", "outer", "waits for <Threadlet", "holds <Lock 'index'")
        )
        await until(lambda: not lock.locked() and not len(lock._line))
        await is_free(lock)

    run(main)


def test_call_async(run: Run) -> None:
    """A function that has the lock, and waits for an async function that wants it."""

    async def main() -> None:
        lock = Lock()

        async def use() -> None:
            async with lock:
                pass

        @threadlet(contract=ON_WORKER)
        def work() -> None:
            with lock:
                call_async(use)

        with pytest.raises(Deadlock, match=r"task .*use.* waits for <Lock.*work.* waits for task .*use"):
            await work()
        await is_free(lock)

    run(main)


@pytest.mark.parametrize("kind", ["task", "coroutine", "plain"])
def test_call_async_in_a_region(hands: Run, kind: str) -> None:
    """The same in a region, of a task that is no threadlet, too."""

    async def main() -> None:
        lock = Lock()

        async def use() -> None:
            async with lock:
                pass

        def plain() -> None:
            with lock:
                call_async(use)

        async def work() -> None:
            async with lock:
                with blocking():
                    call_async(use)

        start: Any = {"task": work, "coroutine": threadlet(work), "plain": threadlet(plain)}[kind]
        with pytest.raises(Deadlock):
            await start()
        await is_free(lock)

    hands(main)
