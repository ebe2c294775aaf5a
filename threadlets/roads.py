"""How a function of a chain may be called: tried, called where it was learned to belong, or called as it is.

A step may be any callable. What is looked at is what a call of it comes to. An entrypoint is not started but called,
and where that is best is what the entrypoint has learned; the same for methods and partials of one. A system call that
``probes`` can try is tried; one that never blocks, as ``os.close``, is called at once; and so is a predicate, since it
only looks at a value that is there.

Invariants: whatever is called through a road is a plain function, and any thread may call it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from .courses import Raised
from .definitions import Definition, Prepared, resolve
from .probes import ATTEMPTS

__all__ = ["Road", "called", "road_of", "without_us"]


class Road(NamedTuple):
    """What is known of one function of a chain."""

    attempt: Callable[..., Any] | None  # does the same, or tells that it would block
    direct: bool  # it never blocks, and is called wherever the step before was
    definition: Definition[Any]
    function: Callable[..., Any]


def road_of(function: Callable[..., Any], predicate: bool = False) -> Road:
    """Find out how a function may be called, and where.

    Args:
        function: What was written.
        predicate: It looks at a value, and is taken not to block; an entrypoint may say otherwise.

    Raises:
        TypeError: If it is no function, or one of coroutines or generators, or a chain.
        ValueError: If its contract binds it to a thread.
    """
    prepared, kwargs = resolve(function, ())
    definition = prepared.definition
    if definition.is_coroutine:
        raise TypeError(
            f"{definition.name}() is a coroutine function, or a chain, and a step is a plain function: it has to be "
            f"able to run on a worker thread. There it may say call_async({definition.name}, ...)"
        )
    if definition.contract.affinity != "any":
        raise ValueError(
            f"{definition.name}() is bound to a thread by its {definition.contract}, and a chain runs in one piece, "
            f"wherever that is"
        )
    inner = function
    while isinstance(inner, partial):
        inner = inner.func
    entrypoint = isinstance(inner, (Definition, Prepared))
    if entrypoint:  # to call it would start a threadlet
        function = partial(definition.function, *prepared.args, **(kwargs or {}))
    try:
        attempt = ATTEMPTS.get(function)
    except TypeError:  # not hashable
        attempt = None
    return Road(attempt, attempt is function or (predicate and not entrypoint), definition, function)


def called(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function; return what it returns, or ``Raised``."""
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        return Raised(without_us(error))


def without_us(error: BaseException) -> BaseException:
    """Take the frame that has caught an exception out of its traceback."""
    if error.__traceback__ is not None:
        BaseException.with_traceback(error, error.__traceback__.tb_next)
    return error
