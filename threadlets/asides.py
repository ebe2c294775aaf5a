"""Callbacks that cannot run while a thread of their event loop is away, and so are set aside until it is back.

There are two kinds. A callback whose context has been entered by the thread that is away: no other thread may enter it.
And a step of a task that is pinned, when home is away, for only home may run it. They keep their order, and go in front
of what is ready when somebody comes back; what cannot run even then is set aside again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["Aside", "Errand"]


class Aside:
    """The callbacks that are set aside, and the tasks that are pinned. Thread: who holds the run token.

    Attributes:
        pinned: What only home may run, by its identity: tasks, how often each is pinned; and errands.
        total: How many callbacks were set aside so far.
    """

    def __init__(self) -> None:
        self.pinned: dict[int, int] = {}
        self.total = 0
        self._handles: list[asyncio.Handle] = []

    def __len__(self) -> int:
        """Return how many callbacks are set aside. Thread: any."""
        return len(self._handles)

    def admits(self, handle: asyncio.Handle, at_home: bool) -> bool:
        """Say whether a callback can run now; if not, set it aside."""
        callback, context = handle._callback, handle._context  # type: ignore[attr-defined]
        # What makes steps of a task has the task as __self__.
        if at_home or not self.pinned or id(getattr(callback, "__self__", callback)) not in self.pinned:
            try:
                context.run(int)
                return True
            except RuntimeError:  # a thread that is away has entered it
                pass
        self.total += 1
        self._handles.append(handle)
        return False

    def take(self) -> list[asyncio.Handle]:
        """Take all callbacks, in order."""
        handles, self._handles = self._handles, []
        return handles

    def pin(self, task: asyncio.Task[Any]) -> None:
        """Let only home run a task, until it is unpinned as often."""
        self.pinned[id(task)] = self.pinned.get(id(task), 0) + 1

    def unpin(self, task: asyncio.Task[Any]) -> None:
        """Undo one ``pin``."""
        count = self.pinned.pop(id(task)) - 1
        if count:
            self.pinned[id(task)] = count


class Errand:
    """Something that only home may call, once: like a pinned task, until then."""

    def __init__(self, pinned: dict[int, int], callback: Callable[[], object]) -> None:
        self._pinned = pinned
        self._callback = callback
        pinned[id(self)] = 1

    def __call__(self) -> None:
        """Do it. Thread: home."""
        del self._pinned[id(self)]
        self._callback()
