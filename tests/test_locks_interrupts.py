"""Waits for a lock that a signal handler interrupts in the main thread: as Ctrl-C does.

CPython calls signal handlers at few kinds of places: where a function begins, behind a call of one that is written in
C, and where a loop jumps back. ``Interrupt`` raises at each of them in turn, so nothing depends on when a signal comes.
"""

from __future__ import annotations

import dis
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from tests.support import eventually
from tests.workbench import PATIENCE
from threadlets import Lock
from threadlets.cancellation import holds
from threadlets.surroundings import waiting
from threadlets.waits import in_line

MODULES = tuple(f"threadlets/{name}.py" for name in ("locks", "parking", "holders", "deadlocks", "cancellation"))
CALLS = ("CALL", "CALL_KW", "CALL_FUNCTION_EX")


class Interrupted(BaseException):
    """What a signal handler raises."""


class Interrupt:
    """Raises ``Interrupted`` at the n-th place where CPython looks for signals: ``with interrupt:``."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.places = 0
        self._before: dict[FrameType, str] = {}  # by frame: the instruction before
        self._called: set[FrameType | None] = set()  # frames whose last call was one of a function written in Python

    @property
    def came(self) -> bool:
        """Whether there were so many places."""
        return self.places >= self.number

    def __enter__(self) -> None:
        self._outer = sys.gettrace()
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._outer)

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        self._called.add(frame.f_back)
        if not frame.f_code.co_filename.endswith(MODULES):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self._place()
        return self._opcode

    def _opcode(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "opcode":
            before = self._before.get(frame)
            self._before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            python = frame in self._called
            self._called.discard(frame)
            if before == "JUMP_BACKWARD" or (before in CALLS and not python):
                self._place()
        return self._opcode

    def _place(self) -> None:
        self.places += 1
        if self.places == self.number:
            raise Interrupted


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """See that nothing is known any more of those that held locks, or waited for them."""
    yield
    assert not holds and not waiting and not in_line


@pytest.mark.parametrize("timeout", [None, PATIENCE])
@pytest.mark.parametrize("contended", [False, True])
def test_interrupted_at_every_place(contended: bool, timeout: float | None) -> None:
    """Wherever ``acquire`` is interrupted, the lock is not held afterwards, and whoever comes next can have it."""
    number, me = 0, threading.get_ident()
    while True:
        number += 1
        lock, held, over = Lock(), threading.Event(), threading.Event()

        def hold(lock: Lock = lock, held: threading.Event = held, over: threading.Event = over) -> None:
            with lock:
                held.set()
                eventually(lambda: len(lock._line) or over.is_set())

        thread = threading.Thread(target=hold)
        if contended:
            thread.start()
            held.wait()
        interrupt = Interrupt(number)
        try:
            with interrupt:
                lock.acquire(timeout)
            lock.release()
        except Interrupted:
            assert lock.owner != me
        over.set()
        if contended:
            thread.join(PATIENCE)
        lock._check()
        assert not lock.locked()
        if not interrupt.came:
            break
    assert number > (30 if contended else 5)


def test_interrupted_while_it_waits() -> None:
    """A handler that raises in the middle of the wait ends that; the lock goes past."""
    lock = Lock()
    held, over, main = threading.Event(), threading.Event(), threading.get_ident()

    def hold() -> None:
        with lock:
            held.set()
            eventually(lambda: len(lock._line))
            signal.pthread_kill(main, signal.SIGUSR1)
            assert over.wait(PATIENCE)

    def raises(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, raises)
    try:
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        with pytest.raises(Interrupted):
            lock.acquire()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(lock._line) == 0 and lock.owner == thread.ident
    over.set()
    thread.join(PATIENCE)
    lock._check()
    assert not lock.locked()


def test_a_handler_that_returns_changes_nothing() -> None:
    """A wait goes on after a signal handler that does not raise, also one that uses another lock."""
    lock, other = Lock(), Lock()
    held, called, main = threading.Event(), threading.Event(), threading.get_ident()

    def hold() -> None:
        with lock:
            held.set()
            eventually(lambda: len(lock._line))
            signal.pthread_kill(main, signal.SIGUSR1)
            assert called.wait(PATIENCE)

    def handler(number: int, frame: object) -> None:
        with other:
            called.set()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        with lock:
            assert called.is_set()
    finally:
        signal.signal(signal.SIGUSR1, before)
    thread.join(PATIENCE)
    lock._check()


@pytest.mark.parametrize("way", ["with", "release"])
def test_a_release_is_made_good(way: str) -> None:
    """Where a release is interrupted, but for its very beginning, the lock is released all the same."""
    number = 1
    while True:
        number += 1
        lock = Lock()
        lock.acquire()
        interrupt = Interrupt(number)
        try:
            with interrupt:
                if way == "release":
                    lock.release()
                else:
                    lock.__exit__(None, None, None)
        except Interrupted:
            pass
        lock._check()
        assert not lock.locked()
        if not interrupt.came:
            break
    assert number > 3
