"""Limits that are found: simulated services of which it is known what they can do, and what is never to happen."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count, islice
from statistics import median
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from threadlets.limits import STALE, Adaptive

MS = 1_000_000  # ns
S = 10 * MS  # ns; what a call takes with nobody before it: the unit of time here
K = 20  # places of a service
SEEDS = 20


class Seen(NamedTuple):
    """What was seen of a service for some time."""

    throughput: float  # in calls per S, of one that succeeded
    latency: float  # in S, on average
    limits: list[int]  # looked at a hundred times

    @property
    def usual(self) -> float:
        """The limit in the middle."""
        return median(self.limits)


class Service:
    """Serves so many calls at a time, one after the other in each place; all others stand in its queue.

    Its clients always have more to do, up to a demand, and are held back by the throttle alone. A call that finds more
    than a number of others fails, soon.
    """

    def __init__(self, throttle: Adaptive, seed: int, jitter: str = "even") -> None:
        self.throttle, self.random, self.jitter = throttle, random.Random(seed), jitter
        self.places, self.duration, self.demand, self.bearable = K, S, 10**9, 10**9
        self.fails: Callable[[], bool] = lambda: False
        self.now = self.running = self.inside = self.done = self.failed = self.waited = 0
        self.queue: deque[int] = deque()
        self.ends: list[tuple[int, int, int, bool]] = []
        self.number = count()

    def call(self) -> None:
        self.throttle.take(None, self.now)
        self.inside += 1
        if self.inside > self.bearable:
            heappush(self.ends, (self.now + S // 10, next(self.number), self.now, True))
        elif self.running < self.places:
            self.serve(self.now)
        else:
            self.queue.append(self.now)

    def serve(self, began: int) -> None:
        self.running += 1
        factor = self.random.uniform(0.7, 1.3) if self.jitter == "even" else self.random.expovariate(1)
        end = self.now + max(1, int(factor * self.duration))
        heappush(self.ends, (end, next(self.number), began, False))

    def end(self) -> None:
        self.now, _, began, refused = heappop(self.ends)
        self.inside -= 1
        failed = refused or self.fails()
        if failed:
            self.failed += 1
        else:
            self.done += 1
            self.waited += self.now - began
        if not refused:
            self.running -= 1
            if self.queue and self.running < self.places:
                self.serve(self.queue.popleft())
        self.throttle.give_back(None, self.now, began, failed)

    def run(self, until: int) -> None:
        while True:
            while self.inside < self.demand and self.throttle.ready(None, self.now):
                self.call()
            if not self.ends or self.ends[0][0] > until:
                self.now = until
                return
            self.end()

    def go_on(self, units: int) -> Seen:
        """Let so many S pass."""
        done, waited, start, limits = self.done, self.waited, self.now, []
        for part in range(1, 101):
            self.run(start + units * S * part // 100)
            limits.append(self.throttle.limit)
            self.throttle._check()
        done = self.done - done
        return Seen(done / units, (self.waited - waited) / S / max(1, done), limits)


def services(initial: int = 8, jitter: str = "even") -> Iterator[Service]:
    """Make a service for each seed."""
    for seed in range(SEEDS):
        yield Service(Adaptive(initial), seed, jitter)


@pytest.mark.parametrize("initial", [1, 8, 200])
def test_it_finds_the_knee(initial: int) -> None:
    """From below and from above, it comes to where the service is used and hardly anybody queues in it."""
    for service in services(initial):
        service.go_on(200)
        seen = service.go_on(500)
        assert seen.throughput >= 0.95 * K
        assert seen.latency < 1.5
        assert K <= seen.usual <= 1.5 * K
        assert max(seen.limits) <= 2 * K


@pytest.mark.parametrize("initial", [8, 200])
def test_it_finds_the_knee_in_spite_of_chance(initial: int) -> None:
    """It does so, a bit less well, if one call takes ten times as long as another for no reason (exponential times)."""
    for service in services(initial, "exponential"):
        service.go_on(500)
        seen = service.go_on(1500)
        assert seen.throughput >= 0.85 * K
        assert seen.latency < 1.6
        assert max(seen.limits) <= 3 * K


def test_it_finds_a_large_knee() -> None:
    """A service with 300 places is used after the time of some dozen calls."""
    for service in islice(services(8), 5):
        service.places = 300
        service.go_on(100)
        seen = service.go_on(200)
        assert seen.throughput >= 0.9 * 300
        assert seen.latency < 1.5
        assert max(seen.limits) <= 600


def test_it_backs_off_when_the_service_is_slow() -> None:
    """A service five times as slow is spared within the time of 30 of its calls; if it stays slow, it is used again.

    Once it is fast again, it is used within the time of 50 calls, and after 400 without a queue.
    """
    for service in services():
        service.go_on(200)
        service.duration = 5 * S
        assert min(service.go_on(150).limits) < K
        service.go_on(1000)
        seen = service.go_on(1000)
        assert seen.throughput >= 0.9 * K / 5
        assert seen.latency < 1.5 * 5
        service.duration = S
        assert service.go_on(50).throughput >= 0.8 * K
        service.go_on(350)
        seen = service.go_on(300)
        assert seen.throughput >= 0.95 * K
        assert seen.latency < 1.5


def test_it_follows_the_number_of_places() -> None:
    """If half of the places are lost, it is down to them after 150 calls' time, and up again with them."""
    for service in services():
        service.go_on(200)
        service.places = K // 2
        service.go_on(150)
        seen = service.go_on(300)
        assert seen.throughput >= 0.9 * K / 2
        assert seen.latency < 2
        assert seen.usual < K
        service.places = K
        service.go_on(100)
        seen = service.go_on(300)
        assert seen.throughput >= 0.95 * K
        assert seen.latency < 1.5


def test_it_stays_below_what_makes_calls_fail() -> None:
    """A service that refuses the 31st call, though it is not slower before, has fewer than that nearly all the time."""
    for service in services():
        service.places, service.bearable = 100, 30
        service.go_on(300)
        failed, done = service.failed, service.done
        seen = service.go_on(1000)
        assert sum(limit > 30 for limit in seen.limits) <= 10
        assert seen.throughput >= 0.8 * 30
        assert service.failed - failed <= 0.05 * (service.done - done)


def test_a_few_failures_do_no_harm() -> None:
    """If two calls of a hundred fail at any load, the knee is found as if they did not."""
    for service in services():
        service.fails = lambda service=service: service.random.random() < 0.02
        service.go_on(200)
        seen = service.go_on(300)
        assert seen.throughput >= 0.85 * K
        assert seen.latency < 1.5


def test_it_recovers_from_an_outage() -> None:
    """While everything fails there is one call at a time; once that is over the service is used again."""
    for service in services():
        service.go_on(200)
        service.fails = lambda: True
        assert service.go_on(400).limits[-1] == 1
        service.fails = lambda: False
        service.go_on(200)
        assert service.go_on(300).throughput >= 0.9 * K


def test_without_demand_it_learns_nothing() -> None:
    """Where a fifth of the limit is used, it stays as it is, whatever the calls take and however many fail."""
    for service in services(50):
        service.demand = 10
        service.go_on(200)
        service.duration = 5 * S
        service.fails = lambda: True
        seen = service.go_on(200)
        assert set(seen.limits) == {50}


def test_the_limit_can_be_set() -> None:
    """Setting the limit wakes who waits; the search goes on from there, up to the most and down to the least."""
    throttle, woken = Adaptive(1, least=1, most=10), []
    throttle.take(None, 0)
    throttle.wait(None, lambda: woken.append(1))
    throttle.limit = 5
    assert woken == [1]
    assert (throttle.limit, throttle.least, throttle.most, throttle.taken) == (5, 1, 10, 1)
    assert repr(throttle) == "<Adaptive 1 of 5 taken>"
    for limit in (0, 11):
        with pytest.raises(ValueError, match=f"limit {limit}: "):
            throttle.limit = limit
    assert throttle.limit == 5
    assert throttle.clocked
    assert throttle.lends


def test_what_was_learned_is_kept_for_a_while() -> None:
    """It is as good as a fresh one a minute after the last call, and a copy or a new loop begins from the start."""
    service = Service(Adaptive(), 0)
    throttle = service.throttle
    assert throttle.is_idle(0)
    service.go_on(100)
    service.demand = 0
    service.go_on(100)
    assert throttle.taken == 0
    assert not throttle.is_idle(service.now)
    assert throttle.is_idle(service.now + STALE)
    copy = throttle.copy()
    assert copy.limit == 8 != throttle.limit
    throttle.renew()
    assert throttle.limit == 8
    throttle._check()


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"initial": 0}, ValueError, "Adaptive initial 0: at least 1"),
        ({"initial": 8.0}, TypeError, "Adaptive initial 8.0: expected a whole number"),
        ({"initial": True}, TypeError, "Adaptive initial True: expected a whole number"),
        ({"least": 0}, ValueError, "Adaptive least 0: at least 1"),
        ({"most": None}, TypeError, "Adaptive most None: expected a whole number"),
        ({"least": 9}, ValueError, "Adaptive initial 8: expected 9 to 1000"),
        ({"most": 7}, ValueError, "Adaptive initial 8: expected 1 to 7"),
    ],
)
def test_mistakes(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    """What makes no sense is refused at the call, in words that say what was expected."""
    with pytest.raises(error, match=says):
        Adaptive(**arguments)


class AdaptiveMachine(RuleBasedStateMachine):
    """Whatever calls take, and however often they fail, the books are right and nobody sleeps who could start."""

    @initialize(data=st.data(), initial=st.integers(1, 100))
    def begin(self, data: st.DataObject, initial: int) -> None:
        self.least, self.most = data.draw(st.integers(1, initial)), data.draw(st.integers(initial, 200))
        self.throttle = Adaptive(initial, least=self.least, most=self.most)
        self.now = 0
        self.began: deque[int] = deque()
        self.waits = False

    @rule(ns=st.integers(0, 10**6), many=st.integers(1, 200))
    def take(self, ns: int, many: int) -> None:
        self.now += ns
        for _ in range(many):
            if self.throttle.ready(None, self.now):
                self.throttle.take(None, self.now)
                self.began.append(self.now)
        if not self.throttle.ready(None, self.now):
            self.throttle.wait(None, self.wake)
            self.waits = True

    def wake(self) -> None:
        self.waits = False

    @rule()
    def take_what_was_lent(self) -> None:
        self.throttle.take(None, self.now)
        self.began.append(self.now)

    @precondition(lambda self: self.began)
    @rule(ns=st.one_of(st.just(0), st.integers(0, 10**12)), many=st.integers(1, 200), failed=st.booleans())
    def give_back(self, ns: int, many: int, failed: bool) -> None:
        self.now += ns
        for _ in range(min(many, len(self.began))):
            self.throttle.give_back(None, self.now, self.began.popleft(), failed)

    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        self.throttle.limit = data.draw(st.integers(self.least, self.most))

    @rule()
    def renew(self) -> None:
        self.throttle.renew()
        self.began.clear()
        self.waits = False

    @invariant()
    def right(self) -> None:
        self.throttle._check()
        assert self.throttle.taken == len(self.began)
        assert self.least <= self.throttle.limit <= self.most
        assert not (self.waits and self.throttle.ready(None, self.now)), "nobody sleeps who could start"


AdaptiveMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestAdaptive = AdaptiveMachine.TestCase
