"""Random operations on a family of pools, with everything counted outside of the library.

``python -m tests.stress.pools --operations 1000000 --seed 7 --loop uvloop`` does the whole and prints a report. The
seed fixes which operations are tried; which of them meet what is up to the threads.

What is shown: each function runs once, or its threadlet has ended as cancelled, shed, overdue; whatever was refused at
its start, or final before it ran, never runs; every ``_check()`` holds along the way; at the end all pools are empty,
every place is given back, and the figures of the pools are those that were counted here.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from tests.conftest import factory_of
from tests.stress.work import ALONE, SHARED, TWO, Beside, Planned, Record
from threadlets import Concurrency, FairShare, PerTag, Pool, Rate, groups
from threadlets.errors import DeadlineExceeded, PoolClosed, PoolFull, Shed

CROWD = 1_000  # how many are unfinished, more or less
PARTS = 12  # the most that there are at a time
PATIENCE = 20  # seconds for what is left to end, when nothing holds it back
BREATH = 25  # operations between two rounds of the loop
HOSTS = [f"host:{number}" for number in range(20)]
TENANTS = [f"tenant:{number}" for number in range(6)]
LOOPS = ("asyncio", "uvloop", "hands", "uvhands")


@dataclass
class World:
    """The pools, what was started in them, and what has become of it."""

    operations: int
    seed: int
    check_every: int
    done: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    live: list[Record] = field(default_factory=list)
    held: dict[int, asyncio.Future[None]] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.shared, self.own = Concurrency(16), Concurrency(8)
        self.per_host, self.fair = PerTag("host:", Concurrency(2)), FairShare("tenant:", {TENANTS[0]: 3})
        self.roots = [
            Pool(self.own, self.per_host, capacity=500, overflow="shed", tag_capacity={"host:": 60}, name="shed"),
            Pool(self.shared, self.fair, aging=0.05, capacity=400, name="fair"),
            Pool(self.shared, self.per_host, order="deadline", name="deadline"),
            Pool(Rate(50_000, burst=50), PerTag("host:", Rate(10_000, burst=5)), name="rate"),
            Pool(name="free"),
        ]
        self.parts: list[Pool] = []
        self.hosts = [Beside(), Beside()]
        self.limits = [self.shared, self.own, *(host.slots for host in self.hosts)]
        weights: dict[Callable[[], object], int] = {
            self.finish: 25,
            self.cancel: 5,
            self.rekey: 20,
            self.retag: 10,
            self.move: 6,
            self.in_bulk: 1,
            self.change_limits: 3,
            self.change_deadline: 5,
            self.make_part: 1,
            self.close_part: 1,
            self.wait_for_room: 1,
        }
        self.kinds, self.weights = list(weights), list(weights.values())

    # ------------------------------------------------------------------------------------------------- operations

    def pool(self) -> Pool:
        """Return any pool that is open."""
        return self.chance.choice([*self.roots, *self.parts])

    def tags(self) -> set[str]:
        """Return tags: none, some, or several of one kind."""
        return {*self.chance.choices(HOSTS, k=self.chance.choice([0, 1, 1, 1, 2])), self.chance.choice(TENANTS)}

    def start(self, depth: int = 0) -> Record | None:
        """Start anything anywhere; None if it was refused."""
        self.done += 1
        self.counts["start"] += 1
        function: Any = self.chance.choice([*ALONE, self.hold, self.hold, self.hold, self.nest])
        record = Record(self.done, getattr(function, "__name__", "?"))
        args: tuple[Any, ...] = (record,)
        if self.chance.random() < 0.15:
            function, record.kind = self.chance.choice(SHARED), "shared"
            args = (self.chance.randrange(5),)
            record.number = args[0]
        elif function == self.nest:
            args = (record, depth + 1)
        deadline = self.chance.choice([None] * 12 + [0.0005, 0.005, 0, 100])
        pool, priority = self.pool(), self.chance.choice([0, 1, 2, self.chance.random()])
        try:
            record.handle = pool.start(function, *args, priority=priority, tags=self.tags(), deadline=deadline)
        except PoolFull:
            record.over = True
            self.ends["refused"] += 1
            assert not record.runs, f"{record!r} was refused, and has run"
            return None
        self.live.append(record)
        return record

    async def hold(self, record: Record) -> int:
        """Wait until ``finish`` says so."""
        record.run()
        self.held[record.number] = future = asyncio.get_running_loop().create_future()
        try:
            await future
        finally:
            self.held.pop(record.number, None)
        return record.number

    async def nest(self, record: Record, depth: int) -> int:
        """Start another one and await it."""
        record.run()
        inner = self.start(depth) if depth < 4 else None
        if inner is not None and inner.handle is not None:
            try:
                await inner.handle
            except (Planned, Shed, DeadlineExceeded):
                pass
        return record.number

    def any(self) -> Record | None:
        """Return one that is not known to be final, most of the time; and look after those that are."""
        for _ in range(10):
            if not self.live:
                return None
            place = self.chance.randrange(len(self.live))
            record = self.live[place]
            assert record.handle is not None
            if not record.handle.done():
                return record
            self.live[place] = self.live[-1]
            self.live.pop()
            self.end(record)
        return None

    def finish(self) -> None:
        """Let some of those that are held go on."""
        for number in list(self.held)[: self.chance.choice([1, 1, 3])]:
            future = self.held.pop(number)
            if not future.done():
                future.set_result(None)

    def cancel(self) -> None:
        """Cancel any one."""
        record = self.any()
        if record is not None and record.handle is not None:
            suspended = record.handle.state == "missed"  # its task may have ended, and nobody was told so far
            assert record.handle.cancel("stress") or suspended
            if record.handle.cancelled() and not record.runs:
                record.over = True

    def rekey(self) -> None:
        """Change a priority."""
        record = self.any()
        if record is not None and record.handle is not None:
            record.handle.priority = self.chance.choice([0, 1, 2, 3, self.chance.random() * 3])

    def retag(self) -> None:
        """Change tags, wherever it is."""
        record = self.any()
        if record is not None and record.handle is not None:
            record.handle.tags = self.tags()

    def move(self) -> None:
        """Move those of one tag, or one alone, to another pool, a node or a host."""
        record, source = self.any(), self.pool()
        target: Any = self.chance.choice([self.pool(), self.chance.choice(TWO.nodes), self.chance.choice(self.hosts)])
        if self.chance.random() < 0.2:
            source.select(tag=self.chance.choice(HOSTS), state="queued").move(target)
        elif record is not None and record.handle is not None and record.handle.pool is not None:
            record.handle.pool.select(where=lambda handle: handle is record.handle).move(target)

    def in_bulk(self) -> None:
        """Cancel or reprioritize those of one tag."""
        selection = self.pool().select(tag=self.chance.choice(HOSTS + TENANTS))
        if self.chance.random() < 0.3:
            selection.cancel("bulk")
        else:
            selection.reprioritize(self.chance.randrange(4))

    def change_limits(self) -> None:
        """Change limits and weights, in any direction."""
        kind = self.chance.randrange(4)
        if kind == 0:
            self.chance.choice(self.limits).limit = self.chance.choice([1, 4, 16, 64])
        elif kind == 1:
            self.per_host[self.chance.choice(HOSTS)].limit = self.chance.choice([1, 2, 8])
        elif kind == 2:
            self.fair[self.chance.choice(TENANTS)] = self.chance.choice([0.1, 1, 10])
        else:
            rate: Any = self.roots[3]._own[0]
            rate.limit = self.chance.choice([5_000, 50_000, 500_000])

    def change_deadline(self) -> None:
        """Give one another deadline, or none."""
        record = self.any()
        if record is not None and record.handle is not None:
            record.handle.deadline = self.chance.choice([None, None, 100, 50, 0.001])

    def make_part(self) -> None:
        """Make a pool within another one."""
        parent = self.pool()
        if len(self.parts) < PARTS and len(parent._line) < 4:
            limit = Concurrency(self.chance.choice([1, 4, 32]))
            self.limits.append(limit)
            options: dict[str, Any] = self.chance.choice([{}, {"capacity": 50}, {"capacity": 50, "overflow": "shed"}])
            throttles = self.chance.choice([(), (limit,), (limit, PerTag("host:", Concurrency(3)))])
            self.parts.append(Pool(*throttles, parent=parent, **options))

    def close_part(self) -> None:
        """Close a part: with what is in it, or when that has ended."""
        if self.parts:
            part = self.chance.choice(self.parts)
            part.close()
            self.parts = [each for each in self.parts if not each._closed]  # its own parts are closed, too
            if self.chance.random() < 0.5:
                self.task(part.aclose())

    def wait_for_room(self) -> None:
        """Start something as soon as there is room."""
        if len(self.tasks) < 50:
            self.task(self.room(self.pool()))

    async def room(self, pool: Pool) -> None:
        tags = self.tags()
        await pool.room(tags=tags)
        self.done += 1
        record = Record(self.done, "room")
        try:
            record.handle = pool.start(self.hold, record, tags=tags)
        except (PoolFull, PoolClosed):
            record.over = True
        else:
            self.live.append(record)
            self.counts["room"] += 1

    def task(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # ------------------------------------------------------------------------------------------------- the run

    async def run(self) -> None:
        """Do everything, then let everything end."""
        breath, check = BREATH, self.check_every
        while self.done < self.operations:
            if self.chance.random() < (0.6 if len(self.live) < CROWD else 0.2):
                self.start()
            else:
                (operation,) = self.chance.choices(self.kinds, self.weights)
                self.done += 1
                self.counts[operation.__name__] += 1
                operation()
                if len(self.live) > CROWD:
                    self.finish()
                    self.any()
            if len(self.live) > 2 * CROWD:
                self.cancel()
            if self.done >= breath:
                breath = self.done + BREATH
                await asyncio.sleep(0)
            if self.done >= check:
                check = self.done + self.check_every
                self.check()
        await self.leave()

    async def leave(self) -> None:
        """Let go of everything that holds somebody back, and see that all has ended as it should."""
        self.check()
        for limit in self.limits:
            limit.limit = 10**6
        for part in self.parts:
            part.close()
        self.parts.clear()
        for host in HOSTS:
            self.per_host[host].limit = 10**6
        end = time.monotonic() + PATIENCE
        while any(map(len, self.roots)) or self.tasks:
            left = [handle for pool in self.roots for handle in pool]
            assert time.monotonic() < end, f"{len(left)} do not end: {left[:5]}; and tasks: {list(self.tasks)[:3]}"
            for future in self.held.values():
                if not future.done():
                    future.set_result(None)
            await asyncio.sleep(0.001)
        self.check()
        for record in self.live:
            self.end(record)
        self.live.clear()
        assert self.shared.taken == self.own.taken == 0, "all places are given back"
        assert all(self.per_host[host].taken == 0 for host in HOSTS), "all places of tags are given back"
        home = self.roots[0]._home
        assert not (len(home.waits) or len(home.expiries) or home.sites), "nobody waits, or is to be anywhere"
        told: Counter[str] = Counter()
        for pool in self.roots:
            figures = pool.statistics()
            assert figures.queued == figures.admitted == figures.abandoned == 0, f"{figures} of an empty pool"
            for name in ("done", "failed", "cancelled", "shed"):
                told[name] += getattr(figures, name)
        assert told == +Counter({name: self.ends[name] for name in ("done", "failed", "cancelled", "shed")}), (
            f"the pools have counted {told}, and ended have {self.ends}"
        )

    def end(self, record: Record) -> None:
        """See that one has ended as it should."""
        handle = record.handle
        assert handle is not None and handle.done(), f"{record!r} is lost"
        record.over = record.over or not record.runs
        if record.kind != "shared":
            assert record.runs <= 1, f"{record!r} has run more than once"
        if handle.cancelled():
            self.ends["cancelled"] += 1
            return
        error = handle.exception()
        if error is None:
            self.ends["done"] += 1
            assert handle.result() == record.number
            assert record.kind == "shared" or record.runs == 1, f"{record!r} is done, and has not run"
        elif isinstance(error, Shed):
            self.ends["shed"] += 1
            assert not record.runs, f"{record!r} was shed, and has run"
        else:
            self.ends["failed"] += 1
            self.ends[type(error).__name__] += 1
            assert isinstance(error, (Planned, DeadlineExceeded)), f"{record!r} has failed"

    def every(self) -> Iterator[Pool]:
        """Iterate over all pools that are known."""
        pools = list(self.roots)
        for pool in pools:
            yield pool
            pools.extend(cast("list[Pool]", pool._children))

    def check(self) -> None:
        """Ask every pool and throttle whether it is in order."""
        self.counts["check"] += 1
        for pool in self.every():
            pool._check()
            for throttle in pool._own:
                throttle._check()
            figures = pool.statistics()
            assert figures.queued >= 0 <= figures.admitted, f"{figures} of {pool!r}"
            assert figures.queued + figures.admitted == len(pool)


async def stress(operations: int, seed: int, check_every: int) -> World:
    """Do so many operations; return what has happened."""
    world = World(operations, seed, check_every)
    really, groups.machine = groups.machine, lambda: TWO
    try:
        await world.run()
    except BaseException:
        print(f"seed={seed}, after {world.done} operations", file=sys.stderr)
        raise
    finally:
        groups.machine = really
    return world


def main() -> None:
    """Do what the command line says, and print a report."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress.pools", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--loop", choices=LOOPS, default="asyncio")
    parser.add_argument("--check-every", type=int, default=5_000, help="operations between two looks at everything")
    options = parser.parse_args()
    print(f"seed={options.seed} operations={options.operations:,} loop={options.loop}", flush=True)
    reports: list[dict[str, Any]] = []
    begin = time.monotonic()
    with asyncio.Runner(loop_factory=factory_of(options.loop)) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: reports.append(context))
        world = runner.run(stress(options.operations, options.seed, options.check_every))
    spent = time.monotonic() - begin
    print(f"{spent:.1f} s, {spent / options.operations * 1e6:.1f} us for each operation, everything included")
    for title, counter in {"operations": world.counts, "ends": world.ends}.items():
        print(f"{title}: " + ", ".join(f"{name} {count:,}" for name, count in counter.most_common()))
    if reports:
        sys.exit(f"the loop's exception handler was told {len(reports)} times; first: {reports[0]}")


if __name__ == "__main__":
    main()
