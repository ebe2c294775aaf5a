"""anyio's worker threads as threadlets."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

pytest.importorskip("anyio")

import anyio.lowlevel
from anyio import CapacityLimiter, from_thread, to_thread
from anyio._backends._asyncio import AsyncIOBackend

from tests.conftest import Run
from tests.workbench import Gate, rounds
from threadlets import Concurrency, Contract, Pool, threadlet
from threadlets.adapters import anyio as adapter
from threadlets.adapters.callables import site_of
from threadlets.errors import PoolFull

word: ContextVar[str] = ContextVar("word", default="none")


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    """Have the adapter installed in every test."""
    with adapter.install():
        yield


def identify() -> int:
    """Say which thread this is."""
    return threading.get_ident()


def test_quick_functions_run_in_place_and_blocking_ones_do_not_stall(run: Run) -> None:
    """What is quick comes to the loop's thread; what waits for the loop's progress gets it."""

    async def main() -> None:
        for _ in range(5000):
            if await to_thread.run_sync(identify) == threading.get_ident():
                break
        else:
            raise AssertionError("it never ran in place")
        gate = Gate()
        waiting = asyncio.ensure_future(to_thread.run_sync(gate, 7))
        await asyncio.sleep(0)
        gate.open()
        assert await waiting == 7

    run(main)


def test_failures_come_out_as_they_are(run: Run) -> None:
    """The exception itself, with the function in its traceback; StopIteration becomes a RuntimeError, as with anyio."""

    def fail(error: BaseException) -> None:
        raise error

    async def main() -> None:
        for error in (KeyError("a"), CancelledError("by hand")):
            with pytest.raises(type(error)) as caught:
                await to_thread.run_sync(fail, error)
            assert isinstance(error, CancelledError) or caught.value is error
        with pytest.raises(RuntimeError, match="StopIteration") as stopped:
            await to_thread.run_sync(fail, StopIteration(1))
        assert isinstance(stopped.value.__cause__, StopIteration)

    run(main)


def test_context_variables_go_in_and_stay_there(run: Run) -> None:
    """The function sees its caller's, and what it sets is not seen outside; nor does anyio take it for a coroutine."""

    def change() -> tuple[str, str | None]:
        before = word.get()
        word.set("changed")
        return before, sys.modules["sniffio"].current_async_library_cvar.get(None) if "sniffio" in sys.modules else None

    async def main() -> None:
        word.set("mine")
        for _ in range(20):
            assert await to_thread.run_sync(change) == ("mine", None)
            assert word.get() == "mine"

    run(main)


def test_from_thread_works_wherever_the_function_runs(run: Run) -> None:
    """``run``, ``run_sync`` and a portal reach the loop; context variables go along."""

    async def double(number: int) -> tuple[int, str]:
        await asyncio.sleep(0)
        return 2 * number, word.get()

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async with from_thread.BlockingPortal() as portal:

            def ask() -> Any:
                word.set("inside")
                assert from_thread.run_sync(asyncio.get_running_loop) is loop
                assert portal.call(double, 1)[0] == 2
                from_thread.check_cancelled()
                return from_thread.run(double, 3)

            for _ in range(12):
                assert await to_thread.run_sync(ask) == (6, "inside")

    run(main)


class Hidden:
    """What waits for the loop by a way that the function's code does not show."""

    def __init__(self) -> None:
        self.act: Callable[[], Any] = int

    def __call__(self) -> Any:
        return self.act()


@pytest.mark.parametrize("way", ["run", "run_sync"])
def test_a_wait_for_a_loop_that_cannot_go_on_is_refused_once(run: Run, way: str) -> None:
    """On a plain loop, in place: a RuntimeError that says what to do; then it is kept on workers, where it works."""
    hidden = Hidden()

    def ask() -> Any:
        return threading.get_ident(), hidden()

    async def main() -> None:
        site = site_of(ask)
        site.waits = False  # as before the first call: its code is that of the tests before
        home = threading.get_ident()
        for _ in range(5000):
            if (await to_thread.run_sync(ask))[0] == home:
                break
        hidden.act = {
            "run": lambda: from_thread.run(asyncio.sleep, 0, "done"),
            "run_sync": lambda: from_thread.run_sync(str, "done"),
        }[way]
        changes_hands = hasattr(asyncio.get_running_loop(), "statistics")
        if changes_hands:
            assert (await to_thread.run_sync(ask))[1] == "done"
        else:
            with pytest.raises(RuntimeError, match=r"ask\(\) waits for the event loop.*on_worker"):
                await to_thread.run_sync(ask)
        assert site.waits
        for _ in range(3):
            assert (await to_thread.run_sync(ask))[1] == "done"

    run(main)


def test_waits_of_the_standard_library_never_stall_the_loop(run: Run) -> None:
    """However often they were quick: by ``run_sync(event.wait)`` a task waits for another thread, or another task."""

    async def main() -> None:
        ready = threading.Event()
        ready.set()
        for _ in range(100):
            await to_thread.run_sync(ready.wait)
        event = threading.Event()
        asyncio.get_running_loop().call_later(0.01, event.set)
        assert await to_thread.run_sync(event.wait, 20)

    run(main)


def test_functions_can_be_kept_away(once: Run) -> None:
    """``on_worker`` leaves a function as it was, and off the loop's thread, however quick it is."""

    @adapter.on_worker
    def ask() -> int:
        return threading.get_ident()

    async def main() -> None:
        assert {await to_thread.run_sync(ask) == threading.get_ident() for _ in range(40)} == {False}
        assert ask() == threading.get_ident()

    once(main)


def test_limiters_keep_functions_apart(run: Run) -> None:
    """With one token, one at a time runs; the token comes back, whatever ends the function."""
    limiter = CapacityLimiter(1)
    running: list[int] = []
    most: list[int] = []

    def occupy(fail: bool) -> None:
        running.append(1)
        most.append(len(running))
        time.sleep(0.0001)
        running.pop()
        if fail:
            raise KeyError("a")

    async def main() -> None:
        calls = [to_thread.run_sync(occupy, number % 2 == 1, limiter=limiter) for number in range(20)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in ended] == [type(None), KeyError] * 10
        assert set(most) == {1}
        assert (limiter.borrowed_tokens, limiter.statistics().tasks_waiting) == (0, 0)
        default = to_thread.current_default_thread_limiter()
        assert await to_thread.run_sync(lambda: default.borrowed_tokens) == 1
        assert default.borrowed_tokens == 0

    run(main)


def test_a_higher_limit_has_its_threads(once: Run) -> None:
    """Whoever raises the number of tokens above that of the workers gets as many threads as he has asked for."""
    gates = threading.Barrier(80)

    async def main() -> None:
        limiter = CapacityLimiter(80)
        await asyncio.gather(*[to_thread.run_sync(gates.wait, 20, limiter=limiter) for _ in range(80)])

    once(main)


def test_a_pool_may_rule(run: Run) -> None:
    """Its throttles hold functions back, its capacity refuses, and who waits in its queue can be cancelled."""
    gate = Gate()
    adapter.on_worker(gate)
    ran: list[int] = []

    async def main() -> None:
        async with Pool(Concurrency(1), capacity=2) as pool:
            with adapter.install(pool):
                first = asyncio.ensure_future(to_thread.run_sync(gate, "first"))
                await rounds()
                with anyio.CancelScope() as scope:
                    asyncio.get_running_loop().call_soon(scope.cancel)
                    await to_thread.run_sync(ran.append, 1)
                assert scope.cancelled_caught
                second = asyncio.ensure_future(to_thread.run_sync(ran.append, 2))
                await rounds()
                with pytest.raises(PoolFull):
                    await to_thread.run_sync(ran.append, 3)
                assert await to_thread.run_sync(int, limiter=CapacityLimiter(1)) == 0  # under that alone
                gate.open()
                assert await first == "first"
                await second
                assert ran == [2]

    run(main)


def test_an_entrypoint_goes_its_own_way(run: Run) -> None:
    """Its contract holds, and its own statistics count; a coroutine function under ``@threadlet`` is awaited, too."""

    @threadlet(contract=Contract(blocks="always"))
    def away(number: int) -> tuple[int, int]:
        return number, threading.get_ident()

    @threadlet
    async def suspended(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def main() -> None:
        before = away.statistics().on_workers
        number, thread = await to_thread.run_sync(partial(away, 3))
        assert (number, thread == threading.get_ident()) == (3, False)
        assert away.statistics().on_workers == before + 1
        assert await to_thread.run_sync(suspended, 4) == 4

    run(main)


def test_a_function_may_run_a_loop_of_its_own(run: Run) -> None:
    """What it does there does not disturb what it may do here."""

    def other() -> Any:
        for _ in range(3):
            anyio.run(partial(to_thread.run_sync, partial(from_thread.run, anyio.sleep, 0)))
        return from_thread.run_sync(asyncio.get_running_loop)

    async def main() -> None:
        site_of(other).waits = True
        for _ in range(2):
            assert await to_thread.run_sync(other) is asyncio.get_running_loop()

    run(main)


def test_loops_are_not_kept(once: Run) -> None:
    """A loop that was closed can go, with what was known of it."""

    async def main() -> weakref.ref[Any]:
        await to_thread.run_sync(identify)
        return weakref.ref(asyncio.get_running_loop())

    gone = once(main)
    gc.collect()
    assert gone() is None


def test_thousands_at_once(run: Run) -> None:
    """All are done, the limiter has all its tokens, and each gets what is its own."""

    async def main() -> None:
        numbers = await asyncio.gather(*[to_thread.run_sync(abs, -number) for number in range(1000)])
        assert numbers == list(range(1000))
        assert to_thread.current_default_thread_limiter().borrowed_tokens == 0

    run(main)


def test_it_comes_and_goes(once: Run) -> None:
    """After the last ``uninstall`` anyio is as it was; the newest pool counts."""
    with pytest.raises(TypeError, match=r"expected a threadlets\.Pool"):
        adapter.install(pool=3)  # type: ignore[arg-type]
    ours = vars(AsyncIOBackend)["run_sync_in_worker_thread"]
    adapter.uninstall()
    theirs = vars(AsyncIOBackend)["run_sync_in_worker_thread"]
    try:
        assert ours is not theirs
        assert theirs.__func__.__module__.startswith("anyio.")

        async def main() -> None:
            names = {await to_thread.run_sync(lambda: threading.current_thread().name) for _ in range(40)}
            assert all(name.startswith("AnyIO") for name in names)

        once(main)
    finally:
        adapter.install()


def test_without_anyio_the_extra_is_named() -> None:
    """An ImportError says what to install."""
    code = "import sys; sys.modules['anyio'] = None; import threadlets.adapters.anyio"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'threadlets[anyio]'" in done.stderr
