"""anyio's worker threads as threadlets: what happens to functions whose callers are cancelled."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("anyio")

import anyio
from anyio import CapacityLimiter, from_thread, to_thread

from tests.conftest import Run
from tests.workbench import Gate, rounds, until
from threadlets.adapters import anyio as adapter


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    """Have the adapter installed in every test."""
    with adapter.install():
        yield


def test_a_scope_that_is_cancelled_meanwhile_ends_where_it_ends(hands: Run) -> None:
    """Nothing of its cancel is left for what comes after it.

    The interleaving, forced by the gate: the function blocks in place; the loop goes on; another task cancels the scope
    of the task that is blocked; the function returns.
    """
    gate = Gate()

    async def main() -> None:
        async def cancel(scope: anyio.CancelScope) -> None:
            await to_thread.run_sync(gate.wait_arrived, abandon_on_cancel=True)
            scope.cancel()
            gate.open()

        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:
                group.start_soon(cancel, scope)
                assert await to_thread.run_sync(gate, 7) == 7
            await anyio.sleep(0.001)
        assert scope.cancel_called

    hands(main)


def test_a_cancelled_scope_waits_and_nothing_is_lost(run: Run) -> None:
    """Without ``abandon_on_cancel`` the function ends, its value is returned, and the next checkpoint raises."""
    gate = Gate()

    async def main() -> None:
        returned = []

        async def call() -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                returned.append(await to_thread.run_sync(told))
                await anyio.lowlevel.checkpoint()
                returned.append("not reached")

        def told() -> Any:
            gate()
            try:
                from_thread.check_cancelled()
            except BaseException as error:
                return type(error)
            return None

        scopes: list[anyio.CancelScope] = []
        task = asyncio.ensure_future(call())
        await until(lambda: bool(scopes))
        await rounds()
        scopes[0].cancel()
        await rounds()
        assert not task.done()
        gate.open()
        await task
        assert returned == [CancelledError]

    run(main)


def test_abandoned_functions_are_left_behind(run: Run) -> None:
    """With ``abandon_on_cancel`` the caller goes on at once, and the token is free again; on every loop."""
    gate = Gate()

    async def main() -> None:
        limiter = CapacityLimiter(1)
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().call_soon(scope.cancel)
            await to_thread.run_sync(gate, abandon_on_cancel=True, limiter=limiter)
        assert scope.cancelled_caught
        assert limiter.borrowed_tokens == 0
        gate.open()

    run(main)


def test_cancelled_before_it_begins_it_never_does(run: Run) -> None:
    """It is a checkpoint, as anyio says; also for a task that was cancelled by itself."""
    ran: list[int] = []

    async def main() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await to_thread.run_sync(ran.append, 1)
        assert scope.cancelled_caught

        async def call() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await to_thread.run_sync(ran.append, 2)

        task = asyncio.ensure_future(call())
        await asyncio.wait([task])
        assert task.cancelled()
        assert not ran

    run(main)


def test_a_task_that_is_cancelled_waits_for_its_function(run: Run) -> None:
    """``Task.cancel()`` does not leave a function behind that still runs, and what it holds."""
    gate = Gate()
    adapter.on_worker(gate)

    async def main() -> None:
        limiter = CapacityLimiter(1)
        task = asyncio.ensure_future(to_thread.run_sync(gate, limiter=limiter))
        await asyncio.to_thread(gate.wait_arrived)
        task.cancel()
        await rounds()
        assert (task.done(), limiter.borrowed_tokens) == (False, 1)
        gate.open()
        await asyncio.wait([task])
        assert (task.cancelled(), limiter.borrowed_tokens) == (True, 0)

    run(main)
