"""The same program on a file of ours and on one of Python's: results, positions, exceptions and contents are the same.

Thresholds are small here, so that short files have many batches, pages, and looks ahead.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.conftest import factory_of
from threadlets import batches, files, probes, streams

QUIET = settings(
    deadline=None,
    max_examples=150,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

sizes = st.sampled_from([-1, None, 0, 1, 2, 3, 7, 20, 300, 70_000])
hints = st.sampled_from([-1, None, 0, 1, 2, 5, 9, 40])
whences = st.sampled_from([0, 0, 0, 1, 2, 7])
operations = st.one_of(
    st.tuples(st.just("read"), sizes),
    st.tuples(st.just("readline"), sizes),
    st.tuples(st.just("readlines"), hints),
    st.tuples(st.just("next"), st.sampled_from([1, 2, 5, 50])),
    st.tuples(st.just("next"), st.sampled_from([1, 2, 5, 50])),
    st.tuples(st.sampled_from(["tell", "flush", "isatty", "seekable", "writable"])),
    st.tuples(st.just("seek"), st.sampled_from([-3, 0, 0, 1, 2, 5, 30, 1000]), whences),
    st.tuples(st.just("go back")),
    st.tuples(st.sampled_from(["read1", "peek"]), st.sampled_from([-1, 0, 1, 3, 20])),
    st.tuples(st.sampled_from(["readinto", "readinto1"]), st.sampled_from([0, 1, 5, 60])),
    st.tuples(st.sampled_from(["readall", "readable", "fileno"])),
    st.tuples(st.just("write"), st.sampled_from(["", "a", "é\n", "b\r\nc", "long " * 30])),
    st.tuples(st.just("writelines"), st.sampled_from([(), ("1\n", "2\r"), ("x", "")])),
    st.tuples(st.just("truncate"), st.sampled_from([None, 0, 3, 200])),
    st.tuples(st.just("attributes")),
    st.tuples(st.sampled_from(["close", "detach"])),
)
programs = st.lists(operations, max_size=12)
pieces = st.sampled_from(
    ["", "a", "bc", "é", "\U0001f600", "\n", "\n", "\r", "\r\n", "word " * 9, "-" * 130, "line\n" * 40]
)
texts = st.lists(pieces, max_size=25).map("".join)
binary = st.fixed_dictionaries(
    {"mode": st.sampled_from(["rb", "rb", "rb", "r+b", "wb", "w+b", "ab", "a+b", "xb"])},
    optional={"buffering": st.sampled_from([0, 3, 17, 10_000, -1])},
)
text = st.fixed_dictionaries(
    {"mode": st.sampled_from(["r", "r", "r", "r+", "w", "w+", "a", "a+", "x"])},
    optional={
        "buffering": st.sampled_from([1, 2, 30, -1]),
        "encoding": st.sampled_from(["utf-8", "utf-16", "latin-1", "ascii", "utf-8-sig"]),
        "errors": st.sampled_from(["strict", "replace", "surrogateescape", "ignore"]),
        "newline": st.sampled_from(["", "\n", "\r", "\r\n"]),
    },
)
contents = st.tuples(
    texts, st.sampled_from(["utf-8", "utf-8", "utf-16", "latin-1"]), st.sampled_from([b"", b"", b"\xff\n"])
)


def raised(error: BaseException) -> tuple[str, str]:
    """Return what of an exception is to be the same."""
    return type(error).__name__, str(error).replace("ours", "builtin")


class Pair:
    """The same on both; what is handed out is compared."""

    def __init__(self, plain: Any, ours: files.File[Any]) -> None:
        self.plain, self.ours = plain, ours
        self.binary = not hasattr(plain, "encoding")
        self.positions: list[int] = []

    async def do(self, name: str, *args: Any) -> None:
        """Do an operation; results and exceptions must be the same."""
        if name == "go back":
            name, args = "seek", (self.positions[-1] if self.positions else 0,)
        if name in ("write", "writelines") and self.binary:
            args = (args[0].encode() if name == "write" else [line.encode() for line in args[0]],)
        expected = await self._try(self._plainly(name, *args))
        got = await self._try(self._ours(name, *args))
        if name in ("read1", "peek", "readinto1") and got != expected:  # ours may have other bytes in its buffer
            self._compare_beginnings(name, got, expected)
            if name != "peek":
                await self.ours.seek(self.plain.tell())
        else:
            assert got == expected, (name, args)
        if name == "tell" and isinstance(got, int):
            self.positions.append(got)

    def _compare_beginnings(self, name: str, got: Any, expected: Any) -> None:
        if name == "readinto1":
            got, expected = got[1][: got[0]], expected[1][: expected[0]]
        assert got, name
        assert got.startswith(expected) or expected.startswith(got), name

    async def _try(self, attempt: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await attempt
        except (Exception, asyncio.CancelledError) as error:
            return raised(error)

    async def _plainly(self, name: str, *args: Any) -> Any:
        if name == "next":
            lines = []
            for _ in range(args[0]):
                try:
                    lines.append(next(self.plain))
                except StopIteration:
                    break
                except Exception as error:
                    lines.append(raised(error))
                    break
            return lines
        if name == "fileno":
            return self.plain.fileno() >= 0
        if name == "attributes":
            return self._attributes(self.plain)
        if name.startswith("readinto"):
            buffer = bytearray(args[0])
            return getattr(self.plain, name)(buffer), bytes(buffer)
        result = getattr(self.plain, name)(*args)
        return self._below(result) if name == "detach" else result

    async def _ours(self, name: str, *args: Any) -> Any:
        if name == "next":
            lines = []
            for _ in range(args[0]):
                try:
                    lines.append(await anext(self.ours))
                except StopAsyncIteration:
                    break
                except Exception as error:
                    lines.append(raised(error))
                    break
            return lines
        if name == "fileno":
            return self.ours.fileno() >= 0
        if name == "readable":
            return self.ours.readable()
        if name == "attributes":
            return self._attributes(self.ours)
        if name.startswith("readinto"):
            buffer = bytearray(args[0])
            return await getattr(self.ours, name)(buffer), bytes(buffer)
        if name == "detach":
            return self._below(self.ours.detach())
        return await getattr(self.ours, name)(*args)

    def _below(self, file: Any) -> Any:
        """Close what was below; say what it was. Where it stood is not determined."""
        with file:
            return type(file).__name__

    def _attributes(self, file: Any) -> list[Any]:
        found: list[Any] = []
        for name in ("closed", "mode", "encoding", "errors", "newlines", "line_buffering", "write_through"):
            try:
                found.append(getattr(file, name))
            except Exception as error:
                found.append(type(error).__name__)
        return found


async def compare(folder: Path, options: dict[str, Any], data: bytes, program: list[tuple[Any, ...]]) -> None:
    """Run a program on both."""
    paths = folder / "builtin", folder / "ours"
    for path in paths:
        path.unlink(missing_ok=True)
        if "x" not in options["mode"]:
            path.write_bytes(data)
    plain = builtins.open(paths[0], **options)  # noqa: SIM115
    ours: files.File[Any] = await files.open(paths[1], **options)
    for each in (plain, ours._file):
        if hasattr(each, "_CHUNK_SIZE"):
            each._CHUNK_SIZE = 16  # of undecoded text; usually 8 KiB
    pair = Pair(plain, ours)
    try:
        for name, *args in program:
            await pair.do(name, *args)
        await pair.do("close")
    finally:
        for end in (plain.close, ours._file.close):
            with suppress(Exception):
                end()
    assert paths[1].read_bytes() == paths[0].read_bytes()


@pytest.fixture(params=["in place", "elsewhere", "refused"])
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.Runner]:
    """Return what runs programs: where all is in memory, where nothing is, and where there is no asking."""
    for module in (batches, streams):
        monkeypatch.setattr(module, "BATCH", 24)
    monkeypatch.setattr(probes, "SCRATCH", bytearray(16))
    monkeypatch.setattr(streams, "AHEAD", 64)
    if request.param == "elsewhere":
        monkeypatch.setattr(streams, "known_until", lambda descriptor, offset, end: offset)
    if request.param == "refused":
        monkeypatch.setattr(probes, "NOWAIT", 0)
    with asyncio.Runner(loop_factory=factory_of("asyncio")) as runner:
        yield runner


def data_of(contents: tuple[str, str, bytes]) -> bytes:
    """Return bytes of a file, not always of one encoding."""
    written, encoding, tail = contents
    return written.encode(encoding, "replace") + tail


@QUIET
@given(binary, contents, programs)
@example({"mode": "rb"}, ("line\n", "utf-8", b""), [("close",), ("next", 1)])
@example(
    {"mode": "rb"}, ("line\n" * 40, "utf-8", b""), [("next", 2), ("read", 3), ("next", 1), ("tell",), ("read", None)]
)
def test_binary(
    runner: asyncio.Runner, tmp_path: Path, options: dict[str, Any], contents: Any, program: list[tuple[Any, ...]]
) -> None:
    """A binary file does what Python's does."""
    runner.run(compare(tmp_path, options, data_of(contents), program))


@QUIET
@given(text, contents, programs)
@example({"mode": "r"}, ("line\n" * 40, "utf-8", b"\xff"), [("next", 30), ("next", 30), ("next", 1), ("read", None)])
@example({"mode": "r", "newline": ""}, ("a\r\n" * 9, "utf-8", b""), [("next", 1), ("readline", 2), ("readline", 9)])
def test_text(
    runner: asyncio.Runner, tmp_path: Path, options: dict[str, Any], contents: Any, program: list[tuple[Any, ...]]
) -> None:
    """A file of text does what Python's does."""
    runner.run(compare(tmp_path, {"encoding": "utf-8", **options}, data_of(contents), program))
