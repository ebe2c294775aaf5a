"""What is known of who holds a lock: to those that wait for it, and to the event loop that he belongs to.

Why: the event loop of a threadlet, or of a task, is the one place where its end is known, and where it can be hurried;
but it is held, released and waited for on any thread. So whatever changes, the loops concerned are asked to look, and
each one, on its own thread, makes what it has noted the same as what is true by then.

*Its end.* If somebody waits, the loop of who holds it watches him: he may end and never release it.

*Its urgency.* The holder waits for nobody, but somebody waits for him: the most urgent threadlet in line. That is noted
in ``waits`` as if it awaited him. So the holder is as urgent, and what he awaits, and he may use the other's place in a
throttle for that. Both must belong to the same loop.

Invariants: what a loop has noted is changed on its own thread. Nothing is noted if nobody waits, or soon will not be.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from types import CodeType
from typing import TYPE_CHECKING, Any

from .deadlocks import for_locks, name_of
from .parking import Line, Waiter, priority_now
from .tasks import running_loop

if TYPE_CHECKING:
    from .homes import Home

__all__ = ["Held", "all_held"]

Edge = tuple[Any, Any]  # who waits, and for whom


class Held:
    """Something that one holds, and others wait for in line. Thread: any, unless a method says otherwise."""

    __slots__ = ("__weakref__", "_line", "_mutex", "_noted", "_owner", "_place", "_posted")

    def __init__(self) -> None:
        self._owner: Any = None
        self._place: tuple[CodeType, int] | None = None  # where it was taken; None: he has not been told yet
        self._mutex = threading.Lock()  # for all that is said here
        self._line = Line()
        self._noted: dict[asyncio.AbstractEventLoop, tuple[Any, Edge | None]] = {}  # whom it watches, whom it hurries
        self._posted: set[asyncio.AbstractEventLoop] = set()  # loops that are about to look
        if _known is not None:
            _known.add(self)

    def _owner_ended(self, owner: Any) -> None:
        """Go on without a holder that has ended, if he still holds it."""
        raise NotImplementedError

    def _rekey(self, waiter: Waiter) -> None:
        """Put a waiter where its priority wants it now; called when that has changed."""
        with self._mutex:
            self._line.rekey(waiter)
        self._update()

    def _update(self) -> None:
        """Have the event loops concerned look at what has changed: that of the holder, and those that watch one."""
        with self._mutex:
            loops = set(self._noted)
            if len(self._line) and (loop := _loop_of(self._owner)) is not None:
                loops.add(loop)
            loops = {loop for loop in loops if loop not in self._posted or loop.is_closed()}
            self._posted |= loops
        for loop in loops:
            if running_loop() is loop:
                self._update_on(loop)
            else:
                try:
                    loop.call_soon_threadsafe(self._update_on, loop)
                except RuntimeError:
                    self._was_closed(loop)

    def _update_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be told when the holder has ended, if somebody waits for him; and have him hurried. Thread: that loop's."""
        with self._mutex:
            self._posted.discard(loop)
            watched, edge = None, None
            if len(self._line) and _loop_of(self._owner) is loop:
                watched, edge = self._owner, self._edge()
            was_watched, old = self._noted.pop(loop, (None, None))
            if watched is not None:
                self._noted[loop] = watched, edge
        if watched is not was_watched:
            if was_watched is not None:
                was_watched.remove_done_callback(self._owner_ended)
            if watched is not None:
                watched.add_done_callback(self._owner_ended)
        if edge != old:
            waits = loop._threadlets_home.waits  # type: ignore[attr-defined]
            if edge is not None:
                for_locks[edge] = for_locks.get(edge, 0) + 1
                waits.begin(*edge)
            if old is not None:
                waits.end(*old)
                for_locks[old] -= 1
                if not for_locks[old]:
                    del for_locks[old]

    def _edge(self) -> Edge | None:
        """Return who makes the holder hurry, and the holder: the most urgent of the threadlets of his loop."""
        owner = self._owner
        home = None if getattr(owner, "pool", None) is None else owner.pool._home
        first = self._line.first()
        if home is None or first is None or owner.done():
            return None
        if not _belongs(first.owner, home):  # O(n), but that is not often
            others = [waiter for waiter in self._line if _belongs(waiter.owner, home)]
            first = min(others, key=lambda each: (priority_now(each.owner), each._arrived), default=None)
        return None if first is None else (first.owner, owner)

    def _was_closed(self, loop: asyncio.AbstractEventLoop) -> None:
        """Go on without an event loop, and without a holder that can never run again."""
        with self._mutex:
            self._posted.discard(loop)
            self._noted.pop(loop, None)
        if self._is_orphaned():
            self._owner_ended(self._owner)

    def _is_orphaned(self) -> bool:
        """Say whether it is held by a task, or a coroutine threadlet, whose loop was closed."""
        owner = self._owner
        loop = _loop_of(owner)
        return (
            loop is not None
            and loop.is_closed()
            and (isinstance(owner, asyncio.Future) or owner.done() or owner.entrypoint.is_coroutine)
        )

    def _thrown_away(self) -> bool:
        """Say whether a coroutine ends since nobody can go on with it; if it still has the lock, that is so no more."""
        if self._is_orphaned():
            self._owner_ended(self._owner)
            return True
        return running_loop() is None  # it is the garbage collector that ends it

    def _taken_by(self) -> str:
        """Say who holds it, and where he has taken it."""
        return f"{name_of(self._owner)} holds {self!r}, {self._taken_at()}"

    def _taken_at(self) -> str:
        place = self._place
        if place is None:
            return "taken just now"
        code, instruction = place
        line = next((line for start, end, line in code.co_lines() if start <= instruction < end), None)
        return f"taken at {code.co_filename}:{line}"


_known: weakref.WeakSet[Held] | None = None  # all there are, once somebody has asked


def all_held() -> list[tuple[Held, Any, str]]:
    """Return what is held now, by whom, and in words: to see who has ended and not released it. Thread: any.

    The first call looks for it among all objects, but for those that ``gc.freeze`` has put away; from then on each is
    known from its beginning.
    """
    global _known
    if _known is None:
        _known = weakref.WeakSet()
        for each in gc.get_objects():
            if issubclass(type(each), Held):  # isinstance asks proxies what they stand for
                _known.add(each)
    while True:
        try:
            return [(held, held._owner, held._taken_by()) for held in list(_known) if held._owner is not None]
        except RuntimeError:  # another thread has made one meanwhile
            continue


def _loop_of(who: Any) -> asyncio.AbstractEventLoop | None:
    """Return the event loop that somebody belongs to; None for a thread, and for nobody."""
    if who is None or isinstance(who, int):
        return None
    return who.get_loop() if isinstance(who, asyncio.Future) else who.pool._home.loop


def _belongs(who: Any, home: Home) -> bool:
    """Say whether somebody is a threadlet of an event loop, and has not ended."""
    pool = getattr(who, "pool", None)
    return pool is not None and pool._home is home and not who.done()
