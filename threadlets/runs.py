"""Runs of chains: in place until a step would block, and the rest in one piece on a worker.

What a chain calls next is decided in ``courses``; this room performs it, by three roads:

- *In place* (``Run.go_on_here``): step after step, inside of the call. A system call that can be tried (``probes``) is
  tried. Any other function is called if its own entrypoint belongs in place, by the same rules as if it were called by
  itself. On a loop that changes hands that is a region, and costs less than to try.
- *The rest* (``Run.go_on_away``): what is left when a step has missed goes to a worker, as one more threadlet, which
  belongs to the chain: no throttle sees it, and a cancel is handed on to it. The chain itself is a coroutine that waits
  for it. Between steps it learns that it is to stop; its ``finally_`` steps are inside of ``holding``.
- *Right there*, where no loop runs, as every entrypoint: that is the rest from the first step on.

Cancelled before the rest has begun on a worker, the steps in place may have left something to be undone. The course is
told, and what it wants then is done in place; or on a worker, from which nobody can call it back; or, if there are none
any more, on the loop's thread. So a chain is never final before its ``finally_`` steps have ended.

What each function has cost is told to its own entrypoint, wherever that was: so chains learn from each other, and from
calls of the same functions beside them.

Rejected: to send the chain's own handle to the worker. A plain function that has begun cannot be queued again, and one
that waits for a worker can be dropped, with what its first steps have opened. One region around all steps in place:
what has promised not to block would be in it, and which step has blocked would have to be guessed.

Invariants: one thread at a time performs a run: the loop's, or, from the hand-over on, that of the worker, until the
threadlet of the rest is final.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, CancelledError
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from contextvars import copy_context
from threading import get_ident
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, cast

from .cancellation import asked, checkpoint, holding
from .chains import AEIOU, NaP, Steps
from .contracts import Contract
from .courses import Course, Raised, Request, arguments
from .definitions import Definition
from .entrypoints import Entrypoint
from .errors import PoolClosed
from .homes import UNGUARDED
from .lifecycles import CHANGED, KEPT
from .placements import SWITCHES, TAKEOVER, TURN
from .pools import Pool
from .probes import MISS
from .regions import current_threadlet
from .roads import Road, called, road_of, without_us
from .surroundings import changes, here
from .syscalls import evidence, switches
from .tasks import set_running_loop

if TYPE_CHECKING:
    from .handles import Threadlet
    from .homes import Home

__all__ = ["Core", "Run", "drive"]

AWAY = Contract(blocks="always")
OFTEN = 64  # arbitrary: after so many steps in place the clock is looked at, for the sake of loops


class Core:
    """What the calls of one chain share, put together when the first one is made.

    Attributes:
        lenient: Whether a failure is returned, as a NaP, and not raised.
        rest: The entrypoint of what is left when a step has missed.
    """

    __slots__ = ("_roads", "course", "lenient", "name", "rest", "steps")

    _roads: tuple[Road, ...]
    course: Course
    rest: Callable[[Run], Threadlet[Any]]

    def __init__(self, steps: Steps, name: str, lenient: bool) -> None:
        self.steps = steps
        self.name = name
        self.lenient = lenient

    def begin(self, values: Mapping[str, Any]) -> Run:
        """Begin a call.

        Raises:
            TypeError: If there is an argument too few or too many.
        """
        try:
            course = self.course
        except AttributeError:
            course = Course(self.steps)
            self._roads = tuple(road_of(each, n in course.predicates) for n, each in enumerate(course.functions))
            rest: Entrypoint[[Run], Any] = Entrypoint(Run.go_on, contract=AWAY)
            rest.name = self.name
            self.rest = cast("Callable[[Run], Threadlet[Any]]", rest)
            self.course = course
        return Run(self, course.begin(values))

    @property
    def roads(self) -> tuple[Road, ...]:
        """How each function of the course may be called."""
        return self._roads


class Run:
    """One call of a chain. Thread: see the invariants of this room.

    Attributes:
        core: That of the chain.
        missed: A step would have blocked in place.
        request: What is to be done next; None: it has ended.
        value: What has come of it then; may be a NaP, or ``Raised``.
    """

    __slots__ = ("_away", "_begun", "_course", "_ran", "_taken", "core", "missed", "request", "value")

    request: Request | None

    def __init__(self, core: Core, course: Generator[Request, Any, Any]) -> None:
        self.core = core
        self._course = course
        self._begun = False  # some step was called
        self._away = False  # it was handed over to a worker, which has begun
        self._taken = False  # a step has blocked in place, and the loop went on meanwhile
        self._ran: list[tuple[Definition[Any], int, bool | None]] = []  # what the worker has called, how long, blocked
        self.missed = False
        self.value: Any = None
        self.request = None
        self._send(None)

    def _send(self, outcome: Any) -> None:
        try:
            self.request = self._course.send(outcome)
        except StopIteration as end:
            self.request = None
            self.value = end.value

    def conclude(self) -> Any:
        """Return the value of a run that has ended; raise what it has ended with."""
        value, self.value = self.value, None
        if type(value) is NaP and not self.core.lenient:
            raise AEIOU(value)
        if type(value) is not Raised:
            return value
        try:
            if value.late is not None and isinstance(value.error, CancelledError):
                raise AEIOU(value.late)  # that it was cancelled is known; this is news
            raise value.error
        finally:
            del value

    # -------------------------------------------------------------------------------------------------- in place

    def go_on_here(self, home: Home, handle: Threadlet[Any]) -> bool:
        """Call one step after the other until one would block; True if there is none left. Thread: loop."""
        roads, send = self.core.roads, self._course.send
        request = self.request
        if request is None:
            return True
        began, count = monotonic_ns(), 0
        outcome: Any = None
        thread = get_ident()
        outer = here.get(thread)
        here[thread] = handle
        set_running_loop(None)
        try:
            while True:
                call, args, kwargs = request
                attempt, direct, definition, function = roads[call.index]
                outcome = MISS
                if self._taken and not call.final and asked(handle):
                    outcome = Raised(CancelledError(*filter(None, [handle._value])))
                elif direct:
                    outcome = called(function, args, kwargs)
                elif (attempt is None or home.changes_hands) and home.in_place(definition):
                    outcome = self._guarded(home, definition, function, args, kwargs)
                elif attempt is not None:
                    outcome = called(attempt, args, kwargs)
                    if home.changes_hands and outcome is not MISS:  # the call itself would not have waited, either
                        solvent = home.budget.solvent(monotonic_ns())
                        definition.learner.ran_on_worker(0, False, definition.in_place, solvent)
                count += 1
                if outcome is MISS or (not count % OFTEN and monotonic_ns() - began > TURN):
                    if outcome is not MISS:
                        request = send(outcome)
                    self.request = request
                    self.missed = True
                    return False
                self._begun = True
                request = send(outcome)
        except StopIteration as end:
            self.request = None
            self.value = end.value
            return True
        finally:
            del outcome, handle
            set_running_loop(home.loop)
            here[thread] = outer
            if self._taken:
                home.turn = 0  # an await lets the loop go round, and tells who was cancelled meanwhile
            home.count(began)

    def _guarded(
        self,
        home: Home,
        definition: Definition[Any],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Call a function in place as ``Home.run_in_place`` does, and have it learned from. Thread: loop."""
        learner = definition.learner
        before = None
        if learner.watch > 0 or home.debug:
            learner.watch -= learner.watch > 0
            before = switches()
        token = (home.token if definition.guarded else None) or UNGUARDED
        cell = token.cell
        started = monotonic_ns()
        try:
            cell.append(started)
            if started > token.covered:
                token.spares.rouse(started)
            outcome = function(*args, **kwargs)
        except BaseException as error:
            outcome = Raised(without_us(error))
        now = monotonic_ns()
        spent = now - started
        definition.in_place += 1
        definition.ns_in_place += spent
        try:
            cell.pop()
        except IndexError:
            self._taken = True
            definition.missed += 1
            blocked = evidence(before)[0]  # asked before it waits for the token
            stall = spent
            try:
                stall = token.come_back(cell) + SWITCHES
            except BaseException as error:  # a signal handler's
                outcome = Raised(error)
            set_running_loop(None)
            now = monotonic_ns()
            learner.ran_in_place(stall, blocked, home.unawaited != 0, definition.in_place, home.budget, now)
        else:
            if spent > learner.limit:
                violation = home._learn(definition, spent, before, now)
                if violation is not None and type(outcome) is not Raised:
                    outcome = Raised(violation)
        try:
            return outcome
        finally:
            del outcome  # a failure leads to the frames that it has come through, and they must not lead to it

    # ---------------------------------------------------------------------------------------------------- the rest

    async def go_on_away(self, home: Home, handle: Threadlet[Any]) -> Any:
        """Have a worker do the rest, and return what comes of it, or raise that. Thread: loop.

        Cancel: point; handed on to the worker, or, if none has begun yet, to the course.
        """
        pool = _rests(home.loop)
        asked: BaseException | None = None
        rest: Threadlet[Any] | None = None
        try:
            rest = pool.start(self.core.rest, self, priority=handle._priority, tags=handle._tags)
            return await rest
        except BaseException as error:
            if self.request is None or self._away or not self._begun:
                if rest is not None and rest.done() and not rest.cancelled() and rest.exception() is not None:
                    rest.result()  # a cancel that comes right behind a failure does not hide it
                del handle, rest  # see _guarded
                raise
            if self.request[0].final:
                asked = error  # no step is left that could be told
            else:
                self._send(Raised(error))
        finally:
            self._tell(home)
        value = self.conclude() if self.go_on_here(home, handle) else await self._undo(home, pool)
        try:
            if asked is not None:
                raise asked
            return value
        finally:
            del asked, handle, rest

    async def _undo(self, home: Home, pool: Pool) -> Any:
        """Have a worker do what finally_ wants, whoever asks to stop; if none does, do it here. Thread: loop."""
        try:
            rest = pool.start(self.core.rest, self)
        except PoolClosed:
            rest = None
        while rest is not None and not rest.done():
            try:
                await asyncio.wait([cast("asyncio.Future[Any]", rest)])
            except CancelledError:
                continue
        if rest is not None and (self._away or self.request is None):
            try:
                return rest.result()
            finally:
                del rest
        set_running_loop(None)
        try:
            return self.go_on()
        finally:
            set_running_loop(home.loop)

    def go_on(self) -> Any:
        """Do what is left, and return what comes of it, or raise that. Thread: worker, or any where no loop runs."""
        self._away = True
        if self.request is not None:
            self._perform(self.request)
        return self.conclude()

    def _perform(self, request: Request) -> None:
        """Perform requests until there are none."""
        roads, send = self.core.roads, self._course.send
        outcome: Any = None
        with ExitStack() as stack:
            protected = False
            try:
                while True:
                    call, args, kwargs = request
                    definition, function = roads[call.index][2:]
                    if not call.final:
                        try:
                            checkpoint()
                        except CancelledError as error:
                            request = send(Raised(without_us(error)))
                            continue
                    elif not protected:
                        stack.enter_context(holding("the finally_ steps of a chain"))
                        protected = True
                    switched = None
                    if definition.learner.watch > 0:
                        definition.learner.watch -= 1
                        switched = switches()
                    started = monotonic_ns()
                    outcome = called(function, args, kwargs)
                    spent = monotonic_ns() - started
                    self._ran.append((definition, spent, None if switched is None else evidence(switched)[0]))
                    self._begun = True
                    request = send(outcome)
            except StopIteration as end:
                self.request = None
                self.value = end.value
            finally:
                del outcome

    def _tell(self, home: Home) -> None:
        """Have what a worker has called be learned from. Thread: loop."""
        ran, self._ran = self._ran, []
        solvent = home.budget.solvent(monotonic_ns()) if ran else True
        for definition, spent, blocked in ran:
            definition.on_workers += 1
            definition.ns_on_workers += spent
            if definition.learner.learns:
                cost = min(spent, TAKEOVER) if home.changes_hands else spent
                definition.learner.ran_on_worker(spent, blocked, definition.in_place, solvent, cost)


async def drive(core: Core, given: Run | Mapping[str, Any] | None = None, /, **values: Any) -> Any:
    """Run a chain as a coroutine: from its first step on, or what is left of a run.

    Args:
        core: That of the chain.
        given: A run, which may have missed; or the arguments, as one mapping.
        values: The arguments, or further ones.

    Cancel: point.
    """
    handle = cast("Threadlet[Any]", current_threadlet())
    home: Home = handle.pool._home  # type: ignore[union-attr]
    run = given if type(given) is Run else core.begin(arguments(given, values))
    before = copy_context()
    try:
        if not run.missed and run.go_on_here(home, handle):
            return run.conclude()
        return await run.go_on_away(home, handle)
    finally:
        changed = changes(before, copy_context())
        if changed is not None and not handle.done():  # for whoever awaits it, as those of a plain function
            handle._args, handle._kwargs, handle._context = (), None, changed
            handle._marks = handle._marks & ~KEPT | CHANGED
        del handle


def _rests(loop: AbstractEventLoop) -> Pool:
    """Return the pool of what is left of chains: one for each loop, kept with it as its home is. Thread: loop."""
    pool: Pool | None = getattr(loop, "_threadlets_rests", None)
    if pool is None:
        pool = Pool(name="the rests of chains")
        loop._threadlets_rests = pool  # type: ignore[attr-defined]
    return pool
