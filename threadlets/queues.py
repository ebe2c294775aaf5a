"""A priority queue whose items can be re-keyed and removed, and an index of a pool's members.

Why: ``heapq`` alone can neither re-key nor remove, and a heap that tracks positions must sift in Python. Here an item
carries a *ticket*, and a place in the queue counts only while its item still carries the ticket of that place: removing
or re-keying leaves a stale place behind, which is skipped when it surfaces, and swept when the stale ones outnumber the
rest.

Most of the time there are few different priorities, and items come in the order in which they will leave. Those stand
in *lines*, one for each priority: lists of items, with no object for each, and no comparison. Whoever comes late, or
with a priority that has no line any more, goes into a heap of tuples, where all comparisons stay in C.

Rejected: the heap for all: 64 bytes more for each item, one more object for the garbage collector, ten times the price
of leaving it. A dict from item to place: 42 bytes. Sorted containers: a second copy of every key.

Invariants: see ``_check()``. Assumes: an item is in one queue at a time; the caller serializes access.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count, pairwise
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Index", "PriorityQueue", "Queueable", "priority_of"]

LINES = 32  # arbitrary: priorities that have lines; inserting one takes a look at a few
TRIM = 1_000  # arbitrary: places that have been left, at the front of a line, before these are given back


class Queueable(Protocol):
    """What an item of a ``PriorityQueue`` must offer: a place for its ticket, and when it came."""

    ticket: Any
    _arrived: int


K = TypeVar("K", bound=Queueable)
H = TypeVar("H", bound=Hashable)


class _Stretch(Generic[K]):
    """Neighbours in a line. Who leaves from the middle ends it: nobody comes back into a stretch that he has left."""

    __slots__ = ("head", "items", "last", "open", "priority")

    def __init__(self, priority: Any) -> None:
        self.priority = priority
        self.items: list[Any] = []
        self.head = 0  # how many have left at the front
        self.last = 0  # when the last one came
        self.open = True  # it is the last of its line, and who comes may join it

    def live(self) -> list[K]:
        """Return those that have not left."""
        return [item for item in self.items[self.head :] if item.ticket is self]


def priority_of(item: Queueable) -> Any:
    """Return the priority by which an item is in a queue. O(1)."""
    ticket = item.ticket
    return ticket.priority if type(ticket) is _Stretch else ticket[0]


class PriorityQueue(Generic[K]):
    """Items by priority, the smallest first; those of one priority in the order in which they came.

    A priority is anything hashable that can be compared with the others: a number, a tuple of numbers.

    >>> class Item:
    ...     def __init__(self, arrived):
    ...         self._arrived, self.ticket = arrived, None
    >>> queue, early, late = PriorityQueue(), Item(1), Item(2)
    >>> queue.push(late, 5); queue.push(early, 5)
    >>> queue.rekey(late, 0), queue.pop() is late
    (True, True)
    """

    __slots__ = ("_heap", "_lines", "_numbers", "_priorities", "_stale", "size")

    def __init__(self) -> None:
        self._lines: dict[Any, deque[_Stretch[K]]] = {}
        self._priorities: list[Any] = []  # of the lines, in order
        self._heap: list[tuple[Any, int, int, K]] = []
        self._numbers = count()  # so that no two items are ever compared
        self._stale = 0
        self.size = 0  # what len() says, for 50 ns less

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[K]:
        """Iterate over the items in no particular order."""
        for line in list(self._lines.values()):
            for stretch in line:
                yield from stretch.live()
        for place in self._heap:
            if place[3].ticket is place:
                yield place[3]

    def push(self, item: K, priority: Any) -> None:
        """Add an item. O(1) for the last of its priority; O(log n) otherwise."""
        self.size += 1
        line = self._lines.get(priority)
        if line is not None:
            stretch = line[-1]
            if stretch.last < item._arrived:
                if not stretch.open:
                    stretch = _Stretch(priority)
                    line.append(stretch)
                stretch.items.append(item)
                stretch.last = item._arrived
                item.ticket = stretch
                return
        elif len(self._lines) < LINES:
            stretch = _Stretch(priority)
            self._lines[priority] = deque((stretch,))
            insort(self._priorities, priority)
            stretch.items.append(item)
            stretch.last = item._arrived
            item.ticket = stretch
            return
        item.ticket = place = (priority, item._arrived, next(self._numbers), item)
        heappush(self._heap, place)

    def pop(self) -> K:
        """Remove and return the most urgent item. O(1) from a line, O(log n) from the heap, amortized.

        Raises:
            IndexError: If the queue is empty.
        """
        item = self.peek()
        stretch = item.ticket
        if stretch.__class__ is _Stretch:
            stretch.items[stretch.head] = None  # whoever has left is not held
            stretch.head += 1
            if stretch.head == len(stretch.items):
                self._drop(stretch)
            elif stretch.head > TRIM and stretch.head * 2 > len(stretch.items):
                del stretch.items[: stretch.head]
                stretch.head = 0
        else:
            heappop(self._heap)
        item.ticket = None
        self.size -= 1
        if self._stale > self.size:
            self._sweep()
        return item

    def peek(self) -> K:
        """Return the most urgent item and leave it in. O(1), amortized; O(log n) for stale places in the heap.

        Raises:
            IndexError: If the queue is empty.
        """
        if not self.size:
            raise IndexError("peek into an empty queue")
        heap = self._heap
        while heap and heap[0][3].ticket is not heap[0]:
            heappop(heap)
            self._stale -= 1
        while self._priorities:
            stretch = self._lines[self._priorities[0]][0]
            item = stretch.items[stretch.head]
            if item.ticket is stretch:
                if heap:
                    place = heap[0]
                    if place[0] < stretch.priority or (place[0] == stretch.priority and place[1] < item._arrived):
                        return place[3]
                return item  # type: ignore[no-any-return]
            self._stale -= 1
            stretch.items[stretch.head] = None
            stretch.head += 1
            if stretch.head == len(stretch.items):
                self._drop(stretch)
        return heap[0][3]

    def _drop(self, stretch: _Stretch[K]) -> None:
        """Do without the first stretch of the first line, which everybody has left."""
        line = self._lines[stretch.priority]
        line.popleft()
        if not line:
            del self._lines[stretch.priority]
            del self._priorities[0]

    def remove(self, item: K) -> bool:
        """Take an item out; False if it is not in. O(1), amortized."""
        ticket = item.ticket
        if ticket is None:
            return False
        item.ticket = None
        self.size -= 1
        self._stale += 1
        if type(ticket) is _Stretch:
            ticket.open = False
        if self._stale > self.size:
            self._sweep()
        return True

    def rekey(self, item: K, priority: Any) -> bool:
        """Give an item another priority; its order among equals stays. False if it is not in. O(log n), amortized."""
        ticket = item.ticket
        if ticket is None:
            return False
        if type(ticket) is _Stretch:
            if ticket.priority == priority:
                return True
            ticket.open = False
        elif ticket[0] == priority:
            return True
        self.size -= 1
        self._stale += 1
        self.push(item, priority)
        if self._stale > self.size:
            self._sweep()
        return True

    def _sweep(self) -> None:
        """Drop the stale places: they outnumber the live ones."""
        for priority, line in list(self._lines.items()):
            stretches: deque[_Stretch[K]] = deque()
            for stretch in line:
                stretch.items = stretch.live()
                stretch.head = 0
                if stretch.items:
                    stretches.append(stretch)
            if stretches:
                stretches[-1].open = True
                self._lines[priority] = stretches
            else:
                del self._lines[priority]
        self._priorities = sorted(self._lines)
        self._heap = [place for place in self._heap if place[3].ticket is place]
        heapify(self._heap)
        self._stale = 0

    def _check(self) -> None:
        """Assert every invariant. O(n log n)."""
        items, places = list(self), len(self._heap)
        assert len(items) == self.size == len({id(item) for item in items}), "each item has one place"
        assert self._priorities == sorted(self._lines) and len(self._lines) <= LINES, "the lines are in order"
        for priority, line in self._lines.items():
            assert line, "no line is empty"
            arrivals = [item._arrived for stretch in line for item in stretch.live()]
            assert all(earlier < later for earlier, later in pairwise(arrivals)), "a line is in order"
            for stretch in line:
                assert stretch.last >= max((item._arrived for item in stretch.live()), default=0), "the last is known"
                assert stretch.priority == priority and 0 <= stretch.head < len(stretch.items), "no stretch is empty"
                assert stretch is line[-1] or not stretch.open or not stretch.items, "nobody joins in the middle"
                assert not stretch.open or len(stretch.live()) == len(stretch.items) - stretch.head, "none has left"
                places += len(stretch.items) - stretch.head
        assert places == self.size + self._stale, "stale places are counted"
        assert self._stale <= self.size, "and do not outnumber live ones"
        for place in range(1, len(self._heap)):
            assert self._heap[(place - 1) // 2][:3] <= self._heap[place][:3], "the heap is a heap"


class Index(Generic[H]):
    """Members by group and by tag, in order of arrival; every operation is O(1) per tag.

    >>> index = Index()
    >>> index.add("a", "load", {"red"}); index.add("b", "load", ())
    >>> list(index.grouped("load")), list(index.tagged("red")), len(index)
    (['a', 'b'], ['a'], 2)
    """

    __slots__ = ("_groups", "_tags", "size")

    def __init__(self) -> None:
        self._groups: dict[Hashable, dict[H, None]] = {}
        self._tags: dict[Hashable, dict[H, None]] = {}
        self.size = 0  # what len() says, for 50 ns less

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[H]:
        for members in self._groups.values():
            yield from members

    def groups(self) -> Iterator[Hashable]:
        """Iterate over the groups that have members."""
        return iter(self._groups)

    def grouped(self, group: Hashable) -> dict[H, None]:
        """Return the members of a group; do not change it."""
        return self._groups.get(group, {})

    def tagged(self, tag: Hashable) -> dict[H, None]:
        """Return the members that carry a tag; do not change it."""
        return self._tags.get(tag, {})

    def add(self, item: H, group: Hashable, tags: Iterable[Hashable]) -> None:
        """Add a member."""
        members = self._groups.get(group)
        if members is None:
            members = self._groups[group] = {}
        members[item] = None
        self.size += 1
        for tag in tags:
            self._tags.setdefault(tag, {})[item] = None

    def remove(self, item: H, group: Hashable, tags: Iterable[Hashable]) -> None:
        """Remove a member.

        Raises:
            KeyError: If it is not in the group.
        """
        members = self._groups[group]
        del members[item]
        if not members:
            del self._groups[group]
        self.size -= 1
        for tag in tags:
            tagged = self._tags[tag]
            del tagged[item]
            if not tagged:
                del self._tags[tag]

    def retag(self, item: H, old: frozenset[Hashable], new: frozenset[Hashable]) -> None:
        """Change the tags of a member. O(tags)."""
        for tag in old - new:
            tagged = self._tags[tag]
            del tagged[item]
            if not tagged:
                del self._tags[tag]
        for tag in new - old:
            self._tags.setdefault(tag, {})[item] = None

    def _check(self) -> None:
        """Assert every invariant. O(n)."""
        assert self.size == sum(map(len, self._groups.values())), "each member is in one group"
        assert all(self._groups.values()), "no empty group stays"
        assert all(self._tags.values()), "no empty tag stays"
        everyone = set(self)
        assert len(everyone) == self.size, "no member is in two groups"
        assert all(item in everyone for tagged in self._tags.values() for item in tagged), "tags have members only"
