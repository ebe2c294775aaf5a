"""Opening a file without a wait: at once, where the kernel has the whole name in its cache; elsewhere, where not.

What was opened elsewhere for somebody who was cancelled meanwhile is closed again: it travels in an ``Opened``, and
who takes it out owns it.

What is not an ordinary file may have to be waited for at every read and write: a FIFO, a terminal, a socket. There the
raw file is put into a ``_Patient`` one, which waits by ``checkpoint_wait``: so a cancel ends the wait, and nothing of
what comes later is lost.
"""

from __future__ import annotations

import builtins
import io
import os
import select
import stat
from asyncio import get_running_loop
from collections.abc import Callable, Generator
from time import monotonic_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from .cancellation import checkpoint
from .descriptors import checkpoint_wait
from .homes import home_of
from .probes import ABSENT, MISS, glance, takes_probes
from .streams import File
from .ways import Ways

if TYPE_CHECKING:
    from _typeshed import OpenBinaryMode, OpenTextMode

__all__ = ["Opened", "Opening", "open", "patient", "wrap"]

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes] | int


class _Patient(io.RawIOBase):
    """A raw file whose waits end if the threadlet that waits is cancelled. Thread: worker."""

    def __init__(self, raw: io.FileIO) -> None:
        self.raw = raw
        self.name = raw.name
        self.mode = raw.mode
        self._is_pipe = stat.S_ISFIFO(os.fstat(raw.fileno()).st_mode)

    def readinto(self, buffer: Any) -> int | None:
        if self.raw.readable() and os.get_blocking(self.raw.fileno()):
            checkpoint_wait(self.raw)
        return self.raw.readinto(buffer)

    def write(self, data: Any) -> int | None:
        if not (self.raw.writable() and os.get_blocking(self.raw.fileno())):
            return self.raw.write(data)
        if not self._is_pipe:
            checkpoint_wait(self.raw, write=True)
            return self.raw.write(data)
        done = 0
        with memoryview(data).cast("B") as view:
            while done < len(view):  # as much as there is room for, or it waits where no cancel is heard
                checkpoint_wait(self.raw, write=True)
                done += self.raw.write(view[done : done + select.PIPE_BUF]) or 0
        return done

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.raw.close()

    def fileno(self) -> int:
        return self.raw.fileno()

    def isatty(self) -> bool:
        return self.raw.isatty()

    def readable(self) -> bool:
        return self.raw.readable()

    def writable(self) -> bool:
        return self.raw.writable()

    def seekable(self) -> bool:
        return self.raw.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.raw.seek(offset, whence)

    def tell(self) -> int:
        return self.raw.tell()

    def truncate(self, size: int | None = None) -> int:
        return self.raw.truncate(size)


def patient(raw: io.FileIO) -> io.RawIOBase:
    """Return a raw file whose waits end if the threadlet that waits is cancelled."""
    return _Patient(raw)


def _made_patient(file: Any, newline: str | None, size: int) -> Any:
    """Return a file like this one, just opened, whose waits can be cancelled."""
    if isinstance(file, io.RawIOBase):
        return _Patient(cast(io.FileIO, file))
    if not isinstance(file, io.TextIOBase):
        return type(file)(_Patient(file.detach()), size if size > 1 else io.DEFAULT_BUFFER_SIZE)
    text = cast(io.TextIOWrapper, file)
    encoding, errors, mode = text.encoding, text.errors, text.mode
    by_line, through = text.line_buffering, text.write_through
    below = _made_patient(text.detach(), newline, size)
    text = io.TextIOWrapper(below, encoding, errors, newline, by_line, through)
    text.mode = mode  # type: ignore[misc]
    return text


class Opened:
    """A file on its way to who has asked for it; closed, if it does not arrive."""

    __slots__ = ("_file",)

    def __init__(self, file: Any) -> None:
        self._file = file

    def take(self) -> Any:
        """Return the file, and have no more to do with it."""
        file, self._file = self._file, None
        return file

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()


def _open(
    file: Any,
    mode: str,
    buffering: int,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
    closefd: bool,
    opener: Callable[[str, int], int] | None,
) -> Opened:
    """Open a file. Thread: any."""
    opened: Any = builtins.open(  # noqa: SIM115  # who has asked for it closes it
        file, mode, buffering, encoding, errors, newline, closefd, opener
    )
    try:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode) and hasattr(select, "poll"):
            opened = _made_patient(opened, newline, buffering)
    except BaseException:
        opened.close()
        raise
    return Opened(opened)


def _open_elsewhere(*request: Any) -> Opened:
    """Open a file, and close it again if nobody waits for it any more. Thread: worker, or loop in a region."""
    opened = _open(*request)
    try:
        checkpoint()
    except BaseException:
        opened.take().close()
        raise
    return opened


opens = Ways(_open_elsewhere, cancel="abandon")


async def _opened(file: Any, mode: Any, *options: Any) -> File[Any]:
    """Open a file where that is best done."""
    home = home_of(get_running_loop())
    if home.turn < 0:
        await home.go_round()
    began = monotonic_ns()
    status = ABSENT if isinstance(file, int) else glance(file)
    reads = isinstance(mode, str) and not set("wax+") & set(mode)
    # A device that refuses reads without a wait may be that of a server, which is told of each file that is opened.
    local = not isinstance(status, os.stat_result) or takes_probes(status) or stat.S_ISDIR(status.st_mode)
    if reads and local and status is not MISS and options[-1] is None:
        try:
            return File(_open(file, mode, *options).take(), options[0])
        finally:
            home.count(began)
    entrypoint = await opens.to(file, status)
    return File((await entrypoint(file, mode, *options)).take(), options[0])


F = TypeVar("F", bound=File[Any])


class Opening(Generic[F]):
    """What ``open`` returns: await it for the file, or enter it, with ``async with``, and have it closed at the end."""

    __slots__ = ("_file", "_request")

    def __init__(self, *request: Any) -> None:
        self._request = request
        self._file: F | None = None

    def __await__(self) -> Generator[Any, None, F]:
        return cast(Generator[Any, None, F], _opened(*self._request).__await__())

    async def __aenter__(self) -> F:
        if self._file is not None:
            raise RuntimeError(f"{self!r}: this one is entered already; call open() for each")
        self._file = file = await self
        return file

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        file, self._file = self._file, None
        if file is not None:
            await file.close()

    def __repr__(self) -> str:
        return f"<threadlets Opening of {self._request[0]!r}: await it, or enter it with 'async with'>"


@overload
def open(
    file: Path,
    mode: OpenTextMode = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
) -> Opening[File[str]]: ...
@overload
def open(
    file: Path,
    mode: OpenBinaryMode,
    buffering: int = -1,
    encoding: None = None,
    errors: None = None,
    newline: None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
) -> Opening[File[bytes]]: ...
@overload
def open(
    file: Path,
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
) -> Opening[File[Any]]: ...


def open(
    file: Path,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
) -> Opening[Any]:
    """Open a file, as the builtin does: ``async with files.open(path) as file: text = await file.read()``.

    A file that is opened for reading, and whose name is in the kernel's cache, is opened at once. One that may have to
    be waited for, such as a FIFO, is opened on a worker; if that is cancelled, nobody waits for it, and it is closed
    again as soon as it is open.

    Args:
        file: Its path, or a descriptor.
        mode: As that of the builtin ``open``; as are all others.
        buffering: In bytes; 0: none, 1: by line, -1: the builtin's own choice.
        encoding: Of a file of text.
        errors: How mistakes of encoding are treated.
        newline: How ends of lines are.
        closefd: Whether closing the file closes a given descriptor.
        opener: What is called to open it: on a worker, or where its calls were learned to be best done.

    Raises:
        OSError, ValueError, TypeError, LookupError: When it is awaited: as the builtin.

    Thread: loop. Cancel: point.
    """
    return Opening(file, mode, buffering, encoding, errors, newline, closefd, opener)


def wrap(file: Any) -> File[Any]:
    """Return a ``File`` of a file that Python has opened, such as ``sys.stdin``. It may be used no more but by that.

    If it is no ordinary file, or one that unpacks, as those of ``gzip``, all is done on workers; a cancel waits until
    an operation that is under way has ended.

    Raises:
        TypeError: If it is no file with a descriptor.
    """
    if not isinstance(file, io.IOBase):
        raise TypeError(f"wrap({file!r}): expected an open file, such as open() returns")
    try:
        file.fileno()
    except io.UnsupportedOperation:
        raise TypeError(f"wrap({file!r}): it has no descriptor, and needs none of this: nothing in it waits") from None
    raw: Any = file.buffer if type(file) is io.TextIOWrapper else file
    if type(raw) in (io.BufferedReader, io.BufferedWriter, io.BufferedRandom):
        raw = raw.raw
    return File(file, plain=type(raw) is io.FileIO)
