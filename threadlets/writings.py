"""Whole files, written and copied by a thread that may wait: replaced all at once, on request, or not at all.

A replacement is written beside the file that it is for, handed to the disk, renamed over it, and the folder handed to
the disk, too: whoever opens the name finds the old file or the new one, also after a power failure. What fails or is
cancelled before the renaming leaves no trace; a process that is killed leaves a hidden file, ``.threadlets-*.tmp``.

Sources: rename(2), fsync(2); "Ensuring data reaches disk" (LWN, 2011); copy_file_range(2), ioctl_ficlone(2), lseek(2).
"""

from __future__ import annotations

import builtins
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from .cancellation import checkpoint
from .probes import StrPath

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["copy_file", "write_file"]

PIECE = 1 << 24  # bytes; arbitrary: how much is written or copied between two looks whether somebody has cancelled
FICLONE = 0x40049409  # _IOW(0x94, 9, int), see ioctl_ficlone(2)
# How the kernel says that a copy has to be made by reading and writing.
NOT_BY_KERNEL = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF, errno.ETXTBSY}


def write_file(path: StrPath, data: Buffer, atomic: bool) -> int:
    """Write a file; return the number of bytes. Thread: any. Cancel: point, where it is atomic."""
    view = memoryview(data).cast("B")
    if not atomic:
        with builtins.open(path, "wb", buffering=0) as file:
            _write(file, view, lambda: None)
    else:
        with _replacement(path) as file:
            _write(file, view, checkpoint)
    return len(view)


def _write(file: IO[bytes], view: memoryview, look: Callable[[], None]) -> None:
    done = 0
    while done < len(view):
        look()
        done += file.write(view[done : done + PIECE]) or 0


def copy_file(source: StrPath, target: StrPath, atomic: bool) -> StrPath:
    """Copy a file and its permissions, as ``shutil.copy`` does; return where it went. Thread: any. Cancel: point."""
    import shutil  # here: it takes some milliseconds, and few copy files

    if os.path.isdir(target):
        target = os.path.join(target, os.path.basename(source))  # type: ignore[arg-type]
    if os.path.exists(target) and os.path.samefile(source, target):
        raise shutil.SameFileError(f"{source!r} and {target!r} are the same file")
    for path in (source, target):
        mode = 0
        with suppress(OSError):
            mode = os.stat(path).st_mode
        if stat.S_ISFIFO(mode):
            raise shutil.SpecialFileError(f"`{os.fsdecode(path)}` is a named pipe")
    with builtins.open(source, "rb", buffering=0) as old:
        mode = stat.S_IMODE(os.fstat(old.fileno()).st_mode)
        with _replacement(target) if atomic else builtins.open(target, "wb", buffering=0) as new:
            _copy(old, new)
            if atomic:
                os.chmod(new.name, mode)
    if not atomic:
        os.chmod(target, mode)
    return target


def _copy(old: IO[bytes], new: IO[bytes]) -> None:
    """Copy what is in a file: as a reflink, or by the kernel, or by reading and writing; holes stay holes."""
    source, target = old.fileno(), new.fileno()
    status = os.fstat(source)
    if stat.S_ISREG(status.st_mode) and status.st_size and stat.S_ISREG(os.fstat(target).st_mode):
        if _is_cloned(source, target):
            return
        done = _copy_pieces(source, target, status.st_size)
        old.seek(done)
        new.seek(done)
    while piece := old.read(1 << 20):  # what the kernel has not copied; nothing, mostly
        _write(new, memoryview(piece), checkpoint)


def _is_cloned(source: int, target: int) -> bool:
    try:
        from fcntl import ioctl

        ioctl(target, FICLONE, source)
    except (ImportError, OSError):
        return False
    return True


def _copy_pieces(source: int, target: int, size: int) -> int:
    """Let the kernel copy what is no hole; return how far it has come. Files of /proc and /sys end where they like."""
    at = 0
    try:
        while at < size and hasattr(os, "copy_file_range"):
            start, end = _find_data(source, at, size)
            os.ftruncate(target, start)
            at = start
            while at < end:
                checkpoint()
                copied = os.copy_file_range(source, target, min(end - at, PIECE), at, at)
                if not copied:
                    return at
                at += copied
            if start == end:  # a hole up to the end
                break
    except OSError as error:
        if error.errno not in NOT_BY_KERNEL:
            raise
    return at


def _find_data(source: int, at: int, size: int) -> tuple[int, int]:
    """Return where the next bytes that are no hole begin and end."""
    try:
        start = os.lseek(source, at, os.SEEK_DATA)
        return start, os.lseek(source, start, os.SEEK_HOLE)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    end = max(at, min(size, os.fstat(source).st_size))
    return end, end


@contextmanager
def _replacement(path: StrPath) -> Iterator[Any]:
    """Open a file that takes the place of another one at the end of the block; not if it ends by an exception."""
    target = os.fsdecode(path)
    if os.path.islink(target):
        target = os.path.realpath(target)
    try:
        status = os.stat(target)
    except FileNotFoundError:
        status = None
    if (status is None and not os.path.basename(target)) or (status and not stat.S_ISREG(status.st_mode)):
        with builtins.open(path, "wb", buffering=0) as file:  # a folder raises; a device has nothing to be replaced
            yield file
        return
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".threadlets-{os.urandom(8).hex()}.tmp")
    try:
        file = builtins.open(temporary, "xb", buffering=0)  # noqa: SIM115  # closed below, before it is renamed
    except OSError as error:
        error.filename = os.fspath(path)  # nobody has asked for the other name
        raise
    try:
        with file:
            if status is not None:
                if hasattr(os, "fchown"):
                    with suppress(OSError):  # not everybody may give files to others
                        os.fchown(file.fileno(), status.st_uid, status.st_gid)
                os.chmod(temporary, stat.S_IMODE(status.st_mode))
            yield file
            os.fsync(file.fileno())
        checkpoint()
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    if hasattr(os, "O_DIRECTORY"):  # where folders can be opened
        descriptor = os.open(folder or os.curdir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
