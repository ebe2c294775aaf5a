"""A coroutine on another event loop than its own: a task of that loop drives it, to which a visitor stands for it.

Why a task of asyncio's and not a driver of ours: so all that is awaited there belongs there, ``asyncio.timeout`` and
``TaskGroup`` find a current task, and a cancel does what it does.

The task ends when the coroutine moves on, or when that ends.
"""

from __future__ import annotations

import asyncio
import os
import threading
from asyncio import AbstractEventLoop, CancelledError
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeAlias

from .surroundings import travellers
from .tasks import must_cancel
from .workers import WorkerGroup

if TYPE_CHECKING:
    from .trips import Trip

__all__ = ["Move", "Place", "Visitor", "without_driver"]

Place: TypeAlias = "WorkerGroup | AbstractEventLoop | None"
HOUSE = os.path.dirname(__file__)
DRIVERS = frozenset(os.path.join(HOUSE, name) for name in ("trips.py", "visits.py"))


class Move:
    """What a coroutine yields to be somewhere else."""

    __slots__ = ("place",)

    def __init__(self, place: Place) -> None:
        self.place = place


class Visit(asyncio.Task[Any]):
    """The task that drives a visitor: it counts cancels together with the task at home. Thread: this loop.

    So who has counted there, ``asyncio.timeout`` for one, finds the same number here, and takes back what is his.
    """

    def __init__(self, visitor: Visitor, home: asyncio.Task[Any], context: Context) -> None:
        coroutine: Any = visitor  # it looks like one
        self._home = home
        self._here = 0  # how often it was cancelled on this side
        super().__init__(coroutine, loop=asyncio.get_running_loop(), name=home.get_name(), context=context)

    def cancel(self, msg: Any = None) -> bool:
        """Cancel it from this side."""
        self._here += not self.done()
        return super().cancel(msg)

    def tell(self, asked: tuple[Any, ...]) -> bool:
        """Pass on a cancel that was counted at home; False if the coroutine has left."""
        return super().cancel(*asked)

    def cancelling(self) -> int:
        """Return how many cancels there are that were not taken back, on both sides."""
        return self._home.cancelling() + self._here

    def uncancel(self) -> int:
        """Take one back."""
        super().uncancel()
        if self._here:
            self._here -= 1
        else:
            self._home.uncancel()
        return self.cancelling()


@Coroutine.register
class Visitor:
    """Stands for a coroutine that comes from another loop, to the task that drives it on this one. Thread: this loop.

    Attributes:
        task: The one that drives it; None before there is one.
    """

    def __init__(self, trip: Trip, coroutine: Coroutine[Any, Any, Any], context: Context) -> None:
        self.task: Visit | None = None
        self._trip = trip
        self._coroutine = coroutine
        self._context = context
        self._error: BaseException | None = None  # what its first step is to begin with
        self._goal: Move | None = None

    def arrive(self) -> None:
        """Have a task drive the coroutine."""
        loop, trip = asyncio.get_running_loop(), self._trip
        try:
            self._context.run(int)
        except RuntimeError:  # the thread that it came from is just about to leave that
            loop.call_soon(self.arrive, context=Context())
            return
        trip.underway = True
        asked = trip.asked
        if asked is not None:  # not otherwise: it may be noted right now
            trip.asked = None
        self._error, trip.error = trip.error, None
        self.task = Visit(self, trip.task, self._context)
        self.task.add_done_callback(self._leave, context=Context())
        if asked is not None:
            self.task.tell(asked)

    def look(self) -> None:
        """Tell the coroutine, if it is still here, that it is to stop, if nobody has told it."""
        asked = self._trip.asked
        if self.task is not None and asked is not None and self.task.tell(asked):
            self._trip.asked = None

    def told(self) -> tuple[Any, ...] | None:
        """Return the arguments of a CancelledError that it is about to get, None if there is none. Thread: any."""
        return None if self.task is None else must_cancel(self.task)

    def send(self, value: None) -> Any:
        """Take a step."""
        if self._error is not None:
            return self.throw(self._error)
        return self._step(self._coroutine.send, value)

    def throw(self, error: BaseException) -> Any:
        """Take a step that begins with an exception."""
        self._error = None
        return self._step(self._coroutine.throw, error)

    def _step(self, function: Callable[[Any], Any], argument: Any) -> Any:
        thread = threading.get_ident()
        before = travellers.get(thread)
        travellers[thread] = self._trip
        try:
            brought = function(argument)
        finally:
            if before is None:
                del travellers[thread]
            else:
                travellers[thread] = before
        if type(brought) is Move:
            self._goal = brought
            raise StopIteration
        return brought

    def _leave(self, task: asyncio.Task[Any]) -> None:
        """Hand the coroutine on, or its outcome."""
        self.task = None
        trip, goal, value = self._trip, self._goal, None
        trip.leaves(self)
        error: BaseException | None = None
        try:
            value = task.result()
        except BaseException as raised:
            error = raised
        if goal is None:
            trip.end(None if error is None else without_driver(error), value)
        else:
            if isinstance(error, CancelledError):  # by its own code, within its last step
                trip.asked = error.args
            trip.tell_move(goal.place)
            trip.go(goal.place)

    def close(self) -> None:
        """Close the coroutine: nobody will drive it any more."""
        self._coroutine.close()

    def __await__(self) -> Any:
        raise TypeError("this stands for a coroutine that a task already runs; await the task")

    def __getattr__(self, name: str) -> Any:
        """Look like the coroutine: ``cr_frame`` and its like, for tracebacks and ``Task.get_stack``."""
        return getattr(self._coroutine, name)


def without_driver(error: BaseException) -> BaseException:
    """Take the frames of who drives a coroutine off the outer end of a traceback."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename in DRIVERS:
        traceback = traceback.tb_next
    return BaseException.with_traceback(error, traceback)
