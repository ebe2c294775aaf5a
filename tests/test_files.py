"""Whole files, and names: in place if they are in memory, elsewhere if not, and the same results in either way."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.support import read_now
from tests.workbench import rounds, until
from threadlets import files, probes, readings, syscalls
from threadlets.ways import Ways

DATA = b"Some bytes: \xff\n" * 1000
TEXT = "Zeile äöü\r\nnoch eine\n" * 50
KINDS = ["in memory", "a miss", "refused", "no openat2", "on disk"]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be learned from other tests."""
    monkeypatch.setattr(probes, "_refuses", set())
    monkeypatch.setattr(readings, "_refusing", {})
    for name in ("reads", "text_reads", "reads_into"):
        ways = getattr(files, name)
        monkeypatch.setattr(files, name, Ways(ways._function, ways.away.contract.cancel))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the kernel answer in one of its ways."""
    if request.param == "a miss":
        refuse(monkeypatch, errno.EAGAIN)
    elif request.param == "refused":
        refuse(monkeypatch, errno.EOPNOTSUPP)
    elif request.param == "no openat2":
        without_openat2(monkeypatch)
    return str(request.param)


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let all reads that are not to wait fail."""

    def preadv(*args: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(probes.os, "preadv", preadv)


def without_openat2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system know no names without a wait."""
    monkeypatch.setattr(syscalls, "_openat2", syscalls._no_openat2)


def evict(path: Path) -> None:
    """Take a file out of the page cache."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def sent_away(ways: Ways[Any, Any]) -> int:
    """Return how many calls were made on workers."""
    return sum(each.statistics().on_workers for each in (ways.away, *ways._learned.values()))


async def outcome(attempt: Awaitable[Any]) -> Any:
    """Return a result, or what of an exception has to be the same."""
    try:
        return await attempt
    except Exception as error:
        return type(error), str(error)


def plainly(function: Callable[[], Any]) -> Any:
    """Return the same of a plain call."""
    try:
        return function()
    except Exception as error:
        return type(error), str(error)


def plain_bytes(path: Any) -> bytes:
    """Read as a program without us does."""
    with open(path, "rb") as file:
        return file.read()


def plain_text(path: Any, options: dict[str, Any]) -> str:
    """Read text as a program without us does."""
    with open(path, **options) as file:
        return str(file.read())


def test_reading(run: Run, kind: str, tmp_path: Path) -> None:
    """Bytes, text and buffers have what is in the file, wherever it is read."""
    path, text = tmp_path / "file", tmp_path / "text"
    path.write_bytes(DATA)
    text.write_bytes(TEXT.encode())

    async def main() -> None:
        if kind == "on disk":
            evict(path)
        assert await files.read_bytes(path) == DATA
        assert await files.read_text(text, "utf-8", newline="") == TEXT
        assert await files.read_text(str(text), "utf-8") == TEXT.replace("\r\n", "\n")
        assert await files.read_text(os.fsencode(text), "ascii", "replace") == text.read_text("ascii", "replace")
        buffer = bytearray(30_000)
        assert await files.read_into(path, buffer) == len(DATA)
        assert buffer.rstrip(b"\0") == DATA
        assert await files.read_into(path, memoryview(buffer)[:5]) == 5

    run(main)


@pytest.mark.skipif(
    not (syscalls.has_openat2() and probes.NOWAIT), reason="this system does not tell what is in memory"
)
def test_misses_go_to_a_worker(once: Run, tmp_path: Path) -> None:
    """What was taken out of the page cache is read elsewhere, once; then it is there."""
    path = tmp_path / "file"
    path.write_bytes(DATA)

    async def main() -> None:
        for _ in range(50):  # the kernel evicts what it likes
            evict(path)
            assert await files.read_bytes(path) == DATA
            if sent_away(files.reads):
                break
        else:
            pytest.skip("the file stays in memory")
        assert sent_away(files.reads) == 1
        await files.read_bytes(path)
        assert sent_away(files.reads) == 1

    once(main)


@pytest.mark.skipif(
    not (syscalls.has_openat2() and probes.NOWAIT), reason="this system does not tell what is in memory"
)
def test_hits_stay_in_place(once: Run, tmp_path: Path) -> None:
    """What is in memory is read within one step of the task."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    if not isinstance(read_now(path), bytes):
        pytest.skip("this file system does not read without waiting")

    async def main() -> None:
        steps: list[int] = []
        asyncio.get_running_loop().call_soon(steps.append, 1)
        assert await files.read_bytes(path) == DATA
        assert await files.stat(path) == path.stat()
        assert await files.read_text(path, "latin-1") == DATA.decode("latin-1")
        assert not steps
        assert not files.reads._learned

    once(main)


def test_failures_are_those_of_open(once: Run, kind: str, tmp_path: Path) -> None:
    """Whatever is wrong with a name, exceptions are those of the builtin."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "bad").write_bytes(b"ok\xff")
    names: list[Any] = [tmp_path / name for name in ("nothing", "loop", "dangling", "bad/below", "x" * 300)]
    names += [tmp_path, "", f"{tmp_path}\0", b"\0", f"{tmp_path}/bad\0", "\ud800", None, 2.5, [], 10_000]

    async def main() -> None:
        for name in names:
            assert await outcome(files.read_bytes(name)) == plainly(lambda name=name: plain_bytes(name)), name
            assert await outcome(files.stat(name)) == plainly(lambda name=name: os.stat(name)), name
            assert await outcome(files.exists(name)) == plainly(lambda name=name: os.path.exists(name)), name
            assert await outcome(files.is_dir(name)) == plainly(lambda name=name: os.path.isdir(name)), name
            assert await outcome(files.is_file(name)) == plainly(lambda name=name: os.path.isfile(name)), name
        for wrong in ({"encoding": "utf-8"}, {"encoding": "none"}, {"encoding": "utf-8", "newline": "x"}):
            expected = plainly(lambda wrong=wrong: plain_text(tmp_path / "bad", wrong))
            assert await outcome(files.read_text(tmp_path / "bad", **wrong)) == expected
        for buffer in (b"", 5):
            with pytest.raises(TypeError):
                await files.read_into(tmp_path / "bad", buffer)

    once(main)


def test_files_without_a_size(run: Run) -> None:
    """Files of /proc and /sys say that they are empty, or a page, and are neither."""

    async def main() -> None:
        assert await files.read_bytes("/proc/self/comm") == plain_bytes("/proc/self/comm") != b""
        assert b"Name:" in await files.read_bytes("/proc/self/status")
        assert await files.read_text("/proc/version") == plain_bytes("/proc/version").decode()
        assert await files.read_into("/proc/version", bytearray(5)) == 5
        if os.path.exists(path := "/sys/kernel/mm/transparent_hugepage/enabled"):
            assert await files.read_bytes(path) == plain_bytes(path) != b""
        assert await files.read_bytes("/dev/null") == b""
        async with files.open("/proc/self/status") as file:
            assert (await file.readline()).startswith("Name:")
            assert "Threads:" in await file.read()

    run(main)


def test_odd_names(run: Run, tmp_path: Path) -> None:
    """Names that are not UTF-8 are bytes, or have surrogates; a link is followed, or not."""
    odd = os.fsencode(tmp_path) + b"/\xff\xfe"

    async def main() -> None:
        assert await files.write_bytes(odd, DATA) == len(DATA)
        assert await files.read_bytes(os.fsdecode(odd)) == DATA
        await files.symlink(odd, tmp_path / "link")
        assert await files.stat(tmp_path / "link") == os.stat(odd)
        assert await files.lstat(tmp_path / "link") == os.lstat(tmp_path / "link")
        assert await files.readlink(os.fsencode(tmp_path / "link")) == odd
        assert set(await files.listdir(os.fsencode(tmp_path))) == {b"\xff\xfe", b"link"}
        assert {entry.name for entry in await files.scandir(tmp_path)} == {os.fsdecode(b"\xff\xfe"), "link"}
        await files.unlink(tmp_path / "link")
        await files.unlink(odd)
        await files.makedirs(tmp_path / "a/b", exist_ok=True)
        await files.rename(tmp_path / "a/b", tmp_path / "c")
        await files.rmdir(tmp_path / "c")
        assert await files.listdir(tmp_path) == ["a"]

    run(main)


def test_no_permission() -> None:
    """Who may not read a file is told so, as by open; a child that is not root asks."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        path = Path(folder, "secret")
        path.write_bytes(DATA)
        path.chmod(0)
        os.chmod(folder, 0o755)
        _ask_as_somebody(path)


def _ask_as_somebody(path: Path) -> None:
    child = os.fork()
    if not child:
        code = 1
        try:
            if not os.getuid():
                os.setresuid(12345, 12345, 12345)
            got = asyncio.run(outcome(files.read_bytes(path)))
            code = 0 if got == plainly(lambda: plain_bytes(path)) and got[0] is PermissionError else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_fifo_does_not_stop_the_loop(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A FIFO is opened elsewhere, to be read or written, however well other files did in place."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def main() -> None:
        reading = asyncio.ensure_future(files.read_bytes(fifo))
        await rounds()
        assert await files.write_bytes(fifo, b"one") == 3
        assert await reading == b"one"
        without_openat2(monkeypatch)
        for _ in range(40):  # ordinary files, until it is known that they are quick
            await files.read_bytes("/dev/null")
            await files.write_bytes(tmp_path / "file", b"")
        reading = asyncio.ensure_future(files.read_bytes(fifo))
        await rounds()
        assert await files.write_bytes(fifo, b"two") == 3
        assert await reading == b"two"

    run(main)


def test_thousands_at_once(once: Run, kind: str, tmp_path: Path) -> None:
    """As many as one likes may be read at once."""
    path = tmp_path / "file"
    path.write_bytes(DATA[:100])
    count = 5000 if kind == "in memory" else 500

    async def main() -> None:
        assert set(await asyncio.gather(*(files.read_bytes(path) for _ in range(count)))) == {DATA[:100]}

    once(main)


def test_others_get_their_turn(run: Run, tmp_path: Path) -> None:
    """Ten thousand reads from memory, or lines, in a row: the loop goes round meanwhile."""
    path = tmp_path / "file"
    path.write_bytes(b"line\n" * 100_000)
    small = tmp_path / "small"
    small.write_bytes(b"x")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> None:
        nonlocal turns
        other = asyncio.create_task(count())
        for _ in range(8000):
            await files.read_bytes(small)
        assert turns > 1
        turns = 0
        async with files.open(path) as file:
            async for _ in file:
                pass
        assert turns > 1
        other.cancel()

    run(main)


def test_a_read_that_is_cancelled(run: Run, tmp_path: Path) -> None:
    """A read from a FIFO is left behind at once; whoever opens it later finds nobody in the way."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def main() -> None:
        reading = asyncio.ensure_future(files.read_bytes(fifo))
        await rounds()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        end = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)  # lets the thread go on that was left behind
        await until(lambda: True)
        os.close(end)

    run(main)


@pytest.mark.parametrize("mode", ["r", "rb"])
def test_others_get_their_turn_while_lines_are_worked_on(once: Run, tmp_path: Path, mode: str) -> None:
    """Who takes long over each line gets small batches, between which the loop goes round."""
    path = tmp_path / "file"
    path.write_bytes(b"line\n" * 3000)
    lines = since = most = 0

    async def count() -> None:
        nonlocal since
        while True:
            since = lines
            await asyncio.sleep(0)

    async def main() -> None:
        nonlocal lines, most
        other = asyncio.create_task(count())
        async with files.open(path, mode) as file:
            async for _ in file:
                lines += 1
                most = max(most, lines - since)
                end = time.perf_counter() + 100e-6
                while time.perf_counter() < end:
                    pass
        other.cancel()
        assert lines == 3000
        assert most < 1000  # 6,000 and more, were batches not to follow

    once(main)


def test_writing_to_a_fifo_that_nobody_reads(run: Run, tmp_path: Path) -> None:
    """Whoever gives up is let go at once; whoever reads gets what was written."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def main() -> None:
        writing = asyncio.ensure_future(files.write_bytes(fifo, b"data"))
        await rounds()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            assert await files.write_bytes(fifo, b"data") == 4
            assert os.read(reader, 10) == b"data"
        finally:
            os.close(reader)

    run(main)
