"""Forced interleavings of all that may end a threadlet, or be in its way; after each step everything is in order.

The machine starts actors (``tests.actors``) in a pool with a throttle, and tells them what to do: hold, take a lock,
defer, fail. It cancels them, once or twice, from the loop or from a thread, or whoever waits for them; lets a deadline,
a timeout, the grace of a block or the time for a cleanup be over; closes the pool. Threads stop at gates, and no time
ever passes: after each step the loop goes round until nothing more comes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.actors import FAR, KINDS, Actor
from tests.workbench import PATIENCE
from threadlets import Concurrency, Lock, Pool, cancellation, cleanups, deadlocks, surroundings, waits
from threadlets.workers import shared_group

WHO = st.integers(0, 3)
ROUNDS = 5  # arbitrary: so many rounds of the loop in which nothing happens are enough to know that nothing will


class FaultsMachine(RuleBasedStateMachine):
    """See above."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.SelectorEventLoop()
        self.reports: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, report: self.reports.append(report))
        self.locks = [Lock("one", grace=FAR), Lock("two", grace=FAR)]
        self.poisoned: set[Lock] = set()
        self.throttle = Concurrency(3)
        self.pools: list[Pool] = []
        self.actors: list[Actor] = []  # those that have not ended
        self.all: list[Actor] = []
        self.waiters: list[asyncio.Future[Any]] = []
        self._do(self._open)

    def _open(self) -> None:
        self.pools.append(Pool(self.throttle))
        self.pools[-1].get_loop()  # it belongs to this one

    def teardown(self) -> None:
        try:
            progress = None
            while self.actors:
                before, progress = progress, [(len(actor.called), list(actor.blocks)) for actor in self.actors]
                assert progress != before, f"they do not end: {self.actors}"
                for who in range(len(self.actors)):
                    self.tell(who, "leave")
            for which in range(len(self.locks)):
                self.repair(which)
            self.in_order()
            self._judge()
        finally:
            for actor in self.all if self.actors else ():  # something has failed: they are not to be in the way of the next attempt
                actor.let_go()
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()

    # ----------------------------------------------------------------------------------------------------- how it goes

    def _do(self, action: Callable[[], Any]) -> None:
        """Do something on the loop, and let it go round until nothing more comes of it."""
        self.loop.run_until_complete(self._calm(action))
        for actor in self.all:
            self.poisoned.update(actor.poisons)
            actor.poisons.clear()
        self.actors = [actor for actor in self.actors if not actor.future.done() or actor.is_left]

    async def _calm(self, action: Callable[[], Any]) -> None:
        result = action()
        if asyncio.iscoroutine(result):
            await result
        calm, end = 0, monotonic() + PATIENCE
        while calm < ROUNDS:
            left = sum(actor.is_left for actor in self.all)
            quiet = all(actor.is_quiet() for actor in self.all) and sum(pool._abandoned for pool in self.pools) == left
            calm = calm + 1 if quiet else 0
            assert monotonic() < end, f"it does not calm down: {self.actors}"
            await asyncio.sleep(0)

    def _of(self, who: int) -> Actor | None:
        return self.actors[who % len(self.actors)] if self.actors else None

    # ------------------------------------------------------------------------------------------------ what actors do

    @rule(kind=st.sampled_from(KINDS), priority=st.sampled_from([0, 0, 1]))
    def start(self, kind: str, priority: float) -> None:
        if len(self.actors) < 4:
            actor = Actor(kind)
            self.actors.append(actor)
            self.all.append(actor)
            self._do(lambda: actor.start(self.pools[-1], priority))

    def tell(self, who: int, *word: Any) -> None:
        actor = self._of(who)
        if actor is not None and actor.stands:
            self._do(lambda: actor.tell(*word) if actor.on_thread else actor.tell(word[0] + "_async", *word[1:]))

    @rule(who=WHO, word=st.sampled_from(["look", "hold", "leave", "leave", "fail"]))
    def goes_on(self, who: int, word: str) -> None:
        self.tell(who, word)

    @rule(who=WHO, which=st.integers(0, 1))
    def takes(self, who: int, which: int) -> None:
        self.tell(who, "take", self.locks[which])

    @rule(who=WHO)
    def defers(self, who: int) -> None:
        actor = self._of(who)
        if actor is not None and actor.kind != "task":
            self.tell(who, "defer")

    @rule(who=WHO)
    def limits(self, who: int) -> None:
        actor = self._of(who)
        if actor is not None and not actor.on_thread:
            self.tell(who, "limit")

    # ------------------------------------------------------------------------------------------- what happens to them

    @rule(who=WHO)
    def cancel(self, who: int) -> None:
        actor = self._of(who)
        if actor is not None:
            self._do(lambda: actor.future.cancel("cancelled"))

    @rule(who=WHO)
    def cancel_from_a_thread(self, who: int) -> None:
        actor = self._of(who)
        if actor is not None and actor.handle is not None:
            self._do(lambda: asyncio.to_thread(actor.future.cancel, "from a thread"))

    @rule(who=WHO)
    def kill_who_waits(self, who: int) -> None:
        actor = self._of(who)
        if actor is not None:

            async def kill() -> None:
                waiter = asyncio.ensure_future(_wait(actor.future))
                self.waiters.append(waiter)
                await asyncio.sleep(0)
                waiter.cancel("killed")

            self._do(kill)

    @rule(who=WHO)
    def deadline(self, who: int) -> None:
        actor = self._of(who)
        if actor is not None and actor.handle is not None and not actor.future.done():

            async def expire() -> None:
                actor.future.deadline = 0
                while len(self.pools[0]._home.expiries):
                    await asyncio.sleep(0)

            self._do(expire)

    @rule(who=WHO)
    def timeout(self, who: int) -> None:
        actor = self._of(who)
        if actor is not None and actor.stands and actor.limits:
            self._do(actor.fire)

    @rule(who=WHO)
    def grace_is_over(self, who: int) -> None:
        actor = self._of(who)
        hold = None if actor is None else cancellation.holds.get(actor.future)
        if actor is not None and hold is not None and hold.timer is not None:
            hold.timer.cancel()
            self._do(lambda: cancellation._force(actor.future, hold))

    @rule(who=WHO)
    def cleanup_is_late(self, who: int) -> None:
        actor = self._of(who)
        cleanup = None if actor is None else cleanups.deferred.get(actor.future)
        if cleanup is not None and cleanup._timer is not None:
            cleanup._timer.cancel()
            self._do(lambda: cleanup._expire(FAR))

    @rule(which=st.integers(0, 1))
    def repair(self, which: int) -> None:
        lock = self.locks[which]
        self.poisoned.discard(lock)
        self._do(lock.repair)

    @rule(who=WHO, priority=st.sampled_from([-1, 0, 2]))
    def rank(self, who: int, priority: float) -> None:
        actor = self._of(who)
        if actor is not None and actor.handle is not None:
            self._do(lambda: setattr(actor.future, "priority", priority))

    @rule()
    def cancel_all(self) -> None:
        self._do(lambda: self.pools[-1].select().cancel("all"))

    @rule(moves=st.booleans())
    def another_pool(self, moves: bool) -> None:
        """Close the pool; what is queued there may go on in the next one."""
        if len(self.pools) < 3:
            self._do(self._open)
            old, new = self.pools[-2:]
            if moves:
                self._do(lambda: old.select(state="queued").move(new))
            self._do(old.close)

    # --------------------------------------------------------------------------------------------------- what is true

    @invariant()
    def in_order(self) -> None:
        for pool in self.pools:
            pool._check()
        self.throttle._check()
        shared_group()._check()
        for lock in self.locks:
            lock._check()
            inside = [actor for actor in self.all if lock in actor.blocks]
            assert [lock.owner] == ([actor.future for actor in inside] or [None]), f"{lock!r}, {lock.owner!r}, {inside}"
            assert lock.poisoned == (lock in self.poisoned), f"{lock!r}: it is known who has left it by force"
        for actor in self.all:
            assert not actor.breaches, f"{actor!r}: {actor.breaches}"
            if actor.future.done() and not actor.is_left:
                self._judge_end(actor)

    def _judge_end(self, actor: Actor) -> None:
        assert not actor.blocks, f"{actor!r} has left everything"
        assert sorted(actor.called) == list(range(1, actor.deferred + 1)), f"{actor!r} has called each callback once"
        state = "cancelled" if actor.future.cancelled() else "failed" if actor.future.exception() else "done"
        allowed = {
            "": {"cancelled", "failed"},  # it has never begun
            "returned": {"done", "cancelled", "failed"},
            "raised": {"failed"},
            "told": {"cancelled", "failed"},
        }[actor.ended]
        if actor.was_left:
            allowed = {"cancelled", "failed"}
        assert state in allowed, f"{actor!r} has {actor.ended}"

    def _judge(self) -> None:
        """See that nothing is kept of anybody, now that all have ended."""
        assert all(waiter.done() for waiter in self.waiters), f"{self.waiters}"
        for waiter in self.waiters:
            if not waiter.cancelled():
                waiter.exception()
        home = self.pools[0]._home
        tables: dict[str, Any] = {
            "holds": cancellation.holds,
            "wakes": cancellation._wakes,
            "deferred": cleanups.deferred,
            "waiting": surroundings.waiting,
            "in line": waits.in_line,
        }
        tables = {name: [actor for actor in self.all if actor.future in table] for name, table in tables.items()}
        tables |= {
            "pools": [handle for pool in self.pools for handle in pool],
            "for locks": deadlocks.for_locks,
            "noted": [lock for lock in self.locks if lock._noted or lock._posted or lock.locked()],
            "waits": home.waits,
            "expiries": home.expiries,
            "suspended": home._suspended,
            "busy": home.busy,
        }
        assert not any(map(len, tables.values())), f"something is kept: {tables}"
        assert self.throttle.taken == 0, "all places are given back"
        reports = [each for each in self.reports if "was cancelled and abandoned" not in each["message"]]
        assert not reports, f"the loop's exception handler was told {reports}"


async def _wait(future: Any) -> Any:
    return await future


TestFaults = FaultsMachine.TestCase
TestFaults.settings = settings(max_examples=int(__import__("os").environ.get("EX", 120)), stateful_step_count=40, deadline=None)
