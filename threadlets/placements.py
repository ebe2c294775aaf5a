"""Where the calls of an entrypoint run: learned from how long they took and whether they blocked.

Why: sending a call to a worker thread costs about 100 us, and most calls need less than that; running one in place that
does block stalls every other task of the loop. Neither is known before the call, but both are known of the calls
before.

The rule: an entrypoint belongs in place while ``P(block) x cost of a stall < cost of a hop``. The left side is kept as
the *expected stall*, a moving average over its last calls. On a loop that cannot change hands an entrypoint starts on
workers, and moves in place after a run of fast calls. What its calls in place overrun is also paid from a stall budget
that all entrypoints of a loop share, 1 % of wall time: who contributes to an overdraft goes back to the workers, and
one that has been sent back waits longer each time, and until the budget is solvent.

Evidence: that a call was slow says little by itself. It may have computed, which it would do on a worker too, competing
with the loop for the interpreter lock. The system may have given the CPU to somebody else. Or it waited for the
interpreter lock while workers were busy, for as much as several of its switch intervals (5 ms), and it would do so
anywhere. Whether a thread waited, and whether it was only preempted, can be measured for 0.8 us, so only the calls
after a slow one are *watched*. A call that was slow and is not proven to have blocked counts as a *doubt*: many of them
are needed. One that took longer than all such accidents is proof enough.

In fan-out - several starts before the first await - calls that block in place run one after the other instead of at the
same time. So one proven miss is enough.

Rejected: judging by the budget alone (one entrypoint's long stall made it an overdraft when the next one was late by a
little); judging worker calls by CPU time (the wait for the interpreter lock and the wait for a disk look the same).

Pure: times are arguments, in nanoseconds, and nothing here knows a clock.
"""

from __future__ import annotations

__all__ = ["FAIR", "HOP", "SWITCHES", "TAKEOVER", "TOLL", "TURN", "Fixed", "Learner", "StallBudget"]

HOP = 100_000  # ns; what a call on a worker costs: benchmarks/calls.py measures 80-130 us, one at a time
FAIR = 1_000_000  # ns; arbitrary: how long one callback of a well-behaved loop may compute

# How long the loop may be kept from going round by what runs in place: tokio's cooperative budget, counted in time.
# Once it is used up, the next await of a finished threadlet lets the loop go round, and starts before that go through
# the loop.
TURN = 2_000_000  # ns; arbitrary: a round of the loop every 2 ms costs less than 1 %
TOLL = 1_000  # ns; charged for each call of a plain function on top of its own time, measured: benchmarks/calls.py

# What a call that blocks in place costs a loop that changes hands: until it is taken over, and then two switches from
# thread to thread; measured: benchmarks/takeover.py.
SWITCHES = 250_000  # ns
TAKEOVER = 2_000_000 + SWITCHES  # ns
LONG = 20_000_000  # ns; arbitrary: several time slices of the scheduler and switch intervals of the interpreter
WINDOW = 64  # calls; arbitrary: over which the expected stall is averaged
DOUBTFUL = 2_000_000  # ns per call; arbitrary: doubts that weigh as much as a proof
FAST_MERIT, SLOW_MERIT = 16, 1  # arbitrary: what a call on a worker adds, if it was fast, or slow for whatever reason
WATCHED = 64  # arbitrary: calls that are measured after a slow one
SUSPECTED = 4096  # arbitrary: the same while the budget is overdrawn, so that regular misses are seen

PROBATION = 8  # arbitrary: fast calls on workers before an entrypoint moves in place
PROBATION_MAX = 4096  # arbitrary: so that what has become fast is found to be within a minute or so
GOOD_BEHAVIOUR = 100  # arbitrary: calls in place per call of probation after which earlier overdrafts are forgotten


class StallBudget:
    """Nanoseconds of overrun that a loop may still afford: a share of wall time, saved up to a cap.

    >>> budget = StallBudget(now=0)
    >>> budget.spend(60_000_000, now=0), budget.solvent(now=0)
    (False, False)
    >>> budget.solvent(now=2_000_000_000)    # two seconds earn 20 ms
    True
    """

    SHARE = 0.01  # of wall time
    CAP = 50_000_000  # ns; arbitrary: half of what a person notices

    __slots__ = ("_at", "_balance")

    def __init__(self, now: int) -> None:
        self._at = now
        self._balance = float(self.CAP)

    def _earn(self, now: int) -> None:
        self._balance = min(self.CAP, self._balance + max(0, now - self._at) * self.SHARE)
        self._at = max(now, self._at)

    def spend(self, overrun: int, now: int) -> bool:
        """Take an overrun out; False if that was an overdraft."""
        self._earn(now)
        self._balance -= overrun
        return self._balance >= 0

    def solvent(self, now: int) -> bool:
        """Say whether the budget is not overdrawn."""
        self._earn(now)
        return self._balance >= 0

    def _check(self) -> None:
        assert self._balance <= self.CAP, "no more is saved than the cap"


class Learner:
    """The placement of one entrypoint.

    Attributes:
        in_place: Whether the next call should run in place.
        watch: How many of the next calls are to be measured for blocking; whoever runs them counts down.
        limit: Calls in place longer than this, in nanoseconds, must be reported with ``ran_in_place``.
        overdrafts: How often it was sent back to the workers.
    """

    __slots__ = (
        "_counted",
        "_doubt",
        "_merit",
        "_moved_at",
        "_probation",
        "_stall",
        "in_place",
        "overdrafts",
        "watch",
    )

    limit = HOP // 2
    learns = True  # whether there is any use in reporting what ran on a worker

    def __init__(self) -> None:
        self.in_place = False
        self.watch = 0
        self.overdrafts = 0
        self._probation = PROBATION
        self._merit = 0  # what its calls on workers have earned since it was sent there
        self._stall = 0.0  # ns; the expected stall of a call in place, from what is proven
        self._doubt = 0.0  # ns; the same, from what is not
        self._counted = 0  # how many calls in place the averages have seen
        self._moved_at = 0  # how many calls in place there had been when it moved in place

    def __repr__(self) -> str:
        if self.in_place:
            return f"<Learner: in place, expected stall {self._stall / 1000:.0f} us>"
        return f"<Learner: on workers, {self._merit // FAST_MERIT} of {self._probation} fast calls>"

    def trust(self) -> bool:
        """Move in place if nothing is known yet: for loops that change hands. Return whether it has."""
        self.in_place = not (self.overdrafts or self._merit or self._stall or self.watch)
        return self.in_place

    def ran_on_worker(
        self, spent: int, blocked: bool | None, in_place: int, solvent: bool, cost: int | None = None
    ) -> None:
        """Learn from a call on a worker that took ``spent`` ns.

        Args:
            spent: How long the call took, in nanoseconds.
            blocked: Whether it gave up its CPU to wait; None if that was not measured.
            in_place: How many calls in place there have been.
            solvent: Whether the loop's stall budget is not overdrawn.
            cost: How long it would have stalled the loop, in nanoseconds; None: all of its time.
        """
        self._forget(1)
        if spent <= (FAIR if blocked is False else HOP):
            self._merit += FAST_MERIT
        else:
            self.watch = WATCHED
            if spent >= LONG and blocked is not False:
                self._stall += (spent if cost is None else cost) / WINDOW
                self._merit = 0
            else:
                self._merit += SLOW_MERIT
        if (
            self._merit >= FAST_MERIT * self._probation
            and self._stall < HOP / 4  # a quarter: so that it does not move back and forth
            and (solvent or not self.overdrafts)
            and not self.in_place
        ):
            self.in_place = True
            self._counted = self._moved_at = in_place
            self._doubt = 0.0

    def ran_in_place(
        self, spent: int, blocked: bool | None, fan_out: bool, in_place: int, budget: StallBudget, now: int
    ) -> None:
        """Learn from a call in place that held the loop up for ``spent`` ns; it took more than ``limit``.

        Args:
            spent: How long the loop had to wait, in nanoseconds: for the call, or for being taken over.
            blocked: Whether it gave up its CPU to wait; None if that was not measured, or if it may have waited for the
                interpreter lock.
            fan_out: Whether the caller had started other threadlets that it had not awaited yet.
            in_place: How many calls in place there have been.
            budget: What the loop can still afford.
            now: The clock, in nanoseconds.
        """
        self.watch = WATCHED
        self._forget(in_place - self._counted)
        self._counted = in_place
        overrun = spent - (FAIR if blocked is False else HOP)
        if overrun <= 0:
            return
        solvent = budget.spend(overrun, now)
        if not solvent:
            self.watch = SUSPECTED
        if blocked is None and spent < LONG:
            self._doubt += overrun / WINDOW
            if self._doubt >= DOUBTFUL:
                self._go_to_workers(in_place)
            return
        self._stall += overrun / WINDOW
        missed = fan_out and blocked is not False and spent >= FAIR
        if self._stall >= HOP or missed or (not solvent and self._stall >= HOP / 4):
            self._go_to_workers(in_place)

    def _forget(self, calls: int) -> None:
        """Let the averages fade by some calls that added nothing."""
        if calls > 0 and (self._stall or self._doubt):
            fade = (1 - 1 / WINDOW) ** min(calls, 100 * WINDOW)
            self._stall *= fade
            self._doubt *= fade

    def _go_to_workers(self, in_place: int) -> None:
        if not self.in_place:  # several calls were under way at once; one lesson is enough
            return
        self.in_place = False
        self.overdrafts += 1
        if in_place - self._moved_at >= GOOD_BEHAVIOUR * self._probation:
            self._probation = PROBATION
        self._probation = min(2 * self._probation, PROBATION_MAX)
        self._merit = 0

    def _check(self) -> None:
        assert PROBATION <= self._probation <= PROBATION_MAX, "probation stays in its bounds"
        assert self._merit >= 0 and self._stall >= 0 and self._doubt >= 0, "what is counted is counted upwards"


class Fixed(Learner):
    """A placement that the contract has settled: nothing is learned."""

    __slots__ = ()

    learns = False
    limit = FAIR  # ns; longer calls are looked at in debug mode only, to see whether they keep to their contract

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place

    def __repr__(self) -> str:
        return f"<Fixed: {'in place' if self.in_place else 'on workers'}>"

    def trust(self) -> bool:
        """Stay where the contract wants it."""
        return self.in_place

    def ran_on_worker(
        self, spent: int, blocked: bool | None, in_place: int, solvent: bool, cost: int | None = None
    ) -> None:
        """Learn nothing."""

    def ran_in_place(
        self, spent: int, blocked: bool | None, fan_out: bool, in_place: int, budget: StallBudget, now: int
    ) -> None:
        """Learn nothing."""
