"""The situations with tasks of asyncio.

What asyncio has for blocking functions is an executor; ``asyncio.to_thread`` uses the loop's own. Its tool for what
must not be broken off is ``asyncio.shield``: who waits for it is told at once, and what is inside goes on.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any, ClassVar

from .situations_facts import (
    LONG,
    REASON,
    SHORT,
    Again,
    Cells,
    Gate,
    Hangs,
    Lock,
    Loop,
    Queued,
    Recv,
    Returned,
    Section,
    Spin,
    Suspended,
    Thread,
    eventually,
    fail,
    how_both,
    stuck,
    watched,
)

__all__ = ["Asyncio", "Work", "until"]

until = partial(eventually, sleep=asyncio.sleep)


class Work:
    """A coroutine that runs as a task, and what has become of it."""

    def __init__(self) -> None:
        self.ended = False
        self.error: BaseException | None = None
        self.result: Any = None
        self.task: Any = None  # a task, or a job

    async def run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            self.result = await coroutine
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ended = True


class Asyncio:
    """asyncio by itself."""

    tool = "`add_signal_handler`"
    absent: ClassVar[dict[str, str]] = {}

    def run(self, situation: Callable[[], Coroutine[Any, Any, Cells]], report: Callable[[Cells], None]) -> None:
        async def main() -> None:
            report(await situation())

        asyncio.run(main())

    async def start(self, coroutine: Coroutine[Any, Any, Any]) -> Work:
        work = Work()
        work.task = asyncio.create_task(work.run(coroutine))
        return work

    def cancel(self, work: Work, reason: str | None = None) -> None:
        work.task.cancel(reason)

    # ---------------------------------------------------------------------------------------------------- situations

    async def queued(self) -> Cells:
        """The only thread of an executor is busy."""
        loop, executor, gate = asyncio.get_running_loop(), ThreadPoolExecutor(1), Gate()
        ran: list[object] = []
        first = loop.run_in_executor(executor, gate)
        token, freed = watched()
        second = loop.run_in_executor(executor, ran.append, token)
        del token
        await until(lambda: gate.arrived)
        second.cancel()
        with suppress(asyncio.CancelledError):
            await second
        is_freed = freed()
        gate.open()
        await first
        await loop.run_in_executor(executor, int)
        return Queued(bool(ran), is_freed)

    async def suspended(self) -> Cells:
        seen: list[str] = []

        async def wait() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                seen.append(str(error))
                raise
            finally:
                seen.append("cleaned")

        work = await self.start(wait())
        await asyncio.sleep(0.01)
        self.cancel(work, REASON)
        await until(lambda: work.ended)
        return Suspended("cleaned" in seen, any(REASON in each for each in seen))

    async def returned(self) -> Cells:
        gate = Gate()
        work = await self.start(asyncio.to_thread(gate, "result"))
        await until(lambda: gate.arrived)
        gate.open()
        gate.returned.wait()  # the loop stands still meanwhile
        self.cancel(work)
        await until(lambda: work.ended)
        return Returned(work.result is not None, work.error is not None)

    async def thread(self) -> Cells:
        loop, executor, gate, following = asyncio.get_running_loop(), ThreadPoolExecutor(1), Gate(), Gate()

        async def call(function: Gate) -> None:
            await loop.run_in_executor(executor, function)

        return await self.observe_thread(call, gate, following)

    async def observe_thread(self, call: Callable[[Gate], Any], gate: Gate, following: Gate) -> Thread:
        first = await self.start(call(gate))
        await until(lambda: gate.arrived)
        await self.start(call(following))
        self.cancel(first)
        at_once = await until(lambda: first.ended)
        beside = at_once and await until(lambda: following.arrived)
        gate.open()
        following.open()
        return Thread(at_once, beside)

    async def loop(self) -> Cells:
        spin = Spin()
        work = await self.start(asyncio.to_thread(spin))
        await until(lambda: spin.rounds)
        self.cancel(work)
        await until(spin.decided())
        spin.out.set()
        return Loop(spin.stopped)

    async def recv(self) -> Cells:
        here, there = socket.socketpair()
        begun, ended = threading.Event(), threading.Event()

        def receive() -> None:
            begun.set()
            try:
                here.recv(1)
            finally:
                ended.set()

        work = await self.start(asyncio.to_thread(receive))
        await until(begun.is_set)
        self.cancel(work)
        await until(lambda: work.ended and ended.is_set())
        facts = Recv(work.ended, ended.is_set())
        there.send(b"x")
        return facts

    async def lock(self) -> Cells:
        lock, begun, ended = threading.Lock(), threading.Event(), threading.Event()

        def acquire() -> None:
            begun.set()
            lock.acquire()
            ended.set()

        async def use() -> None:
            await asyncio.to_thread(acquire)
            try:
                pass
            finally:
                lock.release()

        lock.acquire()
        work = await self.start(use())
        await until(begun.is_set)
        self.cancel(work)
        at_once = await until(lambda: work.ended)
        lock.release()
        await until(lambda: work.ended and ended.is_set())
        return Lock(at_once, lock.locked())

    async def section(self) -> Cells:
        return {
            "": await self.observe_section(lambda inner: inner),
            "`shield`": await self.observe_section(asyncio.shield),
        }

    async def observe_section(self, protect: Callable[[Coroutine[Any, Any, None]], Any]) -> Section:
        lock, go = asyncio.Lock(), asyncio.Event()
        steps: list[str] = []

        async def both() -> None:
            async with lock:
                steps.append("first")
                await go.wait()
                steps.append("second")

        async def use() -> None:
            await protect(both())

        work = await self.start(use())
        await until(lambda: steps)
        self.cancel(work)
        early = await until(lambda: work.ended)
        go.set()
        whole = await until(lambda: "second" in steps)
        return Section(whole, not early)

    async def again(self) -> Cells:
        return {
            "": await self.observe_again(lambda inner: inner),
            "`shield`": await self.observe_again(asyncio.shield),
        }

    async def observe_again(self, protect: Callable[[Coroutine[Any, Any, None]], Any]) -> Again:
        go = asyncio.Event()
        steps: list[str] = []

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
        self.cancel(work)
        early = await until(lambda: work.ended)
        go.set()
        whole = await until(lambda: "second" in steps)
        return Again(whole, not early)

    async def hangs(self) -> Cells:
        async def hang() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.Event().wait()

        async def hang_a_while() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                async with asyncio.timeout(SHORT):
                    await asyncio.Event().wait()

        plainly, limited = await asyncio.gather(self.observe_hang(hang()), self.observe_hang(hang_a_while()))
        return {"": plainly, "`timeout`": limited}

    async def observe_hang(self, coroutine: Coroutine[Any, Any, None]) -> Hangs:
        work = await self.start(coroutine)
        await asyncio.sleep(0.01)
        self.cancel(work)
        ended = await until(lambda: work.ended, seconds=LONG)
        error = work.error
        return Hangs(ended, "" if isinstance(error, asyncio.CancelledError | None) else type(error).__name__)

    async def errors(self) -> Cells:
        work = await self.start(wait_and_fail())
        await asyncio.sleep(0.01)
        self.cancel(work)
        await until(lambda: work.ended)
        return how_both(work.error)

    def program(self, tool: str) -> None:
        """Wait for a thread, as a program, until a signal comes; ``tool``: with what asyncio has for SIGTERM."""

        async def main() -> None:
            if tool:
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
            try:
                await asyncio.to_thread(stuck)
            finally:
                print("cleaned", flush=True)

        with suppress(asyncio.CancelledError):
            asyncio.run(main())
        if tool:
            raise SystemExit(128 + signal.SIGTERM)


async def wait_and_fail() -> None:
    """Wait until cancelled; then two steps of cleanup fail."""
    async with AsyncExitStack() as stack:
        stack.callback(fail, "outer")
        stack.callback(fail, "inner")
        await asyncio.Event().wait()
