"""Regions that cannot be taken: they are counted, and a sentinel that is mistaken about them harms nothing."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

from tests.conftest import Run
from tests.support import eventually
from tests.takeovers import at_home, observe, token_of
from tests.test_takeover_cases import in_a_descriptors, in_loop, pair
from tests.workbench import PATIENCE
from threadlets import blocking


def test_stall_is_counted_once(hands: Run) -> None:
    """However often the sentinel looks at a region that it cannot take, that is one stall."""

    def read(loop: Any, callback: Callable[[], None]) -> Any:
        tally = token_of(loop)._tally
        looks = threading.Semaphore(0)
        count = tally.stalled

        def stalled(*args: Any) -> None:
            count(*args)
            count(*args)  # as a second sentinel would
            looks.release()

        tally.stalled = stalled

        def region() -> None:
            with blocking():
                assert looks.acquire(timeout=PATIENCE)

        def regions() -> None:
            region()
            region()
            callback()

        return in_a_descriptors(loop, regions)

    found, statistics = in_loop(read)(hands)
    assert found == "stalls"
    assert sum(statistics.stalls.values()) == 3


def test_region_in_a_descriptors_callback_popped_in_the_last_moment(hands: Run) -> None:
    """A sentinel that was about to take a harmless region, and pops one that it may not: the loop waits, unharmed.

    sentinel: finds no obstacle                 driver: is in a task
                                                driver: ends the region and the task's step
                                                driver: opens a region in the callback of a descriptor
    sentinel: pops its mark
                                                driver: ends that region, finds it taken, claims the token
    """

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        token = token_of(loop)
        asked, popping = threading.Event(), threading.Event()
        really = token.driver.obstacle

        def obstacle(handle: Any) -> str | None:
            found = really(handle)
            if threading.get_ident() != token.home and not popping.is_set():
                asked.set()
                assert popping.wait(PATIENCE)
            return found

        token.driver.obstacle = obstacle
        order = []

        def block() -> None:
            with blocking():
                popping.set()
                eventually(lambda: loop.statistics().takeovers)
            order.append("region")

        with pair() as (ours, theirs):
            loop.add_reader(ours, lambda: (ours.recv(10), block(), loop.call_soon(order.append, "next")))
            theirs.send(b"x")
            with blocking():
                assert asked.wait(PATIENCE)
            while len(order) < 2:
                assert at_home(), "nobody else has run the loop"
                await asyncio.sleep(0)
            loop.remove_reader(ours)
        assert order == ["region", "next"]
        assert loop.statistics().takeovers == 1
        token._check()

    hands(main)


def test_region_that_a_finalizer_opens(hands: Run) -> None:
    """A region that is opened where no callback runs, as by a garbage collection, stalls and harms nothing."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        token, found = token_of(loop), []

        class Cycle:
            def __del__(self) -> None:
                handle, token.current = token.current, None
                found.append(observe(loop))
                token.current = handle

        cycle: Any = Cycle()
        cycle.me = cycle
        del cycle
        gc.collect()
        assert found == ["stalls"]
        await asyncio.sleep(0)

    hands(main)
