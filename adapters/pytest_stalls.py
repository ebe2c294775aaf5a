"""Finds the call that stalls an event loop, while it does: ``max_stall`` of the pytest plugin.

How: a thread has the loop call something, and looks at its watch. If that has not been called in time, the loop is
stalled right now, and the stack of its thread says by what. So there is no report without a stack; and a loop that is
late since the machine was busy, and not some callback, has none.

A stall is seen a tenth of ``max_stall`` late, at most: one that is longer by so much is always found. Of a call that
keeps the interpreter lock, as a long ``sorted()``, nothing is seen before its end, and it may escape.

Thread: loop, but for ``_watch``.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from contextlib import suppress
from time import perf_counter
from types import FrameType

__all__ = ["Stalls", "stack_of_callback"]

HERE = os.path.dirname(__file__)
ASYNCIO = os.path.dirname(asyncio.__file__)
RUNS = {"_run", "_run_once", "run", "run_forever", "run_until_complete"}  # asyncio's functions around a callback
MANY = 3  # arbitrary: so many stalls are shown


class Stalls:
    """Watches a loop: ``with Stalls(loop, 0.05) as stalls:``; ``stalls.found`` says what has stalled it.

    Args:
        loop: Which one; any kind. It runs on this thread.
        limit: How many seconds a callback may take.

    Attributes:
        found: What to say of each stall.
        runs: The frame that runs the loop, where asyncio's own functions do not.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float) -> None:
        self.found: list[str] = []
        self._loop = loop
        self._limit = limit
        self._many = 0
        self._heard = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.get_ident()  # that the loop was last seen on
        self.runs: FrameType | None = None

    def __enter__(self) -> Stalls:
        self._asked = perf_counter()
        self._answered = 0.0
        self._loop.call_soon(self._answer)
        self._watcher = threading.Thread(target=self._watch, name="threadlets-stalls", daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._hear()
        self._watcher.join()
        self.runs = None
        if self._many > MANY:
            self.found.append(f"and {self._many - MANY} more such")

    def _answer(self) -> None:
        self.runs = sys._getframe(1)
        self._hear()

    def _hear(self) -> None:
        if not self._heard.is_set():
            self._answered = perf_counter()
            self._thread = threading.get_ident()
            self._heard.set()

    def _watch(self) -> None:
        """Ask and look, until the end. Thread: its own."""
        while True:
            stack: list[str] = []
            if not self._heard.wait(self._limit):
                frame = sys._current_frames().get(self._thread)
                if not self._heard.is_set():  # it was in there when we looked
                    stack = stack_of_callback(frame, self.runs)
                frame = None
                self._heard.wait()
            if stack:
                self._tell(self._answered - self._asked, stack)
            if self._ended.wait(self._limit / 10):
                return
            self._heard.clear()
            self._asked = perf_counter()
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # closed
                return
            if self._ended.is_set():
                self._hear()

    def _tell(self, seconds: float, stack: list[str]) -> None:
        self._many += 1
        if self._many <= MANY:
            self.found.append(
                f"the event loop stood still for {seconds:.3f} s, and max_stall={self._limit:g} is allowed:\n"
                + "".join(stack)
            )


def stack_of_callback(frame: FrameType | None, runs: FrameType | None) -> list[str]:
    """Return the lines of the callback that runs in a thread, the innermost last; none, if the loop waits there.

    Args:
        frame: The innermost one of the thread.
        runs: The frame around all callbacks, if that is known.

    Thread: any.
    """
    frames: list[FrameType] = []
    while frame is not None and frame is not runs:
        code = frame.f_code
        folder = os.path.dirname(code.co_filename)
        if folder == ASYNCIO and code.co_name in RUNS:
            break
        frames.insert(0, frame)
        frame = frame.f_back
    while frames and os.path.dirname(frames[0].f_code.co_filename) in (HERE, os.path.dirname(HERE)):
        del frames[0]  # the plugin's, around the test
    if not frames or frames[0].f_code.co_name == "select":
        return []
    with suppress(Exception):  # a source that cannot be read
        return traceback.StackSummary.extract((each, each.f_lineno) for each in frames).format()
    return [f"  {frames[-1].f_code.co_filename}:{frames[-1].f_lineno}\n"]
