"""Where a threadlet is, for reports: the stack of its thread, or the coroutines that wait for each other."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from .claims import is_ours
from .surroundings import here, outermost
from .tasks import coroutine_of
from .workers import WorkerGroup

if TYPE_CHECKING:
    from .handles import Threadlet

__all__ = ["at_work", "place_of", "stack_of", "stack_of_task"]

SERVE = WorkerGroup._serve.__code__  # the life of a worker thread
ASYNCIO = os.path.dirname(asyncio.__file__)
FRAMES = ("cr_frame", "gi_frame", "ag_frame")
AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")


def stack_of(handle: Threadlet[Any]) -> list[str]:
    """Return the lines of a threadlet's stack as tracebacks show them, the innermost last. Thread: any."""
    stack = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in _frames(handle))
    return stack.format()


def stack_of_task(task: asyncio.Task[Any]) -> list[str]:
    """Return the same for a task that is suspended. Thread: loop."""
    frames = _awaiting(coroutine_of(task))
    return traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames).format()


def at_work() -> list[tuple[threading.Thread, Threadlet[Any] | None, list[str]]]:
    """Return the worker threads that run something: each with whose function that is, and its stack. Thread: any."""
    threads = {thread.ident: thread for thread in threading.enumerate()}
    found = []
    for number, innermost in sys._current_frames().items():
        frames: list[FrameType] = []
        frame: FrameType | None = innermost
        while frame is not None and frame.f_code is not SERVE:
            frames.insert(0, frame)
            frame = frame.f_back
        if frame is not None and number in threads and frames and frames[0].f_code.co_name == "run_on_worker":
            stack = traceback.StackSummary.extract((each, each.f_lineno) for each in _theirs(frames))
            found.append((threads[number], outermost(here.get(number)), stack.format()))
    return found


def place_of(handle: Threadlet[Any]) -> str:
    """Say where a threadlet is: at its innermost line that is neither ours nor asyncio's. Thread: any."""
    for frame in reversed(_frames(handle)):
        if os.path.dirname(frame.f_code.co_filename) != ASYNCIO:
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
    return "an unknown place"


def _frames(handle: Threadlet[Any]) -> list[FrameType]:
    """Return a threadlet's frames, the innermost last, without ours at either end."""
    frames: list[FrameType] = []
    thread = next((thread for thread, each in list(here.items()) if each is handle or outermost(each) is handle), None)
    task = getattr(handle, "_task", None)
    if thread is not None:
        frame = sys._current_frames().get(thread)
        while frame is not None:
            frames.insert(0, frame)
            frame = frame.f_back
        code = getattr(handle.entrypoint.function, "__code__", None)
        for place, each in enumerate(frames):
            if each.f_code is code:
                del frames[:place]
                break
    elif task is not None and hasattr(task, "get_coro"):
        frames += _awaiting(coroutine_of(task))
    return _theirs(frames)


def _theirs(frames: list[FrameType]) -> list[FrameType]:
    """Return frames without ours at either end."""
    theirs = [place for place, frame in enumerate(frames) if not is_ours(frame)]
    return frames[theirs[0] : theirs[-1] + 1] if theirs else frames


def _awaiting(coroutine: Any) -> Iterator[FrameType]:
    """Iterate over the frames of a coroutine that is suspended, and of those that it waits for."""
    while (frame := _first(coroutine, FRAMES)) is not None:
        yield frame
        coroutine = _first(coroutine, AWAITED)


def _first(coroutine: Any, names: tuple[str, ...]) -> Any:
    """Return the first attribute that is there and not None: coroutines and generators call the same differently."""
    return next((value for name in names if (value := getattr(coroutine, name, None)) is not None), None)
