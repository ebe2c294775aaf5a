"""Scopes: leaving one waits for everything, loses no failure, and leaves no cancel behind."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import pytest

from tests.conftest import Run
from tests.workbench import IN_PLACE, ON_WORKER, Gate, forever, rounds
from threadlets import Concurrency, Pool, Threadlet, threadlet


class Broken(Exception):
    """What the functions of these tests raise."""


def fail(word: str = "broken") -> NoReturn:
    raise Broken(word)


async def fail_later(word: str = "broken") -> NoReturn:
    await rounds(2)
    raise Broken(word)


async def fail_in_cleanup(word: str = "broken") -> NoReturn:
    try:
        await forever()
    finally:
        raise Broken(word)


FAILURES: dict[str, Callable[..., Any]] = {
    "in place": threadlet(contract=IN_PLACE)(fail),
    "worker": threadlet(contract=ON_WORKER)(fail),
    "coroutine": threadlet(fail_later),
}
each_failure = pytest.mark.parametrize("failing", FAILURES.values(), ids=FAILURES)


def words(group: BaseExceptionGroup[Any]) -> list[str]:
    return [str(error) for error in group.exceptions]


async def clean() -> None:
    """Assert that no cancel is left on the current task."""
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await rounds(3)


def test_leaving_waits_for_everything(run: Run) -> None:
    """At the end of the scope all has ended: queued, suspended, on workers, and what those have started."""
    gate = Gate()

    async def main() -> None:
        ended: list[str] = []

        async def parent(pool: Pool) -> None:
            await rounds(3)
            pool.start(child)
            ended.append("parent")

        async def child() -> None:
            await rounds(3)
            ended.append("child")

        async with Pool(Concurrency(2)) as pool:
            pool.start(parent, pool)
            handles = [pool.start(threadlet(contract=ON_WORKER)(gate), number) for number in range(3)]
            gate.wait_arrived()
            gate.open()
        assert sorted(ended) == ["child", "parent"]
        assert [handle.result() for handle in handles] == [0, 1, 2]
        assert len(pool) == 0

    run(main)


@each_failure
def test_failures_nobody_retrieved_come_out_together(run: Run, failing: Any) -> None:
    """At the end they are raised as an ExceptionGroup, in order; the others have gone on undisturbed."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup, match="unretrieved failures in pool 'mine'") as caught:
            async with Pool(name="mine") as pool:
                failed = [pool.start(failing, word) for word in ("one", "two", "three")]
                good = pool.start(asyncio.sleep, 0, "good")
                with pytest.raises(Broken, match="two"):
                    await failed[1]
                assert pool.statistics().unretrieved == len([handle for handle in failed if handle.done()]) - 1
        assert sorted(words(caught.value)) == ["one", "three"]
        assert good.result() == "good"
        await clean()

    run(main)


@each_failure
def test_failures_somebody_retrieved_are_not_raised_again(run: Run, failing: Any) -> None:
    """Awaited, gathered, or looked at with exception(): then the scope ends quietly."""

    async def main() -> None:
        async with Pool() as pool:
            with pytest.raises(Broken):
                await pool.start(failing)
            await asyncio.gather(pool.start(failing), return_exceptions=True)
            handle = pool.start(failing)
            await asyncio.wait([handle])
            assert isinstance(handle.exception(), Broken)
        await clean()

    run(main)


@each_failure
def test_a_body_that_raises_cancels_everything(run: Run, failing: Any) -> None:
    """The body's exception comes out as it is; everything is cancelled first and its cleanup awaited."""

    async def main() -> None:
        cleaned: list[str] = []

        async def tidy() -> None:
            try:
                await forever()
            finally:
                await rounds(3)
                cleaned.append("tidy")

        handles: list[Threadlet[Any]] = []
        with pytest.raises(KeyError, match="body"):
            async with Pool(Concurrency(1)) as pool:
                handles = [pool.start(tidy), pool.start(forever)]
                raise KeyError("body")
        assert cleaned == ["tidy"]
        assert [handle.state for handle in handles] == ["cancelled"] * 2
        with pytest.raises(BaseExceptionGroup) as caught:
            async with Pool() as pool:
                await asyncio.wait([pool.start(failing, "threadlet")])
                raise KeyError("body")
        assert words(caught.value) == ["'body'", "threadlet"]
        await clean()

    run(main)


def test_a_failure_that_the_body_lets_through_is_raised_once(run: Run) -> None:
    """``await pool.start(f)`` that raises leaves the scope with that very exception, not with a group."""

    async def main() -> None:
        with pytest.raises(Broken, match="through"):
            async with Pool() as pool:
                await pool.start(fail_later, "through")
        await clean()

    run(main)


@pytest.mark.parametrize("on_failure", ["collect", "cancel"])
def test_a_body_that_is_cancelled_cancels_everything(run: Run, on_failure: Any) -> None:
    """A cancel of the task, in the body or while it waits at the end, cancels all, waits, and goes on as it is."""

    async def main() -> None:
        for body in (forever, rounds):
            handles: list[Threadlet[Any]] = []

            async def scope(
                body: Callable[[], Awaitable[None]] = body, handles: list[Threadlet[Any]] = handles
            ) -> None:
                async with Pool(Concurrency(1), on_failure=on_failure) as pool:
                    handles += [pool.start(forever), pool.start(forever)]
                    await body()

            task = asyncio.create_task(scope())
            await rounds(30)
            task.cancel("reason")
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
            assert [handle.state for handle in handles] == ["cancelled"] * 2

    run(main)


@pytest.mark.parametrize("on_failure", ["collect", "cancel"])
@pytest.mark.parametrize("body", [forever, rounds])
def test_a_timeout_around_a_scope(run: Run, on_failure: Any, body: Callable[[], Awaitable[None]]) -> None:
    """asyncio.timeout around a scope raises TimeoutError, once all has stopped, and leaves no cancel behind."""

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                async with Pool(Concurrency(1), on_failure=on_failure) as pool:
                    handles = [pool.start(forever), pool.start(forever)]
                    await body()
        assert [handle.state for handle in handles] == ["cancelled"] * 2
        await clean()

    run(main)


@pytest.mark.parametrize("on_failure", ["collect", "cancel"])
def test_a_timeout_around_a_scope_with_failures(run: Run, on_failure: Any) -> None:
    """If cleanup fails under a timeout, the failure comes out, and no stray CancelledError afterwards."""

    async def main() -> None:
        with pytest.raises(BaseExceptionGroup) as caught:
            async with asyncio.timeout(0.001):
                async with Pool(on_failure=on_failure) as pool:
                    pool.start(fail_in_cleanup, "cleanup")
                    await forever()
        assert "cleanup" in words(caught.value)
        await clean()

    run(main)


@each_failure
@pytest.mark.parametrize("body", ["suspended", "busy", "ended", "caught"])
def test_the_first_failure_cancels_the_rest(run: Run, failing: Any, body: str) -> None:
    """``on_failure="cancel"``: a failure cancels the others and the body, and comes out as a group, alone."""

    async def main() -> None:
        handles: list[Threadlet[Any]] = []
        with pytest.raises(ExceptionGroup) as caught:
            async with Pool(on_failure="cancel") as pool:
                handles += [pool.start(forever), pool.start(failing, "first")]
                if body == "busy":
                    handles.append(pool.start(failing, "second"))
                elif body == "suspended":
                    await forever()
                elif body == "caught":
                    with pytest.raises(asyncio.CancelledError):
                        await forever()
        assert words(caught.value)[0] == "first"
        assert set(words(caught.value)) <= {"first", "second"}
        assert handles[0].cancelled()
        await clean()

    run(main)


def test_a_cancel_from_outside_is_not_taken_for_our_own(run: Run) -> None:
    """If a failure cancels the body in the round in which the task is cancelled from outside, that one still counts."""

    async def main() -> None:
        after: list[int] = []

        async def scope() -> None:
            try:
                async with Pool(on_failure="cancel") as pool:
                    pool.start(FAILURES["in place"], "inner")
                    task.cancel()
                    await forever()
            except* Broken:
                pass
            after.append(task.cancelling())
            await rounds(3)
            after.append(-1)

        task = asyncio.create_task(scope())
        await asyncio.wait([task])
        if sys.version_info >= (3, 13):
            assert task.cancelled() and after == [1]
        else:  # as after a TaskGroup: a task there cannot take a cancel back, so it is counted, and not raised again
            assert after == [1, -1]

    run(main)


@each_failure
def test_nested_scopes(run: Run, failing: Any) -> None:
    """A failure in the outer pool interrupts the body of the inner one; each scope ends with its own threadlets."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with Pool(on_failure="cancel", name="outer") as outer:
                async with Pool(name="inner") as inner:
                    inside = inner.start(forever)
                    outer.start(failing, "outer")
                    await forever()
        assert words(caught.value) == ["outer"]
        assert inside.cancelled()
        await clean()
        async with Pool(name="outer") as outer:
            outside = outer.start(rounds, 20)
            with pytest.raises(ExceptionGroup, match="inner"):
                async with Pool(on_failure="cancel", name="inner") as inner:
                    inner.start(failing)
                    await forever()
            await clean()
        assert outside.state == "done"

    run(main)


@each_failure
@pytest.mark.parametrize("pool_inside", [True, False])
def test_with_a_task_group(run: Run, failing: Any, pool_inside: bool) -> None:
    """A scope inside a TaskGroup, and around one, hands failures on and takes cancels as a TaskGroup's child does."""

    async def main() -> None:
        handles: list[Threadlet[Any]] = []
        with pytest.raises(ExceptionGroup) as caught:
            if pool_inside:
                async with asyncio.TaskGroup() as group, Pool() as pool:
                    handles.append(pool.start(forever))
                    group.create_task(fail_later("child"))
                    await forever()
            else:
                async with Pool(on_failure="cancel") as pool, asyncio.TaskGroup() as group:
                    handles.append(pool.start(forever))
                    pool.start(failing, "child")
                    group.create_task(forever())
        assert words(caught.value) == ["child"]
        assert handles[0].cancelled()
        await clean()

    run(main)


@pytest.mark.parametrize("exit_error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_exits_of_the_body_go_on_as_they_are(run: Run, exit_error: type[BaseException]) -> None:
    """What is no Exception leaves the scope unchanged, after everything has been cancelled."""

    async def main() -> None:
        with pytest.raises(exit_error):
            async with Pool() as pool:
                handle = pool.start(forever)
                raise exit_error
        assert handle.cancelled()
        await clean()

    run(main)


def test_a_pool_has_one_scope_at_a_time(run: Run) -> None:
    """Entering a pool twice is an error that leaves the first scope alone; so is entering one outside of a task."""

    async def main() -> None:
        async with Pool() as pool:
            with pytest.raises(RuntimeError, match="in a scope already"):
                async with pool:
                    pass
            assert await pool.start(asyncio.sleep, 0, 5) == 5
        outcome = asyncio.get_running_loop().create_future()

        def enter() -> None:
            try:
                Pool().__aenter__().send(None)
            except RuntimeError as error:
                outcome.set_result(str(error))

        asyncio.get_running_loop().call_soon(enter)
        assert "needs to run in a task" in await outcome

    run(main)


def test_work_that_was_there_before_the_scope_is_waited_for(run: Run) -> None:
    """A scope takes over what its pool holds already, and its failures."""

    async def main() -> None:
        pool = Pool()
        handle = pool.start(fail_later, "before")
        with pytest.raises(ExceptionGroup) as caught:
            async with pool:
                pass
        assert words(caught.value) == ["before"]
        assert handle.done()

    run(main)


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize("where", FAILURES)
def test_done_callbacks_may_retrieve_what_failed_last(run: Run, where: str, limit: int | None) -> None:
    """A done callback that looks at the failure comes before the scope does; and what it starts is waited for."""
    after: list[Threadlet[Any]] = []

    async def main() -> None:
        async with Pool(*([] if limit is None else [Concurrency(limit)])) as pool:

            def retrieve(handle: Threadlet[Any]) -> None:
                assert isinstance(handle.exception(), Broken)
                after.append(pool.start(asyncio.sleep, 0))

            pool.start(FAILURES[where]).add_done_callback(retrieve)
        assert [handle.done() for handle in after] == [True]

    run(main)
