"""What happens when a pool is full: a start is refused, or the least urgent one that waits is dropped."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

from . import events
from .errors import PoolFull, Shed
from .events import listeners
from .handles import Threadlet
from .ledgers import Ledger
from .lifecycles import AT_WORKER, FAILED, FOLLOWS, KEPT, QUEUED
from .outcomes import Failure
from .turns import Turns

__all__ = ["Overflow"]


class Overflow(Turns):
    """A pool that has a capacity. Thread: loop."""

    _sheds: bool

    def _make_room(self, priority: float, tags: frozenset[Hashable]) -> tuple[Ledger, Hashable] | None:
        """See that there is room for a newcomer; return which pool is full, and for which tag, if it is to be dropped.

        Raises:
            PoolFull: If there is none, in a pool that rejects.
        """
        while (full := self._full(tags)) is not None:
            pool, tag = cast("tuple[Overflow, Hashable]", full)
            if not pool._sheds:
                pool._rejected += 1
                raise PoolFull(
                    f"{pool!r} is full ({pool._bound(tag)}): wait with 'await pool.room()', or make the pool with "
                    f"overflow='shed'"
                )
            victim = pool._victim(tag)
            if victim is None or victim._priority <= priority or not victim.pool._withdraw(victim):  # type: ignore[union-attr]
                return full
            pool._drop(victim, tag)
        return None

    def _withdraw(self, handle: Threadlet[Any]) -> bool:
        """Take a threadlet back that waits for its start, wherever it does; False if it has started."""
        return self._home.workers_of(handle).remove(handle) if handle._marks & AT_WORKER else self._dequeue(handle)

    def _victim(self, tag: Hashable | None) -> Threadlet[Any] | None:
        """Return the least urgent one that waits for its start, of those with a tag if there is one.

        O(log n) for a pool as a whole that has a queue; O(the part that is full) otherwise.
        """
        if tag is None and self._root is self and self._queue.size:
            return self._queue.peek_least()
        part = self._index if tag is None else self._index.tagged(tag)
        waiting = [handle for handle in part if handle._state is QUEUED and handle._marks & KEPT and handle.ticket]
        return max(waiting, key=lambda handle: (handle._priority, handle._arrived), default=None)

    def _drop(self, handle: Threadlet[Any], tag: Hashable | None) -> None:
        """Shed a threadlet that has not started. It is no failure to be told of: whoever awaits it learns."""
        self._shed += 1
        error = Shed(f"{handle!r} was dropped by {self!r} before it ran: {self._bound(tag)} was reached")
        handle.pool._fail(handle, error, counts=False)  # type: ignore[union-attr]

    def _bound(self, tag: Hashable | None) -> str:
        """Return which capacity is meant, as the user has given it."""
        if tag is None:
            return f"capacity={self._capacity}"
        prefix = next(prefix for prefix in self._tag_capacity if str(tag).startswith(prefix))
        return f"tag_capacity[{prefix!r}]={self._tag_capacity[prefix]} for {tag!r}"

    def _fail(self, handle: Threadlet[Any], error: Exception, counts: bool = True) -> None:
        """Have a threadlet fail that has not started."""
        failure = Failure(error, handle.entrypoint.name, self._home.loop if counts else None)
        failure.retrieved = not counts
        dropped = handle._finish(FAILED, failure)
        if counts:
            self._ended(handle)
        else:
            self._forget(handle)
        del dropped
        if listeners and not handle._marks & FOLLOWS:
            events.tell_end(handle, FAILED, error)

    def _ended(self, handle: Threadlet[Any]) -> None:
        raise NotImplementedError

    def _forget(self, handle: Threadlet[Any]) -> None:
        raise NotImplementedError
