"""Random cancels, errors, timeouts and kills at every await and checkpoint of real work, and what must be true after.

``python -m tests.stress.faults --count 200000 --loop uvloop --seed 7`` does the whole, in rounds, and prints what was
done. The seed fixes what is tried; what that hits is up to the threads.

What is shown, after each round: every lock is free, and what it protects is whole, or somebody was told that it is not;
each deferred callback was called once; each descriptor is closed; each transaction is there as a whole, or not at all;
each threadlet has ended, and nothing is kept of it; every place in a throttle is given back; no thread is stuck; the
loop's exception handler, and the log, were told of nothing unexpected. And in a full run: each fault was met at each
point of the work.

Rounds are in ``world``; what they run is in ``workload`` and ``exchanges``, on things that are in ``vaults``; faults
are in ``injector``, and the laws in ``judgement``.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
from collections.abc import Callable
from time import monotonic

from tests.conftest import factory_of
from tests.stress.injector import FAULTS
from tests.stress.judgement import CLEANS
from tests.stress.workload import POINTS
from tests.stress.world import World

LOOPS = ("asyncio", "uvloop", "hands", "uvhands")
FULL = 200_000  # with so many everything has happened everywhere
ROUND = 2_000  # arbitrary: threadlets between two judgements


class Listener(logging.Handler):
    """Hears what the library's log says, for a world to judge."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self.world = world

    def __enter__(self) -> None:
        logger = logging.getLogger("threadlets")
        logger.addHandler(self)
        logger.propagate = False

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("threadlets")
        logger.removeHandler(self)
        logger.propagate = True

    def emit(self, record: logging.LogRecord) -> None:
        """Count what is expected, and keep what is not. Thread: any."""
        if record.msg.startswith(CLEANS):
            self.world.tell("cleanups that took long")
        else:
            self.world.warnings.append(record.getMessage())


async def stress(
    count: int, seed: int, each: int = ROUND, progress: Callable[[World], object] = lambda _: None
) -> World:
    """Start so many threadlets, in rounds; return what has happened.

    Raises:
        AssertionError: If anything is not as it should be.
    """
    with tempfile.TemporaryDirectory() as folder:
        world = World(seed, folder)
        with Listener(world):
            try:
                while world.started < count:
                    await world.play(min(each, count - world.started))
                    progress(world)
            except BaseException:
                print(f"seed={seed}, round {world.rounds}, after {world.started:,} threadlets", file=sys.stderr)
                raise
    return world


def main() -> None:
    """Do what the command line says, and print a report."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress.faults", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--count", type=int, default=FULL, help="how many threadlets")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    parser.add_argument("--round", type=int, default=ROUND, help="threadlets between two judgements")
    options = parser.parse_args()
    print(f"seed={options.seed} count={options.count:,} loop={options.loop}", flush=True)
    begin = monotonic()
    latest: list[World] = []

    def progress(world: World) -> None:
        latest[:] = [world]
        if world.rounds % 10 == 0:
            print(f"{monotonic() - begin:6.0f} s: {world.started:,} threadlets", flush=True)

    try:
        with asyncio.Runner(loop_factory=factory_of(options.loop)) as runner:
            runner.run(stress(options.count, options.seed, options.round, progress))
    finally:
        for world in latest:
            report(world, monotonic() - begin)
    if options.count >= FULL:
        check_coverage(latest[0])


def report(world: World, spent: float) -> None:
    """Print what was done."""
    print(f"{world.started:,} threadlets in {spent:.1f} s, {spent / world.started * 1e3:.2f} ms each, all included")
    everywhere = len(POINTS) * len(FAULTS)
    print(f"faults: {world.pairs.total():,}, {len(world.pairs)} of {everywhere} pairs of a point and a fault")
    for title, counter in {"done": world.counts, "ends": world.ends, "cancelled at": world.cancelled}.items():
        print(f"{title}: " + ", ".join(f"{name} {count:,}" for name, count in counter.most_common()))


def check_coverage(world: World) -> None:
    """Assert that everything has happened everywhere."""
    missing = [(point, fault) for point in POINTS for fault in FAULTS if not world.pairs[point, fault]]
    assert not missing, f"{len(missing)} have not happened: {sorted(missing)[:20]}"


if __name__ == "__main__":
    main()
