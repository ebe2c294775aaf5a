"""Rules by tag: each tag its own throttles, each tag its turns, and idle ones are forgotten."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from threadlets import shares
from threadlets.shares import UNIT, FairShare, PerTag
from threadlets.throttles import SECOND, Concurrency, Rate, Throttle

TAGS = [f"host:{letter}" for letter in "abcd"]
KEYS = [frozenset(tags) for tags in ([], TAGS[:1], TAGS[1:2], TAGS[2:3], TAGS[3:], TAGS[:2], TAGS[1:], TAGS)]
keys = st.sampled_from(KEYS)
tags = st.sampled_from(TAGS)


def only(*tags: str) -> frozenset[str]:
    """Return the key of threadlets with these tags."""
    return frozenset(tags)


class PerTagMachine(RuleBasedStateMachine):
    """Throttles per tag beside throttles that are never forgotten, and beside those who wait."""

    @initialize(limit=st.integers(1, 3), rate=st.integers(1, 20), burst=st.integers(1, 3), rate_first=st.booleans())
    def begin(self, limit: int, rate: int, burst: int, rate_first: bool) -> None:
        self.few, shares.FEW = shares.FEW, 1  # look for idle ones all the time
        throttles = (Rate(rate, burst=burst), Concurrency(limit))
        throttles = throttles if rate_first else throttles[::-1]
        self.per_tag = PerTag("host:", *throttles)
        self.models = {tag: tuple(throttle.copy() for throttle in throttles) for tag in TAGS}
        self.now = 0
        self.taken = Counter[frozenset[str]]()
        self.waiting: dict[frozenset[str], int | None] = {}  # until when, at the latest

    def teardown(self) -> None:
        shares.FEW = self.few

    def of(self, key: frozenset[str]) -> list[Any]:
        return [throttle for tag in key for throttle in self.models[tag]]

    def is_ready(self, key: frozenset[str]) -> bool:
        return all(throttle.ready(None, self.now) for throttle in self.of(key))

    @rule(ns=st.one_of(st.integers(0, SECOND // 10), st.integers(0, 5 * SECOND)))
    def pass_(self, ns: int) -> None:
        self.now += ns
        self.waiting = {key: due for key, due in self.waiting.items() if due is None or due > self.now}

    @rule(key=keys, lent=st.booleans())
    def take(self, key: frozenset[str], lent: bool) -> None:
        if lent or self.is_ready(key):
            self.per_tag.take(key, self.now)
            for throttle in self.of(key):
                throttle.take(None, self.now)
            self.taken[key] += 1

    @precondition(lambda self: +self.taken)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(+self.taken, key=sorted)))
        self.taken[key] -= 1
        self.per_tag.give_back(key, self.now, 0, False)
        for throttle in self.of(key):
            throttle.give_back(None, self.now, 0, False)

    @rule(key=keys)
    def wait(self, key: frozenset[str]) -> None:
        if not self.per_tag.ready(key, self.now):
            due = self.per_tag.due(key, self.now)
            blocked = [throttle for throttle in self.of(key) if not throttle.ready(None, self.now)]
            dues: list[int] = []
            for throttle in blocked:
                if (one := throttle.due(None, self.now)) is None:  # the others are not promised anything then
                    break
                dues.append(one)
            assert due == (max(dues) if len(dues) == len(blocked) else None)
            self.waiting[key] = due
            self.per_tag.wait(key, lambda: self.waiting.pop(key, None))

    @rule(tag=tags, limit=st.integers(1, 5))
    def change(self, tag: str, limit: int) -> None:
        for mine, model in zip(self.per_tag[tag], self.models[tag], strict=True):
            mine.ready(None, self.now)
            model.ready(None, self.now)
            mine.limit = model.limit = limit

    @rule()
    def renew(self) -> None:
        self.per_tag.renew()
        for throttle in self.of(frozenset(TAGS)):
            throttle.renew()
        self.taken.clear()
        self.waiting.clear()

    @invariant()
    def same(self) -> None:
        self.per_tag._check()
        for key in KEYS:
            assert self.per_tag.ready(key, self.now) is self.is_ready(key)
        for key in self.waiting:
            assert not self.per_tag.ready(key, self.now), "nobody sleeps who could start"
        idle = all(throttle.is_idle(self.now) for throttle in self.of(frozenset(TAGS)))
        assert self.per_tag.is_idle(self.now) is idle


PerTagMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestPerTag = PerTagMachine.TestCase


class FairShareMachine(RuleBasedStateMachine):
    """Fair shares beside fractions that are never forgotten."""

    @initialize()
    def begin(self) -> None:
        self.few, shares.FEW = shares.FEW, 1
        self.fair = FairShare("host:", {TAGS[0]: 3}, default=0.7)
        self.weights = {TAGS[0]: Fraction(3)}
        self.virtual = Fraction(0)
        self.finish: dict[str, Fraction] = {}

    def teardown(self) -> None:
        shares.FEW = self.few

    def weight(self, tag: str) -> Fraction:
        return self.weights.get(tag, Fraction(7, 10))

    def rank(self, key: frozenset[str]) -> Fraction:
        return max([self.virtual, *(self.finish.get(tag, Fraction(0)) for tag in key or {""})])

    @rule(key=keys)
    def take(self, key: frozenset[str]) -> None:
        self.fair.take(key, 0)
        self.virtual = self.rank(key)
        for tag in key or {""}:
            self.finish[tag] = self.virtual + 1 / self.weight(tag)

    @rule(tag=tags, weight=st.integers(1, 10))
    def change(self, tag: str, weight: int) -> None:
        self.fair[tag] = weight
        self.reweigh(tag, Fraction(weight))

    def reweigh(self, tag: str, weight: Fraction) -> None:
        due = self.finish.get(tag, Fraction(0)) - self.virtual
        if due > 0:
            self.finish[tag] = self.virtual + due * self.weight(tag) / weight
        self.weights[tag] = weight

    @precondition(lambda self: self.weights)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from(sorted(self.weights)))
        del self.fair[tag]
        self.reweigh(tag, Fraction(7, 10))
        del self.weights[tag]

    @rule()
    def renew(self) -> None:
        self.fair.renew()
        self.virtual = Fraction(0)
        self.finish.clear()

    @invariant()
    def same(self) -> None:
        self.fair._check()
        for key in KEYS:
            assert self.fair.ready(key, 0)
            assert abs(Fraction(self.fair.rank(key), UNIT) - self.rank(key)) < Fraction(1, 10**6)
        for tag in TAGS:
            assert self.fair[tag] == float(self.weight(tag))


FairShareMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestFairShare = FairShareMachine.TestCase


def test_keys_are_matching_strings() -> None:
    """A threadlet is known by those of its tags that are strings with the prefix; all other tags are ignored."""
    everything = frozenset({"host:a", "host:b", "hosts", "HOST:a", 7, ("host:c",), b"host:d", None})
    for throttle in (PerTag("host:", Rate(1)), FairShare("host:")):
        assert throttle.keyed
        assert throttle.key(everything) == {"host:a", "host:b"}
        assert throttle.key(frozenset()) == frozenset()
    assert FairShare("").key(everything) == {"host:a", "host:b", "hosts", "HOST:a"}


def test_what_is_inside_decides_what_is_asked() -> None:
    """Throttles per tag need the time if one of them does, and lend if one of them does."""
    places, starts = Concurrency(1), Rate(1)
    asked = [
        (each.clocked, each.lends) for each in (PerTag("", places), PerTag("", starts), PerTag("", places, starts))
    ]
    assert asked == [(False, True), (True, False), (True, True)]


def test_originals_count_for_nobody() -> None:
    """What is taken of the throttle that was given, or changed in it, changes nothing for the tags."""
    original = Concurrency(1)
    per_tag = PerTag("host:", original)
    original.take(None, 0)
    assert per_tag.ready(only("host:a"), 0)
    original.limit = 5
    per_tag.take(only("host:a"), 0)
    assert not per_tag.ready(only("host:a"), 0)


def test_idle_tags_are_forgotten() -> None:
    """Of many tags only those are kept that are busy, or were looked at; looking on does not make any."""
    per_tag = PerTag("host:", Concurrency(1), Rate(1))
    per_tag["host:kept"][0].limit = 7
    per_tag.take(only("host:busy"), 0)
    for number in range(20_000):
        key = only(f"host:{number}")
        now = number * SECOND // 10
        assert per_tag.ready(key, now)
        per_tag.take(key, now)
        per_tag.give_back(key, now, now, False)
        assert len(per_tag._accounts) <= 2 * shares.FEW
    assert not per_tag.ready(only("host:busy"), 10**15)
    assert per_tag["host:kept"][0].limit == 7
    assert per_tag.ready(only("host:never"), 10**15)
    assert "host:never" not in per_tag._accounts
    assert repr(per_tag).startswith("<PerTag 'host:': <Concurrency 0 of 1 taken>, <Rate of 1 in 1.0 s, burst 1>; ")
    per_tag._check()


def test_changes_of_one_tag_stay() -> None:
    """The throttle of a tag is changed live, wakes who waits, and outlives its loop; others are as before."""
    per_tag, woken = PerTag("host:", Concurrency(1)), []
    key = only("host:a")
    per_tag.take(key, 0)
    assert (per_tag.ready(key, 0), per_tag.due(key, 0)) == (False, None)
    per_tag.wait(key, lambda: woken.append("a"))
    per_tag["host:a"].limit = 5
    assert woken == ["a"]
    assert per_tag.ready(key, 0)
    copy = per_tag.copy()
    per_tag.renew()
    assert [each["host:a"].limit for each in (per_tag, copy)] == [5, 5]
    assert [each["host:b"].limit for each in (per_tag, copy)] == [1, 1]
    assert [each["host:a"].taken for each in (per_tag, copy)] == [0, 0]
    assert per_tag["host:a"] is not copy["host:a"]


def test_a_rule_that_says_no_to_everything_can_wake() -> None:
    """A throttle of one's own that is closed at first is waited for, though nothing was taken of it."""

    class Gate(Throttle):
        open = False

        def ready(self, key: Any, now: int) -> bool:
            return self.open

        def let_in(self) -> None:
            self.open = True
            self._wake()

    per_tag, woken = PerTag("host:", Gate()), []
    per_tag.wait(only("host:a", "host:b"), lambda: woken.append(1))
    for tag in ("host:a", "host:b"):
        per_tag[tag].let_in()
    assert woken == [1]
    assert per_tag.ready(only("host:a", "host:b"), 0)


@given(st.dictionaries(tags, st.integers(1, 12), min_size=2), st.integers(0, 200))
@settings(max_examples=50, deadline=None)
def test_backlogged_tags_get_their_shares(weights: dict[str, int], skip: int) -> None:
    """Over any interval in which all have threadlets queued, each tag has its share of the starts, but for one or two.

    What any two get, divided by their weights, differs by no more than one start of each (theorem 1 of the paper). So
    one of n tags, whose share is s, is off by no more than 1 + (n - 2) * s starts.
    """
    fair = FairShare("host:", weights)
    for turn in range(skip):  # what was before does not matter
        fair.take(only(TAGS[turn % 3]), 0)
    starts, total = Counter[str](), sum(weights.values())
    pairs = [(one, other) for one in weights for other in weights if one < other]
    lags: dict[str, list[Fraction]] = {tag: [Fraction(0)] for tag in weights}
    apart = {pair: [Fraction(0)] for pair in pairs}
    for turn in range(1, 150):
        first = min(weights, key=lambda tag: fair.rank(only(tag)))
        fair.take(only(first), 0)
        starts[first] += 1
        for tag, weight in weights.items():
            lags[tag].append(starts[tag] - Fraction(turn * weight, total))
        for one, other in pairs:
            apart[one, other].append(Fraction(starts[one], weights[one]) - Fraction(starts[other], weights[other]))
    rounded = Fraction(1, 10**6)
    for (one, other), values in apart.items():
        assert max(values) - min(values) <= Fraction(1, weights[one]) + Fraction(1, weights[other]) + rounded
    for tag, values in lags.items():
        assert max(values) - min(values) <= 1 + (len(weights) - 2) * Fraction(weights[tag], total) + rounded


def test_a_newcomer_is_not_delayed() -> None:
    """However much others have queued or had, the first threadlet of a tag goes before their next ones; only once."""
    fair = FairShare("tenant:")
    old, new = only("tenant:old"), only("tenant:new")
    for _ in range(10_000):
        fair.take(old, 0)
    assert fair.rank(new) < fair.rank(old)
    fair.take(new, 0)
    assert fair.rank(new) >= fair.rank(old), "what it did not use earlier it cannot claim now"


def test_without_a_tag_there_is_one_account() -> None:
    """Threadlets without a matching tag share an account of the default weight, which unknown tags have, too."""
    fair = FairShare("", {"a": 2.0})
    for _ in range(2):
        fair.take(only(), 0)
    assert fair.rank(only()) == 2 * UNIT
    assert fair.rank(only("")) == UNIT, "the empty string is a tag like others"
    assert (fair["a"], fair["b"]) == (2.0, 1.0)


def test_more_weight_helps_at_once() -> None:
    """A tag that has to wait long for its next turn waits less when it is given more weight, and pools are told."""
    fair, woken = FairShare("tenant:", {"tenant:a": 1e-6}), []
    key = only("tenant:a")
    fair.take(key, 0)
    fair.wait(key, lambda: woken.append(fair.rank(key)))
    assert fair.rank(key) == 10**6 * UNIT
    fair["tenant:a"] = 2
    assert woken == [UNIT // 2]
    del fair["tenant:a"]
    assert fair.rank(key) == UNIT
    assert repr(fair) == "<FairShare 'tenant:', weights {}, default 1.0>"


def test_shares_are_forgotten_and_copied() -> None:
    """Tags that come by once are forgotten; a copy has the weights and not what was used, nor later changes."""
    fair = FairShare("tenant:", {"tenant:0": 4})
    for number in range(20_000):
        fair.take(only(f"tenant:{number}"), 0)
        fair.take(only("tenant:0"), 0)
        assert len(fair._finish) <= 2 * shares.FEW
    copy = fair.copy()
    fair["tenant:0"] = 5
    assert copy["tenant:0"] == 4
    assert (copy.is_idle(0), fair.is_idle(0)) == (True, False)
    copy._check()


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: PerTag(7, Rate(1)), TypeError, "PerTag prefix 7: expected a string"),
        (lambda: FairShare(None), TypeError, "FairShare prefix None: expected a string"),
        (lambda: PerTag("host:"), TypeError, "at least one throttle"),
        (lambda: PerTag("host:", Concurrency), TypeError, "is no throttle"),
        (lambda: PerTag("host:", 2), TypeError, "2 is no throttle"),
        (lambda: PerTag("host:", FairShare("host:")), TypeError, "beside this one"),
        (lambda: PerTag("host:", PerTag("host:", Rate(1))), TypeError, "beside this one"),
        (lambda: PerTag("host:", Rate(1))["tenant:a"], KeyError, "'tenant:a': expected a tag that starts with 'host:'"),
        (lambda: PerTag("host:", Rate(1))[7], KeyError, "7: expected a tag that starts with 'host:'"),
        (lambda: FairShare("host:", ["host:a"]), TypeError, "expected a mapping"),
        (lambda: FairShare("host:", {"a": 1}), KeyError, "'a': expected a tag that starts with 'host:'"),
        (lambda: FairShare("host:", {"host:a": 0}), ValueError, "FairShare weight of 'host:a': 0: expected a finite"),
        (lambda: FairShare("host:", {"host:a": True}), TypeError, "expected a number"),
        (lambda: FairShare("host:", default=float("nan")), ValueError, "FairShare default weight nan: expected"),
        (lambda: FairShare("host:")["a"], KeyError, "'a': expected a tag"),
        (lambda: FairShare("host:").__delitem__("host:a"), KeyError, "default weight anyway"),
    ],
)
def test_mistakes(make: Any, error: type[Exception], says: str) -> None:
    """What makes no sense is refused at the call, in words that say what was expected."""
    with pytest.raises(error) as caught:
        make()
    assert says in str(caught.value.args[0])
