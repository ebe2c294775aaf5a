"""Files: ours beside plain calls, aiofiles, anyio and aiofile (caio), on a plain loop and on one that changes hands.

*Hot*: what is read is in the page cache. Plain calls block the loop if it is not; the others do not. *Cold*: each file
is dropped from the cache first, by ``posix_fadvise``, which is not timed; one at a time, and 64 in flight.

The files lie in a folder of the disk, not of a memory file system, in which there would be nothing to wait for.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from threadlets import EventLoop, files

from .harness import Comparison, Contender, Effort, compare, has

__all__ = ["measure"]

SIZES = {"4 KiB": 1 << 12, "64 KiB": 1 << 16, "1 MiB": 1 << 20}
COLD = 500  # files of 4 KiB
IN_FLIGHT = (1, 64)
LINES = 1_000_000  # of a hundred bytes each
PIECE = 4096  # bytes of a read of an open file
OURS = "files"

Read = Callable[[str], Awaitable[bytes]]


def measure(loop: str, effort: Effort) -> list[Comparison]:
    """Measure all of it on one kind of loop, first as it is, then as one that changes hands."""
    with _folder() as folder:
        found = []
        for hands in (False, True):
            with asyncio.Runner(loop_factory=lambda hands=hands: _make_loop(loop, hands)) as runner:
                for comparison in runner.run(_measure(folder, effort)):
                    if hands:
                        comparison.title += ", changing hands"
                    found.append(comparison)
        return found


def _make_loop(loop: str, hands: bool) -> asyncio.AbstractEventLoop:
    if loop == "uvloop":
        import uvloop

        from threadlets.adapters import uvloop as ours

        return ours.EventLoop() if hands else uvloop.new_event_loop()
    return EventLoop() if hands else asyncio.new_event_loop()


@contextmanager
def _folder() -> Iterator[Path]:
    """Make the files, in a folder that lies on a disk."""
    disk = "/var/tmp" if os.path.isdir("/var/tmp") else None  # a hint; elsewhere the usual place
    with tempfile.TemporaryDirectory(dir=disk, prefix="threadlets-") as name:
        folder = Path(name)
        for size, length in SIZES.items():
            (folder / size).write_bytes(os.urandom(length))
        for number in range(COLD):
            (folder / str(number)).write_bytes(os.urandom(PIECE))
        with (folder / "lines").open("w") as file:
            for number in range(LINES):
                file.write(
                    f"line {number:8} of a file that is read in order, line by line, a hundred bytes each ........\n"
                )
        os.sync()
        yield folder


async def _measure(folder: Path, effort: Effort) -> list[Comparison]:
    return [
        *[await _whole(folder, size, effort) for size in SIZES],
        await _pieces(folder, effort),
        *[await _lines(folder, mode, effort) for mode in ("r", "rb")],
        await _status(folder, effort),
        await _write(folder, effort),
        *[await _cold(folder, count, effort) for count in IN_FLIGHT],
    ]


# ------------------------------------------------------------------------------------------------------------- ways


def plain(path: str) -> bytes:
    """Read a file with four system calls."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


async def _plain(path: str) -> bytes:
    return plain(path)


async def _to_thread(path: str) -> bytes:
    return await asyncio.to_thread(plain, path)


def readers() -> dict[str, Read]:
    """Return the ways to read a whole file: ours first."""
    found: dict[str, Read] = {OURS: files.read_bytes, "plain calls": _plain, "to_thread": _to_thread}
    for name, opened in _peers().items():
        found[name] = _reading(opened)
    if has("anyio"):
        import anyio

        found["anyio"] = lambda path: anyio.Path(path).read_bytes()
    return found


def _reading(opened: Callable[..., Any]) -> Read:
    async def read(path: str) -> bytes:
        async with opened(path, "rb") as file:
            return await file.read()  # type: ignore[no-any-return]

    return read


def _peers() -> dict[str, Callable[..., Any]]:
    """Return what opens files and gives them methods that are coroutines."""
    found: dict[str, Callable[..., Any]] = {}
    if has("aiofiles"):
        import aiofiles

        found["aiofiles"] = aiofiles.open
    if has("aiofile") and has("caio"):
        import aiofile

        found["aiofile"] = aiofile.async_open
    return found


# --------------------------------------------------------------------------------------------------------- measured


async def _whole(folder: Path, size: str, effort: Effort) -> Comparison:
    path = str(folder / size)
    budgets = {"plain calls": 3.0, "aiofiles": 1 / 25} if size == "4 KiB" else {}
    return await compare(
        f"read a file of {size}, hot",
        [Contender(name, _repeated(read, path, SIZES[size]), budgets.get(name)) for name, read in readers().items()],
        effort,
        note="Open, read all, close.",
    )


def _repeated(read: Read, path: str, size: int) -> Callable[[int], Awaitable[int]]:
    async def run(count: int) -> int:
        right = 0
        for _ in range(count):
            data = await read(path)
            right += len(data) == size
        return right

    return run


async def _pieces(folder: Path, effort: Effort) -> Comparison:
    path = str(folder / "1 MiB")
    pieces = SIZES["1 MiB"] // PIECE

    def reading(opened: Callable[[], Any]) -> Callable[[int], Awaitable[int]]:
        async def run(count: int) -> int:
            right = 0
            for _ in range(count // pieces):
                async with opened() as file:
                    while piece := await file.read(PIECE):
                        right += len(piece) == PIECE
            return right

        return run

    ways = {OURS: lambda: files.open(path, "rb"), "plain calls": lambda: _Plain(path, "rb")}
    for name, opened in _peers().items():
        ways[name] = lambda opened=opened: opened(path, "rb")  # type: ignore[misc]
    contenders = [Contender(name, reading(way), step=pieces) for name, way in ways.items()]
    return await compare("read 4 KiB of an open file, hot", contenders, effort, note="One after the other, of 1 MiB.")


class _Plain:
    """Python's own file, whose methods are made coroutines: what a call costs that awaits nothing."""

    def __init__(self, path: str, mode: str) -> None:
        self._file = open(path, mode)  # noqa: SIM115

    async def __aenter__(self) -> _Plain:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._file.close()

    async def read(self, size: int) -> Any:
        """Read."""
        return self._file.read(size)


async def _lines(folder: Path, mode: str, effort: Effort) -> Comparison:
    path = str(folder / "lines")
    kind = "text" if mode == "r" else "binary"
    found = Comparison(
        f"iterate over {LINES:,} lines of a {kind} file, hot",
        OURS,
        {OURS: [], "plain for": []},
        budgets={"plain for": 2.0},
        note="A hundred bytes each; per line.",
    )
    if has("aiofiles"):
        found.samples["aiofiles, of a fiftieth"] = []
    for _ in range(1 if effort.quick else 5):
        gc.collect()
        began, count = perf_counter(), 0
        async with files.open(path, mode) as ours:
            async for _line in ours:
                count += 1
        found.samples[OURS].append((perf_counter() - began) / LINES)
        assert count == LINES, "each line is seen once"
        began = perf_counter()
        with open(path, mode) as theirs:
            for _line in theirs:
                count -= 1
        found.samples["plain for"].append((perf_counter() - began) / LINES)
        if has("aiofiles"):
            import aiofiles

            began, count = perf_counter(), 0
            async with aiofiles.open(path, mode) as other:  # type: ignore[call-overload]
                async for _line in other:
                    count += 1
                    if count == LINES // 50:
                        break
            found.samples["aiofiles, of a fiftieth"].append((perf_counter() - began) / count)
    return found


async def _status(folder: Path, effort: Effort) -> Comparison:
    path = str(folder / "4 KiB")

    async def direct(path: str) -> os.stat_result:
        return os.stat(path)

    ways: dict[str, Callable[[str], Awaitable[os.stat_result]]] = {OURS: files.stat, "plain call": direct}
    if has("aiofiles"):
        import aiofiles.os

        ways["aiofiles"] = aiofiles.os.stat
    if has("anyio"):
        import anyio

        ways["anyio"] = lambda path: anyio.Path(path).stat()

    def asking(way: Callable[[str], Awaitable[os.stat_result]]) -> Callable[[int], Awaitable[int]]:
        async def run(count: int) -> int:
            right = 0
            for _ in range(count):
                status = await way(path)
                right += status.st_size == PIECE
            return right

        return run

    return await compare("stat, hot", [Contender(name, asking(way)) for name, way in ways.items()], effort)


async def _write(folder: Path, effort: Effort) -> Comparison:
    data = os.urandom(PIECE)
    path = str(folder / "written")

    async def direct(path: str, data: bytes) -> int:
        with open(path, "wb") as file:
            return file.write(data)

    ways: dict[str, Callable[[str, bytes], Awaitable[Any]]] = {OURS: files.write_bytes, "plain calls": direct}
    for name, opened in _peers().items():

        async def write(path: str, data: bytes, opened: Callable[..., Any] = opened) -> Any:
            async with opened(path, "wb") as file:
                return await file.write(data)

        ways[name] = write
    if has("anyio"):
        import anyio

        ways["anyio"] = lambda path, data: anyio.Path(path).write_bytes(data)

    def writing(way: Callable[[str, bytes], Awaitable[Any]]) -> Callable[[int], Awaitable[int]]:
        async def run(count: int) -> int:
            for _ in range(count):
                await way(path, data)
            return count * (os.path.getsize(path) == PIECE)

        return run

    contenders = [Contender(name, writing(way)) for name, way in ways.items()]
    return await compare("write a file of 4 KiB, over the old one", contenders, effort, note="Open, write, close.")


async def _cold(folder: Path, in_flight: int, effort: Effort) -> Comparison:
    paths = [str(folder / str(number)) for number in range(COLD)]
    ways = readers()
    peers = {name: 1.0 for name in ways if name not in (OURS, "plain calls", "to_thread")}
    found = Comparison(
        f"read a file of 4 KiB, cold, {in_flight} in flight",
        OURS,
        {name: [] for name in ways},
        budgets=peers if in_flight > 1 else {},
        note=f"{COLD} files, dropped from the page cache; per file.",
    )
    for _ in range(3 if effort.quick else 11):
        for name, read in ways.items():
            _drop(paths)
            found.samples[name].append(await _all(read, paths, in_flight) / COLD)
    return found


def _drop(paths: list[str]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


async def _all(read: Read, paths: list[str], in_flight: int) -> float:
    left = iter(paths)
    right = 0

    async def some() -> None:
        nonlocal right
        for path in left:
            data = await read(path)
            right += len(data) == PIECE

    began = perf_counter()
    await asyncio.gather(*[some() for _ in range(in_flight)])
    spent = perf_counter() - began
    assert right == len(paths), "each file is read once"
    return spent
