"""Regions: synchronous code during which the event loop may go on without its thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from time import monotonic_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from .claims import Taken
from .surroundings import here, outermost, trip_here
from .takeover import FORFEITED, RunToken, tokens
from .tasks import running_loop, set_running_loop

__all__ = ["blocking", "current_threadlet", "me", "pinned", "region_here"]

if TYPE_CHECKING:
    from .handles import Threadlet
    from .homes import Home

T = TypeVar("T")

logger = logging.getLogger("threadlets")


class blocking:
    """A block of synchronous code that may block: ``with blocking(): rows = connection.execute(query)``.

    On a loop that changes hands (``threadlets.run``, ``threadlets.EventLoop``) another thread goes on with the loop if
    the block takes longer than a millisecond or so; this thread has the loop back when the block ends. As on a worker
    thread, no running loop is to be seen in it, and nothing of the loop may be touched from it, but through
    ``loop.call_soon_threadsafe`` and ``call_async``. On any other loop, and on a thread without one, it does nothing.

    Do not await in it.

    Raises:
        RuntimeError: At the end of the block, if something was awaited in it.

    Thread: any. Cancel: none.
    """

    __slots__ = ("_token", "cell")

    def __init__(self) -> None:
        self._token: RunToken | None = None

    def __enter__(self) -> None:
        if self._token is not None:
            raise RuntimeError("this blocking() is in use: make one for each block, 'with blocking():'")
        loop = running_loop()
        self._token = token = getattr(loop, "_threadlets_token", None)
        if token is None:
            return
        self.cell = cell = token.cell
        token.region = self
        set_running_loop(None)
        now = monotonic_ns()
        cell.append(now)
        if now > token.covered:
            token.spares.rouse(now)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        token, self._token = self._token, None
        if token is None:
            return
        try:
            mark = self.cell.pop()
        except IndexError:
            try:
                token.come_back(self.cell)
            finally:  # a signal handler may have raised meanwhile
                token.region = None
        else:
            if mark == FORFEITED:
                raise RuntimeError(
                    "something was awaited inside of 'with blocking():'; it is for synchronous code only. "
                    "Await before or after it, or call async functions with threadlets.call_async(function, ...)"
                )
            set_running_loop(token.driver.loop)
            token.region = None


class pinned:
    """A block in which a task stays on the loop's home thread: ``async with pinned():``.

    For what cannot change threads although the loop does: greenlets, GUI toolkits, thread-locals. While home is blocked
    in another task, this one waits. On a loop that does not change hands it does nothing.

    Raises:
            RuntimeError: Outside of a task; or in one that the home thread waits for in ``call_async``.

    Thread: loop. Cancel: point, at its beginning.
    """

    __slots__ = ("_task", "_token")

    async def __aenter__(self) -> None:
        self._task = task = asyncio.current_task()
        if task is None:
            raise RuntimeError("'async with pinned():' outside of a task")
        self._token: RunToken | None = getattr(task.get_loop(), "_threadlets_token", None)
        if self._token is None:
            return
        if self._token.home_awaits is task:
            raise RuntimeError(
                "this has to run on the event loop's own thread, which waits for it in call_async: await it, or give "
                "the threadlet that calls it Contract(blocks='always')"
            )
        self._token.pin(task)
        try:
            if self._token.thread != self._token.home:
                await asyncio.sleep(0)  # what comes next is done by home
        except BaseException:
            self._token.aside.unpin(task)
            raise

    async def __aexit__(self, *_: object) -> None:
        if self._token is not None and self._task is not None:
            self._token.aside.unpin(self._task)


def region_here() -> tuple[RunToken, asyncio.Task[Any] | None, Taken | None] | None:
    """Return the loop whose region this thread is in, the task that is in it, and what tells that it was taken.

    If it is in regions of several loops, one inside the other, it is the innermost. Thread: any.
    """
    if not tokens:
        return None
    me = threading.get_ident()
    found: tuple[RunToken, asyncio.Task[Any] | None, Taken | None] | None = None
    latest = 0
    for token in list(tokens):
        task = None
        for since in list(token.cell) if token.thread == me else ():
            task = asyncio.current_task(token.driver.loop)
            if since > latest and token.cell:
                found, latest = (token, task, None), since
        for taken in list(token.away.values()):  # after that: it may have been taken meanwhile
            if taken.thread == me and taken.since >= latest:
                found, latest = (token, taken.task, taken), taken.since
    return found


def current_threadlet() -> Threadlet[Any] | None:
    """Return the threadlet whose function runs here, or None. Thread: any.

    In a coroutine threadlet it is that of its own task: a task that it starts is another task, as with
    ``asyncio.current_task``. In a plain function it is that of this thread.
    """
    loop = running_loop()
    if loop is None:
        handle = here.get(threading.get_ident())
        region = None if handle is not None else region_here()
        if region is None:
            return handle
        loop, task = region[0].driver.loop, region[1]  # in `with blocking()`
    else:
        trip = trip_here()
        if trip is not None:
            return trip.handle
        task = asyncio.current_task(loop)
    home: Home | None = getattr(loop, "_threadlets_home", None)
    return None if home is None else home.current(task)


def me() -> Any:
    """Return who runs here: a threadlet, else a task, else the number of the thread. Thread: any.

    If an event loop runs here it is one of its tasks, also in a plain function that has called ``asyncio.run``.
    """
    loop = running_loop()
    if loop is None:
        thread = threading.get_ident()
        handle = outermost(here.get(thread))
        if handle is not None:
            return handle
        region = region_here()
        if region is None or region[1] is None:
            trip = trip_here()
            return thread if trip is None else trip.task  # in `async with offload()`
        loop, task = region[0].driver.loop, region[1]
    else:
        current = asyncio.current_task(loop)
        if current is None:
            return threading.get_ident()
        trip = trip_here()
        if trip is not None:
            return trip.handle or trip.task
        task = current
    home = getattr(loop, "_threadlets_home", None)
    return (None if home is None else home.current(task)) or task
