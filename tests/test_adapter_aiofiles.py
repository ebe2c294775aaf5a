"""The aiofiles adapter, beside aiofiles itself: the same results, exceptions, names and classes, without the threads.

Over 400 lines: an adapter has one file of tests, as it is one file, and this one is two adapters.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import socket
import subprocess
import sys
import threading
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest

theirs = pytest.importorskip("aiofiles")

import aiofiles.os  # noqa: E402
import aiofiles.tempfile  # noqa: E402
import aiofiles.threadpool.binary  # noqa: E402
import aiofiles.threadpool.text  # noqa: E402
from aiofiles import open as open_imported_before  # noqa: E402
from aiofiles.os import stat as stat_imported_before  # noqa: E402

from tests.conftest import Run  # noqa: E402
from tests.workbench import Gate, rounds  # noqa: E402
from threadlets.adapters import aiofiles as ours  # noqa: E402
from threadlets.files import File  # noqa: E402

own_getsize = aiofiles.os.wrap(os.path.getsize)  # of a user's, made before it is installed
own_ident = aiofiles.os.wrap(threading.get_ident)


@pytest.fixture
def installed() -> Iterator[None]:
    """Install the adapter for a test."""
    with ours.install():
        yield


class NoExecutor(ThreadPoolExecutor):
    """A default executor that nobody is to use."""

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the executor was used")


def forbid_executor() -> None:
    """From here on, whatever aiofiles sends to the loop's executor fails."""
    asyncio.get_running_loop().set_default_executor(NoExecutor())


async def outcome(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what a call returns, or what it raises, so that it can be compared."""
    try:
        result = await call(*args, **kwargs)
    except Exception as error:
        return type(error), str(error)
    if hasattr(result, "__next__"):  # of scandir
        return sorted((entry.name, entry.path, entry.is_dir()) for entry in result)
    return result


def tree(folder: Path) -> Path:
    """Make some files to be asked about."""
    folder.mkdir()
    (folder / "file").write_text("text")
    (folder / "link").symlink_to("file")
    (folder / "dangling").symlink_to("none")
    (folder / "full" / "deep").mkdir(parents=True)
    (folder / "empty").mkdir()
    for name in ("file", "empty"):
        os.utime(folder / name, (1e9, 1e9))
    return folder


# ------------------------------------------------------------------------------------------------- the same as aiofiles

ASKED: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *[
        (f"path.{name}", (path,), {})
        for name in "abspath exists getatime getctime getmtime getsize isdir isfile islink ismount".split()
        for path in ("file", "link", "dangling", "empty", "none", b"file", "x\0y", "", "/")
        if (name, path) not in {("getctime", path), ("getatime", "/"), ("ismount", "x\0y"), ("abspath", "x\0y")}
    ],
    *[(f"path.{name}", (None,), {}) for name in "exists isdir isfile getsize".split()],
    ("path.samefile", ("file", "link"), {}),
    ("path.samefile", ("file", "empty"), {}),
    ("path.samefile", ("file", "none"), {}),
    ("path.sameopenfile", (0, 0), {}),
    ("path.sameopenfile", (0, 1 << 20), {}),
    ("path.getsize", (), {"filename": "file"}),
    ("stat", ("file",), {}),
    ("stat", ("link",), {"follow_symlinks": False}),
    ("stat", ("none",), {}),
    ("stat", ("file",), {"dir_fd": -1}),
    ("stat", (), {"path": "file"}),
    ("access", ("file", os.R_OK), {}),
    ("access", ("none", os.F_OK), {"follow_symlinks": False}),
    ("getcwd", (), {}),
    ("listdir", ("full",), {}),
    ("listdir", ("none",), {}),
    ("listdir", (), {"path": b"full"}),
    ("scandir", ("full",), {}),
    ("scandir", (), {}),
    ("scandir", (None,), {}),
    ("scandir", (b".",), {}),
    ("scandir", ("none",), {}),
    ("readlink", ("link",), {}),
    ("readlink", ("file",), {}),
    ("statvfs", ("none",), {}),
    ("sendfile", (-1, -1, 0, 1), {}),
]
DONE: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("mkdir", ("new",), {"mode": 0o700}),
    ("mkdir", ("file",), {}),
    ("makedirs", ("a/b/c",), {}),
    ("makedirs", ("a/b/c",), {"exist_ok": True}),
    ("removedirs", ("a/b/c",), {}),
    ("rmdir", ("empty",), {}),
    ("rmdir", ("full",), {}),
    ("rename", ("file", "renamed"), {}),
    ("renames", ("renamed", "far/away"), {}),
    ("replace", ("far/away", "file"), {}),
    ("link", ("file", "hard"), {}),
    ("symlink", ("file", "soft"), {"target_is_directory": False}),
    ("remove", ("hard",), {}),
    ("remove", ("none",), {}),
    ("unlink", ("soft",), {}),
    ("unlink", ("empty",), {}),
]


def find(module: Any, name: str) -> Any:
    """Return a function of ``aiofiles.os``, also one of its ``path``."""
    for part in name.split("."):
        module = getattr(module, part)
    return module


@pytest.mark.parametrize("way", ["installed", "drop-in"])
def test_functions_of_os(run: Run, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each function of aiofiles.os does, returns and raises what it does without us; the executor is not used."""

    async def main() -> None:
        monkeypatch.chdir(tree(tmp_path / "theirs"))
        asked = [await outcome(find(aiofiles.os, name), *args, **kwargs) for name, args, kwargs in ASKED]
        done = [await outcome(find(aiofiles.os, name), *args, **kwargs) for name, args, kwargs in DONE]
        left = sorted(path.name for path in Path().rglob("*"))
        monkeypatch.chdir(tree(tmp_path / "ours"))
        module = aiofiles.os
        if way == "installed":
            installation = ours.install()
            forbid_executor()
        else:
            module = ours.os
        try:
            for expected, (name, args, kwargs) in zip(asked, ASKED, strict=True):
                got = await outcome(find(module, name), *args, **kwargs)
                if isinstance(got, os.stat_result):
                    got, expected = tuple(got)[3:7], tuple(expected)[3:7]
                if isinstance(got, (str, bytes)):
                    got = os.fsdecode(got).replace("/ours", "/theirs")
                    expected = os.fsdecode(expected)
                assert got == expected, (name, args, kwargs)
            for expected, (name, args, kwargs) in zip(done, DONE, strict=True):
                assert await outcome(find(module, name), *args, **kwargs) == expected, (name, args, kwargs)
            assert sorted(path.name for path in Path().rglob("*")) == left
        finally:
            if way == "installed":
                installation.uninstall()

    run(main)


MODES = "r w a x r+ w+ a+ rb wb ab xb r+b w+b".split()
OPERATIONS: list[tuple[str, tuple[Any, ...]]] = [
    ("readable", ()),
    ("writable", ()),
    ("seekable", ()),
    ("isatty", ()),
    ("tell", ()),
    ("read", (3,)),
    ("readline", ()),
    ("read1", (2,)),
    ("peek", ()),
    ("readall", ()),
    ("readinto", (bytearray(2),)),
    ("readlines", (5,)),
    ("write", ("text\n",)),
    ("write", (b"bytes\n",)),
    ("writelines", (["a\n", "b\n"],)),
    ("flush", ()),
    ("seek", (2,)),
    ("read", ()),
    ("truncate", (4,)),
    ("nothing", ()),
    ("close", ()),
    ("read", ()),
    ("close", ()),
]
PROPERTIES = "closed name mode encoding errors newlines line_buffering buffer raw nothing".split()


@pytest.mark.parametrize("way", ["installed", "drop-in"])
@pytest.mark.parametrize("buffering", [-1, 0, 16])
def test_files_of_all_modes(run: Run, way: str, buffering: int, tmp_path: Path) -> None:
    """What is opened in any mode has the operations, results, exceptions and properties that aiofiles gives it."""

    async def trial(open: Any, path: Path, mode: str) -> list[Any]:
        path.write_text("one\ntwo\nthree\n")
        if "x" in mode:
            path.unlink()
        told: list[Any] = []
        try:
            file = await open(path, mode, buffering)
        except Exception as error:
            return [repr(error)]
        told += [await answer(file, name, args) for name, args in OPERATIONS]
        told += [property_of(file, name) for name in PROPERTIES]
        return [*told, path.read_text()]

    async def answer(file: Any, name: str, args: Any) -> Any:
        try:
            result = getattr(file, name)(*args)
            return await result if hasattr(result, "__await__") else result
        except Exception as error:
            return type(error)

    def property_of(file: Any, name: str) -> Any:
        try:
            value = getattr(file, name)
        except Exception as error:
            return type(error)
        return value if isinstance(value, (str, bool, type(None))) else type(value)

    async def main() -> None:
        path = tmp_path / "file"
        expected = {mode: await trial(aiofiles.open, path, mode) for mode in MODES}
        with ours.install():
            opens: Any = aiofiles.open if way == "installed" else ours.open
            for mode in MODES:
                assert await trial(opens, path, mode) == expected[mode], mode

    run(main)


CLASSES = ["AsyncTextIOWrapper", "AsyncBufferedIOBase", "AsyncBufferedReader", "AsyncFileIO"]


def test_the_drop_in_has_all_names() -> None:
    """Whatever aiofiles and its modules offer is there, can be imported from there, and has all its methods."""
    missing = []
    for name in ("", ".os", ".ospath", ".tempfile", ".threadpool"):
        module, stands_for_it = sys.modules[f"aiofiles{name}"], sys.modules[f"{ours.__name__}{name}"]
        missing += [f"{name}.{each}" for each in getattr(module, "__all__", ()) if not hasattr(stands_for_it, each)]
        missing += [each for each in getattr(stands_for_it, "__all__", []) if not hasattr(stands_for_it, each)]
    for name in CLASSES:
        known = getattr(aiofiles.threadpool, name)
        methods = [each for each in dir(known) if not each.startswith("_")]
        cls = getattr(ours, name)
        missing += [f"{name}.{each}" for each in methods if not hasattr(cls, each) and each not in ours.ATTRIBUTES]
    assert not missing
    program = f"from {ours.__name__}.os import stat, path; import {ours.__name__}.tempfile as t; t.TemporaryFile"
    exec(program)


def test_the_drop_in_needs_no_aiofiles(tmp_path: Path) -> None:
    """Without aiofiles it works, and ``install`` says what to do."""
    program = """
import sys
sys.modules["aiofiles"] = None
import asyncio
from threadlets.adapters import aiofiles
async def main():
    async with aiofiles.open(sys.argv[1], "w") as file:
        await file.write("text")
    async with aiofiles.tempfile.TemporaryFile() as file:
        pass
    print((await aiofiles.os.stat(sys.argv[1])).st_size, sorted(each for each in sys.modules if "aiofiles." in each)[0])
asyncio.run(main())
try:
    aiofiles.install()
except ImportError as error:
    print(error)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "file")]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.stdout.splitlines() == [
        "4 threadlets.adapters.aiofiles.os",
        "aiofiles is not installed: pip install 'threadlets[aiofiles]'",
    ], told.stderr


# ---------------------------------------------------------------------------------------------------------- the drop-in


def test_a_drop_in_file(run: Run, tmp_path: Path) -> None:
    """It is opened by an await, any number of times, or by ``async with``; ``loop=`` and ``executor=`` are accepted."""

    async def main() -> None:
        forbid_executor()
        loop, executor = asyncio.get_running_loop(), NoExecutor()
        path = tmp_path / "file"
        async with ours.open(path, "w", loop=loop, executor=executor) as file:
            assert isinstance(file, ours.AsyncTextIOWrapper) and isinstance(file, File)
            await file.writelines(["one\n", "two\n"])
        opening = ours.open(path, "rb")
        assert await opening is await opening
        async with opening as opened:
            assert [line async for line in opened] == [b"one\n", b"two\n"]
        assert opened.closed
        assert await ours.os.path.getsize(path, loop=loop, executor=executor) == 8  # type: ignore[call-arg]
        assert (await ours.os.stat(path, executor=executor)).st_size == 8
        assert await ours.os.path.getctime(path) == os.path.getctime(path)

    run(main)


def test_drop_in_entries_of_a_folder(run: Run, tmp_path: Path) -> None:
    """What ``scandir`` returns is iterated over, entered, closed and asked for the next one, as that of ``os``."""

    async def main() -> None:
        (tmp_path / "file").touch()
        entries: Any = await ours.os.scandir(tmp_path)
        assert next(entries).name == "file" and list(entries) == []
        with await ours.os.scandir(tmp_path) as entries:
            pass
        assert list(entries) == []

    run(main)


def test_drop_in_temporary_files(run: Run, tmp_path: Path) -> None:
    """All four kinds are made, used and removed."""

    async def main() -> None:
        forbid_executor()
        async with ours.tempfile.TemporaryFile("w+", dir=tmp_path) as text:
            await text.write("text")
        async with ours.tempfile.NamedTemporaryFile(dir=tmp_path) as named:
            assert os.path.exists(cast(str, named.name))
        async with ours.tempfile.SpooledTemporaryFile(3, dir=tmp_path) as spooled:
            await spooled.write(b"1234")
            assert isinstance(await spooled.fileno(), int)
        async with ours.tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            assert os.path.isdir(folder)
        made = await ours.tempfile.TemporaryDirectory(dir=tmp_path)
        assert os.path.isdir(made.name)
        await made.close()
        assert not os.listdir(tmp_path)

    run(main)


def test_wrapped_by_the_drop_in(run: Run, tmp_path: Path) -> None:
    """``wrap`` takes what Python has opened, what unpacks, and what is memory; functions are called on workers."""

    async def main() -> None:
        path = tmp_path / "file"
        path.write_bytes(gzip.compress(b"one\ntwo\n"))
        packed = ours.threadpool.wrap(gzip.open(path))  # noqa: SIM115
        assert not isinstance(packed, File)
        assert [line async for line in packed] == [b"one\n", b"two\n"] and packed.readable()
        await packed.close()
        assert packed.closed
        memory = ours.threadpool.wrap(io.BytesIO(b"bytes"))
        assert await memory.read() == b"bytes"
        file = ours.threadpool.wrap(open(path, "rb"))  # noqa: SIM115
        assert isinstance(file, ours.AsyncBufferedReader)
        await file.close()
        with pytest.raises(TypeError, match="Unsupported io type"):
            ours.threadpool.wrap("text")
        assert await ours.os.wrap(threading.get_ident)() != threading.get_ident()
        assert await ours.os.wrap(NoHash())() == "called"

    run(main)


class NoHash:
    """A function that cannot be looked up."""

    __name__ = "no_hash"
    __hash__ = None  # type: ignore[assignment]

    def __call__(self) -> str:
        return "called"


def test_a_mock_in_the_drop_in(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that mocks ``threadpool.sync_open`` and registers the mock's class is served as aiofiles' README says."""

    async def main() -> None:
        file = mock.MagicMock(**{"read.return_value": "of a mock"})
        ours.threadpool.wrap.register(mock.MagicMock)(  # type: ignore[attr-defined]
            lambda file, **_: ours.threadpool.wrap(io.StringIO(file.read()))
        )
        monkeypatch.setattr(ours.threadpool, "sync_open", lambda *args: file)
        opened = await ours.open("any")
        assert await opened.read() == "of a mock"

    run(main)


# ----------------------------------------------------------------------------------------------------- standard streams

ECHO = """
import asyncio, sys, threadlets
from threadlets.adapters.aiofiles import stdin, stdout, stderr, stdin_bytes, stdout_bytes
async def main():
    await stdout.write(await stdin.readline())
    async for line in stdin:
        await stdout.write(line)
        if line == "bytes\\n":
            break
    await stdout.flush()
    reading = asyncio.create_task(stdin.readline())
    await asyncio.sleep(0.05)
    reading.cancel()
    try:
        await reading
    except asyncio.CancelledError:
        await stdout_bytes.write(b"cancelled\\n")
    await stdout_bytes.flush()
    await stderr.write(f"{await stdin.readable()} {stdin_bytes.readable()} {stdin.encoding} {stdin.closed}")
{run}
"""


@pytest.mark.parametrize("how", ["asyncio.run(main())", "threadlets.run(main())"])
def test_standard_streams(how: str) -> None:
    """Lines go through; a read of a line that never comes can be cancelled, and then the program can end."""
    command = [sys.executable, "-X", "utf8", "-c", ECHO.replace("{run}", how)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        child.stdin.write("one\ntwo\nbytes\n")
        child.stdin.flush()
        assert child.stdout.read() == "one\ntwo\nbytes\ncancelled\n"  # it has ended, and stdin is open yet
        assert child.stderr.read() == "True True utf-8 False"


def test_standard_streams_are_looked_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is ``sys.stdout`` when something is written is written to."""

    async def main() -> None:
        for text in ("one", "two"):
            monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
            await ours.stdout.write(text)
            await ours.stdout.flush()
            assert sys.stdout.buffer.getvalue() == text.encode()  # type: ignore[attr-defined]
            await ours.stdout_bytes.write(b"!")
            assert ours.stdout.encoding == "utf-8"
        assert repr(ours.stdin_bytes) == "<AsyncIndirectBufferedIOBase of sys.stdin.buffer>"
        with pytest.raises(AttributeError, match="nothing"):
            _ = ours.stdout.nothing

    run(main)


def test_reads_of_a_standard_stream_are_in_order(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read waits for the one before, also if that was cancelled and goes on."""

    async def main() -> None:
        gate = Gate()
        texts = iter(["one", "two", "three"])
        monkeypatch.setattr(sys, "stdin", mock.Mock(readline=lambda: gate(next(texts))))
        reads = [asyncio.create_task(ours.stdin.readline()) for _ in range(2)]
        await asyncio.to_thread(gate.wait_arrived)
        reads[0].cancel()
        with pytest.raises(CancelledError):
            await reads[0]
        await rounds()
        assert not reads[1].done()
        gate.open()
        assert await reads[1] == "two"

    run(main)


# ------------------------------------------------------------------------------------------------------------- in place


def test_installed_it_needs_no_threads(run: Run, installed: None, tmp_path: Path) -> None:
    """Names that were imported before are quick: a whole life of a file goes by without the loop's executor."""

    async def main() -> None:
        forbid_executor()
        path = tmp_path / "file"
        async with open_imported_before(path, "w") as file:
            await file.writelines(["one\n", "two\n"])
        async with aiofiles.open(path) as file:
            assert [line async for line in file] == ["one\n", "two\n"]
        assert file.closed and file.name == str(path)
        assert (await stat_imported_before(path)).st_size == await own_getsize(path) == 8
        assert await aiofiles.os.path.exists(path)
        file = aiofiles.threadpool.wrap(path.open("rb"))
        assert await file.read() == b"one\ntwo\n"
        await file.close()

    run(main)


def test_installed_temporary_files_need_no_threads(run: Run, installed: None, tmp_path: Path) -> None:
    """All kinds of temporary files are made, used and removed without the loop's executor."""

    async def main() -> None:
        forbid_executor()
        for make in (aiofiles.tempfile.TemporaryFile, aiofiles.tempfile.NamedTemporaryFile):
            async with make(dir=tmp_path) as file:
                assert isinstance(file, aiofiles.threadpool.binary.AsyncBufferedReader)
                await file.write(b"bytes")
                await file.seek(0)
                assert await file.read() == b"bytes"
            assert file.closed
        async with aiofiles.tempfile.SpooledTemporaryFile(3, dir=tmp_path) as spooled:
            await spooled.write(b"1234")
            assert isinstance(await spooled.fileno(), int)
        async with aiofiles.tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            (Path(folder) / "file").touch()
        assert not os.listdir(tmp_path)

    run(main)


def test_classes_of_installed_files(run: Run, installed: None, tmp_path: Path) -> None:
    """What is opened is a ``File``, and of the class of aiofiles that it was before."""

    async def main() -> None:
        text, binary = aiofiles.threadpool.text, aiofiles.threadpool.binary
        for mode, buffering, cls in (
            ("w", -1, text.AsyncTextIOWrapper),
            ("r", -1, text.AsyncTextIOWrapper),
            ("wb", -1, binary.AsyncBufferedIOBase),
            ("rb", -1, binary.AsyncBufferedReader),
            ("r+b", -1, binary.AsyncBufferedReader),
            ("rb", 0, binary.AsyncFileIO),
        ):
            async with aiofiles.open(tmp_path / "file", mode, buffering) as file:
                assert isinstance(file, cls) and isinstance(file, File), mode

    run(main)


def test_files_stay_what_they_are(run: Run, tmp_path: Path) -> None:
    """A file that was opened before, or while it was installed, stays valid whatever is installed later."""

    async def main() -> None:
        path = tmp_path / "file"
        path.write_text("one\ntwo\nthree\n")
        before, closed_later = await aiofiles.open(path), aiofiles.open(path)
        await closed_later
        with ours.install():
            assert await before.readline() == "one\n"
            during, closed_after = await aiofiles.open(path), aiofiles.open(path)
            assert await anext(during) == "one\n"
            assert isinstance(await closed_after, File)
            spooled = await aiofiles.tempfile.SpooledTemporaryFile(3, dir=tmp_path)
            await spooled.write(b"1234")
            async with closed_later:
                pass
        assert await anext(before) == await anext(during) == "two\n"
        assert await during.read() == "three\n"
        async with closed_after as file:
            assert await file.read(3) == "one"
        assert file.closed
        await spooled.seek(0)
        assert await spooled.read() == b"1234"
        for each in (before, during, spooled):
            await each.close()
        async with aiofiles.open(path) as file:
            assert not isinstance(file, File)

    run(main)


def test_what_is_left_to_aiofiles(run: Run, installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor that was asked for is used; so are mocks; a function that nobody knows is called in a thread."""

    async def main() -> None:
        path = tmp_path / "file"
        path.write_bytes(gzip.compress(b"bytes"))
        with ThreadPoolExecutor(1, "asked-for") as executor:
            used, submit = [], executor.submit
            monkeypatch.setattr(executor, "submit", lambda *args: used.append(args) or submit(*args))
            assert (await aiofiles.os.stat(path, executor=executor)).st_size
            async with aiofiles.open(path, "rb", executor=executor) as file:
                await file.read()
            assert len(used) >= 3 and not isinstance(file, File)
            with path.open() as plain:
                assert not isinstance(aiofiles.threadpool.wrap(plain, executor=executor), File)
        assert await own_ident() != threading.get_ident()
        assert await aiofiles.os.stat(path, loop=asyncio.get_running_loop())
        packed = aiofiles.threadpool.wrap(gzip.open(path), loop=asyncio.get_running_loop())  # noqa: SIM115
        assert not isinstance(packed, File) and await packed.read() == b"bytes"
        await packed.close()
        with mock.patch("aiofiles.threadpool.sync_open", return_value=io.StringIO("of a mock")):
            async with aiofiles.open("any") as opened:
                assert await opened.read() == "of a mock"

    run(main)


STATE: list[tuple[Any, str]] = [
    (aiofiles.threadpool, "_open"),
    (aiofiles.base.AiofilesContextManager, "__aexit__"),
    (aiofiles.base, "get_running_loop"),
    (aiofiles.tempfile, "asyncio"),
]


def state() -> list[Any]:
    """Return all that is exchanged."""
    return [getattr(where, name) for where, name in STATE] + list(aiofiles.threadpool.wrap.registry.values())


def test_installing_several_times() -> None:
    """It lasts until each installation was undone, once; then all is what it was."""
    before = state()
    ours.uninstall()
    assert state() == before
    with ours.install() as first:
        during = state()
        assert not any(one is other for one, other in zip(before[:4], during[:4], strict=True))
        second = ours.install()
        assert state() == during
        first.uninstall()
        first.uninstall()
        assert state() == during
        ours.uninstall()
        assert state() == before
        second.uninstall()
    assert state() == before


def test_what_others_exchange_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """If somebody else has exchanged a function since, undoing does not take that away."""
    before = aiofiles.threadpool._open
    with ours.install():
        aiofiles.threadpool._open = "theirs"
    try:
        assert aiofiles.threadpool._open == "theirs"
    finally:
        aiofiles.threadpool._open = before


def test_other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that was not tested is told; one that is made otherwise is refused, and nothing is changed."""
    before = state()
    monkeypatch.setattr(metadata, "version", lambda name: "99.1")
    with pytest.warns(RuntimeWarning, match=r"24\.1 and 25\.1, and this is 99\.1"), ours.install():
        pass
    monkeypatch.undo()
    monkeypatch.delattr(aiofiles.threadpool, "sync_open")
    with pytest.raises(RuntimeError, match="not made as"):
        ours.install()
    monkeypatch.undo()
    assert state() == before


def test_outside_of_a_loop(installed: None) -> None:
    """Without a running loop the functions raise what they did."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        aiofiles.os.stat("/").send(None)


def test_a_socket(run: Run, tmp_path: Path) -> None:
    """``sendfile`` may wait for a reader that runs on this loop."""

    async def main() -> None:
        (tmp_path / "file").write_bytes(bytes(1 << 20))
        reader, writer = socket.socketpair()
        with reader, writer, (tmp_path / "file").open("rb") as file:
            reader.setblocking(False)
            sending = asyncio.create_task(ours.os.sendfile(writer.fileno(), file.fileno(), 0, 1 << 20))
            got = 0
            while got < 1 << 20:
                got += len(await asyncio.get_running_loop().sock_recv(reader, 1 << 16))
            assert await sending == 1 << 20

    run(main)
