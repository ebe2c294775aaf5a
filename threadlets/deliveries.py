"""The road through a worker thread, and how a threadlet ends on any road.

A plain function on a worker runs in a copy of its caller's context; its outcome comes back through the loop's mailbox,
and with it the changes of context variables, for whoever awaits it.

Most go to the one group that all share. Those that are to run on a node have a *site*, which is kept here until they
are final: who asked for it, in this order, is ``Selection.move``, the pool, the contract.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from asyncio import CancelledError
from contextvars import Context, ContextVar
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from . import events
from .cancellation import forget, holds
from .cleanups import clean_up, deferred
from .errors import DeadlineExceeded
from .events import listeners
from .groups import Site, site_of_call
from .handles import Threadlet
from .lifecycles import ABANDONED, ASKED, AT_WORKER, CANCELLED, CHANGED, DONE, FAILED, FOLLOWS, OVERDUE, State
from .mailboxes import Mailbox
from .outcomes import Failure, as_awaitable, without_caller
from .placements import TAKEOVER, StallBudget
from .surroundings import changes, here
from .syscalls import evidence, switches
from .takeover import RunToken
from .workers import WorkerGroup

if TYPE_CHECKING:
    from .pools import Pool

__all__ = ["Deliveries"]

logger = logging.getLogger("threadlets")

RUNNING = State.RUNNING
NOTHING_SET = Context()

# A completion from a worker: the threadlet, how it ended, result or exception, changed context variables, ns, blocked.
Letter = tuple[Threadlet[Any], State, Any, "list[tuple[ContextVar[Any], Any]] | None", int, "bool | None"]


class Deliveries:
    """What one event loop sends to workers, and gets back. Thread: loop, unless a method says otherwise."""

    __slots__ = ("budget", "changes_hands", "loop", "mailbox", "sites", "token")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.token: RunToken | None = getattr(loop, "_threadlets_token", None)
        self.changes_hands = self.token is not None and self.token.enabled
        self.budget = StallBudget(monotonic_ns())
        self.mailbox: Mailbox[Letter] = Mailbox(loop, self._deliver)
        self.sites: dict[Threadlet[Any], Site] = {}  # of those that are not for any worker, until they are final

    def send_to_worker(self, handle: Threadlet[Any]) -> None:
        """Queue a plain function for a worker thread."""
        handle._marks |= AT_WORKER
        pool: Pool = handle.pool  # type: ignore[assignment]
        pool._list(handle)
        definition = handle.entrypoint
        workers = definition.workers
        if self.sites or pool._site or definition.about:
            workers = self._choose(handle, pool)
        try:
            workers.submit(handle, handle._priority)
        except RuntimeError as error:
            self.settle(handle, FAILED, error)

    def _choose(self, handle: Threadlet[Any], pool: Pool) -> WorkerGroup:
        """Return the workers that a plain function is to go to, and keep that."""
        definition = handle.entrypoint
        site = self.sites.get(handle)
        if site is None:
            if pool._site is not None:
                site = pool._site if definition.roams else None
            elif definition.about is not None:
                site = site_of_call(definition.about, handle._args, handle._kwargs)
            if site is None:
                return definition.workers
            self.sites[handle] = site
        return site.workers

    def workers_of(self, handle: Threadlet[Any]) -> WorkerGroup:
        """Return the workers that a plain function was sent to."""
        site = self.sites.get(handle) if self.sites else None
        return handle.entrypoint.workers if site is None else site.workers

    def run_on_worker(self, handle: Threadlet[Any]) -> None:
        """Call the function on this thread, and post how it ended. Thread: worker."""
        definition = handle.entrypoint
        learner = definition.learner
        switched = None
        if learner.watch > 0:
            learner.watch -= 1
            switched = switches()
        args, kwargs, context = handle._args, handle._kwargs, handle._context
        handle._move(RUNNING)  # from here on the loop may abandon it, and then it takes these away
        if listeners:
            context.run(events.tell, events.BEGAN, handle, "worker")  # type: ignore[union-attr]
        before = context.copy() if context else NOTHING_SET
        here[threading.get_ident()] = handle
        started = monotonic_ns()
        try:
            if handle._marks & ASKED:  # cancelled after it was taken out of the queue
                raise CancelledError
            if kwargs:
                value = context.run(definition.function, *args, **kwargs)  # type: ignore[union-attr]
            else:
                value = context.run(definition.function, *args)  # type: ignore[union-attr]
            state = DONE
        except BaseException as error:
            state, value = FAILED, error
        if deferred and handle in deferred:
            failure = context.run(clean_up, handle, value if state is FAILED else None)  # type: ignore[union-attr]
            if failure is not None:
                state, value = FAILED, failure
        spent = monotonic_ns() - started
        del here[threading.get_ident()]  # a thread has one job at a time, and may end
        blocked = None if switched is None else evidence(switched)[0]
        changed = changes(before, context) if context else None  # type: ignore[arg-type]
        if listeners:
            context.run(events.tell, events.LEFT, handle)  # type: ignore[union-attr]
        if not self.mailbox.post((handle, state, value, changed, spent, blocked)):
            logger.debug("%r ended on a worker after its event loop had been closed", handle)
        failure = None
        del handle, value  # see run_in_place

    def _deliver(self, burst: list[Letter]) -> None:
        """Settle what workers have finished, most urgent first."""
        if len({letter[0]._priority for letter in burst}) > 1:
            burst.sort(key=_urgency)
        now = monotonic_ns()
        solvent = self.budget.solvent(now)
        for handle, state, value, changed, spent, blocked in burst:
            definition = handle.entrypoint
            definition.on_workers += 1
            definition.ns_on_workers += spent
            handle.pool._ran(handle, spent)  # type: ignore[union-attr]
            if definition.learner.learns:
                cost = min(spent, TAKEOVER) if self.changes_hands else spent
                definition.learner.ran_on_worker(spent, blocked, definition.in_place, solvent, cost)
            try:
                if handle._marks & ABANDONED:
                    self._end_abandoned(handle, state, value)
                else:
                    self.settle(handle, state, value)
                    if changed is not None:
                        self._leave_changes(handle, changed)
            except Exception as error:  # from code of the user's that we have not thought of: the others are to arrive
                self.loop.call_exception_handler({"message": f"{handle!r} could not be settled", "exception": error})

    def _leave_changes(self, handle: Threadlet[Any], changed: list[tuple[ContextVar[Any], Any]] | None) -> None:
        """Leave changes of context variables with a threadlet, for whoever awaits it."""
        if changed is not None:
            handle._context = changed
            handle._marks |= CHANGED

    def _end_abandoned(self, handle: Threadlet[Any], state: State, value: Any) -> None:
        if holds:
            forget(handle)
        handle.pool._freed(handle)  # type: ignore[union-attr]
        handle.pool._fold()  # type: ignore[union-attr]
        if state is FAILED and not isinstance(value, CancelledError):
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
                reason = handle._value if handle._marks & ASKED else None
                state, value = CANCELLED, value.args[0] if value.args else reason
            else:
                definition.failed += 1
                value = Failure(as_awaitable(without_caller(value), definition.name), definition.name, self.loop)
        if state is CANCELLED and handle._marks & OVERDUE:
            state, value = (
                FAILED,
                Failure(DeadlineExceeded(f"{handle!r} was stopped: {value}"), definition.name, self.loop),
            )
            definition.failed += 1
        elif state is CANCELLED:
            definition.cancelled += 1
        if holds and not handle._marks & ABANDONED:  # that one may be inside of something, and is told when it leaves
            forget(handle)
        dropped = handle._finish(state, value)
        handle.pool._ended(handle)  # type: ignore[union-attr]
        del dropped
        if listeners and not handle._marks & FOLLOWS:
            events.tell_end(handle, state, value)


def _urgency(letter: Letter) -> float:
    return letter[0]._priority
