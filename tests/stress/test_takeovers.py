"""Forty actors whose every other step blocks, and threads in haste: one at a time runs the loop."""

from __future__ import annotations

import asyncio
import contextvars
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import pytest

from tests.conftest import Run
from tests.takeovers import at_home, token_of
from tests.workbench import until
from threadlets import Contract, blocking, call_async, pinned, threadlet

ACTORS = 40
SECONDS = 1.5
Who: contextvars.ContextVar[int] = contextvars.ContextVar("Who")


class Expected(Exception):
    """Raised by actors."""


class LoopCode:
    """Code that only the thread which has the loop may run: ``with loop_code:``, without an await in it."""

    def __init__(self) -> None:
        self.inside: list[int] = []
        self.breaches = 0

    def __enter__(self) -> None:
        self.inside.append(threading.get_ident())
        self.breaches += len(self.inside) != 1
        sum(range(20))  # time enough for others to come in

    def __exit__(self, kind: Any, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.breaches += len(self.inside) != 1
        self.inside.pop()


@pytest.fixture
def chance() -> random.Random:
    """Return a generator whose seed is printed."""
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def hasty() -> Iterator[None]:
    """Let threads change places as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Play:
    """What the actors do, and what they may count on."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.loop: Any = asyncio.get_running_loop()
        self.token = token_of(self.loop)
        self.code = LoopCode()
        self.counts: Counter[str] = Counter()
        self.shared = contextvars.copy_context()
        self.lock = asyncio.Lock()
        self.home_function = threadlet(contract=Contract(affinity="home"))(threading.get_ident)
        self.plain = threadlet(self.pause)

    def pause(self) -> int:
        """Block: mostly not at all, sometimes long enough to be taken over."""
        dice = self.chance.random()
        if dice < 0.4:
            time.sleep(self.chance.choice((0.0015, 0.003, 0.01)))
        return threading.get_ident()

    def region(self, *, nested: bool = False) -> None:
        thread = threading.get_ident()
        with blocking():
            assert asyncio._get_running_loop() is None
            self.pause()
            if nested:
                with blocking():
                    self.pause()
            assert asyncio._get_running_loop() is None
        assert threading.get_ident() == thread

    async def actor(self, number: int) -> None:
        Who.set(number)
        me = asyncio.current_task()
        end = self.loop.time() + SECONDS
        acts = (self.block, self.block, self.fails, self.is_cancelled, self.times_out, self.calls, self.is_pinned)
        acts += (self.in_context, self.goes_home, self.locks, self.in_place)
        while self.loop.time() < end:
            with self.code:
                act = self.chance.choice(acts)
            await act()
            with self.code:
                self.counts[act.__name__] += 1
                assert asyncio.current_task() is me
                assert asyncio.get_running_loop() is self.loop
                assert Who.get() == number
            await asyncio.sleep(self.chance.choice((0, 0, 0.0005)))

    async def block(self) -> None:
        with self.code:
            pass
        self.region(nested=self.chance.random() < 0.2)
        with self.code:
            pass

    async def fails(self) -> None:
        try:
            with blocking():
                self.pause()
                raise Expected
        except Expected:
            with self.code:
                pass

    async def is_cancelled(self) -> None:
        task = asyncio.create_task(self.until_cancelled())
        for _ in range(self.chance.randrange(3)):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            with self.code:
                assert task.cancelled()

    async def until_cancelled(self) -> None:
        try:
            while True:
                self.region()
                await asyncio.sleep(0)
        finally:
            self.region()

    async def times_out(self) -> None:
        try:
            async with asyncio.timeout(0.002):
                await self.until_cancelled()
        except TimeoutError:
            with self.code:
                pass

    async def calls(self) -> None:
        async def called(depth: int) -> int:
            with self.code:
                pass
            await asyncio.sleep(0)
            if depth:
                with blocking():
                    assert call_async(called, depth - 1) == depth - 1
            return depth

        depth = self.chance.randrange(3)
        with blocking():
            self.pause()
            assert call_async(called, depth) == depth

    async def is_pinned(self) -> None:
        async with pinned():
            for _ in range(2):
                with self.code:
                    assert at_home()
                self.region()
                await asyncio.sleep(0)

    async def in_context(self) -> None:
        await self.loop.create_task(self.block(), context=self.shared)

    async def goes_home(self) -> None:
        assert await self.home_function() == self.token.home

    async def locks(self) -> None:
        async with self.lock:
            self.region()
            with self.code:
                pass

    async def in_place(self) -> None:
        await self.plain()
        with self.code:
            pass


def test_torture(hands: Run, chance: random.Random, hasty: None) -> None:
    """Whatever they do at once, never two threads are in loop code, nobody is lost, and the books are right."""

    async def main() -> None:
        play = Play(chance)
        async with asyncio.TaskGroup() as group:
            for number in range(ACTORS):
                group.create_task(play.actor(number))
        assert play.code.breaches == 0
        assert play.code.inside == []
        statistics = play.loop.statistics()
        assert statistics.away == 0
        assert statistics.takeovers > 50
        assert set(play.counts) >= {"block", "fails", "calls", "is_pinned", "is_cancelled", "times_out"}
        await until(at_home)
        play.token._check()
        assert not play.token.aside.pinned

    hands(main)


def test_many_short_loops(hands: Run, chance: random.Random, hasty: None) -> None:
    """Loops that end while threads are away, one after the other: each waits for its own, and nothing is left over."""
    ended: list[int] = []
    begun = 0

    def block(number: int) -> None:
        with blocking():
            time.sleep(chance.choice((0, 0.001, 0.002, 0.004)))
        ended.append(number)

    async def task(number: int) -> None:
        block(number)

    async def main() -> None:
        nonlocal begun
        loop = asyncio.get_running_loop()
        for _ in range(5):
            if chance.random() < 0.5:
                loop.call_soon(block, begun)
            else:
                tasks.add(loop.create_task(task(begun)))
            begun += 1
        for _ in range(chance.randrange(1, 4)):
            await asyncio.sleep(0)

    tasks: set[asyncio.Task[None]] = set()
    for _ in range(40):
        hands(main)
    assert sorted(ended) == list(range(begun))
