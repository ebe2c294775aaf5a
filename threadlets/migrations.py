"""Leaving the event loop on purpose: ``async with offload():`` and ``await migrate(node)``. See ``trips`` for how."""

from __future__ import annotations

import types
from asyncio import AbstractEventLoop, CancelledError, Task, current_task
from collections.abc import Generator
from types import TracebackType
from typing import Any

from .groups import workers_at
from .surroundings import trip_here
from .tasks import running_loop
from .topology import Node
from .trips import HOME, Trip
from .visits import Move, Place
from .workers import shared_group

__all__ = ["migrate", "offload"]


class _Stay:
    """A block in which a coroutine is somewhere else."""

    __slots__ = ("_before", "_place", "_task")

    def __init__(self, place: Place) -> None:
        self._place = place
        self._before: Place = HOME
        self._task: Task[Any] | None = None

    async def __aenter__(self) -> None:
        if self._task is not None:
            raise RuntimeError("this block is in use: make one for each, 'async with offload():'")
        before = place_here()
        try:
            await go(self._place)
        except (Exception, CancelledError):  # told when it came there: but the block is not entered
            await go(before, returns=True)
            raise
        trip = trip_here()
        self._before, self._task = before, current_task() if trip is None else trip.task

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        trip, task, self._task = trip_here(), self._task, None
        if isinstance(error, GeneratorExit) and (trip is None or trip.task is not task):
            return  # nobody drives this coroutine any more
        if isinstance(error, CancelledError) and trip is not None:
            trip.asked = None  # it is leaving since it was told
        await go(self._before, returns=True)


class offload(_Stay):
    """A block in which the coroutine itself goes on in a worker thread, and comes back: ``async with offload():``.

    For blocking code that is not worth a function of its own. Local variables, context variables and ``with`` blocks
    are what they are; the event loop goes on meanwhile. As in any worker thread there is no running event loop: code
    that refuses to block one runs, a ``@threadlet`` is called right there, ``call_async(function, ...)`` calls an async
    function on the loop. What is awaited - futures, tasks, threadlets - is waited for on the loop, without a thread,
    and the coroutine goes on in a worker. What needs the running loop itself, as ``asyncio.sleep``, wants to be home:

        async with offload() as away:
            rows = client.query(...)
            async with away.home():
                await asyncio.sleep(1)

    A cancel is told at the next ``await``, or at the next ``checkpoint()``; at the end of the block at the latest.

    Args:
        node: Where: one of ``topology.machine().nodes``; None: in any worker thread.

    Raises:
        TypeError: If that is no node.
        RuntimeError: Outside of a task; in ``pinned()``, and in a coroutine with ``affinity="home"``; if no thread can
            be started; if it is entered twice.

    Thread: loop. Cancel: point, at its beginning and its end.
    """

    __slots__ = ()

    def __init__(self, node: Node | None = None) -> None:
        super().__init__(shared_group() if node is None else workers_at(node))

    async def __aenter__(self) -> offload:  # type: ignore[override]
        """Leave the loop."""
        await super().__aenter__()
        return self

    @staticmethod
    def home() -> _Stay:
        """Return a block, for inside of this one, in which the coroutine is back on its own event loop.

        Raises:
            RuntimeError: If it is entered twice.
        """
        return _Stay(HOME)


async def migrate(target: Node | AbstractEventLoop | None) -> None:
    """Have the coroutine that runs here go on elsewhere, until the next ``migrate``: on another event loop, or home.

    There, that loop is the running one, what is awaited belongs to it, and ``asyncio.timeout``, ``TaskGroup`` and their
    like work, if they begin and end there. The task at home waits; it is told to stop as ever. When the coroutine ends,
    it need not be home: its result is.

    Args:
        target: A node of ``topology.machine()``: its ``loop()``. An event loop that runs in another thread. None: home.

    Raises:
        TypeError: If it is none of these.
        RuntimeError: Outside of a task; if the loop does not run; in ``pinned()``, and in a coroutine with
            ``affinity="home"``.

    Thread: loop. Cancel: point, there; or here, if it did not come that far.
    """
    if isinstance(target, Node):
        target = target.loop()
    if target is not None and not isinstance(target, AbstractEventLoop):
        raise TypeError(f"migrate({target!r}): expected a node of topology.machine(), an event loop, or None for home")
    if target is not None and not target.is_running():
        raise RuntimeError(f"migrate({target!r}): that event loop does not run, so nothing would go on there")
    await go(target)


# -------------------------------------------------------------------------------------------------- how


def place_here() -> Place:
    """Return where the coroutine that runs here is. Thread: any."""
    trip = trip_here()
    return HOME if trip is None else trip.place


@types.coroutine
def go(place: Place, *, returns: bool = False) -> Generator[Any, Any, None]:
    """Go on at a place; at once, if it is that already.

    Args:
        place: Where.
        returns: It has been there before, and is to be told there if it is cancelled on the way.

    Raises:
        RuntimeError: Outside of a task; if the place cannot take it, raised at home.
        asyncio.CancelledError: At the place, or at home if it never got there.

    Thread: the one that drives the coroutine. Cancel: point.
    """
    trip = trip_here()
    if trip is not None:
        if place is trip.loop:
            place = HOME
        if trip.place is not place:
            yield Move(place)
    elif place is not HOME and place is not running_loop():
        pin = Trip(_leaving(), place, returns=returns).pin
        pin._asyncio_future_blocking = True
        yield pin


def _leaving() -> Task[Any]:
    """Return the task that runs here, if its coroutine may leave."""
    loop = running_loop()
    task = None if loop is None else current_task(loop)
    if not isinstance(task, Task):
        raise RuntimeError(
            "a coroutine can leave its event loop only in a task of asyncio's: asyncio.run, create_task, a threadlet"
        )
    token: Any = getattr(loop, "_threadlets_token", None)
    home: Any = getattr(loop, "_threadlets_home", None)
    handle = None if home is None else home.current(task)
    if (handle is not None and handle.entrypoint.at_home) or (token is not None and id(task) in token.aside.pinned):
        raise RuntimeError(
            f"{handle or task!r} is to stay on its event loop's own thread, by pinned() or affinity='home', and cannot "
            f"leave: call plain functions with Contract(blocks='always')"
        )
    return task
