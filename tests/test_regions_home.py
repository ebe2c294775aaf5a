"""Who stays at home, ``pinned`` or by contract; and which threadlet one is in a region."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from tests.conftest import Run
from tests.takeovers import Away, at_home, token_of
from tests.test_regions import in_region
from tests.workbench import PATIENCE, Gate, until
from threadlets import Contract, Pool, blocking, current_threadlet, pinned, threadlet

HOME = Contract(affinity="home")


def test_pinned_task_stays_at_home(hands: Run) -> None:
    """While home is away a pinned task waits, wherever it was; it may be pinned twice."""

    async def main() -> None:
        threads: list[bool] = []

        async def stay(pins: int) -> None:
            if pins:
                async with pinned():
                    threads.append(at_home())
                    await stay(pins - 1)
                    threads.append(at_home())
            else:
                for _ in range(5):
                    await asyncio.sleep(0)
                    threads.append(at_home())

        early = asyncio.create_task(stay(2))
        await asyncio.sleep(0)
        async with Away():
            late = asyncio.create_task(stay(1))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not early.done()
            assert not at_home()
        await asyncio.gather(early, late)
        assert len(threads) == 9 + 7
        assert all(threads)
        assert not token_of(asyncio.get_running_loop()).aside.pinned

    hands(main)


def test_pinned_elsewhere(run: Run) -> None:
    """On any loop it is a block like others; outside of a task, an error; cancelled at its beginning, undone."""

    async def main() -> None:
        async with pinned():
            await asyncio.sleep(0)
        loop: Any = asyncio.get_running_loop()
        found = loop.create_future()

        def outside() -> None:
            try:
                pinned().__aenter__().send(None)
            except BaseException as error:
                found.set_result(error)

        loop.call_soon(outside)
        assert isinstance(await found, RuntimeError)
        if hasattr(loop, "_threadlets_token"):
            async with Away():
                task = asyncio.create_task(stay())
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait([task])
            assert not token_of(loop).aside.pinned

    async def stay() -> None:
        async with pinned():
            raise AssertionError("cancelled before")

    run(main)


def test_functions_with_home_as_their_place(hands: Run) -> None:
    """While a spare drives, a plain function waits for home; called at home, it runs in place."""

    async def main() -> None:
        where = threadlet(contract=HOME)(at_home_or_none)
        home = threading.get_ident()
        assert await where() == home
        async with Away():
            handle = where()
            await asyncio.sleep(0)
            assert handle.state in ("queued", "running")
            assert not handle.done()
        assert await handle == home

    def at_home_or_none() -> int:
        return threading.get_ident()

    hands(main)


def test_coroutines_with_home_as_their_place(hands: Run) -> None:
    """A coroutine begins at home, and each of its steps is there."""

    async def main() -> None:
        home = threading.get_ident()

        @threadlet(contract=HOME)
        async def where() -> set[int]:
            threads = set()
            for _ in range(5):
                threads.add(threading.get_ident())
                await asyncio.sleep(0)
            return threads

        early = where()
        async with Away():
            late = where()
            for _ in range(10):
                await asyncio.sleep(0)
            assert not early.done()
            assert not late.done()
        assert await early == {home}
        assert await late == {home}

    hands(main)


def test_cancelled_before_home_is_back(hands: Run) -> None:
    """What waits for home and is cancelled never runs, from a pool or without one."""
    ran: list[int] = []

    async def main() -> None:
        function = threadlet(contract=HOME)(ran.append)
        async with Pool() as pool:
            async with Away():
                handles = [function(1), pool.start(function, 2), pool.start(function, 3)]
                await asyncio.sleep(0)
                for handle in handles[:2]:
                    handle.cancel("not needed")
            await asyncio.wait(handles)
        assert [handle.cancelled() for handle in handles] == [True, True, False]
        pool._check()

    hands(main)
    assert ran == [3]


def test_current_threadlet_in_regions(hands: Run) -> None:
    """In a region it is the threadlet of the task, before and after a takeover; in another's, its own."""

    async def main() -> None:
        gate = Gate()

        @threadlet
        async def block() -> Any:
            first = current_threadlet()
            with blocking():
                found = [first, current_threadlet()]
                gate()
                found.append(current_threadlet())
            return [*found, current_threadlet()]

        @threadlet
        async def other() -> Any:
            await asyncio.sleep(0)
            return current_threadlet(), in_region(current_threadlet)

        others = [other() for _ in range(3)]
        asyncio.get_running_loop().call_soon(gate.open)  # called by a spare, or never
        handle = block()
        assert await handle == [handle] * 4
        for each in others:
            assert await each == (each, each)
        assert in_region(current_threadlet) is None

    hands(main)


def test_current_threadlet_of_a_plain_function(hands: Run) -> None:
    """A plain function in place is a region of its own, and it is who it is when it was taken."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()

        def block() -> Any:
            gone_on = threading.Event()
            loop.call_soon_threadsafe(gone_on.set)
            before = current_threadlet()
            assert gone_on.wait(PATIENCE)
            return before, current_threadlet(), in_region(current_threadlet)

        function = threadlet(block)
        handle = function()
        assert handle.done()
        assert await handle == (handle, handle, handle)
        assert handle.missed
        await until(at_home)

    hands(main)
