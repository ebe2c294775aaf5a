"""The future in a handle: it can be awaited any number of times, and asyncio takes it like one of its own.

Why not a subclass of ``asyncio.Future``: making one costs 1.2-1.8 us, this 0.2; and a pool may hold a million of them
that have not started. So this class has the protocol that asyncio asks of a future (``asyncio.isfuture`` is true of it)
and makes no ``Future`` of its own.

All of it is written on the loop's thread; a worker only takes the step to "running".
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError, InvalidStateError, current_task, get_running_loop
from collections.abc import Callable, Generator, Hashable
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from .deadlocks import check
from .definitions import Definition
from .errors import DeadlineExceeded, NoRunningLoop
from .lifecycles import CANCELLED, CHANGED, DONE, FAILED, FINAL, KEPT, OVERDUE, STEPS, WAITED, State, step
from .outcomes import Failure
from .placements import TURN
from .surroundings import waiting
from .tasks import running_loop
from .waits import is_wait

if TYPE_CHECKING:
    from .handles import Threadlet
    from .pools import Pool

__all__ = ["FutureLike"]

T = TypeVar("T")


class FutureLike(Generic[T]):
    """What a ``Threadlet`` has of a future."""

    __slots__ = (
        "__weakref__",
        "_args",
        "_arrived",
        "_asyncio_future_blocking",
        "_callbacks",
        "_context",
        "_kwargs",
        "_marks",
        "_priority",
        "_state",
        "_tags",
        "_task",
        "_value",
        "entrypoint",
        "pool",
        "ticket",
    )

    entrypoint: Definition[T]
    pool: Pool | None
    ticket: Any  # see PriorityQueue
    _priority: float  # what counts: its own, or that of one that waits for it
    _tags: frozenset[Hashable]
    _state: State
    _arrived: int  # nanoseconds; 0 while a coroutine takes its first step
    _marks: int
    _asyncio_future_blocking: bool
    _value: Any  # final: the result, the Failure, or the reason of the cancel; before: that reason
    # Set if WAITED: what to call, in which context, and who waits by it.
    _callbacks: list[tuple[Callable[[Threadlet[T]], object], Context, Threadlet[Any] | None]]
    _task: Any  # a coroutine threadlet's coroutine during its first step, then its task; if HERE, the outer handle
    _args: tuple[Any, ...]
    _kwargs: dict[str, Any] | None
    _context: Context | list[tuple[ContextVar[Any], Any]] | None  # final: the changes to bring back

    def done(self) -> bool:
        """Say whether it is final: done, failed or cancelled."""
        return self._state in FINAL

    def cancelled(self) -> bool:
        """Say whether it was cancelled, and its code has stopped."""
        return self._state is CANCELLED

    def result(self) -> T:
        """Return what the function returned.

        Raises:
            BaseException: What the function raised.
            asyncio.CancelledError: If it was cancelled.
            asyncio.InvalidStateError: If it is not final yet.
        """
        if self._state is DONE:
            return cast(T, self._value)
        if self._state is FAILED:
            raise self._retrieve()
        raise self._not_done()

    def exception(self) -> BaseException | None:
        """Return what the function raised, None if it returned.

        Raises:
            asyncio.CancelledError: If it was cancelled.
            asyncio.InvalidStateError: If it is not final yet.
        """
        if self._state is DONE:
            return None
        if self._state is FAILED:
            return self._retrieve()
        raise self._not_done()

    def get_loop(self) -> AbstractEventLoop:
        """Return the event loop that it belongs to; if it ran where none runs, the one that runs here.

        Raises:
            NoRunningLoop: If it belongs to none, and none runs here.
        """
        if self.pool is not None:
            return self.pool.get_loop()
        try:
            return get_running_loop()
        except RuntimeError:
            raise NoRunningLoop(f"{self!r} ran without an event loop and belongs to none, and none runs here") from None

    def add_done_callback(self, callback: Callable[[Threadlet[T]], object], *, context: Context | None = None) -> None:
        """Call ``callback(self)`` from the loop, soon after it is final; at once "soon" if it is so already.

        Raises:
            NoRunningLoop: If it belongs to no loop and none runs here.
        """
        if context is None:
            context = copy_context()
        if self._state in FINAL:
            self.get_loop().call_soon(callback, cast(Any, self), context=context)
            return
        waiter = self._awaiter() if is_wait(callback) else None
        if waiter is not None:
            self.pool._home.waits.begin(waiter, cast(Any, self))  # type: ignore[union-attr]
        if not self._marks & WAITED:
            self._callbacks = []
            self._marks |= WAITED
        self._callbacks.append((callback, context, waiter))

    def remove_done_callback(self, callback: Callable[[Threadlet[T]], object]) -> int:
        """Take every occurrence of a callback out, and return how many there were."""
        if not self._marks & WAITED:
            return 0
        removed = [entry for entry in self._callbacks if entry[0] == callback]
        self._callbacks = [entry for entry in self._callbacks if entry[0] != callback]
        for _, _, waiter in removed:
            if waiter is not None:  # not who runs now: asyncio takes its callbacks out where no task is current, too
                self.pool._home.waits.end(waiter, cast(Any, self))  # type: ignore[union-attr]
        return len(removed)

    def __await__(self) -> Generator[Any, None, T]:
        """Wait until it is final, then return or raise what its function did."""
        if self._state is DONE and not self._marks:  # done in place: the case to be quick in
            home = self.pool._home  # type: ignore[union-attr]
            if home.unawaited == self._arrived:
                home.unawaited = 0
            if home.turn < 0:
                home.turn = TURN
                yield
            return self._value  # type: ignore[no-any-return]
        if self._state not in FINAL:
            waiter = self._awaiter()
            if waiter is None:
                return (yield from self._wait())
            waits = self.pool._home.waits  # type: ignore[union-attr]
            waits.begin(waiter, cast(Any, self))
            try:
                if waiting:  # somebody waits for a lock: without that there is no circle
                    check(waiter)
                return (yield from self._wait())
            finally:
                waits.end(waiter, cast(Any, self))
        if self._marks and self._cancels():  # perhaps while it was taken over: that is told here, not by a later await
            yield
        self._bring_back()
        return self.result()

    __iter__ = __await__

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be copied or pickled: it belongs to its event loop")

    def _move(self, state: State) -> None:
        """Take a step of the lifecycle.

        No other code writes ``_state``, but for two places in homes.py: there a threadlet that has no marks becomes
        done within the step that started it.
        """
        if state not in STEPS[self._state]:
            step(self._state, state)
        self._state = state

    def _bring_back(self) -> None:
        """Make the changes of context variables in the current context; once, or they would undo later ones."""
        if self._marks & CHANGED and self._state in FINAL:
            self._marks &= ~CHANGED
            for variable, value in cast("list[tuple[ContextVar[Any], Any]]", self._context):
                variable.set(value)

    def _finish(self, state: State, value: Any) -> object:
        """Become final, and have the callbacks called.

        Returns:
            What only a run needed: to be dropped when all books are in order, since ``__del__`` may run any code.
        """
        if state not in STEPS[self._state]:
            step(self._state, state)
        self._state = state
        self._value = value
        self._task = None
        if self._marks & WAITED:
            self._marks &= ~WAITED
            callbacks, self._callbacks = self._callbacks, []
            loop = self.get_loop() if self.pool is None else self.pool._home.loop
            for callback, context, _ in callbacks:
                loop.call_soon(callback, cast(Any, self), context=context)
        if self._marks & KEPT:
            dropped = self._args, self._kwargs, self._context
            self._args, self._kwargs, self._context = (), None, None
            return dropped
        return None

    def _wait(self) -> Generator[Any, None, T]:
        """Wait until it is final: the part of ``await`` that takes time."""
        cancels = self._cancels()
        self._asyncio_future_blocking = True
        try:
            yield self
            if self._state not in FINAL:
                raise RuntimeError("await was not used with a future: the coroutine was resumed before it was done")
            return self.result()
        except DeadlineExceeded:
            if self._marks & OVERDUE and self._cancels() != cancels:  # who waits was cancelled, too: that comes first
                raise CancelledError from None
            raise
        finally:
            self._bring_back()

    def _cancels(self) -> int:
        """Return how often the current task was asked to stop."""
        loop = None if self.pool is None else self.pool._home.loop
        task = None if loop is None or running_loop() is not loop else current_task(loop)
        return 0 if task is None else task.cancelling()

    def _awaiter(self) -> Threadlet[Any] | None:
        """Return the threadlet that would wait here, if this one is waited for."""
        return None if self.pool is None else self.pool._home.awaiter()

    def _retrieve(self) -> BaseException:
        """Return the exception, and note that somebody has seen it."""
        failure: Failure = self._value
        if not failure.retrieved:
            failure.retrieved = True
            if self.pool is not None:
                for pool in self.pool._line:
                    pool._failures.pop(cast(Any, self), None)
        return failure.fresh()

    def _not_done(self) -> BaseException:
        if self._state is CANCELLED:
            return self._make_cancelled_error()
        return InvalidStateError(f"{self!r} is not done: await it")

    @property
    def _cancel_message(self) -> object:
        """The reason of a cancelled threadlet; asyncio's ``gather`` asks for it by this name."""
        return self._value if self._state is CANCELLED else None

    def _make_cancelled_error(self) -> CancelledError:
        """Make the exception of a cancelled threadlet; asyncio's ``gather`` asks for it by this name."""
        return CancelledError() if self._value is None else CancelledError(self._value)
