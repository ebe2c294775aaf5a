"""What a threadlet has put off until its function has ended: ``defer``, a ``finally`` that can be written anywhere.

A plain function's callbacks are called on its thread, right behind it, whether that is in place, away or a worker.
Those of a coroutine are called in a task of their own, since the one of the coroutine has ended with it; this task
counts as the threadlet's. Meanwhile the threadlet is "cleaning", which is shown and not written: see ``handles``.

While they are called, the threadlet is inside of a block that a cancel does not break into (``cancellation.holding``),
for as long as its contract allows. After that time it is told all the same, as often as there are callbacks left: each
is begun, and stopped at the first place where it listens. What does not listen takes as long as it takes: nobody can
stop a thread. But the log says where it is.

No error is lost: one, of the function or of a callback, is raised as it is, and several as a group.

Rejected: to call a coroutine's callbacks in its own task. That takes a coroutine around each one, in case that it
defers something; it would be in every traceback and cost every call 4 %.

Invariants: a threadlet is in ``deferred`` from its first ``defer`` until all was called; each callback is called once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from asyncio import CancelledError
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from inspect import isawaitable, iscoroutine, iscoroutinefunction
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, TypeVarTuple

from . import events
from .cancellation import enter, expire, holds, leave, unexpire
from .errors import CleanupTimeout
from .events import listeners
from .lifecycles import MISSED
from .outcomes import without_caller
from .regions import current_threadlet
from .surroundings import outermost
from .takeover import SAY_SECONDS
from .tasks import running_loop, unlist
from .whereabouts import place_of

if TYPE_CHECKING:
    from .handles import Threadlet

__all__ = ["Cleanup", "clean_up", "defer", "deferred", "is_cleaning", "sweep"]

logger = logging.getLogger("threadlets")

Ts = TypeVarTuple("Ts")

EXITS = (KeyboardInterrupt, SystemExit)


class Cleanup:
    """What one threadlet has deferred."""

    __slots__ = (
        "_began",
        "_callbacks",
        "_current",
        "_errors",
        "_handle",
        "_late",
        "_task",
        "_timer",
        "active",
        "context",
        "failure",
    )

    def __init__(self, handle: Threadlet[Any]) -> None:
        self._handle = handle
        self._callbacks: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._errors: list[BaseException] = []
        self._current: Any = None  # the callback that was called last
        self._late = False  # the time is over
        self._began = 0  # nanoseconds
        self._task: asyncio.Task[Any] | None = None  # that of a coroutine's cleanup, if it was suspended
        self._timer: asyncio.TimerHandle | None = None
        self.active = False  # the function has ended
        self.context: Context | None = None  # where a coroutine's callbacks are called
        self.failure: BaseException | None = None  # what a coroutine's threadlet fails with, when all was called

    def __repr__(self) -> str:
        return f"cleanup, in {_name(self._current)}" if self.active else "cleanup"

    @property
    def grace(self) -> float:
        """How many seconds it may take."""
        return self._handle.entrypoint.contract.cleanup

    def add(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Put one more on top. Thread: the one that the threadlet runs on."""
        self._callbacks.append((callback, args))
        if self._handle.entrypoint.is_coroutine:
            self.context = copy_context()

    # ------------------------------------------------------------------------------------------------ call

    def run(self, failure: BaseException | None) -> BaseException | None:
        """Call all that a plain function has deferred; return what the threadlet fails with. Thread: its own."""
        self._begin()
        # The loop takes this over:            this thread:
        #   marks the threadlet as missed        is active
        #   looks whether it is active           looks whether it is missed, or on a worker
        # One of them sees the other, and sets the timer; two of them are one (test_a_cleanup_that_is_taken_over).
        whole = outermost(self._handle)
        home = None if whole is None or whole.pool is None else whole.pool._home
        if home is not None and (whole._marks & MISSED or home.thread != threading.get_ident()):  # type: ignore[union-attr]
            _call_on(home.loop, self.limit)
        while self._callbacks:
            try:
                self._current, args = self._callbacks.pop()
                result = self._current(*args)
                if asyncio.isfuture(result) and result.done():  # a threadlet, which has run right here
                    result.result()
                elif isawaitable(result):
                    if iscoroutine(result):
                        result.close()
                    raise TypeError(
                        f"{_name(self._current)} was deferred by a plain function, and returned {result!r}, which "
                        f"nobody here can await: defer(call_async, callback, ...) does"
                    )
            except BaseException as error:
                self._errors.append(error)
            args, result = (), None  # tracebacks refer to this frame
        return self._end(failure)

    async def finish(self, failure: BaseException | None) -> None:
        """Call all that a coroutine has deferred; ``failure`` says then what the threadlet fails with.

        Raises:
            KeyboardInterrupt, SystemExit: What a callback has raised, so that the event loop lets it out.
        """
        self._begin()
        while self._callbacks:
            try:
                self._current, args = self._callbacks.pop()
                result = self._current(*args)
                if isawaitable(result):
                    if self._late and self._task is not None:
                        self._task.cancel(_reason(self.grace))
                    await result
            except BaseException as error:
                self._errors.append(error)
            args, result = (), None
        self.failure = self._end(failure)
        if self._task is not None and self.failure is not failure and isinstance(self.failure, EXITS):
            raise self.failure

    def suspend(self, task: asyncio.Task[Any]) -> None:
        """Note that a coroutine's cleanup could not finish in place, and goes on as this task. Thread: loop."""
        self._task = task
        unlist(task)  # who cancels all tasks, as asyncio.run does at its end, does not mean this one
        self.limit()

    def _begin(self) -> None:
        self.active = True
        self._began = monotonic_ns()
        enter(self._handle, self)
        if listeners:
            events.tell(events.CLEANING, self._handle)

    def _end(self, failure: BaseException | None) -> BaseException | None:
        """Return what a threadlet fails with, after its function has ended with this."""
        seconds = (monotonic_ns() - self._began) / 1e9
        late = self._late or seconds > self.grace
        last, self._current = _name(self._current), None
        del deferred[self._handle]
        leave(self._handle, self)
        if (timer := self._timer) is not None:
            unexpire(outermost(self._handle))
            _call_on(self._loop, timer.cancel)
        errors = [error for error in self._errors if not isinstance(error, CancelledError)]
        cancelled = next((error for error in [failure, *self._errors] if isinstance(error, CancelledError)), None)
        if late:
            self._late = True  # for a timer that is about to be set
            if failure is not cancelled:
                cancelled = None  # a callback's: that is what it was told by
            errors.append(
                CleanupTimeout(
                    f"the cleanup of {self._handle.entrypoint.name}() took {seconds:.3g} s and may take "
                    f"{self.grace:.3g}, the last of it was {last}: make it quicker, or say "
                    f"@threadlet(contract=Contract(cleanup=...))"
                )
            )
        if failure is not None and failure is not cancelled:
            errors.insert(0, failure)
        self._errors = []
        try:
            return self._outcome(errors, cancelled)
        finally:
            del failure, cancelled, errors

    def _outcome(self, errors: list[BaseException], cancelled: BaseException | None) -> BaseException | None:
        if not errors:
            return cancelled
        exits = [error for error in errors if isinstance(error, EXITS)]
        if exits:  # goes on as it is, and the others are told
            for error in errors:
                if error is not exits[0] and self._handle.pool is not None:
                    message = f"in {self._handle!r}, or its cleanup, which {exits[0]!r} has ended"
                    loop = self._handle.pool._home.loop
                    _call_on(loop, loop.call_exception_handler, {"message": message, "exception": error})
            return exits[0]
        outcome = errors[0]
        if len(errors) > 1:
            for error in errors:
                without_caller(error)  # a single one is treated so when the threadlet is settled
            outcome = BaseExceptionGroup(f"{self._handle.entrypoint.name}() and its cleanup", errors)
        if outcome.__context__ is None and cancelled is not None:
            # Not by assignment: an exception class may forbid that, as a frozen dataclass does.
            vars(BaseException)["__context__"].__set__(outcome, cancelled)
        return outcome

    # ------------------------------------------------------------------------------------------------ time

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """The event loop on which the time is measured: that of the threadlet which this one is a part of."""
        whole: Any = outermost(self._handle)
        return whole.pool._home.loop  # type: ignore[no-any-return]

    def limit(self) -> None:
        """Set the timer, if that was not done. Thread: loop."""
        if self._timer is None and deferred.get(self._handle) is self and self.grace < float("inf"):
            left = self.grace - (monotonic_ns() - self._began) / 1e9
            self._set_timer(max(left, 0))

    def _set_timer(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._expire, max(SAY_SECONDS, 2 * seconds))

    def _expire(self, again: float) -> None:
        """Tell whoever cleans up that the time is over, and the log where that is; and so again. Thread: loop."""
        if deferred.get(self._handle) is not self:
            return
        self._late = True
        seconds = (monotonic_ns() - self._began) / 1e9
        logger.warning("%r has been cleaning up for %.3g s: %s", self._handle, seconds, self.place())
        if self._task is not None:
            self._task.cancel(_reason(self.grace))
        expire(outermost(self._handle), _reason(self.grace))
        self._set_timer(again)

    def place(self) -> str:
        """Say where it is. Thread: any."""
        return f"in {_name(self._current)}, at {place_of(self._handle)}"


deferred: dict[Any, Cleanup] = {}  # by threadlet: those that have deferred something


def defer(callback: Callable[[*Ts], object], /, *args: *Ts) -> None:
    """Have ``callback(*args)`` called when the threadlet that runs here has ended, however that comes about.

    What was deferred last is called first; each is called, even if another one has raised. A cancel does not interrupt
    it. Together they may take ``Contract(cleanup=...)`` seconds, 5 if it does not say: then they are told to stop, as
    by a cancel, and awaiting the threadlet raises ``CleanupTimeout``. The threadlet is not done before they have ended.

    In a plain function they are called on its thread. In a coroutine they may be async functions; they are called in a
    task of their own, where ``current_threadlet()`` is the same. If one error comes of it all, of the function or of a
    callback, it is raised as it is; several are raised as a group, that of the function first.

    Args:
        callback: A function; in a coroutine threadlet also an async one.
        args: Its positional arguments; use ``functools.partial`` for keyword arguments.

    Raises:
        RuntimeError: If no threadlet runs here: so in a task of its own that a threadlet has started.
        TypeError: If it is no function, or an async one in a plain function.

    Thread: the one that the threadlet runs on. Cancel: none.
    """
    if not callable(callback):
        raise TypeError(f"defer({callback!r}): expected a function, and its arguments behind it")
    handle: Any = current_threadlet()
    if handle is None:
        raise RuntimeError(
            f"defer({_name(callback)}) where no threadlet runs: decorate the function around it with @threadlet, or "
            f"use contextlib.ExitStack"
        )
    if not handle.entrypoint.is_coroutine and iscoroutinefunction(callback):
        raise TypeError(
            f"defer({_name(callback)}) in a plain function, which cannot await it: defer(call_async, "
            f"{_name(callback)}, ...) does"
        )
    cleanup = deferred.get(handle)
    if cleanup is None:
        cleanup = deferred[handle] = Cleanup(handle)
    cleanup.add(callback, args)


def clean_up(handle: Threadlet[Any], failure: BaseException | None) -> BaseException | None:
    """Call what a plain function has deferred; return what it fails with then. Thread: its own."""
    return deferred[handle].run(failure)


def is_cleaning(handle: Any) -> bool:
    """Say whether a threadlet's function has ended, and only its cleanup is left. Thread: any."""
    cleanup = deferred.get(handle)
    return cleanup is not None and cleanup.active


def sweep() -> None:
    """Forget coroutines whose loops were closed without ``shutdown_asyncgens()``: they never end. Thread: any."""
    for table in (deferred, holds):
        for handle in list(table):
            if handle.entrypoint.is_coroutine and handle.pool._home.loop.is_closed():
                del table[handle]


def _reason(seconds: float) -> str:
    return f"the cleanup took longer than {seconds:.3g} s"


def _name(callback: Any) -> str:
    return f"{getattr(callback, '__qualname__', None) or type(callback).__qualname__}()"


def _call_on(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> None:
    """Call a function on the loop's thread, soon; or now, if this is it. Thread: any."""
    if running_loop() is loop:
        function(*args)
        return
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(function, *args)
