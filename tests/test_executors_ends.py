"""How calls that were submitted to a pool end if they fail, or if their executor, pool, loop or process ends first."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import traceback
import weakref
from concurrent import futures

import pytest

from threadlets import (
    Concurrency,
    Host,
    Pool,
    defer,
)
from threadlets.errors import DeadlineExceeded, NoRunningLoop, PoolClosed, PoolFull, Shed
from threadlets.executors import PoolExecutor

from .conftest import Run
from .submitted import divide, in_thread, twice
from .support import fork_beside_threads
from .workbench import PATIENCE, Gate, Token, rounds, until


def test_failures_stay_with_the_future(once: Run) -> None:
    """An exception has the function's frames alone, keeps nothing alive, and is told to nobody else."""

    async def main() -> None:
        async with Pool(on_failure="collect") as pool:
            token = Token()
            watched = weakref.ref(token)

            def fail(_: object) -> None:
                raise LookupError("here")

            future = pool.executor().submit(fail, token)
            with pytest.raises(LookupError) as caught:
                await asyncio.wrap_future(future)
            frames = [frame.name for frame in traceback.extract_tb(future.exception().__traceback__)]  # type: ignore[union-attr]
            assert frames[-1] == "fail" and not {"_run", "run_on_worker"} & set(frames)
            await pool.drain()
            await rounds()
        del caught
        gc.collect()
        gc.disable()
        try:
            left = weakref.ref(future)
            del future, token
            assert left() is None, "the future is in no cycle"
            assert watched() is None
        finally:
            gc.enable()

    once(main)


def test_cleanup_is_over_when_the_future_is_done(once: Run) -> None:
    """What a submitted function defers is called before its future is done, and its failure is the future's."""

    async def main() -> None:
        executor, order = Pool().executor(), list[str]()

        def tidy(fails: bool) -> str:
            defer(divide if fails else order.append, 1 if fails else "tidied")  # type: ignore[arg-type]
            return "result"

        future = executor.submit(tidy, False)
        assert future.result() == "result" and order == ["tidied"]
        assert isinstance(executor.submit(tidy, True).exception(), ZeroDivisionError)

    once(main)


def test_what_the_pool_drops_has_failed(once: Run) -> None:
    """A full pool, a deadline and a closed pool are told by the future, or by submit where this knows."""

    async def main() -> None:
        gate = Gate()
        strict, shedding = Pool(Concurrency(1), capacity=1), Pool(Concurrency(1), capacity=2, overflow="shed")
        full = strict.executor()
        held = full.submit(gate)
        with pytest.raises(PoolFull):
            full.submit(twice, 1)
        late = await in_thread(full.submit, twice, 1)
        assert isinstance(await in_thread(late.exception), PoolFull)
        sheds = shedding.executor()
        sheds.submit(gate)
        least = sheds.submit(twice, 1)
        more = shedding.executor(priority=-1).submit(twice, 2)
        with pytest.raises(Shed):
            await asyncio.wrap_future(least)
        (waiting,) = shedding.select(entrypoint=twice)
        waiting.deadline = 0
        with pytest.raises(DeadlineExceeded):
            await asyncio.wrap_future(more)
        gate.open()
        await asyncio.wrap_future(held)
        await asyncio.gather(strict.drain(), shedding.drain())
        strict.close()
        with pytest.raises(PoolClosed):
            full.submit(twice, 1)
        with pytest.raises(PoolClosed):
            await in_thread(full.submit, twice, 1)
        assert not full._unfinished and not sheds._unfinished

    once(main)


def test_shutdown(run: Run) -> None:
    """It waits for the calls of this executor, on other threads; on the loop's own it never waits for ever."""

    async def main() -> None:
        pool, gate = Pool(Concurrency(1)), Gate()
        executor, other = pool.executor(), pool.executor()
        held, queued = executor.submit(gate), executor.submit(twice, 1)
        with pytest.raises(RuntimeError, match="would wait for ever"), executor:
            pass
        gate.wait_arrived()
        assert not queued.done()
        executor.shutdown(wait=False, cancel_futures=True)
        assert queued.cancelled() and not held.done()
        gate.open()
        executor.shutdown()  # what is left has reached a worker
        assert held.done()
        last = [other.submit(twice, n) for n in range(5)]
        await in_thread(other.shutdown)
        assert [each.result() for each in last] == [0, 2, 4, 6, 8]
        third = pool.executor()
        with pytest.raises(RuntimeError, match="would wait for itself"):
            await asyncio.wrap_future(third.submit(third.shutdown))
        await pool.drain()
        with pool.executor() as direct:
            done = direct.submit(twice, 4)
        assert done.result() == 8

    run(main)


def test_a_pool_without_a_loop(once: Run) -> None:
    """An executor may be made before there is a loop; who submits first says which one, or is told."""
    pool = Pool()
    executor = pool.executor()
    with pytest.raises(NoRunningLoop, match="no event loop yet"):
        executor.submit(twice, 1)
    executor.shutdown(wait=True)

    async def main() -> PoolExecutor:
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(twice, 1)
        bound = pool.executor()
        assert await in_thread(bound.submit(twice, 1).result) == 2
        return bound

    bound = once(main)
    with pytest.raises(RuntimeError, match="event loop"):
        bound.submit(twice, 1)

    class Elsewhere(Host):
        slots = Concurrency(1)

    with pytest.raises(ValueError, match="in this process"):
        Pool(node=Elsewhere()).executor()
    with pytest.raises(TypeError, match="one tag per character"):
        pool.executor(tags="wrong")
    with pytest.raises(ValueError, match="nan"):
        pool.executor(priority=float("nan"))
    with pytest.raises(TypeError, match="priority"), bound.options(priority="high"):  # type: ignore[arg-type]
        pass


def test_a_loop_that_was_just_closed(once: Run) -> None:
    """A loop that is closed without its asynchronous generators being shut down leaves a clear error."""
    loop = once.new_loop()
    pool = Pool(Concurrency(1))

    async def main() -> PoolExecutor:
        return pool.executor()

    executor = loop.run_until_complete(main())
    future = executor.submit(twice, 1)  # the loop may run again
    with pytest.raises(RuntimeError, match="would be for ever"):
        future.result()
    assert loop.run_until_complete(asyncio.wait_for(asyncio.wrap_future(future, loop=loop), PATIENCE)) == 2
    left = executor.submit(twice, 2)
    loop.close()
    executor.shutdown()
    assert left.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        pool.executor().submit(twice, 1)


def test_threads_that_submit_while_the_loop_ends(run: Run) -> None:
    """Nobody waits for ever for what it submits in the last moment: it is run, cancelled or refused."""
    ends = list[str]()
    begun = threading.Semaphore(0)

    def submit_on(executor: PoolExecutor) -> None:
        while True:
            try:
                future = executor.submit(twice, 1)
            except RuntimeError:
                ends.append("refused")
                return
            begun.release()
            try:
                future.result()
            except (futures.CancelledError, RuntimeError):
                ends.append("cancelled")

    async def main() -> list[threading.Thread]:
        executor = Pool(Concurrency(1)).executor()
        threads = [threading.Thread(target=submit_on, args=[executor], daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        await until(lambda: begun.acquire(blocking=False))
        return threads

    for thread in run(main):
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert ends.count("refused") == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_is_told(once: Run) -> None:
    """The child of a fork has no loop that could start what it submits."""

    async def main() -> None:
        executor = Pool().executor()
        assert executor.submit(twice, 1).result() == 2
        child = fork_beside_threads()
        if not child:
            try:
                executor.submit(twice, 1)
            except RuntimeError as error:
                os._exit(0 if "forked" in str(error) else 2)
            os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    once(main)


ENDING = """
import asyncio, os, threading, time
from concurrent.futures import CancelledError
from threadlets import Concurrency, Pool

def wait_for(future):
    try:
        print(future.result())
    except CancelledError:
        os.write(1, b"cancelled\\n")  # whole, beside what others write

async def main():
    executor = Pool(Concurrency(1)).executor()
    asyncio.get_running_loop().set_default_executor(executor)
    first, second = executor.submit(time.sleep, 0.05), executor.submit(time.sleep, 0)
    for future in (first, second):
        threading.Thread(target=wait_for, args=[future]).start()

asyncio.run(main())
os.write(1, b"ended\\n")
"""


def test_a_program_ends_with_work_left() -> None:
    """asyncio.run waits for what runs, cancels what is queued, and other threads learn of both."""
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert not done.stderr
    assert sorted(done.stdout.split()) == ["cancelled", "cancelled", "ended"]
