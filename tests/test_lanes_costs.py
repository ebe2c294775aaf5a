"""What lanes cost: memory that is freed, comparisons that are counted."""

from __future__ import annotations

import gc
import random
import weakref

import pytest

from tests.test_lanes import Item
from threadlets.lanes import Lanes


@pytest.mark.parametrize("both_ends", [False, True])
def test_what_leaves_is_freed(both_ends: bool) -> None:
    """What is held beyond the items that are in is no more than these; nothing, when the lanes are empty."""
    gc.disable()
    try:
        lanes: Lanes[Item] = Lanes(both_ends=both_ends)
        items = [Item(name) for name in range(200)]
        for item in items:
            lanes.push(item, item.name % 7, item.name % 3)
        watched = [weakref.ref(item) for item in items]
        del item
        while items:
            item = items.pop()
            assert lanes.remove(item, item.name % 7)
            del item
            held = sum(ref() is not None for ref in watched) - len(items)
            assert held <= len(items) + 7
        assert not any(ref() for ref in watched)
    finally:
        gc.enable()


@pytest.mark.parametrize("both_ends", [False, True])
def test_changing_for_ever_does_not_pile_up(both_ends: bool) -> None:
    """Re-keying, changing lanes, closing and opening need no more memory, however often they are done."""
    lanes: Lanes[Item] = Lanes(lambda key: 0, both_ends=both_ends)
    items = [Item(name) for name in range(10)]
    for item in items:
        lanes.push(item, item.name % 3, 0)
    places = {item: item.name % 3 for item in items}
    for number in range(2_000):
        item = items[number % 10]
        lanes.rekey(item, places[item], -number)
        lanes.remove(item, places[item])
        places[item] = number % 3
        lanes.push(item, places[item], number)
        lane = lanes.lane(places[item])
        assert lane is not None
        lanes.close(lane)
        lanes.open(lane)
        lanes._check()  # stale entries do not outnumber the rest


class Compared(float):
    """A number that counts how often it is compared."""

    times = 0

    def __lt__(self, other: float) -> bool:
        Compared.times += 1
        return float(self) < float(other)

    def __gt__(self, other: float) -> bool:
        Compared.times += 1
        return float(self) > float(other)

    def __neg__(self) -> Compared:
        return Compared(-float(self))


@pytest.mark.parametrize("size", [256, 4096])
@pytest.mark.parametrize("count", [1, 16, 10**6])
def test_comparisons(size: int, count: int) -> None:
    """However many lanes there are, each operation needs about log2 n comparisons, amortized."""
    chance = random.Random(size)
    lanes: Lanes[Item] = Lanes(both_ends=True)
    items = [Item(name) for name in range(size)]
    keys = {item: chance.randrange(count) for item in items}
    most = 4 * (size.bit_length() + 4)  # in the lane, among lanes, at the other end; and what is stale

    def cost() -> float:
        times, Compared.times = Compared.times, 0
        return times / size

    cost()
    for item in items:
        lanes.push(item, keys[item], Compared(chance.random()))
    assert cost() <= most
    for item in items:
        lanes.rekey(item, keys[item], Compared(chance.random()))
    assert cost() <= most
    for item in items[::4]:
        lanes.remove(item, keys[item])
    assert cost() <= most
    while (lane := lanes.first()) is not None:
        lanes.close(lane)
    assert cost() <= most
    for item in items:
        lane = lanes.lane(keys[item])
        if lane is not None and lane.closed:
            lanes.open(lane)
    assert cost() <= most
    while (lane := lanes.first()) is not None:
        lanes.pop(lane)
    assert cost() <= most
    assert not lanes


def test_closed_lanes_cost_nothing() -> None:
    """With 10,000 closed lanes, the first open one is found without a look at them."""
    asked = 0

    def rank(key: int) -> int:
        nonlocal asked
        asked += 1
        return 0

    lanes: Lanes[Item] = Lanes(rank)
    for number in range(10_000):
        lanes.push(Item(number), number, Compared(0))
        lane = lanes.first()
        assert lane is not None
        lanes.close(lane)
    asked = Compared.times = 0
    for number in range(10_000, 10_100):
        lanes.push(Item(number), -1, Compared(0))
        lane = lanes.first()
        assert lane is not None and lane.key == -1
        lanes.pop(lane)
    assert asked <= 400 and Compared.times <= 400
