"""Lines that were read ahead come before all that follows: without a loop, against one of Python's files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from threadlets import batches
from threadlets.batches import Batches

LINES = [f"line {number}\n" for number in range(40)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a batch have three lines or so."""
    monkeypatch.setattr(batches, "BATCH", 20)


def of_text(tail: bytes = b"") -> Batches[str]:
    """Return batches of some lines of text, with lines ahead."""
    file = io.TextIOWrapper(io.BytesIO("".join(LINES).encode() + tail), "utf-8")
    file._CHUNK_SIZE = 16  # type: ignore[attr-defined]
    made: Batches[str] = Batches(file)
    assert made.fill()
    return made


def of_bytes() -> Batches[bytes]:
    """Return batches of the same bytes, with lines ahead."""
    made: Batches[bytes] = Batches(io.BufferedReader(io.BytesIO("".join(LINES).encode())))  # type: ignore[arg-type]
    assert made.fill()
    return made


@pytest.mark.parametrize("size", [0, 1, 7, 8, 20, 21, 100, 1000, -1, None])
def test_reading(size: int | None) -> None:
    """What was read ahead is the beginning of what is read, and what is left of it comes next."""
    whole = "".join(LINES)
    for made, text in ((of_text(), whole), (of_bytes(), whole.encode())):
        got = made.read(size)
        assert got == (text if size is None or size < 0 else text[:size])
        assert got + made.read(None) == text


@pytest.mark.parametrize("hint", [1, 6, 7, 8, 20, 21, 22, 27, 28, 29, 100, 1000, 0, -1, None])
def test_lists_of_lines(hint: int | None) -> None:
    """They have as many lines as Python's own."""
    plain = io.StringIO("".join(LINES))
    for made in (of_text(), of_bytes()):
        plain.seek(0)
        got: list[Any] = made.readlines(hint)
        assert len(got) == len(plain.readlines(hint))
        assert len(got) + len(made.readlines(None)) == len(LINES)


def test_lines_and_parts_of_them() -> None:
    """A line may be taken in parts, and a batch is read only if there is no line."""
    made = of_text()
    ahead = len(made.lines)
    parts = [made.readline(size) for size in (2, 0, -1, 50)]
    assert parts == ["li", "", LINES[0][2:], LINES[1]]
    assert made.fill()
    assert len(made.lines) == ahead - 2
    assert of_bytes().readline(None) == LINES[0].encode()
    with pytest.raises(TypeError):
        of_text().readline(None)
    for wrong in (made.read, made.readline, made.readlines):
        with pytest.raises(TypeError):
            wrong("2")  # type: ignore[operator]
    assert made.readline(-1) == LINES[2]


def drained(made: Batches[str]) -> int:
    """Take all lines until a failure comes; return how many."""
    count = 0
    with pytest.raises(UnicodeDecodeError):
        while made.fill():
            made.lines.pop()
            count += 1
    return count


def test_a_failure_comes_after_the_lines_before_it() -> None:
    """As if the lines had been read one by one; and it comes once."""
    plain = of_text(b"\xff").file
    plain.seek(0)
    expected = 0
    with pytest.raises(UnicodeDecodeError):
        for _ in plain:
            expected += 1
    made = of_text(b"\xff")
    assert drained(made) == expected
    assert not made.fill()


@pytest.mark.parametrize("name", ["read", "readlines"])
def test_a_failure_is_met_by_whatever_reads_on(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Also by what does not iterate; the lines before it are there still, if they were not handed over."""
    monkeypatch.setattr(batches, "BATCH", 1000)
    made = of_text(b"\xff")
    while made._failure is None:
        made.lines.clear()
        made.fill()
    left = len(made.lines)
    assert left
    with pytest.raises(UnicodeDecodeError):
        getattr(made, name)(-1)
    if name == "read":
        assert len(made.lines) == left
    assert made._failure is None


def test_positions() -> None:
    """A binary file says where its user is; one of text, that it cannot, until it has been moved or read to its end."""
    binary = of_bytes()
    binary.lines.pop()
    assert binary.tell() == len(LINES[0])
    assert binary.seek(2, 1) == len(LINES[0]) + 2
    assert binary.read(3) == b"ne "
    assert binary.fill()
    assert binary.give_back(binary.file.tell) == len(LINES[0]) + 5
    text = of_text()
    for ask in (text.tell, lambda: text.seek(0, 1)):
        with pytest.raises(OSError, match=r"telling position disabled by next\(\) call"):
            ask()
    with pytest.raises(ValueError, match="negative"):
        text.seek(-1, 0)
    assert text.readline(-1) == LINES[0]
    assert text.seek(0, 0) == text.tell() == 0
    assert text.readline(-1) == LINES[0]
    assert text.fill()
    assert len(text.readlines(None)) == len(LINES) - 1
    assert text.tell() == len("".join(LINES))


def test_the_end(tmp_path: Path) -> None:
    """What is closed or detached has no lines left, and says so with Python's words."""
    path = tmp_path / "file"
    path.write_text("".join(LINES))
    for mode, buffering in (("rb", -1), ("rb", 0), ("r", -1)):
        made: Batches[Any] = Batches(open(path, mode, buffering))  # noqa: SIM115
        assert made.fill()
        made.close()
        with pytest.raises(ValueError, match="closed file") as expected:
            next(made.file)
        with pytest.raises(ValueError, match="closed file") as got:
            made.fill()
        assert str(got.value) == str(expected.value)
    for mode in ("rb", "r"):
        made = Batches(open(path, mode))  # noqa: SIM115
        made.fill()
        made.detach().close()
        assert not made.lines
        with pytest.raises(ValueError, match="detached"):
            made.fill()
