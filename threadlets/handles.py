"""The handle of one call: what it is a call of, how urgent it is, what it is selected by; and how to cancel it.

A handle is lean: a pool may hold a million of them that have not started.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from contextvars import Context
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from . import trials
from .cleanups import deferred, is_cleaning
from .definitions import Definition, check_priority, check_tags
from .expiries import deadline_of, seconds_until
from .futures import FutureLike
from .lifecycles import (
    ADMITTED,
    AT_WORKER,
    CLEANING,
    EXPIRES,
    FAILED,
    FINAL,
    FOLLOWS,
    KEPT,
    MISSED,
    QUEUED,
    TIED,
    TOLD,
    State,
)
from .tasks import running_loop

if TYPE_CHECKING:
    from .admissions import Admission
    from .hosts import Host
    from .topology import Node

__all__ = ["Threadlet", "make_threadlet"]

T = TypeVar("T")


class Threadlet(FutureLike[T]):
    """One call of an entrypoint. Made by calling one, or by ``Pool.start``; not by hand.

    Thread: loop, for every method and attribute that changes something; reading is allowed from any thread.
    """

    __slots__ = ()

    @property
    def state(self) -> State:
        """One of "queued", "running", "missed", "cleaning", "done", "failed", "cancelled"; equal to these words."""
        if self._marks & FOLLOWS and self._state is QUEUED and self._task.carrier is not None:
            return self._task.carrier.state  # type: ignore[no-any-return]
        # It cleans up on the thread that it runs on, which may not write the state: the loop may be abandoning it.
        if deferred and self._state not in FINAL and is_cleaning(self):
            return CLEANING
        return self._state

    @property
    def priority(self) -> float:
        """How urgent it is: lower numbers run first. May be set while it waits, for its pool or for a worker.

        Raises:
            TypeError: When set to something that is not a real number.
            ValueError: When set to NaN.
        """
        return self.pool._home.waits.own(self) if self._marks & TIED and self.pool is not None else self._priority

    @priority.setter
    def priority(self, priority: float) -> None:
        priority = check_priority(priority)
        if self.pool is None or self._state in FINAL:
            self._priority = priority
        else:
            self.pool._home.waits.prioritize(self, priority)

    @property
    def effective_priority(self) -> float:
        """What counts as its priority: its own, or that of a threadlet that awaits it, if this is more urgent."""
        return self._priority

    @property
    def tags(self) -> frozenset[Hashable]:
        """Its tags. May be set until it is final: it is then selected and throttled by the new ones.

        Raises:
            TypeError: When set to one string, or to something that is not hashable.
        """
        return self._tags

    @tags.setter
    def tags(self, tags: Iterable[Hashable]) -> None:
        tags = check_tags(tags)
        if self.pool is None or self._state in FINAL:
            self._tags = tags
        else:
            self.pool._retag(self, tags)

    @property
    def deadline(self) -> float | None:
        """How many seconds it has left to end, None if there is no limit; may be set, to those or to a datetime.

        Raises:
            TypeError: When set to something else.
            ValueError: When set to NaN or inf, or to a datetime without a time zone.
        """
        if not self._marks & EXPIRES or self.pool is None or self._state in FINAL:
            return None
        deadline = self.pool._home.expiries.get(self)
        return None if deadline == float("inf") else seconds_until(int(deadline))

    @deadline.setter
    def deadline(self, deadline: float | datetime | None) -> None:
        until = None if deadline is None else deadline_of(deadline)
        if self.pool is not None and self._state not in FINAL:
            self.pool._limit_time(self, until)

    @property
    def age(self) -> float:
        """Seconds since it was started by its caller; 0.0 for a coroutine in its first step."""
        return max(0, trials.now() - self._arrived) / 1e9 if self._arrived else 0.0

    @property
    def node(self) -> Node | Host | None:
        """Where it is to run, or runs, if it does not run in place: a node, or a host; None: anywhere.

        That of its argument, by ``Contract(near=...)``, is known when it goes there, and until it is final.
        """
        if self.pool is None or not self.entrypoint.roams:
            return None
        if self._marks & FOLLOWS and self._state is QUEUED and self._task.carrier is not None:
            return self._task.carrier.node  # type: ignore[no-any-return]
        site = self.pool._home.sites.get(self)
        return self.pool.node if site is None else site.node

    @property
    def missed(self) -> bool:
        """Whether it started in place and could not finish there."""
        return bool(self._marks & MISSED)

    def __repr__(self) -> str:
        state = CLEANING if is_cleaning(self) else self._state
        words = [f"<Threadlet {self.entrypoint.name} {state}"]
        if self._priority:
            words.append(f"priority={self._priority}")
        if self._tags:
            words.append(f"tags={set(self._tags)}")
        if self._state is FAILED:
            words.append(f"exception={self._value.exception!r}")
        return " ".join(words) + ">"

    def cancel(self, msg: object = None) -> bool:
        """Ask it to stop; False if it is final already, or only its cleanup is left.

        Queued: it never runs. Suspended: ``CancelledError`` is raised at its await. A plain function that runs is told
        at its next ``checkpoint()``, or in a wait of this library; without one it runs on to its end, and then its
        result is dropped. With ``Contract(cancel="abandon")`` nobody waits for that. Inside of ``holding``, or of a
        ``Lock``, it is told when it leaves. ``cancelled()`` becomes true when the code has stopped. An exception that
        the function raises is kept: it then ends as failed.

        Args:
            msg: The reason; becomes the argument of the ``CancelledError``. (The name is that of asyncio's futures.)

        Thread: any. From another one than the loop's it is done a little later.
        """
        if self._state in FINAL or self.pool is None:
            return False
        home = self.pool._home
        if running_loop() is not home.loop and not home.is_here():
            home.loop.call_soon_threadsafe(self._cancel_here, msg)
            return True
        return self.pool._cancel(self, msg)

    def cancelling(self) -> int:
        """Return 1 if somebody has asked it to stop, else 0. A task's count may go down again; this does not.

        Thread: any.
        """
        return int(bool(self._marks & TOLD))

    def _cancel_here(self, msg: object) -> None:
        if self._state not in FINAL:
            self.pool._cancel(self, msg)  # type: ignore[union-attr]

    # ------------------------------------------------------------------------------------- for the other rooms

    def _keep(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None, context: Context | None) -> None:
        """Remember what is needed to run later, or elsewhere."""
        self._args = args
        self._marks |= KEPT
        self._kwargs = kwargs or None
        self._context = context
        self.ticket = None

    def run_on_worker(self) -> None:
        """Run it here: called by the worker thread that took it out of the queue."""
        assert self.pool is not None
        try:
            self.pool._home.run_on_worker(self)
        finally:
            del self  # the traceback of a failure refers to this frame

    def is_queued_in_pool(self) -> bool:
        """Say whether it is in the queue of its pool."""
        return self._state is QUEUED and self._marks & (AT_WORKER | KEPT) == KEPT and self.ticket is not None

    def holds_place(self) -> bool:
        """Say whether it may have a place in a throttle that another one could use."""
        return bool(self._marks & ADMITTED) and self.pool is not None and self.pool._lends

    def tie(self) -> None:
        """Note that others wait for it, or it for others."""
        self._marks |= TIED


def make_threadlet(
    definition: Definition[T],
    pool: Admission | None,
    priority: float,
    tags: frozenset[Hashable],
    state: State,
    arrived: int,
    marks: int,
) -> Threadlet[T]:
    """Make a handle. A function and not ``__init__``, which would cost 50 ns more; this is most of a call's price.

    Attributes that only some calls need are set when they do; a mark tells: WAITED, KEPT, ASKED.
    """
    handle: Threadlet[T] = Threadlet()
    handle.entrypoint = definition
    handle.pool = pool  # type: ignore[assignment]  # an Admission is a Pool
    handle._priority = priority
    handle._tags = tags
    handle._state = state
    handle._arrived = arrived
    handle._asyncio_future_blocking = False
    handle._marks = marks
    return handle
