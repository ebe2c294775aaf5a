"""Regions: synchronous code during which the event loop may go on without its thread, and ways back from there."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from time import monotonic_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from .claims import Taken
from .errors import NoRunningLoop
from .surroundings import changes, here
from .takeover import FORFEITED, SAY_SECONDS, RunToken, tokens
from .tasks import running_loop, set_running_loop
from .waits import family

__all__ = ["blocking", "call_async", "current_threadlet", "pinned", "region_here"]

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


class _Errand:
    """An async function that a synchronous one waits for on another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[..., Coroutine[Any, Any, T]], args: Any):
        self.loop = loop
        self.function = function
        self.args = args
        self.context = copy_context()
        self.thread = threading.get_ident()
        self.token: RunToken | None = getattr(loop, "_threadlets_token", None)
        self.task: asyncio.Task[Any] | None = None
        self.error: BaseException | None = None
        self.cancelled = False
        self.ended = threading.Lock()
        self.ended.acquire()

    def start(self) -> None:
        """Make the task. Thread: loop."""
        try:
            self.task = self.loop.create_task(self.function(*self.args), context=self.context)
        except BaseException as error:
            self.error = error
            self.ended.release()
            return
        if self.cancelled:
            self.task.cancel()
        if self.token is not None and self.token.home == self.thread:
            self.token.home_awaits = self.task
        self.task.add_done_callback(lambda task: self.ended.release())

    def cancel(self) -> None:
        """Cancel the task. Thread: loop."""
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()

    def tell(self) -> None:
        """If nothing may ever end this wait, say so. Thread: the one that waits."""
        if self.token is not None and self.token.home == self.thread and self.token.aside:
            logger.warning(
                "call_async(%s) keeps the home thread waiting, and there are callbacks that only this one may "
                "run: if it waits for one of these, it is for ever. Contract(blocks='always') avoids that",
                _name(self.function),
            )

    def wait(self) -> None:
        """Wait until it has ended; what a signal handler raises cancels it, and is raised when it has. Thread: any."""
        raised = None
        while True:
            try:
                while not self.ended.acquire(timeout=SAY_SECONDS):
                    self.tell()
                break
            except BaseException as error:
                raised = error
                self.loop.call_soon_threadsafe(self.cancel)
        if raised is not None:
            if self.task is not None and not self.task.cancelled():
                self.task.exception()  # it was cancelled, and what it says to that is not asked for
            raise raised


def call_async(function: Callable[..., Coroutine[Any, Any, T]], /, *args: Any) -> T:
    """Call an async function on the event loop and wait for its result: a way to await from synchronous code.

    From a threadlet on a worker thread, or from a region: ``with blocking():``, or a threadlet in place, on a loop that
    changes hands. The loop goes on meanwhile. The function runs in a copy of this thread's context; what it sets there
    is set here when it ends.

    Args:
        function: An async function.
        args: Its arguments.

    Returns:
        What it returns.

    Raises:
        NoRunningLoop: On a thread that does nothing for an event loop.
        RuntimeError: In a coroutine, which can await; in place on a loop that cannot go on meanwhile; for a function
            that needs the loop's own thread (``pinned``), if that is the one which waits for it.
        BaseException: What it raises; ``asyncio.CancelledError`` if it was cancelled.

    Thread: any. Cancel: none.
    """
    if running_loop() is not None:
        raise RuntimeError(f"call_async({_name(function)}) in a coroutine or a callback of the event loop: await it")
    region = region_here()
    if region is None:
        loop, taken = _loop_of_worker(function), None
    else:
        region[0].give_up()
        region = region_here()
        assert region is not None
        loop, taken = region[0].driver.loop, region[2]
    errand = _Errand(loop, function, args)
    caller = current_threadlet()
    while caller is not None and caller.pool is None:  # called by another function, right there
        caller = caller._task
    errand.context.run(family.set, caller)
    if caller is not None:
        caller.pool._home.families = True  # type: ignore[union-attr]
    before = errand.context.copy()
    workers = None if caller is None else caller.entrypoint.workers
    lent = workers is not None and workers.lend()
    if region is not None and taken is not None:
        taken.awaits = True
        region[0].nudge()
    try:
        loop.call_soon_threadsafe(errand.start)
        errand.wait()
    finally:
        if taken is not None:
            taken.awaits = False
        if lent and workers is not None:
            workers.take_back()
    _apply(before, errand.context)
    if errand.task is None:
        assert errand.error is not None
        raise errand.error
    result: T = errand.task.result()
    return result


def _apply(before: Context, after: Context) -> None:
    for variable, value in changes(before, after) or ():
        variable.set(value)


def _loop_of_worker(function: Callable[..., Any]) -> asyncio.AbstractEventLoop:
    """Return the loop of the threadlet that runs on this thread."""
    handle = here.get(threading.get_ident())
    while handle is not None and handle.pool is None:  # called by another function, right there
        handle = handle._task
    if handle is None or handle.pool is None:
        raise NoRunningLoop(
            f"call_async({_name(function)}) on a thread that does nothing for an event loop: call it in a threadlet, "
            f"or in 'with blocking():'; elsewhere, asyncio.run and asyncio.run_coroutine_threadsafe do this"
        )
    home = handle.pool._home
    if home.thread == threading.get_ident():
        raise RuntimeError(
            f"call_async({_name(function)}) in a threadlet that runs in place, on an event loop that cannot go on "
            f"meanwhile: run the program with threadlets.run, or give the threadlet Contract(blocks='always')"
        )
    return home.loop


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", function))


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
        task = asyncio.current_task(loop)
    home: Home | None = getattr(loop, "_threadlets_home", None)
    return None if home is None else home.current(task)
