"""Locks at every step: one is stopped at each line of the library in turn, while the others go on."""

from __future__ import annotations

import asyncio
import threading
import time
from asyncio import CancelledError
from collections.abc import Iterator

import pytest

from tests.conftest import Run
from tests.lockers import Party, Step, is_free
from tests.workbench import ON_WORKER, PATIENCE, Gate, ended, rounds, until
from threadlets import Lock, blocking, checkpoint, threadlet
from threadlets.cancellation import Hold, holds
from threadlets.deadlocks import for_locks
from threadlets.surroundings import waiting
from threadlets.waits import in_line as waiters_in_line


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """See that nothing is known any more of those that held locks, or waited for them."""
    yield
    assert not holds and not waiting and not for_locks and not waiters_in_line


@pytest.mark.parametrize("what", ["release", "cancel, release", "release, cancel", "timeout, release"])
def test_released_at_every_step_of_a_wait(what: str) -> None:
    """Wherever a worker is on its way when the lock is released: he has it or not, and then it is free.

    In particular, nobody waits on for a lock that has become free while he joined the line, or was given it while he
    left.
    """
    outcomes: set[tuple[bool, bool]] = set()

    async def at_step(number: int) -> bool:
        lock, gate = Lock(), Gate()
        holder = threading.Thread(target=lambda: (lock.acquire(), gate(), lock.release()))
        holder.start()
        gate.wait_arrived()
        step = Step(number, "locks", "parking", "holders", "deadlocks")
        got: list[bool] = []

        def wait() -> None:
            with step:
                got.append(lock.acquire(timeout=0.0001 if "timeout" in what else None))
            if got[0]:
                lock.release()

        handle = threadlet(contract=ON_WORKER)(wait)()
        await until(lambda: step.arrived.is_set() or len(lock._line))
        for each in what.split(", "):
            if each == "release":
                gate.open()
                await until(lambda: not holder.is_alive() or lock._mutex.locked())  # he may have stopped with it
            elif each == "cancel":
                handle.cancel()
            await asyncio.to_thread(step.arrived.wait)
        step.go()
        error = await ended(handle)
        await asyncio.to_thread(holder.join)
        outcomes.add((error is not None, got == [True]))
        await is_free(lock)
        return step.came

    number = 1
    while asyncio.run(at_step(number)):
        number += 1
    assert number > 30
    assert (
        outcomes
        == {
            "release": {(False, True)},
            "cancel, release": {(True, True), (True, False)},
            "release, cancel": {(True, True), (True, False), (False, True)},
            "timeout, release": {(False, True), (False, False)},
        }[what]
    )


def test_joined_at_every_step_of_a_release() -> None:
    """Wherever a holder is on his way when somebody comes: that one has the lock in the end, and each after him."""

    async def at_step(number: int) -> bool:
        lock, gate = Lock(), Gate()
        step = Step(number, "locks", "parking", "holders", "deadlocks")

        def hold() -> None:
            lock.acquire()
            gate()
            with step:
                lock.release()

        holder = threadlet(contract=ON_WORKER)(hold)()
        await asyncio.to_thread(gate.wait_arrived)
        gate.open()
        await asyncio.to_thread(step.arrived.wait)
        parties = [Party(lock, "thread") for _ in range(2)]
        await until(lambda: lock._mutex.locked() or len(lock._line) + sum(party.has for party in parties) == 2)
        step.go()
        await holder
        for party in parties:
            party.go()
        for party in parties:
            assert await party.ended() is None and party.has
        await is_free(lock)
        return step.came

    number = 1
    while asyncio.run(at_step(number)):
        number += 1
    assert number > 10


@pytest.mark.parametrize("contended", [False, True])
def test_asked_just_before_it_has_the_lock(contended: bool) -> None:
    """A cancel that comes while a function is getting the lock is held back by it, but not longer than its grace."""

    async def at_step(number: int) -> bool:
        lock, gate = Lock(grace=0.0), Gate()
        step = Step(number, "locks", "parking", "cancellation")

        def work() -> None:
            with step:
                lock.acquire()
            try:
                while time.monotonic() < end:
                    checkpoint()
            finally:
                lock.release()

        end = time.monotonic() + PATIENCE
        holder = threading.Thread(target=lambda: (lock.acquire(), gate(), lock.release()))
        if contended:
            holder.start()
            gate.wait_arrived()
        handle = threadlet(contract=ON_WORKER)(work)()
        await until(lambda: step.arrived.is_set() or len(lock._line))
        gate.open()
        await asyncio.to_thread(step.arrived.wait)
        handle.cancel()
        step.go()
        assert isinstance(await ended(handle), CancelledError) and time.monotonic() < end
        if contended:
            await asyncio.to_thread(holder.join)
        lock.repair()
        await is_free(lock)
        return step.came

    number = 1
    while asyncio.run(at_step(number)):
        number += 1
    assert number > 10


@pytest.mark.parametrize("seen", [False, True])
def test_cancelled_as_a_region_leaves(hands: Run, seen: bool) -> None:
    """A cancel that meets the release of a coroutine's lock in a region is told once: it is not lost, nor told twice.

    Args:
        seen: Whether the one who releases sees the reason that is being kept.
    """

    class Racing(Hold):
        """A hold that its threadlet leaves while a reason is being kept."""

        @property
        def pending(self) -> tuple[object, ...]:  # type: ignore[override]
            return self.__dict__.get("pending", ())

        @pending.setter
        def pending(self, reasons: tuple[object, ...]) -> None:
            if not seen and not left.is_set():
                gate.open()
                assert left.wait(PATIENCE)
            self.__dict__["pending"] = reasons
            if not left.is_set():
                gate.open()
                assert left.wait(PATIENCE)

    gate, left = Gate(), threading.Event()
    told: list[object] = []

    async def main() -> None:
        lock = Lock()

        @threadlet
        async def work() -> None:
            await asyncio.sleep(0)
            with blocking():
                lock.acquire()
                gate()
                lock.release()
                left.set()
                after.wait(PATIENCE)
            for _ in range(3):
                try:
                    await asyncio.sleep(0)
                except CancelledError as error:
                    told.extend(error.args)
            told.append(asyncio.current_task().cancelling())  # type: ignore[union-attr]

        after = threading.Event()
        handle = work()
        await until(lambda: handle in holds)
        racing = Racing()
        racing.blocks = holds[handle].blocks
        holds[handle] = racing
        handle.cancel("once")
        await rounds()
        after.set()
        await ended(handle)
        await is_free(lock)

    hands(main)
    assert told == ["once", 1]
