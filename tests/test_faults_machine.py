"""Forced interleavings of all that may end a threadlet, or be in its way; after each step everything is in order.

The machine starts actors (``tests.actors``) in a pool with a throttle, and tells them what to do: hold, take a lock,
defer, fail. It cancels them, once or twice, from the loop or from a thread, or whoever waits for them; lets a deadline,
a timeout, the grace of a block or the time for a cleanup be over; closes the pool. Threads stop at gates, and no time
ever passes: after each step the loop goes round until nothing more comes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.actors import FAR, KINDS, Actor
from tests.workbench import PATIENCE
from threadlets import Concurrency, Lock, Pool, cancellation, cleanups, deadlocks, surroundings, waits
from threadlets.workers import shared_group

WHO = st.integers(0, 11)  # of those that it may be; a multiple of 1, 2, 3 and 4
ROUNDS = 5  # arbitrary: so many rounds of the loop in which nothing happens are enough to know that nothing will
MANY = 4  # actors at a time


def stands(actor: Actor) -> bool:
    return actor.stands


def stands_in_task(actor: Actor) -> bool:
    return actor.stands and not actor.on_thread


def may_defer(actor: Actor) -> bool:
    return actor.stands and actor.handle is not None and actor.deferred < 3


def is_alive(actor: Actor) -> bool:
    return not actor.future.done()


def is_limited(actor: Actor) -> bool:
    return actor.stands and bool(actor.limits)


def has_grace(actor: Actor) -> bool:
    hold = cancellation.holds.get(actor.future)
    return hold is not None and hold.timer is not None and not hold.forced and "cleanup" not in actor.blocks


def cleans_up(actor: Actor) -> bool:
    cleanup = cleanups.deferred.get(actor.future)
    return cleanup is not None and cleanup._timer is not None


def some(predicate: Callable[[Actor], bool]) -> Any:
    """A rule that is for those of whom something is true."""
    return precondition(lambda machine: any(map(predicate, machine.actors)))


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
                before, progress = (
                    progress,
                    [(len(actor.called), len(actor.limits), list(actor.blocks)) for actor in self.actors],
                )
                assert progress != before, f"they do not end: {self.actors}"
                for actor in list(self.actors):
                    self._tell(actor, "leave")
            for which in range(len(self.locks)):
                self.repair(which)
            self.in_order()
            self._judge()
        finally:
            for actor in self.all if self.actors else ():  # something has failed: they are not to be in the way now
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

    def _pick(self, who: int, predicate: Callable[[Actor], bool]) -> Actor:
        found = [actor for actor in self.actors if predicate(actor)]
        return found[who % len(found)]

    def _tell(self, actor: Actor, word: str, *what: Any) -> None:
        if actor.stands:
            self._do(lambda: actor.tell(word, *what))

    # ------------------------------------------------------------------------------------------------ what actors do

    @precondition(lambda self: len(self.actors) < MANY)
    @rule(kind=st.sampled_from(KINDS), priority=st.sampled_from([0, 0, 1]))
    def start(self, kind: str, priority: float) -> None:
        actor = Actor(kind)
        self.actors.append(actor)
        self.all.append(actor)
        self._do(lambda: actor.start(self.pools[-1], priority))

    @some(stands)
    @rule(who=WHO, which=st.integers(0, 1))
    def take(self, who: int, which: int) -> None:
        self._tell(self._pick(who, stands), "take", self.locks[which])

    @some(stands)
    @rule(which=st.integers(0, 1))
    def all_take(self, which: int) -> None:
        for actor in list(self.actors):
            if self.locks[which] not in actor.blocks:
                self._tell(actor, "take", self.locks[which])

    @some(stands)
    @rule(who=WHO, word=st.sampled_from(["hold", "hold", "look", "fail"]))
    def go_on(self, who: int, word: str) -> None:
        self._tell(self._pick(who, stands), word)

    @some(stands)
    @rule(who=WHO)
    def leave(self, who: int) -> None:
        self._tell(self._pick(who, stands), "leave")

    @some(may_defer)
    @rule(who=WHO)
    def defer(self, who: int) -> None:
        self._tell(self._pick(who, may_defer), "defer")

    @some(stands_in_task)
    @rule(who=WHO)
    def limit(self, who: int) -> None:
        self._tell(self._pick(who, stands_in_task), "limit")

    # ------------------------------------------------------------------------------------------- what happens to them

    @some(is_alive)
    @rule(who=WHO)
    def cancel(self, who: int) -> None:
        actor = self._pick(who, is_alive)
        self._do(lambda: self._cancel(actor))

    @some(is_alive)
    @rule(who=WHO, way=st.sampled_from(["cancel", "cancel on a thread", "kill", "deadline"]))
    def ask_to_stop(self, who: int, way: str) -> None:
        actor = self._pick(who, is_alive)
        if way == "cancel" or actor.handle is None:
            self._do(lambda: self._cancel(actor))
            return
        actor.ask()
        if way == "cancel on a thread":
            self._do(lambda: asyncio.to_thread(actor.future.cancel, "from a thread"))
        else:
            self._do(partial(self._kill if way == "kill" else self._expire, actor))

    def _cancel(self, actor: Actor) -> None:
        accepts = actor.ask()
        assert actor.future.cancel("cancelled") == accepts, f"{actor!r} may be cancelled, or is in its cleanup"

    async def _kill(self, actor: Actor) -> None:
        """Cancel somebody who waits for it."""
        waiter = asyncio.ensure_future(_wait(actor.future))
        self.waiters.append(waiter)
        await asyncio.sleep(0)
        waiter.cancel("killed")

    async def _expire(self, actor: Actor) -> None:
        actor.future.deadline = 0
        while len(self.pools[0]._home.expiries):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)

    @precondition(lambda self: self._turns())
    @rule(who=WHO)
    def cancel_whose_turn_it_is(self, who: int) -> None:
        """Cancel one that waits for a lock in the moment in which it is given that."""
        turns = self._turns()
        leaving, waiting = turns[who % len(turns)]

        def act() -> None:
            leaving.tell("leave")
            self.loop.call_soon(self._cancel, waiting)

        self._do(act)

    def _turns(self) -> list[tuple[Actor, Actor]]:
        """Return coroutines that would release a lock if they were told to leave, each with one that waits for that."""
        leaving = [actor for actor in self.actors if stands_in_task(actor) and not actor.limits and actor.blocks]
        return [(one, other) for one in leaving for other in self.actors if other.wants is one.blocks[-1]]

    @some(is_limited)
    @rule(who=WHO)
    def timeout(self, who: int) -> None:
        self._do(self._pick(who, is_limited).fire)

    @some(has_grace)
    @rule(who=WHO)
    def grace_is_over(self, who: int) -> None:
        actor = self._pick(who, has_grace)
        hold = cancellation.holds[actor.future]
        assert hold.timer is not None
        hold.timer.cancel()
        actor.forced = True
        self._do(lambda: cancellation._force(actor.future, hold))

    @some(cleans_up)
    @rule(who=WHO)
    def cleanup_is_late(self, who: int) -> None:
        actor = self._pick(who, cleans_up)
        cleanup = cleanups.deferred[actor.future]
        assert cleanup._timer is not None
        cleanup._timer.cancel()
        actor.late = True
        self._do(lambda: cleanup._expire(FAR))

    @precondition(lambda self: self.poisoned)
    @rule(which=st.integers(0, 1))
    def repair(self, which: int) -> None:
        lock = self.locks[which]
        self.poisoned.discard(lock)
        self._do(lock.repair)

    @precondition(lambda self: len(self.actors) > 2)
    @rule(way=st.sampled_from(["cancel", "rank", "close", "close and move"]), priority=st.sampled_from([-1, 0, 2]))
    def act_on_all(self, way: str, priority: float) -> None:
        """Cancel all, or give them another priority; or close the pool: what is queued may go on in the next one."""
        pool = self.pools[-1]
        if way == "cancel":
            for actor in self.actors:
                if actor.handle is not None and actor.handle in pool:
                    actor.ask()
            self._do(lambda: pool.cancel("all"))
        elif way == "rank":
            self._do(lambda: pool.select().reprioritize(priority))
        elif len(self.pools) < 3:
            self._do(self._open)
            if way == "close and move":
                self._do(lambda: pool.select(state="queued").move(self.pools[-1]))
            self._do(pool.close)

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
        for actor in self.actors:
            self._judge_now(actor)
        for actor in self.all:
            assert not actor.breaches, f"{actor!r}: {actor.breaches}"
            if actor.future.done() and not actor.is_left:
                self._judge_end(actor)

    def _judge_now(self, actor: Actor) -> None:
        if actor.stands and not actor.on_thread:
            assert not actor.is_to_stop(), f"{actor!r} was not told, and is to stop"
        if actor.asked and actor.blocks and not actor.forced and "cleanup" not in actor.blocks:
            assert cancellation.holds[actor.future].timer is not None, f"{actor!r} has all the time of the world"
        if actor.stands and "cleanup" in actor.blocks:
            assert cleanups.deferred[actor.future]._timer is not None, f"{actor!r} has all the time of the world"

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
TestFaults.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
