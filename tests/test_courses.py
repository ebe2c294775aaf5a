"""What the courses of chains ask for, given what has come of what they asked before: no loop, no thread, no clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from threadlets.chains import AEIOU, NaP, Steps, arg, ref
from threadlets.courses import Raised

from .steps import boom, boom_of, fail, finally_, perform, same, then

# ----------------------------------------------------------------------------------------------------------- courses


def test_a_step_gets_constants_arguments_and_results() -> None:
    """Each kind of argument is filled in, by place and by name."""
    steps = then(then(Steps(), same, 1).named("one"), same, 2)
    steps = then(steps, same, 0, arg("a"), ref("one"), ref(), k=ref("one"), c=3)
    assert perform(steps, {"a": "A"}) == ((0, "A", 1, 2), {"k": 1, "c": 3})


def test_a_step_given_nothing_is_given_what_came_before() -> None:
    """But the first one is called with nothing, and so is a function that takes nothing."""
    assert perform(then(then(Steps(), list), len)) == 0
    assert perform(then(then(Steps(), same, 1), lambda: 2)) == 2
    assert perform(then(then(Steps(), dict), dict)) == {}  # written in C, without a signature: it is given one


# What the flags of syslets did, on a chain of four steps of which the second returns a number. There a flag was a bit
# of an atom; here it is a predicate of the value.
SYSLETS = {
    "stop on non-zero": ("stop if", lambda value: value != 0),
    "stop on zero": ("stop if", lambda value: value == 0),
    "stop on negative": ("stop if", lambda value: value < 0),
    "stop on non-positive": ("stop if", lambda value: value <= 0),
    "skip to next on non-zero": ("skip if", lambda value: value != 0),
    "skip to next on zero": ("skip if", lambda value: value == 0),
    "skip to next on negative": ("skip if", lambda value: value < 0),
    "skip to next on non-positive": ("skip if", lambda value: value <= 0),
}


@pytest.mark.parametrize("value", [-1, 0, 1])
@pytest.mark.parametrize("flag", SYSLETS)
def test_the_flags_of_syslets(flag: str, value: int) -> None:
    """A flag that applies ends the chain with that value, or jumps over one step; else it does nothing."""
    kind, predicate = SYSLETS[flag]
    applies = {-1: "non-zero negative non-positive", 0: "zero non-positive", 1: "non-zero"}[value].split()
    steps = then(then(Steps(), same, "first"), same, value).flagged(kind, predicate)
    steps = then(then(steps, same, "third"), same, ref(), "fourth")
    log: list[Any] = []
    result = perform(steps, log=log)
    ran = [step for step, *_ in log]
    if flag.rpartition(" ")[2] not in applies:
        assert (result, ran) == ((("third", "fourth"), {}), [1, 2, 2, 3, 4])
    elif kind == "stop if":
        assert (result, ran) == (value, [1, 2, 2])
    else:
        assert (result, ran) == (((value, "fourth"), {}), [1, 2, 2, 4])


def test_linked_loops() -> None:
    """A step runs again while its predicate is true, and may begin with what it has returned last."""
    halves = then(then(Steps(), same, arg("n")), lambda n: n // 2, ref()).flagged("repeat while", lambda n: n % 2 == 0)
    assert perform(halves, {"n": 48}) == 3
    log: list[Any] = []
    endless = then(Steps(), same, 1).flagged("repeat while", lambda n: True, 5)
    assert perform(endless, log=log) == 1
    assert log.count((1, 1)) == 5 + 4  # the step, and its predicate, which is not asked after the last time


def test_a_failure_passes_through_what_depends_on_it() -> None:
    """Steps that are handed a NaP do not run, as NaN in arithmetic; others do; the first failure comes out."""
    steps = then(then(Steps(), fail, "why").named("a"), same, ref("a")).named("b")
    steps = then(then(steps, same, "beside"), same, key=ref("b"))
    log: list[Any] = []
    nap = perform(steps, log=log)
    assert log == [(1, "why"), (3, "beside")]
    assert isinstance(nap, NaP) and not nap
    assert (nap.step, nap.name, nap.function, nap.args, dict(nap.kwargs)) == (1, "a", fail, ("why",), {})
    assert isinstance(nap.cause, LookupError)
    assert repr(nap) == "<NaP: step 1 'a', fail('why'), raised LookupError: why>"


def test_a_nap_that_is_given_is_passed_on() -> None:
    """A NaP among the arguments of a call, or written into a step, is as good as one that came up on the way."""
    nap = perform(then(Steps(), fail))
    assert perform(then(Steps(), same, arg("a")), {"a": nap}) is nap
    assert perform(then(Steps(), same, 1, nap)) is nap
    assert perform(then(then(Steps(), lambda: nap), same)) is nap


def test_recovering() -> None:
    """A NaP becomes a value again, also one that came from further up; a value is left alone; both may be repeated."""
    steps = then(then(Steps(), fail, "x").named("a"), same, ref("a")).flagged("recover", lambda nap: nap.args[0])
    assert perform(then(steps, same, ref(), 1)) == (("x", 1), {})
    assert perform(then(Steps(), same, 1).flagged("recover", fail)) == 1
    nap = perform(then(Steps(), fail, 1).flagged("recover", fail))
    assert isinstance(nap.cause, LookupError) and isinstance(nap.args[0], NaP)
    answers = iter([LookupError(), LookupError(), 7])

    def try_it() -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    again = then(Steps(), try_it).flagged("recover", lambda nap: None)
    assert perform(again.flagged("repeat while", lambda value: value is None, 9)) == 7


class Array:
    """Something that is neither true nor false."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


@pytest.mark.parametrize("kind", ["stop if", "skip if", "repeat while"])
def test_a_predicate_that_raises(kind: str) -> None:
    """It is the failure of its step, also if only its answer raises; a NaP is not shown to it."""
    nap = perform(then(Steps(), same, 3).named("a").flagged(kind, fail))
    assert (nap.step, nap.name, nap.function, nap.args) == (1, "a", fail, (3,))
    nap = perform(then(Steps(), same, 3).flagged(kind, lambda value: Array()))
    assert isinstance(nap.cause, ValueError)
    assert perform(then(Steps(), fail, "first").flagged(kind, boom_of)).args == ("first",)


@pytest.mark.parametrize("predicate", [fail, boom_of])
@pytest.mark.parametrize("kind", ["stop if", "skip if", "repeat while"])
def test_what_was_opened_is_closed_although_a_flag_has_failed(kind: str, predicate: Callable[..., Any]) -> None:
    """A predicate that raises, or is told to stop, takes nothing from the end."""
    log: list[Any] = []
    steps = then(then(Steps(), same, "fd").named("fd").flagged(kind, predicate), same, ref("fd"))
    value = perform(finally_(steps, same, ref("fd")), log=log)
    assert log == [(1, "fd"), (1, "fd"), (3, "fd")]
    assert isinstance(value, NaP if predicate is fail else Raised)


def test_what_is_skipped_has_no_value() -> None:
    """A reference to it by name is a NaP without a cause, and awaiting that says so."""
    steps = then(Steps(), same, 1).flagged("skip if", bool)
    steps = then(then(steps, same, 2).named("b"), same, ref("b"))
    nap = perform(steps)
    assert (nap.step, nap.name, nap.cause) == (2, "b", None)
    assert str(AEIOU(nap)) == "step 2 'b', same(), was skipped, and the chain has needed its value"
    assert perform(then(then(Steps(), same, 1).flagged("skip if", bool), same, 2)) == 1


# -------------------------------------------------------------------------------------------------------------- ends


def test_the_end_runs_in_reverse_after_everything() -> None:
    """After a value, a failure, a stop, and what is no failure: last one first."""
    begun = then(Steps(), same, "fd").named("fd")
    ends = finally_(finally_(begun, same, "first"), same, ref("fd"))
    for more, number in [
        (then(ends, same, 1), 2),
        (then(ends, fail), 2),
        (then(ends, boom_of, 1), 2),
        (then(then(ends, same).flagged("stop if", bool), fail), 3),
    ]:
        log: list[Any] = []
        perform(more, log=log)
        last = [entry[1:] for entry in log[-2:]]
        assert last == [("fd",), ("first",)]
        assert log[-2][0] == len(more.steps) + 1 and len(more.steps) == number


@pytest.mark.parametrize("how", ["failed", "skipped", "not reached"])
def test_what_was_never_opened_is_not_closed(how: str) -> None:
    """A step of the end is left out if a step that it refers to has no value; the others run."""
    steps = then(Steps(), same, 1)
    steps = steps if how == "failed" else steps.flagged("skip if" if how == "skipped" else "stop if", bool)
    steps = then(steps, fail if how == "failed" else same, "fd").named("fd")
    log: list[Any] = []
    perform(finally_(finally_(steps, same, ref("fd")), same, "other"), log=log)
    assert log[-1] == (3, "other")
    assert (4, "fd") not in log


def test_a_failure_at_the_end_is_not_lost() -> None:
    """It is what the chain comes to, if that is no failure yet; else a note on that."""
    nap = perform(finally_(then(Steps(), same, 1), fail, "late"))
    assert (nap.step, nap.args) == (2, ("late",))
    nap = perform(finally_(finally_(then(Steps(), fail, "early"), fail, "late"), fail, "later"))
    assert nap.args == ("early",)
    assert nap.cause.__notes__ == [
        "and then a finally_ step failed: step 2, fail('later'), raised LookupError: later",
        "and then a finally_ step failed: step 3, fail('late'), raised LookupError: late",
    ]
    ended = perform(finally_(then(Steps(), boom), fail, "late"))
    assert isinstance(ended, Raised) and isinstance(ended.error, KeyboardInterrupt)
    assert ended.late is not None and ended.late.args == ("late",)
    assert len(ended.error.__notes__) == 1


def test_an_end_that_is_no_failure() -> None:
    """What a step of the end raises that is no Exception goes through, after the others; the first one counts."""
    log: list[Any] = []
    ended = perform(finally_(finally_(then(Steps(), fail), same, "still"), boom), log=log)
    assert isinstance(ended.error, KeyboardInterrupt) and log[-1][1:] == ("still",)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_what_is_no_failure_ends_the_chain(error: type[BaseException]) -> None:
    """It becomes no NaP; neither flags nor steps are called after it."""

    def leave() -> None:
        raise error

    log: list[Any] = []
    steps = then(then(Steps(), leave).flagged("recover", same).flagged("stop if", same), same)
    ended = perform(steps, log=log)
    assert isinstance(ended, Raised) and isinstance(ended.error, error)
    assert log == [(1,)]
    assert isinstance(perform(then(Steps(), same, 1).flagged("stop if", boom_of)).error, KeyboardInterrupt)


def test_stop_iteration_is_a_failure() -> None:
    """It does not end the course that it passes through."""
    nap = perform(then(Steps(), next, iter(())))
    assert isinstance(nap.cause, StopIteration)
