"""Regions and the ways back from them: ``blocking``, ``call_async``, ``pinned``, and who one is in there."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Run
from tests.takeovers import at_home, token_of
from tests.workbench import IN_PLACE, ON_WORKER, PATIENCE
from threadlets import Contract, blocking, call_async, threadlet
from threadlets.errors import NoRunningLoop

Var: contextvars.ContextVar[str] = contextvars.ContextVar("Var", default="unset")
HOME = Contract(affinity="home")
ANYWHERE = Contract(blocks="maybe")


def in_region(function: Callable[[], Any]) -> Any:
    with blocking():
        return function()


async def add(*numbers: int) -> int:
    await asyncio.sleep(0)
    return sum(numbers)


async def fail() -> None:
    await asyncio.sleep(0)
    raise LookupError("expected")


def test_blocking_anywhere(run: Run) -> None:
    """On every loop, and on none, a block runs what is in it; where the loop can go on it hides the loop."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with blocking():
            hidden = asyncio._get_running_loop() is None
        assert hidden == hasattr(loop, "_threadlets_token")
        assert asyncio.get_running_loop() is loop
        assert await asyncio.to_thread(in_region, threading.get_ident) != threading.get_ident()

    run(main)
    assert in_region(threading.get_ident) == threading.get_ident()


def test_blocking_serves_one_block_at_a_time(hands: Run) -> None:
    """One that is in use is refused, one that is not may serve again; the outer block is not harmed."""

    async def main() -> None:
        region = blocking()
        for _ in range(2):
            with region:
                pass
        with region:
            with pytest.raises(RuntimeError, match="is in use"):
                with region:
                    pass
        assert asyncio.current_task() is not None
        token_of(asyncio.get_running_loop())._check()

    hands(main)


def test_call_async_from_a_region(hands: Run) -> None:
    """The result comes back, or the exception, in a block that was not taken and in one that was."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()

        def calls() -> None:
            me = threading.get_ident()
            assert call_async(add, 1, 2) == 3
            assert call_async(add) == 0, "the second time the token is not there to be given up"
            with pytest.raises(LookupError, match="expected"):
                call_async(fail)
            assert threading.get_ident() == me
            assert asyncio._get_running_loop() is None

        in_region(calls)
        assert asyncio.get_running_loop() is loop
        assert loop.statistics().takeovers == 1

        def late() -> None:
            eventually_taken(loop, 2)
            calls()

        in_region(late)
        assert at_home()
        token_of(loop)._check()

    def eventually_taken(loop: Any, takeovers: int) -> None:
        gone_on = threading.Event()
        loop.call_soon_threadsafe(gone_on.set)
        assert gone_on.wait(PATIENCE)
        assert loop.statistics().takeovers == takeovers

    hands(main)


def test_call_async_from_threadlets(run: Run) -> None:
    """A threadlet on a worker calls back on every loop; one in place, where the loop can go on."""

    async def main() -> None:
        def calls() -> tuple[int, str]:
            with pytest.raises(LookupError, match="expected"):
                call_async(fail)
            return call_async(add, 1, 2), threading.current_thread().name

        number, thread = await threadlet(contract=ON_WORKER)(calls)()
        assert number == 3
        assert thread.startswith("threadlets-")
        if hasattr(asyncio.get_running_loop(), "_threadlets_token"):
            assert await threadlet(calls)() == (3, threading.current_thread().name)

    run(main)


def test_call_async_of_an_entrypoint(run: Run) -> None:
    """It is a threadlet of the loop, in the context of whoever calls."""

    @threadlet
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    @threadlet(contract=Contract(blocks="always"))
    def calls() -> int:
        return call_async(double, 4) + call_async(double.using(tags={"a"}), 1)

    async def main() -> None:
        assert await calls() == 10

    run(main)


def test_call_async_in_place_on_another_loop(run: Run) -> None:
    """In place, where the loop cannot go on, it says so and what to do; also in an unguarded function."""

    async def main() -> None:
        function = threadlet(contract=IN_PLACE)(lambda: call_async(add, 1))
        if not hasattr(asyncio.get_running_loop(), "_threadlets_token"):
            with pytest.raises(RuntimeError, match=r"threadlets\.run"):
                await function()
            with blocking():
                with pytest.raises(RuntimeError, match="await it"):  # the block does nothing there
                    call_async(add, 1)

    run(main)


def test_call_async_in_the_wrong_place(run: Run) -> None:
    """A coroutine is told to await; a thread that does nothing for a loop has none."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="await it"):
            call_async(add, 1)
        with pytest.raises(NoRunningLoop, match="call_async"):
            await asyncio.to_thread(call_async, add, 1)

    run(main)
    with pytest.raises(NoRunningLoop, match="add"):
        call_async(add, 1)
    with blocking(), pytest.raises(NoRunningLoop):
        call_async(add, 1)


def test_call_async_where_the_loop_cannot_go_on(hands: Run) -> None:
    """In the callback of a descriptor it is refused with the reason, and the region goes on."""

    async def main() -> None:
        import socket

        loop: Any = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ended = loop.create_future()

        def read() -> None:
            ours.recv(1)
            with blocking():
                with pytest.raises(RuntimeError, match="cannot go on while this call waits for it"):
                    call_async(add, 1)
                assert asyncio._get_running_loop() is None
            loop.remove_reader(ours)
            ended.set_result(asyncio.get_running_loop())

        with ours, theirs:
            loop.add_reader(ours, read)
            theirs.send(b"x")
            assert await ended is loop
        token_of(loop)._check()

    hands(main)


def test_call_async_carries_context_variables(hands: Run) -> None:
    """The coroutine sees the region's variables, and what it sets is set there; not in tasks that it starts."""

    async def main() -> None:
        async def change(value: str) -> str:
            before = Var.get()
            Var.set(value)
            await asyncio.create_task(other())
            return before

        async def other() -> None:
            Var.set("other")

        def calls() -> None:
            Var.set("region")
            assert call_async(change, "first") == "region"
            assert Var.get() == "first"
            assert call_async(change, "second") == "first"

        Var.set("main")
        in_region(calls)
        assert Var.get() == "second"
        await threadlet(contract=ON_WORKER)(lambda: call_async(change, "worker"))()
        assert Var.get() == "worker"

    hands(main)


def test_call_async_nested(hands: Run) -> None:
    """The coroutine has a region in which it calls another coroutine, and so on."""

    async def main() -> None:
        async def deeper(depth: int) -> int:
            await asyncio.sleep(0)
            return depth if not depth else 1 + in_region(lambda: call_async(deeper, depth - 1))

        assert await deeper(5) == 5
        assert at_home()
        assert asyncio.get_running_loop().statistics().away == 0  # type: ignore[attr-defined]

    hands(main)


def test_call_async_is_cancelled(hands: Run) -> None:
    """If the coroutine is cancelled the caller gets a CancelledError; cancelling the caller does not reach it."""

    async def main() -> None:
        tasks: list[asyncio.Task[Any]] = []
        started = asyncio.Event()

        async def wait() -> str:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            started.set()
            await asyncio.sleep(0)
            await go.wait()
            return "waited"

        async def caller() -> str:
            try:
                return str(in_region(lambda: call_async(wait)))
            except asyncio.CancelledError:
                return "cancelled"

        go = asyncio.Event()
        task = asyncio.create_task(caller())
        await started.wait()
        tasks[0].cancel()
        assert await task == "cancelled"
        started.clear()
        task = asyncio.create_task(caller())
        await started.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not tasks[1].cancelling()
        go.set()
        await asyncio.wait([task])
        assert tasks[1].result() == "waited"
        assert task.cancelled()

    hands(main)


def test_call_async_of_what_is_no_async_function(hands: Run) -> None:
    """What cannot be made a task is an error in the caller, and nobody waits for ever."""

    async def main() -> None:
        with blocking():
            for wrong in (int, lambda: 1 / 0):
                with pytest.raises((TypeError, ZeroDivisionError)):
                    call_async(wrong)  # type: ignore[arg-type]
        assert at_home()

    hands(main)
