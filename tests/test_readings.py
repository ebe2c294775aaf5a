"""Whole files on devices that refuse reads without a wait: where they are opened."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from threadlets import files, probes, readings, syscalls

DATA = b"Some bytes: \xff\n" * 1000
TEXT = "Zeile äöü\r\nnoch eine\n" * 50


@pytest.fixture(autouse=True)
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all devices refuse, and nothing of that be known from other tests."""

    def preadv(*_: Any) -> int:
        raise OSError(errno.EOPNOTSUPP, "refused")

    monkeypatch.setattr(probes, "_refuses", set())
    monkeypatch.setattr(readings, "_refusing", {})
    monkeypatch.setattr(probes.os, "preadv", preadv)


def test_a_device_that_refuses_is_not_opened_in_place_again(
    once: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """To open a file may be a journey to its server: in such a folder that is learned, for names of every kind."""
    (tmp_path / "file").write_bytes(DATA)
    (tmp_path / "other").write_text(TEXT, encoding="utf-8", newline="")
    (tmp_path / "folder").mkdir()

    def open_now(path: Any) -> None:
        raise AssertionError("opened in place")

    async def main() -> None:
        assert await files.read_bytes(tmp_path / "file") == DATA
        if syscalls.has_openat2():
            monkeypatch.setattr(readings, "open_now", open_now)
        for _ in range(20):
            assert await files.read_bytes(tmp_path / "file") == DATA
            assert await files.read_text(tmp_path / "other", "utf-8", newline="") == TEXT
        for name, error in (("none", FileNotFoundError), ("folder", IsADirectoryError), ("nul\0", ValueError)):
            with pytest.raises(error):
                await files.read_bytes(tmp_path / name)

    once(main)


def test_folders_are_forgotten(once: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No more are kept in mind than there is room for; what is no path is none of them."""
    monkeypatch.setattr(readings, "FOLDERS", 2)

    async def main() -> None:
        for number in range(5):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "file").write_bytes(DATA)
            assert await files.read_bytes(folder / "file") == DATA
            assert len(readings._refusing) <= 2
        descriptor = os.open(folder / "file", os.O_RDONLY)
        assert await files.read_bytes(descriptor) == DATA  # type: ignore[arg-type]  # as open() takes one, and closes it
        for wrong in (None, 1.5, []):
            with pytest.raises(TypeError):
                await files.read_bytes(wrong)  # type: ignore[arg-type]

    once(main)
