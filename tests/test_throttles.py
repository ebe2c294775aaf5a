"""Throttles: how many may run, who is told when more may, and what is no limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from threadlets import Concurrency


class ThrottleMachine(RuleBasedStateMachine):
    """A throttle beside two numbers and the set of those who wait."""

    @initialize(limit=st.integers(1, 5))
    def begin(self, limit: int) -> None:
        self.throttle = Concurrency(limit)
        self.limit, self.taken = limit, 0
        self.waiting: set[int] = set()
        self.woken: list[int] = []
        self.wakes: list[Callable[[], None]] = [lambda name=name: self.woken.append(name) for name in range(3)]

    @precondition(lambda self: self.taken < self.limit)
    @rule()
    def take(self) -> None:
        self.throttle.take()
        self.taken += 1

    @precondition(lambda self: self.taken)
    @rule()
    def give_back(self) -> None:
        self.woken.clear()
        self.throttle.give_back()
        self.taken -= 1
        self.expect_woken()

    @rule(limit=st.integers(1, 5))
    def change(self, limit: int) -> None:
        self.woken.clear()
        self.throttle.limit = self.limit = limit
        self.expect_woken()

    @precondition(lambda self: self.taken >= self.limit)
    @rule(name=st.integers(0, 2))
    def wait(self, name: int) -> None:
        self.throttle.wait(self.wakes[name])
        self.waiting.add(name)

    def expect_woken(self) -> None:
        ready = self.taken < self.limit
        assert sorted(self.woken) == (sorted(self.waiting) if ready else [])
        if ready:
            self.waiting.clear()

    @invariant()
    def same(self) -> None:
        self.throttle._check()
        assert self.throttle.ready() is (self.taken < self.limit)
        assert (self.throttle.taken, self.throttle.limit) == (self.taken, self.limit)


ThrottleMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestThrottle = ThrottleMachine.TestCase


def test_lowering_stops_nothing() -> None:
    """A lower limit lets those go on who run, and nobody start until enough of them have ended."""
    throttle = Concurrency(3)
    for _ in range(3):
        throttle.take()
    throttle.limit = 1
    assert repr(throttle) == "<Concurrency 3 of 1 taken>"
    woken: list[int] = []
    throttle.wait(lambda: woken.append(throttle.taken))
    while throttle.taken:
        assert not throttle.ready()
        throttle.give_back()
    assert throttle.ready()
    assert woken == [0]


def test_every_waiter_is_woken_once() -> None:
    """Pools that share a throttle are all woken by one place, each once per wait, however often it has waited."""
    throttle, woken = Concurrency(1), []

    class Pool:
        def arm(self) -> None:
            woken.append(self)

    pools = [Pool() for _ in range(3)]
    throttle.take()
    for pool in pools:
        throttle.wait(pool.arm)
        throttle.wait(pool.arm)
    throttle.give_back()
    assert woken == pools
    throttle.take()
    throttle.give_back()
    assert woken == pools


def test_waiting_again_while_being_woken() -> None:
    """Who is woken too late, because another took the place at once, may wait again from within its wake-up."""
    throttle, woken = Concurrency(1), []

    def greedy() -> None:
        woken.append("greedy")
        throttle.take()

    def patient() -> None:
        woken.append("patient")
        if not throttle.ready():
            throttle.wait(patient)

    throttle.take()
    throttle.wait(greedy)
    throttle.wait(patient)
    throttle.give_back()
    assert woken == ["greedy", "patient"]
    throttle.give_back()
    assert woken == ["greedy", "patient", "patient"]


@pytest.mark.parametrize(
    ("limit", "error"),
    [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError), ("2", TypeError), (None, TypeError)],
)
def test_bad_limits(limit: Any, error: type[Exception]) -> None:
    """What is no whole number, or would let nothing start, is refused, at first and later; the old limit then stays."""
    with pytest.raises(error, match=f"Concurrency limit {limit!r}: "):
        Concurrency(limit)
    throttle = Concurrency(2)
    with pytest.raises(error):
        throttle.limit = limit
    assert throttle.limit == 2
