"""Which foreign callables are the same function."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import io
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from threadlets import Contract
from threadlets.adapters import callables
from threadlets.adapters.callables import Known, carried_by, site_of, unwrap


def make(number: int) -> Callable[[], int]:
    """Make a closure."""

    def closure() -> int:
        return number

    return closure


@contextlib.contextmanager
def managed() -> Iterator[int]:
    """A context manager made of a generator."""
    yield 1


class Callable1:
    """What can be called, and not hashed."""

    __hash__ = None  # type: ignore[assignment]

    def __call__(self) -> int:
        return 1

    def method(self) -> int:
        return 2


def advance(iterator: Any) -> Any:
    """Advance an iterator, as Starlette does."""
    return next(iterator)


def test_calls_of_one_function_share_a_site() -> None:
    """Whatever it is wrapped in, and whichever object it is bound to."""
    assert site_of(make(1)) is site_of(make(2)) is site_of(partial(partial(make(3)), x=1))
    assert site_of(Callable1().method) is site_of(Callable1().method)
    assert site_of(Callable1()) is site_of(Callable1())
    assert site_of(io.BytesIO().read) is site_of(io.BytesIO().read)
    assert site_of(managed().__enter__) is site_of(managed().__enter__)
    assert site_of(advance, (iter_one(),)) is site_of(partial(advance, iter_one()))
    assert unwrap(partial(partial(len))) is len


def iter_one() -> Iterator[int]:
    """A generator."""
    yield 1


def test_different_functions_do_not() -> None:
    """Also if what they are called by is the same: methods of one class, two generators under one wrapper."""

    def other() -> Iterator[int]:
        yield 2

    sites = [
        site_of(make(1)),
        site_of(make),
        site_of(Callable1()),
        site_of(Callable1().method),
        site_of(io.BytesIO().read),
        site_of(io.StringIO().read),
        site_of(io.BytesIO().write),
        site_of(len),
        site_of(os.stat),
        site_of(managed().__enter__),
        site_of(managed().__exit__),
        site_of(advance, (iter_one(),)),
        site_of(advance, (other(),)),
        site_of(advance, ([],)),
    ]
    assert len(set(sites)) == len(sites)


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function, as everybody does."""

    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return function(*args)

    return inner


def test_decorated_functions_are_told_apart() -> None:
    """Those under one decorator share its code, and not what they do."""
    one, two, waits = (site_of(decorated(each)) for each in (make(1), make, waits_itself))
    assert (one.name, two.name, waits.name) == ("closure", "make", "waits_itself")
    assert one is not two
    assert one is site_of(decorated(make(2)))
    assert (one.waits, two.waits, waits.waits) == (False, False, True)


class Quick:
    """What a dependency may be: a class."""


class Waits:
    """Another one, that waits for somebody when it is made."""

    def __init__(self) -> None:
        self.ready = threading.Event().wait(0)


def test_classes_and_cached_functions_are_told_apart() -> None:
    """Each class is a function of its own; what is cached is known by what it wraps."""
    assert [(site_of(each).name, site_of(each).waits) for each in (Quick, Waits)] == [("Quick", False), ("Waits", True)]
    one, two = functools.lru_cache(make(1)), functools.cache(waits_itself)
    assert (site_of(one).name, site_of(one).waits) == ("closure", False)
    assert (site_of(two).name, site_of(two).waits) == ("waits_itself", True)
    assert site_of(functools.cache(make(2))) is site_of(one)


class Proxy:
    """Answers to every name, as that of xmlrpc does."""

    def __getattr__(self, name: str) -> Proxy:
        return Proxy()

    def __call__(self) -> str:
        return "answered"


def test_proxies_that_answer_to_every_name() -> None:
    """They are known by their type, and called."""
    site = site_of(partial(Proxy()))
    assert (site.name, site is site_of(Proxy()), site.waits) == ("Proxy", True, False)
    assert site.entrypoint("way", lambda call: call(), Contract())(Proxy()).result() == "answered"


def carry(*, function: Callable[[], Any], arguments: dict[str, Any]) -> Any:
    """Call what it is handed, as FastAPI has it."""
    return function(**arguments)


def test_a_wrapper_that_is_handed_the_function_is_not_the_function() -> None:
    """What it is to call counts: its name, its code, and whether it waits for the loop."""
    sites = [site_of(partial(carry, function=each, arguments={})) for each in (make(1), len, waits_itself)]
    assert [site.name for site in sites] == ["closure", "len", "waits_itself"]
    assert [site.waits for site in sites] == [False, False, True]
    assert site_of(partial(carry, function=make(2), arguments={"x": 1})) is sites[0]
    assert carried_by(partial(carry, function=partial(len), arguments={})) is len
    assert [carried_by(each) for each in (len, partial(len), partial(carry, function=3))] == [None] * 3


def test_they_have_the_names_that_their_users_know() -> None:
    """In statistics and messages."""
    assert [site_of(each).name for each in (make(1), len, Callable1(), io.BytesIO().read)] == [
        "closure",
        "len",
        "Callable1",
        "read",
    ]
    entrypoint = site_of(make(1)).entrypoint("way", lambda call: call(), Contract())
    assert (entrypoint.name, entrypoint.__module__) == ("closure", __name__)
    assert entrypoint(make(5)).result() == 5


def test_one_entrypoint_for_each_way() -> None:
    """Asked for twice it is the same, with what it has learned."""
    site = site_of(make(1))
    first = site.entrypoint("a", len, Contract())
    assert site.entrypoint("a", len, Contract()) is first
    assert site.entrypoint("b", len, Contract(blocks="always")) is not first


def waits_itself() -> Any:
    """Wait for the loop."""
    return asyncio.run_coroutine_threadsafe(asyncio.sleep(0), asyncio.get_event_loop()).result()


def waits_by_another() -> Any:
    """Call one that does."""
    return waits_itself()


def waits_for_somebody() -> Any:
    """Wait for whoever sets an event."""
    return threading.Event().wait(0)


def waits_inside() -> Any:
    """Have a function in it that does."""

    def inside(portal: Any) -> Any:
        return portal.call(len, [])

    return inside


def test_those_that_wait_for_the_loop_are_known() -> None:
    """By the names in their code, and in that of functions of their module that they name."""
    assert [site_of(each).waits for each in (waits_itself, waits_by_another, waits_inside, partial(waits_itself))] == [
        True
    ] * 4
    waits = (
        threading.Event().wait,
        queue.SimpleQueue().get,
        threading.Lock().acquire,
        waits_for_somebody,
        queue.Queue().get,
    )
    assert [site_of(each).waits for each in waits] == [True] * 5
    assert [site_of(each).waits for each in (make(1), len, Callable1(), iter_one)] == [False] * 4


def test_functions_are_freed_at_once() -> None:
    """Knowing a function makes no cycle: it goes when nobody holds it, as do those that are handed to a wrapper."""
    gc.disable()
    try:
        for carried in (False, True):
            function = make(1)
            gone = weakref.ref(function)
            for _ in range(2):
                site_of(partial(carry, function=function, arguments={}) if carried else function)
            del function
            assert gone() is None
    finally:
        gc.enable()


def test_nothing_of_a_call_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither arguments nor bound objects; and of functions that are made anew each time, no more than a bound."""
    monkeypatch.setattr(callables, "_sites", Known(3))
    thing = Callable1()
    gone = weakref.ref(thing)
    site_of(thing.method)
    site_of(partial(len, thing))
    del thing
    gc.collect()
    assert gone() is None
    for number in range(10):
        namespace: dict[str, Any] = {}
        exec(f"def made(): return {number}", namespace)
        assert site_of(namespace["made"]).name == "made"
    assert len(callables._sites) == 3
