"""Worker groups of nodes, in use: by contracts, by pools, and by threadlets that are moved to a node.

A second file of tests for ``threadlets/groups.py``; ``test_groups.py`` has the rest, and the machines.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.sysfs import two_nodes
from tests.test_groups import of_two  # noqa: F401 - a fixture
from tests.workbench import ON_WORKER, Gate, forever, until
from threadlets import Concurrency, Contract, Pool, current_threadlet, groups, threadlet
from threadlets.groups import workers_at
from threadlets.nodes import Machine
from threadlets.workers import serving_group, shared_group


@threadlet(contract=ON_WORKER)
def where(value: Any = None) -> tuple[Any, Any]:
    """Return which group runs this, and which node the threadlet is at."""
    return serving_group(), current_threadlet().node  # type: ignore[union-attr]


@threadlet(contract=Contract(blocks="always", near="path"))
def read(mode: str, path: Any = None, **options: Any) -> tuple[Any, Any]:
    """Return where it runs."""
    return where.function()


def test_near_its_argument(run: Run, two: Machine, tmp_path: Path) -> None:
    """A call runs on the node that its argument is on; where that is not known, on any worker."""

    class Folder:
        @threadlet(contract=Contract(blocks="always", placement="near"))
        def read(self, name: str, path: Any) -> Any:
            return where.function()

    async def main() -> None:
        second = two.nodes[1]
        near, anywhere = (workers_at(second), second), (shared_group(), None)
        assert await read("r", tmp_path) == await read("r", path=str(tmp_path)) == near
        assert await read("r") == await read("r", "/nowhere") == await read("r", path=None) == anywhere
        assert await Folder().read("a", tmp_path) == near and await Folder().read("a", str(tmp_path)) == anywhere
        async with Pool(Concurrency(1)) as pool:
            first, handle = pool.start(threadlet(forever)), pool.start(read, "r", tmp_path)
            assert handle.node is None  # it is looked up when it goes there
            first.cancel()
            assert await handle == near and handle.node is None
            assert not pool._home.sites
            pool._check()

    run(main)


def test_a_pool_at_a_node(run: Run, two: Machine, tmp_path: Path) -> None:
    """What does not run in place goes to the pool's node; coroutines, and what has a thread of its own, do not."""

    async def main() -> None:
        first = two.nodes[0]
        here = (workers_at(first), first)
        one = threadlet(contract=Contract(affinity="one"))(where.function)
        in_place = threadlet(contract=Contract(blocks="never"))(where.function)
        async with Pool(node=first) as pool, Pool(parent=pool) as part:
            assert pool.node is part.node is first
            assert await pool.start(where) == await part.start(where) == await where.using(pool=pool)() == here
            assert await pool.start(read, "r", tmp_path) == here  # who starts it knows better
            assert await pool.start(one) == (one.workers, None)
            assert await pool.start(in_place) == (None, first)
            waits = pool.start(threadlet(forever))
            assert waits.node is None
            waits.cancel()
            async with Pool(parent=pool, node=two.nodes[1]) as other:
                assert await other.start(where) == (workers_at(two.nodes[1]), two.nodes[1])
            assert not pool._home.sites

    run(main)


def test_those_that_wait_at_a_node(run: Run, two: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are cancelled, put in order, shed and moved where they wait."""

    async def main() -> None:
        second = two.nodes[1]
        group = workers_at(second)
        group.limit = 1
        gate, ran = Gate(), list[int]()
        hold, note = threadlet(contract=ON_WORKER)(gate), threadlet(contract=ON_WORKER)(ran.append)
        async with Pool(node=second, capacity=6, overflow="shed") as pool, Pool() as free:
            held = pool.start(hold)
            gate.wait_arrived()
            handles = [pool.start(note, number, priority=5) for number in range(5)]
            assert group.waiting == 5 and {handle.node for handle in handles} == {second}
            assert handles[0].cancel() and handles[0].cancelled() and group.waiting == 4
            handles[4].priority = 1
            assert pool.select(where=lambda each: each is handles[3]).move(free) == 1
            await handles[3]
            assert ran == [3] and handles[3].node is None
            pool.start(note, 6, priority=0), pool.start(note, 7, priority=0), pool.start(note, 8, priority=0)
            assert handles[2].done() and group.waiting == 5
            pool._check()
            gate.open()
            await pool.drain()
            assert ran == [3, 6, 7, 8, 4, 1] and await held is None
            assert not pool._home.sites
        group.limit = 64

    run(main)


def test_moved_to_a_node(run: Run, two: Machine, tmp_path: Path) -> None:
    """Those that wait for a worker go over; those in the pool's queue stay in it, and run there, also if in place."""

    async def main() -> None:
        first, second = two.nodes
        here, there = workers_at(first), workers_at(second)
        here.limit = 1
        gate = Gate()
        in_place = threadlet(contract=Contract(blocks="never"))(where.function)
        one = threadlet(contract=Contract(affinity="one"))(where.function)
        pure = threadlet(contract=Contract(pure=True, blocks="never"))(where.function)
        held = Pool(node=first).start(threadlet(contract=ON_WORKER)(gate))
        gate.wait_arrived()
        async with Pool(node=first) as pool, Pool(Concurrency(1), node=first) as narrow:
            waiting = [pool.start(where) for _ in range(3)]
            blocker = narrow.start(threadlet(forever))
            equal = [narrow.start(pure, 1), narrow.start(pure, 1)]
            queued = [narrow.start(where), narrow.start(in_place), *equal]
            others = [narrow.start(one), narrow.start(threadlet(forever))]
            assert pool.select().move(second) == 3 and here.waiting == 0
            assert narrow.select().move(second) == 4 and narrow.statistics().queued == 6
            assert {handle.node for handle in [*waiting, *queued]} == {second} and others[0].node is None
            narrow._check()
            others[1].cancel()
            blocker.cancel()
            assert [await handle for handle in [*waiting, *queued]] == [(there, second)] * 7
            assert await others[0] == (one.workers, None)
            assert pool.select().move(first) == 0
            gate.open()
            await held
            assert not pool._home.sites
        here.limit = 64

    run(main)


def test_moved_where_there_is_one_node(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They count, say so, and run as they would have."""
    node = two_nodes(tmp_path).read(0).nodes[1]
    here = two_nodes(tmp_path / "again" if (tmp_path / "again").mkdir() is None else tmp_path).read(0)
    monkeypatch.setattr(groups, "machine", lambda: here)

    async def main() -> None:
        in_place = threadlet(contract=Contract(blocks="never"))(where.function)
        async with Pool(Concurrency(1)) as pool:
            blocker = pool.start(threadlet(forever))
            handles = [pool.start(where), pool.start(in_place)]
            assert pool.select().move(node) == 2 and {handle.node for handle in handles} == {node}
            blocker.cancel()
            assert [await handle for handle in handles] == [(shared_group(), node), (None, node)]
            assert not pool._home.sites

    run(main)


def test_a_worker_was_quicker(run: Run, two: Machine) -> None:
    """What a worker has taken stays there, and is not counted."""

    async def main() -> None:
        first, second = two.nodes
        gate = Gate()
        async with Pool(node=first) as pool:
            handle = pool.start(threadlet(contract=ON_WORKER)(lambda: gate(where.function())))
            gate.wait_arrived()
            assert pool.select().move(second) == 0 and handle.node is first
            gate.open()
            assert await handle == (workers_at(first), first)

    run(main)


def test_no_thread_at_the_node(run: Run, two: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system refuses a thread to the node's workers, the threadlet fails with that."""

    async def main() -> None:
        first, second = two.nodes
        workers_at(first).limit = 1
        gate = Gate()
        held = Pool(node=first).start(threadlet(contract=ON_WORKER)(gate))
        gate.wait_arrived()
        async with Pool(node=first, on_failure="collect") as pool:
            handle = pool.start(where)
            monkeypatch.setattr(threading.Thread, "start", refuse)
            assert pool.select().move(second) == 1
            with pytest.raises(RuntimeError, match="no more"):
                await handle
            monkeypatch.undo()
            gate.open()
            await held
            assert not pool._home.sites

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("no more")

    run(main)


def test_abandoned_at_a_node(run: Run, two: Machine) -> None:
    """One that is abandoned is forgotten at once, and its thread goes on."""

    async def main() -> None:
        gate = Gate()
        abandoned = threadlet(contract=Contract(blocks="always", cancel="abandon"))(gate)
        async with Pool(node=two.nodes[0]) as pool:
            handle = pool.start(abandoned)
            gate.wait_arrived()
            assert pool._home.sites
            handle.cancel()
            assert handle.cancelled() and not pool._home.sites
            pool._check()
            gate.open()
            await until(lambda: not pool.statistics().abandoned)

    run(main)
