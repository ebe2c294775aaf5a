"""When a region is taken: the rule alone, with times that are told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from threadlets.thresholds import CLOSE, LEAST, MOST, Threshold

MS = 1_000_000

steps = st.lists(
    st.one_of(
        st.tuples(st.just("looked"), st.integers(-2 * MS, 10**10)),
        st.tuples(st.just("took"), st.integers(0, 10**10)),
    ),
    max_size=200,
)


def play(rule: Threshold, plan: list[tuple[str, int]]) -> None:
    """Take each step, the takeovers one after the other in time."""
    now = 0
    for step, value in plan:
        if step == "looked":
            rule.looked(value)
        else:
            now += value
            rule.took(now)
        rule._check()


@given(steps)
def test_stays_in_its_bounds(plan: list[tuple[str, int]]) -> None:
    """Whatever happens, in whatever order: a region is taken after 1 to 8 ms."""
    play(Threshold(), plan)


@given(steps, st.integers(1, 10**9))
def test_fixed(plan: list[tuple[str, int]], fixed: int) -> None:
    """One that the user has set stays what it is."""
    rule = Threshold(fixed)
    play(rule, plan)
    assert rule.after == fixed


@given(steps)
def test_calms_down(plan: list[tuple[str, int]]) -> None:
    """After any past, a sentinel that is in time and takeovers that are rare bring it back to a millisecond."""
    rule = Threshold()
    play(rule, plan)
    now = 10**13
    for _ in range(500):
        rule.looked(0)
        now += CLOSE
        rule.took(now)
        rule._check()
    assert rule.after == LEAST


def test_starts_at_a_millisecond() -> None:
    """A new rule takes after a millisecond; the first takeover is not a close one."""
    rule = Threshold()
    assert rule.after == LEAST
    rule.took(0)
    assert rule.after == LEAST
    rule._check()


def test_late_sentinel_takes_later() -> None:
    """Where the sentinel is usually late, regions are taken later, by that; a single outlier counts little."""
    rule = Threshold()
    for _ in range(200):
        rule.looked(3 * MS)
        rule._check()
    assert 0.99 * 3 * MS < rule.after <= 3 * MS
    rule = Threshold()
    rule.looked(10**12)
    rule._check()
    assert rule.after == LEAST
    for _ in range(200):
        rule.looked(10**12)
        rule._check()
    assert 0.99 * MOST < rule.after <= MOST


def test_close_takeovers_widen_it() -> None:
    """Takeovers that follow each other closely make it wait longer, step by step up to 8 ms; rarer ones undo it."""
    rule = Threshold()
    now, seen = 0, []
    for _ in range(20):
        now += CLOSE - 1
        rule.took(now)
        rule._check()
        seen.append(rule.after)
    assert seen == sorted(seen)
    assert seen[0] == LEAST
    assert seen[-1] == MOST
    narrower = []
    for _ in range(30):
        now += CLOSE
        rule.took(now)
        rule._check()
        narrower.append(rule.after)
    assert narrower == sorted(narrower, reverse=True)
    assert narrower[-1] == LEAST


def test_repr() -> None:
    """It says it in milliseconds."""
    assert repr(Threshold(2_500_000)) == "<Threshold: taken after 2.50 ms>"
