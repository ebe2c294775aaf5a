"""Temporary files and folders: made and removed where that is best done, and never left behind by a cancel.

    async with files.TemporaryDirectory() as folder: ...
    async with files.NamedTemporaryFile("w") as file:
        await file.write("...")
        await convert(file.name)

Python's ``tempfile`` makes them, with the same arguments, and its objects stay inside: what is forgotten is removed
when it is collected, as there. It is imported when first needed, which takes some milliseconds.

A cancel comes before a file is made, and then there is none; or after, and then it is removed again: a file travels in
a ``_Made``, and who takes it out owns it. A folder whose removal was cancelled before it began is removed by a task of
its own; if the loop ends first, in place.

A ``SpooledTemporaryFile`` is memory until it has grown too large: what is done to it is done in place, and the write
that might let it roll over is one hop, with the rolling over.

Assumes: ``tempfile.SpooledTemporaryFile`` tells by its ``_rolled`` whether its ``_file`` is a file of the system, and a
file with a name has a ``_closer`` that removes it; so it has been since Python 2.6, and aiofiles leans on both, too.

Over 400 lines: a file that may be memory, and four functions of many arguments, are one subject.
"""

from __future__ import annotations

import os
from asyncio import CancelledError, Lock, Task, get_running_loop
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from time import monotonic_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, AnyStr, Generic, TypedDict, TypeVar, Unpack, cast, overload

from .cancellation import checkpoint
from .homes import home_of
from .regions import blocking
from .streams import File
from .ways import Ways

if TYPE_CHECKING:
    import tempfile

    from _typeshed import OpenBinaryMode, OpenTextMode
    from typing_extensions import Buffer

    Folder = str | bytes | os.PathLike[str] | os.PathLike[bytes] | None

    class _Options(TypedDict, total=False):
        buffering: int
        encoding: str | None
        newline: str | None
        suffix: Folder
        prefix: Folder
        dir: Folder
        errors: str | None

    class _NamedOptions(_Options, total=False):
        delete: bool
        delete_on_close: bool


__all__ = [
    "Directory",
    "Making",
    "NamedFile",
    "NamedTemporaryFile",
    "SpooledFile",
    "SpooledTemporaryFile",
    "TemporaryDirectory",
    "TemporaryFile",
]

M = TypeVar("M")
E = TypeVar("E")  # what is entered

WIDEST = 4  # bytes per character, in the encodings that are in use
DEFAULTS = {"delete": True, "delete_on_close": True}  # not handed on: Python 3.11 does not know all of these


class _Made:
    """A temporary file or folder on its way to who has asked for it; removed, if it does not arrive."""

    __slots__ = ("_thing",)

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def take(self) -> Any:
        """Return it, and have no more to do with it."""
        thing, self._thing = self._thing, None
        return thing

    def remove(self) -> None:
        """Close and remove it, if nobody has taken it, also if it was to stay."""
        thing = self.take()
        if hasattr(thing, "cleanup"):  # a folder
            thing.cleanup()
        elif thing is not None:
            thing.close()
            if hasattr(thing, "file"):  # it has a name
                with suppress(OSError):
                    os.unlink(thing.name)

    __del__ = remove


def _make(kind: str, options: dict[str, Any]) -> _Made:
    """Have ``tempfile`` make something. Thread: any. Cancel: point."""
    import tempfile  # here: it takes some milliseconds, and few need it

    made = _Made(getattr(tempfile, kind)(**options))
    try:
        checkpoint()
    except BaseException:
        made.remove()  # before anybody hears that it is cancelled
        raise
    return made


def _call(function: Callable[..., Any], *args: Any) -> Any:
    """Thread: any."""
    return function(*args)


_KINDS = ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "TemporaryDirectory")
_makes = {kind: Ways(_make) for kind in _KINDS}  # each with what it has learned
_calls = Ways(_call)
_removing: set[Task[Any]] = set()


def _go_on(rest: Coroutine[Any, Any, Any]) -> None:
    """Do what is left to be done for somebody who was cancelled."""
    _removing.add(task := get_running_loop().create_task(rest))
    task.add_done_callback(_removing.discard)


class Making(Generic[M, E]):
    """What the functions here return: await it for the file, or enter it, and have it closed and removed at the end.

    Each await makes another one.

    Args:
        kind: Which function of ``tempfile`` makes it.
        options: Its arguments.
        wrap: Makes of what that returns what the await does.
    """

    __slots__ = ("_kind", "_made", "_options", "_wrap")

    def __init__(self, kind: str, options: dict[str, Any], wrap: Callable[[Any], M]) -> None:
        self._kind = kind
        self._options = {name: value for name, value in options.items() if DEFAULTS.get(name) is not value}
        self._wrap = wrap
        self._made: Any = None

    def __await__(self) -> Generator[Any, None, M]:
        made = yield from _makes[self._kind].on()(self._kind, self._options).__await__()
        thing = made.take()
        try:
            return self._wrap(thing)
        except BaseException:
            _Made(thing).remove()
            raise

    async def __aenter__(self) -> E:
        self._made = made = await self
        entered: Any = made.name if isinstance(made, Directory) else made
        return cast(E, entered)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        made, self._made = self._made, None
        if made is not None:
            await made.__aexit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<threadlets Making of a {self._kind}: await it, or enter it with 'async with'>"


# ------------------------------------------------------------------------------------------------------------- files


class NamedFile(File[AnyStr]):
    """A temporary file with a name, which is removed when the file is closed, or at the end of ``async with``.

    Attributes:
        delete: Whether it is removed at all.
    """

    __slots__ = ("_named", "_on_close", "delete")

    def __init__(self, file: tempfile._TemporaryFileWrapper[Any]) -> None:
        super().__init__(file.file)
        self._named = file  # removes it when it is collected
        self.delete = bool(file._closer.delete)
        self._on_close = getattr(file._closer, "delete_on_close", True)

    async def close(self) -> None:
        """Close and remove it. If that is cancelled, or fails, it is closed and removed all the same."""
        try:
            await super().close()
            if self._is_to_go():
                await _calls.on()(self._remove)
        finally:
            if self._is_to_go():
                with blocking():
                    self._remove()

    def _is_to_go(self) -> bool:
        return bool(self._on_close and self._named._closer.delete)

    def _remove(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._named.name)
        self._named._closer.delete = False

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._on_close = True
        await self.close()


class SpooledFile(Generic[AnyStr]):
    """A file that is memory until it holds more than ``max_size`` bytes, or until somebody asks for its descriptor.

    It has the methods of a ``File``; attributes are those of ``tempfile.SpooledTemporaryFile``.

    Thread: loop. Cancel: point; a rolling over that is under way is waited for.
    """

    __slots__ = ("__weakref__", "_file", "_max_size", "_rolled", "_turns")

    def __init__(self, file: tempfile.SpooledTemporaryFile[AnyStr], max_size: int = 0) -> None:
        self._file: Any = file
        self._max_size = max_size
        self._rolled: File[AnyStr] | None = None  # once it is a file
        self._turns = Lock()  # is held while it becomes one

    async def _do(self, name: str, *args: Any, room: float = 0) -> Any:
        """Do an operation which makes it larger by at most ``room`` bytes."""
        home = home_of(get_running_loop())
        if home.turn < 0:
            await home.go_round()
        if self._rolled is None and not self._turns.locked() and (not room or self._has(room)):
            began = monotonic_ns()
            try:
                return getattr(self._file, name)(*args)
            finally:
                home.count(began)
        if self._rolled is None:
            async with self._turns:
                if self._rolled is None:
                    try:
                        return await _calls.on()(getattr(self._file, name), *args)
                    finally:
                        if self._file._rolled:
                            self._rolled = File(self._file._file)
        return await getattr(self._rolled, name)(*args)

    def _has(self, room: float) -> bool:
        if self._file.closed or not self._max_size:
            return room < float("inf")
        return bool(self._file.tell() + room <= self._max_size)

    async def rollover(self) -> None:
        """Become a file of the system, if it is none yet."""
        if self._rolled is None:
            await self._do("rollover", room=float("inf"))

    async def read(self, size: int | None = -1, /) -> AnyStr:
        """Read up to ``size`` characters or bytes; all there are, if it is None or less than 0."""
        return cast(AnyStr, await self._do("read", size))

    async def read1(self, size: int = -1, /) -> AnyStr:
        """Read up to ``size`` bytes: of a binary file."""
        return cast(AnyStr, await self._do("read1", size))

    async def readinto(self, buffer: Buffer, /) -> int:
        """Read into a buffer; return how many bytes: of a binary file."""
        return cast(int, await self._do("readinto", buffer))

    async def readinto1(self, buffer: Buffer, /) -> int:
        """The same, with at most one system call: of a binary file."""
        return cast(int, await self._do("readinto1", buffer))

    async def readline(self, size: int = -1, /) -> AnyStr:
        """Read a line, or its first ``size`` characters or bytes."""
        return cast(AnyStr, await self._do("readline", size))

    async def readlines(self, hint: int = -1, /) -> list[AnyStr]:
        """Read lines, to the end, or until they have ``hint`` characters or bytes together."""
        return cast("list[AnyStr]", await self._do("readlines", hint))

    def __aiter__(self) -> SpooledFile[AnyStr]:
        """Return the file itself: it iterates over its lines."""
        return self

    async def __anext__(self) -> AnyStr:
        """Return the next line."""
        if line := await self.readline():
            return line
        raise StopAsyncIteration

    async def write(self, data: AnyStr | Buffer, /) -> int:
        """Write; return how many characters or bytes were taken."""
        return cast(int, await self._do("write", data, room=_most(data)))

    async def writelines(self, lines: Iterable[AnyStr | Buffer], /) -> None:
        """Write all of these, one after the other."""
        lines = list(lines)
        await self._do("writelines", lines, room=sum(map(_most, lines)))

    async def truncate(self, size: int | None = None, /) -> int:
        """Cut it off, or extend it with zeros, at this many bytes, or where it stands."""
        grows = size is not None and size > self._max_size
        return cast(int, await self._do("truncate", size, room=float("inf") if grows else 0))

    async def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a position and return it."""
        return cast(int, await self._do("seek", offset, whence))

    async def tell(self) -> int:
        """Return the position."""
        return cast(int, await self._do("tell"))

    async def flush(self) -> None:
        """Hand what is in Python's buffers to the system, if it is a file."""
        await self._do("flush")

    async def close(self) -> None:
        """Close it: there is nothing left of it. If that is cancelled, it is closed all the same."""
        try:
            await self._do("close")
        except CancelledError:
            if self._rolled is None and not self.closed:
                _go_on(self._do("close"))
            raise

    async def isatty(self) -> bool:
        """Say that it is no terminal."""
        return cast(bool, await self._do("isatty"))

    async def seekable(self) -> bool:
        """Say whether ``seek`` works."""
        return cast(bool, await self._do("seekable"))

    async def writable(self) -> bool:
        """Say whether it can be written to."""
        return cast(bool, await self._do("writable"))

    def readable(self) -> bool:
        """Say whether it can be read."""
        return bool(self._file.readable())

    async def fileno(self) -> int:
        """Return its descriptor: it is a file of the system from then on."""
        await self.rollover()
        return int(self._file.fileno())

    async def __aenter__(self) -> SpooledFile[AnyStr]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __getattr__(self, name: str) -> Any:
        """Return ``name``, ``mode``, ``closed``, ``encoding``, ``errors`` or ``newlines``."""
        if name in ("closed", "encoding", "errors", "mode", "name", "newlines"):
            return getattr(self._file, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __repr__(self) -> str:
        return f"<threadlets SpooledFile of {self._file!r}>"


def _most(data: Any) -> int:
    """Return how many bytes these data may have."""
    try:
        return WIDEST * len(data) if isinstance(data, str) else memoryview(data).nbytes
    except TypeError:
        return 0  # write() says so


class Directory:
    """A temporary folder. ``async with TemporaryDirectory()`` gives its name alone; an await gives this.

    Attributes:
        name: Its path.
    """

    __slots__ = ("__weakref__", "_delete", "_folder", "_removed", "name")

    def __init__(self, folder: tempfile.TemporaryDirectory[Any], delete: bool = True) -> None:
        self._folder = folder
        self._delete = delete
        self._removed = False
        self.name: str = folder.name

    async def cleanup(self) -> None:
        """Remove it and all that is in it, on a worker. If that is cancelled, it is removed all the same.

        Raises:
            OSError: If it cannot be removed, unless ``ignore_cleanup_errors``.
        """
        try:
            await _calls.away(self._remove)
        except CancelledError:
            if not self._removed:
                _go_on(self._remove_later())
            raise

    close = cleanup

    def _remove(self) -> None:
        self._folder.cleanup()
        self._removed = True

    async def _remove_later(self) -> None:
        try:
            await _calls.away(self._remove)
        except CancelledError:  # the loop is about to end
            if not self._removed:
                self._remove()

    async def __aenter__(self) -> str:
        return self.name

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._delete:
            await self.cleanup()

    def __repr__(self) -> str:
        return f"<threadlets Directory {self.name!r}>"


# -------------------------------------------------------------------------------------------------- what makes them


@overload
def TemporaryFile(mode: OpenTextMode, **options: Unpack[_Options]) -> Making[File[str], File[str]]: ...
@overload
def TemporaryFile(mode: OpenBinaryMode = "w+b", **options: Unpack[_Options]) -> Making[File[bytes], File[bytes]]: ...
@overload
def TemporaryFile(mode: str = "w+b", **options: Unpack[_Options]) -> Making[File[Any], File[Any]]: ...


def TemporaryFile(
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: Folder = None,
    prefix: Folder = None,
    dir: Folder = None,
    *,
    errors: str | None = None,
) -> Making[File[Any], File[Any]]:
    """Make a file without a name, which is gone when it is closed: ``async with files.TemporaryFile() as file: ...``.

    Args:
        mode: As that of ``tempfile.TemporaryFile``; as are all others.
        buffering: In bytes.
        encoding: Of a file of text.
        newline: How ends of lines are.
        suffix: What a name that it has for a moment ends with.
        prefix: What that begins with.
        dir: In which folder, and so on which device, it is; None: that of ``tempfile.gettempdir()``.
        errors: How mistakes of encoding are treated.

    Raises:
        OSError, ValueError, LookupError: When it is awaited: as ``tempfile.TemporaryFile``.

    Thread: loop. Cancel: point.
    """
    return Making("TemporaryFile", locals(), File)


@overload
def NamedTemporaryFile(
    mode: OpenTextMode, **options: Unpack[_NamedOptions]
) -> Making[NamedFile[str], NamedFile[str]]: ...
@overload
def NamedTemporaryFile(
    mode: OpenBinaryMode = "w+b", **options: Unpack[_NamedOptions]
) -> Making[NamedFile[bytes], NamedFile[bytes]]: ...
@overload
def NamedTemporaryFile(
    mode: str = "w+b", **options: Unpack[_NamedOptions]
) -> Making[NamedFile[Any], NamedFile[Any]]: ...


def NamedTemporaryFile(
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: Folder = None,
    prefix: Folder = None,
    dir: Folder = None,
    delete: bool = True,
    *,
    errors: str | None = None,
    delete_on_close: bool = True,
) -> Making[NamedFile[Any], NamedFile[Any]]:
    """Make a file whose ``name`` others can open, and which is removed when it is closed.

    Args:
        mode: As that of ``tempfile.NamedTemporaryFile``; as are all others.
        buffering: In bytes.
        encoding: Of a file of text.
        newline: How ends of lines are.
        suffix: What its name ends with.
        prefix: What its name begins with.
        dir: In which folder it is; None: that of ``tempfile.gettempdir()``.
        delete: Whether it is removed.
        errors: How mistakes of encoding are treated.
        delete_on_close: Whether it is removed by ``close()``; if not, at the end of ``async with``. False: Python 3.12.

    Raises:
        OSError, ValueError, LookupError: When it is awaited: as ``tempfile.NamedTemporaryFile``.
        TypeError: If this Python does not know ``delete_on_close``.

    Thread: loop. Cancel: point.
    """
    return Making("NamedTemporaryFile", locals(), NamedFile)


@overload
def SpooledTemporaryFile(
    max_size: int, mode: OpenTextMode, **options: Unpack[_Options]
) -> Making[SpooledFile[str], SpooledFile[str]]: ...
@overload
def SpooledTemporaryFile(
    *, mode: OpenTextMode, **options: Unpack[_Options]
) -> Making[SpooledFile[str], SpooledFile[str]]: ...
@overload
def SpooledTemporaryFile(
    max_size: int = 0, mode: OpenBinaryMode = "w+b", **options: Unpack[_Options]
) -> Making[SpooledFile[bytes], SpooledFile[bytes]]: ...
@overload
def SpooledTemporaryFile(
    max_size: int = 0, mode: str = "w+b", **options: Unpack[_Options]
) -> Making[SpooledFile[Any], SpooledFile[Any]]: ...


def SpooledTemporaryFile(
    max_size: int = 0,
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: Folder = None,
    prefix: Folder = None,
    dir: Folder = None,
    *,
    errors: str | None = None,
) -> Making[SpooledFile[Any], SpooledFile[Any]]:
    """Make a file without a name that is memory until it has grown too large, or ``rollover()`` is called.

    Args:
        max_size: More bytes than these are not kept in memory; 0: all are.
        mode: As that of ``tempfile.SpooledTemporaryFile``; as are all others.
        buffering: In bytes; of the file that it may become, as are ``suffix``, ``prefix`` and ``dir``.
        encoding: Of a file of text.
        newline: How ends of lines are.
        suffix: As that of ``TemporaryFile``.
        prefix: As that of ``TemporaryFile``.
        dir: As that of ``TemporaryFile``.
        errors: How mistakes of encoding are treated.

    Raises:
        LookupError: When it is awaited: if the encoding is not known.

    Thread: loop. Cancel: point.
    """
    return Making("SpooledTemporaryFile", locals(), lambda file: SpooledFile(file, max_size))


def TemporaryDirectory(
    suffix: Folder = None,
    prefix: Folder = None,
    dir: Folder = None,
    ignore_cleanup_errors: bool = False,
    *,
    delete: bool = True,
) -> Making[Directory, str]:
    """Make a folder, which is removed at the end: ``async with files.TemporaryDirectory() as path: ...``.

    Awaiting it instead gives a ``Directory``, with ``name`` and ``cleanup()``.

    Args:
        suffix: What its name ends with.
        prefix: What its name begins with.
        dir: In which folder it is; None: that of ``tempfile.gettempdir()``.
        ignore_cleanup_errors: Whether it is left, rather than that an ``OSError`` is raised, if it cannot be removed.
        delete: Whether it is removed at the end of ``async with``; False: Python 3.12.

    Raises:
        OSError: When it is awaited: as ``tempfile.TemporaryDirectory``.
        TypeError: If this Python does not know ``delete``.

    Thread: loop. Cancel: point.
    """
    return Making("TemporaryDirectory", locals(), lambda folder: Directory(folder, delete))
