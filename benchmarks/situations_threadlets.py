"""The situations with threadlets, on the loop that ``threadlets.run`` makes."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, ClassVar

import threadlets
from threadlets import Concurrency, Contract, Lock, Pool, Threadlet, checkpoint, defer, threadlet
from threadlets.descriptors import checkpoint_wait

from . import situations_facts as facts
from .situations_facts import LONG, REASON, Again, Cells, Gate, Hangs, Spin, eventually, fail, how_both, stuck, watched

__all__ = ["Threadlets"]

ON_WORKER = Contract(blocks="always")
ABANDON = Contract(blocks="always", cancel="abandon")

until = partial(eventually, sleep=asyncio.sleep)


async def forever() -> None:
    """Wait until cancelled."""
    await asyncio.Event().wait()


class Threadlets:
    """This library."""

    tool = '`cancel="abandon"`'
    absent: ClassVar[dict[str, str]] = {}

    def run(self, situation: Callable[[], Coroutine[Any, Any, Cells]], report: Callable[[Cells], None]) -> None:
        async def main() -> None:
            report(await situation())

        threadlets.run(main())

    # ---------------------------------------------------------------------------------------------------- situations

    async def queued(self) -> Cells:
        """The only place of a pool is taken."""
        pool, gate = Pool(Concurrency(1)), Gate()
        ran: list[object] = []
        pool.start(threadlet(contract=ON_WORKER)(gate))
        await until(lambda: gate.arrived)
        token, freed = watched()
        second: Threadlet[None] = pool.start(threadlet(contract=ON_WORKER)(ran.append), token)
        del token
        second.cancel()
        is_freed = freed()
        gate.open()
        await pool.start(int)
        return facts.Queued(bool(ran), is_freed)

    async def suspended(self) -> Cells:
        seen: list[str] = []

        @threadlet
        async def wait() -> None:
            try:
                await forever()
            except asyncio.CancelledError as error:
                seen.append(str(error))
                raise
            finally:
                seen.append("cleaned")

        handle = wait()
        handle.cancel(REASON)
        await until(handle.done)
        return facts.Suspended("cleaned" in seen, any(REASON in each for each in seen))

    async def returned(self) -> Cells:
        gate = Gate()
        handle = threadlet(contract=ON_WORKER)(gate)("result")
        await until(lambda: gate.arrived)
        gate.open()
        gate.returned.wait()  # the loop stands still meanwhile
        handle.cancel()
        await until(handle.done)
        return facts.Returned(not handle.cancelled() and handle.exception() is None, handle.cancelled())

    async def thread(self) -> Cells:
        return {
            "": await self.observe_thread(ON_WORKER),
            '`cancel="abandon"`': await self.observe_thread(ABANDON),
        }

    async def observe_thread(self, contract: Contract) -> facts.Thread:
        pool, gate, following = Pool(Concurrency(1)), Gate(), Gate()
        first = pool.start(threadlet(contract=contract)(gate))
        await until(lambda: gate.arrived)
        pool.start(threadlet(contract=contract)(following))
        first.cancel()
        at_once = await until(first.done)
        beside = at_once and await until(lambda: following.arrived)
        gate.open()
        following.open()
        return facts.Thread(at_once, beside)

    async def loop(self) -> Cells:
        spin = Spin(checkpoint)
        handle = threadlet(contract=ON_WORKER)(spin)()
        await until(lambda: spin.rounds)
        handle.cancel()
        await until(spin.decided())
        spin.out.set()
        return {"`checkpoint`": facts.Loop(spin.stopped)}

    async def recv(self) -> Cells:
        def receive(here: socket.socket) -> None:
            here.recv(1)

        def wait_and_receive(here: socket.socket) -> None:
            checkpoint_wait(here.fileno())
            here.recv(1)

        return {
            "": await self.observe_recv(receive),
            "`checkpoint_wait`": await self.observe_recv(wait_and_receive),
        }

    async def observe_recv(self, function: Callable[[socket.socket], None]) -> facts.Recv:
        here, there = socket.socketpair()
        begun, ended = threading.Event(), threading.Event()

        @threadlet(contract=ON_WORKER)
        def receive() -> None:
            begun.set()
            try:
                function(here)
            finally:
                ended.set()

        handle = receive()
        await until(begun.is_set)
        handle.cancel()
        await until(lambda: handle.done() and ended.is_set())
        found = facts.Recv(handle.done(), ended.is_set())
        there.send(b"x")
        return found

    async def lock(self) -> Cells:
        lock, begun = Lock(), threading.Event()

        @threadlet(contract=ON_WORKER)
        def use() -> None:
            begun.set()
            with lock:
                pass

        async with lock:
            handle = use()
            await until(begun.is_set)
            handle.cancel()
            at_once = await until(handle.done)
        await until(handle.done)
        return facts.Lock(at_once, lock.locked())

    async def section(self) -> Cells:
        lock, go = Lock(), asyncio.Event()
        steps: list[str] = []

        @threadlet
        async def use() -> None:
            async with lock:
                steps.append("first")
                await go.wait()
                steps.append("second")

        handle = use()
        handle.cancel()
        early = await until(handle.done)
        go.set()
        whole = await until(lambda: "second" in steps)
        return facts.Section(whole, not early)

    async def again(self) -> Cells:
        async def plainly(clean: Callable[[], Coroutine[Any, Any, None]]) -> None:
            try:
                await forever()
            finally:
                await clean()

        async def deferred(clean: Callable[[], Coroutine[Any, Any, None]]) -> None:
            defer(clean)
            await forever()

        return {"": await self.observe_again(plainly), "`defer`": await self.observe_again(deferred)}

    async def observe_again(self, function: Callable[..., Coroutine[Any, Any, None]]) -> Again:
        go = asyncio.Event()
        steps: list[str] = []

        async def clean() -> None:
            steps.append("first")
            await go.wait()
            steps.append("second")

        handle = threadlet(function)(clean)
        handle.cancel()
        await until(lambda: steps)
        handle.cancel()
        early = await until(handle.done)
        go.set()
        whole = await until(lambda: "second" in steps)
        return Again(whole, not early)

    async def hangs(self) -> Cells:
        async def plainly() -> None:
            try:
                await forever()
            finally:
                await forever()

        async def deferred() -> None:
            defer(forever)
            await forever()

        hangs, limited = await asyncio.gather(self.observe_hang(plainly), self.observe_hang(deferred))
        return {"": hangs, "`defer`": limited}

    async def observe_hang(self, function: Callable[[], Coroutine[Any, Any, None]]) -> Hangs:
        handle = threadlet(function)()
        handle.cancel()
        ended = await until(handle.done, seconds=LONG)
        error = _error_of(handle)
        return Hangs(ended, "" if isinstance(error, asyncio.CancelledError | None) else type(error).__name__)

    async def errors(self) -> Cells:
        async def plainly() -> None:
            async with AsyncExitStack() as stack:
                stack.callback(fail, "outer")
                stack.callback(fail, "inner")
                await forever()

        async def deferred() -> None:
            defer(fail, "outer")
            defer(fail, "inner")
            await forever()

        found: dict[str, facts.Facts] = {}
        for name, function in {"": plainly, "`defer`": deferred}.items():
            handle = threadlet(function)()
            handle.cancel()
            await until(handle.done)
            found[name] = how_both(_error_of(handle))
        return found

    def program(self, tool: str) -> None:
        """Wait for a thread, as a program, until a signal comes."""

        @threadlet
        async def work() -> None:
            try:
                await threadlet(contract=ABANDON if tool else ON_WORKER)(stuck)()
            finally:
                print("cleaned", flush=True)

        async def main() -> None:
            await work()

        threadlets.run(main())


def _error_of(handle: Threadlet[Any]) -> BaseException | None:
    """Return what an await of it raises; None if it has not ended."""
    if not handle.done():
        return None
    try:
        return handle.exception()
    except asyncio.CancelledError as error:
        return error
