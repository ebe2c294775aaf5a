"""Coroutines started in place: the same on every Python, whoever makes the start eager.

On 3.12 and later each test runs twice: with what asyncio brings (``native``), and with what ``tasks.py`` makes for 3.11
(``made``). So the two are held to one law.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import sys
from collections.abc import Coroutine, Generator
from types import ModuleType
from typing import Any, NoReturn

import pytest

import threadlets.tasks
from tests.conftest import Run


def road_of_311() -> ModuleType:
    """Load tasks.py as Python 3.11 would."""
    spec = importlib.util.find_spec("threadlets.tasks")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "version_info", (3, 11, 0))
        spec.loader.exec_module(module)
    return module


MADE = road_of_311()
ROADS = {"made": MADE}
if sys.version_info >= (3, 12):
    ROADS["native"] = threadlets.tasks


each = pytest.mark.parametrize("road", list(ROADS.values()), ids=list(ROADS))


def start(road: ModuleType, coroutine: Coroutine[Any, Any, Any], **options: Any) -> Any:
    """Start a coroutine in place on the running loop."""
    return road.start_task(coroutine, loop=asyncio.get_running_loop(), eager_start=True, **options)


class Yields:
    """An awaitable that yields something of the test's choice."""

    def __init__(self, *values: Any) -> None:
        self.values = values

    def __await__(self) -> Generator[Any, Any, None]:
        yield from self.values


async def settle(rounds: int = 6) -> None:
    """Let the loop go round a few times."""
    for _ in range(rounds):
        await asyncio.sleep(0)


@each
def test_first_step_runs_in_place(road: ModuleType, run: Run) -> None:
    """The first step has run when the start returns; a coroutine that needs no second one is done then."""

    async def main() -> None:
        steps: list[str] = []

        async def quick() -> int:
            steps.append("quick")
            return 5

        async def slow() -> int:
            steps.append("slow")
            await asyncio.sleep(0)
            steps.append("slow again")
            return 6

        finished = start(road, quick())
        assert steps == ["quick"]
        assert finished.done()
        assert finished.result() == 5
        task = start(road, slow())
        assert steps == ["quick", "slow"]
        assert not task.done()
        assert await task == 6
        assert steps == ["quick", "slow", "slow again"]

    run(main)


@each
def test_current_task_in_the_first_step(road: ModuleType, run: Run) -> None:
    """A coroutine's own task is the current one in every step, and the caller's is again when the start returns."""

    async def main() -> None:
        caller = asyncio.current_task()
        seen: list[Any] = []

        async def look(depth: int) -> None:
            own = asyncio.current_task()
            seen.append(own)
            assert own in asyncio.all_tasks()
            if depth:
                inner = start(road, look(depth - 1))
                assert asyncio.current_task() is own
                await inner
            else:
                await asyncio.sleep(0)
            assert asyncio.current_task() is own

        task = start(road, look(3))
        assert asyncio.current_task() is caller
        await task
        assert len({*seen, caller}) == 5
        assert seen[0] is task

    run(main)


@each
def test_start_outside_of_any_task(road: ModuleType, run: Run) -> None:
    """A callback of the loop may start a coroutine, though it has no task; there is none again afterwards."""

    async def main() -> None:
        seen: list[Any] = []
        ended = asyncio.get_running_loop().create_future()

        async def look() -> None:
            seen.append(asyncio.current_task())
            await asyncio.sleep(0)
            ended.set_result(asyncio.current_task())

        def callback() -> None:
            seen.append(asyncio.current_task())
            seen.append(start(road, look()))
            seen.append(asyncio.current_task())

        asyncio.get_running_loop().call_soon(callback)
        task = await ended
        assert seen == [None, task, task, None]

    run(main)


@each
def test_context(road: ModuleType, run: Run) -> None:
    """The coroutine runs in a copy of the current context, or in the one that is given, from its first step on."""
    variable = contextvars.ContextVar("variable", default="unset")

    async def main() -> None:
        seen: list[str] = []

        async def change(value: str) -> None:
            seen.append(variable.get())
            variable.set(value)
            await asyncio.sleep(0)
            seen.append(variable.get())

        variable.set("caller")
        await start(road, change("own"))
        assert seen == ["caller", "own"]
        assert variable.get() == "caller"
        given = contextvars.Context()
        await start(road, change("given"), context=given)
        assert seen[2:] == ["unset", "given"]
        assert given[variable] == "given"
        assert variable.get() == "caller"

    run(main)


@each
@pytest.mark.parametrize("suspends", [False, True])
def test_exceptions_are_told_once(road: ModuleType, run: Run, suspends: bool) -> None:
    """Whoever asks for the result gets the exception itself, and then the loop's handler is not told of it too."""

    async def main() -> None:
        error = ValueError("a")

        async def fail() -> NoReturn:
            if suspends:
                await asyncio.sleep(0)
            raise error

        started = start(road, fail())
        assert started.done() is not suspends
        with pytest.raises(ValueError) as caught:
            await started if suspends else started.result()
        assert caught.value is error
        del started, caught
        error.__traceback__ = None
        await settle()
        assert run.told() == []

        error = ValueError("b")
        start(road, fail())
        await settle()
        error.__traceback__ = None
        await settle()
        assert len(run.told()) <= 1

    run(main)


@each
@pytest.mark.parametrize("exit_class", [KeyboardInterrupt, SystemExit])
def test_exit_in_the_first_step(road: ModuleType, run: Run, exit_class: type[BaseException]) -> None:
    """Ctrl-C in the first step comes out of the start, once: the loop is not stopped by it again a round later."""

    async def main() -> None:
        caller = asyncio.current_task()

        async def leave() -> NoReturn:
            raise exit_class("now")

        with pytest.raises(exit_class, match="now"):
            start(road, leave())
        assert asyncio.current_task() is caller
        await settle()
        assert asyncio.all_tasks() == {caller}
        assert run.told() == [] or road is not MADE  # asyncio's own task complains that nobody asked it too

    run(main)


@each
def test_cancelled_error_in_the_first_step(road: ModuleType, run: Run) -> None:
    """A coroutine that raises CancelledError itself ends as cancelled."""

    async def main() -> None:
        async def give_up() -> NoReturn:
            raise asyncio.CancelledError("enough")

        with pytest.raises(asyncio.CancelledError):
            start(road, give_up()).result()
        await settle()
        assert run.told() == []

    run(main)


@each
def test_bare_yield_waits_for_what_was_scheduled(road: ModuleType, run: Run) -> None:
    """After ``sleep(0)`` in the first step, callbacks and tasks that were scheduled before it have had their turn."""

    async def main() -> None:
        async def child() -> None:
            steps.append("child")

        async def first() -> None:
            asyncio.get_running_loop().call_soon(steps.append, "callback")
            task = asyncio.create_task(child())
            await asyncio.sleep(0)
            steps.append("first")
            await task

        steps: list[str] = []
        await start(road, first())
        assert steps == ["callback", "child", "first"]

    run(main)


@each
@pytest.mark.parametrize("yields", [42, "future"])
def test_bad_yields(road: ModuleType, run: Run, yields: Any) -> None:
    """What a task cannot wait for comes back as RuntimeError, as it does in later steps; cancelled, as a cancel."""

    async def main() -> None:
        async def bad() -> str:
            try:
                await Yields(asyncio.get_running_loop().create_future() if yields == "future" else yields)
            except RuntimeError as error:
                return str(error)
            return ""

        assert ("yield was used" if yields == "future" else "bad yield: 42") in await start(road, bad())
        task = start(road, bad())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


@each
def test_future_awaited_by_others_meanwhile(road: ModuleType, run: Run) -> None:
    """A future that the first step waits for may be awaited by others before the loop has gone round."""

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        async def wait() -> int:
            return await future  # type: ignore[no-any-return]

        tasks = [start(road, wait()) for _ in range(3)]
        assert not future._asyncio_future_blocking  # or the next to await it would be refused
        plain = asyncio.create_task(wait())
        asyncio.get_running_loop().call_soon(future.set_result, 7)
        assert await asyncio.wait_for(asyncio.gather(wait(), plain, *tasks), 5) == [7] * 5

    run(main)


@each
def test_future_done_meanwhile(road: ModuleType, run: Run) -> None:
    """A future that is done before the loop has gone round wakes the coroutine with its result, or its exception."""

    async def main() -> None:
        async def wait() -> Any:
            return await future

        future = asyncio.get_running_loop().create_future()
        task = start(road, wait())
        future.set_result(8)
        assert await task == 8
        future = asyncio.get_running_loop().create_future()
        task = start(road, wait())
        future.set_exception(ValueError("late"))
        with pytest.raises(ValueError, match="late"):
            await task

    run(main)


@each
def test_task_shows_its_coroutine(road: ModuleType, run: Run) -> None:
    """The task's repr, its stack and ``coroutine_of`` show the coroutine: in the first step, after it, later."""

    async def main() -> None:
        def look(task: asyncio.Task[Any]) -> None:
            assert road.coroutine_of(task) is coroutine
            assert "shown" in repr(task)
            assert [frame.f_code.co_name for frame in task.get_stack()] == ["shown"]

        async def shown() -> None:
            own = asyncio.current_task()
            assert own is not None and road.coroutine_of(own) is coroutine
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        coroutine = shown()
        task = start(road, coroutine)
        look(task)
        await asyncio.sleep(0)
        look(task)
        await task

    run(main)


def test_what_stands_for_a_coroutine(run: Run) -> None:
    """On 3.11 what the task is given is no coroutine to await; closing it closes the real one."""

    async def main() -> None:
        steps: list[str] = []

        async def wait() -> None:
            try:
                await asyncio.sleep(0)
            finally:
                steps.append("closed")

        started = MADE._Started(wait())
        started.take_first_step()
        with pytest.raises(TypeError, match="await the task"):
            await started
        assert started.cr_code.co_name == "wait"
        started.close()
        assert steps == ["closed"]

    run(main)
