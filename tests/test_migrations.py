"""Coroutines that leave their event loop on purpose: what they find elsewhere."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import traceback
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from tests.conftest import Run
from tests.travels import at_home, in_worker, nothing_is_left, number
from tests.workbench import until
from threadlets import (
    Contract,
    Lock,
    Pool,
    call_async,
    checkpoint,
    current_threadlet,
    defer,
    holding,
    offload,
    threadlet,
)
from threadlets.regions import me
from threadlets.workers import WorkerGroup, shared_group

__all__ = ["nothing_is_left"]


# ------------------------------------------------------------------------------------------------- what is found there


def test_the_coroutine_itself_goes_to_a_worker_and_comes_back(run: Run) -> None:
    """Inside of the block it is on a worker thread, without a running loop; before and after, in its task."""

    async def main() -> None:
        task, thread, things = asyncio.current_task(), threading.get_ident(), []
        async with offload():
            assert in_worker() and threading.get_ident() != thread and not at_home()
            things.append("local variables are what they are")
            time.sleep(0.001)
        assert things and asyncio.current_task() is task and not in_worker()

    run(main)


def test_the_loop_goes_on_meanwhile(run: Run) -> None:
    """What blocks in the block does not stall the loop: the block waits for something that the loop does."""

    async def main() -> None:
        happened = threading.Event()
        asyncio.get_running_loop().call_soon(happened.set)
        async with offload():
            assert happened.wait(20)

    run(main)


def test_context_variables_are_the_same_ones(run: Run) -> None:
    """The block runs in the task's own context: what is set there stays, and tokens can be used on either side."""

    async def main() -> None:
        outer = number.set(1)
        async with offload():
            assert number.get() == 1
            inner = number.set(2)
        assert number.get() == 2
        number.reset(inner)
        assert number.get() == 1
        async with offload():
            number.reset(outer)
        assert number.get() == 0

    run(main)


def test_an_exception_has_a_clean_traceback(run: Run) -> None:
    """It leaves the block as any, and its traceback has the frames of the coroutine alone."""

    async def deep() -> None:
        async with offload():
            raise ValueError("in a worker")

    async def main() -> None:
        try:
            await deep()
        except ValueError as error:
            frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        assert frames == ["main", "deep"] and not in_worker()

    run(main)


def test_what_is_awaited_inside_is_waited_for_on_the_loop(run: Run) -> None:
    """Futures, tasks, threadlets and a bare yield; the coroutine goes on in a worker, and failures are raised there."""

    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("from a task")

    @threadlet(contract=Contract(blocks="always"))
    def load() -> int:
        time.sleep(0.001)
        return 3

    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_later(0.001, future.set_result, 1)
        task, handle, bad = asyncio.create_task(asyncio.sleep(0.001, 2)), load(), asyncio.create_task(fails())
        async with offload():
            assert [await future, await task, await handle] == [1, 2, 3] and in_worker()
            await asyncio.sleep(0)
            assert in_worker() and await future == 1
            with pytest.raises(KeyError, match="from a task"):
                await bad
            assert in_worker()

    run(main)


def test_who_awaits_inside_has_no_thread(once: Run) -> None:
    """More coroutines than there are threads may wait inside of their blocks."""

    async def main() -> None:
        group = shared_group()
        many, future = group.limit + 20, asyncio.get_running_loop().create_future()
        came = 0

        async def waits() -> None:
            nonlocal came
            async with offload():
                came += 1
                await future

        tasks = [asyncio.create_task(waits()) for _ in range(many)]
        await until(lambda: came == many)
        future.set_result(None)
        await asyncio.gather(*tasks)

    once(main)


def test_what_nobody_can_await_is_an_error_inside(run: Run) -> None:
    """A future of another loop, and something that is no future, are refused where they are awaited."""

    class Odd:
        def __await__(self) -> Any:
            yield "odd"

    async def main() -> None:
        other = asyncio.new_event_loop()
        foreign = other.create_future()
        async with offload():
            with pytest.raises(RuntimeError, match="attached to a different loop"):
                await foreign
            with pytest.raises(RuntimeError, match="bad yield: 'odd'"):
                await Odd()
            assert in_worker()
        other.close()

    run(main)


def test_one_block_inside_of_another(run: Run) -> None:
    """The inner one changes nothing, and the coroutine is back home after the outer one; home() is home for a while."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with offload() as away:
            async with offload():
                assert in_worker()
            assert in_worker()
            async with away.home():
                assert asyncio.get_running_loop() is loop
                await asyncio.sleep(0.001)
                async with offload():
                    assert in_worker()
                assert at_home()
            assert in_worker()
        assert at_home()
        async with away.home():  # at home already
            assert at_home()

    run(main)


def test_a_coroutine_threadlet_is_itself_in_a_worker(run: Run) -> None:
    """current_threadlet(), defer, holding and Lock know who runs there; so they do for a task that is no threadlet."""
    lock = Lock()
    called: list[object] = []

    async def body() -> Any:
        task = asyncio.current_task()
        async with offload():
            handle = current_threadlet()
            assert me() is (task if handle is None else handle)
            with holding("something"), lock:
                assert handle is None or handle.state == "missed"
            if handle is not None:
                defer(called.append, handle)
        return handle

    async def main() -> None:
        handle = threadlet(body)()
        assert await handle is handle and called == [handle]
        assert await asyncio.create_task(body()) is None

    run(main)


def test_call_async_in_the_block(run: Run) -> None:
    """Synchronous code there can call async functions of the loop, in a threadlet and in a task that is none."""

    async def on_loop(value: int) -> int:
        await asyncio.sleep(0.001)
        number.set(value)
        return value + 1

    async def body() -> int:
        async with offload():
            value = call_async(on_loop, 1)
            assert number.get() == 1
        return value

    async def main() -> None:
        assert await threadlet(body)() == 2 == await asyncio.create_task(body())

    run(main)


def test_a_plain_threadlet_is_called_right_there(run: Run) -> None:
    """A worker has no loop to stall: what is called in the block runs in it, and may ask whether it is to stop."""

    @threadlet
    def where() -> int:
        checkpoint()
        return threading.get_ident()

    async def main() -> None:
        async with offload():
            assert await where() == threading.get_ident()

    run(main)


def test_it_waits_for_a_threadlet_as_if_it_were_home(run: Run) -> None:
    """Who awaits a queued threadlet in the block makes it more urgent, and lends it its place in a throttle."""
    from threadlets import Concurrency

    async def inner() -> int:
        await asyncio.sleep(0)
        return 1

    async def main() -> None:
        async with Pool(Concurrency(1)) as pool:

            async def outer() -> int:
                handle = pool.start(inner, priority=5)
                async with offload():
                    return await handle

            assert await pool.start(outer, priority=-3) == 1

    run(main)


def test_who_waits_for_a_lock_does_not_hold_up_its_holder(once: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads of a group wait for a lock whose holder needs one: after a while there is one more."""
    group = WorkerGroup("few", limit=2)
    monkeypatch.setattr("threadlets.migrations.shared_group", lambda: group)
    lock = Lock()

    async def waits() -> None:
        async with offload():
            with lock:
                pass

    async def main() -> None:
        async with lock:
            tasks = [asyncio.create_task(waits()) for _ in range(2)]
            await until(lambda: "2 waiting" in repr(lock))
            async with offload():
                assert not at_home()
        await asyncio.gather(*tasks)
        group._check()

    once(main)


def test_who_holds_a_lock_is_first_in_the_line_for_a_worker(once: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among others of the same priority, which have come before."""
    group = WorkerGroup("one at a time", limit=1)
    monkeypatch.setattr("threadlets.migrations.shared_group", lambda: group)
    lock, order, go_on = Lock(), [], threading.Event()

    async def works(name: str) -> None:
        async with offload():
            order.append(name)
            go_on.wait(20)

    async def holds_lock() -> None:
        async with lock:
            await works("holder")

    async def main() -> None:
        others = [threadlet(works)(f"other {number}") for number in range(3)]
        await until(lambda: order)
        holder = threadlet(holds_lock)()
        await until(lambda: group.waiting == 3)
        go_on.set()
        await asyncio.gather(*others, holder)
        assert order == ["other 0", "holder", "other 1", "other 2"]

    once(main)


# --------------------------------------------------------------------------------------------------------- generators


def test_async_generators(run: Run) -> None:
    """One may leave the loop between its yields: who iterates is where it is; and it comes home when it is closed."""

    async def lines() -> AsyncGenerator[int, None]:
        async with offload():
            for line in range(3):
                yield line

    async def main() -> None:
        async for _ in lines():
            assert in_worker()
        assert at_home()
        async with aclosing(lines()) as some:
            async for _ in some:
                break
            assert in_worker()
        assert at_home()
        async with offload():
            assert [each async for each in lines()] == [0, 1, 2] and in_worker()

    run(main)


def test_a_generator_that_is_left_in_the_block_is_closed_by_the_loop(run: Run) -> None:
    """The loop knows of generators that were begun in a worker: what is left of them is closed there."""
    closed: list[bool] = []

    async def left() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(at_home())

    async def main() -> None:
        async with offload():
            async for _ in left():
                break
            gc.collect()
        await until(lambda: closed)
        assert closed == [True]

    run(main)
