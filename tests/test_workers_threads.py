"""Worker groups: threads that end, threads that the system refuses to start, and threads that a fork leaves behind.

A second file of tests for ``threadlets/workers.py``; ``test_workers.py`` has the rest.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import HookedLock, eventually, fork_beside_threads
from tests.test_workers import SECONDS, Work, groups, hold  # noqa: F401 - groups is a fixture


def refuse_threads(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object] = lambda: None) -> list[str]:
    """Have the system refuse threads as it does at its limit; return the names of those that were wanted."""
    wanted: list[str] = []

    def refuse(thread: threading.Thread) -> None:
        wanted.append(thread.name)
        if len(wanted) == 1:
            meanwhile()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return wanted


def test_idle_threads_end(make: Any) -> None:
    """A thread without work ends after a while, and another is made when there is work again."""
    group = make(idle_seconds=0.001)
    for number in (1, 2):
        job = Work()
        group.submit(job)
        assert job.wait().thread == f"threadlets-test-{number}"
        eventually(lambda: group.threads == 0)
        group._check()


def test_lasting_threads_stay(make: Any) -> None:
    """Without a limit on idleness, a thread waits for ever: the timeout of its wait is that of no timeout."""
    group = make(limit=1, idle_seconds=None)
    group.call(lambda: None)
    assert group._idle_seconds == -1
    eventually(lambda: group._idle)
    assert group.threads == 1


def test_summoned_in_the_last_moment(make: Any) -> None:
    """A thread that is summoned just when it has waited long enough stays and works.

    worker: waited long enough          caller:
                                        caller: takes the gate out of the idle ones, opens it
    worker: takes the lock, is not idle any more, passes the gate, and looks
    """
    group = make(limit=1, idle_seconds=0.001)
    looks: list[int] = []
    timed_out, summoned = threading.Event(), threading.Event()

    def hook() -> None:
        if threading.current_thread().name.startswith("threadlets-test-"):
            looks.append(threading.get_ident())
            if len(looks) == 3:  # 1: took the first job; 2: found no other; 3: waited long enough
                timed_out.set()
                assert summoned.wait(SECONDS)

    group._lock = HookedLock(hook)
    first, second = Work(), Work()
    group.submit(first)
    assert timed_out.wait(SECONDS)
    group.submit(second)
    assert group.threads == 1
    summoned.set()
    second.wait()
    assert first.thread == second.thread
    eventually(lambda: group.threads == 0)


def test_no_thread_can_be_started(make: Any) -> None:
    """If there is no thread and none can be started, submitting fails, leaves nothing behind, and works again later."""
    group = make()
    job = Work()
    with pytest.MonkeyPatch.context() as monkeypatch:
        wanted = refuse_threads(monkeypatch)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                group.submit(job)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                group.call(lambda: None)
        assert len(wanted) == 4
        assert (group.threads, group.waiting, job.ticket, group._searching) == (0, 0, None, False)
        group._check()
    group.submit(job)
    job.wait()


def test_no_further_thread_can_be_started(make: Any) -> None:
    """If there are threads but no more can be started, these do the work, and whoever submits is not told."""
    group = make(limit=4)
    held, jobs = hold(group), [Work() for _ in range(5)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        wanted = refuse_threads(monkeypatch)
        for job in jobs:
            group.submit(job)
        assert group.waiting == 5
        held.let_go()
        for job in jobs:
            job.wait()
        assert wanted
    assert {job.thread for job in jobs} == {held.thread}
    assert group.threads == 1


def test_thread_is_refused_while_another_job_comes(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is submitted while a first thread is being refused is not forgotten: it runs, or its caller is told.

    caller: submits a, wants a thread   other:
                                        other: submits b; a thread is on its way already
    caller: no thread; a is taken back
    """
    group = make(limit=4)
    job, told = Work(), threading.Event()
    submitted = threading.Event()

    def submit() -> None:
        try:
            group.submit(job)
        except RuntimeError:
            told.set()
        submitted.set()

    def meanwhile() -> None:
        _thread.start_new_thread(submit, ())
        submitted.wait(0.2)  # in vain, if the group lets nobody in meanwhile: that is a remedy, too

    refuse_threads(monkeypatch, meanwhile)
    with pytest.raises(RuntimeError):
        group.submit(Work())
    assert submitted.wait(SECONDS)
    assert told.is_set()
    assert group.waiting == 0


def test_thread_is_refused_while_another_gets_idle(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that comes while a second thread is being refused is run by the first, if that has become idle meanwhile.

    caller: submits a, wants a second thread
    worker: ends its job, takes a, finds the queue empty, is idle
                                        other: submits b; a thread is on its way already
    caller: no second thread
    """
    group = make(limit=4)
    held, first, second = hold(group), Work(), Work()
    submitted = threading.Event()

    def submit() -> None:
        first.ended.wait(0.2)
        if first.ended.is_set():
            eventually(lambda: group._idle)
        group.submit(second)
        submitted.set()

    def meanwhile() -> None:
        held._go.set()
        _thread.start_new_thread(submit, ())
        submitted.wait(0.5)  # in vain, if the group lets nobody in meanwhile

    refuse_threads(monkeypatch, meanwhile)
    group.submit(first)
    assert submitted.wait(SECONDS)
    assert second.ended.wait(2), "the job was forgotten"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.parametrize("locked", [False, True])
def test_fork(make: Any, locked: bool) -> None:
    """A forked child has no threads and no work of its parent's, whatever was locked, and makes its own."""
    group = make(limit=1)
    held, waiting = hold(group), Work()
    group.submit(waiting)
    if locked:
        group._lock.acquire()
    child = fork_beside_threads()
    if child == 0:
        status = 1
        try:
            signal.alarm(SECONDS)  # should the child hang, that ends it
            if (group.threads, group.waiting) == (0, 0) and group.call(threading.get_ident) != threading.get_ident():
                group._check()
                status = 0 if not waiting.ended.is_set() else 2
        finally:
            os._exit(status)
    if locked:
        group._lock.release()
    _, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == 0
    assert group.threads == 1
    held.let_go()
    waiting.wait()
