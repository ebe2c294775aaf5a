"""Where and how a threadlet runs on one event loop: in place, as a task of that loop, or on a worker thread.

A pool decides which threadlet may start and when; its loop's ``Home`` then takes one of three roads:

- a plain function in place: called here and now, with no running loop to be seen, as on a worker;
- a coroutine in place: its first step here and now, as a task of its own; suspended, it has *missed* and goes on as any task;
- a plain function on a worker, in a copy of its caller's context; the outcome comes back through the mailbox.

What runs in place is bounded twice, or it would starve the loop: coroutines nest ``DEPTH`` deep at most, and a ``Turn``
says how long the loop may be kept from going round. Beyond either, a start goes through the pool's queue.

``asyncio._set_running_loop`` hides the loop from plain functions: it is in asyncio's ``__all__`` for the use of loops.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import CancelledError, _set_running_loop
from collections.abc import AsyncGenerator
from contextvars import Context, ContextVar, copy_context
from functools import partial
from threading import get_ident
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, cast

from .definitions import Definition
from .errors import NoRunningLoop
from .handles import ABANDONED, ASKED, AT_WORKER, CANCELLED, DONE, FAILED, MISSED, Threadlet, current
from .lifecycles import State
from .mailboxes import Mailbox
from .outcomes import Failure, as_awaitable
from .placements import StallBudget, Turn
from .syscalls import voluntary_switches
from .tasks import start_task

if TYPE_CHECKING:
    from .pools import Pool

__all__ = ["Home", "home_of", "run_here"]

logger = logging.getLogger("threadlets")

DEPTH = 40  # arbitrary: coroutines started inside each other's first steps; Python's recursion limit is 1000 frames

RUNNING = State.RUNNING
EXITS = (KeyboardInterrupt, SystemExit)

# A completion from a worker: the threadlet, how it ended, result or exception, changed context variables, ns, blocked.
Letter = tuple[Threadlet[Any], State, Any, "list[tuple[ContextVar[Any], Any]] | None", int, "bool | None"]


class Home:
    """The part of this library that belongs to one event loop. Thread: loop, unless a method says otherwise."""

    __slots__ = ("_depth", "_watch", "budget", "busy", "default_pool", "loop", "mailbox", "thread", "turn", "unawaited")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = get_ident()
        self.turn = Turn()
        self.budget = StallBudget(monotonic_ns())
        self.mailbox: Mailbox[Letter] = Mailbox(loop, self._deliver)
        self.default_pool: Pool | None = None
        self.busy: set[Pool] = set()  # pools with threadlets that are not final
        self.unawaited = 0  # when the last plain function in place was started, until it is awaited: tells fan-out
        self._depth = 0
        self._watch = self._until_shutdown()
        try:
            self._watch.__anext__().send(None)
        except StopIteration:
            pass

    async def _until_shutdown(self) -> AsyncGenerator[None, None]:
        """Wait for the loop's ``shutdown_asyncgens()``, which ``asyncio.run`` and its like call: the one hook they have."""
        try:
            yield
        finally:
            for pool in list(self.busy):
                await pool.aclose()

    # ------------------------------------------------------------------------------------------- the three roads

    def must_wait(self) -> bool:
        """Say whether the next start has to go through the loop."""
        return self.turn.left < 0 or self._depth >= DEPTH

    def launch(self, handle: Threadlet[Any], now: int) -> None:
        """Start a threadlet that its pool has admitted; ``now`` is the clock, in nanoseconds."""
        definition = handle.entrypoint
        if definition.is_coroutine:
            self._start_coroutine(handle, now)
        elif not definition.learner.in_place:
            self._send_to_worker(handle)
        elif handle._context is None:
            self._run_in_place(handle, now)
        else:  # it has waited, so its caller's context is not the current one any more
            context = cast(Context, handle._context)
            before = context.copy()
            try:
                context.run(self._run_in_place, handle, now)
            finally:
                handle._context = _changes(before, context)

    def _run_in_place(self, handle: Threadlet[Any], started: int) -> None:
        """Call a plain function here and now, as a worker would: with no running loop to be seen."""
        definition = handle.entrypoint
        learner = definition.learner
        switches = voluntary_switches() if learner.watch else None
        if handle._state is not RUNNING:
            handle._move(RUNNING)
        token = current.set(handle)
        _set_running_loop(None)
        try:
            if handle._kwargs:
                value = definition.function(*handle._args, **handle._kwargs)
            else:
                value = definition.function(*handle._args)
            state = DONE
        except BaseException as error:
            state, value = FAILED, error
        now = monotonic_ns()
        _set_running_loop(self.loop)
        current.reset(token)
        spent = now - started
        self.turn.left -= spent + Turn.TOLL
        definition.in_place += 1
        definition.ns_in_place += spent
        learner.calls_in_place += 1
        if spent > learner.limit:
            blocked = voluntary_switches() != switches if switches is not None else None
            learner.ran_in_place(spent, blocked, self.unawaited != 0, self.budget, now)
        self.unawaited = handle._arrived
        self.settle(handle, state, value)
        if state is FAILED and isinstance(value, EXITS):
            raise handle._retrieve()

    def _start_coroutine(self, handle: Threadlet[Any], started: int) -> None:
        """Let a coroutine take its first step here and now, as a task of its own."""
        definition = handle.entrypoint
        context = cast("Context | None", handle._context)
        if handle._state is not RUNNING:
            handle._move(RUNNING)
        token = None
        if context is None:  # the task copies the current context, which is the caller's
            token = current.set(handle)
        else:
            context.run(current.set, handle)
        self._depth += 1
        try:
            if handle._kwargs:
                coroutine = definition.function(*handle._args, **handle._kwargs)
            else:
                coroutine = definition.function(*handle._args)
            task, value = start_task(coroutine, self.loop, definition.name, context)
            state = DONE
        except BaseException as error:
            task, state, value = None, FAILED, error
        finally:
            self._depth -= 1
            if token is not None:
                current.reset(token)
        spent = monotonic_ns() - started
        self.turn.left -= spent + Turn.TOLL
        definition.in_place += 1
        definition.ns_in_place += spent
        if task is None:
            self.settle(handle, state, value)
            if state is FAILED and isinstance(value, EXITS):
                raise handle._retrieve()
            return
        handle._move(State.MISSED)
        handle._task = task
        handle._marks |= MISSED
        definition.missed += 1
        task.add_done_callback(partial(self._end_task, handle))
        cast("Pool", handle.pool)._list(handle)
        if handle._marks & ASKED:
            task.cancel(handle._value)

    def _end_task(self, handle: Threadlet[Any], task: asyncio.Task[Any]) -> None:
        try:
            state, value = DONE, task.result()
        except BaseException as error:
            state, value = FAILED, error
        self.settle(handle, state, value)

    def _send_to_worker(self, handle: Threadlet[Any]) -> None:
        """Queue a plain function for a worker thread."""
        if handle._context is None:
            handle._context = copy_context()
        handle._marks |= AT_WORKER
        cast("Pool", handle.pool)._list(handle)
        try:
            handle.entrypoint.workers.submit(handle)
        except RuntimeError as error:
            self.settle(handle, FAILED, error)

    def run_on_worker(self, handle: Threadlet[Any]) -> None:
        """Call the function on this thread, and post how it ended. Thread: worker."""
        definition = handle.entrypoint
        switches = voluntary_switches() if definition.learner.watch else None
        handle._move(RUNNING)
        context = cast(Context, handle._context)
        context.run(current.set, handle)
        before = context.copy()
        started = monotonic_ns()
        try:
            value = context.run(definition.function, *handle._args, **(handle._kwargs or {}))
            state = DONE
        except BaseException as error:
            state, value = FAILED, error
        spent = monotonic_ns() - started
        blocked = voluntary_switches() != switches if switches is not None else None
        if not self.mailbox.post((handle, state, value, _changes(before, context), spent, blocked)):
            logger.debug("%r ended on a worker after its event loop had been closed", handle)

    def _deliver(self, burst: list[Letter]) -> None:
        """Settle what workers have finished, most urgent first."""
        if len(burst) > 1:
            burst.sort(key=_urgency)
        now = monotonic_ns()
        solvent = self.budget.solvent(now)
        for handle, state, value, changes, spent, blocked in burst:
            definition = handle.entrypoint
            definition.on_workers += 1
            definition.ns_on_workers += spent
            definition.learner.ran_on_worker(spent, blocked, solvent)
            if handle._marks & ABANDONED:
                self._end_abandoned(handle, state, value)
            else:
                self.settle(handle, state, value)
                handle._context = changes

    def _end_abandoned(self, handle: Threadlet[Any], state: State, value: Any) -> None:
        cast("Pool", handle.pool)._freed(handle)
        if state is FAILED:
            self.loop.call_exception_handler(
                {"message": f"{handle!r} was cancelled and abandoned, and then failed", "exception": value}
            )

    def settle(self, handle: Threadlet[Any], state: State, value: Any) -> None:
        """Make a threadlet final, then tell its pool."""
        definition = handle.entrypoint
        if state is DONE:
            if handle._marks & ASKED:
                state, value = CANCELLED, handle._value
        elif state is FAILED:
            if isinstance(value, CancelledError):
                state, value = CANCELLED, value.args[0] if value.args else None
            else:
                definition.failed += 1
                value = Failure(as_awaitable(value, definition.name), definition.name, self.loop)
        if state is CANCELLED:
            definition.cancelled += 1
        handle._finish(state, value)
        cast("Pool", handle.pool)._ended(handle)


def run_here(definition: Definition[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Threadlet[Any]:
    """Call a plain function on this thread, where no event loop runs: in a worker, in another function, in a script.

    There is nothing that blocking would stall, so it runs to its end, and the handle returned is final.

    Raises:
        NoRunningLoop: For a coroutine function, and for ``affinity="home"`` on another thread than the loop's.

    Thread: any.
    """
    outer = current.get()
    if definition.is_coroutine or (definition.contract.affinity == "home" and not _at_home(outer)):
        why = "is a coroutine function" if definition.is_coroutine else "may only run on the event loop's thread"
        raise NoRunningLoop(
            f"{definition.name}() {why}, and no event loop runs here: await it in a coroutine, "
            f"or call the function itself, {definition.name}.function(...)"
        )
    handle: Threadlet[Any] = Threadlet(
        definition, None, args, kwargs, definition.priority, definition.tags, RUNNING, monotonic_ns()
    )
    call = partial(definition.function, *args, **kwargs)
    token = current.set(handle)
    try:
        if definition.contract.affinity.startswith("one"):
            value = definition.workers.call(partial(copy_context().run, call))
        else:
            value = call()
        handle._finish(DONE, value)
    except EXITS:
        raise
    except CancelledError as error:
        handle._finish(CANCELLED, error.args[0] if error.args else None)
    except BaseException as error:
        handle._finish(FAILED, Failure(as_awaitable(error, definition.name), definition.name, None))
    finally:
        current.reset(token)
    return handle


def _at_home(outer: Threadlet[Any] | None) -> bool:
    """Say whether this is the thread of a loop whose threadlet, in place, is the caller."""
    return outer is not None and outer.pool is not None and outer.pool._home.thread == get_ident()


def _urgency(letter: Letter) -> float:
    return letter[0]._priority


def _changes(before: Context, after: Context) -> list[tuple[ContextVar[Any], Any]] | None:
    """Return the context variables that a function has set. Values are compared by identity: ``==`` is the user's code."""
    return [(variable, value) for variable, value in after.items() if before.get(variable, before) is not value] or None


def home_of(loop: asyncio.AbstractEventLoop) -> Home:
    """Return what this library keeps for an event loop. Thread: loop.

    It is kept as an attribute of the loop, so that both go together: a table of weak keys would hold loops for ever,
    since a ``Home`` refers to its loop.
    """
    home: Home | None = getattr(loop, "_threadlets_home", None)
    if home is None:
        home = Home(loop)
        loop._threadlets_home = home  # type: ignore[attr-defined]
    return home
