"""What the fault harness runs: files, transactions, sockets, locks, other threadlets; at each step something happens.

Each function here does something real, and leaves it whole or not at all, however it is ended. Its points say where
it may be ended; ``vaults`` and the judge in ``faults`` look whether it was whole.
"""

from __future__ import annotations

import asyncio
import os
from asyncio import CancelledError
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from tests.stress.exchanges import client, echo, streams, talk, trade, trade_in_task
from tests.stress.injector import LITTLE, MOMENT, QUICK, QUICK_ASYNC, SLOW, SLOW_ASYNC, Injected, Job
from tests.stress.vaults import Vault
from threadlets import Contract, Threadlet, blocking, call_async, holding, threadlet
from threadlets.errors import Deadlock, LockPoisoned

LINE = b"both or none\n"
SOON = 20 * MOMENT  # seconds; arbitrary: how long some wait for a lock


# ------------------------------------------------------------------------------------------------------------- files


def files(job: Job) -> int:
    """Write two files that belong together."""
    job.defers(QUICK)
    job.point("files: begin")
    paths = job.world.paths(job)
    grace = job.dice.choice([0, MOMENT, float("inf")])
    with holding("two files", grace=grace):
        try:
            for path in paths:
                _write(job, path)
        except BaseException as error:
            job.is_told(error)
            if grace == float("inf") and isinstance(error, CancelledError):
                job.world.violate(f"{job!r} was told where it has all the time of the world")
            for path in paths:
                with suppress(FileNotFoundError):
                    os.unlink(path)
            raise
    job.point("files: end")
    return job.number


def _write(job: Job, path: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(2):
            os.write(descriptor, LINE)
            job.point("files: written")
    finally:
        os.close(descriptor)


def reads(job: Job) -> int:
    """Read a file that is closed by what was deferred."""
    descriptor = os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC)
    job.defer(_closes, descriptor)
    job.defers(QUICK)
    for _ in range(3):
        job.point("reads: some")
        os.read(descriptor, 10)
    return job.number


def _closes(job: Job, number: int, descriptor: int) -> None:
    job.called.append(number)
    os.close(descriptor)


# ------------------------------------------------------------------------------------------------------- transactions


def transaction(job: Job) -> int:
    """Write rows, on a worker."""
    job.defers(QUICK)
    job.point("transaction: begin")
    _with_vault(job, job.world.bank, lambda: job.world.bank.write(job))
    job.point("transaction: end")
    return job.number


async def region(job: Job) -> int:
    """Write rows in a region."""
    job.defers(QUICK_ASYNC)
    await job.apoint("region: begin")

    async def write() -> None:
        with blocking():
            job.world.bank.write(job)

    await _with_vault_in_task(job, job.world.bank, write)
    await job.apoint("region: end")
    return job.number


async def ledger(job: Job) -> int:
    """Write rows by threadlets of another thread, one for each."""
    job.defers(QUICK_ASYNC)
    await job.apoint("ledger: begin")
    await _with_vault_in_task(job, job.world.bank, lambda: job.world.bank.write_in_steps(job))
    await job.apoint("ledger: end")
    return job.number


# -------------------------------------------------------------------------------------------------------------- locks


def spend(job: Job) -> int:
    """Change one vault, or two, in any order, on a thread."""
    job.defers(QUICK)
    job.point("spend: begin")
    _spend(job, job.world.vaults_of(job))
    job.point("spend: end")
    return job.number


def _spend(job: Job, vaults: list[Vault]) -> None:
    vault, *others = vaults

    def change() -> None:
        with vault.half(job):
            job.point("spend: half")
            if others:
                _spend(job, others)
            elif job.kind == "spend" and job.dice.random() < 0.1:
                call_async(_awaits, job)
            job.point("spend: about to end")

    _with_vault(job, vault, change)


async def _awaits(job: Job) -> None:
    for _ in range(2):
        await asyncio.sleep(0)


async def spend_in_task(job: Job) -> int:
    """Change one vault, or two, in any order, in a coroutine."""
    job.defers(QUICK_ASYNC)
    await job.apoint("spend in task: begin")
    async with job.limit("spend in task"):
        await _spend_in_task(job, job.world.vaults_of(job))
    await job.apoint("spend in task: end")
    return job.number


async def _spend_in_task(job: Job, vaults: list[Vault]) -> None:
    vault, *others = vaults

    async def change() -> None:
        with vault.half(job):
            await job.apoint("spend in task: half")
            if others:
                await _spend_in_task(job, others)
            elif job.dice.random() < 0.2:
                await on_worker(job.number)
            async with job.limit("holding a lock"):
                await job.apoint("spend in task: about to end")

    await _with_vault_in_task(job, vault, change)


@threadlet(contract=Contract(blocks="always"))
def on_worker(number: int) -> int:
    """Do nothing, on a worker."""
    return number


def _with_vault(job: Job, vault: Vault, inside: Callable[[], object]) -> None:
    """Do something with a vault's lock held, on a thread; mend first what another one has left."""
    while True:
        try:
            if job.dice.random() < 0.8:
                with vault.lock:
                    inside()
            elif vault.lock.acquire(SOON):
                try:
                    inside()
                finally:
                    vault.lock.release()
            else:
                job.world.tell("in vain")
            return
        except LockPoisoned:
            vault.mend()


async def _with_vault_in_task(job: Job, vault: Vault, inside: Callable[[], Any]) -> None:
    while True:
        try:
            async with vault.lock:
                await inside()
            return
        except LockPoisoned:
            vault.mend()


# ----------------------------------------------------------------------------------------------------- other threadlets


async def nest(job: Job) -> int:
    """Start others, and wait for them in one way or another."""
    job.defers(QUICK_ASYNC)
    await job.apoint("nest: begin")
    await _nest(job)
    await job.apoint("nest: end")
    return job.number


async def _nest(job: Job) -> None:
    started = [job.world.begin(job) for _ in range(job.dice.choice([1, 1, 2, 3]))]
    handles = [handle for handle in started if handle is not None]
    await job.apoint("nest: started")
    way = job.dice.randrange(5)
    try:
        async with job.limit("nest"):
            if way == 0:
                await asyncio.gather(*handles)
            elif way == 1 and handles:
                await asyncio.wait(handles)
            elif way == 2:
                async with asyncio.TaskGroup() as group:
                    for handle in handles:
                        group.create_task(_wait(handle))
            else:
                for handle in handles:
                    await (asyncio.shield(handle) if way == 3 else handle)
    except (Injected, Deadlock, ExceptionGroup):
        await job.apoint("nest: others have failed")


async def _wait(handle: Threadlet[int]) -> int:
    return await handle


def nest_on_thread(job: Job) -> int:
    """Start others from a worker, and wait for them there."""
    job.defers(QUICK)
    job.point("nest on thread: begin")
    call_async(_nest, job)
    job.point("nest on thread: end")
    return job.number


# --------------------------------------------------------------------------------------------------- pure, hasty, quick


def pure(job: Job) -> int:
    """Be equal to others, on a worker."""
    job.defers(QUICK)
    for _ in range(3):
        job.point("pure: on a worker")
    return job.number


async def pure_in_task(job: Job) -> int:
    """Be equal to others, in a coroutine."""
    job.defers(QUICK_ASYNC)
    for _ in range(3):
        await job.apoint("pure: in a task")
    return job.number


def hasty(job: Job) -> int:
    """Have little time for cleanup, on a worker."""
    job.point("hasty: begin")
    job.defers(SLOW)
    job.point("hasty: end")
    return job.number


async def hasty_in_task(job: Job) -> int:
    """Have little time for cleanup, in a coroutine."""
    await job.apoint("hasty in task: begin")
    job.defers(SLOW_ASYNC)
    await job.apoint("hasty in task: end")
    return job.number


def quick(job: Job) -> int:
    """End at once, or fail."""
    job.defers(QUICK)
    job.point("quick")
    return job.number


async def quick_in_task(job: Job) -> int:
    """End in the first step, or soon."""
    job.defers(QUICK_ASYNC)
    await job.apoint("quick in task")
    return job.number


# -------------------------------------------------------------------------------------------------------------- kinds


class Kind(NamedTuple):
    """One way to run a function."""

    function: Any
    weight: int
    goes_deeper: bool = False


IN_PLACE = Contract(blocks="never")
WORKER = Contract(blocks="always")
ABANDON = Contract(blocks="always", cancel="abandon")
KINDS = {
    "files": Kind(threadlet(contract=WORKER)(files), 3),
    "files, in place": Kind(threadlet(contract=IN_PLACE)(files), 1),
    "files, anywhere": Kind(threadlet(files), 2),
    "files, abandoned": Kind(threadlet(contract=ABANDON)(files), 2),
    "reads": Kind(threadlet(reads), 2),
    "reads, abandoned": Kind(threadlet(contract=ABANDON)(reads), 1),
    "transaction": Kind(threadlet(contract=WORKER)(transaction), 6),
    "transaction, abandoned": Kind(threadlet(contract=ABANDON)(transaction), 1),
    "region": Kind(threadlet(region), 3),
    "ledger": Kind(threadlet(ledger), 3),
    "spend": Kind(threadlet(contract=WORKER)(spend), 6),
    "spend, in place": Kind(threadlet(contract=IN_PLACE)(spend), 1),
    "spend, anywhere": Kind(threadlet(spend), 2),
    "spend, abandoned": Kind(threadlet(contract=ABANDON)(spend), 2),
    "spend in task": Kind(threadlet(spend_in_task), 6),
    "trade": Kind(threadlet(contract=WORKER)(trade), 5),
    "trade in task": Kind(threadlet(trade_in_task), 6),
    "client": Kind(threadlet(contract=WORKER)(client), 3),
    "streams": Kind(threadlet(streams), 3),
    "talk": Kind(threadlet(talk), 3, True),
    "echo": Kind(threadlet(contract=WORKER)(echo), 0),  # it is started by "talk"
    "nest": Kind(threadlet(nest), 6, True),
    "nest on thread": Kind(threadlet(contract=WORKER)(nest_on_thread), 3, True),
    "pure": Kind(threadlet(contract=Contract(blocks="always", pure=True))(pure), 2),
    "pure in task": Kind(threadlet(contract=Contract(pure=True))(pure_in_task), 2),
    "hasty": Kind(threadlet(contract=Contract(blocks="always", cleanup=LITTLE))(hasty), 2),
    "hasty in task": Kind(threadlet(contract=Contract(cleanup=LITTLE))(hasty_in_task), 2),
    "quick": Kind(threadlet(contract=Contract(affinity="home"))(quick), 1),
    "quick, elsewhere": Kind(threadlet(contract=Contract(affinity="one:quick"))(quick), 1),
    "quick in task": Kind(threadlet(quick_in_task), 2),
}
POINTS = frozenset(
    point.strip()
    for line in """
    files: begin|files: written|files: end|reads: some|transaction: begin|transaction: a row|transaction: end
    region: begin|region: end|ledger: begin|ledger: a row|ledger: end|spend: begin|spend: half|spend: about to end
    spend: end|spend in task: begin|spend in task: half|spend in task: about to end|spend in task: end|trade: begin
    trade: token|trade: at the shelf|trade: end|trade in task: begin|trade in task: token|trade in task: at the shelf
    trade in task: end|client: begin|client: asked|client: waits on|client: end|streams: begin|streams: asked
    streams: end|talk: said|talk: end|echo: waits|echo: heard|nest: begin|nest: started|nest: others have failed
    nest: end|nest on thread: begin|nest on thread: end|pure: on a worker|pure: in a task|hasty: begin|hasty: end
    hasty in task: begin|hasty in task: end|quick|quick in task|cleanup: plain|cleanup: fails|cleanup: deaf
    cleanup: slow|cleanup: later|cleanup: fails later|cleanup: endless
    """.split("\n")
    for point in line.split("|")
    if point.strip()
)
