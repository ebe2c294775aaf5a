"""What is submitted to a pool's executor: a call, the future of its result, and the name that it is booked under.

Each step of a future is taken under its lock, so that only one of those who want to take it does:

    worker:                      pending -> running, calls the function, settles the future
    Future.cancel, any thread:   pending -> cancelled at once; the loop then takes the call out of the pool
    cancelled in the pool:       queued: the loop cancels the future. Running: the worker does, when the function ends

*What a call is a call of.* The function that is at the bottom of ``functools.partial`` and of ``Context.run``, which is
what ``asyncio.to_thread`` submits. It is known by its name and its place in the source alone: much old code submits a
new lambda each time, and books by object would keep them all.

Rejected: to settle futures on the loop, as threadlets are: to wait for one on the loop's thread would always be for
ever, and a loop that is closed would leave calls that run without a result.

Invariant: a future that is not done is in its executor's ``_unfinished``.

Assumes, of ``concurrent.futures``: the attributes ``_state``, ``_condition``, ``_waiters``, the method
``_invoke_callbacks`` of ``Future``, and its words for states: all since Python 3.2.
"""

from __future__ import annotations

import functools
import inspect
import threading
from asyncio import CancelledError
from collections.abc import Callable, Hashable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import Context
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .cleanups import clean_up, deferred
from .contracts import Contract
from .definitions import Definition, Prepared
from .errors import ThreadletError
from .handles import Threadlet
from .lifecycles import ASKED, AT_WORKER, FAILED, HERE
from .outcomes import without_caller
from .placements import TURN
from .surroundings import here, outermost
from .workers import serving_group

if TYPE_CHECKING:
    from .executors import PoolExecutor

__all__ = ["PENDING", "Submitted", "calls_of", "innermost"]

T = TypeVar("T")

AWAY = Contract(blocks="always")
ASYNCHRONOUS = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
NAMES = 4096  # arbitrary: so many functions are told apart; of older ones the statistics begin anew
PENDING, RUNNING, NOTIFIED = "PENDING", "RUNNING", "CANCELLED_AND_NOTIFIED"  # the words of concurrent.futures


class CallFailed(ThreadletError):
    """The exception of a threadlet whose submitted function has raised: the future has the function's own.

    Not the same object for both: two threads that raise one exception spoil its traceback for each other.
    """


class Submitted(Future[T]):
    """The future of a call that was submitted to a pool. Thread: any, for every method. Cancel: deferred."""

    def __init__(
        self,
        executor: PoolExecutor,
        call: tuple[Callable[..., T], tuple[Any, ...], dict[str, Any]],
        calls: Definition[Any],
        priority: float,
        tags: frozenset[Hashable],
    ) -> None:
        super().__init__()
        self._executor = executor
        self._call: tuple[Callable[..., T], tuple[Any, ...], dict[str, Any]] | None = call
        self._calls = calls
        self._priority = priority
        self._tags = tags
        self._handle: Threadlet[Any] | None = None  # from its arrival in the pool until this is done
        self._thread = 0  # the one that runs the call

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} of {self._calls.name}()>"

    def cancel(self) -> bool:
        """Cancel the call if it does not run yet, and take it out of the pool; return whether it is cancelled."""
        if not self._cancel(PENDING):
            return self.cancelled()
        self._executor._tell(self._leave_pool)
        return True

    def result(self, timeout: float | None = None) -> T:
        """Return what the function has returned; wait for that.

        In a threadlet, the one that waits lends its thread and its places in throttles to what it waits for.

        Raises:
            BaseException: What the function has raised.
            concurrent.futures.CancelledError: If it was cancelled.
            TimeoutError: If it has not ended after ``timeout`` seconds.
            RuntimeError: On the thread of the event loop, without a timeout, while the call still waits in the pool:
                only this thread could let it start.
        """
        wait = None if self.done() else self._begin_wait(timeout)
        try:
            return super().result(timeout)
        finally:
            if wait is not None:
                wait()
            del self, wait  # the exception's traceback refers to this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the function has raised, None if it has returned; see ``result``."""
        wait = None if self.done() else self._begin_wait(timeout)
        try:
            return super().exception(timeout)
        finally:
            if wait is not None:
                wait()

    # ------------------------------------------------------------------------------------------------ on a worker

    def _run(self) -> None:
        """Call the function and settle this. Thread: worker.

        Raises:
            CancelledError: If it was cancelled, so that the threadlet is, too.
            CallFailed: If the function has raised.
        """
        with self._condition:
            call, self._call = self._call, None
            if self._state != PENDING or call is None:
                raise CancelledError
            self._state = RUNNING
        self._thread = threading.get_ident()
        function, args, kwargs = call
        handle = here[self._thread]
        assert handle is not None
        value: Any = None
        failure: BaseException | None = None
        try:
            value = function(*args, **kwargs)
            if type(value) is Threadlet and value._marks & HERE:  # the function is an entrypoint: it has run right here
                value = value.result()
        except BaseException as error:
            failure = without_caller(error)  # which is this frame, and refers to this future
        del call, function, args, kwargs
        if deferred and handle in deferred:
            failure = clean_up(handle, failure)
        try:
            if isinstance(failure, CancelledError) or (failure is None and handle._marks & ASKED):
                self._cancel(RUNNING)
                raise failure or CancelledError(*filter(None, [handle._value]))
            if failure is not None:
                self.set_exception(failure)
                raise CallFailed(f"it raised {type(failure).__name__}, which its future has") from failure
            self.set_result(cast(T, value))
        finally:
            self._forget()
            del self, handle, value, failure

    def _cancel(self, state: str) -> bool:
        """Become cancelled, if this is in the state given; say whether it was."""
        with self._condition:
            if self._state != state:
                return False
            self._state = NOTIFIED
            self._call = None
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        self._executor._unfinished.discard(self)
        self._invoke_callbacks()  # type: ignore[attr-defined]
        return True

    def _forget(self) -> None:
        """Be no longer among those that are not done."""
        self._executor._unfinished.discard(self)
        self._handle, self._thread = None, 0

    # ------------------------------------------------------------------------------------------------ on the loop

    def _enter_pool(self) -> None:
        """Start the call, or have it queued. Thread: loop; in the context that it is to run in.

        Raises:
            PoolClosed, PoolFull: See ``Pool.start``.
        """
        if self.done():
            return
        pool = self._executor._pool
        home = pool._home
        box: list[Submitted[Any]] = [
            self
        ]  # until the call runs: whoever has its result then may drop that, and nothing here keeps it
        turn, home.turn = home.turn, TURN  # nothing of it runs in place, so it need not wait for its turn to do so
        try:
            handle = pool._begin(self._calls, (box,), None, self._priority, self._tags)
        finally:
            home.turn = turn
        self._handle = handle
        handle.add_done_callback(functools.partial(_settle, box))
        if self.done():  # a worker was quicker
            self._handle = None

    def _leave_pool(self) -> None:
        """Take a cancelled call out of the pool. Thread: loop."""
        if self._handle is not None:
            self._handle._cancel_here(None)

    def _fail(self, error: BaseException | None) -> None:
        """Become failed if it never runs: the pool has dropped it. Thread: loop."""
        self._call = None
        with suppress(InvalidStateError):  # it was cancelled
            self.set_exception(error)
        self._forget()

    # --------------------------------------------------------------------------------------------------- waiting

    def _gets_on(self) -> bool:
        """Say whether it ends without the loop doing anything more for it."""
        handle = self._handle
        return self._state != PENDING or (handle is not None and bool(handle._marks & AT_WORKER))

    def _begin_wait(self, timeout: float | None) -> Callable[[], None] | None:
        """Prepare a wait on this thread; return what ends it."""
        executor = self._executor
        if executor._is_loops_thread():
            if timeout is None and not self._gets_on():
                raise RuntimeError(
                    f"waiting for {self!r} on the thread of its event loop would be for ever: the call still waits in "
                    f"{executor._pool!r}, and only the loop can let it start. Await it ('await "
                    f"asyncio.wrap_future(future)', 'await loop.run_in_executor(executor, function)'), or wait on "
                    f"another thread; on a loop that changes hands, in 'with blocking():'"
                )
            return None
        workers = serving_group()
        lent = workers is not None and workers.lend()
        waiter = outermost(here.get(threading.get_ident()))
        if waiter is not None and (waiter.pool is None or waiter.pool._home is not executor._pool._home):
            waiter = None
        if waiter is not None:
            executor._tell(self._note_wait, waiter, True)

        def end() -> None:
            if lent and workers is not None:
                workers.take_back()
            if waiter is not None:
                executor._tell(self._note_wait, waiter, False)

        return end

    def _note_wait(self, waiter: Threadlet[Any], begins: bool) -> None:
        """Note that a threadlet waits for this one, or does so no longer. Thread: loop."""
        handle = self._handle
        if handle is not None and not handle.done():
            waits = waiter.pool._home.waits  # type: ignore[union-attr]
            (waits.begin if begins else waits.end)(waiter, handle)


def _perform(box: list[Submitted[Any]]) -> None:
    """Run a call, and take it out of the arguments, which the frame around keeps: a failure leads there."""
    box.pop()._run()


def _settle(box: list[Submitted[Any]], handle: Threadlet[Any]) -> None:
    """Settle the future of a threadlet that has become final, if no worker has taken it. Thread: loop."""
    future = box.pop() if box else None
    if handle._state is FAILED and (future is not None or type(handle._value.exception) is CallFailed):
        error = handle.exception()  # it counts as retrieved, then; not what has failed in a cleanup after the call
        if future is not None:
            future._fail(error)
    elif future is not None:
        future._cancel(PENDING)
        future._forget()


@functools.lru_cache(maxsize=NAMES)
def _calls(module: str, qualname: str, line: int, name: str) -> Definition[Any]:
    """Return what the calls of one function are booked under."""
    calls: Definition[Any] = Definition(_perform, contract=AWAY)
    calls.name = name
    return calls


def calls_of(function: Any) -> Definition[Any]:
    """Return what the calls of a function by executors are booked under: a name. Thread: any.

    Raises:
        TypeError: If it is no function, or an asynchronous one.
    """
    if isinstance(function, Prepared):
        function = function.definition.function
    elif isinstance(function, Definition):
        function = function.function
    elif isinstance(function, MethodType):
        function = function.__func__
    if not callable(function):
        raise TypeError(f"{function!r} cannot be submitted: it is not callable")
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):  # a proxy may answer to any name
        code = getattr(type(function).__call__, "__code__", None)
    if getattr(code, "co_flags", 0) & ASYNCHRONOUS:
        raise TypeError(
            f"{function!r} cannot be submitted: it is asynchronous, and would do nothing on a worker thread. Await it, "
            f"or start it with Pool.start"
        )
    name = _word(function, "__name__") or type(function).__name__
    qualname, module = _word(function, "__qualname__") or name, _word(function, "__module__")
    return _calls(module, qualname, getattr(code, "co_firstlineno", 0), name)


def _word(function: Any, attribute: str) -> str:
    found = getattr(function, attribute, "")
    return found if isinstance(found, str) else ""


def innermost(function: Callable[..., Any], args: tuple[Any, ...]) -> Callable[..., Any]:
    """Return what a call is a call of: what ``functools.partial`` and ``Context.run`` will call."""
    while type(function) is not FunctionType:
        if isinstance(function, functools.partial):
            call: functools.partial[Any] = function
            function, args = call.func, call.args + args
        elif args and isinstance(function, BuiltinFunctionType) and isinstance(function.__self__, Context):
            function, args = args[0], args[1:]
        else:
            break
    return function
