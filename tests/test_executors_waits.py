"""The futures of a pool's executor: who may wait for them and where, and what cancels them."""

from __future__ import annotations

import asyncio
import functools
import gc
import weakref
from concurrent import futures
from concurrent.futures import Future

import pytest

from threadlets import (
    Concurrency,
    Contract,
    Pool,
    blocking,
    checkpoint,
    threadlet,
)

from .conftest import Run
from .submitted import in_thread, thread_of, twice
from .workbench import Gate, Token, hold_workers_before_running, rounds, until


def test_cancelled_in_bulk(run: Run) -> None:
    """A selection finds submitted calls by function, tag and state; to cancel them cancels their futures."""

    async def main() -> None:
        pool, loop = Pool(Concurrency(1)), asyncio.get_running_loop()
        executor, tagged = pool.executor(), pool.executor(tags={"mine"})
        gate, token = Gate(), Token()
        forgotten = weakref.ref(token)
        held = executor.submit(gate)
        doomed = [executor.submit(twice, n) for n in range(3)] + [executor.submit(functools.partial(twice, 4))]
        wrapped = loop.run_in_executor(tagged, id, token)
        del token
        kept = executor.submit(thread_of)
        assert len(pool.select(entrypoint=twice)) == len(pool.select(entrypoint=twice, state="queued")) == 4
        assert pool.select(entrypoint=twice).cancel("not wanted") == 4
        assert pool.select(tag="mine").cancel() == 1
        await until(lambda: all(each.cancelled() for each in doomed))
        with pytest.raises(asyncio.CancelledError):
            await wrapped
        assert gc.collect() >= 0 and forgotten() is None
        gate.open()
        await asyncio.wrap_future(held)
        await asyncio.wrap_future(kept)
        assert futures.wait(doomed).done == set(doomed)
        await pool.drain()
        assert pool.statistics().cancelled == 5

    run(main)


def test_a_cancelled_future_leaves_the_pool(run: Run) -> None:
    """Whoever cancels a future, on whatever thread: the call leaves the pool, or the queue of the workers."""

    async def main() -> None:
        pool = Pool(Concurrency(1))
        executor, gate = pool.executor(), Gate()
        held = executor.submit(gate)
        here, there = executor.submit(twice, 1), executor.submit(twice, 2)
        calls = list[Future[int]]()
        here.add_done_callback(calls.append)
        assert here.cancel() and here.cancel() and here.cancelled() and calls == [here]
        assert len(pool) == 2
        assert await in_thread(there.cancel)
        await until(lambda: len(pool) == 1)
        asked = asyncio.get_running_loop().run_in_executor(executor, twice, 3)
        asked.cancel()
        await until(lambda: len(pool) == 1)
        gate.wait_arrived()
        assert held.running() and not held.cancel()
        gate.open()
        await asyncio.wrap_future(held)
        assert not held.cancel()
        await pool.drain()
        pool._check()

    run(main)


def test_cancel_between_worker_and_function(once: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """1. A worker takes the call. 2. Its future is cancelled. 3. The worker does not run it: there is one answer."""

    async def main() -> None:
        pool = Pool()
        arrived = hold_workers_before_running(monkeypatch)
        calls = list[int]()
        future = pool.executor().submit(calls.append, 1)
        arrived.wait_arrived()
        assert future.cancel()
        arrived.open()
        await pool.drain()
        assert future.cancelled() and not calls
        assert pool.statistics().cancelled == 1

    once(main)


def test_a_running_call_that_is_told_to_stop(once: Run) -> None:
    """A function that runs is told at its checkpoint; without one its result is dropped, and an exception kept."""

    async def main() -> None:
        pool = Pool()
        executor, gates = pool.executor(), [Gate() for _ in range(3)]

        def stops() -> None:
            gates[0]()
            checkpoint()

        def fails() -> None:
            gates[2]()
            raise KeyError

        all_ = [executor.submit(stops), executor.submit(gates[1], "a result"), executor.submit(fails)]
        for gate in gates:
            gate.wait_arrived()
        assert pool.cancel("enough") == 3
        for gate in gates:
            gate.open()
        await pool.drain()
        assert [each.cancelled() for each in all_] == [True, True, False]
        assert isinstance(all_[2].exception(), KeyError)
        assert (pool.statistics().cancelled, pool.statistics().failed) == (2, 1)

    once(main)


def test_waiting_on_the_loops_thread(run: Run) -> None:
    """There a call that has reached a worker can be waited for; one in the pool's queue is a clear error."""

    async def main() -> None:
        pool, gate = Pool(Concurrency(1)), Gate()
        executor = pool.executor()
        assert executor.submit(twice, 2).result() == 4
        await rounds()
        held, queued = executor.submit(gate), executor.submit(twice, 3)
        for wait in (queued.result, queued.exception):
            with pytest.raises(RuntimeError, match="would be for ever"):
                wait()
        with pytest.raises(futures.TimeoutError):
            queued.result(timeout=0)
        with pytest.raises(RuntimeError, match="would be for ever"):
            list(executor.map(twice, range(3)))  # the others are cancelled by that
        await until(lambda: len(pool) == 2)
        gate.open()
        assert await asyncio.wrap_future(queued) == 6
        assert held.done()

    run(main)


def test_waiting_in_place(once: Run) -> None:
    """A function that runs in place sees no loop, and is on its thread all the same: it may submit, and is told so."""

    async def main() -> None:
        pool = Pool(Concurrency(1))
        executor, gate = pool.executor(), Gate()

        def in_place() -> Future[int]:
            first, second = executor.submit(gate), executor.submit(twice, 3)
            assert not second.done() and len(pool) == 2
            with pytest.raises(RuntimeError, match="would be for ever"):
                second.result()
            assert not first.done()
            return second

        future = await threadlet(contract=Contract(blocks="never"))(in_place)()
        gate.open()
        assert await asyncio.wrap_future(future) == 6

    once(main)


def test_waiting_in_a_region(hands: Run) -> None:
    """Where another thread goes on with the loop, the loop's own may wait for what has not started."""

    async def main() -> None:
        executor = Pool(Concurrency(1)).executor()
        with blocking():
            assert executor.submit(twice, 1).result() == 2
            assert list(executor.map(twice, range(20))) == [2 * n for n in range(20)]

        @threadlet(contract=Contract(blocks="maybe"))
        def in_place() -> list[int]:
            return list(executor.map(twice, range(5)))

        assert await in_place() == [0, 2, 4, 6, 8]

    hands(main)


def test_nested_calls_lend_their_places(run: Run) -> None:
    """A submitted function may wait for what it submits, however few may run at a time, and on however few threads."""

    async def main() -> None:
        executor = Pool(Concurrency(1)).executor()

        def count(depth: int) -> int:
            return depth and 1 + executor.submit(count, depth - 1).result()

        assert await asyncio.get_running_loop().run_in_executor(executor, count, 70) == 70

    run(main)
