"""An alarm that one thread waits for without the interpreter lock, and that another thread puts off again and again.

Why: a thread that looks now and then whether something takes too long needs the interpreter lock for each look. While
it waits for the lock, each system call of the thread that has it wakes it in vain: to look once a millisecond cost busy
event loops 12 to 27 % (benchmarks/takeover.py). An alarm that is put off before it goes off wakes nobody, and to put it
off costs a few microseconds.

A timer of the kernel: timerfd on Linux, through libc, since Python has it only from 3.13 on. Elsewhere a thread sleeps
and looks.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
import threading
from time import monotonic_ns, sleep

__all__ = ["KernelAlarm", "SleepingAlarm", "make_alarm"]

TFD_TIMER_ABSTIME, TFD_CLOEXEC, TFD_NONBLOCK = 1, 0o2000000, 0o4000  # <sys/timerfd.h>
CLOCK_MONOTONIC = 1  # <time.h>; time.monotonic's
SECOND = 1_000_000_000  # ns
LOOK = 5_000_000  # ns; arbitrary: how often a SleepingAlarm looks, at most


class _Times(ctypes.Structure):
    """``struct itimerspec``: the second pair is when it goes off."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns")]


class KernelAlarm:
    """An alarm by a timer of the kernel."""

    def __init__(self) -> None:
        libc = ctypes.PyDLL(None)  # with the interpreter lock: it is too short to let go of it
        self._fd = -1
        self._fd = libc.timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
        if self._fd < 0:
            raise OSError("the system has no timer to spare")
        self._settime = libc.timerfd_settime
        self._settime.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def set(self, at: int) -> None:
        """Have it go off at a time of the monotonic clock, in nanoseconds, and not before. Thread: any."""
        self._settime(self._fd, TFD_TIMER_ABSTIME, ctypes.byref(_Times(0, 0, *divmod(at, SECOND))), None)

    def wait(self, seconds: float) -> bool:
        """Wait until it goes off, or so many seconds; say whether it has. Thread: one at a time."""
        if not self._poll.poll(seconds * 1000):
            return False
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # put off in the last moment
            pass
        return True

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class SleepingAlarm:
    """The same by a thread that sleeps and looks."""

    def __init__(self) -> None:
        self._at = 0
        self._is_set = threading.Event()

    def set(self, at: int) -> None:
        """Have it go off at a time of the monotonic clock, in nanoseconds, and not before. Thread: any."""
        self._at = at
        if not self._is_set.is_set():
            self._is_set.set()

    def wait(self, seconds: float) -> bool:
        """Wait until it goes off, or so many seconds; say whether it has. Thread: one at a time."""
        if not self._is_set.wait(seconds):
            return False
        while (left := self._at - monotonic_ns()) > 0:
            sleep(min(left, LOOK) / SECOND)
        self._is_set.clear()
        return True


def make_alarm() -> KernelAlarm | SleepingAlarm:
    """Return the best alarm that there is."""
    if sys.platform == "linux":
        try:
            return KernelAlarm()
        except (OSError, AttributeError):  # no descriptors left; a C library without it
            pass
    return SleepingAlarm()
