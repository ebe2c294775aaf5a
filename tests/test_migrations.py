"""Coroutines that leave their event loop on purpose: what they find elsewhere, how they come home, how they are cancelled."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import traceback
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import pytest

from tests.conftest import Run
from threadlets import (
    Contract,
    Lock,
    Pool,
    call_async,
    checkpoint,
    current_threadlet,
    defer,
    holding,
    migrate,
    new_event_loop,
    offload,
    pinned,
    threadlet,
    topology,
)
from threadlets.cancellation import holds, me
from threadlets.surroundings import travellers, trips
from threadlets.workers import WorkerGroup, shared_group

NODE = topology.machine().nodes[0]
number: ContextVar[int] = ContextVar("number", default=0)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    """See that no coroutine is away when a test has ended."""
    yield
    assert not trips and not travellers


def at_home() -> bool:
    """Say whether an event loop runs here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def in_worker() -> bool:
    return threading.current_thread().name.startswith("threadlets-worker")


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
        while came < many:
            await asyncio.sleep(0.001)
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
        while not closed:
            await asyncio.sleep(0)
        assert closed == [True]

    run(main)


# -------------------------------------------------------------------------------------------------------- cancelling


async def until_checkpoint() -> None:
    async with offload():
        while True:
            time.sleep(0.0005)
            checkpoint()


async def until_await() -> None:
    future = asyncio.get_running_loop().create_future()
    async with offload():
        await future


async def until_end() -> None:
    began = threading.Event()
    task = asyncio.current_task()
    assert task is not None
    async with offload():
        began.wait(0.001)
        while trips[task].asked is None:
            time.sleep(0.0005)
    pytest.fail("the cancel is told at the end of the block at the latest")


BODIES = [until_checkpoint, until_await, until_end]
each_body = pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
Body = Callable[[], Coroutine[Any, Any, None]]


@each_body
def test_a_cancel_is_told(run: Run, body: Body) -> None:
    """With its reason: at a checkpoint, at an await, or at the end of the block; to a threadlet and to a task."""

    async def main() -> None:
        for started in (threadlet(body)(), asyncio.create_task(body())):
            while not any(trip._underway for trip in list(trips.values())):
                await asyncio.sleep(0.001)
            started.cancel("enough")
            with pytest.raises(asyncio.CancelledError, match="enough"):
                await started
            assert started.cancelled()

    run(main)


@each_body
def test_timeouts_and_groups_around_it(run: Run, body: Body) -> None:
    """They count cancels: each is told once, so that none is left over."""

    async def fails() -> None:
        await asyncio.sleep(0.003)
        raise KeyError

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.003):
                await body()
        assert task.cancelling() == 0
        with pytest.raises(ExceptionGroup) as failed:
            async with asyncio.TaskGroup() as group:
                group.create_task(fails())
                await body()
        assert failed.group_contains(KeyError) and task.cancelling() == 0
        await asyncio.sleep(0)

    run(main)


def test_cancelled_before_there_is_a_thread(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is still in line for a worker is told at once, at home."""
    group = WorkerGroup("busy", limit=1)
    monkeypatch.setattr("threadlets.migrations.shared_group", lambda: group)
    end = threading.Event()

    async def blocks() -> None:
        async with offload():
            end.wait(20)

    async def main() -> None:
        first = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        second = asyncio.create_task(blocks())
        while not group.waiting:
            await asyncio.sleep(0)
        second.cancel("not wanted")
        with pytest.raises(asyncio.CancelledError, match="not wanted"):
            await second
        end.set()
        await first

    run(main)


@pytest.mark.parametrize("rounds", range(12))
def test_cancel_at_every_hop(run: Run, rounds: int) -> None:
    """Whenever it comes, a cancel is told, once, and what was begun is ended where it was."""

    async def wanders() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(3):
            async with offload():
                try:
                    await asyncio.sleep(0)
                finally:
                    assert in_worker()
            await migrate(NODE)
            try:
                await asyncio.sleep(0)
            finally:
                assert asyncio.get_running_loop() is NODE.loop()
            await migrate(None)
            assert asyncio.get_running_loop() is loop

    async def main() -> None:
        for started in (threadlet(wanders)(), asyncio.create_task(wanders())):
            for _ in range(rounds):
                await asyncio.sleep(0)
            if rounds % 3 == 2:
                time.sleep(0.0005)
            told = started.cancel()
            try:
                await started
            except asyncio.CancelledError:
                assert told
            else:
                assert not told

    run(main)


def test_holding_keeps_a_cancel_away(run: Run) -> None:
    """In a threadlet, a block that is not to be broken into is not, in a worker either."""
    steps: list[str] = []

    @threadlet
    async def careful() -> None:
        handle = current_threadlet()
        async with offload():
            with holding("two things that belong together"):
                assert handle is not None
                handle.cancel("soon")
                while not holds[handle].pending:
                    time.sleep(0.0005)
                checkpoint()
                steps.append("whole")
            while True:
                time.sleep(0.0005)
                checkpoint()

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError, match="soon"):
            await careful()
        assert steps == ["whole"]

    run(main)


def test_a_wait_for_a_lock_is_woken(run: Run) -> None:
    """Who waits for a lock in the block, on its thread, is told there: a threadlet, and a task that is none."""
    lock = Lock()

    async def waits() -> None:
        async with offload():
            with lock:
                pytest.fail("nobody gives it away")

    async def main() -> None:
        async with lock:
            for started in (threadlet(waits)(), asyncio.create_task(waits())):
                while "waiting" not in repr(lock):
                    await asyncio.sleep(0.001)
                started.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await started
            assert "waiting" not in repr(lock)

    run(main)


def test_the_program_ends_while_a_coroutine_is_away(run: Run) -> None:
    """The end of the loop cancels it, as any task, and waits until it has stopped."""
    ended: list[bool] = []

    async def away() -> None:
        try:
            await until_checkpoint()
        finally:
            ended.append(at_home())

    async def main() -> None:
        _tasks.append(asyncio.create_task(away()))
        while not trips:
            await asyncio.sleep(0)

    _tasks: list[asyncio.Task[None]] = []
    run(main)
    assert ended == [True] and _tasks[0].cancelled()


# --------------------------------------------------------------------------------------------------- other event loops


def test_on_the_loop_of_a_node(run: Run) -> None:
    """After migrate() that loop is the running one: what is awaited belongs there, and all of asyncio works."""

    async def main() -> None:
        home, thread = asyncio.get_running_loop(), threading.get_ident()
        name = asyncio.current_task().get_name()  # type: ignore[union-attr]
        await migrate(NODE)
        assert asyncio.get_running_loop() is NODE.loop() and threading.get_ident() != thread
        assert asyncio.current_task().get_name() == name  # type: ignore[union-attr]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(20)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.sleep(0.001, 5))
        assert task.result() == 5
        async with offload() as away:
            assert in_worker()
            async with away.home():
                assert asyncio.get_running_loop() is home
            assert in_worker()
        assert asyncio.get_running_loop() is NODE.loop()
        await migrate(home)
        assert asyncio.get_running_loop() is home
        await migrate(home)
        await migrate(None)

    run(main)


def test_a_coroutine_may_end_elsewhere(run: Run) -> None:
    """Its result, or what it raises, or that it was cancelled, is its task's all the same."""

    async def ends(how: str) -> Any:
        await migrate(NODE)
        await asyncio.sleep(0)
        handle = current_threadlet()
        if how == "fails":
            raise KeyError("elsewhere")
        if how == "is cancelled":
            asyncio.current_task().cancel("by itself")  # type: ignore[union-attr]
            await asyncio.sleep(0)
        return handle

    async def main() -> None:
        for start in (threadlet(ends), lambda how: asyncio.create_task(ends(how))):
            returns, fails, cancelled = (start(how) for how in ("returns", "fails", "is cancelled"))
            assert await returns is (returns if not isinstance(returns, asyncio.Task) else None)
            try:
                await fails
            except KeyError as error:
                names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
            assert names[0] == "main" and names[-1] == "ends" and not {"send", "_step"} & set(names)
            with pytest.raises(asyncio.CancelledError, match="by itself"):
                await cancelled
            assert cancelled.cancelled()

    run(main)


def test_a_cancel_reaches_a_coroutine_on_another_loop(run: Run) -> None:
    """It is told at its await there, and asyncio.timeout at home counts it once."""

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await migrate(NODE)
                try:
                    await asyncio.sleep(20)
                finally:
                    assert asyncio.get_running_loop() is NODE.loop()
                    await migrate(None)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    run(main)


def test_a_lock_across_loops(run: Run) -> None:
    """A coroutine that holds a lock holds it wherever it is, whichever side has taken it."""
    lock = Lock()

    async def main() -> None:
        await migrate(NODE)
        async with lock:
            await migrate(None)
            assert lock.locked()
        async with lock:
            await migrate(NODE)
        await migrate(None)
        assert not lock.locked()

    run(main)


def test_two_loops_send_each_other_coroutines(run: Run) -> None:
    """Coroutines of two loops, each in a thread of its own, change places all the time."""
    other = new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()

    async def back_and_forth(there: asyncio.AbstractEventLoop, number: int) -> int:
        here = asyncio.get_running_loop()
        for _ in range(10):
            await migrate(there)
            assert asyncio.get_running_loop() is there
            await asyncio.sleep(0)
            await migrate(here)
            assert asyncio.get_running_loop() is here
        return number

    async def main() -> None:
        loop = asyncio.get_running_loop()
        theirs = [asyncio.run_coroutine_threadsafe(back_and_forth(loop, each), other) for each in range(10)]
        mine = [asyncio.create_task(back_and_forth(other, each)) for each in range(10)]
        assert await asyncio.gather(*mine) == list(range(10))
        assert await asyncio.gather(*map(asyncio.wrap_future, theirs)) == list(range(10))

    try:
        run(main)
    finally:
        other.call_soon_threadsafe(other.stop)
        thread.join()
        other.close()


# --------------------------------------------------------------------------------------------------------- mistakes


def test_mistakes(run: Run) -> None:
    """Outside of a task, in what is pinned, twice, with something else than a node: a clear error, and nothing is lost."""

    async def stays() -> None:
        with pytest.raises(RuntimeError, match="stay on its event loop's own thread"):
            async with offload():
                pytest.fail("it must not leave")

    async def main() -> None:
        if hasattr(asyncio.get_running_loop(), "_threadlets_token"):
            async with pinned():
                await stays()
        await threadlet(contract=Contract(affinity="home"))(stays)()
        block = offload()
        async with block:
            with pytest.raises(RuntimeError, match="in use"):
                async with block:
                    pytest.fail("it is entered already")
        async with block:  # but one after the other
            pass
        with pytest.raises(TypeError, match="node"):
            offload("node 0")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="node of topology"):
            await migrate("node 0")  # type: ignore[arg-type]
        idle = asyncio.new_event_loop()
        with pytest.raises(RuntimeError, match="does not run"):
            await migrate(idle)
        idle.close()
        with pytest.raises(RuntimeError, match="does not run"):
            await migrate(idle)

    run(main)
    with pytest.raises(RuntimeError, match="in a task"):
        offload().__aenter__().send(None)


def test_no_thread_can_be_started(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block is not entered: the error is raised at home, and the next block finds a thread."""
    group = WorkerGroup("none")
    monkeypatch.setattr("threadlets.migrations.shared_group", lambda: group)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                async with offload():
                    pytest.fail("there is no thread")
            assert at_home()
        async with offload():
            assert not at_home()

    run(main)


def test_exits_are_let_out_of_the_loop(once: Run) -> None:
    """SystemExit in a coroutine that ends elsewhere ends the program, as in any task."""

    async def exits() -> None:
        await migrate(NODE)
        await migrate(None)
        async with offload():
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        once(exits)


def test_nothing_is_kept(run: Run) -> None:
    """When a coroutine is home again, nothing refers to what it had, nor to itself."""

    class Thing:
        pass

    kept: list[weakref.ref[Any]] = []

    async def body() -> None:
        thing = Thing()
        kept.append(weakref.ref(thing))
        async with offload():
            await asyncio.sleep(0)
        await migrate(NODE)
        await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.create_task(body())
        kept.append(weakref.ref(task))
        await task
        del task
        await asyncio.sleep(0)

    run(main)
    deadline = time.monotonic() + 10
    while any(ref() is not None for ref in kept) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.001)
    assert [ref() for ref in kept] == [None, None]


def test_in_a_first_step(run: Run) -> None:
    """A coroutine may leave before it has ever waited; an eager task, too."""

    async def leaves() -> bool:
        async with offload():
            return in_worker()

    async def main() -> None:
        assert await threadlet(leaves)()
        if sys.version_info >= (3, 12):
            assert await asyncio.Task(leaves(), loop=asyncio.get_running_loop(), eager_start=True)

    run(main)
