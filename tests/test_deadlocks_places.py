"""Circles of waits with functions in place: their callers, and the event loops that they block."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.conftest import Run
from tests.lockers import Party, is_free
from tests.workbench import IN_PLACE, ON_WORKER, Gate, until
from threadlets import Contract, Lock, call_async, threadlet
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


@pytest.mark.parametrize(("kind", "contract"), [("task", IN_PLACE), ("coroutine", IN_PLACE), ("coroutine", ON_WORKER)])
def test_a_function_that_its_caller_waits_for(run: Run, kind: str, contract: Contract) -> None:
    """A function wants the lock of the coroutine that has called it, in place; or on a worker, if that is awaited."""

    async def main() -> None:
        lock = Lock()

        @threadlet(contract=contract)
        def inner() -> None:
            with lock:
                pass

        async def outer() -> None:
            async with lock:
                await inner()

        with pytest.raises(Deadlock, match=r"inner.*waits for <Lock.*holds <Lock.*waits for <Threadlet .*inner"):
            await (threadlet(outer)() if kind == "coroutine" else asyncio.create_task(outer()))
        await until(lambda: not lock.locked())
        await is_free(lock)

    run(main)


def test_a_function_in_place_that_is_not_watched(hands: Run) -> None:
    """On a loop that changes hands, too, and while another thread runs it, the caller of a function is its own."""

    async def main() -> None:
        lock, gate = Lock(), Gate()

        @threadlet
        def inner() -> None:
            gate()  # the loop is taken over
            with lock:
                pass

        async def outer() -> None:
            async with lock:
                await inner()

        task = asyncio.create_task(outer())
        await asyncio.sleep(0)
        await until(lambda: asyncio.get_running_loop()._threadlets_token.away)  # type: ignore[attr-defined]
        gate.open()
        with pytest.raises(Deadlock):
            await task
        await is_free(lock)

    hands(main)


@pytest.mark.parametrize("kind", ["task", "coroutine"])
def test_a_loop_that_is_blocked(run: Run, kind: str) -> None:
    """A function in place blocks its loop, and waits for a lock of somebody who can go on only there."""

    async def main() -> None:
        lock = Lock()
        holder = await Party(lock, kind).has_it()

        @threadlet(contract=IN_PLACE)
        def wait() -> None:
            with lock:
                pass

        with pytest.raises(Deadlock, match="cannot go on while its event loop is blocked"):
            await wait()
        await holder.gone()
        await is_free(lock)

    run(main)


@pytest.mark.parametrize("way", ["call_async", "lock"])
def test_a_loop_that_is_needed_later(run: Run, way: str) -> None:
    """A worker has the lock that blocks the loop, and comes to need the loop only afterwards."""

    async def main() -> None:
        lock, other, gate = Lock(), Lock(), Gate()
        holder = await Party(other, "task").has_it()

        async def nothing() -> None:
            pass

        @threadlet(contract=ON_WORKER)
        def work() -> str:
            with lock:
                gate()
                while not len(lock._line):
                    pass
                try:
                    if way == "lock":
                        other.acquire()
                        other.release()
                    else:
                        call_async(nothing)
                except Deadlock:
                    return "found here"
            return "went on"

        @threadlet(contract=IN_PLACE)
        def wait() -> str:
            gate.open()
            try:
                with lock:
                    return "went on"
            except Deadlock:
                return "found here"

        handle = work()
        await asyncio.to_thread(gate.wait_arrived)
        waits = await wait()
        await holder.gone()
        assert {waits, await handle} == {"went on", "found here"}
        for each in (lock, other):
            await is_free(each)

    run(main)
