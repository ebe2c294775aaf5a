"""Files that have to be waited for: FIFOs, terminals, devices; whoever is cancelled meanwhile waits no more."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sys
import termios
from asyncio import CancelledError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import rounds, until
from threadlets import files, openings

BIG = b"0123456789abcdef" * 40_000  # ten times as much as a pipe holds


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Return the path of a FIFO."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def descriptors() -> int:
    """Return how many are open, but for those of bells, which are kept."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # that of the folder
            continue
    return sum("eventfd" not in link for link in links)


def test_an_opening_that_is_cancelled(run: Run, monkeypatch: pytest.MonkeyPatch, fifo: Path) -> None:
    """It ends at once. What is opened later for nobody is closed, and nothing that is written is lost."""
    steps: list[str] = []

    def told_open(*args: Any) -> Any:
        steps.append("begins")
        file = open(*args)  # noqa: SIM115
        steps.append("has opened")
        return file

    monkeypatch.setattr(openings, "builtins", SimpleNamespace(open=told_open))

    async def main() -> None:
        steps.clear()
        before = descriptors()
        opening = asyncio.ensure_future(anext_of(files.open(fifo, "rb")))
        await until(lambda: steps)
        opening.cancel()
        with pytest.raises(CancelledError):
            await opening
        del opening
        writer = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)  # lets the thread go on that was left behind
        os.write(writer, b"kept")
        await until(lambda: len(steps) == 2)
        await until(lambda: descriptors() == before + 1)
        async with files.open(fifo, "rb", buffering=0) as file:
            assert await file.read(10) == b"kept"
        os.close(writer)
        assert descriptors() == before

    run(main)


def waiting_bytes(descriptor: int) -> int:
    """Return how many there are to be read."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


async def anext_of(opening: Any) -> Any:
    """Await what is no coroutine."""
    return await opening


def test_a_fifo_is_read_and_written(run: Run, fifo: Path) -> None:
    """Both ends may belong to one loop; more than fits into a pipe goes through."""

    async def read() -> bytes:
        async with files.open(fifo, "rb") as file:
            return await file.read()

    async def main() -> None:
        reading = asyncio.create_task(read())
        async with files.open(fifo, "wb") as file:
            assert file.name == str(fifo)
            assert file.mode == "wb"
            assert await file.write(BIG) == len(BIG)
        assert await reading == BIG

    run(main)


def test_lines_of_a_fifo(run: Run, fifo: Path) -> None:
    """They come when they are written."""

    async def main() -> None:
        writer = os.open(fifo, os.O_RDWR)
        async with files.open(fifo, encoding="utf-8", newline="") as file:
            for line in ("one\n", "zwölf\r\n"):
                os.write(writer, line.encode())
                assert await anext(file) == line
            os.write(writer, b"rest")
            os.close(writer)
            assert [line async for line in file] == ["rest"]

    run(main)


@pytest.mark.parametrize("options", [{"mode": "rb"}, {"mode": "rb", "buffering": 0}, {"mode": "r"}])
def test_a_read_of_a_fifo_that_is_cancelled(run: Run, fifo: Path, options: dict[str, Any]) -> None:
    """It ends at once; what is written later is read by the next one."""

    async def main() -> None:
        before = descriptors()
        writer = os.open(fifo, os.O_RDWR)
        async with files.open(fifo, **options) as file:
            reading = asyncio.create_task(file.read(4))
            await rounds()
            reading.cancel()
            with pytest.raises(CancelledError):
                await reading
            os.write(writer, b"word")
            assert await file.read(4) in ("word", b"word")
        os.close(writer)
        assert descriptors() == before

    run(main)


def test_a_write_to_a_fifo_that_is_cancelled(run: Run, fifo: Path) -> None:
    """It ends although nobody reads; and so does the closing, if that is cancelled, with the loop."""

    async def main() -> None:
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        file = await files.open(fifo, "wb", buffering=0)
        writing = asyncio.create_task(file.write(BIG))
        await until(lambda: waiting_bytes(reader) >= 1 << 16)
        writing.cancel()
        with pytest.raises(CancelledError):
            await writing
        assert BIG.startswith(os.read(reader, 1 << 20))
        await file.close()
        os.close(reader)

    run(main)


def test_the_wrong_direction(once: Run, fifo: Path) -> None:
    """To read from what is open for writing, or to write the other way round, fails as with the builtin, at once."""

    async def main() -> None:
        end = os.open(fifo, os.O_RDWR)
        for mode, name, args in (("wb", "read", (1,)), ("rb", "write", (b"x",)), ("rb", "truncate", ())):
            plain = open(fifo, mode, buffering=0)  # noqa: SIM115
            with pytest.raises((OSError, ValueError)) as expected:
                getattr(plain, name)(*args)
            plain.close()
            async with files.open(fifo, mode, buffering=0) as file:
                with pytest.raises(expected.type) as got:
                    await getattr(file, name)(*args)
                assert str(got.value) == str(expected.value)
                assert await file.seekable() is False
        os.close(end)

    once(main)


def test_a_pipe_that_does_not_block(once: Run) -> None:
    """What is not to wait does not: it reads nothing, and writes what there is room for."""

    async def main() -> None:
        reads, writes = os.pipe()
        os.set_blocking(reads, False)
        os.set_blocking(writes, False)
        async with files.open(reads, "rb", buffering=0) as source, files.open(writes, "wb", buffering=0) as sink:
            assert await source.read(5) is None
            assert 0 < (wrote := await sink.write(BIG)) < len(BIG)
            assert await source.read(len(BIG)) == BIG[:wrote]

    once(main)


def test_devices(run: Run) -> None:
    """Null has nothing, zero is endless, and full is full: then the file is closed all the same."""

    async def main() -> None:
        before = descriptors()
        async with files.open("/dev/null", "rb") as file:
            assert await file.read() == b""
        async with files.open("/dev/zero", "rb") as file:
            assert await file.read(10) == bytes(10)
        for options in ({"mode": "wb"}, {"mode": "w"}, {"mode": "wb", "buffering": 0}):
            file = await files.open("/dev/full", **options)
            data: Any = "x" if options["mode"] == "w" else b"x"
            with pytest.raises(OSError, match="No space left") as caught:
                await file.write(data)
                await file.flush()
            assert caught.value.errno == errno.ENOSPC
            if "buffering" not in options:
                with pytest.raises(OSError, match="No space left"):
                    await file.close()
            await file.close()
            assert file.closed
        assert descriptors() == before

    run(main)


def test_a_terminal(once: Run) -> None:
    """A terminal is read by line, and a cancelled read takes nothing."""

    async def main() -> None:
        near, far = os.openpty()
        async with files.open(far, encoding="utf-8") as file, files.open(near, "wb", buffering=0) as keys:
            assert await file.isatty()
            assert file.line_buffering
            assert (file.encoding, file.errors, file.mode) == ("utf-8", "strict", "r")
            reading = asyncio.create_task(file.readline())
            await rounds()
            reading.cancel()
            with pytest.raises(CancelledError):
                await reading
            await keys.write(b"typed\n")
            assert await file.readline() == "typed\n"

    once(main)
