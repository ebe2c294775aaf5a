"""The learner, on a clock that is told: when an entrypoint moves in place, when it is sent back, and what it may cost."""

from __future__ import annotations

import random

import pytest

from tests.support import FakeClock
from threadlets.placements import (
    FAIR,
    GOOD_BEHAVIOUR,
    HOP,
    LONG,
    PROBATION,
    PROBATION_MAX,
    WATCHED,
    Fixed,
    Learner,
    StallBudget,
)

MS = 1_000_000  # ns
FAST = 20_000  # ns


class Calls:
    """The calls of one entrypoint, reported to its learner as ``homes.py`` does."""

    def __init__(self, clock: FakeClock | None = None, budget: StallBudget | None = None) -> None:
        self.clock = clock or FakeClock()
        self.budget = budget or StallBudget(self.clock.now)
        self.learner = Learner()
        self.in_place = self.on_workers = 0
        self.overrun = 0  # ns beyond a hop, in place

    def call(self, spent: int = FAST, *, blocked: bool = False, fan_out: bool = False) -> bool:
        """Call it once; return whether that was in place. ``blocked`` is only seen if the call is watched."""
        learner = self.learner
        seen = None
        if learner.watch:
            learner.watch -= 1
            seen = blocked
        in_place = learner.in_place
        if in_place:
            self.clock.pass_(ns=spent)
            self.in_place += 1
            self.overrun += max(0, spent - HOP)
            if spent > learner.limit:
                learner.ran_in_place(spent, seen, fan_out, self.in_place, self.budget, self.clock.now)
        else:
            self.on_workers += 1
            learner.ran_on_worker(spent, seen, self.in_place, self.budget.solvent(self.clock.now))
        learner._check()
        self.budget._check()
        return in_place

    def fast(self, count: int) -> None:
        for _ in range(count):
            self.call()

    def move_in_place(self) -> int:
        """Make fast calls until it has moved in place; return how many that took."""
        self.clock.pass_(seconds=100)  # whatever the budget owes
        before = self.on_workers
        while not self.learner.in_place:
            self.call()
        return self.on_workers - before

    def overdraw(self) -> None:
        """Make it block in place for longer than the budget can pay."""
        assert self.call(1000 * MS, blocked=True)
        assert not self.learner.in_place


def test_moves_in_place_after_probation() -> None:
    """A new entrypoint runs on workers until PROBATION calls in a row were fast; a slow one starts the count again."""
    calls = Calls()
    calls.fast(PROBATION - 1)
    assert not calls.call(HOP + 1, blocked=True)
    calls.fast(PROBATION - 1)
    assert not calls.learner.in_place
    assert repr(calls.learner) == f"<Learner: on workers, {PROBATION - 1} of {PROBATION} fast calls>"
    assert not calls.call(HOP), "as long as a hop is fast"
    assert calls.call()
    assert repr(calls.learner) == "<Learner: in place>"


@pytest.mark.parametrize(("spent", "blocked", "moves"), [(FAIR, False, True), (FAIR + 1, False, False)])
def test_what_only_computes_is_forgiven_more(spent: int, blocked: bool, moves: bool) -> None:
    """A call that is known not to have blocked is fast up to FAIR: on a worker it would compete with the loop anyway."""
    calls = Calls()
    for _ in range(PROBATION + 1):  # the first is not watched
        calls.call(spent, blocked=blocked)
    assert calls.learner.in_place is moves


def test_what_blocks_longer_than_a_hop_stays_on_workers() -> None:
    """A function that waits for longer than a hop costs never moves in place, measured or not."""
    calls = Calls()
    for _ in range(1000):
        calls.call(HOP + 1, blocked=True)
    assert calls.in_place == 0


def test_slow_calls_are_watched() -> None:
    """After a slow call, on a worker or in place, the next WATCHED calls are measured; after fast ones none is."""
    calls = Calls()
    calls.fast(5)
    assert calls.learner.watch == 0
    calls.call(HOP + 1)
    assert calls.learner.watch == WATCHED
    calls.move_in_place()
    calls.fast(WATCHED)
    assert calls.learner.watch == 0
    calls.call(HOP + 1)
    assert calls.learner.watch == WATCHED


def test_overdraft_sends_back() -> None:
    """Overruns are paid from the budget, to its last nanosecond; the first that it cannot pay sends the entrypoint away."""
    calls = Calls()
    calls.fast(PROBATION)
    calls.learner.watch = WATCHED
    each = StallBudget.CAP // 5
    calls.clock.pass_ = lambda **_: 0  # type: ignore[method-assign]  # so that nothing is earned
    for _ in range(5):
        assert calls.call(HOP + each, blocked=True)
    assert calls.call(HOP + 1, blocked=True)
    assert not calls.learner.in_place
    assert calls.learner.overdrafts == 1


def test_computing_is_charged_beyond_what_is_fair() -> None:
    """A call that computed is charged what it took beyond FAIR, and can overdraw the budget too."""
    calls = Calls()
    calls.fast(PROBATION)
    calls.learner.watch = WATCHED
    for _ in range(1000):
        assert calls.call(FAIR)
    assert calls.call(FAIR + StallBudget.CAP)
    assert calls.learner.in_place
    assert calls.call(FAIR + StallBudget.CAP)
    assert not calls.learner.in_place


def test_probation_doubles() -> None:
    """Each time that it is sent back, it needs twice as many fast calls to return, up to a limit."""
    calls = Calls()
    expected = PROBATION
    for overdrafts in range(1, 15):
        assert calls.move_in_place() == expected
        calls.overdraw()
        assert calls.learner.overdrafts == overdrafts
        expected = min(2 * expected, PROBATION_MAX)
    assert expected == PROBATION_MAX


@pytest.mark.parametrize("good", [True, False])
def test_good_behaviour_is_remembered(good: bool) -> None:
    """Enough calls in place between two overdrafts make the earlier ones forgotten; one too few do not."""
    calls = Calls()
    for _ in range(3):
        calls.move_in_place()
        calls.overdraw()
    probation = 8 * PROBATION
    assert calls.move_in_place() == probation
    calls.fast(GOOD_BEHAVIOUR * probation - (1 if good else 2))
    calls.overdraw()  # this is the last call of the count
    assert calls.move_in_place() == (2 * PROBATION if good else 2 * probation)


def test_insolvent_loop_takes_nobody_in() -> None:
    """While the loop's budget is overdrawn, no entrypoint moves in place, however fast its calls are."""
    clock = FakeClock()
    budget = StallBudget(clock.now)
    other, calls = Calls(clock, budget), Calls(clock, budget)
    other.fast(PROBATION)
    other.overdraw()
    calls.fast(10 * PROBATION)
    assert calls.in_place == 0
    clock.pass_(seconds=100)
    calls.fast(1)
    assert calls.call()


def test_one_lesson_is_enough() -> None:
    """Calls in place that were under way together and end late count as one overdraft, not as several."""
    calls = Calls()
    calls.fast(PROBATION)
    for _ in range(3):
        calls.learner.ran_in_place(1000 * MS, True, False, 1, calls.budget, calls.clock.now)
    assert calls.learner.overdrafts == 1
    assert calls.move_in_place() == 2 * PROBATION


def test_fan_out_needs_one_long_miss() -> None:
    """In fan-out one call that is known to have blocked for FAIR is enough, though the budget could pay for it."""
    for spent, watched, blocked, stays in [
        (FAIR, True, True, False),
        (FAIR - 1, True, True, True),
        (FAIR, False, True, True),  # it may have been preempted; from now on it is watched
        (LONG, False, True, False),
        (LONG, True, False, True),  # it computed: at the same time, on workers, it would take as long
    ]:
        calls = Calls()
        calls.fast(PROBATION)
        calls.learner.watch = WATCHED if watched else 0
        assert calls.call(spent, blocked=blocked, fan_out=True)
        assert calls.learner.in_place is stays, (spent, watched, blocked)
    calls = Calls()
    calls.fast(PROBATION)
    calls.call(FAIR, blocked=True, fan_out=True)
    calls.call(FAIR, blocked=True, fan_out=True)
    assert not calls.learner.in_place, "the second one was watched"


def test_fan_out_is_charged_in_full() -> None:
    """In fan-out blocked time is charged from its first nanosecond, since calls on workers would wait together."""
    budget = StallBudget(0)
    Learner().ran_in_place(HOP, True, True, 1, budget, 0)
    assert budget.spend(StallBudget.CAP - HOP, 0)
    assert not budget.spend(1, 0)


def test_preemption_proves_nothing() -> None:
    """Short slow calls that nobody watched are charged, but do not send away: the system may have taken the CPU."""
    calls = Calls()
    calls.fast(PROBATION)
    for _ in range(100):
        assert calls.call(LONG - 1)
        calls.fast(WATCHED)  # fast ones: the watch ends
    assert calls.learner.in_place
    assert not calls.budget.solvent(calls.clock.now)
    calls.call(LONG)
    assert not calls.learner.in_place


def test_budget() -> None:
    """The budget earns its share of wall time up to its cap, owes what it could not pay, and ignores a clock's step back."""
    clock = FakeClock(now=10**18)
    budget = StallBudget(clock.now)
    assert budget.spend(StallBudget.CAP, clock.now)
    assert budget.solvent(clock.now)
    assert not budget.spend(1 * MS, clock.now)
    assert not budget.solvent(clock.pass_(ms=99))
    assert budget.solvent(clock.pass_(ms=1))
    assert budget.solvent(clock.now - 10**12)
    assert not budget.spend(1 * MS, clock.now), "the time before the step back is not paid for twice"
    budget._check()
    assert budget.spend(StallBudget.CAP, clock.pass_(seconds=3600))
    assert not budget.spend(1, clock.now), "no more than the cap is saved"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_share_of_wall_time(seed: int) -> None:
    """Forty entrypoints that block now and then, of all kinds, stall their loop for 1 % of the time, and a bit at first."""
    chance = random.Random(seed)
    clock = FakeClock()
    budget = StallBudget(clock.now)
    kinds = [(10 ** chance.uniform(-3.5, 0), int(MS * 10 ** chance.uniform(-0.5, 2.5))) for _ in range(40)]
    entrypoints = [Calls(clock, budget) for _ in kinds]
    for _ in range(150_000):
        number = chance.randrange(40)
        rarely, spent = kinds[number]
        blocks = chance.random() < rarely
        entrypoints[number].call(spent if blocks else FAST, blocked=blocks)
        clock.pass_(ms=chance.expovariate(1))
    overrun = sum(calls.overrun for calls in entrypoints)
    longest = max(spent for _, spent in kinds)
    print(f"seed={seed}: {overrun / clock.now:.4f} of {clock.now / 1e9:.0f} s")
    assert overrun <= StallBudget.SHARE * clock.now + StallBudget.CAP + 2 * longest
    assert any(calls.in_place for calls in entrypoints)


@pytest.mark.parametrize("every", [WATCHED // 2, WATCHED + 1, 10 * WATCHED])
def test_share_of_wall_time_for_regular_blocks(every: int) -> None:
    """A function that blocks for 10 ms now and then, and always long after the last time, cannot hide from the watch."""
    calls = Calls()
    for number in range(30_000):
        blocks = number % every == every - 1
        calls.call(10 * MS if blocks else FAST, blocked=blocks)
        calls.clock.pass_(ns=30_000)
    assert calls.overrun <= StallBudget.SHARE * calls.clock.now + 2 * StallBudget.CAP


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_percent_blocks_for_100_ms(seed: int) -> None:
    """A function that blocks for 100 ms in one call of a hundred ends on workers, and stays there for almost all calls."""
    chance = random.Random(seed)
    calls = Calls()
    for number in range(60_000):
        if number == 20_000:
            calls.in_place = 0
        blocks = chance.random() < 0.01
        calls.call(100 * MS if blocks else FAST, blocked=blocks)
        calls.clock.pass_(ms=0.1)
    print(f"seed={seed}: {calls.in_place} of 40000 in place, {calls.learner.overdrafts} overdrafts")
    assert not calls.learner.in_place
    assert calls.in_place < 4_000


def test_what_became_fast_returns() -> None:
    """A function that was slow for long and is fast from now on is in place again after its probation."""
    calls = Calls()
    for _ in range(20):
        calls.move_in_place()
        calls.overdraw()
    calls.clock.pass_(seconds=100)
    calls.fast(PROBATION_MAX)
    assert calls.call()


@pytest.mark.parametrize("in_place", [True, False])
def test_fixed(in_place: bool) -> None:
    """What the contract has settled is not learned, and its calls in place need not be reported."""
    learner, budget = Fixed(in_place=in_place), StallBudget(0)
    assert learner.limit > 100 * 365 * 86400 * 10**9
    for _ in range(100):
        learner.ran_in_place(10_000 * MS, True, True, 1, budget, 0)
        learner.ran_on_worker(1, False, 1, True)
    assert (learner.in_place, learner.watch, learner.overdrafts) == (in_place, 0, 0)
    assert budget.spend(StallBudget.CAP, 0)
    assert repr(learner) == f"<Fixed: {'in place' if in_place else 'on workers'}>"
