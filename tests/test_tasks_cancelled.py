"""Coroutines started in place, and cancelled before the loop has gone round: by hand, by timeouts, by groups.

A second file of tests for ``threadlets/tasks.py``; ``test_tasks.py`` has the rest, and says what the roads are.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import ModuleType
from typing import Any, NoReturn

import pytest

from tests.conftest import Run
from tests.test_tasks import each, settle, start


class Stubborn(asyncio.Future[Any]):
    """A future that refuses to be cancelled, as that of something which cannot be stopped now."""

    def cancel(self, msg: object = None) -> bool:
        return False


@each
@pytest.mark.parametrize("where", ["future", "bare yield"])
def test_cancel_right_after_start(road: ModuleType, run: Run, where: str) -> None:
    """A cancel right after the start comes out of the first await, with its message, and cancels what is waited for."""

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        async def wait() -> None:
            try:
                await (future if where == "future" else asyncio.sleep(0))
            except asyncio.CancelledError as error:
                caught.append(error.args)
                raise

        caught: list[Any] = []
        task = start(road, wait())
        assert task.cancel("enough")
        assert task.cancelling() == 1
        with pytest.raises(asyncio.CancelledError):
            await task
        assert caught == [("enough",)]
        assert task.cancelled()
        assert future.cancelled() is (where == "future")

    run(main)


@each
@pytest.mark.parametrize("where", ["future", "bare yield"])
def test_cancel_right_after_start_is_survived(road: ModuleType, run: Run, where: str) -> None:
    """A coroutine that catches the cancel goes on, awaits more, and is not cancelled a second time."""

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        async def survive() -> str:
            with contextlib.suppress(asyncio.CancelledError):
                await (future if where == "future" else asyncio.sleep(0))
                return "not cancelled"
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            own = asyncio.current_task()
            assert own is not None and own.uncancel() == 0
            return "survived"

        task = start(road, survive())
        task.cancel()
        assert await task == "survived"
        assert not task.cancelled()

    run(main)


@each
@pytest.mark.parametrize("ends", ["result", "exception"])
def test_cancel_after_the_future_is_done(road: ModuleType, run: Run, ends: str) -> None:
    """A cancel that comes when the future is done already, but before the coroutine has gone on, still reaches it."""

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        async def wait() -> None:
            await future

        task = start(road, wait())
        if ends == "result":
            future.set_result(1)
        else:
            future.set_exception(ValueError("retrieved"))
            assert future.exception()
        task.cancel("late")
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


@each
@pytest.mark.parametrize("ends", ["result", "exception", "cancelled"])
@pytest.mark.parametrize("asks", [1, 2])
def test_cancel_right_after_start_is_refused(road: ModuleType, run: Run, ends: str, asks: int) -> None:
    """If the future refuses, the coroutine is cancelled when the future is done, however that ends; and it is once."""

    async def main() -> None:
        future = Stubborn()

        async def wait() -> list[str]:
            caught = []
            for awaited in (future, asyncio.sleep(0), asyncio.sleep(0)):
                try:
                    await awaited
                except BaseException as error:
                    caught.append(type(error).__name__)
                else:
                    caught.append("")
            return caught

        task = start(road, wait())
        task.cancel("please")
        await settle()
        assert not task.done()
        if asks == 2:
            task.cancel("now")
        match ends:
            case "result":
                future.set_result(1)
            case "exception":
                future.set_exception(ValueError("why"))
            case _:
                asyncio.Future.cancel(future)
        assert await task == ["CancelledError", "", ""]
        if ends == "exception":
            assert future.exception()

    run(main)


@each
def test_cancel_of_a_shield(road: ModuleType, run: Run) -> None:
    """A cancel right after the start goes through ``shield`` as ever: the coroutine ends, what it shields does not."""

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        async def wait() -> None:
            await asyncio.shield(future)

        task = start(road, wait())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not future.done()
        future.set_result(1)

    run(main)


@each
def test_cancel_from_within_the_first_step(road: ModuleType, run: Run) -> None:
    """A coroutine that cancels its own task in the first step is cancelled at its next await."""

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        async def cancels(awaited: Any) -> None:
            own = asyncio.current_task()
            assert own is not None
            own.cancel("myself")
            await awaited

        for awaited in (future, asyncio.sleep(0)):
            task = start(road, cancels(awaited))
            with pytest.raises(asyncio.CancelledError, match="myself"):
                await task
        assert future.cancelled()

    run(main)


@each
def test_timeout(road: ModuleType, run: Run) -> None:
    """``asyncio.timeout`` and ``wait_for`` in the first step end their await, and leave no cancel behind."""

    async def main() -> None:
        async def waits() -> str:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await asyncio.get_running_loop().create_future()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.get_running_loop().create_future(), 0.001)
            own = asyncio.current_task()
            assert own is not None and own.cancelling() == 0
            await asyncio.sleep(0)
            return "went on"

        assert await start(road, waits()) == "went on"

    run(main)


@each
def test_timeout_around_a_start(road: ModuleType, run: Run) -> None:
    """A timeout of the caller's ends the await of a coroutine that it has started, by cancelling that."""

    async def main() -> None:
        async def wait() -> None:
            await asyncio.get_running_loop().create_future()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                task = start(road, wait())
                await task
        assert task.cancelled()

    run(main)


@each
def test_task_group_in_the_first_step(road: ModuleType, run: Run) -> None:
    """A ``TaskGroup`` entered in the first step waits for its tasks, and its owner is cancelled when one fails."""

    async def main() -> None:
        async def child(error: Exception | None) -> int:
            await asyncio.sleep(0)
            if error is not None:
                raise error
            return 1

        async def parent(error: Exception | None) -> int:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(child(error)), group.create_task(child(None))]
                if error is not None:
                    await asyncio.get_running_loop().create_future()  # only the group's cancel ends this
            return sum(task.result() for task in tasks)

        assert await start(road, parent(None)) == 2
        with pytest.raises(ExceptionGroup) as caught:
            await start(road, parent(ValueError("child")))
        assert [str(error) for error in caught.value.exceptions] == ["child"]

    run(main)


@each
def test_anyio_scope_in_the_first_step(road: ModuleType, run: Run) -> None:
    """A cancel scope of anyio that is entered in the first step is left by being cancelled there."""
    anyio = pytest.importorskip("anyio")

    async def main() -> None:
        async def scoped() -> bool:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(0)
            return bool(scope.cancelled_caught)

        assert await start(road, scoped())

    run(main)


@each
def test_nested_starts_are_cancelled_inwards(road: ModuleType, run: Run) -> None:
    """Of coroutines that start and await each other in their first steps, a cancel of the outermost ends all."""

    async def main() -> None:
        ended: list[int] = []

        async def nest(depth: int) -> None:
            try:
                if depth:
                    await start(road, nest(depth - 1))
                else:
                    await asyncio.get_running_loop().create_future()
            finally:
                ended.append(depth)

        task = start(road, nest(5))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == list(range(6))
        assert run.told() == []

    run(main)


@each
def test_finished_task_is_cancelled_by_the_shutdown(road: ModuleType, run: Run) -> None:
    """A cancel of all tasks right after the first step cannot take back a result that is there, nor is it reported."""

    async def main() -> None:
        async def quick() -> int:
            return 5

        async def fail() -> NoReturn:
            raise ValueError

        finished, failed = start(road, quick()), start(road, fail())
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await settle()
        assert finished.result() == 5
        with pytest.raises(ValueError):
            failed.result()
        assert run.told() == []

    run(main)
