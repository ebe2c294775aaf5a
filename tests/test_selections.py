"""Selections: live views of a pool, and bulk operations that do all or nothing."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import IN_PLACE, ON_WORKER, Gate, forever, rounds, until
from threadlets import Concurrency, Pool, Selection, Threadlet, threadlet


@threadlet
async def wait(number: int) -> int:
    await forever()
    return number


@threadlet
async def rest() -> None:
    await forever()


class Work:
    @threadlet
    async def go(self) -> None:
        await forever()


def names(selection: Selection) -> list[str]:
    return sorted(next(iter(tag for tag in handle.tags if len(tag) == 1)) for handle in selection)


def fill(pool: Pool) -> dict[str, Threadlet[Any]]:
    """Start six, one after the other; their names are tags of one letter."""
    return {
        "a": pool.start(wait, 1, tags={"a", "red", "big"}),
        "b": pool.start(wait, 2, tags={"b", "red"}, priority=5),
        "c": pool.start(rest, tags={"c", "red"}),
        "d": pool.start(rest, tags={"d", "blue", "big"}),
        "e": pool.start(Work().go, tags={"e", "blue"}),
        "f": pool.start(forever, tags={"f"}, priority=9),
    }


def test_every_criterion(run: Run) -> None:
    """By entrypoint, tag, state and predicate, alone and together; without any, everything."""

    async def main() -> None:
        pool = Pool(Concurrency(3))
        fill(pool)
        assert names(pool.select()) == list("abcdef")
        assert names(pool.select(entrypoint=wait)) == list("ab")
        assert names(pool.select(entrypoint=wait.using(priority=3))) == list("ab")
        assert names(pool.select(entrypoint=Work.go)) == ["e"]
        for bound in (functools.partial(wait, 3), Work().go):  # would select the calls with other arguments, too
            with pytest.raises(TypeError, match="arguments are no criterion"):
                pool.select(entrypoint=bound)
        assert names(pool.select(entrypoint=forever)) == ["f"]
        assert names(pool.select(entrypoint=print)) == []
        assert names(pool.select(tag="red")) == list("abc")
        assert names(pool.select(tag="green")) == []
        assert names(pool.select(state="missed")) == list("abc")
        assert names(pool.select(state="queued")) == list("def")
        with pytest.raises(ValueError, match="'queued', 'running', 'missed'"):
            pool.select(state="done")
        assert names(pool.select(where=lambda handle: handle.priority > 3)) == list("bf")
        assert names(pool.select(entrypoint=wait, tag="big")) == ["a"]
        assert names(pool.select(entrypoint=rest, tag="red", state="queued")) == []
        assert names(pool.select(entrypoint=rest, tag="big", state="queued", where=lambda handle: True)) == ["d"]
        await pool.aclose()

    run(main)


def test_a_selection_is_live(run: Run) -> None:
    """It is made once and looks anew at each use: who arrives, starts or ends changes what it shows."""

    async def main() -> None:
        pool = Pool(Concurrency(3))
        red, queued = pool.select(tag="red"), pool.select(state="queued")
        assert (len(red), bool(red), list(red)) == (0, False, [])
        handles = fill(pool)
        assert (len(red), len(queued), bool(red)) == (3, 3, True)
        assert "Selection of 3 threadlets" in repr(red)
        handles["a"].cancel()
        await rounds()
        assert (names(red), names(queued)) == (list("bc"), list("ef"))
        pool.start(wait, 3, tags={"g", "red"})
        assert names(red) == list("bcg")
        await pool.aclose()
        assert (len(red), bool(red)) == (0, False)

    run(main)


def test_iterating_while_everything_changes(run: Run) -> None:
    """An iteration shows who matched at its start, even if the loop's body cancels them and starts others."""

    async def main() -> None:
        pool = Pool(Concurrency(1))
        for number in range(20):
            pool.start(wait, number, tags={"old"})
        seen = 0
        for handle in pool.select(tag="old"):
            handle.cancel()
            pool.start(wait, 0, tags={"old"})
            pool.select(tag="old").reprioritize(seen)
            pool._check()
            seen += 1
        assert seen == 20
        assert pool.select(tag="old").cancel() == 20 + 1  # the running one of the first twenty is still stopping
        await pool.drain()
        pool._check()

    run(main)


def test_cancel_in_bulk(run: Run) -> None:
    """cancel() cancels every match, gives all of them the reason, counts them, and starts none of them on the way."""

    async def main() -> None:
        started: list[int] = []

        async def step(number: int) -> None:
            started.append(number)
            await forever()

        pool = Pool(Concurrency(2))
        handles = [pool.start(step, number, tags={"odd"} if number % 2 else {"even"}) for number in range(10)]
        assert pool.select(tag="even").cancel("unwanted") == 5
        await until(handles[0].done)
        await rounds()
        assert started == [0, 1, 3]
        for handle in handles[::2]:
            with pytest.raises(asyncio.CancelledError, match="unwanted"):
                handle.result()
        pool._check()
        assert pool.cancel("the rest") == 5
        await pool.drain()
        assert started == [0, 1, 3]

    run(main)


def test_reprioritize_in_bulk(run: Run) -> None:
    """reprioritize() gives every match its new priority, wherever it waits, and they start by it."""
    gate = Gate()

    async def main() -> None:
        order: list[int] = []

        async def step(number: int) -> None:
            order.append(number)

        pool = Pool(Concurrency(1))
        blocker = pool.start(forever)
        for number in range(10):
            pool.start(step, number, tags={"odd"} if number % 2 else {"even"})
        assert pool.select(tag="odd").reprioritize(-1) == 5
        assert pool.select(tag="none").reprioritize(-2) == 0
        for wrong, error in ((float("nan"), ValueError), ("high", TypeError)):
            with pytest.raises(error):
                pool.select().reprioritize(wrong)  # type: ignore[arg-type]
        pool._check()
        blocker.cancel()
        await pool.drain()
        assert order == [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]
        workers = Pool()
        running = workers.start(threadlet(contract=ON_WORKER)(gate))
        assert workers.select().reprioritize(3) == 1
        assert running.priority == 3
        gate.open()
        await running

    run(main)


@pytest.mark.parametrize("act", ["cancel", "reprioritize", "wait", "len", "list"])
def test_a_predicate_that_raises_changes_nothing(run: Run, act: str) -> None:
    """All matches are found before anything is done: an error of the predicate comes out, and all is as it was."""

    async def main() -> None:
        pool = Pool(Concurrency(1))
        fill(pool)
        before = [(handle, handle.state, handle.priority) for handle in pool]
        calls = 0

        def where(handle: Threadlet[Any]) -> bool:
            nonlocal calls
            calls += 1
            return bool(1 // (4 - calls))

        selection = pool.select(where=where)
        with pytest.raises(ZeroDivisionError):
            if act == "cancel":
                selection.cancel()
            elif act == "reprioritize":
                selection.reprioritize(-1)
            elif act == "wait":
                await selection.wait()
            else:
                len(selection) if act == "len" else list(selection)
        assert [(handle, handle.state, handle.priority) for handle in pool] == before
        pool._check()
        await pool.aclose()

    run(main)


def test_a_predicate_that_uses_the_pool(run: Run) -> None:
    """A predicate may start, cancel and reprioritize; the selection goes on with those that were there."""

    async def main() -> None:
        pool = Pool(Concurrency(1))
        handles = fill(pool)

        def where(handle: Threadlet[Any]) -> bool:
            pool.start(rest, tags={"x"})
            handles["f"].cancel()
            handle.priority += 1
            return "red" in handle.tags

        assert pool.select(where=where).cancel() == 3
        pool._check()
        await pool.aclose()

    run(main)


def test_wait_waits_for_those_that_match_now(run: Run) -> None:
    """wait() returns when all who matched at its call are final, however they ended, and raises nothing of theirs."""
    fails = threadlet(contract=ON_WORKER)(lambda: {}["missing"])

    async def main() -> None:
        async with Pool(Concurrency(2)) as pool:
            await pool.select().wait()
            handles = [pool.start(wait, number, tags={"old"}) for number in range(3)]
            handles.append(pool.start(fails, tags={"old"}))
            waiting = asyncio.create_task(pool.select(tag="old").wait())
            await rounds()
            newcomer = pool.start(wait, 3, tags={"old"})
            for handle in handles[:3]:
                assert not waiting.done()
                handle.cancel()
                await rounds()
            await waiting
            assert all(handle.done() for handle in handles)
            assert not newcomer.done()
            newcomer.cancel()
            assert isinstance(handles[3].exception(), KeyError)

    run(main)


def test_wait_can_be_cancelled(run: Run) -> None:
    """Cancelling who waits leaves the threadlets alone, and nothing of the wait behind."""

    async def main() -> None:
        pool = Pool(Concurrency(1))
        handles = fill(pool)
        task = asyncio.create_task(pool.select().wait())
        await rounds()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not any(handle.done() for handle in handles.values())
        assert not any(handle._callbacks for handle in handles.values())
        assert pool.select().cancel() == 6
        await pool.select().wait()
        await rounds()
        pool._check()

    run(main)


def test_what_ends_in_place_is_never_selected(run: Run) -> None:
    """A threadlet that ends within the call that starts it is not in its pool, not even while it runs."""

    async def main() -> None:
        pool = Pool()
        seen: list[int] = []
        look = threadlet(contract=IN_PLACE)(lambda: seen.append(len(pool)))
        handle = pool.start(look)
        assert handle.done() and handle not in pool
        assert len(pool.select(entrypoint=look)) == 0
        assert seen == [0]

    run(main)
