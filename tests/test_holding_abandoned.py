"""Blocks that protect a function whose threadlet was abandoned: it is told by the same rules as any other."""

from __future__ import annotations

import asyncio
import threading
from asyncio import CancelledError

import pytest

from tests.conftest import Run
from tests.workbench import ABANDON, Gate, until
from threadlets import Lock, Pool, checkpoint, holding, threadlet
from threadlets.cancellation import holds
from threadlets.errors import LockPoisoned


@pytest.mark.parametrize("block", ["holding", "lock"])
def test_it_is_told_when_it_leaves(run: Run, block: str) -> None:
    """A checkpoint inside of the block does nothing, although the threadlet is final; the next one behind it raises."""
    lock, seen = Lock("held"), []

    async def main() -> None:
        pool, gate = Pool(), Gate()

        @threadlet(contract=ABANDON)
        def work() -> None:
            with holding("a while") if block == "holding" else lock:
                gate()
                checkpoint()
                seen.append("inside")
            try:
                checkpoint()
            except CancelledError as error:
                seen.append(error.args[0])

        handle = pool.start(work)
        await asyncio.to_thread(gate.wait_arrived)
        handle.cancel("left behind")
        assert handle.cancelled()
        gate.open()
        await until(lambda: not pool._abandoned)
        assert seen == ["inside", "left behind"]
        assert not lock.poisoned
        assert not holds

    run(main)


def test_it_is_told_by_force(run: Run) -> None:
    """When the grace has run out it is told inside of the block, and a lock that it leaves by that is poisoned."""
    lock = Lock("held", grace=0.01)

    async def main() -> None:
        pool, inside = Pool(), threading.Event()

        @threadlet(contract=ABANDON)
        def work() -> None:
            with lock:
                while True:
                    inside.set()
                    checkpoint()

        handle = pool.start(work)
        await asyncio.to_thread(inside.wait)
        handle.cancel("left behind")
        assert handle.cancelled()
        await until(lambda: not pool._abandoned)
        with pytest.raises(LockPoisoned, match="after its grace"):
            await lock.acquire_async()
        assert not holds

    run(main)
