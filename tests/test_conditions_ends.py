"""How waits at a condition end: the lock is held again, and no notification is lost, whatever has ended them."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from typing import Any

import pytest

from tests.conftest import Run
from tests.waiters import ASKED, KINDS, Stop, Waiting, in_line, notify, outcome, start, wanted
from tests.workbench import Gate, forever, rounds
from threadlets import checkpoint, holding
from threadlets.conditions import Condition
from threadlets.parking import Line


@pytest.mark.parametrize("kind", ASKED)
def test_cancelled(run: Run, kind: str) -> None:
    """Who is cancelled while he waits is told once he has the lock again (gh-86766), with the reason."""

    async def main() -> None:
        condition = Condition()
        waiting = Waiting(condition)
        victim = waiting.start(kind)
        await in_line(condition, 1)
        async with condition:
            victim.cancel("tenant left")
            await wanted(condition.lock)
            assert not waiting.ended and not len(condition._line)
        error = await outcome(victim)
        assert isinstance(error, CancelledError) and error.args == ("tenant left",)
        assert waiting.ended == [(error, True)] or waiting.ended[0][0].args == ("tenant left",)
        assert waiting.ended[0][1] and not condition.lock.locked()

    run(main)


@pytest.mark.parametrize("kind", KINDS)
def test_in_line_before_the_lock_is_free(run: Run, kind: str) -> None:
    """Whoever is given the lock by a wait finds him in line: or his notification would go past.

    A: stands in line, releases the lock     B: is given the lock, notifies
    """

    async def main() -> None:
        condition = Condition()
        waiting = Waiting(condition)
        held: list[bool] = []

        class Watched(Line):
            def push(self, waiter: Any) -> None:
                held.append(condition.lock.owner == waiter.owner)
                super().push(waiter)

        condition._line = Watched()
        waiter = waiting.start(kind)
        await in_line(condition, 1)
        await notify(condition)
        await waiter
        assert held == [True]

    run(main)


@pytest.mark.parametrize("kind", ["coroutine", "task"])
@pytest.mark.parametrize("first", ["notify", "cancel"])
def test_cancel_meets_notify(run: Run, kind: str, first: str) -> None:
    """In one round of the loop somebody is notified and cancelled: the notification goes to the next one.

    main: notifies A                          (asyncio's gh-112202, anyio's #1075: nobody ever went on)
    main: cancels A, whose future is done
    A: CancelledError at his await
    """

    async def main() -> None:
        condition = Condition()
        first_one, second_one = Waiting(condition), Waiting(condition)
        victim = first_one.start(kind)
        await in_line(condition, 1)
        following = second_one.start(kind)
        await in_line(condition, 2)
        async with condition:
            for act in (condition.notify, victim.cancel) if first == "notify" else (victim.cancel, condition.notify):
                act()
        assert isinstance(await outcome(victim), CancelledError)
        await following
        assert second_one.ended == [(True, True)]
        condition._check()

    run(main)


@pytest.mark.parametrize("end", ["cancel", "timeout"])
def test_the_end_of_a_wait_meets_notify(run: Run, end: str) -> None:
    """A worker's wait ends by itself, and before it has left the line it is notified.

        worker: wakes up, cancelled or out of time
        worker: is about to leave the line       main: notifies the worker
        worker: leaves it, in vain, and sees the grant
    If it is cancelled, the next one goes on; if its time was up, it was notified after all.
    """

    async def main() -> None:
        condition = Condition()
        stop = Stop(condition)
        first_one, second_one = Waiting(condition), Waiting(condition)

        def work() -> None:
            stop.this_thread()
            first_one.wait(None if end == "cancel" else 0.001)

        victim = start("worker", work, forever)
        if end == "cancel":
            await in_line(condition, 1)
            victim.cancel()
        await stop.arrived()
        following = second_one.start("worker")
        await in_line(condition, 2)
        await notify(condition)
        stop.go()
        if end == "cancel":
            assert isinstance(await outcome(victim), CancelledError)
        else:
            await victim
            assert first_one.ended == [(True, True)] and not following.done()
            await notify(condition)
        await following
        assert second_one.ended == [(True, True)]
        condition._check()

    run(main)


@pytest.mark.parametrize("kind", ASKED)
def test_cancelled_on_the_way_back(run: Run, kind: str) -> None:
    """A coroutine that was notified, and is cancelled while it waits for the lock, has that when it is told.

    Somebody else is notified then. With several cancels, the last one's reason counts (gh-111693). A function on a
    worker does not listen there: it goes on as notified, and with the lock in its hands, which holds the cancel back.
    """

    async def main() -> None:
        condition = Condition()
        first_one, second_one = Waiting(condition), Waiting(condition)
        victim = first_one.start(kind)
        await in_line(condition, 1)
        following = second_one.start(kind)
        await in_line(condition, 2)
        async with condition:
            condition.notify()
            await wanted(condition.lock)
            for reason in ("one", "two", "three"):
                victim.cancel(reason)
                await rounds()
            assert not first_one.ended
        error = await outcome(victim)
        assert isinstance(error, CancelledError) and error.args == ("three",)
        how, held = first_one.ended[0]
        assert held
        if kind == "worker":
            assert how is True and not following.done()
            await notify(condition)
        await following
        assert second_one.ended == [(True, True)]

    run(main)


@pytest.mark.parametrize("kind", ["worker", "coroutine"])
def test_asked_before_it_waits(run: Run, kind: str) -> None:
    """A cancel that the lock has held back comes in when the wait releases it, and that poisons nothing."""

    async def main() -> None:
        condition, gate, go = Condition(), Gate(), asyncio.Event()
        waiting = Waiting(condition)

        def wait() -> None:
            with condition:
                gate()
                checkpoint()
                try:
                    condition.wait()
                finally:
                    condition.notify(0)

        async def wait_async() -> None:
            async with condition:
                await go.wait()
                try:
                    await condition.wait_async()
                finally:
                    condition.notify(0)

        victim = start(kind, wait, wait_async)
        if kind == "worker":
            await asyncio.to_thread(gate.wait_arrived)
        victim.cancel("since long")
        gate.open()
        go.set()
        error = await outcome(victim)
        assert isinstance(error, CancelledError) and error.args == ("since long",)
        assert not condition.lock.locked() and not condition.lock.poisoned
        following = waiting.start(kind)
        await in_line(condition, 1)
        await notify(condition)
        await following

    run(main)


def test_inside_of_holding(run: Run) -> None:
    """A ``holding`` around all of it keeps the cancel out of the wait."""

    async def main() -> None:
        condition = Condition()
        waiting = Waiting(condition)

        def wait() -> None:
            with holding("all of it"):
                waiting.wait()
            checkpoint()

        async def wait_async() -> None:
            with holding("all of it"):
                await waiting.wait_async()
            await asyncio.sleep(0)

        for kind in ("worker", "coroutine"):
            victim = start(kind, wait, wait_async)
            await in_line(condition, 1)
            victim.cancel()
            await rounds()
            await notify(condition)
            assert isinstance(await outcome(victim), CancelledError)
        assert waiting.ended == [(True, True)] * 2

    run(main)


@pytest.mark.parametrize("kind", ASKED)
def test_out_of_time(run: Run, kind: str) -> None:
    """When the time is up the lock is waited for, however long that takes; with ``asyncio.timeout`` it is the same."""

    async def main() -> None:
        condition, gate, go = Condition(), Gate(), asyncio.Event()
        seen: list[str] = []

        def wait() -> None:
            with condition:
                gate()
                assert condition.wait(0.001) is False
                condition.notify(0)
                seen.append("held")

        async def wait_async() -> None:
            async with condition:
                await go.wait()
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.001):
                        await condition.wait_async()
                condition.notify(0)
                seen.append("held")

        async def hold() -> None:
            async with condition:  # comes next, right when the wait begins
                await wanted(condition.lock)  # its time is up
                assert not seen

        waiter = start(kind, wait, wait_async)
        if kind == "worker":
            await asyncio.to_thread(gate.wait_arrived)
        await rounds()
        holder = asyncio.create_task(hold())
        await wanted(condition.lock)
        gate.open()
        go.set()
        await holder
        await waiter
        assert seen == ["held"]
        condition._check()

    run(main)
