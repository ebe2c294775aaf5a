"""What the tests of semaphores, conditions and events share: those that wait, of every kind, and where to stop them."""

from __future__ import annotations

import asyncio
import sys
import threading
from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

from tests.support import HookedLock
from tests.workbench import ON_WORKER, PATIENCE, Gate, until
from threadlets import Lock, Pool, blocking, threadlet
from threadlets.conditions import Condition
from threadlets.grants import Granted
from threadlets.parking import Line

ASKED = ["worker", "coroutine", "task"]  # who waits, and can be asked to stop
KINDS = [*ASKED, "thread"]

Wait = Callable[[], Any]
WaitAsync = Callable[[], Coroutine[Any, Any, Any]]


def start(kind: str, wait: Wait, wait_async: WaitAsync, pool: Pool | None = None, priority: float = 0) -> Any:
    """Have somebody wait; return a future of what he gets."""
    pool = pool or Pool()
    if kind == "worker":
        return pool.start(threadlet(contract=ON_WORKER)(wait), priority=priority)
    if kind == "coroutine":
        return pool.start(threadlet(wait_async), priority=priority)
    if kind == "region":
        return asyncio.create_task(in_region(wait))
    return asyncio.create_task(wait_async() if kind == "task" else asyncio.to_thread(wait))


async def in_region(wait: Wait) -> Any:
    """Wait in a region of a plain task."""
    with blocking():
        return wait()


async def in_line(what: Granted, count: int) -> None:
    """Let the loop go round until so many stand in line."""
    await until(lambda: len(what._line) == count)


async def outcome(future: Any) -> Any:
    """Wait for somebody; return what he got, or the exception."""
    try:
        return await future
    except (Exception, CancelledError) as error:
        return error


class Interrupted(Line):
    """A line in which something comes up, on the same thread, in the middle of a pop; it takes the place of another."""

    def __init__(self, what: Granted, *nested: Callable[[], object]) -> None:
        super().__init__()
        self._queue = what._line._queue
        self._nested = list(nested)
        what._line = self

    def pop(self) -> Any:
        while self._nested:
            self._nested.pop()()
        return super().pop()


class Waiting:
    """Somebody who waits at a condition, and looks how his wait has ended before he leaves the block."""

    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        self.ended: list[tuple[Any, bool]] = []  # how, and whether the lock was held then

    def wait(self, timeout: float | None = None) -> None:
        with self.condition:
            try:
                self._ends(self.condition.wait(timeout))
            except BaseException as error:
                self._ends(error)
                raise

    async def wait_async(self) -> None:
        async with self.condition:
            try:
                await self.condition.wait_async()
                self._ends(True)
            except BaseException as error:
                self._ends(error)
                raise

    def start(self, kind: str, **options: Any) -> Any:
        return start(kind, self.wait, self.wait_async, **options)

    def _ends(self, how: Any) -> None:
        try:
            self.condition.notify(0)
        except RuntimeError:
            self.ended.append((how, False))
        else:
            self.ended.append((how, True))


async def notify(condition: Condition) -> None:
    async with condition:
        condition.notify()


async def wanted(lock: Lock, count: int = 1) -> None:
    """Wait until so many stand in line for a lock."""
    while len(lock._line) != count:  # noqa: ASYNC110
        await asyncio.sleep(0)


class Stop:
    """Stops one thread when it is about to leave the line: before it takes the mutex again, once it stands there."""

    def __init__(self, what: Granted) -> None:
        self._what = what
        self._thread = 0
        self._gate = Gate()
        mutex = HookedLock(self._hook)
        mutex._lock = threading.RLock()  # type: ignore[assignment]
        what._mutex = mutex

    def this_thread(self) -> None:
        """Be the one."""
        self._thread = threading.get_ident()

    async def arrived(self) -> None:
        """Wait until it has stopped."""
        await asyncio.to_thread(self._gate.wait_arrived)

    def go(self) -> None:
        """Let it go on."""
        self._gate.open()

    def _hook(self) -> None:
        if threading.get_ident() == self._thread and len(self._what._line):
            self._thread = 0
            self._gate()


class Step:
    """Stops a thread before the n-th line of some modules of the library that it comes to in a function; 0: nowhere."""

    def __init__(self, number: int, *modules: str) -> None:
        self.number = number
        self.modules = tuple(f"threadlets/{module}.py" for module in modules)
        self.lines = 0  # that it has come to
        self._began = threading.Event()
        self._arrived = threading.Event()
        self._go = threading.Event()

    async def arrived(self) -> None:
        """Wait until it is there, or has ended; for a moment: it may sit in its wait, and go on when it is woken."""
        await asyncio.to_thread(self._began.wait)
        await asyncio.to_thread(self._arrived.wait, 0.005)

    def go(self) -> None:
        """Let it go on."""
        self._go.set()

    def around(self, function: Callable[[], object]) -> Callable[[], None]:
        """Return that function, to be called on the thread that is to stop."""

        def stepping() -> None:
            self._began.set()
            before = sys.gettrace()
            sys.settrace(self._call)
            try:
                function()
            finally:
                sys.settrace(before)
                self._arrived.set()

        return stepping

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._line if frame.f_code.co_filename.endswith(self.modules) else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self.lines += 1
            if self.lines == self.number:
                self._arrived.set()
                assert self._go.wait(PATIENCE), "nobody has let it go on"
        return self._line
