"""Handles: one result or one error each, retrieved or told of, and awaitable any number of times."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from typing import Any, NoReturn

import pytest

from tests.conftest import Run
from tests.workbench import IN_PLACE, ON_WORKER, PLACES, Gate, Token, entrypoint, forever, rounds, until
from threadlets import Concurrency, Pool, Threadlet, current_threadlet, threadlet


class Rare(BaseException):
    """Derives from BaseException, as few exceptions do."""


def fail(error: BaseException | type[BaseException]) -> NoReturn:
    raise error


async def fail_at_once(error: BaseException | type[BaseException]) -> NoReturn:
    raise error


async def fail_later(error: BaseException | type[BaseException]) -> NoReturn:
    await asyncio.sleep(0)
    raise error


WAYS_TO_FAIL = {
    "in place": threadlet(contract=IN_PLACE)(fail),
    "worker": threadlet(contract=ON_WORKER)(fail),
    "first step": threadlet(fail_at_once),
    "suspended": threadlet(fail_later),
}
each_way_to_fail = pytest.mark.parametrize("way", WAYS_TO_FAIL)


@each_way_to_fail
@pytest.mark.parametrize("error", [ValueError("no"), Rare("no"), StopAsyncIteration("no")])
def test_an_exception_is_that_of_the_function(run: Run, way: str, error: BaseException) -> None:
    """Whatever a function raises, BaseException too, comes out of every await, and of result() and exception()."""

    async def main() -> None:
        handle = WAYS_TO_FAIL[way](error)
        for _ in range(3):
            with pytest.raises(type(error)) as caught:
                await handle
            assert caught.value is error
        assert handle.state == "failed"
        assert handle.done() and not handle.cancelled()
        assert handle.exception() is error
        with pytest.raises(type(error)):
            handle.result()
        assert not handle.cancel()

    run(main)


@each_way_to_fail
def test_stop_iteration_becomes_a_runtime_error(run: Run, way: str) -> None:
    """StopIteration would end whoever awaits it: it comes out as the cause of a RuntimeError, as from a coroutine."""

    async def main() -> None:
        handle = WAYS_TO_FAIL[way](StopIteration(5))
        with pytest.raises(RuntimeError, match="raised StopIteration") as caught:
            await handle
        assert isinstance(caught.value.__cause__, StopIteration)

    run(main)


@each_way_to_fail
def test_a_function_that_raises_cancelled_error_is_cancelled(run: Run, way: str) -> None:
    """CancelledError raised by the function itself makes its threadlet cancelled, with the message that it had."""

    async def main() -> None:
        handle = WAYS_TO_FAIL[way](asyncio.CancelledError("enough"))
        with pytest.raises(asyncio.CancelledError):
            await handle
        assert handle.cancelled() and handle.state == "cancelled"
        with pytest.raises(asyncio.CancelledError, match="enough"):
            handle.result()
        with pytest.raises(asyncio.CancelledError, match="enough"):
            handle.exception()

    run(main)


@each_way_to_fail
def test_a_failure_nobody_looked_at_is_told_once(run: Run, way: str) -> None:
    """When a failed handle is collected and nobody has retrieved its exception, the loop's handler hears of it once."""

    async def main() -> None:
        handle = WAYS_TO_FAIL[way](ValueError("unseen"))
        await until(handle.done)

    run(main)
    (report,) = run.told()
    assert repr(report["exception"]) == "ValueError('unseen')"
    assert "failed, and nobody awaited it" in report["message"]


@each_way_to_fail
def test_a_failure_is_told_as_soon_as_its_handle_is_gone(run: Run, way: str) -> None:
    """No cycle of references keeps a failed threadlet: it is told of without waiting for the garbage collector."""

    async def main() -> None:
        handle = WAYS_TO_FAIL[way](ValueError("unseen"))
        await until(handle.done)
        await rounds()
        del handle
        async with asyncio.timeout(5):  # a worker's last frame may take a moment to end; a cycle would stay for ever
            await until(lambda: run.reports)

    gc.disable()
    try:
        run(main)
    finally:
        gc.enable()
    assert len(run.told()) == 1


LOOKS = {
    "await": lambda handle: asyncio.create_task(until_raised(handle)),
    "exception": lambda handle: handle.exception(),
    "gather": lambda handle: asyncio.gather(handle, return_exceptions=True),
    "callback": lambda handle: handle.add_done_callback(Threadlet.exception),
}


async def until_raised(handle: Threadlet[Any]) -> None:
    with pytest.raises(ValueError):
        await handle


@each_way_to_fail
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("when", ["early", "late"])
def test_a_failure_somebody_looked_at_is_not_told(run: Run, way: str, look: str, when: str) -> None:
    """Awaiting, exception(), gather and done callbacks all count as having seen it; ``run`` checks the rest."""

    async def main() -> None:
        handle = WAYS_TO_FAIL[way](ValueError("seen"))
        if when == "late" or look == "exception":
            await until(handle.done)
        LOOKS[look](handle)
        await until(handle.done)
        await rounds()

    run(main)


@each_way_to_fail
def test_a_traceback_does_not_grow(run: Run, way: str) -> None:
    """However often an exception is raised again, its traceback has the function's frames and those of this raise."""

    async def main() -> None:
        handle = WAYS_TO_FAIL[way](ValueError("again"))
        lengths = []
        for look in [None, None, handle.result, handle.result] * 2:
            with pytest.raises(ValueError, match="again") as caught:
                look() if look else await handle
            lengths.append(len(caught.traceback))
            assert any(entry.name.startswith("fail") for entry in caught.traceback)
        assert lengths[1:4] == lengths[5:8]

    run(main)


def test_a_handle_that_is_not_done_says_so(run: Run) -> None:
    """result() and exception() of a threadlet that is not final raise InvalidStateError, as those of a future."""

    async def main() -> None:
        async with Pool(Concurrency(1)) as pool:
            running, queued = pool.start(forever), pool.start(forever)
            for handle in (running, queued):
                assert not handle.done() and not handle.cancelled()
                for look in (handle.result, handle.exception):
                    with pytest.raises(asyncio.InvalidStateError, match="is not done: await it"):
                        look()
            assert (running.state, queued.state) == ("missed", "queued")
            assert running.get_loop() is asyncio.get_running_loop()
            pool.cancel()

    run(main)


@pytest.mark.parametrize("place", [*PLACES, "suspended", "queued"])
def test_many_tasks_await_one_handle_many_times(run: Run, place: str) -> None:
    """One result reaches all who await it, before its end and after, each as often as they like."""
    gate = Gate()

    async def main() -> None:
        result = object()
        loop = asyncio.get_running_loop()
        released: asyncio.Future[object] = loop.create_future()

        async def wait() -> object:
            return await released

        pool = Pool(Concurrency(1))
        if place == "suspended":
            handle = pool.start(wait)
        elif place == "queued":
            blocker = pool.start(wait)
            handle = pool.start(lambda: result)
        else:
            handle = pool.start(entrypoint(place, gate if place == "worker" else lambda value: value), result)
        early = [asyncio.create_task(twice(handle)) for _ in range(5)]
        await rounds()
        released.set_result(result)
        gate.open()
        for task in [*early, *(asyncio.create_task(twice(handle)) for _ in range(5))]:
            assert await task == (result, result)
        assert handle.result() is result
        if place == "queued":
            assert await blocker is result

    async def twice(handle: Threadlet[object]) -> tuple[object, object]:
        return await handle, await handle

    run(main)


def test_done_callbacks_are_called_from_the_loop_in_their_context(run: Run) -> None:
    """A callback is called once per registration, in the context given, and never within add_done_callback."""
    variable = contextvars.ContextVar("variable", default="none")

    async def main() -> None:
        calls: list[tuple[str, Any, str]] = []

        def note(handle: Threadlet[Any]) -> None:
            calls.append(("note", handle, variable.get()))

        def never(handle: Threadlet[Any]) -> None:
            raise AssertionError("it was removed")

        context = contextvars.copy_context()
        context.run(variable.set, "given")
        variable.set("current")
        handle = threadlet(forever)()
        handle.add_done_callback(note)
        handle.add_done_callback(never)
        handle.add_done_callback(note, context=context)
        handle.add_done_callback(never)
        variable.set("later")
        assert handle.remove_done_callback(never) == 2
        assert handle.remove_done_callback(never) == 0
        handle.cancel()
        await until(handle.done)
        await rounds(2)
        assert calls == [("note", handle, "current"), ("note", handle, "given")]
        handle.add_done_callback(note, context=context)
        assert len(calls) == 2
        await rounds(2)
        assert calls[2:] == [("note", handle, "given")]

    run(main)


@pytest.mark.parametrize("way", ["in place", "worker", "suspended", "queued"])
def test_a_done_callback_that_raises_hurts_nobody(run: Run, way: str) -> None:
    """The loop's exception handler is told; the result, the other callbacks and the awaiters are as they would be."""

    async def main() -> None:
        pool = Pool(Concurrency(1))
        if way == "queued":
            pool.start(asyncio.sleep, 0)
        function = asyncio.sleep if way == "suspended" else entrypoint(way.replace("queued", "worker"), lambda n, v: v)
        handle = pool.start(function, 0, "result")
        called: list[object] = []
        handle.add_done_callback(lambda handle: {}["missing"])
        handle.add_done_callback(called.append)
        assert await handle == "result"
        await rounds(2)
        assert called == [handle]
        await pool.drain()
        pool._check()

    run(main)
    (report,) = run.told()
    assert isinstance(report["exception"], KeyError)


def test_a_done_callback_may_use_the_pool(run: Run) -> None:
    """From a done callback, threadlets can be started, cancelled and reprioritized."""

    async def main() -> None:
        pool = Pool(Concurrency(1))
        waiting = [pool.start(forever) for _ in range(4)]
        started: list[Threadlet[Any]] = []

        def act(handle: Threadlet[Any]) -> None:
            assert handle not in pool
            waiting[1].cancel()
            waiting[3].priority = -1
            started.append(pool.start(forever, priority=5))
            pool._check()

        waiting[0].add_done_callback(act)
        waiting[0].cancel()
        await until(lambda: started)
        await rounds()
        assert [handle.state for handle in [*waiting, *started]][3] in ("missed", "queued")
        pool.cancel()
        await pool.aclose()
        assert pool.statistics().cancelled == 5
        pool._check()

    run(main)


@pytest.mark.parametrize("place", [*PLACES, "suspended"])
def test_a_finished_threadlet_holds_no_arguments(run: Run, place: str) -> None:
    """Once it is final, a handle that is still held keeps its result alive, and no argument."""

    async def wait(token: Token) -> int:
        await asyncio.sleep(0)
        return 5

    async def main() -> None:
        function = threadlet(wait) if place == "suspended" else entrypoint(place, lambda token: 5)
        token = Token()
        watched = weakref.ref(token)
        handle = function(token)
        del token
        assert await handle == 5
        await until(lambda: watched() is None)  # a worker's last frame may take a moment to end
        assert handle.result() == 5

    run(main)


def test_a_handle_nobody_holds_is_freed(run: Run) -> None:
    """A pool forgets a threadlet that is final: nothing keeps its handle alive but its user."""

    async def main() -> None:
        pool = Pool(Concurrency(2))
        watched = []
        for function in (lambda: 1, entrypoint("in place", lambda: 2), entrypoint("worker", lambda: 3), forever):
            handle = pool.start(function)
            watched.append(weakref.ref(handle))
            del handle
        await rounds()
        pool.cancel()
        await pool.drain()
        await rounds()
        gc.collect()
        await until(lambda: not any(ref() for ref in watched))

    run(main)


def test_age_is_counted_from_the_start(run: Run) -> None:
    """``age`` is the time since the caller started it: never more than the loop's clock says since before that."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def own_age() -> float:
            handle = current_threadlet()
            assert handle is not None
            return handle.age

        for function in (lambda: 0.0, own_age, entrypoint("worker", lambda: 0.0)):
            before = loop.time()
            handle = Pool().start(function)
            inner = await handle
            assert 0 <= inner <= loop.time() - before + 1
            assert 0 <= handle.age <= loop.time() - before + 1  # 1: loops count milliseconds, or from an earlier round

    run(main)


def test_repr_says_what_there_is_to_know(run: Run) -> None:
    """repr() has the function's name, the state, and the priority, tags and exception if there are any."""

    async def main() -> None:
        fails = threadlet(contract=IN_PLACE, priority=3, tags={"tag"})(fail)
        handle = fails(ValueError("why"))
        assert repr(handle) == "<Threadlet fail failed priority=3 tags={'tag'} exception=ValueError('why')>"
        handle.exception()
        assert repr(threadlet(contract=IN_PLACE)(fail_quietly)()) == "<Threadlet fail_quietly done>"

    run(main)


def fail_quietly() -> None:
    pass
