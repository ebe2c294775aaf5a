"""A live view of some threadlets: iterate, count, combine, cancel, reprioritize, move, wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

from .definitions import Definition, check_priority
from .errors import PoolClosed
from .groups import site_at
from .handles import Threadlet
from .lifecycles import CLEANING, FINAL, QUEUED, SUSPENDED, State
from .topology import Node

if TYPE_CHECKING:
    from .hosts import Host
    from .pools import Pool

__all__ = ["Criteria", "Selection"]


class Selection:
    """Threadlets, not final yet, that meet some criteria: made by ``Pool.select``, and combined by ``&``, ``|``, ``-``.

    It is a view: each use looks anew. It looks at the smallest part of the pool that is known to have all matches:
    those with the tag, those of the entrypoint, those that are queued; not at the whole pool. Bulk operations find all
    their threadlets first and act then, so a criterion that raises leaves everything as it was.

    Thread: loop.
    """

    __slots__ = ()

    def _size(self) -> int:
        """Return how many candidates there are, at most. O(1)."""
        raise NotImplementedError

    def _candidates(self) -> Iterable[Threadlet[Any]]:
        """Return threadlets that have every match among them; maybe some twice."""
        raise NotImplementedError

    def _matches(self, handle: Threadlet[Any]) -> bool:
        """Say whether one is in this selection."""
        raise NotImplementedError

    def _found(self) -> list[Threadlet[Any]]:
        return [handle for handle in dict.fromkeys(self._candidates()) if self._matches(handle)]

    def __and__(self, other: Selection) -> Selection:
        """Return those that are in both."""
        return _Both(self, other) if isinstance(other, Selection) else NotImplemented

    def __or__(self, other: Selection) -> Selection:
        """Return those that are in either; the pools may be different ones."""
        return _Either(self, other) if isinstance(other, Selection) else NotImplemented

    def __sub__(self, other: Selection) -> Selection:
        """Return those that are in this one and not in the other."""
        return _Without(self, other) if isinstance(other, Selection) else NotImplemented

    def __iter__(self) -> Iterator[Threadlet[Any]]:
        """Iterate over those that match now; what happens during the iteration does not disturb it."""
        return iter(self._found())

    def __contains__(self, handle: object) -> bool:
        return isinstance(handle, Threadlet) and self._matches(handle)

    def __len__(self) -> int:
        return len(self._found())

    def __bool__(self) -> bool:
        return any(self._matches(handle) for handle in list(self._candidates()))

    def __repr__(self) -> str:
        return f"<Selection of {len(self)} threadlets>"

    def cancel(self, reason: object = None) -> int:
        """Cancel every match; return how many could be cancelled.

        Not those that only clean up, nor what these have started: these end by themselves, in the time that they have.

        Args:
            reason: Becomes the argument of their ``CancelledError``.

        Raises:
            RecursionError: If a coroutine awaits a chain of plain tasks that is too long for asyncio to cancel at once;
                all others are cancelled then.
        """
        cancelled, failed = 0, None
        for handle in self._found():
            if handle.pool is not None and handle in handle.pool._home.sheltered:
                continue
            try:
                cancelled += handle.cancel(reason)
            except RecursionError as error:  # the others are to be cancelled
                failed = error
        if failed is not None:
            raise failed
        return cancelled

    def reprioritize(self, priority: float) -> int:
        """Give every match that is not final another priority; return how many. Lower numbers run first.

        Raises:
            TypeError: If ``priority`` is not a real number.
            ValueError: If it is NaN.
        """
        priority = check_priority(priority)
        found = self._found()
        for handle in found:
            handle.priority = priority
        return len(found)

    def move(self, target: Pool | Node | Host) -> int:
        """Move every match that has not started; return how many. Those that wait for a worker are called back.

        *To another pool* of the same loop. The throttles there decide when they start. If there is no room for more,
        the rest stays where it is.

        *To a node*: those that are in the pool's queue keep their places in it, and will run on the node's workers,
        also those that would have run in place; those that wait for a worker go over to these. Coroutines and
        functions with an ``affinity`` stay as they are. With one node to work on, nothing changes, and they count.

        *To a host*: plain functions with ``Contract(pure=True)`` alone. They stay in the pool that they are in, with
        all its throttles, and wait there for a slot of the host. One that shares its run with equal calls takes these
        along. Those in a pool that was made for another host stay there.

        Raises:
            TypeError: If it is none of these.
            PoolClosed: If that pool is closed.
            WrongLoop: If it belongs to another loop.
            Exception: What the host says to one that cannot be sent; nothing is moved then.
        """
        if isinstance(target, Node):
            site, moved = site_at(target), 0
            for handle in self._found():
                if handle.pool is not None:
                    moved += handle.pool._home.redirect(handle, site)
            return moved
        if hasattr(target, "_take_in") and not isinstance(target, type):
            return target._take_in(self._found())
        if not hasattr(target, "_move") or isinstance(target, type):
            raise TypeError(f"{target!r}: expected a threadlets.Pool, a Node or a Host to move to")
        target._bind()
        if target._closed:
            raise PoolClosed(f"{target!r} takes no more work: nothing was moved")
        found = [handle for handle in self._found() if handle.pool is not None and handle.pool is not target]
        if target._host is not None:
            return target._host._take_in(found, target)
        moved = 0
        for handle in found:  # one that shares its run may be there by now, with those that share it
            moved += handle.pool is target or handle.pool._move(handle, target)  # type: ignore[union-attr]
        return moved

    async def wait(self) -> None:
        """Wait until every threadlet that matches now is final; raises none of their exceptions. Cancel: point."""
        found = self._found()
        if found:
            left = len(found)
            finished = asyncio.get_running_loop().create_future()

            def count_down(handle: Threadlet[Any]) -> None:
                nonlocal left
                left -= 1
                if not left and not finished.done():
                    finished.set_result(None)

            for handle in found:
                handle.add_done_callback(count_down)
            try:
                await finished
            finally:
                for handle in found:
                    if handle.state not in FINAL:
                        handle.remove_done_callback(count_down)


class Criteria(Selection):
    """Those threadlets of one pool that meet every criterion given."""

    __slots__ = ("_definition", "_pool", "_state", "_tag", "_where")

    def __init__(
        self,
        pool: Pool,
        definition: Definition[Any] | None,
        tag: Hashable | None,
        state: State | None,
        where: Callable[[Threadlet[Any]], object] | None,
    ) -> None:
        self._pool = pool
        self._definition = definition
        self._tag = tag
        self._state = state
        self._where = where

    def __repr__(self) -> str:
        return f"<Selection of {len(self)} threadlets in {self._pool!r}>"

    def _parts(self) -> Iterator[tuple[int, Iterable[Threadlet[Any]]]]:
        """Iterate over parts of the pool that have all matches, each with its size."""
        pool = self._pool
        yield len(pool._index), pool._index
        if self._definition is not None:
            grouped = pool._index.grouped(self._definition)
            yield len(grouped), grouped
        if self._tag is not None:
            tagged = pool._index.tagged(self._tag)
            yield len(tagged), tagged
        if self._state is not None:
            places: list[Collection[Threadlet[Any]]] = [pool._followers]
            if self._state in (SUSPENDED, CLEANING):
                places.append(pool._tasks)
            if self._state is not SUSPENDED:
                places.append(pool._work)
            if self._state is QUEUED:
                places.append(cast("Collection[Threadlet[Any]]", pool._root._queue))
            yield sum(map(len, places)), chain.from_iterable(places)

    def _size(self) -> int:
        return min(size for size, _ in self._parts())

    def _candidates(self) -> Iterable[Threadlet[Any]]:
        return min(self._parts(), key=lambda part: part[0])[1]

    def _matches(self, handle: Threadlet[Any]) -> bool:
        return (
            handle in self._pool
            and (self._definition is None or handle.entrypoint is self._definition)
            and (self._tag is None or self._tag in handle.tags)
            and (self._state is None or handle.state is self._state)
            and (self._where is None or bool(self._where(handle)))
        )


class _Pair(Selection):
    """Two selections."""

    __slots__ = ("_one", "_other")

    def __init__(self, one: Selection, other: Selection) -> None:
        self._one = one
        self._other = other


class _Both(_Pair):
    __slots__ = ()

    def _size(self) -> int:
        return min(self._one._size(), self._other._size())

    def _candidates(self) -> Iterable[Threadlet[Any]]:
        return min(self._one, self._other, key=lambda each: each._size())._candidates()

    def _matches(self, handle: Threadlet[Any]) -> bool:
        return self._one._matches(handle) and self._other._matches(handle)


class _Either(_Pair):
    __slots__ = ()

    def _size(self) -> int:
        return self._one._size() + self._other._size()

    def _candidates(self) -> Iterable[Threadlet[Any]]:
        return chain(self._one._candidates(), self._other._candidates())

    def _matches(self, handle: Threadlet[Any]) -> bool:
        return self._one._matches(handle) or self._other._matches(handle)


class _Without(_Pair):
    __slots__ = ()

    def _size(self) -> int:
        return self._one._size()

    def _candidates(self) -> Iterable[Threadlet[Any]]:
        return self._one._candidates()

    def _matches(self, handle: Threadlet[Any]) -> bool:
        return self._one._matches(handle) and not self._other._matches(handle)
