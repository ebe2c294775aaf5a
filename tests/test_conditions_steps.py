"""A wait is stopped before every line of the library that it comes to, and there it is granted, cancelled, or both.

No interleaving is left to chance, but for those within one line. Where a step is not reached in a moment, on a machine
that is busy, what is to happen there happens somewhere else.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Iterator
from functools import partial

import pytest

from tests.conftest import Run, run_on
from tests.waiters import Step, in_line, outcome, start
from tests.workbench import forever
from threadlets import Pool
from threadlets.conditions import Condition, Event, Semaphore


@pytest.fixture(params=["asyncio", "uvhands"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Return a function that runs a coroutine function on a loop; these two will do, for the steps are a thread's."""
    yield from run_on(request.param)


@pytest.mark.parametrize("what", ["release", "cancel", "both"])
def test_a_semaphore(run: Run, what: str) -> None:
    """Whatever line a worker is at when it is granted a token, cancelled, or both: it has that token, or it is free."""

    async def main() -> None:
        number, lines = 0, 20
        while number <= lines:
            semaphore, got = Semaphore(0), []
            step = Step(number, "semaphores", "grants", "parking", "cancellation")

            def acquire(semaphore: Semaphore = semaphore, got: list[bool] = got) -> None:
                got.append(semaphore.acquire())

            handle = start("worker", step.around(acquire), forever)
            await step.arrived()
            if what != "release":
                handle.cancel()
                await step.arrived()
            if what != "cancel":
                release = asyncio.create_task(asyncio.to_thread(semaphore.release))
                await asyncio.wait([release], timeout=0.001)  # the worker may have stopped with the mutex in its hands
            step.go()
            assert isinstance(await outcome(handle), CancelledError) == (what != "release")
            if what != "cancel":
                await release
            assert semaphore.value + len(got) == (what != "cancel"), f"at step {number}"
            semaphore._check()
            number, lines = number + 1, max(lines, step.lines)

    run(main)


@pytest.mark.parametrize("what", ["set", "cancel"])
def test_an_event(run: Run, what: str) -> None:
    """Whatever line a worker is at when it happens, or when it is cancelled: it does not sleep on."""

    async def main() -> None:
        number, lines = 0, 20
        while number <= lines:
            event, got = Event(), []
            step = Step(number, "conditions", "grants", "parking", "cancellation")

            def wait(event: Event = event, got: list[bool] = got) -> None:
                got.append(event.wait())

            handle = start("worker", step.around(wait), forever)
            await step.arrived()
            if what == "cancel":
                handle.cancel()
            else:
                act = asyncio.create_task(asyncio.to_thread(event.set))
                await asyncio.wait([act], timeout=0.001)  # the worker may have stopped with the mutex in its hands
            step.go()
            assert isinstance(await outcome(handle), CancelledError) == (what == "cancel") == (got == [])
            if what == "set":
                await act
            event._check()
            number, lines = number + 1, max(lines, step.lines)

    run(main)


@pytest.mark.parametrize("what", ["notify", "cancel", "both"])
def test_a_condition(run: Run, what: str) -> None:
    """Whatever line a worker is at when it is notified, cancelled, or both: for one notification, one goes on."""

    async def main() -> None:
        number, lines = 0, 40
        while number <= lines:
            condition, pool = Condition(), Pool()
            went_on: dict[str, bool] = {}

            def work(name: str, condition: Condition = condition, went_on: dict[str, bool] = went_on) -> None:
                with condition:
                    try:
                        went_on[name] = condition.wait()
                    finally:
                        condition.notify(0)  # an error if the lock is not held

            def notify(condition: Condition = condition) -> None:
                with condition:
                    condition.notify()

            step = Step(number, "conditions", "grants", "parking")
            following = start("worker", partial(work, "following"), forever, pool=pool, priority=5)
            await in_line(condition, 1)
            victim = start("worker", step.around(partial(work, "victim")), forever, pool=pool)
            await step.arrived()
            if what != "notify":
                victim.cancel()
                await step.arrived()
            if what != "cancel":
                act = asyncio.create_task(asyncio.to_thread(notify))
                await asyncio.wait([act], timeout=0.001)  # the worker may have stopped with a lock in its hands
            step.go()
            if what == "notify":
                await asyncio.wait([victim, following], return_when="FIRST_COMPLETED")
                await in_line(condition, 1)
                assert [victim.done(), following.done()].count(True) == 1
            else:
                assert isinstance(await outcome(victim), CancelledError)
            if what != "cancel":
                await act
            if what != "both" or went_on == {"victim": True}:
                await asyncio.to_thread(notify)
            if what == "notify":
                await victim
            await following
            assert went_on.pop("following") is True and went_on in ({}, {"victim": True}), f"at step {number}"
            assert (what == "notify") <= bool(went_on) <= (what != "cancel"), f"at step {number}"
            assert not condition.lock.locked()
            condition._check()
            number, lines = number + 1, max(lines, step.lines)

    run(main)
