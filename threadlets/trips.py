"""A coroutine that goes on elsewhere: in a worker thread, or on another event loop; and how it comes home.

Why: a coroutine is an object that anybody may resume, on any thread, as long as it is one at a time. So what is about
to block need not be cut out and put into a function: the coroutine itself can leave the loop, and come back.

How: the task of a coroutine that leaves waits at a *pin*, a future that nobody else has. Meanwhile somebody else drives
the coroutine, in the task's own context:

- in a worker thread a *trip* does what a task does: it sends, takes the future that comes out, has the loop of the task
  wait for it, and goes on in a worker. While it waits there is no thread for it.
- on another event loop a task of that loop does so, to which a *visitor* stands for the coroutine. So whatever is
  awaited there belongs there, and timeouts, groups and their like work.

To move is to yield a ``Move``: whoever drives it hands it on. When it is home the pin is done, and its task goes on. If
it ends elsewhere - it may, after ``migrate`` - the result is given to the task over its head.

*The context* of a task cannot be asked for on 3.11. But a task hands it out when it begins to wait: with its callback.
So the pin takes both, and they are what brings the coroutine home, within the one callback that decides with what.

*Cancelling.* The task cancels its pin; the pin notes it, and is not done. Whoever drives the coroutine passes it on at
the next await, or tells at the next ``checkpoint()``; who brings it home does it if nobody else has. It is noted once
and passed on once, so that ``asyncio.timeout`` and its like can count:

    loop: notes the cancel                          driver: the step ends, the coroutine moves on
    loop: tells the driver that it knows of         next driver: looks whether one is noted
    The driver does nothing if the coroutine has left: then the next one finds the note (``test_cancel_at_every_hop``).

Rejected: a pin that is cancelled (the task would throw into a coroutine that is running elsewhere); a copy of the
context (a ``ContextVar`` that is set here could not be reset there); to show the running loop in a worker (blocking
code would refuse to run, as if it stalled that loop).

Invariants: one driver at a time: a trip is handed on as the last act of a step. A task has one trip at most, from its
``go`` until it is home again. ``asked`` is written on the task's loop, and cleared by the driver.

Assumes: a task calls ``add_done_callback(callback, context=...)`` of what it waits for, if that is no plain future, at
the end of its step, and ``cancel(msg=...)`` of it; ``asyncio.Future``'s own ``set_result`` and its like end a task.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import types
from asyncio import AbstractEventLoop, CancelledError
from collections.abc import Callable, Coroutine
from contextvars import Context
from time import monotonic_ns
from typing import Any

from . import events
from .cancellation import holds, tell
from .events import listeners
from .handles import Threadlet
from .homes import home_of
from .mailboxes import calls_of
from .surroundings import here, travellers, trips
from .tasks import coroutine_of, running_loop
from .visits import Move, Place, Visitor, without_driver
from .workers import WorkerGroup

__all__ = ["HOME", "Trip"]

logger = logging.getLogger("threadlets")

HOME: Place = None

FIRST = -float("inf")


class Pin(asyncio.Future[None]):
    """What a task waits at while its coroutine is away. Thread: the task's loop."""

    def __init__(self, trip: Trip) -> None:
        super().__init__(loop=trip.loop)
        self.trip = trip

    def add_done_callback(self, callback: Callable[..., object], *, context: Context | None = None) -> None:
        """Set out: this is the task, which has stopped to run its coroutine."""
        assert context is not None, "a task waits in its own context"
        self.trip.depart(callback, context)

    def cancel(self, msg: Any = None) -> bool:
        """Pass a cancel on to the coroutine, wherever it is; False if it is home."""
        return not self.done() and self.trip.cancel(msg)


class Trip:
    """One absence of a coroutine from its task. Thread: the one that drives it, unless a method says otherwise."""

    __slots__ = (
        "__weakref__",
        "_arrived",
        "_asked_here",
        "_awaited",
        "_context",
        "_coroutine",
        "_home",
        "_hooks",
        "_mailbox",
        "_visitor",
        "_wake",
        "asked",
        "error",
        "handle",
        "loop",
        "pin",
        "place",
        "task",
        "ticket",
        "underway",
    )

    def __init__(self, task: asyncio.Task[Any], place: Place, *, returns: bool) -> None:
        self.task = task
        self.loop = task.get_loop()
        self._home = home_of(self.loop)
        self._mailbox = calls_of(self.loop)
        self.handle: Threadlet[Any] | None = None  # if the coroutine is a threadlet
        self.place = place  # where it is, or is about to be
        self.pin = Pin(self)
        self.asked: tuple[Any, ...] | None = None  # the arguments of a CancelledError that it was not told of yet
        self._asked_here: tuple[Any, ...] | None = None  # the same, not passed on yet
        self.ticket: Any = None
        self._arrived = monotonic_ns()
        self._coroutine: Coroutine[Any, Any, Any] = coroutine_of(task)
        self._hooks = sys.get_asyncgen_hooks()  # the loop's: it is to know of generators that begin in a worker
        self._context: Context
        self._wake: Callable[[Any], object]
        self._awaited: Any = None  # in a worker: the future that the loop waits for
        self.error: BaseException | None = None  # what is to be raised where it goes on
        self._visitor: Visitor | None = None  # on another loop: stands for it there
        self.underway = returns  # it has gone on somewhere else than at home, so what is to end there is not told here

    def is_here(self) -> bool:
        """Say whether the code that runs on this thread is its own: not that of a task that it has started."""
        loop = running_loop()
        if loop is None:
            return isinstance(self.place, WorkerGroup)
        visitor = self._visitor
        return loop is self.place and visitor is not None and asyncio.current_task(loop) is visitor.task

    def told(self) -> tuple[Any, ...] | None:
        """Return the arguments of a CancelledError that it is to get, None if there is none. Thread: any."""
        told = None if self._visitor is None else self._visitor.told()
        return self.asked if told is None else told

    # ------------------------------------------------------------------------------------------ from home, and back

    def depart(self, wake: Callable[[Any], object], context: Context) -> None:
        """Set out. The task is about to end its step, in which the context is still entered. Thread: loop."""
        self._wake, self._context = wake, context
        self.handle = self._home.current(self.task)
        trips.add(self)
        self.tell_move(self.place)
        if isinstance(self._coroutine, types.CoroutineType):
            self.go(self.place)
        else:  # it cannot be asked whether it has taken a step: see run_on_worker
            self.loop.call_soon(self.go, self.place, context=Context())

    def go(self, place: Place) -> None:
        """Hand the coroutine to who drives it at a place. Thread: any."""
        self.place = place
        try:
            if place is None:
                self._post(self._arrive, context=self._context)
            elif isinstance(place, WorkerGroup):
                place.submit(self, self._urgency())
            else:
                self._visitor = visitor = Visitor(self, self._coroutine, self._context)
                place.call_soon_threadsafe(visitor.arrive, context=Context())
        except RuntimeError as error:  # no thread can be started, the loop is closed
            self.error = error
            self.go(HOME)

    def tell_move(self, place: Place) -> None:
        """Tell those who listen where a threadlet goes. Thread: the one that drives it."""
        if listeners and self.handle is not None:
            name = "home" if place is None else place.name if isinstance(place, WorkerGroup) else repr(place)
            events.tell(events.MOVED, self.handle, name)

    def _urgency(self) -> float:
        """Return the priority in the line for a worker: who holds a lock goes first, for others wait for him."""
        if self.handle is None:
            return 0
        return FIRST if self.handle in holds else self.handle._priority

    def _arrive(self) -> None:
        """Have the task go on. Thread: loop, in the task's context."""
        trips.discard(self)
        asked = self._take_asked()
        pin, wake = self.pin, self._wake
        if asked is not None:
            asyncio.Future.cancel(pin, *asked)
        elif self.error is not None:
            pin.set_exception(self.error)
        else:
            pin.set_result(None)
        del self.pin, self._wake, self.error  # they refer to each other
        try:
            wake(pin)
        finally:
            del self, pin, wake  # a traceback may refer to this frame, and the task to that

    def _take_asked(self) -> tuple[Any, ...] | None:
        """Return what nobody has told the coroutine, now that it is over. Thread: loop."""
        asked = self.asked if self._asked_here is None else self._asked_here
        self.asked = self._asked_here = None
        return asked

    def cancel(self, msg: Any) -> bool:
        """Note that the coroutine is to be told, and see that it is, wherever it is now. Thread: loop."""
        if self._awaited is not None and self._awaited.cancel(msg=msg):
            return True  # it comes from there
        asked = () if msg is None else (msg,)
        if isinstance(self.place, AbstractEventLoop):
            self.loop.call_soon(self._pass_on, context=Context())
            if asked or self._asked_here is None:
                self._asked_here = asked
        else:
            self._note(asked)
        return True

    def _pass_on(self) -> None:
        """Pass a cancel on to another loop, when the callback that has asked for it has ended. Thread: loop.

        Its thread would be told at once, and ask who has told it before that has noted that it did: so does a timeout
        (``test_cancels_are_counted_on_both_sides``).
        """
        asked, self._asked_here = self._asked_here, None
        if asked is not None:  # it is not home by now
            self._note(asked)

    def _note(self, asked: tuple[Any, ...]) -> None:
        """Note a cancel, and see that the coroutine is told, wherever it is now. Thread: loop."""
        if asked or self.asked is None:
            self.asked = asked
        place = self.place
        if isinstance(place, WorkerGroup):
            if not self.underway and place.remove(self):
                self.go(HOME)  # it has not begun: nobody has to wait for a thread to be told
            else:
                tell(self.handle or self.task)
        elif place is not None and (visitor := self._visitor) is not None:
            if not place.is_running():
                logger.warning("%r was cancelled, and is on an event loop that does not run: %r", self.task, place)
            try:
                place.call_soon_threadsafe(visitor.look, context=Context())
            except RuntimeError:  # that loop is closed: nobody drives the coroutine any more
                self.go(HOME)

    def _finish(self, error: BaseException | None, value: Any) -> None:
        """Give the task the outcome of its coroutine, which has ended elsewhere. Thread: loop."""
        trips.discard(self)
        del self.pin, self._wake
        asked = self._take_asked()
        if error is None and asked is not None:  # as a task that is cancelled right before it stops
            error = CancelledError(*asked)
        if isinstance(error, CancelledError):
            asyncio.Future.cancel(self.task, *error.args)
        elif error is not None:
            asyncio.Future.set_exception(self.task, error)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise error  # out of the loop, as from any task
        else:
            asyncio.Future.set_result(self.task, value)

    def end(self, error: BaseException | None, value: Any = None) -> None:
        """Have the task end as its coroutine has. Thread: any."""
        self._post(self._finish, error, value)

    def _post(self, function: Callable[..., object], *args: Any, context: Context | None = None) -> None:
        """Have the loop call a method. Thread: any."""
        if not self._mailbox.post((function, args, context or Context())):
            logger.debug("%r waits for ever: its event loop was closed while its coroutine was away", self.task)
            trips.discard(self)

    # ----------------------------------------------------------------------------------------------- in a worker

    def run_on_worker(self) -> None:
        """Take a step. Thread: worker, that of the group that is its place."""
        thread = threading.get_ident()
        error, self.error = self.error, None
        if self.asked is not None:
            error = error if isinstance(error, CancelledError) else CancelledError(*self.asked)
            self.asked = None
        self.underway = True
        travellers[thread] = self
        sys.set_asyncgen_hooks(*self._hooks)
        if self.handle is not None:
            here[thread] = self.handle
        brought = ended = None
        value = None
        try:
            if error is None:
                brought = self._context.run(self._coroutine.send, None)
            else:
                brought = self._context.run(self._coroutine.throw, error)
        except StopIteration as stop:
            ended, value = True, stop.value
        except BaseException as raised:
            if getattr(self._coroutine, "cr_suspended", False):  # no step: the task is still in its context
                self.error = error
                self._again_soon()
                return
            ended, error = True, without_driver(raised)
        else:
            error = None
        finally:
            sys.set_asyncgen_hooks(None, None)
            del travellers[thread]
            here.pop(thread, None)
        try:
            if ended:
                self.end(error, value)
            else:
                self._go_on(brought)
        finally:
            del self, error, value  # a traceback may refer to this frame

    def _go_on(self, brought: Any) -> None:
        """Do what the coroutine wants that has yielded this: the last act of a step."""
        if type(brought) is Move:
            self.tell_move(brought.place)
            self.go(brought.place)
        elif brought is None:
            self._again_soon()
        elif getattr(brought, "_asyncio_future_blocking", None):
            brought._asyncio_future_blocking = False
            self._post(self._await, brought)
        else:
            self.error = RuntimeError(f"Task got bad yield: {brought!r}")
            self.go(self.place)

    def _again_soon(self) -> None:
        """Go on here when the loop has gone round."""
        self._post(self.go, self.place)

    def leaves(self, visitor: Visitor) -> None:
        """Note that it is on the other loop no more. Thread: that loop."""
        if self._visitor is visitor:
            self._visitor = None

    def _await(self, future: Any) -> None:
        """Wait for what the coroutine awaits. Thread: loop."""
        try:
            if future is self.task or future is self.handle:
                raise RuntimeError(f"Task cannot await on itself: {self.task!r}")
            if future.get_loop() is not self.loop:
                raise RuntimeError(f"{self.task!r} got {future!r}, which is attached to a different loop")
            future.add_done_callback(self._continue, context=Context())
        except Exception as error:
            self.error = error
            self.go(self.place)
            return
        self._awaited = future
        if self.handle is not None and isinstance(future, Threadlet):
            self._home.waits.begin(self.handle, future)
        asked = self.asked
        if asked is not None and future.cancel(*asked):
            self.asked = None

    def _continue(self, future: Any) -> None:
        """Go on in a worker: what was awaited has come. Thread: loop."""
        self._awaited = None
        if self.handle is not None and isinstance(future, Threadlet):
            self._home.waits.end(self.handle, future)
        try:
            future.result()
        except BaseException as error:
            self.error = error
        self.go(self.place)


def _after_fork() -> None:
    """Forget the coroutines that run on threads which a forked child does not have."""
    for thread in [each for each in travellers if each != threading.get_ident()]:
        del travellers[thread]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
