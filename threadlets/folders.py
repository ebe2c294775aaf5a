"""Folders whose files are given to anybody who asks: what is in memory at once, and nothing from outside.

Why: a server of files is told names by strangers. It must not leave its folder, by ``..`` or by a link, also if a link
is put there between the check and the opening; it must not wait for a FIFO; and what it says of a file must be true of
the bytes that it sends. To resolve the name first and to open it then is three mistakes, and four journeys to a thread.

How: the name is looked up once, and what has been found is held by a descriptor that opens nothing (``O_PATH``).

- If there is no link on the way, which the kernel is told to refuse (``RESOLVE_NO_SYMLINKS``), and no ``..`` in the
  name, it is inside, and its real path is the one that was asked for. Where there are links, ``RESOLVE_BENEATH`` lets
  the kernel follow them as long as they stay inside, without a gap, and ``/proc/self/fd`` says where they led.
- With ``RESOLVE_CACHED`` it does so at once or not at all. So this is done in place.
- Its status is that of the descriptor. Only an ordinary file is opened, through ``/proc/self/fd``: what was checked is
  what is read, whatever its name means meanwhile.
- What was an ordinary file the last time is opened for reading at once, which saves half of the system calls: with
  ``O_NONBLOCK``, so that a FIFO that has taken its place since is opened once, and nobody waits.
- Whatever is less plain goes elsewhere, where names are resolved as ``os.path.realpath`` does it, and the result is
  opened part by part without following links: absolute links, ``..``, names that are not in memory, other systems.

Rejected: to keep what was resolved, or descriptors of files: right only while nothing is moved, which nobody tells us.

Invariants: a ``Found`` has its descriptors until it is closed or forgotten, also while somebody reads elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from asyncio import get_running_loop
from collections.abc import Callable
from functools import lru_cache
from time import monotonic_ns

from .homes import home_of
from .probes import known_until, read_at, takes_probes
from .syscalls import CURRENT, LOOK, LOOK_AT_LINK, LOOK_BENEATH, LOOK_STRAIGHT, READ_STRAIGHT, has_openat2, openat2
from .ways import Ways

__all__ = ["Found", "find", "open_file"]

O_PATH = getattr(os, "O_PATH", 0)
O_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
O_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
O_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
ORDINARY = 4096  # arbitrary: paths that are remembered
OWN = "/proc/self/fd/"  # where a process finds what its descriptors are


_ordinary: set[str] = set()  # real paths that were ordinary files when they were last read


class Found:
    """What was found under a name: its real path, its status, and, if it is an ordinary file, its bytes.

    Attributes:
        path: Where it is, without links and ``..``; as it was asked for, if links may lead anywhere.
        status: As of ``os.fstat``, when it was found.

    Thread: loop. It is closed when it is forgotten, too.
    """

    __slots__ = ("_away", "_handle", "_reader", "path", "status")

    def __init__(self, path: str, status: os.stat_result, handle: int, reader: int = -1) -> None:
        self.path = path
        self.status = status
        self._handle = handle  # opened with O_PATH
        self._reader = reader  # opened for reading
        self._away = False

    @property
    def is_file(self) -> bool:
        """Whether it is an ordinary file."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.status.st_mode)

    async def read(self, offset: int, size: int) -> bytes:
        """Read ``size`` bytes, no fewer.

        Raises:
            EOFError: If the file ends before that: it was cut off since it was found.
            OSError: As ``open`` and ``read`` do.

        Thread: loop. Cancel: point; a read that is under way elsewhere is left behind.
        """
        home = home_of(get_running_loop())
        if home.turn < 0:
            await home.go_round()
        if takes_probes(self.status):
            began = monotonic_ns()
            try:
                data = self._read_nowait(offset, size)
            finally:
                home.count(began)
            if data is not None:
                return data
        self._away = True
        entrypoint = _reads.away if takes_probes(self.status) else _reads.on(self.status.st_dev)
        try:
            data = await entrypoint(self, offset, size)
        except Exception:  # but a cancel leaves it behind
            self._away = False
            raise
        self._away = False
        return data

    def is_at_hand(self, offset: int, size: int) -> bool:
        """Say whether so many bytes are known to be in memory; if not, they may be by the next time. Cancel: none."""
        return takes_probes(self.status) and known_until(self.reader(), offset, offset + size) == offset + size

    def _read_nowait(self, offset: int, size: int) -> bytes | None:
        try:
            data = read_at(self.reader(), size, offset, self.status)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EIO):
                raise
            return None
        return data if isinstance(data, bytes) and len(data) == size else None

    def reader(self) -> int:
        """Return a descriptor for reading. Thread: any."""
        if self._reader < 0:
            self._reader = os.open(f"{OWN}{self._handle}", O_READ)
            if takes_probes(self.status):  # or the file may be on a server, which is told when it is opened
                if len(_ordinary) >= ORDINARY:
                    _ordinary.clear()
                _ordinary.add(self.path)
        return self._reader

    def close(self) -> None:
        """Close it; if a read is left behind, when that has ended."""
        if not self._away:
            self.__del__()

    def __del__(self) -> None:
        handle, reader, self._handle, self._reader = self._handle, self._reader, -1, -1
        if handle >= 0:
            os.close(handle)
        if reader >= 0:
            os.close(reader)

    def __repr__(self) -> str:
        return f"<threadlets Found {self.path!r}, {self.status.st_size} bytes>"


def _read_exactly(found: Found, offset: int, size: int) -> bytes:
    """Read so many bytes. Thread: any."""
    pieces = []
    while size:
        piece = _pread(found.reader(), size, offset)
        if not piece:
            raise EOFError(f"{found.path} was cut off at {offset} bytes while it was sent: {size} more were expected")
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _seek_and_read(descriptor: int, size: int, offset: int) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, size)


_pread: Callable[[int, int, int], bytes] = getattr(os, "pread", _seek_and_read)
_reads = Ways(_read_exactly, cancel="abandon")


# ---------------------------------------------------------------------------------------------------------- looking up


async def find(folder: str, name: str, follow: bool = False) -> Found | None:
    """Find what is called ``name`` in a folder, or return None: nothing, or outside.

    Args:
        folder: Its path; looked up each time, so that it may be replaced.
        name: A relative path.
        follow: Whether links may lead out of the folder; ``..`` may not.

    Raises:
        OSError: As ``os.stat`` does, unless there is nothing.
        ValueError: If it is no name for the system: with a NUL, or what it cannot encode.

    Thread: loop. Cancel: point.
    """
    home = home_of(get_running_loop())
    if home.turn < 0:
        await home.go_round()
    if not os.path.isabs(name) and (".." not in name or ".." not in name.split("/")):
        began = monotonic_ns()
        try:
            found = _find_nowait(folder, name, follow)
        finally:
            home.count(began)
        if not isinstance(found, int):
            return found
    return await (_finds.away if has_openat2() else _finds.on())(folder, name, follow)


async def open_file(path: str | os.PathLike[str], follow: bool = True) -> Found:
    """Find a file by its path, wherever that leads.

    Args:
        path: Its path.
        follow: Whether the file at its end may be a link; if not, the link itself is found.

    Raises:
        OSError, ValueError: As ``os.stat`` does.

    Thread: loop. Cancel: point.
    """
    home = home_of(get_running_loop())
    if home.turn < 0:
        await home.go_round()
    path = os.fspath(path)
    began = monotonic_ns()
    try:
        handle = _try_open(CURRENT, path, LOOK if follow else LOOK_AT_LINK)
        if handle >= 0:
            return Found(path, os.fstat(handle), handle)
        if handle in NOTHING:
            raise FileNotFoundError(-handle, os.strerror(-handle), path)
    finally:
        home.count(began)
    return await (_opens.away if has_openat2() else _opens.on())(path, None, 0 if follow else O_NOFOLLOW)


def _find_nowait(folder: str, name: str, follow: bool) -> Found | int | None:
    """Find it if that cannot wait; a number if it is not known."""
    if follow:
        path = os.path.abspath(os.path.join(folder, name))
        handle = _try_open(CURRENT, path, LOOK)
        if handle < 0:
            return None if handle in NOTHING else handle
        return Found(path, os.fstat(handle), handle)
    path = os.path.abspath(f"{folder.rstrip('/')}/{name}")
    if path in _ordinary:
        found = _open_ordinary(path)
        if found is not None:
            return found
    handle = _try_open(CURRENT, path, LOOK_STRAIGHT)
    if handle >= 0:  # no link was on the way: this is the real path, and inside
        return Found(path, os.fstat(handle), handle)
    if handle == -errno.ELOOP:
        around = _try_open(CURRENT, folder, LOOK)
        if around >= 0:
            try:
                handle = _try_open(around, name, LOOK_BENEATH)
            finally:
                os.close(around)
    if handle < 0:
        return None if handle in NOTHING else handle
    found = Found("", os.fstat(handle), handle)
    found.path = os.readlink(f"{OWN}{handle}")
    return found if found.status.st_nlink else None  # its path would be that of something deleted


def _open_ordinary(path: str) -> Found | None:
    """Open what was an ordinary file the last time, if it still is one."""
    reader = openat2(CURRENT, os.fsencode(path), READ_STRAIGHT)
    if reader >= 0:
        found = Found(path, os.fstat(reader), -1, reader)
        if found.is_file:
            if not takes_probes(found.status):
                _ordinary.discard(path)
            return found
        found.close()
    _ordinary.discard(path)
    return None


def _find(folder: str, name: str, follow: bool) -> Found | None:
    """Find it, whatever that takes. Thread: any."""
    path = os.path.join(folder, name)
    resolve = os.path.abspath if follow else os.path.realpath
    path, folder = resolve(path), resolve(folder)
    try:
        if os.path.commonpath([path, folder]) != folder:
            return None
        os.stat(path)  # raises what is to be raised
        return _open(path) if follow else _open_unlinked(folder, path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _open_unlinked(folder: str, path: str) -> Found:
    """Open a path without links; fail with ENOTDIR if there are some by now."""
    if os.open not in os.supports_dir_fd:
        return _open(path)
    descriptor = os.open(folder, (O_PATH or os.O_RDONLY) | O_DIRECTORY)
    try:
        *parts, last = os.path.relpath(path, folder).split(os.sep)
        for part in parts:
            around, descriptor = descriptor, -1
            try:
                descriptor = os.open(part, (O_PATH or os.O_RDONLY) | O_DIRECTORY | O_NOFOLLOW, dir_fd=around)
            finally:
                os.close(around)
        found = _open(last, descriptor, O_NOFOLLOW)
        found.path = path
        if stat.S_ISLNK(found.status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "It has become a link", path)
        return found
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _open(path: str, around: int | None = None, flags: int = 0) -> Found:
    """Open what has this path, but only if it is an ordinary file. Thread: any."""
    if O_PATH and _has_own():
        handle = os.open(path, O_PATH | flags, dir_fd=around)
        return Found(path, os.fstat(handle), handle)
    status = os.stat(path, dir_fd=around, follow_symlinks=not flags)
    if not stat.S_ISREG(status.st_mode):
        return Found(path, status, -1)
    reader = os.open(path, O_READ | flags, dir_fd=around)
    return Found(path, os.fstat(reader), -1, reader)


_finds = Ways(_find, cancel="abandon")
_opens = Ways(_open, cancel="abandon")


NOTHING = {-errno.ENOENT, -errno.ENOTDIR}
FINAL = {errno.EACCES, errno.ENAMETOOLONG}  # raised at once


def _try_open(around: int, name: str, way: int) -> int:
    """Return what ``openat2`` does; raise what is no question of waiting, and is not "nothing" either."""
    encoded = os.fsencode(name)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    descriptor = openat2(around, encoded, way) if _has_own() else -errno.EAGAIN
    if -descriptor in FINAL:
        raise OSError(-descriptor, os.strerror(-descriptor), name)
    return descriptor


@lru_cache(maxsize=1)
def _has_own() -> bool:
    return os.path.isdir(OWN)
