"""A wait for a file descriptor, in synchronous code, that a cancel ends at once.

Why: a thread that sits in ``recv`` hears nothing. A timeout on the socket makes it listen so many times a second: a
cancel comes late, and the thread is woken for nothing. To close the socket under its feet loses the socket, and what
has come in by then.

How: the thread sits in ``poll``, on the descriptor and on a *bell*, an eventfd that a cancel writes to. It reads when
the descriptor is ready, and not before. Bells are used again, since to make one costs two system calls; so each wait
has a bell for a *turn*, and who rings for a turn that is over is not heard (``test_a_late_ring``)::

    cancels: takes the wake-up of a wait        waits: is done, begins another turn of the bell
    cancels: rings for the old turn, in vain    somebody else: takes the bell

So nothing is written to a descriptor that was closed meanwhile and may be somebody's file by now. A bell that rings for
nothing, all the same, does no harm: who waits looks whether he was asked, and goes on (``test_a_bell_rings_in_vain``).

Rejected: signals to the thread (handlers run on the main thread alone, and whose signal is it?); ``selectors`` (epoll
makes a descriptor for each wait); one eventfd for each thread (threads come and go, and a fork shares it).

Invariants: a bell in ``_free`` is used by nobody, does not ring, and belongs to this process.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from errno import EBADF
from functools import partial
from time import monotonic
from typing import Any, Protocol

from .cancellation import checkpoint, listens_to_task, parked, raise_if_asked
from .definitions import check_seconds
from .parking import POLL
from .regions import me
from .tasks import running_loop

__all__ = ["checkpoint_wait"]

FREE = 16  # arbitrary: bells that are kept; more threads than that seldom begin and end their waits all the time
LONGEST = 2**31 - 1  # milliseconds: what poll() takes, an int of C
HIGHEST = 2**31 - 1  # the same of descriptors


class HasFileno(Protocol):
    """A socket, a file, a pipe's end."""

    def fileno(self) -> int:
        """Return its descriptor."""


def checkpoint_wait(fd: int | HasFileno, timeout: float | None = None, *, write: bool = False) -> bool:
    """Wait on this thread until a file descriptor is ready; False if it is not after ``timeout`` seconds.

    For synchronous code, before a call that would block: in plain functions on workers, in ``with blocking():``, and
    on threads of your own, where nobody cancels. It is ready when there is something to read, or with ``write=True``
    when there is room to write; also when the other side has hung up, or there is an error: the read or write will
    tell. Several threads that read from one descriptor need it non-blocking: another one may have been quicker.

    In place on an event loop that cannot go on meanwhile it stalls the loop, as any call that blocks.

    Cancel: point, whether it has to wait or not; not inside of ``holding``, or of a ``Lock``. What is there to be read
    then stays there. A task that is no threadlet, in a region, notices within 50 ms.

    Args:
        fd: A descriptor, or an object with ``fileno()``. Do not close it meanwhile: nobody is told of that.
        timeout: In seconds; None: as long as it takes; 0: only look.
        write: Whether to wait for room to write.

    Raises:
        asyncio.CancelledError: If the threadlet is asked to stop; with the reason.
        NotImplementedError: If the system has no ``poll``: on Windows.
        OSError: If there is no such descriptor, or none can be made to be woken by.
        RuntimeError: In a coroutine.
        TypeError, ValueError: For what is no descriptor, or no time.
        BaseException: What a signal handler raises.

    >>> import socket
    >>> near, far = socket.socketpair()
    >>> checkpoint_wait(near, timeout=0.01), checkpoint_wait(near, write=True)
    (False, True)
    >>> far.close(); checkpoint_wait(near), near.recv(1)
    (True, b'')
    >>> near.close()

    Thread: any. Cancel: point.
    """
    if running_loop() is not None:
        raise RuntimeError(
            "checkpoint_wait() in a coroutine, or a callback of the event loop, would stall it: "
            "use loop.sock_recv() and its like, or loop.add_reader()"
        )
    if not hasattr(select, "poll"):
        raise NotImplementedError("checkpoint_wait() needs select.poll, which this system does not have")
    number = _number_of(fd)
    if timeout is not None:
        check_seconds("timeout", timeout)
    checkpoint()
    poll = select.poll()
    poll.register(number, select.POLLOUT if write else select.POLLIN)
    ready = poll.poll(0)
    if ready or timeout == 0:
        return _is_ready(number, ready)
    who = me()
    if isinstance(who, (int, asyncio.Future)):  # nobody could ring
        return _wait(poll, number, who, timeout, None)
    bell = _Bell.take()
    try:
        poll.register(bell.reads, select.POLLIN)
        with parked(who, partial(bell.ring, bell.turn)):
            return _wait(poll, number, who, timeout, bell)
    finally:
        bell.give_back()


def _wait(poll: Any, number: int, who: Any, timeout: float | None, bell: _Bell | None) -> bool:
    until = None if timeout is None else monotonic() + timeout
    slices = POLL if listens_to_task(who) else float("inf")
    while True:
        raise_if_asked(who)
        left = float("inf") if until is None else max(until - monotonic(), 0)
        wait = min(left, slices)
        ready = poll.poll(None if wait == float("inf") else min(wait * 1000, LONGEST))
        if bell is not None:
            bell.hush()
            raise_if_asked(who)
        if left == 0 or _is_ready(number, ready):
            return _is_ready(number, ready)


def _is_ready(number: int, ready: list[tuple[int, int]]) -> bool:
    for each, events in ready:
        if each == number:
            if events & select.POLLNVAL:
                raise OSError(EBADF, f"checkpoint_wait({number}): there is no such descriptor; was it closed?")
            return True
    return False


def _number_of(fd: int | HasFileno) -> int:
    number: Any = fd
    if not isinstance(fd, int):
        fileno = getattr(fd, "fileno", None)
        if fileno is None:
            raise TypeError(f"checkpoint_wait({fd!r}): expected a descriptor, or an object with fileno()")
        number = fileno()
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"checkpoint_wait({fd!r}): {number!r} is no descriptor")
    if not 0 <= number <= HIGHEST:
        raise ValueError(f"checkpoint_wait({fd!r}): {number} is no descriptor; was it closed?")
    return number


class _Bell:
    """Ends a poll: an eventfd; a pipe, where there is none. Thread: its user's, unless a method says otherwise."""

    __slots__ = ("_mutex", "_rings", "_shelf", "_writes", "reads", "turn")

    def __init__(self) -> None:
        self.reads = self._writes = -1
        self.turn = 0  # whose it is: a number for each wait
        self._mutex = threading.RLock()  # signal handlers may cancel
        self._shelf = _free
        self._rings = False
        if hasattr(os, "eventfd"):
            self.reads = self._writes = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            self.reads, self._writes = os.pipe()
            os.set_blocking(self.reads, False)
            os.set_blocking(self._writes, False)

    @staticmethod
    def take() -> _Bell:
        """Return one that nobody uses."""
        try:
            return _free.pop()
        except IndexError:
            return _Bell()

    def ring(self, turn: int) -> None:
        """End the poll of a wait; nothing if that is over. Thread: any."""
        with self._mutex:
            if turn == self.turn and not self._rings:
                self._rings = True
                os.write(self._writes, ONE)

    def hush(self) -> None:
        """Let it not ring."""
        with self._mutex:
            if self._rings:
                self._rings = False  # first: a signal handler may raise when the read is done
                os.read(self.reads, 8)

    def give_back(self) -> None:
        """Use it no more."""
        with self._mutex:
            self.turn += 1
            self.hush()
        if self._shelf is _free and len(_free) < FREE:
            _free.append(self)
        else:
            self.close()

    def close(self) -> None:
        """Give the descriptors back to the system."""
        ends = {self.reads, self._writes} - {-1}
        self.reads = self._writes = -1
        for end in ends:
            os.close(end)

    __del__ = close  # of one that a signal handler has kept from being given back


ONE = (1).to_bytes(8, "little")  # in any order of bytes it is more than 0
_free: list[_Bell] = []


def _after_fork() -> None:
    """Do without the parent's bells. Those that other threads were using stay open until the child ends, or execs."""
    global _free
    bells, _free = _free, []
    for bell in bells:
        bell.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
