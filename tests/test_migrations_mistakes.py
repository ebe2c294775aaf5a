"""Coroutines that leave their event loop on purpose: what goes wrong, and what is left."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.conftest import Run
from tests.travels import NODE, at_home, in_worker, nothing_is_left
from tests.workbench import until
from threadlets import Contract, call_async, current_threadlet, migrate, offload, pinned, threadlet
from threadlets.surroundings import travellers, trips
from threadlets.workers import WorkerGroup

__all__ = ["nothing_is_left"]


def test_mistakes(run: Run) -> None:
    """Outside of a task, in what is pinned, twice, or to what is no node: a clear error, and nothing is lost."""

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


def test_a_coroutine_cannot_await_itself(run: Run) -> None:
    """As at home it is an error, and no wait without end: for its task, and for its handle."""

    async def main() -> None:
        async def awaits_itself() -> None:
            itself = current_threadlet() or asyncio.current_task()
            assert itself is not None
            async with offload():
                with pytest.raises(RuntimeError, match="cannot await on itself"):
                    await itself

        await asyncio.create_task(awaits_itself())
        await threadlet(awaits_itself)()

    run(main)


def test_a_coroutine_that_is_no_native_one(run: Run) -> None:
    """A coroutine is what has send() and throw(): one that is written in another language, or wraps one."""

    class Wrapped(Coroutine[Any, Any, bool]):
        def __init__(self, coroutine: Coroutine[Any, Any, bool]) -> None:
            self.coroutine = coroutine

        def send(self, value: Any) -> Any:
            return self.coroutine.send(value)

        def throw(self, *error: Any) -> Any:
            return self.coroutine.throw(*error)

        def close(self) -> None:
            self.coroutine.close()

        def __await__(self) -> Any:
            return self.coroutine.__await__()

    async def hops() -> bool:
        for _ in range(20):
            async with offload():
                assert not at_home()
            await migrate(NODE)
            await migrate(None)
        return at_home()

    async def main() -> None:
        assert await asyncio.get_running_loop().create_task(Wrapped(hops()))

    run(main)


def test_an_exit_does_not_end_the_loop_of_a_node(once: Run) -> None:
    """SystemExit in a coroutine that visits ends its own program; the node's loop goes on for the others."""

    async def exits() -> None:
        await migrate(NODE)
        raise SystemExit(4)

    async def main() -> None:
        await asyncio.create_task(exits())

    async def visits() -> None:
        await migrate(NODE)
        await asyncio.sleep(0)

    with pytest.raises(SystemExit):
        once(main)
    once(visits)


def test_its_loop_is_closed_while_it_is_away(once: Run) -> None:
    """The coroutine is dropped when it wants to go home, as any task of a closed loop is; nothing refers to it."""
    loop, end, ended = once.new_loop(), threading.Event(), threading.Event()

    class Thing:
        def __del__(self) -> None:
            ended.set()

    async def away() -> None:
        thing = Thing()
        async with offload():
            end.wait(20)
        del thing

    async def main() -> None:
        loop.tasks = {asyncio.create_task(away())}  # type: ignore[attr-defined]
        await until(lambda: trips)

    loop.run_until_complete(main())
    loop.close()
    end.set()
    del loop.tasks  # type: ignore[attr-defined]
    deadline = time.monotonic() + 20
    while not ended.wait(0.01) and time.monotonic() < deadline:
        gc.collect()
    assert ended.is_set()
    assert [report["message"] for report in once.told()] == ["Task was destroyed but it is pending!"]


def test_a_forked_child_has_nobody_away(once: Run) -> None:
    """Threads of the child are nobody's, although they may have the numbers of threads that its parent has."""

    async def main() -> bytes:
        out, into = os.pipe()
        async with offload():
            await asyncio.sleep(0)
            end = threading.Event()
            task = call_async(start_another, end)
            child = os.fork()
            if child == 0:
                try:
                    os.write(into, str(len(travellers)).encode())
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            end.set()
            await task
        try:
            return os.read(out, 10)
        finally:
            os.close(out)
            os.close(into)

    async def start_another(end: threading.Event) -> asyncio.Task[None]:
        async def another() -> None:
            async with offload():
                began.set()
                end.wait(20)

        began = threading.Event()
        task = asyncio.create_task(another())
        await until(began.is_set)
        return task

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork in a process with threads
        assert once(main) == b"1"
