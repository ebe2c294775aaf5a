"""Locks: who may have one, one at a time, in which order, and what becomes of those that use it wrongly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Run
from tests.lockers import KINDS, Party, in_line, is_free
from tests.workbench import IN_PLACE, ON_WORKER, PATIENCE, Gate, rounds, until
from threadlets import Lock, current_threadlet, threadlet
from threadlets.cancellation import holds
from threadlets.surroundings import waiting
from threadlets.waits import in_line as waiters_in_line


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """See that nothing is known any more of those that held locks, or waited for them."""
    yield
    assert not holds and not waiting and not waiters_in_line


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_one_at_a_time(run: Run, first: str, second: str) -> None:
    """Whoever holds it, of whatever kind: another one waits until it is released, and has it then."""

    async def main() -> None:
        lock = Lock()
        holder = await Party(lock, first).has_it()
        assert lock.locked() and lock.owner == holder.who
        other = Party(lock, second)
        await in_line(lock, 1)
        lock._check()
        assert not other.has
        await holder.gone()
        await other.has_it()
        assert lock.owner == other.who != holder.who
        await other.gone()
        await is_free(lock)

    run(main)


def test_many_of_every_kind(run: Run) -> None:
    """Among many who want it at the same time there is never more than one who has it, and each one gets it."""
    inside: list[int] = []
    most: list[int] = []

    def enter() -> None:
        inside.append(1)
        most.append(len(inside))
        inside.pop()

    async def main() -> None:
        lock = Lock()
        parties = [Party(lock, kind, inside=enter).go() for kind in KINDS * 5]
        assert [await party.ended() for party in parties] == [None] * len(parties)
        await is_free(lock)

    run(main)
    assert most == [1] * 20


def test_in_the_order_of_arrival(run: Run) -> None:
    """Those of equal priority get it in the order in which they came, whatever their kinds are."""
    got: list[int] = []

    async def main() -> None:
        lock = Lock()
        holder = await Party(lock, "task").has_it()
        parties = []
        for number in range(8):
            party = Party(lock, KINDS[number % len(KINDS)], inside=lambda number=number: got.append(number))  # type: ignore[misc]
            parties.append(party.go())
            await in_line(lock, number + 1)
        await holder.gone()
        for party in parties:
            await party.gone()
        await is_free(lock)

    run(main)
    assert got == list(range(8))


def test_nobody_comes_in_between(run: Run) -> None:
    """Who releases it to somebody who waits cannot have it back before him, and nobody else can.

    (anyio#1170, in its limiter: what was released for one who waited was had by another one before he woke.)
    """

    async def main() -> None:
        lock = Lock()
        await lock.acquire_async()
        other = Party(lock, "task")
        await in_line(lock, 1)
        lock.release()
        assert lock.locked() and not other.has
        assert await asyncio.to_thread(lock.acquire, 0) is False
        other.go()
        await lock.acquire_async()
        assert other.has
        lock.release()
        await other.gone()
        await is_free(lock)

    run(main)


def test_on_plain_threads() -> None:
    """Where there is no event loop at all it is a lock like any other; its owner is the number of the thread."""
    lock = Lock("plain")
    count = 0

    def add() -> None:
        nonlocal count
        for _ in range(200):
            with lock:
                before = count
                assert lock.owner == threading.get_ident()
                count = before + 1

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert count == 800
    lock._check()


def test_acquire_and_its_timeout() -> None:
    """It says whether the lock was had in time; with 0 it does not wait at all."""
    lock, gate = Lock(), Gate()

    def hold() -> None:
        with lock:
            gate()

    assert lock.acquire() is True
    lock.release()
    thread = threading.Thread(target=hold)
    thread.start()
    gate.wait_arrived()
    assert lock.acquire(timeout=0) is False
    assert lock.acquire(timeout=0.001) is False
    assert len(lock._line) == 0
    lock._check()
    gate.open()
    assert lock.acquire(timeout=PATIENCE) is True
    lock.release()
    thread.join(PATIENCE)
    assert lock.acquire(timeout=float("inf")) and lock.locked()
    lock.release()


def test_what_it_says(run: Run) -> None:
    """Its repr tells its name, whether it can be had, and how many wait; it belongs to who runs there."""

    async def main() -> None:
        lock = Lock("index")
        assert repr(lock) == "<Lock 'index': free>" and repr(Lock()) == "<Lock: free>"
        assert lock.owner is None and not lock.locked()
        async with lock:
            assert lock.owner is asyncio.current_task()
            assert repr(lock) == "<Lock 'index': taken>"
            other = Party(lock, "worker").go()
            await in_line(lock, 1)
            assert repr(lock) == "<Lock 'index': taken, 1 waiting>"
        await other.gone()

        @threadlet
        async def coroutine() -> bool:
            async with lock:
                await asyncio.sleep(0)
                return lock.owner is current_threadlet()

        @threadlet(contract=IN_PLACE)
        def in_place() -> bool:
            with lock:
                return lock.owner is current_threadlet()

        assert await coroutine() and await in_place()

    run(main)


def test_bad_arguments() -> None:
    """What is no name, no time or no timeout is refused at once."""
    with pytest.raises(TypeError, match="expected a name"):
        Lock(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected seconds"):
        Lock(grace="1")  # type: ignore[arg-type]
    for grace in (-1, float("nan")):
        with pytest.raises(ValueError, match="0 or more seconds"):
            Lock(grace=grace)
    lock = Lock()
    for timeout in (-1, float("nan")):
        with pytest.raises(ValueError, match="0 or more seconds"):
            lock.acquire(timeout)
    for wrong in ("1", False):
        with pytest.raises(TypeError, match="expected seconds"):
            lock.acquire(wrong)  # type: ignore[arg-type]
    lock._check()
    assert not lock.locked()


def test_on_the_wrong_side(run: Run) -> None:
    """``with`` in a coroutine, which would stall the loop, and ``async with`` outside of a task say what to use."""

    async def main() -> None:
        lock = Lock("index")
        for use in (lock.acquire, lock.__enter__):
            with pytest.raises(RuntimeError, match=r"'with <Lock 'index': free>' in a coroutine.*use 'async with'"):
                use()
        errors: list[BaseException] = []

        def callback() -> None:
            try:
                lock.acquire_async().send(None)
            except RuntimeError as error:
                errors.append(error)

        asyncio.get_running_loop().call_soon(callback)
        await until(lambda: errors)
        await threadlet(contract=ON_WORKER)(callback)()
        assert [str(error).partition(":")[0] for error in errors] == ["'async with' a lock, outside of a task"] * 2
        await is_free(lock)

    run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_released_by_another_one(run: Run, kind: str) -> None:
    """Only who holds it may release it; the error names both, and the lock stays as it is."""

    async def main() -> None:
        lock = Lock("index")
        holder = await Party(lock, kind).has_it()
        with pytest.raises(
            RuntimeError, match=r"released by task .*does not hold it: .* holds .*taken at .*lockers.py:\d"
        ):
            lock.release()
        with pytest.raises(RuntimeError, match=r"released by thread .*, which does not hold it"):
            await asyncio.to_thread(lock.release)
        asyncio.get_running_loop().call_soon(_fails, lock.release)
        await rounds()
        assert lock.owner == holder.who
        await holder.gone()
        with pytest.raises(RuntimeError, match="does not hold it: nobody holds it"):
            lock.release()
        await is_free(lock)

    run(main)


def _fails(function: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError):
        function()


def test_released_twice() -> None:
    """The second release is an error, also if somebody else has the lock by then."""
    lock = Lock()
    lock.acquire()
    lock.release()
    with pytest.raises(RuntimeError, match="nobody holds it"):
        lock.release()
    lock._check()
    with lock:
        pass
