"""The last situation: Ctrl-C, or SIGTERM, while a thread of the program is stuck in a call.

The program is a process of its own. It says when its thread is stuck, and when its coroutine has cleaned up; the thread
is let go when it can read a byte, or when that is closed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

from . import situations_facts
from .situations_facts import LONG, Facts, patient

__all__ = ["End", "Signals", "observe_signals"]

PLACE = Path(situations_facts.__file__).name  # the file in which the thread is stuck


class End(NamedTuple):
    """How a program has ended after a signal."""

    cleaned: bool  # its coroutine's `finally` has run
    in_time: bool  # and before its thread was let go
    at_once: bool  # the program has ended before its thread was let go: within LONG
    ended: bool  # it has ended after that, within LONG
    named: bool  # while it waited, it has written where the thread is stuck
    code: int  # the exit code, as shells show it

    def words(self) -> str:
        return f"{self.way()} ({self.code})"

    def way(self) -> str:
        """Say how, without the code."""
        cleaned = "no cleanup" if not self.cleaned else "cleanup runs" if self.in_time else "cleanup after the thread"
        if not self.ended:
            return f"{cleaned}, hangs"
        ends = "ends at once" if self.at_once else "ends with the thread"
        return f"{cleaned}, {ends}{', says where' if self.named and not self.at_once else ''}"


class Signals(NamedTuple):
    """Both signals."""

    interrupt: End
    terminate: End

    def words(self) -> str:
        if self.interrupt.way() == self.terminate.way():
            return f"both: {self.interrupt.way()} ({self.interrupt.code}, {self.terminate.code})"
        return f"Ctrl-C: {self.interrupt.words()}; SIGTERM: {self.terminate.words()}"


def observe_signals(library: str, tool: str) -> dict[str, Facts]:
    """Run the programs side by side; ``tool`` names what the library has for this, "" for nothing."""
    tools = ["", tool] if tool else [""]
    with ThreadPoolExecutor(2 * len(tools)) as executor:
        ends = {
            each: [executor.submit(observe, library, each, number) for number in (signal.SIGINT, signal.SIGTERM)]
            for each in tools
        }
        return {each: Signals(*[future.result() for future in futures]) for each, futures in ends.items()}


def observe(library: str, tool: str, number: signal.Signals) -> End:
    """Send a signal to a program whose thread is stuck, and see what becomes of it."""
    command = [sys.executable, "-m", f"{__package__}.situations", "--program", library, tool]
    pipe = subprocess.PIPE
    folder = Path(__file__).parents[1]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=folder) as program:
        assert program.stdin is not None and program.stdout is not None and program.stderr is not None
        try:
            said = Reader(program.stdout)
            complained = Reader(program.stderr)
            if not said.wait_for("started"):
                raise RuntimeError(f"the program did not start: {complained.text}")
            program.send_signal(number)
            at_once = ends(program)
            in_time, named = "cleaned" in said.text, PLACE in complained.text
            program.stdin.close()
            ended = at_once or ends(program)
        finally:
            program.kill()
        said.thread.join()
        code = program.wait()
    return End("cleaned" in said.text, in_time, at_once, ended, named, code if code >= 0 else 128 - code)


def ends(program: subprocess.Popen[str]) -> bool:
    """Say whether a program ends, within LONG."""
    try:
        program.wait(patient(LONG))
    except subprocess.TimeoutExpired:
        return False
    return True


class Reader:
    """What a program has said so far."""

    def __init__(self, stream: IO[str]) -> None:
        self.text = ""
        self._more = threading.Condition()
        self._ended = False
        self.thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self.thread.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._more:
                self.text += line
                self._more.notify()
        with self._more:
            self._ended = True
            self._more.notify()

    def wait_for(self, word: str) -> bool:
        """Wait until it has said a word; False if it has ended without that."""
        with self._more:
            self._more.wait_for(lambda: word in self.text or self._ended)
            return word in self.text
