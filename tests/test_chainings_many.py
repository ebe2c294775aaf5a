"""Chains that go wrong, and many of them: in pools, on two loops, inside of each other."""

from __future__ import annotations

import asyncio
import threading
from asyncio import CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from threadlets import Concurrency, Contract, Lock, Pool, defer, threadlet
from threadlets.chainings import Chain
from threadlets.chains import AEIOU, NaP, arg, ref
from threadlets.errors import Deadlock, NoRunningLoop

from .conftest import Run
from .steps import READ, Log, away, fail, here, open_in, rest_pool
from .workbench import Gate, ended, until

# --------------------------------------------------------------------------------------------------- what may go wrong


def test_what_cannot_be_a_step() -> None:
    """Coroutine functions, entrypoints of these, chains, generators, and what is bound to a thread, are refused."""

    @threadlet
    async def entry() -> None:
        pass

    def generates() -> Any:
        yield

    async def plain() -> None:
        pass

    for function in (entry, plain, Chain().then(len, ""), Chain().then(len, "").using(), partial(plain)):
        with pytest.raises(TypeError, match="coroutine function"):
            Chain().then(function)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="generator function"):
        Chain().then(generates)
    with pytest.raises(TypeError, match="not from 3"):
        Chain().then(3)  # type: ignore[call-overload]
    for affinity in ("one", "home"):
        with pytest.raises(ValueError, match="bound to a thread"):
            Chain().finally_(threadlet(contract=Contract(affinity=affinity))(len), "")
    with pytest.raises(TypeError, match="expected a name"):
        Chain(len)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nan"):
        Chain().using(priority=float("nan"))
    with pytest.raises(TypeError, match=r"expected a threadlets\.Pool"):
        Chain().using(pool=3)  # type: ignore[arg-type]


def test_arguments_are_checked_before_anything_runs(run: Run) -> None:
    """A wrong call raises at once; in a pool, where the handle is awaited."""
    log = Log()
    chain = Chain().then(here(log), "a", arg("n"))

    async def main() -> None:
        for wrong in (lambda: chain(), lambda: chain(m=1), lambda: chain({"n": 1}, m=2), lambda: chain.using()()):
            with pytest.raises(TypeError, match="this chain takes 'n'"):
                wrong()
        with pytest.raises(TypeError, match="by their names"):
            chain(3)  # type: ignore[arg-type]
        async with Pool() as pool:
            assert isinstance(await ended(pool.start(chain, {"m": 1})), TypeError)
        assert log.names == []

    run(main)


def test_an_empty_chain(run: Run) -> None:
    """It has nothing to do, and its value is None; one that has an end alone does that."""
    log = Log()

    async def main() -> None:
        assert await Chain()() is None
        assert await Chain().finally_(here(log), "end")() is None
        assert log.names == ["end"]

    run(main)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exits_in_place_go_through(run: Run, error: type[BaseException]) -> None:
    """They go on through the caller, when the end has run."""
    log = Log()

    def leave() -> None:
        raise error

    async def main() -> None:
        with pytest.raises(error):
            Chain().then(here(leave)).finally_(here(log), "end")()
        assert log.names == ["end"]

    run(main)


def test_a_step_that_is_cancelled_by_itself(run: Run) -> None:
    """A CancelledError that a step raises cancels the chain, in place as on a worker."""

    def stop() -> None:
        raise CancelledError("mine")

    async def main() -> None:
        for place in (here, away):
            handle = Chain().then(place(stop))()
            error = await ended(handle)
            assert isinstance(error, CancelledError) and handle.cancelled()

    run(main)


def test_a_step_that_starts_a_chain(run: Run) -> None:
    """It runs right there, inside of the step, as entrypoints do; so do chains where no loop runs."""
    inner = Chain().then(away(str), arg("n"))

    def outer(n: int) -> str:
        handle = inner(n=n)
        assert handle.done()
        return handle.result()

    async def main() -> None:
        for place in (here, away):
            assert await Chain().then(place(outer), 3)() == "3"
        assert await asyncio.to_thread(outer, 4) == "4"

    run(main)
    assert outer(5) == "5"
    assert Chain().then(fail, "x").inline().result().args == ("x",)
    assert isinstance(Chain().then(fail, "x")().exception(), AEIOU)
    with pytest.raises(NoRunningLoop):
        inner.map([])


def test_what_a_step_defers(run: Run) -> None:
    """It is done before the chain is done, in place as on a worker."""
    log = Log()

    def step() -> None:
        defer(log, "deferred")
        log("step")

    async def main() -> None:
        for place in (here, away):
            await Chain().then(place(step)).then(here(log), "behind").finally_(here(log), "end")()
            assert log.names == ["step", "behind", "end", "deferred"]
            log.entries.clear()

    run(main)


def test_two_loops_share_a_chain(run: Run) -> None:
    """One on this thread and one on another; each has its own pools."""
    gates = [Gate(), Gate()]
    chain = Chain().then(here(str), arg("n")).then(away(len))

    async def main(mine: Gate, other: Gate) -> None:
        mine.open()
        assert await asyncio.gather(*(chain(n=10**n) for n in range(50))) == list(range(1, 51))
        await asyncio.to_thread(other)

    failures: list[BaseException] = []

    def beside() -> None:
        try:
            asyncio.run(main(gates[1], gates[0]))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=beside)
    thread.start()
    run(main, *gates)
    thread.join()
    assert failures == []


# ---------------------------------------------------------------------------------------------------------- many


def test_thousands_at_once(run: Run) -> None:
    """In place and away, failing and not: each comes to its own end."""
    chain = Chain().then(here(divmod), 12, arg("n")).named("a").then(away(lambda pair: pair[0])).inline

    async def main() -> None:
        values = await asyncio.gather(*(chain(n=n % 4) for n in range(1_000)))
        assert [bool(value) for value in values[:4]] == [False, True, True, True]
        assert values[1::4] == [12] * 250 and values[3::4] == [4] * 250
        assert isinstance(values[0].cause, ZeroDivisionError)
        assert rest_pool().statistics().done == 750

    run(main)


def test_map(run: Run, tmp_path: Path) -> None:
    """Rows of arguments, in order; a failure is raised where its value would have come, or is a value."""
    for n in range(30):
        (tmp_path / str(n)).write_text(str(n))
    rows = [{"path": tmp_path / str(n)} for n in range(31)]

    async def main() -> None:
        values: list[Any] = []
        with pytest.raises(AEIOU):
            async for value in READ.map(iter(rows), limit=5):
                values.append(value)  # noqa: PERF401 - what came before the failure is to be seen
        assert values == [str(n).encode() for n in range(30)]
        values = [value async for value in READ.inline.map(rows, ordered=False)]
        assert len(values) == 31 and [bool(value) for value in values].count(False) == 1
        values = [value async for value in READ.map(rows, return_exceptions=True)]
        assert isinstance(values[-1], AEIOU)
        async for _ in READ.map(rows):
            break  # what was started is given up
        await until(lambda: not len(asyncio.get_running_loop()._threadlets_pool))  # type: ignore[attr-defined]
        assert not open_in(tmp_path)

    run(main)


def test_chains_in_pools(run: Run) -> None:
    """A chain is an entrypoint: started, mapped, selected, and counted as one."""
    log, gate = Log(), Gate()
    chain = Chain("work", priority=4, tags={"own"}).then(here(log), "x", arg("n")).then(away(gate), ref())

    async def main() -> None:
        async with Pool(Concurrency(2)) as pool:
            handles: list[Any] = [chain.using(pool=pool, tags={"more"})(n=n) for n in range(4)]
            handles.append(pool.start(chain, {"n": 4}))
            handles.append(pool.start(partial(chain, n=5), priority=1))
            handles.append(pool.start(chain.using(priority=2), {"n": 6}))
            assert len(pool.select(entrypoint=chain)) == 7 and len(pool.select(tag="more")) == 4
            assert [handle.priority for handle in handles[3:]] == [4, 4, 1, 2]
            assert handles[0].tags == {"own", "more"} and pool.select(state="queued")
            gate.open()
            assert await asyncio.gather(*handles) == list(range(7))
            assert [value for _, value in log.entries] == [0, 1, 5, 6, 2, 3, 4]
            assert [value async for value in pool.map(chain, [{"n": 8}, {"n": 9}])] == [8, 9]
            assert pool.statistics().entrypoints["work"].done == 9

    run(main)


def test_many_are_in_place_and_the_loop_goes_round(run: Run) -> None:
    """A long row of chains that never block shares the loop with others."""
    ticks = 0

    async def main() -> None:
        done = False

        async def tick() -> None:
            nonlocal ticks
            while not done:
                ticks += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(tick())
        chain = Chain().then(here(lambda n: sum(range(1_000)) * 0 + n), arg("n"))
        assert [n async for n in chain.map({"n": n} for n in range(1_000))] == list(range(1_000))
        done = True
        await task
        assert ticks > 3

    run(main)


def test_a_step_that_would_wait_for_its_own_loop() -> None:
    """A lock whose holder cannot go on while the step blocks the loop: that is told, where it would hang."""
    lock = Lock("the lock")

    def step() -> None:
        with lock:
            pass

    @threadlet
    async def hold(until: asyncio.Event) -> None:
        async with lock:
            await until.wait()

    async def main() -> None:
        until = asyncio.Event()
        holder = hold(until)
        nap = await Chain().then(here(step)).inline()
        assert isinstance(nap, NaP)
        assert isinstance(nap.cause, Deadlock)
        until.set()
        await holder

    asyncio.run(main())
