"""What code sees of where it runs: context variables, current_task(), current_threadlet()."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import IN_PLACE, ON_WORKER, PLACES, entrypoint, forever, rounds, until
from threadlets import Concurrency, Pool, Threadlet, current_threadlet, threadlet

variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default="default")
untouched: contextvars.ContextVar[Any] = contextvars.ContextVar("untouched")


class Incomparable:
    """A value that must not be compared: that is the user's code, and may be slow or raise."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")


def change(value: Any) -> Any:
    seen = variable.get()
    variable.set(value)
    return seen


def change_and_fail(value: Any) -> None:
    variable.set(value)
    raise ValueError


async def start(place: str, pool: Pool, function: Callable[..., Any], *args: Any) -> Threadlet[Any]:
    """Start in a place; "queued": in place, after a wait in the pool's queue."""
    if place == "queued":
        pool.start(asyncio.sleep, 0)
    return pool.start(entrypoint(place.replace("queued", "in place"), function), *args)


@pytest.mark.parametrize("place", [*PLACES, "queued"])
def test_context_variables_go_in_and_changes_come_back(run: Run, place: str) -> None:
    """A plain function sees its caller's variables, and whoever awaits it sees what it has set, in every placement."""

    async def main() -> None:
        untouched.set(Incomparable())
        before, after = Incomparable(), Incomparable()
        variable.set(before)
        handle = await start(place, Pool(Concurrency(1)), change, after)
        assert await handle is before
        assert variable.get() is after

    run(main)


@pytest.mark.parametrize("place", [*PLACES, "queued"])
@pytest.mark.parametrize("when", ["early", "late"])
def test_changes_come_back_from_a_failure_too(run: Run, place: str, when: str) -> None:
    """What a function has set before it raised is seen after the await, whether that began before its end or after."""

    async def main() -> None:
        variable.set("before")
        handle = await start(place, Pool(Concurrency(1)), change_and_fail, "after")
        if when == "late":
            await until(handle.done)
        with pytest.raises(ValueError):
            await handle
        assert variable.get() == "after"

    run(main)


@pytest.mark.parametrize("place", ["worker", "queued"])
def test_changes_reach_only_those_who_await(run: Run, place: str) -> None:
    """The caller's own later changes are not seen inside, and other tasks are not touched."""

    async def main() -> None:
        variable.set("at the call")
        handle = await start(place, Pool(Concurrency(1)), change, "inside")
        variable.set("later")
        other = asyncio.create_task(look())
        await until(handle.done)
        assert variable.get() == "later"
        assert await other == "later"
        assert await handle == "at the call"
        assert variable.get() == "inside"

    async def look() -> Any:
        await rounds()
        return variable.get()

    run(main)


def test_a_coroutine_has_a_copy(run: Run) -> None:
    """A coroutine threadlet runs in a copy of its caller's context, as any task does, from the queue too."""

    async def change_later(value: Any) -> Any:
        seen = variable.get()
        variable.set(value)
        await asyncio.sleep(0)
        return seen, variable.get()

    async def main() -> None:
        variable.set("outside")
        pool = Pool(Concurrency(1))
        direct, queued = pool.start(change_later, "one"), pool.start(change_later, "two")
        variable.set("later")
        assert await direct == ("outside", "one")
        assert await queued == ("outside", "two")
        assert variable.get() == "later"

    run(main)


def test_queued_threadlets_keep_their_own_contexts(run: Run) -> None:
    """Each of many threadlets in a queue sees the variables as they were at its own start, whatever the others set."""

    async def main() -> None:
        for place in PLACES:
            function = entrypoint(place, change)
            pool = Pool(Concurrency(1))
            blocker = pool.start(rounds)
            handles = []
            for number in range(12):
                variable.set(number // 3)
                handles.append(pool.start(function, f"inside {number}"))
            await blocker
            assert [handle.result() for handle in handles if await asyncio.wait([handle])] == [0] * 3 + [1] * 3 + [
                2
            ] * 3 + [3] * 3

    run(main)


def test_current_threadlet_in_every_situation(run: Run) -> None:
    """It is the innermost threadlet whose code this is: in place, on a worker, nested, and after every suspension."""

    async def main() -> None:
        assert current_threadlet() is None
        for place in PLACES:
            handle = entrypoint(place, current_threadlet)()
            assert await handle is handle
        assert current_threadlet() is None

        inner = threadlet(contract=IN_PLACE)(current_threadlet)

        def nest() -> tuple[Any, ...]:
            before, handle = current_threadlet(), inner()
            return before, handle, handle.result(), current_threadlet()

        for place in PLACES:
            outer = entrypoint(place, nest)()
            before, nested, seen, after = await outer
            assert before is after is outer
            assert seen is nested is not outer

        @threadlet
        async def steps() -> list[Any]:
            seen = [current_threadlet()]
            handle = inner()
            assert await handle is handle
            seen.append(current_threadlet())
            await asyncio.sleep(0)
            seen.append(current_threadlet())
            child = threadlet(steps_of_child)()
            assert await child == [child, child]
            seen.append(current_threadlet())
            return seen

        async def steps_of_child() -> list[Any]:
            first = current_threadlet()
            await asyncio.sleep(0)
            return [first, current_threadlet()]

        handle = steps()
        assert current_threadlet() is None
        assert await handle == [handle] * 4
        assert current_threadlet() is None

    run(main)


def test_child_tasks_are_not_the_threadlet(run: Run) -> None:
    """Tasks that a threadlet starts are tasks of their own: current_threadlet() is None there, eager ones included."""

    async def look() -> list[Any]:
        first = current_threadlet()
        await asyncio.sleep(0)
        return [first, current_threadlet()]

    async def eager() -> list[Any]:
        if sys.version_info < (3, 12):
            return [None, None]
        task = asyncio.Task(look(), loop=asyncio.get_running_loop(), eager_start=True)
        return await task

    @threadlet
    async def parent() -> None:
        own = current_threadlet()
        for _ in range(2):
            assert await eager() == [None, None]
            assert await asyncio.create_task(look()) == [None, None]
            assert current_threadlet() is own
            async with asyncio.TaskGroup() as group:
                task = group.create_task(look())
            assert task.result() == [None, None]
            assert current_threadlet() is own
            await asyncio.sleep(0)

    async def main() -> None:
        await parent()
        assert await eager() == [None, None]

    run(main)


def test_current_task_is_its_own_from_the_first_step(run: Run) -> None:
    """A coroutine threadlet is a task of its own, the same one in each step; then the caller's is back."""

    async def main() -> None:
        caller = asyncio.current_task()

        @threadlet
        async def look(depth: int) -> None:
            first = asyncio.current_task()
            assert first is not None and first is not caller
            if depth:
                handle = look(depth - 1)
                assert asyncio.current_task() is first
                await handle
            assert asyncio.current_task() is first
            await asyncio.sleep(0)
            assert asyncio.current_task() is first

        handle = look(3)
        assert asyncio.current_task() is caller
        await handle
        assert asyncio.current_task() is caller

    run(main)


async def with_timeout(ended: list[str]) -> str:
    try:
        async with asyncio.timeout(0.001):
            await forever()
    except TimeoutError:
        ended.append("timeout")
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    await rounds(2)
    return "went on"


async def with_expired_timeout(ended: list[str]) -> str:
    try:
        async with asyncio.timeout(-1):
            await rounds(3)
    except TimeoutError:
        ended.append("timeout")
    await rounds(2)
    return "went on"


async def with_task_group(ended: list[str]) -> str:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail_soon())
            await forever()
    except* ValueError:
        ended.append("group")
    await rounds(2)
    return "went on"


async def fail_soon() -> None:
    raise ValueError


async def with_shield(ended: list[str]) -> str:
    inner = asyncio.create_task(rounds(3))
    try:
        async with asyncio.timeout(-1):
            await asyncio.shield(inner)
    except TimeoutError:
        ended.append(f"shield {inner.cancelled()}")
    await inner
    return "went on"


async def with_anyio_timeouts(ended: list[str]) -> str:
    import anyio

    with anyio.move_on_after(0.001) as scope:
        await anyio.sleep_forever()
    ended.append(f"moved on {scope.cancelled_caught}")
    with pytest.raises(TimeoutError), anyio.fail_after(0.001):
        await anyio.sleep_forever()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.lowlevel.checkpoint()
        ended.append("never")
    await rounds(2)
    return "went on"


async def with_anyio_task_group(ended: list[str]) -> str:
    import anyio

    with pytest.raises(ExceptionGroup):
        async with anyio.create_task_group() as group:
            group.start_soon(fail_soon)
            group.start_soon(anyio.sleep_forever)
            await anyio.sleep_forever()
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        group.start_soon(rounds)
        await rounds(2)
        group.cancel_scope.cancel()
    ended.append("group")
    await rounds(2)
    return "went on"


PROGRAMS: dict[Callable[[list[str]], Awaitable[str]], list[str]] = {
    with_timeout: ["timeout"],
    with_expired_timeout: ["timeout"],
    with_task_group: ["group"],
    with_shield: ["shield False"],
    with_anyio_timeouts: ["moved on True"],
    with_anyio_task_group: ["group"],
}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
@pytest.mark.parametrize("first", ["first step", "later", "queued"])
def test_structured_concurrency_works_as_in_plain_tasks(run: Run, program: Any, first: str) -> None:
    """Timeouts, task groups, shields and anyio's scopes, entered in the first step or later, do as in a plain task."""
    if "anyio" in program.__name__:
        pytest.importorskip("anyio")

    async def body(ended: list[str]) -> str:
        if first == "later":
            await rounds(2)
        return str(await program(ended))

    async def main() -> None:
        plain: list[str] = []
        assert await asyncio.create_task(body(plain)) == "went on"
        pool, ended = Pool(Concurrency(1)), list[str]()
        if first == "queued":
            pool.start(rounds)
        assert await pool.start(body, ended) == "went on"
        assert ended == plain == PROGRAMS[program]
        await pool.drain()

    run(main)


def test_anyio_scopes_around_handles(run: Run) -> None:
    """An anyio scope that is cancelled around an await of a handle cancels the threadlet, wherever it is."""
    anyio = pytest.importorskip("anyio")

    async def main() -> None:
        pool = Pool(Concurrency(1))
        suspended, queued = pool.start(forever), pool.start(forever)
        for handle in (queued, suspended):
            with anyio.move_on_after(0.001) as scope:
                await handle
            assert scope.cancelled_caught
            assert handle.cancelled()
        assert await threadlet(contract=ON_WORKER)(lambda: 5)() == 5

    run(main)
