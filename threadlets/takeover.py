"""The run token: exactly one thread at a time runs an event loop, and which one it is may change.

Why: a call that blocks stalls every task of its loop, since the loop can only run on when the call returns. But while
the call waits, its thread needs nothing of the loop; and the loop does not care which thread runs it, as long as it is
one at a time. So a blocking call is made in a *region*, and if the region lasts, another thread goes on with the loop.

How: the right to run the loop is one value, the *run token*, and the thread that holds it is the *driver*.

1. Synchronous code that may block opens a region: it hides the running loop, so that the code sees what it would see
   in a worker thread, and puts a mark into ``cell``, a list that holds one mark at most.
2. The *sentinel*, a *spare* thread, is woken when the mark may be old enough; if it is, it takes it out:
   ``list.pop`` is the compare-and-swap. Whoever gets the mark has the token: the sentinel, or the blocked thread, when
   its call returns. The other one gets an IndexError.
3. A sentinel that has won leaves the blocked task, puts a new cell in place, posts another sentinel, and runs rounds of
   the loop. Or, if claims wait, it hands the token straight to the first one.
4. The blocked thread that has lost queues a *claim*, wakes the loop's poll, and waits. The driver looks for claims
   between any two callbacks. A spare gives the token away, and is a spare again; *home*, the thread that called
   ``run_forever``, queues a claim of its own behind it. The claimant enters its task again, and goes on in the middle
   of its step as if nothing had happened.
5. Only home leaves ``run_forever``, and not before every thread that is away has ended its step.

``CASES`` says what may be running when a region is opened, and what becomes of it.

Rejected: a lock around the loop's code (100 ns for each callback); a flag and a lock instead of the list (two more
operations for each call in place); a thread made for each takeover (185 us); remembering which contexts a blocked
thread has entered (the user's own ``Context.run`` is not seen; to try is reliable).

Invariants:

- What is said to be the driver's is touched by the thread that holds the token alone. Whoever has popped a mark holds
  it from that moment on.
- A callback that cannot run while somebody is away, since its context is entered there or its task is pinned to home,
  is set *aside*; it is put back in front, in order, when somebody returns.
- A spare runs rounds only while somebody is away.

Assumes: operations of ``list`` and ``deque`` are atomic (the interpreter lock, or the locks that a free-threaded build
puts in its place). ``asyncio.tasks._enter_task`` and ``_leave_task``, which third-party event loops use too. (Since
3.14 the current task belongs to its thread: there is nothing to leave, and ``current_task`` finds none.)

Over 400 lines: one value, and all that may become of it, is read better in one place.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from asyncio.tasks import _enter_task, _leave_task
from collections import deque
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

from .asides import Aside, Errand
from .claims import Claim, Taken
from .drivers import Driver
from .snapshots import TakeoverStatistics
from .spares import NEVER, Spares
from .tallies import Tally
from .thresholds import LEAST, Threshold

__all__ = ["CASES", "FORFEITED", "SAY_SECONDS", "RunToken", "tokens"]

logger = logging.getLogger("threadlets")

# Where a region is opened, and what happens if it blocks. "taken": another thread goes on with the loop. "stalls": the
# loop waits; that is counted and reported. "free": no loop depends on this thread, and the region does nothing.
CASES = {
    "in a task": "taken",
    "in a plain callback": "taken",
    "in the callback of a timer": "taken",  # on uvloop: "stalls", it calls them itself
    "in the callback of a file descriptor": "stalls",  # the descriptor would be reported as ready again and again
    "in a protocol's method": "stalls",  # the next one must not be called before it has returned
    "in another region": "free",  # that is the one which is watched
    "on a worker": "free",
    "on no loop": "free",
    "when the loop is to stop": "taken",  # by a spare that runs no callbacks, and waits
    "after the loop was closed": "free",
}

FORFEITED = -1  # the mark of a region that was closed by force
SAY_SECONDS = 5.0  # arbitrary: how long to wait for threads that are away before the log says for whom


class RunToken:
    """The run token of one event loop, and what is known about who has it. Thread: the driver, unless said otherwise.

    Attributes:
        cell: The mark of the open region, if there is one: when it was opened, in nanoseconds.
        covered: Until when a region is sure to be watched; who opens one later is to call ``spares.rouse(now)``.
        thread: Who holds the token.
        home: Who called ``run_forever``.
        current: The callback that is being run.
        region: The ``blocking()`` that is open, if the region is one of these.
        claims: Who waits for the token.
        away: Regions that were taken, by the identity of their cells.
        aside: Callbacks that have to wait until somebody comes back.
        home_awaits: The task that home waits for in ``call_async``.
        on_leave: Called with the thread whose region is taken; returns what is to be called when that is back.
    """

    def __init__(self, driver: Driver, threshold: float | None = None) -> None:
        self.driver = driver
        self.enabled = threshold != float("inf")
        self.threshold = Threshold(int(threshold * 1e9) if threshold is not None and self.enabled else None)
        self.cell: list[int] = []
        self.covered = 0 if self.enabled else NEVER
        self.thread = self.home = 0
        self.current: Any = None
        self.region: Any = None
        self.claims: deque[Claim] = deque()
        self.away: dict[int, Taken] = {}
        self.aside = Aside()
        self.home_awaits: asyncio.Task[Any] | None = None
        self.on_leave: Callable[[int], Callable[[], None]] | None = None
        self.spares = Spares(self, f"threadlets-spare-{id(driver.loop):x}")
        self._arrived = threading.Event()  # a claim was queued
        self._carried: BaseException | None = None  # what a spare has for home to leave run_forever with
        self._tally = Tally()
        tokens.add(self)

    def __repr__(self) -> str:
        return f"<RunToken: {len(self.away)} away, {len(self.claims)} claims, {len(self.aside)} callbacks aside>"

    # ------------------------------------------------------------------------------------------ a region's end

    def come_back(self, cell: list[int]) -> int:
        """Get the token back after a region of this thread was taken. Thread: the one that was away.

        Returns:
            How long the loop was stalled before it was taken, in nanoseconds.

        Raises:
            BaseException: What a signal handler has raised while this thread waited.
        """
        raised = None
        if not any(orphan is cell for orphan in _orphans):
            raised = self._claim()
        taken = self._enter(cell)
        if taken.thread == self.home:
            self.home_awaits = None
        self._tally.came_back(monotonic_ns() - taken.at)
        self._put_back()
        if raised is not None:
            raise raised
        return taken.at - taken.since

    def _claim(self) -> BaseException | None:
        """Wait for the token, whatever signal handlers raise meanwhile; return the last of that."""
        claim = Claim()
        raised = None
        while True:
            try:
                if not claim.granted and claim not in self.claims:
                    self.claims.append(claim)
                self._arrived.set()
                self.driver.wake()
                return claim.wait() or raised
            except BaseException as error:  # claimed or not, there is no way but to wait
                raised = error

    def _enter(self, cell: list[int]) -> Taken:
        """Go on where a region has been left."""
        taken = self.away.pop(id(cell))
        self._adopt()
        self.current, self.region = taken.handle, taken.region
        if taken.task is not None:
            _enter_task(self.driver.loop, taken.task)
        if taken.restore is not None:
            taken.restore()
        return taken

    def settle(self) -> None:
        """After a callback in which the loop was taken, or which has left a region open.

        It is left open if something was awaited in it, or if a signal handler raised just when it was to be closed.

        Raises:
            BaseException: What a spare has ended a callback with, and home is to leave ``run_forever`` with.
        """
        me = threading.get_ident()
        cell = self.region.cell if self.region is not None else self.cell
        if (self.region is not None or cell) and self.thread == me:
            try:
                cell.pop()
            except IndexError:
                self._regain(cell)  # taken in the last moment
            else:
                self.cell = []  # a late sentinel may find the mark in the old one
                self._adopt()
            self.region = None
            cell.append(FORFEITED)
        else:
            for taken in list(self.away.values()):
                if taken.thread == me:
                    self._regain(taken.cell)
                    taken.cell.append(FORFEITED)
        if self._carried is not None and me == self.home:
            error, self._carried = self._carried, None
            raise error

    def _regain(self, cell: list[int]) -> None:
        """Get the token back when the step has ended already."""
        self.come_back(cell)
        self.region = None
        loop = self.driver.loop
        task = asyncio.current_task(loop)
        if task is not None:
            _leave_task(loop, task)
            loop.call_exception_handler({"message": "something was awaited inside of 'with blocking():'", "task": task})

    # ------------------------------------------------------------------------------------------ a region is left

    def take(self, cell: list[int]) -> bool:
        """Take the open region; True if this thread is the driver now. Thread: the sentinel."""
        obstacle = self.driver.obstacle(self.current)
        if obstacle is not None:
            self._tally.stalled(cell, obstacle, self.thread)
            return False
        try:
            since = cell.pop()
        except IndexError:
            return False
        if since == FORFEITED:
            cell.append(since)
            return False
        obstacle = self.driver.obstacle(self.current)
        self._leave(cell, since)
        self.driver.disown()
        if obstacle is not None:
            # Since we asked, that region was closed, and another one opened in such a callback:
            #   sentinel: no obstacle                driver: closes the region, ends the callback
            #   sentinel: pops the mark of      <-   driver: opens a region in the callback of a descriptor
            # The mark cannot be put back. Its thread must come for the token, and nobody runs the loop until it does.
            self._wait_for(lambda: self.claims)
        if self.claims:
            self.claims.popleft().grant()
            return False
        return True

    def give_up(self) -> None:
        """Let another thread go on with the loop at once; this one is about to wait for it, in ``call_async``.

        Thread: one that is in a region, which may have been taken.

        Raises:
            RuntimeError: If the loop cannot go on from here, or the system refuses to start a thread.
        """
        if self.thread != threading.get_ident():
            return  # taken already
        cell = self.cell
        obstacle = self.driver.obstacle(self.current) if self.enabled else "takeovers are switched off"
        try:
            since = cell.pop()
        except IndexError:
            return  # taken just now
        if obstacle is None:
            self._leave(cell, since).awaits = True
            if self.claims:
                self.claims.popleft().grant()
                return
            if self.spares.post(drives=True):
                return
            self._enter(cell)
            self.driver.disown()
            self.cell, obstacle = cell, "no thread can be started to run it"
        cell.append(since)
        raise RuntimeError(f"the event loop cannot go on while this call waits for it: {obstacle}")

    def _leave(self, cell: list[int], since: int) -> Taken:
        """Leave the region whose mark this thread has popped; from then on the loop runs here."""
        loop = self.driver.loop
        taken = self.away[id(cell)] = Taken(cell, since, self.thread, self.current, asyncio.current_task(loop))
        if taken.task is not None:
            _leave_task(loop, taken.task)
        self.cell = []
        taken.region, self.region = self.region, None
        self.current = None
        if self.thread != threading.get_ident():
            self._adopt()
        try:
            if self.on_leave is not None:
                taken.restore = self.on_leave(taken.thread)
            self._tally.took()
        except Exception as error:  # the sentinel must not die with the token in its hands
            loop.call_exception_handler({"message": "in a takeover of the event loop", "exception": error})
        self.threshold.took(taken.at)
        return taken

    # ------------------------------------------------------------------------------------------ who has the token

    def begin(self) -> None:
        """Be home."""
        self.home = self.thread = threading.get_ident()

    def _adopt(self) -> None:
        self.thread = threading.get_ident()
        self.driver.adopt()

    def drive(self) -> None:
        """Run rounds of the loop until somebody claims the token. Thread: a spare that holds it."""
        self._adopt()
        while not self.claims:
            try:
                if self.driver.stopping():
                    self._wait_for(lambda: self.claims or self._home_awaits())
                    if self.claims:
                        break
                    if self.home_awaits is not None:
                        self.home_awaits.cancel("the event loop is to stop")  # as asyncio.run does, once home is back
                    self._arrived.wait(LEAST / 1e9)  # a loop that is to stop does not wait in its polls
                self.driver.round()
            except BaseException as error:
                self._carried = error
                self.driver.stop()
        self.current = None
        self.driver.disown()
        self.claims.popleft().grant()

    def boundary(self) -> bool:
        """Between two callbacks, when there are claims: let the first of them have the token.

        True if it is back: this thread is home. False if it has to end its round first: it is a spare.

        Raises:
            BaseException: As ``settle``; or what a signal handler has raised while this thread waited.
        """
        if threading.get_ident() != self.home:
            return False
        mine, first, raised = Claim(), self.claims[0], None
        while not first.granted:
            try:
                if mine not in self.claims:
                    self.claims.append(mine)
                self.current = None
                self.driver.disown()
                if self.claims[0] is first:
                    self.claims.popleft()
                first.grant()
            except BaseException as error:  # see _claim
                raised = error
        raised = mine.wait() or raised
        self._adopt()
        self._put_back()
        if raised is not None:
            raise raised
        self.settle()
        return True

    def finish(self) -> None:
        """Let every thread that is away end its step: home is about to leave ``run_forever``.

        Those that wait for the loop, in ``call_async``, are like suspended tasks: they go on when it runs again.
        """
        while not self._all_await():
            self._wait_for(lambda: self.claims or self._all_await())
            if self.claims:
                self.boundary()

    def _all_await(self) -> bool:
        return all(taken.awaits for taken in list(self.away.values()))

    def _home_awaits(self) -> bool:
        return any(taken.awaits and taken.thread == self.home for taken in list(self.away.values()))

    def nudge(self) -> None:
        """Have whoever waits for a change look again. Thread: any."""
        self._arrived.set()

    def _wait_for(self, change: Callable[[], object]) -> None:
        """Wait until somebody claims the token, or the like; say for whom, if it takes long."""
        patience = SAY_SECONDS
        while True:
            self._arrived.clear()
            if change():
                return
            if not self._arrived.wait(patience):
                logger.warning("an event loop waits for %s", "; ".join(map(str, self.away.values())))
                patience *= 2

    # ------------------------------------------------------------------------------------------ what may not run

    def keeps(self, handle: asyncio.Handle) -> bool:
        """While somebody is away: say whether a callback may run now; if not, it is set aside."""
        return self.aside.admits(handle, threading.get_ident() == self.home)

    def call_at_home(self, callback: Callable[[], object]) -> None:
        """Have home call this as soon as it holds the token."""
        errand = Errand(self.aside.pinned, callback)
        self.driver.put_back([asyncio.Handle(errand, (), self.driver.loop)])

    def pin(self, task: asyncio.Task[Any]) -> None:
        """Let only home run a task, until it is unpinned as often."""
        self._tally.knows_greenlets = True
        self.aside.pin(task)

    def _put_back(self) -> None:
        if self.aside:
            self.driver.put_back(self.aside.take())

    def statistics(self) -> TakeoverStatistics:
        """Return what has happened so far. Thread: any."""
        return self._tally.snapshot(len(self.away), self.aside.total, self.threshold.after if self.enabled else None)

    def _check(self) -> None:
        """Assert every invariant. Thread: the driver, outside of regions."""
        self.threshold._check()
        assert not self.cell, "what opened a region has closed it"
        assert all(id(taken.cell) == key and not taken.cell for key, taken in self.away.items()), "the away are taken"
        assert len({taken.thread for taken in self.away.values()}) == len(self.away), "a thread is away once"
        assert self.away or not self.aside, "nothing is aside for nobody"

    def after_fork(self) -> None:
        """Let the child's only thread hold the token, for the others do not exist there."""
        me = threading.get_ident()
        self._arrived = threading.Event()
        self.spares.forget()
        self.claims.clear()
        self.away = {key: taken for key, taken in self.away.items() if taken.thread == me}
        _orphans.extend(taken.cell for taken in self.away.values())
        self.thread = self.home = me
        self.covered = 0 if self.enabled else NEVER


tokens: weakref.WeakSet[RunToken] = weakref.WeakSet()
_orphans: list[list[int]] = []  # the cells of regions that a thread of the parent process has taken


def _after_fork() -> None:
    for token in list(tokens):
        token.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
