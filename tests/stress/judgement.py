"""What must be true after each round of the fault harness, when all that was started has ended."""

from __future__ import annotations

import asyncio
import gc
import os
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from tests.stress.injector import PATIENCE, Injected, Job
from tests.stress.vaults import ROWS
from tests.stress.workload import LINE
from threadlets import cancellation, cleanups, deadlocks, descriptors, surroundings, waits
from threadlets.errors import Deadlock, PoolClosed
from threadlets.pools import default_pool
from threadlets.whereabouts import stack_of
from threadlets.workers import named_group, shared_group

if TYPE_CHECKING:
    from tests.stress.world import World

EXPECTED = (Injected, TimeoutError, Deadlock, PoolClosed, ConnectionError)  # what a job may fail with
CLEANS = "%r has been cleaning up for"  # what the log may say


async def until(world: World, condition: Callable[[], object], what: Callable[[], str]) -> None:
    """Wait until a condition holds; fail if it does not in time, and say who is left.

    Raises:
        AssertionError: With what was waited for.
    """
    end = monotonic() + PATIENCE
    while not condition():
        if monotonic() > end:
            left = [handle for pool in world.all_pools for handle in pool]
            places = [f"{handle!r}, {cancellation.why(handle)}\n{''.join(stack_of(handle))}" for handle in left[:20]]
            raise AssertionError(f"{what()}; {len(left)} are left: {''.join(places)}; {world.violations[:3]}")
        await asyncio.sleep(0.0005)


async def settle(world: World) -> None:
    """Wait until all that a round has started has ended, wherever it is."""
    await until(world, lambda: not any(map(len, world.all_pools)), lambda: "they do not end")
    await until(world, lambda: not any(pool._abandoned for pool in world.all_pools), lambda: "those abandoned do not")
    await until(world, lambda: all(waiter.done() for waiter in world.waiters), lambda: "who waits for them does not")
    await until(world, lambda: not world.outside, lambda: "threads of the executor do not")


async def judge(world: World, before: dict[str, str]) -> None:
    """See that all is as it should be, and count what was done.

    Raises:
        AssertionError: If it is not.
    """
    assert not world.violations, world.violations[:5]
    ends = world.ends.copy()
    for job in world.jobs:
        _judge_job(world, job)
    for waiter in world.waiters:
        for leaf in () if waiter.cancelled() else leaves(waiter.exception()):
            assert isinstance(leaf, (*EXPECTED, CancelledError)), f"{waiter!r} has failed"
    told = [pool.statistics() for pool in world.pools if pool._parent is None]
    for word in ("done", "failed", "cancelled"):
        counted, ended = sum(getattr(each, word) for each in told), world.ends[word] - ends[word]
        assert counted == ended, f"the pools have counted {counted} as {word}, and {ended} ended so; {world.ends}"
    await _judge_locks(world)
    _judge_rows(world)
    world.shop.check()
    for pool in world.all_pools:
        pool._check()
    for limit in world.limits:
        limit._check()
        assert limit.taken == 0, f"{limit!r} has not got its places back"
    await _judge_threads(world)
    _judge_tables(world)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    await until(world, lambda: all(task.done() for task in tasks), lambda: f"tasks are left: {tasks}")
    world.bank.close()
    if world.rounds > 1:  # in the first one the loop makes some that it keeps
        still = lambda: sorted(set(open_descriptors().items()) ^ set(before.items()))  # noqa: E731
        await until(world, lambda: not still(), lambda: f"descriptors were opened, or closed: {still()}")
    world.forget()
    gc.collect()
    assert not world.reports, f"the loop's exception handler was told {world.reports[:3]}"
    assert not world.warnings, f"the log says {world.warnings[:3]}"


def _judge_job(world: World, job: Job) -> None:
    assert sorted(job.called) == list(range(1, job.deferred + 1)), f"{job!r}: {job.deferred} deferred, {job.called}"
    world.counts["callbacks deferred"] += job.deferred
    world.pairs.update(job.seen)
    for handle in job.handles:
        assert handle.done(), f"{job!r} has not ended"
        if handle.cancelled():
            world.ends["cancelled"] += 1
            world.cancelled[job.last] += 1
            continue
        error = handle.exception()
        if error is None:
            world.ends["done"] += 1
            assert handle.result() == job.number, f"{job!r} has returned {handle.result()!r}"
            continue
        world.ends["failed"] += 1
        for leaf in leaves(error):
            expect(leaf, job)
            world.ends[type(leaf).__name__] += 1
    there = [path for path in world.paths(job) if os.path.exists(path)]
    assert len(there) in (0, 2), f"of {job!r} one file is there, and one is not"
    for path in there:
        with open(path, "rb") as file:
            assert file.read() == LINE * 2, f"{job!r} has written half of a file"
        os.unlink(path)
    world.counts["pairs of files written"] += len(there) // 2


async def _judge_locks(world: World) -> None:
    vaults = [world.bank, *world.vaults]
    await until(world, lambda: not any(vault.lock._posted for vault in vaults), lambda: "locks have posted something")
    for vault in vaults:
        vault.mend()
        vault.lock._check()
        assert not vault.lock.locked() and not vault.lock._noted and not len(vault.lock._line), f"{vault.lock!r}"
        assert vault.left == vault.right, f"{vault.lock!r} protects what is half done"
        world.counts["locks mended"] += vault.mended
        vault.mended = 0


def _judge_rows(world: World) -> None:
    rows = world.bank.rows()
    for job in world.jobs:
        found = rows.pop(job.number, 0)
        assert found == (ROWS if job.committed else 0), f"{job!r}: {found} rows, committed: {job.committed}"
    assert not rows, f"there are rows of nobody: {rows}"


async def _judge_threads(world: World) -> None:
    groups = [shared_group(), named_group("faults"), named_group("quick")]
    await until(world, lambda: not any(group.busy for group in groups), lambda: f"workers are stuck: {groups}")
    for group in groups:
        group._check()
        assert not group._lent and not group.waiting, f"{group!r}"
    assert not any(surroundings.here.values()), f"threads are in {surroundings.here}"


def _judge_tables(world: World) -> None:
    home = default_pool(world.loop)._home
    tables: dict[str, Any] = {
        "holds": cancellation.holds,
        "wakes": cancellation._wakes,
        "deferred": cleanups.deferred,
        "waiting": surroundings.waiting,
        "in line": waits.in_line,
        "for locks": deadlocks.for_locks,
        "waits": home.waits,
        "expiries": home.expiries,
        "suspended": home._suspended,
        "busy": home.busy,
        "files": [name for name in os.listdir(world.folder) if name.endswith((".left", ".right"))],
    }
    assert not any(map(len, tables.values())), f"something is kept: {tables}"


def expect(error: BaseException, where: object) -> None:
    """Fail if a job, or a scope, has failed with something that nobody has planned."""
    if not isinstance(error, EXPECTED):
        raise AssertionError(f"{where!r} has failed with what nobody has planned") from error


def leaves(error: BaseException | None) -> Iterator[BaseException]:
    """Iterate over the errors in a group of them, or over one alone."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    elif error is not None:
        yield error


def is_expected(report: dict[str, Any]) -> bool:
    """Say whether the loop's exception handler may be told this."""
    if isinstance(report.get("exception"), ConnectionError) and type(report.get("future")) is asyncio.Future:
        return True  # asyncio's streams tell so of a connection that was reset, and that nobody waited to be closed
    abandoned = "was cancelled and abandoned, and then failed" in report["message"]
    return abandoned and all(isinstance(leaf, EXPECTED) for leaf in leaves(report["exception"]))


def open_descriptors() -> dict[str, str]:
    """Return what is open, but for the bells that ``checkpoint_wait`` keeps."""
    kept = {str(end) for bell in descriptors._free for end in (bell.reads, bell._writes)}
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the folder itself
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return {number: name for number, name in found.items() if number not in kept}
