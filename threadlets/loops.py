"""The event loop that changes hands: asyncio's selector loop with a run token.

Why its own round: the token is passed on between two callbacks, callbacks that cannot run now are set aside, and the
one that runs has to be known. All of that happens where a round of the loop is run, so ``EventLoop`` has its own; it
does what asyncio's does, in the same order. Everything else is asyncio's.

Rejected: to pad asyncio's queue of ready callbacks with ones of ours (they would be in the wrong order as soon as
somebody else's callback appends to it).

Assumes: the attributes of asyncio's loop in ``NEEDED``, 3.11 to 3.14. A loop that lacks one falls back, with one
warning: it is then asyncio's loop as it is, and threadlets learn where to run, as they do on any other loop.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
import sys
import threading
import warnings
from asyncio import SelectorEventLoop, base_events
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVarTuple

from .snapshots import TakeoverStatistics
from .takeover import RunToken

__all__ = ["EventLoop", "new_event_loop"]

Ts = TypeVarTuple("Ts")

NEEDED = (
    "_asyncgen_finalizer_hook _asyncgen_firstiter_hook _clock_resolution _process_events _ready _run_once _scheduled"
    " _selector _stopping _thread_id _timer_cancelled_count _write_to_self _add_reader _add_writer"
).split()
LONGEST_WAIT = 86400  # seconds; borrowed: asyncio's MAXIMUM_SELECT_TIMEOUT
CANCELLED_TIMERS = 100  # borrowed: asyncio's; that many timers, half of them cancelled, and they are sorted out


class Handle(asyncio.Handle):
    """A callback that a file descriptor owns: the loop cannot go on in the middle of it."""

    __slots__ = ()


class _Driver:
    """What the run token needs of asyncio's selector loop; see ``takeover.Driver``."""

    def __init__(self, loop: EventLoop) -> None:
        self.loop = loop

    def adopt(self) -> None:
        loop: Any = self.loop
        loop._thread_id = threading.get_ident()
        asyncio._set_running_loop(loop)
        sys.set_asyncgen_hooks(firstiter=loop._asyncgen_firstiter_hook, finalizer=loop._asyncgen_finalizer_hook)
        if loop._debug:
            sys.set_coroutine_origin_tracking_depth(1)

    def disown(self) -> None:
        asyncio._set_running_loop(None)

    def wake(self) -> None:
        self.loop._write_to_self()  # type: ignore[attr-defined]

    def stop(self) -> None:
        self.loop.stop()

    def stopping(self) -> bool:
        return bool(self.loop._stopping)  # type: ignore[attr-defined]

    def obstacle(self, handle: Any) -> str | None:
        if handle is None:
            return "outside of any callback"
        return "in the callback of a file descriptor" if type(handle) is Handle else in_protocol(handle)

    def put_back(self, handles: Iterable[asyncio.Handle]) -> None:
        self.loop._ready.extendleft(reversed(list(handles)))  # type: ignore[attr-defined]

    def round(self) -> None:
        """Run one round; asyncio's rules: timers that are due, and what was ready when the poll returned."""
        loop: Any = self.loop
        token: RunToken = loop._threadlets_token
        ready, timers = loop._ready, loop._scheduled
        if len(timers) > CANCELLED_TIMERS and 2 * loop._timer_cancelled_count > len(timers):
            self._drop_cancelled()
            timers = loop._scheduled
        else:
            while timers and timers[0]._cancelled:
                heapq.heappop(timers)._scheduled = False
                loop._timer_cancelled_count -= 1
        timeout = None
        if ready or loop._stopping or token.claims:
            timeout = 0
        elif timers:
            timeout = min(max(0, timers[0].when() - loop.time()), LONGEST_WAIT)
        loop._process_events(loop._selector.select(timeout))
        due = loop.time() + loop._clock_resolution
        while timers and timers[0].when() < due:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            ready.append(timer)
        timer = None
        debug = loop._debug
        cell = token.cell
        for _ in range(len(ready)):
            if token.claims:
                if not token.boundary():
                    return
                cell = token.cell
            try:
                handle = ready.popleft()
            except IndexError:  # somebody has run them meanwhile
                break
            if handle._cancelled or (token.away and not token.keeps(handle)):
                continue
            token.current = handle
            try:
                if debug:
                    run_timed(loop, handle, token)
                else:
                    handle._run()
            finally:
                if (
                    cell or token.cell is not cell or token.region is not None
                ):  # rare: it was taken, or has left a region open
                    token.settle()
                    cell = token.cell
        token.current = handle = None
        if token.claims:
            token.boundary()

    def _drop_cancelled(self) -> None:
        loop: Any = self.loop
        for timer in loop._scheduled:
            if timer._cancelled:
                timer._scheduled = False
        loop._scheduled = [timer for timer in loop._scheduled if not timer._cancelled]
        heapq.heapify(loop._scheduled)
        loop._timer_cancelled_count = 0


class ChangesHands:
    """What the loops that change hands have in common, in front of the loop that they are made from."""

    _threadlets_token: RunToken | None
    _main_at_home: bool

    def statistics(self) -> TakeoverStatistics:
        """Return what takeovers there were so far. Thread: any."""
        return statistics_of(self._threadlets_token)

    def run_until_complete(self, future: Any) -> Any:
        """Run until a future is done."""
        with at_home(self._threadlets_token, future if self._main_at_home else None):
            return super().run_until_complete(future)  # type: ignore[misc]

    def add_signal_handler(self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Add a handler for a signal. Thread: home."""
        check_home(self._threadlets_token)
        super().add_signal_handler(sig, callback, *args)  # type: ignore[misc]

    def remove_signal_handler(self, sig: int) -> bool:
        """Remove a handler for a signal. Thread: home."""
        check_home(self._threadlets_token)
        return super().remove_signal_handler(sig)  # type: ignore[misc, no-any-return]


class EventLoop(ChangesHands, SelectorEventLoop):
    """asyncio's event loop, which another thread goes on with while a call in a region blocks.

    Regions are opened by ``with blocking():``, and by threadlets that run in place. Use it where a loop is asked for:
    ``asyncio.Runner(loop_factory=threadlets.EventLoop)``. For servers, see ``new_event_loop``.

    Args:
        selector: As for ``asyncio.SelectorEventLoop``.
        threshold: How long a call may block until the loop goes on without it, in seconds. None: adapted to the
            machine, between 1 and 8 ms. ``float("inf")``: takeovers are off.
        main_at_home: Whether the task that ``run_until_complete`` is given stays on this thread, and waits while
            another task blocks it: servers set signal handlers in it, which only the main thread may.
    """

    _closed = True  # there is nothing to close yet, if an argument is wrong

    def __init__(
        self,
        selector: selectors.BaseSelector | None = None,
        *,
        threshold: float | None = None,
        main_at_home: bool = False,
    ) -> None:
        check_threshold(threshold)
        self._main_at_home = main_at_home
        super().__init__(selector)
        missing = [name for name in NEEDED if not hasattr(self, name)]
        if missing:
            warnings.warn(
                f"this version of asyncio lacks what threadlets.EventLoop needs ({', '.join(missing)}): "
                f"the loop works, but it cannot go on while a call blocks",
                RuntimeWarning,
                stacklevel=2,
            )
            self._threadlets_token = None
        else:
            self._driver = _Driver(self)
            self._threadlets_token = RunToken(self._driver, threshold)

    def run_forever(self) -> None:
        """Run until ``stop()``; as asyncio's. Before it returns, it waits for calls that block, and lets them end."""
        token = self._threadlets_token
        if token is not None and not self.is_running():
            token.begin()
        super().run_forever()

    def _run_once(self) -> None:
        token = self._threadlets_token
        if token is None:
            super()._run_once()  # type: ignore[misc]
            return
        try:
            self._driver.round()
            if token.away and self._stopping:  # type: ignore[attr-defined]
                token.finish()
        except BaseException:
            token.finish()
            raise

    def close(self) -> None:
        """Close the loop; as asyncio's."""
        super().close()
        if self._threadlets_token is not None:
            self._threadlets_token.spares.close()

    def _check_thread(self) -> None:
        if not is_excused():
            super()._check_thread()  # type: ignore[misc]

    def _add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
        return _owned(super()._add_reader(fd, callback, *args))  # type: ignore[misc]

    def _add_writer(self, fd: Any, callback: Any, *args: Any) -> Any:
        return _owned(super()._add_writer(fd, callback, *args))  # type: ignore[misc]


def _owned(handle: asyncio.Handle) -> asyncio.Handle:
    handle.__class__ = Handle
    return handle


def run_timed(loop: Any, handle: Any, token: RunToken) -> None:
    """Run a callback in debug mode: a slow one is reported, unless the loop went on without it."""
    cell = token.cell
    started = loop.time()
    try:
        loop._current_handle = handle
        handle._run()
    finally:
        loop._current_handle = None
    seconds = loop.time() - started
    if seconds >= loop.slow_callback_duration and token.cell is cell:
        callback = getattr(handle._callback, "__self__", None)
        task = callback if isinstance(callback, asyncio.Task) else handle
        base_events.logger.warning("Executing %r took %.3f seconds", task, seconds)  # type: ignore[attr-defined]
        del callback, task
    del handle  # this frame lives on in tracebacks of what it has called


def in_protocol(handle: Any) -> str | None:
    """Say whether a callback is a protocol's method: its next one must not be called before it has returned."""
    protocol = isinstance(getattr(handle._callback, "__self__", None), asyncio.BaseProtocol)
    return "in a protocol's method" if protocol else None


@contextmanager
def at_home(token: RunToken | None, task: Any) -> Iterator[None]:
    """Keep a task on the home thread; nothing, if it is none."""
    if token is None or not isinstance(task, asyncio.Task):
        yield
        return
    token.aside.pin(task)
    try:
        yield
    finally:
        token.aside.unpin(task)


def check_home(token: RunToken | None) -> None:
    """Raise RuntimeError if the loop runs on another thread than its own, for the system wants that."""
    if token is not None and token.thread != token.home:
        raise RuntimeError(
            "signal handlers belong to the event loop's own thread, and that is blocked now: do it in "
            "'async with threadlets.pinned():', or before anything blocks"
        )


def is_excused() -> bool:
    """Say whether a callback may be asked for on another thread than the loop's; called by what ``call_soon`` calls.

    asyncio's runner, when it handles Ctrl-C, cancels the main task, whoever runs the loop. And a task's step may have
    awaited, by mistake, in a region that was taken: if that were refused the task would hang.
    """
    frame = sys._getframe(3)
    if frame.f_code.co_filename == asyncio.events.__file__:
        return True
    while frame.f_back is not None and frame.f_code.co_filename != asyncio.runners.__file__:
        frame = frame.f_back
    return frame.f_code.co_name == "_on_sigint"


def check_threshold(threshold: float | None) -> None:
    """Raise ValueError for a threshold that is none."""
    if threshold is not None and not threshold > 0:
        raise ValueError(f"threshold={threshold!r}: expected seconds, more than 0; None adapts it, inf is never")


def statistics_of(token: RunToken | None) -> TakeoverStatistics:
    """Return the statistics of a loop's token, or those of a loop without one."""
    return TakeoverStatistics(0, {}, 0, 0.0, 0.0, 0, float("inf")) if token is None else token.statistics()


def new_event_loop() -> EventLoop:
    """Make an ``EventLoop`` for a server, with the main task at home: ``uvicorn --loop threadlets:new_event_loop``.

    Thread: any.
    """
    return EventLoop(main_at_home=True)
