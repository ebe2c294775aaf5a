"""Circles that an event loop is in, since a function blocks it in place: found, and only where there is one.

While a function waits for a lock in place, nothing else of its loop goes on: whoever holds the lock and needs the loop
for that, in whatever way, waits for the function.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.conftest import Run
from tests.support import eventually
from tests.workbench import IN_PLACE, ON_WORKER, PATIENCE, Gate, ended, rounds
from threadlets import Lock, blocking, call_async, threadlet
from threadlets.errors import Deadlock


@threadlet(contract=IN_PLACE)
def takes(lock: Lock) -> str:
    """Want it, and block the loop meanwhile: such a function is not guarded on any loop."""
    with lock:
        return "has it"


async def nothing() -> str:
    return "done"


def test_an_async_function_that_could_not_be_started(run: Run) -> None:
    """A function that holds the lock calls an async one, when the loop is blocked already."""
    lock, gate = Lock("wanted"), Gate()

    @threadlet(contract=ON_WORKER)
    def holds() -> Any:
        with lock:
            gate()
            eventually(lambda: len(lock._line))
            return call_async(nothing)

    async def main() -> None:
        holder = holds()
        await asyncio.to_thread(gate.wait_arrived)
        gate.open()
        with pytest.raises(Deadlock, match=r"takes .*; .*holds running.* cannot go on while its event loop"):
            await takes(lock)
        assert await holder == "done"

    run(main)


def test_who_has_just_been_given_it(run: Run) -> None:
    """A coroutine that stood in line has the lock, and needs the loop to hear of that."""
    lock = Lock("wanted")

    async def main() -> None:
        @threadlet
        async def waits() -> str:
            async with lock:
                return "has had it"

        async with lock:
            waiter = waits()
            await rounds()
        assert lock.owner is waiter
        assert isinstance(await ended(takes(lock)), Deadlock)
        assert await waiter == "has had it"

    run(main)


@pytest.mark.parametrize("kind", ["coroutine", "task"])
def test_a_holder_that_awaits_a_worker(run: Run, kind: str) -> None:
    """What it awaits goes on, and ends: but it cannot hear of that."""
    lock, gate = Lock("wanted"), Gate()

    async def main() -> None:
        async def holds() -> str:
            async with lock:
                return await threadlet(contract=ON_WORKER)(gate)("heard of it")

        holder: Any = asyncio.ensure_future(holds()) if kind == "task" else threadlet(holds)()
        await rounds()
        await asyncio.to_thread(gate.wait_arrived)
        assert isinstance(await ended(takes(lock)), Deadlock)
        gate.open()
        assert await holder == "heard of it"

    run(main)


@pytest.mark.parametrize("kind", ["coroutine", "task"])
@pytest.mark.parametrize("release", ["in the region", "behind it"])
def test_a_holder_in_a_region(hands: Run, kind: str, release: str) -> None:
    """Whoever is away from its loop in a region goes on until the end of that: there it needs the loop."""
    lock, inside = Lock("wanted"), threading.Event()

    def wait_for_a_waiter() -> None:
        inside.set()
        eventually(lambda: len(lock._line))

    async def main() -> None:
        async def in_the_region() -> None:
            with blocking(), lock:
                wait_for_a_waiter()

        async def behind_it() -> None:
            async with lock:
                with blocking():
                    wait_for_a_waiter()

        async def other() -> Any:
            await asyncio.to_thread(inside.wait, PATIENCE)
            return await ended(takes(lock))

        waiter = asyncio.create_task(other())
        await rounds()
        function = in_the_region if release == "in the region" else behind_it
        await (asyncio.ensure_future(function()) if kind == "task" else threadlet(function)())
        error = await waiter
        assert error is None if release == "in the region" else isinstance(error, Deadlock)
        assert not lock.locked()

    hands(main)
