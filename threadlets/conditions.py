"""Events and conditions for threads and coroutines at the same time.

Why: see ``locks``; those of ``threading`` and ``asyncio`` know only one kind each, and no order. How: see ``grants``.
(Semaphores, which belong here, too, have a file of their own for its length.)

A condition's wait has three parts: to stand in line, and only then to release the lock, so that no notification goes
past; to wait; to take the lock again, whatever it was that has ended the wait, and whatever else comes meanwhile. A
notification counts as taken when the wait returns. If it raises instead, the notification goes to the next one.

Rejected: to put those that are notified in line for the condition's lock at once. A thread would be woken once less,
and both lines would have to know a second kind of waiter.

Invariants: see ``_check()``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic
from types import CodeType, TracebackType
from typing import Any, TypeVar

from .deadlocks import blocked_loop, name_of, waits_for
from .definitions import check_seconds
from .errors import Deadlock
from .grants import Granted, check_count, check_in_task, check_on_thread, named
from .locks import POLL, Lock
from .parking import TaskWaiter, ThreadWaiter
from .regions import me
from .semaphores import Semaphore
from .tasks import running_loop

__all__ = ["Condition", "Event", "Semaphore"]

T = TypeVar("T")
Place = tuple[CodeType, int] | None


class _ThrownAway(BaseException):
    """Goes through a coroutine that is thrown away while it waits, from the wait to the end of the block.

    If a loop is closed with a coroutine in it, some day the garbage collector closes that, in the middle of any other
    task. That one may have the lock, the coroutine has not. A GeneratorExit does not tell: each frame gets a new one.
    (``test_a_coroutine_that_is_thrown_away``)
    """

    def __init__(self, condition: Condition) -> None:
        super().__init__()
        self.condition = condition


class Event(Granted):
    """Something that happens, and that any number may wait for, on threads and in coroutines of any event loop.

    Args:
        name: Shown in messages.

    Thread: any, for all methods.
    """

    __slots__ = ("_happened", "name")

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.name = name
        self._happened = False

    def __repr__(self) -> str:
        return f"<Event{named(self.name)}: {'set' if self._happened else 'not set'}{self._waiting()}>"

    def is_set(self) -> bool:
        """Say whether it has happened."""
        return self._happened

    def set(self) -> None:
        """Let it have happened: all that wait go on, the most urgent first. May be called by a signal handler."""
        with self._mutex:
            self._happened = True
            self._do(self._wake_all)

    def clear(self) -> None:
        """Let it be as if it had not happened: whoever waits from now on waits for the next ``set()``."""
        with self._mutex:
            self._happened = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait on this thread until it has happened; False if it has not in ``timeout`` seconds.

        True, too, for a wait that was ended by ``set()``, if somebody has called ``clear()`` right after it.

        In place on an event loop that cannot go on meanwhile, it has to happen elsewhere: on a thread, or on another
        loop. If it is to happen on the same loop this waits for ever; the log says so after five seconds.

        Cancel: point, whether it has to wait or not; not inside of ``holding``.

        Raises:
            asyncio.CancelledError: If the threadlet is asked to stop.
            RuntimeError: In a coroutine.
            TypeError, ValueError: For a timeout that is none.
        """
        if timeout is not None:
            check_seconds("timeout", timeout)
        check_on_thread(self, "wait()", "wait_async()")
        return self._happened or (timeout != 0 and self._wait_on_thread(timeout))

    async def wait_async(self) -> None:
        """Wait in a coroutine until it has happened. Cancel: point, if it has to wait.

        Raises:
            RuntimeError: Outside of a task.
        """
        check_in_task(self, "wait_async()", "wait()")
        if not self._happened:
            await self._wait_in_task()

    def _take_now(self) -> bool:
        return self._happened

    def _wake_all(self) -> None:
        while (waiter := self._line.pop()) is not None:
            self._grant(waiter)

    def _check(self) -> None:
        """Assert every invariant."""
        super()._check()
        with self._mutex:
            assert not self._happened or not len(self._line), "nobody waits for what has happened"


class Condition(Granted):
    """A lock, and a line of those that wait until something about what it protects has changed.

    ``with condition:`` in plain functions and on threads, ``async with condition:`` in coroutines, for the same object,
    and in several event loops, at the same time. Several conditions may share a lock. In the block, look whether things
    are as they should be, and wait as long as they are not, or let ``wait_for`` do that; whoever changes them notifies.

    However a wait ends - notified, cancelled, out of time, interrupted - the lock is held again, unless it cannot be
    had: then the wait raises ``LockPoisoned`` or ``Deadlock``, and the block ends with that as with any error.

    A notification goes to the most urgent that waits, and among equals to the first; if he is cancelled before his wait
    has returned, to the next one.

    Args:
        lock: What it is about; None: a ``Lock`` of its own.

    Raises:
        TypeError: If it is no ``threadlets.Lock``.

    Thread: any, for all methods.
    """

    __slots__ = ("lock",)

    def __init__(self, lock: Lock | None = None) -> None:
        super().__init__()
        if lock is not None and not isinstance(lock, Lock):
            raise TypeError(f"Condition({lock!r}): expected a threadlets.Lock, or nothing")
        self.lock = Lock() if lock is None else lock

    def __repr__(self) -> str:
        return f"<Condition of {self.lock!r}{self._waiting()}>"

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, wait on this thread to be notified, take the lock again; False if ``timeout`` has passed.

        That is in seconds, and does not cover the wait for the lock. What was to be waited for may have come and gone:
        look again, or use ``wait_for``. On an event loop that cannot go on meanwhile, see ``Event.wait``.

        Cancel: point, if nothing but this lock holds it back.

        Raises:
            asyncio.CancelledError: If the threadlet is asked to stop.
            Deadlock: If the lock cannot be had again, since that would be a circle of waits.
            LockPoisoned: If it is poisoned by now.
            RuntimeError: In a coroutine, or if the lock is not held.
            TypeError, ValueError: For a timeout that is none.
        """
        if timeout is not None:
            check_seconds("timeout", timeout)
        if running_loop() is not None:
            raise RuntimeError(f"wait() of {self!r} in a coroutine would stall its event loop: use wait_async()")
        who = self._holder("wait()")
        place = self.lock._place
        notified = False
        try:
            notified = self._wait_on_thread(timeout)
        finally:
            try:
                self._take_back(who, place)
            except BaseException:
                if notified:
                    self._do(self._hand_on)
                raise
        return notified

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """Wait as ``wait`` does until ``predicate()`` is true; return what it says, which is false after ``timeout``.

        It is called with the lock held, once before the wait, and whenever this is notified.

        Raises:
            BaseException: What the predicate raises, and what ``wait`` raises.
        """
        if timeout is not None:
            check_seconds("timeout", timeout)
        self._holder("wait_for()")
        until = None if timeout is None else monotonic() + timeout
        while not (result := predicate()):
            left = None if until is None else until - monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    async def wait_async(self) -> None:
        """Release the lock, wait in a coroutine to be notified, take the lock again. Cancel: point.

        For a limit use ``asyncio.timeout``. (On Python 3.11 ``asyncio.wait_for`` runs what it is given in a task of its
        own, which does not hold the lock.)

        Raises:
            Deadlock: If the lock cannot be had again, since that would be a circle of waits.
            LockPoisoned: If it is poisoned by now.
            RuntimeError: If the lock is not held by this task.
        """
        check_in_task(self, "wait_async()", "wait()")
        who = self._holder("wait_async()")
        try:
            await self._wait_and_take_back(who, self.lock._place)
        except GeneratorExit:
            raise _ThrownAway(self) from None

    async def wait_for_async(self, predicate: Callable[[], T]) -> T:
        """Wait as ``wait_async`` does until ``predicate()`` is true; return what it says.

        It is called with the lock held, once before the wait, and whenever this is notified.

        Raises:
            BaseException: What the predicate raises, and what ``wait_async`` raises.
        """
        self._holder("wait_for_async()")
        while not (result := predicate()):
            await self.wait_async()
        return result

    def notify(self, n: int = 1) -> None:
        """Let ``n`` of those that wait go on, once they have the lock; fewer, if fewer wait.

        Raises:
            RuntimeError: If the lock is not held.
            TypeError, ValueError: If ``n`` is no number, or below 0.
        """
        check_count("n", n)
        self._holder("notify()")
        self._do(partial(self._notify, n))

    def notify_all(self) -> None:
        """Let all that wait go on, once they have the lock.

        Raises:
            RuntimeError: If the lock is not held.
        """
        self._holder("notify_all()")
        self._do(lambda: self._notify(len(self._line)))

    def __enter__(self) -> None:
        check_on_thread(self, "'with'", "'async with'")
        who = me()
        if not self.lock._take(who):
            self.lock._wait_on_thread(who, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or self.lock._owner == me():  # else it is that of a wait which could not have the lock
            self.lock.__exit__(kind, error, traceback)

    async def __aenter__(self) -> None:
        check_in_task(self, "'async with'", "'with'")
        who = me()
        if not self.lock._take(who):
            await self.lock._wait_in_task(who)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, _ThrownAway) and error.condition is self:
            raise GeneratorExit from None
        if error is None or self.lock._owner == me():
            await self.lock.__aexit__(kind, error, traceback)

    # ------------------------------------------------------------------------------------------------------- its parts

    def _holder(self, method: str) -> Any:
        """Return who runs here, who must hold the lock."""
        who = me()
        if self.lock._owner != who:
            raise RuntimeError(
                f"{method} of {self!r} by {name_of(who)}, which does not hold its lock: use it in a 'with'"
            )
        return who

    def _let_go(self, who: Any) -> None:
        self.lock._release(who, broken=False)

    def _hand_on(self) -> None:
        self._notify(1)

    def _notify(self, n: int) -> None:
        while n > 0 and (waiter := self._line.pop()) is not None:
            n -= self._grant(waiter)

    async def _wait_and_take_back(self, who: Any, place: Place) -> None:
        notified = False
        try:
            await self._wait_in_task()
            notified = True
            await self._take_back_in_task(who, place)
        except GeneratorExit:  # there is nobody any more who could wait for the lock
            if notified:
                self._do(self._hand_on)
            raise
        except BaseException:
            if notified:
                self._do(self._hand_on)
            else:
                await self._take_back_in_task(who, place)
            raise

    def _take_back(self, who: Any, place: Place) -> None:
        """Take the lock again; what tries to end that is raised when it is done, the last one if there are several."""
        lock, raised = self.lock, None
        if lock._owner == who:
            return
        if not lock._take(who):
            waiter = ThreadWaiter(who)
            poll = None if blocked_loop(who) is None else POLL
            try:
                with waits_for(who, lock) as look:
                    waits = lock._join(waiter)
                    while waits and not waiter.granted:
                        try:
                            waiter.wait(shielded=True, poll=poll, look=look)
                        except Deadlock:
                            raise
                        except BaseException as error:
                            raised = error
                lock._arrive(waiter, 0)
            except BaseException:
                lock._give_up(waiter)
                raise
        lock._place = place
        if raised is not None:
            raise raised

    async def _take_back_in_task(self, who: Any, place: Place) -> None:
        lock, raised = self.lock, None
        if lock._owner == who:
            return
        if not lock._take(who):
            waiter = TaskWaiter(who)
            try:
                with waits_for(who, lock):
                    waits = lock._join(waiter)
                    while waits and not waiter.granted:
                        try:
                            await asyncio.shield(waiter._future)
                        except asyncio.CancelledError as error:
                            raised = error
                lock._arrive(waiter, 0)
            except BaseException:
                lock._give_up(waiter)
                raise
        lock._place = place
        if raised is not None:
            raise raised
