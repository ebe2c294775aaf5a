"""What tests may exchange and ask: the clock of pools, the order of equals, who works, and who holds what."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from time import monotonic, monotonic_ns

import pytest

from threadlets import Concurrency, Contract, Lock, Pool, threadlet, trials, workers
from threadlets.holders import all_held
from threadlets.whereabouts import at_work
from threadlets.workers import WorkerGroup, are_busy

from .conftest import Run

ALWAYS = Contract(blocks="always")


def test_a_trial_ends_as_it_began() -> None:
    """Trials may be nested; each exchanges what it names, and gives it back, whatever happens in it."""
    assert trials.now is monotonic_ns and trials.tie is None
    with trials.trial(clock=lambda: 1):
        with pytest.raises(KeyError), trials.trial(ties=lambda: 0.5):
            assert trials.now() == 1 and trials.tie is not None
            raise KeyError
        assert trials.now() == 1 and trials.tie is None
    assert trials.now is monotonic_ns


def test_equals_start_in_the_order_that_is_drawn(once: Run) -> None:
    """Smaller numbers go first, but never before what is more urgent; a pool of another time is not touched."""
    draws = iter([0.3, 0.1, 0.2, 0.9, 0.8])

    async def main() -> None:
        started: list[int] = []

        @threadlet
        async def work(number: int) -> None:
            started.append(number)
            await asyncio.sleep(0)

        old = Pool(Concurrency(1))
        old.get_loop()
        with trials.trial(ties=lambda: next(draws)):
            async with Pool(Concurrency(1)) as pool:
                pool.start(work, 0)  # starts at once, and draws nothing
                for number, priority in enumerate([0, 0, 0, -1, -1], 1):
                    pool.start(work, number, priority=priority)
            async with old:
                for number in (6, 7, 8):
                    old.start(work, number)
        assert started == [0, 5, 4, 2, 3, 1, 6, 7, 8]

    once(main)


def test_who_is_at_work_is_known(once: Run) -> None:
    """A worker thread that runs something is named, with whose function that is and where it is."""
    gate, began = threading.Event(), threading.Event()

    @threadlet(contract=ALWAYS)
    def work() -> None:
        began.set()
        gate.wait(20)

    async def main() -> None:
        handle = work()
        assert await asyncio.to_thread(began.wait, 20)
        [(thread, whose, stack)] = [each for each in at_work() if each[1] is handle]
        assert thread.name.startswith("threadlets-worker-") and whose is handle and "in work\n" in stack[0]
        gate.set()
        await handle
        assert handle not in [whose for _, whose, _ in at_work()]

    once(main)


def test_workers_are_busy_until_they_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the moment at which something is handed to a group, until its threads are idle; but not while they wait."""
    group, gate, waits = WorkerGroup("trial"), threading.Event(), threading.Event()
    monkeypatch.setattr(workers, "_groups", weakref.WeakSet([group]))

    def settled(busy: bool) -> bool:
        until = monotonic() + 20
        while are_busy() is not busy and monotonic() < until:
            gate.wait(0.001)
        return are_busy() is busy

    def work() -> None:
        waits.wait(20)
        group.lend()  # as who waits for another threadlet
        gate.wait(20)
        group.take_back()

    assert not are_busy()
    caller = threading.Thread(target=group.call, args=[work])
    caller.start()
    assert settled(True)
    waits.set()
    assert settled(False)
    assert [whose for thread, whose, _ in at_work() if "-trial-" in thread.name] == [None], "it is nobody's function"
    gate.set()
    caller.join()
    assert settled(False)


def test_what_is_held_is_known() -> None:
    """So is what was made before anybody asked, and nothing is kept alive by that."""
    early = Lock("early")
    early.acquire()
    assert all_held()
    late = Lock("late")
    late.acquire()
    held = {lock.name: (owner, words) for lock, owner, words in all_held() if isinstance(lock, Lock)}
    me = threading.get_ident()
    assert held["early"][0] == held["late"][0] == me
    assert "holds <Lock 'late': taken>, taken at " in held["late"][1]
    late.release()
    early.release()
    assert not {"early", "late"} & {getattr(lock, "name", None) for lock, _, _ in all_held()}
    late.acquire()
    del late, held
    gc.collect()
    assert "late" not in {getattr(lock, "name", None) for lock, _, _ in all_held()}
