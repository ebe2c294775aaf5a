"""How threads come back: many at once, in each other, cancelled or with an exception; and who waits aside for them."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.support import eventually
from tests.takeovers import Away, at_home, token_of
from tests.workbench import PATIENCE, Gate, until
from threadlets import Chain, blocking, files, threadlet


def test_cancel_of_a_task_that_is_away(hands: Run) -> None:
    """The cancel is delivered at the task's first await after its region; nothing is raised in the region."""

    async def main() -> None:
        steps, gate = [], Gate()

        async def block() -> None:
            with blocking():
                gate()
                steps.append("region")
            steps.append("after")
            try:
                await asyncio.sleep(0)
            finally:
                steps.append(at_home())

        task = asyncio.create_task(block())
        await asyncio.sleep(0)
        gate.wait_arrived()
        assert task.cancel("reason")
        await asyncio.sleep(0)
        assert steps == []
        assert not task.done()
        gate.open()
        with pytest.raises(asyncio.CancelledError, match="reason"):
            await task
        assert steps == ["region", "after", True]
        async with Away() as task:
            task.cancel()
        assert task.cancelled(), "one that returns without another await, too, as asyncio has it"

    hands(main)


@pytest.mark.parametrize("kind", ["threadlet", "chain", "opener"])
def test_cancel_of_a_task_whose_call_is_away(hands: Run, kind: str, tmp_path: Path) -> None:
    """The cancel is delivered at the await of the call, and not at a later one, which may be far away."""

    async def main() -> None:
        gate, steps = Gate(), list[str]()

        def block(*_: Any) -> int:
            gate()
            return os.open(__file__, os.O_RDONLY)

        async def call() -> None:
            if kind == "threadlet":
                await threadlet(block)()
            elif kind == "chain":
                await Chain().then(block).then(os.close)()
            else:
                await files.open(tmp_path / "file", opener=block)

        async def one() -> None:
            try:
                await call()
            except asyncio.CancelledError:
                steps.append("told")
            await asyncio.sleep(0)
            steps.append("went on")

        task = asyncio.create_task(one())
        await asyncio.sleep(0)
        gate.wait_arrived()
        assert task.cancel()
        gate.open()
        await task
        assert steps == ["told", "went on"]

    hands(main)


def test_exceptions_out_of_regions(hands: Run) -> None:
    """What a region raises comes out of it as it is, and handlers see the loop again, taken or not."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for taken in (False, True):
            gate, failure = Gate(), LookupError("expected")
            if not taken:
                gate.open()

            async def fail(gate: Gate = gate, failure: Exception = failure) -> None:
                try:
                    with blocking():
                        gate()
                        raise failure
                except LookupError:
                    assert asyncio.get_running_loop() is loop
                    assert asyncio.current_task() is not None
                    await asyncio.sleep(0)
                    raise

            task = asyncio.create_task(fail())
            await asyncio.sleep(0)
            gate.open()
            with pytest.raises(LookupError) as caught:
                await task
            assert caught.value is failure

    hands(main)


def test_exceptions_in_callbacks(hands: Run) -> None:
    """A callback that fails is told to the exception handler, on a spare, and after a region that was taken."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        gate = Gate()

        def block() -> None:
            with blocking():
                gate()
            raise ValueError("after the region")

        loop.call_soon(block)
        await asyncio.sleep(0)
        gate.wait_arrived()
        loop.call_soon(fail)
        await asyncio.sleep(0)
        assert not at_home()
        assert [str(each["exception"]) for each in hands.told()] == ["on a spare"]
        gate.open()
        await until(at_home)
        assert [str(each["exception"]) for each in hands.told()] == ["after the region"]

    def fail() -> None:
        raise ValueError("on a spare")

    hands(main)


def test_many_are_away_at_once(hands: Run) -> None:
    """Thirty threads are away at once; they come back in any order, and each goes on with its own task."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        gates = [Gate() for _ in range(30)]

        async def block(gate: Gate) -> int:
            me, task = threading.get_ident(), asyncio.current_task()
            with blocking():
                gate()
            assert (threading.get_ident(), asyncio.current_task()) == (me, task)
            await asyncio.sleep(0)
            assert asyncio.current_task() is task
            return me

        tasks = [asyncio.create_task(block(gate)) for gate in gates]
        await until(lambda: loop.statistics().away == len(gates))
        for place in [*range(1, 30, 2), 0, *range(2, 30, 2)]:
            gates[place].open()
            await tasks[place]
            await asyncio.sleep(0)
        assert len({task.result() for task in tasks}) == 30
        assert at_home()
        assert loop.statistics().away == 0
        token_of(loop)._check()

    hands(main)


def test_a_spares_own_region(hands: Run) -> None:
    """A spare that blocks is taken over itself, comes back while home is away, and drives on."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with Away():
            first = threading.get_ident()
            async with Away() as task:
                assert loop.statistics().away == 2
                assert threading.get_ident() != first
                async with Away():
                    assert loop.statistics().away == 3
            assert task.result() == first
            await until(lambda: loop.statistics().away == 1)
            assert threading.get_ident() == first, "it has the loop as long as home is away"
        assert at_home()

    hands(main)


def test_home_comes_first(hands: Run) -> None:
    """Home comes back while a spare is away: it drives, and the spare ends its step when it can."""

    async def main() -> None:
        away, later = Away(), Away()
        await away.__aenter__()
        await later.__aenter__()
        await away.__aexit__()
        await until(at_home)
        for _ in range(10):
            await asyncio.sleep(0)
            assert at_home()
        assert asyncio.get_running_loop().statistics().away == 1  # type: ignore[attr-defined]
        await later.__aexit__()
        await asyncio.sleep(0)
        assert at_home()

    hands(main)


def test_taken_again_in_the_same_step(hands: Run) -> None:
    """One step may open region after region, each taken, on home's thread."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()

        async def block() -> set[int]:
            threads = set()
            for _ in range(10):
                arrived = threading.Event()
                with blocking():
                    loop.call_soon_threadsafe(arrived.set)
                    assert arrived.wait(PATIENCE)
                threads.add(threading.get_ident())
            return threads

        assert await asyncio.create_task(block()) == {threading.get_ident()}
        assert loop.statistics().takeovers == 10

    hands(main)


def test_claims_wait_when_a_region_is_taken(hands: Run) -> None:
    """If somebody waits for the token when a region is taken, it is handed over at once."""

    async def main() -> None:
        token = token_of(asyncio.get_running_loop())
        really = token.driver.obstacle
        away = Away()

        def obstacle(handle: Any) -> str | None:  # the sentinel asks before it takes
            eventually(lambda: token.claims)
            return really(handle)

        def block() -> None:
            token.driver.obstacle = obstacle
            with blocking():
                away.gate.open()  # home claims the token
                eventually(lambda: token.thread == token.home)
                token.driver.obstacle = really
            ended.set_result(threading.get_ident())

        ended = asyncio.get_running_loop().create_future()
        async with away:
            spare = threading.get_ident()
            asyncio.get_running_loop().call_soon(block)
            assert await ended == spare
        assert token._tally.takeovers == 2
        await until(at_home)

    hands(main)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_region_in_the_first_step_of_an_eager_task(hands: Run) -> None:
    """A task that starts another one eagerly is away with it; both are what they were when they go on."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        gate = Gate()

        async def inner() -> None:
            me = asyncio.current_task()
            with blocking():
                gate()
            assert asyncio.current_task() is me
            await asyncio.sleep(0)
            assert asyncio.current_task() is me

        async def outer() -> str:
            me = asyncio.current_task()
            task = asyncio.Task(inner(), loop=loop, eager_start=True)  # type: ignore[call-arg]
            assert asyncio.current_task() is me
            await task
            return "both"

        task = asyncio.create_task(outer())
        await asyncio.sleep(0)
        gate.wait_arrived()
        assert not at_home()
        assert asyncio.current_task() not in (task, None)
        gate.open()
        assert await task == "both"

    hands(main)


def test_statistics(hands: Run) -> None:
    """What was away is counted and timed, and while it is away it can be seen."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        assert loop.statistics().takeovers == 0
        async with Away(), Away():
            during = loop.statistics()
        after = loop.statistics()
        assert (during.takeovers, during.away, during.seconds_away) == (2, 2, 0.0)
        assert (after.takeovers, after.away, after.stalls) == (2, 0, {})
        assert 0 < after.longest_away <= after.seconds_away
        assert 0.001 <= after.threshold <= 0.008

    hands(main)
