"""How work ends when a program, a loop or a pool does: what may finish, what is cancelled, and who is still there.

The order is always the same: nothing more is let in; what is queued never runs; what runs may finish for some time, if
that was asked for; then it is cancelled, and cleans up. Whoever has not stopped after a while is named on stderr, with
what it is doing, and again after twice as long; a deadline ends the wait, and so does Ctrl-C.

A loop ends its pools when its asynchronous generators are shut down: that is what ``asyncio.run`` and its like do last,
and the one thing that they call for everybody. ``programs.run`` does so earlier.

Worker threads are daemons: the interpreter does not wait for them when it exits, whatever they do.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from . import trials
from .cancellation import why
from .takeover import SAY_SECONDS
from .tasks import unlist
from .whereabouts import stack_of

if TYPE_CHECKING:
    from .handles import Threadlet
    from .homes import Home
    from .pools import Pool

__all__ = ["MANY", "PATIENCE", "busy_on", "count_of", "depart", "leave", "tell", "wait_out"]

PATIENCE = 300.0  # seconds; borrowed: how long asyncio waits for the threads of its executor
MANY = 10  # arbitrary: so many are named
ROUNDS = 4  # of the loop, which a coroutine without cleanup takes to end when it was cancelled


async def depart(
    pools: Callable[[], Collection[Pool]], reason: str, *, finish: float = 0.0, timeout: float = PATIENCE
) -> list[Threadlet[Any]]:
    """Close pools and end what is in them; return who is left after that time.

    Args:
        pools: Returns those that hold work; asked again when they are empty, for what ends may start more elsewhere.
        reason: That of the cancels.
        finish: How many seconds what runs may take to finish by itself.
        timeout: How many more seconds it may then take to stop.

    Thread: loop. Cancel: point; everything is cancelled by then.
    """
    finished = _now() + finish
    deadline = finished + timeout
    left: list[Threadlet[Any]] = []
    while not left and (busy := list(pools())):
        for pool in busy:
            pool.close()
            pool._ends = True
            pool.select(state="queued").cancel(reason)
        if _now() < finished:
            try:
                left = await wait_out(busy, finished)
            except BaseException:
                for pool in busy:
                    pool.cancel(reason)
                raise
        for pool in busy:
            pool.cancel(reason)
        left = await wait_out(busy, deadline, reason)
    return left


async def wait_out(pools: Collection[Pool], until: float, reason: str | None = None) -> list[Threadlet[Any]]:
    """Wait until pools are empty; return who is left at that time of ``time.monotonic()``.

    Args:
        pools: For whom to wait.
        until: When to give up.
        reason: Why they were told to end: those that take long to do so are named on stderr. None: they were not.

    Thread: loop. Cancel: point.
    """
    began, patience = _now(), SAY_SECONDS
    for _ in range(ROUNDS):
        await asyncio.sleep(0)
    for pool in pools:
        while pool._index:
            now = _now()
            if now >= until:
                return _members(pools)
            try:
                async with asyncio.timeout(min(until - now, began + patience - now) if reason else until - now):
                    await pool.drain()
            except TimeoutError:
                if reason and _now() >= began + patience:
                    patience *= 2
                    left = _members(pools)
                    tell(f"still waiting for {count_of(left)}, after {_now() - began:.0f} s ({reason})", left)
    return []


def tell(what: str, left: Collection[Threadlet[Any]], where: str = "") -> None:
    """Say on stderr who is left, and what each is doing; ``where`` is what comes before that. Thread: any."""
    lines = [f"threadlets: {what}:\n", where]
    for handle in list(left)[:MANY]:
        inside = why(handle)
        lines.append(f"  {handle!r}, for {handle.age:.1f} s{', ' + inside if inside else ''}\n")
        lines += ["  " + line.replace("\n  ", "\n    ") for line in stack_of(handle)] or ["    not on any thread\n"]
    if len(left) > MANY:
        lines.append(f"  and {len(left) - MANY} more\n")
    with suppress(OSError, ValueError, AttributeError):  # a full disk; stderr is closed, or None
        sys.stderr.write("".join(lines))


def leave(left: Collection[Threadlet[Any]]) -> None:
    """Have nobody wait any more for those that are held up on workers. Thread: loop."""
    for handle in left:
        if handle.pool is not None:
            handle.pool._abandon(handle, "left behind")
            task = getattr(handle, "_task", None)
            if isinstance(task, asyncio.Task):
                unlist(task)  # whoever cancels all tasks would wait for it


def count_of(left: Collection[Any]) -> str:
    """Say how many there are."""
    return f"{len(left)} threadlet{'s' * (len(left) != 1)}"


def busy_on(loop: asyncio.AbstractEventLoop) -> list[Threadlet[Any]]:
    """Return the threadlets of an event loop that are not final. Thread: loop."""
    home: Home | None = getattr(loop, "_threadlets_home", None)
    return [] if home is None else _members(cast("Collection[Pool]", list(home.busy)))


def _now() -> float:
    return trials.now() / 1e9


def _members(pools: Collection[Pool]) -> list[Threadlet[Any]]:
    """Return what is in any of some pools, each once: one may be a part of another."""
    return list(dict.fromkeys(handle for pool in pools for handle in pool))
