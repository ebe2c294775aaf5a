"""The pool: a data structure that holds work which is not finished, and lets it start by rule."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Hashable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Literal, NoReturn, TypeVar, TypeVarTuple, overload

from .admissions import UNBOUND, Admission
from .definitions import Definition, Prepared, check_priority, check_tags, resolve
from .errors import PoolClosed
from .handles import LISTED, Threadlet
from .lifecycles import FINAL, State
from .maps import IN_FLIGHT, mapped
from .scopes import Scope
from .selections import Selection
from .snapshots import PoolStatistics
from .tasks import running_loop
from .throttles import Throttle

__all__ = ["Pool", "default_pool"]

T = TypeVar("T")
S = TypeVar("S")
_NO_TAGS: Iterable[Hashable] = ()
Ts = TypeVarTuple("Ts")


class Pool(Admission):
    """Work that is not finished, under throttles.

    Use it as a scope, ``async with Pool(...) as pool:``, which waits for everything at its end; or make it outside of
    one, at import time if you like: it then lives until ``aclose()``, or until its loop shuts down.

    Args:
        throttles: Rules that must all agree before a threadlet may start.
        name: Shown in messages.
        capacity: The most threadlets that it holds unfinished; None: no bound. A plain function that ends in place is
            never held.
        overflow: What ``start`` does beyond that: ``"reject"`` raises ``PoolFull``; ``"shed"`` drops the least urgent
            queued threadlet, which may be the new one. (Without throttles the queue is that of the workers, where
            finding the least urgent one takes a look at all of them.)
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
            if isinstance(throttle, type) or not all(
                hasattr(throttle, word) for word in ("ready", "take", "give_back", "wait", "renew", "owner")
            ):
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
        super().__init__(throttles, capacity, overflow == "shed")
        self.name = name
        self._cancels_on_failure = on_failure == "cancel"

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        closed = ", closed" if self._closed else ""
        return f"<Pool{name}: {len(self._queue)} queued, {len(self) - len(self._queue)} admitted{closed}>"

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
        function: Callable[[*Ts], Threadlet[T]],
        *args: *Ts,
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
    ) -> Threadlet[T]: ...

    @overload
    def start(
        self,
        function: Callable[[*Ts], Coroutine[Any, Any, T]],
        *args: *Ts,
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
    ) -> Threadlet[T]: ...

    @overload
    def start(
        self,
        function: Callable[[*Ts], T],
        *args: *Ts,
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
    ) -> Threadlet[T]: ...

    def start(  # type: ignore[misc]  # mypy cannot tell that *args: Any takes every *Ts
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
        if running_loop() is not self._loop:
            self._bind()
        return self._begin(
            definition,
            args,
            kwargs,
            own.priority if priority is None else check_priority(priority),
            own.tags if tags is _NO_TAGS else own.tags | check_tags(tags) if own.tags else check_tags(tags),
        )

    @overload
    def map(
        self,
        function: Callable[[S], Threadlet[T]],
        items: Iterable[S] | AsyncIterable[S],
        *,
        limit: int = IN_FLIGHT,
        ordered: bool = True,
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
    ) -> AsyncGenerator[T, None]: ...

    @overload
    def map(
        self,
        function: Callable[[S], Coroutine[Any, Any, T]],
        items: Iterable[S] | AsyncIterable[S],
        *,
        limit: int = IN_FLIGHT,
        ordered: bool = True,
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
    ) -> AsyncGenerator[T, None]: ...

    @overload
    def map(
        self,
        function: Callable[[S], T],
        items: Iterable[S] | AsyncIterable[S],
        *,
        limit: int = IN_FLIGHT,
        ordered: bool = True,
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
    ) -> AsyncGenerator[T, None]: ...

    def map(
        self,
        function: Callable[..., Any],
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        limit: int = IN_FLIGHT,
        ordered: bool = True,
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
    ) -> AsyncGenerator[Any, None]:
        """Iterate over the results of ``function(item)``: ``async for data in pool.map(load, paths)``.

        Items are taken as there is room for them, so the source may be endless. A failure is raised where its result
        would have come; that, or leaving the iteration, cancels what is left. An exception of the source is raised
        after the results of what it gave before.

        Args:
            function: An entrypoint, or any function, of one argument.
            items: An iterable, or an asynchronous one.
            limit: The most items that are started and not handed over.
            ordered: Whether results come in the order of the items, or as they are ready.
            priority: See ``start``.
            tags: See ``start``.

        Raises:
            TypeError: If ``items`` is not iterable, or an option is of a wrong type.
            ValueError: If ``limit`` is less than 1, or the priority is NaN.
        """
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"limit={limit!r}: expected a whole number")
        if limit < 1:
            raise ValueError(f"limit={limit}: at least 1 is needed, or nothing would ever start")
        if not isinstance(items, (Iterable, AsyncIterable)):
            raise TypeError(f"items={items!r}: expected an iterable, or an asynchronous one")
        begin = partial(
            self.start,
            function,
            priority=None if priority is None else check_priority(priority),
            tags=check_tags(tags),
        )
        return mapped(self, begin, items, limit, ordered)

    # ------------------------------------------------------------------------------------------ look and change

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be copied or pickled: it belongs to its event loop")

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
        unfinished = [str(word) for word in State if word not in FINAL]
        if state is not None and state not in unfinished:
            raise ValueError(f"state={state!r}: expected one of {', '.join(map(repr, unfinished))}")
        definition = None
        if entrypoint is not None:
            prepared = resolve(entrypoint, ())[0]
            definition = prepared.definition
            if prepared.args:
                raise TypeError(
                    f"entrypoint={entrypoint!r}: its arguments are no criterion; name {definition!r} itself"
                )
        if self._loop is not UNBOUND and running_loop() is not self._loop:
            self._bind()
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
        if self._loop is UNBOUND:
            self._bind()
        return self._home.loop

    # ------------------------------------------------------------------------------------------------- waiting

    async def room(self) -> None:
        """Wait until a start would not meet the capacity: backpressure. Returns at once if there is no capacity.

        Another task may take the place first; ``start`` tells. Cancel: point.
        """
        self._bind()
        while self.is_full():
            waiter = self._home.loop.create_future()
            self._room_waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                if waiter in self._room_waiters:
                    self._room_waiters.remove(waiter)
                else:
                    self._tell_room()  # woken, but not able to use it: the next one may
                raise
        if self._room_waiters:
            # What is started here may end at once, or nothing may be started: then there is room for the next one, too.
            self._home.loop.call_soon(self._tell_room)

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


def default_pool(loop: AbstractEventLoop) -> Pool:
    """Return the pool of calls that name none: one for each loop, kept with it as its home is. Thread: loop."""
    pool: Pool | None = getattr(loop, "_threadlets_pool", None)
    if pool is None:
        pool = Pool(name="default")
        pool._bind()
        loop._threadlets_pool = pool  # type: ignore[attr-defined]
    return pool
