"""Coroutines that leave their event loop on purpose: what goes wrong, and what is left."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from typing import Any

import pytest

from tests.conftest import Run
from tests.travels import NODE, at_home, in_worker, nothing_is_left
from threadlets import (
    Contract,
    migrate,
    offload,
    pinned,
    threadlet,
)
from threadlets.workers import WorkerGroup

__all__ = ["nothing_is_left"]


# --------------------------------------------------------------------------------------------------------- mistakes


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
