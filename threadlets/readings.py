"""Whole files, read: in place, if all is in memory; if not, by whoever is handed what is known of it so far.

A file is opened in place without a wait, and without blocking, and goes on open: a miss need not open it again. So a
FIFO is opened as well; who writes into it is let in, as by any reader, and is read from, elsewhere, with patience.

To open a file of a network may take a journey to its server although its name is known here. Such file systems refuse
reads without a wait; so a folder in which that was met is kept in mind, and its files are opened where that was learned
to be best, from then on.
"""

from __future__ import annotations

import builtins
import io
import os
import stat
from time import monotonic_ns
from typing import Any, NamedTuple, ParamSpec, TypeVar

from .entrypoints import Entrypoint
from .homes import Home
from .openings import Opened, patient
from .probes import ABSENT, LARGE, MISS, StrPath, open_now, read_now, takes_probes
from .ways import Ways, stats

__all__ = ["Found", "attempt", "reads", "reads_into", "text_reads"]

P = ParamSpec("P")
R = TypeVar("R")

Source = StrPath | Opened


def _raw(source: Source) -> Any:
    """Return a file without a buffer, to be closed."""
    if isinstance(source, Opened):
        return source.take()
    return builtins.open(source, "rb", buffering=0)


def _read(source: Source) -> bytes:
    """Read a file to its end. Thread: any."""
    with _raw(source) as file:
        return file.read()  # type: ignore[no-any-return]


def _read_text(source: Source, encoding: str | None, errors: str | None, newline: str | None) -> str:
    """Read a file of text to its end. Thread: any."""
    with _raw(source) as raw, io.BufferedReader(raw) as below:  # each closes, or would warn, if the next is not made
        with io.TextIOWrapper(below, encoding, errors, newline) as file:
            return file.read()


def _read_into(source: Source, buffer: memoryview) -> int:
    """Read the beginning of a file into a buffer of bytes. Thread: any."""
    done = 0
    with _raw(source) as file:
        while done < len(buffer) and (got := file.readinto(buffer[done:])):
            done += got
    return done


FOLDERS = 1024  # arbitrary: that are kept in mind
_refusing: dict[Any, int] = {}  # their devices

reads = Ways(_read, cancel="abandon")
text_reads = Ways(_read_text, cancel="abandon")
reads_into = Ways(_read_into)


class Found(NamedTuple):
    """A file that could not be read in place.

    Attributes:
        source: The file, if it is open; else its path.
        status: If it is open; else ``MISS``, or the device that it is on.
    """

    source: Any
    status: Any

    async def way(self, ways: Ways[P, R]) -> Entrypoint[P, R]:
        """Return how it is read.

        What is large goes away. What is small may be read from the disk in less time than a hop takes: that is learned.
        What has no size, as in ``/proc``, may have no end yet.
        """
        status = self.status
        if status is MISS:
            return await ways.to(self.source, status)
        if isinstance(status, int):
            try:
                status = await stats.on(status)(self.source)
            except (OSError, ValueError):  # which reading it will raise, too
                return ways.on(status)
        ordinary = stat.S_ISREG(status.st_mode) and 0 < status.st_size <= LARGE
        return ways.on(status.st_dev) if ordinary else ways.away


def _folder(path: StrPath) -> str | bytes | None:
    return os.path.dirname(path) if isinstance(path, str | bytes | os.PathLike) else None


def attempt(path: StrPath, home: Home, buffer: memoryview | None = None) -> Any:
    """Read a file, or its beginning into a buffer, in place; return a ``Found`` if that is not possible.

    Raises:
        OSError: As ``open`` does.

    Thread: loop. Cancel: none.
    """
    if _refusing and (device := _refusing.get(_folder(path))) is not None:
        return Found(path, device)
    began = monotonic_ns()
    descriptor: Any = None
    try:
        descriptor = open_now(path)
        if descriptor is ABSENT:
            return _read(path)  # raises
        if descriptor is MISS:
            return Found(path, MISS)
        status = os.fstat(descriptor)
        if takes_probes(status):
            data = read_now(descriptor, status, buffer)
            if data is not MISS:
                return data
        elif stat.S_ISDIR(status.st_mode):
            return _read(path)  # raises
        if stat.S_ISREG(status.st_mode) and not takes_probes(status):
            if len(_refusing) >= FOLDERS:
                _refusing.clear()
            _refusing[_folder(path)] = status.st_dev
        raw: Any = io.FileIO(descriptor)
        descriptor = None
        if not stat.S_ISREG(status.st_mode):
            os.set_blocking(raw.fileno(), True)
            raw = patient(raw)
        return Found(Opened(raw), status)
    finally:
        if isinstance(descriptor, int):
            os.close(descriptor)
        home.count(began)
