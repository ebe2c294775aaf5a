"""A cluster of Dask's under a pool's rules: two tenants, throttles and priorities; one leaves, and a worker is killed.

    python examples/cluster.py [--workers 2] [--jobs 60]

The workers are processes of this machine. What is to be computed waits in the pool, here, where it can be selected; no
more of it is at the cluster than there are slots. Then, while it runs:

1. one tenant becomes more urgent than the other;
2. the other one leaves, and all of his that has not begun is cancelled;
3. a worker is killed: what it had is computed again by another one, since it is pure.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections import Counter
from time import monotonic

from threadlets import Concurrency, Contract, PerTag, Pool, threadlet


@threadlet(contract=Contract(pure=True))
def count_primes(job: int, size: int) -> tuple[int, int]:
    """Count the primes in the stretch of numbers that is this job's; return that, and which process did it."""
    stretch = range(max(2, job * size), (job + 1) * size)
    primes = sum(all(number % divisor for divisor in range(2, int(number**0.5) + 1)) for number in stretch)
    return primes, os.getpid()


async def main(workers: int, jobs: int) -> None:
    """Compute, and interfere."""
    try:
        from distributed import Client, LocalCluster

        from threadlets.adapters.dask import cluster_nodes
    except ImportError:
        sys.exit("This example needs Dask: pip install 'threadlets[dask]'")
    options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": ":0"}
    async with (
        LocalCluster(asynchronous=True, silence_logs=logging.CRITICAL, **options) as cluster,
        Client(cluster, asynchronous=True) as client,
    ):
        await client.wait_for_workers(workers)
        nodes = await cluster_nodes(client, slots_per_thread=2)
        print(f"{len(nodes)} workers, {nodes.slots.limit} slots")
        began = monotonic()
        async with Pool(PerTag("tenant:", Concurrency(nodes.slots.limit // 2)), node=nodes) as pool:
            handles = [
                pool.start(count_primes, job, 8_000, priority=5, tags={f"tenant:{'ab'[job % 2]}"})
                for job in range(jobs)
            ]
            queued = pool.select(state="queued")
            mine, his = queued & pool.select(tag="tenant:a"), queued & pool.select(tag="tenant:b")
            await handles[0]
            print(f"of {jobs} jobs {len(queued)} wait here; no more than {nodes.slots.limit} are at the cluster")

            print(f"tenant a is urgent: {mine.reprioritize(1)} of his jobs come first now")
            await handles[10]
            print(f"tenant b leaves: {his.cancel('he has left')} of his jobs are cancelled")

            victim = nodes[0].address
            processes = await client.run(os.getpid, workers=[victim])
            os.kill(processes[victim], signal.SIGKILL)
            print("a worker is killed")

            outcomes = await asyncio.gather(*handles, return_exceptions=True)
        done = [outcome for outcome in outcomes if isinstance(outcome, tuple)]
        wrong = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        found = nodes.statistics()
        shares = Counter(process for _, process in done)
        cancelled = len(outcomes) - len(done) - len(wrong)
        print(f"{len(done)} jobs done in {monotonic() - began:.1f} s, {cancelled} cancelled, {len(wrong)} failed")
        print(f"{sum(primes for primes, _ in done):,} primes; jobs by process: {sorted(shares.values())}")
        print(f"sent {found.sent}, run again {found.rerun}, lost {found.lost}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=60)
    arguments = parser.parse_args()
    if arguments.workers < 2 or arguments.jobs < 20:
        parser.error("one worker is killed, and there has to be work left then: --workers 2 and --jobs 20 at least")
    asyncio.run(main(arguments.workers, arguments.jobs))
