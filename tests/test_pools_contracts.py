"""Contracts in use: which thread a pool's threadlets run on, and what cancelling them frees."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import ABANDON, IN_PLACE, ON_WORKER, Gate, forever, hold_workers_before_running, rounds, until
from threadlets import Concurrency, Contract, Pool, Threadlet, current_threadlet, threadlet
from threadlets.errors import ContractViolation, NoRunningLoop
from threadlets.lifecycles import State


def test_never_runs_in_place_and_always_on_a_worker(run: Run) -> None:
    """``blocks="never"`` is the loop's thread, within the call; ``"always"`` is another thread, from the start."""
    never, always = (threadlet(contract=contract)(threading.get_ident) for contract in (IN_PLACE, ON_WORKER))

    async def main() -> None:
        handle = never()
        assert handle.done() and handle.result() == threading.get_ident()
        handle = always()
        assert handle.state in ("queued", "running") and not handle.missed
        assert await handle != threading.get_ident()

    run(main)


def test_a_broken_promise_is_told_in_debug_mode(run: Run) -> None:
    """A function that promised never to block, and blocks, is told as a ContractViolation, in debug mode alone."""
    sleeps = threadlet(contract=IN_PLACE)(time.sleep)

    async def main() -> None:
        async with Pool(Concurrency(1)) as pool:
            await pool.start(sleeps, 0.03)

    if run.debug:
        with pytest.warns(ContractViolation, match=r"sleep\(\) .*promises Contract\(blocks='never'\) and blocked"):
            run(main)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run(main)


def test_a_violation_that_is_an_error_leaves_the_books_right(run: Run) -> None:
    """Where warnings are errors, the threadlet fails with it, and its place is free."""
    sleeps = threadlet(contract=IN_PLACE)(time.sleep)

    async def main() -> None:
        throttle = Concurrency(1)
        pool = Pool(throttle)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ContractViolation)
            handle = pool.start(sleeps, 0.03)
        assert isinstance(handle.exception(), ContractViolation) == run.debug
        statistics = pool.statistics()
        assert throttle.taken == 0
        assert statistics.done + statistics.failed == 1
        assert asyncio.get_running_loop() is pool.get_loop()
        assert current_threadlet() is None
        pool._check()

    run(main)


def test_a_violation_does_not_hide_a_failure(run: Run) -> None:
    """Where warnings are errors, a function that blocks and then raises fails with what it raised."""

    def sleep_and_raise() -> None:
        time.sleep(0.03)
        raise KeyError("mine")

    async def main() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ContractViolation)
            handle = threadlet(contract=IN_PLACE)(sleep_and_raise)()
        assert isinstance(handle.exception(), KeyError)

    run(main)


def test_home_runs_on_the_loops_thread(run: Run) -> None:
    """``affinity="home"`` is the loop's thread: in place, and from plain functions in place however deeply nested."""
    home = threadlet(contract=Contract(affinity="home"))(threading.get_ident)
    once = threadlet(contract=IN_PLACE)(lambda: home().result())
    twice = threadlet(contract=IN_PLACE)(lambda: once().result())
    elsewhere = threadlet(contract=ON_WORKER)(lambda: home().result())
    nested_elsewhere = threadlet(contract=ON_WORKER)(lambda: once().result())

    async def main() -> None:
        for function in (home, once, twice):
            assert await function() == threading.get_ident()
        for function in (elsewhere, nested_elsewhere):
            with pytest.raises(NoRunningLoop, match="event loop's thread"):
                await function()
        with ThreadPoolExecutor(1) as executor, pytest.raises(NoRunningLoop):
            await asyncio.get_running_loop().run_in_executor(executor, home)

    run(main)


def test_a_connection_that_checks_its_thread(run: Run) -> None:
    """A sqlite3 connection with ``check_same_thread`` works in entrypoints that share a named affinity, nested too."""
    database = Contract(affinity="one:database")
    connection: list[sqlite3.Connection] = []

    @threadlet(contract=database)
    def connect() -> None:
        connection.append(sqlite3.connect(":memory:", check_same_thread=True))
        connection[0].execute("create table numbers (number)")

    @threadlet(contract=database)
    def insert(number: int) -> None:
        connection[0].execute("insert into numbers values (?)", [number])

    @threadlet(contract=database)
    def insert_two(number: int) -> None:
        insert(number).result()
        insert(number).result()

    @threadlet(contract=database)
    def total() -> int:
        return int(connection[0].execute("select sum(number) from numbers").fetchone()[0])

    @threadlet(contract=database)
    def close() -> None:
        connection.pop().close()

    @threadlet(contract=Contract(affinity="home"))
    def total_from_in_place() -> int:
        return total().result()

    async def main() -> None:
        await connect()
        await asyncio.gather(*map(insert, range(50)), insert_two(100))
        assert await total() == await total_from_in_place() == sum(range(50)) + 200
        await close()

    run(main)


def test_one_worker_runs_one_after_the_other(run: Run) -> None:
    """Calls with ``affinity="one"`` never overlap, and start by priority, then in order of arrival."""
    gate = Gate()
    order: list[int] = []
    inside = threading.Lock()

    @threadlet(contract=Contract(affinity="one"))
    def step(number: int) -> None:
        assert inside.acquire(blocking=False), "two at a time"
        if number == 0:
            gate()
        order.append(number)
        inside.release()

    async def main() -> None:
        handles = [step(0)]
        gate.wait_arrived()
        handles += [step.using(priority=priority)(number) for number, priority in [(1, 5), (2, 1), (3, 5), (4, 1)]]
        handles[1].priority = -1
        gate.open()
        await asyncio.gather(*handles)
        assert order == [0, 1, 2, 4, 3]

    run(main)


def test_current_threadlet_on_a_worker_that_was_called_from_elsewhere() -> None:
    """Where no loop runs, ``affinity="one"`` runs on its worker, and the function finds its own threadlet there."""
    seen = threadlet(contract=Contract(affinity="one"))(lambda: (threading.get_ident(), current_threadlet()))
    handle = seen()
    ident, current = handle.result()
    assert ident != threading.get_ident()
    assert current is handle
    assert current_threadlet() is None


def test_cancelling_what_runs_on_a_worker_waits_for_it(run: Run) -> None:
    """With ``cancel="wait"`` its place is held, and cancelled() false, until the function has stopped."""
    gate = Gate()

    async def main() -> None:
        throttle = Concurrency(1)
        pool = Pool(throttle)
        running, queued = pool.start(threadlet(contract=ON_WORKER)(gate), "dropped"), pool.start(asyncio.sleep, 0)
        gate.wait_arrived()
        assert running.cancel("reason") and running.cancel("a better reason")
        await rounds()
        assert (running.state, queued.state, throttle.taken) == ("running", "queued", 1)
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await running
        with pytest.raises(asyncio.CancelledError, match="a better reason"):
            running.result()
        await queued
        assert throttle.taken == 0
        pool._check()

    run(main)


def test_abandoning_detaches_at_once_and_keeps_the_place(run: Run) -> None:
    """With ``cancel="abandon"`` it is cancelled at once; its place is free when its thread is, and counted so far."""
    gate = Gate()

    async def main() -> None:
        throttle = Concurrency(1)
        pool = Pool(throttle)
        running, queued = pool.start(threadlet(contract=ABANDON)(gate), "lost"), pool.start(asyncio.sleep, 0)
        gate.wait_arrived()
        assert running.cancel("reason")
        assert running.cancelled() and running not in pool
        assert not running.cancel()
        await rounds()
        assert (queued.state, throttle.taken, pool.statistics().abandoned) == ("queued", 1, 1)
        pool._check()
        gate.open()
        await queued
        assert (throttle.taken, pool.statistics().abandoned, pool.statistics().cancelled) == (0, 0, 1)
        with pytest.raises(asyncio.CancelledError, match="reason"):
            running.result()

    run(main)


@pytest.mark.parametrize("contract", [ON_WORKER, ABANDON], ids=["wait", "abandon"])
def test_cancel_between_taking_a_job_and_running_it(
    run: Run, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has taken a job finds it cancelled: one end for it, its place free, the thread unharmed."""
    # worker: takes the job out of the queue
    #                                           loop: cancel(): it is in no queue any more, and not yet running
    # worker: runs the job (or sees the wish), posts how it ended
    #                                           loop: delivers
    gate = hold_workers_before_running(monkeypatch)

    async def main() -> None:
        throttle = Concurrency(1)
        pool = Pool(throttle)
        ran: list[int] = []
        handle = pool.start(threadlet(contract=contract)(ran.append), 1)
        gate.wait_arrived()
        assert handle.state == "queued"
        assert handle.cancel("reason")
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await handle
        assert handle.cancelled()
        await until(lambda: throttle.taken == 0)
        assert pool.statistics().abandoned == 0
        assert pool.statistics().cancelled == 1
        assert await pool.start(threadlet(contract=contract)(lambda: "next")) == "next"
        assert ran == []
        pool._check()

    run(main)


def test_abandon_between_running_and_the_call(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has moved a job to "running" finds it abandoned: it does not run, and no failure is reported."""
    # worker: has read the arguments, moves the threadlet to running
    #                                           loop: cancel(): it is running, so it is abandoned
    # worker: sees the wish, posts
    #                                           loop: delivers: the place is free
    gate = Gate()
    really = Threadlet._move

    def stop_after(handle: Threadlet[Any], state: State) -> None:
        really(handle, state)
        if state is State.RUNNING and threading.current_thread() is not threading.main_thread():
            gate()

    monkeypatch.setattr(Threadlet, "_move", stop_after)

    async def main() -> None:
        throttle = Concurrency(1)
        pool = Pool(throttle)
        ran: list[int] = []
        handle = pool.start(threadlet(contract=ABANDON)(ran.append), 1)
        gate.wait_arrived()
        assert handle.state == "running"
        assert handle.cancel("reason")
        assert handle.cancelled()
        gate.open()
        await until(lambda: throttle.taken == 0)
        assert ran == []
        assert pool.statistics().abandoned == 0
        pool._check()

    run(main)


@pytest.mark.parametrize("contract", [ON_WORKER, ABANDON], ids=["wait", "abandon"])
@pytest.mark.parametrize("fails", [False, True])
def test_cancel_between_the_end_and_its_delivery(run: Run, contract: Contract, fails: bool) -> None:
    """The function has ended and its letter lies in the mailbox when the cancel comes: still one end, counted once."""
    # worker: the function ends, posts                loop: is busy, and does not deliver
    #                                                 loop: cancel()
    #                                                 loop: delivers a result to a threadlet that was asked to stop

    async def main() -> None:
        throttle = Concurrency(1)
        pool = Pool(throttle)
        handle = pool.start(threadlet(contract=contract)(lambda: 1 // (not fails)))
        mailbox = pool._home.mailbox
        while not mailbox._letters:  # blocks the loop on purpose
            threading.Event().wait(0.0001)
        assert handle.state == "running"
        assert handle.cancel()
        await until(lambda: handle.done() and throttle.taken == 0)
        statistics = pool.statistics()
        assert statistics.done + statistics.failed + statistics.cancelled == 1
        assert statistics.abandoned == 0
        if fails and contract is ON_WORKER:
            assert isinstance(handle.exception(), ZeroDivisionError)  # an exception of the function is kept
        else:
            assert handle.cancelled()

    run(main)
    assert len(run.told()) == (fails and contract is ABANDON)


def test_an_abandoned_function_that_fails_is_told(run: Run) -> None:
    """Nobody awaits what an abandoned function does after that: its failure goes to the loop's exception handler."""
    gate = Gate()

    async def main() -> None:
        pool = Pool()
        handle = pool.start(threadlet(contract=ABANDON)(lambda: {}[gate("late")]))
        gate.wait_arrived()
        assert handle.cancel()
        gate.open()
        await until(lambda: not pool.statistics().abandoned)

    run(main)
    (report,) = run.told()
    assert "abandoned, and then failed" in report["message"]


def test_a_scope_does_not_wait_for_what_it_abandoned(run: Run) -> None:
    """The end of a scope waits for threadlets, not for functions that were abandoned."""
    gate = Gate()

    async def main() -> None:
        async with Pool() as pool:
            handle = pool.start(threadlet(contract=ABANDON)(gate))
            gate.wait_arrived()
            pool.start(forever)
            pool.cancel()
        assert handle.cancelled()
        assert pool.statistics().abandoned == 1
        gate.open()
        await until(lambda: not pool.statistics().abandoned)

    run(main)
