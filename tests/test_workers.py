"""Worker groups: who is woken, who runs what, and that no job is lost, run twice, or kept in memory.

Races are forced: a hook before the group's lock stops one side where the test wants it. ``test_workers_threads.py`` has
the tests of threads that end or cannot be started.
"""

from __future__ import annotations

import gc
import itertools
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import HookedLock, eventually
from threadlets.workers import WorkerGroup, named_group, shared_group

SECONDS = 20  # how long a test waits for what has to happen, before it fails


ARRIVALS = itertools.count()


class Work:
    """A job."""

    def __init__(self, function: Callable[[], Any] = lambda: None, priority: float = 0) -> None:
        self.function = function
        self.priority = priority
        self.ticket: Any = None
        self._arrived = next(ARRIVALS)
        self.ended = threading.Event()
        self.thread = ""

    def run_on_worker(self) -> None:
        self.thread = threading.current_thread().name
        self.function()
        self.ended.set()

    def wait(self) -> Work:
        assert self.ended.wait(SECONDS), "the job did not end"
        return self


class Held(Work):
    """A job that runs until it is let go."""

    def __init__(self, priority: float = 0) -> None:
        super().__init__(priority=priority)
        self.begun = threading.Event()
        self._go = threading.Event()

    def run_on_worker(self) -> None:
        self.thread = threading.current_thread().name
        self.begun.set()
        assert self._go.wait(SECONDS)
        super().run_on_worker()

    def wait_begun(self) -> None:
        assert self.begun.wait(SECONDS), "the job did not begin"

    def let_go(self) -> None:
        self._go.set()
        self.wait()


@pytest.fixture(name="make")
def groups() -> Iterator[Callable[..., WorkerGroup]]:
    """Make groups whose books are checked at the end of the test."""
    groups = []

    def make_group(limit: int = 4, idle_seconds: float | None = 10) -> WorkerGroup:
        group = WorkerGroup("test", limit=limit, idle_seconds=idle_seconds)
        groups.append(group)
        return group

    yield make_group
    for group in groups:
        eventually(lambda group=group: len(group._idle) == group.threads)
        group._check()
        assert group.waiting == 0


def hold(group: WorkerGroup) -> Held:
    """Occupy one thread."""
    held = Held()
    group.submit(held)
    held.wait_begun()
    return held


def test_runs_on_a_thread_of_its_own(make: Any) -> None:
    """A job runs on a daemon thread with the group's name, and the next one on the same thread."""
    group = make()
    daemon = []
    first, second = Work(lambda: daemon.append(threading.current_thread().daemon)), Work()
    group.submit(first)
    first.wait()
    eventually(lambda: group._idle)
    group.submit(second)
    assert first.thread == second.wait().thread == "threadlets-test-1"
    assert daemon == [True]
    assert group.threads == 1
    assert repr(group).startswith("<WorkerGroup test: 1 of 4 threads, ")


def test_limit_is_checked() -> None:
    """A group needs a thread at least."""
    with pytest.raises(ValueError, match="at least 1"):
        WorkerGroup("test", limit=0)


def test_limit_may_be_raised(make: Any) -> None:
    """Jobs that wait for a thread have one as soon as there may be more."""
    group = make(limit=1)
    first, second = hold(group), Held()
    group.submit(second)
    assert group.waiting == 1
    group.limit = 2
    second.wait_begun()
    assert (group.limit, group.threads) == (2, 2)
    first.let_go()
    second.let_go()


def test_limit_may_be_lowered(make: Any) -> None:
    """Threads beyond a lower limit end when they have nothing to do."""
    group = make(limit=2)
    first, second = hold(group), hold(group)
    group.limit = 1
    first.let_go()
    second.let_go()
    eventually(lambda: group.threads == 1)
    group.submit(work := Work())
    work.wait()
    assert group.threads == 1


def test_a_new_limit_is_checked(make: Any) -> None:
    """What is no number of threads is refused; a group of one thread keeps it."""
    group = make()
    for limit, error in [(0, ValueError), (True, TypeError), (1.5, TypeError)]:
        with pytest.raises(error):
            group.limit = limit
    assert group.limit == 4
    with pytest.raises(ValueError, match="a group of one has 1"):
        named_group("test").limit = 2


def test_idle_threads_are_reused_last_in_first_out(make: Any) -> None:
    """The thread that became idle last gets the next job, so that the others grow old and end."""
    group = make(limit=3)
    held = [hold(group) for _ in range(3)]
    for number, place in enumerate((1, 2, 0), 1):
        held[place].let_go()
        eventually(lambda number=number: len(group._idle) == number)
    again = [hold(group) for _ in range(3)]
    assert [job.thread for job in again] == [held[place].thread for place in (0, 2, 1)]
    for job in again:
        job.let_go()


def test_growth_is_bounded(make: Any) -> None:
    """No more threads than the limit; what finds none waits for one of them."""
    group = make(limit=3)
    held = [Held() for _ in range(10)]
    for job in held:
        group.submit(job)
    eventually(lambda: sum(job.begun.is_set() for job in held) == 3)
    assert (group.threads, group.waiting, group.limit) == (3, 7, 3)
    group._check()
    for job in held:
        job.let_go()
    assert group.threads == 3
    assert len({job.thread for job in held}) == 3


def test_blocking_jobs_spread(make: Any) -> None:
    """Twenty jobs that wait for each other get twenty threads: each that arrives wakes the next."""
    group = make(limit=20)
    barrier = threading.Barrier(20)
    jobs = [Work(lambda: barrier.wait(SECONDS)) for _ in range(20)]
    for _ in range(2):  # the second time, with threads that are idle
        for job in jobs:
            job.ended.clear()
            group.submit(job)
        for job in jobs:
            job.wait()
        eventually(lambda: len(group._idle) == 20)
    assert group.threads == 20


@pytest.mark.parametrize("searcher", ["new", "idle"])
def test_push_while_searching_is_seen(make: Any, searcher: str) -> None:
    """While one thread is on its way to the queue nobody else is woken, and it sees all that was pushed meanwhile.

    worker: started or woken            caller:
                                        caller: push, reads searching: wakes nobody (ten times)
    worker: takes the lock, searching = False, finds the first of the jobs, and summons the next thread
    """
    group = make(limit=2)
    if searcher == "idle":
        held = [hold(group), hold(group)]
        for job in held:
            job.let_go()
        eventually(lambda: len(group._idle) == 2)
    may_look = threading.Event()

    def hook() -> None:
        if threading.current_thread().name.startswith("threadlets-test-"):
            assert may_look.wait(SECONDS)

    with group._lock:
        group._lock = HookedLock(hook)
    jobs = [Work() for _ in range(10)]
    for job in jobs:
        group.submit(job)
    assert group._searching
    assert group.waiting == 10
    assert group.threads - len(group._idle) == 1
    may_look.set()
    for job in jobs:
        job.wait()


def test_priorities(make: Any) -> None:
    """What waits runs by priority, then in the order given; it can be re-keyed and removed until a thread takes it."""
    group = make(limit=1)
    held = hold(group)
    ran: list[str] = []
    jobs = {
        name: Work(lambda name=name: ran.append(name), priority)
        for name, priority in {"late": 9, "b": 2, "c": 2, "gone": 1, "a": 7, "never": 3}.items()
    }
    for job in jobs.values():
        group.submit(job, job.priority)
    assert group.rekey(jobs["a"], -1.5)
    assert group.remove(jobs["gone"])
    assert not group.remove(jobs["gone"])
    assert not group.rekey(jobs["gone"], 0)
    assert group.remove(jobs["never"])
    assert not group.remove(held)
    assert not group.rekey(held, 5)
    group._check()
    held.let_go()
    jobs["late"].wait()
    assert ran == ["a", "b", "c", "late"]


def test_memory(make: Any) -> None:
    """A job that ran or was removed is freed at once, though its thread stays and waits."""
    group = make(limit=1)
    gc.disable()
    try:
        held, removed = hold(group), Work()
        group.submit(removed)
        assert group.remove(removed)
        refs = [weakref.ref(held), weakref.ref(removed)]
        held.let_go()
        del held, removed
        eventually(lambda: group._idle)
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()


def test_call(make: Any) -> None:
    """``call`` returns what the function returns and raises what it raises, whatever that is."""
    group = make(limit=1)
    assert group.call(threading.get_ident) != threading.get_ident()
    for error in (ValueError("value"), KeyboardInterrupt("key"), SystemExit(3), StopIteration(4)):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            group.call(fail)
        assert caught.value is error
    assert group.threads == 1, "no error ends the thread"


def test_call_from_the_groups_own_thread(make: Any) -> None:
    """On a thread of the group, ``call`` calls right there: with one thread it would wait for itself for ever."""
    group, other = make(limit=1), make(limit=1)

    def nested() -> tuple[int, int, int]:
        return threading.get_ident(), group.call(threading.get_ident), other.call(threading.get_ident)

    own, same, others = group.call(nested)
    assert own == same != others


def test_named_groups() -> None:
    """One name is one group of one lasting thread; the shared group is another one."""
    group = named_group("tests of names")
    assert named_group("tests of names") is group
    assert named_group("tests of other names") is not group
    assert (group.limit, group._idle_seconds) == (1, -1)
    assert shared_group() is shared_group() is not group


@pytest.mark.parametrize("limit", [1, 3, 16])
def test_every_job_runs_once(make: Any, limit: int) -> None:
    """Of thousands of jobs from many threads, each runs exactly once, or was removed and never runs."""
    group = make(limit=limit, idle_seconds=0.001)
    ran: list[int] = []
    removed: list[int] = []
    seed = 64 + limit
    print(f"seed={seed}")

    def submit(number: int) -> None:
        chance = random.Random(seed + number)
        waiting: list[tuple[int, Work]] = []
        for name in range(number * 500, (number + 1) * 500):
            job = Work(lambda name=name: ran.append(name), chance.randrange(3))
            waiting.append((name, job))
            group.submit(job, job.priority)
            if chance.random() < 0.2:
                name, job = chance.choice(waiting)
                if chance.random() < 0.5:
                    group.rekey(job, chance.random())
                elif group.remove(job):
                    removed.append(name)
            if chance.random() < 0.01:
                group._check()

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: len(ran) + len(removed) >= 4000)
    assert sorted(ran + removed) == list(range(4000))
