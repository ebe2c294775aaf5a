"""Two locks under any sequence of what may happen to them, compared with a model that is as simple as can be.

The actors are threads, functions on workers, coroutines and plain tasks. Each does one thing when it is told to, and
then stands still: idle, or in line for a lock. After every step the machine lets the loop go round until each of them
is where the model says, and no time ever passes: a timeout is over when the machine says so.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.workbench import ON_WORKER, PATIENCE, ended
from threadlets import Lock, Pool, checkpoint, parking, threadlet
from threadlets.cancellation import _force, _wakes, holds
from threadlets.deadlocks import _waiters, for_locks
from threadlets.errors import Deadlock, LockPoisoned
from threadlets.surroundings import waiting
from threadlets.waits import in_line

KINDS = ["thread", "worker", "worker", "coroutine", "coroutine", "task"]
NEVER = 1e6  # seconds: a timeout that passes when the machine says so
clocks: dict[int, float] = {}  # by thread


class Actor:
    """Somebody who uses locks as he is told; and what the model says of him."""

    def __init__(self, kind: str, pool: Pool) -> None:
        self.kind = kind
        self.on_thread = kind in ("thread", "worker")
        self.is_threadlet = kind in ("worker", "coroutine")
        self.inbox: Any = queue.SimpleQueue() if self.on_thread else asyncio.Queue()
        self.results: list[Any] = []  # what all that he was told has come to: True, False, or a kind of error
        self.who: Any = None
        self.ident = 0
        self.held: list[Lock] = []  # the model from here on
        self.waits: Lock | None = None
        self.timed = False  # he waits with a timeout
        self.asked = False  # to stop, and was not told yet
        self.forced = False  # he is told although he holds locks
        self.alive = True
        self.expected: list[Any] = []
        self._really: list[Lock] = []
        if kind == "thread":
            self.future: Any = threading.Thread(target=self.body)
            self.future.start()
        elif kind == "task":
            self.future = self.who = asyncio.ensure_future(self.body_async())
        else:
            function = threadlet(contract=ON_WORKER)(self.body) if kind == "worker" else threadlet(self.body_async)
            self.future = self.who = pool.start(function)

    def __repr__(self) -> str:
        return f"<{self.kind} {id(self):x}>"

    # ------------------------------------------------------------------------------------------------ what he does

    def body(self) -> None:
        if self.kind == "thread":
            self.who = threading.get_ident()
        self.ident = threading.get_ident()  # now he is there
        try:
            while (told := self.inbox.get()) is not None:
                self.results.append(self.obey(*told))
        except CancelledError:
            for lock in reversed(self._really):
                lock.release()
            raise

    async def body_async(self) -> None:
        try:
            while (told := await self.inbox.get()) is not None:
                self.results.append(await self.obey_async(*told))
        except CancelledError:
            for lock in reversed(self._really):
                lock.release()
            raise

    def obey(self, what: str, lock: Lock, timeout: float | None) -> Any:
        try:
            if what != "acquire":
                return self.obey_at_once(what, lock)
            got = lock.acquire(timeout)
        except (Deadlock, LockPoisoned, RuntimeError) as error:
            return type(error)
        if got:
            self._really.append(lock)
        return got

    async def obey_async(self, what: str, lock: Lock, timeout: None) -> Any:
        try:
            if what != "acquire":
                return self.obey_at_once(what, lock)
            await lock.acquire_async()
        except (Deadlock, LockPoisoned, RuntimeError) as error:
            return type(error)
        self._really.append(lock)
        return True

    def obey_at_once(self, what: str, lock: Lock) -> bool:
        if what == "listen":
            checkpoint()
        else:
            lock.release()
            self._really.remove(lock)
        return True

    # ------------------------------------------------------------------------------------------- what is seen of him

    def has_ended(self) -> bool:
        return not self.future.is_alive() if self.kind == "thread" else bool(self.future.done())

    def is_idle(self) -> bool:
        return self.alive and self.waits is None

    def may_be_told(self) -> bool:
        """Say whether he listens, and was asked."""
        return self.asked and (not self.held or self.forced)


class LocksMachine(RuleBasedStateMachine):
    """See above."""

    @initialize()
    def begin(self) -> None:
        clocks.clear()
        parking.monotonic = lambda: clocks.get(threading.get_ident(), 0.0)
        self.loop = asyncio.new_event_loop()
        self.locks = [Lock("one", grace=float("inf")), Lock("two", grace=float("inf"))]
        self.owners: dict[Lock, Actor | None] = dict.fromkeys(self.locks)
        self.poisoned: set[Lock] = set()
        self._do(self._make)

    async def _make(self) -> None:
        self.pool = Pool()
        self.actors = [Actor(kind, self.pool) for kind in KINDS]
        await self._settle()

    def _do(self, function: Any, *args: Any) -> Any:
        return self.loop.run_until_complete(function(*args))

    async def _settle(self) -> None:
        """Let the loop go round until everybody is where the model says."""
        end = time.monotonic() + PATIENCE
        while not all(map(self._is_there, self.actors)) or any(lock._posted for lock in self.locks):
            assert time.monotonic() < end, [
                (actor, actor.expected, actor.results, actor.waits)
                for actor in self.actors
                if not self._is_there(actor)
            ]
            await asyncio.sleep(0)

    def _is_there(self, actor: Actor) -> bool:
        if not actor.alive:
            return actor.has_ended()
        if (actor.on_thread and not actor.ident) or actor.results != actor.expected or actor.has_ended():
            return False
        looked = actor.who in _wakes or not actor.on_thread  # at the clock
        return actor.waits is None or (looked and actor.who in [waiter.owner for waiter in actor.waits._line])

    def _tell(self, actor: Actor, *told: Any) -> None:
        actor.inbox.put(told or None) if actor.on_thread else actor.inbox.put_nowait(told or None)

    async def _replace(self) -> None:
        """Have others in place of those that have ended."""
        await self._settle()
        for place, actor in enumerate(self.actors):
            if not actor.alive:
                if actor.kind != "thread":
                    await ended(actor.future)
                self.actors[place] = Actor(actor.kind, self.pool)
        await self._settle()

    # ------------------------------------------------------------------------------------------------ the model

    def _circle(self, actor: Actor, lock: Lock) -> bool:
        """Say whether somebody would wait for himself."""
        owner = self.owners[lock]
        while owner is not None and owner is not actor:
            owner = self.owners[owner.waits] if owner.waits is not None and not owner.timed else None
        return owner is actor

    def _gets(self, actor: Actor, lock: Lock) -> None:
        self.owners[lock] = actor
        actor.held.append(lock)
        actor.waits = None
        actor.expected.append(True)

    def _comes_free(self, lock: Lock, poisons: bool = False) -> None:
        """The lock is released: to the first in line, or to nobody."""
        self.owners[lock] = None
        if poisons:
            self.poisoned.add(lock)
            for actor in self.actors:
                if actor.waits is lock:
                    actor.waits = None
                    actor.expected.append(LockPoisoned)
            return
        first = lock._line.first()  # the order is that of parking.Line, which has tests of its own
        if first is not None:
            self._gets(next(actor for actor in self.actors if actor.who == first.owner), lock)

    def _dies(self, actor: Actor, *, by_force: bool = False) -> None:
        """He is told to stop, and releases what he holds."""
        actor.alive = False
        actor.waits = None
        for lock in reversed(actor.held):
            self._comes_free(lock, poisons=by_force)
        actor.held = []

    # ------------------------------------------------------------------------------------------------ what happens

    def _pick(self, number: int, *conditions: Callable[[Actor], Any]) -> Actor | None:
        """Return one of those for whom all this is true."""
        some = [actor for actor in self.actors if all(condition(actor) for condition in conditions)]
        return some[number % len(some)] if some else None

    @rule(number=st.integers(0, 5), which=st.integers(0, 1), how=st.sampled_from(["wait", "wait", "try", "timed"]))
    def acquire(self, number: int, which: int, how: str) -> None:
        actor, lock = self._pick(number, Actor.is_idle), self.locks[which]
        if actor is None:
            return
        owner = self.owners[lock]
        if not actor.on_thread:
            how = "wait"
        elif owner is not None and not owner.alive and how == "try":
            return  # it looks at a lock that nobody will ever release, and whether that is known yet depends
        timeout = {"wait": None, "try": 0, "timed": NEVER}[how]
        if actor.may_be_told():
            self._dies(actor, by_force=actor.forced)
        elif lock in self.poisoned:
            actor.expected.append(LockPoisoned)
        elif owner is None:
            self._gets(actor, lock)
        elif owner is actor or (how == "wait" and self._circle(actor, lock)):
            actor.expected.append(Deadlock)
        elif not owner.alive:
            actor.waits = lock
            self._comes_free(lock, poisons=True)
        elif how == "try":
            actor.expected.append(False)
        else:
            actor.waits, actor.timed = lock, how == "timed"
        self._tell(actor, "acquire", lock, timeout)
        self._do(self._replace)

    @rule(number=st.integers(0, 5), which=st.integers(0, 1))
    def release(self, number: int, which: int) -> None:
        actor = self._pick(number, Actor.is_idle, lambda actor: actor.held)
        if actor is not None:
            self._release(actor, actor.held[which % len(actor.held)])

    @rule(number=st.integers(0, 5), which=st.integers(0, 1))
    def release_what_is_not_his(self, number: int, which: int) -> None:
        actor = self._pick(number, Actor.is_idle, lambda actor: self.locks[which] not in actor.held)
        if actor is not None:
            self._release(actor, self.locks[which])

    def _release(self, actor: Actor, lock: Lock) -> None:
        if lock not in actor.held:
            actor.expected.append(RuntimeError)
        else:
            actor.expected.append(True)
            actor.held.remove(lock)
            self._comes_free(lock)
            actor.forced = actor.forced and bool(actor.held)
            if actor.kind == "coroutine" and actor.asked and not actor.held:
                self._dies(actor)
        self._tell(actor, "release", lock, None)
        self._do(self._replace)

    @rule(number=st.integers(0, 5))
    def listen(self, number: int) -> None:
        actor = self._pick(number, Actor.is_idle, lambda actor: actor.on_thread)
        if actor is None:
            return
        if actor.may_be_told():
            self._dies(actor, by_force=actor.forced)
        else:
            actor.expected.append(True)
        self._tell(actor, "listen", self.locks[0], None)
        self._do(self._replace)

    @rule(number=st.integers(0, 5))
    def cancel(self, number: int) -> None:
        actor = self._pick(number, lambda actor: actor.kind != "thread")
        assert actor is not None
        actor.asked = True
        if actor.kind == "task" or (actor.may_be_told() and (actor.kind == "coroutine" or actor.waits is not None)):
            self._dies(actor, by_force=actor.forced)
        actor.future.cancel()
        self._do(self._replace)

    @rule(number=st.integers(0, 5))
    def force(self, number: int) -> None:
        """The grace of one that was asked to stop is over."""
        actor = self._pick(number, lambda actor: actor.is_threadlet and actor.asked and actor.held and not actor.forced)
        if actor is None:
            return
        actor.forced = True
        if actor.kind == "coroutine" or actor.waits is not None:
            self._dies(actor, by_force=True)
        _force(actor.future, holds[actor.future])
        self._do(self._replace)

    @rule(number=st.integers(0, 5))
    def expire(self, number: int) -> None:
        """The timeout of one that waits is over."""
        actor = self._pick(number, lambda actor: actor.waits is not None and actor.timed)
        if actor is None:
            return
        assert actor.waits is not None
        waiter = next(waiter for waiter in actor.waits._line if waiter.owner == actor.who)
        actor.waits = None
        actor.expected.append(False)
        clocks[actor.ident] = clocks.get(actor.ident, 0.0) + NEVER
        waiter._wake()
        self._do(self._replace)

    @rule(number=st.integers(0, 5))
    def end(self, number: int) -> None:
        """Somebody ends, and releases nothing."""
        actor = self._pick(number, Actor.is_idle, lambda actor: actor.kind != "thread" or not actor.held)
        if actor is None:
            return
        actor.alive = False
        for lock in actor.held:
            if any(other.waits is lock for other in self.actors):
                self._comes_free(lock, poisons=True)
        self._tell(actor)
        self._do(self._replace)

    @rule(which=st.integers(0, 1))
    def repair(self, which: int) -> None:
        self.locks[which].repair()
        self.poisoned.discard(self.locks[which])

    @rule(number=st.integers(0, 5), priority=st.integers(-2, 2))
    def prioritize(self, number: int, priority: int) -> None:
        actor = self._pick(number, lambda actor: actor.is_threadlet)
        assert actor is not None
        actor.future.priority = priority
        self._do(self._settle)

    # ------------------------------------------------------------------------------------------------ what is true

    @invariant()
    def as_the_model_says(self) -> None:
        if not hasattr(self, "actors"):
            return
        for lock in self.locks:
            lock._check()
            owner = self.owners[lock]
            assert lock.poisoned == (lock in self.poisoned)
            assert lock.owner == (None if owner is None else owner.who)
            in_line = {waiter.owner for waiter in lock._line}
            assert in_line == {actor.who for actor in self.actors if actor.waits is lock}
            if owner is not None and owner.alive and owner.is_threadlet:
                waiters = [actor.future for actor in self.actors if actor.waits is lock and actor.is_threadlet]
                for waiter in waiters:
                    assert owner.future.effective_priority <= waiter.effective_priority, "the holder is as urgent"
        for actor in self.actors:
            if actor.is_threadlet:
                assert (actor.who in holds) == bool(actor.held)
        self.pool._check()

    def teardown(self) -> None:
        """Have all go on to their end; nothing is left then."""
        if not hasattr(self, "actors"):
            return
        while any(actor.waits is not None or actor.held for actor in self.actors):
            self.expire(0)
            self.release(0, 0)
        for actor in self.actors:
            actor.alive = False
            self._tell(actor)
        self._do(self._settle)
        for lock in self.locks:
            lock._check()
        self._do(self.pool.drain)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        parking.monotonic = time.monotonic
        assert not any((holds, waiting, in_line, for_locks, _waiters, _wakes))


TestLocks = LocksMachine.TestCase
TestLocks.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
