"""The crawler is run as people run it: as a program, without a terminal and in one, with its keys."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from typing import Any

import pytest

from .programs import EXAMPLES, PATIENCE, run

ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "error"}
QUIET: dict[str, Any] = {"env": ENVIRONMENT, "stdin": subprocess.DEVNULL}

# Runs a program in the foreground of a terminal, as a shell does, and tells how it has left that.
SHELL = """
import fcntl, signal, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
before = termios.tcgetattr(0)
signal.signal(signal.SIGINT, lambda *_: None)
done = subprocess.run([sys.executable, *sys.argv[1:]])
left = "as it was" if termios.tcgetattr(0) == before else "changed"
print(f"exit code {done.returncode}, the terminal is {left}")
"""

# A crawler that does not keep to its own rules.
RUDE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import crawler
really = crawler.PerTag
crawler.PerTag = lambda prefix, *rules: really(prefix, crawler.Concurrency(100), crawler.Rate(1e6))
sys.exit(crawler.main())
"""


class Terminal:
    """A terminal in which a program of the examples runs."""

    def __init__(self, *command: str) -> None:
        self.screen = ""  # all that was ever written
        self._read = 0  # so much of it was waited for
        self._end, other = pty.openpty()
        termios.tcsetwinsize(other, (24, 120))
        program = [sys.executable, "-c", SHELL, str(EXAMPLES / command[0]), *command[1:]]
        self._process = subprocess.Popen(
            program, env=ENVIRONMENT, stdin=other, stdout=other, stderr=other, start_new_session=True
        )
        os.close(other)

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._end, keys.encode())

    def wait_for(self, pattern: str) -> str:
        """Wait until this is written after what was waited for last."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.compile(pattern).search(self.screen, self._read)) is None:
            assert select.select([self._end], [], [], max(0.0, deadline - time.monotonic()))[0], self.screen
            try:
                self.screen += os.read(self._end, 10_000).decode()
            except OSError:  # nobody has it open any more
                pytest.fail(f"{pattern!r} was not written: {self.screen}")
        self._read = found.end()
        return found[0]

    def close(self) -> None:
        """End what runs in it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._end)


@pytest.fixture
def endless() -> Iterator[Terminal]:
    """A terminal in which a crawl has begun that does not end by itself."""
    terminal = Terminal("crawler.py", "--pages", "100000", "--seconds", "1000", "--hosts", "3")
    try:
        terminal.wait_for(r"[1-9]\d*/100000")
        yield terminal
    finally:
        terminal.close()


def test_a_crawl_is_polite_by_the_hosts_own_count() -> None:
    """As many pages are fetched as were asked for; no host saw more at once, nor in a second, than is allowed."""
    done = run("crawler.py", "--pages", "60", "--hosts", "4", **QUIET)
    assert done.returncode == 0, done
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if ".example " in line}
    assert list(rows) == ["swift.example", "slow.example", "flaky.example", "strict.example"]
    for name, row in rows.items():
        (most, allowed), (busiest, in_a_second) = [map(int, pair) for pair in re.findall(r"(\d+) of (\d+)", row)]
        assert most <= allowed == 2
        assert busiest <= in_a_second == (9 if name == "strict.example" else 24)
    ended = sum(int(count) for row in rows.values() for count in row.split()[1:3])
    assert ended >= 60 + 4, "the pages, and robots.txt of each host"
    assert "It ended because there were enough pages." in done.stdout
    assert "Nobody was rude" in done.stdout
    assert "pages about parrots go first from now on: " in done.stderr
    assert re.search(r"Known to be about parrots: \d+ % of the first 20 pages, \d+ % of the 40 after", done.stdout)
    assert "pages: 60/60 100%" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_hosts_see_who_is_rude() -> None:
    """A crawl without the rules for each host is found out: so the count is worth something."""
    command = [sys.executable, "-c", RUDE, str(EXAMPLES), "--pages", "60", "--hosts", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, **QUIET)
    assert done.returncode == 1, done
    assert "RUDE to " in done.stdout
    assert "slow.example" in done.stdout.partition("RUDE to ")[2]
    assert "Nobody was rude" not in done.stdout


def test_a_crawl_ends_when_the_time_is_up() -> None:
    """What is left then, running or queued, is cancelled; nothing is reported but that."""
    done = run("crawler.py", "--pages", "100000", "--hosts", "9", "--seconds", "0.4", **QUIET)
    assert done.returncode == 0, done
    assert "It ended because the time was up." in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "options", [["--hosts", "0"], ["--hosts", "10"], ["--pages", "0"], ["--seconds", "nan"], ["--prefer", "nothing"]]
)
def test_bad_options_are_refused(options: list[str]) -> None:
    """What cannot be done is refused, with the name of the option."""
    done = run("crawler.py", *options, **QUIET)
    assert done.returncode == 2
    assert options[0] in done.stderr


def test_keys_steer_a_crawl(endless: Terminal) -> None:
    """Keys drop a host, change the limit and stop the crawl while it runs; other keys do nothing."""
    endless.press("2")
    endless.wait_for(r"slow\.example is dropped: \d+ cancelled")
    endless.press("9z+")
    endless.wait_for("at most 9 at a time")
    endless.press("--")
    endless.wait_for("at most 7 at a time")
    endless.press("-" * 10)
    endless.wait_for("at most 1 at a time")
    endless.press("q")
    endless.wait_for(r"It ended because q was pressed\.")
    endless.wait_for("Nobody was rude")
    endless.wait_for("exit code 0, the terminal is as it was")
    assert "Traceback" not in endless.screen
    assert endless.screen.count("is dropped") == 1


def test_ctrl_c_ends_a_crawl_cleanly(endless: Terminal) -> None:
    """Ctrl-C cancels everything; the report is printed, the terminal is as before, the exit code says why."""
    endless.press("\x03")
    endless.wait_for(r"It ended because it was interrupted\.")
    endless.wait_for("Nobody was rude")
    endless.wait_for("exit code 130, the terminal is as it was")
    assert "Traceback" not in endless.screen
