"""Many threadlets that wait: how much memory each takes, and whether the pool gets slower as it fills up.

A pool that lets one run at a time holds N that wait, behind a coroutine that is suspended. Each size has a process of
its own, in turns - small, large, small, large - so that no size finds memory that another has left behind.

*Resident* memory is what the system has given to the process, before and after the starts, divided by N; it includes
what the allocator keeps in reserve. *Allocated* memory is what ``tracemalloc`` counts, in a process of its own, since
counting costs time. Both include all that a start leaves behind: handle, arguments, context, ticket, places in the
index. Each threadlet has one tag, one of ten.

An operation *in order* takes the threadlets as they were started; *at random* jumps around in memory as well, of which
a million is more than caches hold. The garbage collector is on, and its passes over all objects are part of the
figures; a second table has it off, to tell what is ours and what is its.

One size alone, as the parent runs it: ``python -m benchmarks.memory SIZE LOOP [gc-off | traced]``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from threadlets import Concurrency, Pool, Threadlet, threadlet

from .harness import Comparison, Effort, run_on

__all__ = ["measure"]

SIZES = (1_000, 10_000, 100_000, 1_000_000)
LARGE, SMALL = 1_000_000, 10_000  # the two sizes that the budget compares
GROWTH = 1.5  # the most that an operation on LARGE may cost, as a multiple of the same on SMALL
BYTES = 450.0  # the most that one threadlet may take
ENOUGH = 100_000  # items per process, so that a small size is measured long enough: it is filled up several times
TAGS = [frozenset({f"tenant:{number}"}) for number in range(10)]

# What is done to the pool, in this order, and whether the budget is meant for it.
OPERATIONS = {
    "start": True,
    "read: all of an entrypoint": False,
    "read: a tenth, by tag": False,
    "re-key: a tenth, by tag": True,
    "re-key: one by one, in order": True,
    "re-key: one by one, at random": True,
    "cancel: one by one, at random": True,
    "cancel: all that is left": True,
}


@threadlet
def queued(number: int) -> int:
    """Never run here: it waits until it is cancelled."""
    return number


@threadlet
async def blocker(gate: asyncio.Future[None]) -> None:
    """Hold the only place of the pool."""
    await gate


def measure(loop: str, effort: Effort) -> list[Comparison]:
    """Measure all sizes, each in processes of its own."""
    rounds = 1 if effort.quick else 3
    sizes = [size for size in SIZES if not effort.quick or size in (SMALL, LARGE)]
    found: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    without: dict[int, list[dict[str, float]]] = {size: [] for size in (SMALL, LARGE) if not effort.quick}
    for _ in range(rounds):
        for size in sizes:
            found[size].append(_in_process(size, loop))
        for size in without:
            without[size].append(_in_process(size, loop, "gc-off"))
    largest = f"{LARGE:,}"
    traced = SMALL if effort.quick else LARGE
    resident = Comparison(
        title="resident memory",
        ours=largest,
        samples={largest: [each["resident"] for each in found[LARGE]]},
        ceilings={largest: BYTES},
        unit="bytes",
        note="For each of N queued threadlets.",
    )
    allocated = Comparison(
        title="allocated memory",
        ours=f"{traced:,}",
        samples={f"{traced:,}": [_in_process(traced, loop, "traced")["allocated"]]},
        ceilings={f"{traced:,}": BYTES},
        unit="bytes",
        note="For each of N queued threadlets.",
    )
    return [
        resident,
        allocated,
        *_operations(found, "time per item, N queued threadlets", budget=GROWTH),
        *(_operations(without, "the same with the garbage collector off") if without else []),
    ]


def _operations(
    found: dict[int, list[dict[str, float]]], table: str, *, budget: float | None = None
) -> list[Comparison]:
    return [
        Comparison(
            title=operation,
            ours=f"{LARGE:,}",
            samples={f"{size:,}": [each[operation] for each in found[size]] for size in sorted(found)},
            budgets={f"{SMALL:,}": budget} if budget is not None and budgeted else {},
            table=table,
        )
        for operation, budgeted in OPERATIONS.items()
    ]


def _in_process(size: int, loop: str, *how: str) -> dict[str, float]:
    command = [sys.executable, "-m", __name__, str(size), loop, *how]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


async def _repeat(size: int) -> dict[str, float]:
    """Fill and empty a pool several times; return the mean cost of each operation, and the first one's memory."""
    times = max(1, ENOUGH // size)
    await _fill_and_empty(100)  # what only the first call of each kind pays for
    found = [await _fill_and_empty(size) for _ in range(times)]
    means = {operation: sum(each[operation] for each in found) / times for operation in OPERATIONS}
    return {**means, "resident": found[0]["resident"]}


async def _fill_and_empty(size: int) -> dict[str, float]:
    pool = Pool(Concurrency(1))
    gate = asyncio.get_running_loop().create_future()
    blocking = pool.start(blocker, gate, priority=-1)
    chance = random.Random(1)
    priorities = [chance.random() for _ in range(size)]
    shuffled = list(range(size))
    chance.shuffle(shuffled)
    handles: list[Threadlet[Any]] = []
    keep = handles.append
    found: dict[str, float] = {}
    gc.collect()

    before = _resident()
    started = perf_counter()
    for number in range(size):
        keep(pool.start(queued, 1, priority=priorities[number], tags=TAGS[number % 10]))
    found["start"] = (perf_counter() - started) / size
    found["resident"] = (_resident() - before) / size

    selected = pool.select(entrypoint=queued)
    found["read: all of an entrypoint"] = _timed(lambda: sum([handle.priority >= 0 for handle in selected]), size)
    tenth = pool.select(tag="tenant:3")
    found["read: a tenth, by tag"] = _timed(lambda: sum([handle.priority >= 0 for handle in tenth]), size // 10)
    found["re-key: a tenth, by tag"] = _timed(lambda: tenth.reprioritize(0.5), size // 10)
    found["re-key: one by one, in order"] = _timed(lambda: _rekey(handles, priorities[::-1]), size)
    order = [handles[place] for place in shuffled]
    found["re-key: one by one, at random"] = _timed(lambda: _rekey(order, priorities), size)
    half = order[: size // 2]
    found["cancel: one by one, at random"] = _timed(lambda: sum([handle.cancel() for handle in half]), size // 2)
    rest = pool.select(state="queued")
    found["cancel: all that is left"] = _timed(lambda: rest.cancel("measured"), size - size // 2)

    assert len(pool) == 1 and all(handle.cancelled() for handle in handles), "everything is cancelled, none has run"
    gate.set_result(None)
    await blocking
    await pool.aclose()
    return found


def _rekey(handles: Sequence[Threadlet[Any]], priorities: Sequence[float]) -> int:
    for handle, priority in zip(handles, priorities, strict=True):
        handle.priority = priority
    return len(handles)


def _timed(act: Callable[[], int], size: int) -> float:
    started = perf_counter()
    reached = act()
    spent = perf_counter() - started
    assert reached == size, f"{reached} threadlets were reached, {size} expected"
    return spent / size


async def _traced(size: int) -> dict[str, float]:
    """Return the bytes that one queued threadlet has allocated."""
    pool = Pool(Concurrency(1))
    gate = asyncio.get_running_loop().create_future()
    blocking = pool.start(blocker, gate, priority=-1)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(size):
        pool.start(queued, 1, priority=0, tags=TAGS[number % 10])
    allocated = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    pool.select(state="queued").cancel()
    gate.set_result(None)
    await blocking
    return {"allocated": allocated / size}


def _resident() -> int:
    """Return the bytes that the system has given to this process; where there is no /proc, the most it ever had."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        from resource import RUSAGE_SELF, getrusage

        return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    of_size, on_loop, *how = sys.argv[1:]
    if how == ["gc-off"]:
        gc.disable()
    print(json.dumps(run_on(on_loop, (_traced if how == ["traced"] else _repeat)(int(of_size)))))
