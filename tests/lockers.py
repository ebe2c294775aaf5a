"""What the tests of locks share: those that want a lock, of every kind, and places to stop them at."""

from __future__ import annotations

import asyncio
import sys
import threading
from asyncio import CancelledError
from collections.abc import Callable
from types import FrameType
from typing import Any

from tests.workbench import ON_WORKER, PATIENCE, until
from threadlets import Lock, Pool, blocking, threadlet

LOCAL = ["worker", "coroutine", "task"]  # who belongs to a loop, and can be asked to stop
KINDS = [*LOCAL, "thread"]


class Party:
    """Somebody who wants a lock, and has it until he is told to go: a "worker", a "coroutine", a "task", a "thread".

    (A "region" is a task, too, that waits in ``with blocking()``.)

    Attributes:
        has: Whether he has it, or has had it.
        who: What the lock knows him by, while he has it.
        inside: What he does then.
    """

    def __init__(
        self,
        lock: Lock,
        kind: str,
        *,
        pool: Pool | None = None,
        priority: float = 0,
        inside: Callable[[], object] = lambda: None,
    ) -> None:
        self.lock = lock
        self.has = False
        self.who: Any = None
        self.inside = inside
        self._go = threading.Event()
        self._going = asyncio.Event()
        pool = pool or Pool()
        self.future: Any
        if kind == "worker":
            self.future = pool.start(threadlet(contract=ON_WORKER)(self.on_thread), priority=priority)
        elif kind == "coroutine":
            self.future = pool.start(threadlet(self.in_task), priority=priority)
        elif kind == "region":
            self.future = asyncio.create_task(self._in_region())
        elif kind == "task":
            self.future = asyncio.create_task(self.in_task())
        else:
            self.future = asyncio.create_task(asyncio.to_thread(self.on_thread))

    def on_thread(self) -> None:
        with self.lock:
            self._arrived()
            assert self._go.wait(PATIENCE), "nobody has told him to go"

    async def in_task(self) -> None:
        async with self.lock:
            self._arrived()
            await self._going.wait()

    async def _in_region(self) -> None:
        with blocking():
            self.on_thread()

    def _arrived(self) -> None:
        self.who = self.lock.owner
        self.has = True
        self.inside()

    async def has_it(self) -> Party:
        """Wait until he has it."""
        await until(lambda: self.has or self.future.done())
        assert self.has, "he has it"
        return self

    def go(self) -> Party:
        """Let him release it. Thread: loop."""
        self._go.set()
        self._going.set()
        return self

    async def ended(self) -> BaseException | None:
        """Wait for his end; return what he has raised."""
        try:
            await self.future
        except (Exception, CancelledError) as error:
            return error
        return None

    async def gone(self) -> None:
        """Have him release it, and wait for his end."""
        assert await self.go().ended() is None


async def in_line(lock: Lock, count: int) -> None:
    """Let the loop go round until so many wait for a lock, and its holder has heard of it."""
    await until(lambda: len(lock._line) == count and not lock._posted)


async def is_free(lock: Lock) -> None:
    """Let the loop go round until nothing is known of a lock any more; it can be had."""
    await until(lambda: not lock._posted)
    lock._check()
    assert not lock.locked() and not lock.poisoned and not lock._noted
    async with lock:
        pass


class Step:
    """Stops a thread before the n-th line of these modules that it comes to: ``with step:``."""

    def __init__(self, number: int, *modules: str) -> None:
        self.number = number
        self.modules = tuple(f"threadlets/{module}.py" for module in modules)
        self.lines = 0
        self.arrived = threading.Event()
        self._go = threading.Event()

    def go(self) -> None:
        """Let it go on."""
        self._go.set()

    @property
    def came(self) -> bool:
        """Whether there were so many lines."""
        return self.lines >= self.number

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)
        self.arrived.set()

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._line if frame.f_code.co_filename.endswith(self.modules) else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self.lines += 1
            if self.lines == self.number:
                self.arrived.set()
                assert self._go.wait(PATIENCE), "nobody has let it go on"
        return self._line
