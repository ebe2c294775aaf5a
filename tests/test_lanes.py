"""Lanes, step by step beside a dict of items that is searched from end to end."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from threadlets.lanes import Lane, Lanes
from threadlets.queues import PriorityQueue

KEYS = st.sampled_from("abcde")
NUMBERS = st.one_of(st.integers(-2, 2), st.floats(allow_nan=False), st.sampled_from([True, 10**400, -0.0, 0]))
PAIRS = st.tuples(st.one_of(st.integers(0, 2), st.just(float("inf"))), st.integers(-2, 2))


class Item:
    """What lanes hold."""

    def __init__(self, name: int = 0) -> None:
        self.ticket: Any = None
        self.name = self._arrived = name

    def __repr__(self) -> str:
        return f"<Item {self.name}>"


class Model:
    """What lanes should do, so simple that it cannot be wrong; both are told everything, and compared."""

    def __init__(self, ranked: bool, both_ends: bool) -> None:
        self.ranks: dict[str, int] = dict.fromkeys("abcde", 0)
        self.ranked, self.both_ends = ranked, both_ends
        self.items: dict[Item, tuple[str, Any, int]] = {}  # key, urgency, order
        self.closed: set[str] = set()
        self.released: Counter[object] = Counter()
        self.emptied: list[Lane[Item]] = []
        self.lanes: Lanes[Item] = Lanes(
            self.rank if ranked else None, both_ends=both_ends, on_empty=self.emptied.append
        )
        self.orders = itertools.count()

    def rank(self, key: str) -> int:
        return self.ranks[key]

    def in_use(self) -> set[str]:
        return {key for key, _, _ in self.items.values()}

    def first_of(self, key: str) -> Item:
        mine = [item for item, place in self.items.items() if place[0] == key]
        return min(mine, key=lambda item: self.items[item][1:])

    def first(self) -> str | None:
        heads = [self.items[self.first_of(key)] for key in sorted(self.in_use() - self.closed)]
        if not heads:
            return None
        return min(heads, key=lambda head: (self.ranks[head[0]] if self.ranked else 0, *head[1:]))[0]

    def push(self, item: Item, key: str, urgency: Any, order: int | None = None) -> None:
        item._arrived = order = next(self.orders) if order is None else order
        lane = self.lanes.push(item, key, urgency)
        self.items[item] = key, urgency, order
        assert lane is self.lanes.lane(key) and lane.key == key and lane.closed == (key in self.closed)

    def left(self, item: Item, lane: Lane[Item]) -> None:
        """Note that an item has left its lane."""
        key = self.items.pop(item)[0]
        if key not in self.in_use():
            assert self.emptied.pop() is lane, "an empty lane is told of, once"
            assert self.lanes.lane(key) is None
            self.closed.discard(key)
            assert not self.lanes.open(lane), "a lane that has gone cannot be opened"
        assert not self.emptied, "a lane that has items is not told of"

    def pop(self, key: str) -> Item:
        lane = self.lanes.lane(key)
        assert lane is not None
        item = self.lanes.pop(lane)
        assert item is self.first_of(key)
        self.left(item, lane)
        return item

    def remove(self, item: Item) -> None:
        key = self.items[item][0]
        lane = self.lanes.lane(key)
        assert lane is not None
        assert self.lanes.remove(item, key)
        assert not self.lanes.remove(item, key)
        self.left(item, lane)

    def send_away(self, item: Item) -> None:
        """Take an item out and let it wait in another queue, with the priority that it had."""
        urgency = self.items[item][1]
        self.remove(item)
        PriorityQueue[Item]().push(item, urgency)

    def rekey(self, item: Item, urgency: Any) -> None:
        key, _, order = self.items[item]
        assert self.lanes.rekey(item, key, urgency)
        self.items[item] = key, urgency, order

    def close(self, key: str) -> object:
        lane, mark = self.lanes.lane(key), object()
        assert lane is not None
        release: Callable[[], object] = lambda: self.released.update([mark])  # noqa: E731
        self.lanes.close(lane, release)
        self.closed.add(key)
        return mark

    def open(self, key: str) -> None:
        lane = self.lanes.lane(key)
        assert lane is not None
        assert self.lanes.open(lane)
        assert not lane.closed and lane.release is None
        self.closed.discard(key)

    def check(self) -> None:
        lanes = self.lanes
        lanes._check()
        assert len(lanes) == lanes.size == len(self.items)
        assert sorted(item.name for item in lanes) == sorted(item.name for item in self.items)
        first = lanes.first()
        assert (None if first is None else first.key) == self.first(), "the most urgent open lane goes first"
        for key in self.in_use():
            lane = lanes.lane(key)
            assert lane is not None and lane.closed == (key in self.closed)
            assert lane.queue.peek() is self.first_of(key)
        if not self.both_ends:
            with pytest.raises(ValueError):
                lanes.peek_least()
        elif self.items:
            assert lanes.peek_least() is max(self.items, key=lambda item: self.items[item][1:])
        else:
            with pytest.raises(IndexError):
                lanes.peek_least()


class LanesMachine(RuleBasedStateMachine):
    """Any operation, in any order."""

    ranked = both_ends = False
    urgencies: st.SearchStrategy[Any] = NUMBERS

    @initialize()
    def begin(self) -> None:
        self.model = Model(self.ranked, self.both_ends)
        self.marks: dict[str, object] = {}  # of those that are closed
        self.over: list[object] = []  # of those that were opened, or have become empty
        self.names = itertools.count()

    def any_item(self, data: st.DataObject) -> Item | None:
        items = list(self.model.items)
        return data.draw(st.sampled_from(items)) if items else None

    def forget_marks(self) -> None:
        for key in set(self.marks) - self.model.closed:
            self.over.append(self.marks.pop(key))

    @rule(key=KEYS, data=st.data())
    def push(self, key: str, data: st.DataObject) -> None:
        self.model.push(Item(next(self.names)), key, data.draw(self.urgencies))

    @rule()
    def pop_first(self) -> None:
        lane = self.model.lanes.first()
        if lane is not None:
            self.model.pop(lane.key)

    @rule(key=KEYS)
    def pop(self, key: str) -> None:
        """Also from a lane that is not first, or closed."""
        if key in self.model.in_use():
            self.model.pop(key)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        item = self.any_item(data)
        if item is not None:
            self.model.remove(item)

    @rule(data=st.data())
    def send_away(self, data: st.DataObject) -> None:
        """An item may go on to another queue."""
        item = self.any_item(data)
        if item is not None:
            self.model.send_away(item)

    @rule(data=st.data(), key=KEYS)
    def change_lane(self, data: st.DataObject, key: str) -> None:
        """An item may leave one lane for another, and keep its order."""
        item = self.any_item(data)
        if item is not None:
            _, urgency, order = self.model.items[item]
            self.model.remove(item)
            self.model.push(item, key, urgency, order)

    @rule(data=st.data())
    def rekey(self, data: st.DataObject) -> None:
        item = self.any_item(data)
        if item is not None:
            self.model.rekey(item, data.draw(self.urgencies))

    @rule(key=KEYS, data=st.data())
    def strangers(self, key: str, data: st.DataObject) -> None:
        """What is not in cannot be removed, nor re-keyed."""
        stranger = Item(-1)
        assert not self.model.lanes.remove(stranger, key)
        assert not self.model.lanes.rekey(stranger, key, data.draw(self.urgencies))
        assert stranger.ticket is None

    @rule()
    def close_first(self) -> None:
        lane = self.model.lanes.first()
        if lane is not None:
            self.marks[lane.key] = self.model.close(lane.key)

    @rule(key=KEYS)
    def open(self, key: str) -> None:
        """Also one that is open already."""
        if key in self.model.in_use():
            self.model.open(key)

    @rule(key=KEYS, more=st.integers(0, 3))
    def grow(self, key: str, more: int) -> None:
        """Ranks grow; those of lanes that are closed, or not there, may become anything."""
        if key in self.model.closed or key not in self.model.in_use():
            self.model.ranks[key] = more
        else:
            self.model.ranks[key] += more

    @invariant()
    def same(self) -> None:
        self.model.check()
        self.forget_marks()
        assert all(self.model.released[mark] == 1 for mark in self.over), "released once"
        assert not any(self.model.released[mark] for mark in self.marks.values()), "and not before"


class BothEndsMachine(LanesMachine):
    """The same, and the least urgent is asked for."""

    both_ends = True


class RanksMachine(LanesMachine):
    """The same with ranks that grow."""

    ranked = True


class PairsMachine(LanesMachine):
    """The same with everything, and urgencies that are pairs."""

    ranked = both_ends = True
    urgencies = PAIRS


for machine in (LanesMachine, BothEndsMachine, RanksMachine, PairsMachine):
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLanes = LanesMachine.TestCase
TestBothEnds = BothEndsMachine.TestCase
TestRanks = RanksMachine.TestCase
TestPairs = PairsMachine.TestCase


def test_two_lanes_may_have_had_one_first_item() -> None:
    """An item that goes to another lane with its order leaves no trace that two lanes could be confused by."""
    lanes: Lanes[Item] = Lanes()
    one, two, three = Item(1), Item(2), Item(3)
    lanes.push(one, "a", 0)
    lanes.push(two, "a", 0)
    lanes.push(three, "b", 5)
    assert lanes.remove(one, "a")
    lanes.push(one, "c", 0)
    lanes._check()
    first = lanes.first()
    assert first is not None and first.key == "c"
    assert lanes.pop(first) is one
    first = lanes.first()
    assert first is not None and first.key == "a"


def test_who_waits_elsewhere_is_not_here() -> None:
    """An item that has gone to another queue, with the priority that it had, is not taken for the least urgent here."""
    lanes: Lanes[Item] = Lanes(both_ends=True)
    one, two = Item(1), Item(2)
    lanes.push(one, "a", 5)
    lanes.push(two, "a", 1)
    assert lanes.remove(one, "a")
    PriorityQueue[Item]().push(one, 5)
    assert lanes.peek_least() is two
    lanes._check()


def test_ties_across_lanes_go_by_order() -> None:
    """Among equals the earliest goes first, whatever its lane."""
    lanes: Lanes[Item] = Lanes(both_ends=True)
    items = [Item(name) for name in range(30)]
    for item in items:
        lanes.push(item, "abc"[item.name % 3], 1)
    assert lanes.peek_least() is items[-1]
    for item in items:
        lane = lanes.first()
        assert lane is not None and lanes.pop(lane) is item
    assert lanes.first() is None


@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize("both_ends", [False, True])
def test_seeded_stress(ranked: bool, both_ends: bool) -> None:
    """20,000 operations on up to 40 lanes in a changing mix leave the lanes as the model would have them."""
    seed = 20260311 + ranked * 2 + both_ends
    print(f"seed={seed}")
    chance = random.Random(seed)
    model = Model(ranked, both_ends)
    names = [f"lane {number}" for number in range(40)]
    model.ranks = dict.fromkeys(names, 0)
    inside: list[Item] = []
    started = 0
    for number in range(20_000):
        if number % 500 == 0:
            model.check()
            push, close = chance.choice([(0.5, 0.1), (0.2, 0.05), (0.2, 0.3), (0.05, 0.1)])
        kind = chance.random()
        if kind < push or not inside:
            item = Item(number)
            inside.append(item)
            model.push(item, chance.choice(names), chance.choice([0, 1, chance.random()]))
            continue
        place = chance.randrange(len(inside))
        item = inside[place]
        if item not in model.items:
            inside[place] = inside[-1]
            inside.pop()
        elif chance.random() < 0.2:
            model.remove(item)
        elif chance.random() < 0.3:
            model.rekey(item, chance.randrange(3))
        elif chance.random() < 0.3:
            _, urgency, order = model.items[item]
            model.remove(item)
            model.push(item, chance.choice(names), urgency, order)
        elif model.closed and chance.random() < 0.5:
            model.open(chance.choice(sorted(model.closed)))
        else:
            lane = model.lanes.first()
            if lane is None:
                continue
            if number % 16 == 0:
                assert lane.key == model.first()
            if chance.random() < close:
                model.close(lane.key)
            else:
                model.ranks[lane.key] += chance.randrange(3)
                model.pop(lane.key)
                started += 1
    model.check()
    assert started > 1_000
    while model.closed:
        model.open(min(model.closed))
    while model.items:
        key = model.first()
        lane = model.lanes.first()
        assert lane is not None and lane.key == key
        model.pop(lane.key)
    model.check()
    assert not model.lanes.size
