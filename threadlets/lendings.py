"""Who waits may let another one have its place: so that nesting cannot lead to a deadlock, whatever the limits.

A threadlet that waits for others holds its places in its pool's throttles meanwhile, and does nothing with them. It may
*vouch*, with each place, for one of those that it waits for, directly or through others: this one may start although
the throttle is full. So the threadlets at work are no more than the limit. Follow who vouches for whom, and at the end
there is one that runs; when it ends, its voucher is asked again.

A place is that of one threadlet in one throttle, or with one tag where a throttle looks at tags. What does not count
places - a rate - is not lent: then the borrower waits for that.

Who is asked: a threadlet when it begins to wait, when the one that it has vouched for has ended, when its tags have
changed, or when a throttle that would not agree may have changed its mind. Then what it waits for is looked at, ``FEW``
at a time, and for each kind of them all that wait for one: until one can start.

Rejected: to give a place back for the time of the wait. Who is done waiting would have to wait for it again, in the
middle of its code; or take it by force, from somebody who is at work.

What the limit does not hold for: a threadlet that stops waiting - a timeout, the first of several - goes on beside the
one that it has vouched for. If it then waits for something else while that one waits, too, its place is lent anew: or
both could wait for each other's.

What is not cured: two throttles taken in different orders, as with two locks. One threadlet has a place in the first
and waits for one that needs the second, another one the other way round, and neither waits for the other.

Thread: loop.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from . import trials
from .lifecycles import ADMITTED, TIED
from .placements import TURN
from .throttles import Throttle
from .waits import Place

if TYPE_CHECKING:
    from .handles import Threadlet
    from .homes import Home
    from .turns import Turns

__all__ = ["Lendings"]

FEW = 64  # arbitrary: of how many of those that a threadlet waits for the most urgent is tried first
AGAIN = 1.0  # seconds; arbitrary: when a throttle that has raised is asked again


class Lendings:
    """The places that are lent on one event loop."""

    __slots__ = ("_armed", "_asked", "_home", "_retries")

    def __init__(self, home: Home) -> None:
        self._home = home
        self._asked: dict[Threadlet[Any], None] = {}  # those that may be able to vouch for somebody
        self._armed = False
        self._retries: dict[Threadlet[Any], Callable[[], None]] = {}  # of borrowers: what undoes their next attempt

    def ask(self, waiter: Threadlet[Any]) -> None:
        """Have a threadlet that waits asked, soon, whether it vouches for somebody."""
        self._asked[waiter] = None
        if not self._armed and not self._home.loop.is_closed():
            self._armed = True
            self._home.loop.call_soon(self._run)

    def forget(self, borrower: Threadlet[Any]) -> None:
        """Make no further attempt for one that has left the queue."""
        release = self._retries.pop(borrower, None)
        if release is not None:
            release()

    def _run(self) -> None:
        """Start what somebody vouches for, as long as one turn allows."""
        self._armed = False
        home = self._home
        home.turn = TURN
        while self._asked and home.turn >= 0:
            waiter = next(iter(self._asked))
            if not any(map(self._start, self._borrowers(waiter))):
                self._asked.pop(waiter, None)
        if self._asked:
            self.ask(next(iter(self._asked)))

    def _borrowers(self, waiter: Threadlet[Any]) -> Iterator[Threadlet[Any]]:
        """Iterate over queued ones that a threadlet waits for: of those that are alike one, an urgent one.

        Nothing may have changed when the next one is asked for.
        """
        waits, found, line = self._home.waits, {waiter}, [waiter]
        queued: list[Threadlet[Any]] = []
        tried: set[Hashable] = set()
        for handle in line:
            ties = waits.get(handle)
            for awaited in () if ties is None else ties.awaits:
                if awaited in found:
                    continue
                found.add(awaited)
                if not awaited.is_queued_in_pool():
                    line.append(awaited)
                    continue
                queued.append(awaited)
                if len(queued) == FEW:
                    yield from self._different(queued, tried)
                    queued.clear()
        yield from self._different(queued, tried)

    def _different(self, queued: list[Threadlet[Any]], tried: set[Hashable]) -> Iterator[Threadlet[Any]]:
        """Iterate over those that are not like one that was tried; the most urgent first."""
        queued.sort(key=lambda handle: (handle._priority, handle._arrived))
        for handle in queued:
            ties = self._home.waits.get(handle)
            kind = (handle.pool, handle._tags, frozenset(() if ties is None else ties.awaiters))
            if kind not in tried:
                tried.add(kind)
                yield handle

    def _start(self, handle: Threadlet[Any]) -> bool:
        """Start a queued threadlet if somebody vouches for it; False if not."""
        pool: Turns = handle.pool  # type: ignore[assignment]
        self.forget(handle)
        now = trials.now()
        try:
            keys = pool._keys(handle._tags)
            places = self._places(handle, pool, keys, now)
            if not places:
                return False
            pool._take(keys, now)
        except Exception as error:
            self._retry(handle, self._home.loop.call_later(AGAIN, self._again, handle).cancel)
            pool._tell(f"a throttle of {pool!r} raised: it is asked again in {AGAIN} s", error)
            return False
        pool._dequeue(handle)
        self._home.waits.vouch(places, handle)
        pool._launch(handle, now)
        return True

    def _places(
        self, handle: Threadlet[Any], pool: Turns, keys: tuple[Hashable, ...], now: int
    ) -> list[tuple[Threadlet[Any], Place]]:
        """Return whose places a threadlet can start with; none, if it cannot start so."""
        lent: list[tuple[Threadlet[Any], Place]] = []
        objector: tuple[Throttle, Hashable, bool] | None = None
        for throttle, key in zip(pool._throttles, keys, strict=True):
            for part in _parts(key) if throttle.lends else (key,):
                voucher = self._voucher(handle, throttle, part) if throttle.lends else None
                if voucher is not None and throttle.ready_if_lent(part, now):
                    lent.append((voucher, (throttle, part)))
                elif voucher is not None:
                    lent.append((voucher, (throttle, part)))
                    objector = throttle, part, True
                elif not throttle.ready(part, now):
                    objector = throttle, part, False
        if objector is None:
            return lent
        if lent:  # somebody would vouch for it: the attempt is made again when it is worth it
            throttle, part, is_lent = objector
            again = partial(self._again, handle)
            due = throttle.due_if_lent(part, now) if is_lent else throttle.due(part, now)
            timer = None if due is None else self._home.loop.call_later((due - now) / 1e9, again)
            throttle.wait(part, again)
            self._retry(handle, partial(_release, throttle, part, again, timer))
        return []

    def _voucher(self, handle: Threadlet[Any], throttle: Throttle, part: Hashable) -> Threadlet[Any] | None:
        """Return one that waits for a threadlet, directly or through others, and has such a place to lend."""
        waits, found, line = self._home.waits, {handle}, [handle]
        place = throttle, part
        for each in line:
            ties = waits.get(each)
            if ties is None:
                continue
            free = (
                each is not handle
                and each._marks & ADMITTED
                and (place not in ties.serves or waits.has_left(each, place))
            )
            if free and each.pool._holds(each, throttle, part):  # type: ignore[union-attr]
                return each
            for awaiter in ties.awaiters:
                if awaiter not in found:
                    found.add(awaiter)
                    line.append(awaiter)
        return None

    def _retry(self, handle: Threadlet[Any], release: Callable[[], None]) -> None:
        self.forget(handle)
        self._retries[handle] = release

    def _again(self, handle: Threadlet[Any]) -> None:
        """Ask those again that wait for a queued threadlet."""
        self.forget(handle)
        ties = self._home.waits.get(handle)
        if ties is not None and handle._marks & TIED:
            for awaiter in ties.awaiters:
                self.ask(awaiter)

    def _check(self) -> None:
        """Assert every invariant."""
        assert all(handle.is_queued_in_pool() for handle in self._retries), "who is tried again is queued"


def _parts(key: Any) -> tuple[Hashable, ...]:
    """Divide a key into the places that it stands for: one for each tag.

    >>> _parts(None), len(_parts(frozenset({"a", "b"})))
    ((None,), 2)
    """
    return tuple(frozenset((tag,)) for tag in key) if isinstance(key, frozenset) and len(key) > 1 else (key,)


def _release(throttle: Throttle, part: Hashable, again: Callable[[], None], timer: Any) -> None:
    throttle.unwait(part, again)
    if timer is not None:
        timer.cancel()
