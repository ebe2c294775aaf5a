"""Waits in line: who is granted what he waits for, who stops waiting, and in which order they stand."""

from __future__ import annotations

import asyncio
import threading
from asyncio import CancelledError
from typing import Any

import pytest

from tests.conftest import Run
from tests.support import eventually
from tests.workbench import ON_WORKER, PATIENCE, Gate, ended, rounds, until
from threadlets import Pool, Threadlet, current_threadlet, threadlet
from threadlets import parking as module
from threadlets.cancellation import holding
from threadlets.parking import Line, TaskWaiter, ThreadWaiter, Waiter, priority_now
from threadlets.regions import me


class Urgent:
    """Somebody with a priority."""

    def __init__(self, priority: float) -> None:
        self._priority = priority


# ------------------------------------------------------------------------------------------------------ on a thread


def test_granted_before_and_while_it_waits() -> None:
    """A wait ends when it is granted, by whichever thread; one that is granted before does not begin."""
    early = ThreadWaiter(me())
    assert early.grant() is True
    early.wait()
    assert early.granted and early.error is None

    late = ThreadWaiter(me())
    thread = threading.Thread(target=late.grant)
    thread.start()
    late.wait()
    thread.join(PATIENCE)
    assert late.granted


@pytest.mark.parametrize("timeout", [0, 0.001])
def test_a_timeout(timeout: float) -> None:
    """It returns when its time is over; ``granted`` tells."""
    waiter = ThreadWaiter(me())
    waiter.wait(timeout)
    assert not waiter.granted
    waiter.grant()
    waiter.wait(timeout)
    assert waiter.granted


def test_an_error_is_there_before_it_is_seen() -> None:
    """Who looks without the mutex and sees that he is granted sees the error, too.

    (Otherwise who wakes in that moment, by a timeout or a poll, would believe that he has the lock.)
    """
    written: list[str] = []

    class Watched(ThreadWaiter):
        def __setattr__(self, name: str, value: Any) -> None:
            written.append(name)
            super().__setattr__(name, value)

    waiter = Watched(me())
    written.clear()
    error = ValueError()
    waiter.grant(error)
    assert written == ["error", "granted"] and waiter.error is error


def test_a_look_now_and_then() -> None:
    """What is to be looked at is called again and again; what it raises ends the wait."""
    waiter, looks = ThreadWaiter(me()), 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise LookupError

    with pytest.raises(LookupError):
        waiter.wait(poll=0.0001, look=look)
    assert looks == 3 and not waiter.granted


@pytest.mark.parametrize("shielded", [False, True])
def test_asked_while_it_waits(run: Run, shielded: bool) -> None:
    """A cancel ends a wait, unless it is shielded, or inside of ``holding``; then it goes on until it is granted."""

    async def main() -> None:
        waiters: list[ThreadWaiter] = []

        @threadlet(contract=ON_WORKER)
        def work(inside: bool) -> None:
            waiter = ThreadWaiter(current_threadlet())
            waiters.append(waiter)
            if inside:
                with holding("something"):
                    waiter.wait()
            else:
                waiter.wait(shielded=shielded)

        for inside in (False, True):
            handle = work(inside)
            await until(lambda: waiters)
            waiter = waiters.pop()
            assert not waiter.is_leaving
            handle.cancel("enough")
            assert waiter.is_leaving != inside
            if inside or shielded:
                await rounds()
                assert not handle.done()
                waiter.grant()
                assert waiter.is_leaving
            error = await ended(handle)
            assert isinstance(error, CancelledError) and error.args == ("enough",)
            assert waiter.granted == (inside or shielded)

    run(main)


def test_woken_twice() -> None:
    """A cancel that comes together with a grant does no harm, in either order."""
    waiter = ThreadWaiter(me())
    waiter._wake()
    waiter.grant()
    waiter._wake()
    waiter.wait()
    assert waiter.granted


def test_a_thread_that_a_fork_has_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a forked child those that waited on threads are not there."""
    line, before = Line(), ThreadWaiter(1)
    line.push(before)
    monkeypatch.setattr(module, "_forks", module._forks + 1)
    after = ThreadWaiter(2)
    line.push(after)
    assert before.is_lost and not after.is_lost
    assert line.first() is after and len(line) == 1


# -------------------------------------------------------------------------------------------------- in a coroutine


@pytest.mark.parametrize("where", ["loop", "thread"])
def test_a_task_that_waits(run: Run, where: str) -> None:
    """It goes on when it is granted, on its own loop or from another thread."""

    async def main() -> None:
        waiter = TaskWaiter(asyncio.current_task())
        task = asyncio.create_task(waiter.wait())
        await asyncio.sleep(0)
        assert not task.done() and not waiter.is_leaving and not waiter.is_lost
        if where == "loop":
            assert waiter.grant() is True
        else:
            assert await asyncio.to_thread(waiter.grant) is True
        assert waiter.is_leaving
        await task

    run(main)


def test_a_task_that_is_cancelled(run: Run) -> None:
    """It is leaving from the cancel on, before it has run; and may be granted what it does not want any more."""

    async def main() -> None:
        waiter = TaskWaiter(asyncio.current_task())
        task = asyncio.create_task(waiter.wait())
        await asyncio.sleep(0)
        task.cancel()
        assert waiter.is_leaving
        assert waiter.grant() is True
        with pytest.raises(CancelledError):
            await task

    run(main)


def test_a_loop_that_is_closed(run: Run) -> None:
    """What is granted to a task whose loop is closed is granted to nobody, and it is said so."""
    loop = run.new_loop()

    async def wait() -> TaskWaiter:
        return TaskWaiter(asyncio.current_task())

    waiter = loop.run_until_complete(wait())
    assert not waiter.is_lost
    loop.close()
    assert waiter.is_lost and waiter.grant() is False


# ---------------------------------------------------------------------------------------------------------- a line


def test_the_order_in_line() -> None:
    """The most urgent is first, and among equals who came first; who is no threadlet has priority 0."""
    line = Line()
    waiters = [ThreadWaiter(Urgent(priority)) for priority in (5, 0, -1, 5)] + [ThreadWaiter(1)]
    for waiter in reversed(waiters):
        line.push(waiter)
    line._check()
    assert len(line) == 5 and set(line) == set(waiters)
    assert priority_now(waiters[0].owner) == 5 and priority_now(1) == 0
    order = [waiters[place] for place in (2, 1, 4, 0, 3)]
    assert line.first() is order[0]
    assert [line.pop() for _ in waiters] == order
    assert line.pop() is None and line.first() is None and len(line) == 0


def test_who_leaves_the_line_and_who_changes_his_place() -> None:
    """To leave, and to be put elsewhere, works once, wherever one stands; later it does nothing."""
    line = Line()
    waiters: list[Waiter] = [ThreadWaiter(Urgent(5)) for _ in range(4)]
    for waiter in waiters:
        line.push(waiter)
    assert line.remove(waiters[0]) and not line.remove(waiters[0])
    waiters[3].owner._priority = 1
    line.rekey(waiters[3])
    line.rekey(waiters[0])
    line._check()
    assert [line.pop() for _ in range(3)] == [waiters[3], waiters[1], waiters[2]]


def test_who_is_lost_is_passed_over(run: Run) -> None:
    """Those whose loop was closed are dropped when their turn comes, however many they are."""
    loop, line = run.new_loop(), Line()

    async def wait() -> TaskWaiter:
        return TaskWaiter(asyncio.current_task())

    lost = [loop.run_until_complete(wait()) for _ in range(3)]
    other = ThreadWaiter(1)
    for waiter in (*lost, other):
        line.push(waiter)
    loop.close()
    assert line.first() is other and len(line) == 1
    assert line.pop() is other and line.pop() is None


def test_a_wait_of_a_threadlet_and_its_priority(run: Run) -> None:
    """A threadlet's place is that of the priority that counts: its own, or that of one that awaits it."""

    async def main() -> None:
        gate, line = Gate(), Line()

        @threadlet(contract=ON_WORKER)
        def work() -> None:
            gate()

        @threadlet
        async def urgent(handle: Threadlet[None]) -> None:
            await handle

        async with Pool() as pool:
            handle = pool.start(work, priority=7)
            waiter = ThreadWaiter(handle)
            line.push(waiter)
            line.push(ThreadWaiter(Urgent(5)))
            assert line.first() is not waiter
            pool.start(urgent, handle, priority=2)
            line.rekey(waiter)
            assert line.first() is waiter
            gate.open()

    run(main)


def test_a_wait_that_nobody_ends() -> None:
    """A wait without a timeout is not ended by anything else: only by the grant."""
    waiter = ThreadWaiter(me())
    thread = threading.Thread(target=waiter.wait)
    thread.start()
    for _ in range(3):
        waiter._wake()
        eventually(waiter._gate.locked)
    assert thread.is_alive()
    waiter.grant()
    thread.join(PATIENCE)
    assert not thread.is_alive()
