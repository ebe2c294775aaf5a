"""A live view of some of a pool's threadlets: iterate, count, cancel, reprioritize, wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .definitions import Definition, check_priority
from .handles import Threadlet
from .lifecycles import FINAL, State

if TYPE_CHECKING:
    from .pools import Pool

__all__ = ["Selection"]


class Selection:
    """The threadlets of a pool, not final yet, that meet every criterion given. Made by ``Pool.select``.

    It is a view: each use looks anew. By tag or entrypoint it looks at these threadlets alone, not at the whole pool.
    Bulk operations find all their threadlets first and act then, so a criterion that raises leaves everything as it
    was.

    Thread: loop.
    """

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

    def _candidates(self) -> Iterable[Threadlet[Any]]:
        """Return the smallest part of the pool that is known to hold every match."""
        index = self._pool._index
        if self._definition is None:
            return index if self._tag is None else index.tagged(self._tag)
        grouped = index.grouped(self._definition)
        if self._tag is None:
            return grouped
        return min(grouped, index.tagged(self._tag), key=len)

    def _matches(self, handle: Threadlet[Any]) -> bool:
        return (
            (self._definition is None or handle.entrypoint is self._definition)
            and (self._tag is None or self._tag in handle.tags)
            and (self._state is None or handle.state is self._state)
            and (self._where is None or bool(self._where(handle)))
        )

    def _found(self) -> list[Threadlet[Any]]:
        return [handle for handle in list(self._candidates()) if self._matches(handle)]

    def __iter__(self) -> Iterator[Threadlet[Any]]:
        """Iterate over those that match now; what happens during the iteration does not disturb it."""
        return iter(self._found())

    def __len__(self) -> int:
        return len(self._found())

    def __bool__(self) -> bool:
        return any(self._matches(handle) for handle in list(self._candidates()))

    def __repr__(self) -> str:
        return f"<Selection of {len(self)} threadlets in {self._pool!r}>"

    def cancel(self, reason: object = None) -> int:
        """Cancel every match; return how many could be cancelled.

        Args:
            reason: Becomes the argument of their ``CancelledError``.

        Raises:
            RecursionError: If coroutines that await each other form a chain that is too long for asyncio to cancel at
                once; all others are cancelled then.
        """
        cancelled, failed = 0, None
        for handle in self._found():
            try:
                cancelled += handle.cancel(reason)
            except (
                RecursionError
            ) as error:  # in a long chain of tasks that await each other: the others are to be cancelled
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
