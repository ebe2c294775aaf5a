"""What is looked at in each situation, in what words it is told, and what the libraries' sides share.

A fact is what was observed, yes or no; ``words()`` turns the facts of a situation into the text of a cell, the same way
for every library. "At once" is: within ``PATIENCE``, though the function goes on for as long as we like.
"""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

__all__ = [
    "LONG",
    "PATIENCE",
    "REASON",
    "Again",
    "Cells",
    "Errors",
    "Facts",
    "Gate",
    "Hangs",
    "Lock",
    "Loop",
    "Queued",
    "Refused",
    "Returned",
    "Section",
    "Recv",
    "Spin",
    "Suspended",
    "Thread",
    "Token",
    "be_patient",
    "eventually",
    "fail",
    "how_both",
    "patient",
    "stuck",
    "watched",
]

PATIENCE = 1.0  # seconds; arbitrary: what has not happened by then, does not happen "at once"
LONG = 7.0  # seconds; longer than any limit that a library sets by itself, but for those of a minute and more
SHORT = 0.1  # seconds; arbitrary: a limit for cleanup, where one has to be given
REASON = "the tenant has left"

_factor = 1.0


def be_patient(factor: float) -> None:
    """Wait so much longer for what may never happen: the machine is busy."""
    global _factor
    _factor = factor


def patient(seconds: float) -> float:
    """Return how long to wait for what ought to happen within these seconds, if at all."""
    return seconds * _factor


class Facts(Protocol):
    """What was observed."""

    def words(self) -> str:
        """Say it, for a cell."""
        ...


Cells = Facts | dict[str, Facts]  # as one would write it; or more: by the library's tool for this, "" for none


class Refused(NamedTuple):
    """``cancel()`` returned False, and the function went on until it was allowed to return."""

    def words(self) -> str:
        return "is refused"


class Queued(NamedTuple):
    """A function that waits for its turn."""

    ran: bool  # later, when it would have been its turn
    freed: bool  # its argument: nothing holds it, while it is still not its turn

    def words(self) -> str:
        ran = "runs all the same" if self.ran else "never runs"
        return f"{ran}, argument {'freed' if self.freed else 'kept'}"


class Suspended(NamedTuple):
    """A coroutine at an await."""

    cleaned: bool  # its `finally` has run
    reason: bool  # its `except` has seen why

    def words(self) -> str:
        cleaned = "`finally` runs" if self.cleaned else "`finally` does not run"
        return f"{cleaned}, {'reason seen' if self.reason else 'no reason'}"


class Returned(NamedTuple):
    """A function on a thread that has returned, which the event loop has not heard of."""

    kept: bool  # who has waited has got what it returned
    cancelled: bool  # who has waited was told of the cancel

    def words(self) -> str:
        if not self.kept:
            return "result lost"
        return "result kept, told at the next await" if self.cancelled else "result kept"


class Thread(NamedTuple):
    """A function that blocks its thread, and is the only one that may run."""

    at_once: bool  # the wait for it has ended, while the function has not
    beside: bool  # the next one has started, while the function has not ended

    def words(self) -> str:
        if not self.at_once:
            return "waits for the function"
        return f"ends at once, {'the next one starts beside it' if self.beside else 'its place stays taken'}"


class Loop(NamedTuple):
    """A long loop on a thread."""

    stopped: bool  # by the cancel, before it had gone round 20 times more

    def words(self) -> str:
        return "stops" if self.stopped else "goes on"


class Recv(NamedTuple):
    """A thread in ``recv()``, where nothing arrives."""

    waiter: bool  # who waits for it: at once
    thread: bool  # at once

    def words(self) -> str:
        if self.waiter and self.thread:
            return "both end at once"
        return "the wait ends, the thread stays" if self.waiter else "both stay"


class Lock(NamedTuple):
    """A wait for a lock that somebody else holds."""

    at_once: bool  # the wait has ended, while the lock is held
    leaked: bool  # the lock is taken for ever, although its holder has released it and nobody uses it

    def words(self) -> str:
        wait = "ends at once" if self.at_once else "waits on for the lock"
        return f"{wait}, {'the lock stays locked for ever' if self.leaked else 'the lock is free'}"


class Section(NamedTuple):
    """Two steps under a lock, with an await between them."""

    whole: bool  # both steps are done
    waited: bool  # who was cancelled has ended after the second step

    def words(self) -> str:
        if not self.whole:
            return "half done"
        return "whole" if self.waited else "whole, but told before its end"


class Again(NamedTuple):
    """Cleanup that awaits, and a second cancel meanwhile."""

    whole: bool  # it has come to its end
    waited: bool  # who was cancelled has ended after that

    def words(self) -> str:
        if not self.whole:
            return "cut short"
        return "completes" if self.waited else "completes, but told before its end"


class Hangs(NamedTuple):
    """Cleanup that awaits what never comes."""

    ended: bool  # within LONG
    error: str  # that this is told by; "" if nobody is told more than that it was cancelled

    def words(self) -> str:
        if not self.ended:
            return "hangs"
        return f"cut off, `{self.error}`" if self.error else "cut off"


class Errors(NamedTuple):
    """Two steps of cleanup that both fail."""

    raised: int  # of the two: how many are raised, alone or in groups
    found: int  # how many are found there, or as context of these

    def words(self) -> str:
        if self.raised == 2:
            return "both, in an `ExceptionGroup`"
        if self.raised == 1:
            return f"one, the other {'as its context' if self.found == 2 else 'is lost'}"
        return "none"


class Gate:
    """Where a function on a thread stops until it is let go on."""

    def __init__(self) -> None:
        self.arrived = False
        self.returned = threading.Event()  # about to
        self._open = threading.Event()

    def __call__(self, value: object = None) -> object:
        self.arrived = True
        self._open.wait()
        self.returned.set()
        return value

    def open(self) -> None:
        self._open.set()


class Spin:
    """A long loop: goes round until it is let out, or what it looks at raises an error."""

    def __init__(self, look: Callable[[], object] = int) -> None:
        self.look = look
        self.rounds = 0
        self.stopped = False
        self.out = threading.Event()

    def __call__(self) -> None:
        try:
            while not self.out.wait(0.005):
                self.look()
                self.rounds += 1
        except BaseException:
            self.stopped = True
            raise

    def decided(self) -> Callable[[], bool]:
        """Return a condition: from now on it has stopped, or gone round 20 times."""
        enough = self.rounds + 20
        return lambda: self.stopped or self.rounds >= enough


class Token:
    """An argument."""


def watched() -> tuple[Token, Callable[[], bool]]:
    """Return an argument, and what says whether it has been freed."""
    token = Token()
    reference = weakref.ref(token)

    def freed() -> bool:
        gc.collect()
        return reference() is None

    return token, freed


async def eventually(
    condition: Callable[[], object], sleep: Callable[[float], Awaitable[object]], seconds: float = PATIENCE
) -> bool:
    """Wait until a condition holds; False if it does not within these seconds."""
    end = time.monotonic() + patient(seconds)
    while not condition():
        if time.monotonic() > end:
            return False
        await sleep(0.002)
    return True


class CleanupError(Exception):
    """What a step of cleanup raises here."""


def fail(step: str) -> None:
    """Be a step of cleanup that fails."""
    raise CleanupError(step)


def how_both(error: BaseException | None) -> Errors:
    """Say how an error shows the two that ``fail`` has raised."""
    raised: set[str] = set()
    found: set[str] = set()
    _collect(error, raised, found, True)
    return Errors(len(raised), len(found))


def _collect(error: Any, raised: set[str], found: set[str], is_raised: bool) -> None:
    if error is None:
        return
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            _collect(each, raised, found, is_raised)
    if isinstance(error, CleanupError):
        found.add(error.args[0])
        if is_raised:
            raised.add(error.args[0])
    _collect(error.__context__, raised, found, False)


def stuck() -> None:
    """Block this thread until the program's parent lets it go; see ``situations_signals``."""
    print("started", flush=True)
    os.read(0, 1)
