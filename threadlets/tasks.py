"""Starts a coroutine in place, as a real ``asyncio.Task`` that is the current task from its first step on.

Why: ``create_task`` makes the coroutine wait for the next round of the loop. Python 3.12 brought eager tasks:
``Task(..., eager_start=True)`` runs the first step inside the constructor. (It is built directly here: under uvloop,
``asyncio.eager_task_factory`` fails on 3.13.0.)

On 3.11 the same is made from what its ``Task`` offers: it takes ``context=``, and it accepts any
``collections.abc.Coroutine``. So it is handed a ``_Started``, which stands for a coroutine whose first step has already
run:

1. The task is made for the ``_Started``; asyncio schedules its first step for the next round.
2. The real coroutine takes its first step at once, in the task's context, with the task entered as the current one.
3. In the next round asyncio calls ``_Started.send(None)``, which hands over what that step brought: the future it
   waits for, or its result, or its exception. From then on the coroutine is driven directly.

A cancel between 2 and 3 arrives as ``_Started.throw(CancelledError)``. A plain task would have cancelled the future it
waits for; so that is done, and the future handed over (``test_cancel_right_after_start``). If that future refuses, the
coroutine gets the CancelledError itself when the future is done, as in a plain task that has ``_must_cancel`` set.

Assumes: ``asyncio.tasks._enter_task``, ``_leave_task``, ``_register_task``, ``_unregister_task`` (3.7 and later), which
third-party event loops use too;
``asyncio._get_running_loop`` and ``_set_running_loop``, which are in asyncio's ``__all__`` for the use of event loops.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar, cast

__all__ = ["coroutine_of", "must_cancel", "relist", "running_loop", "set_running_loop", "start_task", "unlist"]

T = TypeVar("T")

running_loop = asyncio._get_running_loop  # None where none runs
set_running_loop = asyncio._set_running_loop


def unlist(task: asyncio.Task[Any]) -> None:
    """Take a task out of ``asyncio.all_tasks()``, for those that cancel all of them. Somebody has to refer to it then.

    Thread: loop.
    """
    asyncio.tasks._unregister_task(task)


def relist(task: asyncio.Task[Any]) -> None:
    """Undo that. Thread: loop, or one that is in a region of this task."""
    asyncio.tasks._register_task(task)


def must_cancel(task: asyncio.Future[Any]) -> tuple[Any, ...] | None:
    """Return the arguments of the CancelledError that a task is about to get, None if there is none. Thread: any."""
    if not getattr(task, "_must_cancel", False):
        return None
    return tuple(filter(None, [getattr(task, "_cancel_message", None)]))


if sys.version_info >= (3, 12):
    # start_task(coroutine, loop=loop, context=context, eager_start=True): no function around it, which would
    # cost as much as everything else that is done for a coroutine in place.
    start_task = asyncio.Task

    def coroutine_of(task: asyncio.Task[Any]) -> Any:
        """Return the coroutine that a task drives."""
        return task.get_coro()

else:
    from asyncio.tasks import _enter_task, _leave_task

    def start_task(
        coroutine: Coroutine[Any, Any, T],
        *,
        loop: asyncio.AbstractEventLoop,
        context: Context | None = None,
        eager_start: bool,
    ) -> asyncio.Task[T]:
        """Take a coroutine's first step now, in a task of its own; what is returned is done if the coroutine is."""
        if context is None:
            context = copy_context()
        started = _Started(coroutine)
        task: asyncio.Task[T] = asyncio.Task(cast(Any, started), loop=loop, context=context)
        outer = asyncio.current_task(loop)
        if outer is not None:
            _leave_task(loop, outer)
        _enter_task(loop, task)
        try:
            context.run(started.take_first_step)
        finally:
            _leave_task(loop, task)
            if outer is not None:
                _enter_task(loop, outer)
        error = started.error
        if error is None:
            return task
        if isinstance(error, StopIteration) and task.cancelling():  # as a task that is cancelled right before it stops
            error = started.error = asyncio.CancelledError()
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            started.error = asyncio.CancelledError()  # it is raised here and now; the loop need not raise it again
            raise error
        if not isinstance(error, StopIteration):
            task.add_done_callback(_retrieve)  # whoever has the handle sees the exception; the task need not complain
        return cast("asyncio.Task[T]", _Finished(error))

    def coroutine_of(task: asyncio.Task[Any]) -> Any:
        """Return the coroutine that a task drives."""
        coroutine = task.get_coro()
        return coroutine._coroutine if isinstance(coroutine, _Started) else coroutine

    class _Finished(Generic[T]):
        """How a coroutine ended that did so in its first step; its task will be done in the next round."""

        __slots__ = ("_error",)

        def __init__(self, error: BaseException) -> None:
            self._error = error

        def done(self) -> bool:
            return True

        def result(self) -> T:
            if isinstance(self._error, StopIteration):
                return cast(T, self._error.value)
            raise self._error

    def _retrieve(task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()

    @Coroutine.register
    class _Started:
        """A coroutine whose first step has run already; it hands over what that step brought, and then steps aside."""

        __slots__ = ("_awaits", "_brought", "_coroutine", "_refused", "error", "send", "throw")

        def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
            self._coroutine = coroutine
            self._brought: Any = None  # what the first step yielded
            self._awaits = False  # whether that is a future to wait for
            self._refused: BaseException | None = None  # a cancel that this future refused
            self.error: BaseException | None = None  # how the coroutine ended, if it did so in its first step
            self.send: Callable[[None], Any] = self._hand_over
            self.throw: Callable[[BaseException], Any] = self._hand_over_cancel

        def take_first_step(self) -> None:
            try:
                self._brought = self._coroutine.send(None)
            except BaseException as error:
                self.error = error
            else:
                if getattr(self._brought, "_asyncio_future_blocking", None):
                    self._awaits = True
                    self._brought._asyncio_future_blocking = False  # as the task would, or others could not await it

        def _hand_over(self, value: None) -> Any:
            """Give the task what the first step brought: asyncio calls this in the round after it."""
            self._step_aside()
            if self.error is not None:
                raise self.error
            return self._yield_again()

        def _hand_over_cancel(self, error: BaseException) -> Any:
            """Be cancelled in the round after the first step."""
            self._step_aside()
            if self.error is not None:
                raise self.error
            if not self._awaits:
                return self._coroutine.throw(error)
            if not self._brought.cancel(*error.args):
                if self._brought.done():
                    return self._coroutine.throw(error)
                self._refused = error
                self.send = self.throw = self._after_refusal
            return self._yield_again()

        def _after_refusal(self, outcome: BaseException | None) -> Any:
            """Be cancelled at last, however the future ended; by a later cancel, if there was one."""
            self._step_aside()
            error = outcome if isinstance(outcome, asyncio.CancelledError) else self._refused
            assert error is not None
            return self._coroutine.throw(error)

        def _yield_again(self) -> Any:
            brought, self._brought = self._brought, None
            if self._awaits:
                brought._asyncio_future_blocking = True
            return brought

        def _step_aside(self) -> None:
            self.send, self.throw = self._coroutine.send, self._coroutine.throw

        def close(self) -> None:
            self._step_aside()
            self._coroutine.close()

        def __await__(self) -> Any:
            raise TypeError("this stands for a coroutine that a task already runs; await the task")

        def __getattr__(self, name: str) -> Any:
            """Look like the coroutine: ``cr_frame`` and its like, for tracebacks and ``Task.get_stack``."""
            return getattr(self._coroutine, name)
