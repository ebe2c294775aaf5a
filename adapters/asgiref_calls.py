"""The functions that ``sync_to_async`` was given, as entrypoints, and their calls. For ``asgiref`` beside this.

Why: where a function runs is learned from its calls. But ``sync_to_async(function)`` is often written where it is
called, of a lambda, a partial or a method that is made there, too. So what is learned is kept with the code that a
callable comes to (see ``callables``).

A call does what asgiref does on its thread (``SyncToAsync.thread_handler``), and leaves thread-locals as it has found
them, since a worker, and more so the thread of a loop, serves others.

*The way back.* A function that uses ``async_to_sync`` is noticed. In place it could only wait for a loop that it is
holding up. So it stays on workers from then on; or, if home is where it has to be, it is called in a task of its own,
so that a cancel of who waits for it can reach what it waits for. The first call of each function that may run in place
is in a task of its own, too: nothing is known of it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from asgiref.sync import SyncToAsync, _restore_context

from threadlets import Contract, Entrypoint
from threadlets.regions import region_here

from .callables import Known, parts_of, unwrap

__all__ = ["AWAY", "HOME", "LEARNED", "Call", "Entry", "entry_of", "make_way"]

logger = logging.getLogger("threadlets")

LEARNED = Contract(cancel="abandon")
AWAY = Contract(cancel="abandon", blocks="always")
HOME = Contract(cancel="abandon", affinity="home")

running = threading.local()  # .call: the innermost one on this thread


class Entry:
    """A function, as an entrypoint. Thread: any.

    Attributes:
        apart: Whether the next call is to be in a task of its own.
    """

    __slots__ = ("_warned", "apart", "entrypoint", "name")

    def __init__(self, name: str, contract: Contract) -> None:
        self.name = name
        self.apart = contract is not AWAY
        self._warned = False
        self.entrypoint = self._made(contract)

    def _made(self, contract: Contract) -> Entrypoint[[Call], Any]:
        entrypoint: Entrypoint[[Call], Any] = Entrypoint(Call.run, contract=contract)
        entrypoint.name = entrypoint.__name__ = self.name
        return entrypoint

    def bridges(self) -> None:
        """Note that the function uses ``async_to_sync``."""
        if self.entrypoint.contract is HOME:
            self.apart = True
        elif self.entrypoint.contract is LEARNED:
            self.entrypoint = self._made(AWAY)

    def warn(self, awaited: object) -> None:
        """Tell once that the loop stands still."""
        if self._warned:
            return
        self._warned = True
        logger.warning(
            "%s() runs in place and calls async_to_sync(%s), on an event loop that cannot go on meanwhile: that runs "
            "on a loop of its own, and everything else waits. %s",
            self.name,
            getattr(awaited, "__qualname__", awaited),
            "thread_sensitive='worker', or a loop that changes hands (threadlets.new_event_loop), avoids that"
            if self.entrypoint.contract is HOME
            else "From now on the function runs on worker threads",
        )


entries: Known[Entry] = Known()


def entry_of(function: Any, contract: Contract) -> Entry:
    """Return what is known of a function under one of the contracts of this room. Thread: any."""

    def make() -> Entry:
        base = unwrap(function)
        return Entry(str(getattr(base, "__qualname__", None) or type(base).__qualname__), contract)

    return entries.of(parts_of(function), make, id(contract))


class Call:
    """One call, as it travels to where it runs.

    Attributes:
        tasks: That of the coroutine which the function waits for in ``async_to_sync``.
        thread: Where it was made.
        moved: Whether it has run elsewhere.
    """

    __slots__ = ("_args", "_error", "_kwargs", "_loop", "entry", "moved", "tasks", "thread", "wrapper")

    def __init__(self, wrapper: Any, entry: Entry, args: Any, kwargs: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.wrapper = wrapper
        self.entry = entry
        self._args = args
        self._kwargs = kwargs
        self._loop = loop
        self._error = sys.exc_info()
        self.tasks: list[asyncio.Task[Any]] = []
        self.thread = threading.get_ident()
        self.moved = False

    def run(self) -> Any:
        """Call the function. Thread: where the entrypoint wants it."""
        __traceback_hide__ = True
        outer = getattr(running, "call", None)
        attributes = SyncToAsync.threadlocal.__dict__  # of this thread
        before = attributes.copy()
        running.call = self
        self.moved = threading.get_ident() != self.thread
        try:
            child = partial(self.wrapper.func, *self._args, **self._kwargs)
            return self.wrapper.thread_handler(self._loop, self._error, self.tasks, self._run, child)
        finally:
            attributes.clear()
            attributes.update(before)
            running.call = outer
            self._error = (None, None, None)

    def _run(self, child: Callable[[], Any]) -> Any:
        __traceback_hide__ = True
        context: Context | None = getattr(self.wrapper, "context", None)
        if context is not None:
            return context.run(self._run_in, context, child)
        return self._run_in(copy_context(), child) if self.moved else child()

    def _run_in(self, context: Context, child: Callable[[], Any]) -> Any:
        __traceback_hide__ = True
        _restore_context(context)  # its Locals are this thread's now
        return child()

    def restore(self) -> None:
        """Make what has come back from another thread this one's. Thread: of who has awaited it."""
        if self.moved and getattr(self.wrapper, "context", None) is None:
            _restore_context(copy_context())

    def make_way(self, awaited: object) -> None:
        """Let the loop go on while the function waits for it; or see that it does not wait for it. Thread: its own."""
        self.entry.bridges()
        region = region_here()
        if region is None and self.moved:
            return  # on a worker
        try:
            if region is not None:
                region[0].give_up()
                return
        except RuntimeError as error:
            logger.debug("%s", error)
        attributes = SyncToAsync.threadlocal.__dict__
        if attributes.get("main_event_loop") is self._loop:
            attributes["main_event_loop"] = None
            self.entry.warn(awaited)


def make_way(awaited: object) -> None:
    """Tell the call that runs on this thread, if one does, that it is about to wait for async code. Thread: any."""
    call: Call | None = getattr(running, "call", None)
    if call is not None:
        call.make_way(awaited)
