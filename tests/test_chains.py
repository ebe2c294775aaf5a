"""Chains as data, and what their courses ask for: no loop, no thread, no clock."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from threadlets.chains import AEIOU, Steps, arg, ref
from threadlets.courses import Course
from threadlets.errors import ThreadletError

from .steps import boom, fail, finally_, perform, same, then
from .workbench import Token

# ------------------------------------------------------------------------------------------------------ put together


def test_each_method_leaves_its_chain_alone() -> None:
    """Two chains may begin with the same steps, and share them."""
    first = then(Steps(), same, 1).named("one")
    left, right = then(first, same, ref("one")), finally_(first, same, ref("one"))
    assert first == then(Steps(), same, 1).named("one")
    assert len(left.steps) == 2 and len(right.steps) == 1 and len(right.finals) == 1
    assert left.steps[0] is first.steps[0] is right.steps[0]


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (lambda: then(Steps(), len, ref("fd")), ValueError, "no step before it is called 'fd'; none has one"),
        (lambda: then(then(Steps(), len, "").named("a"), len, ref("b")), ValueError, "those before it are called 'a'"),
        (lambda: then(Steps(), len, ref()), ValueError, "no step before the first one"),
        (lambda: finally_(Steps(), len, ref()), ValueError, "name the step"),
        (lambda: finally_(Steps(), os.close, ref("fd")), ValueError, "a finally_ step, close"),
        (lambda: then(then(Steps(), same).named("a"), same).named("a"), ValueError, "step 1, same(), has that name"),
        (lambda: then(Steps(), same).named("a").named("b"), ValueError, "is called 'a' already"),
        (lambda: Steps().named("a"), ValueError, "right behind then"),
        (lambda: finally_(then(Steps(), same), same).named("a"), ValueError, "right behind then"),
        (lambda: Steps().flagged("stop if", bool), ValueError, "stop_if says something of the step before"),
        (lambda: then(Steps(), same).named("a b"), ValueError, "expected a name"),
        (lambda: then(Steps(), same).named(3), TypeError, "expected a name"),  # type: ignore[arg-type]
        (lambda: arg(3), TypeError, "arg(3): expected a name"),  # type: ignore[call-overload]
        (lambda: ref(""), ValueError, "ref(''): expected a name"),
        (lambda: then(Steps(), 3), TypeError, "step 1: 3 is no function"),  # type: ignore[arg-type]
        (lambda: then(Steps(), asyncio.sleep, 1), TypeError, "sleep() is a coroutine function"),
        (lambda: then(Steps(), boom, 1), TypeError, "step 1: boom() cannot be called like this: too many"),
        (lambda: then(then(Steps(), same), divmod), TypeError, "missing a required argument"),
        (lambda: then(Steps(), same, [arg("a")]), TypeError, "not found in a container"),
        (lambda: then(Steps(), same, {"a": arg("a")}), TypeError, "not found in a container"),
        (lambda: then(Steps(), same).flagged("repeat while", bool, 0), ValueError, "at least once"),
        (lambda: then(Steps(), same).flagged("repeat while", bool, float("nan")), TypeError, "limit=nan"),  # type: ignore[arg-type]
        (lambda: then(Steps(), same).flagged("repeat while", bool, True), TypeError, "limit=True"),
        (lambda: then(Steps(), same).flagged("stop if", boom), TypeError, "stop if: boom"),
        (lambda: then(Steps(), same).flagged("recover", None), TypeError, "None is no function"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_are_told_when_they_are_made(build: Callable[[], Any], error: type[Exception], words: str) -> None:
    """What makes no sense is refused before anything runs, in words that say what."""
    with pytest.raises(error) as caught:
        build()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "it needs 'a', it needs 'b'"),
        ({"a": 1}, "it needs 'b'"),
        ({"a": 1, "b": 2, "c": 3}, "it takes no 'c'"),
        ({"a": 1, "c": 3}, "this chain takes 'a', 'b': it needs 'b', it takes no 'c'"),
    ],
)
def test_arguments_of_a_call_are_checked_by_name(given: dict[str, int], words: str) -> None:
    """A call that gives too few arguments, or too many, names each of them, and runs nothing."""
    steps = finally_(then(Steps(), same, arg("a"), key=arg("b")), same, arg("a"))
    with pytest.raises(TypeError) as caught:
        Course(steps).begin(given)
    assert words in str(caught.value)
    assert perform(steps, {"b": 2, "a": 1}) == ((1,), {"key": 2})


def test_explain_shows_all_that_was_said() -> None:
    """The text has the numbers, names, references, flags, and the end in the order in which it runs."""
    steps = then(then(Steps(), os.open, arg("path"), 0).named("fd"), os.read, ref("fd"), 9)
    steps = steps.flagged("repeat while", same, 3).flagged("stop if", fail)
    steps = finally_(finally_(then(steps, same), same, "last"), os.close, ref("fd"))
    assert steps.explain("index").splitlines() == [
        "index(path)",
        "  1  fd  open(arg('path'), 0)",
        "  2      read(ref('fd'), 9)",
        "           repeat while same, at most 3 times",
        "           stop if fail",
        "  3      same(ref())",
        "finally  close(ref('fd'))",
        "finally  same('last')",
    ]


# ----------------------------------------------------------------------------------------------------------- failures


def test_the_error_names_the_step() -> None:
    """Its message has number, name, function, arguments, shortened, and the cause; and it is a ThreadletError."""
    nap = perform(then(Steps(), fail, "x" * 999, list(range(999))).named("load"))
    error = AEIOU(nap)
    assert isinstance(error, ThreadletError) and error.nap is nap and error.__cause__ is nap.cause
    assert str(error).startswith("step 1 'load', fail('xxx") and "raised LookupError" in str(error)
    assert len(str(error).partition(", raised")[0]) < 200


def test_failures_can_be_pickled() -> None:
    """As far as their parts can."""
    error = pickle.loads(pickle.dumps(AEIOU(perform(then(Steps(), fail, 3).named("a")))))
    assert error.nap.function is fail and error.nap.args == (3,) and str(error.__cause__) == "3"
    steps = then(Steps(), fail, arg("a"))
    assert pickle.loads(pickle.dumps(steps)) == steps


def test_a_failure_keeps_no_frame_alive() -> None:
    """What the step's function had in its variables is gone, though the traceback still says where it failed."""
    seen: list[Any] = []

    def step() -> None:
        token = Token()
        seen.append(weakref.ref(token))
        raise LookupError

    nap = perform(then(Steps(), step))
    gc.collect()
    assert seen[0]() is None
    assert nap.cause.__traceback__.tb_next.tb_frame.f_code.co_name == "step"


def test_a_nap_is_frozen() -> None:
    """Nobody changes it on its way."""
    nap = perform(then(Steps(), fail))
    with pytest.raises(AttributeError):
        nap.step = 3


def test_strange_exceptions_and_arguments_can_be_told() -> None:
    """An exception without a text, or arguments, that cannot be shown do no harm."""

    class Shy(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    def step(value: Any) -> None:
        raise Shy

    assert "raised Shy: ?" in str(AEIOU(perform(then(Steps(), step, Odd()))))
