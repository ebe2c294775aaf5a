"""The priority queue and the index, step by step against models that are too simple to be wrong."""

from __future__ import annotations

import gc
import itertools
import random
import weakref
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from threadlets.queues import Index, PriorityQueue

NUMBERS = st.one_of(st.integers(-3, 3), st.floats(allow_nan=False), st.sampled_from([True, 10**400, -0.0, 0]))
PAIRS = st.tuples(st.integers(0, 2), NUMBERS)


class Item:
    """What a queue holds."""

    def __init__(self, name: int = 0) -> None:
        self.ticket: Any = None
        self.name = self._arrived = name

    def __repr__(self) -> str:
        return f"<Item {self.name}>"


class QueueMachine(RuleBasedStateMachine):
    """A queue beside a dict of keys, which is searched from end to end."""

    priorities: st.SearchStrategy[Any] = NUMBERS

    @initialize()
    def begin(self) -> None:
        self.queue: PriorityQueue[Item] = PriorityQueue()
        self.model: dict[Item, tuple[Any, int]] = {}
        self.items: list[Item] = []
        self.orders = itertools.count()

    def first(self) -> Item:
        return min(self.model, key=self.model.__getitem__)

    @rule(data=st.data())
    def push(self, data: st.DataObject) -> None:
        priority = data.draw(self.priorities)
        item, order = Item(len(self.items)), next(self.orders)
        self.items.append(item)
        item._arrived = order
        self.queue.push(item, priority)
        self.model[item] = (priority, order)

    @rule(data=st.data())
    def push_again(self, data: st.DataObject) -> None:
        """An item that has left the queue may come back."""
        outside = [item for item in self.items if item not in self.model]
        if outside:
            priority = data.draw(self.priorities)
            item, order = data.draw(st.sampled_from(outside)), next(self.orders)
            item._arrived = order
            self.queue.push(item, priority)
            self.model[item] = (priority, order)

    @rule()
    def pop(self) -> None:
        if self.model:
            first = self.first()
            assert self.queue.pop() is first
            del self.model[first]
        else:
            with pytest.raises(IndexError):
                self.queue.pop()

    @rule()
    def peek(self) -> None:
        if self.model:
            assert self.queue.peek() is self.first()
        else:
            with pytest.raises(IndexError):
                self.queue.peek()

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.items:
            item = data.draw(st.sampled_from(self.items))
            assert self.queue.remove(item) is (self.model.pop(item, None) is not None)

    @rule(data=st.data())
    def rekey(self, data: st.DataObject) -> None:
        if self.items:
            priority = data.draw(self.priorities)
            item = data.draw(st.sampled_from(self.items))
            assert self.queue.rekey(item, priority) is (item in self.model)
            if item in self.model:
                self.model[item] = (priority, self.model[item][1])

    @invariant()
    def same(self) -> None:
        self.queue._check()
        assert len(self.queue) == len(self.model)
        assert set(self.queue) == set(self.model)
        assert all((item.ticket is not None) == (item in self.model) for item in self.items)


class PairsMachine(QueueMachine):
    """The same with priorities that are pairs of numbers."""

    priorities = PAIRS


class IndexMachine(RuleBasedStateMachine):
    """An index beside a dict of groups and tags in order of arrival."""

    @initialize()
    def begin(self) -> None:
        self.index: Index[int] = Index()
        self.model: dict[int, tuple[str, frozenset[str]]] = {}
        self.tagged: dict[str, list[int]] = {tag: [] for tag in "xyzw"}  # in the order in which they got the tag
        self.names = itertools.count()

    @rule(group=st.sampled_from("ab"), tags=st.frozensets(st.sampled_from("xyz")))
    def add(self, group: str, tags: frozenset[str]) -> None:
        item = next(self.names)
        self.index.add(item, group, tags)
        self.model[item] = (group, tags)
        for tag in tags:
            self.tagged[tag].append(item)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.model:
            item = data.draw(st.sampled_from(sorted(self.model)))
            group, tags = self.model.pop(item)
            self.index.remove(item, group, tags)
            for tag in tags:
                self.tagged[tag].remove(item)

    @rule(data=st.data(), tags=st.frozensets(st.sampled_from("xyz")))
    def retag(self, data: st.DataObject, tags: frozenset[str]) -> None:
        if self.model:
            item = data.draw(st.sampled_from(sorted(self.model)))
            group, old = self.model[item]
            self.index.retag(item, old, tags)
            self.model[item] = (group, tags)
            for tag in tags - old:
                self.tagged[tag].append(item)
            for tag in old - tags:
                self.tagged[tag].remove(item)

    @rule(group=st.sampled_from("ab"))
    def remove_stranger(self, group: str) -> None:
        with pytest.raises(KeyError):
            self.index.remove(-1, group, ())

    @invariant()
    def same(self) -> None:
        self.index._check()
        assert len(self.index) == len(self.model)
        assert sorted(self.index) == sorted(self.model)
        assert set(self.index.groups()) == {group for group, _ in self.model.values()}
        for group in "abc":
            assert list(self.index.grouped(group)) == [item for item, (own, _) in self.model.items() if own == group]
        for tag, items in self.tagged.items():
            assert list(self.index.tagged(tag)) == items


for machine in (QueueMachine, PairsMachine, IndexMachine):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestQueue = QueueMachine.TestCase
TestPairs = PairsMachine.TestCase
TestIndex = IndexMachine.TestCase


def test_ties_go_by_order() -> None:
    """Items of one priority leave in the order given, also after a change of priority and back."""
    queue: PriorityQueue[Item] = PriorityQueue()
    items = [Item(name) for name in range(20)]
    for item in items:
        queue.push(item, 1)
    for item in items[::3]:
        assert queue.rekey(item, 0)
        assert queue.rekey(item, 1)
    queue._check()
    assert [queue.pop() for _ in items] == items


def test_seeded_stress() -> None:
    """100,000 operations in a changing mix leave the queue as a dict with every key would have it."""
    seed = 20070525
    print(f"seed={seed}")
    chance = random.Random(seed)
    queue: PriorityQueue[Item] = PriorityQueue()
    keys: dict[Item, tuple[float, int]] = {}
    inside: list[Item] = []
    popped = 0
    for number in range(100_000):
        if number % 5_000 == 0:
            queue._check()
            assert set(queue) == set(keys)
            push, leave = chance.choice([(0.7, 0.8), (0.3, 0.7), (0.1, 0.2), (0.1, 0.9)])
        kind = chance.random()
        if kind < push or not inside:
            item = Item(number)
            priority = chance.choice([chance.randrange(5), chance.random()])
            queue.push(item, priority)
            keys[item] = (priority, number)
            inside.append(item)
            continue
        place = chance.randrange(len(inside))
        item = inside[place]
        if item not in keys:  # it was popped
            inside[place] = inside[-1]
            inside.pop()
            assert not queue.remove(item)
            assert not queue.rekey(item, 1)
        elif kind > leave:
            priority = chance.randrange(100)
            assert queue.rekey(item, priority)
            keys[item] = (priority, keys[item][1])
        elif kind > (push + leave) / 2:
            assert queue.remove(item)
            del keys[item]
        else:
            first = queue.peek()
            assert queue.pop() is first
            key = keys.pop(first)
            popped += 1
            if keys and popped % 64 == 0:
                assert key < min(keys.values())
    queue._check()
    assert popped > 10_000
    left = [queue.pop() for _ in range(len(queue))]
    assert left == sorted(keys, key=keys.__getitem__)


@pytest.mark.parametrize("how", ["pop", "remove"])
def test_what_leaves_is_freed(how: str) -> None:
    """An item that was popped is freed at once; one that was removed, when stale tickets outnumber live ones."""
    gc.disable()
    try:
        queue: PriorityQueue[Item] = PriorityQueue()
        items = [Item(name) for name in range(100)]
        for item in items:
            queue.push(item, item.name % 7)
        watched = [weakref.ref(item) for item in items]
        for left in range(99, -1, -1):
            item = queue.pop() if how == "pop" else items[left]
            queue.remove(item)
            items.remove(item)
            del item
            held = sum(ref() is not None for ref in watched) - len(items)
            assert held <= left, "no more memory is held than the queue uses itself"
            if how == "pop":
                assert held == 0
        assert all(ref() is None for ref in watched)
    finally:
        gc.enable()


def test_rekeying_does_not_pile_up() -> None:
    """Changing priorities for ever needs no more than twice the places."""
    queue: PriorityQueue[Item] = PriorityQueue()
    items = [Item(name) for name in range(10)]
    for item in items:
        queue.push(item, 0)
    for number in range(1000):
        queue.rekey(items[number % 10], -number)
        queue._check()  # stale tickets do not outnumber live ones


@pytest.mark.parametrize("size", [256, 4096])
def test_comparisons(size: int) -> None:
    """Removing compares nothing, amortized over sweeps; the rest needs about log2 n comparisons."""
    compared = 0

    class Key(float):
        def __lt__(self, other: float) -> bool:
            nonlocal compared
            compared += 1
            return float(self) < float(other)

    chance = random.Random(size)
    queue: PriorityQueue[Item] = PriorityQueue()
    items = [Item(name) for name in range(size)]
    for item in items:
        queue.push(item, Key(chance.random()))
    assert compared <= 4 * size, "pushing: a constant on the average"
    compared = 0
    for item in items:
        queue.rekey(item, Key(chance.random()))
    assert compared <= size * (size.bit_length() + 8)
    compared = 0
    for item in items[: size // 2]:
        queue.remove(item)
    assert compared <= 4 * size, "removing: only the sweeps compare"
    compared = 0
    for _ in range(size // 2):
        queue.pop()
    assert compared <= size // 2 * (2 * size.bit_length() + 8)
    assert not queue
