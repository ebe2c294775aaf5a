"""Where a threadlet runs, and what is raised there: placement, nesting, exits, arguments with a life of their own."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any, NoReturn

import pytest

from tests.conftest import Run
from tests.workbench import IN_PLACE, ON_WORKER, PLACES, Token, entrypoint, forever, rounds, until
from threadlets import Concurrency, Pool, Threadlet, current_threadlet, threadlet
from threadlets.errors import PoolClosed

EXITS = (KeyboardInterrupt, SystemExit)


@pytest.mark.parametrize("place", [*PLACES, "queued"])
def test_a_plain_function_sees_no_loop(run: Run, place: str) -> None:
    """In every placement a plain function finds no running loop, and may run one of its own; then all is as before."""

    async def inner() -> int:
        await asyncio.sleep(0)
        assert current_threadlet() is None
        return 5

    def look() -> int:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        if sys.version_info < (3, 12):
            with pytest.raises(RuntimeError):
                asyncio.current_task()
        own = current_threadlet()
        result = asyncio.run(inner())
        assert current_threadlet() is own is not None
        return result

    async def main() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        pool = Pool(Concurrency(1))
        if place == "queued":
            pool.start(asyncio.sleep, 0)
        handle = pool.start(entrypoint(place.replace("queued", "in place"), look))
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is task
        assert await handle == 5
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is task

    run(main)


@pytest.mark.parametrize("place", [*PLACES, "queued"])
def test_a_plain_function_that_raises_gives_the_loop_back(run: Run, place: str) -> None:
    """After an exception of the function the loop and the task are seen again, as before it."""

    async def main() -> None:
        pool = Pool(Concurrency(1))
        if place == "queued":
            pool.start(asyncio.sleep, 0)
        handle = pool.start(entrypoint(place.replace("queued", "in place"), lambda: {}["missing"]))
        assert asyncio.get_running_loop() is handle.get_loop()
        with pytest.raises(KeyError):
            await handle
        assert asyncio.get_running_loop() is handle.get_loop()
        assert current_threadlet() is None
        await pool.drain()

    run(main)


def leave(error: type[BaseException]) -> NoReturn:
    raise error("leave")


async def leave_at_once(error: type[BaseException]) -> NoReturn:
    raise error("leave")


@pytest.mark.parametrize("error", EXITS)
@pytest.mark.parametrize("function", [threadlet(contract=IN_PLACE)(leave), threadlet(leave_at_once)])
def test_an_exit_in_place_is_raised_by_the_call(run: Run, error: type[BaseException], function: Any) -> None:
    """KeyboardInterrupt and SystemExit of what runs in place pass through the call, as through any function's."""

    async def main() -> None:
        task = asyncio.current_task()
        throttle = Concurrency(1)
        pool = Pool(throttle)
        for _ in range(2):
            with pytest.raises(error, match="leave"):
                pool.start(function, error)
            assert asyncio.current_task() is task
            assert current_threadlet() is None
            assert throttle.taken == 0
            pool._check()
        assert pool.statistics().failed == 2
        await rounds()

    run(main)
    if sys.version_info >= (3, 12) and function.is_coroutine:
        # asyncio itself tells of it again: an eager task that lets an exit out of its constructor is in nobody's hands
        assert {report["message"] for report in run.told()} == {"Task exception was never retrieved"}


@pytest.mark.parametrize("error", EXITS)
@pytest.mark.parametrize("way", ["in place", "first step", "suspended", "worker"])
def test_an_exit_ends_the_program(run: Run, error: type[BaseException], way: str) -> None:
    """Nobody catches it: it comes out of the loop's run, all is cancelled and cleaned up, the books are right."""
    functions: dict[str, Any] = {
        "in place": threadlet(contract=IN_PLACE)(leave),
        "first step": leave_at_once,
        "suspended": leave_later,
        "worker": threadlet(contract=ON_WORKER)(leave),
    }
    pools: list[Pool] = []
    others: list[Threadlet[Any]] = []

    async def main() -> None:
        pool = Pool(Concurrency(3))
        pools.append(pool)
        others.extend(pool.start(forever) for _ in range(2))
        await pool.start(functions[way], error)

    with pytest.raises(error, match="leave"):
        run(main)
    run.told()  # a failed handle that nobody has retrieved may be told of
    assert [handle.state for handle in others] == ["cancelled"] * 2
    assert len(pools[0]) == 0
    pools[0]._check()


async def leave_later(error: type[BaseException]) -> NoReturn:
    await asyncio.sleep(0)
    raise error("leave")


@pytest.mark.parametrize("error", EXITS)
def test_an_exit_from_the_queue_stops_the_loop_and_the_queue_goes_on(run: Run, error: type[BaseException]) -> None:
    """Started by the pump, an exit comes out of run_forever; run again, the loop starts the rest of the queue."""
    loop = run.new_loop()

    async def fill() -> list[Threadlet[Any]]:
        pool = Pool(Concurrency(1))
        first = pool.start(asyncio.sleep, 0)
        bad = pool.start(threadlet(contract=IN_PLACE)(leave), error)
        return [first, bad, *(pool.start(asyncio.sleep, 0, number) for number in range(3))]

    handles = loop.run_until_complete(fill())
    with pytest.raises(error, match="leave"):
        loop.run_until_complete(wait_for_all(handles[2:]))
    assert handles[1].state == "failed"
    handles[1].exception()
    assert loop.run_until_complete(wait_for_all(handles[2:])) == [0, 1, 2]
    loop.run_until_complete(cancel_others())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


async def wait_for_all(handles: list[Threadlet[Any]]) -> list[Any]:
    return [await handle for handle in handles]


async def cancel_others() -> None:
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await rounds()


def test_a_chain_of_coroutines_10_000_deep(run: Run) -> None:
    """Coroutine threadlets that start and await each other to any depth meet no RecursionError."""

    @threadlet
    async def nest(depth: int) -> int:
        return 0 if depth == 0 else 1 + await nest(depth - 1)

    async def main() -> None:
        depth = 1_000 if run.debug else 10_000  # debug mode formats a traceback of each task
        assert await nest(depth) == depth
        with pytest.raises(ZeroDivisionError):
            await fall(1_000)

    @threadlet
    async def fall(depth: int) -> float:
        return 1 / depth if depth == 0 else await fall(depth - 1)

    run(main)


def test_nested_plain_calls_recurse_like_functions(run: Run) -> None:
    """A plain function sees no loop, so what it calls runs right there: too deep, that is a RecursionError inside."""

    @threadlet(contract=IN_PLACE)
    def nest(depth: int) -> int:
        return 0 if depth == 0 else 1 + nest(depth - 1).result()

    async def main() -> None:
        assert await nest(50) == 50
        with pytest.raises(RecursionError):
            await nest(100_000)
        assert asyncio.get_running_loop() is nest(0).get_loop()
        assert current_threadlet() is None

    run(main)


@pytest.mark.parametrize("place", ["in place", "suspended", "cancelled in the queue"])
def test_an_argument_whose_del_uses_the_pool(run: Run, place: str) -> None:
    """``__del__`` of an argument runs when the books are in order: it may start, cancel and look at the pool."""

    async def wait(token: Token) -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        throttle = Concurrency(2)
        pool = Pool(throttle, capacity=3)
        deleted: list[int] = []

        def use_pool() -> None:
            pool._check()
            deleted.append(throttle.taken)
            pool.start(asyncio.sleep, 0)
            pool.select(tag="victim").cancel()

        victim = pool.start(forever, tags={"victim"})
        if place == "cancelled in the queue":
            blocker = pool.start(forever)
            handle = pool.start(wait, Token(use_pool))
            handle.cancel()
            blocker.cancel()
        else:
            function = wait if place == "suspended" else entrypoint(place, lambda token: None)
            handle = pool.start(function, Token(use_pool))
        await until(lambda: deleted)
        await until(victim.done)
        assert len(deleted) == 1
        assert handle.done()
        await pool.drain()
        pool._check()

    run(main)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("place", [*PLACES, "queued"])
def test_an_argument_whose_del_raises(run: Run, place: str) -> None:
    """An exception of ``__del__`` goes where Python sends such, and touches neither the threadlet nor the pool."""

    class Bomb:
        def __del__(self) -> None:
            raise ValueError("in __del__")

    unraisable: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda report: unraisable.append(repr(report.exc_value))

    async def main() -> None:
        pool = Pool(Concurrency(1))
        if place == "queued":
            pool.start(forever)
            assert pool.start(len, Bomb()).cancel()
            pool.cancel()
        else:
            assert await pool.start(entrypoint(place, lambda bomb: 5), Bomb()) == 5
        await pool.drain()
        await until(lambda: unraisable)
        pool._check()
        assert len(pool) == 0

    try:
        run(main)
    finally:
        sys.unraisablehook = hook
    assert unraisable == ["ValueError('in __del__')"]


def test_a_loop_that_is_closed_before_delivery(run: Run) -> None:
    """A worker that ends after its loop has been closed loses its result, says nothing, and serves other loops."""
    arrived, go_on = threading.Event(), threading.Event()

    @threadlet(contract=ON_WORKER)
    def slow() -> None:
        arrived.set()
        assert go_on.wait(20)

    loop = run.new_loop()
    handles: list[Threadlet[None]] = []
    loop.call_soon(lambda: handles.append(slow()))
    loop.run_until_complete(asyncio.sleep(0))
    assert arrived.wait(20)
    loop.close()
    go_on.set()
    assert not handles[0].done()

    async def main() -> int:
        return await threadlet(contract=ON_WORKER)(lambda: 5)()

    assert run(main) == 5


def test_leftovers_are_cancelled_when_the_loop_ends(run: Run) -> None:
    """asyncio.run ends with queued, suspended and running threadlets: all are cancelled, cleaned up and waited for."""
    arrived, go_on = threading.Event(), threading.Event()
    cleaned: list[str] = []
    handles: list[Threadlet[Any]] = []
    pools: list[Pool] = []

    @threadlet(contract=ON_WORKER)
    def slow() -> None:
        arrived.set()
        assert go_on.wait(20)
        cleaned.append("worker")

    async def tidy() -> None:
        try:
            await forever()
        finally:
            await rounds(3)
            cleaned.append("coroutine")

    async def main() -> None:
        pools.extend([Pool(Concurrency(2)), Pool()])
        handles.extend([pools[0].start(tidy), pools[0].start(slow), pools[0].start(lambda: cleaned.append("never"))])
        handles.extend([pools[1].start(tidy), threadlet(tidy)()])
        assert arrived.wait(20)
        asyncio.get_running_loop().call_soon(go_on.set)

    run(main)
    assert sorted(cleaned) in (["coroutine"] * 3 + ["worker"], ["coroutine"] * 3 + ["never", "worker"])
    assert all(handle.done() for handle in handles)
    assert handles[0].cancelled()
    for pool in pools:
        assert len(pool) == 0
        pool._check()


def test_cleanup_at_the_end_may_start_threadlets(run: Run) -> None:
    """A ``finally`` that starts threadlets when the loop ends gets them run, or is told that the pool is closed."""
    outcomes: list[Any] = []
    identity = threadlet(contract=ON_WORKER)(lambda value: value)

    async def tidy(pool: Pool) -> None:
        try:
            await forever()
        finally:
            try:
                outcomes.append(await identity(5))
                outcomes.append(await pool.start(identity, 6))
            except PoolClosed as error:
                outcomes.append(error)

    async def main() -> None:
        one, two = Pool(), Pool()
        one.start(tidy, two)
        two.start(tidy, one)

    run(main)
    assert len(outcomes) >= 2
    assert all(outcome in (5, 6) or isinstance(outcome, PoolClosed) for outcome in outcomes)
