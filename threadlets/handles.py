"""The handle of one call: future-like, awaitable any number of times, and lean.

Why not a subclass of ``asyncio.Future``: making one costs 1.2-1.8 us, this 0.2; and a pool may hold a million of them
that have not started. So this class has the protocol that asyncio asks of a future (``asyncio.isfuture`` is true of it)
and makes no ``Future`` of its own.

All of it is written on the loop's thread; a worker only takes the step to "running".
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError, InvalidStateError, get_running_loop
from collections.abc import Callable, Generator, Hashable
from contextvars import Context, ContextVar, copy_context
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from .definitions import Definition, check_priority
from .errors import NoRunningLoop
from .lifecycles import FINAL, STEPS, State, step
from .outcomes import Failure
from .placements import TURN

if TYPE_CHECKING:
    from .admissions import Admission
    from .pools import Pool

__all__ = ["Threadlet", "make_threadlet"]

T = TypeVar("T")

DONE, FAILED, CANCELLED, SUSPENDED = State.DONE, State.FAILED, State.CANCELLED, State.MISSED

# Marks: what is true of a handle besides its state.
LISTED = 1  # its pool's index has it
ADMITTED = 2  # it holds a place in its pool's throttles
MISSED = 4  # it started in place and could not finish there
ASKED = 8  # its running function was asked to stop
ABANDONED = 16  # ... and nobody waits for that
AT_WORKER = 32  # it was handed to its worker group
WAITED = 512  # it has done callbacks
HERE = 256  # it ran where no event loop runs
CHANGED = 64  # it has set context variables, which whoever awaits it is to see
KEPT = 128  # it was not to end within the step that starts it, so it keeps what is needed to run later


class Threadlet(Generic[T]):
    """One call of an entrypoint. Made by calling one, or by ``Pool.start``; not by hand.

    Thread: loop, for every method and attribute that changes something; reading is allowed from any thread.
    """

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
    ticket: tuple[Any, ...] | None
    _priority: float
    _tags: frozenset[Hashable]
    _state: State
    _arrived: int  # nanoseconds; 0 while a coroutine takes its first step
    _marks: int
    _asyncio_future_blocking: bool
    _value: Any  # final: the result, the Failure, or the reason of the cancel; before: that reason
    _callbacks: list[tuple[Callable[[Threadlet[T]], object], Context]]  # set if WAITED
    _task: Any  # a coroutine threadlet's coroutine during its first step, then its task; if HERE, the outer handle
    _args: tuple[Any, ...]
    _kwargs: dict[str, Any] | None
    _context: Context | list[tuple[ContextVar[Any], Any]] | None  # final: the changes to bring back

    def _keep(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None, context: Context | None) -> None:
        """Remember what is needed to run later, or elsewhere."""
        self._args = args
        self._marks |= KEPT
        self._kwargs = kwargs or None
        self._context = context
        self.ticket = None

    # ------------------------------------------------------------------------------------------------- reading

    @property
    def state(self) -> State:
        """One of "queued", "running", "missed", "done", "failed", "cancelled"; compares equal to these words."""
        return self._state

    @property
    def priority(self) -> float:
        """How urgent it is: lower numbers run first. May be set while it waits, for its pool or for a worker.

        Raises:
            TypeError: When set to something that is not a real number.
            ValueError: When set to NaN.
        """
        return self._priority

    @priority.setter
    def priority(self, priority: float) -> None:
        priority = check_priority(priority)
        if self.pool is not None and self._state is State.QUEUED:
            self.pool._rekey(self, priority)
        self._priority = priority

    @property
    def tags(self) -> frozenset[Hashable]:
        """The tags that it was started with."""
        return self._tags

    @property
    def age(self) -> float:
        """Seconds since it was started by its caller; 0.0 for a coroutine in its first step."""
        return (monotonic_ns() - self._arrived) / 1e9 if self._arrived else 0.0

    @property
    def missed(self) -> bool:
        """Whether it started in place and could not finish there."""
        return bool(self._marks & MISSED)

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

    def __repr__(self) -> str:
        words = [f"<Threadlet {self.entrypoint.name} {self._state}"]
        if self._priority:
            words.append(f"priority={self._priority}")
        if self._tags:
            words.append(f"tags={set(self._tags)}")
        if self._state is FAILED:
            words.append(f"exception={self._value.exception!r}")
        return " ".join(words) + ">"

    # ------------------------------------------------------------------------------------------------ doing

    def cancel(self, msg: object = None) -> bool:
        """Ask it to stop; False if it is final already.

        Queued: it never runs. Suspended: ``CancelledError`` is raised at its await. A plain function that runs on a
        worker runs on to its end, and then its result is dropped; with ``Contract(cancel="abandon")`` nobody waits for
        that. ``cancelled()`` becomes true when the code has stopped. An exception that the function raises is kept: it
        then ends as failed.

        Args:
            msg: The reason; becomes the argument of the ``CancelledError``. (The name is that of asyncio's futures.)
        """
        if self._state in FINAL or self.pool is None:
            return False
        return self.pool._cancel(self, msg)

    def add_done_callback(self, callback: Callable[[Threadlet[T]], object], *, context: Context | None = None) -> None:
        """Call ``callback(self)`` from the loop, soon after it is final; at once "soon" if it is so already.

        Raises:
            NoRunningLoop: If it belongs to no loop and none runs here.
        """
        if context is None:
            context = copy_context()
        if self._state in FINAL:
            self.get_loop().call_soon(callback, self, context=context)
        elif self._marks & WAITED:
            self._callbacks.append((callback, context))
        else:
            self._callbacks = [(callback, context)]
            self._marks |= WAITED

    def remove_done_callback(self, callback: Callable[[Threadlet[T]], object]) -> int:
        """Take every occurrence of a callback out, and return how many there were."""
        if not self._marks & WAITED:
            return 0
        kept = [entry for entry in self._callbacks if entry[0] != callback]
        removed = len(self._callbacks) - len(kept)
        self._callbacks = kept
        return removed

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
            if self._state is SUSPENDED and not self._task.done():
                # Its task can be awaited as it is. That calls the task's done callbacks in order, and the first of them
                # is the pool's, so this handle is final before the awaiter goes on.
                try:
                    return (yield from self._task)  # type: ignore[no-any-return]
                except CancelledError:
                    if self._state is CANCELLED:  # a task tells the reason once, and the pool has asked
                        raise self._make_cancelled_error() from None
                    raise
                finally:
                    if self._state is FAILED:
                        self._retrieve()
            self._asyncio_future_blocking = True
            try:
                yield self
            except BaseException:
                self._bring_back()
                raise
            if self._state not in FINAL:
                raise RuntimeError("await was not used with a future: the coroutine was resumed before it was done")
        self._bring_back()
        return self.result()

    __iter__ = __await__

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be copied or pickled: it belongs to its event loop")

    # ------------------------------------------------------------------------------------- for the other rooms

    def run_on_worker(self) -> None:
        """Run it here: called by the worker thread that took it out of the queue."""
        assert self.pool is not None
        try:
            self.pool._home.run_on_worker(self)
        finally:
            del self  # the traceback of a failure refers to this frame

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
            for callback, context in callbacks:
                loop.call_soon(callback, self, context=context)
        if self._marks & KEPT:
            dropped = self._args, self._kwargs, self._context
            self._args, self._kwargs, self._context = (), None, None
            return dropped
        return None

    def _retrieve(self) -> BaseException:
        """Return the exception, and note that somebody has seen it."""
        failure: Failure = self._value
        if not failure.retrieved:
            failure.retrieved = True
            if self.pool is not None:
                self.pool._failures.pop(self, None)
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


def make_threadlet(
    definition: Definition[T],
    pool: Admission | None,
    priority: float,
    tags: frozenset[Hashable],
    state: State,
    arrived: int,
    marks: int,
) -> Threadlet[T]:
    """Make a handle. A function and not ``__init__``, which would cost 50 ns more; this is most of a call's price.

    Attributes that only some calls need are set when they do; a mark tells: WAITED, KEPT, ASKED.
    """
    handle: Threadlet[T] = Threadlet()
    handle.entrypoint = definition
    handle.pool = pool  # type: ignore[assignment]  # an Admission is a Pool
    handle._priority = priority
    handle._tags = tags
    handle._state = state
    handle._arrived = arrived
    handle._asyncio_future_blocking = False
    handle._marks = marks
    return handle
