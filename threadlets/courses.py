"""The course of a chain: what it calls next, given what has come of the calls before. It calls nothing itself.

Why: the first steps of a chain run on the thread of the event loop, the others perhaps on a worker, and a test gives
outcomes that no system call has. So what comes next is decided here, and whoever runs it only performs it.

How: ``Course.begin`` returns a generator. It yields requests - call this function with these arguments - and is sent
what has come of each: the value, or ``Raised``. It may go on on another thread than it has begun on, one at a time. The
same outcomes always give the same requests.

Slots: all that a step may be given is in one list: what the last step has returned, the arguments, the results, the
constants. Each argument is a place in that list, and which one is found when a chain is called for the first time.

Invariants: a step is called after all that it refers to; each step of ``finally_`` is called once at most, after all
others, the last one first, and only if what it refers to has values; nothing is handed a ``NaP`` but what recovers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from operator import itemgetter
from traceback import clear_frames
from typing import Any

from .chains import Flag, NaP, Reference, Step, Steps, arg, ref, shown

__all__ = ["Call", "Course", "Raised", "Request", "arguments"]

NOTHING: dict[str, Any] = {}  # no keyword arguments; nobody changes it


class Raised:
    """What a course is sent when a call has raised; and what it returns, if that has ended it.

    Attributes:
        error: An ``Exception`` becomes a ``NaP``; anything else ends the chain, after its ``finally_`` steps.
        late: The failure of one of these, after that.
    """

    __slots__ = ("error", "late")

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.late: NaP | None = None

    def __repr__(self) -> str:
        return f"<Raised: {self.error!r}>"


class Call:
    """What a request is about: the function of a step, or of a flag, and the places where its arguments come from.

    Attributes:
        function: What is to be called.
        index: Its number among the ``functions`` of the course.
        step: The number of the step, from 1.
        final: Whether it belongs to ``finally_``.
        flags: What is looked at when it has returned.
        slot: Where the result goes.
    """

    __slots__ = ("_keys", "_pick", "final", "flags", "function", "index", "name", "slot", "step")

    def __init__(self, function: Callable[..., Any], index: int, step: int, name: str | None, final: bool) -> None:
        self.function = function
        self.index = index
        self.step = step
        self.name = name
        self.final = final
        self.flags: list[tuple[Flag, Call]] = []
        self.slot = 0

    def takes(self, step: Step, slots: dict[Reference, int], template: list[Any]) -> None:
        """Note where the arguments come from; a constant gets a slot of its own, at the end of the template."""
        places = []
        for value in (*step.args, *step.kwargs.values()):
            if type(value) is Reference:
                places.append(slots[value])
            else:
                places.append(len(template))
                template.append(value)
        self._keys = tuple(step.kwargs)
        self._pick: Callable[[list[Any]], tuple[Any, ...]] = _picker(places)

    def request(self, values: list[Any]) -> Request | NaP:
        """Return the request, or the first NaP that is among the arguments."""
        args = self._pick(values)
        for value in args:
            if type(value) is NaP:
                return value
        keys = self._keys
        if not keys:
            return self, args, NOTHING
        return self, args[: -len(keys)], dict(zip(keys, args[-len(keys) :], strict=True))

    def failed(self, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> NaP:
        """Return what a call that has raised comes to."""
        clear_frames(error.__traceback__)
        return NaP(self.step, self.name, self.function, args, dict(kwargs), error)


def _picker(places: list[int]) -> Callable[[list[Any]], tuple[Any, ...]]:
    """Return what takes values from some places, in C if that can be."""
    if len(places) > 1:
        return itemgetter(*places)
    if not places:
        return lambda values: ()
    place = places[0]
    return lambda values: (values[place],)


# What a course yields: what is to be called, its positional and its keyword arguments.
Request = tuple[Call, tuple[Any, ...], dict[str, Any]]


class Course:
    """Steps, put together so that they can be run again and again.

    >>> steps = Steps().then(int, (arg("text"),), {}).named("number").then(divmod, (ref("number"), 7), {})
    >>> run = Course(steps).begin({"text": "30"})
    >>> call, args, kwargs = next(run)
    >>> call.function, args
    (<class 'int'>, ('30',))
    >>> run.send(30)[1]
    (30, 7)
    >>> run.send((4, 2))
    Traceback (most recent call last):
    StopIteration: (4, 2)

    Attributes:
        functions: All that may be called: each step's function, and behind it those of its flags; then ``finally_``.
        predicates: The numbers of those that only look at a value.
    """

    __slots__ = ("_calls", "_finals", "_steps", "_template", "functions", "predicates")

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.functions: list[Callable[..., Any]] = []
        self.predicates: set[int] = set()
        self._calls: list[Call] = []
        self._finals: list[Call] = []
        needs = len(steps.needs)
        self._template = [None] * (1 + needs) + [UNREACHED] * len(steps.steps)
        slots = {ref(): 0} | {arg(name): place for place, name in enumerate(steps.needs, 1)}
        for number, step in enumerate(steps.steps, 1):
            call = self._call(step.function, number, step.name)
            call.takes(step, slots, self._template)
            call.flags = [(flag, self._call(flag.function, number, step.name)) for flag in step.flags]
            self.predicates.update(asks.index for flag, asks in call.flags if flag.kind != "recover")
            call.slot = needs + number
            if step.name is not None:
                slots[ref(step.name)] = call.slot
            self._calls.append(call)
        for number, step in enumerate(reversed(steps.finals), len(steps.steps) + 1):
            call = self._call(step.function, number, None, True)
            call.takes(step, slots, self._template)
            self._finals.append(call)

    def _call(self, function: Callable[..., Any], number: int, name: str | None, final: bool = False) -> Call:
        self.functions.append(function)
        return Call(function, len(self.functions) - 1, number, name, final)

    def begin(self, values: Mapping[str, Any]) -> Generator[Request, Any, Any]:
        """Return the run of one call: it yields requests, is sent what they come to, and returns the chain's value.

        Sent and returned are values, which may be a NaP; or ``Raised``.

        Raises:
            TypeError: If there is an argument too few or too many.
        """
        slots = self._template.copy()
        arguments = self._steps.arguments(values)
        slots[1 : 1 + len(arguments)] = arguments
        return self._run(slots)

    def _run(self, values: list[Any]) -> Generator[Request, Any, Any]:
        value: Any = None
        move = ""  # what a flag wants: "stop", "skip", "repeat"
        opened: dict[int, Any] = {}  # what steps have returned whose flags have failed: finally_ may have to close it
        for call in self._calls:
            if move == "skip":
                values[call.slot] = NaP(call.step, call.name, call.function)
                move = ""
                continue
            runs = 0
            while True:
                request = call.request(values)
                if isinstance(request, NaP):
                    value = request
                else:
                    value = yield request
                    if type(value) is Raised:
                        if not isinstance(value.error, Exception):
                            break
                        value = call.failed(request[1], request[2], value.error)
                values[0] = values[call.slot] = result = value
                if not call.flags:
                    break
                runs += 1
                value, move = yield from _flags(call, value, runs)
                if type(value) is Raised:
                    break
                values[0] = values[call.slot] = value
                if type(value) is NaP and type(result) is not NaP:
                    opened[call.slot] = result
                if move != "repeat":
                    break
                move = ""
            if move == "stop" or type(value) is Raised:
                break
        if not self._finals:
            return value
        for slot, result in opened.items():
            values[slot] = result
        return (yield from self._end(values, value))

    def _end(self, values: list[Any], value: Any) -> Generator[Request, Any, Any]:
        """Call the steps of finally_; return what the chain comes to after that."""
        for call in self._finals:
            request = call.request(values)
            if isinstance(request, NaP):
                continue
            answer = yield request
            if type(answer) is Raised:
                late = None
                if isinstance(answer.error, Exception):
                    late = call.failed(request[1], request[2], answer.error)
                value = _worse(value, answer, late)
        return value


def _flags(call: Call, value: Any, runs: int) -> Generator[Request, Any, tuple[Any, str]]:
    """Look at the flags of a step that has run; return its value, and what they want."""
    move = ""
    for flag, asks in call.flags:
        if (type(value) is NaP) != (flag.kind == "recover") or (flag.limit is not None and runs >= flag.limit):
            continue
        answer = yield asks, (value,), {}
        if type(answer) is Raised and not isinstance(answer.error, Exception):
            return answer, ""
        try:
            if type(answer) is Raised:
                raise answer.error
            if flag.kind == "recover":
                value = answer
            elif answer:  # which may raise, as an array does
                move = flag.kind.partition(" ")[0]
                if move != "skip":
                    break
        except Exception as error:
            value = asks.failed((value,), {}, error)
    return value, move


def _worse(value: Any, answer: Raised, late: NaP | None) -> Any:
    """Return what a chain comes to after a finally_ step has raised; ``late`` is the failure, if it is one."""
    if type(value) is Raised:
        if value.late is None:
            value.late = late
        first = value.error
    elif type(value) is NaP and value.cause is not None and late is not None:
        first = value.cause
    else:
        return answer if late is None else late
    with suppress(Exception):  # its class may forbid that anything is set
        first.add_note(f"and then a finally_ step failed: {shown(answer.error) if late is None else late.sentence()}")
    return value


def arguments(given: Any, values: dict[str, Any]) -> Mapping[str, Any]:
    """Return the arguments of a call.

    Raises:
        TypeError: If something is given without a name, and is no mapping.
    """
    if given is None:
        return values
    if not isinstance(given, Mapping):
        raise TypeError(f"a chain takes its arguments by their names, or as one mapping, and not {given!r}")
    return {**given, **values} if values else given


def _no_step() -> None:
    """Stand for what a step that was not reached would have called."""


UNREACHED = NaP(0, None, _no_step)
