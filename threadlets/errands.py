"""Async functions that a synchronous one waits for: the way back from a thread to the event loop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import Any, TypeVar

from .cancellation import parked, raise_if_asked
from .definitions import Definition, Prepared
from .errors import NoRunningLoop
from .regions import current_threadlet, me, region_here
from .surroundings import changes, here, trip_here, waiting
from .takeover import SAY_SECONDS, RunToken
from .tasks import running_loop
from .waits import family
from .workers import serving_group

__all__ = ["call_async"]

T = TypeVar("T")

logger = logging.getLogger("threadlets")


class _Errand:
    """An async function that a synchronous one waits for on another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[..., Awaitable[T]], args: Any):
        self.loop = loop
        self.function = function
        self.args = args
        self.context = copy_context()
        self.thread = threading.get_ident()
        self.token: RunToken | None = getattr(loop, "_threadlets_token", None)
        self.task: asyncio.Task[Any] | None = None
        self.error: BaseException | None = None
        self.cancelled = False
        self.who: Any = None  # who waits: a threadlet, or a task in a region
        self.ended = threading.Lock()
        self.ended.acquire()

    def start(self) -> None:
        """Make the task. Thread: loop."""
        try:
            is_entrypoint = isinstance(self.function, (Definition, Prepared))
            coroutine: Any = _call(self.function, self.args) if is_entrypoint else self.function(*self.args)
            self.task = self.loop.create_task(coroutine, context=self.context)
        except BaseException as error:
            self.error = error
            self.ended.release()
            return
        if self.cancelled:
            self.task.cancel()
        if not self.task.done():
            waiting[self.who] = self.task
        if self.token is not None and self.token.home == self.thread:
            self.token.home_awaits = self.task
        self.task.add_done_callback(lambda task: self.ended.release())

    def cancel(self, reason: object = None) -> None:
        """Cancel the task. Thread: loop."""
        self.cancelled = True
        if self.task is not None:
            self.task.cancel(reason)

    def tell(self) -> None:
        """If nothing may ever end this wait, say so. Thread: the one that waits."""
        if self.token is not None and self.token.home == self.thread and self.token.aside:
            logger.warning(
                "call_async(%s) keeps the home thread waiting, and there are callbacks that only this one may "
                "run: if it waits for one of these, it is for ever. Contract(blocks='always') avoids that",
                _name(self.function),
            )

    def stop(self) -> None:
        """Cancel it, since the threadlet that waits for it is to stop. Thread: loop."""
        self.cancel(None if self.who is None else getattr(self.who, "_value", None))

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


def call_async(function: Callable[..., Awaitable[T]], /, *args: Any) -> T:
    """Call an async function on the event loop and wait for its result: a way to await from synchronous code.

    From a threadlet on a worker thread, or from a region: ``with blocking():``, or a threadlet in place, on a loop that
    changes hands. The loop goes on meanwhile. The function runs in a copy of this thread's context; what it sets there
    is set here when it ends.

    Args:
        function: An async function, or an entrypoint.
        args: Its arguments.

    Returns:
        What it returns.

    Raises:
        NoRunningLoop: On a thread that does nothing for an event loop.
        RuntimeError: In a coroutine, which can await; in place on a loop that cannot go on meanwhile; for a function
            that needs the loop's own thread (``pinned``), if that is the one which waits for it.
        BaseException: What it raises; ``asyncio.CancelledError`` if it was cancelled, also since the threadlet that
            waits is to stop.

    Thread: any. Cancel: point, and it cancels the async function.
    """
    if running_loop() is not None:
        raise RuntimeError(f"call_async({_name(function)}) in a coroutine or a callback of the event loop: await it")
    who = me()
    raise_if_asked(who)
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
    errand.who = who
    if caller is not None:
        caller.pool._home.families = True  # type: ignore[union-attr]
    before = errand.context.copy()
    workers = serving_group()
    lent = workers is not None and workers.lend()
    if region is not None and taken is not None:
        taken.awaits = True
        region[0].nudge()
    try:
        with parked(who, errand.stop):
            raise_if_asked(who)
            waiting[who] = loop  # which may be blocked by one who waits for a lock of ours, and never start it
            loop.call_soon_threadsafe(errand.start)
            errand.wait()
    finally:
        waiting.pop(who, None)
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


async def _call(function: Callable[..., Any], args: Any) -> Any:
    """Await an entrypoint, which makes no coroutine but a threadlet, and does so in the context that it finds."""
    return await function(*args)


def _apply(before: Context, after: Context) -> None:
    for variable, value in changes(before, after) or ():
        variable.set(value)


def _loop_of_worker(function: Callable[..., Any]) -> asyncio.AbstractEventLoop:
    """Return the loop of the threadlet that runs on this thread."""
    handle = here.get(threading.get_ident())
    while handle is not None and handle.pool is None:  # called by another function, right there
        handle = handle._task
    trip = trip_here()
    if trip is not None:
        return trip.loop
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
