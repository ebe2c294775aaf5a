"""Chains: steps that are called one after the other, as one threadlet, in place until one of them would block.

Why: what is done with a file, or a row, or a key is seldom one call, and each call of it may block, and seldom does. As
threadlets of their own, with a hop each when they miss, they cost what they cost four times over; in one function they
are where its first call is. A chain is in place as far as it goes, and the rest is one hop.

``Chain`` is the face. The steps are data (``chains``), what comes next is a rule (``courses``), and ``runs`` performs
it.

Rejected: operators (``a | b``), since a step has arguments; a decorator that reads a function's source, since it would
have to understand all of Python.

Invariants: a chain never changes; each of its methods returns another one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Hashable, Iterable, Mapping
from datetime import datetime
from functools import cached_property, partial
from time import monotonic_ns
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from .chains import NaP, Steps
from .cleanups import deferred
from .courses import arguments
from .definitions import Definition, Prepared, check_priority, check_tags
from .entrypoints import Call, Entrypoint
from .errors import NoRunningLoop
from .events import listeners
from .expiries import deadline_of
from .handles import Threadlet, make_threadlet
from .homes import DEPTH
from .lifecycles import DONE, RUNNING, TAGGED
from .maps import Items, Raising, Returning
from .pools import Pool, default_pool
from .roads import road_of
from .runs import Core, Run, drive
from .tasks import running_loop

__all__ = ["Chain", "Chaining"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
R_co = TypeVar("R_co", covariant=True)
Row = Mapping[str, Any]


class Chain(Definition[R_co], Generic[R_co]):
    """Steps that are called one after the other, as one threadlet.

    >>> from threadlets.chains import arg
    >>> words = Chain().then(str.split, arg("text")).then(len)
    >>> words(text="as long as nothing blocks").result()
    5

    Each method returns another chain, and leaves this one as it is. Mistakes are told at once: a name that means
    nothing, arguments that a function does not take.

    Args:
        name: Shown in messages.
        priority: Its calls' priority, unless they say otherwise. Lower numbers start first; any real number.
        tags: Its calls' tags, to select them by; they may have more.

    Thread: any. Cancel: none.
    """

    def __init__(self: Chain[None], name: str = "chain", *, priority: float = 0, tags: Iterable[Hashable] = ()) -> None:
        if not isinstance(name, str):
            raise TypeError(f"Chain({name!r}): expected a name; the steps are added with then(...)")
        self._set(Steps(), name, check_priority(priority), check_tags(tags), False)

    def _set(self, steps: Steps, name: str, priority: float, tags: frozenset[Hashable], lenient: bool) -> None:
        self._core = Core(steps, name, lenient)
        super().__init__(partial(drive, self._core), priority=priority, tags=tags)
        self.name = name

    def _with(self, steps: Steps, lenient: bool = False) -> Chain[Any]:
        chain: Chain[Any] = Chain.__new__(type(self))
        chain._set(steps, self.name, self.priority, self.tags, lenient or self._core.lenient)
        return chain

    # --------------------------------------------------------------------------------------------------- put together

    @overload
    def then(self, function: Entrypoint[P, S] | Call[P, S], /, *args: P.args, **kwargs: P.kwargs) -> Chain[S]: ...
    @overload
    def then(self: Chain[R], function: Entrypoint[[R], S] | Call[[R], S], /) -> Chain[S]: ...
    @overload
    def then(self, function: Callable[P, S], /, *args: P.args, **kwargs: P.kwargs) -> Chain[S]: ...
    @overload
    def then(self: Chain[R], function: Callable[[R], S], /) -> Chain[S]: ...

    def then(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Add a step: ``function(*args, **kwargs)``, after all others.

        Args:
            function: A plain function, or an entrypoint of one: where that was learned to belong is where it is called.
            args: What it is given: constants, ``arg(name)`` and ``ref(name)``. If that is nothing at all, a step behind
                another one gets ``ref()``, what the last one has returned, unless its function takes no argument.
            kwargs: The same, by name.

        Raises:
            TypeError: If it is no plain function, or does not take such arguments.
            ValueError: If a reference means no earlier step, or a contract binds the function to a thread.
        """
        plain = road_of(function).function
        return self._with(self._core.steps.then(function, args, kwargs, plain))

    def finally_(self, function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Chain[R_co]:
        """Add a step to the end: it is called whatever has happened before, also after a failure, a stop or a cancel.

        What was added last is called first. A step is left out if something that it refers to has no value, since that
        step has failed, was skipped or was not reached. If it fails itself, that is what the chain comes to; if the
        chain has failed already, it is a note of that failure.

        Args:
            function: As for ``then``.
            args: As for ``then``; but ``ref()`` needs a name.
            kwargs: The same, by name.

        Raises:
            TypeError: As ``then``.
            ValueError: As ``then``.
        """
        plain = road_of(function).function
        return self._with(self._core.steps.finally_(function, args, kwargs, plain))

    def named(self, name: str) -> Chain[R_co]:
        """Name the last step, for ``ref(name)`` and for messages.

        Raises:
            TypeError: If the name is no string.
            ValueError: If another step has it, or this one has a name, or it could not be that of an argument.
        """
        return self._with(self._core.steps.named(name))

    def stop_if(self, predicate: Callable[[R_co], object]) -> Chain[R_co]:
        """End the chain behind the last step if ``predicate(value)`` is true; its value is then that of the chain.

        That is no failure. Of what comes behind, only the ``finally_`` steps are called. The predicate is called where
        its step was, and must not block; this holds for the next two as well.

        Raises:
            TypeError: If the predicate is no plain function of one argument.
            ValueError: If there is no step to say this of.
        """
        return self._flag("stop if", predicate)

    def skip_if(self, predicate: Callable[[R_co], object]) -> Chain[R_co]:
        """Jump over the next step if ``predicate(value)`` of the last one is true.

        For the step after that ``ref()`` is still this value. A reference to the skipped one by name gives a ``NaP``.

        Raises:
            TypeError: If the predicate is no plain function of one argument.
            ValueError: If there is no step to say this of.
        """
        return self._flag("skip if", predicate)

    def repeat_while(self, predicate: Callable[[R_co], object], limit: int | None = None) -> Chain[R_co]:
        """Call the last step again as long as ``predicate(value)`` is true; its value is the last one.

        Among its arguments ``ref()`` is, from the second time on, what it has returned itself.

        Args:
            predicate: A plain function of one argument.
            limit: How often the step is called at most; what it has returned then is taken as it is.

        Raises:
            TypeError: If the predicate is no plain function of one argument, or the limit no whole number.
            ValueError: If there is no step to say this of, or the limit is less than 1.
        """
        return self._flag("repeat while", predicate, limit)

    def recover(self, function: Callable[[NaP], S]) -> Chain[R_co | S]:
        """If the last step comes to a ``NaP``, by its own failure or by an earlier one, go on with ``function(nap)``.

        Raises:
            TypeError: If it is no plain function of one argument.
            ValueError: If there is no step to say this of.
        """
        return self._flag("recover", function)

    def _flag(self, kind: str, function: Callable[..., Any], limit: int | None = None) -> Chain[Any]:
        plain = road_of(function).function
        return self._with(self._core.steps.flagged(kind, function, limit, plain))

    def explain(self) -> str:
        """Return the steps as text: a line for each, with its number, name and arguments; then its flags."""
        return self._core.steps.explain(self.name)

    def __repr__(self) -> str:
        steps = len(self._core.steps.steps)
        return f"<Chain {self.name}({', '.join(self._core.steps.needs)}): {steps} step{'s' * (steps != 1)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._core.steps, self.name, self.priority, self.tags, self._core.lenient)

    # ------------------------------------------------------------------------------------------------------------ call

    def __call__(self, given: Row | None = None, /, **values: Any) -> Threadlet[R_co]:
        """Start a call, in the default pool of the running loop; where none runs, do all of it right here.

        Args:
            given: The arguments as one mapping, or some of them.
            values: The arguments by name.

        Returns:
            Its handle. Awaiting it gives the value of the last step, or raises ``AEIOU`` if that is a ``NaP``.

        Raises:
            TypeError: If an argument is missing, or one too many.
        """
        run = self._core.begin(arguments(given, values))
        loop = running_loop()
        if loop is None:
            return cast("Threadlet[R_co]", self._core.rest(run))
        return self._start(default_pool(loop), run, self.priority, self.tags)

    @cached_property
    def inline(self) -> Chain[R_co | NaP]:
        """The same chain, but that a failure is its value: ``nap = await chain.inline(path="b.txt")``.

        It is a chain in every respect: ``chain.inline.map(rows)``, ``pool.start(chain.inline, row)``.
        """
        return self._with(self._core.steps, True)

    def using(
        self,
        *,
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
        deadline: float | datetime | None = None,
        pool: Pool | None = None,
    ) -> Chaining[R_co]:
        """Return this chain with options for the next call: ``await chain.using(priority=3)(path="a.txt")``.

        Args:
            priority: Lower numbers start first; None: the chain's own.
            tags: Added to the chain's own.
            deadline: Seconds from each call, or a datetime with a time zone; see ``Pool.start``.
            pool: Where it is started; None: in the default pool of the running loop.

        Raises:
            TypeError: If an option is of a wrong type.
            ValueError: If the priority is NaN, or the deadline NaN, infinite or without a time zone.
        """
        if pool is not None and not isinstance(pool, Pool):
            raise TypeError(f"pool={pool!r}: expected a threadlets.Pool")
        if deadline is not None:
            deadline_of(deadline)
        priority = self.priority if priority is None else check_priority(priority)
        return Chaining(self, priority, self.tags | check_tags(tags), deadline, pool)

    @overload
    def map(self, rows: Items[Row], **options: Unpack[Raising]) -> AsyncGenerator[R_co, None]: ...
    @overload
    def map(self, rows: Items[Row], **options: Unpack[Returning]) -> AsyncGenerator[R_co | BaseException, None]: ...

    def map(self, rows: Items[Row], **options: Any) -> AsyncGenerator[Any, None]:
        """Iterate over the values of the chain for many rows of arguments, in the default pool of the running loop.

        Args:
            rows: Mappings from names to arguments: an iterable, or an asynchronous one.
            options: Those of ``Pool.map``: ``limit``, ``ordered``, ``return_exceptions``, ``progress``, ``priority``,
                ``tags``.

        Raises:
            NoRunningLoop: If no event loop runs here.
            TypeError: If ``rows`` is not iterable, or an option is of a wrong type.
            ValueError: If ``limit`` is less than 1, or the priority is NaN.

        Thread: loop.
        """
        loop = running_loop()
        if loop is None:
            raise NoRunningLoop(f"{self.name}.map(...) on a thread where no event loop runs: iterate in a coroutine")
        return cast("AsyncGenerator[Any, None]", default_pool(loop).map(cast(Any, self), rows, **options))

    def _start(
        self, pool: Pool, run: Run, priority: float, tags: frozenset[Hashable], deadline: int | None = None
    ) -> Threadlet[Any]:
        """Start a run: at once, and without a task if it ends so."""
        home = pool._home
        if deadline is not None:
            return pool._begin_by(deadline, self, (run,), None, priority, tags)
        if not pool._direct or home.turn < 0 or home.depth >= DEPTH or listeners:
            return pool._begin(self, (run,), None, priority, tags)
        handle: Threadlet[Any] = make_threadlet(
            self, pool, priority, tags, RUNNING, monotonic_ns(), TAGGED if tags else 0
        )
        handle._task = None
        if not run.go_on_here(home, handle):
            return home.start_coroutine(handle, (run,), None)
        self.in_place += 1
        failure = value = None
        try:
            value = run.conclude()
        except BaseException as error:
            failure = error
        home.unawaited = handle._arrived
        try:
            if deferred and handle in deferred:
                return home._clean_up(handle, value, failure)
            if failure is not None:
                return home._fail_in_place(handle, failure)
            if handle._marks:
                home.settle(handle, DONE, value)
            else:
                handle._state = DONE  # from running: see lifecycles.STEPS
                handle._value = value
                pool._tallies[self].done += 1
            return handle
        finally:
            del handle, failure, value  # a failure leads to the frames that it has come through, and to this one


class Chaining(Prepared[R_co], Generic[R_co]):
    """A chain with options for its next call: what ``Chain.using`` returns."""

    __slots__ = ("deadline", "pool")

    definition: Chain[R_co]

    def __init__(
        self,
        chain: Chain[R_co],
        priority: float,
        tags: frozenset[Hashable],
        deadline: float | datetime | None,
        pool: Pool | None,
    ) -> None:
        super().__init__(chain, (), priority, tags)
        self.deadline = deadline
        self.pool = pool

    def __call__(self, given: Row | None = None, /, **values: Any) -> Threadlet[R_co]:
        """Start a call; see ``Chain``."""
        chain, pool = self.definition, self.pool
        run = chain._core.begin(arguments(given, values))
        if pool is not None:
            pool._bind()
        else:
            loop = running_loop()
            if loop is None:
                return cast("Threadlet[R_co]", chain._core.rest(run))
            pool = default_pool(loop)
        deadline = None if self.deadline is None else deadline_of(self.deadline)
        return chain._start(pool, run, self.priority, self.tags, deadline)

    def __repr__(self) -> str:
        return f"<call of {self.definition!r}>"


def _restore(steps: Steps, name: str, priority: float, tags: frozenset[Hashable], lenient: bool) -> Chain[Any]:
    """Make a chain again that was pickled."""
    chain: Chain[Any] = Chain.__new__(Chain)
    chain._set(steps, name, priority, tags, lenient)
    return chain
