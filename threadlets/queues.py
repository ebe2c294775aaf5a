"""A priority queue whose items can be re-keyed and removed, and an index of a pool's members.

Why: ``heapq`` alone can neither re-key nor remove, and a heap that tracks positions must sift in Python. Here each item
carries its *ticket*, ``(priority, order, item)``, and a ticket counts only while its item still carries it: removing or
re-keying leaves a stale ticket behind, which is skipped when it surfaces and swept when stale tickets outnumber the
rest. All comparisons stay in C, and an item costs one tuple and one list place.

Rejected: a dict from item to ticket (42 bytes more per item); lists as tickets, which could be emptied at once (32
bytes more); sorted containers (a second copy of every key).

Invariants: see ``_check()``. Assumes: an item is in one queue at a time; the caller serializes access.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import chain, pairwise
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Index", "PriorityQueue", "Queueable"]


class Queueable(Protocol):
    """What an item of a ``PriorityQueue`` must offer: a place for its ticket."""

    ticket: tuple[Any, ...] | None


K = TypeVar("K", bound=Queueable)
H = TypeVar("H", bound=Hashable)


class PriorityQueue(Generic[K]):
    """Items by priority, lowest number first; ties in the order given.

    Items that come in the order in which they will leave - most of the time all have one priority - do not go through
    the heap but stand in a *line*: leaving it costs a tenth.

    With ``both_ends=True`` the least urgent item can be taken out too, for one more tuple per item.

    >>> class Item:
    ...     ticket = None
    >>> queue, early, late = PriorityQueue(), Item(), Item()
    >>> queue.push(late, 5, 2); queue.push(early, 5, 1)
    >>> queue.rekey(late, 0), queue.pop() is late
    (True, True)
    """

    __slots__ = ("_heap", "_least", "_line", "size")

    def __init__(self, *, both_ends: bool = False) -> None:
        self._heap: list[tuple[float, int, K]] = []
        self._line: deque[tuple[float, int, K]] = deque()  # in order
        self._least: list[tuple[float, int, tuple[float, int, K]]] | None = [] if both_ends else None
        self.size = 0  # what len() says, for 50 ns less

    def __len__(self) -> int:
        return self.size

    def __contains__(self, item: K) -> bool:
        return item.ticket is not None

    def __iter__(self) -> Iterator[K]:
        """Iterate over the items in no particular order."""
        return (ticket[2] for ticket in chain(self._line, self._heap) if ticket[2].ticket is ticket)

    def push(self, item: K, priority: float, order: int) -> None:
        """Add an item; ``order`` is unique within the queue and breaks ties. O(log n), O(1) in line."""
        ticket = (priority, order, item)
        item.ticket = ticket
        self.size += 1
        if not self._line or self._line[-1] < ticket:
            self._line.append(ticket)
        else:
            heappush(self._heap, ticket)
        if self._least is not None:
            heappush(self._least, (-priority, -order, ticket))

    def pop(self) -> K:
        """Remove and return the most urgent item. O(log n), amortized; O(1) from the line.

        Raises:
            IndexError: If the queue is empty.
        """
        if not self.size:
            raise IndexError("pop from an empty queue")
        line, heap = self._line, self._heap
        while True:
            ticket = line.popleft() if line and not (heap and heap[0] < line[0]) else heappop(heap)
            item = ticket[2]
            if item.ticket is ticket:
                item.ticket = None
                self.size -= 1
                if len(line) + len(heap) > 2 * self.size or self._least is not None:
                    self._sweep()
                return item

    def peek(self) -> K:
        """Return the most urgent item and leave it in. O(log n), amortized.

        Raises:
            IndexError: If the queue is empty.
        """
        if not self.size:
            raise IndexError("peek into an empty queue")
        line, heap = self._line, self._heap
        while True:
            in_line = bool(line) and not (heap and heap[0] < line[0])
            ticket = line[0] if in_line else heap[0]
            if ticket[2].ticket is ticket:
                return ticket[2]
            if in_line:
                line.popleft()
            else:
                heappop(heap)

    def peek_least(self) -> K:
        """Return the least urgent item, the latest among equals. O(log n), amortized.

        Raises:
            IndexError: If the queue is empty.
            ValueError: If the queue was made without ``both_ends=True``.
        """
        if self._least is None:
            raise ValueError("this queue was made without both_ends=True")
        if not self.size:
            raise IndexError("peek into an empty queue")
        while True:
            ticket = self._least[0][2]
            if ticket[2].ticket is ticket:
                return ticket[2]
            heappop(self._least)

    def remove(self, item: K) -> bool:
        """Take an item out; False if it is not in. O(1), amortized."""
        if item.ticket is None:
            return False
        item.ticket = None
        self.size -= 1
        self._sweep()
        return True

    def rekey(self, item: K, priority: float) -> bool:
        """Give an item another priority; its order among equals stays. False if it is not in. O(log n), amortized."""
        old = item.ticket
        if old is None:
            return False
        if old[0] == priority:
            return True
        self.size -= 1
        self.push(item, priority, old[1])
        self._sweep()
        return True

    def _sweep(self) -> None:
        """Drop the stale tickets once they outnumber the live ones."""
        if len(self._line) + len(self._heap) > 2 * self.size:
            self._line = deque([ticket for ticket in self._line if ticket[2].ticket is ticket])
            self._heap = [ticket for ticket in self._heap if ticket[2].ticket is ticket]
            heapify(self._heap)
        least = self._least
        if least is not None and len(least) > 2 * self.size:
            self._least = [entry for entry in least if entry[2][2].ticket is entry[2]]
            heapify(self._least)

    def _check(self) -> None:
        """Assert every invariant. O(n log n)."""
        live = [ticket for ticket in chain(self._line, self._heap) if ticket[2].ticket is ticket]
        assert len(live) == self.size == len({id(ticket[2]) for ticket in live}), "each item has one live ticket"
        assert len(self._line) + len(self._heap) <= 2 * self.size, "stale tickets do not outnumber live ones"
        assert len({(ticket[0], ticket[1]) for ticket in live}) == len(live), "keys are unique"
        for place in range(1, len(self._heap)):
            assert self._heap[(place - 1) // 2][:2] <= self._heap[place][:2], "the heap is a heap"
        assert all(earlier[:2] < later[:2] for earlier, later in pairwise(self._line)), "the line is in order"
        if self._least is not None:
            mirrored = [entry[2] for entry in self._least if entry[2][2].ticket is entry[2]]
            assert {id(ticket) for ticket in mirrored} == {id(ticket) for ticket in live}, (
                "both ends see the same items"
            )
            assert all(entry[:2] == (-entry[2][0], -entry[2][1]) for entry in self._least), "the other end is mirrored"


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

    def _check(self) -> None:
        """Assert every invariant. O(n)."""
        assert self.size == sum(map(len, self._groups.values())), "each member is in one group"
        assert all(self._groups.values()), "no empty group stays"
        assert all(self._tags.values()), "no empty tag stays"
        everyone = set(self)
        assert len(everyone) == self.size, "no member is in two groups"
        assert all(item in everyone for tagged in self._tags.values() for item in tagged), "tags have members only"
