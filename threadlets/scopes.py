"""The structured use of a pool: ``async with`` waits for all, cancels all when it must, and loses no failure.

The rules are those of ``asyncio.TaskGroup`` (CPython's ``Lib/asyncio/taskgroups.py``), with two differences: by default
a failure does not cancel the others, and a failure that somebody has retrieved is not raised again.
"""

from __future__ import annotations

import asyncio
import math
import sys
from asyncio import CancelledError
from typing import TYPE_CHECKING, Any

from .departures import wait_out

if TYPE_CHECKING:
    from .handles import Threadlet
    from .pools import Pool

__all__ = ["Scope"]


class Scope:
    """One ``async with`` of a pool, from its entry to its end.

    Raises:
        RuntimeError: If it is not entered in a task.
    """

    __slots__ = ("_cancelling", "_cause", "_leaving", "_parent", "_pool", "_reason")

    def __init__(self, pool: Pool) -> None:
        parent = asyncio.current_task()
        if parent is None:
            raise RuntimeError(f"'async with {pool!r}' needs to run in a task")
        self._pool = pool
        self._parent = parent
        self._cancelling = False  # everything has been told to stop
        self._reason = ""  # why
        self._cause: Threadlet[Any] | None = None  # the threadlet whose failure made us cancel the body
        self._leaving = False  # the body has ended

    def failed(self, handle: Threadlet[Any]) -> None:
        """Keep a failure until somebody retrieves it, and stop the others if that was asked for."""
        self._pool._failures[handle] = None
        if self._pool._cancels_on_failure and not self._cancelling:
            # async with Pool(on_failure="cancel") as pool:
            #     pool.start(fails)
            #     await something_long()      <- has to be interrupted; in __aexit__ there is nothing to interrupt
            if not self._leaving:
                self._cause = handle
                self._parent.cancel()
            self._cancel_all(f"{handle!r} failed")

    async def leave(self, error: BaseException | None) -> None:
        """Wait until the pool is empty, then raise what is left to raise; ``error`` is what the body raised.

        Cancel: everything in the pool is cancelled, and still waited for.
        """
        self._leaving = True
        pool = self._pool
        cancelled = error if isinstance(error, CancelledError) else None
        if error is not None:
            self._cancel_all(f"the scope of {pool!r} was left by {type(error).__name__}")
        told = False  # the done callbacks of what has failed were called: they may retrieve it, and start others
        while pool._index or (pool._failures and not told):
            try:
                if pool._index:
                    told = False
                    await (wait_out([pool], math.inf, self._reason) if self._cancelling else pool.drain())
                else:
                    told = True
                    await asyncio.sleep(0)
            except CancelledError as again:
                cancelled = cancelled or again
                self._cancel_all(f"the scope of {pool!r} was cancelled")
        failures = [handle._retrieve() for handle in list(pool._failures)]
        exits = [failure for failure in failures if isinstance(failure, (KeyboardInterrupt, SystemExit))]
        if self._cause is not None:
            # Our own cancel of the body may not have been delivered: the body ended before its next await. Before
            # Python 3.13 it would outlive uncancel(), so it is taken here.
            try:
                await asyncio.sleep(0)
            except CancelledError as again:
                cancelled = cancelled or again
            if self._parent.uncancel() == 0:
                cancelled = None  # it was nobody else's: the failure is raised instead
                if isinstance(error, CancelledError) and not failures:
                    failures = [self._cause._retrieve()]
        if error is not None and not isinstance(error, (Exception, CancelledError)):
            return  # KeyboardInterrupt and its like go on as they are
        if exits:
            raise exits[0]  # and so they do from a threadlet
        if not failures:
            if cancelled is not None and cancelled is not error:
                raise cancelled
            return  # what the body raised, if anything, goes on as it is
        if sys.version_info >= (3, 13) and self._parent.cancelling():
            # Somebody else has cancelled the task, too, and the failures hide that: the next await is to tell. (Before
            # 3.13 a cancel that is taken back later, as asyncio.timeout does, would be raised all the same.)
            self._parent.uncancel()
            self._parent.cancel()
        if error is not None and not isinstance(error, CancelledError):
            failures.insert(0, error)
        name = "a pool" if pool.name is None else f"pool {pool.name!r}"
        raise BaseExceptionGroup(f"unretrieved failures in {name}", failures) from None

    def _cancel_all(self, reason: str) -> None:
        self._cancelling, self._reason = True, reason
        self._pool.cancel(reason)
