"""Semaphores, events and conditions, step by step beside models that are too simple to be wrong."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.waiters import in_line, outcome, start
from tests.workbench import forever, rounds
from threadlets import EventLoop, Pool
from threadlets.conditions import Condition, Event, Semaphore
from threadlets.grants import Granted

KINDS = st.sampled_from(["worker", "coroutine"])
PRIORITIES = st.integers(-1, 1)
NUMBERS = st.integers(0, 7)  # who is meant, modulo how many there are: what is drawn depends on nothing
SECONDS = 20


class Actor:
    """A threadlet that waits, or has waited; it notes that it has not waited in vain."""

    def __init__(self, kind: str, priority: int, order: int) -> None:
        self.kind = kind
        self.priority = priority
        self.order = order
        self.got: list[Any] = []
        self.handle: Any = None

    def start(self, wait: Callable[[], Any], wait_async: Callable[[], Coroutine[Any, Any, Any]], pool: Pool) -> None:
        async def waits() -> None:
            self.got.append(await wait_async())

        self.handle = start(self.kind, lambda: self.got.append(wait()), waits, pool, self.priority)

    async def went_on(self) -> None:
        assert await self.handle is None and len(self.got) == 1

    async def cancelled(self) -> None:
        """Wait for its end; it may have been too late, and then it has got what it has waited for."""
        assert isinstance(await outcome(self.handle), CancelledError) and len(self.got) <= 1


class Machine(RuleBasedStateMachine):
    """What the three have in common: actors in line on a loop that changes hands, and on workers."""

    what: Granted

    @initialize()
    def begin(self) -> None:
        self.loop = EventLoop()
        self.waiting: list[Actor] = []  # in the order in which they stand in line
        self.orders = 0
        self.pool = Pool()
        self.make()

    def make(self) -> None:
        raise NotImplementedError

    def run(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Run a step, and see that those that are to wait do so."""

        async def step() -> None:
            async with asyncio.timeout(SECONDS):
                await function(*args)
                await in_line(self.what, len(self.waiting))

        self.loop.run_until_complete(step())

    async def begin_to_wait(self, actor: Actor) -> None:
        self.waiting.append(actor)
        self.waiting.sort(key=lambda each: (each.priority, each.order))

    def new_actor(self, kind: str, priority: int) -> Actor:
        self.orders += 1
        return Actor(kind, priority, self.orders)

    def leave(self, number: int) -> Actor:
        return self.waiting.pop(number % len(self.waiting))

    @rule(number=NUMBERS, priority=PRIORITIES)
    def reprioritize(self, number: int, priority: int) -> None:
        if self.waiting:
            actor = self.leave(number)
            actor.handle.priority = actor.priority = priority
            self.run(self.begin_to_wait, actor)

    @rule(number=NUMBERS)
    def cancel(self, number: int) -> None:
        async def cancel() -> None:
            actor = self.leave(number)
            actor.handle.cancel()
            await actor.cancelled()
            assert not actor.got

        if self.waiting:
            self.run(cancel)

    @invariant()
    def is_in_order(self) -> None:
        if self.orders:
            self.what._check()
            assert len(self.what._line) == len(self.waiting)

    def teardown(self) -> None:
        async def end() -> None:
            self.pool.cancel()
            await self.pool.drain()
            await rounds()
            assert not len(self.what._line)
            self.what._check()

        self.waiting.clear()
        self.run(end)
        self.loop.close()


class SemaphoreMachine(Machine):
    """A semaphore beside a number."""

    def make(self) -> None:
        self.what = self.semaphore = Semaphore(1, max_value=3)
        self.value = 1

    @rule(kind=KINDS, priority=PRIORITIES)
    def acquire(self, kind: str, priority: int) -> None:
        async def acquire() -> None:
            actor = self.new_actor(kind, priority)
            actor.start(self.semaphore.acquire, self.semaphore.acquire_async, self.pool)
            if self.value:
                self.value -= 1
                await actor.went_on()
            else:
                await self.begin_to_wait(actor)

        self.run(acquire)

    @rule(timeout=st.sampled_from([0, 0.001]))
    def acquire_in_time(self, timeout: float) -> None:
        async def acquire() -> None:
            got = await start("worker", lambda: self.semaphore.acquire(timeout), forever, self.pool, 2)
            assert got is (self.value > 0)
            self.value -= got

        self.run(acquire)

    @rule()
    def release(self) -> None:
        async def release() -> None:
            self.semaphore.release()
            if self.waiting:
                await self.leave(0).went_on()
            else:
                self.value += 1

        if self.value == 3:
            with pytest.raises(ValueError, match="3 of 3"):
                self.semaphore.release()
        else:
            self.run(release)

    @rule(number=NUMBERS, first=st.booleans())
    def release_and_cancel(self, number: int, first: bool) -> None:
        async def both() -> None:
            victim, token = self.leave(number), 1
            for act in (self.semaphore.release, victim.handle.cancel)[:: 1 if first else -1]:
                act()
            await victim.cancelled()
            token -= len(victim.got)
            if token and self.waiting:
                await self.leave(0).went_on()
            else:
                self.value += token

        if self.waiting:
            self.run(both)

    @invariant()
    def same(self) -> None:
        if self.orders:
            assert self.semaphore.value == self.value


class EventMachine(Machine):
    """An event beside a boolean."""

    def make(self) -> None:
        self.what = self.event = Event()
        self.happened = False

    @rule(kind=KINDS, priority=PRIORITIES)
    def wait(self, kind: str, priority: int) -> None:
        async def wait() -> None:
            actor = self.new_actor(kind, priority)
            actor.start(self.event.wait, self.event.wait_async, self.pool)
            if self.happened:
                await actor.went_on()
            else:
                await self.begin_to_wait(actor)

        self.run(wait)

    @rule(clear=st.booleans())
    def set(self, clear: bool) -> None:
        async def happen() -> None:
            self.event.set()
            if clear:
                self.event.clear()
            self.happened = not clear
            while self.waiting:
                await self.leave(0).went_on()

        self.run(happen)

    @rule(timeout=st.sampled_from([0, 0.001]))
    def wait_in_time(self, timeout: float) -> None:
        async def wait() -> None:
            got = await start("worker", lambda: self.event.wait(timeout), forever, self.pool, 2)
            assert got is self.happened

        self.run(wait)

    @rule(number=NUMBERS, first=st.booleans())
    def set_and_cancel(self, number: int, first: bool) -> None:
        async def both() -> None:
            victim = self.leave(number)
            for act in (self.event.set, victim.handle.cancel)[:: 1 if first else -1]:
                act()
            self.happened = True
            await victim.cancelled()
            while self.waiting:
                await self.leave(0).went_on()

        if self.waiting:
            self.run(both)

    @rule()
    def clear(self) -> None:
        self.event.clear()
        self.happened = False

    @invariant()
    def same(self) -> None:
        if self.orders:
            assert self.event.is_set() is self.happened


class ConditionMachine(Machine):
    """A condition beside a list of those that wait."""

    def make(self) -> None:
        self.what = self.condition = Condition()

    def wait_here(self, timeout: float | None = None) -> bool:
        with self.condition:
            try:
                return self.condition.wait(timeout)
            finally:
                self.condition.notify(0)  # an error if the lock is not held

    async def wait_async(self) -> None:
        async with self.condition:
            try:
                await self.condition.wait_async()
            finally:
                self.condition.notify(0)

    @rule(kind=KINDS, priority=PRIORITIES)
    def wait(self, kind: str, priority: int) -> None:
        async def wait() -> None:
            actor = self.new_actor(kind, priority)
            actor.start(self.wait_here, self.wait_async, self.pool)
            await self.begin_to_wait(actor)

        self.run(wait)

    @rule(timeout=st.sampled_from([0, 0.001]))
    def wait_in_time(self, timeout: float) -> None:
        async def wait() -> None:
            assert await start("worker", lambda: self.wait_here(timeout), forever, self.pool, 2) is False

        self.run(wait)

    @rule(n=st.integers(0, 3))
    def notify(self, n: int) -> None:
        async def notify() -> None:
            async with self.condition:
                self.condition.notify(n)
            for actor in [self.leave(0) for _ in range(min(n, len(self.waiting)))]:
                await actor.went_on()

        self.run(notify)

    @rule(number=NUMBERS, first=st.booleans(), late=st.booleans())
    def notify_and_cancel(self, number: int, first: bool, late: bool) -> None:
        async def both() -> None:
            victim, notified = self.leave(number), 1
            async with self.condition:
                self.condition.notify() if first else victim.handle.cancel()
                if late:
                    await rounds()  # whoever is notified, or cancelled, wants the lock by now
                victim.handle.cancel() if first else self.condition.notify()
            await victim.cancelled()
            notified -= len(victim.got)
            if notified and self.waiting:
                await self.leave(0).went_on()

        if self.waiting:
            self.run(both)

    @rule()
    def notify_all(self) -> None:
        async def notify() -> None:
            async with self.condition:
                self.condition.notify_all()
            while self.waiting:
                await self.leave(0).went_on()

        self.run(notify)

    @invariant()
    def same(self) -> None:
        if self.orders:
            assert not self.condition.lock.locked()


for machine in (SemaphoreMachine, EventMachine, ConditionMachine):
    machine.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)

TestSemaphore = SemaphoreMachine.TestCase
TestEvent = EventMachine.TestCase
TestCondition = ConditionMachine.TestCase
