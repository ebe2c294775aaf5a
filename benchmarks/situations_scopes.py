"""The situations with the cancel scopes of anyio and of trio, which have the same words for nearly everything.

A scope is cancelled for good: each await inside raises, until the scope is left. What must not be broken off goes into
a scope with ``shield=True``. A thread is waited for to its end, unless the call says ``abandon_on_cancel``; it may ask
with ``check_cancelled``, and await with ``from_thread.run``.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from importlib import import_module
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

__all__ = ["AnyIO", "Trio"]


class Work:
    """A task in a scope of its own, and what has become of it."""

    def __init__(self, scope: Any) -> None:
        self.scope = scope
        self.ended = False
        self.error: BaseException | None = None
        self.result: Any = None

    async def run(self, function: Callable[..., Awaitable[Any]]) -> None:
        try:
            with self.scope:
                self.result = await function()
        except Exception as error:
            self.error = error
        finally:
            self.ended = True


class Scopes:
    """What both have in common; ``self.lib`` is the library."""

    tool = "`open_signal_receiver` and `abandon_on_cancel`"
    absent: ClassVar[dict[str, str]] = {}
    name: str

    def __init__(self) -> None:
        self.lib: Any = import_module(self.name)
        self.group: Any = None
        self.to_thread = self.lib.to_thread.run_sync
        self.check = self.lib.from_thread.check_cancelled
        self.until = partial(eventually, sleep=self.lib.sleep)

    def new_group(self) -> Any:
        raise NotImplementedError

    async def wait_readable(self, what: socket.socket) -> None:
        raise NotImplementedError

    def run(self, situation: Callable[[], Coroutine[Any, Any, Cells]], report: Callable[[Cells], None]) -> None:
        async def main() -> None:
            async with self.new_group() as self.group:
                report(await situation())

        self.lib.run(main)

    def start(self, function: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Work:
        work = Work(self.lib.CancelScope())
        self.group.start_soon(work.run, partial(function, *args, **options))
        return work

    def shielded(self) -> Any:
        return self.lib.CancelScope(shield=True)

    # ---------------------------------------------------------------------------------------------------- situations

    async def queued(self) -> Cells:
        """The only token of a limiter is taken."""
        limiter, gate = self.lib.CapacityLimiter(1), Gate()
        ran: list[object] = []
        self.start(self.to_thread, gate, limiter=limiter)
        await self.until(lambda: gate.arrived)
        token, freed = watched()
        second = self.start(self.to_thread, ran.append, token, limiter=limiter)
        del token
        await self.until(lambda: limiter.statistics().tasks_waiting)
        second.scope.cancel()
        await self.until(lambda: second.ended)
        is_freed = freed()
        gate.open()
        await self.to_thread(int, limiter=limiter)
        return Queued(bool(ran), is_freed)

    async def suspended(self) -> Cells:
        seen: list[str] = []

        async def wait() -> None:
            try:
                await self.lib.sleep_forever()
            except BaseException as error:
                seen.append(str(error))
                raise
            finally:
                seen.append("cleaned")

        work = self.start(wait)
        await self.lib.sleep(0.01)
        work.scope.cancel(REASON)
        await self.until(lambda: work.ended)
        return Suspended("cleaned" in seen, any(REASON in each for each in seen))

    async def returned(self) -> Cells:
        gate = Gate()
        got: list[object] = []

        async def call() -> None:
            got.append(await self.to_thread(gate, "result"))
            await self.lib.sleep(0)

        work = self.start(call)
        await self.until(lambda: gate.arrived)
        gate.open()
        gate.returned.wait()  # the loop stands still meanwhile
        work.scope.cancel()
        await self.until(lambda: work.ended)
        return Returned(bool(got), work.scope.cancelled_caught)

    async def thread(self) -> Cells:
        return {"": await self.observe_thread(False), "`abandon_on_cancel`": await self.observe_thread(True)}

    async def observe_thread(self, abandon: bool) -> Thread:
        limiter, gate, following = self.lib.CapacityLimiter(1), Gate(), Gate()
        first = self.start(self.to_thread, gate, limiter=limiter, abandon_on_cancel=abandon)
        await self.until(lambda: gate.arrived)
        self.start(self.to_thread, following, limiter=limiter)
        first.scope.cancel()
        at_once = await self.until(lambda: first.ended)
        beside = at_once and await self.until(lambda: following.arrived)
        gate.open()
        following.open()
        return Thread(at_once, beside)

    async def loop(self) -> Cells:
        spin = Spin(self.check)
        work = self.start(self.to_thread, spin)
        await self.until(lambda: spin.rounds)
        work.scope.cancel()
        await self.until(spin.decided())
        spin.out.set()
        return {"`check_cancelled`": Loop(spin.stopped)}

    async def recv(self) -> Cells:
        def receive(here: socket.socket) -> None:
            here.recv(1)

        def wait_and_receive(here: socket.socket) -> None:
            self.lib.from_thread.run(self.wait_readable, here)
            here.recv(1)

        return {
            "": await self.observe_recv(receive),
            "`from_thread.run(wait_readable, ...)`": await self.observe_recv(wait_and_receive),
        }

    async def observe_recv(self, function: Callable[[socket.socket], None]) -> Recv:
        here, there = socket.socketpair()
        begun, ended = threading.Event(), threading.Event()

        def receive() -> None:
            begun.set()
            try:
                function(here)
            finally:
                ended.set()

        work = self.start(self.to_thread, receive)
        await self.until(begun.is_set)
        work.scope.cancel()
        await self.until(lambda: work.ended and ended.is_set())
        facts = Recv(work.ended, ended.is_set())
        there.send(b"x")
        return facts

    async def lock(self) -> Cells:
        def acquire(lock: threading.Lock) -> None:
            lock.acquire()

        def acquire_politely(lock: threading.Lock) -> None:
            while not lock.acquire(timeout=0.01):
                self.check()

        return {
            "": await self.observe_lock(acquire),
            "`check_cancelled` now and then": await self.observe_lock(acquire_politely),
        }

    async def observe_lock(self, acquire: Callable[[threading.Lock], None]) -> Lock:
        lock, begun = threading.Lock(), threading.Event()

        def acquire_here() -> None:
            begun.set()
            acquire(lock)

        async def use() -> None:
            await self.to_thread(acquire_here)
            try:
                pass
            finally:
                lock.release()

        lock.acquire()
        work = self.start(use)
        await self.until(begun.is_set)
        work.scope.cancel()
        at_once = await self.until(lambda: work.ended)
        lock.release()
        await self.until(lambda: work.ended)
        return Lock(at_once, lock.locked())

    async def section(self) -> Cells:
        return {"": await self.observe_section(nullcontext), "`shield=True`": await self.observe_section(self.shielded)}

    async def observe_section(self, protection: Callable[[], Any]) -> Section:
        lock, go = self.lib.Lock(), self.lib.Event()
        steps: list[str] = []

        async def use() -> None:
            async with lock:
                with protection():
                    steps.append("first")
                    await go.wait()
                    steps.append("second")

        work = self.start(use)
        await self.until(lambda: steps)
        work.scope.cancel()
        early = await self.until(lambda: work.ended)
        go.set()
        whole = await self.until(lambda: "second" in steps)
        return Section(whole, not early)

    async def again(self) -> Cells:
        return {"": await self.observe_again(nullcontext), "`shield=True`": await self.observe_again(self.shielded)}

    async def observe_again(self, protection: Callable[[], Any]) -> Again:
        go = self.lib.Event()
        steps: list[str] = []

        async def use() -> None:
            try:
                await self.lib.sleep_forever()
            finally:
                with protection():
                    steps.append("first")
                    await go.wait()
                    steps.append("second")

        work = self.start(use)
        await self.lib.sleep(0.01)
        work.scope.cancel()
        await self.until(lambda: steps)
        work.scope.cancel()
        early = await self.until(lambda: work.ended)
        go.set()
        whole = await self.until(lambda: "second" in steps)
        return Again(whole, not early)

    async def hangs(self) -> Cells:
        return {
            "": await self.observe_hang(nullcontext),
            "`shield=True`": await self.observe_hang(self.shielded),
            "`fail_after(..., shield=True)`": await self.observe_hang(lambda: self.lib.fail_after(SHORT, shield=True)),
        }

    async def observe_hang(self, protection: Callable[[], Any]) -> Hangs:
        async def hang() -> None:
            try:
                await self.lib.sleep_forever()
            finally:
                with protection():
                    await self.lib.sleep_forever()

        work = self.start(hang)
        await self.lib.sleep(0.01)
        work.scope.cancel()
        ended = await self.until(lambda: work.ended, seconds=LONG)
        return Hangs(ended, "" if work.error is None else type(work.error).__name__)

    async def errors(self) -> Cells:
        async def use() -> None:
            async with AsyncExitStack() as stack:
                stack.callback(fail, "outer")
                stack.callback(fail, "inner")
                await self.lib.sleep_forever()

        work = self.start(use)
        await self.lib.sleep(0.01)
        work.scope.cancel()
        await self.until(lambda: work.ended)
        return how_both(work.error)

    def program(self, tool: str) -> None:
        """Wait for a thread, as a program, until a signal comes; ``tool``: with what the library has for that."""

        async def work() -> None:
            try:
                await self.to_thread(stuck, abandon_on_cancel=bool(tool))
            finally:
                print("cleaned", flush=True)

        async def cancel_on_signal(scope: Any) -> None:
            with self.lib.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for number in signals:
                    received.append(number)
                    scope.cancel()

        async def main() -> None:
            if not tool:
                await work()
                return
            async with self.new_group() as group:
                group.start_soon(cancel_on_signal, group.cancel_scope)
                await work()

        received: list[int] = []
        self.lib.run(main)
        if received:
            raise SystemExit(128 + received[0])


class AnyIO(Scopes):
    """anyio, on asyncio's event loop."""

    name = "anyio"

    def new_group(self) -> Any:
        return self.lib.create_task_group()

    async def wait_readable(self, what: socket.socket) -> None:
        await self.lib.wait_readable(what)


class Trio(Scopes):
    """trio."""

    name = "trio"

    def new_group(self) -> Any:
        return self.lib.open_nursery()

    async def wait_readable(self, what: socket.socket) -> None:
        await self.lib.lowlevel.wait_readable(what)
