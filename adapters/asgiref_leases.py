"""The threads of asgiref's contexts: borrowed for as long as one goes on, and used again. For ``asgiref`` beside this.

Why: a ``ThreadSensitiveContext``, and Django makes one for each request, has a thread of its own. asgiref starts it,
and joins it from one more thread that it starts for that: a millisecond, where the call itself takes a tenth of it.

How: asgiref keeps an executor for each context in a table. There ours is put, before asgiref misses one: a ``Lease``.
Its thread is one of a group's; the one job that it does there is to serve the calls of the context, until that has
ended. All else is asgiref's own: a call finds its thread with the adapter and without, also after ``uninstall()``.

Invariants: a lease has one thread, from its beginning to its end, and its calls run there one after the other. A thread
is given back when the last of them has ended. Neither the thread nor the job refers to the lease: a context that is
forgotten, and never left, gives its thread back when it is collected.

Rejected: worker threads with an affinity by name (they last, and each request has a name of its own); a group of one
thread for each context (a group has no end, and to make one costs more than the call).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from time import monotonic_ns
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import SyncToAsync

from threadlets.outcomes import as_awaitable
from threadlets.workers import WorkerGroup

__all__ = ["Lease"]

P = ParamSpec("P")
R = TypeVar("R")

_threads = WorkerGroup("asgiref", limit=sys.maxsize)  # as many as there are contexts, as with asgiref


class _Service:
    """What a borrowed thread does: the calls of one context, one after the other."""

    __slots__ = ("_arrived", "_calls", "ended", "finished", "submitted", "ticket")

    def __init__(self) -> None:
        self._arrived = monotonic_ns()
        self.ticket: Any = None
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self.ended: Future[None] = Future()
        self.ended.set_running_or_notify_cancel()  # who stops waiting for it does not cancel it
        self.submitted = self.finished = 0

    def put(self, function: Callable[[], R]) -> Future[R]:
        """Have a function called. Thread: any, one at a time."""
        future: Future[R] = Future()
        self.submitted += 1
        self._calls.put((future, function))
        return future

    def end(self) -> None:
        """Have no more called than what was put before; may be said more than once. Thread: any."""
        self._calls.put(None)

    def run_on_worker(self) -> None:
        """Serve until the end. Thread: worker."""
        while (call := self._calls.get()) is not None:
            future, function = call
            if not future.set_running_or_notify_cancel():
                self.finished += 1
            else:
                try:
                    value = function()
                except BaseException as error:
                    self.finished += 1  # before anybody can know that it has
                    future.set_exception(as_awaitable(error, "sync_to_async"))  # asyncio would lose a StopIteration
                else:
                    self.finished += 1
                    future.set_result(value)
                    del value
            del call, future, function  # nothing is kept while it waits
        SyncToAsync.threadlocal.__dict__.clear()  # that refers to the loop
        self.ended.set_result(None)


class Lease(Executor):
    """The thread of one context, as asgiref wants it: an executor. Given back when it is left, shut down, or collected.

    Raises:
        RuntimeError: If the system refuses to start a thread.

    Thread: any, one at a time.
    """

    def __init__(self) -> None:
        self._service = _Service()
        _threads.submit(self._service)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have a function called in the thread."""
        return self._service.put(partial(fn, *args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Give the thread back; this is what asgiref calls, where nobody has told it of ``leave``."""
        self._service.end()
        if wait:
            self._service.ended.result()

    async def leave(self) -> None:
        """Give the thread back; wait for a call that still runs since nobody has. Thread: loop. Cancel: point."""
        self._service.end()
        if self._service.submitted != self._service.finished:
            await asyncio.wrap_future(self._service.ended)

    def __del__(self) -> None:
        """Give the thread back, if nobody has."""
        service = getattr(self, "_service", None)
        if service is not None:
            service.end()
