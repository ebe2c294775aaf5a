"""Whose turn it is: the queue of a pool, and the throttles that hold it back.

Pools that are parts of another one share one queue, that of the outermost (``_root``): so the most urgent of all goes
first, and each waits for the throttles of its own pool and of those around it.

In the queue, those that the throttles treat alike stand in one lane: (pool, keys), where the keys are what the
throttles know them by. A lane whose first may not start is closed until the throttle that objects calls, or until the
time that it says. What holds back every lane is asked before all others; if it objects, the queue is *stuck*, and no
lane is looked at. Whoever somebody vouches for does not wait for that: see ``lendings``.

A throttle may be the user's own, and raise. Who starts something is told so by the exception; in the pump the loop's
exception handler is told, and the throttle is asked again a second later. Nothing is lost.

Invariants: see ``_check()``. Thread: loop.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from time import monotonic_ns
from typing import Any

from . import events, trials
from .events import listeners
from .handles import Threadlet
from .lanes import Lane, Lanes
from .ledgers import Ledger
from .lifecycles import ADMITTED, FAILED, QUEUED, TIED
from .placements import TURN
from .throttles import Throttle

__all__ = ["Turns"]

KEYS = 1_000  # arbitrary: of how many sets of tags the keys are remembered
AGAIN = 1.0  # seconds; arbitrary: when a throttle that has raised is asked again
ENDLESS = float("inf")

Place = Lane[Threadlet[Any]]
LaneKey = tuple["Turns", tuple[Hashable, ...]]


class _PlainLane(LaneKey):
    """The key of the lane of those that no throttle tells apart; quick to be found by."""

    __slots__ = ()
    __hash__ = object.__hash__


class Turns(Ledger):
    """The queue of one pool, or its part of it."""

    _parent: Turns | None
    _tie: Callable[[], float] | None = None  # in a trial: the order of equals

    def __init__(
        self,
        throttles: tuple[Throttle, ...],
        parent: Turns | None,
        capacity: int | None,
        tag_capacity: Mapping[str, int],
        sheds: bool,
        by_deadline: bool,
        aging: float | None,
    ) -> None:
        super().__init__(parent, capacity, tag_capacity)
        self._root: Turns = self if parent is None else parent._root
        self._own = throttles
        self._throttles: tuple[Throttle, ...] = throttles if parent is None else parent._throttles + throttles
        self._keyed = any(throttle.keyed for throttle in self._throttles)
        self._clocked = any(throttle.clocked for throttle in self._throttles)
        self._lends = any(throttle.lends for throttle in self._throttles)
        self._keys_of: dict[frozenset[Hashable], tuple[Hashable, ...]] = {}
        self._no_keys: tuple[Hashable, ...] = (None,) * len(self._throttles)
        self._plain_lane: LaneKey = _PlainLane((self, self._no_keys))
        # If there is one throttle, that looks at nothing, it is asked without further ado.
        self._single = throttles[0] if len(self._throttles) == len(throttles) == 1 else None
        if self._keyed or self._clocked:
            self._single = None
        self._began: dict[Threadlet[Any], int] = {}  # where throttles look at the time: when each was admitted, ns
        self._direct = False  # what is started may run without a look at queue, throttles and capacity
        self._more = parent is not None or self._keyed  # there are throttles that do not hold back every lane
        if parent is not None:
            return
        self._plain = tuple(throttle for throttle in throttles if not throttle.keyed)  # these do
        self._ranks = tuple((place, throttle) for place, throttle in enumerate(throttles) if throttle.ranks)
        self._by_deadline = by_deadline
        self._aging = aging
        self._strict = not by_deadline and aging is None
        self._queue: Lanes[Threadlet[Any]] = Lanes(self._rank if self._ranks else None, both_ends=sheds)
        self._stuck: Callable[[], object] | None = None  # the whole queue has to wait: undoes what is to end that
        self._armed = False  # the pump is scheduled
        self._latest = self._epoch = monotonic_ns()  # the latest time of arrival in the queue: they are unique

    # -------------------------------------------------------------------------------------------- throttles

    def _keys(self, tags: frozenset[Hashable]) -> tuple[Hashable, ...]:
        """Return what each throttle knows a threadlet with these tags by."""
        if not self._keyed:
            return self._no_keys
        keys = self._keys_of.get(tags)
        if keys is None:
            if len(self._keys_of) >= KEYS:
                self._keys_of.clear()
            keys = tuple(throttle.key(tags) if throttle.keyed else None for throttle in self._throttles)
            hash(keys)
            self._keys_of[tags] = keys
        return keys

    def _objector(self, keys: tuple[Hashable, ...], now: int) -> tuple[Throttle, Hashable] | None:
        """Return the first throttle that does not agree to a start, and the key it goes by."""
        for throttle, key in zip(self._throttles, keys):  # noqa: B905 - as long as each other; strict costs 60 ns
            if not throttle.ready(key, now):
                return throttle, key
        return None

    def _take(self, keys: tuple[Hashable, ...], now: int) -> None:
        """Take a place of every throttle, or of none if one of them raises."""
        if self._single is not None:
            self._single.take(None, 0)
            return
        taken = 0
        try:
            for throttle, key in zip(self._throttles, keys):  # noqa: B905
                throttle.take(key, now)
                taken += 1
        except BaseException:
            for throttle, key in zip(self._throttles[:taken], keys[:taken], strict=True):
                throttle.give_back(key, now, now, False)
            raise

    def _give_back(self, handle: Threadlet[Any]) -> None:
        """Give back what an admitted threadlet holds of the throttles."""
        handle._marks &= ~ADMITTED
        if self._single is not None:
            try:
                self._single.give_back(None, 0, 0, handle._state is FAILED)
            except Exception as error:
                self._tell(f"{self._single!r} of {self!r} raised when a threadlet had ended", error)
            return
        now = began = 0
        if self._clocked:
            now = trials.now()
            began = self._began.pop(handle, now)
        keys = self._keys_of.get(handle._tags) if self._keyed else self._no_keys
        if keys is None:  # forgotten: there are many sets of tags
            keys = tuple(self._key(throttle, handle._tags) for throttle in self._throttles)
        self._return(keys, now, began, handle._state is FAILED)

    def _key(self, throttle: Throttle, tags: frozenset[Hashable]) -> Hashable:
        """Return what one throttle knows a threadlet by that has ended."""
        try:
            return throttle.key(tags) if throttle.keyed else None
        except Exception as error:
            self._tell(f"{throttle!r} of {self!r} raised when a threadlet had ended", error)
            return frozenset()

    def _return(self, keys: tuple[Hashable, ...], now: int, began: int, failed: bool) -> None:
        """Give back a place of every throttle, also if one of them raises."""
        for throttle, key in zip(self._throttles, keys):  # noqa: B905
            try:
                throttle.give_back(key, now, began, failed)
            except Exception as error:
                self._tell(f"{throttle!r} of {self!r} raised when a threadlet had ended", error)

    def _now(self) -> int:
        """Return the time in ns, if a throttle wants to know."""
        return trials.now() if self._clocked else 0

    def _tell(self, message: str, error: BaseException) -> None:
        self._home.loop.call_exception_handler({"message": message, "exception": error})

    def _holds(self, handle: Threadlet[Any], throttle: Throttle, key: Hashable) -> bool:
        """Say whether an admitted threadlet of this pool holds a place that one with this key could use."""
        for mine, its in zip(self._throttles, self._keys(handle._tags), strict=True):
            if mine is throttle:
                return its == key or (isinstance(its, frozenset) and isinstance(key, frozenset) and bool(its & key))
        return False

    # ------------------------------------------------------------------------------------------------ queue

    def _urgency(self, handle: Threadlet[Any]) -> Any:
        """Return what the queue is in the order of.

        With ``aging`` all that wait become more urgent at the same pace, so that who comes later is as much less urgent
        for ever: nothing has to be re-keyed.
        """
        root = self._root
        urgency: float = handle._priority
        if root._strict:
            return urgency
        if root._aging is not None:
            try:
                urgency += (handle._arrived - root._epoch) / 1e9 / root._aging
            except OverflowError:  # a whole number that no float can hold
                urgency = ENDLESS if urgency > 0 else -ENDLESS
        tie = () if root._tie is None else (root._tie(),)
        if root._by_deadline:
            return (self._home.expiries.get(handle), urgency, *tie)
        return (urgency, *tie) if tie else urgency

    def _set_order(self) -> None:
        """Begin to keep the order, when the outermost pool is bound: a trial may say in which one equals start."""
        if trials.tie is not None:
            self._tie, self._strict = trials.tie, False
        if self._ranks:
            self._rerank()

    def _lane(self, handle: Threadlet[Any]) -> LaneKey:
        """Return the key of the lane that a threadlet belongs to."""
        return (self, self._keys(handle._tags)) if self._keyed else self._plain_lane

    def _rank(self, key: Any) -> Any:
        """Return the rank of a lane; the first one, if a throttle raises."""
        try:
            ranks = tuple(throttle.rank(key[1][place]) for place, throttle in self._ranks)
        except Exception as error:
            self._tell(f"a throttle of {self!r} raised when it was to put those that wait in order", error)
            ranks = (-ENDLESS,) * len(self._ranks)
        return ranks[0] if len(ranks) == 1 else ranks

    def _rerank(self) -> None:
        """Put the lanes in order again: a throttle has changed its mind; have it call again."""
        for _, throttle in self._ranks:
            throttle.wait(None, self._rerank)
        self._queue.rerank()

    def _enqueue(self, handle: Threadlet[Any]) -> None:
        """Put a threadlet into the queue."""
        root = self._root
        lane = root._queue.push(handle, self._lane(handle), self._urgency(handle))
        if root._queue.size == 1:
            root._bar()
        if not (root._armed or lane.closed or root._stuck):
            root._arm()
        if handle._marks & TIED and (ties := self._home.waits.get(handle)) is not None:
            for awaiter in ties.awaiters:
                self._home.lendings.ask(awaiter)

    def _dequeue(self, handle: Threadlet[Any]) -> bool:
        """Take a threadlet out of the queue; False if it is not in."""
        if handle._marks & TIED:
            self._home.lendings.forget(handle)
        return handle.is_queued_in_pool() and self._root._queue.remove(handle, self._lane(handle))

    def _relane(self, handle: Threadlet[Any], change: Callable[[], object]) -> None:
        """Change something about a queued threadlet that its lane depends on."""
        self._dequeue(handle)
        change()
        self._enqueue(handle)

    def _queued(self) -> int:
        """Return how many are in the pool's queue. O(1); O(those in the queue that it shares) for a part of a pool."""
        queue = self._root._queue
        if self._root is self:
            return len(queue)
        return sum(self in handle.pool._line for handle in queue)  # type: ignore[union-attr]

    # ------------------------------------------------------------------------------------------------- pump

    def _arm(self) -> None:
        """Have the pump run in the next round of the loop."""
        if not self._armed and not self._home.loop.is_closed():  # another pool may share a throttle, and live on
            self._armed = True
            self._home.loop.call_soon(self._pump)

    def _rearm(self) -> None:
        """Have another pump run, since this one has called something that blocks."""
        self._armed = False
        if self._queue.size:
            self._arm()

    def _pump(self) -> None:
        """Start what may start: the most urgent first, for as long as one turn allows."""
        home = self._home
        home.turn = TURN
        home.pumping = self
        lane: Place | None = None
        queue = self._queue
        try:
            while queue.size and home.turn >= 0:
                now = trials.now()
                lane = self._next(now)
                if lane is None:
                    break
                pool, keys = lane.key
                pool._take(keys, now)
                handle = queue.pop(lane)
                lane = None
                if handle._marks & TIED:
                    home.lendings.forget(handle)
                pool._launch(handle, now)
        except Exception as error:
            if lane is None:
                raise
            self._set_aside(lane, error)
        finally:
            home.pumping = None
            self._armed = False
            if not self._queue.size:
                self._set_direct()
            elif home.must_wait() or not (self._stuck or self._queue.first() is None):
                self._arm()

    def _launch(self, handle: Threadlet[Any], now: int) -> None:
        """Start a threadlet that has left the queue; the throttles have been taken at this time, in ns."""
        handle._marks |= ADMITTED
        if self._clocked:
            self._began[handle] = now
        self._waited(handle, max(0, now - handle._arrived))
        if listeners:
            events.tell(events.ADMITTED, handle)
        self._home.launch(handle)

    def _next(self, now: int) -> Place | None:
        """Return the lane whose first threadlet is to start; None if all have to wait."""
        if self._stuck is not None:
            return None
        for throttle in self._plain:
            try:
                if throttle.ready(None, now):
                    continue
                self._stuck = self._call_when(throttle, None, now, self._unstick)
            except Exception as error:
                self._stuck = self._home.loop.call_later(AGAIN, self._unstick).cancel
                self._tell(f"{throttle!r} of {self!r} raised: it is asked again in {AGAIN} s", error)
            return None
        while (found := self._queue.first()) is not None:
            pool, keys = found.key
            try:
                objector = pool._objector(keys, now) if pool._more else None
                if objector is None:
                    return found
                throttle, key = objector
                self._queue.close(found, self._call_when(throttle, key, now, partial(self._open, found)))
            except Exception as error:
                self._set_aside(found, error)
        return None

    def _call_when(self, throttle: Throttle, key: Hashable, now: int, wake: Callable[[], None]) -> Callable[[], None]:
        """Have ``wake()`` called when a throttle may agree; return what undoes that."""
        due = throttle.due(key, now)
        throttle.wait(key, wake)
        timer = None if due is None else self._home.loop.call_later((due - now) / 1e9, wake)

        def release() -> None:
            throttle.unwait(key, wake)
            if timer is not None:
                timer.cancel()

        return release

    def _unstick(self) -> None:
        """Look at the queue again: what has held back all of it may agree now."""
        if self._stuck is not None:
            release, self._stuck = self._stuck, None
            release()
        if self._queue.size:
            self._arm()

    def _open(self, lane: Place) -> None:
        """Look at a lane again: what has held it back may agree now."""
        if self._queue.open(lane):
            self._arm()

    def _set_aside(self, lane: Place, error: Exception) -> None:
        """Leave a lane alone for a while: a throttle has raised."""
        timer = self._home.loop.call_later(AGAIN, self._open, lane)
        self._queue.close(lane, timer.cancel)
        self._tell(f"a throttle of {lane.key[0]!r} raised: it is asked again in {AGAIN} s", error)

    def _bar(self) -> None:
        """Let nobody overtake the queue."""
        self._direct = False
        for child in self._children:
            child._bar()  # type: ignore[attr-defined]  # a Ledger's children are what it is

    def _set_direct(self) -> None:
        self._direct = not (self._throttles or self._bounded or self._closed or self._root._queue.size)
        for child in self._children:
            child._set_direct()  # type: ignore[attr-defined]  # a Ledger's children are what it is

    def _check(self) -> None:
        """Assert every invariant. O(n log n)."""
        super()._check()
        root = self._root
        if root is self:
            self._queue._check()
        lanes = {handle: lane for lane in root._queue._lanes.values() for handle in lane.queue}
        for handle, lane in lanes.items():
            pool: Any = handle.pool
            assert handle._state is QUEUED and handle.is_queued_in_pool(), "what is in the queue is queued"
            assert not handle._marks & ADMITTED, "what is queued has not been admitted"
            assert root._queue.lane(pool._lane(handle)) is lane, "it is in the lane that it belongs to"
        if root._queue.size:
            assert not self._direct, "nothing overtakes the queue"
            waits = root._stuck is not None or root._queue.first() is None
            assert root._armed or waits, "what is queued waits for a throttle or for the pump"
