"""System calls on files that answer at once or not at all: what would wait for a disk is a ``MISS``.

Why: most files that a program reads are in memory, and then a thread costs thirty times the read. Linux can be asked:

- ``openat2`` with ``RESOLVE_CACHED`` looks a path up in the kernel's cache of names, and fails with EAGAIN rather than
  read a directory from the disk;
- ``preadv2`` with ``RWF_NOWAIT`` reads what is in the page cache, and has already begun to read ahead if it fails.

How a name is looked at: with ``O_PATH``, which opens nothing. So it has no effect on a FIFO, a tape or a watchdog. What
is opened to be read from is opened once, with ``O_NONBLOCK``, and whatever it turns out to be, it is read from that
descriptor: whoever waits for a reader of a FIFO has found one.

What is *not* told by a short read: the end of a file. The kernel stops at the first page that it does not have, and an
old one may return 0 in the middle. So the end is where the size says it is, and every other short read is a miss.

File systems without such reads (tmpfs, overlayfs, FUSE, ``/proc``) answer EOPNOTSUPP; that is kept for each device.

Rejected: ``cachestat`` and ``mincore``: they say which pages there are, not whether they have been read yet, and keep
silent about files of other users.

Assumes: Linux 5.12 for names, 4.14 for reads (ext4, XFS, btrfs, f2fs). Where the system does not know a call, or a
sandbox forbids it, everything is a miss.

Sources: openat2(2), preadv2(2), ``FMODE_NOWAIT`` in the kernel's include/linux/fs.h.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable
from typing import Any, Final

from .syscalls import CURRENT, LOOK, LOOK_AT_LINK, READ, openat2

__all__ = [
    "ABSENT",
    "ATTEMPTS",
    "LARGE",
    "MISS",
    "StrPath",
    "glance",
    "known_until",
    "open_now",
    "read_at",
    "read_now",
    "takes_probes",
]

StrPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class _Word:
    """One of a kind."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


MISS: Final = _Word("MISS")  # the call might have waited: nothing has been done
ABSENT: Final = _Word("ABSENT")  # the plain call will fail, and need not wait for that

LARGE = 1 << 20  # bytes; arbitrary: to copy so many takes 50-200 us, which is when a worker costs no more
SCRATCH = bytearray(1 << 16)  # for reads whose bytes nobody looks at; as large as a step of the kernel's read-ahead

NOWAIT = getattr(os, "RWF_NOWAIT", 0)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_TMPFILE", 0)

_refuses: set[int] = set()  # devices that do not know reads without waiting


def glance(path: StrPath, follow: bool = True) -> os.stat_result | _Word:
    """Return what ``os.stat(path)`` would, or ``os.lstat``, if the kernel knows it without asking a disk.

    Returns:
        The status; ``ABSENT`` if the plain call will fail, and need not wait for that; ``MISS`` if it is not known.

    Thread: any. Cancel: none.
    """
    descriptor = _open(path, LOOK if follow else LOOK_AT_LINK)
    if not isinstance(descriptor, int):
        return descriptor
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def open_now(path: StrPath) -> int | _Word:
    """Open something for reading, without a wait: neither for a disk, nor for whoever writes into a FIFO.

    Returns:
        A descriptor that does not block; or one of the words that ``glance`` returns.

    Thread: any. Cancel: none.
    """
    return _open(path, READ)


def _open(path: StrPath, way: int) -> int | _Word:
    try:
        name = os.fsencode(path)
    except TypeError:  # a descriptor, perhaps
        return MISS
    except ValueError:
        return ABSENT
    if b"\0" in name:
        return ABSENT
    descriptor = openat2(CURRENT, name, way)
    if descriptor >= 0:
        return descriptor
    return ABSENT if -descriptor in _FINAL else MISS


# What a call says about the path, and about itself: it is not known there, or forbidden.
_FINAL = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG}
_REFUSALS = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM}


def read_now(descriptor: int, status: os.stat_result, buffer: Any = None) -> Any:
    """Return the bytes of a file of at most 1 MiB that is in the page cache, or ``MISS``.

    Args:
        descriptor: Of a file that takes probes.
        status: Of the same, asked for just now.
        buffer: Read its beginning into this writable buffer of bytes instead, and return how many.

    Thread: any. Cancel: none.
    """
    if buffer is None:
        return read_at(descriptor, status.st_size, 0, status)
    size = min(len(buffer), status.st_size)
    if size > LARGE or not _is_read(descriptor, buffer[: size or 1], size, 0, status.st_dev):
        return MISS
    return size


def takes_probes(status: os.stat_result) -> bool:
    """Say whether reads of a file can be asked not to wait: an ordinary one, not on a device that refused before."""
    return bool(NOWAIT) and stat.S_ISREG(status.st_mode) and status.st_dev not in _refuses


def read_at(descriptor: int, size: int, offset: int, status: os.stat_result) -> bytes | _Word:
    """Return up to ``size`` bytes of a file that takes probes; fewer only at its end, as ``status`` tells it."""
    if size < 0 or offset < 0:  # the plain call says that it is wrong
        return MISS
    size = min(size, max(status.st_size - offset, 0))
    if size > LARGE:
        return MISS
    # The buffer of a BytesIO that nobody else has becomes the bytes, without a copy; see its getvalue().
    sink = io.BytesIO(bytes(size or 1))
    with sink.getbuffer() as view:
        if not _is_read(descriptor, view, size, offset, status.st_dev):
            return MISS
    return sink.getvalue() if size else b""


def _is_read(descriptor: int, buffer: Any, size: int, offset: int, device: int) -> bool:
    """Read what is in the page cache; say whether that was all, and, if it should be nothing, whether it was that."""
    try:
        got = os.preadv(descriptor, [buffer], offset, NOWAIT)
    except OSError as error:
        if error.errno in _REFUSALS:
            _refuses.add(device)
        elif error.errno not in (errno.EAGAIN, errno.EINVAL, errno.ESPIPE):
            raise
        return False
    return got == size or (size == 0 and len(buffer) == 0)


def known_until(descriptor: int, offset: int, end: int) -> int:
    """Return how far from an offset a file that takes probes is in the page cache: ``end``, if it is all there.

    The bytes are read, into nobody's buffer: the plain call then finds them.

    Returns:
        An offset; beyond ``end`` if the file ends before that.

    Thread: any. Cancel: none.
    """
    while offset < end:
        wanted = min(end - offset, len(SCRATCH))
        buffer = SCRATCH if wanted == len(SCRATCH) else memoryview(SCRATCH)[:wanted]
        try:
            got = os.preadv(descriptor, [buffer], offset, NOWAIT)
        except OSError as error:
            if error.errno in _REFUSALS:
                _refuses.add(os.fstat(descriptor).st_dev)
            return offset
        offset += got
        if got < wanted:
            return end + 1 if offset >= os.fstat(descriptor).st_size else offset
    return offset


# ------------------------------------------------------------------------------------- system calls, by their names


def _try_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int | _Word:
    if flags & WRITES or dir_fd is not None:
        return MISS
    status = glance(path)
    if status is MISS or (isinstance(status, os.stat_result) and not stat.S_ISREG(status.st_mode)):
        return MISS
    return os.open(path, flags, mode)


def _try_stat(path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result | _Word:
    if isinstance(path, int):
        return os.stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
    status = MISS if dir_fd is not None else glance(path, follow_symlinks)
    return os.stat(path, follow_symlinks=follow_symlinks) if status is ABSENT else status


def _try_read(descriptor: int, size: int) -> bytes | _Word:
    status = os.fstat(descriptor)
    if not takes_probes(status):
        return MISS
    data = read_at(descriptor, size, os.lseek(descriptor, 0, os.SEEK_CUR), status)
    if not isinstance(data, _Word):
        os.lseek(descriptor, len(data), os.SEEK_CUR)
    return data


def _try_pread(descriptor: int, size: int, offset: int) -> bytes | _Word:
    status = os.fstat(descriptor)
    return read_at(descriptor, size, offset, status) if takes_probes(status) else MISS


# What can be tried in place of a system call: the same arguments, its result or exception, or MISS.
ATTEMPTS: dict[Callable[..., Any], Callable[..., Any]] = {
    os.open: _try_open,
    os.stat: _try_stat,
    os.read: _try_read,
    os.fstat: os.fstat,
    os.lseek: os.lseek,
    os.close: os.close,
}
if hasattr(os, "pread"):
    ATTEMPTS[os.pread] = _try_pread
