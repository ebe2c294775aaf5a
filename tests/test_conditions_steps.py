"""A wait is stopped before every line of the library that it comes to, and there it is granted, cancelled, or both.

No interleaving is left to chance, but for those within one line.
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
        number, came = 0, True
        while came:
            number += 1
            semaphore, got = Semaphore(0), []
            step = Step(number, "semaphores", "grants", "parking", "cancellation")

            def acquire(semaphore: Semaphore = semaphore, got: list[bool] = got) -> None:
                got.append(semaphore.acquire())

            handle = start("worker", step.around(acquire), forever)
            await asyncio.to_thread(step.arrived.wait, 0.01)  # it stops there, or waits, or goes on when it is woken
            if what != "release":
                handle.cancel()
            if what != "cancel":
                release = asyncio.create_task(asyncio.to_thread(semaphore.release))
                await asyncio.wait([release], timeout=0.001)  # the worker may have stopped with the mutex in its hands
            step.go()
            result = await outcome(handle)
            came = step.came
            if what != "cancel":
                await release
            assert isinstance(result, CancelledError) == (what != "release")
            assert semaphore.value + len(got) == (what != "cancel"), f"at step {number}"
            semaphore._check()
        assert number > 20, "there were steps"

    run(main)


@pytest.mark.parametrize("what", ["set", "cancel"])
def test_an_event(run: Run, what: str) -> None:
    """Whatever line a worker is at when it happens, or when it is cancelled: it does not sleep on."""

    async def main() -> None:
        number, came = 0, True
        while came:
            number += 1
            event, got = Event(), []
            step = Step(number, "conditions", "grants", "parking", "cancellation")

            def wait(event: Event = event, got: list[bool] = got) -> None:
                got.append(event.wait())

            handle = start("worker", step.around(wait), forever)
            await asyncio.to_thread(step.arrived.wait, 0.01)  # it stops there, or waits, or goes on when it is woken
            if what == "cancel":
                handle.cancel()
                act = None
            else:
                act = asyncio.create_task(asyncio.to_thread(event.set))
                await asyncio.wait([act], timeout=0.001)  # the worker may have stopped with the mutex in its hands
            step.go()
            result = await outcome(handle)
            came = step.came
            if act is not None:
                await act
            assert isinstance(result, CancelledError) == (what == "cancel") == (got == []), f"at step {number}"
            event._check()
        assert number > 20, "there were steps"

    run(main)


@pytest.mark.parametrize("what", ["notify", "cancel", "both"])
def test_a_condition(run: Run, what: str) -> None:
    """Whatever line a worker is at when it is notified, cancelled, or both: for one notification, one goes on."""

    async def main() -> None:
        number, came = 0, True
        while came:
            number += 1
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
            following = start("worker", lambda: work("following"), forever, pool=pool, priority=5)
            await in_line(condition, 1)
            victim = start("worker", step.around(partial(work, "victim")), forever, pool=pool)
            await asyncio.to_thread(step.arrived.wait, 0.01)  # it stops there, or waits, or goes on when it is woken
            if what != "notify":
                victim.cancel()
            act = None
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
            if act is not None:
                await act
            if what != "both" or went_on == {"victim": True}:
                await asyncio.to_thread(notify)
            await victim if what == "notify" else None
            await following
            came = step.came
            assert went_on.pop("following") is True and went_on in ({}, {"victim": True}), f"at step {number}"
            assert bool(went_on) >= (what == "notify") and bool(went_on) <= (what != "cancel")
            assert not condition.lock.locked()
            condition._check()
        assert number > 40, "there were steps"

    run(main)
