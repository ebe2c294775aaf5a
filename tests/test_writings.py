"""Files that are written and copied: all at once or not at all, whatever fails, and as shutil does it."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import Gate, until
from threadlets import files, writings
from threadlets.ways import Ways

OLD, NEW = b"old" * 1000, b"new" * 2000


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return the path of a file that is to be replaced."""
    path = tmp_path / "target"
    path.write_bytes(OLD)
    return path


def failing(number: int) -> Callable[..., Any]:
    """Return a call that fails."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("atomic", [False, True])
def test_writing(run: Run, tmp_path: Path, atomic: bool) -> None:
    """What is written is in the file, in bytes or in characters, and nothing else is in the folder."""

    async def main() -> None:
        path = tmp_path / "file"
        for data in (b"one", b"", bytearray(b"two"), memoryview(b"xthreex")[1:6]):
            assert await files.write_bytes(path, data, atomic=atomic) == len(data)
            assert path.read_bytes() == data
        assert await files.write_text(path, "äö\nü", "utf-16", atomic=atomic) == 4
        assert path.read_text("utf-16") == "äö\nü"
        assert await files.write_text(str(path), "a\nb", newline="\r\n", atomic=atomic) == 3
        assert path.read_bytes() == b"a\r\nb"
        with pytest.raises(UnicodeEncodeError):
            await files.write_text(path, "a\ud800", "utf-8", atomic=atomic)
        for wrong in (b"bytes", None):
            with pytest.raises(TypeError):
                await files.write_text(path, wrong, atomic=atomic)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await files.write_bytes(path, "text", atomic=atomic)  # type: ignore[arg-type]
        assert path.read_bytes() == b"a\r\nb"
        assert os.listdir(tmp_path) == ["file"]

    run(main)


@pytest.mark.parametrize("atomic", [False, True])
def test_names_that_cannot_be_written(once: Run, tmp_path: Path, atomic: bool) -> None:
    """Exceptions are those of the builtin, with the name that was asked for."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    names: list[Any] = [tmp_path, tmp_path / "no/file", tmp_path / "loop", tmp_path / "file/x"]
    names += ["", f"{tmp_path}/new/", f"{tmp_path}/a\0b"]

    async def main() -> None:
        for name in names:
            with pytest.raises((OSError, ValueError)) as expected, open(name, "wb"):
                pass
            with pytest.raises(expected.type) as got:
                await files.write_bytes(name, b"data", atomic=atomic)
            if isinstance(expected.value, OSError):
                assert str(got.value) == str(expected.value)
        with pytest.raises((IsADirectoryError, NotADirectoryError)):
            await files.write_bytes(f"{tmp_path}/file/", b"data", atomic=atomic)
        assert sorted(os.listdir(tmp_path)) == ["file", "loop"]

    once(main)


def test_a_replacement_keeps_what_is_not_its_content(once: Run, tmp_path: Path, target: Path) -> None:
    """Permissions stay, a link is followed, and a device is written to."""
    target.chmod(0o6741)
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "dangling").symlink_to("made")
    before = os.stat("/dev/null")

    async def main() -> None:
        inode = target.stat().st_ino
        await files.write_bytes(tmp_path / "link", NEW, atomic=True)
        assert (tmp_path / "link").is_symlink()
        assert target.read_bytes() == NEW
        assert stat.S_IMODE(target.stat().st_mode) == 0o6741
        assert target.stat().st_ino != inode
        await files.write_bytes(tmp_path / "dangling", NEW, atomic=True)
        assert (tmp_path / "made").read_bytes() == NEW
        umask = os.umask(0)
        os.umask(umask)
        assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o666 & ~umask
        await files.write_bytes("/dev/null", NEW, atomic=True)
        assert os.stat("/dev/null").st_ino == before.st_ino

    once(main)


def test_a_replacement_is_handed_to_the_disk(once: Run, monkeypatch: pytest.MonkeyPatch, target: Path) -> None:
    """First the new file, then it is renamed, then the folder."""
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def replaced(*args: Any) -> None:
        steps.append("rename")
        assert target.read_bytes() == OLD
        replace(*args)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)

    async def main() -> None:
        await files.write_bytes(target, NEW, atomic=True)
        assert steps == ["file", "rename", "folder"]
        await files.write_bytes(target, NEW)
        assert len(steps) == 3

    once(main)


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_failure_leaves_the_old_file(once: Run, monkeypatch: pytest.MonkeyPatch, target: Path, call: str) -> None:
    """Whatever fails before the renaming leaves no trace."""
    monkeypatch.setattr(os, call, failing(errno.EIO))

    async def main() -> None:
        with pytest.raises(OSError, match="Input/output error"):
            await files.write_bytes(target, NEW, atomic=True)
        assert target.read_bytes() == OLD
        assert os.listdir(target.parent) == ["target"]

    once(main)


def test_who_may_not_give_files_away_replaces_them(once: Run, monkeypatch: pytest.MonkeyPatch, target: Path) -> None:
    """That the owner cannot be kept is no failure."""
    monkeypatch.setattr(os, "fchown", failing(errno.EPERM))

    async def main() -> None:
        await files.write_bytes(target, NEW, atomic=True)
        assert target.read_bytes() == NEW

    once(main)


@pytest.mark.parametrize("copies", [False, True])
def test_a_cancel_leaves_the_old_file(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: Path, copies: bool
) -> None:
    """A replacement that is cancelled while it is written ends there, and leaves no trace and no descriptor."""
    gate = Gate()
    fsync = os.fsync
    source = tmp_path / "source"
    source.write_bytes(NEW)

    def wait(descriptor: int) -> None:
        gate()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", wait)

    async def main() -> None:
        attempt = files.copy(source, target, atomic=True) if copies else files.write_bytes(target, NEW, atomic=True)
        task = asyncio.ensure_future(attempt)
        await until(lambda: gate._arrived.acquire(blocking=False))
        before = set(os.listdir("/proc/self/fd"))
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert target.read_bytes() == OLD
        assert sorted(os.listdir(tmp_path)) == ["source", "target"]
        assert set(os.listdir("/proc/self/fd")) < before

    run(main)


def test_a_plain_write_that_is_cancelled_is_finished(once: Run, monkeypatch: pytest.MonkeyPatch, target: Path) -> None:
    """Without a replacement the file would be torn: so a cancel waits for the whole."""
    gate = Gate()
    write = writings._write
    monkeypatch.setattr(writings, "PIECE", 100)

    def wait(*args: Any) -> None:
        gate()
        write(*args)

    monkeypatch.setattr(writings, "_write", wait)
    monkeypatch.setattr(files, "_writes", Ways(writings.write_file))  # which has not learned that it is quick

    async def main() -> None:
        task = asyncio.ensure_future(files.write_bytes(target, NEW))
        await until(lambda: gate._arrived.acquire(blocking=False))
        task.cancel()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert target.read_bytes() == NEW

    once(main)


@pytest.mark.parametrize("atomic", [False, True])
def test_copying(run: Run, tmp_path: Path, atomic: bool) -> None:
    """The copy has the same bytes and permissions; into a folder it has the same name."""
    source = tmp_path / "source"
    source.write_bytes(NEW)
    source.chmod(0o640)
    (tmp_path / "folder").mkdir()

    async def main() -> None:
        for target in (tmp_path / "copy", tmp_path / "folder", os.fsencode(tmp_path / "bytes")):
            name: Any = os.fsencode(source) if isinstance(target, bytes) else source
            got = await files.copy(name, target, atomic=atomic)
            os.unlink(got)
            assert got == shutil.copy(name, target)
            os.unlink(got)
            await files.copy(name, target, atomic=atomic)
            with open(got, "rb") as file:
                assert file.read() == NEW
            assert stat.S_IMODE(os.stat(got).st_mode) == 0o640
        (tmp_path / "copy").write_bytes(OLD * 10)
        await files.copy(source, tmp_path / "copy", atomic=atomic)
        assert (tmp_path / "copy").read_bytes() == NEW
        assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]

    run(main)


@pytest.mark.parametrize("atomic", [False, True])
def test_what_cannot_be_copied(once: Run, tmp_path: Path, target: Path, atomic: bool) -> None:
    """Exceptions are those of shutil."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("target")
    os.link(target, tmp_path / "hard")
    pairs = [(target, target), (target, "link"), ("hard", target), ("fifo", "x"), (target, "fifo")]
    pairs += [("nothing", "x"), (".", "x"), (target, "no/x"), ("target\0", "x")]

    async def main() -> None:
        for source, goal in pairs:
            names = f"{tmp_path}/{source}" if isinstance(source, str) else source, f"{tmp_path}/{goal}"
            if goal is target:
                names = names[0], str(target)
            with pytest.raises((OSError, ValueError)) as expected:
                shutil.copy(*names)
            with pytest.raises(expected.type) as got:
                await files.copy(*names, atomic=atomic)
            assert str(got.value) == str(expected.value)
        assert target.read_bytes() == OLD

    once(main)


REFUSALS = [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM]


@pytest.mark.parametrize("number", [*REFUSALS, 0, -1])
def test_copying_without_the_kernel(
    once: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: Path, number: int
) -> None:
    """Where the kernel cannot copy, or copies nothing, or there is no such call, bytes are read and written."""
    if number < 0:
        monkeypatch.delattr(os, "copy_file_range")
    else:
        monkeypatch.setattr(os, "copy_file_range", failing(number) if number else lambda *args: 0)
    source = tmp_path / "source"
    source.write_bytes(NEW)

    async def main() -> None:
        await files.copy(source, target)
        assert target.read_bytes() == NEW

    once(main)


def test_a_copy_that_the_kernel_gives_up(once: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the kernel has copied is not copied again; a failure of the disk is raised."""
    really = os.copy_file_range
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(NEW)
    calls: list[int] = []

    def some(*args: Any) -> int:
        calls.append(args[3])
        if len(calls) > 2:
            return int(failing(errno.EXDEV)())
        return really(*args[:2], 100, *args[3:])

    monkeypatch.setattr(os, "copy_file_range", some)

    async def main() -> None:
        await files.copy(source, target)
        assert target.read_bytes() == NEW
        assert calls == [0, 100, 200]
        monkeypatch.setattr(os, "copy_file_range", failing(errno.ENOSPC))
        with pytest.raises(OSError, match="No space"):
            await files.copy(source, target, atomic=True)
        assert target.read_bytes() == NEW
        assert len(os.listdir(tmp_path)) == 2

    once(main)


def test_a_reflink_is_the_whole_copy(once: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the file system shares the blocks nothing is copied."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(NEW)
    monkeypatch.setattr(writings, "_is_cloned", lambda source, target: bool(os.write(target, NEW)))
    monkeypatch.setattr(os, "copy_file_range", failing(errno.EIO))

    async def main() -> None:
        await files.copy(source, target)
        assert target.read_bytes() == NEW

    once(main)


@pytest.mark.parametrize("holes", [[(0, b"begin"), (5 << 30, b"end")], [(1 << 20, b"x")], [(0, b"y"), (1 << 22, b"")]])
def test_holes_stay_holes(once: Run, tmp_path: Path, holes: list[tuple[int, bytes]]) -> None:
    """A sparse file, of any size, is copied as one."""
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        for offset, data in holes:
            file.seek(offset)
            file.write(data)
        file.truncate()

    async def main() -> None:
        await files.copy(source, target)
        assert target.stat().st_size == source.stat().st_size
        assert target.stat().st_blocks <= source.stat().st_blocks + 16
        async with files.open(target, "rb") as file:
            for offset, data in holes:
                assert await file.seek(offset) == offset
                assert await file.read(len(data)) == data
            assert await file.read() == b""

    once(main)


def test_files_without_a_size_are_copied(once: Run, tmp_path: Path) -> None:
    """Those of /proc and /sys say that they are empty, or a page."""

    async def main() -> None:
        for name in ("/proc/version", "/sys/kernel/mm/transparent_hugepage/enabled", "/dev/null"):
            if os.path.exists(name):
                with open(name, "rb") as file:
                    expected = file.read()
                await files.copy(name, tmp_path / "copy")
                assert (tmp_path / "copy").read_bytes() == expected

    once(main)


def test_a_full_disk(once: Run) -> None:
    """It is told as by the builtin."""

    async def main() -> None:
        for atomic in (False, True):
            with pytest.raises(OSError, match="No space left"):
                await files.write_bytes("/dev/full", NEW, atomic=atomic)

    once(main)
