"""Locks whose holder does not release them as he should: told by force, ended, or on a loop that is no more."""

from __future__ import annotations

import asyncio
import threading
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import pytest

from tests.conftest import Run
from tests.lockers import KINDS, LOCAL, Party, in_line, is_free
from tests.workbench import ABANDON, ON_WORKER, PATIENCE, Gate, ended, forever, until
from threadlets import Lock, Pool, checkpoint, threadlet
from threadlets.cancellation import holds
from threadlets.deadlocks import _waiters, for_locks
from threadlets.errors import LockPoisoned
from threadlets.surroundings import waiting
from threadlets.waits import in_line as waiters_in_line


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """See that nothing is known any more of those that held locks."""
    yield
    assert not holds and not for_locks and not waiters_in_line


class Rolled(Exception):
    """What a failed clean-up raises."""


@contextmanager
def by_hand(lock: Lock) -> Iterator[None]:
    """Use a lock by ``acquire`` and ``release``."""
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def failing(lock: Lock) -> Iterator[None]:
    """Use a lock, and fail to clean up when the block is left."""
    with lock:
        try:
            yield
        except CancelledError:
            raise Rolled from None


@pytest.mark.parametrize("way", [lambda lock: lock, by_hand, failing], ids=["with", "release", "failing"])
@pytest.mark.parametrize("inside", [True, False], ids=["told", "not told"])
def test_forced_on_a_thread(run: Run, way: Callable[[Lock], Any], inside: bool) -> None:
    """A function that leaves the lock since its grace has run out poisons it; one that does not listen does not."""

    async def main() -> None:
        lock = Lock("index", grace=0.0)
        began = threading.Event()

        @threadlet(contract=ON_WORKER)
        def work() -> None:
            with way(lock):
                began.set()
                while inside or not holds[handle].forced:
                    if inside:
                        checkpoint()

        handle = work()
        await until(began.is_set)
        other = Party(lock, "task")
        await in_line(lock, 1)
        handle.cancel("enough")
        error = await ended(handle)
        assert isinstance(error, Rolled if way is failing and inside else CancelledError)
        if not inside:
            await other.has_it()
            await other.gone()
            await is_free(lock)
            return
        poisoned = await other.ended()
        assert isinstance(poisoned, LockPoisoned)
        assert "<Threadlet" in str(poisoned) and "lock.repair()" in str(poisoned) and "index" in str(poisoned)
        await is_poisoned(lock)

    run(main)


async def is_poisoned(lock: Lock) -> None:
    """Nobody can have it, whatever his kind is, before it is repaired; then anybody can."""
    lock._check()
    assert lock.poisoned and not lock.locked() and "poisoned" in repr(lock)
    for kind in KINDS:
        assert isinstance(await Party(lock, kind).ended(), LockPoisoned)
    with pytest.raises(LockPoisoned):
        await asyncio.to_thread(lock.acquire, 0)
    lock._check()
    lock.repair()
    lock.repair()
    assert not lock.poisoned
    for kind in KINDS:
        await (await Party(lock, kind).has_it()).gone()
    await is_free(lock)


@pytest.mark.parametrize("caught", [False, True])
def test_forced_in_a_coroutine(run: Run, caught: bool) -> None:
    """A coroutine poisons it by what leaves the block; not if it has caught that, and gone on to the end."""

    async def main() -> None:
        lock = Lock(grace=0.0)

        @threadlet
        async def work() -> None:
            async with lock:
                with suppress(CancelledError) if caught else nullcontext():
                    await forever()

        handle = work()
        handle.cancel()
        await ended(handle)
        if caught:
            await is_free(lock)
        else:
            await is_poisoned(lock)

    run(main)


def test_an_error_of_its_own_poisons_nothing(run: Run) -> None:
    """Neither an exception nor what ends a block of the holder's own accord makes the lock poisoned."""

    async def main() -> None:
        lock = Lock(grace=0.0)

        @threadlet
        async def work(error: type[BaseException]) -> None:
            async with lock:
                raise error

        assert isinstance(await ended(work(ValueError)), ValueError)
        await ended(work(CancelledError))
        with suppress(TimeoutError):
            async with asyncio.timeout(0), lock:
                await forever()
        await is_free(lock)

    run(main)


@pytest.mark.parametrize("kind", LOCAL)
@pytest.mark.parametrize("waits", [True, False], ids=["before", "after"])
def test_ended_without_a_release(run: Run, kind: str, waits: bool) -> None:
    """Who waits for a lock whose holder has ended gets an error, whether he came before or after that."""

    async def main() -> None:
        lock, gate, event = Lock(), Gate(), asyncio.Event()

        def take() -> None:
            lock.acquire()
            gate()

        async def take_async() -> None:
            await lock.acquire_async()
            await event.wait()

        start: dict[str, Callable[[], Any]] = {
            "worker": threadlet(contract=ON_WORKER)(take),
            "coroutine": threadlet(take_async),
            "task": lambda: asyncio.create_task(take_async()),
        }
        holder = start[kind]()
        await until(lock.locked)
        others: list[Party] = []
        if waits:
            others = [Party(lock, other) for other in KINDS]
            await in_line(lock, len(KINDS))
        gate.open()
        event.set()
        await holder
        if not waits:
            others = [Party(lock, other) for other in KINDS]
        for other in others:
            error = await other.ended()
            assert isinstance(error, LockPoisoned)
            assert "ended while it held it, taken at" in str(error) and "test_locks_poisoned.py" in str(error)
        await is_poisoned(lock)

    run(main)


def test_abandoned_with_the_lock_in_hand(run: Run) -> None:
    """A function that goes on unobserved keeps the lock until it releases it."""

    async def main() -> None:
        lock, gate = Lock(), Gate()

        @threadlet(contract=ABANDON)
        def work() -> None:
            with lock:
                gate()

        async with Pool() as pool:
            handle = pool.start(work)
            await until(lock.locked)
            other = Party(lock, "task")
            await in_line(lock, 1)
            handle.cancel()
            assert handle.cancelled() and lock.owner is handle
            gate.open()
            await other.has_it()
            await other.gone()
            await until(lambda: not pool._abandoned)
        await is_free(lock)

    run(main)


# ----------------------------------------------------------------------------------------------- loops that are no more


class Lost:
    """A loop that is closed in the middle of everything: what it runs is never run again."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.loop = run.new_loop()

    def start(self, coroutine: Any) -> asyncio.Task[Any]:
        """Have a task come as far as it can."""
        task = self.loop.create_task(coroutine)
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.run_until_complete(asyncio.sleep(0))
        return task

    def close(self, *tasks: asyncio.Task[Any]) -> None:
        """Close the loop, and let nobody complain of tasks that are pending."""
        self.loop.close()
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]


async def _hold(lock: Lock) -> None:
    async with lock:
        await forever()


@pytest.mark.parametrize("granted", [False, True])
def test_a_waiter_whose_loop_is_closed(run: Run, granted: bool) -> None:
    """He is passed over; also if the lock was given to him just before, and he has not learned of it."""
    lost, lock = Lost(run), Lock()
    lock.acquire()
    task = lost.start(_hold(lock))
    assert len(lock._line) == 1
    if granted:
        thread = threading.Thread(target=lock._hand_on, args=(lock.owner,))  # from another thread: it has to wake him
        thread.start()
        thread.join(PATIENCE)
        assert lock.owner is task
        lost.close(task)
    else:
        lost.close(task)
        lock.release()
        assert not lock.locked()
    assert lock.acquire(timeout=PATIENCE)
    _forget(task)
    task.get_coro().close()  # type: ignore[union-attr]  # as the garbage collector does it, some day
    assert lock.owner == threading.get_ident()
    lock.release()
    lock._check()


def test_a_loop_that_is_closed_in_the_same_moment(run: Run) -> None:
    """A waiter whose loop is closed after it was looked at, and before he is woken, does not get the lock."""
    lost, lock = Lost(run), Lock()
    lock.acquire()
    task = lost.start(_hold(lock))
    waiter = lock._line.first()
    lost.close(task)
    assert waiter is not None
    type(waiter).is_lost, before = property(lambda self: False), type(waiter).is_lost  # type: ignore[attr-defined, method-assign, assignment]
    try:
        lock.release()
    finally:
        type(waiter).is_lost = before  # type: ignore[attr-defined, method-assign]
    lock._check()
    assert not lock.locked()
    _forget(task)


def test_a_holder_whose_loop_is_closed(run: Run) -> None:
    """Who waits for him learns that he will never release it."""
    lost, lock = Lost(run), Lock()
    task = lost.start(_hold(lock))
    assert lock.owner is task
    lost.close(task)
    with pytest.raises(LockPoisoned, match="ended while it held it"):
        lock.acquire()
    lock._check()
    lock.repair()
    with lock:
        pass


def _forget(task: asyncio.Task[Any]) -> None:
    """Forget a task that waits for ever: nobody else would."""
    waiting.pop(task, None)
    _waiters.pop(task, None)
