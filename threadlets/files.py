"""Files: what is in memory is read in place, at about the cost of a call; the rest leaves the event loop.

    from threadlets import files

    data = await files.read_bytes("index.html")
    async with files.open("log.txt") as file:
        async for line in file: ...

Each function tries what cannot block (``probes.py``), and takes another way if that is not enough: what is known to
wait goes to a worker, as one hop for all of it; what is not known is a threadlet, which learns where it is best done,
and on a loop that changes hands is a region. Arguments, results and exceptions are those of ``open``, ``os`` and
``shutil``.

Thread: loop, for all of it. Cancel: point; a read that is under way is left behind, a change is waited for.
"""

from __future__ import annotations

import io
import os
import stat as statuses
from asyncio import get_running_loop
from collections.abc import Callable, Coroutine
from functools import wraps
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .homes import home_of
from .openings import Opening, open, wrap
from .probes import ABSENT, MISS, StrPath, glance
from .readings import Found, attempt, reads, reads_into, text_reads
from .streams import File
from .syscalls import has_openat2
from .temporaries import (
    Directory,
    NamedFile,
    NamedTemporaryFile,
    SpooledFile,
    SpooledTemporaryFile,
    TemporaryDirectory,
    TemporaryFile,
)
from .ways import Ways, stats
from .writings import copy_file, write_file

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "Directory",
    "File",
    "NamedFile",
    "NamedTemporaryFile",
    "Opening",
    "SpooledFile",
    "SpooledTemporaryFile",
    "TemporaryDirectory",
    "TemporaryFile",
    "chmod",
    "copy",
    "exists",
    "is_dir",
    "is_file",
    "link",
    "listdir",
    "lstat",
    "makedirs",
    "mkdir",
    "open",
    "read_bytes",
    "read_into",
    "read_text",
    "readlink",
    "remove",
    "rename",
    "replace",
    "rmdir",
    "scandir",
    "stat",
    "symlink",
    "unlink",
    "utime",
    "wrap",
    "write_bytes",
    "write_text",
]

P = ParamSpec("P")
R = TypeVar("R")


_writes = Ways(write_file)
_copies = Ways(copy_file)


async def read_bytes(path: StrPath) -> bytes:
    """Read a file: ``open(path, "rb").read()``.

    Raises:
        OSError: As ``open`` does.
    """
    home = home_of(get_running_loop())
    if home.turn < 0:
        await home.go_round()
    found = attempt(path, home)
    return await (await found.way(reads))(found.source) if isinstance(found, Found) else found


async def read_text(
    path: StrPath, encoding: str | None = None, errors: str | None = None, newline: str | None = None
) -> str:
    """Read a file of text: ``open(path, encoding=encoding, errors=errors, newline=newline).read()``.

    Raises:
        OSError, UnicodeDecodeError, LookupError: As ``open`` and ``read`` do.
    """
    home = home_of(get_running_loop())
    if home.turn < 0:
        await home.go_round()
    found = attempt(path, home)
    if isinstance(found, Found):
        return await (await found.way(text_reads))(found.source, encoding, errors, newline)
    began = monotonic_ns()
    try:
        return io.TextIOWrapper(io.BytesIO(found), encoding, errors, newline).read()
    finally:
        home.count(began)


async def read_into(path: StrPath, buffer: Buffer) -> int:
    """Read the beginning of a file into a buffer, as much as there is room for; return how many bytes.

    If it is cancelled, it waits until nobody writes into the buffer any more.

    Raises:
        OSError: As ``open`` does.
        TypeError: If the buffer is not writable.
    """
    view = memoryview(buffer).cast("B")
    if view.readonly:
        raise TypeError(f"read_into(..., {buffer!r}): expected a writable buffer, such as a bytearray")
    home = home_of(get_running_loop())
    if home.turn < 0:
        await home.go_round()
    found = attempt(path, home, view)
    return await (await found.way(reads_into))(found.source, view) if isinstance(found, Found) else found


async def write_bytes(path: StrPath, data: Buffer, *, atomic: bool = False) -> int:
    """Write a file; return the number of bytes.

    Args:
        path: Where to; a link is followed.
        data: What; not to be changed until it is written.
        atomic: Replace the file all at once, or not at all: written beside it and handed to the disk first, then
            renamed. Keeps its permissions, and not its hard links. Takes some milliseconds.

    Raises:
        OSError: As ``open`` and ``write`` do; the file is as it was, if ``atomic``.
        TypeError: If the data are not bytes.

    Cancel: point; with ``atomic`` it ends the writing, otherwise it waits for it.
    """
    memoryview(data)
    status = MISS if atomic else glance(path)
    if isinstance(status, os.stat_result) and not statuses.S_ISREG(status.st_mode):
        async with open(path, "wb") as file:  # a FIFO may have to be waited for
            return await file.write(data)
    way = _writes.away if atomic else await _writes.to(path, status)
    return await way(path, data, atomic)


async def write_text(
    path: StrPath,
    text: str,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    *,
    atomic: bool = False,
) -> int:
    """Write a file of text; return the number of characters. Nothing is touched if it cannot be encoded.

    Args:
        path: Where to.
        text: What.
        encoding: As that of ``open``; as are the next two.
        errors: How mistakes of encoding are treated.
        newline: How ends of lines are written.
        atomic: See ``write_bytes``.

    Raises:
        OSError, UnicodeEncodeError, LookupError: As ``open`` and ``write`` do.
        TypeError: If it is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"write_text() takes a str, not {type(text).__name__}")
    file = io.TextIOWrapper(sink := io.BytesIO(), encoding, errors, newline)
    file.write(text)
    file.flush()
    await write_bytes(path, sink.getvalue(), atomic=atomic)
    return len(text)


async def copy(source: StrPath, target: StrPath, *, atomic: bool = False) -> StrPath:
    """Copy a file and its permissions, as ``shutil.copy``; return where it went.

    Made by the kernel if it can be: as a reflink on Btrfs and XFS, or with ``copy_file_range``; holes stay holes.

    Args:
        source: Where from.
        target: Where to: a file, or a folder in which it then has the same name.
        atomic: See ``write_bytes``.

    Raises:
        OSError: As ``shutil.copy`` does.
        shutil.SameFileError: If both are the same file.
        shutil.SpecialFileError: If one is a FIFO.

    Cancel: point; the copying ends, and what was copied stays, but with ``atomic``.
    """
    return await _copies.away(source, target, atomic)


# ------------------------------------------------------------------------------------------------- names and folders


async def stat(path: StrPath | int, *, follow_symlinks: bool = True) -> os.stat_result:
    """Return the status of a file, as ``os.stat``.

    Raises:
        OSError: As ``os.stat`` does.
    """
    home = home_of(get_running_loop())
    if home.turn < 0:
        await home.go_round()
    began = monotonic_ns()
    try:
        status = ABSENT if isinstance(path, int) else glance(path, follow_symlinks)
        if status is ABSENT:
            return os.stat(path, follow_symlinks=follow_symlinks)
        if isinstance(status, os.stat_result):
            return status
    finally:
        home.count(began)
    return await (stats.away if has_openat2() else stats.on())(path, follow_symlinks=follow_symlinks)


async def lstat(path: StrPath) -> os.stat_result:
    """Return the status of a link itself, as ``os.lstat``."""
    if not isinstance(path, str | bytes | os.PathLike):
        os.lstat(path)  # raises
    return await stat(path, follow_symlinks=False)


async def exists(path: StrPath | int) -> bool:
    """Say whether there is something of that name, as ``os.path.exists``."""
    return await _mode(path) != 0


async def is_file(path: StrPath | int) -> bool:
    """Say whether it is an ordinary file, or a link to one, as ``os.path.isfile``."""
    return statuses.S_ISREG(await _mode(path))


async def is_dir(path: StrPath | int) -> bool:
    """Say whether it is a folder, or a link to one, as ``os.path.isdir``."""
    return statuses.S_ISDIR(await _mode(path))


async def _mode(path: StrPath | int) -> int:
    try:
        return (await stat(path)).st_mode
    except (OSError, ValueError):
        return 0


def _entries(path: StrPath) -> list[os.DirEntry[Any]]:
    """Read a folder to its end. Thread: any."""
    with os.scandir(path) as entries:
        return list(entries)


def _lifted(function: Callable[P, R], does: str) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return a coroutine function that calls a function of ``os`` where that is best done."""
    ways = Ways(function)

    @wraps(function, assigned=("__name__", "__qualname__"), updated=())
    async def lifted(*args: P.args, **kwargs: P.kwargs) -> R:
        return await ways.on()(*args, **kwargs)

    lifted.__doc__ = f"{does}, as ``os.{function.__name__}``."
    return lifted


_scans = Ways(_entries)
_lists = Ways(os.listdir)


async def scandir(path: StrPath = ".") -> list[os.DirEntry[Any]]:
    """Return what is in a folder, as ``os.scandir``, but as a list: there is nothing to be closed."""
    return await _scans.on()(path)


async def listdir(path: StrPath = ".") -> list[Any]:
    """Return the names in a folder, as ``os.listdir``."""
    return await _lists.on()(path)  # type: ignore[arg-type]


mkdir = _lifted(os.mkdir, "Make a folder")
makedirs = _lifted(os.makedirs, "Make a folder and those above it")
rmdir = _lifted(os.rmdir, "Remove an empty folder")
rename = _lifted(os.rename, "Rename")
replace = _lifted(os.replace, "Rename, over what is there")
unlink = _lifted(os.unlink, "Remove a file")
remove = _lifted(os.remove, "Remove a file")
chmod = _lifted(os.chmod, "Change permissions")
utime = _lifted(os.utime, "Change times")
link = _lifted(os.link, "Make a hard link")
symlink = _lifted(os.symlink, "Make a symbolic link")
readlink = _lifted(os.readlink, "Return what a symbolic link points at")
