"""One function over many items: bounded in flight, as lazy as its source, and nothing left behind when it is left.

Why: an iteration that starts work has three parties - the source, the threadlets in flight, the consumer - and each of
them may stop, fail or be cancelled at any moment. The rules here are one for each:

- the source ends or fails, or the pool takes no more: what was started is handed over first, then that is told;
- an item fails, or is cancelled by somebody: told where its result would have come, as ``asyncio.gather`` tells it. The
  failures of items belong to this iteration and not to the pool's scope, or whether a scope raises would depend on what
  else had failed by then;
- the consumer leaves, or is cancelled: what is in flight is cancelled, and an async source is closed.

Rejected: a task that reads synchronous sources, too. It would be simpler by some lines, but the source and the
functions would see the context of that task and not the consumer's, and each item would cost a switch between tasks.

Invariants: ``held`` is the number of items started and not handed over, never above ``limit``; an item is handed over
after ``ended`` has seen it, so that no result comes before it is counted.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Event, Task
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Hashable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Required, TypeAlias, TypedDict, TypeVar

from .definitions import check_priority, check_tags, resolve
from .handles import Threadlet
from .progress import Progress, Reporter, check_progress

if TYPE_CHECKING:
    from .pools import Pool

__all__ = ["IN_FLIGHT", "Items", "Raising", "Returning", "mapped"]

S = TypeVar("S")
Items: TypeAlias = Iterable[S] | AsyncIterable[S]

IN_FLIGHT = 64  # arbitrary: as many as the shared worker group has threads
EXITS = (KeyboardInterrupt, SystemExit)
NOTHING: Any = object()


class Options(TypedDict, total=False):
    """The options of ``Pool.map``, for its overloads."""

    limit: int
    ordered: bool
    progress: bool | str | Progress
    priority: float | None
    tags: Iterable[Hashable]


class Raising(Options, total=False):
    """Those of an iteration that raises failures."""

    return_exceptions: Literal[False]


class Returning(Options):
    """Those of an iteration that may give failures as values."""

    return_exceptions: Required[bool]


def mapped(
    pool: Pool,
    function: Callable[..., Any],
    items: Items[Any],
    limit: int,
    ordered: bool,
    return_exceptions: bool,
    progress: bool | str | Progress,
    priority: float | None,
    tags: Iterable[Hashable],
) -> AsyncGenerator[Any, None]:
    """Check what ``Pool.map`` was given, and return its iterator; nothing starts before that is iterated over.

    Raises:
        TypeError: If ``items`` is not iterable, or something else is of a wrong type.
        ValueError: If ``limit`` is less than 1, or the priority is NaN.
    """
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit={limit!r}: expected a whole number")
    if limit < 1:
        raise ValueError(f"limit={limit}: at least 1 is needed, or nothing would ever start")
    if not isinstance(items, (Iterable, AsyncIterable)):
        raise TypeError(f"items={items!r}: expected an iterable, or an asynchronous one")
    check_progress(progress)
    own, added = resolve(function, ())[0].tags, check_tags(tags)
    priority = None if priority is None else check_priority(priority)
    begin = partial(pool.start, function, priority=priority, tags=added)
    return _results(_Flight(pool, begin, own | added, limit, ordered), items, return_exceptions, progress)


async def _results(
    flight: _Flight, items: Items[Any], return_exceptions: bool, progress: bool | str | Progress
) -> AsyncGenerator[Any, None]:
    """Yield the results of a flight over the items.

    Cancel: point, wherever it waits; see ``_Flight.leave`` for what then happens.
    """
    finished = False
    reporter = flight.reporter = None if progress is False else Reporter(progress, items)
    try:
        flight.open(items)
        while (handle := await flight.next_ended()) is not None:
            if not return_exceptions:
                yield handle.result()
            elif handle.cancelled():
                yield handle._make_cancelled_error()
            else:
                error = handle.exception()
                if isinstance(error, EXITS):
                    raise error
                yield handle.result() if error is None else error
        finished = True
    finally:
        if reporter is not None:
            reporter.close(finished)
        await flight.leave()


class _Flight:
    """What one ``map`` has started and not yet handed over. Thread: loop."""

    def __init__(
        self,
        pool: Pool,
        begin: Callable[[Any], Threadlet[Any]],
        tags: frozenset[Hashable],
        limit: int,
        ordered: bool,
    ) -> None:
        self.pool = pool
        self.begin = begin
        self.tags = tags  # all that the threadlets will have: there may be a capacity per tag
        self.limit = limit
        self.ordered = ordered
        self.source: Iterator[Any] = iter(())  # a synchronous one, read by whoever asks for a result
        self.feeder: Task[None] | None = None  # reads an async one
        self.item: Any = NOTHING  # taken from the source; the pool was full by then
        self.held = 0  # items started and not handed over
        self.pending: set[Threadlet[Any]] = set()  # those of them that are not known to be final
        self.line: deque[Threadlet[Any]] = deque()  # ordered: all that are held; else those that are final
        self.news = Event()  # something has ended, or there may be something to start
        self.space = Event()  # something was handed over
        self.exhausted = False
        self.left = False
        self.error: BaseException | None = None  # of the source or the pool; told when all that is held has been
        self.reporter: Reporter | None = None

    def open(self, items: Items[Any]) -> None:
        """Begin to read the source.

        An async source is read by a task of its own, so that waiting for its next item does not hold results back, and
        that all of it runs in one task, which cancel scopes and timeouts in a generator need.
        """
        self.pool._bind()
        if isinstance(items, AsyncIterable):
            self.feeder = asyncio.create_task(self.feed(items))
        else:
            self.source = iter(items)

    async def next_ended(self) -> Threadlet[Any] | None:
        """Wait for the next threadlet to hand over; None: there are no more.

        Raises:
            BaseException: What the source raised, or the pool when it took no more.
            WrongLoop: If this is another loop than before.
        """
        while True:
            if self.feeder is None:
                self.refill()
            if self.line and self.line[0] not in self.pending:
                self.held -= 1
                self.space.set()
                return self.line.popleft()
            if self.exhausted and not self.held:
                error, self.error = self.error, None
                if error is not None:
                    try:
                        raise error
                    finally:
                        del error  # or it would refer to itself, through this frame in its traceback
                return None
            self.pool._bind()
            if self.feeder is None and not self.held:  # who waits for nothing else has the room as soon as it is there
                await self.pool.room(tags=self.tags)
            else:
                await self.wait()

    async def wait(self) -> None:
        """Wait for news; if a full pool keeps us from starting more, room there is news, too."""
        self.news.clear()
        room = None
        if self.feeder is None and not self.exhausted and self.held < self.limit:
            room = asyncio.create_task(self.pool.room(tags=self.tags))
            room.add_done_callback(lambda _: self.news.set())
        try:
            await self.news.wait()
        finally:
            if room is not None:
                room.cancel()

    def refill(self) -> None:
        """Start as many items as there is room for."""
        while not self.exhausted and self.held < self.limit and not self.pool.is_full(self.tags):
            try:
                if self.item is NOTHING:
                    self.item = next(self.source)
                    if self.pool.is_full(self.tags):
                        break  # the source itself has started something there
                item, self.item = self.item, NOTHING
                self.start(item)
            except StopIteration:
                self.exhausted = True
            except Exception as error:
                self.exhausted, self.error = True, error

    async def feed(self, items: AsyncIterable[Any]) -> None:
        """Start items as an async source brings them, when there is room; close the source in any case."""
        try:
            source = aiter(items)
            try:
                while not self.left:
                    while self.held >= self.limit:
                        self.space.clear()
                        await self.space.wait()
                    await self.pool.room(tags=self.tags)
                    item = await anext(source)
                    if not self.left:  # a source may swallow our cancel, and go on
                        await self.pool.room(tags=self.tags)
                        self.start(item)
            except StopAsyncIteration:
                pass
            finally:
                if isinstance(source, AsyncGenerator):
                    await source.aclose()
        except (Exception, CancelledError) as error:
            if self.left:
                raise
            self.error = error
        finally:
            self.exhausted = True
            self.news.set()

    def start(self, item: Any) -> None:
        """Start one item's threadlet."""
        handle = self.begin(item)
        self.held += 1
        if self.ordered:
            self.line.append(handle)
        if handle.done():
            self.ended(handle)
        else:
            self.pending.add(handle)
            handle.add_done_callback(self.ended)
            if self.left:  # a feeder whose call blocked in place, on a loop that went on meanwhile
                handle.cancel(LEFT)

    def ended(self, handle: Threadlet[Any]) -> None:
        """Note that a threadlet is final."""
        self.pending.discard(handle)
        if not self.ordered:
            self.line.append(handle)
        failed = handle.cancelled() or handle.exception() is not None  # which takes the failure over from the scope
        if self.reporter is not None:
            self.reporter.ended(failed)
        self.news.set()

    async def leave(self) -> None:
        """Cancel what is in flight, and have the source closed. The pool waits for what was cancelled, not this.

        Cancel: the source is cancelled once more, and still waited for.

        Raises:
            Exception: What an async source raises while it is closed.
        """
        self.left = True
        for handle in list(self.pending):
            handle.cancel(LEFT)
        feeder, self.feeder = self.feeder, None
        if feeder is None:
            return
        cancelled = None
        feeder.cancel()
        while not feeder.done():
            try:
                await asyncio.wait([feeder])
            except CancelledError as again:
                cancelled = again
                feeder.cancel()
        if cancelled is not None:
            raise cancelled
        if not feeder.cancelled():
            try:
                feeder.result()
            finally:
                del feeder  # see next_ended


LEFT = "the iteration that started it was left"
