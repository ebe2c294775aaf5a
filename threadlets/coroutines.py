"""The road of a coroutine: its first step in place, as a task of its own; suspended, it goes on as any task does.

When it has ended, what it has deferred is called in one more task, which is the threadlet's as the first one was.
"""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, TypeVar

from . import events
from .cancellation import holds, tell
from .cleanups import EXITS, Cleanup, deferred, is_cleaning
from .deliveries import Deliveries
from .events import listeners
from .handles import Threadlet
from .lifecycles import ADMITTED, ASKED, DONE, FAILED, MISSED, RUNNING, State
from .tasks import coroutine_of, running_loop, start_task, unlist
from .waits import family

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Coroutines"]

T = TypeVar("T")


class Coroutines(Deliveries):
    """The coroutine threadlets of one event loop. Thread: loop, unless a method says otherwise."""

    __slots__ = ("_cancels", "_first_steps", "_starting", "_suspended", "deadline", "depth", "families", "sheltered")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.deadline = 0  # nanoseconds: when to look whether the loop has gone round
        self.depth = 0  # how many coroutines take their first steps inside each other
        self.families = False  # some coroutine has had a family
        self._starting: Threadlet[Any] | None = None  # the coroutine threadlet that takes its first step
        self._first_steps: list[Threadlet[Any]] = []  # those that were starting when they blocked
        self._suspended: dict[asyncio.Task[Any], Threadlet[Any]] = {}
        self.sheltered: set[Threadlet[Any]] = set()  # those that a cleanup has started
        self._cancels: list[tuple[Threadlet[Any], object]] = []  # those that are being cancelled

    def look_round(self, now: int) -> None:
        """See whether the loop has gone round since the last look: what runs between calls keeps it from that, too."""
        raise NotImplementedError

    def _in_family(self, handle: Threadlet[Any], context: Context | None) -> Context | None:
        """Return the context of a coroutine, in which those that it starts know it, if it can lend them anything."""
        if not (handle._marks & ADMITTED and handle.pool._lends) and family.get() is None:  # type: ignore[union-attr]
            return context
        self.families = True
        context = copy_context() if context is None else context
        context.run(family.set, handle)
        return context

    def start_coroutine(
        self,
        handle: Threadlet[T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        context: Context | None = None,
    ) -> Threadlet[T]:
        """Let a coroutine take its first step here and now, as a task of its own. Return the handle.

        Args:
            handle: Its threadlet, in state "running".
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            context: Where it runs; None: in a copy of the current one.
        """
        definition = handle.entrypoint
        outer, depth = self._starting, self.depth
        self._starting = handle
        self.depth = depth + 1
        failure = None
        try:
            handle._task = coroutine = definition.function(*args, **kwargs) if kwargs else definition.function(*args)
            if self.families or handle._marks & ADMITTED:
                context = self._in_family(handle, context)
            if listeners:
                context = copy_context() if context is None else context
                context.run(events.tell, events.BEGAN, handle, "in place")
            if context is None:  # a keyword less is 15 ns less; and a task is told by its coroutine, it needs no name
                task = start_task(coroutine, loop=self.loop, eager_start=True)
            else:
                task = start_task(coroutine, loop=self.loop, context=context, eager_start=True)
            finished = task.done()
            if finished:
                value = task.result()
        except BaseException as error:
            failure = error
        self._starting = outer
        self.depth = depth
        definition.in_place = started = definition.in_place + 1
        if not started & 7:  # each eighth time: to read the clock costs 4 % of what is done here
            now = monotonic_ns()
            if now >= self.deadline:
                self.look_round(now)
        if deferred and handle in deferred and (failure is not None or finished):
            try:
                return self._clean_up(handle, None if failure is not None else value, failure)
            finally:
                del handle, failure  # see run_in_place
        if failure is not None:
            try:
                return self._fail_in_place(handle, failure)
            finally:
                del handle, failure  # see run_in_place
        handle._task = None
        if not finished:
            self._suspend(handle, task, partial(self._end_task, handle, monotonic_ns()))
        elif handle._marks or listeners:
            self.settle(handle, DONE, value)
        else:
            handle._state = DONE  # from running: see lifecycles.STEPS
            handle._value = value
            handle.pool._tallies[definition].done += 1  # type: ignore[union-attr]
        return handle

    def _fail_in_place(self, handle: Threadlet[T], failure: BaseException) -> Threadlet[T]:
        self.settle(handle, FAILED, failure)
        if isinstance(failure, EXITS):
            raise handle._retrieve()
        return handle

    def _suspend(self, handle: Threadlet[Any], task: asyncio.Task[Any], ended: Callable[[Any], object]) -> None:
        """Let what could not finish in place go on as the task that it is."""
        handle._task = task
        self._suspended[task] = handle
        task.add_done_callback(ended)
        if handle.entrypoint.at_home and self.token is not None:
            self.token.pin(task)
        if handle._state is State.MISSED:
            return  # a cleanup
        handle._move(State.MISSED)
        handle._arrived = handle._arrived or monotonic_ns()
        handle._marks |= MISSED
        handle.entrypoint.missed += 1
        handle.pool._list(handle)  # type: ignore[union-attr]
        if listeners:
            events.tell(events.MISSED, handle, "suspended")
        if handle in holds or handle in self.sheltered:  # it was not listed yet when it entered a block
            unlist(task)
        if handle._marks & ASKED and not is_cleaning(handle):
            handle._marks &= ~ASKED
            handle.pool._cancel(handle, handle._value)  # type: ignore[union-attr]

    def current(self, task: asyncio.Task[Any] | None) -> Threadlet[Any] | None:
        """Return the threadlet whose coroutine this task drives."""
        handle = None if task is None else self._suspended.get(task)
        if handle is None and task is not None and (self._starting is not None or self._first_steps):
            # In its first step, when its task is still being made; or in that of a task which it has started eagerly.
            coroutine = coroutine_of(task)
            for starting in (self._starting, *self._first_steps):
                if starting is not None and starting._task is coroutine:
                    handle = starting
        return handle

    def awaiter(self) -> Threadlet[Any] | None:
        """Return the threadlet that waits, if something is awaited here: the one that runs, or whose family this is."""
        if running_loop() is not self.loop:
            return None  # a coroutine that is away: its trip says who waits
        task = asyncio.current_task(self.loop) if self._suspended or self._starting else None
        return self.current(task) or family.get()

    def shelter(self, handle: Threadlet[Any]) -> None:
        """If a cleanup starts it, count it as a part of that: who cancels all that there is does not mean it."""
        starter = self.awaiter()
        if starter is not None and starter is not handle and (is_cleaning(starter) or starter in self.sheltered):
            self.sheltered.add(handle)

    def cancel_task(self, handle: Threadlet[Any], reason: object) -> bool:
        """Cancel a suspended coroutine, and what it awaits, however long that chain is.

        A task that is cancelled cancels what it awaits: if that is a threadlet, we are back here. To do so inside of
        each other would soon meet Python's limit of recursion, so they are cancelled one after the other.
        """
        if handle._task.done():
            return False  # it is about to be told how that has ended
        self._cancels.append((handle, reason))
        if len(self._cancels) > 1:
            return True
        try:
            for each, why in self._cancels:  # it grows meanwhile
                if each._state is State.MISSED:
                    each._task.cancel(why)
                    tell(each)  # it may wait on a thread, in a region
        finally:
            self._cancels.clear()
        return True

    def _end_task(self, handle: Threadlet[Any], since: int, task: asyncio.Task[Any]) -> None:
        self._forget_task(handle, task)
        handle.pool._ran(handle, monotonic_ns() - since)  # type: ignore[union-attr]
        try:
            state, value = DONE, task.result()
        except BaseException as error:
            state, value = FAILED, error
        if deferred and handle in deferred:
            self._clean_up(handle, *((None, value) if state is FAILED else (value, None)))
            return
        self.settle(handle, state, value)
        if state is FAILED and isinstance(value, EXITS):
            handle._retrieve()  # the task has let it out of the loop already

    def _forget_task(self, handle: Threadlet[Any], task: asyncio.Task[Any]) -> None:
        del self._suspended[task]
        if handle.entrypoint.at_home and self.token is not None:
            self.token.aside.unpin(task)

    # ---------------------------------------------------------------------------------------------- cleanup

    def _clean_up(self, handle: Threadlet[T], value: Any, failure: BaseException | None) -> Threadlet[T]:
        """Have what a coroutine has deferred called, after it has ended with a value or a failure."""
        in_place = handle._state is RUNNING
        cleanup = deferred[handle]
        outer, self._starting = self._starting, handle
        handle._task = coroutine = cleanup.finish(failure)
        try:
            task = start_task(coroutine, loop=self.loop, context=cleanup.context, eager_start=True)
        finally:
            self._starting = outer
        try:
            if not task.done():
                cleanup.suspend(task)
                self._suspend(handle, task, partial(self._end_cleanup, handle, cleanup, value))
            else:
                self._end(handle, cleanup, value)
            if isinstance(failure, EXITS):
                if in_place:
                    raise failure
            elif in_place and isinstance(cleanup.failure, EXITS):
                raise cleanup.failure
        finally:
            del failure, cleanup  # their tracebacks refer to this frame
        return handle

    def _end_cleanup(self, handle: Threadlet[Any], cleanup: Cleanup, value: Any, task: asyncio.Task[Any]) -> None:
        self._forget_task(handle, task)
        if not task.cancelled():
            task.exception()  # it is the same as the cleanup's
        self._end(handle, cleanup, value)

    def _end(self, handle: Threadlet[Any], cleanup: Cleanup, value: Any) -> None:
        failure = cleanup.failure
        if failure is None:
            self.settle(handle, DONE, value)
            return
        self.settle(handle, FAILED, failure)
        if isinstance(failure, EXITS):
            handle._retrieve()  # it is let out, or was so already
