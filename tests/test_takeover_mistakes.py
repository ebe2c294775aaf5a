"""Something is awaited inside of ``with blocking():``: an error for that task, and nobody else notices."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.conftest import Run
from tests.takeovers import Away, at_home, token_of
from tests.workbench import PATIENCE, Gate
from threadlets import blocking


@pytest.mark.parametrize("taken", [False, True], ids=["in place", "taken"])
def test_await_in_a_region(hands: Run, taken: bool) -> None:
    """A mistaken await is an error at the end of the block, for its task alone; the loop goes on."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        for _ in range(2):
            gate, steps, future = Gate(), [], loop.create_future()

            async def mistake(gate: Gate = gate, future: Any = future, steps: list[Any] = steps) -> None:
                with blocking():
                    gate()
                    await asyncio.sleep(0)
                    await future
                    steps.append(asyncio.get_running_loop() is loop and asyncio.current_task())

            if not taken:
                gate.open()
            task = asyncio.create_task(mistake())
            await asyncio.sleep(0)
            gate.open()
            loop.call_later(0.002, future.set_result, None)
            with pytest.raises(RuntimeError, match="awaited inside of 'with blocking"):
                await task
            assert steps == [task]
            await asyncio.sleep(0)
            async with Away():
                assert not at_home()
            assert at_home()
            token_of(loop)._check()

    hands(main)
    told = [each["message"] for each in hands.told()]
    assert all("Leaving task" in each or "awaited inside" in each or "Exception in callback" in each for each in told)
    assert told or not taken


class Hook:
    """Stops the sentinel at one of its questions about obstacles: 1, before it pops the mark; 2, after that."""

    def __init__(self, token: Any, question: int) -> None:
        self.arrived, self.go = threading.Event(), threading.Event()
        self._token, self._really = token, token.driver.obstacle
        self._left = question
        token.driver.obstacle = self

    def __call__(self, handle: Any) -> str | None:
        found: str | None = self._really(handle)
        if threading.get_ident() != self._token.home:
            self._left -= 1
            if not self._left:
                self.arrived.set()
                assert self.go.wait(PATIENCE)
        return found


@pytest.mark.parametrize("question", [1, 2])
def test_sentinel_comes_too_late(hands: Run, question: int) -> None:
    """The region is closed by force just when the sentinel takes it: one of them has the loop, and never both.

    1.  sentinel: finds the region old enough       driver: ends the step, closes the region, goes on
        sentinel: pops a mark that is worth nothing
    2.  sentinel: pops the mark                     driver: ends the step, finds no mark, claims the token
        sentinel: leaves the region, drives
    """

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        token = token_of(loop)
        ended = loop.create_future()
        take, tried = token.take, threading.Event()

        def take_and_tell(cell: list[int]) -> bool:
            taken: bool = take(cell)
            tried.set()
            return taken

        token.take = take_and_tell

        async def mistake() -> None:
            hook = Hook(token, question)
            with pytest.raises(RuntimeError, match="awaited inside of"):
                with blocking():
                    assert hook.arrived.wait(PATIENCE)
                    if question == 2:
                        threading.Timer(0.01, hook.go.set).start()  # when home waits for the token, or soon before
                    await asyncio.sleep(0)
                    assert asyncio.get_running_loop() is loop
                    assert asyncio.current_task() is not None
                    hook.go.set()
                    assert tried.wait(PATIENCE)
                    assert at_home()
            ended.set_result(None)

        task = asyncio.create_task(mistake())
        await ended
        await task
        for _ in range(5):
            await asyncio.sleep(0.001)
            assert at_home()
            assert not loop.statistics().away
        assert loop.statistics().takeovers == question - 1
        async with Away():
            assert not at_home()
        token._check()

    hands(main)
    hands.told()
