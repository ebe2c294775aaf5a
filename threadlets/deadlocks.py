"""Finds circles of waits: somebody waits for a lock whose holder waits, in the end, for him.

Who waits for whom is known of those that wait on a thread, or for a lock (``surroundings.waiting``), and of threadlets
that wait for another one (``waits``). Everybody waits for one thing at a time, or we do not know which of several would
do; but what runs on an event loop that is blocked waits for that, too, and both are followed, since it cannot go on
without either (``test_deadlocks_blocked.py``). An end that we cannot see is no circle.

Whoever closes a circle notes his own wait first and looks second, both under one mutex. So two that close one together
cannot miss it, and one of them finds it: he takes his wait back under the same mutex, and raises. In between nobody who
is in the chain can have let go of a lock: he would have to take his wait back first, and that takes the mutex, too.

What is seen: locks of this library; ``await`` of one threadlet; ``call_async``; functions that are called in place by a
task, which waits for them; an event loop that is blocked by such a function, and so all that runs there.

Not seen: what a plain task awaits, events, conditions, semaphores, queues, locks of others.

What ends by itself is no part of a circle: a wait for a lock that has a timeout (unless the lock is held by who waits),
and one that is over already, since it was cancelled, and has only to be left.

In a forked child nobody waits but those that come later: the threads that waited are not there.

Thread: any.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from .errors import Deadlock
from .regions import region_here
from .surroundings import here, outermost, waiting
from .tasks import running_loop

__all__ = ["Ownable", "blocked_loop", "callers", "check", "for_locks", "name_of", "waits_for"]

FAR = 1_000  # arbitrary: how far a chain is followed


class Leavable(Protocol):
    """A wait."""

    @property
    def is_leaving(self) -> bool:
        """Whether it is over already, and has only to be left."""


class Ownable(Protocol):
    """What somebody may hold."""

    _owner: Any  # None: nobody

    def _taken_by(self) -> str:
        """Say who holds it, and where he has taken it."""


_mutex = threading.Lock()

# Waits of one threadlet for another that are in `waits` since the first is in line for a lock of the second, and how
# many locks that is so for. They are noted, and forgotten, a little later than it is true; `waiting` is exact.
for_locks: dict[tuple[Any, Any], int] = {}

_waiters: dict[Any, Leavable] = {}  # of those in `waiting` that are in line: their waits


@contextmanager
def waits_for(
    who: Any, target: Ownable, *, timed: bool = False, waiter: Leavable | None = None
) -> Iterator[Callable[[], None]]:
    """Note that somebody waits for a lock, and that those wait who have called him right here.

    Args:
        who: Who it is.
        target: The lock.
        timed: Whether the wait ends by itself.
        waiter: The wait; None: it does not end before he has the lock.

    Yields:
        What looks once more whether that is a circle; it raises, too.

    Raises:
        Deadlock: If that closes a circle.
    """
    if timed:
        if target._owner == who:
            raise _deadlock([who, target, who])
        yield _nothing
        return
    waits = dict.fromkeys(callers(who), who)
    if (loop := blocked_loop(who)) is not None:
        waits[loop] = who
    waits[who] = target
    try:
        if waiter is not None:
            _waiters[who] = waiter
        _look(who, waits, begins=True)
        yield partial(_look, who, waits)
    finally:
        try:
            with _mutex:
                _forget(waits)
        except BaseException:  # of a signal handler
            with _mutex:
                _forget(waits)
            raise


def check(who: Any) -> None:
    """Raise Deadlock if somebody waits, in the end, for himself."""
    _look(who, {})


def _look(who: Any, waits: dict[Any, Any], *, begins: bool = False) -> None:
    """Look whether these waits of somebody's close a circle: then they are taken back, and Deadlock is raised."""
    with _mutex:
        if begins:
            waiting.update(waits)
        chain = _chain(who)
        # He may be given the lock right now:
        #   gives: notes that it is his        he: looks, and finds that he waits for what is his
        #   gives: tells him
        # That he wants what he holds was seen when he began to wait (test_given_the_lock_while_it_looks).
        if chain is not None and not begins and getattr(chain[1], "_owner", None) == who:
            chain = None
        if chain is not None:
            _forget(waits)
    if chain is not None:
        raise _deadlock(chain)


def _forget(waits: dict[Any, Any]) -> None:
    for each in waits:
        waiting.pop(each, None)
        _waiters.pop(each, None)


def _nothing() -> None:
    pass


def _chain(who: Any) -> list[Any] | None:
    """Follow what somebody cannot go on without, and what that cannot, until he comes again; None if he does not."""
    chain, left, seen = [who], [_needs(who)], {who}
    while chain:
        if not left[-1]:
            chain.pop()
            left.pop()
            continue
        following = left[-1].pop()
        if following == who:  # another one that comes again closes a circle that others are in
            return [*chain, following]
        if following not in seen and len(seen) < FAR:
            seen.add(following)
            chain.append(following)
            left.append(_needs(following))
    return None


def _needs(node: Any) -> list[Any]:
    """Return all that is known of what somebody cannot go on without, the most telling last."""
    if hasattr(node, "_taken_by"):
        return [] if node._owner is None else [node._owner]
    needs: list[Any] = []
    loop = _loop_of(node)
    if loop in waiting and not _is_away(node, loop):
        needs.append(loop)
    target = waiting.get(node)
    if target is not None:
        if node not in _waiters or not _waiters[node].is_leaving:
            needs.append(target)
    elif getattr(node, "pool", None) is not None:
        ties = node.pool._home.waits.get(node)
        awaits = [] if ties is None else [each for each in list(ties.awaits) if (node, each) not in for_locks]
        if len(awaits) == 1 and not awaits[0].done():
            needs.append(awaits[0])
    return needs


def _loop_of(node: Any) -> Any:
    """Return the event loop that a task, or a coroutine, runs on; None for all others."""
    if isinstance(node, asyncio.Future):
        return node.get_loop()
    if getattr(node, "pool", None) is None or node.done():
        return None
    return node.pool._home.loop if node.entrypoint.is_coroutine else None


def _is_away(node: Any, loop: Any) -> bool:
    """Say whether a task, or a coroutine, goes on without its loop: in a region that was taken, until that ends."""
    token: Any = getattr(loop, "_threadlets_token", None)
    home: Any = getattr(loop, "_threadlets_home", None)
    for taken in () if token is None else list(token.away.values()):
        if taken.task is not None and (taken.task is node or (home and home.current(taken.task) is node)):
            return all(claim.thread != taken.thread for claim in list(token.claims))
    return False


# -------------------------------------------------------------------------------------------------------- what to say


def _deadlock(chain: list[Any]) -> Deadlock:
    steps = [_step(each, chain[place + 1]) for place, each in enumerate(chain[:-1])]
    return Deadlock("a circle of waits: " + "; ".join(filter(None, steps)))


def _step(node: Any, following: Any) -> str:
    if hasattr(node, "_taken_by"):
        return node._taken_by()  # type: ignore[no-any-return]
    if isinstance(node, asyncio.AbstractEventLoop):
        return ""  # the one that blocks it comes next
    if isinstance(following, asyncio.AbstractEventLoop):
        return f"{name_of(node)} cannot go on while its event loop is blocked"
    return f"{name_of(node)} waits for {name_of(following)}"


def name_of(node: Any) -> str:
    """Name somebody in a message."""
    if isinstance(node, int):
        name = next((f" {thread.name!r}" for thread in threading.enumerate() if thread.ident == node), "")
        return f"thread{name} ({node})"
    if isinstance(node, asyncio.Task):
        return f"task {node.get_name()!r} ({getattr(node.get_coro(), '__qualname__', node.get_coro())})"
    return repr(node)


# ---------------------------------------------------------------------------------------------- who else waits for him


def callers(who: Any) -> Iterator[Any]:
    """Iterate over those whose step a function is called in, on this thread: they wait for it."""
    if not _is_function(who):
        return
    loop = who.pool._home.loop
    task = _task_here(loop)
    if task is not None:
        home: Any = getattr(loop, "_threadlets_home", None)
        caller = (None if home is None else home.current(task)) or task
        if caller is not who:  # a chain in its own task
            yield caller


def blocked_loop(who: Any) -> asyncio.AbstractEventLoop | None:
    """Return the event loop that cannot go on while a function waits here; None if there is none."""
    if running_loop() is not None:
        return None
    if not _is_function(who):
        region = region_here()  # whoever sees no running loop in a coroutine is in one
        return None if region is None or region[0].enabled else region[0].driver.loop
    home, thread = who.pool._home, threading.get_ident()
    if home.token is None:
        blocked = home.thread == thread
    else:
        blocked = home.token.thread == thread and not (home.token.enabled and who.entrypoint.guarded)
    return home.loop if blocked else None


def _is_function(who: Any) -> bool:
    """Say whether somebody is a plain function that runs on this thread, or a chain whose steps run here, in place."""
    if isinstance(who, (int, asyncio.Future)):
        return False
    return not who.entrypoint.is_coroutine or outermost(here.get(threading.get_ident())) is who


def _task_here(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    """Return the task of a loop whose step this thread is in, also if the loop goes on without it.

        this thread: asks for the task        the loop is taken over: notes that this thread is away
        this thread: looks who is away        the loop is taken over: leaves the task
    So the answer to the first question counts only if the second one has none.
    """
    token: Any = getattr(loop, "_threadlets_token", None)
    me = threading.get_ident()
    if token is None:
        home: Any = getattr(loop, "_threadlets_home", None)
        return asyncio.current_task(loop) if home is not None and home.thread == me else None
    task = asyncio.current_task(loop) if token.thread == me else None
    for taken in list(token.away.values()):
        if taken.thread == me:
            return taken.task  # type: ignore[no-any-return]
    return task


def _after_fork() -> None:
    global _mutex
    _mutex = threading.Lock()
    waiting.clear()
    _waiters.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
