"""Definitions: what can be an entrypoint, what its options may be, and what a call of any callable comes to."""

from __future__ import annotations

import dataclasses
import functools
import gc
import math
import types
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from threadlets import Contract, threadlet
from threadlets.definitions import Definition, check_priority, check_tags, resolve
from threadlets.placements import Fixed, Learner
from threadlets.workers import named_group, shared_group


def plain(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return args


async def coroutine(*args: Any) -> tuple[Any, ...]:
    return args


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Callee:
    """Objects and classes that can be called."""

    def __call__(self) -> int:
        return 1

    def method(self, *args: Any) -> tuple[Any, ...]:
        return args

    @threadlet(priority=3, tags={"own"})
    def bound(self, *args: Any) -> tuple[Any, ...]:
        return args

    @threadlet
    @classmethod
    def of_class(cls, *args: Any) -> tuple[Any, ...]:
        return args


class AsyncCallee:
    """Objects that are called as coroutine functions are."""

    async def __call__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("function", "name", "is_coroutine"),
    [
        (plain, "plain", False),
        (coroutine, "coroutine", True),
        (lambda: 1, "<lambda>", False),
        (len, "len", False),
        (Callee, "Callee", False),
        (Callee(), "Callee", False),
        (AsyncCallee(), "AsyncCallee", True),
        (AsyncCallee, "AsyncCallee", False),
        (functools.partial(plain, 1), "partial", False),
        (functools.partial(coroutine, 1), "partial", True),
        (Callee().method, "method", False),
    ],
    ids=str,
)
def test_functions(function: Any, name: str, is_coroutine: bool) -> None:
    """Whatever can be called has a definition, with a name, that knows whether it is a coroutine function."""
    definition: Definition[Any] = Definition(function)
    assert definition.function is function
    assert (definition.name, definition.is_coroutine) == (name, is_coroutine)
    assert definition.contract == Contract()
    assert definition.statistics().placement == ("in place" if is_coroutine else "worker")


@pytest.mark.parametrize("function", [None, 5, "plain", generator, async_generator, functools.partial(generator)])
def test_what_is_no_function(function: Any) -> None:
    """What cannot be called, and what would give a generator, is no threadlet."""
    with pytest.raises(TypeError, match="threadlet"):
        Definition(function)


@pytest.mark.parametrize(
    ("contract", "learner", "in_place"),
    [
        (Contract(), Learner, False),
        (Contract(blocks="never"), Fixed, True),
        (Contract(blocks="always"), Fixed, False),
        (Contract(affinity="home"), Fixed, True),
        (Contract(affinity="one"), Fixed, False),
        (Contract(affinity="one:tests"), Fixed, False),
        (Contract(blocks="always", affinity="one"), Fixed, False),
    ],
)
def test_contract_settles_the_placement(contract: Contract, learner: type[Learner], in_place: bool) -> None:
    """The contract says whether the placement is learned, or where calls run otherwise, and on which workers."""
    definition: Definition[Any] = Definition(plain, contract=contract)
    assert type(definition.learner) is learner
    assert definition.learner.in_place is in_place
    assert definition.statistics().placement == ("in place" if in_place else "worker")
    match contract.affinity:
        case "one":
            other: Definition[Any] = Definition(plain, contract=contract)
            assert definition.workers.limit == 1
            assert definition.workers not in (shared_group(), other.workers)
        case "one:tests":
            assert definition.workers is named_group("tests")
        case _:
            assert definition.workers is shared_group()


@pytest.mark.parametrize("contract", [Contract(blocks="always"), Contract(affinity="one"), Contract(affinity="one:a")])
def test_coroutines_need_the_loop(contract: Contract) -> None:
    """A coroutine function cannot be promised to a worker; the error says what to do instead."""
    with pytest.raises(ValueError, match="plain function of its own"):
        Definition(coroutine, contract=contract)
    assert Definition(coroutine, contract=Contract(blocks="never", affinity="home")).is_coroutine


@pytest.mark.parametrize("contract", ["never", {"blocks": "never"}, Contract])
def test_contract_is_a_contract(contract: Any) -> None:
    """Nothing else than a Contract is taken for one."""
    with pytest.raises(TypeError, match=r"expected a threadlets\.Contract"):
        Definition(plain, contract=contract)


@pytest.mark.parametrize("priority", [0, -1, 1.5, math.inf, -math.inf, 10**400, True])
def test_priorities(priority: float) -> None:
    """Any real number is a priority, and stays what it is."""
    assert check_priority(priority) is priority
    assert Definition(plain, priority=priority).priority is priority


@pytest.mark.parametrize(
    ("priority", "error"),
    [("1", TypeError), (None, TypeError), (1j, TypeError), (Decimal("NaN"), TypeError), (math.nan, ValueError)],
)
def test_bad_priorities(priority: Any, error: type[Exception]) -> None:
    """What has no place among the numbers is refused."""
    with pytest.raises(error, match="lower numbers run first"):
        check_priority(priority)
    with pytest.raises(error):
        Definition(plain, priority=priority)


def test_tags() -> None:
    """Any iterable of hashable things is a set of tags; frozen ones are kept, and no tags are always the same."""
    frozen = frozenset({"a", 2})
    assert check_tags(frozen) is frozen
    assert check_tags(["a", 2, "a"]) == frozen
    assert check_tags(tag for tag in ("a", 2)) == frozen
    assert check_tags({"a": 1}) == {"a"}
    assert check_tags([]) is check_tags(()) == frozenset()
    assert Definition(plain, tags=["x"]).tags == {"x"}


@pytest.mark.parametrize("tags", ["tag", b"tag", "", [["list"]], 5, None])
def test_bad_tags(tags: Any) -> None:
    """One string is refused, since it would be a tag per character, and so is what cannot be looked up."""
    with pytest.raises(TypeError, match="tags="):
        check_tags(tags)


def test_statistics_are_a_snapshot() -> None:
    """Statistics do not change after they were taken, and cannot be changed."""
    definition: Definition[Any] = Definition(plain)
    before = definition.statistics()
    definition.in_place += 2
    definition.ns_in_place += 1_500_000_000
    after = definition.statistics()
    assert (before.in_place, before.seconds_in_place) == (0, 0)
    assert (after.in_place, after.seconds_in_place) == (2, 1.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        after.failed = 1  # type: ignore[misc]


def call(function: Callable[..., Any], *args: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any] | None]:
    prepared, kwargs = resolve(function, args)
    assert isinstance(prepared.definition, Definition)
    return prepared.definition.function, prepared.args, kwargs


def test_resolve() -> None:
    """Partials, methods and entrypoints, around each other, come to one function and all its arguments in order."""
    callee = Callee()
    bound = vars(Callee)["bound"].function
    of_class = vars(Callee)["of_class"].function
    partial = functools.partial
    assert call(plain, 1) == (plain, (1,), None)
    assert call(partial(plain, 1), 2) == (plain, (1, 2), {})
    assert call(partial(partial(plain, 1, a=1, b=1), 2, b=2), 3) == (plain, (1, 2, 3), {"a": 1, "b": 2})
    labelled = partial(plain, 1, a=1, b=1)
    labelled.label = "kept apart"  # type: ignore[attr-defined]  # so that Python does not merge the two
    assert call(partial(labelled, 2, b=2), 3) == (plain, (1, 2, 3), {"a": 1, "b": 2})
    assert call(callee.method, 1) == (Callee.method, (callee, 1), None)
    assert call(partial(callee.method, 1, a=1), 2) == (Callee.method, (callee, 1, 2), {"a": 1})
    assert call(types.MethodType(threadlet(plain), 1), 2) == (plain, (1, 2), None)
    assert call(callee.bound, 1) == (bound, (callee, 1), None)
    assert call(Callee.bound, callee, 1) == (bound, (callee, 1), None)
    assert call(callee.of_class, 1) == call(Callee.of_class, 1) == (of_class, (Callee, 1), None)
    assert call(partial(callee.bound.using(priority=1), 1), 2) == (bound, (callee, 1, 2), {})
    assert call(len, "a") == (len, ("a",), None)
    assert call(callee) == (callee, (), None)
    with pytest.raises(TypeError):
        resolve(generator, ())


def test_resolve_keeps_options() -> None:
    """The priority and the tags are those of ``using()``, else those of the entrypoint, else none."""
    for function, priority, tags in [
        (plain, 0, set()),
        (Callee.bound, 3, {"own"}),
        (Callee().bound, 3, {"own"}),
        (Callee().bound.using(priority=1, tags={"more"}), 1, {"own", "more"}),
        (functools.partial(Callee().bound.using(priority=0), 1), 0, {"own"}),
    ]:
        prepared, _ = resolve(function, ())
        assert (prepared.priority, prepared.tags) == (priority, tags)


def test_partials_with_keywords_are_not_changed() -> None:
    """Keyword arguments that are handed out may be changed without changing the partial that they come from."""
    partial = functools.partial(plain, a=1)
    _, kwargs = resolve(partial, ())
    assert kwargs is not None
    kwargs["b"] = 2
    assert partial.keywords == {"a": 1}


def test_undecorated_functions_are_learned_from() -> None:
    """All calls of one function share a definition; a wrapper that took over its attributes has its own."""

    def function() -> None:
        pass

    @functools.wraps(function)
    def early() -> None:
        pass

    definition = resolve(function, ())[0].definition
    assert resolve(function, ())[0].definition is definition
    assert resolve(functools.partial(function), ())[0].definition is definition

    @functools.wraps(function)
    def late() -> None:
        pass

    assert len({id(resolve(each, ())[0].definition) for each in (function, early, late)}) == 3
    assert resolve(late, ())[0].definition.function is late
    assert resolve(len, ())[0].definition is resolve(len, ())[0].definition
    method = resolve(Callee().method, ())[0].definition
    assert method is resolve(Callee().method, ())[0].definition, "one for all objects"


def test_undecorated_functions_are_freed() -> None:
    """The definition of a function goes when the function goes."""

    def function() -> None:
        pass

    definition = weakref.ref(resolve(function, ())[0].definition)
    assert definition() is not None
    del function
    gc.collect()
    assert definition() is None
