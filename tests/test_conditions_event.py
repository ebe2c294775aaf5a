"""Events: whoever waits goes on when it has happened, on whatever thread and loop, and nobody else does."""

from __future__ import annotations

import asyncio
import threading
from asyncio import CancelledError
from typing import Any

import pytest

from tests.conftest import Run
from tests.waiters import ASKED, KINDS, Stop, in_line, outcome, start
from tests.workbench import forever, rounds
from threadlets import Pool
from threadlets.conditions import Event


def wait(kind: str, event: Event, **options: Any) -> Any:
    """Have somebody of this kind wait for it."""
    return start(kind, event.wait, event.wait_async, **options)


def test_on_a_thread() -> None:
    """On a thread it is used as one of ``threading`` is."""
    event = Event("ready")
    assert not event.is_set() and repr(event) == "<Event 'ready': not set>"
    assert event.wait(0) is False and event.wait(0.001) is False
    event.set()
    event.set()
    assert event.is_set() and repr(event) == "<Event 'ready': set>"
    assert event.wait() is True and event.wait(0) is True and event.wait(float("inf")) is True
    event.clear()
    event.clear()
    assert not event.is_set() and repr(Event()) == "<Event: not set>"
    event._check()


def test_in_a_coroutine(run: Run) -> None:
    """In a coroutine it is used as one of ``asyncio`` is."""

    async def main() -> None:
        event = Event()
        task = wait("task", event)
        await in_line(event, 1)
        assert repr(event) == "<Event: not set, 1 waiting>"
        event.set()
        await task
        await event.wait_async()
        event.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await event.wait_async()
        event._check()

    run(main)


def test_the_wrong_way_round(run: Run) -> None:
    """The call that would stall a loop is an error in a coroutine, the other one outside of it; they say what to do."""
    event = Event()
    event.set()  # it is an error all the same: it would be one some other day

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"wait\(\) of <Event: set> in a coroutine .* use wait_async\(\)"):
            event.wait()

    run(main)
    with pytest.raises(RuntimeError, match=r"wait_async\(\) of <Event: set> outside of a task: .* use wait\(\)"):
        event.wait_async().send(None)
    with pytest.raises(ValueError, match="0 or more seconds"):
        event.wait(-1)
    with pytest.raises(TypeError, match="expected seconds"):
        event.wait("1")  # type: ignore[arg-type]


def test_all_go_on(run: Run) -> None:
    """One call of ``set`` lets all go on, of every kind and of several loops; from a thread as from a coroutine."""
    event = Event()

    async def crowd(ours: bool) -> None:
        waiting = [wait(kind, event) for kind in KINDS * 3]
        if ours:
            await in_line(event, 2 * len(waiting))
            await asyncio.to_thread(event.set)
        results = await asyncio.gather(*waiting)
        assert set(results) == {True, None}

    other = threading.Thread(target=lambda: asyncio.run(crowd(False)))
    other.start()
    run(crowd, True)
    other.join()
    event._check()


def test_set_and_cleared_at_once(run: Run) -> None:
    """Those who waited when it happened go on, although it has been cleared by then; who comes later waits."""

    async def main() -> None:
        event = Event()
        waiting = [wait(kind, event) for kind in KINDS]
        await in_line(event, len(KINDS))
        event.set()
        event.clear()
        late = wait("task", event)
        await asyncio.gather(*waiting)
        await in_line(event, 1)
        assert not late.done() and not event.is_set()
        event.set()
        await late

    run(main)


def test_the_most_urgent_first(run: Run) -> None:
    """They are woken by priority, then in order of arrival; a change of priority counts while they wait."""

    async def main() -> None:
        event, woken = Event(), []
        pool = Pool()

        async def work(name: str) -> None:
            await event.wait_async()
            woken.append(name)

        handles = {}
        for name, priority in [("late", 3), ("first", 1), ("second", 1), ("third", 9)]:
            handles[name] = pool.start(work, name, priority=priority)
        await rounds()
        handles["third"].priority = 2
        event.set()
        await asyncio.gather(*handles.values())
        assert woken == ["first", "second", "third", "late"]

    run(main)


@pytest.mark.parametrize("kind", ASKED)
def test_cancelled(run: Run, kind: str) -> None:
    """Who is cancelled leaves the line, with the reason; the others go on waiting."""

    async def main() -> None:
        event = Event()
        victim, other = wait(kind, event), wait(kind, event)
        await in_line(event, 2)
        victim.cancel("enough")
        error = await outcome(victim)
        assert isinstance(error, CancelledError) and error.args == ("enough",)
        await in_line(event, 1)
        assert not other.done()
        event.set()
        await other
        event._check()

    run(main)


def test_a_wait_is_a_place_to_be_told(run: Run) -> None:
    """A worker that was asked to stop is told when it begins to wait, also for what has happened already."""

    async def main() -> None:
        event, begun, go = Event(), Event(), Event()
        event.set()
        seen = []

        def work() -> None:
            begun.set()
            while not go.is_set():
                pass
            event.wait()
            seen.append("behind")

        handle = start("worker", work, forever)
        await begun.wait_async()
        handle.cancel("no more")
        go.set()
        error = await outcome(handle)
        assert isinstance(error, CancelledError) and error.args == ("no more",)
        assert not seen

    run(main)


def test_timeout_meets_set(run: Run) -> None:
    """A worker's time is up, and before it has left the line it happens: the wait says so.

    worker: its time is up
    worker: is about to leave the line       main: sets, grants it to the worker
    worker: leaves it, in vain, and sees the grant
    """

    async def main() -> None:
        event = Event()
        stop = Stop(event)

        def work() -> bool:
            stop.this_thread()
            return event.wait(0.001)

        worker = start("worker", work, forever)
        await stop.arrived()
        event.set()
        event.clear()
        stop.go()
        assert await worker is True
        event._check()

    run(main)


def test_many_times(run: Run) -> None:
    """Threads that hand two events back and forth miss none of them."""

    async def main() -> None:
        ping, pong = Event(), Event()

        def play(mine: Event, theirs: Event) -> None:
            for _ in range(200):
                assert mine.wait(20)
                mine.clear()
                theirs.set()

        players = start("worker", lambda: play(ping, pong), forever), start("thread", lambda: play(pong, ping), forever)
        await rounds()
        ping.set()
        await asyncio.gather(*players)

    run(main)
