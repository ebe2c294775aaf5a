"""What a run token needs to know of a kind of event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

__all__ = ["Driver"]


class Driver(Protocol):
    """What the token needs to know of a kind of event loop. Thread: the driver, unless a method says otherwise."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop. Thread: any."""

    def round(self) -> None:
        """Run one round of the loop on this thread; end it early if there are claims and this thread is not home."""

    def adopt(self) -> None:
        """Make this thread the one that the loop believes to run on."""

    def disown(self) -> None:
        """Undo that."""

    def wake(self) -> None:
        """Make the poll return; nothing, if the loop is closed. Thread: any."""

    def stop(self) -> None:
        """Have home leave ``run_forever``."""

    def stopping(self) -> bool:
        """Say whether home is to leave ``run_forever``."""

    def obstacle(self, handle: Any) -> str | None:
        """Say why the loop cannot go on in the middle of this callback; None if it can. Thread: any."""

    def put_back(self, handles: Iterable[asyncio.Handle]) -> None:
        """Put callbacks in front of those that are ready."""
