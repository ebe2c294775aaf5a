"""Opening: at once or elsewhere, of all kinds of files; and the waits for those that are not ordinary."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import resource
import subprocess
import sys
from asyncio import CancelledError
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.support import eventually
from tests.workbench import Gate, until
from threadlets import files, openings, probes
from threadlets.ways import Ways


def descriptors() -> int:
    """Return how many are open, but for those of bells, which are kept."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # that of the folder
            continue
    return sum("eventfd" not in link for link in links)


def test_the_file_is_awaited_or_entered(run: Run, tmp_path: Path) -> None:
    """Both give the file; at the end of the block it is closed, also if it ends by an exception."""
    path = tmp_path / "file"

    async def main() -> None:
        async with files.open(path, "w") as file:
            assert await file.write("text") == 4
        assert file.closed
        file = await files.open(path)
        assert await file.read() == "text"
        await file.close()
        await file.close()
        async with await files.open(path) as file:
            assert not file.closed
        assert file.closed
        with pytest.raises(KeyError):
            async with files.open(path, "a") as file:
                await file.write("more")
                raise KeyError
        assert file.closed
        assert path.read_text() == "textmore"
        assert repr(files.open(path)) == f"<threadlets Opening of {path!r}: await it, or enter it with 'async with'>"

    run(main)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("nothing", "r+"),
        ("no/file", "w"),
        ("file", "x"),
        (".",),
        (".", "w"),
        ("file", "q"),
        ("file", "rw"),
        ("file", ""),
        ("file", "rb", -1, "utf-8"),
        ("file", "r", 0),
        ("file", "r", -1, "none"),
        ("file", "r", -1, None, None, "x"),
        ("file", "r", -1, None, None, None, False),
        ("file\0",),
        ("",),
        (9999,),
        (-1,),
        (None,),
        ("file", 5),
        ("file", "r", "x"),
        ("x" * 300, "w"),
    ],
    ids=repr,
)
def test_what_cannot_be_opened(
    once: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...]
) -> None:
    """Exceptions are those of the builtin, and nothing stays open."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises((OSError, ValueError, TypeError, LookupError)) as expected:
        open(*arguments)  # noqa: SIM115  # it fails

    async def main() -> None:
        before = descriptors()
        with pytest.raises(expected.type) as got:
            await files.open(*arguments)
        assert str(got.value) == str(expected.value)
        assert descriptors() == before

    once(main)


def test_descriptors_and_openers(once: Run, tmp_path: Path) -> None:
    """A descriptor can be used, and kept; an opener is called."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    asked: list[Any] = []

    def opener(name: Any, flags: int) -> int:
        asked.append(name)
        return os.open(name, flags)

    async def main() -> None:
        descriptor = os.open(path, os.O_RDONLY)
        async with files.open(descriptor, "rb", buffering=0, closefd=False) as file:
            assert await file.read(1) == b"a"
            assert file.fileno() == file.name == descriptor
        async with files.open(descriptor, "rb", buffering=0) as file:
            assert await file.read() == b"bc"
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(descriptor)
        async with files.open(path, opener=opener) as file:
            assert await file.read() == "abc"
        assert asked == [str(path)]

    once(main)


async def anext_of(opening: Any) -> Any:
    """Await what is no coroutine."""
    return await opening


@pytest.mark.parametrize("mode", ["r", "w"])
def test_an_opening_that_succeeds_too_late(
    once: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str
) -> None:
    """A file that is open when nobody waits for it any more is closed, without a warning."""
    gate = Gate()
    really = openings._open

    def slowly(*args: Any) -> Any:
        opened = really(*args)
        gate()
        return opened

    monkeypatch.setattr(openings, "opens", Ways(slowly, cancel="abandon"))
    monkeypatch.setattr(openings, "glance", lambda path: probes.MISS)
    path = tmp_path / "file"
    path.touch()

    async def main() -> None:
        before = descriptors()
        opening = asyncio.ensure_future(anext_of(files.open(path, mode)))
        await until(lambda: gate._arrived.acquire(blocking=False))
        assert descriptors() == before + 1
        opening.cancel()
        with pytest.raises(CancelledError):
            await opening
        gate.open()
        await until(lambda: descriptors() == before)

    once(main)
    gc.collect()


def test_files_that_were_open_already(once: Run, tmp_path: Path) -> None:
    """What Python has opened can be wrapped, if it has a descriptor."""

    async def main() -> None:
        file = files.wrap(open(tmp_path / "file", "w+"))  # noqa: SIM115
        await file.write("abc")
        await file.seek(0)
        assert await file.read() == "abc"
        assert repr(file).startswith("<threadlets File of <_io.TextIOWrapper name=")
        await file.close()
        for wrong in (5, "name", io.BytesIO(), io.StringIO()):
            with pytest.raises(TypeError, match="wrap"):
                files.wrap(wrong)

    once(main)


NO_MORE = """
import asyncio, os, resource
from threadlets import files

def plain(call):
    try:
        return call()
    except OSError as error:
        return type(error), str(error)

async def ours(call):
    try:
        return await call
    except OSError as error:
        return type(error), str(error)

async def main():
    await files.read_bytes(__file__ if os.path.exists("/dev/null") else "")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = os.dup(0)
    os.close(last)
    resource.setrlimit(resource.RLIMIT_NOFILE, (last, hard))
    expected = plain(lambda: open(__file__))
    assert "Too many open files" in expected[1]
    assert await ours(files.read_bytes(__file__)) == expected
    assert await ours(files.write_bytes(__file__, b"")) == expected
    async def opened():
        await files.open(__file__)
    assert await ours(opened()) == expected
    await files.stat(__file__)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert b"NO" + b"FILE" in await files.read_bytes(__file__)

asyncio.run(main())
"""


def test_no_descriptors_left(tmp_path: Path) -> None:
    """A process that has no descriptors left is told so, as by open, and goes on."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)
    program = tmp_path / "program.py"
    program.write_text(NO_MORE)
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_opened_file_that_does_not_arrive(tmp_path: Path) -> None:
    """It is closed when nobody has it any more; the one that was taken out is not."""
    before = descriptors()
    opened = openings.Opened(open(tmp_path / "file", "wb"))  # noqa: SIM115
    file = opened.take()
    del opened
    assert not file.closed
    opened = openings.Opened(file)
    del opened, file
    eventually(lambda: descriptors() == before)


def test_an_opening_is_entered_once(tmp_path: Path) -> None:
    """Or the file of the first time would be forgotten."""

    async def main() -> None:
        opening = files.open(tmp_path / "file", "w")
        async with opening:
            with pytest.raises(RuntimeError, match="entered already"):
                async with opening:
                    pass

    asyncio.run(main())
