"""The situations with jobs of aiojobs: tasks of asyncio that a scheduler closes.

To close a job is to cancel its task and to wait until that has ended: for a tenth of a second by default, then it is
cancelled once more and ``TimeoutError`` is raised. What ``Scheduler.shield`` protects is known to the scheduler, whose
``wait_and_close`` waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from .situations_facts import LONG, Again, Cells, Gate, Hangs, Queued, Section, stuck, watched
from .situations_tasks import Asyncio, Work, until

__all__ = ["AioJobs"]


class AioJobs(Asyncio):
    """aiojobs: jobs of a scheduler."""

    tool = ""

    def __init__(self) -> None:
        from aiojobs import Scheduler

        self.make = Scheduler
        self._scheduler: Scheduler | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def scheduler(self) -> Any:
        """One with the defaults, but for its limit."""
        if self._scheduler is None:
            self._scheduler = self.make(limit=None)
        return self._scheduler

    async def start(self, coroutine: Coroutine[Any, Any, Any]) -> Work:
        work = Work()
        work.task = await self.scheduler.spawn(work.run(coroutine))
        return work

    def cancel(self, work: Work, reason: str | None = None) -> None:
        """Close the job: there is no place for a reason."""
        self._closing.add(asyncio.create_task(work.task.close()))

    async def queued(self) -> Cells:
        scheduler, gate = self.make(limit=1), Gate()
        ran: list[object] = []
        await scheduler.spawn(asyncio.to_thread(gate))
        token, freed = watched()
        job = await scheduler.spawn(asyncio.to_thread(ran.append, token))
        del token
        await until(lambda: gate.arrived)
        await job.close()
        is_freed = freed()
        last = await scheduler.spawn(asyncio.to_thread(int))
        gate.open()
        await last.wait()
        return Queued(bool(ran), is_freed)

    async def thread(self) -> Cells:
        self._scheduler = self.make(limit=1)
        return await self.observe_thread(asyncio.to_thread, Gate(), Gate())

    async def section(self) -> Cells:
        """What the scheduler shields, ``wait_and_close`` waits for."""
        return {
            "": await self.observe_section(lambda inner: inner),
            "`Scheduler.shield` and `wait_and_close`": await self.observe_shielded_section(),
        }

    async def observe_shielded_section(self) -> Section:
        lock, go = asyncio.Lock(), asyncio.Event()
        steps: list[str] = []

        async def both() -> None:
            async with lock:
                steps.append("first")
                await go.wait()
                steps.append("second")

        async def use() -> None:
            await self.scheduler.shield(both())

        work = await self.start(use())
        await until(lambda: steps)
        self.cancel(work)
        await until(lambda: work.ended)
        closing = asyncio.create_task(self.scheduler.wait_and_close())
        early = await until(closing.done)
        go.set()
        await until(closing.done)
        return Section("second" in steps, not early)

    async def again(self) -> Cells:
        """A second ``job.close()`` does nothing; ``Scheduler.close()`` is what cancels once more."""
        return {
            "": await self.observe_closing(lambda inner: inner, "close"),
            "`Scheduler.shield` and `wait_and_close`": await self.observe_closing(
                lambda inner: self.scheduler.shield(inner), "wait_and_close"
            ),
        }

    async def observe_closing(self, protect: Callable[[Any], Any], close: str) -> Again:
        go = asyncio.Event()
        steps: list[str] = []
        self._scheduler = self.make()

        async def clean() -> None:
            steps.append("first")
            await go.wait()
            steps.append("second")

        async def use() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await protect(clean())

        work = await self.start(use())
        await asyncio.sleep(0.01)
        self.cancel(work)
        await until(lambda: steps)
        closing = asyncio.create_task(getattr(self.scheduler, close)())
        early = await until(closing.done)
        go.set()
        await until(closing.done)
        return Again("second" in steps, not early)

    async def hangs(self) -> Cells:
        async def hang() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.Event().wait()

        work = await self.start(hang())
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(work.task.close())
        ended = await until(lambda: work.ended and closing.done(), seconds=LONG)
        error = closing.exception() if closing.done() else None
        return Hangs(ended, "" if error is None else type(error).__name__)

    def program(self, tool: str) -> None:
        """Wait for a job that waits for a thread, until a signal comes."""

        async def work() -> None:
            try:
                await asyncio.to_thread(stuck)
            finally:
                print("cleaned", flush=True)

        async def main() -> None:
            scheduler = self.make()
            try:
                job = await scheduler.spawn(work())
                await job.wait()
            finally:
                await scheduler.close()

        asyncio.run(main())
