"""Random chains: their courses ask for what an interpreter asks for that is written as simply as can be."""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from threadlets.chains import NaP, Reference, Steps, arg, ref
from threadlets.courses import Course, Raised

MANY = 300  # arbitrary
CALLS = 60  # of one chain: an endless loop is not what is tested


class Failed(Exception):
    """What a call raises."""


class Left(BaseException):
    """What a call raises that is no failure."""


def function(label: str) -> Callable[..., Any]:
    """Make a function that is known by its label; it is never called."""

    def made(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a course calls nothing")

    made.__qualname__ = made.__name__ = label
    return made


KINDS = ("stop if", "skip if", "repeat while", "recover")


@st.composite
def chains(draw: st.DrawFn) -> Steps:
    """Make a chain: steps with references, names and flags, and steps for its end among them."""
    steps, names, numbers = Steps(), list[str](), count()
    for place in range(draw(st.integers(1, 5))):
        known = [arg("a"), *map(ref, names), *([ref()] if place else [])]
        values = st.one_of(st.sampled_from(known), st.integers(0, 3))
        args = tuple(draw(st.lists(values, max_size=2)))
        kwargs = draw(st.dictionaries(st.sampled_from("xy"), values, max_size=1))
        steps = steps.then(function(f"step{next(numbers)}"), args, kwargs)
        flags = draw(st.lists(st.sampled_from(KINDS), max_size=3))
        named = draw(st.integers(0, len(flags) + 2))
        for at, kind in enumerate([*flags, None, None]):
            if at == named:
                names.append(f"n{place}")
                steps = steps.named(f"n{place}")
            if kind is not None:
                limit = draw(st.none() | st.integers(1, 3)) if kind == "repeat while" else None
                steps = steps.flagged(kind, function(f"{kind}{next(numbers)}"), limit)
        if draw(st.booleans()):
            ends = st.one_of(st.sampled_from([arg("a"), *map(ref, names)]), st.integers(0, 3))
            steps = steps.finally_(function(f"end{next(numbers)}"), tuple(draw(st.lists(ends, max_size=2))), {})
    return steps


Asked = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Naive:
    """An interpreter of chains, for which ``ask`` performs each call: it returns, or raises."""

    def __init__(self, steps: Steps, a: Any, ask: Callable[..., Any]) -> None:
        self.steps = steps
        self.ask = ask
        self.named: dict[Any, Any] = {arg("a"): a}
        self.opened: dict[Any, Any] = {}  # what finally_ is to close although a flag of its step has failed

    def fill(self, value: Any) -> Any:
        return self.named[value] if isinstance(value, Reference) else value

    def call(self, number: int, name: str | None, function: Any, args: Any, kwargs: Any) -> Any:
        """Call something; a failure is its value."""
        args = [self.fill(value) for value in args]
        kwargs = {key: self.fill(value) for key, value in kwargs.items()}
        for value in [*args, *kwargs.values()]:
            if isinstance(value, NaP):
                return value
        try:
            return self.ask(function, tuple(args), kwargs)
        except Failed as error:
            return NaP(number, name, function, tuple(args), kwargs, error)

    def step(self, number: int, step: Any) -> str:
        """Run one step, and look at its flags, once; return what they want."""
        self.last = self.call(number, step.name, step.function, step.args, step.kwargs)
        self.runs += 1
        wish = ""
        result = self.named[ref()] = self.last
        if step.name is not None:
            self.named[ref(step.name)] = self.last
        for flag in step.flags:
            failed = isinstance(self.last, NaP)
            if flag.kind == "recover":
                if failed:
                    self.last = self.flag(number, step, flag)
                continue
            if failed or (flag.limit is not None and self.runs >= flag.limit):
                continue
            answer = self.flag(number, step, flag)
            if isinstance(answer, NaP):
                self.last = answer
            elif answer:
                wish = flag.kind.split()[0]
                if wish != "skip":
                    break
        self.named[ref()] = self.last
        if step.name is not None:
            self.named[ref(step.name)] = self.last
            if isinstance(self.last, NaP) and not isinstance(result, NaP):
                self.opened[ref(step.name)] = result
        return wish

    def flag(self, number: int, step: Any, flag: Any) -> Any:
        try:
            return self.ask(flag.function, (self.last,), {})
        except Failed as error:
            return NaP(number, step.name, flag.function, (self.last,), {}, error)

    def run(self) -> Any:
        """Run all; return the value, or the exception that is no failure."""
        left: Left | None = None
        try:
            self.body()
        except Left as error:
            left = error
        self.named |= self.opened
        for number, step in enumerate(reversed(self.steps.finals), len(self.steps.steps) + 1):
            if any(isinstance(each, Reference) and each not in self.named for each in step.args):
                continue
            try:
                value = self.call(number, None, step.function, step.args, {})
            except Left as error:
                left = left or error
                continue
            failed = isinstance(value, NaP) and value.step == number
            if failed and left is None and not (isinstance(self.last, NaP) and self.last.cause):
                self.last = value
        return self.last if left is None else left

    def body(self) -> None:
        wish = ""
        for number, step in enumerate(self.steps.steps, 1):
            if wish == "skip":
                wish = ""
                if step.name is not None:
                    self.named[ref(step.name)] = NaP(number, step.name, step.function)
                continue
            self.runs = 0
            wish = self.step(number, step)
            while wish == "repeat":
                wish = self.step(number, step)
            if wish == "stop":
                return


class Answers:
    """What calls come to: drawn once, then the same for whoever asks in the same order."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        self.draw = draw
        self.given: list[Any] = []

    def __call__(self, number: int) -> Any:
        while number >= len(self.given):
            if len(self.given) >= CALLS:
                return 0  # no predicate is true of that, for ever
            kind = self.draw(st.sampled_from(["value", "value", "value", "value", "failed", "failed", "left"]))
            value = self.draw(st.integers(0, 2))
            self.given.append({"value": value, "failed": Failed(value), "left": Left(value)}[kind])
        return self.given[number]


def naively(steps: Steps, answers: Answers) -> tuple[list[Asked], Any]:
    """Return what the interpreter asks for, and what the chain comes to."""
    log: list[Asked] = []

    def ask(*request: Any) -> Any:
        log.append(request)  # type: ignore[arg-type]
        answer = answers(len(log) - 1)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return log, Naive(steps, 5, ask).run()


def by_course(course: Generator[Any, Any, Any], answers: Answers) -> tuple[list[Asked], Any]:
    """Return what a course asks for, and what it returns."""
    log: list[Asked] = []
    outcome: Any = None
    try:
        while True:
            call, args, kwargs = course.send(outcome)
            log.append((call.function, args, kwargs))
            outcome = answers(len(log) - 1)
            if isinstance(outcome, BaseException):
                outcome = Raised(outcome)
    except StopIteration as end:
        return log, end.value


def plain(value: Any) -> Any:
    """Return what can be compared: two NaPs are not equal, since each is the failure of one call."""
    if isinstance(value, NaP):
        return "NaP", value.step, value.name, value.function, plain(value.args), value.cause
    if isinstance(value, Raised):
        return value.error
    if isinstance(value, (tuple, list)):
        return tuple(map(plain, value))
    return tuple(sorted((key, plain(each)) for key, each in value.items())) if isinstance(value, dict) else value


@settings(max_examples=MANY, deadline=None)
@given(st.data())
def test_a_course_asks_for_what_the_chain_says(data: st.DataObject) -> None:
    """The same requests in the same order, and the same end, whatever the calls come to; and so once more."""
    steps = data.draw(chains())
    answers = Answers(data.draw)
    course = Course(steps)
    asked, end = naively(steps, answers)
    values = {"a": 5} if steps.needs else {}
    for _ in range(2):  # a course keeps nothing of a run
        log, value = by_course(course.begin(values), answers)
        assert [plain(request) for request in log] == [plain(request) for request in asked]
        assert plain(value) == plain(end)


@settings(max_examples=MANY // 3, deadline=None)
@given(st.data())
def test_laws_of_every_course(data: st.DataObject) -> None:
    """The end comes last and once, nothing is handed a NaP but what recovers, and all that is asked for is known."""
    steps = data.draw(chains())
    course = Course(steps)
    run = course.begin({"a": 5} if steps.needs else {})
    answers = Answers(data.draw)
    recovers = {flag.function for step in steps.steps for flag in step.flags if flag.kind == "recover"}
    finals: list[int] = []
    outcome: Any = None
    for number in count():
        try:
            call, args, kwargs = run.send(outcome)
        except StopIteration:
            break
        assert course.functions[call.index] is call.function
        assert call.final or not finals, "the end comes last"
        if call.final:
            finals.append(call.step)
        assert call.function in recovers or not any(isinstance(each, NaP) for each in (*args, *kwargs.values()))
        outcome = answers(number)
        outcome = Raised(outcome) if isinstance(outcome, BaseException) else outcome
    assert finals == sorted(set(finals)), "each step of the end runs once, in its order"
    for number, step in enumerate(reversed(steps.finals), len(steps.steps) + 1):
        if not step.references():
            assert number in finals, "what needs nothing is done in any case"
