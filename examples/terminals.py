"""What a program needs of a terminal: keys as they are pressed, and a line that is written again and again.

Why cbreak mode and not raw mode: keys come at once and are not shown, and Ctrl-C is still the interrupt that it always
was. Whatever happens, the terminal is left as it was found.

Assumes: POSIX; an event loop with ``add_reader``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import TextIO


def listens() -> bool:
    """Say whether somebody may press keys: stdin is a terminal, and we are not in its background."""
    if sys.stdin is None or not sys.stdin.isatty():
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # a terminal, but not the one that controls us: then there is no background
        return True


@contextlib.contextmanager
def keys(act: Callable[[str], object]) -> Iterator[None]:
    """Call ``act(key)`` for each key that is pressed while the body runs; never, if nobody may press any.

    Thread: loop.
    """
    if not listens():
        yield
        return
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()

    def read() -> None:
        pressed = os.read(descriptor, 100)
        if not pressed:  # the terminal is gone
            loop.remove_reader(descriptor)
        for key in pressed.decode(errors="replace"):
            act(key)

    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor, termios.TCSANOW)
        loop.add_reader(descriptor, read)
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


def bar(share: float, width: int = 20) -> str:
    """Return a bar of some characters.

    >>> bar(0.5, width=8)
    '####....'
    """
    full = round(min(share, 1.0) * width)
    return "#" * full + "." * (width - full)


class Status:
    """The last line of a terminal, with lines of text above it: a ``threadlets.Progress``.

    Args:
        stream: The terminal.
        details: Returns what the line is to say after the counts.
    """

    def __init__(self, stream: TextIO, details: Callable[[], str]) -> None:
        self._stream = stream
        self._details = details
        self._counts = ""

    def update(self, done: int, failed: int, total: int | None, /) -> None:
        """Show how far it has come."""
        self._counts = f"[{bar(done / total)}] {done}/{total}" if total else f"{done}"
        if failed:
            self._counts += f", {failed} failed"
        self._show()

    def say(self, text: str) -> None:
        """Write a line of text, which stays."""
        self._wipe()
        self._stream.write(f"{text}\n")
        self._show()

    def close(self) -> None:
        """Take the line away."""
        self._wipe()
        self._stream.flush()

    def _show(self) -> None:
        self._wipe()
        self._stream.write(f"{self._counts} | {self._details()}"[: self._width() - 1])
        self._stream.flush()

    def _wipe(self) -> None:
        self._stream.write("\r\x1b[K")  # to the line's beginning; erase to its end

    def _width(self) -> int:
        """Return how many columns the terminal has: 80 if it does not tell."""
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except OSError:
            return 80
