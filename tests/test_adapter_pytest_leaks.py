"""The pytest plugin: tests that leave something behind, and tests that stall their event loop."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import pytest

from threadlets.adapters import pytest_stalls
from threadlets.adapters.pytest_stalls import Stalls

from .conftest import Run
from .plugins import suite

pytest_plugins = ["pytester"]

LEAKS = """
    import asyncio, threading, time, pytest
    from threadlets import Contract, Lock, Pool, blocking, threadlet

    TILL = Lock("till")
    go_on = threading.Event()

    @threadlet
    async def pause(seconds):
        await asyncio.sleep(seconds)

    @threadlet
    async def fail():
        await asyncio.sleep(0)
        raise ValueError("nobody looks at this")

    @threadlet(contract=Contract(blocks="always", cancel="abandon"))
    def wait():
        go_on.wait(20)

    @pytest.mark.threadlets
    class TestMarked:
        async def test_leaves_nothing(self):
            await pause(0)
            handle = pause(60)
            handle.cancel()

        async def test_leaves_a_threadlet(self):
            pause(60)

        async def test_leaves_one_in_a_pool(self):
            Pool(name="mine").start(pause, 60)

        async def test_leaves_a_worker(self):
            handle = wait()
            while handle.state == "queued":
                await asyncio.sleep(0)
            handle.cancel()

        async def test_an_old_one_is_no_matter(self):
            await pause(0)

        async def test_leaves_a_lock(self):
            async def take():
                await TILL.acquire_async()
            await asyncio.create_task(take())

        def test_leaves_a_lock_on_a_thread(self):
            go_on.set()
            lock.acquire()

        async def test_fails_and_leaves(self):
            pause(60)
            assert 1 == 2

        async def test_skips(self):
            pytest.skip("for a reason")

    lock = Lock("of a thread")

    async def test_pool_comes_to_its_end(threadlet_pool):
        threadlet_pool.start(pause, 0.01)

    async def test_pool_has_a_failure(threadlet_pool):
        threadlet_pool.start(fail)

    async def test_pool_has_one_that_is_retrieved(threadlet_pool):
        with pytest.raises(ValueError):
            await threadlet_pool.start(fail)

    @pytest.mark.threadlets(finish=0.01)
    async def test_pool_does_not_end(threadlet_pool):
        threadlet_pool.start(pause, 60)

    async def test_pool_of_one_that_fails(threadlet_pool):
        threadlet_pool.start(pause, 60)
        raise KeyError("mine")

    def test_pool_without_a_task(threadlet_pool):
        pass

    @pytest.mark.threadlets(max_stal=1)
    def test_wrong_argument():
        pass

    @pytest.mark.threadlets(finish=0)
    def test_wrong_value():
        pass
"""


def test_who_leaves_something_behind_fails(pytester: pytest.Pytester) -> None:
    """Threadlets, busy workers, held locks and failures that nobody looked at fail the test, and are named."""
    result = suite(pytester, LEAKS, "-rfEs")
    result.assert_outcomes(passed=4, failed=12, skipped=1)
    text = result.stdout.str()
    for words in (
        "threadlets: <Threadlet pause missed> was not final when the test had ended:\n",
        "await asyncio.sleep(seconds)\n",
        "the worker thread 'threadlets-worker-",
        "still runs <Threadlet wait cancelled>:\n",
        "go_on.wait(20)\n",
        "(TestMarked.test_leaves_a_lock.<locals>.take) holds <Lock 'till': taken>, taken at ",
        "holds <Lock 'of a thread': taken>, taken at ",
        "unretrieved failures in pool 'threadlet_pool of test_pool_has_a_failure'",
        "nobody looks at this",
        "<Threadlet pause missed> was not final 0.01 s after the test had ended",
        "threadlet_pool is open in the task of an async test: this test has none",
        "the arguments of this marker are max_stall=seconds and finish=seconds",
        "pytest.mark.threadlets(finish=0): expected seconds, above 0",
    ):
        assert words in text, words
    section = text.partition("TestMarked.test_fails_and_leaves _")[2].partition("\n____")[0]
    assert "assert 1 == 2" in section and "Captured threadlets call" in section and "was not final" in section
    failed = {line.split(" ")[1].rpartition("::")[2] for line in result.outlines if line.startswith("FAILED ")}
    passed = {"leaves_nothing", "an_old_one_is_no_matter", "pool_comes_to_its_end", "pool_has_one_that_is_retrieved"}
    assert not failed & {f"test_{name}" for name in passed}


def test_strict_looks_at_every_test(pytester: pytest.Pytester) -> None:
    """With the option a test need not ask to be looked after."""
    result = suite(
        pytester,
        """
        import pytest, threadlets
        lock = threadlets.Lock()
        def test_clean():
            pass
        def test_leaves_a_lock():
            lock.acquire()
        """,
        "--threadlets-strict",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["threadlets: strict", "threadlets: thread*holds*and the test has ended"])


STALLS = """
    import asyncio, threading, pytest
    from threadlets.adapters import pytest_stalls

    seen = threading.Event()
    look = pytest_stalls.stack_of_callback

    @pytest.fixture(autouse=True)
    def spy(monkeypatch):
        def seeing(*args):
            stack = look(*args)
            if stack:
                seen.set()
            return stack
        monkeypatch.setattr(pytest_stalls, "stack_of_callback", seeing)
        seen.clear()

    def block():  # until it was found
        assert seen.wait(20)

    @pytest.mark.threadlets(max_stall=0.02)
    class Test:
        async def test_at_the_end(self):
            block()  # at the end

        async def test_in_a_callback(self):
            asyncio.get_running_loop().call_soon(lambda: block())  # a callback
            while not seen.is_set():
                await asyncio.sleep(0.001)

        async def test_fails_beside(self):
            block()
            assert 1 == 2
"""


@pytest.mark.parametrize("loop", [None, "asyncio", "uvloop"])
def test_what_stalls_the_loop_is_named(pytester: pytest.Pytester, loop: str | None) -> None:
    """The call is found while it stalls the loop, wherever it is."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    result = suite(pytester, STALLS, *([] if loop is None else [f"--threadlets-loop={loop}"]))
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "threadlets: the event loop stood still for * s, and max_stall=0.02 is allowed:",
            "    block()  # at the end",
            "threadlets: the event loop stood still for * s, and max_stall=0.02 is allowed:",
            "    *lambda: block())  # a callback",
            "*assert 1 == 2",
            "*Captured threadlets call*",
        ]
    )


def test_a_loop_that_waits_does_not_stall(run: Run) -> None:
    """Where nothing is called in the loop's thread there is nothing to name: so there is no stall."""

    async def main() -> None:
        thread = threading.get_ident()
        with Stalls(asyncio.get_running_loop(), 30.0) as stalls:
            await asyncio.sleep(0)

            def wait_until_it_waits() -> bool:
                until = time.monotonic() + 20
                while pytest_stalls.stack_of_callback(sys._current_frames()[thread], stalls.runs):
                    if time.monotonic() > until:
                        return False
                    time.sleep(0.001)
                return True

            assert await asyncio.to_thread(wait_until_it_waits)
        assert not stalls.found

    run(main)
