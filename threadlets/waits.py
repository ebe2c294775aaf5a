"""Which threadlet waits for which: so that the urgency of one, and its place in a throttle, can serve another.

A threadlet waits for another one from its ``await`` on, or from the moment at which ``asyncio.gather``, ``wait`` or
their like ask to be told of its end. Who awaits something without being a threadlet - a task that a threadlet has
started, an async function behind ``call_async`` - does so for the threadlet in whose context it runs (``family``).

*Inheritance.* What counts as a threadlet's priority is its own, or that of one that waits for it, whichever is more
urgent. It is handed on along the waits, and taken back when they end.

*Lending.* Who waits may vouch for one that it waits for, with each of its places: see ``lendings``, which is asked
whenever a wait begins, and whenever one that was vouched for has ended.

Invariants: see ``_check()``. Thread: loop.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from .lifecycles import QUEUED
from .throttles import Throttle

if TYPE_CHECKING:
    from .handles import Threadlet

__all__ = ["Place", "Ties", "Waits", "family", "in_line", "is_wait"]

# In the context of a coroutine that holds a place in a throttle, and of what it starts: that threadlet.
family: ContextVar[Threadlet[Any] | None] = ContextVar("threadlets.family", default=None)

# Where the functions are that wait for a future by a callback of their own.
WAITING = frozenset({"asyncio.tasks", "asyncio.futures", "threadlets.maps", "threadlets.selections"})


def is_wait(callback: Any) -> bool:
    """Say whether a done callback belongs to somebody who waits.

    >>> is_wait(print)
    False
    """
    while isinstance(callback, partial):
        callback = callback.func
    return getattr(callback, "__module__", None) in WAITING


# Of those that wait in line for a lock: what puts them where their priority wants them. Thread: any.
in_line: dict[Any, Callable[[], object]] = {}

Place = tuple[Throttle, Hashable]


class Ties:
    """What ties one threadlet to others."""

    __slots__ = ("awaiters", "awaits", "own", "serves", "vouchers")

    def __init__(self, own: float) -> None:
        self.own = own  # its own priority
        self.awaiters: dict[Threadlet[Any], int] = {}  # who waits for it, and in how many places
        self.awaits: dict[Threadlet[Any], None] = {}
        self.serves: dict[Place, Threadlet[Any]] = {}  # for whom it vouches, with which of its places
        self.vouchers: list[tuple[Threadlet[Any], Place]] = []  # who vouches for it


class Waits:
    """The waits of one event loop. Thread: loop."""

    __slots__ = ("_ask", "_ties")

    def __init__(self, ask: Callable[[Threadlet[Any]], object]) -> None:
        self._ask = ask  # lets one that waits vouch for others
        self._ties: dict[Threadlet[Any], Ties] = {}

    def __len__(self) -> int:
        return len(self._ties)

    def get(self, handle: Threadlet[Any]) -> Ties | None:
        """Return what ties a threadlet to others; None if nothing does."""
        return self._ties.get(handle)

    def own(self, handle: Threadlet[Any]) -> float:
        """Return a threadlet's own priority."""
        ties = self._ties.get(handle)
        return handle._priority if ties is None else ties.own

    def begin(self, waiter: Threadlet[Any], awaited: Threadlet[Any]) -> None:
        """Note that one threadlet waits for another one. O(1), and O(waits) where urgency is handed on."""
        if waiter is awaited or waiter.done() or awaited.done():
            return
        mine, its = self._tie(waiter), self._tie(awaited)
        its.awaiters[waiter] = its.awaiters.get(waiter, 0) + 1
        mine.awaits[awaited] = None
        self._hurry(awaited, waiter._priority)
        if waiter.holds_place() or mine.awaiters:
            self._ask(waiter)
        if mine.vouchers:
            self._ask_left(mine)

    def end(self, waiter: Threadlet[Any], awaited: Threadlet[Any]) -> None:
        """Note that a wait is over. O(1); O(others that wait for it) if it has handed its urgency on."""
        its = self._ties.get(awaited)
        count = 0 if its is None else its.awaiters.get(waiter, 0)
        if its is None or not count:
            return
        if count > 1:
            its.awaiters[waiter] = count - 1
            return
        del its.awaiters[waiter]
        mine = self._ties[waiter]
        mine.awaits.pop(awaited, None)
        self._left(awaited, its, waiter)
        self._untie(awaited, its)
        self._untie(waiter, mine)

    def gone(self, handle: Threadlet[Any]) -> None:
        """Forget a threadlet that is final. O(waits)."""
        ties = self._ties.pop(handle, None)
        if ties is None:
            return
        for awaiter in ties.awaiters:
            self._ties[awaiter].awaits.pop(handle, None)
        for awaited in ties.awaits:
            its = self._ties[awaited]
            del its.awaiters[handle]
            self._left(awaited, its, handle)
            self._untie(awaited, its)
        handle._priority = ties.own
        self._release(ties)
        for awaiter in ties.awaiters:
            if (its_own := self._ties.get(awaiter)) is not None:
                self._untie(awaiter, its_own)

    def vouch(self, places: list[tuple[Threadlet[Any], Place]], handle: Threadlet[Any]) -> None:
        """Note with whose places a threadlet starts."""
        self._tie(handle).vouchers = places
        for voucher, place in places:
            serves = self._ties[voucher].serves
            if place in serves:  # one that it has left
                self._ties[serves[place]].vouchers.remove((voucher, place))
            serves[place] = handle

    def has_left(self, voucher: Threadlet[Any], place: Place) -> bool:
        """Say whether whom it vouches for with a place does nothing with it, and the voucher does not wait for that.

        O(waits).
        """
        served = self._ties[voucher].serves[place]
        last = served
        while (following := self._ties[last].serves.get(place)) is not None:
            last = following
        return bool(self._ties[last].awaits) and not self._waits(voucher, served)

    def _waits(self, waiter: Threadlet[Any], awaited: Threadlet[Any]) -> bool:
        """Say whether one threadlet waits for another one, directly or through others. O(waits)."""
        found, line = {awaited}, [awaited]
        for each in line:
            ties = self._ties.get(each)
            if ties is None:
                continue
            if waiter in ties.awaiters:
                return True
            line += [awaiter for awaiter in ties.awaiters if awaiter not in found]
            found.update(ties.awaiters)
        return False

    def _ask_left(self, ties: Ties) -> None:
        """Ask those that vouch for one that begins to wait, and do not wait for it: they may do so for another one."""
        line, found = [ties], {ties}
        for its in line:
            for voucher, _ in its.vouchers:
                above = self._ties.get(voucher)  # None: it has ended
                if above is not None and above not in found:
                    found.add(above)
                    line.append(above)
                    if voucher not in its.awaiters:
                        self._ask(voucher)

    def recalled(self, handle: Threadlet[Any]) -> None:
        """Note that a threadlet has not started after all: nobody vouches for it any more."""
        ties = self._ties.get(handle)
        if ties is not None:
            self._release(ties)
            self._untie(handle, ties)

    def reclaim(self, handle: Threadlet[Any], holds: Callable[[Place], bool]) -> None:
        """Note that a threadlet that runs does without some of its places: whose they are has them for others."""
        ties = self._ties.get(handle)
        if ties is not None:
            kept = [voucher for voucher in ties.vouchers if holds(voucher[1])]
            ties.vouchers = [voucher for voucher in ties.vouchers if voucher not in kept]
            self._release(ties)
            ties.vouchers = kept
            self._untie(handle, ties)

    def _release(self, ties: Ties) -> None:
        vouchers, ties.vouchers = ties.vouchers, []
        for voucher, place in vouchers:
            free = self._ties.get(voucher)
            if free is not None and free.serves.pop(place, None) is not None:
                self._ask(voucher)
                self._untie(voucher, free)

    def prioritize(self, handle: Threadlet[Any], own: float) -> None:
        """Give a threadlet another priority of its own, and hand on what comes of it."""
        ties = self._ties.get(handle)
        if ties is None:
            handle._priority = own
            _put_in_order([handle])
            return
        ties.own = own
        self._calm(handle) if own > handle._priority else self._hurry(handle, own)

    def _left(self, handle: Threadlet[Any], ties: Ties, waiter: Threadlet[Any]) -> None:
        """Do without the urgency of one that waited for a threadlet."""
        if waiter._priority <= handle._priority < ties.own:
            self._calm(handle)

    def _hurry(self, handle: Threadlet[Any], priority: float) -> None:
        """Make a threadlet at least as urgent as this, and what it waits for."""
        stack, changed = [handle], []
        while stack:
            handle = stack.pop()
            if priority < handle._priority:
                handle._priority = priority
                changed.append(handle)
                ties = self._ties.get(handle)
                if ties is not None:
                    stack += ties.awaits
        _put_in_order(changed)

    def _calm(self, handle: Threadlet[Any]) -> None:
        """Make a threadlet as urgent as it is by itself and by those that wait for it; then what it waits for."""
        stack, changed = [handle], []
        while stack:
            handle = stack.pop()
            ties = self._ties[handle]
            priority = min((awaiter._priority for awaiter in ties.awaiters), default=ties.own)
            priority = min(priority, ties.own)
            if priority > handle._priority:
                handle._priority = priority
                changed.append(handle)
                stack += ties.awaits
        _put_in_order(changed)

    def _tie(self, handle: Threadlet[Any]) -> Ties:
        ties = self._ties.get(handle)
        if ties is None:
            ties = self._ties[handle] = Ties(handle._priority)
            handle.tie()
        return ties

    def _untie(self, handle: Threadlet[Any], ties: Ties) -> None:
        """Forget ties that bind nothing; the mark on the handle may stay."""
        if not (ties.awaiters or ties.awaits or ties.vouchers or ties.serves):
            self._ties.pop(handle, None)

    def _check(self) -> None:
        """Assert every invariant. O(waits)."""
        for handle, ties in self._ties.items():
            assert not handle.done(), "what is final waits for nothing"
            for awaiter, count in ties.awaiters.items():
                assert count > 0 and handle in self._ties[awaiter].awaits, "a wait is known at both ends"
            assert all(handle in self._ties[awaited].awaiters for awaited in ties.awaits), "at both ends"
            most = min([ties.own, *(awaiter._priority for awaiter in ties.awaiters)])
            assert handle._priority == most, "the most urgent of those that wait for it counts"
            for place, served in ties.serves.items():
                assert (handle, place) in self._ties[served].vouchers, "who is vouched for knows it"


def _put_in_order(changed: list[Threadlet[Any]]) -> None:
    """Put those whose priority has changed where it wants them now: in a pool's queue, or in line for a lock.

    Not before all of them have theirs: who comes first in line then is noted here as waiting, by ``begin`` and ``end``.
    """
    for handle in changed:
        if handle._state is QUEUED:
            handle.pool._rekey(handle)  # type: ignore[union-attr]
        elif (rekey := in_line.get(handle)) is not None:
            rekey()
