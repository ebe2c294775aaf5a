"""How a threadlet comes into a pool, is changed while it is there, and leaves it: what ``Pool`` is built on.

A threadlet is *queued* until every throttle agrees that it may start (``turns``); it is then *admitted*, and the loop's
``Home`` runs it. The pool is told when it has ended, and looks whether another may start.

Everything here happens on the loop's thread and takes no lock. What may run code of the user's - callbacks, throttles,
``__del__`` of an argument, a coroutine's first step - is called when the books are in order, since it may use the pool.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Hashable
from contextvars import Context, copy_context
from functools import partial
from operator import is_
from time import monotonic_ns
from typing import Any, TypeVar, cast

from . import events, trials
from .cancellation import defers, holds, tell
from .cleanups import deferred, is_cleaning
from .definitions import Definition
from .errors import DeadlineExceeded, NoRunningLoop, PoolClosed, WrongLoop
from .events import listeners
from .expiries import seconds_until
from .handles import Threadlet, make_threadlet
from .homes import DEPTH, home_of
from .ledgers import UNBOUND
from .lifecycles import (
    ABANDONED,
    ADMITTED,
    ASKED,
    AT_WORKER,
    CANCELLED,
    CARRIES,
    EXPIRES,
    FAILED,
    FOLLOWS,
    KEPT,
    LISTED,
    OVERDUE,
    QUEUED,
    RUNNING,
    SUSPENDED,
    TAGGED,
    TIED,
    TOLD,
)
from .overflows import Overflow
from .throttles import Throttle

__all__ = ["Admission"]

T = TypeVar("T")


class Admission(Overflow):
    """The coming and going of one pool's threadlets. Thread: loop."""

    _latest_context = Context()

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._make = self._make_admitted if self._clocked else make_threadlet

    # ------------------------------------------------------------------------------------------------- start

    def _begin(
        self,
        definition: Definition[T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        priority: float,
        tags: frozenset[Hashable],
    ) -> Threadlet[T]:
        """Start a threadlet now, if that is allowed; else queue it."""
        home = self._home
        marks = TAGGED if tags else 0
        if not self._direct or home.turn < 0 or home.depth >= DEPTH:
            if self._closed and not (self._ends and self._serves_another()):
                raise PoolClosed(f"{self!r} takes no more work: start it before the pool is closed, or in another pool")
            if self._keyed:
                self._keys(tags)  # a throttle that raises does so before anything has happened
            if self._bounded and (full := self._make_room(priority, tags)) is not None:
                handle = make_threadlet(definition, self, priority, tags, QUEUED, monotonic_ns(), marks)
                if listeners:
                    events.tell(events.QUEUED, handle, "pool")
                cast(Admission, full[0])._drop(handle, full[1])
                return handle
            if self._root._queue.size or home.must_wait():
                return self._wait(definition, args, kwargs, priority, tags, marks)
            if self._single is not None:
                if not self._single.ready(None, 0):
                    return self._wait(definition, args, kwargs, priority, tags, marks)
                self._single.take(None, 0)
            elif self._throttles:
                keys, now = self._keys(tags), self._now()
                if self._objector(keys, now) is not None:
                    return self._wait(definition, args, kwargs, priority, tags, marks)
                self._take(keys, now)
            marks |= ADMITTED
        if definition.at_home and home.is_elsewhere():
            handle = self._make(definition, self, priority, tags, QUEUED, monotonic_ns(), marks)
            handle._keep(args, kwargs, copy_context())
            self._list(handle)
            if listeners:
                events.tell(events.QUEUED, handle, "home")
            home.launch(handle)
            return handle
        if definition.is_coroutine:
            # No local variable for the handle: a failure's traceback leads to this frame, and would keep it.
            return home.start_coroutine(self._make(definition, self, priority, tags, RUNNING, 0, marks), args, kwargs)
        now = monotonic_ns()
        if definition.learner.in_place or home.in_place(definition):
            return home.run_in_place(
                self._make(definition, self, priority, tags, RUNNING, now, marks), args, kwargs, now
            )
        handle = self._make(definition, self, priority, tags, QUEUED, now, marks)
        handle._keep(args, kwargs, copy_context())
        if listeners:
            events.tell(events.QUEUED, handle, "worker")
        home.send_to_worker(handle)
        return handle

    def _begin_shared(
        self,
        definition: Definition[T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        priority: float,
        tags: frozenset[Hashable],
    ) -> Threadlet[T]:
        """Start a call that may share the run of an equal one: see ``sharings``."""
        raise NotImplementedError

    def _begin_by(
        self,
        deadline: int,
        definition: Definition[T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        priority: float,
        tags: frozenset[Hashable],
    ) -> Threadlet[T]:
        """Start a threadlet that has a deadline, in ns; one that is over by now does not start."""
        if deadline <= trials.now() and not self._closed:
            handle = make_threadlet(definition, self, priority, tags, QUEUED, monotonic_ns(), TAGGED if tags else 0)
            if listeners:
                events.tell(events.QUEUED, handle, "pool")
            self._fail(handle, DeadlineExceeded(f"{handle!r} did not start: its deadline had passed before"))
            return handle
        begin = self._begin_shared if definition.shares else self._begin
        handle = begin(definition, args, kwargs, priority, tags)
        if not handle.done():
            cast(Admission, handle.pool)._limit_time(handle, deadline)  # maybe a part of this one: see hosts
        return handle

    def _serves_another(self) -> bool:
        """Say whether a threadlet that has not ended starts something here: it may need that to clean up."""
        if self._parent is not None and self not in self._parent._children:
            return False  # it has left its figures to that one
        starter = self._home.awaiter()
        return starter is not None and not starter.done()

    def _make_admitted(self, *args: Any) -> Threadlet[Any]:
        """Make a handle, and note when: a throttle wants to know."""
        handle: Threadlet[Any] = make_threadlet(*args)
        self._began[handle] = trials.now()
        return handle

    def _wait(
        self,
        definition: Definition[T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        priority: float,
        tags: frozenset[Hashable],
        marks: int,
    ) -> Threadlet[T]:
        """Queue a threadlet until the throttles agree, or the loop has gone round."""
        handle = make_threadlet(definition, self, priority, tags, QUEUED, self._arrival(), marks)
        handle._keep(args, kwargs, self._context())
        self._enroll(handle)
        self._enqueue(handle)
        if listeners:
            events.tell(events.QUEUED, handle, "pool")
        return handle

    def _arrival(self) -> int:
        """Return the time in ns; for one queue it is never the same twice, so that the queue can go by it."""
        root = self._root
        root._latest = max(root._latest + 1, trials.now())
        return root._latest

    def _context(self) -> Context:
        """Return a copy of the current context for what has to wait: the same one again as long as nothing has changed.

        A million queued threadlets have one context together then, and not a million. It is copied once more to run in.
        """
        context, latest = copy_context(), self._latest_context
        if context or latest:
            same = all(map(is_, context, latest)) and all(map(is_, context.values(), latest.values()))
            if not same or len(context) != len(latest):  # in another order they are not found to be the same: so what
                self._latest_context = context
        return self._latest_context

    # --------------------------------------------------------------------------------------------- the loop

    def _bind(self) -> None:
        """Belong to the running loop."""
        try:
            loop = get_running_loop()
        except RuntimeError:
            raise NoRunningLoop(
                f"{self!r} is used on a thread where no event loop runs: use it from a coroutine; "
                f"from another thread, through loop.call_soon_threadsafe"
            ) from None
        if self._loop is loop:
            return
        if self._loop is not UNBOUND:
            closed = ", which is closed" if self._loop.is_closed() else ""
            raise WrongLoop(f"{self!r} belongs to another event loop{closed}: make one pool for each loop")
        if self._parent is not None:
            cast(Admission, self._parent)._bind()
        for throttle in self._own:
            self._claim(throttle, loop)
        self._loop = loop
        self._home = home_of(loop)
        if self._root is self:
            self._set_order()
        self._set_direct()

    def _claim(self, throttle: Throttle, loop: Any) -> None:
        """Make a throttle the loop's: its pools may share it; another loop takes it over once this is closed."""
        owner: Any = throttle.owner
        if owner is loop:
            return
        if owner is not None:
            if not owner.is_closed():
                raise WrongLoop(f"{throttle!r} of {self!r} belongs to another event loop: make one for each loop")
            throttle.renew()
        throttle.owner = loop

    def _set_direct(self) -> None:
        """See whether starts need not look at anything; what has waited may be forgotten, if nothing does now."""
        super()._set_direct()
        self._latest_context = Context()  # it may hold large values

    # ------------------------------------------------------------------------------------------------ change

    def _rekey(self, handle: Threadlet[Any]) -> None:
        """Move a queued threadlet to where its priority, or its deadline, wants it."""
        if handle._marks & AT_WORKER:
            self._home.workers_of(handle).rekey(handle, handle._priority)
        elif handle.is_queued_in_pool():
            self._root._queue.rekey(handle, self._lane(handle), self._urgency(handle))

    def _retag(self, handle: Threadlet[Any], tags: frozenset[Hashable]) -> None:
        """Change the tags of a threadlet that is not final; what it holds of throttles changes with them."""
        old, new = self._keys(handle._tags), self._keys(tags)
        change = partial(super()._retag, handle, tags)
        if handle.is_queued_in_pool() and old != new:
            self._relane(handle, change)
        elif handle._marks & ADMITTED and old != new:
            now = self._now()
            self._take(new, now)
            change()
            self._return(old, now, self._began.get(handle, now), False)
            if handle._marks & TIED:
                self._home.waits.reclaim(handle, lambda place: self._holds(handle, *place))
                self._home.lendings.ask(handle)
        else:
            change()
        handle._marks |= TAGGED

    def _move(self, handle: Threadlet[Any], target: Admission) -> bool:
        """Move a threadlet that waits for its start to another pool; False if it has started.

        It is as old as it was, and comes before the younger ones of its priority there.
        """
        marks = handle._marks
        if handle._state is not QUEUED or marks & (KEPT | FOLLOWS | CARRIES) != KEPT or target is self:
            return False
        if target._full(handle._tags, but=self._line) is not None or not self._withdraw(handle):
            return False
        self._strike(handle)
        handle._marks &= ~AT_WORKER
        if marks & ADMITTED:
            self._give_back(handle)
        if marks & TIED:
            self._home.waits.recalled(handle)
        handle.pool = target  # type: ignore[assignment]  # an Admission is a Pool
        self._home.sites.pop(handle, None)  # the target says where
        target._enroll(handle)
        target._enqueue(handle)
        if listeners:
            events.tell(events.MOVED, handle, repr(cast("Any", target).name))
        return True

    def _limit_time(self, handle: Threadlet[Any], deadline: int | None) -> None:
        """Give a threadlet another deadline, in ns; None: take it away."""
        handle._marks |= EXPIRES
        self._home.expiries.set(handle, deadline)
        if self._root._by_deadline and handle.is_queued_in_pool():
            self._rekey(handle)

    def _cancel(self, handle: Threadlet[Any], reason: object) -> bool:
        """Cancel a threadlet that is not final, in whatever state it is."""
        handle._marks |= TOLD
        if handle._marks & FOLLOWS:
            return self._cancel_follower(handle, reason)
        if deferred and is_cleaning(handle):
            return False
        if handle._state is SUSPENDED:
            if handle in holds and defers(handle, reason):
                return True
            return self._home.cancel_task(handle, reason)
        if handle._state is QUEUED and self._withdraw(handle):
            self._home.settle(handle, CANCELLED, reason)
            return True
        # A worker that has taken it reads its arguments, moves it to running, then looks whether it is ASKED to stop:
        #   still queued here, after ASKED was set: it will see that, and not run the function;
        #   running here: it has its arguments, so the threadlet may be abandoned.
        handle._value = reason
        handle._marks |= ASKED
        if handle.entrypoint.contract.cancel == "abandon":
            self._abandon(handle, reason)
        tell(handle)
        return True

    def _abandon(self, handle: Threadlet[Any], reason: object) -> None:
        """Have nobody wait for a function that runs on a worker, if it does."""
        if handle._marks & AT_WORKER and handle._state is RUNNING:
            handle._marks |= ABANDONED
            self._home.settle(handle, CANCELLED, reason)

    def _cancel_follower(self, handle: Threadlet[Any], reason: object) -> bool:
        """Cancel one that shares the run of another one: see ``sharings``."""
        raise NotImplementedError

    # --------------------------------------------------------------------------------------------------- end

    def _ended(self, handle: Threadlet[Any]) -> None:
        """Forget a threadlet that has become final."""
        marks, state = handle._marks, handle._state
        if not marks & CARRIES:
            self._tallies[handle.entrypoint].count(state)
            for tag in handle._tags:
                self._tally_of(tag).count(state)
            if state is FAILED:
                self._keep_failure(handle)
        if marks:
            self._forget(handle)

    def _forget(self, handle: Threadlet[Any]) -> None:
        if handle._marks & EXPIRES:
            self._home.expiries.set(handle, None)
        if handle._marks & ABANDONED:
            self._abandoned += 1
        elif handle._marks & ADMITTED:
            self._give_back(handle)
        if handle._marks & TIED:
            self._home.waits.gone(handle)
        if handle._marks & LISTED:
            self._strike(handle)
        if handle._marks & CARRIES:
            self._share_out(handle)
        if self._home.sites:
            self._home.sites.pop(handle, None)

    def _share_out(self, handle: Threadlet[Any]) -> None:
        """Have those end that have shared this run: see ``sharings``."""
        raise NotImplementedError

    def _freed(self, handle: Threadlet[Any]) -> None:
        """Take back the places of an abandoned threadlet whose function has ended at last."""
        self._abandoned -= 1
        if handle._marks & ADMITTED:
            self._give_back(handle)

    def _expire(self, handle: Threadlet[Any]) -> None:
        """Stop a threadlet whose deadline has passed: one that is queued at once, any other as ``cancel`` does."""
        if handle._state is QUEUED and self._withdraw(handle):
            age = -seconds_until(handle._arrived)
            self._fail(handle, DeadlineExceeded(f"{handle!r} waited for {age:.3g} s, and its deadline has passed"))
        elif not is_cleaning(handle):
            handle._marks |= OVERDUE
            self._cancel(handle, "its deadline has passed")

    def _check(self) -> None:
        """Assert every invariant. O(n log n)."""
        super()._check()
        if self._loop is not UNBOUND and self._root is self:
            self._home.waits._check()
            self._home.lendings._check()
            self._home.expiries._check()
            assert not any(handle.done() for handle in self._home.sites), "what is final is to run nowhere"
