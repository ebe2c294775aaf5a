"""Fair share, seen: three tenants with one pool, one of which comes first, with ten times the work of the others.

    python examples/tenants.py

The same work is done twice, first come first served, and with ``FairShare``, which has the tenants take turns by their
weights. Prints when each tenant's first and last threadlet ended and how long they waited, and draws ``tenants.svg``:
whose threadlets were started, moment by moment.

The work is a short sleep that stands for a call of some service, of which eight are allowed at a time: so what differs
between the runs is the order, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from areas import Panel, draw
from figures import number
from tables import aligned

from threadlets import Concurrency, FairShare, Pool, PoolStatistics, Throttle, run, threadlet

TOGETHER = 8  # threadlets at a time
PAUSE = 0.0005  # seconds of work in each
SLICES = 100  # of the plot; arbitrary: narrow enough to see the corners


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whoever shares the pool with others: a name, a weight, and how many threadlets come at once."""

    name: str
    weight: int
    work: int

    @property
    def tag(self) -> str:
        """What its threadlets are known by."""
        return f"tenant:{self.name}"

    def __str__(self) -> str:
        return f"{self.name}, {self.work:,} threadlets, weight {self.weight}"


@dataclass
class Record:
    """What has happened in one run; times are seconds since everything was queued, 0 for what came before."""

    began: float = math.inf
    starts: list[tuple[str, float]] = field(default_factory=list)  # the tenant's name, when
    firsts: dict[str, float] = field(default_factory=dict)  # by name: when its first threadlet ended
    lasts: dict[str, float] = field(default_factory=dict)

    def now(self) -> float:
        """Return the time."""
        return max(0.0, perf_counter() - self.began)


@threadlet
async def serve(tenant: Tenant, record: Record) -> None:
    """Do one piece of work."""
    record.starts.append((tenant.name, record.now()))
    await asyncio.sleep(PAUSE)
    record.lasts[tenant.name] = ended = record.now()
    record.firsts.setdefault(tenant.name, ended)


async def all_served(tenants: Sequence[Tenant], *rules: Throttle) -> tuple[Record, PoolStatistics]:
    """Start everything at once, and wait for it."""
    record = Record()
    async with Pool(Concurrency(TOGETHER), *rules) as pool:
        for tenant in tenants:
            for _ in range(tenant.work):
                pool.start(serve, tenant, record, tags={tenant.tag})
        record.began = perf_counter()
    return record, pool.statistics()


def shares_while_all_wait(starts: Sequence[str], names: Sequence[str]) -> list[float]:
    """Return each tenant's share of the starts, up to the first one that was a tenant's last.

    >>> shares_while_all_wait("abcabab" "aa", "abc")
    [0.3333333333333333, 0.3333333333333333, 0.3333333333333333]
    """
    last = {name: place for place, name in enumerate(starts)}
    count = min(last.values()) + 1
    seen = Counter(starts[:count])
    return [seen[name] / count for name in names]


def shares_over_time(record: Record, names: Sequence[str], seconds: float) -> list[list[float]]:
    """Return each tenant's share of the starts, for each slice of some seconds from the beginning on."""
    slices = [Counter[str]() for _ in range(SLICES)]
    for name, time in record.starts:
        slices[min(int(time / seconds * SLICES), SLICES - 1)][name] += 1
    return [[seen[name] / max(1, seen.total()) for name in names] for seen in slices]


def table(tenants: Sequence[Tenant], record: Record, statistics: PoolStatistics) -> str:
    """Lay out what one run was like for each tenant."""
    rows = [["", "threadlets", "weight", "first done", "last done", "wait p50", "p99"]]
    for tenant in tenants:
        waits = statistics.tags[tenant.tag].waits
        times = (record.firsts[tenant.name], record.lasts[tenant.name], waits.p50, waits.p99)
        row = [f"  {tenant.name}", f"{tenant.work:,}", f"{tenant.weight}"]
        rows.append([*row, *(f"{number(1000 * seconds)} ms" for seconds in times)])
    return aligned(rows)


def main() -> None:
    """Read the command line, run both ways, show."""
    options = read_options()
    tenants = [
        Tenant("crowd", 1, options.work),
        Tenant("modest", 1, options.work // 10),
        Tenant("paying", 2, options.work // 10),
    ]
    names = [tenant.name for tenant in tenants]
    fair = FairShare("tenant:", {tenant.tag: tenant.weight for tenant in tenants})
    runs = {
        "First come, first served": run(all_served(tenants)),
        "With FairShare": run(all_served(tenants, fair)),
    }
    for title, (record, statistics) in runs.items():
        print(f"{title}\n{table(tenants, record, statistics)}")
        shares = shares_while_all_wait([name for name, time in record.starts if time], names)
        words = ", ".join(f"{name} {100 * share:.1f} %" for name, share in zip(names, shares, strict=True))
        print(f"  Starts while all three had work: {words}\n")
    seconds = 1.01 * max(max(record.lasts.values()) for record, _ in runs.values())
    panels = [
        Panel(
            f"{title}: share of the starts",
            shares_over_time(record, names, seconds),
            [record.lasts[name] for name in names],
        )
        for title, (record, _) in runs.items()
    ]
    try:
        draw("Three tenants, one pool", list(map(str, tenants)), panels, seconds, options.output)
    except OSError as error:
        sys.exit(f"tenants.py: the plot cannot be written to {options.output}: {error.strerror}")
    print(f"The plot: {options.output}")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Does the work of three tenants twice, the second time in fair turns.")
    parser.add_argument("--work", type=int, default=20_000, help="threadlets of the largest (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("tenants.svg"), help="the plot (default: %(default)s)")
    options = parser.parse_args()
    if options.work < 100:
        parser.error("--work must be at least 100")
    if not options.output.absolute().parent.is_dir():
        parser.error(f"--output: there is no folder {options.output.absolute().parent}")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
