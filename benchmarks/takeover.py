"""The loop that changes hands: what it gains for a server, what it costs where nothing blocks, how long it takes.

The servers are real ones, see ``serving``; they take turns, one at a time. What a region costs is measured in this
process, where all contenders share one loop. What the sentinel costs is a percent or less, and is measured in processes
of their own, in short turns: with takeovers, and with ``threshold=float("inf")``, which has no sentinel.

One of these alone, as the parent runs it: ``python -m benchmarks.takeover LOOP idle | on | off``.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from threadlets import EventLoop, blocking, threadlet

from .calls import BUSY, make_busy, nothing
from .harness import Comparison, Contender, Effort, compare
from .serving import CONNECTIONS, LOOPS, Served, serve

__all__ = ["measure"]

PERCENTS = (0.0, 0.1, 1.0, 5.0)  # of the requests block for 100 ms
BUDGETED = 1.0  # the percentage that the budgets are about
WAYS = {  # contender: how the function is called, and on which loop
    "threadlet": ("threadlet", "ours"),
    "on a plain loop": ("threadlet", "plain"),
    "to_thread": ("to_thread", "plain"),
    f"{CONNECTIONS} threads": ("to_thread_wide", "plain"),
    "direct": ("direct", "plain"),
}
NOTE = (
    f"{CONNECTIONS} connections. threadlet: on the loop that changes hands. to_thread: on asyncio's own"
    f" {min(32, (os.cpu_count() or 1) + 4)} threads; {CONNECTIONS} threads: on as many as there are connections."
)
PIECE = 0.020  # seconds of a blocking call that is taken over here
APART = 0.1  # seconds between takeovers
IDLE = 3.0  # seconds that an idle program is watched
TURN = 0.25  # seconds of a busy program's turn
STILL = 0.7  # seconds; longer than an alarm stays set


def measure(loop: str, effort: Effort) -> list[Comparison]:
    """Measure all of it for one kind of loop."""
    with asyncio.Runner(loop_factory=lambda: make_loop(loop)) as runner:
        guards = runner.run(_guards(effort))
        takeovers = runner.run(_takeovers(effort))
    return [*guards, *takeovers, _sentinel(loop, effort), _idle(loop), *_servers(loop, effort)]


def make_loop(loop: str, threshold: float | None = None) -> asyncio.AbstractEventLoop:
    """Make a loop that changes hands.

    Args:
        loop: "asyncio" or "uvloop".
        threshold: As the loops have it: None is adapted, infinity is never.
    """
    if loop == "uvloop":
        from threadlets.adapters import uvloop

        return uvloop.EventLoop(threshold=threshold)
    return EventLoop(threshold=threshold)


# ------------------------------------------------------------------------------------------------ servers


def _servers(loop: str, effort: Effort) -> list[Comparison]:
    seconds, rounds = (1.0, 1) if effort.quick else (2.0, 3)
    percents = (0.0, BUDGETED) if effort.quick else PERCENTS
    found: dict[tuple[float, str], list[Served]] = {(each, name): [] for each in percents for name in WAYS}
    plain: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(rounds):
        for kind, rates in plain.items():
            rates.append(serve("nothing", LOOPS[loop][kind], 0, seconds).per_second)
        for (percent, name), runs in found.items():
            way, kind = WAYS[name]
            runs.append(serve(way, LOOPS[loop][kind], percent, seconds))
    theirs = f"{loop}'s own"
    return [
        Comparison(
            "requests/s of a server that calls nothing",
            "changes hands",
            {"changes hands": plain["ours"], theirs: plain["plain"]},
            floors={theirs: 0.8},
            unit="/s",
            note="The loop alone: no threadlets, no regions.",
        ),
        *(_requests(loop, percent, found) for percent in percents),
        *(_lag("time-weighted p99", percent, found, lambda run: run.p99_lag, 5.0) for percent in percents),
        *(_lag("worst", percent, found, lambda run: run.worst_lag) for percent in percents),
    ]


def _requests(loop: str, percent: float, found: dict[tuple[float, str], list[Served]]) -> Comparison:
    return Comparison(
        _percent(percent),
        "threadlet",
        {name: [run.per_second for run in found[percent, name]] for name in WAYS},
        floors={"to_thread": 2.0} if loop == "uvloop" and percent == BUDGETED else {},
        against="to_thread",
        unit="/s",
        note=NOTE,
        table="requests/s of a server, some of whose requests block for 100 ms",
    )


def _lag(
    which: str,
    percent: float,
    found: dict[tuple[float, str], list[Served]],
    figure: Callable[[Served], float],
    most: float | None = None,
) -> Comparison:
    return Comparison(
        _percent(percent),
        "threadlet",
        {name: [figure(run) for run in found[percent, name]] for name in WAYS},
        ceilings={"threadlet": most} if most is not None and percent == BUDGETED else {},
        unit="ms",
        table=f"{which} lag of its loop",
    )


def _percent(percent: float) -> str:
    return f"{percent:g} % block"


# ------------------------------------------------------------------------------------------------ regions


async def _guards(effort: Effort) -> list[Comparison]:
    """What it costs that a call could be taken over, if it does not block."""
    entrypoint = threadlet(nothing)

    async def region(count: int) -> int:
        right = 0
        for _ in range(count):
            with blocking():
                right += nothing()
        return right

    async def in_place(count: int) -> int:
        right = 0
        for _ in range(count):
            right += await entrypoint()
        return right

    async def direct(count: int) -> int:
        right = 0
        for _ in range(count):
            right += nothing()
        return right

    found = await compare(
        "a call that does nothing",
        [Contender("in a region", region), Contender("direct", direct), Contender("threadlet, in place", in_place)],
        effort,
        note="One at a time, on a loop that changes hands.",
    )
    added = Comparison(
        "what guarding adds to it",
        "a region",
        {
            "a region": _minus(found.samples["in a region"], found.samples["direct"]),
            "a threadlet, awaited": _minus(found.samples["threadlet, in place"], found.samples["direct"]),
        },
        ceilings={"a region": 1e-6},
    )
    return [found, added]


def _minus(some: list[float], others: list[float]) -> list[float]:
    return [one - other for one, other in zip(some, others, strict=True)]


async def _takeovers(effort: Effort) -> list[Comparison]:
    """How long the others wait for the loop when a call blocks, and how long the call's own task waits afterwards."""
    busy = make_busy(BUSY)
    stalls: dict[str, list[float]] = {}
    returns: dict[str, list[float]] = {}
    for name, before in (("after a quiet time", None), ("among other regions", busy)):
        stalls[name], returns[name] = [], []
        for _ in range(effort.rounds):
            await _apart(before)
            stall, back = await _one_takeover()
            stalls[name].append(stall * 1e3)
            returns[name].append(back * 1e3)
    return [
        Comparison(
            "from a blocking call's start until the loop's next callback",
            "after a quiet time",
            stalls,
            unit="ms",
            note=f"Calls of {PIECE * 1e3:.0f} ms on an idle loop. After a quiet time the alarm is set for "
            f"the region itself; among regions it is put off a few milliseconds at a time.",
        ),
        Comparison(
            "from a blocking call's end until its task goes on",
            "after a quiet time",
            returns,
            unit="ms",
        ),
    ]


async def _apart(busy: Callable[[], int] | None) -> None:
    """Let some time pass: quietly, or with regions that do not block."""
    if busy is None:
        await asyncio.sleep(STILL)
        return
    until = perf_counter() + APART
    while perf_counter() < until:
        with blocking():
            busy()
        await asyncio.sleep(0)


async def _one_takeover() -> tuple[float, float]:
    loop = asyncio.get_running_loop()
    called: asyncio.Future[float] = loop.create_future()
    loop.call_soon(lambda: called.set_result(perf_counter()))
    started = perf_counter()
    with blocking():
        time.sleep(PIECE)
        ended = perf_counter()
    back = perf_counter()
    return await called - started, back - ended


# ------------------------------------------------------------------------------------------------ the sentinel


def _sentinel(loop: str, effort: Effort) -> Comparison:
    """What it costs a busy program that its regions are watched."""
    rounds = 4 * effort.rounds
    samples: dict[str, list[float]] = {"takeovers on": [], "takeovers off": []}
    programs = [_start(loop, word) for word in ("on", "off")]
    try:
        for turn in range(rounds + 1):
            for program, figures in zip(programs, samples.values(), strict=True):
                each = _ask(program)
                if turn:  # the first one warms up
                    figures.append(each)
    finally:
        for program in programs:
            program.kill()
            program.communicate()
    return Comparison(
        f"a busy program, all of it in regions of {BUSY * 1e6:.0f} us",
        "takeovers on",
        samples,
        budgets={"takeovers off": 1.01},
        note="The loop goes round after each region. Off: threshold=inf.",
    )


def _idle(loop: str) -> Comparison:
    """How often a program that does nothing any more is woken."""
    program = _start(loop, "idle")
    written, _ = program.communicate()
    return Comparison(
        "wake-ups of an idle program, after regions and a takeover",
        "all threads",
        {"all threads": [float(written)]},
        ceilings={"all threads": 1.0},
        unit="a second",
    )


def _start(loop: str, word: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", __spec__.name, loop, word]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(program: subprocess.Popen[str]) -> float:
    """Let a program have its turn, and return how long each of its regions took."""
    assert program.stdin is not None
    assert program.stdout is not None
    print(json.dumps(TURN), file=program.stdin, flush=True)
    return float(program.stdout.readline())


async def _be_busy() -> None:
    """Take turns, as long as somebody asks for them."""
    busy = make_busy(BUSY)
    for line in sys.stdin:
        seconds = json.loads(line)
        count, started = 0, perf_counter()
        while (now := perf_counter()) < started + seconds:
            for _ in range(100):
                with blocking():
                    busy()
                await asyncio.sleep(0)
            count += 100
        print((now - started) / count, flush=True)


async def _be_idle() -> None:
    """Use regions, one of which is taken; then do nothing, and count how often that was disturbed."""
    for _ in range(10):
        await _apart(nothing)
        await _one_takeover()
    await asyncio.sleep(STILL)
    before = _wake_ups()
    await asyncio.sleep(IDLE)
    print((_wake_ups() - before - 1) / IDLE)  # but for the one that ends the sleep


def _wake_ups() -> int:
    """Return how often this process's threads have waited for something, those that have ended left out."""
    return sum(
        int(line.split()[1])
        for task in Path("/proc/self/task").iterdir()
        for line in (task / "status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def main() -> None:
    """Be one of the programs."""
    loop, word = sys.argv[1:]
    factory = lambda: make_loop(loop, float("inf") if word == "off" else None)  # noqa: E731
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_be_idle() if word == "idle" else _be_busy())


if __name__ == "__main__":
    main()
