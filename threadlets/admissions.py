"""Which threadlet of a pool may start, and the books of those that are not final: what ``Pool`` is built on.

A threadlet is *queued* until every throttle agrees that it may start; it is then *admitted*, and the loop's ``Home``
runs it. The pool is told when it has ended, and looks whether another may start. Everything here happens on the loop's
thread and takes no lock.

Invariants: see ``_check()``. What may run code of the user's - callbacks, ``__del__`` of an argument, a coroutine's
first step - is called when the pool's own books are in order, since that code may use the pool.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, Task, get_running_loop
from collections import deque
from collections.abc import Hashable
from contextvars import Context, copy_context
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .definitions import Definition
from .errors import NoRunningLoop, PoolClosed, PoolFull, Shed, WrongLoop
from .handles import ABANDONED, ADMITTED, ASKED, AT_WORKER, CANCELLED, DONE, FAILED, LISTED, Threadlet, make_threadlet
from .homes import DEPTH, Home, home_of
from .lifecycles import State
from .outcomes import Failure
from .placements import TURN
from .queues import Index, PriorityQueue
from .throttles import Throttle
from .workers import WorkerGroup

if TYPE_CHECKING:
    from .scopes import Scope

__all__ = ["UNBOUND", "Admission"]

T = TypeVar("T")

QUEUED, RUNNING, SUSPENDED = State.QUEUED, State.RUNNING, State.MISSED


UNBOUND: Any = object()  # the loop of a pool that was not used yet; not None, which is the loop where none runs


class Admission:
    """The queue, the throttles and the books of one pool. Thread: loop."""

    _home: Home  # set by _bind, before anything else, as _loop is

    def __init__(self, throttles: tuple[Throttle, ...], capacity: int | None, sheds: bool) -> None:
        self._loop: AbstractEventLoop = UNBOUND
        self._throttles = throttles
        self._capacity = capacity
        self._sheds = sheds
        self._queue: PriorityQueue[Threadlet[Any]] = PriorityQueue(both_ends=sheds)
        self._index: Index[Threadlet[Any]] = Index()
        self._failures: dict[Threadlet[Any], None] = {}  # in a scope: those that nobody has retrieved
        self._scope: Scope | None = None
        self._closed = False
        self._armed = False  # the pump is scheduled
        self._direct = False  # what is started may run without a look at queue, throttles and capacity
        self._latest_context = Context()
        self._latest = 0  # the latest time of arrival in the queue: they are unique
        self._room_waiters: deque[Future[None]] = deque()
        self._drain_waiters: list[Future[None]] = []
        self._done = self._failed = self._cancelled = self._shed = self._rejected = self._abandoned = 0

    def __len__(self) -> int:
        """Return how many threadlets are not finished."""
        return len(self._index)

    def is_full(self) -> bool:
        """Say whether the capacity is reached. Thread: any."""
        return self._capacity is not None and len(self._index) >= self._capacity

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
        marks = 0
        if not self._direct or home.turn < 0 or home.depth >= DEPTH:
            if self._closed:
                raise PoolClosed(f"{self!r} takes no more work: start it before the pool is closed, or in another pool")
            if self.is_full() and not self._make_room(priority):
                handle = make_threadlet(definition, self, priority, tags, QUEUED, monotonic_ns(), 0)
                self._drop(handle)
                return handle
            if self._queue or home.must_wait() or not self._ready():
                return self._wait(definition, args, kwargs, priority, tags)
            marks = self._take()
        if definition.at_home and home.is_elsewhere():
            handle = make_threadlet(definition, self, priority, tags, QUEUED, monotonic_ns(), marks)
            handle._keep(args, kwargs, copy_context())
            self._list(handle)
            home.launch(handle)
            return handle
        if definition.is_coroutine:
            return home.start_coroutine(
                make_threadlet(definition, self, priority, tags, RUNNING, 0, marks), args, kwargs
            )
        now = monotonic_ns()
        if definition.learner.in_place or home.in_place(definition):
            return home.run_in_place(
                make_threadlet(definition, self, priority, tags, RUNNING, now, marks), args, kwargs, now
            )
        handle = make_threadlet(definition, self, priority, tags, QUEUED, now, marks)
        handle._keep(args, kwargs, copy_context())
        home.send_to_worker(handle)
        return handle

    def _wait(
        self,
        definition: Definition[T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        priority: float,
        tags: frozenset[Hashable],
    ) -> Threadlet[T]:
        """Queue a threadlet until the throttles agree, or the loop has gone round."""
        now = self._latest = max(self._latest + 1, monotonic_ns())  # unique, so that the queue can go by it
        handle = make_threadlet(definition, self, priority, tags, QUEUED, now, 0)
        handle._keep(args, kwargs, self._context())
        self._list(handle)
        self._queue.push(handle, priority, now)
        self._direct = False
        if len(self._queue) == 1 and self._ready():
            self._arm()
        return handle

    def _context(self) -> Context:
        """Return a copy of the current context for what has to wait: the same one again as long as nothing has changed.

        A million queued threadlets have one context together then, and not a million. It is copied once more to run in.
        """
        context, latest = copy_context(), self._latest_context
        same = len(context) == len(latest) and all(latest.get(var, latest) is value for var, value in context.items())
        if not same:
            self._latest_context = context
        return self._latest_context

    def _bind(self) -> None:
        """Belong to the running loop."""
        try:
            loop = get_running_loop()
        except RuntimeError:
            raise NoRunningLoop(
                f"{self!r} is used on a thread where no event loop runs: use it from a coroutine; "
                f"from another thread, through loop.call_soon_threadsafe"
            ) from None
        if self._loop is UNBOUND:
            for throttle in self._throttles:
                self._claim(throttle, loop)
            self._loop = loop
            self._home = home_of(loop)
            self._set_direct()
        elif self._loop is not loop:
            closed = ", which is closed" if self._loop.is_closed() else ""
            raise WrongLoop(f"{self!r} belongs to another event loop{closed}: make one pool for each loop")

    def _claim(self, throttle: Throttle, loop: AbstractEventLoop) -> None:
        """Make a throttle the loop's: its pools may share it; another loop takes it over once this is closed."""
        owner = cast("AbstractEventLoop | None", throttle.owner)
        if owner is loop:
            return
        if owner is not None:
            if not owner.is_closed():
                raise WrongLoop(f"{throttle!r} of {self!r} belongs to another event loop: make one for each loop")
            throttle.renew()
        throttle.owner = loop

    def _set_direct(self) -> None:
        self._direct = not (self._throttles or self._capacity is not None or self._closed or self._queue)

    def _list(self, handle: Threadlet[Any]) -> None:
        """Put a threadlet on the books: it will not end within the call that starts it."""
        if not handle._marks & LISTED:
            handle._marks |= LISTED
            self._index.add(handle, handle.entrypoint, handle._tags)
            if self._index.size == 1:
                self._home.busy.add(self)  # type: ignore[arg-type]  # an Admission is a Pool

    def _ready(self) -> bool:
        """Say whether one more may start; if not, have the pump woken when that changes."""
        for throttle in self._throttles:
            if not throttle.ready():
                throttle.wait(self._arm)
                return False
        return True

    def _take(self) -> int:
        """Take a place of each throttle; return the mark that says so."""
        for throttle in self._throttles:
            throttle.take()
        return ADMITTED

    def _arm(self) -> None:
        """Have the pump run in the next round of the loop."""
        if not self._armed and not self._home.loop.is_closed():  # another pool may share a throttle, and live on
            self._armed = True
            self._home.loop.call_soon(self._pump)

    def _rearm(self) -> None:
        """Have another pump run, since this one has called something that blocks."""
        self._armed = False
        if self._queue and self._ready():
            self._arm()

    def _pump(self) -> None:
        """Start what may start: the most urgent first, for as long as one turn allows."""
        home = self._home
        home.turn = TURN
        home.pumping = self
        try:
            while self._queue and not home.must_wait() and self._ready():
                handle = self._queue.pop()
                handle._marks |= self._take()
                home.launch(handle)
        finally:
            home.pumping = None
            self._armed = False
            if not self._queue:
                self._latest_context = Context()  # it may hold large values
                self._set_direct()
            elif self._ready():
                self._arm()

    def _rekey(self, handle: Threadlet[Any], priority: float) -> None:
        """Change the place of a queued threadlet, wherever it waits."""
        if handle._marks & AT_WORKER:
            handle.entrypoint.workers.rekey(handle, priority)
        else:
            self._queue.rekey(handle, priority)

    def _cancel(self, handle: Threadlet[Any], reason: object) -> bool:
        """Cancel a threadlet that is not final, in whatever state it is."""
        if handle._state is SUSPENDED:
            return cast("Task[Any]", handle._task).cancel(reason)
        if handle._state is QUEUED:
            queue = handle.entrypoint.workers if handle._marks & AT_WORKER else self._queue
            if queue.remove(handle):
                self._home.settle(handle, CANCELLED, reason)
                return True
        # A worker that has taken it reads its arguments, moves it to running, then looks whether it is ASKED to stop:
        #   still queued here, after ASKED was set: it will see that, and not run the function;
        #   running here: it has its arguments, so the threadlet may be abandoned.
        handle._value = reason
        handle._marks |= ASKED
        if handle._marks & AT_WORKER and handle._state is RUNNING and handle.entrypoint.contract.cancel == "abandon":
            handle._marks |= ABANDONED
            self._home.settle(handle, CANCELLED, reason)
        return True

    def _ended(self, handle: Threadlet[Any]) -> None:
        """Forget a threadlet that has become final."""
        state = handle._state
        if state is DONE:
            self._done += 1
        elif state is CANCELLED:
            self._cancelled += 1
        else:
            self._failed += 1
            if self._scope is not None:
                self._scope.failed(handle)
        if handle._marks:
            self._forget(handle)

    def _forget(self, handle: Threadlet[Any]) -> None:
        if handle._marks & ABANDONED:
            self._abandoned += 1
        elif handle._marks & ADMITTED:
            self._give_back(handle)
        if handle._marks & LISTED:
            handle._marks &= ~LISTED
            self._index.remove(handle, handle.entrypoint, handle._tags)
            if self._room_waiters:
                self._tell_room()
            if not self._index.size:
                self._home.busy.discard(self)
                for waiter in self._drain_waiters:
                    if not waiter.done():
                        waiter.set_result(None)

    def _freed(self, handle: Threadlet[Any]) -> None:
        """Take back the places of an abandoned threadlet whose function has ended at last."""
        self._abandoned -= 1
        self._give_back(handle)

    def _give_back(self, handle: Threadlet[Any]) -> None:
        if handle._marks & ADMITTED:
            handle._marks &= ~ADMITTED
            for throttle in self._throttles:
                throttle.give_back()

    def _tell_room(self) -> None:
        """Wake one who waits for room, if there is some."""
        while self._room_waiters and not self.is_full():
            waiter = self._room_waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _make_room(self, priority: float) -> bool:
        """Drop a threadlet that is less urgent than a newcomer; False if the newcomer is to be dropped.

        Raises:
            PoolFull: If this pool rejects.
        """
        if not self._sheds:
            self._rejected += 1
            raise PoolFull(
                f"{self!r} is full (capacity={self._capacity}): wait with 'await pool.room()', "
                f"or make the pool with overflow='shed'"
            )
        if self._queue:
            victim = self._queue.peek_least()
            queue: PriorityQueue[Any] | WorkerGroup = self._queue
        else:
            waiting = [handle for handle in self._index if handle._marks & AT_WORKER and handle.ticket is not None]
            if not waiting:
                return False
            victim = max(waiting, key=lambda handle: (handle._priority, handle._arrived))
            queue = victim.entrypoint.workers
        if victim._priority <= priority or not queue.remove(victim):
            return False
        self._drop(victim)
        return True

    def _drop(self, handle: Threadlet[Any]) -> None:
        """Shed a threadlet that has not started. It is no failure to be told of: whoever awaits it learns."""
        self._shed += 1
        error = Shed(f"{handle!r} was dropped by {self!r} before it ran: capacity={self._capacity} was reached")
        failure = Failure(error, handle.entrypoint.name, None)
        failure.retrieved = True
        dropped = handle._finish(FAILED, failure)
        self._forget(handle)
        del dropped

    def _check(self) -> None:
        """Assert every invariant. O(n log n)."""
        self._queue._check()
        self._index._check()
        for handle in self._index:
            assert handle.pool is self and handle._marks & LISTED, "the index has this pool's threadlets"
            assert not handle.done() or handle._marks & ABANDONED, "the pool holds nothing that is final"
        for handle in self._queue:
            assert handle._state is QUEUED and handle._marks & LISTED, "what is queued is listed"
            assert not handle._marks & ADMITTED, "what is queued has not been admitted"
        if self._queue:
            waits = any(not throttle.ready() for throttle in self._throttles)
            assert self._armed or waits, "what is queued waits for a throttle or for the pump"
            assert not self._direct, "nothing overtakes the queue"
