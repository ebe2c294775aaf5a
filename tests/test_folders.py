"""Folders: what is found in them, what is held of it, and that nothing is opened which may wait."""

from __future__ import annotations

import asyncio
import gc
import os
import stat
import threading
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.support import descriptors
from tests.workbench import PATIENCE, Gate, until
from threadlets import folders, syscalls
from threadlets.folders import find, open_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, a folder, a FIFO, and links in and out."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"0123456789")
    (tmp_path / "out.txt").write_text("outside")
    os.mkfifo(folder / "fifo")
    (folder / "sub" / "up.txt").symlink_to("../a.txt")
    (folder / "out.txt").symlink_to("../out.txt")
    return folder


def test_what_is_found(run: Run, folder: Path) -> None:
    """Paths are real ones, parts are exact, links that leave are nothing unless they may, and all is closed."""

    async def main() -> None:
        before = descriptors(folder.parent)
        found = await find(str(folder), "sub/up.txt")
        assert found is not None and found.is_file and not found.is_dir
        assert found.path == os.path.realpath(folder / "a.txt") and found.status.st_size == 10
        assert await found.read(2, 5) == b"23456" and await found.read(0, 10) == b"0123456789"
        assert found.is_at_hand(0, 10) in (True, not folders.takes_probes(found.status)) and not found.is_at_hand(0, 11)
        for offset, size in ((0, 11), (10, 1), (99, 1)):
            with pytest.raises(EOFError, match="was cut off at"):
                await found.read(offset, size)
        found.close()
        found.close()
        around = await find(str(folder), ".")
        assert around is not None and around.is_dir and around.path == os.path.realpath(folder)
        assert await find(str(folder), "out.txt") is None and await find(str(folder), "../out.txt") is None
        followed = await find(str(folder), "out.txt", follow=True)
        assert followed is not None and await followed.read(0, 7) == b"outside"
        assert followed.path == str(folder / "out.txt") and "out.txt', 7 bytes" in repr(followed)
        assert await find(str(folder / "nothing"), "a.txt") is None
        del around, followed
        assert descriptors(folder.parent) == before

    run(main)


def test_files_by_their_paths(folder: Path) -> None:
    """A link at the end is followed or not, and what is not there is an error as of ``os.stat``."""

    async def main() -> None:
        found = await open_file(folder / "sub" / "up.txt")
        assert await found.read(0, 1) == b"0" and found.path == str(folder / "sub" / "up.txt")
        link = await open_file(folder / "sub" / "up.txt", follow=False)
        assert stat.S_ISLNK(link.status.st_mode) and not link.is_file
        with pytest.raises(FileNotFoundError):
            await open_file(folder / "nothing")
        with pytest.raises(ValueError):
            await open_file("\0")

    asyncio.run(main())


@pytest.mark.parametrize("road", ["in place", "elsewhere", "without O_PATH"])
def test_who_waits_for_a_reader_goes_on_waiting(folder: Path, road: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIFO is found, but not opened: nobody who wants to write into it is let in."""
    if road != "in place":
        monkeypatch.setattr(syscalls, "_openat2", lambda *_: -11)
    if road == "without O_PATH":
        monkeypatch.setattr(folders, "O_PATH", 0)
    writer = threading.Thread(target=lambda: (folder / "fifo").write_bytes(b"x"))

    async def main() -> None:
        for _ in range(3):
            found = await find(str(folder), "fifo")
            assert found is not None and not found.is_file
            assert not (await open_file(folder / "fifo")).is_file
        assert writer.is_alive()

    writer.start()
    try:
        asyncio.run(main())
    finally:
        assert (folder / "fifo").read_bytes() == b"x"
        writer.join(PATIENCE)


def test_a_read_that_is_left_behind_keeps_its_descriptor(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is cancelled while a worker reads may close the file; it is closed when the worker is done with it."""
    gate = Gate()
    really = folders._pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        gate()
        data = really(descriptor, size, offset)
        read.append(data)
        return data

    async def main() -> None:
        before = descriptors(folder.parent)
        found = await find(str(folder), "a.txt")
        assert found is not None
        monkeypatch.setattr(type(found), "_read_nowait", lambda *_: None)
        monkeypatch.setattr(folders, "takes_probes", lambda status: True)
        task = asyncio.create_task(found.read(0, 10))
        await asyncio.get_running_loop().run_in_executor(None, gate.wait_arrived)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        found.close()
        del found, task
        held = descriptors(folder.parent)
        gate.open()
        await until(lambda: gc.collect() >= 0 and descriptors(folder.parent) < held)
        assert read == [b"0123456789"] and held > before

    read: list[bytes] = []
    monkeypatch.setattr(folders, "_pread", pread)
    run(main)


def test_a_device_that_cannot_be_asked_is_remembered() -> None:
    """Files in memory (tmpfs) are read as they are, after the first attempt without one more question."""
    place = Path("/dev/shm")
    if not os.access(place, os.W_OK):
        pytest.skip("there is no /dev/shm")
    file = place / f"threadlets-{os.getpid()}"
    file.write_bytes(b"memory")

    async def main() -> None:
        found = await open_file(file)
        for _ in range(3):
            assert await found.read(0, 6) == b"memory"
        with pytest.raises(EOFError):
            await found.read(0, 7)
        for _ in range(3):
            again = await find(str(place), file.name)
            assert again is not None and await again.read(0, 6) == b"memory"
        assert str(file) not in folders._ordinary  # each of these may be a journey to a server

    try:
        asyncio.run(main())
    finally:
        file.unlink()


@pytest.mark.parametrize("becomes", ["a FIFO", "a link to outside", "a folder", "nothing", "another file"])
def test_what_was_an_ordinary_file_and_is_none(folder: Path, becomes: str) -> None:
    """What a path was the last time is no more than a guess: nobody waits, and nothing wrong is read."""
    file = folder / "a.txt"

    async def main() -> None:
        for _ in range(3):
            found = await find(str(folder), "a.txt")
            assert found is not None and await found.read(0, 10) == b"0123456789"
        del found
        before = descriptors(folder.parent)
        file.unlink()
        if becomes == "a FIFO":
            os.mkfifo(file)
        elif becomes == "a link to outside":
            file.symlink_to("../out.txt")
        elif becomes == "a folder":
            file.mkdir()
        elif becomes == "another file":
            file.write_bytes(b"abc")
        for _ in range(3):
            found = await find(str(folder), "a.txt")
            if becomes in ("nothing", "a link to outside"):
                assert found is None
            else:
                assert found is not None and found.is_file == (becomes == "another file")
                assert not found.is_file or await found.read(0, 3) == b"abc"
        del found
        assert descriptors(folder.parent) == before

    asyncio.run(main())


def test_no_more_paths_are_remembered_than_there_is_room_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many files are read."""
    monkeypatch.setattr(folders, "ORDINARY", 3)
    monkeypatch.setattr(folders, "_ordinary", set())

    async def main() -> None:
        for number in range(10):
            (folder / str(number)).write_bytes(b"x")
            found = await find(str(folder), str(number))
            assert found is not None and await found.read(0, 1) == b"x"
            assert len(folders._ordinary) <= 3

    asyncio.run(main())


def test_the_root_is_a_folder_too() -> None:
    """Its path has the slash that others do not have."""

    async def main() -> None:
        found = await find("/", "etc")
        assert found is not None and found.path == os.path.realpath("/etc")

    asyncio.run(main())
