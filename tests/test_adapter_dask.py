"""A pool's threadlets on a Dask cluster: real schedulers and workers, in processes of this machine.

Over 400 lines: the tests share one cluster, which takes a second to start, so they are in one file.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.support import eventually
from threadlets import Concurrency, Contract, Pool, Rate, current_threadlet, threadlet
from threadlets.errors import DeadlineExceeded, NodeLost

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("threadlets.adapters.dask")
cluster_nodes, ClusterStatistics = dask.cluster_nodes, dask.ClusterStatistics

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of distributed's own code
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # its sockets are closed when they are collected
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:threadlets.adapters.dask was tested with:RuntimeWarning"),
]
on_each = pytest.mark.parametrize("run", ["asyncio", "hands"], indirect=True)

CLUSTER = """
import logging, sys
from distributed import LocalCluster

if __name__ == "__main__":
    options = {"n_workers": 2, "threads_per_worker": 2, "dashboard_address": ":0"}
    with LocalCluster(**options, silence_logs=logging.CRITICAL) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""

pure = threadlet(contract=Contract(pure=True))


@pure
def double(number: Any) -> Any:
    """Return it twice."""
    return number + number


@pure
def slow(number: int, seconds: float = 0.2) -> int:
    """Take some time."""
    time.sleep(seconds)
    return number


@pure
def fails(number: int) -> int:
    """Fail."""
    raise KeyError(number)


@pure
def unsendable(number: int) -> Any:
    """Return what cannot be pickled."""
    return threading.Lock()


class Odd(Exception):
    """What can be pickled, and not be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)


@pure
def odd(number: int) -> int:
    """Raise that."""
    raise Odd(number, number)


@pure
def process(number: int) -> tuple[int, Any]:
    """Say where it runs, and as whom."""
    from threadlets import current_threadlet

    return os.getpid(), current_threadlet()


@pure
def dies(number: int) -> int:
    """End the process that it runs in."""
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@contextmanager
def cluster_beside(folder: Path) -> Iterator[tuple[str, Any]]:
    """Run a cluster in a process of its own; return where it is, and the process."""
    program = folder / "cluster.py"
    program.write_text(CLUSTER)
    with subprocess.Popen(
        [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as cluster:
        assert cluster.stdin is not None and cluster.stdout is not None
        try:
            yield cluster.stdout.readline().strip(), cluster
        finally:
            cluster.stdin.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a cluster for all tests that do it no harm; return where it is."""
    with cluster_beside(tmp_path_factory.mktemp("cluster")) as (address, _):
        yield address


@asynccontextmanager
async def connected(address: str, **options: Any) -> AsyncIterator[Any]:
    """Return the nodes of a cluster."""
    async with distributed.Client(address, asynchronous=True, timeout=5) as client:  # so long it tries to come back
        nodes = await cluster_nodes(client, **options)
        try:
            yield nodes
        finally:
            nodes.close()


@asynccontextmanager
async def own_cluster(workers: int = 2, **options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Return a cluster of one's own, to do harm to, and its nodes."""
    async with distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        asynchronous=True,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL + 1,
    ) as cluster:
        async with connected(cluster.scheduler_address, **options) as nodes:
            yield cluster, nodes


async def holds(condition: Any) -> None:
    """Wait until a condition holds; fail if it does not in time."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it is Dask that makes it true
            await asyncio.sleep(0.005)


# ------------------------------------------------------------------------------------------------- what runs there


@on_each
def test_calls_run_in_other_processes(run: Run, address: str) -> None:
    """On all nodes or on one, with what they return; nobody there knows of threadlets of this process."""

    async def main() -> None:
        async with connected(address) as nodes:
            assert len(nodes) == 2 and nodes and nodes.slots.limit == 4 * nodes.slots_per_thread
            async with Pool(node=nodes) as pool, Pool(node=nodes[1]) as one:
                assert await asyncio.gather(*[pool.start(double, n) for n in range(50)]) == [2 * n for n in range(50)]
                places = await asyncio.gather(*[pool.start(process, n) for n in range(40)])
                assert {each for _, each in places} == {None} and os.getpid() not in {pid for pid, _ in places}
                places = await asyncio.gather(*[one.start(process, n) for n in range(20)])
                (pid, _), count = Counter(places).most_common(1)[0]  # Dask may steal work from it for idle ones
                assert count > 10 and pid == (await nodes.client.run(os.getpid))[nodes[1].address]
                handle = pool.start(double, "a", priority=3)
                assert handle.node is nodes and await handle == "aa"
            found = nodes.statistics()
            assert found == ClusterStatistics(sent=111, done=111)
            assert double.statistics().in_place == 0

    run(main)


@on_each
def test_failures_come_back(run: Run, address: str) -> None:
    """What a function raises is raised here, with the traceback from there; what cannot come back is an error, too."""

    async def main() -> None:
        async with connected(address) as nodes:
            pool = Pool(node=nodes)
            with pytest.raises(KeyError, match="7") as failed:
                await pool.start(fails, 7)
            assert failed.traceback[-1].name == "fails"
            with pytest.raises(Exception, match=r"serialize|pickle|lock"):
                await pool.start(unsendable, 1)
            with pytest.raises(Exception, match="1"):
                await pool.start(odd, 1)
            beside = [pool.start(double, n) for n in range(20)]
            with pytest.raises(Exception, match=r"serialize|pickle|lock"):
                await pool.start(unsendable, 2)
            assert await asyncio.gather(*beside) == [2 * n for n in range(20)]  # gathered with that
            assert nodes.statistics() == ClusterStatistics(sent=24, done=20, failed=4) and not nodes._live
            await pool.aclose()

    run(main)


@on_each
def test_the_pool_keeps_its_rules(run: Run, address: str) -> None:
    """Throttles, priorities, tags, deadlines and bulk operations are about what is not there yet."""

    async def main() -> None:
        async with connected(address) as nodes:
            limit = Concurrency(2)
            async with Pool(limit, Rate(1_000, burst=100), node=nodes) as pool:
                running = [pool.start(slow, n, 0.5) for n in range(2)]
                late = pool.start(slow, 90, 0.5, deadline=0.05)
                unwanted = [pool.start(slow, 100 + n, tags={"tenant:7"}) for n in range(20)]
                last, first = pool.start(double, 5, priority=5), pool.start(double, 6, priority=6)
                await asyncio.sleep(0)
                assert len(nodes._live) <= 2 and pool.statistics().queued == 23
                assert pool.select(tag="tenant:7").cancel("left") == 20
                first.priority = -1
                with pytest.raises(DeadlineExceeded):
                    await late
                assert all(handle.cancelled() for handle in unwanted)
                ended: list[Any] = []
                for handle in (last, first):
                    handle.add_done_callback(ended.append)
                limit.limit = 1
                assert await asyncio.gather(*running, first, last) == [0, 1, 12, 10]
                assert ended == [first, last]
            assert nodes.statistics().sent == 4

    run(main)


@on_each
def test_slots_hold_work_back(run: Run, address: str) -> None:
    """No more is there than there are slots, and their number may be changed."""

    async def main() -> None:
        async with connected(address, slots_per_thread=1) as nodes:
            nodes.slots.limit = 1
            async with Pool(node=nodes) as pool:
                handles = [pool.start(slow, n, 0.05) for n in range(6)]
                most = 0
                while not handles[2].done():
                    most = max(most, len(nodes._live))
                    await asyncio.sleep(0.005)
                assert most == 1
                nodes.slots.limit = 4
                await holds(lambda: len(nodes._live) == 3)

    run(main)


@on_each
def test_queued_threadlets_are_moved_there(run: Run, address: str) -> None:
    """What waits in a pool of this process goes there, if it is pure; it stays in its pool."""

    async def main() -> None:
        async with connected(address) as nodes:
            limit = Concurrency(1)
            async with Pool(limit) as pool:
                blocker = asyncio.get_running_loop().create_future()

                async def blocks() -> None:
                    await blocker

                pool.start(blocks)
                here, there = pool.start(current_threadlet), [pool.start(process, n) for n in range(4)]
                assert pool.select(state="queued").move(nodes) == 4
                assert all(handle in pool and handle.node is nodes for handle in there)
                blocker.set_result(None)
                assert os.getpid() not in {place[0] for place in await asyncio.gather(*there)}
                assert await here is here

    run(main)


@on_each
def test_data_stays_where_it_is(run: Run, address: str) -> None:
    """An argument that is a Dask future is its value there."""

    async def main() -> None:
        async with connected(address) as nodes:
            data = await nodes.client.scatter("much ")
            async with Pool(node=nodes) as pool:
                assert await pool.start(double, data) == "much much "

    run(main)


@on_each
def test_what_cannot_be_sent(run: Run, address: str) -> None:
    """The call that starts it says so, and names the argument; nothing is queued then, or lost."""
    lock = threading.Lock()

    @pure
    def closes_over() -> bool:
        return lock.locked()

    async def coroutine() -> None:
        """Stay here."""

    async def main() -> None:
        async with connected(address) as nodes:
            async with Pool(node=nodes) as pool:
                with pytest.raises(TypeError, match=r"argument 1 of double\(\) cannot be sent"):
                    pool.start(double, lock)
                with pytest.raises(TypeError, match=r"closes_over\(\) cannot be sent"):
                    pool.start(closes_over)
                with pytest.raises(TypeError, match="pure=True"):
                    pool.start(time.sleep, 0)
                with pytest.raises(TypeError, match="pure=True"):
                    pool.start(coroutine)
                assert not len(pool) and nodes.statistics().sent == 0
                assert await pool.start(double, [lambda: 1]) is not None  # with cloudpickle, functions can

    run(main)


@on_each
def test_arguments_by_name(run: Run, address: str) -> None:
    """They are the function's, whatever they are called; and what is called need not be hashable."""

    class Caller:
        """Something that can be called, and not be hashed."""

        __hash__ = None  # type: ignore[assignment]

        def __call__(self, number: int) -> int:
            return number + 1

    @pure
    def named(number: int, key: str, workers: int = 0, pure: int = 0, priority: int = 0) -> tuple[Any, ...]:
        return number, key, workers, pure, priority

    async def main() -> None:
        call = pure(Caller())
        async with connected(address) as nodes, Pool(node=nodes) as pool:
            kwargs = {"key": "k", "workers": 2, "pure": 3, "priority": 4}
            data = await nodes.client.scatter(5)
            assert await pool.start(partial(named, 1, **kwargs)) == (1, "k", 2, 3, 4)
            assert await pool.start(partial(named, 1, key=data)) == (1, 5, 0, 0, 0)
            assert await asyncio.gather(*[pool.start(call, number) for number in range(5)]) == [1, 2, 3, 4, 5]

    run(main)


@on_each
def test_what_cannot_be_sent_any_more(run: Run, address: str) -> None:
    """An argument that was changed since its call was started fails that call, and none that is sent with it."""

    async def main() -> None:
        async with connected(address) as nodes, Pool(node=nodes) as pool:
            changed: list[Any] = [1]
            handles = [pool.start(double, changed), pool.start(double, [2]), pool.start(double, [3])]
            changed.append(threading.Lock())
            outcomes = await asyncio.gather(*handles, return_exceptions=True)
            assert isinstance(outcomes[0], TypeError) and outcomes[1:] == [[2, 2], [3, 3]]

    run(main)


@on_each
def test_cancelled_there(run: Run, address: str) -> None:
    """The threadlet ends at once; what has not begun there never does; the pool goes on."""

    async def main() -> None:
        async with connected(address) as nodes:
            async with Pool(node=nodes) as pool:
                handles = [pool.start(slow, n, 0.4) for n in range(12)]
                await holds(lambda: len(nodes._live) == 12)
                began = time.monotonic()
                assert pool.cancel("enough") == 12
                outcomes = await asyncio.gather(*handles, return_exceptions=True)
                assert {type(each) for each in outcomes} == {asyncio.CancelledError}
                assert await pool.start(double, 4) == 8
                assert time.monotonic() - began < 20
            assert nodes.statistics().cancelled == 12 and not nodes._live

    run(main)


def test_cancelled_after_any_number_of_rounds(once: Run, address: str) -> None:
    """Whenever a cancel comes, nothing is left over: no future, and no task."""

    async def main() -> None:
        async with connected(address) as nodes, Pool(node=nodes) as pool:
            for rounds in range(30):
                handle = pool.start(double, rounds)
                for _ in range(rounds):
                    await asyncio.sleep(0 if rounds % 2 else 0.0005)
                handle.cancel()
                await asyncio.wait([handle])
            assert await pool.start(double, 4) == 8
            await holds(lambda: not nodes._live and not nodes._fetches and nodes._gathers is None)

    once(main)


# ------------------------------------------------------------------------------------------------------------ faults


def test_a_worker_dies(once: Run, caplog: pytest.LogCaptureFixture) -> None:
    """What it had runs again on another one; that is counted, and logged; and the nodes are those that there are."""

    async def main() -> None:
        async with own_cluster() as (_, nodes):
            first = nodes[0]
            async with Pool(node=nodes) as pool, Pool(node=first) as there:
                pids = await nodes.client.run(os.getpid)
                handles = [pool.start(slow, n, 0.3) for n in range(4)] + [there.start(slow, 9, 0.3)]
                await holds(lambda: len(nodes._live) == 5)
                await asyncio.sleep(0.2)
                os.kill(pids[first.address], signal.SIGKILL)
                assert await asyncio.gather(*handles) == [0, 1, 2, 3, 9]
                assert nodes.statistics().rerun >= 1 and nodes.statistics().done == 5
                await holds(lambda: first not in list(nodes))
                assert await there.start(double, 4) == 8

    once(main)
    assert any("run again elsewhere" in record.getMessage() for record in caplog.records)


def test_a_call_that_ends_its_workers(once: Run) -> None:
    """As often as Dask allows; then it is lost, and the others go on."""

    async def main() -> None:
        with distributed_config(**{"distributed.scheduler.allowed-failures": 0}):
            async with own_cluster() as (_, nodes):
                async with Pool(node=nodes) as pool:
                    with pytest.raises(NodeLost, match=r"dies\(\) has ended the workers"):
                        await pool.start(dies, 1)
                    assert await pool.start(double, 2) == 4
                assert nodes.statistics().lost == 1

    once(main)


def distributed_config(**options: Any) -> Any:
    import dask as dask_itself

    return dask_itself.config.set(options)


@pytest.mark.parametrize("how", ["the scheduler", "the client"])
def test_the_cluster_is_gone(once: Run, how: str, tmp_path: Path) -> None:
    """All that wait get NodeLost, and so does whoever starts something there; nothing hangs, and the pool goes on."""

    async def main(address: str, cluster: Any) -> None:
        async with connected(address) as nodes:
            async with Pool(Concurrency(3), node=nodes) as pool:
                handles = [pool.start(slow, n, 5) for n in range(6)]
                await holds(lambda: len(nodes._live) == 3)
                if how == "the scheduler":
                    cluster.kill()
                else:
                    await nodes.client.close()
                outcomes = await asyncio.wait_for(asyncio.gather(*handles, return_exceptions=True), 20)
                assert [type(each) for each in outcomes] == [NodeLost] * 6
                with pytest.raises(NodeLost, match=r"double\(\).*fallback='local'"):
                    await pool.start(double, 1)
            assert nodes.statistics().lost == 7

    with cluster_beside(tmp_path) as (address, cluster):
        once(main, address, cluster)


def test_the_client_is_closed_after_any_number_of_rounds(once: Run, address: str) -> None:
    """Whenever that comes, a call returns or gets NodeLost; none waits for ever."""

    async def main() -> None:
        outcomes: set[Any] = set()
        for rounds in range(12):
            async with connected(address) as nodes:
                async with Pool(node=nodes) as pool:
                    handles = [pool.start(double, 4) for _ in range(3)]
                    for _ in range(rounds):
                        await asyncio.sleep(0 if rounds < 8 else 0.002)
                    await nodes.client.close()
                    found = await asyncio.wait_for(asyncio.gather(*handles, return_exceptions=True), 20)
                outcomes |= {each if isinstance(each, int) else type(each) for each in found}
        assert NodeLost in outcomes and outcomes <= {8, NodeLost}

    once(main)


def test_a_result_that_is_lost_on_its_way(once: Run, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the connection raises while a result is fetched is no error of the function."""

    async def main() -> None:
        async with connected(address) as nodes, connected(address, fallback="local") as others:

            async def breaks(*_: Any, **__: Any) -> None:
                raise distributed.comm.CommClosedError("reset by peer")

            monkeypatch.setattr(nodes.client, "_gather_remote", breaks)
            monkeypatch.setattr(others.client, "_gather_remote", breaks)
            async with Pool(node=nodes) as pool, Pool(node=others) as local:
                with pytest.raises(NodeLost, match="reset by peer"):
                    await pool.start(double, 1)
                assert await local.start(double, 1) == 2
            assert nodes.statistics().lost == 1 and others.statistics().fallen_back == 1

    once(main)


def test_a_task_that_someone_else_cancels(once: Run, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is lost, and those that are gathered together with it are not."""

    async def main() -> None:
        async with connected(address) as nodes:
            gather, cancelled = nodes.client.gather, []

            async def cancels_one(futures: list[Any]) -> Any:
                if len(futures) > 1:
                    cancelled.append(futures[0])
                    await nodes.client.cancel(futures[:1])
                return await gather(futures)

            monkeypatch.setattr(nodes.client, "gather", cancels_one)
            async with Pool(node=nodes) as pool:
                handles = [pool.start(double, n) for n in range(60)]
                outcomes = await asyncio.gather(*handles, return_exceptions=True)
            lost = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, NodeLost)]
            assert cancelled and len(lost) == len(cancelled)
            assert all(outcome == 2 * n for n, outcome in enumerate(outcomes) if n not in lost)

    once(main)


def test_a_result_that_comes_late_holds_up_no_other(once: Run, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose result has to be computed again is waited for alone."""

    async def main() -> None:
        async with connected(address) as nodes:
            gather, again, asked = nodes.client.gather, asyncio.Event(), asyncio.Event()

            async def first_is_late(futures: list[Any]) -> Any:
                if not asked.is_set():
                    asked.set()
                    await again.wait()
                return await gather(futures)

            monkeypatch.setattr(nodes.client, "gather", first_is_late)
            async with Pool(node=nodes) as pool:
                late = pool.start(double, 1)
                await asked.wait()
                assert await asyncio.wait_for(pool.start(double, 2), 20) == 4 and not late.done()
                again.set()
                assert await late == 2

    once(main)


def test_the_cluster_is_gone_and_there_is_a_fallback(
    once: Run, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """What was there, and what comes, runs in worker threads here; that is logged once."""

    async def main(address: str, cluster: Any) -> None:
        async with connected(address, fallback="local") as nodes:
            data = await nodes.client.scatter(1)
            async with Pool(node=nodes) as pool:
                handles = [pool.start(slow, n, 0.3) for n in range(3)]
                await holds(lambda: len(nodes._live) == 3)
                cluster.kill()
                assert await asyncio.wait_for(asyncio.gather(*handles), 20) == [0, 1, 2]
                place, _ = await pool.start(process, 1)
                assert place == os.getpid()
                with pytest.raises(KeyError):
                    await pool.start(fails, 1)
                for argument in (data, [data]):
                    with pytest.raises(NodeLost, match="an argument"):
                        await pool.start(double, argument)
            assert nodes.statistics().fallen_back == 5

    with cluster_beside(tmp_path) as (address, cluster):
        once(main, address, cluster)
    assert sum("is gone" in record.getMessage() for record in caplog.records) == 1


def test_two_watch_the_same_cluster(once: Run) -> None:
    """Each counts what it has sent; and one that is closed takes nothing from the other."""

    async def main() -> None:
        async with own_cluster() as (_, nodes):
            others, third = await cluster_nodes(nodes.client), await cluster_nodes(nodes.client)
            third.close()
            victim = nodes[0].address
            there = next(node for node in others if node.address == victim)
            async with Pool(node=nodes[0]) as pool, Pool(node=there) as second:
                pids = await nodes.client.run(os.getpid)
                handles = [each.start(slow, n, 0.5) for each in (pool, second) for n in range(4)]
                await holds(lambda: len(nodes._live) == len(others._live) == 4)
                await asyncio.sleep(0.2)
                os.kill(pids[victim], signal.SIGKILL)
                await asyncio.gather(*handles)
                assert nodes.statistics().rerun >= 1 and others.statistics().rerun >= 1
            others.close()

    once(main)


def test_workers_come_and_go(once: Run) -> None:
    """The slots follow them."""

    async def main() -> None:
        async with own_cluster(1) as (cluster, nodes):
            assert (len(nodes), nodes.slots.limit) == (1, nodes.slots_per_thread)
            cluster.scale(2)
            await holds(lambda: len(nodes) == 2)
            assert nodes.slots.limit == 2 * nodes.slots_per_thread
            cluster.scale(1)
            await holds(lambda: len(nodes) == 1)
            assert nodes.slots.limit == nodes.slots_per_thread and "1 workers" in repr(nodes)

    once(main)


# ---------------------------------------------------------------------------------------------------------- mistakes


def test_mistakes(once: Run, address: str) -> None:
    """A client of another kind, loop or state, and options that are none, are refused with what to do instead."""

    async def main() -> None:
        with pytest.raises(TypeError, match=r"expected a distributed\.Client"):
            await cluster_nodes(address)
        blocking = await asyncio.to_thread(distributed.Client, address)
        try:
            with pytest.raises(ValueError, match="asynchronous=True"):
                await cluster_nodes(blocking)
        finally:
            await asyncio.to_thread(blocking.close)
        async with distributed.Client(address, asynchronous=True) as client:
            for options, error in (
                ({"slots_per_thread": 0}, ValueError),
                ({"slots_per_thread": 1.5}, TypeError),
                ({"slots_per_thread": True}, TypeError),
                ({"fallback": "elsewhere"}, ValueError),
            ):
                with pytest.raises(error):
                    await cluster_nodes(client, **options)

            def elsewhere() -> None:
                with pytest.raises(ValueError, match="none of this event loop"):
                    asyncio.run(cluster_nodes(client))

            await asyncio.to_thread(elsewhere)
        with pytest.raises(RuntimeError, match="is closed"):
            await cluster_nodes(client)

    once(main)


def test_a_version_that_was_not_tested(once: Run, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said once, and tried."""
    monkeypatch.setattr(dask, "VERSION", "2099.1.0")

    async def main() -> None:
        with pytest.warns(RuntimeWarning, match=r"2099\.1\.0"):
            async with connected(address) as nodes:
                assert len(nodes) == 2

    once(main)


def test_without_dask() -> None:
    """The error names what to install."""
    program = "import sys; sys.modules['distributed'] = None; import threadlets.adapters.dask"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "pip install 'threadlets[dask]'" in done.stderr


def test_no_process_is_left() -> None:
    """Workers that were killed, or whose cluster is gone, have ended."""
    tasks = Path("/proc/self/task")

    def children() -> list[str]:
        numbers = " ".join(children.read_text() for children in tasks.glob("*/children")).split()
        return [number for number in numbers if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes()]

    eventually(lambda: not children())
