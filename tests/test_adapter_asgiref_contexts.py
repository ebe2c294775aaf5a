"""asgiref's contexts with the adapter installed: their threads, cancelling, pools, and the thread of the loop."""

from __future__ import annotations

import asyncio
import functools
import importlib
import threading
import time
from asyncio import CancelledError
from typing import Any

import pytest

from threadlets import Concurrency, Pool, blocking

from .conftest import Run
from .workbench import PATIENCE, Gate

pytest.importorskip("asgiref.sync")
adapter = pytest.importorskip("threadlets.adapters.asgiref")
calls = importlib.import_module("threadlets.adapters.asgiref_calls")

from asgiref.local import Local  # noqa: E402
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, async_to_sync, sync_to_async  # noqa: E402

MODES = ["worker", "home"]
free = functools.partial(sync_to_async, thread_sensitive=False)
here = threading.get_ident


@pytest.fixture(autouse=True)
def nothing_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions of one test are those of its next round, to whoever knows them by their code."""
    monkeypatch.setattr(calls, "entries", calls.Known())


def bridge(function: Any, *args: Any) -> Any:
    """What synchronous code does to await."""
    return async_to_sync(function)(*args)


# ---------------------------------------------------------------------------------------------- the threads of contexts


def test_each_context_has_a_thread(run: Run) -> None:
    """One for all its calls, another one than that of a context beside it, and the one inside is part of the outer."""

    async def context(meet: Any) -> set[int]:
        async with ThreadSensitiveContext():
            threads = {await sync_to_async(here)()}
            await sync_to_async(meet)(PATIENCE)
            async with ThreadSensitiveContext():
                threads |= {await sync_to_async(lambda: here())() for _ in range(3)}
            return threads

    async def main() -> None:
        meet = threading.Barrier(3).wait
        found = await asyncio.gather(*(context(meet) for _ in range(3)))
        assert [len(threads) for threads in found] == [1, 1, 1] and len(set.union(*found)) == 3
        assert here() not in set.union(*found)
        outside = await sync_to_async(here)()
        assert outside == await sync_to_async(here)() and outside not in (here(), *set.union(*found))

    with adapter.install():
        run(main)


def test_thousands_of_contexts_leave_nothing(once: Run) -> None:
    """Threads are used again, one after the other, and neither threads nor what is kept of contexts grow."""

    async def main() -> None:
        threads = set()
        for _ in range(2000):
            async with ThreadSensitiveContext():
                threads.add(await sync_to_async(here)())
        assert len(threads) < 10 and threading.active_count() < before + 10
        assert not SyncToAsync.context_to_thread_executor

    before = threading.active_count()
    with adapter.install():
        once(main)


def test_a_task_that_outlives_its_context(run: Run) -> None:
    """It gets a thread once more, which is given back with the context; and so is one after uninstall()."""

    async def late(go: asyncio.Event) -> int:
        await go.wait()
        return await sync_to_async(here)()  # type: ignore[no-any-return]

    async def main() -> None:
        go = asyncio.Event()
        with adapter.install():
            async with ThreadSensitiveContext():
                task = asyncio.create_task(late(go))
                await sync_to_async(here)()
            go.set()
            assert await task != here()
            context = ThreadSensitiveContext()
            await context.__aenter__()
            thread = await sync_to_async(here)()
        assert thread == await sync_to_async(here)()
        await context.__aexit__(None, None, None)

    run(main)


# ---------------------------------------------------------------------------------------------------------- cancelling


def test_a_cancelled_call(run: Run) -> None:
    """One that runs is left behind, and only the end of its context waits for it; one that waits never runs."""
    ran = []

    async def main() -> None:
        gate = Gate()
        function = sync_to_async(lambda: gate(ran.append("first")))
        async with ThreadSensitiveContext():
            first = asyncio.create_task(function())
            await asyncio.to_thread(gate.wait_arrived)
            second = asyncio.create_task(sync_to_async(ran.append)("second"))
            await asyncio.sleep(0)
            for task in (second, first):
                task.cancel()
                with pytest.raises(CancelledError):
                    await task
            threading.Timer(0.02, gate.open).start()
        assert gate._open.is_set() and ran == ["first"]

    with adapter.install():
        run(main)


def test_a_context_that_is_cancelled_as_it_ends(run: Run) -> None:
    """It need not wait for what still runs; the thread is given back when that has ended."""

    async def main() -> None:
        gate, ended = Gate(), threading.Event()

        async def context() -> None:
            async with ThreadSensitiveContext():
                call = asyncio.create_task(sync_to_async(gate)())
                await asyncio.to_thread(gate.wait_arrived)
                asyncio.create_task(sync_to_async(ended.set)())  # noqa: RUF006  # its turn comes when nobody is here
                await asyncio.sleep(0)
                call.cancel()
                with pytest.raises(CancelledError):
                    await call
                leaving.set()

        leaving = asyncio.Event()
        task = asyncio.create_task(context())
        await leaving.wait()
        task.cancel()
        with pytest.raises(CancelledError):
            await task
        gate.open()
        await asyncio.to_thread(ended.wait, PATIENCE)
        async with ThreadSensitiveContext():
            assert await sync_to_async(here)() != here()

    with adapter.install():
        run(main)


@pytest.mark.parametrize("mode", MODES)
def test_cancelling_reaches_the_coroutine(hands: Run, mode: Any) -> None:
    """What a function waits for in async_to_sync is cancelled, and may say no; the function is waited for."""

    async def main() -> None:
        for listens in (False, True):
            begun = asyncio.Event()

            async def inner(begun: asyncio.Event = begun, listens: bool = listens) -> str:
                begun.set()
                try:
                    await asyncio.sleep(3600)
                except CancelledError:
                    if not listens:
                        raise
                return "cleaned up"

            async with ThreadSensitiveContext():
                for wrap in (sync_to_async, free):
                    begun.clear()
                    task = asyncio.create_task(wrap(bridge)(inner))
                    await begun.wait()
                    task.cancel()
                    if listens and mode == "worker" and wrap is sync_to_async:  # asgiref drops it, if it is quick
                        assert isinstance(
                            (await asyncio.gather(task, return_exceptions=True))[0], (str, CancelledError)
                        )
                    elif listens:
                        assert await task == "cleaned up"
                    else:
                        with pytest.raises(CancelledError):
                            await task

    with adapter.install(thread_sensitive=mode):
        hands(main)
    assert all(isinstance(report["exception"], CancelledError) for report in hands.told())  # asgiref may leave these


# ---------------------------------------------------------------------------------------------------------------- pools


@pytest.mark.parametrize("mode", MODES)
def test_rules_of_a_pool_hold(run: Run, mode: Any) -> None:
    """No more run at a time than it allows; what is called from inside of one does not wait; other loops may call."""
    at_once, most = 0, 0

    def function() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        bridge(free(time.sleep), 0)
        at_once -= 1

    async def main() -> None:
        pool = Pool(Concurrency(1))
        with adapter.install(pool, thread_sensitive=mode):
            await asyncio.gather(*(free(function)() for _ in range(5)), *(sync_to_async(function)() for _ in range(5)))
            assert most == 1 and pool.statistics().done == 10
            assert await asyncio.to_thread(asyncio.run, sync_to_async(len)("abc")) == 3
            pool.close()

    run(main)


def test_a_pool_can_cancel(run: Run) -> None:
    """Calls that wait for their turn are cancelled in bulk, and never run."""
    ran: list[int] = []

    async def main() -> None:
        pool = Pool(Concurrency(1))
        gate = Gate()
        with adapter.install(pool):
            first = asyncio.create_task(sync_to_async(gate)("value"))
            await asyncio.to_thread(gate.wait_arrived)
            others = [asyncio.create_task(wrap(ran.append)(1)) for wrap in (free, sync_to_async) for _ in range(5)]
            while len(pool.select(state="queued")) < len(others):  # noqa: ASYNC110  # the pool has no event for it
                await asyncio.sleep(0)
            pool.select(state="queued").cancel("not wanted")
            found = await asyncio.gather(*others, return_exceptions=True)
            assert {type(each) for each in found} == {CancelledError} and not ran
            gate.open()
            assert await first == "value"

    run(main)


# --------------------------------------------------------------------------------------- loops that change hands, home


def test_home_waits_for_home(hands: Run) -> None:
    """While a sensitive call blocks, the loop goes on, and other sensitive calls wait: they have one thread."""

    async def main() -> None:
        gate, order = Gate(), []

        async def first() -> None:
            order.append(await sync_to_async(gate)("first"))

        async def second() -> None:
            await asyncio.to_thread(gate.wait_arrived)
            waiting = asyncio.create_task(sync_to_async(lambda: (order.append("second"), here())[1])())
            await asyncio.sleep(0.01)
            order.append("meanwhile")
            gate.open()
            assert await waiting == home

        home = here()
        await asyncio.gather(first(), second())
        assert order[0] == "meanwhile" and set(order) == {"meanwhile", "first", "second"}

    with adapter.install(thread_sensitive="home"):
        hands(main)


def test_locals_follow_a_task(hands: Run) -> None:
    """A task that goes on in another thread of the loop sees what it has set before, also in a region."""
    local = Local()

    async def main() -> None:
        gate = Gate()
        local.name = "mine"

        async def elsewhere() -> None:
            await asyncio.to_thread(gate.wait_arrived)
            assert here() != home and local.name == "mine"
            with blocking():
                assert local.name == "mine"
            local.name = "other"
            assert await free(lambda: local.name)() == local.name == "other"
            gate.open()

        home = here()
        task = asyncio.create_task(elsewhere())
        await asyncio.sleep(0)
        with blocking():
            gate()
        await task

    with adapter.install():
        hands(main)
