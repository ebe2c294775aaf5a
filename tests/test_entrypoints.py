"""Entrypoints: what the decorator makes of a function, and where it may be called."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import IN_PLACE, ON_WORKER, PLACES
from threadlets import Contract, Pool, Threadlet, current_threadlet, threadlet
from threadlets.errors import NoRunningLoop, WrongLoop


@threadlet(contract=IN_PLACE)
def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


@threadlet
async def triple(number: int, *, later: bool = False) -> int:
    if later:
        await asyncio.sleep(0)
    return 3 * number


class Shelf:
    """Has an entrypoint of each kind that a class can have."""

    made = 1

    @threadlet(contract=IN_PLACE)
    def plain(self, number: int) -> tuple[Any, int]:
        return self, number

    @threadlet
    async def coroutine(self, number: int) -> tuple[Any, int]:
        return self, number

    @threadlet(contract=IN_PLACE)
    @classmethod
    def of_class(cls, number: int) -> tuple[Any, int]:
        return cls, number

    @threadlet(contract=IN_PLACE)
    @staticmethod
    def of_nothing(number: int) -> int:
        return number


class Drawer(Shelf):
    pass


@pytest.mark.parametrize("place", PLACES)
def test_a_plain_function_returns_its_result(run: Run, place: str) -> None:
    """Awaiting the call of a plain function gives what it returned, in either place, with all kinds of arguments."""

    @threadlet(contract=PLACES[place])
    def collect(*args: int, **kwargs: int) -> tuple[Any, Any]:
        return args, kwargs

    async def main() -> None:
        assert await collect(1, 2, three=3) == ((1, 2), {"three": 3})
        assert await collect() == ((), {})

    run(main)


@pytest.mark.parametrize("later", [False, True])
def test_a_coroutine_function_returns_its_result(run: Run, later: bool) -> None:
    """Awaiting the call of a coroutine function gives what it returned, whether it was suspended or not."""

    async def main() -> None:
        handle = triple(2, later=later)
        assert isinstance(handle, Threadlet)
        assert handle.done() is not later
        assert handle.state == ("missed" if later else "done")
        assert await handle == 6
        assert handle.missed is later

    run(main)


def test_an_entrypoint_looks_like_its_function() -> None:
    """Name, documentation, signature and the function itself can still be read, and it pickles by name."""
    assert double.__name__ == "double"
    assert double.__doc__ == "Return twice the number."
    assert inspect.signature(double) == inspect.signature(double.function)
    assert double.function(4) == double.__wrapped__(4) == 8
    assert repr(double) == "<threadlet double>"
    assert pickle.loads(pickle.dumps(double)) is double
    assert pickle.loads(pickle.dumps(Shelf.plain)) is Shelf.plain


def test_entrypoints_in_a_class_bind_as_functions_do(run: Run) -> None:
    """Methods get their object, class methods their class, also in a subclass, and static methods nothing."""

    async def main() -> None:
        drawer = Drawer()
        assert await drawer.plain(1) == (drawer, 1)
        assert await Shelf.plain(drawer, 1) == (drawer, 1)
        assert await drawer.coroutine(2) == (drawer, 2)
        assert await Drawer.of_class(3) == (Drawer, 3)
        assert await drawer.of_class(3) == (Drawer, 3)
        assert await drawer.of_nothing(4) == await Shelf.of_nothing(4) == 4

    run(main)


def test_options_of_one_call(run: Run) -> None:
    """``using()`` replaces the priority, adds tags and names the pool, for that call, also of a method."""
    urgent = threadlet(priority=7, tags={"own"}, contract=ON_WORKER)(lambda: current_threadlet())

    async def main() -> None:
        async with Pool() as pool:
            handle = urgent.using(priority=1, tags={"more"}, pool=pool)()
            assert (handle.priority, handle.tags, handle.pool) == (1, {"own", "more"}, pool)
            plain = urgent()
            assert (plain.priority, plain.tags) == (7, {"own"})
            assert plain.pool is not pool
            twice = urgent.using(pool=pool, tags={"a"}).using(priority=2, tags={"b"})()
            assert (twice.priority, twice.tags, twice.pool) == (2, {"own", "a", "b"}, pool)
            shelf = Shelf()
            method = shelf.plain.using(priority=3)(5)
            assert method.priority == 3
            assert await method == (shelf, 5)
            await asyncio.gather(plain, twice)

    run(main)


def generator() -> Any:
    yield


async def async_generator() -> Any:
    yield


@pytest.mark.parametrize(
    ("decorate", "error", "words"),
    [
        (lambda: threadlet(3), TypeError, "made from a function, not from 3"),  # type: ignore[call-overload]
        (lambda: threadlet(generator), TypeError, "generator function"),
        (lambda: threadlet(async_generator), TypeError, "generator function"),
        (lambda: threadlet(double), TypeError, "a threadlet already"),
        (lambda: threadlet(contract="never")(generator), TypeError, "generator function|Contract"),  # type: ignore[call-overload]
        (lambda: threadlet(priority=float("nan"))(len), ValueError, "nan"),
        (lambda: threadlet(priority="1")(len), TypeError, "real number"),  # type: ignore[call-overload]
        (lambda: threadlet(priority=1j)(len), TypeError, "real number"),  # type: ignore[call-overload]
        (lambda: threadlet(tags="abc")(len), TypeError, "one tag per character"),
        (lambda: threadlet(tags=[[]])(len), TypeError, "hashable"),  # type: ignore[list-item]
        (lambda: threadlet(contract=ON_WORKER)(triple.function), ValueError, "coroutine function"),
        (lambda: threadlet(contract=Contract(affinity="one"))(triple.function), ValueError, "coroutine function"),
        (lambda: double.using(priority=float("nan")), ValueError, "nan"),
        (lambda: double.using(tags="abc"), TypeError, "one tag per character"),
        (lambda: double.using(pool=3), TypeError, "expected a threadlets.Pool"),  # type: ignore[arg-type]
    ],
)
def test_wrong_options_are_refused_at_once(decorate: Any, error: type[Exception], words: str) -> None:
    """What cannot work is refused where it is written, with words that say what was expected."""
    with pytest.raises(error, match=words):
        decorate()


def test_arguments_that_do_not_fit_fail_the_threadlet(run: Run) -> None:
    """A call with arguments that the function does not take gives a handle that fails, as a call in a thread would."""

    async def main() -> None:
        for wrong in (double(1, 2), triple(), threadlet(contract=ON_WORKER)(double.function)()):  # type: ignore[call-arg]
            with pytest.raises(TypeError, match="argument"):
                await wrong

    run(main)


def test_without_a_loop_a_plain_function_runs_right_there() -> None:
    """Where no loop runs, the call runs on this thread, whatever its placement; its handle is final and can be read."""
    for contract in (IN_PLACE, ON_WORKER, Contract()):
        handle = threadlet(contract=contract)(lambda: (threading.get_ident(), current_threadlet()))()
        assert handle.done()
        assert handle.result() == (threading.get_ident(), handle)
        assert handle.exception() is None
        assert not handle.cancel()
        assert handle.pool is None
        with pytest.raises(NoRunningLoop, match="belongs to none"):
            handle.get_loop()
    assert current_threadlet() is None


def test_without_a_loop_there_is_nobody_to_call_back() -> None:
    """``add_done_callback`` of a handle that belongs to no loop raises NoRunningLoop where none runs."""
    with pytest.raises(NoRunningLoop):
        double(1).add_done_callback(print)


def test_a_handle_made_without_a_loop_can_be_awaited_on_any(run: Run) -> None:
    """A final handle that belongs to no loop gives its result, or its failure, on every loop."""
    good, bad = double(3), threadlet(contract=IN_PLACE)(lambda: {}["missing"])()
    called: list[object] = []

    async def main() -> None:
        assert [await good, await good] == [6, 6]
        with pytest.raises(KeyError):
            await bad
        good.add_done_callback(called.append)
        await asyncio.sleep(0)

    run(main)
    assert called == [good]


def test_without_a_loop_failures_are_kept_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """Without a loop an exception waits in the handle too; if nobody looks at it, it is logged, once."""
    gc.collect()
    caplog.clear()  # of what earlier tests have left
    fails = threadlet(contract=IN_PLACE)(lambda: {}["missing"])
    handle = fails()
    with pytest.raises(KeyError):
        handle.result()
    del handle
    gc.collect()
    assert not caplog.records
    fails()
    gc.collect()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "failed, and nobody" in caplog.text


@pytest.mark.parametrize("exit_error", [KeyboardInterrupt, SystemExit])
def test_without_a_loop_an_exit_is_raised_right_there(exit_error: type[BaseException]) -> None:
    """KeyboardInterrupt and SystemExit pass through a call, as through any function."""

    @threadlet(contract=IN_PLACE)
    def leave() -> None:
        raise exit_error

    with pytest.raises(exit_error):
        leave()
    assert current_threadlet() is None


def test_without_a_loop_a_cancelled_error_cancels() -> None:
    """A plain function that raises CancelledError without a loop gives a cancelled handle."""

    @threadlet(contract=IN_PLACE)
    def stop() -> None:
        raise asyncio.CancelledError("enough")

    handle = stop()
    assert handle.cancelled()
    with pytest.raises(asyncio.CancelledError, match="enough"):
        handle.result()


def test_what_needs_a_loop_says_so() -> None:
    """Coroutine functions and ``affinity="home"`` raise NoRunningLoop, and leave no coroutine behind unawaited."""
    home = threadlet(contract=Contract(affinity="home"))(lambda: 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NoRunningLoop, match=r"triple\(\) is a coroutine function.*triple\.function"):
            triple(1)
        with pytest.raises(NoRunningLoop, match="event loop's thread"):
            home()
        with pytest.raises(NoRunningLoop, match="used on a thread where no event loop runs"):
            double.using(pool=Pool())(1)
        gc.collect()


def test_from_another_thread_a_call_is_a_call_there(run: Run) -> None:
    """On a thread of the user's own, beside a running loop, the function runs on that thread."""
    where = threadlet(contract=IN_PLACE)(threading.get_ident)

    async def main() -> None:
        assert await where() == threading.get_ident()
        with ThreadPoolExecutor(1) as executor:
            loop = asyncio.get_running_loop()
            ident = await loop.run_in_executor(executor, threading.get_ident)
            assert await loop.run_in_executor(executor, lambda: where().result()) == ident
            with pytest.raises(NoRunningLoop):
                await loop.run_in_executor(executor, triple, 1)

    run(main)


def test_one_entrypoint_serves_loop_after_loop(run: Run) -> None:
    """Entrypoints belong to no loop: each loop has a default pool of its own."""
    on_worker = threadlet(contract=ON_WORKER)(lambda: 5)

    async def main() -> tuple[int, int, int, Pool | None]:
        return await double(1), await triple(1, later=True), await on_worker(), on_worker().pool

    first, second = run(main), run(main)
    assert first[:3] == second[:3] == (2, 3, 5)
    assert first[3] is not second[3]


def test_one_entrypoint_serves_two_loops_at_once(run: Run) -> None:
    """Two loops on two threads use the same entrypoints at the same time and get their own results."""
    both = threading.Barrier(2)
    on_worker = threadlet(contract=ON_WORKER)(lambda number: number)

    async def main(base: int) -> list[int]:
        both.wait(20)
        numbers = range(base, base + 50)
        return await asyncio.gather(*[f(n) for n in numbers for f in (double, on_worker)], triple(base, later=True))

    with ThreadPoolExecutor(2) as executor:
        results = list(executor.map(lambda base: run(main, base), [0, 1000]))
    for base, result in zip([0, 1000], results, strict=True):
        assert result == [x for n in range(base, base + 50) for x in (2 * n, n)] + [3 * base]


def test_awaiting_on_another_loop_is_an_error(run: Run) -> None:
    """A handle that is not final belongs to its loop: awaiting it on another one raises, as with futures."""
    handles: list[Threadlet[None]] = []

    async def other() -> None:
        await handles[0]

    async def main() -> None:
        pool = Pool()
        handles.append(pool.start(asyncio.sleep, 3600, None))
        with ThreadPoolExecutor(1) as executor:
            with pytest.raises(RuntimeError, match=r"different loop|another loop"):
                await asyncio.get_running_loop().run_in_executor(executor, run, other)

            async def start() -> None:
                pool.start(double, 1)

            with pytest.raises(WrongLoop, match="another event loop"):
                await asyncio.get_running_loop().run_in_executor(executor, run, start)
        handles[0].cancel()

    run(main)


def test_statistics_count_every_call_once(run: Run) -> None:
    """An entrypoint's statistics say how its calls ran and ended, and where the next one will."""
    counted = threadlet(contract=ON_WORKER)(lambda number: 1 // number)
    counted_coroutine = threadlet(functools.partial(triple.function, later=True))

    async def main() -> None:
        await asyncio.gather(counted(0), counted(1), counted(2), return_exceptions=True)
        counted_coroutine(1).cancel()
        await counted_coroutine(2)

    run(main)
    plain, coroutine = counted.statistics(), counted_coroutine.statistics()
    assert (plain.on_workers, plain.in_place, plain.failed, plain.cancelled) == (3, 0, 1, 0)
    assert plain.placement == "worker"
    assert (coroutine.in_place, coroutine.missed, coroutine.cancelled) == (2, 2, 1)
    assert coroutine.placement == "in place"
