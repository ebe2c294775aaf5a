"""What semaphores, conditions and events share: something is granted to whoever stands in line for it.

Why: ``asyncio`` had to learn over ten years what becomes of a token, or of a notification, that is on its way to
somebody who is just being cancelled. Here nothing is ever on its way: it is granted, under a mutex, to one who stands
in line, and he looks, under the same mutex, whether it was granted to him, however his wait has ended. If so, and he
cannot use it, it is handed on. And nobody who comes later is quicker than somebody to whom it was granted.

The mutex may be wanted by the very thread that has it: by a signal handler, or by the garbage collector, when it throws
a coroutine away that stood in line on a loop which was closed. So all is done in *jobs*, one after the other, and what
comes up in the middle of one is done right after it (``test_a_release_in_the_middle_of_another_one``).

Rejected: a plain lock for a mutex (it hangs in both these cases); to let whoever is woken look again for himself, as in
``threading`` (somebody comes in between, and all who were woken have to go back to sleep).

Invariants: see ``_check()``. Assumes: signal handlers, and the garbage collector, come in where something is called.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from .cancellation import checkpoint
from .deadlocks import blocked_loop, name_of
from .parking import Line, TaskWaiter, ThreadWaiter, Waiter
from .regions import me
from .takeover import SAY_SECONDS
from .tasks import running_loop
from .waits import in_line

__all__ = ["Granted", "check_count", "check_in_task", "check_on_thread", "named"]

logger = logging.getLogger("threadlets")


class Granted:
    """Something that is waited for in line. Thread: any."""

    __slots__ = ("__weakref__", "_busy", "_jobs", "_line", "_mutex")

    def __init__(self) -> None:
        self._mutex: Any = threading.RLock()
        self._busy = False  # a job is being done
        self._jobs: deque[Callable[[], object]] = deque()
        self._line = Line()

    def _do(self, job: Callable[[], object]) -> None:
        """Do a job under the mutex; if this thread is in the middle of another one, right after that."""
        with self._mutex:
            self._jobs.append(job)
            if self._busy:
                return
            self._busy = True
            try:
                while self._jobs:
                    self._jobs.popleft()()
            finally:
                self._busy = False

    # ----------------------------------------------------------------- what each kind says; all but the last are jobs

    def _take_now(self) -> bool:
        """Take what is waited for, if it can be had without a wait."""
        return False

    def _hand_on(self) -> object:
        """Give what somebody was given, and cannot use, to the next one."""

    def _let_go(self, who: Any) -> None:
        """Do what somebody has to do once he stands in line."""

    # ---------------------------------------------------------------------------------------------------------- wait

    def _join(self, waiter: Waiter) -> None:
        """Take it, or stand in line."""
        if hasattr(waiter.owner, "_priority"):  # a threadlet's may change; this comes first, to miss no change
            in_line[waiter.owner] = partial(self._do, partial(self._line.rekey, waiter))
        self._do(partial(self._admit, waiter))
        self._let_go(waiter.owner)

    def _admit(self, waiter: Waiter) -> None:
        if self._take_now():
            waiter.granted = True
        else:
            self._line.push(waiter)

    def _give_up(self, waiter: Waiter) -> None:
        """Leave the line, or hand on what was given; a job."""
        if not self._line.remove(waiter) and waiter.granted:
            self._hand_on()

    def _wait_on_thread(self, timeout: float | None) -> bool:
        """Wait here, for ``timeout`` seconds at most; False if that was in vain.

            grants: pops him                         he: his time is up
            grants: marks him                        he: wants the mutex, to leave the line
            he: leaves it, in vain, and sees the mark
        (``test_the_end_of_a_wait_meets_release``)
        """
        waiter = ThreadWaiter(who := me())
        try:
            self._join(waiter)
            if not waiter.granted:
                if blocked_loop(who) is None:
                    waiter.wait(timeout)
                else:
                    waiter.wait(timeout, poll=SAY_SECONDS, look=partial(self._tell, who))
                if not waiter.granted:
                    self._do(partial(self._line.remove, waiter))
            return waiter.granted
        except BaseException:
            self._do(partial(self._give_up, waiter))
            raise
        finally:
            in_line.pop(who, None)

    async def _wait_in_task(self) -> None:
        """Wait in a coroutine.

            grants: pops him                         he: is cancelled at his await
            grants: marks him, and wakes his loop    he: goes on with the CancelledError
            he: leaves the line, in vain, and sees the mark
        His future may be done, and his await raise all the same: the mark counts (``test_cancel_meets_release``).
        """
        waiter = TaskWaiter(who := me())
        try:
            self._join(waiter)
            if not waiter.granted:
                await waiter.wait()
        except BaseException:
            self._do(partial(self._give_up, waiter))
            raise
        finally:
            in_line.pop(who, None)

    def _grant(self, waiter: Waiter) -> bool:
        """Give somebody who has left the line what he waits for; False if his loop was closed just now. A job."""
        if not waiter.grant():
            waiter.granted = False
            return False
        loop = running_loop()
        if loop is not None and isinstance(waiter, TaskWaiter) and asyncio.current_task(loop) is None:
            # This may be a signal handler in the middle of the loop's poll, which goes on to sleep when it returns.
            loop.call_soon_threadsafe(_nothing)
        return True

    def _tell(self, who: Any) -> None:
        logger.warning(
            "%s waits for %r in place, and its event loop stands still meanwhile: if what it waits for is to come from "
            "there, it is for ever. threadlets.run, or Contract(blocks='always'), avoids that",
            name_of(who),
            self,
        )

    def _waiting(self) -> str:
        return f", {len(self._line)} waiting" if len(self._line) else ""

    def _check(self) -> None:
        """Assert every invariant."""
        with self._mutex:
            self._line._check()
            assert not self._busy and not self._jobs, "what came up in the middle of a job was done after it"


def check_on_thread(what: object, method: str, instead: str) -> None:
    """See that somebody may wait on this thread; a checkpoint.

    Raises:
        asyncio.CancelledError: If he was asked to stop.
        RuntimeError: In a coroutine.
    """
    if running_loop() is not None:
        raise RuntimeError(f"{method} of {what!r} in a coroutine would stall its event loop: use {instead}")
    checkpoint()


def check_in_task(what: object, method: str, instead: str) -> None:
    """See that somebody may wait here, in a coroutine.

    Raises:
        RuntimeError: Where there is none.
    """
    if running_loop() is None or asyncio.current_task() is None:
        raise RuntimeError(f"{method} of {what!r} outside of a task: on a thread, use {instead}")


def check_count(name: str, count: int) -> None:
    """Raise an error for what is no number of things."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name}={count!r}: expected an integer")
    if count < 0:
        raise ValueError(f"{name}={count!r}: expected 0 or more")


def named(name: str | None) -> str:
    """Return what a name adds to a repr."""
    return "" if name is None else f" {name!r}"


def _nothing() -> None:
    pass
