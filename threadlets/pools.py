"""The pool: a data structure that holds work which is not finished, and lets it start by rule.

A threadlet is *queued* until every throttle agrees that it may start; it is then *admitted*, and the loop's ``Home`` runs
it. The pool is told when it has ended, and then looks whether another may start. Everything here happens on the loop's
thread and takes no lock.

What may run code of the user's - callbacks, ``__del__`` of an argument, a coroutine's first step - is called when the
pool's own books are in order, since that code may use the pool.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, Task, get_running_loop
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from time import monotonic_ns
from types import TracebackType
from typing import Any, Literal, TypeVar, TypeVarTuple, Unpack, cast, overload

from .definitions import Definition, Prepared, check_priority, check_tags, resolve
from .errors import NoRunningLoop, PoolClosed, PoolFull, Shed, WrongLoop
from .handles import ABANDONED, ADMITTED, ASKED, AT_WORKER, CANCELLED, DONE, FAILED, LISTED, Threadlet, make_threadlet
from .homes import DEPTH, Home, home_of
from .lifecycles import STEPS, State
from .outcomes import Failure
from .placements import TURN
from .queues import Index, PriorityQueue
from .scopes import Scope
from .selections import Selection
from .tasks import running_loop
from .throttles import Throttle
from .workers import WorkerGroup

__all__ = ["Pool", "PoolStatistics", "default_pool"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

QUEUED, RUNNING, MISSED = State.QUEUED, State.RUNNING, State.MISSED


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """What a pool holds, and what has become of the rest.

    Attributes:
        queued: Threadlets that wait for the pool's throttles, or for their turn.
        admitted: Threadlets that wait for a worker, run, or are suspended.
        done: How many have returned.
        failed: How many have raised, not counting those that were shed.
        cancelled: How many were cancelled.
        shed: How many were dropped because the pool was full.
        rejected: How many starts were refused because the pool was full.
        abandoned: Functions of cancelled threadlets that still run, with ``Contract(cancel="abandon")``.
        unretrieved: Failures that nobody has looked at, in a scope.
    """

    queued: int
    admitted: int
    done: int
    failed: int
    cancelled: int
    shed: int
    rejected: int
    abandoned: int
    unretrieved: int


class Pool:
    """Work that is not finished, under throttles.

    Use it as a scope, ``async with Pool(...) as pool:``, which waits for everything at its end; or make it outside of one,
    at import time if you like: it then lives until ``aclose()``, or until its loop shuts down.

    Args:
        throttles: Rules that must all agree before a threadlet may start.
        name: Shown in messages.
        capacity: The most threadlets that it holds unfinished; None: no bound. A plain function that ends in place is
            never held.
        overflow: What ``start`` does beyond that: ``"reject"`` raises ``PoolFull``; ``"shed"`` drops the least urgent
            queued threadlet, which may be the new one. (Without throttles the queue is that of the workers, where finding
            the least urgent one takes a look at all of them.)
        on_failure: In a scope: ``"collect"`` lets the others go on; ``"cancel"`` cancels them and the body at the first
            failure, as ``asyncio.TaskGroup`` does.

    Raises:
        TypeError: For something that is no throttle, or a capacity that is no whole number.
        ValueError: For a capacity below 1, or an unknown word.

    Thread: loop, for every method. A pool belongs to the loop on which it is first used.
    """

    def __init__(
        self,
        *throttles: Throttle,
        name: str | None = None,
        capacity: int | None = None,
        overflow: Literal["reject", "shed"] = "reject",
        on_failure: Literal["collect", "cancel"] = "collect",
    ) -> None:
        for throttle in throttles:
            if isinstance(throttle, type) or not all(hasattr(throttle, word) for word in _THROTTLE):
                raise TypeError(f"{throttle!r} is no throttle: expected an object like Concurrency(8)")
        if capacity is not None:
            if isinstance(capacity, bool) or not isinstance(capacity, int):
                raise TypeError(f"capacity={capacity!r}: expected a whole number, or None for no bound")
            if capacity < 1:
                raise ValueError(f"capacity={capacity}: at least 1 is needed, or nothing would ever start")
        if overflow not in ("reject", "shed"):
            raise ValueError(f"overflow={overflow!r}: expected 'reject' or 'shed'")
        if on_failure not in ("collect", "cancel"):
            raise ValueError(f"on_failure={on_failure!r}: expected 'collect' or 'cancel'")
        self.name = name
        self._throttles = throttles
        self._capacity = capacity
        self._sheds = overflow == "shed"
        self._cancels_on_failure = on_failure == "cancel"
        self._home: Home = None  # type: ignore[assignment]  # set by _bind, before anything else
        self._queue: PriorityQueue[Threadlet[Any]] = PriorityQueue(both_ends=self._sheds)
        self._index: Index[Threadlet[Any]] = Index()
        self._failures: dict[Threadlet[Any], None] = {}
        self._closed = False
        self._armed = False  # the pump is scheduled
        self._direct = False  # what is started may run without a look at queue, throttles and capacity
        self._latest = 0  # the latest time of arrival: they are unique
        self._scope: Scope | None = None
        self._room_waiters: deque[Future[None]] = deque()
        self._drain_waiters: list[Future[None]] = []
        self._done = self._failed = self._cancelled = self._shed = self._rejected = self._abandoned = 0

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        closed = ", closed" if self._closed else ""
        return f"<Pool{name}: {len(self._queue)} queued, {len(self) - len(self._queue)} admitted{closed}>"

    def __len__(self) -> int:
        """Return how many threadlets are not finished."""
        return len(self._index)

    def __bool__(self) -> bool:
        """Return True, so that an empty pool is not taken for none."""
        return True

    def __iter__(self) -> Iterator[Threadlet[Any]]:
        """Iterate over the threadlets that are not finished; what happens during the iteration does not disturb it."""
        return iter(list(self._index))

    def __contains__(self, handle: object) -> bool:
        return isinstance(handle, Threadlet) and handle.pool is self and bool(handle._marks & LISTED)

    # ------------------------------------------------------------------------------------------------- start

    @overload
    def start(
        self,
        function: Callable[[Unpack[Ts]], Threadlet[T]],
        *args: Unpack[Ts],
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
    ) -> Threadlet[T]: ...

    @overload
    def start(
        self,
        function: Callable[[Unpack[Ts]], Coroutine[Any, Any, T]],
        *args: Unpack[Ts],
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
    ) -> Threadlet[T]: ...

    @overload
    def start(
        self,
        function: Callable[[Unpack[Ts]], T],
        *args: Unpack[Ts],
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
    ) -> Threadlet[T]: ...

    def start(
        self, function: Callable[..., Any], *args: Any, priority: float | None = None, tags: Iterable[Hashable] = ()
    ) -> Threadlet[Any]:
        """Start a threadlet as soon as the throttles allow: at once, in place, if they do so now. Never waits.

        Args:
            function: An entrypoint, or any function; use ``functools.partial`` for keyword arguments.
            args: Its positional arguments.
            priority: Lower numbers start first; None: the entrypoint's own.
            tags: Added to the entrypoint's own.

        Raises:
            PoolFull: If the capacity is reached and ``overflow="reject"``.
            PoolClosed: If the pool is closed.
            NoRunningLoop: If no event loop runs on this thread.
            WrongLoop: If another loop runs than the one that the pool belongs to.
            TypeError: If it is no function, or priority or tags are of a wrong type.
            ValueError: If the priority is NaN.
        """
        kwargs = None
        own: Definition[Any] | Prepared[Any]
        if isinstance(function, Definition):
            own = definition = function
        else:
            own, kwargs = resolve(function, args)
            definition, args = own.definition, own.args
        if self._home is None or self._home.loop is not running_loop():
            self._bind()
        return self._begin(
            definition,
            args,
            kwargs,
            own.priority if priority is None else check_priority(priority),
            own.tags | check_tags(tags) if tags else own.tags,
        )

    def _begin(
        self,
        definition: Definition[T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        priority: float,
        tags: frozenset[Hashable],
    ) -> Threadlet[T]:
        home = self._home
        if self._direct and home.turn >= 0 and home.depth < DEPTH:
            if definition.is_coroutine:
                handle = make_threadlet(definition, self, priority, tags, RUNNING, 0)
                home.start_coroutine(handle, args, kwargs)
                return handle
            now = monotonic_ns()
            if definition.learner.in_place:
                handle = make_threadlet(definition, self, priority, tags, RUNNING, now)
                home.run_in_place(handle, args, kwargs, now)
            else:
                handle = make_threadlet(definition, self, priority, tags, QUEUED, now)
                handle._keep(args, kwargs, copy_context())
                home.send_to_worker(handle)
            return handle
        if self._closed:
            raise PoolClosed(f"{self!r} takes no more work: start it before the pool is closed, or in another pool")
        now = self._latest = max(self._latest + 1, monotonic_ns())  # unique, so that the queue can go by it
        handle = make_threadlet(definition, self, priority, tags, QUEUED, now)
        handle._keep(args, kwargs, copy_context())
        if self._capacity is not None and len(self._index) >= self._capacity and not self._make_room(priority):
            self._drop(handle)
        elif not self._queue and not home.must_wait() and self._ready():
            self._admit(handle)
        else:
            self._list(handle)
            self._queue.push(handle, priority, now)
            self._direct = False
            if len(self._queue) == 1 and self._ready():
                self._arm()
        return handle

    # ------------------------------------------------------------------------------------------ look and change

    def select(
        self,
        *,
        entrypoint: Callable[..., Any] | None = None,
        tag: Hashable | None = None,
        state: str | None = None,
        where: Callable[[Threadlet[Any]], object] | None = None,
    ) -> Selection:
        """Return a live view of the unfinished threadlets that meet all criteria given; of all, if none is.

        Args:
            entrypoint: What they are calls of.
            tag: A tag that they carry.
            state: "queued", "running" or "missed".
            where: A predicate that is true of them.

        Raises:
            TypeError: If ``entrypoint`` is no function, ``tag`` not hashable, or ``where`` not callable.
            ValueError: If there is no such state.
        """
        hash(tag)
        if where is not None and not callable(where):
            raise TypeError(f"where={where!r}: expected a function of one threadlet")
        if state is not None and state not in STEPS:
            raise ValueError(f"state={state!r}: expected one of {', '.join(repr(str(word)) for word in STEPS)}")
        definition = None if entrypoint is None else resolve(entrypoint, ())[0].definition
        return Selection(self, definition, tag, None if state is None else State(state), where)

    def cancel(self, reason: object = None) -> int:
        """Cancel everything in the pool; return how many threadlets could be cancelled. New ones may be started."""
        return self.select().cancel(reason)

    def statistics(self) -> PoolStatistics:
        """Return a frozen snapshot. Thread: any."""
        return PoolStatistics(
            queued=len(self._queue),
            admitted=len(self._index) - len(self._queue),
            done=self._done,
            failed=self._failed,
            cancelled=self._cancelled,
            shed=self._shed,
            rejected=self._rejected,
            abandoned=self._abandoned,
            unretrieved=len(self._failures),
        )

    def get_loop(self) -> AbstractEventLoop:
        """Return the event loop that the pool belongs to.

        Raises:
            NoRunningLoop: If it was not used yet, and none runs here.
        """
        if self._home is None:
            self._bind()
        return self._home.loop

    # ------------------------------------------------------------------------------------------------- waiting

    async def room(self) -> None:
        """Wait until a start would not meet the capacity: backpressure. Returns at once if there is no capacity.

        Another task may take the place first; ``start`` tells. Cancel: point.
        """
        self._bind()
        while self._capacity is not None and len(self._index) >= self._capacity:
            waiter = self._home.loop.create_future()
            self._room_waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                if waiter.done() and not waiter.cancelled():
                    self._tell_room()  # woken, but not able to use it: the next one may
                else:
                    self._room_waiters.remove(waiter)
                raise

    async def drain(self) -> None:
        """Wait until the pool is empty. It may be used meanwhile. Cancel: point."""
        self._bind()
        while self._index:
            waiter = self._home.loop.create_future()
            self._drain_waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._drain_waiters:
                    self._drain_waiters.remove(waiter)

    def close(self) -> None:
        """Take no more work; what is in the pool goes on. May be called again."""
        self._closed = True
        self._direct = False

    async def aclose(self) -> None:
        """Take no more work, cancel what is in the pool, and wait until it has stopped. Cancel: point."""
        self.close()
        if self._index:
            self.cancel(f"{self!r} was closed")
            await self.drain()

    async def __aenter__(self) -> Pool:
        """Begin a scope.

        Raises:
            PoolClosed: If the pool is closed.
            RuntimeError: If the pool is in a scope already.
        """
        self._bind()
        if self._closed:
            raise PoolClosed(f"{self!r} is closed: make a new one for each scope")
        if self._scope is not None:
            raise RuntimeError(f"{self!r} is in a scope already")
        self._scope = Scope(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the scope: wait for everything, or cancel everything if the body failed. See ``scopes.py``."""
        assert self._scope is not None
        try:
            await self._scope.leave(error)
        finally:
            self.close()
            self._scope = None

    # ------------------------------------------------------------------------------------- for the other rooms

    def _bind(self) -> None:
        """Belong to the running loop."""
        try:
            loop = get_running_loop()
        except RuntimeError:
            raise NoRunningLoop(
                f"{self!r} is used on a thread where no event loop runs: use it from a coroutine; "
                f"from another thread, through loop.call_soon_threadsafe"
            ) from None
        if self._home is None:
            self._home = home_of(loop)
            self._set_direct()
        elif self._home.loop is not loop:
            closed = ", which is closed" if self._home.loop.is_closed() else ""
            raise WrongLoop(f"{self!r} belongs to another event loop{closed}: make one pool for each loop")

    def _set_direct(self) -> None:
        self._direct = not (self._throttles or self._capacity is not None or self._closed or self._queue)

    def _list(self, handle: Threadlet[Any]) -> None:
        """Put a threadlet on the books: it will not end within the call that starts it."""
        if not handle._marks & LISTED:
            handle._marks |= LISTED
            self._index.add(handle, handle.entrypoint, handle._tags)
            if len(self._index) == 1:
                self._home.busy.add(self)

    def _ready(self) -> bool:
        """Say whether one more may start; if not, have the pump woken when that changes."""
        for throttle in self._throttles:
            if not throttle.ready():
                throttle.wait(self._arm)
                return False
        return True

    def _admit(self, handle: Threadlet[Any]) -> None:
        """Start a threadlet that all throttles are ready for."""
        for throttle in self._throttles:
            throttle.take()
        handle._marks |= ADMITTED
        self._home.launch(handle)

    def _arm(self) -> None:
        """Have the pump run in the next round of the loop."""
        if not self._armed:
            self._armed = True
            self._home.loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Start what may start: the most urgent first, for as long as one turn allows."""
        home = self._home
        home.turn = TURN
        try:
            while self._queue and not home.must_wait() and self._ready():
                self._admit(self._queue.pop())
        finally:
            self._armed = False
            if not self._queue:
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
        if handle._state is MISSED:
            return cast("Task[Any]", handle._task).cancel(reason)
        if handle._state is QUEUED:
            queue = handle.entrypoint.workers if handle._marks & AT_WORKER else self._queue
            if queue.remove(handle):
                self._home.settle(handle, CANCELLED, reason)
                return True
        handle._marks |= ASKED
        handle._value = reason
        if handle._marks & AT_WORKER and handle.entrypoint.contract.cancel == "abandon":
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
            self._give_back()
        if handle._marks & LISTED:
            handle._marks &= ~LISTED
            self._index.remove(handle, handle.entrypoint, handle._tags)
            self._tell_room()
            if not self._index:
                self._home.busy.discard(self)
                for waiter in self._drain_waiters:
                    if not waiter.done():
                        waiter.set_result(None)

    def _freed(self, handle: Threadlet[Any]) -> None:
        """Take back the places of an abandoned threadlet whose function has ended at last."""
        self._abandoned -= 1
        if handle._marks & ADMITTED:
            self._give_back()

    def _give_back(self) -> None:
        for throttle in self._throttles:
            throttle.give_back()

    def _tell_room(self) -> None:
        """Wake one who waits for room, if there is some."""
        if self._capacity is not None and len(self._index) < self._capacity:
            while self._room_waiters:
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
        if victim._priority < priority or not queue.remove(victim):
            return False
        self._drop(victim)
        return True

    def _drop(self, handle: Threadlet[Any]) -> None:
        """Shed a threadlet that has not started. It is no failure to be told of: whoever awaits it learns."""
        self._shed += 1
        error = Shed(f"{handle!r} was dropped by {self!r} before it ran: capacity={self._capacity} was reached")
        failure = Failure(error, handle.entrypoint.name, None)
        failure.retrieved = True
        handle._finish(FAILED, failure)
        self._forget(handle)

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


_THROTTLE = ("ready", "take", "give_back", "wait")


def default_pool(loop: AbstractEventLoop) -> Pool:
    """Return the pool of calls that name none: one for each loop. Thread: loop."""
    home = home_of(loop)
    pool = home.default_pool
    if pool is None:
        pool = home.default_pool = Pool(name="default")
        pool._bind()
    return pool
