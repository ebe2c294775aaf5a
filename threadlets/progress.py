"""How far an iteration has come: told to an object, or drawn as a bar on stderr, and never in the way of the work.

Why: a bar is the least important part of a program that has one. So whatever goes wrong with it - no stderr, a broken
pipe, an exception of the package that draws it - ends the bar and not the iteration; it is drawn ten times a second at
most, however many items end; and it has no thread of its own, so that it moves only when an item ends.

Rejected: bars on something that is no terminal, which fill log files with control characters; there it is a line every
few seconds, whatever is installed.

Assumes: rich and tqdm are optional, and looked for when a bar is made; writing to a terminal does not block for long.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from operator import length_hint
from time import monotonic_ns
from typing import Any, ClassVar, Protocol, TextIO

__all__ = ["Progress", "Reporter", "check_progress"]

logger = logging.getLogger("threadlets")

OFTEN = 100_000_000  # nanoseconds; arbitrary: ten updates a second look smooth
SELDOM = 5_000_000_000  # nanoseconds; arbitrary: what a log file can bear
DUMB = ("dumb", "unknown")  # values of TERM on which rich shows nothing


class Progress(Protocol):
    """What ``Pool.map(..., progress=...)`` tells how far it has come.

    >>> class Lines:
    ...     def update(self, done, failed, total):
    ...         print(f"{done} of {total}, {failed} failed")
    ...
    ...     def close(self):
    ...         print("closed")
    >>> reporter = Reporter(Lines(), "ab")
    0 of 2, 0 failed
    >>> reporter.ended(failed=True)
    >>> reporter.close(finished=False)
    1 of 2, 1 failed
    closed

    If a method raises, a warning is logged once, and nothing is told any more. They must not block. Thread: loop.
    """

    def update(self, done: int, failed: int, total: int | None, /) -> object:
        """Learn of items that have ended: at the beginning, then ten times a second at most, and at the end.

        Args:
            done: How many items have ended, in whatever way.
            failed: How many of them have failed, or were cancelled.
            total: How many there will be; None if the source does not tell, or has told too few.
        """

    def close(self) -> object:
        """Learn that the iteration is over, at its end or before. Called once."""


def check_progress(progress: object) -> None:
    """Refuse what cannot be told of progress.

    Raises:
        TypeError: If it is neither True, False, a label, nor an object with the methods of ``Progress``.
    """
    told = not isinstance(progress, type) and all(
        callable(getattr(progress, method, None)) for method in ("update", "close")
    )
    if not told and not isinstance(progress, (bool, str)):
        raise TypeError(f"progress={progress!r}: expected True, a label, or an object with update() and close()")


class Reporter:
    """Counts the items of one iteration that have ended, and tells so often enough. O(1) for each item.

    Args:
        progress: True, a label, or whom to tell.
        items: The source of the iteration, which may know its length.
        clock: Returns nanoseconds.
    """

    def __init__(self, progress: bool | str | Progress, items: object, clock: Callable[[], int] = monotonic_ns) -> None:
        self._clock = clock
        self._done = self._failed = 0
        self._told = -1
        self._interval = OFTEN
        self._due = clock()
        self._total = known_length(items)
        self._bar: Bar | None = None
        self._listener: Progress | None = None
        self._severity = logging.DEBUG
        if not isinstance(progress, (bool, str)):
            self._severity = logging.WARNING  # it is not ours: somebody may have to mend it
            self._listener = progress
        else:
            label = "" if isinstance(progress, bool) else " ".join(progress.split())
            try:
                self._listener = self._bar = make_bar(label, self._total, clock)
                self._interval = self._bar.interval
                self._due += self._bar.patience
            except Exception:
                self._drop()
        self._tell_if_due()

    def ended(self, failed: bool) -> None:
        """Count one more item that has ended."""
        self._done += 1
        self._failed += failed
        self._tell_if_due()

    def close(self, finished: bool) -> None:
        """Tell the last of it. May be called again.

        Args:
            finished: Whether the iteration came to its end; a bar of one that was broken off is wiped away.
        """
        if self._told != self._done:
            self._tell()
        listener, self._listener = self._listener, None
        if listener is not None:
            try:
                if self._bar is not None:
                    self._bar.finished = finished
                listener.close()
            except Exception:
                self._drop()

    def _tell_if_due(self) -> None:
        if self._listener is not None:
            now = self._clock()
            if now >= self._due:
                self._due = now + self._interval
                self._tell()

    def _tell(self) -> None:
        self._told = self._done
        if self._total is not None and self._done > self._total:
            self._total = None
        if self._listener is not None:
            try:
                self._listener.update(self._done, self._failed, self._total)
            except Exception:
                self._drop()

    def _drop(self) -> None:
        """Say once that there is no progress to be seen, and why."""
        logger.log(self._severity, "progress is not shown: an exception stopped that, not the work", exc_info=True)
        listener, self._listener = self._listener, None
        if listener is not None:
            try:
                listener.close()
            except Exception:
                pass  # it has been told


def known_length(items: object) -> int | None:
    """Return how many items there will be, as far as their source tells.

    >>> known_length([1, 2]), known_length(iter([1, 2])), known_length(n for n in [1, 2])
    (2, 2, None)
    """
    try:
        known = length_hint(items, -1)
    except Exception:  # somebody's __len__; or more than an index can be
        return None
    return known if known >= 0 else None


class Bar(ABC):
    """One that we draw ourselves."""

    interval: ClassVar[int] = OFTEN  # nanoseconds between updates
    patience: ClassVar[int] = 0  # nanoseconds before the first one
    finished = False  # set before close(): whether the iteration came to its end

    @abstractmethod
    def update(self, done: int, failed: int, total: int | None, /) -> None:
        """Draw it."""

    @abstractmethod
    def close(self) -> None:
        """Leave its last state on the terminal if the iteration is finished; else take it away."""


def make_bar(label: str, total: int | None, clock: Callable[[], int]) -> Bar:
    """Return the best bar that can be had for stderr.

    Raises:
        Exception: If stderr is None or closed, or what the package for it raises.
    """
    stream = sys.stderr
    if not stream.isatty():
        return Lines(label, clock, stream)
    if os.environ.get("TERM") not in DUMB:
        try:
            return RichBar(label, total)
        except ImportError:
            pass
    try:
        return TqdmBar(label, total, stream)
    except ImportError:
        return Line(label, clock, stream)


class Lines(Bar):
    """A line now and then, for log files; the last one says where it ended."""

    interval = patience = SELDOM

    def __init__(self, label: str, clock: Callable[[], int], stream: TextIO) -> None:
        self._label = label
        self._clock = clock
        self._stream = stream
        self._start = clock()

    def update(self, done: int, failed: int, total: int | None, /) -> None:
        """Write a line."""
        self._write(self._words(done, failed, total) + "\n")

    def close(self) -> None:
        """Leave it at that."""

    def _words(self, done: int, failed: int, total: int | None) -> str:
        """Say it in words: ``pages: 34/100 34% 12.5/s, 2 failed``."""
        words = [f"{self._label}:"] if self._label else []
        words.append(f"{done}" if total is None else f"{done}/{total}")
        if total:
            words.append(f"{done * 100 // total}%")
        seconds = (self._clock() - self._start) / 1e9
        if done and seconds > 0:
            words.append(f"{done / seconds:,.1f}/s")
        return " ".join(words) + (f", {failed} failed" if failed else "")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Line(Lines):
    """One line of a terminal, written again and again."""

    interval = OFTEN
    patience = 0
    _shown = ""

    def update(self, done: int, failed: int, total: int | None, /) -> None:
        """Write it over what was there."""
        words = self._words(done, failed, total)[: self._width() - 1]  # from a full line "\r" might not find back
        self._write("\r" + words.ljust(len(self._shown)))
        self._shown = words

    def close(self) -> None:
        """Go to the next line, or wipe this one."""
        self._write("\n" if self.finished else "\r" + " " * len(self._shown) + "\r")

    def _width(self) -> int:
        """Return how many columns the terminal has: 80 if it does not tell."""
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except OSError:
            return 80


class TqdmBar(Bar):
    """A bar of tqdm, without the thread that tqdm would start to watch it.

    Raises:
        ImportError: If tqdm is not installed.
    """

    def __init__(self, label: str, total: int | None, stream: TextIO) -> None:
        kind: Any = type("Bar", (import_module("tqdm").tqdm,), {"monitor_interval": 0})
        self._tqdm = kind(desc=label, total=total, file=stream, mininterval=0, miniters=1, dynamic_ncols=True)

    def update(self, done: int, failed: int, total: int | None, /) -> None:
        """Move it."""
        self._tqdm.total = total
        if failed:
            self._tqdm.set_postfix_str(f"{failed} failed", refresh=False)
        self._tqdm.update(done - self._tqdm.n)

    def close(self) -> None:
        """End it."""
        self._tqdm.leave = self.finished
        self._tqdm.close()


class RichBar(Bar):
    """A row in rich's display. All rows share one display, since a terminal has one last line.

    Raises:
        ImportError: If rich is not installed.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()  # guards what the bars of several loops share:
    _display: ClassVar[Any] = None
    _rows: ClassVar[int] = 0  # bars that are not closed

    def __init__(self, label: str, total: int | None) -> None:
        with self._lock:
            if RichBar._display is None:
                RichBar._display = self._start()
            self._shared = RichBar._display
            RichBar._rows += 1
        try:
            self._row = self._shared.add_task(label, total=total, failed="")
        except BaseException:
            self._release()
            raise

    @staticmethod
    def _start() -> Any:
        def broken(console: object) -> None:
            raise  # what rich has caught; left to itself it ends the program, and stdout goes to /dev/null

        console: Any = type("Console", (import_module("rich.console").Console,), {"on_broken_pipe": broken})
        rich = import_module("rich.progress")
        display = rich.Progress(
            rich.TextColumn("{task.description}", markup=False),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TaskProgressColumn(show_speed=True),
            rich.TimeRemainingColumn(elapsed_when_finished=True),
            rich.TextColumn("{task.fields[failed]}", markup=False),
            console=console(stderr=True),
            auto_refresh=False,  # no thread
        )
        display.start()
        return display

    def update(self, done: int, failed: int, total: int | None, /) -> None:
        """Move it."""
        words = f"{failed} failed" if failed else ""
        self._shared.update(self._row, completed=done, total=total, failed=words, refresh=True)

    def close(self) -> None:
        """End it, and the display with the last one."""
        try:
            if not self.finished:
                self._shared.remove_task(self._row)
        finally:
            self._release()

    def _release(self) -> None:
        with self._lock:
            RichBar._rows -= 1
            if not RichBar._rows:
                RichBar._display = None
                self._shared.live.transient = not self._shared.tasks
                self._shared.stop()
