"""One of Python's own files whose lines are read in batches: what was read ahead still comes before all that follows.

Why: to ask for each line whether it can be read without a wait costs more than the line. So those who iterate over a
file get a batch at a time. Between two lines they may do anything else with the file, and must not notice.

How: lines that nobody has taken yet are handed over by whatever is read next; where that is not possible, the file
goes back to where its user thinks it is, which only a binary file can do. An exception that Python's file raised behind
some lines is kept until those are taken, as if they had been read one by one.

Several threads: one operation at a time, but a line may be popped from ``lines`` meanwhile, by the thread of the event
loop. Whoever takes more than one line therefore takes the list out of its place first.

Invariants: ``lines`` are what Python's file has returned last, in reverse; nothing was read from it since then.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from itertools import islice
from operator import index
from time import monotonic_ns
from typing import Any, AnyStr, Generic, TypeVar

from .placements import FAIR

__all__ = ["BATCH", "Batches"]

T = TypeVar("T")

BATCH = 1 << 15  # characters; arbitrary: of lines at a time at most, some hundreds
FIRST = 1 << 9  # characters; arbitrary: half of the first batch
MANY = 64  # lines; arbitrary: as many may turn out to be much longer than those before
EIGHTH = MANY // 8  # arbitrary: of so many lines the length of one is looked at


class Batches(Generic[AnyStr]):
    """A file and its lines ahead. What has the name of a file's method does the same. Thread: any. Cancel: none.

    Attributes:
        file: Python's own.
        is_text: Whether it is one of text.
        lines: Read, and not handed over; the next one is the last.
    """

    __slots__ = ("_count", "_failure", "_iterates", "_since", "_size", "file", "is_text", "lines")

    def __init__(self, file: Any) -> None:
        self.file = file
        self.is_text = isinstance(file, io.TextIOBase)
        self.lines: list[AnyStr] = []
        self._count = EIGHTH  # how many lines of text to read before the next look at how long they are
        self._size = FIRST  # characters of the next batch
        self._since = 0  # nanoseconds: when the last one was there
        self._failure: Exception | None = None  # what comes after them
        self._iterates = False  # so tell() is to fail; the file itself knows it only if it has more lines

    def fill(self) -> bool:
        """Read a batch, if there are no lines; say whether there are any now.

        Who takes long over a batch gets a smaller one: the event loop can go round between two of them only.
        """
        if not self.lines:
            spent = monotonic_ns() - self._since if self._since else 0
            self._size = min(2 * self._size, BATCH) if spent <= FAIR else max(self._size * FAIR // spent, 1)
            lines = self._read_text_lines() if self.is_text else self._read_lines()
            self._since = monotonic_ns()
            self._keep(lines)
        return bool(self.lines)

    def fill_one(self) -> bool:
        """Read a line, if there are none: of a file that may have to be waited for, or that is written to as well."""
        if not self.lines:
            line = next(self.file, None)
            self._keep([] if line is None else [line])
        return bool(self.lines)

    def _keep(self, lines: list[AnyStr]) -> None:
        lines.reverse()
        self._iterates = bool(lines)
        self.lines = lines

    def _read_lines(self) -> Any:
        if self.file.closed:
            next(self.file)  # raises
        lines = self.file.read(self._size) + self.file.readline()
        return io.BytesIO(lines).readlines()  # three times as fast as its own

    def _read_text_lines(self) -> list[AnyStr]:
        self._raise_late()
        lines: list[AnyStr] = []
        left = self._size
        try:
            while left > 0:
                before = len(lines)
                lines.extend(islice(self.file, self._count))  # unlike readlines(), it drops nothing if that raises
                some = lines[before::EIGHTH]
                if not some:
                    break
                length = sum(map(len, some)) // len(some) + 1
                self._count = max(1, min(left // length, MANY))
                left -= length * (len(lines) - before)
        except Exception as error:
            if not lines:
                raise
            self._failure = error
        return lines

    def _raise_late(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def read(self, size: int | None) -> Any:
        """Read up to ``size`` characters or bytes; all there are, if it is None or less than 0."""
        if not self.lines:
            self._raise_late()
            return self.file.read(size)
        lines, self.lines = self.lines, []
        try:
            left = -1 if size is None else index(size)
            held = sum(map(len, lines))
            rest: Any = lines[0][:0]
            if not 0 <= left <= held:
                self._raise_late()
                rest = self.file.read(left if left < 0 else left - held)
            taken: list[AnyStr] = []
            left = held if left < 0 else min(left, held)
            while left:
                taken.append(_cut(lines, left))
                left -= len(taken[-1])
            return rest[:0].join([*taken, rest])
        finally:
            self.lines = lines

    def readline(self, size: int | None) -> Any:
        """Read a line, or its first ``size`` characters or bytes."""
        if not self.lines:
            self._raise_late()
            return self.file.readline(size)
        size = -1 if size is None and not self.is_text else index(size)  # type: ignore[arg-type]  # it says what is wrong
        lines, self.lines = self.lines, []
        try:
            return _cut(lines, size)
        finally:
            self.lines = lines

    def readlines(self, hint: int | None) -> list[AnyStr]:
        """Read lines, to the end, or until they have more than ``hint`` characters or bytes together."""
        left = 0 if hint is None else index(hint)
        if left <= 0:
            hint, left = None, 0
        taken: list[AnyStr] = []
        while self.lines and (hint is None or left >= 0):
            taken.append(self.lines.pop())
            left -= len(taken[-1])
        if hint is None or left >= 0:
            self._raise_late()
            self._iterates = False
            taken += islice(self.file, 1) if left == 0 and taken else self.file.readlines(hint and left)
        return taken

    def give_back(self, function: Callable[..., T], *args: Any) -> T:
        """Do something with a binary file, when it stands where it would if it had read no lines ahead."""
        if self.lines:
            lines, self.lines = self.lines, []
            self.file.seek(-sum(map(len, lines)), os.SEEK_CUR)
        return function(*args)

    def seek(self, offset: int, whence: int) -> Any:
        """Move to a position and return it."""
        if not self.is_text:
            return self.give_back(self.file.seek, offset, whence)
        if whence == os.SEEK_CUR and not offset:
            self._check_telling()
        position = self.file.seek(offset, whence)
        self._forget()
        return position

    def tell(self) -> int:
        """Return the position."""
        if self.is_text:
            self._check_telling()
        return int(self.file.tell()) - sum(map(len, self.lines))

    def _check_telling(self) -> None:
        if self._iterates:
            raise OSError("telling position disabled by next() call")  # as Python's own

    def close(self) -> None:
        """Close the file."""
        self._forget()
        self.file.close()

    def detach(self) -> Any:
        """Return what is below the file; where that stands is not determined, as with any buffer."""
        self._forget()
        return self.file.detach()

    def _forget(self) -> None:
        self.lines, self._failure, self._iterates = [], None, False


def _cut(lines: list[AnyStr], size: int) -> AnyStr:
    """Take the next of these lines; its beginning, if it is longer than ``size``; all of it, if that is less than 0."""
    line = lines.pop()
    if 0 <= size < len(line):
        lines.append(line[size:])
        line = line[:size]
    return line
