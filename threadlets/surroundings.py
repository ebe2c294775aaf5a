"""What a function sees around it: the threadlet that it is, and context variables that go in and come back."""

from __future__ import annotations

import threading
import weakref
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any

from .lifecycles import HERE

if TYPE_CHECKING:
    from .handles import Threadlet
    from .trips import Trip

__all__ = ["changes", "here", "outermost", "travellers", "trip_here", "trip_of", "trips", "waiting"]


# By thread: the innermost plain function's threadlet. A dict and not a threading.local, which costs 100 ns more a call.
here: dict[int, Threadlet[Any] | None] = {}

# Who waits for what, of those that wait on a thread or for a lock: threadlets, tasks, numbers of threads, and loops
# that are blocked; for a lock, for a task, for one of these. To find circles: see deadlocks.py.
waiting: dict[Any, Any] = {}

# Coroutines that are away from their tasks: all, and by the thread that takes a step of one right now.
trips: weakref.WeakSet[Trip] = weakref.WeakSet()
travellers: dict[int, Trip] = {}


def trip_here() -> Trip | None:
    """Return the trip of the coroutine that runs here; None at home, and where none runs. Thread: any."""
    trip = travellers.get(threading.get_ident()) if travellers else None
    return trip if trip is not None and trip.is_here() else None


def trip_of(task: Any) -> Trip | None:
    """Return the trip of a task's coroutine, which the task waits for; None if it is home. Thread: any."""
    return getattr(getattr(task, "_fut_waiter", None), "trip", None)


def outermost(handle: Threadlet[Any] | None) -> Threadlet[Any] | None:
    """Return the threadlet that a function is a part of: not one that another function has called, right there."""
    while handle is not None and handle._marks & HERE:
        handle = handle._task
    return handle


def changes(before: Context, after: Context) -> list[tuple[ContextVar[Any], Any]] | None:
    """Return the context variables that a function has set; compared by identity, for ``==`` is the user's code."""
    return [(variable, value) for variable, value in after.items() if before.get(variable, before) is not value] or None
