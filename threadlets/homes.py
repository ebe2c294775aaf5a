"""Where and how a threadlet runs on one event loop: in place, as a task of that loop, or on a worker thread.

A pool decides which threadlet may start and when; its loop's ``Home`` then takes one of four roads:

- a plain function in place: called here and now, with no running loop to be seen, as on a worker. On a loop that
  changes hands this is a region: if the function blocks, it has *missed*, and the loop goes on without this thread;
- a coroutine in place: its first step here and now, see ``coroutines``; suspended, it has *missed*;
- a plain function on a worker: see ``deliveries``;
- a plain function at a host, outside of this process: a task waits for it.

What runs in place is bounded twice, or it would starve the loop: coroutines nest ``DEPTH`` deep at most, and ``TURN``
says how long the loop may be kept from going round. Beyond either, a start goes through the pool's queue.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from time import monotonic_ns
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import events
from .cleanups import EXITS, clean_up, deferred, is_cleaning, sweep
from .coroutines import Coroutines
from .definitions import Definition
from .departures import PATIENCE, depart, leave, tell
from .errors import ContractViolation
from .events import listeners
from .expiries import Expiries
from .handles import Threadlet
from .lendings import Lendings
from .lifecycles import ASKED, AT_WORKER, CANCELLED, DONE, FAILED, FOLLOWS, HERE, KEPT, MISSED, QUEUED, RUNNING
from .placements import SWITCHES, TOLL, TURN
from .spares import NEVER
from .surroundings import changes, here
from .syscalls import evidence, switches
from .takeover import RunToken
from .tasks import set_running_loop
from .waits import Waits
from .workers import shared_group

if TYPE_CHECKING:
    from .groups import Site
    from .hosts import Host
    from .ledgers import Ledger
    from .pools import Pool
    from .turns import Turns

__all__ = ["EXITS", "Home", "home_of"]

T = TypeVar("T")
DEPTH = 40  # arbitrary: coroutines started inside each other's first steps; Python's recursion limit is 1000 frames
UNGUARDED = cast(RunToken, SimpleNamespace(cell=[], covered=NEVER))  # for a run token: its regions are never taken


class Home(Coroutines):
    """The part of this library that belongs to one event loop. Thread: loop, unless a method says otherwise."""

    __slots__ = (
        "_thread",
        "_watch",
        "awaits_round",
        "busy",
        "debug",
        "expiries",
        "lendings",
        "patience",
        "pumping",
        "turn",
        "unawaited",
        "waits",
        "workers",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._thread = threading.get_ident()
        if self.token is not None:
            self.token.on_leave = self._lend
        self.debug = loop.get_debug()
        self.workers = shared_group()
        self.lendings = Lendings(self)
        self.waits = Waits(self.lendings.ask)
        self.expiries = Expiries(loop)
        self.turn = TURN  # nanoseconds; below zero the loop has to go round before more may run in place
        self.awaits_round = False  # _went_round is scheduled
        self.patience = PATIENCE  # seconds; how long a shutdown waits for those that do not stop
        self.busy: set[Ledger] = set()  # pools with threadlets that are not final
        self.unawaited = 0  # when the last plain function in place was started, until it is awaited: tells fan-out
        self.pumping: Turns | None = None  # the pool whose pump is at work
        sweep()
        self._watch = self._until_shutdown()
        with suppress(StopIteration):
            self._watch.__anext__().send(None)

    async def _until_shutdown(self) -> AsyncGenerator[None, None]:
        """Wait for ``loop.shutdown_asyncgens()``, which ``asyncio.run`` and its like call: their one hook."""
        try:
            yield
        finally:
            left = await depart(lambda: cast(Any, self.busy), "the event loop shuts down", timeout=self.patience)
            if left and self.patience:
                tell("the event loop shuts down and leaves them behind", left)
            leave(left)

    # ------------------------------------------------------------------------------------------- the four roads

    def must_wait(self) -> bool:
        """Say whether the next start has to go through the loop."""
        return self.turn < 0 or self.depth >= DEPTH

    def look_round(self, now: int) -> None:
        """See whether the loop has gone round since the last look: what runs between calls keeps it from that, too."""
        self.deadline = now + TURN
        if self.awaits_round:
            self.turn = -1
        else:
            self.awaits_round = True
            self.loop.call_soon(self._went_round)

    def count(self, began: int) -> None:
        """Count what was done in place, beside threadlets, since ``began``, in ``monotonic_ns``."""
        now = monotonic_ns()
        self.turn -= now - began + TOLL
        if now >= self.deadline:
            self.look_round(now)

    async def go_round(self) -> None:
        """Let the loop go round: for whoever finds ``turn`` below zero before something in place. Cancel: point."""
        self.turn = TURN
        await asyncio.sleep(0)

    def _went_round(self) -> None:
        self.awaits_round = False
        self.turn = TURN

    @property
    def thread(self) -> int:
        """The thread that the loop belongs to. Thread: any."""
        return self._thread if self.token is None else self.token.home

    def is_elsewhere(self) -> bool:
        """Say whether the loop runs on another thread than its own, which is blocked."""
        return self.token is not None and self.token.thread != self.token.home

    def is_here(self) -> bool:
        """Say whether this thread may touch what belongs to the loop although it sees no running loop. Thread: any."""
        if not self.loop.is_running():
            return True
        return self.token is None and self._thread == threading.get_ident()

    def _lend(self, thread: int) -> Callable[[], None]:
        """Let another thread go on: keep what is true of this one, return what brings it back. Thread: the new driver.

        What was about to end within the call that started it is on the pool's books from now on; and a pump that has
        called what blocks now is replaced by another one.
        """
        kept = self.depth, self._starting, self.unawaited, self.pumping
        handle = here.get(thread) or self._starting
        while handle is not None and handle._marks & HERE:  # called by another one, right there
            handle = handle._task
        if handle is not None:
            handle._marks |= MISSED
            handle.pool._list(handle)  # type: ignore[union-attr]
            if is_cleaning(handle):
                deferred[handle].limit()
        if listeners:
            events.tell(events.MISSED, handle, "taken over")
        if self.pumping is not None:
            self.pumping._rearm()
        self._resume(0, None, 0, None)
        self._first_steps += filter(None, [kept[1]])
        return partial(self._come_back, handle, *kept)

    def _come_back(self, handle: Threadlet[Any] | None, *kept: Any) -> None:
        self._resume(*kept)
        if listeners:
            events.tell(events.RESUMED, handle)

    def _resume(self, depth: int, starting: Threadlet[Any] | None, unawaited: int, pumping: Turns | None) -> None:
        self.depth, self._starting, self.unawaited, self.pumping = depth, starting, unawaited, pumping
        if starting is not None:
            self._first_steps.remove(starting)
        self.turn = TURN

    def launch(self, handle: Threadlet[Any]) -> None:
        """Start a threadlet that has waited, and that its pool has admitted."""
        definition = handle.entrypoint
        if definition.at_home and self.is_elsewhere():
            self.token.call_at_home(partial(self.launch, handle))  # type: ignore[union-attr]
            return
        if handle._marks & ASKED:
            self.settle(handle, CANCELLED, handle._value)
            return
        context = cast(Context, handle._context).copy()
        host = handle.pool._host  # type: ignore[union-attr]
        if host is not None:
            self._start_there(handle, host, context)
            return
        if not definition.is_coroutine and ((self.sites and self._leaves(handle)) or not self.in_place(definition)):
            handle._context = context
            self.send_to_worker(handle)
            return
        handle._move(RUNNING)
        if definition.is_coroutine:
            self.start_coroutine(handle, handle._args, handle._kwargs, context)
            return
        before = context.copy()
        try:
            context.run(self.run_in_place, handle, handle._args, handle._kwargs, monotonic_ns())
        finally:
            self._leave_changes(handle, changes(before, context))

    def _start_there(self, handle: Threadlet[Any], host: Host, context: Context) -> None:
        """Have a host run a plain function: in a task, which is the threadlet's as that of a coroutine is."""
        definition = handle.entrypoint
        definition.on_hosts += 1
        handle._move(RUNNING)
        if listeners:
            context.run(events.tell, events.BEGAN, handle, "host")
        try:
            coroutine = host.run(cast(Any, definition), handle._args, handle._kwargs or {}, priority=handle._priority)
            task = asyncio.Task(coroutine, loop=self.loop, context=context)
        except BaseException as error:
            self.settle(handle, FAILED, error)
            return
        self._suspend(handle, task, partial(self._end_task, handle, monotonic_ns()))

    def _leaves(self, handle: Threadlet[Any]) -> bool:
        """Say whether a plain function was told to run on a node."""
        site = self.sites.get(handle)
        return site is not None and site.workers.cpus is not None

    def redirect(self, handle: Threadlet[Any], site: Site) -> bool:
        """Have a plain function run on a node's workers, if it has not started; say whether it will."""
        pool = cast("Pool", handle.pool)
        if pool._host is not None and (pool._whole is None or not pool._move(handle, pool._whole)):
            return False
        if handle._marks & FOLLOWS:
            handle = handle._task.carrier or handle
        if handle._state is not QUEUED or not handle._marks & KEPT or not handle.entrypoint.roams:
            return False
        before = self.workers_of(handle)
        goes = bool(handle._marks & AT_WORKER) and before is not site.workers
        if goes and not before.remove(handle):
            return False
        self.sites[handle] = site
        if listeners:
            events.tell(events.MOVED, handle, site.workers.name)
        if goes:
            self.send_to_worker(handle)
        return True

    def in_place(self, definition: Definition[Any]) -> bool:
        """Say whether a plain function is to run in place, where that is not known yet or known not to be good."""
        return definition.learner.in_place or (self.changes_hands and definition.learner.trust())

    def run_in_place(
        self, handle: Threadlet[T], args: tuple[Any, ...], kwargs: dict[str, Any] | None, started: int
    ) -> Threadlet[T]:
        """Call a plain function here and now, as a worker would: with no running loop to be seen. Return the handle."""
        if listeners:
            events.tell(events.BEGAN, handle, "in place")
            started = monotonic_ns()
        definition = handle.entrypoint
        learner = definition.learner
        before = None
        if learner.watch > 0 or self.debug:
            learner.watch -= learner.watch > 0
            before = switches()
        thread = threading.get_ident()
        outer = here.get(thread)
        here[thread] = handle
        token = (self.token if definition.guarded else None) or UNGUARDED
        failure = stall = None
        set_running_loop(None)
        cell = token.cell
        try:
            cell.append(started)
            if started > token.covered:
                token.spares.rouse(started)
            value = definition.function(*args, **kwargs) if kwargs else definition.function(*args)
        except BaseException as error:
            failure = error
        if deferred and handle in deferred:
            failure = clean_up(handle, failure)
        now = monotonic_ns()
        spent = now - started
        try:
            cell.pop()
            set_running_loop(self.loop)
        except IndexError:
            definition.missed += 1
            blocked = evidence(before)[0]  # asked before it waits for the token
            stall = spent
            try:
                stall = token.come_back(cell) + SWITCHES
            except BaseException as error:  # a signal handler's
                failure = error
            now = monotonic_ns()
            self.turn = spent  # so that an await lets the loop go round, and tells who was cancelled meanwhile
        here[thread] = outer
        self.turn -= spent + TOLL
        if now >= self.deadline:
            self.look_round(now)
        definition.in_place += 1
        definition.ns_in_place += spent
        if not definition.in_place & 15:
            handle.pool._ran(handle, spent)  # type: ignore[union-attr]
        if stall is not None:
            learner.ran_in_place(stall, blocked, self.unawaited != 0, definition.in_place, self.budget, now)
        elif spent > learner.limit:
            violation = self._learn(definition, spent, before, now)
            failure = failure or violation
        self.unawaited = handle._arrived
        if listeners:
            events.tell(events.LEFT, handle)
        if failure is not None:
            try:
                return self._fail_in_place(handle, failure)
            finally:
                del handle, failure  # or they would refer to each other, through this frame in the traceback
        if handle._marks or listeners:
            self.settle(handle, DONE, value)
        else:
            handle._state = DONE  # from running: see lifecycles.STEPS
            handle._value = value
            handle.pool._tallies[definition].done += 1  # type: ignore[union-attr]
        return handle

    def _learn(
        self, definition: Definition[Any], spent: int, before: tuple[int, int] | None, now: int
    ) -> ContractViolation | None:
        """Report a slow call in place; return what is wrong with it where warnings are errors."""
        violation = None
        blocked, preempted = evidence(before)
        if self.debug and blocked and definition.contract.blocks == "never":
            try:
                definition.tell_violation(spent)
            except ContractViolation as error:
                violation = error
        if blocked and (self.workers.busy or self.sites or self.mailbox.pending):
            blocked = None  # it may have waited for the interpreter lock, which a worker had
        if not preempted:
            learner = definition.learner
            learner.ran_in_place(spent, blocked, self.unawaited != 0, definition.in_place, self.budget, now)
        return violation


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
