"""Rounds of the fault harness: what is started, who waits for it, what hits it from outside, and how it ends."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from tests.stress.injector import MOMENT, PATIENCE, Injected, Job
from tests.stress.judgement import expect, is_expected, judge, leaves, open_descriptors, settle, until
from tests.stress.vaults import Bank, Shop, Vault
from tests.stress.workload import KINDS, spend, spend_in_task
from threadlets import Concurrency, PerTag, Pool, Threadlet
from threadlets.errors import PoolClosed
from threadlets.pools import default_pool

CROWD = 40  # arbitrary: how many are unfinished; fewer than there may be workers, for some wait there for others
DEEP = 4  # how far they nest
TENANTS = [f"tenant:{number}" for number in range(12)]
HOSTS = [f"host:{number}" for number in range(4)]
WAYS = ("left", "raised", "cancelled", "closed", "killed")  # how a round ends
OUTER, PART = 0, 1  # places in `pools`
ANY = list(KINDS), [kind.weight for kind in KINDS.values()]
DEEPEST = list(KINDS), [0 if kind.goes_deeper else kind.weight for kind in KINDS.values()]

# How often things happen between two starts; arbitrary.
ALONE = 0.03  # a task, or a thread, does what threadlets do
KILLS = 0.05  # a wait is killed from outside
CLOSES = 0.002  # a part of a pool is closed


class World:
    """One event loop, what was started on it, and what has become of that. Thread: loop, unless it says otherwise."""

    def __init__(self, seed: int, folder: str) -> None:
        self.seed, self.folder, self.address = seed, folder, f"{folder}/server"
        self.dice = random.Random(seed)
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda _, report: self._hear(report))
        self.bank = Bank(f"{folder}/bank.db", 0.001)
        self.started = self.number = self.rounds = 0
        self.counts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()  # where those were that were cancelled
        self.pairs: Counter[tuple[str, str]] = Counter()  # points, and the faults that were met there
        self.reports: list[dict[str, Any]] = []
        self.warnings: list[str] = []  # any thread appends to these three
        self.violations: list[str] = []
        self.outside: list[int] = []  # one for each thread of the executor that is at work
        self._told: list[str] = []
        self._served: set[asyncio.Task[Any]] = set()
        self._open()

    def _hear(self, report: dict[str, Any]) -> None:
        if not is_expected(report):
            self.reports.append(report)

    # ------------------------------------------------------------------------------------ what jobs ask for; any thread

    def tell(self, what: str) -> None:
        """Count something."""
        self._told.append(what)

    def violate(self, what: str) -> None:
        """Note that a law was broken."""
        self.violations.append(what)

    def any(self, dice: random.Random) -> Threadlet[Any] | None:
        """Return one that has not ended, most of the time."""
        live = self.live
        return dice.choice(live) if live else None

    def on_loop(self, action: Callable[..., object], *args: Any) -> None:
        """Have something done on the loop."""
        self.loop.call_soon_threadsafe(action, *args)

    def paths(self, job: Job) -> list[str]:
        """Return where a job writes its two files."""
        return [f"{self.folder}/{job.number}.{side}" for side in ("left", "right")]

    def vaults_of(self, job: Job) -> list[Vault]:
        """Return one vault, or two, in any order."""
        return job.dice.sample(self.vaults, job.dice.choice([1, 1, 1, 2]))

    # ------------------------------------------------------------------------------------------- faults that hit others

    def cancels(self, dice: random.Random) -> None:
        """Cancel those of one tag; seldom a whole pool."""
        pool = dice.choice(self.pools)
        if dice.random() < 0.05:
            pool.cancel("all")
        else:
            pool.select(tag=dice.choice(TENANTS)).cancel("in bulk")

    def kills(self, dice: random.Random) -> None:
        """Cancel what waits for a threadlet: a task, a future of the executor."""
        if self.waiters and dice.choice(self.waiters[-CROWD:]).cancel("killed"):
            self.tell("waits killed")

    def moves(self, dice: random.Random) -> None:
        """Move what is queued in one pool to a later one: to an earlier one would make circles of pools."""
        source, target = sorted(dice.sample(range(len(self.pools)), 2))
        with suppress(PoolClosed):
            found = self.pools[source].select(tag=dice.choice(TENANTS), state="queued")
            for _ in range(found.move(self.pools[target])):
                self.tell("moved")

    def ranks(self, dice: random.Random) -> None:
        """Change a priority."""
        handle = self.any(dice)
        if handle is not None:
            handle.priority = dice.choice([-1, 0, 1, 2, dice.random()])

    # ------------------------------------------------------------------------------------------------------------ start

    def _open(self) -> None:
        whole, part, few, hosts = Concurrency(12), Concurrency(4), Concurrency(3), PerTag("host:", Concurrency(2))
        outer = Pool(whole, name="outer")
        small = Pool(few, order="deadline", name="small")
        self.pools = [outer, Pool(part, hosts, parent=outer, name="part"), small, Pool(name="free")]
        self.all_pools = [*self.pools, default_pool(self.loop)]
        self.limits = [whole, part, few, *(hosts[host] for host in HOSTS)]
        self.vaults = [Vault("hasty", 0.0), Vault("quick", 0.0005), Vault("calm", 0.005)]
        self.shop = Shop()
        self.forget()

    def forget(self) -> None:
        """Forget what a round has started, once that was judged."""
        self.counts.update(self._told)
        self._told.clear()
        self._shared: dict[str, Job] = {}
        self.jobs: list[Job] = []
        self.live: list[Threadlet[Any]] = []
        self.waiters: list[asyncio.Future[Any]] = []

    def begin(self, parent: Job | None = None, name: str = "", *args: Any) -> Threadlet[int] | None:
        """Start one more; None if its pool is closed."""
        dice = self.dice if parent is None else parent.dice
        depth = 0 if parent is None else parent.depth + 1
        last = len(self.pools) - 1  # nothing holds anybody up there
        if name:
            place = last  # whoever starts this one waits for it, and nobody can see that
        else:
            (name,) = dice.choices(*(DEEPEST if depth >= DEEP else ANY))
            place = dice.randrange(len(self.pools)) if parent is None else dice.choice([parent.place, last])
        job = self._shared.get(name)
        if job is None or dice.random() < 0.2 or job.handles[-1].done():
            self.number += 1
            job = Job(self, self.number, name, place, depth)
            self.jobs.append(job)
        self.started += 1
        try:
            handle = self.pools[place].start(
                KINDS[name].function,
                job,
                *args,
                priority=dice.choice([0, 1, 2, dice.random()]),
                tags={dice.choice(TENANTS), *dice.choices(HOSTS, k=dice.choice([0, 1]))},
                deadline=dice.choice([None] * 20 + [0.0005, 0.01, 100]),
            )
        except PoolClosed:
            self.ends["refused"] += 1
            return None
        job.handles.append(handle)
        self.live.append(handle)
        if name.startswith("pure"):
            self._shared[name] = job
        return handle

    def _begin_alone(self) -> None:
        self.number += 1
        job = Job(self, self.number, self.dice.choice(["task", "thread"]), 0, 0)
        job.is_alone = True
        self.jobs.append(job)
        if job.kind == "task":
            self.waiters.append(asyncio.create_task(spend_in_task(job)))
        else:
            self._go_outside(spend, job)

    def _go_outside(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function on a thread of the executor; who waits for it there may be killed, and it goes on."""

        def call() -> Any:
            self.outside.append(threading.get_ident())
            try:
                return function(*args)
            finally:
                self.outside.pop()

        self.waiters.append(self.loop.run_in_executor(None, call))

    def _wait_for(self, handle: Threadlet[Any]) -> None:
        """Have somebody wait for a threadlet, who may be killed."""
        way = self.dice.randrange(10)
        if way < 3:
            self.waiters.append(asyncio.create_task(_await(handle)))
        elif way == 3:
            self.waiters.append(asyncio.create_task(asyncio.wait_for(handle, self.dice.choice([MOMENT, 0.01]))))
        elif way == 4:
            self.waiters.append(asyncio.shield(handle))
        elif way == 5:
            self.waiters.append(asyncio.gather(handle, return_exceptions=True))
        elif way == 6 and len(self.outside) < 3:
            self._go_outside(lambda: asyncio.run_coroutine_threadsafe(_await(handle), self.loop).result())

    def _close_part(self) -> None:
        """Close a part of a pool, with all that is in it, and go on with another one."""
        part = self.pools[PART]
        throttles = [Concurrency(4), PerTag("host:", Concurrency(2))]
        self.limits.append(throttles[0])
        self.pools[PART] = Pool(*throttles, parent=self.pools[OUTER], name="part")
        self.all_pools.append(self.pools[PART])
        self.waiters.append(asyncio.create_task(part.aclose(finish=self.dice.choice([0, 0.001]))))
        self.tell("parts closed")

    # ---------------------------------------------------------------------------------------------------------- a round

    async def play(self, count: int) -> None:
        """Do one round: start so many, let them end, and judge.

        Raises:
            AssertionError: If anything is not as it should be.
        """
        self.rounds += 1
        before = open_descriptors()
        self._open()
        way = self.dice.choice(WAYS)
        server = await asyncio.start_unix_server(self._serve, self.address)
        feeding = asyncio.create_task(self._feed())
        body = asyncio.create_task(self._body(self.started + count, way))
        await until(self, body.done, lambda: f"the scope does not end, {way}")
        for leaf in leaves(None if body.cancelled() else body.exception()):
            expect(leaf, "a scope")
        self.counts[f"scopes {way}"] += 1
        if way == "cancelled":
            for pool in self.pools:
                pool.cancel("all")
        await settle(self)
        feeding.cancel()
        await asyncio.wait([feeding])
        for pool in self.pools:
            await pool.aclose()
        server.close()
        await server.wait_closed()
        await until(self, lambda: not self._served, lambda: "the server has work left")
        await judge(self, before)

    async def _body(self, until: int, way: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        async with self.pools[OUTER]:
            while self.started < until and not self.violations:
                await self._step()
            if way == "raised":
                raise Injected("in the body of a scope")
            if way == "cancelled":
                self.pools[OUTER].cancel("all")
            if way == "closed":
                await self.pools[OUTER].aclose(finish=self.dice.choice([0, 0.001]))
            if way == "killed":
                task.cancel("killed")

    async def _step(self) -> None:
        if self.dice.random() < ALONE:
            self._begin_alone()
        elif (handle := self.begin()) is not None:
            self._wait_for(handle)
        if self.dice.random() < KILLS:
            self.kills(self.dice)
        if self.dice.random() < CLOSES:
            self._close_part()
        if self.dice.random() < 0.3:
            await asyncio.sleep(0)
        end = monotonic() + PATIENCE
        crowd = CROWD
        while len(self.live) > crowd:
            crowd = CROWD // 2
            await asyncio.sleep(0 if self.dice.random() < 0.5 else 0.0002)
            self.live = [handle for handle in self.live if not handle.done()]
            if monotonic() > end:
                await until(self, lambda: False, lambda: "they do not end")

    async def _feed(self) -> None:
        """Let nobody wait for ever in the shop; but if there are goods, whoever waits for them was told."""
        while True:
            await asyncio.sleep(0.003)
            self.shop.ring()
            async with self.shop.shelf:
                if not self.shop.goods:
                    self.shop.bring(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._served.add(task)
        try:
            while word := await reader.readline():
                writer.write(word)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            self._served.discard(task)


async def _await(handle: Threadlet[Any]) -> Any:
    return await handle
