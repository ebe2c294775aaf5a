"""The types of the aiofiles adapter and of temporary files. Checked by mypy and pyright, never run.

Those of ``aiofiles.os`` and ``aiofiles.tempfile`` are aiofiles' own, from ``types-aiofiles``.
"""

from __future__ import annotations

import os
from typing import Any, assert_type

from threadlets.adapters import aiofiles
from threadlets.adapters.aiofiles import AiofilesContextManager, AsyncBufferedIOBase, AsyncTextIOWrapper
from threadlets.files import File
from threadlets.temporaries import (
    Directory,
    Making,
    NamedFile,
    NamedTemporaryFile,
    SpooledFile,
    SpooledTemporaryFile,
    TemporaryDirectory,
    TemporaryFile,
)


async def opened(mode: str) -> None:
    async with aiofiles.open("file") as text:
        assert_type(text, AsyncTextIOWrapper)
        assert_type(await text.read(), str)
        async for line in text:
            assert_type(line, str)
    async with aiofiles.open("file", "rb", executor=None) as binary:
        assert_type(await binary.readlines(), list[bytes])
    assert_type(await aiofiles.open("file", "wb"), AsyncBufferedIOBase)
    assert_type(aiofiles.open("file", mode), AiofilesContextManager[Any])


async def asked() -> None:
    assert_type(await aiofiles.os.stat("file"), os.stat_result)
    assert_type(await aiofiles.os.path.exists("file", executor=None), bool)


def installed() -> None:
    with aiofiles.install() as installation:
        assert_type(installation, aiofiles.Installation[None])


async def temporaries(mode: str) -> None:
    assert_type(TemporaryFile(), Making[File[bytes], File[bytes]])
    assert_type(TemporaryFile("w+", encoding="utf-8"), Making[File[str], File[str]])
    assert_type(await TemporaryFile(mode), File[Any])
    assert_type(NamedTemporaryFile("w", delete=False), Making[NamedFile[str], NamedFile[str]])
    assert_type(await NamedTemporaryFile(dir="folder"), NamedFile[bytes])
    assert_type(await SpooledTemporaryFile(3), SpooledFile[bytes])
    assert_type(await SpooledTemporaryFile(mode="w+"), SpooledFile[str])
    assert_type(await (await SpooledTemporaryFile(3, "w+")).read(), str)
    assert_type(await TemporaryDirectory(), Directory)
