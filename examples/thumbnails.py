"""Old code, new rules: functions that know executors alone, on a thread pool and then on a pool of threadlets.

    python examples/thumbnails.py

Two customers of a picture service come with many pictures each, and then a third one with a single passport photo. The
code that serves them knows nothing of threadlets: it uses ``asyncio.to_thread``, ``loop.run_in_executor`` and
``executor.map``. It runs twice, unchanged. The first time the default executor is a plain ``ThreadPoolExecutor``. The
second time it is that of a pool: each customer has two threads at most, the passport photo goes first, and when the
second customer hangs up, all that is queued for her is dropped with one line.

The pictures are made up: grey values, of which a thumbnail keeps every eighth. A short sleep stands for the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

from tables import aligned

from threadlets import Concurrency, PerTag, Pool, PoolStatistics

SIZE = 256  # pixels, in both directions
DISK = 0.004  # seconds that it takes to read a picture
THREADS = 4
EACH = 2  # threads that a customer may have

Picture = tuple[str, int]  # whose it is, and which


class Log:
    """What has happened in one run: who was served when, and how many at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.perf_counter()
        self._now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.ends: dict[str, list[float]] = {}

    @contextmanager
    def serving(self, customer: str) -> Iterator[None]:
        """Note that a customer is served in this block."""
        with self._lock:
            self._now[customer] += 1
            self.most[customer] = max(self.most[customer], self._now[customer])
        try:
            yield
        finally:
            with self._lock:
                self._now[customer] -= 1
                self.ends.setdefault(customer, []).append(time.perf_counter() - self._began)


# -------------------------------------------------------------------------------------------------------- the old code


def shrink(picture: Picture, log: Log) -> bytes:
    """Make a thumbnail. Blocks."""
    customer, number = picture
    with log.serving(customer):
        time.sleep(DISK)
        rows = [bytes((x * y + number) & 255 for x in range(0, SIZE, 8)) for y in range(0, SIZE, 8)]
        return zlib.compress(b"".join(rows))


def weigh(thumbnail: bytes) -> int:
    """Return how many bytes a thumbnail has. Blocks, a little."""
    time.sleep(DISK / 10)
    return len(thumbnail)


async def album(pictures: list[Picture], log: Log) -> list[bytes]:
    """Make the thumbnails of an album: as asyncio's documentation has it."""
    return list(await asyncio.gather(*(asyncio.to_thread(shrink, picture, log) for picture in pictures)))


async def passport(picture: Picture, log: Log) -> bytes:
    """Make one thumbnail: as it was done before there was ``to_thread``."""
    return await asyncio.get_running_loop().run_in_executor(None, shrink, picture, log)


def total(executor: Executor, thumbnails: list[bytes]) -> int:
    """Add the sizes up; meant for a thread that may block."""
    return sum(executor.map(weigh, thumbnails))


# -------------------------------------------------------------------------------------------------------- the two runs


async def as_before(pictures: int) -> tuple[Log, int]:
    """Serve all on a plain thread pool, first come first served."""
    executor, log = ThreadPoolExecutor(THREADS), Log()
    asyncio.get_running_loop().set_default_executor(executor)
    albums = [
        asyncio.create_task(album([("holiday", n) for n in range(pictures)], log)),
        asyncio.create_task(album([("wedding", n) for n in range(pictures)], log)),
    ]
    await asyncio.sleep(DISK)
    await passport(("passport", 0), log)
    thumbnails = await albums[0] + await albums[1]
    return log, await asyncio.to_thread(total, executor, thumbnails)


async def in_a_pool(pictures: int) -> tuple[Log, int, int, PoolStatistics]:
    """Serve the same customers by the rules of a pool; one of them hangs up."""
    pool, log = Pool(Concurrency(THREADS), PerTag("customer:", Concurrency(EACH))), Log()
    executor = pool.executor()
    asyncio.get_running_loop().set_default_executor(executor)
    with executor.options(tags={"customer:holiday"}):
        holiday = asyncio.create_task(album([("holiday", n) for n in range(pictures)], log))
    with executor.options(tags={"customer:wedding"}):
        wedding = asyncio.create_task(album([("wedding", n) for n in range(pictures)], log))
    await asyncio.sleep(DISK)
    with executor.options(priority=-1, tags={"customer:passport"}):
        await passport(("passport", 0), log)
    dropped = pool.select(tag="customer:wedding", state="queued").cancel("she has hung up")
    await asyncio.wait([wedding])
    assert wedding.cancelled()
    size = await asyncio.to_thread(total, executor, await holiday)
    await pool.drain()
    return log, size, dropped, pool.statistics()


def table(log: Log) -> str:
    """Lay out how the customers were served."""
    rows = [["", "thumbnails", "first done", "last done", "at a time"]]
    for customer in ("holiday", "wedding", "passport"):
        ends = log.ends.get(customer, [])
        times = [f"{1000 * seconds:.0f} ms" for seconds in (min(ends), max(ends))] if ends else ["-", "-"]
        rows.append([f"  {customer}", f"{len(ends)}", *times, f"{log.most[customer]}"])
    return aligned(rows)


def main() -> None:
    """Read the command line, run both ways, show."""
    parser = argparse.ArgumentParser(description="Runs code that only knows executors on two of them.")
    parser.add_argument("--pictures", type=int, default=150, help="in each of two albums (default: %(default)s)")
    options = parser.parse_args()
    if options.pictures < 20:
        parser.error("--pictures must be at least 20")
    log, size = asyncio.run(as_before(options.pictures))
    print(f"A ThreadPoolExecutor with {THREADS} threads\n{table(log)}")
    print(f"  All thumbnails together: {size:,} bytes\n")
    log, size, dropped, statistics = asyncio.run(in_a_pool(options.pictures))
    print(f"The same code on Pool(Concurrency({THREADS}), PerTag('customer:', Concurrency({EACH})))\n{table(log)}")
    print(f"  All thumbnails of the holiday together: {size:,} bytes")
    print(f"  Dropped when the wedding hung up: {dropped}, with one line")
    for name, each in statistics.entrypoints.items():
        waits = f"waited {1000 * each.waits.p50:.1f} ms (median)"
        print(f"  The pool has run {name}(): {each.done} done, {each.cancelled} cancelled, {waits}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
