"""Progress: what its bars show on a terminal and elsewhere, with rich, with tqdm and without; and what if they fail."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import sys
import termios
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from tests.conftest import Run
from tests.support import FakeClock
from tests.workbench import IN_PLACE
from threadlets import Pool, threadlet
from threadlets.progress import SELDOM, Progress, Reporter

ALL = ("rich", "tqdm", "plain")


@threadlet(contract=IN_PLACE)
def inverse(number: int) -> float:
    return 1 / number


class Terminal:
    """A pseudo-terminal as stderr; ``read()`` gives what was written to it so far."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        termios.tcsetwinsize(slave, (24, 80))
        self.stream = os.fdopen(slave, "w")
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("TERM", "xterm")
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            monkeypatch.delenv(name, raising=False)

    def attach(self) -> None:
        """Be stderr from here on; in the test itself, since pytest sets its own between fixtures and test."""
        self._monkeypatch.setattr(sys, "stderr", self.stream)

    def read(self) -> str:
        chunks = []
        try:
            while True:
                chunks.append(os.read(self._master, 1 << 16))
        except BlockingIOError:
            return b"".join(chunks).decode()

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    made = Terminal(monkeypatch)
    yield made
    made.close()


@pytest.fixture(params=ALL)
def drawn_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have this package draw the bars: those that would be preferred to it cannot be imported."""
    for better in ALL[: ALL.index(request.param)]:
        monkeypatch.setitem(sys.modules, better, None)
        for name in [name for name in sys.modules if name.startswith(f"{better}.")]:
            monkeypatch.setitem(sys.modules, name, None)
    if request.param != "plain":
        pytest.importorskip(request.param)
    return str(request.param)


def text_of(output: str) -> str:
    """Take colours and movements of the cursor out."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)


def screen_of(output: str) -> str:
    """Return what is to be seen in the end: enough of a terminal for what bars do."""
    rows, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.", output, re.DOTALL):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            rows += [""] * (row - len(rows) + 1)
        elif part == "\x1b[2K":
            rows[row] = ""
        elif part[0] == "\x1b" and part[-1] == "A":
            row -= int(part[2:-1] or 1)
        elif part[0] != "\x1b":
            rows[row] = rows[row].ljust(column)[:column] + part + rows[row][column + 1 :]
            column += 1
    return "\n".join(line.rstrip() for line in rows).strip("\n")


async def map_all(progress: bool | str | Progress, items: Any = (1, 0, 2), stop: bool = False) -> int:
    """Iterate over a map with a bar; return how many threads it had."""
    async with Pool() as pool:
        options: Any = {"return_exceptions": True, "progress": progress, "limit": 2}
        async with aclosing(pool.map(inverse, items, **options)) as results:
            async for _ in results:
                threads = threading.active_count()
                if stop:
                    break
    return threads


def test_a_bar_on_a_terminal(run: Run, terminal: Terminal, drawn_by: str) -> None:
    """It shows label, counts and failures, and stays there when all is done; no thread draws it."""
    terminal.attach()
    before = threading.active_count()
    assert run(map_all, "two\n [red]pages") <= before + 2  # the loop has one that watches it, and a spare
    shown = screen_of(terminal.read())
    assert "\n" not in shown
    for word in ("two [red]pages", "3/3", "100%", "1 failed"):
        assert word in shown
    assert sys.stderr is terminal.stream


def test_a_bar_without_a_total(run: Run, terminal: Terminal, drawn_by: str) -> None:
    """It counts, and shows no percentage."""
    terminal.attach()
    run(map_all, True, (number for number in (1, 2, 3)))
    shown = screen_of(terminal.read())
    assert "3" in shown
    assert "%" not in shown and "failed" not in shown


def test_a_bar_that_is_broken_off(run: Run, terminal: Terminal, drawn_by: str) -> None:
    """Nothing is left of it, and the cursor is to be seen."""
    terminal.attach()
    run(map_all, "pages", (1, 0, 2), True)
    output = terminal.read()
    assert "pages" in output
    assert screen_of(output) == ""
    assert output.rfind("\x1b[?25l") <= output.rfind("\x1b[?25h")


def test_bars_side_by_side(run: Run, terminal: Terminal, drawn_by: str) -> None:
    """A map in a map may have a bar, too; both are gone when both are over."""
    terminal.attach()

    async def main() -> None:
        async with Pool() as pool:
            inner = pool.map(inverse, [1, 2, 3], progress="inner")
            async with aclosing(pool.map(inverse, inner, progress="outer")) as outer:
                assert len([result async for result in outer]) == 3
        assert len([result async for result in pool_of_its_own()]) == 1

    async def pool_of_its_own() -> AsyncIterator[float]:
        async with Pool() as pool:
            async for result in pool.map(inverse, [1], progress="again"):
                yield result

    run(main)
    shown = screen_of(terminal.read())
    if drawn_by != "plain":
        assert [word for word in ("inner", "outer", "again") if word in shown] == ["inner", "outer", "again"]
    assert sys.stderr is terminal.stream


def test_a_line_fits_its_terminal(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own line is cut to the width of the terminal, so that it can be written over; a shorter one wipes it out."""
    terminal.attach()
    for package in ("rich", "tqdm"):
        monkeypatch.setitem(sys.modules, package, None)
        for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
            monkeypatch.setitem(sys.modules, name, None)
    clock = FakeClock()
    reporter = Reporter("x" * 100, [1], clock)
    reporter.close(True)
    assert screen_of(terminal.read()) == "x" * 79
    reporter = Reporter("a", range(4), clock)
    clock.pass_(seconds=2)
    reporter.ended(True)
    assert screen_of(terminal.read()) == "a: 1/4 25% 0.5/s, 1 failed"
    clock.pass_(seconds=1)
    for _ in range(2):
        reporter.ended(False)
    assert terminal.read() == "\ra: 2/4 50% 0.7/s, 1 failed"
    reporter.close(True)
    assert terminal.read() == "\ra: 3/4 75% 1.0/s, 1 failed\r\n"


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file there is a line every five seconds at most, and one at the end; without control characters."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    clock = FakeClock()
    reporter = Reporter("pages", range(3000), clock)
    for number in range(1300):
        clock.pass_(ms=10)
        reporter.ended(number < 2)
    reporter.close(False)
    assert SELDOM == 5_000_000_000
    assert sys.stderr.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "pages: 500/3000 16% 100.0/s, 2 failed",
        "pages: 1000/3000 33% 100.0/s, 2 failed",
        "pages: 1300/3000 43% 100.0/s, 2 failed",
    ]


class Pipe(io.StringIO):
    """A terminal as stderr that breaks after the first write."""

    writes = 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.writes += 1
        if self.writes > 1:
            raise BrokenPipeError(32, "Broken pipe")
        return len(text)


@pytest.mark.parametrize("fault", ["none", "closed", "broken"])
def test_a_bar_that_fails_stops_no_work(
    run: Run, drawn_by: str, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a stderr, or with a broken one, all results come all the same, and one line is logged for developers."""
    caplog.set_level(logging.DEBUG, logger="threadlets")
    monkeypatch.setenv("TERM", "xterm")
    stream: Any = {"none": None, "closed": io.StringIO(), "broken": Pipe()}[fault]
    if fault == "closed":
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    run(map_all, "pages", range(10))
    assert sys.stderr is stream
    records = [record for record in caplog.records if "progress is not shown" in record.message]
    assert [record.levelno for record in records] == [logging.DEBUG]


def test_rich_may_fail(
    run: Run, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception of rich ends the bar, restores the terminal, and the next bar works."""
    terminal.attach()
    rich = pytest.importorskip("rich.progress")
    caplog.set_level(logging.DEBUG, logger="threadlets")
    for method in ("add_task", "update", "remove_task", "start"):
        with monkeypatch.context() as patch:
            patch.setattr(rich.Progress, method, lambda *_, **__: 1 // 0)
            run(map_all, "pages", (1, 0, 2), True)
        assert sys.stderr is terminal.stream
        assert len([record for record in caplog.records if "progress is not shown" in record.message]) == 1
        caplog.clear()
        run(map_all, "pages")
        assert "3/3" in text_of(terminal.read())
