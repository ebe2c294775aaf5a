"""What the tests of open files share: some lines, and operations that are done elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from threadlets import probes, streams
from threadlets.ways import Ways

__all__ = ["LINES", "TEXT", "let_nothing_be_in_memory", "send_away"]

LINES = [f"line {number}\n" for number in range(3000)]

TEXT = "".join(LINES)


def let_nothing_be_in_memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let nothing be known to be in memory; return from where on it was looked for."""
    looks: list[int] = []

    def known_until(descriptor: int, offset: int, end: int) -> int:
        looks.append(offset)
        return offset

    monkeypatch.setattr(probes, "_refuses", set())
    monkeypatch.setattr(streams, "known_until", known_until)
    send_away(monkeypatch, streams._operate)
    return looks


class Away(Ways[Any, Any]):
    """Ways of which none is in place, whatever has been learned."""

    def on(self, device: int = 0) -> Any:
        """Return the one that is away."""
        return self.away


def send_away(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any]) -> None:
    """Let this do the operations that are done elsewhere, on workers."""
    ways = Away(function)
    for name in ("operate", "reads"):
        monkeypatch.setattr(streams, name, ways)
