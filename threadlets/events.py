"""What happens to threadlets, told as it happens, to whoever listens.

    from threadlets import events

    with events.subscribe(print, "missed", "ended"):
        ...

Why: spans, trace files and screens all want to know the same few moments of a threadlet's life. So these are told in
one place, as frozen records, and each of them is a listener.

How little it costs: where something happens the core asks ``if listeners:``, an empty dict as long as nobody listens. A
record is made if there is somebody for its kind. Listeners are called one after the other, right there, on the thread
on which it happens: they are to be quick, and to be ready for several threads. One that raises is told nothing more,
and that is logged; what a listener does itself with threadlets is not told to anybody.

Where a record is told, and in what order:

- ``queued``: in the context of whoever starts the threadlet, if it does not begin there and then.
- ``admitted``: the throttles of its pool have let it go on.
- ``began``: on the thread **and in the context in which its function will run**, right before that. So what a listener
  sets in a context variable is what the function sees. For a plain function in place that is its caller's context.
- ``missed``: a call in place has blocked, and the loop goes on on another thread ("taken over"), or a coroutine has
  been suspended for the first time ("suspended"). On the loop's thread.
- ``resumed``: a call that was taken over has ended and has the loop back. On its own thread.
- ``moved``: it goes to another pool, or node; or a coroutine goes to a worker, to another loop, home.
- ``cleaning``: its function has ended, and what it has deferred is called.
- ``left``: a plain function, and its cleanup, have ended: told where ``began`` was, to take back what was set there.
- ``ended``: it is final, and on nobody's books. On the loop's thread. It may come before ``left``, if it was abandoned.

Whoever subscribes late has missed the beginning. Calls that share one run (``Contract(pure=True)``) are told of once,
as that run.

Rejected: a listener for all kinds that looks at each record (the calls that it does not want would pay for it); to hand
records over to a thread (context variables could not be set, and an order across threads would have to be made up); to
exchange the methods of the core when somebody listens (the question costs a call in place 1 % at most: measured).

Invariants: ``listeners`` has an entry for each kind that somebody listens to, and no others; entries are exchanged and
never changed, so that no lock is needed to read them.
"""

from __future__ import annotations

import logging
import os
import threading
from asyncio import CancelledError
from collections.abc import Callable
from enum import StrEnum
from threading import get_ident
from time import monotonic_ns
from typing import Any, NamedTuple

__all__ = ["Kind", "Record", "Subscription", "subscribe"]

logger = logging.getLogger("threadlets")


class Kind(StrEnum):
    """What has happened; equal to these words."""

    QUEUED = "queued"
    ADMITTED = "admitted"
    BEGAN = "began"
    MISSED = "missed"
    RESUMED = "resumed"
    MOVED = "moved"
    CLEANING = "cleaning"
    LEFT = "left"
    ENDED = "ended"


QUEUED, ADMITTED, BEGAN, MISSED, RESUMED = Kind.QUEUED, Kind.ADMITTED, Kind.BEGAN, Kind.MISSED, Kind.RESUMED
MOVED, CLEANING, LEFT, ENDED = Kind.MOVED, Kind.CLEANING, Kind.LEFT, Kind.ENDED


class Record(NamedTuple):
    """One thing that has happened.

    Attributes:
        kind: What.
        threadlet: To which ``Threadlet``. Of "missed" and "resumed" it may be None: a region outside of threadlets.
        time: When, in ns of ``time.monotonic_ns()``.
        thread: The number of the thread that tells it.
        place: Of "queued": it waits for its "pool", a "worker", or the loop's "home" thread. Of "began": "in place",
            "worker", "host", or "right here", where no loop runs. Of "missed": "taken over" or "suspended". Of "moved":
            where to. Otherwise "".
        error: Of "ended": what it has ended with, if not with a value; a ``CancelledError`` if it was cancelled. To
            look at it here does not count as retrieving it.
    """

    kind: Kind
    threadlet: Any
    time: int
    thread: int
    place: str
    error: BaseException | None


Listener = Callable[[Record], object]


class Subscription:
    """One listener that is told; leaving ``with subscribe(...):`` ends that, and ``close()`` does. Thread: any.

    Attributes:
        listener: What is called.
        kinds: Of what it is told.
        failure: What it has raised, if it was dropped since.
    """

    def __init__(self, listener: Listener, kinds: frozenset[Kind]) -> None:
        self.listener = listener
        self.kinds = kinds
        self.failure: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Subscription of {self.listener!r} to {', '.join(sorted(self.kinds))}>"

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Tell it nothing more; a record that is being told on another thread may still come. May be called again."""
        with _lock:
            for kind in self.kinds:
                left = tuple(each for each in listeners.get(kind, ()) if each is not self)
                if left:
                    listeners[kind] = left
                else:
                    listeners.pop(kind, None)

    def _drop(self, error: BaseException) -> None:
        self.failure = error
        self.close()
        logger.error("%r raised, and is told nothing more", self, exc_info=error)


listeners: dict[Kind, tuple[Subscription, ...]] = {}
_lock = threading.RLock()  # a signal handler may subscribe, too
_telling: set[int] = set()  # threads on which a listener is being told something


def subscribe(listener: Listener, *kinds: str) -> Subscription:
    """Have ``listener(record)`` called for each thing that happens, from now on.

    Args:
        listener: A function of a ``Record``, which is called where the record is told: see the module's text. It must
            be quick, must not wait for an event loop, and may be called on several threads at a time.
        kinds: "queued", "admitted", "began", "missed", "resumed", "moved", "cleaning", "left", "ended"; none: all.

    Raises:
        TypeError: If the listener is not callable.
        ValueError: If there is no such kind.

    Thread: any.
    """
    if not callable(listener):
        raise TypeError(f"subscribe({listener!r}): expected a function of a threadlets.events.Record")
    try:
        subscription = Subscription(listener, frozenset(map(Kind, kinds)) or frozenset(Kind))
    except ValueError as error:
        raise ValueError(f"{error}: expected some of {', '.join(Kind)}") from None
    with _lock:
        for kind in subscription.kinds:
            listeners[kind] = (*listeners.get(kind, ()), subscription)
    return subscription


def tell(kind: Kind, threadlet: Any, place: str = "", error: BaseException | None = None) -> None:
    """Tell those who listen. The core calls it where something happens, ``if listeners:``. Thread: any."""
    subscriptions = listeners.get(kind)
    if subscriptions is None:
        return
    thread = get_ident()
    if thread in _telling:  # a listener does it
        return
    _telling.add(thread)
    try:
        record = Record(kind, threadlet, monotonic_ns(), thread, place, error)
        for subscription in subscriptions:
            try:
                subscription.listener(record)
            except KeyboardInterrupt:
                raise
            except BaseException as failure:  # also a SystemExit, or a CancelledError, which would be taken for others'
                subscription._drop(failure)
    finally:
        _telling.discard(thread)
        del error, threadlet  # a traceback may lead to this frame


def tell_end(threadlet: Any, state: str, value: Any) -> None:
    """Tell that a threadlet is final, which has ended so."""
    if ENDED not in listeners:
        return
    error = None
    if state == "failed":
        error = value if isinstance(value, BaseException) else value.exception
    elif state == "cancelled":
        error = CancelledError() if value is None else CancelledError(value)
    try:
        tell(ENDED, threadlet, error=error)
    finally:
        del error, threadlet, value


def _after_fork() -> None:
    """Forget the threads that a forked child does not have."""
    global _lock
    _lock = threading.RLock()
    _telling.intersection_update({get_ident()})


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
