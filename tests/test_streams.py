"""An open file: where its operations are done, one at a time, and what is left of those that are cancelled."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.opened import LINES, TEXT, let_nothing_be_in_memory
from tests.support import read_now
from threadlets import files, probes, streams


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a file of some lines."""
    path = tmp_path / "file"
    path.write_text(TEXT)
    return path


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let nothing be known to be in memory; return from where on it was looked for."""
    return let_nothing_be_in_memory(monkeypatch)


def on_workers() -> int:
    """Return how many operations were done elsewhere."""
    return streams.operate.away.statistics().on_workers


def needs_probes(path: Path) -> None:
    """Skip where the kernel does not say what is in memory."""
    if not isinstance(read_now(path), bytes):
        pytest.skip("this file system does not read without waiting")


@pytest.mark.parametrize("mode", ["r", "rb"])
def test_what_is_in_memory_is_read_in_place(once: Run, path: Path, mode: str) -> None:
    """Not one operation on a file in memory lets the loop go round."""
    needs_probes(path)

    async def main() -> None:
        for _ in range(50):  # the kernel evicts what it likes, and a busy machine may use the turn of the loop up
            path.read_bytes()
            steps: list[int] = []
            asyncio.get_running_loop().call_soon(steps.append, 1)
            async with files.open(path, mode) as file:
                assert len([line async for line in file]) == len(LINES)
                await file.seek(0)
                assert len(await file.read()) == len(TEXT)
                assert not await file.readline()
                assert await file.tell() == len(TEXT)
            if not steps:
                return
            await asyncio.sleep(0)
        raise AssertionError("each time the loop went round")

    once(main)


def test_what_is_not_goes_away(run: Run, away: list[int], path: Path) -> None:
    """Each read that misses is done elsewhere; the next one asks again."""
    needs_probes(path)

    async def main() -> None:
        before = on_workers()
        async with files.open(path) as file:
            assert await file.read(10) == TEXT[:10]
            assert await file.readline() == TEXT[10:].partition("\n")[0] + "\n"
            assert [line async for line in file] == LINES[2:]
        assert away
        assert on_workers() > before

    run(main)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EIO])
def test_answers_of_the_kernel(once: Run, monkeypatch: pytest.MonkeyPatch, path: Path, number: int) -> None:
    """Whatever it says of what is in memory, a file has its bytes; a short answer is one about its beginning only."""

    def refuse(*args: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(probes, "_refuses", set())
    really = os.preadv

    def some(descriptor: int, buffers: list[Any], offset: int, flags: int) -> int:
        return really(descriptor, [memoryview(buffers[0])[:5000]], offset) if offset < 5000 else 0

    async def main() -> None:
        for answer in (some, refuse):
            monkeypatch.setattr(probes.os, "preadv", answer)
            for mode in ("r", "rb"):
                async with files.open(path, mode) as file:
                    assert len(await file.read(7)) == 7
                    assert await anext(file)
                    rest = await file.read()
                    assert len(rest) == len(TEXT) - len(LINES[0]) - len(LINES[1])
                    assert await file.read() == rest[:0]

    once(main)


def test_large_reads_are_not_done_in_place(
    once: Run, monkeypatch: pytest.MonkeyPatch, away: list[int], path: Path
) -> None:
    """What takes as long to copy as a worker costs goes there, and nobody looks where it is."""
    needs_probes(path)
    monkeypatch.setattr(streams, "LARGE", 1000)

    async def main() -> None:
        async with files.open(path, "rb", buffering=0) as file:
            assert len(await file.read()) == len(TEXT)
            assert not away

    once(main)


def test_buffers_of_another_size(once: Run, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """As much is looked for as the buffer will read."""
    needs_probes(path)
    ends: list[int] = []
    monkeypatch.setattr(streams, "known_until", lambda descriptor, offset, end: ends.append(end) or end)

    async def main() -> None:
        async with files.open(path, "rb", buffering=30_000) as file:
            await file.read(1)
        assert ends[0] > 30_000

    once(main)


def test_files_that_change(run: Run, path: Path) -> None:
    """What is added is read, what is cut off is not, and a name that is removed does no harm."""

    async def main() -> None:
        path.write_bytes(b"one\n")
        with path.open("ab", buffering=0) as other:
            async with files.open(path, "rb") as file:
                assert [line async for line in file] == [b"one\n"]
                other.write(b"two\n" * 50_000)
                assert len([line async for line in file]) == 50_000
                other.truncate(2)
                assert await file.read() == b""
                await file.seek(0)
                path.unlink()
                assert await file.read() == b"on"
                assert (await file.stat()).st_nlink == 0

    run(main)


def test_far_into_a_sparse_file(run: Run, tmp_path: Path) -> None:
    """Positions beyond 4 GiB are as any other."""
    far = 5 << 30

    async def main() -> None:
        async with files.open(tmp_path / "file", "wb") as file:
            assert await file.seek(far) == far
            await file.write(b"end\n")
            await file.fsync()
        async with files.open(tmp_path / "file", "rb") as file:
            assert await file.seek(-10, os.SEEK_END) == far - 6
            assert await anext(file) == bytes(6) + b"end\n"
            assert await file.tell() == far + 4

    run(main)


def test_attributes(once: Run, path: Path) -> None:
    """A file has those of Python's, and no others."""

    async def main() -> None:
        async with files.open(path, encoding="utf-8") as file:
            assert (file.encoding, file.errors, file.mode, file.name) == ("utf-8", "strict", "r", str(path))
            assert file.buffer.raw.name == str(path)
            assert not hasattr(file, "read_text")
            with pytest.raises(AttributeError, match="'File' object has no attribute 'raw_'"):
                _ = file.raw_
            assert repr(file).startswith("<threadlets File of <_io.TextIOWrapper")
            assert file.readable()
            assert not await file.writable()
        async with files.open(path, "rb") as binary:
            assert not hasattr(binary, "encoding")

    once(main)


def test_what_has_no_size_is_asked_for_its_end(once: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of /proc, which may wait for ever, is not read in place since there seems to be nothing to read."""
    monkeypatch.setattr(probes, "_refuses", set())
    monkeypatch.setattr(probes, "NOWAIT", getattr(os, "RWF_NOWAIT", 0))

    async def main() -> None:
        async with files.open("/proc/self/status") as file:
            device = (await file.stat()).st_dev
            assert "Name:" in await file.read()
        assert not probes.NOWAIT or device in probes._refuses

    once(main)
