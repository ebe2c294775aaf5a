"""Chains that run: in place, on workers, taken over; and what they look like."""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
from asyncio import CancelledError
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from threadlets import Concurrency, Pool, current_threadlet, threadlet
from threadlets.chainings import Chain
from threadlets.chains import AEIOU, NaP, arg, ref
from threadlets.placements import PROBATION
from threadlets.runs import OFTEN

from .conftest import Run
from .steps import READ, Log, away, fail, here, open_in, rest_pool
from .workbench import IN_PLACE, ON_WORKER, Gate, ended, until

# --------------------------------------------------------------------------------------------------------- in place


def test_what_does_not_block_is_done_within_the_call(run: Run) -> None:
    """Without a task, and without a thread: the handle is final when the call returns."""
    log = Log()
    chain = Chain().then(here(log), "a", arg("n")).then(here(str)).finally_(here(log), "end")

    async def main() -> None:
        tasks = asyncio.all_tasks()
        handle = chain(n=3)
        assert handle.done() and handle.result() == "3" == await handle
        assert asyncio.all_tasks() == tasks and rest_pool() is None
        assert log.entries == [("a", 3), ("end", None)]
        assert set(log.threads) == {threading.get_ident()}
        assert chain.statistics().in_place == 1
        assert asyncio.get_running_loop() is handle.get_loop()

    run(main)


def test_a_step_sees_what_functions_see(run: Run) -> None:
    """No running loop, and the threadlet that it is a part of, in place as on a worker."""
    seen: list[Any] = []

    def look() -> None:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        seen.append(current_threadlet())

    async def main() -> None:
        handle = Chain("look").then(here(look)).using(tags={"a"})()
        await handle
        assert seen == [handle]
        await Chain("look").then(away(look)).using(tags={"a"}, priority=3)()
        assert seen[1].entrypoint.name == "look" and seen[1].tags == {"a"} and seen[1].priority == 3
        assert current_threadlet() is None

    run(main)


def test_files_are_read(run: Run, tmp_path: Path) -> None:
    """A file that was just written is read, and one that is not there is a failure that says so; nothing stays open."""
    (tmp_path / "a").write_bytes(b"abc")

    async def main() -> None:
        for _ in range(3):
            assert await READ(path=tmp_path / "a") == b"abc"
            with pytest.raises(AEIOU, match=r"step 1 'fd', open\(.*, raised FileNotFoundError") as caught:
                await READ(path=tmp_path / "b")
            assert isinstance(caught.value.__cause__, FileNotFoundError) and caught.value.nap.step == 1
            with pytest.raises(AEIOU, match=r"step 3, read\(\d+, 100\), raised IsADirectoryError"):
                await READ(path=tmp_path)
            nap = await READ.inline(path=tmp_path / "b")
            assert isinstance(nap, NaP) and nap.name == "fd" and not nap
        assert not open_in(tmp_path)

    run(main)


def test_what_only_a_worker_may_do(run: Run, tmp_path: Path) -> None:
    """A file that is made, and written to, is not tried in place where the loop could not go on."""
    flags = os.O_WRONLY | os.O_CREAT
    write = Chain().then(os.open, arg("path"), flags).named("fd").then(os.write, ref("fd"), arg("data"))
    write = write.finally_(os.close, ref("fd"))

    async def main() -> None:
        assert await write({"path": tmp_path / "a"}, data=b"xyz") == 3
        assert await READ({"path": tmp_path / "a"}) == b"xyz"
        assert not open_in(tmp_path)

    run(main)


# ---------------------------------------------------------------------------------------------------------- the rest


def test_the_rest_is_one_hop(run: Run) -> None:
    """What comes before a miss runs here, all that comes behind it on one worker, as one threadlet more."""
    log = Log()
    step = here(log)
    chain = Chain().then(step, "1").then(step, "2").then(away(log), "3").then(step, "4").then(away(log), "5")
    chain = chain.finally_(step, "6")

    async def main() -> None:
        handle = chain()
        assert not handle.done() and handle.missed
        await handle
        assert log.names == list("123456")
        assert set(log.threads[:2]) == {threading.get_ident()}
        assert len(set(log.threads[2:])) == 1 and log.threads[2] != threading.get_ident()
        assert rest_pool().statistics().done == 1
        assert (chain.statistics().in_place, chain.statistics().missed) == (1, 1)

    run(main)


def test_failures_on_a_worker(run: Run) -> None:
    """They come as they come in place; and may be recovered from there."""

    async def main() -> None:
        chain = Chain().then(away(fail), "why").named("a")
        with pytest.raises(AEIOU, match=r"step 1 'a', .*\('why'\), raised LookupError: why") as caught:
            await chain()
        frames = []
        traceback = caught.value.__cause__.__traceback__  # type: ignore[union-attr]
        while traceback is not None:
            frames.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        assert frames == ["fail"]
        assert await chain.recover(lambda nap: nap.args)() == ("why",)
        assert (await chain.inline()).args == ("why",)
        assert isinstance(await ended(Chain().then(away(next), iter(()))()), AEIOU)

    run(main)


def test_functions_are_learned_from(run: Run) -> None:
    """A function that has been fast on workers moves in place, and whoever calls it gains: also beside chains."""

    def quick() -> int:
        return 3

    async def main() -> None:
        loop_stays = not getattr(asyncio.get_running_loop(), "_threadlets_token", None)
        chain = Chain().then(quick)
        for _ in range(50 * PROBATION):  # a busy machine makes fast calls slow
            handle = chain()
            await handle
            if not handle.missed:
                break
        assert not chain().missed
        statistics = threadlet(quick)  # its own; that of the bare function is what pools use
        assert statistics.statistics().in_place == 0
        async with Pool() as pool:
            assert pool.start(quick).done()
        assert chain.statistics().missed >= (PROBATION if loop_stays else 0)

    run(main)


def test_context_variables_come_back(run: Run) -> None:
    """What steps set is seen by the steps behind them, and by whoever awaits the chain, wherever they ran."""
    variable: ContextVar[int] = ContextVar("variable", default=0)

    def add(n: int) -> int:
        variable.set(variable.get() + n)
        return variable.get()

    async def main() -> None:
        variable.set(1)
        assert await Chain().then(here(add), 1)() == 2 == variable.get()
        assert await Chain().then(here(add), 1).then(away(add), 1).then(here(add), 1)() == 5 == variable.get()
        async with Pool(Concurrency(1)) as pool:
            for place in (here, away):
                chain: Any = Chain().then(place(add), 10)
                await asyncio.gather(chain.using(pool=pool)(), chain.using(pool=pool)())
                before = variable.get()
                handle = chain.using(pool=pool)()
                assert await handle == before + 10 == variable.get()

    run(main)


def test_a_step_that_blocks_in_place_is_taken_over(hands: Run) -> None:
    """The loop goes on without its thread, which finishes the step; then the next one runs."""
    opens = threading.Event()
    log = Log()

    def blocks() -> str:
        assert opens.wait(20)
        return log("blocked")

    chain = Chain().then(here(log), "first").then(blocks).then(here(log), "then", ref()).finally_(here(log), "end")

    async def main() -> None:
        asyncio.get_running_loop().call_soon(opens.set)
        handle = chain()
        await handle
        assert log.names == ["first", "blocked", "then", "end"]
        assert handle.missed and set(log.threads) == {threading.get_ident()}

    hands(main)


def test_cancelled_while_it_blocks_in_place(hands: Run) -> None:
    """Once its step has ended the chain is told: no further step, but its end."""
    opens, log = threading.Event(), Log()

    def blocks() -> None:
        assert opens.wait(20)

    chain = Chain("c").then(blocks).then(here(log), "never").finally_(here(log), "end")

    async def main() -> None:
        async def other() -> None:
            for handle in [each for each in pool if each.entrypoint is chain]:
                assert handle.cancel("enough")
            opens.set()

        async with Pool() as pool:
            task = asyncio.create_task(other())
            handle = chain.using(pool=pool)()
            error = await ended(handle)
            await task
            assert handle.cancelled() and isinstance(error, CancelledError) and error.args == ("enough",)
            assert log.names == ["end"]

    hands(main)


def test_a_loop_in_place_does_not_hold_up_the_event_loop(run: Run) -> None:
    """A step that repeats for long goes on elsewhere, and the event loop goes round meanwhile."""
    gate = Gate()

    def slow(n: int) -> int:
        sum(range(2_000))
        if n == 20 * OFTEN:
            gate()  # in place, nobody would open it
        return n + 1

    chain = Chain().then(here(lambda: 1)).then(here(slow), ref()).repeat_while(lambda n: n < 25 * OFTEN)

    async def main() -> None:
        handle = chain()
        assert not handle.done()
        await until(lambda: gate._arrived._value)  # type: ignore[attr-defined]
        gate.open()
        assert await handle == 25 * OFTEN

    run(main)


# ------------------------------------------------------------------------------------------------------------ the face


def test_a_chain_can_be_shown_and_pickled() -> None:
    """Its repr is short, its explanation is not; and another process may have it."""
    assert repr(READ) == "<Chain read(path): 3 steps>"
    assert READ.explain().splitlines()[-1] == "finally  close(ref('fd'))"
    again = pickle.loads(pickle.dumps(READ.inline))
    assert again.explain() == READ.explain()
    assert isinstance(again(path="/nowhere/at/all").result(), NaP)
    assert repr(READ.using()) == "<call of <Chain read(path): 3 steps>>"


def test_methods_entrypoints_and_partials_are_steps(run: Run) -> None:
    """What is called is what a call of them would call; nothing is started."""

    class Shelf:
        def __init__(self) -> None:
            self.books = ["a"]

        @threadlet(contract=IN_PLACE)
        def add(self, book: str) -> int:
            self.books.append(book)
            return len(self.books)

        @threadlet(contract=ON_WORKER)
        def count(self, *more: int) -> int:
            return len(self.books) + sum(more)

        def plain(self) -> int:
            return len(self.books)

    shelf = Shelf()
    chain = Chain().then(shelf.add, "b").then(partial(shelf.count, 10), ref()).named("n").then(shelf.books.append, "c")
    whole: Any = chain.then(lambda _: shelf.plain()).then(here(max), ref(), ref("n"))

    async def main() -> None:
        assert await whole() == 14
        assert shelf.books == ["a", "b", "c"]

    run(main)
