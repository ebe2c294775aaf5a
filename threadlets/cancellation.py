"""How a threadlet that runs is asked to stop, where it listens, and what makes it wait until that does no harm.

Nothing is thrown into a thread: it could hit any line, the one before a ``finally`` too. A threadlet is *asked*. A
suspended coroutine is told at its ``await``. A plain function is told where it listens: in ``checkpoint()``, and in
the waits of this library (``Lock``, ``checkpoint_wait`` and their like), which a cancel wakes.

While a threadlet is inside ``holding``, or holds a ``Lock``, it is not told; for a coroutine what was asked is kept,
and passed on when the outermost block ends. After ``grace`` seconds it is told all the same: it is *forced*, and a lock
that it leaves by this is poisoned.

The race between a cancel and a wait on a thread:

    waits: leaves a wake-up (``parked``)        cancels: marks the threadlet as asked
    waits: looks whether it is asked            cancels: calls the wake-up, if there is one
Both write first and read second, so one of them sees the other (``test_cancel_at_every_step_of_a_wait``).

Only a threadlet is protected so, by what asks through it: ``cancel()``, whoever awaits it, its pool, its deadline. What
its own code asks of its task - ``asyncio.timeout``, a ``TaskGroup`` - goes in at once: it may well be inside of the
block itself, and end there.

Invariants: a threadlet is in ``holds`` as long as it is inside of a block, and its own code alone changes that.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .definitions import check_seconds
from .lifecycles import ABANDONED, ASKED, HERE, MISSED
from .regions import me
from .surroundings import here, outermost, trip_here, trip_of
from .tasks import must_cancel, relist, running_loop, unlist

if TYPE_CHECKING:
    from .handles import Threadlet

__all__ = [
    "asked",
    "by_cancel",
    "checkpoint",
    "defers",
    "enter",
    "expire",
    "forget",
    "holding",
    "holds",
    "is_forced",
    "leave",
    "listens_to_task",
    "parked",
    "raise_if_asked",
    "tell",
    "to_be_told",
    "unexpire",
    "why",
]

ELSEWHERE = HERE | MISSED  # part of another one; a coroutine that is away, or a function without its loop
NO_THREADLET = (int, asyncio.Future)  # for isinstance: a thread, or a task

MANY = 16  # arbitrary: so many cancels are kept; anyio asks once in every round of the loop
FAR = 100  # arbitrary: of how many errors, each raised while the one before was handled, the first is looked for
GRACE = 30.0  # seconds; arbitrary: longer than what a lock is held for, shorter than what a supervisor waits


class Hold:
    """What one threadlet is inside of. One is made whenever it takes a lock: so what is seldom set is the class's."""

    blocks: list[Any]  # the `holding` and the locks, outermost first; each has a `grace`
    forced = False  # the grace has run out after a cancel
    overdue: str | None = None  # so has the time for its cleanup: what to say
    pending: tuple[object, ...] = ()  # of a coroutine: the reasons of cancels that it was not told of
    timer: asyncio.TimerHandle | None = None


holds: dict[Any, Hold] = {}  # by threadlet: those that are inside of something
_wakes: dict[Any, Callable[[], object]] = {}  # of those that wait on a thread: what wakes them


def enter(who: Any, block: Any) -> None:
    """Note that a threadlet is inside of one more block; nothing for anybody else. Thread: the one that it runs on.

    If it was asked to stop before, its grace begins now:

        enters: notes that it is inside       cancels: marks the threadlet as asked
        enters: looks whether it is asked     cancels: looks whether it is inside
    (``test_asked_just_before_it_has_the_lock``)
    """
    if isinstance(who, NO_THREADLET):
        return
    hold = holds.get(who)
    if hold is not None:
        hold.blocks.append(block)
        return
    if who._marks & HERE:
        if (whole := outermost(who)) is not None:
            enter(whole, block)
        return
    hold = Hold()
    hold.blocks = [block]
    holds[who] = hold
    if who.entrypoint.is_coroutine and isinstance(who._task, asyncio.Task):
        unlist(who._task)  # asyncio.run cancels all tasks at its end, and asks nobody
    if who._marks & ASKED:
        with suppress(RuntimeError):  # the loop is closed
            who.pool._home.loop.call_soon_threadsafe(_set_timer, who, hold)


def leave(who: Any, block: Any) -> None:
    """Note that it has left a block; what it was not told of is passed on. Thread: as for ``enter``."""
    hold = holds.get(who)
    if hold is None:
        if isinstance(who, NO_THREADLET) or not who._marks & HERE or (hold := holds.get(outermost(who))) is None:
            return
        who = outermost(who)
    blocks = hold.blocks
    if blocks[-1] is block:  # as ever
        blocks.pop()
    elif block in blocks:
        blocks.remove(block)
    else:
        return
    if blocks:
        return
    del holds[who]
    if who.entrypoint.is_coroutine and isinstance(who._task, asyncio.Task) and not who._task.done():
        relist(who._task)
    if hold.timer is not None or (hold.pending and not hold.forced):
        loop = who.pool._home.loop
        if running_loop() is loop:
            _pass_on(who, hold)
        else:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_pass_on, who, hold)


def forget(handle: Threadlet[Any]) -> None:
    """Have nothing kept of a threadlet that has ended, even if it has left a lock taken. Thread: loop."""
    hold = holds.pop(handle, None)
    if hold is not None and hold.timer is not None:
        hold.timer.cancel()


def _pass_on(handle: Threadlet[Any], hold: Hold) -> None:
    """Tell a coroutine what it was asked while it was inside of a block. Thread: loop."""
    if hold.timer is not None:
        hold.timer.cancel()
        hold.timer = None
    pending, hold.pending = hold.pending, ()
    for reason in pending:
        if not handle.done():
            handle.pool._cancel(handle, reason)  # type: ignore[union-attr]


def defers(handle: Threadlet[Any], reason: object) -> bool:
    """Keep a cancel for later if a coroutine is inside of a block; False if it may be told now. Thread: loop.

    It may be leaving the block right now, on another thread, if that is in a region:

        leaves: is inside no more                 cancels: keeps the reason
        leaves: looks whether a reason was kept   cancels: looks whether it is still inside
    If both see each other the reason is taken back, and is not passed on twice (``test_cancelled_as_a_region_leaves``).
    """
    hold = holds.get(handle)
    if hold is None or hold.forced:
        return False
    before = hold.pending
    if len(before) < MANY:
        hold.pending += (reason,)
    if holds.get(handle) is not hold:
        hold.pending = before
        return False
    _set_timer(handle, hold)
    return True


def tell(handle: Any) -> None:
    """Wake who waits on a thread and was asked to stop, or have it woken when its grace has run out. Thread: loop."""
    hold = holds.get(handle)
    if hold is not None and not hold.forced:
        _set_timer(handle, hold)
    else:
        _wake(handle)


def _wake(handle: Threadlet[Any]) -> None:
    wake = _wakes.get(handle)
    if wake is not None:
        wake()


def _set_timer(handle: Threadlet[Any], hold: Hold) -> None:
    blocks = list(hold.blocks)  # its thread may be about to leave
    if hold.timer is None and blocks and blocks[0].grace < float("inf") and holds.get(handle) is hold:
        loop = handle.pool._home.loop  # type: ignore[union-attr]
        hold.timer = loop.call_later(blocks[0].grace, _force, handle, hold)


def _force(handle: Threadlet[Any], hold: Hold) -> None:
    """Tell a threadlet although it is inside of a block: its grace has run out. Thread: loop."""
    if holds.get(handle) is not hold or (handle.done() and not handle._marks & ABANDONED):
        return
    hold.forced = True
    _pass_on(handle, hold)
    _wake(handle)


def expire(handle: Threadlet[Any] | None, why: str) -> None:
    """Tell a threadlet that cleans up to stop, since the time for that is over. Thread: loop."""
    hold = holds.get(handle)
    if hold is not None:
        hold.overdue = why
        hold.forced = True
        _wake(handle)  # type: ignore[arg-type]  # None is inside of nothing


def unexpire(handle: Threadlet[Any] | None) -> None:
    """Have the rest of a threadlet not told that some part of it has cleaned up for too long. Thread: its own."""
    hold = holds.get(handle)
    if hold is not None and hold.overdue is not None:
        hold.overdue = None
        hold.forced = False


def is_forced(who: Any) -> bool:
    """Say whether somebody was told, or is to be, inside of a block. Thread: any."""
    hold = holds.get(who)
    return hold is not None and hold.forced


def by_cancel(error: BaseException | None) -> bool:
    """Say whether a block is left since its code was told to stop, whatever has become of that on the way."""
    for _ in range(FAR):
        if error is None or isinstance(error, CancelledError):
            break
        error = error.__context__
    return isinstance(error, CancelledError)


def asked(handle: Threadlet[Any]) -> bool:
    """Say whether a plain function is to stop, and may be told so now. Thread: any."""
    hold = holds.get(handle)
    if hold is None:
        return bool(handle._marks & ASKED)
    return hold.forced and (hold.overdue is not None or bool(handle._marks & ASKED))


def raise_if_asked(who: Any) -> None:
    """Raise CancelledError if the code that runs here was asked to stop, and is not protected. Thread: its own."""
    told = to_be_told(who)
    if told is not None:
        trip = trip_here()
        if trip is not None:
            trip.asked = None  # it has been told
        raise CancelledError(*told)


def to_be_told(who: Any) -> tuple[Any, ...] | None:
    """Return the arguments of the CancelledError that somebody is to get on a thread, None if there is none.

    Thread: any.
    """
    if isinstance(who, int):
        return None
    if isinstance(who, asyncio.Future):  # a task that is no threadlet, in a region or away from its loop
        trip = trip_of(who)
        return must_cancel(who) if trip is None else trip.told()
    if asked(who):
        hold = holds.get(who)
        reason = who._value if hold is None or hold.overdue is None else hold.overdue
        return () if reason is None else (reason,)
    if listens_to_task(who) and (who not in holds or is_forced(who)):
        return to_be_told(who._task)
    return None


def listens_to_task(who: Any) -> bool:
    """Say whether a cancel may come through a task, which does not wake a wait: that of a region. Thread: its own."""
    if isinstance(who, NO_THREADLET):
        return not isinstance(who, int)
    return who.entrypoint.is_coroutine and isinstance(getattr(who, "_task", None), asyncio.Task)


def checkpoint() -> None:
    """Raise ``CancelledError`` here if the threadlet that runs here was asked to stop: a place where it listens.

    For plain functions with long loops. In a ``with blocking():`` it is about the task around that. In a coroutine each
    ``await`` that waits is such a place. Inside of ``holding``, or of a ``Lock``, it does nothing before the grace runs
    out. Where no threadlet runs it does nothing.

    A task that is told in a region, or on another loop that it has migrated to, is told once more at its next
    ``await``, since asyncio does not know of the first.

    Raises:
        asyncio.CancelledError: With the reason that ``cancel`` was given.

    Thread: any. Cancel: point.
    """
    handle = here.get(get_ident())
    if handle is None or handle._marks & ELSEWHERE or running_loop() is not None:
        raise_if_asked(me())
    elif handle._marks & ASKED or handle in holds:
        raise_if_asked(handle)


class parked:
    """A wait on a thread, which a cancel is to wake: ``with parked(handle, wake):``.

    Inside, look at ``asked`` first, and wait then: see the race above. One at a time for each threadlet.

    Args:
        handle: Who waits: a threadlet, or anybody, for whom this does nothing.
        wake: Called when it is asked to stop, or its grace runs out; on the loop's thread.
    """

    __slots__ = ("_handle", "_wake")

    def __init__(self, handle: Any, wake: Callable[[], object]) -> None:
        self._handle = handle
        self._wake = wake

    def __enter__(self) -> None:
        _wakes[self._handle] = self._wake

    def __exit__(self, *_: object) -> None:
        _wakes.pop(self._handle, None)


class holding:
    """A block that a cancel does not break into: ``with holding("writing the index"):``.

    For plain functions and coroutines, where an invariant is broken for a while. A threadlet that is asked to stop
    inside of it is told when the outermost such block ends: a plain function at its next ``checkpoint()``, a coroutine
    at its next ``await``. In code that is no threadlet - a task of its own, also one that a threadlet has started - it
    does nothing.

    Args:
        why: What is going on, for reports.
        grace: How long after a cancel it may last, in seconds; then the threadlet is told all the same. That of the
            outermost block counts. ``inf``: as long as it likes.

    Raises:
        TypeError: If ``why`` is no string, or ``grace`` no number.
        ValueError: If ``grace`` is NaN or below 0.
        RuntimeError: If it is entered twice.

    Thread: any. Cancel: none.
    """

    __slots__ = ("_who", "grace", "why")

    def __init__(self, why: str, *, grace: float = GRACE) -> None:
        if not isinstance(why, str):
            raise TypeError(f"holding({why!r}): expected a string that says what for")
        check_seconds("grace", grace)
        self.why = why
        self.grace = grace
        self._who: Any = None

    def __repr__(self) -> str:
        return f"holding({self.why!r})"

    def __enter__(self) -> None:
        if self._who is not None:
            raise RuntimeError(f"{self!r} is in use: make one for each block, 'with holding(...):'")
        self._who = me()
        enter(self._who, self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        who, self._who = self._who, None
        leave(who, self)


def why(handle: Threadlet[Any]) -> str:
    """Say what a threadlet is inside of; "" if it is nothing. Thread: any."""
    hold = holds.get(handle)
    return "" if hold is None else "inside of " + ", ".join(map(repr, list(hold.blocks)))
