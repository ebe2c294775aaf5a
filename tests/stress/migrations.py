"""Coroutines that hop at random among worker threads, event loops and home, cancelled and failing, and what must hold.

``python -m tests.stress.migrations --count 100000 --loop uvloop --seed 7`` does the whole, in rounds. The seed fixes
what is tried; what a cancel hits is up to the threads.

What is shown: after each hop a coroutine is where it wanted to be, in its own context; no two threads are in one
coroutine at a time; every ``finally`` runs once, and where its ``try`` was; each cancel ends in one CancelledError, or
came after the end; results, exceptions and reasons are those of the coroutine that they come from; when all have ended
nothing is away, no lock is held, and no callback has raised.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import threading
import time
from collections import Counter
from contextlib import AsyncExitStack
from contextvars import ContextVar
from time import monotonic
from typing import Any

from tests.conftest import factory_of
from threadlets import Lock, checkpoint, current_threadlet, migrate, new_event_loop, offload, threadlet, topology
from threadlets.surroundings import travellers, trips
from threadlets.workers import shared_group

__all__ = ["LOOPS", "Wanderers", "stress"]

LOOPS = ("asyncio", "uvloop", "hands", "uvhands")
FULL = 100_000  # hops
ROUND = 200  # arbitrary: coroutines at a time
HOPS = 50  # arbitrary: the most that one makes
owner: ContextVar[int] = ContextVar("owner", default=-1)


class Planned(Exception):
    """What a wanderer fails with when that is its turn."""


class Wanderers:
    """Some rounds of coroutines that hop, and what has become of them."""

    def __init__(self, seed: int, others: list[asyncio.AbstractEventLoop]) -> None:
        self.random = random.Random(seed)
        self.others = others
        self.hops = 0
        self.ends: Counter[str] = Counter()
        self.told = 0  # cancels that came before the end
        self.lock = Lock()
        self.whole = 0  # written under the lock, by two steps

    async def play(self) -> None:
        """Let some wander, and cancel some of them; see that nothing is left."""
        home = asyncio.get_running_loop()
        shared: list[asyncio.Future[None]] = [home.create_future() for _ in range(8)]
        tickets = [self.random.randrange(10**9) for _ in range(ROUND)]
        tasks: list[Any] = []
        wanderers: list[Wanderer] = []
        for number, ticket in enumerate(tickets):
            wanderer = Wanderer(self, number, ticket, home, shared)
            wanderers.append(wanderer)
            start = threadlet(wanderer.wander) if ticket % 2 else asyncio.create_task
            tasks.append(start(*() if ticket % 2 else (wanderer.wander(),)))
        reasons: dict[int, str] = {}
        for future in shared:
            await asyncio.sleep(self.random.random() / 500)
            for number in self.random.sample(range(ROUND), ROUND // 24):
                if number not in reasons and tasks[number].cancel(f"reason {number}"):
                    reasons[number] = f"reason {number}"
            if not future.done():
                future.set_result(None)
        await asyncio.wait(tasks)
        for number, task in enumerate(tasks):
            try:
                outcome = await task  # gather(return_exceptions=True) loses the reasons of tasks
            except BaseException as error:
                outcome = error
            self.judge(wanderers[number], outcome, reasons)
        self.told += len(reasons)
        assert not trips and not travellers, "nothing is away when all have ended"
        assert not self.lock.locked() and self.whole % 2 == 0, "no lock is held, and what it protects is whole"
        assert owner.get() == -1, "nobody's context is another's"

    def judge(self, wanderer: Wanderer, outcome: Any, reasons: dict[int, str]) -> None:
        """See that one has ended as it may, and count it."""
        number = wanderer.number
        if isinstance(outcome, asyncio.CancelledError) and wanderer.timed and number in reasons:
            self.ends["cancelled"] += 1  # perhaps without the reason: a timeout cancels, too, and has none
        elif isinstance(outcome, asyncio.CancelledError):
            assert outcome.args == (reasons.get(number),), f"it was cancelled with its own reason, and not {outcome!r}"
            self.ends["cancelled"] += 1
        elif isinstance(outcome, Planned):
            assert outcome.args == (number,), "it failed with its own exception"
            self.ends["failed"] += 1
        else:
            assert outcome == number, f"it returned what it had to return, and not {outcome!r}"
            assert number not in reasons, "who was cancelled before its end does not return"
            self.ends["done"] += 1


class Wanderer:
    """One coroutine that hops."""

    def __init__(
        self,
        all_of_them: Wanderers,
        number: int,
        ticket: int,
        home: asyncio.AbstractEventLoop,
        shared: list[asyncio.Future[None]],
    ) -> None:
        self.all = all_of_them
        self.number = number
        self.random = random.Random(ticket)
        self.home = home
        self.shared = shared
        self.thread: int | None = None  # who is in it, by its number
        self.handle: Any = None
        self.timed = False  # it has been cancelled by a timeout, perhaps

    async def wander(self) -> int:
        """Hop, and return the number."""
        self.handle = current_threadlet()
        self.task = asyncio.create_task(asyncio.sleep(self.random.random() / 500))
        token = owner.set(self.number)
        try:
            for _ in range(self.random.randrange(HOPS)):
                self.all.hops += 1
                await self.random.choice(
                    (self.to_worker, self.to_loop, self.to_loop, self.home_again, self.with_lock)
                )()
        finally:
            owner.reset(token)  # which can be done in its own context only
            self.home.call_soon_threadsafe(self.task.cancel)
        return self.number

    def here(self, place: asyncio.AbstractEventLoop | None) -> None:
        """Be in the middle of a step: see that it is in the right place, and alone."""
        me = threading.get_ident()
        assert self.thread is None, "one thread at a time"
        self.thread = me
        assert owner.get() == self.number, "it is in its own context"
        assert current_threadlet() is self.handle, "it is who it is"
        if place is None:
            assert threading.current_thread().name.startswith("threadlets-worker"), "it is in a worker"
        else:
            assert asyncio.get_running_loop() is place, "it is on the loop that it went to"
        if self.random.random() < 0.02:
            time.sleep(0)  # let others run
        assert self.thread == me
        self.thread = None

    def maybe_fail(self) -> None:
        if self.random.random() < 0.01:
            raise Planned(self.number)

    async def to_worker(self) -> None:
        """Be in a worker for a block; await there, listen there, go home from there."""
        entered = left = 0
        async with offload() as away:
            try:
                entered += 1
                self.here(None)
                what = self.random.randrange(5)
                if what == 0:
                    await asyncio.sleep(0)
                elif what == 1:
                    await self.task
                elif what == 2:
                    checkpoint()
                elif what == 3:
                    async with away.home():
                        self.here(self.home)
                        await asyncio.sleep(0)
                self.here(None)
                self.maybe_fail()
            finally:
                left += 1
                self.here(None)
        assert entered == left == 1

    async def to_loop(self) -> None:
        """Go on on one of the other loops; it stays there."""
        loop = self.random.choice(self.all.others)
        await migrate(loop)
        self.here(loop)
        try:
            if self.random.random() < 0.3:
                await asyncio.sleep(self.random.choice((0, 0, 0.0001)))
                self.here(loop)
            if self.random.random() < 0.1:
                async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(0))
            self.maybe_fail()
        finally:
            self.here(loop)

    async def home_again(self) -> None:
        """Come home, and wait for what others wait for, too."""
        await migrate(None)
        self.here(self.home)
        if self.random.random() < 0.2:
            await asyncio.wait([self.random.choice(self.shared)], timeout=0.001)
            self.here(self.home)
        if self.random.random() < 0.05:
            self.timed = True
            try:
                async with asyncio.timeout(0.0005):
                    async with offload():
                        while True:
                            checkpoint()
                            time.sleep(0.0001)
            except TimeoutError:
                self.here(self.home)

    async def with_lock(self) -> None:
        """Hold a lock, and do under it what is to be done as a whole."""
        async with AsyncExitStack() as stack:
            if self.random.random() < 0.5:
                await stack.enter_async_context(offload())
                with self.all.lock:
                    self.all.whole += 1
                    self.here(None)
                    self.all.whole += 1
            else:
                await migrate(None)
                async with self.all.lock:
                    self.all.whole += 1
                    try:
                        async with offload():
                            self.here(None)
                    finally:
                        self.all.whole += 1


async def stress(count: int, seed: int) -> Wanderers:
    """Hop so many times; return what has happened.

    Raises:
        AssertionError: If anything is not as it should be.
    """
    running = asyncio.new_event_loop(), new_event_loop()
    threads = [threading.Thread(target=loop.run_forever, name="elsewhere") for loop in running]
    for thread in threads:
        thread.start()
    wanderers = Wanderers(seed, [topology.machine().nodes[0].loop(), *running])
    interval = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-5)
        while wanderers.hops < count:
            await wanderers.play()
            shared_group()._check()
    finally:
        sys.setswitchinterval(interval)
        for loop, thread in zip(running, threads, strict=True):
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
    return wanderers


def main() -> None:
    """Do it as the command line says, and print what has happened."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.migrations", description=__doc__)
    parser.add_argument("--count", type=int, default=FULL, help="how many hops; %(default)s by default")
    parser.add_argument("--loop", choices=LOOPS, action="append", help="on which kinds of loop; on all by default")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args()
    for kind in options.loop or LOOPS:
        began = monotonic()
        with asyncio.Runner(loop_factory=factory_of(kind)) as runner:
            done = runner.run(stress(options.count, options.seed))
        ends = ", ".join(f"{count:,} {word}" for word, count in done.ends.most_common())
        seconds = monotonic() - began
        print(f"{kind}, seed {options.seed}: {done.hops:,} hops of coroutines that ended {ends}, in {seconds:.1f} s")


if __name__ == "__main__":
    main()
