"""Signal handlers that raise at the worst moment: while a thread claims the token, or home gives it away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Run
from tests.takeovers import token_of
from tests.workbench import PATIENCE, until
from threadlets import blocking


class Interrupt(BaseException):
    """Stands for KeyboardInterrupt, which pytest would take for its own."""


def once(really: Callable[[], None], *, when: Callable[[], bool], after: bool) -> Callable[[], None]:
    """Make a function raise one time, before or after what it does."""
    raised = []

    def call() -> None:
        raises = not raised and when()
        if raises and not after:
            raised.append(1)
            raise Interrupt
        really()
        if raises:
            raised.append(1)
            raise Interrupt

    return call


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_raised_when_a_claim_is_queued(hands: Run, after: bool) -> None:
    """A handler that raises when the claim is in the queue, and nobody waits for it yet: it is raised by the region.

    away: queues its claim
    away: the handler raises              driver: grants the claim, and nobody would take it
    """

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        token = token_of(loop)
        me = threading.get_ident()
        goes_on = threading.Event()
        token.driver.wake = once(token.driver.wake, when=lambda: threading.get_ident() == me, after=after)
        loop.call_soon(lambda: loop.call_soon(goes_on.set))
        with pytest.raises(Interrupt), blocking():
            assert goes_on.wait(PATIENCE)
        assert asyncio.get_running_loop() is loop
        await asyncio.sleep(0.001)
        assert token.thread == me
        token._check()

    hands(main)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_raised_when_home_gives_the_token_away(hands: Run, after: bool) -> None:
    """A handler that raises when home is about to let somebody else go on: that one goes on, and home ends with it."""
    ended = []

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        token = token_of(loop)
        home = threading.get_ident()
        first, second = threading.Event(), threading.Event()

        def block(gate: threading.Event) -> None:
            with blocking():
                assert gate.wait(PATIENCE)

        async def blocked(gate: threading.Event) -> None:
            block(gate)
            ended.append(threading.get_ident() != home)

        # The first blocks home, the second a spare; then home comes back, and gives the token to the second.
        tasks = [loop.create_task(blocked(first)), loop.create_task(blocked(second))]
        loop.call_later(0.01, first.set)
        await until(lambda: ended)
        token.driver.disown = once(token.driver.disown, when=lambda: threading.get_ident() == home, after=after)
        second.set()
        await asyncio.gather(*tasks)
        await asyncio.sleep(PATIENCE)

    with pytest.raises(Interrupt):
        hands(main)
    assert ended == [False, True]
