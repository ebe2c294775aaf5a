"""Which foreign callables are the same function: so that adapters learn where its calls are best done.

Why: a library hands over a callable per call - a partial with the arguments in it, a closure, a bound method, ``next``
of a generator. What was learned must not begin anew with each of them, must not be mixed up between functions that
only share a wrapper, and must not keep what a request has made. So a callable is known by its *code*: that of the
function inside of all partials and methods, with that of a function that it is handed to be called; and if all it does
is to advance a generator, that of the generator.

What waits for the event loop - ``run_coroutine_threadsafe(...).result()``, an event that a task sets - may do so on any
thread but the loop's own; on a loop that cannot go on meanwhile it would be for ever. So ``Site.waits`` is true of the
waits of the standard library; of functions whose code names such a thing, or names a function of their own module whose
code does; and of those that were seen doing it. Nobody can see all: ``queue.get`` looks like ``dict.get``, and what is
behind an object or in another module is found when it is called.

Invariants: at most ``KNOWN`` sites are kept, the least recently made goes first; a site holds code, and no arguments.
"""

from __future__ import annotations

import queue
import subprocess
import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent import futures
from functools import partial
from inspect import CO_GENERATOR
from types import BuiltinFunctionType, CodeType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any, Generic, TypeVar

from threadlets import Call, Contract, Entrypoint

__all__ = ["Known", "Parts", "Site", "carried_by", "parts_of", "site_of", "unwrap"]

T = TypeVar("T")
Parts = tuple[tuple[Any, str], ...]

CARRIERS = ("function", "func", "call")  # keywords by which wrappers are told what to call: FastAPI's, asgiref's
KEPT = "__threadlets_site__"  # an attribute of functions
WRAPPED = 8  # arbitrary: decorators around a function that are looked through
KNOWN = 4096  # arbitrary: sites, of less than 2 KiB each
LOOKED_AT = 64  # arbitrary: functions of the same module that are looked into for one

# Names by which code says that it waits for the loop: asyncio's, anyio's, asgiref's, and ours.
WORDS = frozenset({"run_coroutine_threadsafe", "from_thread", "async_to_sync", "AsyncToSync", "call_async", "portal"})
# Names of attributes by which it says that it waits for somebody, who may be the loop.
WAITS = frozenset({"acquire", "communicate", "result", "wait", "wait_for"})
# The waits of the standard library that are handed over as they are: to_thread.run_sync(event.wait).
WAITING: tuple[Any, ...] = (
    threading.Event.wait,
    threading.Condition.wait,
    threading.Condition.wait_for,
    threading.Semaphore.acquire,
    threading.Barrier.wait,
    threading.Thread.join,
    queue.Queue.get,
    queue.Queue.put,
    queue.Queue.join,
    futures.Future.result,
    futures.Future.exception,
    futures.wait,
    futures.ThreadPoolExecutor.shutdown,
    subprocess.Popen.wait,
    subprocess.Popen.communicate,
)
LOCKS = (type(threading.Lock()), type(threading.RLock()), queue.SimpleQueue)  # builtins: by type, and name


class Site:
    """A function as foreign code knows it, with an entrypoint for each way to do it. Thread: loop.

    Args:
        name: Shown in messages and statistics.
        module: Where it was written.
        waits: It waits for the event loop.
        has_entrypoint: It is an entrypoint, or is handed one.

    Attributes:
        away: Somebody wants it on workers always.
    """

    __slots__ = ("_entrypoints", "away", "has_entrypoint", "module", "name", "waits")

    def __init__(self, name: str, module: str, waits: bool, has_entrypoint: bool) -> None:
        self.name = name
        self.module = module
        self.waits = waits
        self.has_entrypoint = has_entrypoint
        self.away = False
        self._entrypoints: dict[Any, Entrypoint[..., Any]] = {}

    def entrypoint(self, way: Hashable, run: Callable[..., Any], contract: Contract) -> Entrypoint[..., Any]:
        """Return the entrypoint for one way to do it: it calls ``run`` by this contract, and learns for this site."""
        try:
            return self._entrypoints[way]
        except KeyError:
            entrypoint: Entrypoint[..., Any] = Entrypoint(run, contract=contract)
            entrypoint.name = entrypoint.__name__ = self.name
            entrypoint.__module__ = self.module
            self._entrypoints[way] = entrypoint
            return entrypoint


class Known(Generic[T]):
    """What is known of callables: at most so many, the first to come goes first. Thread: any."""

    def __init__(self, most: int = KNOWN) -> None:
        self._most = most
        self._found: dict[Any, tuple[T, Parts]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def of(self, parts: Parts, make: Callable[[], T], more: Hashable = None) -> T:
        """Return what is known by these parts, and by something more; make it, if it is not known yet."""
        key = more, *[(id(what) if isinstance(what, CodeType) else what, name) for what, name in parts]
        try:
            return self._found[key][0]
        except KeyError:
            while len(self._found) >= self._most:
                self._found.pop(next(iter(list(self._found))), None)
            # With the parts, so that what it is known by is nobody else's meanwhile.
            return self._found.setdefault(key, (make(), parts))[0]


def unwrap(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what is inside of all ``functools.partial``."""
    while isinstance(function, partial):
        function = function.func
    return function


def carried_by(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return what a partial of a wrapper is to call: ``endpoint`` in ``partial(run, function=endpoint)``; or None."""
    if isinstance(function, partial) and function.keywords:
        for name in CARRIERS:
            carried = function.keywords.get(name)
            if callable(carried):
                return unwrap(carried)
    return None


def parts_of(function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Parts:
    """Return what is the same for all callables that do the same: code, or what stands for it, and names.

    That of the function inside of partials and methods; of the functions that it says it wraps; of one that it is
    handed to be called; of the generator that it advances.
    """
    if isinstance(function, partial):
        args = function.args + args
    chain = _chain(function)
    return (_part_of(next(chain), args[0] if args else None), *[_part_of(each, None) for each in chain])


def _part_of(function: Callable[..., Any], first: Any) -> tuple[Any, str]:
    name = ""
    known: Any = getattr(function, "__code__", None)  # of a bound method, too
    if type(known) is not CodeType:  # a proxy may answer to any name
        known = function if isinstance(function, type) else None
    if isinstance(function, MethodType):
        name = function.__name__
        first = getattr(function.__self__, "gen", None)  # as contextlib's managers have it
    elif isinstance(function, BuiltinFunctionType):
        first = function.__self__
        if first is None or isinstance(first, ModuleType):
            known = function
        else:
            known = type(first), function.__name__
    if isinstance(first, GeneratorType):
        return first.gi_code, name or getattr(function, "__name__", "next")
    return type(function) if known is None else known, name


_sites: Known[Site] = Known()


def site_of(function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Site:
    """Return the site of a callable that is about to be called with these positional arguments. Thread: any."""
    target, wrapper = function, None
    if type(function) is partial:
        target = function.func
        if function.keywords and "function" in function.keywords:
            target, wrapper = function.keywords["function"], target
        args = function.args or args
    is_plain = type(target) is FunctionType and not (args and type(args[0]) is GeneratorType)
    if is_plain:  # the usual case: such a function keeps its site, which is quicker to find
        kept = target.__dict__.get(KEPT)
        if kept is not None and kept[0] is target.__code__ and kept[1] is wrapper:  # functools.wraps copies attributes
            return kept[2]  # type: ignore[no-any-return]
    parts = parts_of(function, args)
    site = _sites.of(parts, lambda: _make(function, parts))
    if is_plain:
        target.__dict__[KEPT] = target.__code__, wrapper, site  # and not the function: that would be a cycle
    return site


def _make(function: Callable[..., Any], parts: Parts) -> Site:
    callables = [each.__func__ if isinstance(each, MethodType) else each for each in _chain(function)]
    shown = carried_by(function) or callables[0]
    name = getattr(shown, "__name__", None)
    if not isinstance(name, str):
        name = type(shown).__name__
    for known, part in parts:
        if part and isinstance(known, CodeType) and known.co_flags & CO_GENERATOR:  # which is advanced
            name = known.co_name
    module = getattr(shown, "__module__", None)
    if not isinstance(module, str):
        module = type(shown).__module__
    builtin = [known[0] for known, _ in parts if isinstance(known, tuple)]
    waits = any(each in WAITING for each in callables) or any(each in LOCKS for each in builtin)
    if not waits:
        made_by = [
            vars(each).get(name) for each in callables if isinstance(each, type) for name in ("__init__", "__new__")
        ]
        codes = [code for each in (*callables, *made_by) for code in _codes(each)]
        codes += [known for known, _ in parts if isinstance(known, CodeType)]
        waits = any(
            WAITS & {*code.co_names} or WORDS & {*code.co_names, *code.co_freevars, *code.co_varnames} for code in codes
        )
    has_entrypoint = any(isinstance(each, (Entrypoint, Call)) for each in callables)
    return Site(name, module, waits, has_entrypoint)


def _chain(function: Any) -> Iterator[Any]:
    """Yield a function without its partials, what it says it wraps, and what it is handed to be called."""
    carried = carried_by(function)
    function = unwrap(function)
    for _ in range(WRAPPED):
        yield function
        function = getattr(function, "__wrapped__", None)
        if function is None:
            break
        function = unwrap(function)
    if carried is not None:
        yield from _chain(carried)


def _codes(function: Any) -> Iterator[CodeType]:
    """Yield the code of a function, of those in it, and of those of its module that it names."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        code = getattr(type(function).__call__, "__code__", None)
    if not isinstance(code, CodeType):
        return
    namespace = getattr(function, "__globals__", {})
    stack, seen = [code], {id(code)}
    while stack and len(seen) <= LOOKED_AT:
        code = stack.pop()
        yield code
        named = [namespace.get(name) for name in code.co_names]
        found = [each for each in code.co_consts if isinstance(each, CodeType)]
        found += [each.__code__ for each in named if isinstance(each, FunctionType) and each.__globals__ is namespace]
        for each in found:
            if id(each) not in seen:
                seen.add(id(each))
                stack.append(each)
