"""The executor of cache misses: worker threads that run what must not run in place, most urgent first.

Why: ``ThreadPoolExecutor`` wakes a thread for every item, knows no priorities, and cannot give an item back. Here one
thread at a time may be *searching*, that is, woken or started but not yet arrived at the queue; a thread that arrives,
finds an item and sees more behind it, wakes the next one. So a thousand short calls are run by the first thread before
the second one even gets the interpreter lock, and twenty sleeping ones are spread over twenty threads within a
millisecond. Borrowed: the spinning rule of Go's scheduler (``proc.go``, "Worker thread parking/unparking").

Idle threads are reused last in, first out, so that the rest grow old and end.

No wake-up is lost: an item is pushed, and ``_searching`` read, under one lock. If it is set, the searcher has not yet
taken that lock to look, so it will see the item (``test_push_while_searching_is_seen``).

Threads are daemons: an interpreter that exits does not wait for them. Whoever needs their results waits for those.

*CPUs.* The threads of a group may be bound to some CPUs, those of a node. Linux gives a new thread the CPUs of the one
that starts it, and that may be a bound one, since whoever finds more work starts the next thread. So from the first
bound group on, the threads of all others ask for the CPUs of the process when they start. Before that nobody asks for
anything.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from itertools import count
from time import monotonic_ns
from typing import Any, Protocol, TypeVar, cast

from .queues import PriorityQueue, Queueable
from .syscalls import bind_thread, cpus_of_process

__all__ = ["Job", "WorkerGroup", "are_busy", "named_group", "roam", "serving_group", "shared_group", "worker_groups"]

logger = logging.getLogger("threadlets")

T = TypeVar("T")

LIMIT = 64  # arbitrary: twice what asyncio's default executor allows; a waiting thread costs memory, not time
IDLE_SECONDS = 10.0  # arbitrary: borrowed from trio's thread cache


class Job(Queueable, Protocol):
    """What a worker group runs."""

    def run_on_worker(self) -> None:
        """Do the work; never raises."""


class _Errand:
    """A job that somebody waits for on another thread."""

    __slots__ = ("_arrived", "ended", "error", "function", "ticket", "value")

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.ticket: Any = None
        self._arrived = monotonic_ns()
        self.value: Any = None
        self.error: BaseException | None = None
        self.ended = threading.Lock()
        self.ended.acquire()

    def run_on_worker(self) -> None:
        try:
            self.value = self.function()
        except BaseException as error:
            self.error = error
        self.ended.release()


_serving = threading.local()  # .group: the group that this thread works for
_groups: weakref.WeakSet[WorkerGroup] = weakref.WeakSet()
_everywhere: frozenset[int] = frozenset()  # the CPUs of the process, once there are threads that are bound to some


class WorkerGroup:
    """Threads that share one queue, made when needed and at most ``limit``. Thread: any, for every method.

    Args:
        name: Part of the threads' names.
        limit: The most threads there are at a time.
        idle_seconds: How long a thread without work stays; None: for ever.
        cpus: Those that the threads are bound to; None: to none. Where that cannot be, they run anywhere.
    """

    __slots__ = (
        "__weakref__",
        "_idle",
        "_idle_seconds",
        "_lent",
        "_limit",
        "_lock",
        "_numbers",
        "_queue",
        "_searching",
        "_stalled",
        "_threads",
        "cpus",
        "name",
    )

    def __init__(
        self,
        name: str,
        *,
        limit: int = LIMIT,
        idle_seconds: float | None = IDLE_SECONDS,
        cpus: frozenset[int] | None = None,
    ) -> None:
        if limit < 1:
            raise ValueError(f"WorkerGroup limit {limit}: at least 1 thread is needed")
        self.name = name
        self.cpus = cpus
        if cpus is not None:
            roam()
        self._limit = limit
        self._idle_seconds = -1.0 if idle_seconds is None else idle_seconds  # -1: for ever, as Lock.acquire has it
        self._reset()
        _groups.add(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()  # a __del__ that the collector calls in here may submit, too
        self._queue: PriorityQueue[Job] = PriorityQueue()
        self._idle: list[threading.Lock] = []  # the gates at which idle threads wait
        self._threads = 0
        self._lent = 0  # how many threads wait for other threadlets, and do not count
        self._stalled = 0  # how many wait for others, and do count
        self._searching = False
        self._numbers = count(1)

    def __repr__(self) -> str:
        return (
            f"<WorkerGroup {self.name}: {self._threads} of {self._limit} threads, "
            f"{len(self._idle)} idle, {len(self._queue)} waiting>"
        )

    @property
    def limit(self) -> int:
        """The most threads there are at a time; may be set. With fewer than there are, those end that have no work.

        Raises:
            TypeError: When set to something that is no whole number.
            ValueError: When set to less than 1, or to anything else than 1 for a group of one thread.
        """
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"limit={limit!r}: expected a whole number of threads")
        if limit < 1 or (self._idle_seconds < 0 and limit != 1):
            raise ValueError(f"limit={limit!r}: at least 1 thread is needed, and a group of one has 1")
        with self._lock:
            self._limit = limit
            if self._queue and not self._searching:
                try:
                    self._summon()
                except RuntimeError:  # no further thread can be started
                    pass

    @property
    def threads(self) -> int:
        """How many threads there are now."""
        return self._threads

    @property
    def busy(self) -> int:
        """How many threads are not idle."""
        return self._threads - len(self._idle)

    @property
    def waiting(self) -> int:
        """How many jobs wait for a thread."""
        return len(self._queue)

    def submit(self, job: Job, priority: float = 0) -> None:
        """Queue a job.

        Raises:
            RuntimeError: If there is no thread and the system refuses to start one; the job is not queued then.
        """
        with self._lock:
            self._queue.push(job, priority)
            if not self._searching:
                try:
                    self._summon()
                except RuntimeError:  # no further thread can be started
                    if not self._threads and self._queue.remove(job):
                        raise

    def remove(self, job: Job) -> bool:
        """Take a job out that no thread has taken yet; False if one has."""
        with self._lock:
            return self._queue.remove(job)

    def rekey(self, job: Job, priority: float) -> bool:
        """Give a waiting job another priority; False if a thread has taken it."""
        with self._lock:
            return self._queue.rekey(job, priority)

    def call(self, function: Callable[[], T]) -> T:
        """Call a function on one of the group's threads and wait for it; on such a thread, call it right here.

        Raises:
            BaseException: What the function raises.
        """
        if serving_group() is self:
            return function()
        errand = _Errand(function)
        self.submit(errand)
        errand.ended.acquire()
        if errand.error is not None:
            raise errand.error
        return cast(T, errand.value)

    def lend(self) -> bool:
        """Do without the calling thread while it waits for other threadlets; False if it is none of this group's.

        Another one may be started meanwhile, so that those threadlets find a thread, however many wait like this. In a
        group of one there is no other: what has to be on that thread waits for it.
        """
        if serving_group() is not self or self._limit == 1:
            return False
        with self._lock:
            self._lent += 1
            if self._queue and not self._searching:
                try:
                    self._summon()
                except RuntimeError:  # no further thread can be started: one that comes back will go on
                    pass
        return True

    def stall(self) -> None:
        """Note that the calling thread, one of this group's, waits for others, and may do so for long."""
        with self._lock:
            self._stalled += 1

    def relieve(self) -> bool:
        """Do without the calling thread, which has stalled, if all that are at work have: nothing would go on else.

        So there is one more at a time, as long as that one stalls, too. Not in a group of one: see ``lend``.
        """
        with self._lock:
            if self._limit == 1 or self._stalled + self._lent < self._threads - len(self._idle):
                return False
            self._stalled -= 1
        return self.lend()

    def go_on(self, lent: bool) -> None:
        """Count the calling thread, which had stalled, as at work again; or, if it was relieved, as there."""
        with self._lock:
            if lent:
                self._lent -= 1
            else:
                self._stalled -= 1

    def take_back(self) -> None:
        """Count the calling thread again; if there are too many now, the first to have nothing to do ends."""
        with self._lock:
            self._lent -= 1

    def _summon(self) -> None:
        """Have a thread come and look, if one is wanted; the lock is held.

        A thread is started under the lock: a job that was pushed meanwhile would count on one that may never come.

        Raises:
            RuntimeError: If the system refuses to start a thread.
        """
        if not self._queue.size:
            return
        if self._idle:
            self._searching = True
            self._idle.pop().release()
        elif self._threads < self._limit + self._lent:
            name = f"threadlets-{self.name}-{next(self._numbers)}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()
            self._searching = True
            self._threads += 1

    def _serve(self) -> None:
        """Run jobs until there have been none for a while: the life of one thread."""
        _serving.group = self
        if _everywhere:
            self._settle()
        gate = threading.Lock()
        gate.acquire()
        searching = True
        job: Job | None
        while True:
            with self._lock:
                if searching:
                    searching = self._searching = False
                if self._threads > self._limit + self._lent and not (self._queue and self._idle):
                    self._threads -= 1  # one that waited has come back; the others are busy, or there is nothing to do
                    return
                try:
                    job = self._queue.pop()
                except IndexError:
                    job = None
                    self._idle.append(gate)
                else:
                    if not self._searching:
                        try:
                            self._summon()
                        except RuntimeError:  # no further thread can be started: go on with these
                            pass
            if job is not None:
                job.run_on_worker()
                job = None
                continue
            if not gate.acquire(timeout=self._idle_seconds):
                with self._lock:
                    if gate in self._idle:
                        self._idle.remove(gate)
                        self._threads -= 1
                        return
                gate.acquire()  # summoned in the last moment: the gate is open, or about to be
            searching = True

    def _settle(self) -> None:
        """Bind this thread to the CPUs of the group; or to none, whatever those of the thread that started it are."""
        for cpus in (self.cpus, _everywhere):
            if cpus is not None:
                error = bind_thread(cpus)
                if error is None:
                    return
                logger.debug("%r cannot be bound to the CPUs %s: %s", self, sorted(cpus), error)

    def _check(self) -> None:
        """Assert every invariant."""
        with self._lock:
            self._queue._check()
            assert 0 <= len(self._idle) <= self._threads, "threads are counted"
            assert len(self._idle) + self._lent + self._stalled <= self._threads, "who waits for others is not idle"
            assert all(gate.locked() for gate in self._idle), "idle threads wait at closed gates"


_shared = WorkerGroup("worker")
_named: dict[str, WorkerGroup] = {}


def shared_group() -> WorkerGroup:
    """Return the group that runs whatever has no affinity."""
    return _shared


def worker_groups() -> list[WorkerGroup]:
    """Return all groups that live. Thread: any."""
    while True:
        try:
            return sorted(_groups, key=lambda group: group.name)
        except RuntimeError:  # another thread has just made one
            continue


def named_group(name: str) -> WorkerGroup:
    """Return the group of one lasting thread that has this name; the same one for the same name."""
    group = _named.get(name)
    if group is None:
        group = _named.setdefault(name, WorkerGroup(name, limit=1, idle_seconds=None))
    return group


def are_busy() -> bool:
    """Say whether any group's thread has work, or work waits for one: but for threads that wait for others.

    Thread: any. What is submitted goes from *waiting* to *busy*, so that is the order in which to look.
    """
    return any(group.waiting or group.busy > group._lent + group._stalled for group in worker_groups())


def serving_group() -> WorkerGroup | None:
    """Return the group that this thread works for; None if it is none of ours. Thread: any."""
    return getattr(_serving, "group", None)


def roam() -> None:
    """Have workers that are not bound to CPUs say so when they start: there are threads that are. Thread: any.

    Not on systems that have no such thing.
    """
    global _everywhere
    if not _everywhere:
        _everywhere = cpus_of_process()


def _after_fork() -> None:
    """Forget threads that the child does not have, and work that belongs to the parent's loops."""
    for group in list(_groups):
        group._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
