"""Deadlines of threadlets: what is stopped, when, what whoever awaits it sees, and what a deadline leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import ABANDON, IN_PLACE, ON_WORKER, Gate, entrypoint, forever, rounds, until
from threadlets import Concurrency, Pool, Threadlet, threadlet
from threadlets.errors import DeadlineExceeded, PoolClosed
from threadlets.homes import home_of

SOON = 0.001
LATER = 3600.0


async def settled(*pools: Pool) -> None:
    for pool in pools:
        pool.cancel()
        await pool.drain()
        pool._check()
        for throttle in pool._throttles:
            assert getattr(throttle, "taken", 0) == 0
    home = home_of(asyncio.get_running_loop())
    assert len(home.expiries) == len(home.waits) == 0


@threadlet
async def wait() -> None:
    await forever()


STARTS: dict[str, Callable[[Pool, Any], Threadlet[None]]] = {
    "start": lambda pool, deadline: pool.start(wait, deadline=deadline),
    "using": lambda pool, deadline: wait.using(pool=pool, deadline=deadline)(),
    "start of using": lambda pool, deadline: pool.start(wait.using(priority=3), deadline=deadline),
    "by hand": lambda pool, deadline: _by_hand(pool, deadline),
}


def _by_hand(pool: Pool, deadline: Any) -> Threadlet[None]:
    handle = pool.start(wait)
    handle.deadline = deadline
    return handle


@pytest.mark.parametrize("where", ["suspended", "queued"])
@pytest.mark.parametrize("way", STARTS)
def test_who_does_not_end_in_time_fails(run: Run, way: str, where: str) -> None:
    """A coroutine is cancelled, a queued threadlet leaves the queue; awaiting either raises DeadlineExceeded."""

    async def main() -> None:
        pool = Pool(Concurrency(1))
        if where == "queued":
            pool.start(forever)
        for deadline in (SOON, datetime.now(UTC) + timedelta(milliseconds=1)):
            handle = STARTS[way](pool, deadline)
            if not handle.done():
                left = handle.deadline
                assert left is not None and left <= 0.1
                assert handle.state == ("missed" if where == "suspended" else "queued")
            with pytest.raises(DeadlineExceeded, match="deadline"):
                await handle
            assert isinstance(handle.exception(), TimeoutError)
            assert handle.state == "failed" and not handle.cancelled() and not handle.cancel()
            assert handle.deadline is None
            pool._check()
        assert pool.statistics().failed == 2
        await settled(pool)

    run(main)


@pytest.mark.parametrize("place", ["in place", "worker"])
def test_what_is_over_before_it_starts_never_runs(run: Run, place: str) -> None:
    """With a deadline that has passed nothing starts, no place is taken; a closed pool says that it is closed."""

    async def main() -> None:
        throttle, calls = Concurrency(1), list[int]()
        pool = Pool(throttle, capacity=1)
        function = entrypoint(place, calls.append)
        for deadline in (0, -1.5, datetime.now(UTC) - timedelta(days=1)):
            handle = pool.start(function, 1, deadline=deadline)
            assert handle.state == "failed" and throttle.taken == len(pool) == 0
            with pytest.raises(DeadlineExceeded, match="did not start"):
                await handle
        assert calls == []
        await settled(pool)
        pool.close()
        with pytest.raises(PoolClosed):
            pool.start(function, 1, deadline=-1)

    run(main)


def test_a_queued_one_never_takes_a_place(run: Run) -> None:
    """One whose deadline passes in the queue is gone from there, its arguments are freed, and it never runs."""

    async def main() -> None:
        throttle, calls = Concurrency(1), list[int]()
        pool = Pool(throttle)
        blocker = pool.start(forever)
        handles = [pool.start(calls.append, n, deadline=SOON if n % 2 else LATER) for n in range(10)]
        await asyncio.gather(*handles[1::2], return_exceptions=True)
        assert [handle.state for handle in handles] == ["queued", "failed"] * 5
        assert handles[1]._args == ()
        assert pool.statistics().queued == 5
        pool._check()
        blocker.cancel()
        await asyncio.gather(*handles[::2])
        assert sorted(calls) == [0, 2, 4, 6, 8]
        await settled(pool)

    run(main)


@pytest.mark.parametrize("contract", [ON_WORKER, ABANDON], ids=["wait", "abandon"])
def test_a_function_on_a_worker(run: Run, contract: Any) -> None:
    """A function on a worker runs to its end, and its result is dropped; "abandon" fails at once, and goes on alone."""
    gate = Gate()

    async def main() -> None:
        throttle = Concurrency(1)
        pool = Pool(throttle)
        handle = pool.start(threadlet(contract=contract)(gate), 5)
        gate.wait_arrived()
        handle.deadline = SOON
        while handle.deadline is not None:  # noqa: ASYNC110 - it is taken away when it is kept
            await asyncio.sleep(0)
        assert throttle.taken == 1
        if contract is ABANDON:
            assert handle.state == "failed"
        else:
            assert handle.state == "running"
        gate.open()
        with pytest.raises(DeadlineExceeded):
            await handle
        await until(lambda: not throttle.taken)
        await settled(pool)

    run(main)


def test_an_exception_of_its_own_is_kept(run: Run) -> None:
    """What a coroutine raises when its deadline stops it is what it fails with; if it returns, it is done."""

    async def main() -> None:
        async def answer(value: Any) -> Any:
            try:
                await forever()
            except asyncio.CancelledError:
                if isinstance(value, BaseException):
                    raise value from None
                return value

        pool = Pool()
        assert await pool.start(answer, 7, deadline=SOON) == 7
        with pytest.raises(KeyError):
            await pool.start(answer, KeyError(1), deadline=SOON)
        await settled(pool)

    run(main)


def test_a_cancel_before_and_after(run: Run) -> None:
    """One that is cancelled before its deadline is cancelled; a deadline that comes while it stops changes nothing."""

    async def main() -> None:
        pool = Pool(Concurrency(1))

        async def slowly() -> None:
            try:
                await forever()
            finally:
                await rounds(5)

        handle, queued = pool.start(slowly, deadline=LATER), pool.start(forever, deadline=LATER)
        assert queued.cancel("unwanted") and queued.cancelled()
        assert handle.cancel("unwanted")
        with pytest.raises(asyncio.CancelledError, match="unwanted"):
            await handle
        assert handle.cancelled() and len(home_of(asyncio.get_running_loop()).expiries) == 0
        await settled(pool)

    run(main)


def test_a_deadline_can_be_changed_and_taken_away(run: Run) -> None:
    """What counts is the deadline that was set last, also across pools and tags; None takes it away."""

    async def main() -> None:
        pool, other = Pool(Concurrency(1)), Pool(Concurrency(1))
        pool.start(forever)
        other.start(forever)
        kept, moved, none = (pool.start(forever, tags={"a"}, deadline=LATER) for _ in range(3))
        none.deadline = SOON
        none.deadline = None
        assert none.deadline is None
        kept.tags = {"b"}
        assert pool.select(tag="a").move(other) == 2
        assert moved.deadline is not None and moved.deadline > LATER - 60
        moved.tags = {"c"}
        moved.priority = -1
        moved.deadline = kept.deadline = SOON
        for handle in (moved, kept):
            with pytest.raises(DeadlineExceeded):
                await handle
        assert none.state == "queued"
        pool._check()
        other._check()
        kept.deadline = LATER  # it is final: nothing happens
        assert kept.deadline is None
        await settled(pool, other)

    run(main)


def test_a_deadline_set_from_inside(run: Run) -> None:
    """A coroutine may set its own deadline in its first step, and ends with it or before it."""

    async def main() -> None:
        from threadlets import current_threadlet

        async def limit(deadline: float, then: Callable[[], Any]) -> None:
            me = current_threadlet()
            assert me is not None
            me.deadline = deadline
            await then()

        pool = Pool()
        for deadline, then in ((LATER, rounds), (SOON, rounds), (LATER, lambda: asyncio.sleep(0))):
            await asyncio.gather(pool.start(limit, deadline, then), return_exceptions=True)
        with pytest.raises(DeadlineExceeded):
            await pool.start(limit, SOON, forever)
        await settled(pool)

    run(main)


def test_the_earliest_deadline_first(run: Run) -> None:
    """With order="deadline" the earliest starts first, those without one last; equal ones by priority, then by age."""

    async def main() -> None:
        order: list[int] = []

        async def note(n: int) -> None:
            order.append(n)

        pool = Pool(Concurrency(1), order="deadline")
        blocker = pool.start(forever)
        handles = [pool.start(note, n, deadline=deadline) for n, deadline in enumerate([300, None, 100, 200, None])]
        handles[4].priority = -1
        handles[0].deadline = 50
        handles[2].deadline = None
        handles[2].deadline = 250
        pool._check()
        blocker.cancel()
        await pool.drain()
        assert order == [0, 3, 2, 4, 1]
        await settled(pool)

    run(main)


@pytest.mark.parametrize("where", ["suspended", "queued", "worker"])
def test_the_cancel_of_who_awaits_it_is_not_swallowed(run: Run, where: str) -> None:
    """Cancelled in the round in which the deadline passes, the awaiter is cancelled, and not told of a deadline."""
    gate = Gate()

    async def main() -> None:
        pool = Pool(Concurrency(1))
        if where == "queued":
            pool.start(forever)
        handle: Threadlet[Any] = pool.start(threadlet(contract=ON_WORKER)(gate) if where == "worker" else forever)
        if where == "worker":
            gate.wait_arrived()

        async def wait() -> None:
            await handle

        for order in ("deadline first", "cancel first"):
            task = asyncio.create_task(wait())
            await rounds(3)
            if order == "deadline first":
                pool._expire(handle)
                task.cancel("mine")
            else:
                task.cancel("mine")
                if not handle.done():
                    pool._expire(handle)
            gate.open()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
            if where != "queued":
                break
            handle = pool.start(forever)
        await settled(pool)

    run(main)


def test_a_timeout_around_and_a_deadline_within(run: Run) -> None:
    """asyncio.timeout tells its own TimeoutError, a deadline DeadlineExceeded; neither is taken for the other."""

    async def main() -> None:
        pool = Pool()
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(SOON):
                await pool.start(forever, deadline=LATER)
        assert not isinstance(caught.value, DeadlineExceeded)
        with pytest.raises(DeadlineExceeded):
            async with asyncio.timeout(LATER):
                await pool.start(forever, deadline=SOON)
        with pytest.raises(DeadlineExceeded):
            await asyncio.wait_for(pool.start(forever, deadline=SOON), LATER)
        with pytest.raises(DeadlineExceeded):
            await asyncio.gather(pool.start(forever, deadline=SOON))
        task = asyncio.current_task()
        assert task is not None and not task.cancelling()
        await settled(pool)

    run(main)


def test_cleanup_code_is_told_of_a_deadline(run: Run) -> None:
    """In a task that has been cancelled before, awaiting what overruns its deadline raises DeadlineExceeded, too."""

    async def main() -> None:
        pool = Pool()

        async def clean_up() -> str:
            try:
                await forever()
            except asyncio.CancelledError:
                try:
                    await pool.start(forever, deadline=SOON)
                except DeadlineExceeded:
                    return "told"
            return "not told"

        task = asyncio.create_task(clean_up())
        await rounds()
        task.cancel()
        assert await task == "told"
        await settled(pool)

    run(main)


def test_a_failure_by_deadline_is_told(run: Run) -> None:
    """In a scope it comes out in the group if nobody retrieves it; outside, the loop's exception handler is told."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with Pool(Concurrency(1)) as scope:
                blocker = scope.start(forever, deadline=0.005)
                scope.start(forever, deadline=SOON)
        assert all(isinstance(error, DeadlineExceeded) for error in caught.value.exceptions)
        assert len(caught.value.exceptions) == 2
        del blocker
        pool = Pool()
        pool.start(forever, deadline=SOON)
        await pool.drain()
        assert [type(report["exception"]) for report in run.told()] == [DeadlineExceeded]
        await settled(pool)

    run(main)


def test_what_ends_in_place_has_no_deadline_to_keep(run: Run) -> None:
    """A call that ends within its start leaves no deadline behind, and no timer."""

    async def main() -> None:
        pool = Pool()
        function = threadlet(contract=IN_PLACE)(lambda n: n)
        for n in range(100):
            assert await pool.start(function, n, deadline=LATER) == n
        expiries = home_of(asyncio.get_running_loop()).expiries
        assert len(expiries) == 0 and expiries._timer is None
        await settled(pool)

    run(main)
