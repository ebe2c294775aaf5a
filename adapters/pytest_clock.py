"""A clock for tests: time passes when everybody waits for it, and takes none. ``virtual_clock`` of the pytest plugin.

Why: a retry after a minute, a rate of ten an hour, a deadline at midnight are rarely tested, since a test would wait
for them. Here it does not: when nothing is ready and nobody works, the next timer is due at once.

How: an event loop of asyncio's asks its selector to wait until the next timer. The clock stands in front of the
selector, and instead of waiting it moves on by so much; the loop's ``time()`` is that of the clock. So is the time that
pools go by (``trials.now``). Otherwise the clock stands still, so a test sees the same times each time it is run.

While a thread works for this program - a worker of threadlets, one of ``run_in_executor`` or of anyio, a region - the
time goes on as it does on a wall: nobody knows how long that takes, and if the thread waits for a timer itself, it
gets there. Threads that wait for the loop, in ``call_async``, do not hold the clock up. Of other threads nothing is
known (``with virtual_clock.held():``), nor of what is on its way from another process (``virtual_clock.patience``).
Where no loop goes by the clock - a test that runs one of its own - time passes for pools as it does on a wall, too.

Not on uvloop: its timers are libuv's, which looks at the machine's clock.

Rejected: to exchange ``time.monotonic`` (it is everybody's, and those who imported it by name keep the other one); a
loop class of one's own (the loop is made by whoever runs the test); to leap only after some rounds in which nothing
happened (guesswork; what the selector is asked is known).

Invariants: the time never goes back; it does not leap while somebody is known to work. Assumes: a loop of asyncio's
that has a selector, in ``_selector``, and asks ``time()`` for the time; 3.11 to 3.14.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic_ns
from typing import Any

from threadlets.takeover import tokens
from threadlets.trials import trial
from threadlets.whereabouts import at_work
from threadlets.workers import are_busy

__all__ = ["Front", "VirtualClock", "has_selector"]

LOOK = 0.002  # seconds; arbitrary: how often to look whether those who work have come to an end


class Front:
    """Stands in front of a loop's selector, and is asked in its place.

    Args:
        loop: A loop of asyncio's that has a selector.
        select: Called with the selector and the timeout; returns what ``select`` is to return.
    """

    def __init__(self, loop: Any, select: Callable[[Any, float | None], Any]) -> None:
        self._loop = loop
        self._behind = loop._selector
        self._asked = select
        loop._selector = self

    def select(self, timeout: float | None = None) -> Any:
        """Wait for what is ready."""
        return self._asked(self._behind, timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)

    def remove(self) -> None:
        """Have the selector asked again; unless somebody else stands in front of this by now."""
        if self._loop._selector is self:
            self._loop._selector = self._behind
        else:
            self._asked = lambda selector, timeout: selector.select(timeout)


def has_selector(loop: asyncio.AbstractEventLoop) -> bool:
    """Say whether a loop is one of asyncio's that waits by a selector."""
    return isinstance(loop, asyncio.SelectorEventLoop)


class VirtualClock:
    """The time of one test. Thread: loop, unless a method says otherwise.

    Attributes:
        patience: Seconds for which really nothing may be ready before the time leaps; for tests that wait for what
            comes from another process.
    """

    def __init__(self) -> None:
        self.patience = 0.0
        self._now = self._began = monotonic_ns()
        self._holds = 0
        self._leaps = 0
        self._loops: list[Any] = []  # which go by it
        self._wall = monotonic_ns()  # when somebody last asked for the time

    def __repr__(self) -> str:
        return f"<VirtualClock: {self.elapsed:.3f} s have passed, in {self._leaps} leaps>"

    @property
    def elapsed(self) -> float:
        """How many seconds have passed by this clock. Thread: any."""
        return (self._now - self._began) / 1e9

    def time(self) -> float:
        """Return the time in seconds, as ``loop.time()`` does. Thread: any."""
        return self.now() / 1e9

    def now(self) -> int:
        """Return the time in nanoseconds. Thread: any."""
        wall = monotonic_ns()
        if all(loop.is_closed() for loop in self._loops):  # nobody would ever move it on
            self._now += max(0, wall - self._wall)
        self._wall = wall
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the time on, as if so much had been spent computing; timers that are due are called in the next round.

        Raises:
            ValueError: If it is less than 0, or no finite number.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"advance({seconds!r}): expected seconds, 0 or more; time does not go back")
        self._now += math.ceil(seconds * 1e9)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the time go as it does on a wall while a thread works of which nothing is known."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Make a loop that changes hands and goes by this clock, for tests that run one: as a ``loop_factory``."""
        from threadlets import EventLoop

        loop = EventLoop()
        self._install(loop)
        return loop

    @contextmanager
    def running(self, loop: asyncio.AbstractEventLoop | None = None) -> Iterator[None]:
        """Have a loop, and all pools, go by this clock; None: pools alone. Afterwards the loop is ahead, and not late.

        Raises:
            RuntimeError: If the loop is none of asyncio's that have a selector.
        """
        self._now = max(self._now, monotonic_ns(), 0 if loop is None else math.ceil(loop.time() * 1e9))
        self._wall = monotonic_ns()
        self._began = self._now if not self._leaps else self._began
        if loop is None:
            with trial(clock=self.now):
                yield
            return
        remove = self._install(loop)
        try:
            with trial(clock=self.now):
                yield
        finally:
            remove()

    def _install(self, loop: Any) -> Callable[[], None]:
        if not has_selector(loop):
            raise RuntimeError(
                f"virtual_clock cannot move {type(loop).__module__}.{type(loop).__name__}: the timers of uvloop, "
                f"and of proactors, are the system's. Run this test on a loop of asyncio's, or of threadlets"
            )
        works = Work(loop)
        self._loops.append(loop)
        real = getattr(loop.time, "real", loop.time)  # not what an earlier test has left: they would pile up

        def select(selector: Any, timeout: float | None) -> Any:
            if timeout is None or timeout <= 0:  # nothing is to come by itself; or there is something to do
                return selector.select(timeout)
            return self._select(selector, timeout, works)

        front = Front(loop, select)
        loop.time = self.time

        def remove() -> None:
            front.remove()
            works.remove()
            self._loops.remove(loop)
            self._wall = monotonic_ns()
            ahead = self.time() - real()

            def later() -> float:
                return float(real() + ahead)

            later.real = real  # type: ignore[attr-defined]
            loop.time = later

        return remove

    def _select(self, selector: Any, timeout: float, works: Work) -> Any:
        """Wait as long as somebody works; then leap, if nothing has happened.

        A thread that has come to an end has woken the loop before it is known to be idle. So when nobody works, and
        then nothing is ready, nothing will be.
        """
        left = math.ceil(timeout * 1e9)
        while self._holds or works.go_on():
            began = monotonic_ns()
            events = selector.select(min(left / 1e9, LOOK))
            spent = min(monotonic_ns() - began, left)
            self._now += spent
            left -= spent
            if events or left <= 0:
                return events
        events = selector.select(min(self.patience, left / 1e9))
        if not events:
            self._now += left
            self._leaps += 1
        return events


class Work:
    """What other threads do for a loop."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._calls = 0  # in executors
        self._stuck = {(thread, handle) for thread, handle, _ in at_work()}  # of an earlier test
        self._run_in_executor = loop.run_in_executor
        self._shutdown_default_executor = loop.shutdown_default_executor
        loop.run_in_executor = self._count
        loop.shutdown_default_executor = self._shut_down

    def remove(self) -> None:
        """Count no more."""
        del self._loop.run_in_executor, self._loop.shutdown_default_executor

    def _count(self, executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        future = self._run_in_executor(executor, function, *args)
        self._calls += 1
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: Any) -> None:
        self._calls -= 1

    async def _shut_down(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the threads of the executor; it has one more thread wait for them."""
        self._calls += 1
        try:
            await self._shutdown_default_executor(*args, **kwargs)
        finally:
            self._calls -= 1

    def _is_of_anyio(self, thread: Any) -> bool:
        """Say whether this is a worker thread of anyio's that works for the loop."""
        return (
            type(thread).__module__.startswith("anyio.")
            and getattr(thread, "loop", None) is self._loop
            and thread not in getattr(thread, "idle_workers", ())
        )

    def go_on(self) -> bool:
        """Say whether somebody works whom the loop may have to wait for."""
        if self._calls or ("anyio" in sys.modules and any(map(self._is_of_anyio, threading.enumerate()))):
            return True
        if are_busy() and not (self._stuck and self._stuck.issuperset(each[:2] for each in at_work())):
            return True
        token = next((token for token in list(tokens) if token.driver.loop is self._loop), None)
        return token is not None and any(not taken.awaits for taken in list(token.away.values()))
