"""Count the words of all files in a folder, by a chain: open, ask, read, parse, close.

    python examples/chain_index.py [FOLDER]

Each file is one call of ``INDEX``. What is in the page cache is read in place; a step that would wait for the disk
sends what is left of its chain to a worker, as one piece. What fails - a file that may not be read, that has vanished
since it was listed, that is no text - is a value among the others, which knows the step at which it has failed.

Prints what was found, and how long it took beside the same calls in a function that is sent to a thread for each file.
Without a FOLDER: that of this library.

What to look at:

- ``INDEX``: the whole of it is data; ``print(INDEX.explain())`` is the first thing that the program says.
- ``INDEX.inline.map(...)``: thousands of files, sixty-four at a time, failures among the values.
"""

from __future__ import annotations

import argparse
import asyncio
import operator
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter

from tables import aligned

import threadlets
from threadlets import Chain, Contract, NaP, arg, ref, run, threadlet

TOGETHER = 64  # files at a time
ROUNDS = 3  # of each way; the best one is told


@threadlet(contract=Contract(blocks="never"))
def size_of(status: os.stat_result) -> int:
    """Return how many bytes a file has."""
    return status.st_size


@threadlet(contract=Contract(blocks="never"))
def words_of(data: bytes) -> int:
    """Count the words of a text.

    Raises:
        UnicodeDecodeError: If it is none.
    """
    return len(data.decode().split())


INDEX = (
    Chain("index")
    .then(os.open, arg("path"), os.O_RDONLY | os.O_CLOEXEC)
    .named("file")
    .then(os.fstat, ref("file"))
    .named("status")
    .then(size_of, ref("status"))
    .named("size")
    .stop_if(operator.not_)  # an empty file has no words: 0 is its size, and the value of the chain
    .then(os.pread, ref("file"), ref("size"), 0)
    .named("text")
    .then(words_of, ref("text"))
    .named("words")
    .finally_(os.close, ref("file"))
)


def index(path: str) -> int:
    """Do the same, as a function that blocks."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        return words_of.function(os.pread(file, size, 0)) if size else 0
    finally:
        os.close(file)


def files_in(folder: str) -> Iterator[str]:
    """List the ordinary files below a folder, and links to nothing."""
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            if os.path.isfile(path) or not os.path.exists(path):
                yield path


async def by_chains(paths: list[str]) -> list[int | NaP]:
    """Count the words of each file in chains; a failure is a NaP."""
    rows = ({"path": path} for path in paths)
    return [words async for words in INDEX.inline.map(rows, limit=TOGETHER)]


async def by_threads(paths: list[str]) -> list[int | None]:
    """Do the same in threads; a failure is None."""
    limit = asyncio.Semaphore(TOGETHER)

    async def one(path: str) -> int | None:
        async with limit:
            try:
                return await asyncio.to_thread(index, path)
            except (OSError, ValueError):
                return None

    return await asyncio.gather(*map(one, paths))


async def timed(way: Callable[[list[str]], Awaitable[list[object]]], paths: list[str]) -> tuple[float, list[object]]:
    """Return how many seconds a way took, and what it has found."""
    began = perf_counter()
    found = await way(paths)
    return perf_counter() - began, found


async def compare(paths: list[str]) -> str:
    """Take both ways in turns; return what is to be told."""
    chains, threads, counted = [], [], []
    for _ in range(ROUNDS):
        seconds, counted = await timed(by_threads, paths)
        threads.append(seconds)
        seconds, found = await timed(by_chains, paths)
        chains.append(seconds)
        if [words or None for words in counted] != [words or None for words in found]:
            raise SystemExit("the two ways have found different words: did somebody write to the files?")
    failures = Counter(f"{nap.name}: {type(nap.cause).__name__}" for nap in found if isinstance(nap, NaP))
    known = [words for words in found if isinstance(words, int)]
    calls = INDEX.inline.statistics()
    hops = calls.missed / ROUNDS
    rows = [
        ["files", f"{len(paths):,}"],
        ["words", f"{sum(known):,}"],
        *([f"failed at {step}", f"{count:,}"] for step, count in sorted(failures.items())),
        ["in place, a round", f"{len(paths) - hops:,.0f}"],
        ["hops, a round", f"{hops:,.0f}"],
        ["chains, us a file", f"{min(chains) / len(paths) * 1e6:,.1f}"],
        ["asyncio.to_thread, us a file", f"{min(threads) / len(paths) * 1e6:,.1f}"],
    ]
    return aligned(rows)


def main() -> int:
    """Index a folder; return the exit code."""
    parser = argparse.ArgumentParser(description="Count the words of all files in a folder, by a chain.")
    parser.add_argument("folder", nargs="?", default=os.path.dirname(threadlets.__file__), help="default: this library")
    parser.add_argument("--plain", action="store_true", help="run on asyncio's own loop, which does not change hands")
    options = parser.parse_args()
    paths = sorted(files_in(options.folder))
    if not paths:
        print(f"there are no files in {options.folder}", file=sys.stderr)
        return 1
    print(INDEX.explain(), end="\n\n")
    print((asyncio.run if options.plain else run)(compare(paths)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
