"""What the tests of spare threads share: a token to watch, and an alarm that goes off when the test says so."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from time import monotonic_ns
from typing import Any

import pytest

from tests.support import eventually
from threadlets import spares as module
from threadlets.spares import Spares
from threadlets.thresholds import Threshold

PATIENCE = 20
LONG_AGO = 1  # the mark of a region that is old enough


class Alarm:
    """Stands for an alarm: a sentinel waits until the test has it go off, or says that it has waited in vain."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.free = False
        self._waits = threading.Semaphore(0)
        self._ends: queue.Queue[bool] = queue.Queue()

    def set(self, at: int) -> None:
        self.times.append(at)
        if at == 1:  # at once
            self.ring()

    def wait(self, seconds: float) -> bool:
        self._waits.release()
        return True if self.free else self._ends.get(timeout=PATIENCE)

    def wait_for_a_sentinel(self) -> None:
        """Wait until somebody waits."""
        assert self._waits.acquire(timeout=PATIENCE)

    def ring(self) -> None:
        """Go off: one of those who wait looks."""
        self._ends.put(True)

    def time_out(self) -> None:
        """Let somebody have waited in vain."""
        self._ends.put(False)

    def look(self, rang: bool = True) -> None:
        """Let the sentinel look, and wait until it waits again."""
        self._ends.put(rang)
        self.wait_for_a_sentinel()

    def set_free(self) -> None:
        """Let everybody go."""
        self.free = True
        for _ in range(10):
            self.ring()


class Cell(list[int]):
    """A cell with a hook for when the sentinel has read it."""

    after_reading: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[int]:
        marks = self[:]
        if self.after_reading is not None:
            hook, self.after_reading = self.after_reading, None
            hook()
        return iter(marks)  # a plain list


class Bench(list[Any]):
    """A bench with a hook before each append, and one before each remove."""

    def __init__(self) -> None:
        super().__init__()
        self.before_append: Callable[[], object] | None = None
        self.before_remove: Callable[[], object] | None = None

    def append(self, spare: Any) -> None:
        self._call("before_append")
        super().append(spare)

    def remove(self, spare: Any) -> None:
        self._call("before_remove")
        super().remove(spare)

    def _call(self, name: str) -> None:
        hook = getattr(self, name)
        setattr(self, name, None)
        if hook is not None:
            hook()


class Token:
    """What is watched and driven. ``open()`` and ``close()`` are the driver's; the rest is for the test."""

    def __init__(self) -> None:
        self.cell = Cell()
        self.threshold = Threshold(1000)
        self.before_uncovering: Callable[[], None] | None = None
        self._covered = 0
        self.spares = Spares(self, "spare-of-test")
        self.bench = self.spares._bench = Bench()
        self.drivers: list[int | None] = []
        self.claim = threading.Semaphore(0)

    @property
    def covered(self) -> int:
        return self._covered

    @covered.setter
    def covered(self, value: int) -> None:
        if not value and self.before_uncovering is not None:
            hook, self.before_uncovering = self.before_uncovering, None
            hook()
        self._covered = value

    def open(self, mark: int = LONG_AGO) -> None:
        now = monotonic_ns()
        self.cell.append(mark)
        if now > self.covered:
            self.spares.rouse(now)

    def close(self) -> None:
        self.cell.pop()

    def take(self, cell: list[int]) -> bool:
        try:
            cell.pop()
        except IndexError:
            return False
        return True

    def drive(self) -> None:
        self.drivers.append(threading.get_ident())
        assert self.claim.acquire(timeout=PATIENCE)

    def wait_driven(self, times: int) -> None:
        """Wait until spares have begun to drive so often."""
        eventually(lambda: len(self.drivers) == times)

    def wait_resting(self, count: int) -> None:
        """Wait until so many are on the bench."""
        eventually(lambda: len(self.bench) == count)
        self.spares._check()


def threads() -> list[threading.Thread]:
    """Return the spares that there are."""
    return [thread for thread in threading.enumerate() if thread.name == "spare-of-test"]


@pytest.fixture
def alarm(monkeypatch: pytest.MonkeyPatch) -> Alarm:
    """Let the test say when the sentinel looks."""
    alarm = Alarm()
    monkeypatch.setattr(module, "make_alarm", lambda: alarm)
    return alarm


@pytest.fixture
def token(alarm: Alarm) -> Iterator[Token]:
    """Make what is watched; at the end its threads end."""
    token = Token()
    yield token
    token.spares.close()
    alarm.set_free()
    for _ in range(10):
        token.claim.release()
    eventually(lambda: not threads())
