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
from types import BuiltinFunctionType, CodeType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

from threadlets import Contract, Entrypoint

__all__ = ["Site", "carried_by", "site_of", "unwrap"]

CARRIERS = ("function", "func", "call")  # keywords by which wrappers are told what to call: FastAPI's, asgiref's
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
    """

    __slots__ = ("_entrypoints", "_known", "module", "name", "waits")

    def __init__(self, known: Any, name: str, module: str, waits: bool) -> None:
        self._known = known  # kept, so that what it is known by is nobody else's meanwhile
        self.name = name
        self.module = module
        self.waits = waits
        self._entrypoints: dict[Any, Entrypoint[..., Any]] = {}

    def entrypoint(self, way: Hashable, run: Callable[..., Any], contract: Contract) -> Entrypoint[..., Any]:
        """Return the entrypoint for one way to do it: it calls ``run`` by this contract, and learns for this site."""
        try:
            return self._entrypoints[way]
        except KeyError:

            def call(*args: Any, **kwargs: Any) -> Any:
                return run(*args, **kwargs)

            call.__name__ = call.__qualname__ = self.name
            call.__module__ = self.module
            entrypoint = self._entrypoints[way] = Entrypoint(call, contract=contract)
            return entrypoint


_sites: dict[Any, Site] = {}


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


def site_of(function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Site:
    """Return the site of a callable that is about to be called with these positional arguments. Thread: any."""
    carried = None
    if isinstance(function, partial):
        carried = carried_by(function)
        args = function.args + args
        function = unwrap(function)
    known, name = _known(function, args[0] if args else None)
    key: Any = (id(known) if isinstance(known, CodeType) else known, name)
    if carried is not None:
        known = known, (inner := _known(carried, None))[0]
        key = key, (id(known[1]) if isinstance(known[1], CodeType) else known[1], inner[1])
    try:
        return _sites[key]
    except KeyError:
        if len(_sites) >= KNOWN:
            _sites.pop(next(iter(_sites)), None)
        return _sites.setdefault(key, _make(carried or function, known))


def _known(function: Callable[..., Any], first: Any) -> tuple[Any, str]:
    """Return what a callable is known by, and the name of its part in that."""
    name = ""
    known: Any = getattr(function, "__code__", None)  # of a bound method, too
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


def _make(function: Callable[..., Any], known: Any) -> Site:
    plain = function.__func__ if isinstance(function, MethodType) else function
    if isinstance(known, CodeType):
        name = known.co_name
    else:
        name = getattr(plain, "__name__", None) or type(plain).__name__
    module = getattr(plain, "__module__", None) or type(plain).__module__
    codes = _codes(getattr(plain, "function", plain), known)  # an entrypoint's is there
    waits = (
        plain in WAITING
        or (isinstance(known, tuple) and known[0] in LOCKS)
        or any(
            WAITS & {*code.co_names} or WORDS & {*code.co_names, *code.co_freevars, *code.co_varnames} for code in codes
        )
    )
    return Site(known, name, module, waits)


def _codes(function: Any, known: Any) -> Iterator[CodeType]:
    """Yield the code of a function, of those in it, and of those of its module that it names."""
    namespace = getattr(function, "__globals__", {})
    code = known if isinstance(known, CodeType) else getattr(function, "__code__", None)
    if code is None:
        code = getattr(type(function).__call__, "__code__", None)
    if code is None:
        return
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
