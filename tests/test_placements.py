"""The learner, on a clock that is told: when an entrypoint moves in place, when it is sent back, what that may cost."""

from __future__ import annotations

import random

import pytest

from tests.support import FakeClock
from threadlets.placements import (
    DOUBTFUL,
    FAIR,
    FAST_MERIT,
    GOOD_BEHAVIOUR,
    HOP,
    LONG,
    PROBATION,
    PROBATION_MAX,
    SLOW_MERIT,
    WATCHED,
    WINDOW,
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
        before = self.on_workers
        while not self.learner.in_place:
            self.clock.pass_(seconds=100)  # whatever the budget owes
            self.call()
            assert self.on_workers - before <= 10 * PROBATION_MAX, "it never moves in place"
        return self.on_workers - before

    def overdraw(self) -> None:
        """Make it block in place for too long."""
        self.learner.watch = WATCHED
        assert self.call(TOO_LONG, blocked=True)
        assert not self.learner.in_place


TOO_LONG = HOP + HOP * WINDOW  # of one call: the expected stall becomes that of a hop


def test_moves_in_place_after_probation() -> None:
    """A new entrypoint runs on workers until PROBATION calls were fast, that is, no slower than a hop."""
    calls = Calls()
    assert calls.move_in_place() == PROBATION
    calls = Calls()
    for _ in range(PROBATION - 1):
        assert not calls.call(HOP)
    assert repr(calls.learner) == f"<Learner: on workers, {PROBATION - 1} of {PROBATION} fast calls>"
    calls.call(HOP)
    assert calls.call()
    assert repr(calls.learner) == "<Learner: in place, expected stall 0 us>"


@pytest.mark.parametrize(("spent", "blocked", "merit"), [(FAIR, False, FAST_MERIT), (FAIR + 1, False, SLOW_MERIT)])
def test_computing_is_forgiven_more(spent: int, blocked: bool, merit: int) -> None:
    """A call that is known not to have blocked is fast up to FAIR: on a worker it competes with the loop anyway."""
    calls = Calls()
    calls.learner.watch = 1
    calls.call(spent, blocked=blocked)
    assert calls.learner._merit == merit


def test_slow_calls_count_little() -> None:
    """A slow call on a worker is no proof against its function, but many are needed in the place of a fast one."""
    calls = Calls()
    for _ in range(FAST_MERIT // SLOW_MERIT * PROBATION - 1):
        calls.call(HOP + 1, blocked=True)
    assert not calls.learner.in_place
    calls.call(HOP + 1, blocked=True)
    assert calls.learner.in_place


def test_long_calls_start_the_probation_again() -> None:
    """A call on a worker that waited for LONG costs all merit, and has to fade; one that computed does not."""
    calls = Calls()
    calls.fast(PROBATION - 1)
    calls.call(LONG, blocked=True)
    assert calls.move_in_place() > WINDOW
    calls = Calls()
    calls.fast(PROBATION - 1)
    calls.learner.watch = 1
    calls.call(LONG, blocked=False)
    assert calls.move_in_place() == 1


def test_what_blocks_long_stays_on_workers() -> None:
    """A function that always waits for LONG never moves in place, measured or not."""
    calls = Calls()
    for _ in range(1000):
        calls.call(LONG, blocked=True)
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


@pytest.mark.parametrize("blocked", [True, False])
def test_expected_stall_sends_back(blocked: bool) -> None:
    """An entrypoint is sent back when what its calls are expected to stall costs as much as a hop, and not before."""
    forgiven = HOP if blocked else FAIR
    for spent, stays in [(forgiven + HOP * WINDOW - 1, True), (forgiven + HOP * WINDOW, False)]:
        calls = Calls()
        calls.move_in_place()
        calls.learner.watch = 1
        assert calls.call(spent, blocked=blocked)
        assert calls.learner.in_place is stays
        assert calls.learner.overdrafts == (not stays)


@pytest.mark.parametrize(("apart", "stays"), [(0, False), (1, False), (20 * WINDOW, True)])
def test_expected_stall_fades(apart: int, stays: bool) -> None:
    """Two calls that stalled for a while weigh together, unless there were many fast ones between them."""
    calls = Calls()
    calls.move_in_place()
    for _ in range(2):
        calls.fast(apart)
        calls.learner.watch = 1
        calls.call(HOP + HOP * WINDOW * 2 // 3, blocked=True)
    assert calls.learner.in_place is stays


def test_overdraft_sends_back_who_contributes() -> None:
    """Once the loop's budget is overdrawn, a quarter of the expected stall is too much; less is still nothing."""
    for spent, stays in [(HOP + HOP * WINDOW // 4 - 1, True), (HOP + HOP * WINDOW // 4, False)]:
        calls = Calls()
        calls.move_in_place()
        calls.budget.spend(2 * StallBudget.CAP, calls.clock.now)
        calls.learner.watch = 1
        assert calls.call(spent, blocked=True)
        assert calls.learner.in_place is stays


def test_doubts() -> None:
    """A slow call that nobody watched is a doubt: one does not send away, many together do, and they fade."""
    calls = Calls()
    calls.move_in_place()
    many = DOUBTFUL * WINDOW // (LONG - HOP - 1) + 1
    for number in range(1, many + 1):
        calls.learner.watch = 0
        assert calls.call(LONG - 1)
        assert calls.learner.in_place is (number < many)
    calls = Calls()
    calls.move_in_place()
    for _ in range(3 * many):
        calls.learner.watch = 0
        assert calls.call(LONG - 1)
        calls.clock.pass_(seconds=10)
        calls.fast(20 * WINDOW)
    assert calls.learner.in_place
    assert calls.call(LONG), "long enough to be a proof"
    assert not calls.learner.in_place


def test_probation_doubles() -> None:
    """Each time that it is sent back, it needs twice as many fast calls to return, up to a limit."""
    calls = Calls()
    expected = PROBATION
    for overdrafts in range(1, 15):
        needed = calls.move_in_place()
        assert calls.learner._probation == expected
        assert needed == expected or (expected < 2 * WINDOW and needed < 2 * WINDOW)  # the stall has to fade, too
        calls.overdraw()
        assert calls.learner.overdrafts == overdrafts
        expected = min(2 * expected, PROBATION_MAX)
    assert expected == PROBATION_MAX


@pytest.mark.parametrize("good", [True, False])
def test_good_behaviour_is_remembered(good: bool) -> None:
    """Enough calls in place between two overdrafts make the earlier ones forgotten; one too few do not."""
    calls = Calls()
    for _ in range(5):
        calls.move_in_place()
        calls.overdraw()
    probation = 32 * PROBATION
    assert calls.move_in_place() == probation
    calls.fast(GOOD_BEHAVIOUR * probation - (1 if good else 2))
    calls.overdraw()  # this is the last call of the count
    assert calls.learner._probation == (2 * PROBATION if good else 2 * probation)


def test_insolvent_loop_takes_nobody_back() -> None:
    """While the loop's budget is overdrawn, no entrypoint returns that was sent away; a new one gets its chance."""
    clock = FakeClock()
    budget = StallBudget(clock.now)
    other, calls = Calls(clock, budget), Calls(clock, budget)
    other.move_in_place()
    other.overdraw()
    budget.spend(2 * StallBudget.CAP, clock.now)
    other.fast(20 * PROBATION)
    assert not other.learner.in_place
    calls.fast(PROBATION)
    assert calls.learner.in_place
    clock.pass_(seconds=100)
    other.fast(1)
    assert other.learner.in_place


def test_one_lesson_is_enough() -> None:
    """Calls in place that were under way together and end late count as one overdraft, not as several."""
    calls = Calls()
    calls.move_in_place()
    for _ in range(3):
        calls.learner.ran_in_place(1000 * MS, True, False, 1, calls.budget, calls.clock.now)
    assert calls.learner.overdrafts == 1
    assert calls.learner._probation == 2 * PROBATION


def test_fan_out_needs_one_miss() -> None:
    """In fan-out one call that is known to have blocked for FAIR is enough, though the loop could well afford it."""
    for fan_out, spent, watched, blocked, stays in [
        (True, FAIR, True, True, False),
        (False, FAIR, True, True, True),
        (True, FAIR - 1, True, True, True),
        (True, FAIR, False, True, True),  # it may have been preempted; from now on it is watched
        (True, 2 * FAIR, True, False, True),  # it computed: on workers, together, it would take as long
        (True, LONG, False, True, False),
    ]:
        calls = Calls()
        calls.move_in_place()
        calls.learner.watch = WATCHED if watched else 0
        assert calls.call(spent, blocked=blocked, fan_out=fan_out)
        assert calls.learner.in_place is stays, (fan_out, spent, watched, blocked)
    calls = Calls()
    calls.move_in_place()
    calls.call(FAIR, blocked=True, fan_out=True)
    calls.call(FAIR, blocked=True, fan_out=True)
    assert not calls.learner.in_place, "the second one was watched"


def test_budget() -> None:
    """The budget earns a share of wall time up to its cap, owes what it could not pay; a clock may step back."""
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
    """Forty entrypoints that block now and then stall their loop for 1 % of the time, and for a bit at first."""
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
    """A function that blocks for 10 ms at regular intervals cannot hide from the watch by their length."""
    calls = Calls()
    for number in range(30_000):
        blocks = number % every == every - 1
        calls.call(10 * MS if blocks else FAST, blocked=blocks)
        calls.clock.pass_(ns=30_000)
    assert calls.overrun <= StallBudget.SHARE * calls.clock.now + 2 * StallBudget.CAP


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_percent_blocks_for_100_ms(seed: int) -> None:
    """A function that blocks for 100 ms in one call of a hundred ends on workers, and almost always stays there."""
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
    for _ in range(1000):
        calls.call(1000 * MS, blocked=True)
    assert calls.move_in_place() < 2 * PROBATION_MAX
    for _ in range(20):
        calls.move_in_place()
        calls.overdraw()
    assert calls.move_in_place() == PROBATION_MAX


@pytest.mark.parametrize("in_place", [True, False])
def test_fixed(in_place: bool) -> None:
    """What the contract has settled is not changed by any call, and costs the budget nothing."""
    learner, budget = Fixed(in_place=in_place), StallBudget(0)
    for _ in range(100):
        learner.ran_in_place(10_000 * MS, True, True, 1, budget, 0)
        learner.ran_on_worker(1, False, 1, True)
    assert (learner.in_place, learner.watch, learner.overdrafts) == (in_place, 0, 0)
    assert budget.spend(StallBudget.CAP, 0)
    assert repr(learner) == f"<Fixed: {'in place' if in_place else 'on workers'}>"
