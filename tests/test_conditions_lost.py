"""Waits at a condition that are interrupted, thrown away, or whose lock cannot be had again."""

from __future__ import annotations

import asyncio
import signal
import threading
from asyncio import CancelledError
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Run
from tests.support import eventually
from tests.waiters import Waiting, in_line, notify, outcome, start, wanted
from tests.workbench import IN_PLACE, ON_WORKER, Gate, until
from threadlets import Lock, Pool, checkpoint, current_threadlet, threadlet
from threadlets.conditions import Condition
from threadlets.errors import Deadlock, LockPoisoned


@pytest.mark.parametrize("kind", ["worker", "coroutine", "task"])
@pytest.mark.parametrize("end", ["notify", "cancel"])
def test_poisoned_meanwhile(run: Run, kind: str, end: str) -> None:
    """If the lock was poisoned, the wait ends with just that error, however else it was to end."""

    async def main() -> None:
        condition = Condition(Lock("half", grace=0))
        waiting = Waiting(condition)
        waiter = waiting.start(kind)
        await in_line(condition, 1)
        gate = Gate()

        @threadlet(contract=ON_WORKER)
        def breaks() -> None:
            with condition:
                if end == "notify":
                    condition.notify()
                gate()
                while True:
                    checkpoint()

        breaking = breaks()
        await asyncio.to_thread(gate.wait_arrived)
        if end == "cancel":
            waiter.cancel()
        await wanted(condition.lock)
        breaking.cancel()
        gate.open()
        assert isinstance(await outcome(breaking), CancelledError)
        error = await outcome(waiter)
        assert isinstance(error, LockPoisoned)
        assert [held for _, held in waiting.ended] == [False]
        condition.lock.repair()
        waiter = waiting.start(kind)
        await in_line(condition, 1)
        await notify(condition)
        await waiter
        assert waiting.ended[-1] == (True, True)

    run(main)


def test_a_circle_meanwhile(run: Run) -> None:
    """If to wait for the lock closes a circle, the wait ends with just that error, and the circle is open again.

    A: holds `other`, waits                      B: holds the condition's lock
    A: is cancelled, wants the condition's lock  B: wants `other`, waits for A
    """

    async def main() -> None:
        condition, other = Condition(Lock("ours")), Lock("other")
        waiting = Waiting(condition)

        def wait() -> None:
            with other:
                waiting.wait()

        async def wait_async() -> None:
            async with other:
                await waiting.wait_async()

        async def both() -> None:
            async with condition, other:
                pass

        for kind in ("worker", "task"):
            first_one = start(kind, wait, wait_async)
            await in_line(condition, 1)
            second_one = asyncio.create_task(both())
            await wanted(other)
            if kind == "task":
                first_one.cancel()
            else:
                condition._do(condition._hand_on)  # it holds a lock, which would hold a cancel back
            error = await outcome(first_one)
            assert isinstance(error, Deadlock) and "'ours'" in str(error) and "'other'" in str(error)
            await second_one
        assert [held for _, held in waiting.ended] == [False, False]
        assert not condition.lock.locked() and not other.locked()

    run(main)


def test_a_circle_that_is_closed_later() -> None:
    """A circle that somebody else closes is found, too, where a wait for the lock keeps an event loop from going on.

    in place: notified, wants the lock       thread: holds it, and hands it to a task of that very loop
    """
    condition = Condition()
    errors: list[Any] = []
    handles: list[Any] = []

    def first_holder() -> None:
        with condition.lock:
            eventually(lambda: len(condition.lock._line) == 3)

    def second_holder() -> None:
        with condition.lock:
            eventually(lambda: len(condition._line) == 1)
            handles[0].priority = 5  # now the task comes before it
            condition.notify()
            eventually(lambda: len(condition.lock._line) == 2)

    def in_place() -> None:
        handles.append(current_threadlet())
        try:
            with condition:
                condition.wait()
        except Deadlock as error:
            errors.append(error)

    async def take() -> None:
        async with condition.lock:
            pass

    async def main() -> None:
        threads = [asyncio.create_task(asyncio.to_thread(first_holder))]
        await until(condition.lock.locked)
        threads.append(asyncio.create_task(asyncio.to_thread(second_holder)))
        await wanted(condition.lock)
        task = asyncio.create_task(take())
        await wanted(condition.lock, 2)
        await Pool().start(threadlet(contract=IN_PLACE)(in_place), priority=-1)
        await asyncio.gather(task, *threads)
        assert "cannot go on while its event loop is blocked" in str(errors[0])
        assert not condition.lock.locked()

    asyncio.run(main())


def test_an_error_that_is_swallowed(run: Run) -> None:
    """Who goes on in the block as if he had the lock gets an error at its end."""

    async def main() -> None:
        condition = Condition()

        async def wait() -> None:
            async with condition:
                with pytest.raises(LockPoisoned):
                    await condition.wait_async()

        waiter = asyncio.create_task(wait())
        await in_line(condition, 1)
        condition.lock._hand_on(None, "left in a mess")
        async with asyncio.timeout(20):
            waiter.cancel()
            assert isinstance(await outcome(waiter), RuntimeError)
        assert not len(condition._line)

    run(main)


class Interrupt(Exception):
    """What a signal handler raises."""


interrupts: list[int] = []  # how often it has


@pytest.fixture
def handler() -> Iterator[None]:
    """Have SIGUSR1 raise an Interrupt on the main thread."""

    def interrupt(*_: object) -> None:
        interrupts.append(1)
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)
    interrupts.clear()


def test_interrupted(handler: None) -> None:
    """A signal handler that raises ends the wait, once the lock is held again: also while that is waited for."""
    condition = Condition()
    main = threading.get_ident()
    has_it, wanted_it = threading.Event(), threading.Event()

    def take_the_lock() -> None:
        eventually(lambda: len(condition._line) == 1)
        with condition:
            has_it.set()
            for _ in range(2):
                signal.pthread_kill(main, signal.SIGUSR1)
                eventually(lambda: len(condition.lock._line) == 1)
            wanted_it.set()

    thread = threading.Thread(target=take_the_lock)
    thread.start()
    with condition:
        with pytest.raises(Interrupt):
            condition.wait()
        assert wanted_it.is_set(), "and not before the lock was free"
        condition.notify()
    thread.join()
    assert not condition.lock.locked() and not len(condition._line)


def test_interrupted_on_the_way_back(handler: None) -> None:
    """Who was notified, and is interrupted while he waits for the lock, has it then; the next one is notified."""
    condition = Condition()
    main = threading.get_ident()
    went_on: list[bool] = []

    def second() -> None:
        with condition:
            went_on.append(condition.wait(20))

    def notifies() -> None:
        eventually(lambda: len(condition._line) == 1)
        follower.start()
        eventually(lambda: len(condition._line) == 2)
        with condition:
            condition.notify()
            eventually(lambda: len(condition.lock._line) == 1)
            signal.pthread_kill(main, signal.SIGUSR1)
            eventually(lambda: interrupts)

    follower, notifier = threading.Thread(target=second), threading.Thread(target=notifies)
    notifier.start()
    with condition:
        with pytest.raises(Interrupt):
            condition.wait()
        condition.notify(0)
    follower.join()
    notifier.join()
    assert went_on == [True]


def test_a_generator_that_is_closed(run: Run) -> None:
    """An asynchronous generator that is closed inside of the block releases the lock."""

    async def main() -> None:
        condition = Condition()

        async def generate() -> Any:
            async with condition:
                yield 1

        generator = generate()
        async for _ in generator:
            assert condition.lock.locked()
            break
        await generator.aclose()
        assert not condition.lock.locked()

    run(main)
