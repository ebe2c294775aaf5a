"""The two ways to give a pool work: one call, and one function over many items."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable, Iterable
from datetime import datetime
from typing import Any, TypeVar, TypeVarTuple, Unpack, cast, overload

from .definitions import Definition, Prepared, check_priority, check_tags, resolve
from .expiries import deadline_of
from .handles import Threadlet
from .maps import IN_FLIGHT, Items, Raising, Returning, mapped
from .progress import Progress
from .sharings import Sharing
from .tasks import running_loop

__all__ = ["Starts"]

T = TypeVar("T")
S = TypeVar("S")
Ts = TypeVarTuple("Ts")
_NO_TAGS: Iterable[Hashable] = ()


class Starts(Sharing):
    """What a pool is given work by. Thread: loop."""

    @overload
    def start(
        self,
        function: Callable[[*Ts], Threadlet[T]],
        *args: *Ts,
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
        deadline: float | datetime | None = None,
    ) -> Threadlet[T]: ...

    @overload
    def start(
        self,
        function: Callable[[*Ts], Coroutine[Any, Any, T]],
        *args: *Ts,
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
        deadline: float | datetime | None = None,
    ) -> Threadlet[T]: ...

    @overload
    def start(
        self,
        function: Callable[[*Ts], T],
        *args: *Ts,
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
        deadline: float | datetime | None = None,
    ) -> Threadlet[T]: ...

    def start(  # type: ignore[misc]  # mypy cannot tell that *args: Any takes every *Ts
        self,
        function: Callable[..., Any],
        *args: Any,
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
        deadline: float | datetime | None = None,
    ) -> Threadlet[Any]:
        """Start a threadlet as soon as the throttles allow: at once, in place, if they do so now. Never waits.

        Args:
            function: An entrypoint, or any function; use ``functools.partial`` for keyword arguments.
            args: Its positional arguments.
            priority: Lower numbers start first; None: the entrypoint's own.
            tags: Added to the entrypoint's own.
            deadline: Seconds from now, or a datetime with a time zone, until which it has to end. If it has not
                started by then, it never does; a coroutine is cancelled; a plain function that already runs on a worker
                runs on, and what it returns is dropped. Awaiting it raises ``DeadlineExceeded``.

        Raises:
            PoolFull: If the capacity is reached and ``overflow="reject"``.
            PoolClosed: If the pool is closed.
            NoRunningLoop: If no event loop runs on this thread.
            WrongLoop: If another loop runs than the one that the pool belongs to.
            TypeError: If it is no function, or an option is of a wrong type.
            ValueError: If the priority is NaN, or the deadline NaN, infinite or without a time zone.
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
        priority = own.priority if priority is None else check_priority(priority)
        tags = own.tags if tags is _NO_TAGS else own.tags | check_tags(tags) if own.tags else check_tags(tags)
        if deadline is None:
            begin = self._begin_shared if definition.shares else self._begin
            return begin(definition, args, kwargs, priority, tags)
        return self._begin_by(deadline_of(deadline), definition, args, kwargs, priority, tags)

    @overload
    def map(
        self, function: Callable[[S], Threadlet[T]], items: Items[S], **options: Unpack[Raising]
    ) -> AsyncGenerator[T, None]: ...

    @overload
    def map(
        self, function: Callable[[S], Threadlet[T]], items: Items[S], **options: Unpack[Returning]
    ) -> AsyncGenerator[T | BaseException, None]: ...

    @overload
    def map(
        self, function: Callable[[S], Coroutine[Any, Any, T]], items: Items[S], **options: Unpack[Raising]
    ) -> AsyncGenerator[T, None]: ...

    @overload
    def map(
        self, function: Callable[[S], Coroutine[Any, Any, T]], items: Items[S], **options: Unpack[Returning]
    ) -> AsyncGenerator[T | BaseException, None]: ...

    @overload
    def map(
        self, function: Callable[[S], T], items: Items[S], **options: Unpack[Raising]
    ) -> AsyncGenerator[T, None]: ...

    @overload
    def map(
        self, function: Callable[[S], T], items: Items[S], **options: Unpack[Returning]
    ) -> AsyncGenerator[T | BaseException, None]: ...

    def map(
        self,
        function: Callable[..., Any],
        items: Items[Any],
        *,
        limit: int = IN_FLIGHT,
        ordered: bool = True,
        return_exceptions: bool = False,
        progress: bool | str | Progress = False,
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
    ) -> AsyncGenerator[Any, None]:
        """Iterate over the results of ``function(item)``: ``async for data in pool.map(load, paths)``.

        Items are taken as there is room for them, so the source may be endless. A failure is raised where its result
        would have come, and the ``CancelledError`` of an item that somebody has cancelled as well. That, or leaving the
        iteration, cancels what is left, drops what else has failed, and closes an asynchronous generator that was the
        source. An exception of the source, or ``PoolClosed``, is raised after the results of what was started before.

        Args:
            function: An entrypoint, or any function, of one argument.
            items: An iterable, or an asynchronous one. If a synchronous one may block, let it say ``with blocking():``.
            limit: The most items that are started and not handed over.
            ordered: Whether results come in the order of the items, or as they are ready.
            return_exceptions: Whether failures, and cancelled items, are handed over as values, as
                ``asyncio.gather`` does; KeyboardInterrupt and SystemExit are raised.
            progress: True, or a label, shows a bar on stderr, with rich or tqdm if installed; or an object to be told.
            priority: See ``start``.
            tags: See ``start``.

        Raises:
            TypeError: If ``items`` is not iterable, or something else is of a wrong type.
            ValueError: If ``limit`` is less than 1, or the priority is NaN.
        """
        return mapped(cast(Any, self), function, items, limit, ordered, return_exceptions, progress, priority, tags)
