"""The event loop of a node: one that runs in a thread of its own, on the CPUs of that node.

Why: a coroutine that moves there works on memory that is near, and what it awaits belongs there. On an interpreter with
a lock, loops in several threads take turns; on a free-threaded one they run at the same time.

The thread is a daemon: an interpreter that exits does not wait for it. A forked child has none, and makes its own.

Thread: any, for every function.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

from .loops import new_event_loop
from .syscalls import bind_thread
from .workers import roam

if TYPE_CHECKING:
    from .nodes import Node

__all__ = ["loop_at"]

_lock = threading.Lock()
_loops: dict[tuple[int, frozenset[int]], asyncio.AbstractEventLoop] = {}


def loop_at(node: Node) -> asyncio.AbstractEventLoop:
    """Return the event loop of a node, which runs; started at the first call.

    Raises:
        RuntimeError: If the system refuses to start a thread.
    """
    key = node.number, node.allowed
    with _lock:
        loop = _loops.get(key)
        if loop is None or loop.is_closed():
            loop = _loops[key] = _start(node)
    return loop


def _start(node: Node) -> asyncio.AbstractEventLoop:
    roam()  # workers that are started from there are not to inherit its CPUs
    loop = new_event_loop()
    runs = threading.Event()
    loop.call_soon(runs.set)
    thread = threading.Thread(
        target=_run, args=(loop, node.allowed), name=f"threadlets-node-{node.number}", daemon=True
    )
    try:
        thread.start()
    except RuntimeError:
        loop.close()
        raise
    runs.wait()
    return loop


def _run(loop: asyncio.AbstractEventLoop, cpus: frozenset[int]) -> None:
    bind_thread(cpus)
    asyncio.set_event_loop(loop)
    while not loop.is_closed():  # somebody may stop it: it belongs to all who have come here
        try:
            loop.run_forever()
        except (KeyboardInterrupt, SystemExit):  # raised by a coroutine: its own loop is to let it out
            pass


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _loops.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
