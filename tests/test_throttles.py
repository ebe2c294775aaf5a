"""Throttles: how many may run, how many may start, who is told when more may, and what is no setting."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from fractions import Fraction
from math import ceil, inf, nan
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from threadlets.throttles import LATE, SECOND, Concurrency, Rate, Throttle

MS = 1_000_000  # ns


def give_back(throttle: Throttle) -> None:
    """Give back a place of a throttle that knows neither tags nor times."""
    throttle.give_back(None, 0, 0, False)


class ConcurrencyMachine(RuleBasedStateMachine):
    """A throttle beside two numbers and the set of those who wait."""

    @initialize(limit=st.integers(1, 5))
    def begin(self, limit: int) -> None:
        self.throttle = Concurrency(limit)
        self.limit, self.taken = limit, 0
        self.waiting: set[int] = set()
        self.woken: list[int] = []
        self.wakes: list[Callable[[], None]] = [lambda name=name: self.woken.append(name) for name in range(3)]

    @rule()
    def take(self) -> None:
        if self.taken < 2 * self.limit:  # more than there are: a place that was lent
            self.throttle.take(None, 0)
            self.taken += 1

    @precondition(lambda self: self.taken)
    @rule()
    def give_back(self) -> None:
        self.woken.clear()
        give_back(self.throttle)
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
        self.throttle.wait(None, self.wakes[name])
        self.waiting.add(name)

    @rule()
    def renew(self) -> None:
        self.throttle.renew()
        self.taken = 0
        self.waiting.clear()

    def expect_woken(self) -> None:
        ready = self.taken < self.limit
        assert sorted(self.woken) == (sorted(self.waiting) if ready else [])
        if ready:
            self.waiting.clear()

    @invariant()
    def same(self) -> None:
        self.throttle._check()
        ready = self.taken < self.limit
        assert self.throttle.ready(None, 0) is ready
        assert ready or self.throttle.due(None, 0) is None
        assert (self.throttle.taken, self.throttle.limit) == (self.taken, self.limit)
        assert self.throttle.is_idle(0) is not bool(self.taken or self.waiting)


ConcurrencyMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestConcurrency = ConcurrencyMachine.TestCase

numbers = st.one_of(
    st.integers(1, 10**6),
    st.fractions(Fraction(1, 1000), 10**5, max_denominator=10**4),
    st.floats(1e-3, 1e5),
)


class RateMachine(RuleBasedStateMachine):
    """A rate beside a bucket of fractions of tokens that is told of every nanosecond's worth."""

    @initialize(limit=numbers, per=numbers, burst=st.integers(1, 5))
    def begin(self, limit: Any, per: Any, burst: int) -> None:
        self.rate = Rate(limit, per, burst)
        self.limit, self.per, self.burst = limit, per, burst
        self.now = 0
        self.tokens = Fraction(burst)
        self.until = -1  # somebody waits: nothing is lost until then
        self.woken = 0

    @property
    def pace(self) -> Fraction:
        """Tokens in a nanosecond."""
        return Fraction(str(self.limit)) / Fraction(str(self.per)) / SECOND

    @rule(ns=st.one_of(st.integers(0, 10), st.integers(0, 20 * MS), st.integers(0, 100 * SECOND)))
    def pass_(self, ns: int) -> None:
        self.advance(self.now + ns)

    def advance(self, now: int) -> None:
        free = max(0, min(now, self.until) - self.now)
        self.tokens += free * self.pace
        gained = (now - self.now - free) * self.pace
        if self.tokens <= self.burst:
            self.tokens = min(self.tokens + gained, Fraction(self.burst))
        else:
            self.tokens = max(self.tokens - gained, Fraction(self.burst))
        self.now = now

    @rule(ago=st.integers(0, SECOND))
    def take(self, ago: int) -> None:
        self.rate.ready(None, self.now)
        self.rate.take(None, self.now - ago)  # a clock that goes backwards gives nothing
        self.tokens -= 1

    @precondition(lambda self: self.tokens < 1)
    @rule(waits=st.booleans())
    def due(self, waits: bool) -> None:
        due = self.rate.due(None, self.now)
        assert due == self.now + ceil((1 - self.tokens) / self.pace)
        self.until = due + LATE
        if waits:
            self.advance(due - 1)
            assert not self.rate.ready(None, self.now)
            self.advance(due)
            assert self.rate.ready(None, self.now)

    @rule(number=numbers, which=st.sampled_from(("limit", "per")))
    def change(self, number: Any, which: str) -> None:
        self.rate.ready(None, self.now)
        self.rate.wait(None, self.wake)
        setattr(self.rate, which, number)
        setattr(self, which, number)
        self.until = -1
        assert self.woken == 1
        self.woken = 0
        credit = Fraction(self.rate._credit, self.rate._token)
        assert 0 <= min(self.tokens, self.burst) - credit < Fraction(1, self.rate._token), "rounded to whole units"
        self.tokens = credit

    def wake(self) -> None:
        self.woken += 1

    @rule(burst=st.integers(1, 5))
    def change_burst(self, burst: int) -> None:
        self.rate.ready(None, self.now)
        self.rate.burst = self.burst = burst
        self.tokens = min(self.tokens, Fraction(burst))
        self.until = -1

    @invariant()
    def same(self) -> None:
        self.rate._check()
        assert self.rate.ready(None, self.now) is (self.tokens >= 1)
        assert Fraction(self.rate._credit, self.rate._token) == self.tokens
        assert self.rate.is_idle(self.now) is (self.tokens >= self.burst)


RateMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestRate = RateMachine.TestCase


def test_the_base_class_never_says_no() -> None:
    """A throttle that overrides nothing lets everything start, in any order, and is never taken for idle."""
    throttle = Throttle()
    throttle.take(None, 0)
    assert throttle.ready(None, 0)
    assert (throttle.key(frozenset({"a"})), throttle.rank(None), throttle.due(None, 0)) == (None, 0, None)
    assert not (throttle.keyed or throttle.clocked or throttle.lends or throttle.ranks or throttle.is_idle(0))
    give_back(throttle)


def test_a_throttle_of_ones_own() -> None:
    """A subclass says what differs; its copy has the same settings, and nothing taken."""

    class Once(Throttle):
        def renew(self) -> None:
            super().renew()
            self.taken: list[Hashable] = []

        def ready(self, key: Hashable, now: int) -> bool:
            return not self.taken

        def take(self, key: Hashable, now: int) -> None:
            self.taken.append(key)

    throttle = Once()
    throttle.owner, throttle.color = "a loop", "red"
    throttle.take("x", 0)
    throttle.wait(None, print)
    copy = throttle.copy()
    assert isinstance(copy, Once)
    assert (copy.color, copy.taken, copy.owner, copy._waiting) == ("red", [], None, {})
    assert (copy.ready(None, 0), throttle.ready(None, 0)) == (True, False)


def test_lowering_stops_nothing() -> None:
    """A lower limit lets those go on who run, and nobody start until enough of them have ended."""
    throttle = Concurrency(3)
    for _ in range(3):
        throttle.take(None, 0)
    throttle.limit = 1
    assert repr(throttle) == "<Concurrency 3 of 1 taken>"
    woken: list[int] = []
    throttle.wait(None, lambda: woken.append(throttle.taken))
    while throttle.taken:
        assert not throttle.ready(None, 0)
        give_back(throttle)
    assert throttle.ready(None, 0)
    assert woken == [0]


def test_every_waiter_is_woken_once() -> None:
    """Pools that share a throttle are all woken by one place, each once per wait, however often it has waited."""
    throttle, woken = Concurrency(1), []

    class Pool:
        def arm(self) -> None:
            woken.append(self)

    pools = [Pool() for _ in range(3)]
    throttle.take(None, 0)
    for pool in pools:
        throttle.wait(None, pool.arm)
        throttle.wait(None, pool.arm)
    give_back(throttle)
    assert woken == pools[1:] + pools[:1]  # they take turns
    throttle.take(None, 0)
    give_back(throttle)
    assert len(woken) == 3


def test_waiting_again_while_being_woken() -> None:
    """Who is woken too late, because another took the place at once, may wait again from within its wake-up."""
    throttle, woken = Concurrency(1), []

    def greedy() -> None:
        woken.append("greedy")
        throttle.take(None, 0)

    def patient() -> None:
        woken.append("patient")
        if not throttle.ready(None, 0):
            throttle.wait(None, patient)

    throttle.take(None, 0)
    throttle.wait(None, patient)
    throttle.wait(None, greedy)
    give_back(throttle)
    assert woken == ["greedy", "patient"]
    give_back(throttle)
    assert woken == ["greedy", "patient", "patient"]


@pytest.mark.parametrize(
    ("limit", "error"),
    [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError), ("2", TypeError), (None, TypeError)],
)
def test_bad_limits(limit: Any, error: type[Exception]) -> None:
    """What is no whole number, or would let nothing start, is refused, at first and later; the old limit then stays."""
    with pytest.raises(error, match=f"Concurrency limit {limit!r}: "):
        Concurrency(limit)
    with pytest.raises(error, match=f"Rate burst {limit!r}: "):
        Rate(1, 1, limit)
    throttle = Concurrency(2)
    with pytest.raises(error):
        throttle.limit = limit
    assert throttle.limit == 2


@pytest.mark.parametrize(
    ("number", "error"),
    [(number, ValueError) for number in (0, 0.0, -1, Fraction(-1, 2), inf, -inf, nan)]
    + [(number, TypeError) for number in (True, "2", None, 1j)],
)
def test_bad_rates(number: Any, error: type[Exception]) -> None:
    """What is no finite number above 0 is no rate, at first and later; the old settings then stay, and the credit."""
    with pytest.raises(error, match=r"Rate limit .*: expected a "):
        Rate(number)
    with pytest.raises(error, match=r"Rate per .*: expected a "):
        Rate(1, number)
    rate = Rate(2, 3.0, 4)
    rate.take(None, 0)
    for name in ("limit", "per", "burst"):
        with pytest.raises((TypeError, ValueError)):
            setattr(rate, name, number)
    assert (rate.limit, rate.per, rate.burst) == (2, 3.0, 4)
    assert repr(rate) == "<Rate of 2 in 3.0 s, burst 4>"
    rate._check()


@pytest.mark.parametrize(
    ("limit", "per", "grants"), [(3, 1.0, 1_000_000), (0.1, 0.7, 10_000), (7, Fraction(1, 3), 10_000), (5e9, 1, 10_000)]
)
def test_woken_in_time_it_is_exact(limit: float, per: float | Fraction, grants: int) -> None:
    """If every wake-up is in time, the nth start is at n * per / limit, rounded up, and no error adds up."""
    rate, now = Rate(limit, per), 0
    token = Fraction(str(per)) / Fraction(str(limit)) * SECOND
    rate.take(None, now)
    for _ in range(grants):
        now = rate.due(None, now)
        rate.take(None, now)
    assert now == ceil(grants * token)


@pytest.mark.parametrize("limit", [70, 5_000, 200_000])
def test_a_late_loop_loses_nothing(limit: int) -> None:
    """A loop that wakes up to 3 ms late at random still starts as many as the rate says, and few of them at once."""
    rng = random.Random(limit)
    rate, now, grants, most = Rate(limit), 0, 0, 0
    while grants < 1_000_000:
        now = rate.due(None, now) + rng.randrange(3 * MS)
        at_once = 0
        while rate.ready(None, now):
            rate.take(None, now)
            at_once += 1
            now += rng.randrange(200)  # a start takes time, too
        grants += at_once
        most = max(most, at_once)
    assert grants / (now / SECOND) == pytest.approx(limit, rel=0.001)
    assert most <= rate.burst + limit * LATE / SECOND + 1


@pytest.mark.parametrize("late", [0, 1, 3, 10, 15, 20, 1_000, 3_600_000])
def test_what_is_late_is_bounded(late: int) -> None:
    """A wake-up brings what was due for up to 10 ms; if it comes later than that, or for nobody, that melts away."""
    rate = Rate(1000)
    rate.take(None, 0)
    now = rate.due(None, 0) + late * MS
    starts = 0
    while rate.ready(None, now):
        rate.take(None, now)
        starts += 1
    assert starts == 1 + max(0, min(late, 20 - late))


def test_an_idle_one_saves_up_its_burst() -> None:
    """What nobody uses is kept up to the burst, also just after somebody has waited."""
    rate = Rate(1000, burst=3)
    for now in (0, 10 * SECOND, 20 * SECOND):
        for _ in range(3):
            assert rate.ready(None, now)
            rate.take(None, now)
        assert rate.due(None, now) == now + MS
        assert rate.ready(None, now + 5 * MS)  # the one who waited has gone
    assert rate.is_idle(30 * SECOND)


def test_time_that_goes_backwards_gives_nothing() -> None:
    """A clock that jumps back and forth fills the bucket once for each nanosecond."""
    rate = Rate(1, burst=10)
    for _ in range(10):
        rate.take(None, SECOND)
    for now in (SECOND, 0, 2 * SECOND, -SECOND) * 5:
        rate.ready(None, now)
    assert rate.ready(None, 2 * SECOND)
    rate.take(None, 0)
    assert not rate.ready(None, 2 * SECOND)
    assert rate.due(None, 0) == 3 * SECOND


def test_starts_on_credit_are_paid_back() -> None:
    """Whoever starts without being ready makes the next ones wait for it; but not those on a new loop, or of a copy."""
    rate = Rate(10, burst=2)
    for _ in range(6):
        rate.take(None, 0)
    assert rate.due(None, 0) == SECOND // 2
    copy = rate.copy()
    rate.renew()
    assert (rate.is_idle(0), copy.is_idle(0)) == (True, True)
    assert (copy.limit, copy.per, copy.burst) == (10, 1.0, 2)


def test_a_promise_ends_with_the_rate() -> None:
    """What a slow rate has promised for next hour does not let a faster one save up until then."""
    rate = Rate(1, per=3600.0)
    rate.take(None, 0)
    assert rate.due(None, 0) == 3600 * SECOND
    rate.limit = 3_600_000
    now, starts = 1800 * SECOND, 0
    while rate.ready(None, now):
        rate.take(None, now)
        starts += 1
    assert starts == 1
