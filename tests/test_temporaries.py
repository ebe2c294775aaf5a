"""Temporary files and folders: like Python's own, and nothing is left, whoever is cancelled, and when.

Over 400 lines: the module is four things, and each has its cancels.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import Gate, rounds, until
from threadlets import temporaries
from threadlets.temporaries import (
    Directory,
    NamedFile,
    NamedTemporaryFile,
    SpooledFile,
    SpooledTemporaryFile,
    TemporaryDirectory,
    TemporaryFile,
)
from threadlets.ways import Ways

MODES: list[Any] = ["w+", "w+b"]


def of(mode: str, text: str) -> Any:
    """Return text, or its bytes."""
    return text.encode() if "b" in mode else text


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that has to be empty again when the test has ended."""
    yield tmp_path
    gc.collect()
    assert not os.listdir(tmp_path)


def stop_at(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, after: bool = False) -> Gate:
    """Have a function stop at a gate, before or after its work; all is done on workers meanwhile."""
    gate, function = Gate(), getattr(where, name)

    def stopped(*args: Any, **kwargs: Any) -> Any:
        if after:
            return gate(function(*args, **kwargs))
        gate()
        return function(*args, **kwargs)

    monkeypatch.setattr(where, name, stopped)
    monkeypatch.setattr(Ways, "on", lambda self, device=0: self.away)
    return gate


# --------------------------------------------------------------------------------------------------- like Python's own


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [TemporaryFile, NamedTemporaryFile, SpooledTemporaryFile])
def test_what_is_written_is_read(run: Run, make: Callable[..., Any], mode: str, folder: Path) -> None:
    """Each kind of file, of text and of bytes, is written, read, iterated over and closed, in both ways to have it."""

    async def main() -> None:
        lines = [of(mode, "one\n"), of(mode, "two\n")]
        async with make(mode=mode, dir=folder) as file:
            assert await file.write(lines[0]) == 4
            await file.writelines(lines[1:])
            await file.seek(0)
            assert [line async for line in file] == lines
            await file.seek(0)
            assert await file.read() == lines[0] + lines[1]
        assert file.closed
        with pytest.raises(ValueError, match="closed"):
            await file.read()
        file = await make(mode=mode, dir=folder)
        assert file.readable() and not file.closed
        await file.close()

    run(main)


def test_a_named_file_is_there_until_it_is_closed(run: Run, folder: Path) -> None:
    """Others can open it by its name; ``close()`` removes it, once, and so does the end of ``async with``."""

    async def main() -> None:
        async with NamedTemporaryFile("w", dir=folder, prefix="a-", suffix=".b") as file:
            await file.write("text")
            await file.flush()
            path = Path(file.name)
            assert path.read_text() == "text" and path.name.startswith("a-") and path.suffix == ".b"
            assert isinstance(file, NamedFile) and file.delete
            await file.close()
            assert not path.exists()
            path.write_text("of somebody else")
        assert path.exists()
        path.unlink()

    run(main)


def test_a_named_file_may_stay(run: Run, tmp_path: Path) -> None:
    """With ``delete=False`` it is closed, and there."""

    async def main() -> None:
        async with NamedTemporaryFile("w", dir=tmp_path, delete=False) as file:
            await file.write("text")
        assert file.closed and not file.delete
        del file
        gc.collect()
        (name,) = os.listdir(tmp_path)
        assert (tmp_path / name).read_text() == "text"

    run(main)


def test_a_named_file_may_be_there_until_the_end(run: Run, folder: Path) -> None:
    """With ``delete_on_close=False`` it is there after ``close()``, and gone after ``async with``."""

    async def main() -> None:
        making = NamedTemporaryFile(dir=folder, delete_on_close=False)
        if sys.version_info < (3, 12):
            with pytest.raises(TypeError, match="delete_on_close"):
                await making
            return
        async with making as file:
            await file.close()
            assert os.path.exists(file.name)
        assert not os.path.exists(file.name)
        async with NamedTemporaryFile(dir=folder, delete_on_close=False) as file:
            pass
        assert not os.path.exists(file.name)

    run(main)


def test_a_folder(run: Run, folder: Path) -> None:
    """``async with`` gives its name, an await an object; both are removed with all that is in them."""

    async def main() -> None:
        async with TemporaryDirectory("b", "a", folder) as name:
            assert os.path.dirname(name) == str(folder) and os.path.basename(name)[0] + name[-1] == "ab"
            (Path(name) / "more").mkdir()
            (Path(name) / "more" / "file").touch()
        assert not os.path.exists(name)
        made = await TemporaryDirectory(dir=folder)
        assert isinstance(made, Directory) and os.path.isdir(made.name)
        await made.cleanup()
        await made.close()
        assert not os.path.exists(made.name)

    run(main)


def test_a_folder_may_stay(run: Run, folder: Path) -> None:
    """With ``delete=False`` it is there after ``async with``, where Python knows that."""

    async def main() -> None:
        making = TemporaryDirectory(dir=folder, delete=False)
        if sys.version_info < (3, 12):
            with pytest.raises(TypeError, match="delete"):
                await making
            return
        async with making as name:
            pass
        os.rmdir(name)

    run(main)


@pytest.mark.parametrize("mode", MODES)
def test_a_spooled_file_rolls_over(run: Run, mode: str, folder: Path) -> None:
    """It is memory up to its ``max_size``, a file beyond, or when its descriptor is asked for; nothing is lost."""

    async def main() -> None:
        async with SpooledTemporaryFile(10, mode, dir=folder) as file:
            assert isinstance(file, SpooledFile)
            inside: Any = file._file
            await file.write(of(mode, "12345"))
            await file.writelines(of(mode, each) for each in "67890")
            assert not inside._rolled and file.name is None and await file.tell() == 10
            await file.seek(5)
            await file.write(of(mode, "abcdef"))
            assert inside._rolled and file.name is not None and await file.tell() == 11
            await file.seek(0)
            assert await file.readline() == of(mode, "12345abcdef")
            assert os.fstat(await file.fileno()).st_ino
        file = await SpooledTemporaryFile(mode=mode)
        await file.write(of(mode, "x" * 100_000))
        inside = file._file
        assert not inside._rolled
        assert await file.truncate(3) == 3 and inside._rolled  # as Python does it: more than max_size
        await file.seek(0)
        assert await file.read() == of(mode, "xxx")
        await file.close()
        file = await SpooledTemporaryFile(mode=mode)
        assert isinstance(await file.fileno(), int)
        await file.close()

    run(main)


def test_a_spooled_file_is_like_pythons(run: Run) -> None:
    """Random operations have the results, the exceptions and the end of those of ``tempfile.SpooledTemporaryFile``."""
    import random

    seed = 7
    chance = random.Random(seed)
    operations: list[tuple[str, Callable[[], tuple[Any, ...]]]] = [
        ("write", lambda: (bytes(chance.randrange(8)),)),
        ("writelines", lambda: ([b"a\n"] * chance.randrange(4),)),
        ("seek", lambda: (chance.randrange(-1, 12),)),
        ("read", lambda: (chance.randrange(-1, 5),)),
        ("readline", lambda: ()),
        ("readlines", lambda: ()),
        ("tell", lambda: ()),
        ("truncate", lambda: (chance.choice([None, 3, 5, 40]),)),
        ("write", lambda: ("text",)),
        ("flush", lambda: ()),
    ]

    async def main() -> None:
        for _ in range(8):
            size = chance.choice([0, 8, 20])
            with tempfile.SpooledTemporaryFile(size) as theirs:
                async with SpooledTemporaryFile(size) as ours:
                    for _ in range(12):
                        name, make = chance.choice(operations)
                        args = make()
                        assert await outcome(ours, name, args) == now(theirs, name, args), (seed, name, args)

    async def outcome(file: Any, name: str, args: Any) -> Any:
        try:
            return await getattr(file, name)(*args)
        except Exception as error:
            return repr(error)

    def now(file: Any, name: str, args: Any) -> Any:
        try:
            return getattr(file, name)(*args)
        except Exception as error:
            return repr(error)

    run(main)


def test_while_a_spooled_file_rolls_over_others_wait(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation that begins while another thread rolls it over waits, and finds what was written."""

    async def main() -> None:
        async with SpooledTemporaryFile(4) as file:
            gate = stop_at(monkeypatch, tempfile, "TemporaryFile")
            writing = asyncio.create_task(file.write(b"12345"))
            await asyncio.to_thread(gate.wait_arrived)
            telling = asyncio.create_task(file.tell())
            await rounds()
            assert not telling.done()
            gate.open()
            assert (await writing, await telling) == (5, 5)

    run(main)


def test_a_cancel_while_a_spooled_file_rolls_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write is waited for, and what was written is there; a cancelled ``close()`` comes after it."""

    async def main() -> None:
        file = await SpooledTemporaryFile(4)
        gate = stop_at(monkeypatch, tempfile, "TemporaryFile")
        writing = asyncio.create_task(file.write(b"12345"))
        await asyncio.to_thread(gate.wait_arrived)
        closing = asyncio.create_task(file.close())
        await rounds()
        closing.cancel()
        with pytest.raises(CancelledError):
            await closing
        writing.cancel()
        await rounds()
        assert not writing.done() and not file.closed
        gate.open()
        with pytest.raises(CancelledError):
            await writing
        await until(lambda: file.closed)

    run(main)


def test_mistakes(run: Run, folder: Path) -> None:
    """What ``tempfile`` refuses is raised by the await, and leaves nothing."""

    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            await TemporaryFile(dir=folder / "none")
        with pytest.raises(LookupError):
            await NamedTemporaryFile("w", encoding="none", dir=folder)
        with pytest.raises(FileNotFoundError):
            async with TemporaryDirectory(dir=folder / "none"):
                pass
        file = await SpooledTemporaryFile()
        with pytest.raises(AttributeError, match="nothing"):
            _ = file.nothing
        await file.close()

    run(main)


def test_it_is_imported_when_needed() -> None:
    """To import the library, and this, does not import ``tempfile``."""
    program = "import sys, threadlets.temporaries; sys.exit('tempfile' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


# ------------------------------------------------------------------------------------------------------------ cancelled


@pytest.mark.parametrize("kind", ["TemporaryFile", "NamedTemporaryFile", "TemporaryDirectory"])
@pytest.mark.parametrize("options", [{}, {"delete": False}], ids=["deleted", "kept"])
def test_a_cancel_while_it_is_made(
    run: Run, kind: str, options: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made for somebody who was cancelled meanwhile is removed, also if it was to stay."""
    if options and (kind == "TemporaryFile" or (kind == "TemporaryDirectory" and sys.version_info < (3, 12))):
        pytest.skip("does not know delete=")

    async def main() -> None:
        gate = stop_at(monkeypatch, tempfile, kind, after=True)
        making = asyncio.ensure_future(wait_for(getattr(temporaries, kind)(dir=folder, **options)))
        await asyncio.to_thread(gate.wait_arrived)
        making.cancel()
        await rounds()
        gate.open()
        with pytest.raises(CancelledError):
            await making

    async def wait_for(making: Any) -> Any:
        return await making

    run(main)


def test_a_cancel_when_it_has_been_made(run: Run, folder: Path) -> None:
    """A cancel that comes when the worker has finished, and nobody has been told yet, leaves nothing either."""

    async def main() -> None:
        for make in (NamedTemporaryFile, TemporaryDirectory):
            for turns in range(4):

                async def use(make: Any = make) -> None:
                    async with make(dir=folder):
                        await asyncio.sleep(0)

                task = asyncio.create_task(use())
                await rounds(turns)
                task.cancel()
                await asyncio.wait([task])

    run(main)


def test_a_cancel_while_a_named_file_is_removed(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is removed to the end; the task that waits is cancelled then."""

    async def main() -> None:
        file = await NamedTemporaryFile(dir=folder)
        gate = stop_at(monkeypatch, NamedFile, "_remove")
        closing = asyncio.create_task(file.close())
        await asyncio.to_thread(gate.wait_arrived)
        closing.cancel()
        await rounds()
        gate.open()
        with pytest.raises(CancelledError):
            await closing
        assert file.closed and not os.path.exists(file.name)

    run(main)


def test_a_cancel_before_a_named_file_is_closed(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an operation of another task has the file, it is removed at once, and closed when that has ended."""
    gate = Gate()

    def lines() -> Iterator[bytes]:
        yield b"one"
        gate()
        yield b"two"

    async def main() -> None:
        file = await NamedTemporaryFile(dir=folder)
        monkeypatch.setattr(Ways, "on", lambda self, device=0: self.away)
        writing = asyncio.create_task(file.writelines(lines()))
        await asyncio.to_thread(gate.wait_arrived)
        closing = asyncio.create_task(file.close())
        await rounds()
        closing.cancel()
        with pytest.raises(CancelledError):
            await closing
        assert not os.path.exists(file.name) and not file.closed
        gate.open()
        await writing
        await until(lambda: file.closed)

    try:
        run(main)
    finally:
        gate.open()


def test_a_cancel_while_a_folder_is_removed(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is removed to its end; the task that waits is cancelled then."""

    async def main() -> None:
        made = await TemporaryDirectory(dir=folder)
        gate = stop_at(monkeypatch, tempfile.TemporaryDirectory, "cleanup")
        removing = asyncio.create_task(made.cleanup())
        await asyncio.to_thread(gate.wait_arrived)
        removing.cancel()
        gate.open()
        with pytest.raises(CancelledError):
            await removing
        assert not os.path.exists(made.name)

    run(main)


@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "ends"])
def test_a_cancel_before_a_folder_is_removed(run: Run, ends: bool, folder: Path) -> None:
    """A removal that was cancelled before it began is done by a task of its own, or in place if the loop ends."""

    async def main() -> None:
        made = await TemporaryDirectory(dir=folder)
        removing = asyncio.create_task(made.cleanup())
        await asyncio.sleep(0)  # it has asked for a worker
        removing.cancel()
        await asyncio.wait([removing])
        if not ends:
            await until(lambda: not os.path.exists(made.name))

    run(main)


def test_what_is_forgotten_is_removed(run: Run, folder: Path) -> None:
    """What nobody closes is removed when it is collected, with Python's own warning."""

    async def main() -> None:
        files = [await NamedTemporaryFile(dir=folder), await TemporaryDirectory(dir=folder)]
        assert len(os.listdir(folder)) == 2
        with pytest.warns(ResourceWarning):
            forget(files)
        assert not os.listdir(folder)

    def forget(files: list[Any]) -> None:
        files.clear()
        gc.collect()

    run(main)
