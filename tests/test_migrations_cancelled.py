"""Coroutines that are cancelled while they are away from their event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.conftest import Run
from tests.travels import NODE, at_home, in_worker, nothing_is_left
from tests.workbench import until
from threadlets import Lock, call_async, checkpoint, current_threadlet, deadlocks, holding, migrate, offload, threadlet
from threadlets.cancellation import holds
from threadlets.parking import ThreadWaiter
from threadlets.surroundings import trip_of, trips
from threadlets.workers import WorkerGroup

__all__ = ["nothing_is_left"]


async def until_checkpoint() -> None:
    async with offload():
        while True:
            time.sleep(0.0005)
            checkpoint()


async def until_await() -> None:
    future = asyncio.get_running_loop().create_future()
    async with offload():
        await future


async def until_end() -> None:
    began = threading.Event()
    task = asyncio.current_task()
    assert task is not None
    async with offload():
        began.wait(0.001)
        while trip_of(task).asked is None:  # type: ignore[union-attr]
            time.sleep(0.0005)
    pytest.fail("the cancel is told at the end of the block at the latest")


BODIES = [until_checkpoint, until_await, until_end]
each_body = pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
Body = Callable[[], Coroutine[Any, Any, None]]


@each_body
def test_a_cancel_is_told(run: Run, body: Body) -> None:
    """With its reason: at a checkpoint, at an await, or at the end of the block; to a threadlet and to a task."""

    async def main() -> None:
        for started in (threadlet(body)(), asyncio.create_task(body())):
            await until(lambda: any(trip.underway for trip in trips))
            started.cancel("enough")
            with pytest.raises(asyncio.CancelledError, match="enough"):
                await started
            assert started.cancelled()

    run(main)


@each_body
def test_timeouts_and_groups_around_it(run: Run, body: Body) -> None:
    """They count cancels: each is told once, so that none is left over."""

    async def fails() -> None:
        await asyncio.sleep(0.003)
        raise KeyError

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.003):
                await body()
        assert task.cancelling() == 0
        with pytest.raises(ExceptionGroup) as failed:
            async with asyncio.TaskGroup() as group:
                group.create_task(fails())
                await body()
        assert failed.group_contains(KeyError) and task.cancelling() == 0
        await asyncio.sleep(0)

    run(main)


def test_cancelled_before_there_is_a_thread(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is still in line for a worker is told at once, at home."""
    group = WorkerGroup("busy", limit=1)
    monkeypatch.setattr("threadlets.migrations.shared_group", lambda: group)
    end = threading.Event()

    async def blocks() -> None:
        async with offload():
            end.wait(20)

    async def main() -> None:
        first = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        second = asyncio.create_task(blocks())
        await until(lambda: group.waiting)
        second.cancel("not wanted")
        with pytest.raises(asyncio.CancelledError, match="not wanted"):
            await second
        end.set()
        await first

    run(main)


@pytest.mark.parametrize("rounds", range(12))
def test_cancel_at_every_hop(run: Run, rounds: int) -> None:
    """Whenever it comes, a cancel is told, once, and what was begun is ended where it was."""

    async def wanders() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(3):
            async with offload():
                try:
                    await asyncio.sleep(0)
                finally:
                    assert in_worker()
            await migrate(NODE)
            try:
                await asyncio.sleep(0)
            finally:
                assert asyncio.get_running_loop() is NODE.loop()
            await migrate(None)
            assert asyncio.get_running_loop() is loop

    async def main() -> None:
        for started in (threadlet(wanders)(), asyncio.create_task(wanders())):
            for _ in range(rounds):
                await asyncio.sleep(0)
            if rounds % 3 == 2:
                time.sleep(0.0005)
            told = started.cancel()
            try:
                await started
            except asyncio.CancelledError:
                assert told
            else:
                assert not told

    run(main)


def test_holding_keeps_a_cancel_away(run: Run) -> None:
    """In a threadlet, a block that is not to be broken into is not, in a worker either."""
    steps: list[str] = []

    @threadlet
    async def careful() -> None:
        handle = current_threadlet()
        async with offload():
            with holding("two things that belong together"):
                assert handle is not None
                handle.cancel("soon")
                while not holds[handle].pending:
                    time.sleep(0.0005)
                checkpoint()
                steps.append("whole")
            while True:
                time.sleep(0.0005)
                checkpoint()

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError, match="soon"):
            await careful()
        assert steps == ["whole"]

    run(main)


def test_a_wait_for_a_lock_is_woken(run: Run) -> None:
    """Who waits for a lock in the block, on its thread, is told there: a threadlet, and a task that is none."""
    lock = Lock()

    async def waits() -> None:
        async with offload():
            with lock:
                pytest.fail("nobody gives it away")

    async def main() -> None:
        async with lock:
            for started in (threadlet(waits)(), asyncio.create_task(waits())):
                await until(lambda: "waiting" in repr(lock))
                started.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await started
            assert "waiting" not in repr(lock)

    run(main)


def test_the_program_ends_while_a_coroutine_is_away(run: Run) -> None:
    """The end of the loop cancels it, as any task, and waits until it has stopped."""
    ended: list[bool] = []

    async def away() -> None:
        try:
            await until_checkpoint()
        finally:
            ended.append(at_home())

    async def main() -> None:
        _tasks.append(asyncio.create_task(away()))
        await until(lambda: trips)

    _tasks: list[asyncio.Task[None]] = []
    run(main)
    assert ended == [True] and _tasks[0].cancelled()


def test_given_the_lock_while_it_looks(once: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits on a thread, and looks for circles now and then, sees none when the lock is about to be his."""
    lock, looks, give, look = Lock(), threading.Semaphore(0), ThreadWaiter.grant, deadlocks._look

    def counted_look(*args: Any, **options: Any) -> None:
        look(*args, **options)
        looks.release()

    def slow_give(waiter: ThreadWaiter, error: BaseException | None = None) -> bool:
        while looks.acquire(blocking=False):
            pass
        assert looks.acquire(timeout=20), "it looks, when the lock is his and it was not told"
        return give(waiter, error)

    monkeypatch.setattr(deadlocks, "_look", counted_look)
    monkeypatch.setattr(ThreadWaiter, "grant", slow_give)

    async def waits() -> bool:
        async with offload():
            with lock:
                return True

    async def main() -> None:
        async with lock:
            task = asyncio.create_task(waits())
            await until(lambda: "waiting" in repr(lock))
        assert await task

    once(main)


def test_who_has_been_told_can_clean_up(run: Run) -> None:
    """After a checkpoint has raised, the cleanup may await, come home, call async functions: it is told once."""
    cleaned: list[str] = []

    async def note(what: str) -> None:
        await asyncio.sleep(0)
        cleaned.append(what)

    async def body() -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.003, future.set_result, None)
        async with offload() as away:
            try:
                while True:
                    time.sleep(0.0005)
                    checkpoint()
            finally:
                assert in_worker()
                await future
                call_async(note, "called")
                async with away.home():
                    await note("at home")
                assert in_worker()

    async def main() -> None:
        for started in (threadlet(body)(), asyncio.create_task(body())):
            await until(lambda: any(trip.underway for trip in trips))
            started.cancel()
            with pytest.raises(asyncio.CancelledError):
                await started
        assert cleaned == ["called", "at home"] * 2

    run(main)


def test_many_wait_in_call_async_for_what_needs_a_worker(once: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for an async function, in a block, does not keep its thread from others."""
    group = WorkerGroup("few", limit=2)
    monkeypatch.setattr("threadlets.migrations.shared_group", lambda: group)

    async def inner() -> bool:
        async with offload():
            return True

    async def outer() -> bool:
        async with offload():
            return call_async(inner)

    async def main() -> None:
        assert all(await asyncio.gather(*[outer() for _ in range(6)]))

    once(main)
