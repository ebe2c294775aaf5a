"""Random trees of waits under small limits: everything ends, no limit is exceeded, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Run
from tests.test_lending import PATIENCE, Meter, settled
from tests.waitings import STARTING, WAYS, all_of
from tests.workbench import ON_WORKER, rounds
from threadlets import Adaptive, Concurrency, PerTag, Pool, Threadlet, call_async, threadlet

ALL_WAYS = [*WAYS, *STARTING]
TAG = {"host:a"}
TREES = 60  # for each seed

POOLS: dict[str, Callable[[], list[Pool]]] = {
    "one place": lambda: [Pool(Concurrency(1))],
    "two places": lambda: [Pool(Concurrency(2))],
    "adaptive": lambda: [Pool(Adaptive(initial=1, most=1))],
    "per tag": lambda: [Pool(PerTag("host:", Concurrency(1)))],
    "one throttle": lambda: _two_of(Concurrency(1)),
    "part": lambda: _part(Pool(Concurrency(2))),
    "free": lambda: [Pool(Concurrency(1)), Pool()],
}


def _two_of(throttle: Concurrency) -> list[Pool]:
    return [Pool(throttle), Pool(throttle)]


def _part(whole: Pool) -> list[Pool]:
    return [whole, Pool(Concurrency(1), parent=whole)]


class Forest:
    """Makes random trees and lets them run."""

    def __init__(self, chance: random.Random, pools: list[Pool], disturbed: bool) -> None:
        self.chance = chance
        self.pools = pools
        self.disturbed = disturbed
        self.meters = {pool: Meter() for pool in pools}
        self.worker = threadlet(contract=ON_WORKER)(self.run_on_worker)
        self.nodes = 0

    def plan(self, depth: int) -> dict[str, Any]:
        """Decide on one threadlet and on all below it."""
        chance = self.chance
        self.nodes += 1
        width = chance.choice([0, 1, 1, 2, 3]) if depth and self.nodes < 25 else 0
        return {
            "way": chance.choice(ALL_WAYS),
            "pool": chance.choice(self.pools),
            "worker": chance.random() < 0.2,
            "before": chance.randint(0, 2),
            "after": chance.randint(0, 2),
            "timeout": chance.choice([None, None, 0.0, 0.001, 0.002]) if self.disturbed else None,
            "fails": self.disturbed and chance.random() < 0.05,
            "branches": [self.plan(depth - 1) for _ in range(width)],
        }

    def start(self, plan: dict[str, Any]) -> Threadlet[int]:
        function = self.worker if plan["worker"] else self.run
        pool: Pool = plan["pool"]
        return pool.start(function, plan, tags=TAG)

    async def run(self, plan: dict[str, Any]) -> int:
        """Work, wait for the branches, work again."""
        meter = self.meters[plan["pool"]]
        with meter:
            await rounds(plan["before"])
        below = await self.wait(plan)
        if not self.disturbed:
            with meter:
                await rounds(plan["after"])
        return 1 + below

    def run_on_worker(self, plan: dict[str, Any]) -> int:
        """Do the same on a thread."""
        meter = self.meters[plan["pool"]]
        with meter:
            pass
        below = call_async(self.wait, plan)
        with meter:
            return 1 + below

    async def wait(self, plan: dict[str, Any]) -> int:
        """Wait for the branches of a threadlet, as planned; return how many there are below."""
        if plan["fails"]:
            raise ZeroDivisionError
        branches = plan["branches"]
        if not branches:
            return 0
        try:
            async with asyncio.timeout(plan["timeout"]):
                one_pool = {branch["pool"] for branch in branches}
                one_kind = {branch["worker"] for branch in branches}
                if len(one_pool) == len(one_kind) == 1:
                    function = self.worker if one_kind.pop() else self.run
                    return sum(await all_of(plan["way"], one_pool.pop(), function, branches, tags=TAG))
                handles = [self.start(branch) for branch in branches]
                return sum(await WAYS[plan["way"] if plan["way"] in WAYS else "gather"](handles))
        except TimeoutError:
            return 0


def size(plan: dict[str, Any]) -> int:
    return 1 + sum(map(size, plan["branches"]))


@pytest.mark.parametrize("pools", POOLS)
def test_random_trees_end(run: Run, pools: str) -> None:
    """Trees of every shape, with every way of waiting at every node, end in pools of one or two places."""

    async def main() -> None:
        for seed in range(TREES):
            forest = Forest(random.Random(f"{pools} {seed}"), POOLS[pools](), disturbed=False)
            plan = forest.plan(4)
            handle = forest.start(plan)
            await asyncio.wait({asyncio.ensure_future(handle)}, timeout=PATIENCE)
            assert handle.done(), f"seed {seed}: a deadlock"
            assert handle.result() == size(plan), seed
            limit = 2 if pools in ("two places", "part") else 1
            for pool, meter in forest.meters.items():
                assert meter.most <= limit or not pool._throttles, f"seed {seed}: {meter.most} at work"
            if pools == "one throttle":
                assert sum(meter.now for meter in forest.meters.values()) == 0
            await settled(*forest.pools)

    run(main)


@pytest.mark.parametrize("pools", POOLS)
def test_random_trees_that_are_disturbed_end(run: Run, pools: str) -> None:
    """Cancels, timeouts, failures, moves and changes of priority anywhere, at any moment: everything still ends."""

    async def main() -> None:
        for seed in range(TREES):
            chance = random.Random(f"disturbed {pools} {seed}")
            forest = Forest(chance, POOLS[pools](), disturbed=True)
            handles = [forest.start(forest.plan(3)) for _ in range(2)]
            for _ in range(chance.randint(1, 12)):
                await rounds(chance.randint(0, 4))
                for pool in forest.pools:
                    pool._check()
                everyone = [handle for pool in forest.pools for handle in pool]
                if everyone:
                    disturb(chance, chance.choice(everyone), forest.pools)
                for pool in forest.pools:
                    pool._check()
            await asyncio.wait({asyncio.ensure_future(handle) for handle in handles}, timeout=PATIENCE)
            assert all(handle.done() for handle in handles), f"seed {seed}: a deadlock"
            del handles
            for pool in forest.pools:  # what was shielded goes on
                pool.cancel()
            async with asyncio.timeout(PATIENCE):
                await settled(*forest.pools)

    run(main)
    run.told = list  # type: ignore  # nobody waited for some failures


def disturb(chance: random.Random, handle: Threadlet[Any], pools: list[Pool]) -> None:
    action = chance.choice(["cancel", "cancel", "priority", "deadline", "move", "tags"])
    if action == "cancel":
        handle.cancel("disturbed")
    elif action == "priority":
        handle.priority = chance.randint(-3, 3)
    elif action == "deadline":
        handle.deadline = chance.choice([0.0, 0.001, 3600, None])
    elif action == "tags":
        handle.tags = chance.choice([set(), TAG, {"other"}])  # another host is another limit: see lendings.py
    elif handle.pool is not None and not handle.pool._closed:
        target = chance.choice(pools)
        handle.pool.select(where=lambda each: each is handle).move(target)
