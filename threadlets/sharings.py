"""One run for equal calls: with ``Contract(pure=True)``, a call that is equal to one that goes on shares its run.

Each call has a handle of its own, a *follower*, that is on the books, can be cancelled, prioritized, selected. The run
is a threadlet that nobody sees, the *carrier*: it is queued and throttled, by the tags of the first call, and runs. It
is as urgent as the most urgent of its followers, since they count as waiting for it (``waits``), and where deadlines
order the queue, it has the earliest of theirs. Who cancels a follower takes that one out; when the last one is
cancelled, so is the run, and it ends when the run has stopped.

Calls are equal if their arguments are, and are of the same types: ``f(1)`` and ``f(True)`` differ. Arguments that are
not hashable are equal to none.

Rejected: one handle for all: then one caller could cancel the others' call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from time import monotonic_ns
from typing import Any, TypeVar, cast

from .admissions import Admission
from .definitions import Definition
from .errors import DeadlineExceeded, PoolClosed
from .expiries import ENDLESS
from .handles import Threadlet, make_threadlet
from .lifecycles import (
    ADMITTED,
    AT_WORKER,
    CANCELLED,
    CARRIES,
    DONE,
    FAILED,
    FOLLOWS,
    OVERDUE,
    QUEUED,
    RUNNING,
    TAGGED,
    TIED,
    State,
)
from .outcomes import Failure

__all__ = ["Sharing"]

T = TypeVar("T")
NOBODY = float("inf")  # how urgent a run is by itself


class Run:
    """What equal calls share."""

    __slots__ = ("carrier", "deadline", "followers", "key")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.carrier: Threadlet[Any] | None = None  # while it is being started
        self.followers: dict[Threadlet[Any], None] = {}
        self.deadline = ENDLESS  # the earliest of the followers', in ns; where that orders the queue


class Sharing(Admission):
    """A pool in which equal calls share a run. Thread: loop."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._sharable: dict[Hashable, Run] = {}  # what goes on, by call
        self._runs: dict[Threadlet[Any], Run] = {}  # by carrier; those that are to stop, too

    def _begin_shared(
        self,
        definition: Definition[T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        priority: float,
        tags: frozenset[Hashable],
    ) -> Threadlet[T]:
        """Start a call, or let it share the run of an equal one."""
        key = _key(definition, args, kwargs)
        if key is None:
            return self._begin(definition, args, kwargs, priority, tags)
        run = self._sharable.get(key)
        follower = None if run is None else self._follow(run, definition, priority, tags)
        if follower is not None:
            return follower
        run = self._sharable[key] = Run(key)
        try:
            carrier = self._begin(definition, args, kwargs, priority, tags)
        except BaseException:
            del self._sharable[key]
            while run.followers:
                self._leave(run, next(iter(run.followers)), "the call whose run it shared could not be started")
            raise
        if carrier.done():  # in place: nobody else needs to know, unless there were takers meanwhile
            del self._sharable[key]
            self._end_followers(run, carrier)
            return carrier
        run.carrier = carrier
        self._runs[carrier] = run
        first = self._follow(run, definition, priority, tags)
        assert first is not None, "there is room for the first one, as there was for the run"
        for follower in run.followers:
            self._home.waits.begin(follower, carrier)
        self._home.waits.prioritize(carrier, NOBODY)
        self._strike(carrier)
        carrier._marks |= CARRIES
        return first

    def _follow(
        self, run: Run, definition: Definition[T], priority: float, tags: frozenset[Hashable]
    ) -> Threadlet[T] | None:
        """Return a handle of one more call that shares a run; None if that run was dropped to make room for it."""
        if self._closed:
            raise PoolClosed(f"{self!r} takes no more work: start it before the pool is closed, or in another pool")
        marks = (TAGGED if tags else 0) | FOLLOWS
        pool = self if run.carrier is None else cast(Sharing, run.carrier.pool)  # or a part of it: see _move()
        follower: Threadlet[T] = make_threadlet(definition, pool, priority, tags, QUEUED, monotonic_ns(), marks)
        if run.carrier is not None and run.followers and self._bounded:
            full = self._make_room(priority, tags)
            if full is not None:
                cast(Admission, full[0])._drop(follower, full[1])
                return follower
            if run.carrier.done():
                return None
        follower._task = run
        run.followers[follower] = None
        pool._list(follower)
        if run.carrier is not None:
            self._home.waits.begin(follower, run.carrier)
        return follower

    def _cancel_follower(self, handle: Threadlet[Any], reason: object) -> bool:
        """Cancel one that shares a run; the run, too, if it is the last one."""
        run: Run = handle._task
        if run.carrier is not None and run.carrier.done():
            return False  # about to end as that has
        if len(run.followers) > 1 or run.carrier is None:
            self._leave(run, handle, reason)
            return True
        self._stop_sharing(run)
        return self._cancel(run.carrier, reason)

    def _leave(self, run: Run, follower: Threadlet[Any], reason: object) -> None:
        """Cancel one that shares a run with others."""
        del run.followers[follower]
        before = self._home.expiries.get(follower)
        self._home.settle(follower, CANCELLED, reason)
        self._reorder(run, before, ENDLESS)

    def _limit_time(self, handle: Threadlet[Any], deadline: int | None) -> None:
        """Give a threadlet another deadline, in ns; None: take it away."""
        before = self._home.expiries.get(handle)
        super()._limit_time(handle, deadline)
        if handle._marks & FOLLOWS:
            self._reorder(handle._task, before, ENDLESS if deadline is None else deadline)

    def _reorder(self, run: Run, before: float, after: float) -> None:
        """Move a run to where its deadline wants it, when one of its followers' has changed. O(followers), if so."""
        if before == after or min(before, after) > run.deadline or not self._root._by_deadline:
            return
        run.deadline = min(map(self._home.expiries.get, run.followers), default=ENDLESS)
        if run.carrier is not None and run.carrier.is_queued_in_pool():
            self._rekey(run.carrier)

    def _urgency(self, handle: Threadlet[Any]) -> Any:
        """Return what the queue is in the order of."""
        urgency = super()._urgency(handle)
        if handle._marks & CARRIES and self._root._by_deadline:
            return (self._runs[handle].deadline, *urgency[1:])
        return urgency

    def _move(self, handle: Threadlet[Any], target: Admission) -> bool:
        """Move a threadlet that waits for its start; to a host, and back, one that shares a run, with all that do."""
        if not handle._marks & FOLLOWS or (target._host is None and self._host is None):
            return super()._move(handle, target)
        run: Run = handle._task
        carrier, followers, there = run.carrier, list(run.followers), cast(Sharing, target)
        if target is self or carrier is None or carrier._state is not QUEUED:
            return False
        if there._lacks_room(followers, self) or not self._withdraw(carrier):
            return False
        for follower in followers:
            self._strike(follower)
            follower.pool = there  # type: ignore[assignment]  # a Sharing is a Pool
            there._list(follower)
        carrier._marks &= ~AT_WORKER
        if carrier._marks & ADMITTED:
            self._give_back(carrier)
        if carrier._marks & TIED:
            self._home.waits.recalled(carrier)
        self._home.sites.pop(carrier, None)
        if self._runs is not there._runs:  # otherwise it is a part of the same pool, and equal calls go on to share it
            if self._sharable.get(run.key) is run:
                del self._sharable[run.key]
                there._sharable.setdefault(run.key, run)
            there._runs[carrier] = self._runs.pop(carrier)
        carrier.pool = there  # type: ignore[assignment]
        there._enqueue(carrier)
        return True

    def _lacks_room(self, handles: list[Threadlet[Any]], source: Sharing) -> bool:
        """Say whether some that come from another pool would be too many here."""
        tags = Counter(tag for handle in handles for tag in handle._tags)
        for pool in self._line:
            if pool in source._line:
                continue
            if pool._capacity is not None and len(pool._index) + len(handles) > pool._capacity:
                return True
            for prefix, capacity in pool._tag_capacity.items():
                for tag, count in tags.items():
                    if (
                        isinstance(tag, str)
                        and tag.startswith(prefix)
                        and len(pool._index.tagged(tag)) + count > capacity
                    ):
                        return True
        return False

    def _drop(self, handle: Threadlet[Any], tag: Hashable | None) -> None:
        """Shed a threadlet that has not started, with all that share its run."""
        if handle._marks & CARRIES:
            self._shed += len(cast(Sharing, handle.pool)._runs[handle].followers) - 1
        super()._drop(handle, tag)

    def _stop_sharing(self, run: Run) -> None:
        """Let nobody else join a run."""
        if self._sharable.get(run.key) is run:
            del self._sharable[run.key]

    def _share_out(self, handle: Threadlet[Any]) -> None:
        """Have the followers end as their run has."""
        run = self._runs.pop(handle)
        self._stop_sharing(run)
        if handle._state is FAILED:
            handle._value.retrieved = True  # its followers' failures are what is told of
        self._end_followers(run, handle)

    def _end_followers(self, run: Run, carrier: Threadlet[Any]) -> None:
        """Have all followers end, and only then tell of any: a scope that learns of a failure cancels what goes on."""
        followers, run.followers = run.followers, {}
        shed = carrier._state is FAILED and carrier._value.loop is None
        for follower in followers:
            follower._finish(*self._outcome(follower, carrier))
        for follower in followers:
            if shed:  # counted by _drop()
                self._forget(follower)
            else:
                self._ended(follower)

    def _outcome(self, follower: Threadlet[Any], carrier: Threadlet[Any]) -> tuple[State, Any]:
        """Return how a follower ends whose run has ended."""
        state, value, name = carrier._state, carrier._value, follower.entrypoint.name
        if state is DONE:
            follower._move(RUNNING)
        elif state is FAILED:
            failure = Failure(value.exception, name, value.loop)
            failure.retrieved = value.loop is None  # it was shed: there is nothing to tell of
            return FAILED, failure
        elif follower._marks & OVERDUE:
            error = DeadlineExceeded(f"{follower!r} was stopped: {value}")
            return FAILED, Failure(error, name, self._home.loop)
        return state, value

    def _queued(self) -> int:
        """Return how many threadlets wait in the pool's queue, not the runs, but those that share them.

        O(those that share runs), and what it takes without them.
        """
        runs = [follower._task for follower in self._followers.copy()]
        carriers = [run.carrier for run in runs if run]  # none: it ends just now
        waiting = [carrier for carrier in carriers if carrier is not None and carrier.is_queued_in_pool()]
        return super()._queued() + len(waiting) - len(set(waiting))

    def _check(self) -> None:
        """Assert every invariant. O(n log n)."""
        super()._check()
        for carrier, run in self._runs.items():
            if carrier.pool is not self:  # a part of it, at a host
                continue
            assert run.carrier is carrier and not carrier.done(), "a run is known as long as it goes on"
            for follower in run.followers:
                assert follower._task is run and follower in self._index, "who shares a run is on the books"
        assert all(run.carrier in self._runs for run in self._sharable.values() if run.carrier), (
            "by call and by carrier"
        )


def _key(definition: Definition[Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Hashable | None:
    """Return what equal calls have in common; None if it cannot be told."""
    named = tuple(sorted(kwargs.items())) if kwargs else ()
    key = (definition, args, named, tuple(map(type, args)), tuple(type(value) for _, value in named))
    try:
        hash(key)
    except TypeError:
        return None
    return key
