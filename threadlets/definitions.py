"""What an entrypoint is, before anyone calls it: a function, its contract, its defaults, and what was learned of it."""

from __future__ import annotations

import functools
import inspect
import math
import sys
import traceback
import warnings
from collections.abc import Callable, Hashable, Iterable
from types import BuiltinFunctionType, MethodDescriptorType, MethodType, ModuleType, NoneType
from typing import Any, Generic, TypeVar

from .contracts import Contract
from .errors import ContractViolation
from .groups import Finder, finder
from .placements import Fixed, Learner
from .snapshots import EntrypointStatistics
from .workers import WorkerGroup, named_group, shared_group

__all__ = ["Definition", "Prepared", "check_priority", "check_seconds", "check_tags", "resolve"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

NO_TAGS: frozenset[Hashable] = frozenset()


class Definition(Generic[T_co]):
    """A function and all that its calls share."""

    # Of the class, until they differ: up to 30 attributes of its own are quick to read.
    about: Finder | None = None  # finds the argument that says on which node a call belongs
    on_hosts = 0

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        contract: Contract | None = None,
        priority: float = 0,
        tags: Iterable[Hashable] = (),
    ) -> None:
        _check_function(function)
        self.function = function
        self.name: str = getattr(function, "__name__", None) or type(function).__name__
        self.contract = contract = _check_contract(contract)
        self.priority = check_priority(priority)
        self.tags = check_tags(tags)
        self.is_coroutine = _is_coroutine_function(function)
        if self.is_coroutine and (contract.blocks == "always" or contract.affinity.startswith("one")):
            raise ValueError(
                f"{self.name} is a coroutine function, which runs on the event loop: {contract} asks for a worker. "
                f"Put the blocking part into a plain function of its own and make that a threadlet"
            )
        if self.is_coroutine and contract.placement == "near":
            raise ValueError(
                f"{self.name} is a coroutine function, which runs on the event loop: {contract} chooses among workers. "
                f"'await migrate(node)' goes to another node's loop"
            )
        self.learner: Learner = _learner_for(contract)
        self.guarded = contract.blocks != "never"  # another thread may take the loop over if it blocks
        self.at_home = contract.affinity == "home"
        self.shares = contract.pure
        if contract.placement == "near":
            self.about = finder(function, contract.near)
        self.workers: WorkerGroup = _workers_for(contract, self.name)
        # Counters; only the loop that runs the call writes them (two loops may lose a count to each other).
        self.in_place = self.on_workers = self.missed = self.failed = self.cancelled = 0
        self.ns_in_place = self.ns_on_workers = 0

    @property
    def roams(self) -> bool:
        """Whether any worker may run it."""
        return not self.is_coroutine and self.contract.affinity == "any"

    def statistics(self) -> EntrypointStatistics:
        """Return a frozen snapshot of what this entrypoint has done so far. Thread: any."""
        return EntrypointStatistics(
            in_place=self.in_place,
            on_workers=self.on_workers,
            missed=self.missed,
            failed=self.failed,
            cancelled=self.cancelled,
            seconds_in_place=self.ns_in_place / 1e9,
            seconds_on_workers=self.ns_on_workers / 1e9,
            overdrafts=self.learner.overdrafts,
            placement="in place" if self.is_coroutine or self.learner.in_place else "worker",
            on_hosts=self.on_hosts,
        )

    def tell_violation(self, spent: int) -> None:
        """Warn that the function blocked for ``spent`` ns against its contract; the warning shows who called."""
        code = getattr(self.function, "__code__", None)
        place = f" ({code.co_filename}:{code.co_firstlineno})" if code is not None else ""
        stack = "".join(traceback.format_stack(sys._getframe(2)))
        warnings.warn(
            f"{self.name}(){place} promises Contract(blocks='never') and blocked its event loop for "
            f"{spent / 1e6:.1f} ms: say blocks='maybe', or leave the contract out. It was called here:\n{stack}",
            ContractViolation,
            stacklevel=2,
        )


def _is_coroutine_function(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _check_function(function: Callable[..., Any]) -> None:
    if not callable(function):
        raise TypeError(f"a threadlet is made from a function, not from {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function!r} is a generator function: a threadlet has one result; return a list, or use a Pool"
        )


def _check_contract(contract: Contract | None) -> Contract:
    if contract is None:
        return Contract()
    if not isinstance(contract, Contract):
        raise TypeError(f"contract={contract!r}: expected a threadlets.Contract")
    return contract


def _learner_for(contract: Contract) -> Learner:
    if contract.blocks == "never" or contract.affinity == "home":
        return Fixed(in_place=True)
    if contract.blocks == "always" or contract.affinity != "any":
        return Fixed(in_place=False)
    return Learner()


def _workers_for(contract: Contract, name: str) -> WorkerGroup:
    if contract.affinity == "one":
        return WorkerGroup(name, limit=1, idle_seconds=None)
    if contract.affinity.startswith("one:"):
        return named_group(contract.affinity.removeprefix("one:"))
    return shared_group()


def check_priority(priority: float) -> float:
    """Return a priority that can be compared with every other one.

    Raises:
        TypeError: If it is not a real number.
        ValueError: If it is NaN.
    """
    if type(priority) is int:
        return priority
    if isinstance(priority, complex) or not isinstance(priority, (int, float)):
        raise TypeError(f"priority={priority!r}: expected a real number; lower numbers run first")
    if math.isnan(priority):
        raise ValueError("priority=nan: it is neither less nor more urgent than others; lower numbers run first")
    return priority


def check_tags(tags: Iterable[Hashable]) -> frozenset[Hashable]:
    """Return tags as a set.

    Raises:
        TypeError: If they are one string, or not hashable.
    """
    if type(tags) is frozenset:
        return tags
    if isinstance(tags, (str, bytes)):
        raise TypeError(f"tags={tags!r} would be one tag per character: write tags={{{tags!r}}}")
    try:
        return frozenset(tags) or NO_TAGS
    except TypeError as error:
        raise TypeError(f"tags={tags!r}: expected an iterable of hashable tags ({error})") from error


def check_seconds(name: str, seconds: float) -> None:
    """Raise an error for what is no time to wait, in seconds; inf is one."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name}={seconds!r}: expected seconds")
    if not seconds >= 0:
        raise ValueError(f"{name}={seconds!r}: expected 0 or more seconds")


class Prepared(Generic[T_co]):
    """A definition with something of its next call settled: the object a method is bound to, options of one call."""

    __slots__ = ("args", "definition", "priority", "tags")

    def __init__(
        self, definition: Definition[T_co], args: tuple[Any, ...], priority: float, tags: frozenset[Hashable]
    ) -> None:
        self.definition = definition
        self.args = args
        self.priority = priority
        self.tags = tags


def resolve(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Prepared[Any], dict[str, Any] | None]:
    """Return what a call of any callable comes to: definition, positional arguments, defaults; keyword arguments.

    Understands entrypoints, methods of both kinds, ``using()`` and ``functools.partial`` of all these.

    Raises:
        TypeError: If it is no function, or a generator function.
    """
    kwargs: dict[str, Any] | None = None
    while isinstance(function, functools.partial):
        args = function.args + args
        kwargs = {**function.keywords, **(kwargs or {})}
        function = function.func
    if isinstance(function, Prepared):
        return Prepared(function.definition, function.args + args, function.priority, function.tags), kwargs
    if isinstance(function, MethodType):
        args = (function.__self__, *args)
        function = function.__func__
    elif isinstance(function, BuiltinFunctionType) and not isinstance(function.__self__, (ModuleType, type, NoneType)):
        args = (function.__self__, *args)  # file.read: the definition is that of the type's method
        function = getattr(type(function.__self__), function.__name__)
    definition = function if isinstance(function, Definition) else _definition_of(function)
    return Prepared(definition, args, definition.priority, definition.tags), kwargs


_ATTRIBUTE = "__threadlet__"


def _definition_of(function: Callable[..., Any]) -> Definition[Any]:
    """Return the one definition of an undecorated function, so that its calls can be learned from.

    It is kept with the function itself, so that both go together: a table of weak keys would hold functions for ever,
    since each definition refers to its function.
    """
    attributes = getattr(function, "__dict__", None)
    if not isinstance(attributes, dict):
        return _definition_of_object(function)
    definition: Definition[Any] | None = attributes.get(_ATTRIBUTE)
    if definition is None or definition.function is not function:  # functools.wraps copies attributes along
        definition = attributes[_ATTRIBUTE] = Definition(function)
    return definition


@functools.lru_cache(maxsize=256)
def _definition_of_builtin(function: Callable[..., Any]) -> Definition[Any]:
    return Definition(function)


def _definition_of_object(function: Callable[..., Any]) -> Definition[Any]:
    if isinstance(function, (BuiltinFunctionType, MethodDescriptorType, type)):
        return _definition_of_builtin(function)
    return Definition(function)
