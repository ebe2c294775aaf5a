"""What a function sees around it: the threadlet that it is, and context variables that go in and come back."""

from __future__ import annotations

import threading
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .handles import Threadlet

__all__ = ["changes", "here"]


class _Here(threading.local):
    """What this thread does."""

    running: Threadlet[Any] | None = None  # the innermost plain function's


here = _Here()


def changes(before: Context, after: Context) -> list[tuple[ContextVar[Any], Any]] | None:
    """Return the context variables that a function has set; compared by identity, for ``==`` is the user's code."""
    return [(variable, value) for variable, value in after.items() if before.get(variable, before) is not value] or None
