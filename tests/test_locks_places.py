"""Locks in all places: loops inside of functions, several loops, regions, loops that change hands."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Run
from tests.lockers import Party, in_line, is_free
from tests.workbench import ON_WORKER, PATIENCE, Gate
from threadlets import Lock, blocking, defer, threadlet
from threadlets.cancellation import holds
from threadlets.errors import Deadlock
from threadlets.surroundings import waiting
from threadlets.waits import in_line as waiters_in_line


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """See that nothing is known any more of those that held locks, or waited for them."""
    yield
    assert not holds and not waiting and not waiters_in_line


def test_a_loop_inside_of_a_function(run: Run) -> None:
    """The tasks of a loop that a function runs by itself exclude each other: they are not that function."""
    seen: list[str] = []

    async def main() -> None:
        lock = Lock()

        async def use(name: str) -> None:
            async with lock:
                seen.append(name)
                await asyncio.sleep(0)
                seen.append(name)

        async def inner() -> None:
            await asyncio.gather(use("a"), use("b"))

        @threadlet(contract=ON_WORKER)
        def work() -> None:
            asyncio.run(inner())

        await work()
        await is_free(lock)

    run(main)
    assert seen == ["a", "a", "b", "b"]


def test_a_function_that_is_called_right_there(run: Run) -> None:
    """An entrypoint that another function calls is part of that: they hold a lock together."""

    async def main() -> None:
        lock = Lock()

        @threadlet
        def take() -> None:
            lock.acquire()

        @threadlet(contract=ON_WORKER)
        def work() -> object:
            take().result()
            with pytest.raises(Deadlock):
                take().result()
            owner = lock.owner
            lock.release()
            return owner

        handle = work()
        assert await handle is handle
        await is_free(lock)

    run(main)


def test_two_loops() -> None:
    """Tasks of two event loops, each on its own thread, exclude each other, and none is forgotten."""
    lock = Lock()
    count = 0

    async def add() -> None:
        nonlocal count
        for _ in range(50):
            async with lock:
                before = count
                await asyncio.sleep(0)
                count = before + 1

    async def main() -> None:
        await asyncio.gather(add(), add())

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert count == 200
    lock._check()


def test_in_a_region(hands: Run) -> None:
    """In ``with blocking()`` the lock belongs to the task, and the loop goes on while it waits there."""

    async def main() -> None:
        lock = Lock()
        async with lock:
            party = Party(lock, "region")
            await in_line(lock, 1)
        await party.has_it()
        assert party.who is party.future
        await party.gone()
        with blocking():
            lock.acquire()
        assert lock.owner is asyncio.current_task()
        lock.release()
        await is_free(lock)

    hands(main)


def test_held_while_the_loop_changes_hands(hands: Run) -> None:
    """A function in place that blocks with the lock in hand keeps it; it waits in place, too, and the loop goes on."""

    async def main() -> None:
        lock, gate = Lock(), Gate()

        @threadlet
        def hold() -> None:
            with lock:
                gate()

        holder = asyncio.create_task(_call(hold))
        await asyncio.sleep(0)
        gate.wait_arrived()  # on another thread, while it is away
        others = [asyncio.create_task(_call(hold)) for _ in range(2)]
        await in_line(lock, 2)
        assert not lock.owner.done()  # type: ignore[attr-defined]
        gate.open()
        await asyncio.gather(holder, *others)
        await is_free(lock)

    hands(main)


async def _call(function: Callable[[], Any]) -> None:
    await function()


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_released_by_what_was_deferred(run: Run, kind: str) -> None:
    """``defer(lock.release)`` counts as the threadlet's own release."""

    async def main() -> None:
        lock = Lock()

        @threadlet(contract=ON_WORKER)
        def plain() -> None:
            lock.acquire()
            defer(lock.release)

        @threadlet
        async def coroutine() -> None:
            await lock.acquire_async()
            defer(lock.release)

        await (plain() if kind == "plain" else coroutine())
        await is_free(lock)

    run(main)
