"""A queue in lanes: what may not start yet does not stand in the way of what may.

Why: throttles that look at tags treat items differently, and one heap would have to be searched past all that are held
back. But a throttle knows an item only by a key. So items with equal keys are alike to every throttle; they stand in
one *lane*, most urgent first. A lane whose first item may not start is *closed* until a throttle calls; the others are
ordered by their first items. Whoever is held back, nobody looks at them.

A pool whose throttles do not look at tags has one lane, and then the order of lanes is not kept at all.

Where throttles rank (``FairShare``), lanes go by rank, and by urgency within one. A rank only grows while its lane is
open, so an order that was kept is a lower bound: the first lane is compared with what it should be, and put back if it
has fallen behind.

Invariants: see ``_check()``. Assumes: what ``PriorityQueue`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Generic, TypeVar

from .queues import PriorityQueue, Queueable, priority_of

__all__ = ["Lane", "Lanes"]

K = TypeVar("K", bound=Queueable)


class Lane(Generic[K]):
    """Items that every throttle treats alike.

    Attributes:
        key: What they have in common.
        closed: Whether its first item has been found to have to wait.
        queue: The items.
        release: Called when it is opened, or has become empty: to undo what was to open it.
    """

    __slots__ = ("_arrived", "closed", "key", "queue", "release", "ticket")

    def __init__(self, key: Any) -> None:
        self.key = key
        self.closed = False
        self.queue: PriorityQueue[K] = PriorityQueue()
        self.release: Callable[[], object] | None = None
        self.ticket: Any = None  # its place among the lanes
        self._arrived = 0  # the first item, as far as its place goes by it

    def __repr__(self) -> str:
        return f"<Lane {self.key}: {len(self.queue)} items{', closed' * self.closed}>"


class Lanes(Generic[K]):
    """Items by lane and urgency. Each operation is O(log n), amortized, unless it says otherwise.

    Args:
        rank: Returns the rank of a lane's key: lanes with smaller ones go first.
        both_ends: Whether the least urgent item is wanted, too, for one more tuple per item.
        on_empty: Called with each lane that has become empty.

    >>> class Item:
    ...     def __init__(self, arrived):
    ...         self._arrived, self.ticket = arrived, None
    >>> lanes, early, late = Lanes(), Item(1), Item(2)
    >>> slow, fast = lanes.push(early, "slow", 0), lanes.push(late, "fast", 0)
    >>> lanes.close(lanes.first())
    >>> lanes.pop(lanes.first()) is late, lanes.first()
    (True, None)
    """

    __slots__ = ("_lanes", "_least", "_numbers", "_on_empty", "_only", "_order", "_rank", "size")

    def __init__(
        self,
        rank: Callable[[Any], Any] | None = None,
        *,
        both_ends: bool = False,
        on_empty: Callable[[Lane[K]], object] | None = None,
    ) -> None:
        self._lanes: dict[Hashable, Lane[K]] = {}
        self._only: Lane[K] | None = None  # if there is one
        self._order: PriorityQueue[Lane[K]] = PriorityQueue()  # kept where there are several lanes; has the open ones
        self._rank = rank
        self._on_empty = on_empty
        self._least: list[tuple[Any, int, int, K, Any]] | None = [] if both_ends else None
        self._numbers = count()
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[K]:
        """Iterate over the items in no particular order."""
        for lane in self._lanes.values():
            yield from lane.queue

    def lane(self, key: Hashable) -> Lane[K] | None:
        """Return the lane of a key, if there are items in it. O(1)."""
        return self._lanes.get(key)

    def push(self, item: K, key: Hashable, urgency: Any) -> Lane[K]:
        """Add an item to the lane of a key. Return the lane."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._add_lane(key)
        lane.queue.push(item, urgency)
        self.size += 1
        if lane is not self._only:
            self._hurry(lane, item, urgency)
        if self._least is not None:
            self._mirror(item, urgency)
        return lane

    def first(self) -> Lane[K] | None:
        """Return the open lane that goes first; None if there is none."""
        if self._only is not None:
            return None if self._only.closed else self._only
        order = self._order
        while order:
            lane = order.peek()
            ticket, arrived = lane.ticket, lane._arrived
            self._place(lane)
            if lane.ticket is ticket and lane._arrived == arrived:
                return lane
        return None

    def pop(self, lane: Lane[K]) -> K:
        """Remove and return the most urgent item of a lane.

        Raises:
            IndexError: If the lane is empty.
        """
        item = lane.queue.pop()
        self.size -= 1
        if not lane.queue.size:
            self._drop_lane(lane)
        if self._least is not None:
            self._sweep()
        return item

    def remove(self, item: K, key: Hashable) -> bool:
        """Take an item out of the lane of a key; False if it is not in."""
        lane = self._lanes.get(key)
        if lane is None or not lane.queue.remove(item):
            return False
        self.size -= 1
        if not lane.queue.size:
            self._drop_lane(lane)
        if self._least is not None:
            self._sweep()
        return True

    def rekey(self, item: K, key: Hashable, urgency: Any) -> bool:
        """Give an item another urgency; its order among equals stays. False if it is not in."""
        lane = self._lanes.get(key)
        if lane is None or item.ticket is None:
            return False
        lane.queue.rekey(item, urgency)
        if lane is not self._only:
            self._hurry(lane, item, urgency)
        if self._least is not None:
            self._mirror(item, urgency)
        return True

    def close(self, lane: Lane[K], release: Callable[[], object] | None = None) -> None:
        """Leave a lane out until it is opened: its first item has to wait."""
        lane.closed = True
        lane.release = release
        self._order.remove(lane)

    def open(self, lane: Lane[K]) -> bool:
        """Look at a lane again, if it is still there; say so."""
        if self._lanes.get(lane.key) is not lane:
            return False
        _release(lane)
        lane.closed = False
        if lane is not self._only:
            self._place(lane)
        return True

    def rerank(self) -> None:
        """Put every open lane where its rank wants it now. O(lanes)."""
        for lane in self._lanes.values():
            if lane is not self._only:
                self._place(lane)

    def peek_least(self) -> K:
        """Return the least urgent item, the latest among equals, whatever its lane.

        Raises:
            IndexError: If there is none.
            ValueError: If this was made without ``both_ends=True``.
        """
        if self._least is None:
            raise ValueError("these lanes were made without both_ends=True")
        if not self.size:
            raise IndexError("peek into empty lanes")
        while not self._counts(self._least[0]):
            heappop(self._least)
        return self._least[0][3]

    def _place(self, lane: Lane[K]) -> None:
        """Put an open lane where its first item belongs."""
        if lane.closed:
            return
        first = lane.queue.peek()
        urgency = priority_of(first)
        if self._rank is not None:
            urgency = (self._rank(lane.key), urgency)
        if lane.ticket is None or lane._arrived != first._arrived or priority_of(lane) != urgency:
            self._order.remove(lane)
            lane._arrived = first._arrived
            self._order.push(lane, urgency)

    def _hurry(self, lane: Lane[K], item: K, urgency: Any) -> None:
        """Put a lane forward if an item that it has got goes before its first one."""
        if lane.ticket is None:
            self._place(lane)
        else:
            bound = priority_of(lane)
            if (urgency, item._arrived) < (bound if self._rank is None else bound[1], lane._arrived):
                self._place(lane)

    def _add_lane(self, key: Hashable) -> Lane[K]:
        """Make a lane. Where there is only one, the order of lanes is not kept."""
        lane = self._lanes[key] = Lane(key)
        if len(self._lanes) == 1:
            self._only = lane
        elif self._only is not None:
            only, self._only = self._only, None
            self._place(only)
        return lane

    def _drop_lane(self, lane: Lane[K]) -> None:
        del self._lanes[lane.key]
        self._order.remove(lane)
        self._only = None
        if len(self._lanes) == 1:
            (self._only,) = self._lanes.values()
        _release(lane)
        if self._on_empty is not None:
            self._on_empty(lane)

    def _mirror(self, item: K, urgency: Any) -> None:
        """Note an item at the other end."""
        assert self._least is not None
        heappush(self._least, (_mirrored(urgency), -item._arrived, -next(self._numbers), item, item.ticket))
        self._sweep()

    def _counts(self, entry: tuple[Any, int, int, K, Any]) -> bool:
        """Say whether what was noted at the other end is still so."""
        return entry[3].ticket is entry[4]

    def _sweep(self) -> None:
        """Drop what is stale at the other end once it outnumbers the rest."""
        if self._least is not None and len(self._least) > 2 * self.size:
            self._least = list({id(entry[3]): entry for entry in self._least if self._counts(entry)}.values())
            heapify(self._least)

    def _check(self) -> None:
        """Assert every invariant. O(n log n)."""
        self._order._check()
        assert self.size == sum(len(lane.queue) for lane in self._lanes.values()), "items are counted"
        assert (self._only is not None) == (len(self._lanes) == 1), "the only lane is known as such"
        for key, lane in self._lanes.items():
            lane.queue._check()
            assert lane.queue and lane.key == key, "a lane is there as long as it has items"
            assert not lane.closed or lane.ticket is None, "a closed lane is left out"
            if self._only is None and not lane.closed:
                assert lane.ticket is not None, "an open lane has its place"
                first, bound = lane.queue.peek(), priority_of(lane)
                if self._rank is None or bound[0] == self._rank(key):
                    bound = bound if self._rank is None else bound[1]
                    standing = (priority_of(first), first._arrived)
                    assert (bound, lane._arrived) <= standing, "no lane goes later than its first item"
        assert all(self._lanes.get(lane.key) is lane for lane in self._order), "no place is kept for an empty lane"
        if self._least is not None:
            mirrored = {id(entry[3]) for entry in self._least if self._counts(entry)}
            assert mirrored == {id(item) for item in self}, "both ends see the same items"
            assert len(self._least) <= max(1, 2 * self.size), "stale entries do not outnumber the rest"


def _release(lane: Lane[Any]) -> None:
    release, lane.release = lane.release, None
    if release is not None:
        release()


def _mirrored(urgency: Any) -> Any:
    """Turn an order round: for numbers, and for tuples of them.

    >>> _mirrored((1, 2)) > _mirrored((1, 3)), _mirrored(1) > _mirrored(2)
    (True, True)
    """
    return tuple(-each for each in urgency) if type(urgency) is tuple else -urgency
