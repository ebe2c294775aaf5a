"""A pool as an executor: what old code submits, wherever it does that, is a threadlet."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
import weakref
from concurrent import futures
from concurrent.futures import Future
from typing import Any

import pytest

from threadlets import (
    Concurrency,
    Contract,
    PerTag,
    Pool,
    Threadlet,
    call_async,
    current_threadlet,
    threadlet,
)

from .conftest import Run
from .submitted import divide, in_thread, tags_here, thread_of, twice
from .support import eventually
from .workbench import PATIENCE, Gate, Token, rounds

request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


def test_old_code_runs_in_the_pool(run: Run) -> None:
    """What asyncio hands to its default executor is a threadlet of the pool, counted under its own name."""

    async def main() -> None:
        pool, loop = Pool(Concurrency(2)), asyncio.get_running_loop()
        loop.set_default_executor(pool.executor())
        threads = {await loop.run_in_executor(None, thread_of), await asyncio.to_thread(thread_of, 1)}
        threads |= set(await asyncio.gather(*(asyncio.to_thread(thread_of, n) for n in range(20))))
        assert threading.get_ident() not in threads
        assert await asyncio.to_thread(lambda: current_threadlet() in pool)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divide, 1)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await pool.start(next, iter(()))
        await rounds()
        figures = pool.statistics()
        assert {name: each.done for name, each in figures.entrypoints.items() if each.done} == {
            "thread_of": 22,
            "<lambda>": 1,
        }
        assert figures.entrypoints["divide"].failed == 1
        pool._check()

    run(main)


def test_foreign_threads_submit_and_wait(run: Run) -> None:
    """From a thread that has nothing to do with the loop all of ``concurrent.futures`` works."""

    async def main() -> None:
        executor = Pool(Concurrency(2)).executor()
        other: asyncio.AbstractEventLoop = asyncio.new_event_loop()

        def foreign() -> None:
            assert executor.submit(twice, 4).result() == 8
            many = [executor.submit(twice, n) for n in range(20)]
            assert {each.result() for each in futures.as_completed(many)} == {2 * n for n in range(20)}
            assert futures.wait(many).done == set(many)
            assert list(executor.map(twice, range(20), timeout=PATIENCE)) == [2 * n for n in range(20)]
            assert isinstance(executor.submit(divide, 1).exception(), ZeroDivisionError)
            with pytest.raises(futures.TimeoutError):
                list(executor.map(gate, range(3), timeout=0))
            gate.open()
            assert other.run_until_complete(other.run_in_executor(executor, twice, 1)) == 2  # another loop's

        gate = Gate()
        await in_thread(foreign)
        other.close()
        executor.shutdown(wait=False)
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(twice, 1)

    run(main)


def test_priorities_tags_and_throttles(once: Run) -> None:
    """Each executor, each block of options, and each entrypoint give what they submit a priority and tags."""

    async def main() -> None:
        pool = Pool(Concurrency(1), PerTag("host:", Concurrency(1)))
        plain, urgent = pool.executor(), pool.executor(priority=-1, tags={"urgent"})
        gate, order = Gate(), list[str]()
        holder = plain.submit(gate)
        marked = threadlet(priority=7, tags={"marked"})(twice)
        all_: list[Future[Any]] = [plain.submit(order.append, "last")]
        with plain.options(priority=-2, tags={"tenant:7"}):
            all_.append(plain.submit(order.append, "first"))
            with urgent.options(tags={"inner"}):
                inner = urgent.submit(tags_here)
        all_.append(urgent.submit(order.append, "second"))
        all_ += [plain.submit(marked, 1), urgent.submit(marked, 2)]
        of_marked = [(each.priority, each.tags) for each in pool.select(entrypoint=marked)]
        assert of_marked == [(7, {"marked"}), (-1, {"marked", "urgent"})]
        assert len(pool.select(tag="tenant:7")) == 2
        gate.open()
        assert holder.result() is None
        await pool.drain()
        assert order == ["first", "second", "last"]
        assert inner.result() == (-2, {"tenant:7", "inner", "urgent"})
        assert all(each.done() for each in all_)

    once(main)


def test_options_reach_what_only_others_submit(once: Run) -> None:
    """A block of options marks what libraries submit below it, also in tasks and in what is submitted there."""

    async def main() -> None:
        executor = Pool().executor(tags={"all"})
        asyncio.get_running_loop().set_default_executor(executor)

        def nested() -> object:
            return executor.submit(tags_here).result()

        with executor.options(priority=3, tags={"tenant:7"}):
            task = asyncio.create_task(asyncio.to_thread(tags_here))
            inside = await asyncio.to_thread(nested)
        assert await task == inside == (3, {"all", "tenant:7"})
        assert await asyncio.to_thread(tags_here) == (0, {"all"})

    once(main)


def test_context_goes_in_and_does_not_come_back(once: Run) -> None:
    """A call sees its submitter's context variables, on any thread; what it sets is seen by nobody."""

    def look() -> str:
        seen = request.get()
        request.set("changed")
        return seen

    async def main() -> None:
        executor, loop = Pool().executor(), asyncio.get_running_loop()
        request.set("7")
        assert await loop.run_in_executor(executor, look) == "7"
        context = contextvars.copy_context()

        def foreign() -> str:
            request.set("foreign")
            return executor.submit(look).result()

        assert await in_thread(context.run, foreign) == "foreign"
        assert await loop.run_in_executor(executor, context.run, look) == "foreign"
        assert context[request] == "changed"  # it was asked to run in this one
        assert request.get() == "7"

    once(main)


def test_entrypoints(once: Run) -> None:
    """An entrypoint that is submitted gives its value; an asynchronous function is refused."""

    @threadlet(contract=Contract(affinity="one"))
    def bound() -> int:
        return threading.get_ident()

    @threadlet
    async def asynchronous() -> None: ...

    async def back() -> str:
        return "from the loop"

    async def main() -> None:
        pool, loop = Pool(), asyncio.get_running_loop()
        executor = pool.executor()
        loop.set_default_executor(executor)
        assert await asyncio.to_thread(bound) == await loop.run_in_executor(executor, bound) == await bound()
        assert await asyncio.to_thread(call_async, back) == "from the loop"
        assert executor.submit(lambda: (n for n in "ab")).result().send(None) == "a"
        for wrong in (asynchronous, back, functools.partial(back), main):
            with pytest.raises(TypeError, match="asynchronous"):
                executor.submit(wrong)
        with pytest.raises(TypeError, match="not callable"):
            executor.submit(3)  # type: ignore[arg-type]
        assert not executor._unfinished and pool.statistics().entrypoints["bound"].done == 2

    once(main)


def test_names_are_told_apart_by_place(once: Run) -> None:
    """Functions are booked by name and place: a lambda made anew each time is one, what it refers to is not kept."""

    class Callable_:
        def __call__(self) -> str:
            return "called"

        def method(self) -> str:
            return "method"

    async def main() -> None:
        pool = Pool()
        executor, token = pool.executor(), Token()
        watched = weakref.ref(token)
        for n in range(5):
            assert executor.submit(lambda n=n, token=token: n).result() == n  # type: ignore[misc]
        assert executor.submit(Callable_()).result() == "called"
        assert executor.submit(Callable_().method).result() == "method"
        assert executor.submit("a".upper).result() == "A"
        await pool.drain()
        names = {name: each.done for name, each in pool.statistics().entrypoints.items()}
        assert names == {"<lambda>": 5, "Callable_": 1, "method": 1, "upper": 1}
        del token
        eventually(lambda: gc.collect() >= 0 and watched() is None)

    once(main)


class Proxy:
    """Answers to every name, as that of xmlrpc does."""

    def __getattr__(self, name: str) -> Any:
        return Proxy()

    def __call__(self) -> str:
        return "answered"


def test_proxies_that_answer_to_every_name(once: Run) -> None:
    """They are booked under their type."""

    async def main() -> None:
        async with Pool() as pool:
            assert await asyncio.wrap_future(pool.executor().submit(Proxy())) == "answered"
        assert pool.statistics().entrypoints["Proxy"].done == 1

    once(main)


def test_handles_of_submitted_calls(once: Run) -> None:
    """The handles in the pool are like all others: they can be awaited, and moved to another pool."""

    async def main() -> None:
        whole, free = Pool(), Pool()
        shut = Pool(Concurrency(1), parent=whole)
        gate, executor = Gate(), shut.executor()
        held, moved = executor.submit(gate), executor.submit(twice, 4)
        (handle,) = shut.select(entrypoint=twice)
        assert isinstance(handle, Threadlet) and handle.entrypoint.name == "twice"
        assert list(whole.select(entrypoint=twice)) == [handle]
        assert shut.select(entrypoint=twice).move(free) == 1
        assert list(free.select(entrypoint=twice)) == [handle] and not whole.select(entrypoint=twice)
        await handle
        assert moved.result() == 8
        failing = executor.submit(divide, 1)
        (handle,) = shut.select(entrypoint=divide)
        gate.open()
        with pytest.raises(Exception, match="ZeroDivisionError") as caught:
            await handle
        assert caught.value.__cause__ is failing.exception()
        assert held.done()

    once(main)


def test_thousands(once: Run) -> None:
    """A burst from another thread is taken in by turns, and what is cancelled in it holds nothing."""

    async def main() -> None:
        pool = Pool(Concurrency(8))
        executor = pool.executor()

        def burst() -> list[Future[int]]:
            all_ = [executor.submit(twice, n) for n in range(3_000)]
            for future in all_[::2]:
                future.cancel()
            return all_

        all_ = await in_thread(burst)
        await asyncio.gather(
            *map(asyncio.wrap_future, all_), return_exceptions=True
        )  # polling would keep workers waiting
        assert all(future.done() for future in all_)
        assert all(future.cancelled() or future.result() == 2 * n for n, future in enumerate(all_))
        assert sum(not future.cancelled() for future in all_) >= 1_500
        await pool.drain()
        await rounds()
        assert not executor._unfinished and len(pool) == 0
        pool._check()

    once(main)
