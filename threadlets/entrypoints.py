"""The decorator, and what it makes of a function: an entrypoint, which can be called like the function was."""

from __future__ import annotations

import functools
import threading
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Hashable, Iterable
from contextvars import copy_context
from datetime import datetime
from itertools import count
from time import monotonic_ns
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload
from weakref import WeakValueDictionary

from . import events
from .cleanups import clean_up, deferred
from .contracts import Contract
from .definitions import Definition, Prepared, check_priority, check_tags
from .errors import NoRunningLoop
from .events import listeners
from .expiries import deadline_of
from .handles import Threadlet, make_threadlet
from .homes import EXITS
from .lifecycles import CANCELLED, DONE, FAILED, HERE, State
from .outcomes import Failure, as_awaitable, without_caller
from .pools import Pool, default_pool
from .surroundings import changes, here
from .tasks import running_loop

__all__ = ["Call", "Entrypoint", "known_entrypoints", "threadlet"]

P = ParamSpec("P")
Q = ParamSpec("Q")
T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)  # what the function itself returns: for a coroutine function, a coroutine
S = TypeVar("S")

_known: WeakValueDictionary[int, Entrypoint[..., Any]] = WeakValueDictionary()  # those that live
_numbers = count()


class Entrypoint(Definition[R_co], Generic[P, R_co]):
    """A function decorated with ``@threadlet``: calling it starts it and returns its ``Threadlet``.

    Thread: any. On a thread where no event loop runs, a plain function runs right there, and its handle is final when
    the call returns; a coroutine function raises ``NoRunningLoop``.

    Attributes:
        function: The function as it was, to call without any of this.
    """

    __wrapped__: Callable[P, Any]
    __name__: str

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        contract: Contract | None = None,
        priority: float = 0,
        tags: Iterable[Hashable] = (),
    ) -> None:
        self._binds = "object"
        if isinstance(function, (classmethod, staticmethod)):
            self._binds = "class" if isinstance(function, classmethod) else "nothing"
            function = function.__func__
        if isinstance(function, (Definition, Prepared)):
            raise TypeError(f"{function!r} is a threadlet already: decorate it once, with all options")
        super().__init__(function, contract=contract, priority=priority, tags=tags)
        _known[next(_numbers)] = self
        functools.update_wrapper(self, function, updated=())
        for name, value in getattr(function, "__dict__", {}).items():
            if not hasattr(self, name):  # its attributes, but none in place of ours
                self.__dict__[name] = value

    @overload
    def __call__(self: Entrypoint[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Threadlet[T]: ...

    @overload
    def __call__(self: Entrypoint[P, R_co], *args: P.args, **kwargs: P.kwargs) -> Threadlet[R_co]: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Start the function, in the default pool of the running loop."""
        loop = running_loop()
        if loop is None:
            return _run_here(self, args, kwargs)
        try:
            pool = loop._threadlets_pool  # type: ignore[attr-defined]  # see default_pool
        except AttributeError:
            pool = default_pool(loop)
        begin = pool._begin_shared if self.shares else pool._begin
        return begin(self, args, kwargs, self.priority, self.tags)

    def using(
        self,
        *,
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
        deadline: float | datetime | None = None,
        pool: Pool | None = None,
    ) -> Call[P, R_co]:
        """Return this entrypoint with options for the next call: ``await load.using(priority=3)("a")``.

        Args:
            priority: Lower numbers start first; None: the entrypoint's own.
            tags: Added to the entrypoint's own.
            deadline: Seconds from each call, or a datetime with a time zone; see ``Pool.start``.
            pool: Where it is started; None: in the default pool of the running loop.

        Raises:
            TypeError: If an option is of a wrong type.
            ValueError: If the priority is NaN, or the deadline NaN, infinite or without a time zone.
        """
        return _call(self, (), None).using(priority=priority, tags=tags, deadline=deadline, pool=pool)

    @overload
    def __get__(self, instance: None, owner: type) -> Entrypoint[P, R_co]: ...

    @overload
    def __get__(self: Entrypoint[Concatenate[S, Q], R_co], instance: S, owner: type | None = None) -> Call[Q, R_co]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind to an object, as a function in a class does."""
        if self._binds == "class":
            return _call(self, (type(instance) if owner is None else owner,), None)
        if self._binds == "nothing" or instance is None:
            return self
        return _call(self, (instance,), None)

    def __repr__(self) -> str:
        return f"<threadlet {getattr(self, '__qualname__', self.name)}>"

    def __reduce__(self) -> str:
        """Pickle by name, as functions are."""
        return str(getattr(self, "__qualname__", self.name))


class Call(Prepared[R_co], Generic[P, R_co]):
    """An entrypoint with part of its next call settled: the object it is a method of, or options of ``using()``."""

    __slots__ = ("deadline", "pool")

    deadline: float | datetime | None
    pool: Pool | None

    @overload
    def __call__(self: Call[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Threadlet[T]: ...

    @overload
    def __call__(self: Call[P, R_co], *args: P.args, **kwargs: P.kwargs) -> Threadlet[R_co]: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Start the function; see ``Entrypoint``."""
        pool = self.pool
        all_args = self.args + args
        if pool is not None:
            pool._bind()
        else:
            loop = running_loop()
            if loop is None:
                return _run_here(self.definition, all_args, kwargs)
            pool = default_pool(loop)
        begin = pool._begin_shared if self.definition.shares else pool._begin
        if self.deadline is None:
            return begin(self.definition, all_args, kwargs, self.priority, self.tags)
        return pool._begin_by(deadline_of(self.deadline), self.definition, all_args, kwargs, self.priority, self.tags)

    def using(
        self,
        *,
        priority: float | None = None,
        tags: Iterable[Hashable] = (),
        deadline: float | datetime | None = None,
        pool: Pool | None = None,
    ) -> Call[P, R_co]:
        """Return the same with further options; see ``Entrypoint.using``."""
        if pool is not None and not isinstance(pool, Pool):
            raise TypeError(f"pool={pool!r}: expected a threadlets.Pool")
        call: Call[P, R_co] = _call(self.definition, self.args, pool or self.pool)
        call.priority = self.priority if priority is None else check_priority(priority)
        call.tags = self.tags | check_tags(tags)
        call.deadline = self.deadline
        if deadline is not None:
            deadline_of(deadline)
            call.deadline = deadline
        return call

    def __repr__(self) -> str:
        return f"<call of {self.definition!r}>"

    def __getattr__(self, name: str) -> Any:
        """Look like the entrypoint: ``obj.load.statistics()``."""
        if name == "definition":  # not set yet
            raise AttributeError(name)
        return getattr(self.definition, name)

    def _key(self) -> tuple[Any, ...]:
        return self.definition, *map(id, self.args), self.priority, self.tags, self.deadline, self.pool

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Call) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())


def _call(definition: Definition[T], args: tuple[Any, ...], pool: Pool | None) -> Call[Any, T]:
    call: Call[Any, T] = Call(definition, args, definition.priority, definition.tags)
    call.pool = pool
    call.deadline = None
    return call


class _Decorator(Protocol):
    def __call__(self, function: Callable[P, R], /) -> Entrypoint[P, R]: ...


@overload
def threadlet(function: Callable[P, R], /) -> Entrypoint[P, R]: ...
@overload
def threadlet(
    *, contract: Contract | None = None, priority: float = 0, tags: Iterable[Hashable] = ()
) -> _Decorator: ...


def threadlet(
    function: Callable[..., Any] | None = None,
    /,
    *,
    contract: Contract | None = None,
    priority: float = 0,
    tags: Iterable[Hashable] = (),
) -> Any:
    """Make a function an entrypoint: a call of it runs in place, at about the cost of a call, unless it would block.

    For plain functions and coroutine functions, with or without options; on methods, outermost: above
    ``@classmethod`` and ``@staticmethod``.

    Args:
        function: What to decorate.
        contract: What you promise about it; see ``Contract``.
        priority: Its calls' priority, unless they say otherwise. Lower numbers start first; any real number.
        tags: Its calls' tags, to select them by; they may have more.

    Raises:
        TypeError: If it is no function, or a generator function, or an option is of a wrong type.
        ValueError: If the contract does not fit the function, or the priority is NaN.
    """
    check_priority(priority)
    check_tags(tags)
    make = functools.partial(Entrypoint[Any, Any], contract=contract, priority=priority, tags=tags)
    return make if function is None else make(function)


def known_entrypoints() -> list[Entrypoint[..., Any]]:
    """Return all that were decorated and live, oldest first. Thread: any."""
    return [each for reference in _known.valuerefs() if (each := reference()) is not None]


def _run_here(definition: Definition[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Threadlet[Any]:
    """Call a plain function on this thread, where no event loop runs: in a worker, in another function, in a script.

    There is nothing that blocking would stall, so it runs to its end, and the handle returned is final.

    Raises:
        NoRunningLoop: For a coroutine function, and for ``affinity="home"`` on another thread than the loop's.

    Thread: any.
    """
    outer = here.get(threading.get_ident())
    if definition.is_coroutine or (definition.contract.affinity == "home" and not _at_home(outer)):
        why = "is a coroutine function" if definition.is_coroutine else "may only run on the event loop's thread"
        raise NoRunningLoop(
            f"{definition.name}() {why}, and no event loop runs here: await it in a coroutine, which in 'async with "
            f"offload() as away:' wants to be home, or call the function itself, {definition.name}.function(...)"
        )
    handle: Threadlet[Any] = make_threadlet(
        definition, None, definition.priority, definition.tags, State.RUNNING, monotonic_ns(), HERE
    )
    handle._task = outer

    def call() -> Any:
        thread = threading.get_ident()
        before = here.get(thread)
        here[thread] = handle
        try:
            value = failure = None
            try:
                value = definition.function(*args, **kwargs)
            except BaseException as error:
                if handle not in deferred:
                    raise
                failure = error
            if deferred and handle in deferred:
                failure = clean_up(handle, failure)
                if failure is not None:
                    raise failure
            return value
        finally:
            del failure  # its traceback refers to this frame
            if before is None:
                del here[thread]
            else:
                here[thread] = before

    if listeners:
        events.tell(events.BEGAN, handle, "right here")
    try:
        if definition.contract.affinity.startswith("one"):
            value = _call_over_there(definition, call)
        else:
            value = call()
        handle._finish(DONE, value)
    except EXITS as error:
        if listeners:
            events.tell(events.LEFT, handle)
            events.tell_end(handle, FAILED, error)
        raise
    except CancelledError as error:
        handle._finish(CANCELLED, error.args[0] if error.args else None)
    except BaseException as error:
        failure = as_awaitable(without_caller(error), definition.name)
        handle._finish(FAILED, Failure(failure, definition.name, None))
    if listeners:
        events.tell(events.LEFT, handle)
        events.tell_end(handle, handle._state, handle._value)
    return handle


def _call_over_there(definition: Definition[Any], call: Callable[[], Any]) -> Any:
    """Call a function on its own thread and wait for it; context variables go there, and changes come back."""
    context = copy_context()
    before = context.copy()
    try:
        return definition.workers.call(functools.partial(context.run, call))
    finally:
        for variable, value in changes(before, context) or ():
            variable.set(value)


def _at_home(outer: Threadlet[Any] | None) -> bool:
    """Say whether this is the thread of a loop, and the calls that lead here began in place."""
    while outer is not None and outer.pool is None:
        outer = outer._task
    return outer is not None and outer.pool is not None and outer.pool._home.thread == threading.get_ident()
