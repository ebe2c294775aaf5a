"""An open file of asyncio: each operation is done at once if what it needs is in memory, and elsewhere if not.

How: a ``File`` has one of Python's own file objects, whatever ``open`` made, so that its results and its exceptions are
those of the builtins in every mode. Before it lets that read in place, it asks the kernel whether the bytes that may be
read are in the page cache; what it has asked once it need not ask again. That costs a copy into a buffer that nobody
looks at. The alternative, buffers of our own, would be a second implementation of text files, with its own mistakes.

What is not an ordinary file open for reading goes the ways of ``ways.py``: to a worker (FIFOs, terminals), or where
operations on that device were learned to be best done.

One operation at a time: one that is elsewhere has the file until it has ended.

Lines come in batches (``batches.py``). A line of over 64 KiB is read to its end, whether that is in memory or not.

Rejected: raising from the raw file's ``readinto`` when it would wait, to try again elsewhere. Python's buffers drop
what they have read so far when that happens.
"""

from __future__ import annotations

import asyncio
import io
import os
import stat
from asyncio import CancelledError, Lock, get_running_loop
from collections.abc import Callable, Iterable
from time import monotonic_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, AnyStr, Generic, TypeVar, cast

from .batches import BATCH, Batches
from .handles import Threadlet
from .homes import home_of
from .probes import LARGE, known_until, takes_probes
from .ways import Ways

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["File"]

T = TypeVar("T")

AHEAD = 1 << 18  # bytes; arbitrary: how far a file that is read in order is looked at, at most
WIDEST = 4  # bytes per character, in the encodings that are in use
REST = -1  # for a number of bytes: as many as there are
UNKNOWN = LARGE + 1  # for a number of bytes: what is not only reading


def _operate(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Do an operation of a file. Thread: any."""
    return function(*args)


operate = Ways(_operate)
reads = Ways(_operate)  # the same, for what a disk may have to be read for: learned by itself
_closing: set[asyncio.Task[None]] = set()  # of files that are closed when the operation under way has ended


class File(Generic[AnyStr]):
    """An open file, with the methods of Python's own as coroutines, and ``async for`` over its lines.

    ``await files.open(...)`` returns one, and ``async with files.open(...) as file`` closes it at the end. What depends
    on the mode is as it is there: a text file has an ``encoding``, a binary one can ``peek``, and so on; results and
    exceptions are those of the builtins. An operation that is begun while another one goes on waits for it.

    Thread: loop. Cancel: point. An operation that is under way elsewhere is waited for, and what it has read is lost;
    but not lines of an ``async for``.
    """

    __slots__ = (
        *("__weakref__", "_ahead", "_batches", "_device", "_end", "_fd", "_file", "_iterates_by_batch"),
        *("_odd", "_probes", "_start", "_turns", "_window"),
    )

    def __init__(self, file: Any, buffering: int = -1, plain: bool = True) -> None:
        self._file = file
        self._fd: int = file.fileno()
        status = os.fstat(self._fd)
        self._device = status.st_dev
        self._batches: Batches[AnyStr] = Batches(file)
        self._odd = not (plain and stat.S_ISREG(status.st_mode) and file.seekable())
        self._probes = not self._odd and takes_probes(status) and file.readable() and not file.writable()
        if not (self._probes or status.st_size or file.writable()):
            self._odd = True  # as in /proc: it may have no end yet
        self._start = self._end = self._window = 0  # where the file is known to be in memory; the last look, in bytes
        size = io.DEFAULT_BUFFER_SIZE  # of a chunk of text; a buffer of bytes is as large as that, or as a block
        self._ahead = size + max(size, buffering, getattr(status, "st_blksize", 0))  # bytes that both may read ahead
        self._iterates_by_batch = not self._odd and not file.writable()
        self._turns: Lock | None = None  # made when first needed

    # ------------------------------------------------------------------------------------------------ where it is done

    async def _do(self, size: int, function: Callable[..., T], *args: Any) -> T:
        """Do an operation that reads at most ``size`` bytes: here if they are in memory, elsewhere if not."""
        home = home_of(get_running_loop())
        if home.turn < 0:
            await home.go_round()
        if self._is_at_hand(size):
            began = monotonic_ns()
            try:
                return function(*args)
            finally:
                home.count(began)
        if self._turns is None:
            self._turns = Lock()
        async with self._turns:
            return cast(T, await self._entrypoint(size)(function, args))

    def _entrypoint(self, size: int) -> Callable[..., Threadlet[Any]]:
        """Return by what an operation is done that is not done here: what may take long is sent away."""
        if self._odd or (self._probes and (size == REST or size > LARGE)):
            return operate.away
        return (reads if self._probes else operate).on(self._device)

    def _is_at_hand(self, size: int) -> bool:
        """Say whether the next ``size`` bytes, and those of Python's buffers, are in memory, and nothing goes on."""
        if not self._probes or size > LARGE or (self._turns is not None and self._turns.locked()):
            return False
        if self._is_closed():
            return True  # the plain call says so
        here = os.lseek(self._fd, 0, os.SEEK_CUR)
        if size == REST:  # and one more: what has no size, as in /proc, may have no end yet
            size = max(os.fstat(self._fd).st_size - here, 0) + 1
            if size > LARGE:
                return False
        if not self._start <= here <= self._end:
            self._end = here
            self._window = 0
        self._start = here  # what lies behind may be dropped, or has been
        end = here + size
        if end > self._end:
            self._window = max(end - self._end, min(2 * self._window, AHEAD))
            self._end = known_until(self._fd, self._end, self._end + self._window)
            if self._end < end:
                self._probes = takes_probes(os.fstat(self._fd))
                return False
        return True

    def _is_used(self) -> bool:
        return self._turns is not None and self._turns.locked()

    def _is_closed(self) -> bool:
        try:
            return bool(self._file.closed)
        except ValueError:  # detached
            return True

    def _bytes(self, size: int | None) -> int:
        """Return how many bytes may be read for so many characters or bytes."""
        if not isinstance(size, int) or size < 0:
            return REST
        return (WIDEST * size if self._batches.is_text else size) + self._ahead

    # ------------------------------------------------------------------------------------------------------ reading

    async def read(self, size: int | None = -1, /) -> AnyStr:
        """Read up to ``size`` characters or bytes; all there are, if it is None or less than 0."""
        return await self._do(self._bytes(size), self._batches.read, size)

    async def readall(self) -> AnyStr:
        """Read to the end: of a file without buffer."""
        return await self._do(REST, self._batches.give_back, self._file.readall)

    async def read1(self, size: int = -1, /) -> AnyStr:
        """Read up to ``size`` bytes with at most one system call: of a buffered binary file."""
        most = size if isinstance(size, int) and size > 0 else 0
        return await self._do(self._bytes(most), self._batches.give_back, self._file.read1, size)

    async def peek(self, size: int = 0, /) -> AnyStr:
        """Return bytes that are in the buffer, and stay there: of a buffered binary file."""
        return await self._do(self._ahead, self._batches.give_back, self._file.peek, size)

    async def readinto(self, buffer: Buffer, /) -> int:
        """Read into a buffer; return how many bytes: of a binary file."""
        return await self._do(self._room(buffer), self._batches.give_back, self._file.readinto, buffer)

    async def readinto1(self, buffer: Buffer, /) -> int:
        """The same, with at most one system call: of a buffered binary file."""
        return await self._do(self._room(buffer), self._batches.give_back, self._file.readinto1, buffer)

    async def readline(self, size: int | None = -1, /) -> AnyStr:
        """Read a line, or its first ``size`` characters or bytes."""
        return await self._do(self._ahead, self._batches.readline, size)

    async def readlines(self, hint: int | None = -1, /) -> list[AnyStr]:
        """Read lines, to the end, or until they have more than ``hint`` characters or bytes together."""
        return await self._do(self._bytes(hint or -1), self._batches.readlines, hint)

    def __aiter__(self) -> File[AnyStr]:
        """Return the file itself: it iterates over its lines."""
        return self

    async def __anext__(self) -> AnyStr:
        """Return the next line."""
        try:
            return self._batches.lines.pop()
        except IndexError:
            pass
        batches = self._batches
        size, fill = (self._bytes(BATCH), batches.fill) if self._iterates_by_batch else (self._ahead, batches.fill_one)
        while await self._do(size, fill):
            if lines := batches.lines:  # no other task has taken them all
                return lines.pop()
        raise StopAsyncIteration

    def _room(self, buffer: Buffer) -> int:
        try:
            return self._bytes(memoryview(buffer).nbytes)
        except TypeError:
            return 0  # the plain call says so

    # ------------------------------------------------------------------------------------------------- the position

    async def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a position and return it: in a file of text, one that ``tell`` has returned, the start or the end."""
        return cast(
            int, await self._do(self._ahead if self._batches.is_text else 0, self._batches.seek, offset, whence)
        )

    async def tell(self) -> int:
        """Return the position: a number of bytes, or, in a file of text, one that only ``seek`` can read."""
        return await self._do(0, self._batches.tell)

    # ------------------------------------------------------------------------------------------------------ writing

    async def write(self, data: AnyStr | Buffer, /) -> int:
        """Write; return how many characters or bytes were taken: all, but for a file without buffer."""
        return await self._do(UNKNOWN, self._file.write, data)

    async def writelines(self, lines: Iterable[AnyStr | Buffer], /) -> None:
        """Write all of these, one after the other. They are iterated over where it is done: give it a list."""
        await self._do(UNKNOWN, self._file.writelines, lines)

    async def truncate(self, size: int | None = None, /) -> int:
        """Cut the file off, or extend it with zeros, at this many bytes, or where it stands."""
        return await self._do(UNKNOWN, self._file.truncate, size)

    async def flush(self) -> None:
        """Hand what is in Python's buffers to the system."""
        await self._do(0, self._file.flush)  # nothing, if it cannot be written to

    async def fsync(self) -> None:
        """Hand it to the disk, and wait for that."""
        await self._do(UNKNOWN, self._sync)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    # -------------------------------------------------------------------------------------------------------- ending

    async def close(self) -> None:
        """Write what is left and close the descriptor. If that is cancelled, it is closed all the same.

        Raises:
            OSError: If what was left could not be written; the descriptor is closed.
        """
        if (self._probes or self._is_closed()) and not self._is_used():
            self._batches.close()  # nothing can be left to be written
            return
        try:
            await self._do(UNKNOWN, self._batches.close)
        except CancelledError:
            if not self._is_closed():
                _closing.add(task := get_running_loop().create_task(self._close_later()))
                task.add_done_callback(_closing.discard)
            raise

    async def _close_later(self) -> None:
        while not self._is_closed():
            try:
                await self._do(UNKNOWN, self._batches.close)
            except CancelledError:  # the loop is about to end
                if not self._is_used():
                    self._batches.close()

    async def __aenter__(self) -> File[AnyStr]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # ------------------------------------------------------------------------------------- what needs no waiting for

    async def isatty(self) -> bool:
        """Say whether it is a terminal."""
        return bool(self._file.isatty())

    async def seekable(self) -> bool:
        """Say whether ``seek`` works."""
        return bool(self._file.seekable())

    async def writable(self) -> bool:
        """Say whether it was opened for writing."""
        return bool(self._file.writable())

    def readable(self) -> bool:
        """Say whether it was opened for reading."""
        return bool(self._file.readable())

    def fileno(self) -> int:
        """Return the descriptor."""
        return int(self._file.fileno())

    async def stat(self) -> os.stat_result:
        """Return the status of the open file, as ``os.fstat`` does."""
        return os.fstat(self._file.fileno())

    def detach(self) -> Any:
        """Return the raw or buffered file below, Python's own, and be of no more use.

        Raises:
            RuntimeError: If another operation is under way.
        """
        if self._is_used():
            raise RuntimeError(f"detach() of {self!r}: wait until the operation that is under way has ended")
        return self._batches.detach()

    def __getattr__(self, name: str) -> Any:
        """Return ``name``, ``mode``, ``closed``, and what else this kind of file has: ``encoding``, ``buffer``, ..."""
        if name in ATTRIBUTES:
            return getattr(self._file, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __repr__(self) -> str:
        return f"<threadlets File of {self._file!r}>"


ATTRIBUTES = frozenset(
    ("buffer", "closed", "encoding", "errors", "line_buffering", "mode", "name", "newlines", "raw", "write_through")
)
