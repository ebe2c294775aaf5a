"""What a thread that is away keeps to itself: its contexts, and its right to the loop."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from tests.conftest import Run
from tests.support import eventually
from tests.takeovers import Away, at_home, token_of
from tests.workbench import Gate, until
from threadlets import blocking


def test_handles_that_share_a_context(hands: Run) -> None:
    """Callbacks in a context that is away wait aside, and come back in front and in order; others go on."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        context = contextvars.copy_context()
        order: list[str] = []
        async with Away(context):
            for number in range(3):
                loop.call_soon(order.append, f"shared {number}", context=context)
                loop.call_soon(order.append, f"other {number}")
            dropped = loop.call_soon(order.append, "cancelled", context=context)
            timer = loop.call_later(0.001, order.append, "timer", context=context)
            assert timer.when() > 0
            task = loop.create_task(note(order, "task"), context=context)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert order == ["other 0", "other 1", "other 2"]
            assert loop.statistics().set_aside >= 4
            dropped.cancel()
        await until(lambda: len(order) == 8)
        await task
        assert sorted(order[3:]) == ["shared 0", "shared 1", "shared 2", "task", "timer"]
        assert [each for each in order if each.startswith("shared")] == ["shared 0", "shared 1", "shared 2"]
        token_of(loop)._check()

    async def note(order: list[str], name: str) -> None:
        order.append(name)

    hands(main)


def test_context_that_the_users_code_has_entered(hands: Run) -> None:
    """A context that was entered by hand, around the region, is found just as well."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        context, gate, order = contextvars.copy_context(), Gate(), []

        def block() -> None:
            with blocking():
                gate()
            order.append("region")

        loop.call_soon(context.run, block)
        loop.call_soon(order.append, "shared", context=context)
        loop.call_soon(order.append, "other")
        await asyncio.sleep(0)
        gate.wait_arrived()
        assert order == ["other"]
        gate.open()
        await until(lambda: len(order) == 3)
        assert order == ["other", "region", "shared"]

    hands(main)


def test_a_loop_in_a_region(hands: Run) -> None:
    """Another loop may run in a region, taken or not; the same loop refuses to."""

    async def inner() -> str:
        async with Away():
            pass
        return "inner"

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        for taken in (False, True):
            gate = Gate()

            async def block(gate: Gate = gate) -> str:
                with blocking():
                    gate()
                    with pytest.raises(RuntimeError, match="running"):
                        loop.run_forever()
                    with asyncio.Runner(loop_factory=hands.new_loop) as runner:
                        return runner.run(inner())

            if not taken:
                gate.open()
            task = asyncio.create_task(block())
            await asyncio.sleep(0)
            gate.open()
            assert await task == "inner"
            assert at_home()

    hands(main)


def test_other_threads_are_refused_in_debug_mode(hands: Run) -> None:
    """In debug mode call_soon still tells threads that do not have the loop: others, and one that is away."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if not loop.get_debug():
            return
        found: list[str] = []

        def call() -> None:
            for method in (loop.call_soon, lambda callback: loop.call_later(1, callback)):
                with pytest.raises(RuntimeError, match="Non-thread-safe"):
                    method(print)
            found.append("refused")

        await asyncio.to_thread(call)
        async with Away():
            loop.call_soon(found.append, "on a spare")
            loop.call_later(0.001, found.append, "timer on a spare")
            await until(lambda: len(found) == 3)
            await asyncio.to_thread(call)
        gate = Gate()

        async def block() -> None:
            with blocking():
                gate()
                call()

        task = asyncio.create_task(block())
        await asyncio.sleep(0)
        gate.open()
        await task
        assert found.count("refused") == 3

    hands(main)


def test_what_was_aside_goes_in_front(hands: Run) -> None:
    """When somebody comes back, what had to wait runs before what was asked for later."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        context = contextvars.copy_context()
        order: list[str] = []

        def let_go() -> None:
            away.gate.open()
            eventually(lambda: token_of(loop).claims)
            loop.call_soon(order.append, "later")

        away = Away(context)
        async with away:
            loop.call_soon(order.append, "shared 1", context=context)
            loop.call_soon(order.append, "shared 2", context=context)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            let_go()
        await until(lambda: len(order) == 3)
        assert order == ["shared 1", "shared 2", "later"]

    hands(main)


def test_debug_mode_on_a_spare(hands: Run) -> None:
    """In debug mode a coroutine that is made on a spare remembers where."""

    async def main() -> None:
        async with Away():
            coroutine = asyncio.sleep(0)
            assert (coroutine.cr_origin is not None) == hands.debug
            coroutine.close()

    hands(main)
