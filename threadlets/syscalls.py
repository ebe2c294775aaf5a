"""What the operating system can do that Python has no name for; where it cannot, that is said, and nothing breaks.

``openat2`` opens a file by a name that the kernel has in its cache, or fails with EAGAIN rather than wait for a disk
(``RESOLVE_CACHED``, Linux 5.12). A sandbox may forbid it; that is found out once.

Sources: getrusage(2), openat2(2), ``LOOKUP_CACHED`` in the kernel's fs/namei.c.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

__all__ = [
    "CURRENT",
    "LOOK",
    "LOOK_AT_LINK",
    "LOOK_BENEATH",
    "LOOK_STRAIGHT",
    "READ",
    "READ_STRAIGHT",
    "bind_thread",
    "cpus_of_process",
    "evidence",
    "has_openat2",
    "openat2",
    "switches",
]

CURRENT = -100  # AT_FDCWD: names are relative to where the program is
# What openat2 is asked for. A look opens nothing (``O_PATH``); what is read does not block (``O_NONBLOCK``). Links may
# lead anywhere; but the last part of a name is not followed ("at link"), or no link leads out ("beneath"), or there is
# none at all ("straight").
LOOK, LOOK_AT_LINK, LOOK_BENEATH, LOOK_STRAIGHT, READ, READ_STRAIGHT = range(6)

try:
    from resource import RUSAGE_THREAD, getrusage
except ImportError:  # not Linux: Windows has no resource module, macOS no usage per thread

    def switches() -> tuple[int, int] | None:
        """Return None: this platform does not count how often one thread has given up its CPU."""
        return None

else:

    def switches() -> tuple[int, int] | None:
        """Return how often the calling thread has given up its CPU: to wait, and because the system took it away.

        Costs 0.4 us. A wait for the interpreter lock counts as a wait. Thread: any.

        Source: ``ru_nvcsw`` and ``ru_nivcsw`` of getrusage(2).
        """
        usage = getrusage(RUSAGE_THREAD)
        return usage.ru_nvcsw, usage.ru_nivcsw


def evidence(before: tuple[int, int] | None) -> tuple[bool | None, bool]:
    """Say whether this thread has blocked since, None if that was not measured, and whether it was only preempted.

    Args:
        before: What ``switches()`` returned then, on this thread; None: it was not asked.
    """
    after = None if before is None else switches()
    if before is None or after is None:
        return None, False
    blocked = after[0] != before[0]
    return blocked, not blocked and after[1] != before[1]


_openat2: Callable[[int, bytes, int], int] | None = None


def openat2(around: int, name: bytes, way: int) -> int:
    """Open a file without a wait.

    Args:
        around: The folder that the name is relative to: a descriptor, or ``CURRENT``.
        name: Without a NUL, at which it would end.
        way: ``LOOK`` or another one of these.

    Returns:
        A descriptor; or the negative number of the error, such as EAGAIN: it would have had to wait.

    Thread: any. Cancel: none.
    """
    return (_openat2 or _find_openat2())(around, name, way)


def has_openat2() -> bool:
    """Say whether this system has it; where not, it always fails with EAGAIN. Thread: any."""
    return (_openat2 or _find_openat2()) is not _no_openat2


def _no_openat2(around: int, name: bytes, way: int) -> int:
    return -errno.EAGAIN


def _find_openat2() -> Callable[[int, bytes, int], int]:
    global _openat2
    _openat2 = _make_openat2()
    return _openat2


def _make_openat2() -> Callable[[int, bytes, int], int]:
    if sys.platform != "linux":
        return _no_openat2
    try:
        import ctypes  # here: importing it takes 5 ms, and a program may never touch a file

        # PyDLL keeps the interpreter lock: a look cannot wait. Who opens to read may have to wait for a virus scanner
        # (fanotify), and lets others go on, by CDLL. Untyped arguments are faster: an int, a bytes and a pointer are
        # what the defaults of ctypes are for.
        looking, reading = (library(None, use_errno=True).syscall for library in (ctypes.PyDLL, ctypes.CDLL))
        get_errno = ctypes.get_errno
    except (ImportError, OSError, AttributeError):
        return _no_openat2

    class OpenHow(ctypes.Structure):
        _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))

    SYS_OPENAT2 = 437  # on every architecture
    NO_SYMLINKS, BENEATH, CACHED = 0x04, 0x08, 0x20
    look, read = os.O_PATH | os.O_CLOEXEC, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    hows = {
        LOOK: (look, 0),
        LOOK_AT_LINK: (look | os.O_NOFOLLOW, 0),
        LOOK_BENEATH: (look, BENEATH),
        LOOK_STRAIGHT: (look, NO_SYMLINKS),
        READ: (read, 0),
        READ_STRAIGHT: (read, NO_SYMLINKS),
    }
    calls = [
        (reading if way in (READ, READ_STRAIGHT) else looking, ctypes.byref(OpenHow(flags, 0, resolve | CACHED)))
        for way, (flags, resolve) in sorted(hows.items())
    ]
    size = ctypes.sizeof(OpenHow)

    def call(around: int, name: bytes, way: int) -> int:
        syscall, how = calls[way]
        descriptor: int = syscall(SYS_OPENAT2, around, name, how, size)
        return descriptor if descriptor >= 0 else -get_errno()

    os.stat("/")  # so that it is in the cache of names
    descriptor = call(CURRENT, b"/", LOOK)
    if descriptor < 0:
        return _no_openat2
    os.close(descriptor)
    return call


def bind_thread(cpus: frozenset[int]) -> Exception | None:
    """Let this thread run on some CPUs only; return what has kept it from that, None if nothing. Thread: any."""
    try:
        os.sched_setaffinity(0, cpus)
    except (AttributeError, OSError, ValueError) as error:  # not on this system; a sandbox; CPUs that are not there
        return error
    return None


def cpus_of_process() -> frozenset[int]:
    """Return the CPUs of the process: of its first thread, for this one may be bound; nothing, if it is not known."""
    try:
        return frozenset(os.sched_getaffinity(os.getpid()))
    except (AttributeError, OSError):  # not on this system; a sandbox forbids it
        return frozenset()
