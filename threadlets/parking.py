"""Waiting in line on a thread or in a coroutine, for something that any thread may grant: what locks are made of.

Why: ``threading.Lock`` stalls a loop, ``asyncio.Lock`` knows no threads, and neither has an order. Here whoever waits
leaves a *waiter* in one line; who grants does not care what kind it is.

What must not happen is that something is granted to somebody who has just stopped waiting. So all of it is decided
under the mutex of what is waited for: a waiter leaves the line when it is *granted*, or when its owner takes it out.
The owner looks which it was, under the same mutex, however the wait has ended. Granted and not wanted: it is handed on.

Invariants: a waiter is granted at most once. Who is granted has left the line.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from itertools import count
from time import monotonic
from typing import Any

from .cancellation import listens_to_task, parked, raise_if_asked, to_be_told
from .queues import PriorityQueue
from .tasks import running_loop
from .workers import serving_group

__all__ = ["Line", "TaskWaiter", "ThreadWaiter", "Waiter", "priority_now"]

POLL = 0.05  # seconds; arbitrary: how often to look whether a task was cancelled by somebody who does not tell us

# Who waits on a worker's thread waits for somebody who may need a worker, too, to go on. So once all threads of a group
# have waited for so long there is one more, and one more if that waits, too.
SPARED = 0.1  # seconds; arbitrary: longer than a lock is held for, mostly

_arrivals = count(1)
_forks = 0  # how many forks this process comes from


def priority_now(who: Any) -> float:
    """Return how urgent somebody is: 0 for who is no threadlet."""
    priority: float = getattr(who, "_priority", 0)
    return priority


class Waiter:
    """Somebody who waits in line."""

    __slots__ = ("_arrived", "error", "granted", "owner", "ticket", "what")

    def __init__(self, owner: Any, what: Any = None) -> None:
        self.owner = owner
        self.what = what  # more about the wish, for who grants
        self.granted = False
        self.error: BaseException | None = None  # it is to be raised instead
        self.ticket: Any = None
        self._arrived = next(_arrivals)

    def grant(self, error: BaseException | None = None) -> bool:
        """Let it have what it waits for, or an error; once. False if it can never learn of that.

        Thread: any, under the mutex of what is waited for.
        """
        self.error = error  # first: who waits on a thread looks at `granted` without the mutex
        self.granted = True
        return self._wake()

    def _wake(self) -> bool:
        raise NotImplementedError

    @property
    def is_leaving(self) -> bool:
        """Whether its wait is over, or is about to be, so that it is not what its owner waits for. Thread: any."""
        raise NotImplementedError

    @property
    def is_lost(self) -> bool:
        """Whether it can never go on. Thread: any."""
        raise NotImplementedError


class ThreadWaiter(Waiter):
    """One that waits on a thread, which it blocks. Thread: its own, unless a method says otherwise."""

    __slots__ = ("_forks", "_gate")

    def __init__(self, owner: Any, what: Any = None) -> None:
        super().__init__(owner, what)
        self._forks = _forks
        self._gate = threading.Lock()
        self._gate.acquire()

    def _wake(self) -> bool:
        try:
            self._gate.release()
        except RuntimeError:  # it is open: woken already
            pass
        return True

    @property
    def is_leaving(self) -> bool:
        """Whether its owner was asked to stop, or it is granted: he is about to go on. Thread: any."""
        return self.granted or to_be_told(self.owner) is not None

    @property
    def is_lost(self) -> bool:
        """Whether this is a forked child, which does not have that thread. Thread: any."""
        return self._forks != _forks

    def wait(
        self,
        timeout: float | None = None,
        *,
        shielded: bool = False,
        poll: float | None = None,
        look: Callable[[], object] | None = None,
    ) -> None:
        """Wait until it is granted, or for ``timeout`` seconds: ``granted`` tells.

        Args:
            timeout: In seconds; None: as long as it takes.
            shielded: Whether a cancel has to wait.
            poll: How often to call ``look``, in seconds; None: never.
            look: May raise, to end the wait.

        Raises:
            asyncio.CancelledError: If its threadlet is asked to stop; not if it is ``shielded``.
            BaseException: What a signal handler raises.
        """
        deadline = None if timeout is None else monotonic() + timeout
        if poll is None and listens_to_task(self.owner):
            poll = POLL
        workers = serving_group()
        stalled = lent = False
        try:
            with parked(self.owner, self._wake):
                while not self.granted:
                    if not shielded:
                        raise_if_asked(self.owner)
                    left = -1.0 if deadline is None else deadline - monotonic()
                    if deadline is not None and left <= 0:
                        return
                    wait = min(left, threading.TIMEOUT_MAX)
                    often = SPARED if poll is None and workers is not None and not lent else poll
                    if often is not None:
                        wait = often if wait < 0 else min(wait, often)
                    if not self._gate.acquire(timeout=wait) and workers is not None and not lent:
                        if not stalled:
                            workers.stall()
                            stalled = True
                        lent = workers.relieve()
                    if look is not None and poll is not None and not self.granted:
                        look()
        finally:
            if stalled and workers is not None:
                workers.go_on(lent)


class TaskWaiter(Waiter):
    """One that waits in a coroutine. Thread: that of its loop, unless a method says otherwise."""

    __slots__ = ("_future", "_loop")

    def __init__(self, owner: Any, what: Any = None) -> None:
        super().__init__(owner, what)
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def _wake(self) -> bool:
        if running_loop() is self._loop:
            self._open()
        else:
            try:
                self._loop.call_soon_threadsafe(self._open)
            except RuntimeError:  # the loop is closed: nobody waits there any more
                return False
        return True

    def _open(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    @property
    def is_leaving(self) -> bool:
        """Whether its task was cancelled, or it is granted: the task is about to go on. Thread: any."""
        return self.granted or self._future.done()

    @property
    def is_lost(self) -> bool:
        """Whether its loop was closed while it waited: it can never go on. Thread: any."""
        return self._loop.is_closed()

    async def wait(self) -> None:
        """Wait until it is granted. Cancel: point."""
        await self._future


class Line:
    """Waiters by priority, then in order of arrival. Thread: any, under the mutex of what is waited for."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: PriorityQueue[Waiter] = PriorityQueue()

    def __len__(self) -> int:
        return self._queue.size

    def __iter__(self) -> Iterator[Waiter]:
        """Iterate over the waiters in no particular order."""
        return iter(self._queue)

    def push(self, waiter: Waiter) -> None:
        """Let somebody stand in line. O(log n)."""
        self._queue.push(waiter, priority_now(waiter.owner))

    def remove(self, waiter: Waiter) -> bool:
        """Take somebody out; False if he is not in line. O(1), amortized."""
        return self._queue.remove(waiter)

    def rekey(self, waiter: Waiter) -> None:
        """Put somebody where his priority wants him now. O(log n)."""
        self._queue.rekey(waiter, priority_now(waiter.owner))

    def first(self) -> Waiter | None:
        """Return whose turn is next, and leave him in; None if nobody is left. O(1), amortized."""
        while self._queue.size:
            waiter = self._queue.peek()
            if not waiter.is_lost:
                return waiter
            self._queue.pop()
        return None

    def pop(self) -> Waiter | None:
        """Take out whose turn it is; None if nobody is left. O(log n), amortized."""
        waiter = self.first()
        if waiter is not None:
            self._queue.pop()
        return waiter

    def _check(self) -> None:
        """Assert every invariant."""
        self._queue._check()
        assert not any(waiter.granted for waiter in self), "who is granted has left the line"


def _after_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
