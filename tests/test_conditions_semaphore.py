"""Semaphores: who gets a token, in which order, and that none is lost or kept by anybody who has stopped waiting."""

from __future__ import annotations

import asyncio
import threading
from asyncio import CancelledError
from typing import Any

import pytest

from tests.conftest import Run
from tests.waiters import ASKED, KINDS, Stop, in_line, outcome, start
from tests.workbench import forever, rounds
from threadlets import Pool
from threadlets.conditions import Semaphore


def wait(kind: str, semaphore: Semaphore, **options: Any) -> Any:
    """Have somebody of this kind acquire it."""
    return start(kind, semaphore.acquire, semaphore.acquire_async, **options)


# ------------------------------------------------------------------------------------------------------ conventions


def test_on_a_thread() -> None:
    """On a thread it is used as one of ``threading`` is."""
    semaphore = Semaphore(2, name="disk")
    with semaphore:
        assert semaphore.value == 1 and not semaphore.locked()
        assert semaphore.acquire() and semaphore.locked()
        assert not semaphore.acquire(timeout=0) and not semaphore.acquire(timeout=0.001)
        assert repr(semaphore) == "<Semaphore 'disk': 0 free>"
        semaphore.release()
    semaphore.release()
    assert semaphore.value == 3 and repr(Semaphore(1, max_value=4)) == "<Semaphore: 1 of 4 free>"
    semaphore._check()


def test_in_a_coroutine(run: Run) -> None:
    """In a coroutine it is used as one of ``asyncio`` is."""

    async def main() -> None:
        semaphore = Semaphore()
        async with semaphore:
            assert semaphore.locked()
            task = wait("task", semaphore)
            await in_line(semaphore, 1)
            assert repr(semaphore) == "<Semaphore: 0 free, 1 waiting>"
        await task
        assert semaphore.locked()

    run(main)


def test_the_wrong_way_round(run: Run) -> None:
    """The call that would stall a loop is an error in a coroutine, the other one outside of it; they say what to do."""
    semaphore = Semaphore()

    async def main() -> None:
        for call in (semaphore.acquire, semaphore.__enter__, lambda: semaphore.acquire(0)):
            with pytest.raises(RuntimeError, match="would stall its event loop: use"):
                call()
        semaphore.acquire_async().close()

    run(main)
    for coroutine in (semaphore.acquire_async(), semaphore.__aenter__()):
        with pytest.raises(RuntimeError, match="outside of a task: on a thread, use"):
            coroutine.send(None)
    assert semaphore.value == 1


def test_what_it_refuses() -> None:
    """Numbers that are none, and times that are none."""
    for bad in (True, 1.0, "1", None):
        with pytest.raises(TypeError, match="expected an integer"):
            Semaphore(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0 or more"):
        Semaphore(-1)
    with pytest.raises(ValueError, match="value=3 is more than max_value=2"):
        Semaphore(3, max_value=2)
    with pytest.raises(TypeError, match="max_value=True"):
        Semaphore(1, max_value=True)
    with pytest.raises(ValueError, match="timeout=nan"):
        Semaphore().acquire(float("nan"))
    with pytest.raises(TypeError, match="expected seconds"):
        Semaphore().acquire(True)


def test_released_too_often() -> None:
    """A release beyond the maximum is an error that tells the numbers, and changes nothing."""
    semaphore = Semaphore(1, max_value=2)
    semaphore.release()
    with pytest.raises(ValueError, match=r"2 of 2 free> is released .* there would be 3, and max_value is 2"):
        semaphore.release()
    assert semaphore.value == 2
    semaphore._check()


# ------------------------------------------------------------------------------------------------------------ order


def test_one_for_all_kinds_and_loops(run: Run) -> None:
    """Threads, workers, and coroutines of two event loops share one; there are never more than its tokens."""
    semaphore = Semaphore(2, max_value=2)
    inside: list[int] = []
    most: list[int] = []

    def on_thread() -> None:
        for _ in range(20):
            with semaphore:
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    async def in_coroutine() -> None:
        for _ in range(20):
            async with semaphore:
                inside.append(1)
                most.append(len(inside))
                await asyncio.sleep(0)
                inside.pop()

    async def crowd() -> None:
        await asyncio.gather(*[start(kind, on_thread, in_coroutine) for kind in KINDS * 2])

    other = threading.Thread(target=lambda: asyncio.run(crowd()))
    other.start()
    run(crowd)
    other.join()
    assert max(most) <= 2 and len(most) == 2 * 2 * len(KINDS) * 20
    assert semaphore.value == 2
    semaphore._check()


@pytest.mark.parametrize("kind", ["worker", "coroutine"])
def test_the_most_urgent_first(run: Run, kind: str) -> None:
    """Tokens go by priority, then in order of arrival; a change of priority counts while somebody waits."""

    async def main() -> None:
        semaphore, got = Semaphore(0), []
        pool = Pool()
        handles = {}
        for count, (name, priority) in enumerate([("late", 3), ("first", 1), ("second", 1), ("third", 9)]):
            handles[name] = handle = wait(kind, semaphore, pool=pool, priority=priority)
            handle.add_done_callback(lambda _, name=name: got.append(name))
            await in_line(semaphore, count + 1)
        plain = wait("thread", semaphore)  # what is no threadlet has priority 0
        await in_line(semaphore, 5)
        semaphore.release()
        await plain
        handles["third"].priority = 2
        for name in ("first", "second", "third", "late"):
            assert name not in got
            semaphore.release()
            await handles[name]
            semaphore._check()
        await rounds()
        assert got == ["first", "second", "third", "late"]

    run(main)


def test_nobody_comes_in_between(run: Run) -> None:
    """A token that was given to somebody who has not yet gone on is not taken by whoever comes along."""

    async def main() -> None:
        semaphore = Semaphore(0)
        waiting = [wait("task", semaphore) for _ in range(3)]
        await in_line(semaphore, 3)
        semaphore.release()
        semaphore.release()  # both are on their way, before anybody has run
        assert semaphore.locked() and len(semaphore._line) == 1
        late = wait("task", semaphore)
        await asyncio.wait(waiting[:2])
        assert not waiting[2].done() and not late.done()
        semaphore.release()
        await waiting[2]
        semaphore.release()
        await late

    run(main)


# --------------------------------------------------------------------------------------------------- ends of a wait


@pytest.mark.parametrize("kind", ASKED)
def test_cancelled_in_line(run: Run, kind: str) -> None:
    """Who is cancelled while he waits takes nothing; the others do not notice."""

    async def main() -> None:
        semaphore = Semaphore(0)
        waiting = []
        for count in range(3):
            waiting.append(wait(kind, semaphore))
            await in_line(semaphore, count + 1)
        waiting[0].cancel("tenant left")
        error = await outcome(waiting[0])
        assert isinstance(error, CancelledError) and error.args == ("tenant left",)
        semaphore.release()
        await waiting[1]
        assert not waiting[2].done()
        semaphore.release()
        await waiting[2]
        semaphore._check()

    run(main)


@pytest.mark.parametrize("kind", ["coroutine", "task"])
@pytest.mark.parametrize("first", ["release", "cancel"])
def test_cancel_meets_release(run: Run, kind: str, first: str) -> None:
    """In one round of the loop a token is granted and its receiver cancelled: it goes to the next one.

    main: releases, grants it to A           (asyncio's gh-90155, bpo-45997, anyio's #387: the token
    main: cancels A, whose future is done     was lost, or B slept on beside a free one)
    A: CancelledError at his await
    """

    async def main() -> None:
        semaphore = Semaphore(0)
        victim = wait(kind, semaphore)
        await in_line(semaphore, 1)
        following = wait(kind, semaphore)
        await in_line(semaphore, 2)
        for act in (semaphore.release, victim.cancel) if first == "release" else (victim.cancel, semaphore.release):
            act()
        assert isinstance(await outcome(victim), CancelledError)
        await following
        assert semaphore.value == 0
        semaphore._check()

    run(main)


def test_all_that_wait_are_cancelled(run: Run) -> None:
    """A newcomer gets the token that is released while everybody in line has just been cancelled (anyio's #1145)."""

    async def main() -> None:
        semaphore = Semaphore(0)
        waiting = [wait("task", semaphore) for _ in range(3)]
        await in_line(semaphore, 3)
        for task in waiting:
            task.cancel()
        semaphore.release()
        await asyncio.wait_for(semaphore.acquire_async(), 20)
        assert {task.cancelled() for task in waiting} == {True}
        assert semaphore.value == 0
        semaphore._check()

    run(main)


@pytest.mark.parametrize("end", ["cancel", "timeout"])
def test_the_end_of_a_wait_meets_release(run: Run, end: str) -> None:
    """A worker's wait ends by itself, and before it has left the line it is granted a token.

        worker: wakes up, cancelled or out of time
        worker: is about to leave the line       main: releases, grants it to the worker
        worker: leaves it, in vain, and sees the grant
    If it is cancelled, it hands the token on; if its time was up, it has got it after all.
    """

    async def main() -> None:
        semaphore = Semaphore(0)
        stop = Stop(semaphore)

        def acquire() -> bool:
            stop.this_thread()
            return semaphore.acquire(None if end == "cancel" else 0.001)

        victim = start("worker", acquire, semaphore.acquire_async)
        if end == "cancel":
            await in_line(semaphore, 1)
            victim.cancel()
        await stop.arrived()
        following = wait("worker", semaphore)
        await in_line(semaphore, 2)
        semaphore.release()
        stop.go()
        if end == "timeout":
            assert await victim is True
            semaphore.release()
        else:
            assert isinstance(await outcome(victim), CancelledError)
        assert await following is True
        assert semaphore.value == 0
        semaphore._check()

    run(main)


def test_out_of_time(run: Run) -> None:
    """Who has waited long enough takes nothing, and leaves the line."""

    async def main() -> None:
        semaphore = Semaphore(0)
        assert await start("worker", lambda: semaphore.acquire(0.001), forever) is False
        assert not len(semaphore._line)
        semaphore.release()
        assert semaphore.value == 1
        for timeout in (0, 0.0, float("inf")):
            assert await start("worker", lambda timeout=timeout: semaphore.acquire(timeout), forever) is True
            semaphore.release()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                async with semaphore, semaphore:
                    pass
        assert semaphore.value == 1
        semaphore._check()

    run(main)
