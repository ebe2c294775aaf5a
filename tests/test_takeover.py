"""What is right before, during and after a takeover: asyncio's tools do not care which thread runs them."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from typing import Any

import pytest

from tests.conftest import Run
from tests.support import eventually
from tests.takeovers import Away, at_home, token_of
from tests.workbench import Gate, until
from threadlets import blocking

Var: contextvars.ContextVar[str] = contextvars.ContextVar("Var", default="unset")


def test_who_runs(hands: Run) -> None:
    """The region's thread has neither loop nor task; the spare has both; and at the end all is as it was."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        gate, seen = Gate(), []

        def look() -> tuple[Any, ...]:
            return asyncio._get_running_loop(), asyncio.current_task(loop), threading.get_ident()

        async def block() -> None:
            seen.append(look())
            with blocking():
                seen.append((asyncio._get_running_loop(), None, threading.get_ident()))
                gate()
                seen.append((asyncio._get_running_loop(), None, threading.get_ident()))
            seen.append(look())
            await asyncio.sleep(0)
            seen.append(look())

        home = threading.get_ident()
        task = asyncio.create_task(block())
        await asyncio.sleep(0)
        gate.wait_arrived()
        driver = threading.get_ident()
        assert driver != home
        assert look() == (loop, asyncio.current_task(), driver)
        assert asyncio.current_task() is not task
        assert loop.is_running()
        gate.open()
        await task
        assert look() == (loop, asyncio.current_task(), home)
        there, hidden = (loop, task, home), (None, None, home)
        assert seen == [there, hidden, hidden, there, there]
        token_of(loop)._check()

    hands(main)


def test_context_variables(hands: Run) -> None:
    """Each task sees its own variables on whichever thread; what a region sets is there after it."""

    async def main() -> None:
        gate = Gate()

        async def block() -> str:
            Var.set("before")
            with blocking():
                gate()
                assert Var.get() == "before"
                Var.set("region")
            return Var.get()

        async def other() -> str:
            assert Var.get() == "main"
            Var.set("other")
            await asyncio.sleep(0)
            return Var.get()

        Var.set("main")
        task = asyncio.create_task(block())
        await asyncio.sleep(0)
        gate.wait_arrived()
        assert not at_home()
        assert await asyncio.create_task(other()) == "other"
        assert Var.get() == "main"
        gate.open()
        assert await task == "region"
        assert Var.get() == "main"

    hands(main)


def test_async_generators(hands: Run) -> None:
    """Generators that are begun on any thread are finalized by the loop, and closed at its end."""
    ended: list[tuple[str, bool]] = []

    async def numbers(name: str) -> Any:
        try:
            while True:
                yield name
        finally:
            await asyncio.sleep(0)
            ended.append((name, asyncio.get_running_loop().is_running()))

    async def main() -> None:
        at_end = []
        for name in ("home", "spare"):
            dropped, kept = numbers(name), numbers(name + ", kept")
            assert await anext(dropped) == name
            assert await anext(kept)
            at_end.append(kept)
            if name == "home":
                del dropped
                await until(lambda: ended)
                away = Away()
                await away.__aenter__()
                assert not at_home()
            else:
                del dropped
                await until(lambda: len(ended) == 2)
        await away.__aexit__()
        main.kept = at_end  # type: ignore[attr-defined]

    hands(main)
    assert sorted(ended) == [(name, True) for name in ("home", "home, kept", "spare", "spare, kept")]


def test_timeout_on_a_spare(hands: Run) -> None:
    """asyncio.timeout works in a task that a spare runs, and in one that is away when its time is over."""

    async def main() -> None:
        async with Away():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.get_running_loop().create_future()
            assert not at_home()
        gate, late = Gate(), asyncio.Event()

        async def block() -> str:
            try:
                async with asyncio.timeout(0.001) as timeout:
                    with blocking():
                        gate()
                    assert timeout.expired() or timeout.when() is not None
                    await asyncio.sleep(10)
            except TimeoutError:
                await asyncio.sleep(0)
                return "timeout"
            return "none"

        task = asyncio.create_task(block())
        await asyncio.sleep(0)
        gate.wait_arrived()
        asyncio.get_running_loop().call_later(0.01, late.set)
        await late.wait()
        assert task.cancelling() == 1
        gate.open()
        assert await task == "timeout"

    hands(main)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="uncancel() forgets what was not delivered since 3.13")
def test_timeout_without_an_await_after_the_region(hands: Run) -> None:
    """A timeout that fires while its task is away, and whose block ends without an await, leaves no cancel behind."""

    async def main() -> None:
        gate = Gate()

        async def block() -> str:
            async with asyncio.timeout(0.001):  # noqa: ASYNC100 - that is what this is about
                with blocking():
                    gate()
            await asyncio.sleep(0)
            return "no cancel"

        task = asyncio.create_task(block())
        await asyncio.sleep(0)
        gate.wait_arrived()
        await until(task.cancelling)
        gate.open()
        assert await task == "no cancel"

    hands(main)


def test_task_group(hands: Run) -> None:
    """A TaskGroup waits for a child that is away; one that fails meanwhile cancels it at its next await."""

    async def main() -> None:
        gate, order = Gate(), []

        async def block() -> None:
            with blocking():
                gate()
            order.append("region")
            await asyncio.sleep(10)
            order.append("never")

        async def fail() -> None:
            order.append("fails")
            asyncio.get_running_loop().call_soon(gate.open)
            raise ValueError("expected")

        with pytest.raises(ExceptionGroup) as error:
            async with asyncio.TaskGroup() as group:
                group.create_task(block())
                group.create_task(fail())
        assert [type(each) for each in error.value.exceptions] == [ValueError]
        assert order == ["fails", "region"]

    hands(main)


def test_locks_and_queues(hands: Run) -> None:
    """What a task holds it holds while it is away; waiters get their turn in order, on any thread."""

    async def main() -> None:
        lock, order, gate = asyncio.Lock(), [], Gate()
        queue: asyncio.Queue[int] = asyncio.Queue(1)

        async def hold() -> None:
            async with lock:
                with blocking():
                    gate()
                order.append("holder")

        async def want(name: str) -> None:
            async with lock:
                order.append(name)

        tasks = [asyncio.create_task(each) for each in (hold(), want("a"), want("b"))]
        await asyncio.sleep(0)
        gate.wait_arrived()
        for number in range(3):
            getter = asyncio.create_task(queue.get())
            await queue.put(number)
            assert await getter == number
        assert lock.locked()
        assert order == []
        gate.open()
        await asyncio.gather(*tasks)
        assert order == ["holder", "a", "b"]

    hands(main)


def test_order_of_callbacks(hands: Run) -> None:
    """Callbacks run in the order in which they were asked for, before, during and after a takeover."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        order: list[int] = []
        gate, ended = Gate(), loop.create_future()

        def block() -> None:
            loop.call_soon(order.append, 5)
            with blocking():
                gate()
            order.append(8)
            loop.call_soon(order.append, 10)
            loop.call_soon(ended.set_result, None)

        def let_go() -> None:
            gate.wait_arrived()
            assert order == [0, 1, 2, 3, 4, 5]
            loop.call_soon(order.append, 6)
            loop.call_soon(order.append, 7)
            loop.call_soon(gate.open)
            loop.call_soon(lambda: until_claimed(loop))
            loop.call_soon(order.append, 9)

        for number in range(2):
            loop.call_soon(order.append, number)
        loop.call_soon(block)
        for number in range(2, 5):
            loop.call_soon(order.append, number)
        loop.call_soon(loop.call_soon, let_go)
        await ended
        assert order == list(range(11))

    def until_claimed(loop: Any) -> None:
        eventually(lambda: token_of(loop).claims)

    hands(main)


def test_order_of_timers(hands: Run) -> None:
    """Timers run in the order of their times, those set at home and those set on a spare."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        order: list[int] = []
        now = loop.time() + 0.1  # what is set on the spare is set before
        for number in (5, 1, 3):
            loop.call_at(now + 0.005 * number, order.append, number)
        never = loop.call_later(0.1, order.append, -1)
        async with Away():
            for number in (4, 2, 6):
                loop.call_at(now + 0.005 * number, order.append, number)
            never.cancel()
            cancelled = loop.call_later(0.1, order.append, -2)
            cancelled.cancel()
            await until(lambda: len(order) >= 4)
        await until(lambda: len(order) == 6)
        assert order == [1, 2, 3, 4, 5, 6]

    hands(main)


def test_many_cancelled_timers_on_a_spare(hands: Run) -> None:
    """The timers are sorted out while home is away in the middle of its round."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(1000, print) for _ in range(300)]
        async with Away():
            for timer in timers[:200]:
                timer.cancel()
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)
        for timer in timers:
            timer.cancel()
        await asyncio.sleep(0.001)

    hands(main)
