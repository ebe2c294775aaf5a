"""What people build today, each as well as it can be done.

A way that has a word for an operation uses it. Where it has none, but the user can do it by hand - keep a list of tasks
for each tag, mark an entry of a heap as dead - it is done by hand, in the manner of the standard library's
documentation. The lists are never cleaned up, which favours these ways a little.

What is not alike: our pool, and the ways of ``asyncio``, ``anyio`` and ``aiojobs``, give a handle with a result for
each item, and a task of its own. The workers give no task, and only one kind of them a result; ``aiometer.run_on_each``
gives no handle. ``asynkit`` has no limit: there the event loop itself is the queue.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any, TypeVar

from .ways import CLASSES, LIMIT, TAGS, Way

__all__ = ["RIVALS"]

T = TypeVar("T")

FEW = (
    300  # arbitrary: how many are cancelled where each one costs time in proportion to all: a million would take hours
)


def few(items: Sequence[T]) -> Sequence[T]:
    """Return some of them, from all over.

    >>> few(range(1200))[:3]
    range(0, 12, 4)
    """
    return items[:: max(1, len(items) // FEW)]


class TasksBySemaphore(Way):
    """A task for each item, which waits for a semaphore."""

    name = "TaskGroup + Semaphore"

    async def open(self) -> None:
        self.semaphore = asyncio.Semaphore(LIMIT)
        self.group = await asyncio.TaskGroup().__aenter__()
        self.tagged: defaultdict[int, list[asyncio.Task[None]]] = defaultdict(list)
        for _ in range(LIMIT):
            self.group.create_task(self.limited(self.block))
        await self.settle()

    async def limited(self, function: Callable[..., Coroutine[Any, Any, None]], *args: int) -> None:
        """Run in turn; the coroutine is made when it is this one's turn."""
        async with self.semaphore:
            await function(*args)

    async def start(self, numbers: Iterable[int]) -> None:
        create_task, limited, work = self.group.create_task, self.limited, self.work
        for number in numbers:
            create_task(limited(work, number))

    async def start_tagged(self, numbers: Iterable[int]) -> None:
        create_task, limited, work, tagged = self.group.create_task, self.limited, self.work, self.tagged
        for number in numbers:
            tagged[number % TAGS].append(create_task(limited(work, number)))

    async def select(self, tag: int) -> int:
        """By hand: a list for each tag."""
        return len([task for task in self.tagged[tag] if not task.done()])

    async def cancel(self, tag: int) -> int:
        """By hand, a few: the semaphore searches all its waiters for each one that leaves."""
        tasks = few(self.tagged[tag])
        for task in tasks:
            task.cancel()
        await self.settle()
        return sum([task.cancelled() for task in tasks])

    async def drain(self) -> None:
        self.gate.set_result(None)
        await self.group.__aexit__(None, None, None)


class AioJobs(Way):
    """``aiojobs.Scheduler``: it has its own limit, and jobs that can be closed."""

    name = "aiojobs"
    package = "aiojobs"

    async def open(self) -> None:
        from aiojobs import Job, Scheduler

        self.scheduler = Scheduler(limit=LIMIT, pending_limit=0, close_timeout=None)  # 0: no limit
        self.tagged: defaultdict[int, list[Job[None]]] = defaultdict(list)
        self.expected = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for _ in range(LIMIT):
            await self.scheduler.spawn(self.block())

    async def counted(self, number: int) -> None:
        """Tell when the last one has run: cheaper than ``wait_and_close()``, which makes a task for each job."""
        await self.work(number)
        if self.ran == self.expected:
            self.ended.set_result(None)

    async def start(self, numbers: Iterable[int]) -> None:
        spawn, counted = self.scheduler.spawn, self.counted
        for number in numbers:
            await spawn(counted(number))
        self.expected = len(self.scheduler) - LIMIT

    async def start_tagged(self, numbers: Iterable[int]) -> None:
        spawn, counted, tagged = self.scheduler.spawn, self.counted, self.tagged
        for number in numbers:
            tagged[number % TAGS].append(await spawn(counted(number)))
        self.expected = len(self.scheduler) - LIMIT

    async def select(self, tag: int) -> int:
        """By hand: a list for each tag."""
        return len([job for job in self.tagged[tag] if job.pending])

    async def cancel(self, tag: int) -> int:
        """By hand: to close a pending job makes its task, and cancels it; and others start beyond the limit."""
        jobs = self.tagged[tag]
        self.expected -= len(jobs)
        await asyncio.gather(*[job.close() for job in jobs])
        return sum([job.closed for job in jobs])

    async def drain(self) -> None:
        self.gate.set_result(None)
        if self.ran < self.expected:
            await self.ended
        await self.settle()  # the task that has told so ends, too
        await self.scheduler.close()


class AioMeter(Way):
    """``aiometer.run_on_each``: it is given all arguments at once, and can be given no others."""

    name = "aiometer"
    package = "aiometer"

    async def open(self) -> None:
        pass  # what holds the places is a part of the arguments

    async def either(self, number: int) -> None:
        """Hold a place, or work."""
        await (self.block() if number < 0 else self.work(number))

    async def start(self, numbers: Iterable[int]) -> None:
        from aiometer import run_on_each

        arguments = [-1] * LIMIT
        arguments.extend(numbers)
        self.task = asyncio.create_task(run_on_each(self.either, arguments, max_at_once=LIMIT))

    async def drain(self) -> None:
        self.gate.set_result(None)
        await self.task


class AnyioLimiter(Way):
    """A task for each item, which waits for a ``CapacityLimiter``."""

    name = "anyio + CapacityLimiter"
    package = "anyio"

    async def open(self) -> None:
        from anyio import CapacityLimiter, TaskHandle, create_task_group

        self.limiter = CapacityLimiter(LIMIT)
        self.group = await create_task_group().__aenter__()
        self.tagged: defaultdict[int, list[TaskHandle[None]]] = defaultdict(list)
        for _ in range(LIMIT):
            self.group.start_soon(self.limited, self.block)
        await self.settle()

    async def limited(self, function: Callable[..., Coroutine[Any, Any, None]], *args: int) -> None:
        """Run in turn."""
        async with self.limiter:
            await function(*args)

    async def start(self, numbers: Iterable[int]) -> None:
        start_soon, limited, work = self.group.start_soon, self.limited, self.work
        for number in numbers:
            start_soon(limited, work, number)

    async def start_tagged(self, numbers: Iterable[int]) -> None:
        start_soon, limited, work, tagged = self.group.start_soon, self.limited, self.work, self.tagged
        for number in numbers:
            tagged[number % TAGS].append(start_soon(limited, work, number))

    async def select(self, tag: int) -> int:
        """By hand: a list for each tag."""
        from anyio import TaskHandle

        pending = TaskHandle.Status.PENDING
        return len([handle for handle in self.tagged[tag] if handle.status is pending])

    async def cancel(self, tag: int) -> int:
        """By hand."""
        from anyio import TaskHandle

        handles = self.tagged[tag]
        for handle in handles:
            handle.cancel()
        await self.settle()
        cancelled = TaskHandle.Status.CANCELLED
        return len([handle for handle in handles if handle.status is cancelled])

    async def drain(self) -> None:
        self.gate.set_result(None)
        await self.group.__aexit__(None, None, None)


class Workers(Way):
    """Tasks that take entries from an ``asyncio.PriorityQueue``; dead entries stay in, as heapq's documentation has it.

    An entry is ``[priority, order, function, argument]``, and dead once it has no function.
    """

    name = "workers + PriorityQueue"

    async def open(self) -> None:
        self.queue: asyncio.PriorityQueue[list[Any]] = asyncio.PriorityQueue()
        self.tagged: defaultdict[int, list[list[Any]]] = defaultdict(list)
        self.order = count()
        self.workers = [asyncio.create_task(self.take()) for _ in range(LIMIT)]
        for _ in range(LIMIT):
            self.queue.put_nowait([0, next(self.order), self.block_as_work, 0])
        await self.settle()

    async def block_as_work(self, _: int) -> None:
        """Hold a place."""
        await self.gate

    async def take(self) -> None:
        """Be a worker."""
        get, task_done = self.queue.get, self.queue.task_done
        while True:
            entry = await get()
            function = entry[2]
            if function is not None:
                entry[2] = None
                await function(entry[3])
            task_done()

    async def start(self, numbers: Iterable[int]) -> None:
        put_nowait, order, work = self.queue.put_nowait, self.order, self.work
        for number in numbers:
            put_nowait([0, next(order), work, number])

    async def start_tagged(self, numbers: Iterable[int]) -> None:
        put_nowait, order, work, tagged = self.queue.put_nowait, self.order, self.work, self.tagged
        for number in numbers:
            entry = [number % CLASSES, next(order), work, number]
            tagged[number % TAGS].append(entry)
            put_nowait(entry)

    async def select(self, tag: int) -> int:
        """By hand: a list for each tag."""
        return len([entry for entry in self.tagged[tag] if entry[2] is not None])

    async def rekey(self, tag: int, priority: float) -> int:
        """By hand: a new entry for each, and the old one is dead."""
        put_nowait, entries = self.queue.put_nowait, self.tagged[tag]
        alive = [[priority, *entry[1:]] for entry in entries if entry[2] is not None]
        for old in entries:
            old[2] = None
        for entry in alive:
            put_nowait(entry)
        self.tagged[tag] = alive
        return len(alive)

    async def cancel(self, tag: int) -> int:
        """By hand: the entries are dead, and stay where they are."""
        cancelled = 0
        for entry in self.tagged.pop(tag):
            cancelled += entry[2] is not None
            entry[2] = entry[3] = None
        return cancelled

    async def drain(self) -> None:
        self.gate.set_result(None)
        await self.queue.join()
        for worker in self.workers:
            worker.cancel()


class AnsweringWorkers(Workers):
    """The same with a future for each item, which has its result and can be cancelled."""

    name = "workers with futures"

    async def answer(self, letter: tuple[asyncio.Future[None], int]) -> None:
        """Work, and tell how it went."""
        future, number = letter
        try:
            await self.work(number)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    async def start(self, numbers: Iterable[int]) -> None:
        put_nowait, order, answer = self.queue.put_nowait, self.order, self.answer
        create_future = asyncio.get_running_loop().create_future
        for number in numbers:
            put_nowait([0, next(order), answer, (create_future(), number)])

    async def start_tagged(self, numbers: Iterable[int]) -> None:
        put_nowait, order, answer, tagged = self.queue.put_nowait, self.order, self.answer, self.tagged
        create_future = asyncio.get_running_loop().create_future
        for number in numbers:
            entry = [number % CLASSES, next(order), answer, (create_future(), number)]
            tagged[number % TAGS].append(entry)
            put_nowait(entry)

    async def cancel(self, tag: int) -> int:
        """By hand."""
        for entry in self.tagged[tag]:
            if entry[2] is not None:
                entry[3][0].cancel()
        return await super().cancel(tag)


class AsynKit(Way):
    """A ``PriorityTask`` for each item: the loop's queue of what may run is in order of priority; there is no limit."""

    name = "asynkit PriorityTask"
    package = "asynkit"

    @staticmethod
    def make_loop(kind: str) -> asyncio.AbstractEventLoop:
        from asynkit.experimental.priority import PrioritySelectorEventLoop

        loop: asyncio.AbstractEventLoop = PrioritySelectorEventLoop()
        return loop

    async def open(self) -> None:
        from asynkit.experimental.priority import PriorityTask

        self.make: Callable[..., Any] = partial(PriorityTask, loop=asyncio.get_running_loop())
        self.tasks: set[asyncio.Task[None]] = set()  # as asyncio's documentation asks for
        self.tagged: defaultdict[int, list[Any]] = defaultdict(list)

    async def start(self, numbers: Iterable[int]) -> None:
        make, work, tasks = self.make, self.work, self.tasks
        for number in numbers:
            task = make(work(number), priority=1)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def start_tagged(self, numbers: Iterable[int]) -> None:
        make, work, tasks, tagged = self.make, self.work, self.tasks, self.tagged
        for number in numbers:
            task = make(work(number), priority=1 + number % CLASSES)
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            tagged[number % TAGS].append(task)

    async def select(self, tag: int) -> int:
        """By hand: a list for each tag."""
        return len([task for task in self.tagged[tag] if not task.done()])

    async def rekey(self, tag: int, priority: float) -> int:
        """All at once: to reschedule a single task, it looks at all."""
        loop: Any = asyncio.get_running_loop()
        for task in self.tagged[tag]:
            task.priority_value = 1 + priority
        loop.ready_queue.reschedule_all()
        return len(self.tagged[tag])

    async def cancel(self, tag: int) -> int:
        """By hand; it ends when its turn comes."""
        return sum([task.cancel() for task in self.tagged[tag]])

    async def settle(self) -> None:
        """Do nothing: everything would run."""

    async def drain(self) -> None:
        while self.tasks:
            await asyncio.wait(self.tasks)


RIVALS: tuple[type[Way], ...] = (
    TasksBySemaphore,
    AioJobs,
    AioMeter,
    AnyioLimiter,
    Workers,
    AnsweringWorkers,
    AsynKit,
)
