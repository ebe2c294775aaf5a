"""Faults at every point of a workload: what a ``Job`` is told to meet there, and what it has met.

Each job has dice of its own, seeded with its number: what is tried at its points does not depend on the threads. Whom a
fault hits, and how far that one has come by then, does.
"""

from __future__ import annotations

import asyncio
import random
import time
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from threadlets import Threadlet, checkpoint, current_threadlet, defer
from threadlets.cancellation import is_forced
from threadlets.regions import me

if TYPE_CHECKING:
    from tests.stress.world import World

RATE = 0.12  # arbitrary: how many points have a fault
MOMENT = 0.0003  # seconds; arbitrary: a switch of threads or two
LITTLE = 0.002  # seconds; arbitrary: what a hasty contract allows for cleanup
PATIENCE = 20.0  # seconds; arbitrary: what is not over by then is stuck

# What may happen at a point, and how often of all that does.
FAULTS = {
    "yields": 3,
    "dozes": 2,
    "raises": 2,
    "is cancelled": 4,
    "is late": 1,
    "cancels another": 3,
    "cancels some": 2,
    "kills a waiter": 1,
    "moves some": 1,
    "ranks another": 1,
}


class Injected(Exception):
    """An error of ours."""


class Job:
    """One threadlet of the workload, and what is known of it outside of the library."""

    def __init__(self, world: World, number: int, kind: str, place: int, depth: int) -> None:
        self.world, self.number, self.kind = world, number, kind
        self.place, self.depth = place, depth  # which of the pools it was started in, and how many others are around it
        self.dice = random.Random(world.seed * 1_000_003 + number)
        self.handles: list[Threadlet[Any]] = []  # one; or several, which share a run; or none
        self.seen: list[tuple[str, str]] = []  # points, and the faults that were met there
        self.last = "not started"  # the last point that it has come to, but for those of its cleanup
        self.is_limited = False  # by an asyncio.timeout, which no lock keeps out
        self.is_alone = False  # it is no threadlet: nothing protects it
        self.deferred = 0  # how many callbacks it has deferred
        self.called: list[int] = []  # those that were called
        self.committed = False  # the database has said so

    def __repr__(self) -> str:
        return f"<Job {self.number} {self.kind}, last at {self.last!r}: {self.handles}>"

    # ------------------------------------------------------------------------------------------------- points

    def point(self, point: str) -> None:
        """Let something happen, or nothing; then look whether to stop. Thread: its own."""
        fault = self._draw(point)
        if fault == "yields":
            time.sleep(0)
        elif fault == "dozes":
            time.sleep(self.dice.random() * MOMENT)
        elif fault:
            self._meet(point, fault)
            if fault == "is cancelled":
                time.sleep(MOMENT)  # until the loop has heard of it, more or less
        checkpoint()

    async def apoint(self, point: str) -> None:
        """Do the same in a coroutine, where to await is to look."""
        fault = self._draw(point)
        if fault == "dozes":
            await asyncio.sleep(self.dice.random() * MOMENT)
        elif fault and fault != "yields":
            self._meet(point, fault)
        if fault in ("yields", "is cancelled") or self.dice.random() < 0.4:
            await asyncio.sleep(0)

    @asynccontextmanager
    async def limit(self, point: str) -> AsyncIterator[None]:
        """Have what is in this block time out, sometimes."""
        if self.dice.random() > 2 * RATE or self.is_limited:
            yield
            return
        self.is_limited = True
        try:
            async with asyncio.timeout(self.dice.choice([0, MOMENT, 5 * MOMENT])):
                yield
        except TimeoutError:
            self.world.tell(f"timed out: {point}")
            raise
        finally:
            self.is_limited = False

    def _draw(self, point: str) -> str:
        if not point.startswith("cleanup"):
            self.last = point
        if self.dice.random() >= RATE:
            return ""
        (fault,) = self.dice.choices(*DRAW)
        self.seen.append((point, fault))
        return fault

    def _meet(self, point: str, fault: str) -> None:
        world = self.world
        if fault == "raises":
            raise Injected(point)
        if fault == "is cancelled":
            handle = current_threadlet()
            for each in self.handles if handle is None else [handle]:  # it is None in an async function of a thread's
                each.cancel(f"itself: {point}")
        elif fault == "cancels another":
            other = world.any(self.dice)
            if other is not None:
                other.cancel(f"another one: {point}")
        elif fault == "is late":
            world.on_loop(self._late, self.dice.choice([0, MOMENT]))
        else:
            world.on_loop(getattr(world, fault.partition(" ")[0]), random.Random(self.dice.random()))

    def _late(self, seconds: float) -> None:
        for handle in self.handles:
            handle.deadline = seconds

    def is_told(self, error: BaseException) -> None:
        """See that a cancel has come by force into a block that it may not break into. Thread: its own."""
        if isinstance(error, CancelledError) and not self.is_alone and not self.is_limited:
            if is_forced(me()):
                self.world.tell("forced")
            else:
                self.world.violate(f"{self!r} was told where a cancel has to wait: {error!r}")

    # ------------------------------------------------------------------------------------------------- cleanup

    def defers(self, kinds: list[Callable[..., Any]]) -> None:
        """Defer none, one, or several of these."""
        if not self.is_alone:
            for _ in range(self.dice.choice([0, 0, 1, 1, 2, 3])):
                self.defer(self.dice.choice(kinds))

    def defer(self, callback: Callable[..., Any], *args: Any) -> None:
        """Have ``callback(self, number, *args)`` called when it has ended; that notes its number."""
        self.deferred += 1
        defer(callback, self, self.deferred, *args)


DRAW = list(FAULTS), list(FAULTS.values())


def plain(job: Job, number: int) -> None:
    """Clean up."""
    job.called.append(number)
    job.point("cleanup: plain")


def fails(job: Job, number: int) -> None:
    """Fail to clean up."""
    job.called.append(number)
    job.point("cleanup: fails")
    raise Injected("cleanup")


def deaf(job: Job, number: int) -> None:
    """Take too long, and hear nothing."""
    job.called.append(number)
    with suppress(CancelledError):
        job.point("cleanup: deaf")
    time.sleep(LITTLE)


def slow(job: Job, number: int) -> None:
    """Take too long, and hear of that: on a worker, where there is little time for cleanup."""
    job.called.append(number)
    end = monotonic() + PATIENCE
    while monotonic() < end:
        job.point("cleanup: slow")
        time.sleep(MOMENT)
    job.world.violate(f"{job!r} could clean up for ever")


async def later(job: Job, number: int) -> None:
    """Clean up in a coroutine."""
    job.called.append(number)
    await job.apoint("cleanup: later")


async def fails_later(job: Job, number: int) -> None:
    """Fail to do so."""
    job.called.append(number)
    await job.apoint("cleanup: fails later")
    raise Injected("cleanup")


async def endless(job: Job, number: int) -> None:
    """Take too long, where there is little time for cleanup."""
    job.called.append(number)
    await job.apoint("cleanup: endless")
    await asyncio.sleep(PATIENCE)
    job.world.violate(f"{job!r} could clean up for ever")


QUICK: list[Callable[..., Any]] = [plain, plain, plain, fails]
QUICK_ASYNC = [*QUICK, later, later, later, fails_later]
SLOW: list[Callable[..., Any]] = [plain, plain, deaf, slow]
SLOW_ASYNC: list[Callable[..., Any]] = [plain, deaf, later, endless]
