"""Steps as data: what is to be called, with what, and what is looked at in between. Nothing here calls it.

Why: code that opens, asks, reads and closes a file makes four calls that may block. Sent to a thread one by one they
cost four hops, and as one function they cost one, even if nothing blocks. If the steps are data, whoever runs them can
do in place what does not block, and send the rest away in one piece. Linux was offered this in 2007 as syslets: "atoms"
in a row, which the kernel ran until one of them blocked, with flags to stop, to skip and to loop.

A failure is a value: a ``NaP`` ("not a pointer"), as NaN is a number. A step that is handed one does not run, and
passes it on. So nothing has to be checked between the steps, and what failed first is what comes out at the end.

How: ``Steps`` is an immutable list, and each of its methods returns another one; what makes no sense is told there,
before anything runs. What is called next, given what has come of the calls before, is decided in ``courses``.

Rejected: to end a chain at its first failure. Then nothing could go on beside it, nor recover. Names as attributes
(``chain.fd``): a typing error would be found when the step runs. To look for references in lists and dicts: a step
would get a copy of what it was given.

Invariants: a reference means something that comes before it; a name is used once.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Mapping, ValuesView
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar, overload

from .errors import ThreadletError

__all__ = ["AEIOU", "Flag", "NaP", "Reference", "Step", "Steps", "arg", "ref", "shown"]

T = TypeVar("T")
Function = Callable[..., Any]

CONTAINERS = (list, tuple, set, ValuesView)

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60  # arbitrary: so that the message of an error is a line or two


@dataclass(frozen=True, slots=True)
class Reference:
    """A place in a step's arguments that is filled in when the step runs."""

    kind: str  # "arg" or "ref"
    name: str  # "" of a ref: what the last step has returned

    def __repr__(self) -> str:
        return f"{self.kind}({self.name!r})" if self.name else "ref()"


@overload
def arg(name: str, /) -> Any: ...
@overload
def arg(name: str, type: type[T], /) -> T: ...


def arg(name: str, type: Any = None, /) -> Any:
    """Stand for an argument that is given when the chain is called.

    >>> Steps().then(len, (arg("text"),), {}).arguments({"text": "abc"})
    ['abc']

    Args:
        name: Its name in the call: ``chain(path="a.txt")``.
        type: What type checkers are to take it for.

    Raises:
        TypeError: If the name is no string.
        ValueError: If it cannot be the name of a keyword argument.

    Thread: any. Cancel: none.
    """
    return Reference("arg", _check_name("arg", name))


@overload
def ref() -> Any: ...
@overload
def ref(name: str, /) -> Any: ...
@overload
def ref(name: str, type: type[T], /) -> T: ...


def ref(name: str | None = None, type: Any = None, /) -> Any:
    """Stand for what an earlier step has returned: the one with that name, or, without a name, the last one that ran.

    Args:
        name: What ``named`` has called the step.
        type: What type checkers are to take it for.

    Raises:
        TypeError: If the name is no string.
        ValueError: If it cannot be a name.

    Thread: any. Cancel: none.
    """
    return Reference("ref", "" if name is None else _check_name("ref", name))


def _check_name(what: str, name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{what}({name!r}): expected a name")
    if not name.isidentifier():
        raise ValueError(f"{what}({name!r}): expected a name as those of keyword arguments")
    return name


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class NaP:
    """Not a pointer: the value of a step that has failed, or was skipped. It is falsy.

    The traceback of its cause says where, but what the local variables were is gone: a failure that is kept as a value
    keeps nothing alive but itself.

    Attributes:
        step: The number of the step, from 1.
        name: Its name, or None.
        function: What was called: that of the step, or of a flag behind it.
        args: The positional arguments.
        kwargs: The keyword arguments.
        cause: The exception that was raised; None if the step was skipped.
    """

    step: int
    name: str | None
    function: Function
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    cause: Exception | None = None

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<NaP: {self.sentence()}>"

    def sentence(self) -> str:
        """Say what has happened, in about a line."""
        name = "" if self.name is None else f" {self.name!r}"
        if self.cause is None:
            return f"step {self.step}{name}, {_name(self.function)}(), was skipped"
        words = [_short.repr(value) for value in self.args]
        words += [f"{key}={_short.repr(value)}" for key, value in self.kwargs.items()]
        call = f"{_name(self.function)}({', '.join(words)})"
        return f"step {self.step}{name}, {call}, raised {shown(self.cause)}"


class AEIOU(ThreadletError):
    """Raised by awaiting a chain that ended in a ``NaP``; its cause is what the step has raised.

    The message names the step, its function and arguments. To have the failure as a value, call ``chain.inline(...)``;
    to go on from it, add ``.recover(function)`` behind the step.

    Attributes:
        nap: The failure.
    """

    def __init__(self, nap: NaP) -> None:
        super().__init__(nap)
        self.nap = nap
        self.__cause__ = nap.cause

    def __str__(self) -> str:
        if self.nap.cause is None:
            return f"{self.nap.sentence()}, and the chain has needed its value"
        return self.nap.sentence()


@dataclass(frozen=True, slots=True)
class Flag:
    """What is looked at when a step has returned: "stop if", "skip if", "repeat while", "recover"."""

    kind: str
    function: Function
    limit: int | None = None  # of "repeat while": how often the step runs at most

    def __str__(self) -> str:
        limit = "" if self.limit is None else f", at most {self.limit} times"
        return f"{self.kind} {_name(self.function)}{limit}"


@dataclass(frozen=True, slots=True)
class Step:
    """One step, as it was written."""

    function: Function
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    name: str | None = None
    flags: tuple[Flag, ...] = ()

    def references(self) -> list[Reference]:
        """Return all references among its arguments."""
        return [value for value in (*self.args, *self.kwargs.values()) if type(value) is Reference]

    def __str__(self) -> str:
        words = [_short.repr(value) for value in self.args]
        words += [f"{key}={_short.repr(value)}" for key, value in self.kwargs.items()]
        return f"{_name(self.function)}({', '.join(words)})"


@dataclass(frozen=True)
class Steps:
    """The steps of a chain, and those that run at its end. Every method returns others, which share what is equal.

    >>> steps = Steps().then(int, (arg("text"),), {}).named("number").then(divmod, (ref("number"), 7), {})
    >>> print(steps.explain())
    chain(text)
      1  number  int(arg('text'))
      2          divmod(ref('number'), 7)
    """

    steps: tuple[Step, ...] = ()
    finals: tuple[Step, ...] = ()
    open: bool = False  # the last thing said was about the last step: more may be said of it

    # --------------------------------------------------------------------------------------------------- put together

    def then(
        self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], plain: Function | None = None
    ) -> Steps:
        """Add a step; if nothing is given, and it is not the first one, it gets ``ref()``, unless it takes no argument.

        Args:
            function: What was written.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            plain: What is called then, if that is something else.

        Raises:
            TypeError: If it is no function, or cannot be called with such arguments.
            ValueError: If a reference has no meaning.
        """
        if self.steps and not args and not kwargs and _takes_one(plain or function):
            args = (ref(),)
        step = self._checked(Step(function, args, kwargs), plain, f"step {len(self.steps) + 1}")
        if not self.steps and ref() in step.references():
            raise ValueError(f"{step}: there is no step before the first one for ref() to mean")
        return Steps((*self.steps, step), self.finals, True)

    def finally_(
        self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], plain: Function | None = None
    ) -> Steps:
        """Add a step to the end of all; see ``then``."""
        step = self._checked(Step(function, args, kwargs), plain, "a finally_ step")
        if ref() in step.references():
            raise ValueError(f"{step} in finally_: name the step that ref() is to mean; any one may have been the last")
        return Steps(self.steps, (*self.finals, step))

    def named(self, name: str) -> Steps:
        """Name the last step.

        Raises:
            TypeError: If the name is no string.
            ValueError: If it is taken, or cannot be a name; or if there is no step, or it has a name.
        """
        last = self._last(f"named({name!r})")
        _check_name("named", name)
        for number, step in enumerate(self.steps, 1):
            if step.name == name:
                raise ValueError(f"named({name!r}): step {number}, {step}, has that name already")
        if last.name is not None:
            raise ValueError(f"named({name!r}): step {len(self.steps)}, {last}, is called {last.name!r} already")
        return self._with_last(replace(last, name=name))

    def flagged(self, kind: str, function: Function, limit: int | None = None, plain: Function | None = None) -> Steps:
        """Add a flag to the last step: "stop if", "skip if", "repeat while", "recover".

        Raises:
            TypeError: If it is no function of one argument, or the limit is no whole number.
            ValueError: If there is no step, or the limit is less than 1.
        """
        last = self._last(kind.replace(" ", "_"))
        _check_function(function, kind)
        _check_call(plain or function, (None,), {}, kind)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise TypeError(f"limit={limit!r}: expected a whole number, or None")
        if limit is not None and limit < 1:
            raise ValueError(f"limit={limit}: a step runs at least once")
        return self._with_last(replace(last, flags=(*last.flags, Flag(kind, function, limit))))

    def _checked(self, step: Step, plain: Function | None, what: str) -> Step:
        _check_function(step.function, what)
        _check_call(plain or step.function, step.args, step.kwargs, what)
        names = {each.name for each in self.steps if each.name is not None}
        for reference in step.references():
            if reference.kind == "ref" and reference.name and reference.name not in names:
                known = f"those before it are called {', '.join(map(repr, sorted(names)))}" if names else "none has one"
                raise ValueError(f"{what}, {step}: no step before it is called {reference.name!r}; {known}")
        for value in (*step.args, *step.kwargs.values()):
            inside = value.values() if isinstance(value, dict) else value
            if isinstance(inside, CONTAINERS) and any(type(each) is Reference for each in inside):
                raise TypeError(f"{what}, {step}: a reference is an argument itself, and is not found in a container")
        return step

    def _last(self, what: str) -> Step:
        if not self.open:
            raise ValueError(f"{what} says something of the step before it: put it right behind then(...)")
        return self.steps[-1]

    def _with_last(self, step: Step) -> Steps:
        return Steps((*self.steps[:-1], step), self.finals, True)

    # ------------------------------------------------------------------------------------------------------------ look

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """The names of the arguments that a call has to give, in the order in which the steps mention them."""
        references = [each for step in (*self.steps, *self.finals) for each in step.references()]
        return tuple(dict.fromkeys(each.name for each in references if each.kind == "arg"))

    def explain(self, name: str = "chain") -> str:
        """Return the steps as text, a line for each."""
        width = max([len(step.name or "") for step in self.steps] or [0])
        gap = width + 2 if width else 0
        lines = [f"{name}({', '.join(self.needs)})"]
        for number, step in enumerate(self.steps, 1):
            lines.append(f"{number:3}  " + f"{step.name or '':{width}}  "[:gap] + str(step))
            lines += [" " * (7 + gap) + str(flag) for flag in step.flags]
        lines += [f"finally  {step}" for step in reversed(self.finals)]
        return "\n".join(lines)

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """Return the arguments of a call in the order of ``needs``.

        Raises:
            TypeError: If there is one too few or too many.
        """
        needs = self.needs
        if len(values) == len(needs):
            try:
                return [values[name] for name in needs]
            except KeyError:
                pass
        problems = [f"it needs {name!r}" for name in needs if name not in values]
        problems += [f"it takes no {name!r}" for name in values if name not in needs]
        raise TypeError(f"this chain takes {', '.join(map(repr, needs)) or 'no arguments'}: {', '.join(problems)}")


def _check_function(function: Any, what: str) -> None:
    if not callable(function):
        raise TypeError(f"{what}: {function!r} is no function")
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        raise TypeError(
            f"{what}: {_name(function)}() is a coroutine function, and a step is a plain one: it has to be able to run "
            f"on a worker thread. There it may say call_async({_name(function)}, ...)"
        )


def _takes_one(function: Function) -> bool:
    try:
        return bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some that are written in C have no signature
        return True


def _check_call(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], what: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        takes = ", ".join(map(str, (each.replace(annotation=each.empty) for each in signature.parameters.values())))
        raise TypeError(f"{what}: {_name(function)}({takes}) cannot be called like this: {error}") from None


def _name(function: Any) -> str:
    while hasattr(function, "func"):  # a partial
        function = function.func
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def shown(error: BaseException) -> str:
    """Return an exception as the last line of a traceback has it."""
    try:
        text = str(error)
    except Exception:
        text = "?"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
