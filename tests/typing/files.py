"""The types of files and of what is read from them. Checked by mypy and pyright, never run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, assert_type

from threadlets import files


async def whole_files(path: Path) -> None:
    assert_type(await files.read_bytes(path), bytes)
    assert_type(await files.read_text(os.fspath(path), "utf-8"), str)
    assert_type(await files.read_into(b"name", bytearray(10)), int)
    assert_type(await files.write_bytes(path, memoryview(b"data"), atomic=True), int)
    assert_type(await files.write_text(path, "text", newline="\n"), int)
    assert_type(await files.stat(3), os.stat_result)
    assert_type(await files.exists(path), bool)
    await files.makedirs(path, exist_ok=True)
    assert_type([entry.name for entry in await files.scandir(path)], list[Any])


async def open_files(path: Path, mode: str) -> None:
    assert_type(await files.open(path), files.File[str])
    assert_type(await files.open(path, "rb"), files.File[bytes])
    assert_type(await files.open(path, mode), files.File[Any])
    async with files.open(path, "w+", encoding="utf-8") as text:
        assert_type(text, files.File[str])
        assert_type(await text.read(), str)
        assert_type(await text.readlines(), list[str])
        assert_type([line async for line in text], list[str])
        assert_type(await text.write("x"), int)
    async with files.open(path, "r+b", buffering=0) as binary:
        assert_type(await binary.readline(5), bytes)
        assert_type(await binary.peek(), bytes)
        assert_type(await binary.readinto(bytearray(5)), int)
        assert_type(await binary.seek(0, os.SEEK_END), int)
        await binary.write(bytearray(5))
        assert_type(await binary.stat(), os.stat_result)
    async with await files.open(path) as entered:
        assert_type(entered, files.File[str])
    files.open(path, 5)  # type: ignore[call-overload]  # pyright: ignore
    await files.read_into(path, "text")  # type: ignore[arg-type]  # pyright: ignore
    await files.write_text(path, b"bytes")  # type: ignore[arg-type]  # pyright: ignore
