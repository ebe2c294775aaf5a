"""A lock for threads and coroutines at the same time, which nobody takes along when he is cancelled.

Why: the locks of ``threading`` stall an event loop, those of ``asyncio`` are unknown to threads, and to wait for one
kind from the other side (``run_in_executor(lock.acquire)``) leaves it locked for ever if the wait is cancelled.

How: the right to own the lock is one value that lies in a list, ``_free``, while nobody has it: whoever takes it out is
the owner. As long as nobody waits the lock is *quiet*, and that is all there is to it. Whoever finds the list empty
waits in line (``parking``), and who releases a lock that is not quiet gives it to the first in line, so nobody comes in
between. While somebody holds it he is inside of a ``holding`` (``cancellation``), and as urgent as the threadlets in
line (``holders``). Who waits notes that, to be found in a circle (``deadlocks``).

The one race of the quiet road, which uses no mutex:

    waits: makes the lock not quiet           releases: puts the value into the list
    waits: looks into the list                releases: looks whether the lock is still quiet
Both write first and read second, so one of them sees the other (``test_joined_at_every_step_of_a_release``).

Who holds it is a threadlet, or a task, or a thread. If one of the first two ends without releasing it, and somebody
waits, the lock is poisoned. A task whose loop was closed has ended; one whose loop was stopped has not.

A wait may be interrupted at any place, a release not where it begins, and not where somebody is just given the lock:
what a signal handler raises there may leave it locked. The mutex is never held while code of the user's runs.

Invariants: see ``_check()``. Assumes: operations of ``list`` are atomic (the interpreter lock, or the locks that a
free-threaded build puts in its place); CPython calls signal handlers at calls, and where a loop jumps back, only.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from functools import partial
from types import TracebackType
from typing import Any

from .cancellation import GRACE, by_cancel, enter, holds, is_forced, leave, raise_if_asked
from .deadlocks import blocked_loop, name_of, waits_for
from .definitions import check_seconds
from .errors import LockPoisoned
from .holders import Held
from .lifecycles import ABANDONED, ASKED, HERE
from .parking import TaskWaiter, ThreadWaiter, Waiter
from .regions import me
from .surroundings import here
from .tasks import running_loop
from .waits import in_line

__all__ = ["POLL", "Lock"]

POLL = 0.05  # seconds; arbitrary: how often who blocks an event loop looks whether somebody waits for that
LISTENS = ASKED | HERE  # marks of those for whom it takes more than a look at these


class Lock(Held):
    """A lock: ``with lock:`` in plain functions and on threads, ``async with lock:`` in coroutines.

    The same object may be used from both, and from several event loops, at the same time. It goes to the most urgent
    threadlet that waits, and among equals to the first; what is no threadlet has priority 0. While threadlets wait, a
    threadlet of the same loop that holds it is as urgent as the most urgent of them.

    A threadlet that holds it is not told of a cancel before it has released it, as inside of ``holding``. If it has to
    be told earlier, since ``grace`` has run out, and leaves the lock by that, what the lock protects may be half done:
    the lock is *poisoned*. Whoever wants it gets ``LockPoisoned`` until somebody calls ``repair()``. So it is if a
    threadlet or a task ends while it holds the lock, and somebody wants it.

    A wait for it may be cancelled or time out at any moment: then it is not held, and goes to the next one.

    Args:
        name: Shown in messages.
        grace: How long after a cancel a threadlet may hold it, in seconds; ``inf``: as long as it likes.

    Raises:
        TypeError: If ``name`` is no string, or ``grace`` no number.
        ValueError: If ``grace`` is NaN or below 0.

    Thread: any, for all methods.
    """

    __slots__ = ("_free", "_poison", "_quiet", "grace", "name")

    def __init__(self, name: str | None = None, *, grace: float = GRACE) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"Lock({name!r}): expected a name")
        check_seconds("grace", grace)
        super().__init__()
        self.name = name
        self.grace = grace
        self._free: list[None] = [None]
        self._quiet = True  # nobody waits, and it is not poisoned; written under the mutex
        self._poison: str | None = None  # how it was left, until it is repaired

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        words = "poisoned" if self._poison else "free" if self._owner is None else "taken"
        waiting = f", {len(self._line)} waiting" if len(self._line) else ""
        return f"<Lock{name}: {words}{waiting}>"

    # ------------------------------------------------------------------------------------------------ what users see

    def locked(self) -> bool:
        """Say whether somebody holds it."""
        return self._owner is not None

    @property
    def owner(self) -> object:
        """Who holds it: a threadlet, a task, the number of a thread; None: nobody."""
        return self._owner

    @property
    def poisoned(self) -> bool:
        """Whether its last holder has left what it protects in the middle, and nobody has repaired that."""
        return self._poison is not None

    def repair(self) -> None:
        """Declare that what the lock protects is in order again: it may be acquired. Nothing, if it is not poisoned."""
        with self._mutex:
            if self._poison is not None:
                self._poison = None
                self._serve()

    def acquire(self, timeout: float | None = None) -> bool:
        """Wait for the lock on this thread, and take it; False if that has not come about in ``timeout`` seconds.

        Cancel: point, whether it has to wait or not.

        Raises:
            asyncio.CancelledError: If the threadlet is asked to stop.
            Deadlock: If this would wait for itself: it holds the lock already; or in a circle, without a timeout.
            LockPoisoned: If it is poisoned.
            RuntimeError: In a coroutine.
            TypeError, ValueError: For a timeout that is none.
        """
        if timeout is not None:
            check_seconds("timeout", timeout)
        who = self._on_thread()
        return self._take(who) or self._wait_on_thread(who, timeout)

    async def acquire_async(self) -> None:
        """Wait for the lock in a coroutine, and take it. Cancel: point, if it has to wait.

        For a limit use ``asyncio.timeout``. (On Python 3.11 ``asyncio.wait_for`` runs what it is given in a task of its
        own, which then holds the lock.)

        Raises:
            Deadlock: If this would wait for itself: in a circle, or since it holds the lock already.
            LockPoisoned: If it is poisoned.
            RuntimeError: Outside of a task.
        """
        who = _in_task()
        if not self._take(who):
            await self._wait_in_task(who)

    def release(self) -> None:
        """Give the lock to the first who waits.

        Raises:
            RuntimeError: If it is not held by who calls this.
        """
        error = None
        try:
            error = sys.exception()
            self._release(me(), broken=by_cancel(error))
        except BaseException:
            self._make_good(error)
            raise

    def __enter__(self) -> None:
        who = here.get(threading.get_ident())
        if who is None or who._marks & LISTENS or who in holds or running_loop() is not None:
            who = self._on_thread()
        if not self._take(who):
            self._wait_on_thread(who, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            thread = threading.get_ident()
            who: Any = here.get(thread)
            if who is None and running_loop() is None and self._owner == thread:
                who = thread
            elif who is None or who is not self._owner:
                who = me()
            self._release(who, broken=error is not None and by_cancel(error))
        except BaseException:
            self._make_good(error)
            raise

    async def __aenter__(self) -> None:
        who = _in_task()
        if not self._take(who):
            await self._wait_in_task(who)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and isinstance(error, GeneratorExit) and self._thrown_away():
            return
        task, who = asyncio.current_task(), self._owner
        if task is None or (who is not task and getattr(who, "_task", None) is not task):
            who = _in_task()
        self._release(who, broken=error is not None and by_cancel(error))

    # ------------------------------------------------------------------------------------------------ take and give

    def _on_thread(self) -> Any:
        """Return who is about to wait on this thread, if he may."""
        if running_loop() is not None:
            raise RuntimeError(f"'with {self!r}' in a coroutine would stall its event loop: use 'async with'")
        who = me()
        raise_if_asked(who)
        return who

    def _take(self, who: Any, depth: int = 2) -> bool:
        """Take the lock if it is quiet, and free."""
        if not self._quiet:
            return False
        try:
            del self._free[0]  # not a call: no signal handler comes between this and the next line
        except IndexError:
            return False
        self._owner = who
        try:
            enter(who, self)
            frame = sys._getframe(depth)
            self._place = frame.f_code, frame.f_lasti
            return True
        except BaseException:  # of a signal handler
            self._release(who, broken=False)
            raise

    def _release(self, who: Any, *, broken: bool) -> None:
        if self._owner is not who and self._owner != who:
            held = "nobody holds it" if self._owner is None else self._taken_by()
            raise RuntimeError(f"{self!r} is released by {name_of(who)}, which does not hold it: {held}")
        poison = None
        if broken and is_forced(who):
            poison = f"{name_of(who)} was cancelled while it held it, after its grace of {self.grace} s"
        try:
            if self._quiet and poison is None:
                self._owner = self._place = None
                self._free.append(None)
            else:
                self._hand_on(who, poison)
        finally:
            if not self._quiet and self._free:
                self._offer()
            leave(who, self)

    def _make_good(self, error: BaseException | None) -> None:
        """Release it after all, if that was interrupted by what a signal handler has raised."""
        who = me()
        if self._owner == who:
            self._release(who, broken=by_cancel(error))

    def _offer(self) -> None:
        """Give the lock, which was just put down, to one who has come meanwhile; unless it was taken."""
        with self._mutex:
            if self._pick_up():
                self._serve()
        self._update()

    def _pick_up(self) -> bool:
        """Take the right to own the lock, if it is free. Under the mutex."""
        try:
            del self._free[0]
        except IndexError:
            return False
        return True

    def _hand_on(self, who: Any, poison: str | None = None) -> None:
        """Give the lock from somebody to the next one, or to nobody; who waits for a poisoned one gets an error."""
        with self._mutex:
            if self._owner != who:
                return
            self._poison = poison or self._poison
            self._serve()
        self._update()

    def _serve(self) -> None:
        """Let the lock, whose right is in our hands, have its next owner. Under the mutex."""
        self._owner = self._place = None
        while self._owner is None and (waiter := self._line.pop()) is not None:
            if self._poison is not None:
                waiter.grant(self._poisoned())
                continue
            self._owner = waiter.owner
            if not waiter.grant():  # its loop was closed
                self._owner = None
        if self._owner is None and self._poison is None:
            self._free.append(None)
        self._look_quiet()

    def _look_quiet(self) -> None:
        self._quiet = self._poison is None and not len(self._line)

    def _poisoned(self) -> LockPoisoned:
        return LockPoisoned(
            f"{self!r}: {self._poison}. What it protects may be half done: mend that, then call lock.repair()"
        )

    # ------------------------------------------------------------------------------------------------ wait

    def _wait_on_thread(self, who: Any, timeout: float | None) -> bool:
        waiter = ThreadWaiter(who)
        try:
            with waits_for(who, self, timed=timeout is not None, waiter=waiter) as look:
                if self._join(waiter):
                    blocks = timeout is None and blocked_loop(who) is not None
                    waiter.wait(timeout, poll=POLL if blocks else None, look=look)
            if not waiter.granted and self._leave_line(waiter):
                return False
            return self._arrive(waiter, 3)
        except BaseException:
            self._give_up(waiter)
            raise

    async def _wait_in_task(self, who: Any) -> None:
        waiter = TaskWaiter(who)
        try:
            with waits_for(who, self, waiter=waiter):
                if self._join(waiter):
                    await waiter.wait()
            self._arrive(waiter, 3)
        except BaseException:
            self._give_up(waiter)
            raise

    def _join(self, waiter: Waiter) -> bool:
        """Stand in line; False if its turn has come already."""
        if hasattr(waiter.owner, "pool"):
            in_line[waiter.owner] = partial(self._rekey, waiter)  # first, to miss no change of its priority
        with self._mutex:
            if self._poison is not None:
                raise self._poisoned()
            self._line.push(waiter)
            self._quiet = False
            if self._pick_up():
                self._serve()
        self._update()
        return not waiter.granted

    def _leave_line(self, waiter: Waiter) -> bool:
        """Take somebody out of the line; False if he is not in."""
        in_line.pop(waiter.owner, None)
        with self._mutex:
            removed = self._line.remove(waiter)
            self._look_quiet()
        if removed:
            self._update()
        return removed

    def _give_up(self, waiter: Waiter) -> None:
        """Wait no more, however far that has come; who has the lock by now hands it on."""
        if not self._leave_line(waiter) and waiter.granted and waiter.error is None:
            self._hand_on(waiter.owner)
            leave(waiter.owner, self)

    def _arrive(self, waiter: Waiter, depth: int) -> bool:
        """Go on with the lock in hand."""
        in_line.pop(waiter.owner, None)
        if waiter.error is not None:
            raise waiter.error
        enter(waiter.owner, self)
        frame = sys._getframe(depth)
        self._place = frame.f_code, frame.f_lasti
        return True

    # ------------------------------------------------------------------------------------------------ what others see

    def _owner_ended(self, owner: Any) -> None:
        """Go on without a holder that has ended, if it has not released the lock."""
        with self._mutex:
            if self._owner is not owner or getattr(owner, "_marks", 0) & ABANDONED:  # that one goes on unobserved
                return
            if self._place is not None:  # it has been told that it has it
                self._poison = f"{name_of(owner)} ended while it held it, {self._taken_at()}"
            self._serve()
        leave(owner, self)
        self._update()

    def _check(self) -> None:
        """Assert every invariant."""
        with self._mutex:
            self._line._check()
            free = self._owner is None and self._poison is None
            assert self._free == ([None] if free else []), "the right to own it is there, or somebody has it"
            assert self._owner is not None or not len(self._line), "who waits, waits for somebody"
            assert self._poison is None or self._owner is None, "nobody holds what is poisoned"
            assert self._quiet == (self._poison is None and not len(self._line)), "it is known whether it is quiet"


def _in_task() -> Any:
    """Return who runs in a coroutine: a threadlet, or a task."""
    loop = running_loop()
    task = None if loop is None else asyncio.current_task(loop)
    if task is None:
        raise RuntimeError("'async with' a lock, outside of a task: use it in a coroutine, or 'with' on a thread")
    return me()
