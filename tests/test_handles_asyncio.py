"""Handles beside asyncio's own: whatever takes a future takes a threadlet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import IN_PLACE, ON_WORKER, Gate, forever, rounds, until
from threadlets import Concurrency, Pool, Threadlet, threadlet

identity = threadlet(contract=IN_PLACE)(lambda value: value)
identity_on_worker = threadlet(contract=ON_WORKER)(lambda value: value)


@threadlet
async def identity_later(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


@threadlet
async def fail_later() -> None:
    await asyncio.sleep(0)
    raise ValueError("later")


ALL = {"in place": identity, "worker": identity_on_worker, "suspended": identity_later}
each = pytest.mark.parametrize("start", ALL.values(), ids=ALL)
Start = Callable[[Any], Threadlet[Any]]


@each
def test_asyncio_takes_it_for_a_future(run: Run, start: Start) -> None:
    """``isfuture`` is true of it and ``ensure_future`` returns it as it is."""

    async def main() -> None:
        handle = start(1)
        assert asyncio.isfuture(handle)
        assert asyncio.ensure_future(handle) is handle
        assert await handle == 1

    run(main)


@each
def test_gather(run: Run, start: Start) -> None:
    """gather gives results in order, beside futures and coroutines."""

    async def main() -> None:
        assert await asyncio.gather(start(1), asyncio.sleep(0, 2), start(3), start(4)) == [1, 2, 3, 4]
        handle = start(5)
        assert await asyncio.gather(handle, handle) == [5, 5]

    run(main)


def test_gather_with_failures_and_cancels(run: Run) -> None:
    """With return_exceptions failures and cancels are in the list; without, the first of them is raised."""

    async def main() -> None:
        cancelled = threadlet(forever)()
        cancelled.cancel("reason")
        one, error, cancel = await asyncio.gather(identity(1), fail_later(), cancelled, return_exceptions=True)
        assert (one, repr(error)) == (1, "ValueError('later')")
        assert isinstance(cancel, asyncio.CancelledError)
        with pytest.raises(ValueError, match="later"):
            await asyncio.gather(identity_later(1), fail_later())
        with pytest.raises(asyncio.CancelledError):
            await asyncio.gather(identity_later(1), cancelled)

    run(main)


def test_cancelling_a_gather_cancels_its_threadlets(run: Run) -> None:
    """As with tasks: who is cancelled while it waits for a gather, or cancels one, cancels all that is gathered."""

    async def main() -> None:
        async with Pool(Concurrency(1)) as pool:
            for direct in (True, False):
                handles = [pool.start(forever), pool.start(forever)]
                group = asyncio.gather(*handles)
                task = asyncio.ensure_future(group) if direct else asyncio.create_task(wait_for_it(group))
                await rounds()
                assert task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert all(handle.cancelled() for handle in handles)

    async def wait_for_it(group: asyncio.Future[Any]) -> None:
        await group

    run(main)


@each
def test_wait(run: Run, start: Start) -> None:
    """asyncio.wait sorts threadlets into done and pending, by every condition that it knows."""

    async def main() -> None:
        handles = {start(1), start(2)}
        never = threadlet(forever)()
        done, pending = await asyncio.wait(handles)
        assert (done, pending) == (handles, set())
        done, pending = await asyncio.wait({*handles, never}, return_when=asyncio.FIRST_COMPLETED)
        assert (done, pending) == (handles, {never})
        failing = fail_later()
        done, pending = await asyncio.wait({failing, never}, return_when=asyncio.FIRST_EXCEPTION)
        assert (done, pending) == ({failing}, {never})
        assert isinstance(failing.exception(), ValueError)
        done, pending = await asyncio.wait({never}, timeout=0)
        assert (done, pending) == (set(), {never})
        never.cancel()

    run(main)


@each
def test_wait_for(run: Run, start: Start) -> None:
    """wait_for gives the result in time, and otherwise cancels the threadlet and raises TimeoutError."""

    async def main() -> None:
        assert await asyncio.wait_for(start(1), 30) == 1
        async with Pool(Concurrency(1)) as pool:
            suspended, queued = pool.start(forever), pool.start(forever)
            for handle in (queued, suspended):
                for timeout in (0, 0.001):
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(handle if not handle.done() else threadlet(forever)(), timeout)
                assert handle.cancelled()
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    run(main)


def test_wait_for_lets_a_worker_finish(run: Run) -> None:
    """A function on a worker cannot be interrupted: the timeout comes once it has stopped; its result is dropped."""
    gate = Gate()

    async def main() -> None:
        handle = threadlet(contract=ON_WORKER)(gate)("dropped")
        waiting = asyncio.create_task(asyncio.wait_for(handle, 0.001))
        gate.wait_arrived()
        asyncio.get_running_loop().call_later(0.01, gate.open)
        with pytest.raises(TimeoutError):
            await waiting
        assert handle.cancelled()

    run(main)


@pytest.mark.parametrize("state", ["queued", "missed", "running"])
def test_shield(run: Run, state: str) -> None:
    """A shielded threadlet outlives the cancel of who waits for it, and its result can still be had."""
    gate = Gate()

    async def main() -> None:
        pool = Pool(Concurrency(1))
        released = asyncio.get_running_loop().create_future()

        async def wait() -> Any:
            return await released

        if state == "queued":
            pool.start(wait)
        function = threadlet(contract=ON_WORKER)(lambda: gate("saved")) if state == "running" else wait
        handle = pool.start(function)
        if state == "running":
            gate.wait_arrived()
        assert handle.state == state
        task = asyncio.create_task(shielded(handle))
        await rounds()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not handle.done()
        gate.open()
        released.set_result("saved")
        assert await asyncio.shield(handle) == "saved"
        assert await asyncio.shield(handle) == "saved"  # when it is done, too
        await pool.drain()

    async def shielded(handle: Threadlet[Any]) -> Any:
        return await asyncio.shield(handle)

    run(main)


@each
def test_as_completed(run: Run, start: Start) -> None:
    """as_completed gives every threadlet's result, once."""

    async def main() -> None:
        results = [await each for each in asyncio.as_completed([start(1), start(2), identity_later(3)])]
        assert sorted(results) == [1, 2, 3]

    run(main)


def test_run_until_complete_takes_a_handle(run: Run) -> None:
    """A loop can be run until a threadlet is final: its result is returned, its exception raised."""
    loop = run.new_loop()
    handles: list[Threadlet[Any]] = []
    loop.call_soon(lambda: handles.extend([identity_later(5), identity_on_worker(6), fail_later()]))
    loop.run_until_complete(asyncio.sleep(0))
    assert loop.run_until_complete(handles[0]) == 5
    assert loop.run_until_complete(handles[1]) == 6
    with pytest.raises(ValueError, match="later"):
        loop.run_until_complete(handles[2])
    assert loop.run_until_complete(handles[0]) == 5
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@each
def test_children_of_a_task_group_await_handles(run: Run, start: Start) -> None:
    """In a TaskGroup, children that await threadlets end with them, and are cancelled with them."""

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(await_it(start(number))) for number in range(5)]
        assert [task.result() for task in tasks] == list(range(5))
        never = threadlet(forever)()
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(await_it(never))
                group.create_task(await_it(fail_later()))
        assert [repr(error) for error in caught.value.exceptions] == ["ValueError('later')"]
        assert never.cancelled()

    async def await_it(handle: Threadlet[Any]) -> Any:
        return await handle

    run(main)


@pytest.mark.parametrize("state", ["queued", "missed", "running"])
def test_cancelling_who_awaits_cancels_the_threadlet(run: Run, state: str) -> None:
    """As with tasks: cancelling a task cancels what it awaits, and its CancelledError comes when that has stopped."""
    gate = Gate()

    async def main() -> None:
        pool = Pool(Concurrency(1))
        if state == "queued":
            pool.start(forever)
        handle = pool.start(threadlet(contract=ON_WORKER)(gate) if state == "running" else forever)
        if state == "running":
            gate.wait_arrived()

        async def wait() -> Any:
            with pytest.raises(asyncio.CancelledError, match="reason") as caught:
                await handle
            raise caught.value

        task = asyncio.create_task(wait())
        await rounds()
        task.cancel("reason")
        await rounds()
        assert task.done() is (state != "running")
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert handle.cancelled()
        with pytest.raises(asyncio.CancelledError, match="reason"):
            handle.result()
        await pool.aclose()

    run(main)


@pytest.mark.parametrize("fails", [False, True])
def test_who_awaits_goes_on_after_the_handle_is_final(run: Run, fails: bool) -> None:
    """Whenever the await begins, also in the very round in which the coroutine ends, the handle is final after it."""

    async def step(rounds_before: int) -> None:
        await rounds(rounds_before)
        if fails:
            raise ValueError

    async def watch(handle: Threadlet[None], rounds_before: int) -> None:
        await rounds(rounds_before)
        await asyncio.gather(look(handle), return_exceptions=False)

    async def look(handle: Threadlet[None]) -> None:
        try:
            await handle
        except ValueError:
            assert fails
        assert handle.done()
        assert (handle.state == "failed") is fails

    async def main() -> None:
        for before in range(1, 5):
            for after in range(6):
                handle = threadlet(step)(before)
                await asyncio.create_task(watch(handle, after))

    run(main)


def test_cancelled_handles_wait_for_their_cleanup(run: Run) -> None:
    """``cancelled()`` becomes true only when the coroutine has stopped, its ``finally`` included."""

    async def main() -> None:
        cleaned = asyncio.get_running_loop().create_future()
        steps: list[str] = []

        async def tidy() -> None:
            try:
                await forever()
            finally:
                await cleaned
                steps.append("clean")

        handle = threadlet(tidy)()
        assert handle.cancel()
        await rounds()
        assert not handle.done() and not handle.cancelled()
        cleaned.set_result(None)
        await until(handle.cancelled)
        assert steps == ["clean"]

    run(main)


def test_whether_it_was_asked_to_stop(run: Run) -> None:
    """It says so at once, and for good; what has raised a CancelledError by itself was not."""

    def give_up() -> None:
        raise asyncio.CancelledError("by itself")

    async def main() -> None:
        waits = Pool().start(asyncio.sleep, 3600)
        itself = Pool().start(give_up)
        assert waits.cancelling() == 0
        waits.cancel("enough")
        assert waits.cancelling() == 1
        await asyncio.wait([waits, itself])  # type: ignore[type-var]
        assert (waits.cancelled(), waits.cancelling()) == (True, 1)
        assert (itself.cancelled(), itself.cancelling()) == (True, 0)

    run(main)
