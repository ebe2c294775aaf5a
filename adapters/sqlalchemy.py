"""SQLAlchemy's async engine on a loop that changes hands: a task stays on the home thread while it uses a greenlet.

Why: ``AsyncEngine``, ``AsyncSession`` and all that belongs to them run SQLAlchemy's synchronous code in a greenlet, and
switch out of it for each await. A greenlet can only be switched to on the thread that made it. But after an await, a
task of a loop that changes hands may go on on another thread: ``greenlet.error: Cannot switch to a different thread``.

How: one async function, ``greenlet_spawn``, makes all of these greenlets. ``install()`` exchanges its code, so that
what it did is done in ``async with threadlets.pinned():``. The function stays the same object: whoever has imported it
by name, and whoever will, has the new one, and after ``uninstall()`` the old one again.

    import threadlets.adapters.sqlalchemy
    threadlets.adapters.sqlalchemy.install()        # before the first query

What changes: a call of SQLAlchemy that begins while home is blocked in some region waits until home is back. Calls that
block for long on home hold up the database, too; ``Contract(blocks="always")`` keeps them on worker threads. To wait is
one more point where a task can be cancelled: before SQLAlchemy has begun. Between calls a task is free. On loops that
do not change hands nothing changes.

Do not wait on home for a task that needs home: ``call_async`` of a function that uses SQLAlchemy, from a region.

Rejected: to exchange the name in each module of SQLAlchemy (misses references in other people's modules, and needs an
import hook for later ones); to make the greenlets on the thread that happens to drive (a spare may go to sleep, or end,
with greenlets on it); a thread for each greenlet (a hundred times the cost of a switch).

Assumes, and checks when installed: ``sqlalchemy.util.concurrency.greenlet_spawn`` is a coroutine function written in
Python, without closure. Tested with SQLAlchemy 2.0 and 2.1.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from importlib import import_module
from types import FunctionType
from typing import Any

from threadlets import pinned

from .installations import Changes, Installation, check_version

try:
    import_module("greenlet")  # SQLAlchemy 2.1 can do without, but not its async engine
    from sqlalchemy import __version__ as VERSION
    from sqlalchemy.util import concurrency
except ImportError as error:
    raise ImportError(
        "SQLAlchemy's async engine needs sqlalchemy and greenlet: pip install 'threadlets[sqlalchemy]'"
    ) from error

__all__ = ["TESTED", "Installation", "install", "uninstall"]

TESTED = ("2.0", "2.1")  # versions of SQLAlchemy


def install() -> Installation[None]:
    """Keep tasks on the loop's home thread while SQLAlchemy uses a greenlet in them.

    To be called before the first query: what is under way is not kept. It may be called several times, and lasts until
    each of them was undone.

    Returns:
        What undoes it; also a context manager.

    Raises:
        RuntimeError: If this version of SQLAlchemy is not made as we know it.

    Warns:
        RuntimeWarning: If it was not tested with this version of SQLAlchemy.

    Thread: any.
    """
    return _changes.install(None)


def uninstall() -> None:
    """Undo the last ``install()`` that was not undone; nothing, if there is none. Thread: any."""
    _changes.uninstall()


_spawn: Any = concurrency.greenlet_spawn


async def _code(fn: Callable[..., Any], *args: Any, _instead: Callable[..., Any], **kwargs: Any) -> Any:
    """Stand for ``greenlet_spawn``: it finds nothing of this module, since its globals are still SQLAlchemy's."""
    return await _instead(fn, args, kwargs)


def _change(changes: Changes[None]) -> None:
    check_version(
        "threadlets.adapters.sqlalchemy",
        "SQLAlchemy",
        VERSION,
        TESTED,
        "put 'async with threadlets.pinned():' around what uses the database",
    )
    if not inspect.iscoroutinefunction(_spawn) or not isinstance(_spawn, FunctionType) or _spawn.__closure__:
        raise RuntimeError(
            f"SQLAlchemy {VERSION} has no greenlet_spawn that threadlets.adapters.sqlalchemy can change: put "
            f"'async with threadlets.pinned():' around what uses the database, or install SQLAlchemy {TESTED[-1]}"
        )
    before = FunctionType(_spawn.__code__, _spawn.__globals__, _spawn.__name__, _spawn.__defaults__)
    before.__kwdefaults__ = _spawn.__kwdefaults__
    code, defaults = _spawn.__code__, _spawn.__kwdefaults__

    async def instead(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not _in_task():
            return await before(fn, *args, **kwargs)
        async with pinned():
            return await before(fn, *args, **kwargs)

    # The defaults first: the old code does not look at the new one, the new code cannot do without.
    _spawn.__kwdefaults__ = {**(defaults or {}), "_instead": instead}
    _spawn.__code__ = _code.__code__

    def undo() -> None:
        _spawn.__code__, _spawn.__kwdefaults__ = code, defaults

    changes.undo_by(undo)


def _in_task() -> bool:
    try:
        return asyncio.current_task() is not None
    except RuntimeError:  # no loop of asyncio's drives this coroutine
        return False


_changes = Changes(_change)
