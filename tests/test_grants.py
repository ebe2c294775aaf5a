"""What semaphores, conditions and events share: interrupts, closed loops, signal handlers, places where waits block."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Run
from tests.support import eventually
from tests.waiters import Interrupted, in_line, outcome, start
from tests.workbench import IN_PLACE, ON_WORKER, Gate, rounds
from threadlets import blocking, checkpoint, grants, holding, threadlet
from threadlets.conditions import Event, Semaphore
from threadlets.parking import Line


class Interrupt(Exception):
    """What a signal handler raises."""


@pytest.fixture
def alarm() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Return what sets an alarm: in a moment the main thread calls a function, whatever it is doing."""
    before = signal.getsignal(signal.SIGALRM)

    def set_alarm(function: Callable[[], object]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: function())
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    yield set_alarm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def interrupt() -> None:
    raise Interrupt


# ------------------------------------------------------------------------------------------------------- interrupts


def test_interrupted(alarm: Any) -> None:
    """A signal handler that raises ends the wait, and the line is left."""
    semaphore, event = Semaphore(0), Event()
    for what, wait in ((semaphore, semaphore.acquire), (event, event.wait), (semaphore, semaphore.__enter__)):
        alarm(interrupt)
        with pytest.raises(Interrupt):
            wait()
        what._check()
        assert not len(what._line)
    semaphore.release()
    assert semaphore.value == 1


def test_interrupted_when_granted(alarm: Any) -> None:
    """A token that is granted just when the wait is interrupted is free again."""
    semaphore = Semaphore(0)

    def both() -> None:
        semaphore.release()
        assert semaphore.locked(), "it was granted"
        raise Interrupt

    alarm(both)
    with pytest.raises(Interrupt):
        semaphore.acquire()
    assert semaphore.value == 1
    semaphore._check()


def test_a_signal_in_a_wait(alarm: Any) -> None:
    """A signal whose handler returns ends no wait, and makes none longer; the handler may itself be what ends it."""
    event, seen = Event(), []
    alarm(lambda: seen.append(1))
    assert not event.wait(0.05)
    assert seen
    alarm(event.set)
    assert event.wait()


def test_a_signal_while_the_loop_polls(run: Run, alarm: Any) -> None:
    """A handler that sets an event wakes a loop that has nothing to do, and sleeps on when a handler returns."""

    async def main() -> None:
        event, semaphore = Event(), Semaphore(0)
        alarm(event.set)
        await event.wait_async()
        alarm(semaphore.release)
        await semaphore.acquire_async()

    run(main)


def test_a_release_in_the_middle_of_another_one() -> None:
    """A signal handler, or a finalizer, may come in anywhere: it neither hangs nor spoils what it has interrupted."""
    semaphore, event = Semaphore(0), Event()
    seen: list[bool] = []
    thread = threading.Thread(target=semaphore.acquire)
    thread.start()
    eventually(lambda: len(semaphore._line))
    Interrupted(semaphore, semaphore.release, lambda: seen.append(semaphore.acquire(0)), semaphore.release)
    semaphore.release()
    thread.join()
    assert semaphore.value == 2 and seen == [False]
    semaphore._check()
    Interrupted(event, event.clear, event.set)
    event.set()
    assert not event.is_set()
    event._check()


def test_a_release_in_the_middle_of_an_acquire() -> None:
    """A token that is released while somebody is about to stand in line, on the same thread, is his."""
    semaphore = Semaphore(0)

    class Pushing(Line):
        def push(self, waiter: Any) -> None:
            semaphore.release()
            super().push(waiter)

    semaphore._line = Pushing()
    assert semaphore.acquire(20)
    assert semaphore.value == 0
    semaphore._check()


def test_in_the_middle_of_a_push() -> None:
    """An event that happens while somebody is about to stand in line, on the same thread, wakes him."""
    event = Event()

    class Pushing(Line):
        def push(self, waiter: Any) -> None:
            event.set()
            super().push(waiter)

    event._line = Pushing()
    assert event.wait(20)
    event._check()


# ----------------------------------------------------------------------------------------------- what holds a cancel


def test_inside_of_holding(run: Run) -> None:
    """In a ``holding`` the wait goes on when its threadlet is asked to stop; behind it, the threadlet is told."""

    async def main() -> None:
        for kind in ("worker", "coroutine"):
            event, seen = Event(), []

            def wait(event: Event = event, seen: list[bool] = seen) -> None:
                with holding("half a thing"):
                    seen.append(event.wait())
                checkpoint()
                seen.append(False)

            async def wait_async(event: Event = event, seen: list[bool] = seen) -> None:
                with holding("half a thing"):
                    await event.wait_async()
                    seen.append(True)
                await asyncio.sleep(0)
                seen.append(False)

            handle = start(kind, wait, wait_async)
            await in_line(event, 1)
            handle.cancel("later")
            await rounds()
            assert len(event._line) == 1
            event.set()
            error = await outcome(handle)
            assert isinstance(error, CancelledError) and error.args == ("later",)
            assert seen == [True]

    run(main)


def test_when_the_grace_has_run_out(run: Run) -> None:
    """After the grace of the ``holding`` the wait ends."""

    async def main() -> None:
        for kind in ("worker", "coroutine"):
            event = Event()

            def wait(event: Event = event) -> None:
                with holding("too long", grace=0.01):
                    event.wait()

            async def wait_async(event: Event = event) -> None:
                with holding("too long", grace=0.01):
                    await event.wait_async()

            handle = start(kind, wait, wait_async)
            await in_line(event, 1)
            handle.cancel()
            assert isinstance(await outcome(handle), CancelledError)
            event._check()
            assert not len(event._line)

    run(main)


def test_a_token_holds_nothing_back(run: Run) -> None:
    """Who has a token of a semaphore is cancelled like anybody; the token is given back."""

    async def main() -> None:
        semaphore, event = Semaphore(), Event()

        def wait() -> None:
            with semaphore:
                event.wait()

        async def wait_async() -> None:
            async with semaphore:
                await event.wait_async()

        for kind in ("worker", "coroutine", "task"):
            handle = start(kind, wait, wait_async)
            await in_line(event, 1)
            assert semaphore.locked()
            handle.cancel()
            assert isinstance(await outcome(handle), CancelledError)
            assert semaphore.value == 1

    run(main)


# ------------------------------------------------------------------------------------------------- where it blocks


def test_in_place_on_a_loop_that_stands_still(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that waits in place keeps such a loop waiting: the log tells so, and a thread can end it."""
    monkeypatch.setattr(grants, "SAY_SECONDS", 0.01)
    event = Event("far away")

    def set_it() -> None:
        eventually(lambda: caplog.records)
        event.set()

    @threadlet(contract=IN_PLACE)
    def wait() -> bool:
        return event.wait()

    async def main() -> None:
        thread = threading.Thread(target=set_it)
        thread.start()
        assert await wait() is True
        thread.join()

    with caplog.at_level(logging.WARNING, "threadlets"):
        run(main)
    assert "<Threadlet wait running> waits for <Event 'far away': not set, 1 waiting> in place" in caplog.text


def test_in_place_on_a_loop_that_goes_on(hands: Run) -> None:
    """On a loop that changes hands, what a function waits for in place may come from the loop."""

    async def main() -> None:
        event, semaphore = Event(), Semaphore(0)

        async def give() -> None:
            await in_line(event, 1)
            event.set()
            await in_line(semaphore, 1)
            semaphore.release()

        giver = asyncio.create_task(give())

        @threadlet
        def wait() -> bool:
            return event.wait() and semaphore.acquire()

        assert await wait() is True
        await giver

    hands(main)


def test_in_a_region_of_a_task(hands: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A plain task that waits in a region is woken like others, and notices that it is cancelled."""

    async def main() -> None:
        semaphore = Semaphore(0)
        tasks = []
        for count in range(2):
            tasks.append(start("region", semaphore.acquire, semaphore.acquire_async))
            await in_line(semaphore, count + 1)
        tasks[0].cancel()
        assert isinstance(await outcome(tasks[0]), CancelledError)
        semaphore.release()
        assert await tasks[1] is True
        semaphore._check()

    hands(main)
    assert not caplog.records, "its loop goes on"


def test_in_a_coroutine_threadlets_region(hands: Run) -> None:
    """A coroutine threadlet that waits in a region is told through its handle at once."""

    async def main() -> None:
        event = Event()

        async def work() -> None:
            await asyncio.sleep(0)  # the first step is its caller's
            with blocking():
                event.wait()

        handle = start("coroutine", event.wait, work)
        await in_line(event, 1)
        handle.cancel("now")
        error = await outcome(handle)
        assert isinstance(error, CancelledError)
        assert not len(event._line)

    hands(main)


def test_without_a_loop() -> None:
    """In a threadlet that runs where no loop does, waits work as on any thread."""
    semaphore, gate = Semaphore(0), Gate()

    @threadlet(contract=ON_WORKER)
    def wait() -> bool:
        gate()
        return semaphore.acquire()

    thread = threading.Thread(target=lambda: (gate.wait_arrived(), semaphore.release(), gate.open()))
    thread.start()
    assert wait().result() is True
    thread.join()
