"""What is set aside while somebody is away, alone; with a loop around it: ``test_takeover_returns.py``."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator
from typing import Any

import pytest

from threadlets.asides import Aside, Errand


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Make a loop that is not run."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_entered_contexts(loop: asyncio.AbstractEventLoop) -> None:
    """A callback whose context has been entered is set aside, at home too; others are admitted; in order."""
    aside, context = Aside(), contextvars.copy_context()
    handles = [asyncio.Handle(print, (), loop, context) for _ in range(3)]
    other = asyncio.Handle(print, (), loop)
    assert all(aside.admits(each, False) for each in [*handles, other])
    found = context.run(
        lambda: [aside.admits(each, at_home) for each in [*handles, other] for at_home in (True, False)]
    )
    assert found == [False] * 6 + [True] * 2
    assert aside.total == len(aside) == 6
    assert aside.take() == [each for each in handles for _ in range(2)]
    assert not aside
    assert aside.total == 6


def test_pinned_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """The steps of a pinned task are home's, first ones and wake-ups, until it is unpinned as often."""

    async def wait() -> None:
        await future

    handles: list[Any] = []
    future = loop.create_future()
    task = loop.create_task(wait())
    loop.call_soon(lambda: handles.extend(loop._ready))  # type: ignore[attr-defined]
    handles.extend(loop._ready)  # type: ignore[attr-defined]
    loop.call_soon(future.set_result, None)
    loop.call_soon(lambda: handles.extend(loop._ready))  # type: ignore[attr-defined]
    loop.call_soon(loop.stop)
    loop.run_forever()
    steps = [each for each in handles if getattr(each._callback, "__self__", None) is task]
    loop.run_until_complete(task)
    assert len(steps) == 2, "the first step and the wake-up"
    aside = Aside()
    aside.pin(task)
    aside.pin(task)
    for pins in (2, 1):
        assert [aside.admits(each, False) for each in steps] == [False, False], pins
        assert [aside.admits(each, True) for each in steps] == [True, True]
        aside.unpin(task)
    assert [aside.admits(each, False) for each in steps] == [True, True]
    assert not aside.pinned


def test_errand_is_pinned_until_it_is_done(loop: asyncio.AbstractEventLoop) -> None:
    """An errand is kept from all but home, like a pinned task; done once, it is forgotten."""
    aside, done = Aside(), []
    errand = Errand(aside.pinned, lambda: done.append(1))
    handle = asyncio.Handle(errand, (), loop)
    assert not aside.admits(handle, False)
    assert len(aside) == aside.total == 1
    assert aside.take() == [handle]
    assert aside.admits(handle, True)
    handle._run()
    assert done == [1]
    assert not aside.pinned
