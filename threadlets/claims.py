"""What a thread leaves behind when its event loop is taken over, and how it asks to have the loop back."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from time import monotonic_ns
from types import FrameType
from typing import Any

__all__ = ["Claim", "Taken", "is_ours", "place_of"]

HOUSE = os.path.dirname(__file__)


class Claim:
    """A thread's wish to have the token; ``granted`` once it has it."""

    __slots__ = ("_gate", "granted", "thread")

    def __init__(self) -> None:
        self.granted = False
        self.thread = threading.get_ident()
        self._gate = threading.Lock()
        self._gate.acquire()

    def grant(self) -> None:
        """Give the token to the thread that waits. Thread: any, once."""
        self.granted = True
        self._gate.release()

    def wait(self) -> BaseException | None:
        """Wait for the token, whatever signal handlers raise meanwhile; return the last of that."""
        raised = None
        while True:
            try:
                while not self.granted:
                    self._gate.acquire()
                return raised
            except BaseException as error:  # Ctrl-C; but without the token there is nowhere to go
                raised = error


class Taken:
    """A region that was taken: what its thread needs to go on."""

    __slots__ = ("at", "awaits", "cell", "handle", "region", "restore", "since", "task", "thread")

    def __init__(self, cell: list[int], since: int, thread: int, handle: Any, task: asyncio.Task[Any] | None) -> None:
        self.cell = cell
        self.since = since  # nanoseconds: when it was opened
        self.at = monotonic_ns()  # when it was taken
        self.thread = thread
        self.handle = handle  # the callback that it is in
        self.task = task
        self.region: Any = None  # the block, if it is `with blocking()`
        self.awaits = False  # its thread waits for the loop, in call_async
        self.restore: Callable[[], None] | None = None

    def __str__(self) -> str:
        name = "a callback" if self.task is None else f"task {self.task.get_name()!r}"
        seconds = (monotonic_ns() - self.since) / 1e9
        return f"{name}, blocked for {seconds:.0f} s at {place_of(self.thread)}"


def is_ours(frame: FrameType) -> bool:
    """Say whether a frame is that of a function of this library."""
    return os.path.dirname(frame.f_code.co_filename) == HOUSE


def place_of(thread: int) -> str:
    """Say where a thread is: at the innermost line that is not ours. Thread: any."""
    frame: FrameType | None = sys._current_frames().get(thread)
    while frame is not None and is_ours(frame):
        frame = frame.f_back
    return "an unknown place" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
