"""Closing a pool, or its loop: what may finish, what is cancelled, and who is named because he does not stop."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import ON_WORKER, Gate, ended, forever, rounds, until
from threadlets import Concurrency, EventLoop, Pool, defer, departures, errors, holding, threadlet
from threadlets import run as run_program

SHORT = 0.01  # seconds


@pytest.fixture
def quick_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have those that do not stop named soon."""
    monkeypatch.setattr(departures, "SAY_SECONDS", SHORT)


@threadlet
async def until_set(event: asyncio.Event) -> str:
    await event.wait()
    return "finished"


def test_what_is_queued_never_runs(run: Run) -> None:
    """``aclose(finish=inf)``: what runs finishes; what is queued is cancelled at once, and nothing more is let in."""

    async def main() -> None:
        event, pool = asyncio.Event(), Pool(Concurrency(1))
        first, second = pool.start(until_set, event), pool.start(until_set, event)
        closing = asyncio.create_task(pool.aclose(finish=float("inf")))
        await rounds()
        assert second.cancelled() and not first.done() and not closing.done()
        with pytest.raises(errors.PoolClosed):
            pool.start(until_set, event)
        event.set()
        await closing
        assert first.result() == "finished"

    run(main)


def test_what_does_not_finish_is_cancelled(run: Run) -> None:
    """``aclose(finish=...)``: after that time the rest is cancelled."""

    async def main() -> None:
        event, pool = asyncio.Event(), Pool()
        slow, quick = pool.start(forever), pool.start(until_set, event)
        event.set()
        await pool.aclose(finish=0.5)
        assert quick.result() == "finished"
        error = await ended(slow)
        assert isinstance(error, CancelledError) and "was closed" in str(error)

    run(main)


def test_who_does_not_stop_in_time(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """``aclose(timeout=...)``: an error tells who is left; stderr, what it does; it can be waited for again."""

    async def main() -> None:
        gate, pool = Gate(), Pool(name="files")

        def blocks() -> None:
            with holding("the last write"):
                gate()

        handle = pool.start(threadlet(contract=ON_WORKER)(blocks))
        await asyncio.to_thread(gate.wait_arrived)
        with pytest.raises(errors.CloseTimeout, match="<Threadlet blocks running>") as caught:
            await pool.aclose(timeout=SHORT)
        assert isinstance(caught.value, TimeoutError) and "'files'" in str(caught.value)
        assert handle in pool
        gate.open()
        await pool.aclose()
        assert handle.cancelled()

    run(main)
    said = capsys.readouterr().err
    assert "inside of holding('the last write')" in said and f'File "{__file__}"' in said and "gate()" in said


@pytest.mark.usefixtures("quick_to_say")
@pytest.mark.parametrize("way", ["aclose", "scope"])
def test_who_takes_long_is_named(run: Run, way: str, capfd: pytest.CaptureFixture[str]) -> None:
    """While a pool waits for those that it has cancelled, stderr tells for whom, and where they are."""
    said = []

    async def main() -> None:
        go, pool = asyncio.Event(), Pool()

        async def close() -> None:
            await inner()

        async def inner() -> None:
            await go.wait()

        async def cleans() -> None:
            defer(close)
            await forever()

        async def leave() -> None:
            async with pool:
                pool.start(cleans)
                raise KeyError

        if way == "scope":
            leaving = asyncio.create_task(leave())
        else:
            pool.start(cleans)
            leaving = asyncio.create_task(pool.aclose())
        async with asyncio.timeout(20):
            while "still waiting" not in "".join(said):
                await asyncio.sleep(SHORT)
                said.append(capfd.readouterr().err)
        go.set()
        if way == "scope":
            with pytest.raises(KeyError):
                await leaving
        else:
            await leaving

    run(main)
    text = "".join(said)
    assert "<Threadlet cleans cleaning>" in text
    assert text.index("in close") < text.index("in inner")  # the whole chain of those that await


def test_a_cancelled_aclose_has_cancelled(run: Run) -> None:
    """A cancel of ``aclose`` ends the wait, not the closing."""

    async def main() -> None:
        event, pool = asyncio.Event(), Pool()
        handle = pool.start(until_set, event)
        closing = asyncio.create_task(pool.aclose(finish=float("inf")))
        await rounds()
        closing.cancel()
        with pytest.raises(CancelledError):
            await closing
        assert isinstance(await ended(handle), CancelledError)
        await until(lambda: not len(pool))

    run(main)


def test_a_loop_leaves_behind_who_does_not_stop(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A loop that is shut down waits for so long, and says whom it has left."""
    gate = Gate()
    loop = run.new_loop()

    async def main() -> Any:
        handle = threadlet(contract=ON_WORKER)(gate)()
        await asyncio.to_thread(gate.wait_arrived)
        assert handle.pool is not None
        handle.pool._home.patience = SHORT

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    gate.open()
    assert "leaves them behind:\n  <Threadlet Gate running>" in capsys.readouterr().err


def test_who_ends_may_start_more(run: Run) -> None:
    """What a threadlet starts in another pool while it is cancelled is ended, too."""
    ends: list[str] = []

    async def last() -> None:
        try:
            await forever()
        finally:
            ends.append("last")

    @threadlet
    async def first() -> None:
        try:
            await forever()
        finally:
            Pool().start(last)
            ends.append("first")

    async def main() -> None:
        first()

    run(main)
    assert ends == ["first", "last"]


def test_no_time_at_all(run: Run) -> None:
    """With ``timeout=0`` what ends as soon as it is told is not taken for one that does not."""

    async def main() -> None:
        pool = Pool()
        pool.start(forever)
        await pool.aclose(timeout=0)

    run(main)


def test_a_pool_is_closed_from_within(run: Run) -> None:
    """A threadlet that would wait for itself to finish is told so; one that closes its pool is cancelled."""

    async def main() -> None:
        pool = Pool()

        async def closes(finish: float) -> None:
            await asyncio.sleep(0)
            await pool.aclose(finish=finish)

        with pytest.raises(RuntimeError, match="wait for itself"):
            await pool.start(closes, float("inf"))
        assert isinstance(await ended(pool.start(closes, 0.0)), CancelledError)

    run(main)


def test_run_gives_back_what_main_returns() -> None:
    """``run`` returns, or raises, what main does, on any loop."""

    async def main(value: object) -> object:
        threadlet(forever)()
        if isinstance(value, Exception):
            raise value
        return value

    for loop in ("asyncio", asyncio.new_event_loop, EventLoop):
        assert run_program(main(3), loop=loop) == 3  # type: ignore[arg-type]
        with pytest.raises(KeyError):
            run_program(main(KeyError()), loop=loop)  # type: ignore[arg-type]


def test_bad_arguments() -> None:
    """What is no coroutine, no loop or no time is refused, and the coroutine is not left alone."""
    for options, error in [
        ({"finish": -1}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"loop": "trio"}, ValueError),
    ]:
        with pytest.raises(error):
            run_program(rounds(), **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a coroutine"):
        run_program(rounds)  # type: ignore[arg-type]

    async def main() -> None:
        with pytest.raises(RuntimeError, match="await the coroutine there"):
            run_program(rounds())
        for options, error in [({"finish": -1}, ValueError), ({"timeout": None}, TypeError)]:
            with pytest.raises(error):
                await Pool().aclose(**options)  # type: ignore[arg-type]

    asyncio.run(main())
