"""Claims are granted once and survive signal handlers; what the log says of a thread that is away."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import Any

from tests.support import eventually
from threadlets.claims import Claim, Taken, place_of


class Alarm(BaseException):
    """Raised by a signal handler."""


class Gate:
    """Stands for a claim's lock: each acquire does the next thing of a list."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)

    def acquire(self) -> None:
        step = self.steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            step()

    def release(self) -> None:
        pass


def test_granted_before_and_after() -> None:
    """A claim that was granted before anybody waits is at once there, and one that is granted later, then."""
    claim = Claim()
    claim.grant()
    assert claim.wait() is None
    claim, waited = Claim(), []
    thread = threading.Thread(target=lambda: waited.append(claim.wait()))
    thread.start()
    assert waited == []
    claim.grant()
    thread.join()
    assert waited == [None]


def test_signal_handlers_raise_meanwhile() -> None:
    """It goes on waiting, whatever they raise and however often; the last of that is returned."""
    claim = Claim()
    first, last = KeyboardInterrupt(), Alarm()
    claim._gate = Gate(first, first, last, claim.grant)  # type: ignore[assignment]
    assert claim.wait() is last
    assert claim._gate.steps == []  # type: ignore[attr-defined]


def test_signal_handler_raises_when_the_lock_is_ours() -> None:
    """An exception right after the lock was acquired does not make it wait for a second grant.

    driver: granted = True, releases the lock
                                    claimant: acquires it; the signal handler raises
    """
    claim = Claim()
    error = Alarm()

    def granted_and_raised() -> None:
        claim.granted = True
        raise error

    claim._gate = Gate(granted_and_raised)  # type: ignore[assignment]
    assert claim.wait() is error


def test_wakes_without_a_grant() -> None:
    """The lock alone is no grant."""
    claim = Claim()
    claim._gate = Gate(None, None, claim.grant)  # type: ignore[assignment]
    assert claim.wait() is None


def test_real_signals() -> None:
    """A real signal whose handler raises is returned when the claim is granted, and not raised."""
    claim = Claim()
    arrived = threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def handler(*_: object) -> None:
        arrived.set()
        raise Alarm

    def send() -> None:
        eventually(lambda: place_of(main).startswith(__file__))
        signal.pthread_kill(main, signal.SIGUSR1)
        assert arrived.wait(20)
        claim.grant()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        thread = threading.Thread(target=send)
        thread.start()
        raised = claim.wait()
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert isinstance(raised, Alarm)


def test_taken_says_who_and_where() -> None:
    """The log names the task, or a callback, for how long, and the line of the user that it is at."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.set_name("load")
        now = time.monotonic_ns()
        taken = Taken([], now - 3_000_000_000, threading.get_ident(), None, task)
        line = main.__code__.co_firstlineno + 7
        assert str(taken) == f"task 'load', blocked for 3 s at {__file__}:{line}"
        assert str(Taken([], now, 0, None, None)) == "a callback, blocked for 0 s at an unknown place"
        assert taken.at >= now
        assert not taken.awaits

    asyncio.run(main())


def test_place_is_the_users() -> None:
    """Frames of this library are skipped: the place is where the user has called it."""
    claim, go = Claim(), threading.Event()

    def wait() -> None:
        go.set()
        claim.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    go.wait(20)
    line = wait.__code__.co_firstlineno + 2
    eventually(lambda: place_of(thread.ident or 0) == f"{__file__}:{line}")
    claim.grant()
    thread.join()
    eventually(lambda: place_of(thread.ident or 0) == "an unknown place")
