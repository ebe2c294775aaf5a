"""Calls that answer at once or not at all: what each answer of the kernel means, made by it, or by a fake one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import read_now
from threadlets import probes, syscalls
from threadlets.probes import ABSENT, ATTEMPTS, MISS, glance, known_until, takes_probes

DATA = bytes(range(256)) * 64
Preadv = Callable[..., int]


@pytest.fixture(autouse=True)
def refuses(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Remember refusals of devices for one test only."""
    refuses: set[int] = set()
    monkeypatch.setattr(probes, "_refuses", refuses)
    return refuses


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a file."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def opened(file: Path) -> Iterator[int]:
    """Return a descriptor of it."""
    descriptor = os.open(file, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def fake(monkeypatch: pytest.MonkeyPatch, preadv: Preadv) -> list[int]:
    """Let the kernel answer reads that are not to wait like this; return the offsets that it is asked for."""
    asked: list[int] = []

    def read(descriptor: int, buffers: list[Any], offset: int, flags: int) -> int:
        assert flags == probes.NOWAIT != 0
        asked.append(offset)
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(probes, "NOWAIT", 8)
    monkeypatch.setattr(probes.os, "preadv", read)
    return asked


def failing(number: int) -> Preadv:
    """Return a call that fails."""

    def preadv(*args: Any) -> int:
        raise OSError(number, os.strerror(number))

    return preadv


REALLY = getattr(os, "preadv", None)


def at_most(count: int) -> Preadv:
    """Return a call that reads so many bytes at most, as if no more pages were there."""
    return lambda descriptor, buffers, offset: REALLY(descriptor, [memoryview(buffers[0])[:count]], offset)


whole = at_most(1 << 30)


def attempts(descriptor: int, path: Path) -> list[Any]:
    """Return what all reads say that may be answered at once."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    return [
        read_now(path),
        read_now(path, memoryview(bytearray(100))),
        ATTEMPTS[os.pread](descriptor, 50, 10),
        ATTEMPTS[os.read](descriptor, len(DATA)),
    ]


def test_what_is_in_memory_is_read(monkeypatch: pytest.MonkeyPatch, file: Path, opened: int) -> None:
    """Where all pages are there, each read has all its bytes, and the position moves as it does for the plain call."""
    fake(monkeypatch, whole)
    assert attempts(opened, file) == [DATA, 100, DATA[10:60], DATA]
    assert os.lseek(opened, 0, os.SEEK_CUR) == len(DATA)
    assert ATTEMPTS[os.read](opened, 5) == b""
    buffer = bytearray(300)
    assert read_now(file, memoryview(buffer)) == 300
    assert buffer == DATA[:300]


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM])
def test_refused_reads_are_misses(monkeypatch: pytest.MonkeyPatch, file: Path, opened: int, number: int) -> None:
    """What the kernel does not read at once is a miss, and the position stays."""
    fake(monkeypatch, failing(number))
    assert attempts(opened, file) == [MISS] * 4
    assert os.lseek(opened, 0, os.SEEK_CUR) == 0
    assert known_until(opened, 3, 1000) == 3


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM])
def test_refusals_are_remembered(
    monkeypatch: pytest.MonkeyPatch, file: Path, opened: int, refuses: set[int], number: int
) -> None:
    """A device that does not know such reads, or is not allowed to, is asked once."""
    asked = fake(monkeypatch, failing(number))
    assert read_now(file) is MISS
    assert attempts(opened, file) == [MISS] * 4
    assert len(asked) == 1
    assert refuses == {file.stat().st_dev}
    assert not takes_probes(file.stat())
    refuses.clear()
    known_until(opened, 0, 10)
    assert refuses == {file.stat().st_dev}


@pytest.mark.parametrize("count", [0, 1, 49])
def test_short_reads_are_misses(monkeypatch: pytest.MonkeyPatch, file: Path, opened: int, count: int) -> None:
    """The kernel stops where a page is not there: that is no end of the file, not even if it is 0."""
    fake(monkeypatch, at_most(count))
    assert attempts(opened, file) == [MISS] * 4
    assert os.lseek(opened, 0, os.SEEK_CUR) == 0
    assert known_until(opened, 0, 5000) == count


def test_failures_of_the_disk_are_raised(monkeypatch: pytest.MonkeyPatch, file: Path, opened: int) -> None:
    """What is wrong is told in place; of a look ahead, by the plain call."""
    fake(monkeypatch, failing(errno.EIO))
    for call in (lambda: read_now(file), lambda: ATTEMPTS[os.pread](opened, 5, 0)):
        with pytest.raises(OSError, match="Input/output error"):
            call()
    assert known_until(opened, 7, 9) == 7


def test_the_end_is_where_the_size_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path) -> None:
    """An empty file is read; one that says it is, and is not, as those of /proc, is a miss."""
    asked = fake(monkeypatch, whole)
    empty = tmp_path / "empty"
    empty.touch()
    assert read_now(empty) == b""
    assert read_now(empty, memoryview(bytearray(5))) == 0
    assert read_now(file, memoryview(bytearray())) == 0
    assert len(asked) == 3
    fake(monkeypatch, lambda descriptor, buffers, offset: 1)
    assert read_now(empty) is MISS
    assert read_now(empty, memoryview(bytearray(5))) is MISS


def test_large_files_are_not_read_in_place(monkeypatch: pytest.MonkeyPatch, file: Path, opened: int) -> None:
    """What takes as long to copy as a worker costs is a miss, and nobody asks."""
    asked = fake(monkeypatch, whole)
    monkeypatch.setattr(probes, "LARGE", len(DATA) - 1)
    assert read_now(file) is MISS
    assert read_now(file, memoryview(bytearray(len(DATA)))) is MISS
    assert ATTEMPTS[os.read](opened, len(DATA)) is MISS
    assert not asked
    assert ATTEMPTS[os.read](opened, len(DATA) - 1) == DATA[:-1]


def test_looking_ahead(monkeypatch: pytest.MonkeyPatch, opened: int) -> None:
    """It stops where a page is not there, and goes beyond its end if the file ends before that."""
    monkeypatch.setattr(probes, "SCRATCH", bytearray(1000))
    asked = fake(monkeypatch, whole)
    assert known_until(opened, 0, 2500) == 2500
    assert asked == [0, 1000, 2000]
    assert known_until(opened, len(DATA) - 10, len(DATA)) == len(DATA)
    assert known_until(opened, len(DATA) - 10, len(DATA) + 1) == len(DATA) + 2
    assert known_until(opened, len(DATA), len(DATA) + 5) == len(DATA) + 6
    assert known_until(opened, 5, 5) == 5
    fake(monkeypatch, lambda descriptor, buffers, offset: 300 if offset else len(buffers[0]))
    assert known_until(opened, 0, 2500) == 1300


@pytest.mark.parametrize(("size", "offset"), [(-1, 0), (5, -1)])
def test_wrong_numbers_are_left_to_the_plain_call(opened: int, size: int, offset: int) -> None:
    """A negative size or offset, which preadv2 would take for something else, is a miss."""
    assert ATTEMPTS[os.pread](opened, size, offset) is MISS
    if size < 0:
        assert ATTEMPTS[os.read](opened, size) is MISS


def test_attempts_of_other_calls(file: Path, opened: int, tmp_path: Path) -> None:
    """A file is opened and looked at in place for reading only, and only an ordinary one."""
    try_open, try_stat = ATTEMPTS[os.open], ATTEMPTS[os.stat]
    assert try_open(file, os.O_WRONLY) is MISS
    assert try_open(file, os.O_RDONLY | os.O_CREAT) is MISS
    assert try_open("file", os.O_RDONLY, dir_fd=opened) is MISS
    assert try_open(tmp_path, os.O_RDONLY) is MISS
    os.mkfifo(tmp_path / "fifo")
    assert try_open(tmp_path / "fifo", os.O_RDONLY) is MISS
    assert try_stat(opened) == os.fstat(opened)
    for wrong in ({"follow_symlinks": False}, {"dir_fd": opened}):
        with pytest.raises(ValueError, match=r"cannot|can't"):
            try_stat(opened, **wrong)
    if syscalls.has_openat2():
        os.close(descriptor := try_open(file, os.O_RDONLY))
        assert descriptor > 2
        assert not (tmp_path / "nothing").exists()  # from now on the kernel knows that
        with pytest.raises(FileNotFoundError, match="nothing"):
            try_open(tmp_path / "nothing", os.O_RDONLY)
        with pytest.raises(FileNotFoundError, match="nothing"):
            try_stat(tmp_path / "nothing")


@pytest.mark.skipif(not syscalls.has_openat2(), reason="this system does not look names up without a wait")
def test_glances(tmp_path: Path, file: Path) -> None:
    """A glance has the same status as os.stat, of all kinds of names, and sees at once what is not there."""
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nothing")
    odd = os.fsencode(tmp_path) + b"/\xff\xfe"
    Path(os.fsdecode(odd)).touch()
    for path in (file, str(file), os.fsencode(file), tmp_path / "link", tmp_path, odd, os.fsdecode(odd), "."):
        os.stat(path)
        assert glance(path) == os.stat(path)
        assert glance(path, False) == os.lstat(path)
    for name in ("nothing", "dangling", "loop"):
        with pytest.raises(OSError, match=r"\[Errno"):
            os.stat(tmp_path / name)
        assert glance(tmp_path / name) is ABSENT
    assert glance("") is ABSENT


def test_names_that_are_none(file: Path) -> None:
    """A NUL does not end a name, and what is no name is left to the plain call: a descriptor is open, after all."""
    assert glance(f"{file}\0") is ABSENT
    assert glance(os.fsencode(file) + b"\0x") is ABSENT
    assert glance("\ud800\udfff") is ABSENT
    for other in (1, None, 2.5, []):
        assert glance(other) is MISS  # type: ignore[arg-type]


def test_glances_leave_no_descriptors(file: Path) -> None:
    """A glance closes what it has looked at."""
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        glance(file)
        read_now(file)
    assert os.listdir("/proc/self/fd") == before


def test_a_system_without_openat2(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """Where names cannot be looked up without a wait, everything is a miss."""
    monkeypatch.setattr(syscalls, "_openat2", syscalls._no_openat2)
    assert glance(file) is MISS
    assert ATTEMPTS[os.stat](file) is MISS
    assert ATTEMPTS[os.open](file, os.O_RDONLY) is MISS


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOSYS, errno.EPERM, errno.EMFILE, errno.EINTR])
def test_a_glance_that_fails_is_a_miss(monkeypatch: pytest.MonkeyPatch, file: Path, number: int) -> None:
    """Only what says something about the path is an answer."""
    monkeypatch.setattr(syscalls, "_openat2", lambda *_: -number)
    assert glance(file) is MISS


def test_words() -> None:
    """What is no result says what it is."""
    assert repr((MISS, ABSENT)) == "(MISS, ABSENT)"
