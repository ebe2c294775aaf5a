"""What happens to threadlets is told: what, in which order, in which context; and no listener can do any harm."""

from __future__ import annotations

import asyncio
import threading
from asyncio import CancelledError
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import Gate, until
from threadlets import (
    Chain,
    Concurrency,
    Contract,
    Pool,
    Threadlet,
    arg,
    blocking,
    checkpoint,
    defer,
    events,
    offload,
    threadlet,
)
from threadlets.errors import DeadlineExceeded, Shed
from threadlets.events import Record, subscribe

VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="")
ALWAYS = Contract(blocks="always")


@pytest.fixture(autouse=True)
def nobody_listens() -> Iterator[None]:
    """No test leaves a listener behind."""
    yield
    assert not events.listeners


@threadlet(contract=Contract(blocks="never"))
def add(a: int, b: int) -> int:
    return a + b


@threadlet(contract=ALWAYS)
def add_elsewhere(a: int, b: int) -> int:
    return a + b


@threadlet
async def add_later(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


@threadlet(contract=ALWAYS)
def fail() -> None:
    raise LookupError("nothing there")


class Notes:
    """What was told."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def __call__(self, record: Record) -> None:
        self.records.append(record)

    def of(self, handle: Threadlet[Any] | None) -> list[str]:
        """Return what has happened to one, with the places."""
        found = [record for record in self.records if record.threadlet is handle]
        assert [record.time for record in found] == sorted(record.time for record in found)
        return [f"{record.kind} {record.place}".strip() for record in found]

    def error(self, handle: Threadlet[Any]) -> BaseException | None:
        """Return what one has ended with."""
        (record,) = (each for each in self.records if each.threadlet is handle and each.kind == "ended")
        return record.error


def test_each_road_is_told_from_its_beginning_to_its_end(run: Run) -> None:
    """A plain function in place, on a worker, out of a queue; a coroutine that ends at once, and one that waits."""

    @threadlet
    async def at_once() -> int:
        return 1

    async def main() -> None:
        notes = Notes()
        with subscribe(notes):
            here, there, later, now = add(1, 2), add_elsewhere(1, 2), add_later(1, 2), at_once()
            assert await asyncio.gather(here, there, later, now) == [3, 3, 3, 1]
            async with Pool(Concurrency(1)) as pool:
                first, second, third = pool.start(add_later, 1, 2), pool.start(add, 1, 2), pool.start(add_later, 1, 2)
        assert notes.of(here) == ["began in place", "left", "ended"]
        assert notes.of(there) == ["queued worker", "began worker", "left", "ended"]
        assert notes.of(later) == ["began in place", "missed suspended", "ended"]
        assert notes.of(now) == ["began in place", "ended"]
        assert notes.of(first) == notes.of(later)
        assert notes.of(second) == ["queued pool", "admitted", *notes.of(here)]
        assert notes.of(third) == ["queued pool", "admitted", *notes.of(later)]
        assert not any(map(notes.error, (here, there, later, now, first, second, third)))
        threads = {record.kind: record.thread for record in notes.records if record.threadlet is there}
        assert threads["began"] == threads["left"] != threads["queued"]

    run(main)


def test_what_is_set_at_the_beginning_is_seen_by_the_function_alone(run: Run) -> None:
    """``began`` is told in the context of the function, and ``left`` too: neither the caller nor the loop sees it."""
    tokens: dict[Threadlet[Any], Any] = {}

    def mark(record: Record) -> None:
        if record.kind == "began":
            tokens[record.threadlet] = VARIABLE.set(f"{VARIABLE.get()}/{record.threadlet.entrypoint.name}")
        elif not record.threadlet.entrypoint.is_coroutine:
            VARIABLE.reset(tokens[record.threadlet])

    @threadlet(contract=Contract(blocks="never"))
    def place() -> str:
        return VARIABLE.get()

    @threadlet(contract=ALWAYS)
    def worker() -> tuple[str, str]:
        return VARIABLE.get(), place().result()  # which runs right there

    @threadlet
    async def coroutine() -> list[str]:
        seen = [VARIABLE.get(), await place()]
        await asyncio.sleep(0)
        async with offload():
            seen.append(VARIABLE.get())
        return [*seen, VARIABLE.get()]

    async def main() -> None:
        VARIABLE.set("main")
        with subscribe(mark, "began", "left"):
            async with Pool(Concurrency(1)) as pool:
                many = [pool.start(place) for _ in range(3)] + [pool.start(coroutine), pool.start(place)]
                VARIABLE.set("changed")
            assert await place() == "changed/place"
            assert await worker() == ("changed/worker", "changed/worker/place")
            inside = ["changed/coroutine", "changed/coroutine/place", "changed/coroutine", "changed/coroutine"]
            assert await coroutine() == inside
        assert [await each for each in many[:3]] == ["main/place"] * 3
        assert (await many[3])[0] == "main/coroutine"
        assert VARIABLE.get() == "changed"

    run(main)


def test_a_takeover_is_told_by_who_takes_over_and_by_who_comes_back(hands: Run) -> None:
    """A call in place that blocks has missed; when it has the loop back, it is resumed; so is a region, of nobody."""

    async def main() -> None:
        gate = Gate()

        @threadlet
        def block() -> int:
            gate()
            return threading.get_ident()

        notes = Notes()
        asyncio.get_running_loop().call_later(0.005, gate.open)
        with subscribe(notes):
            handle = block()
            me = await handle
            assert notes.of(handle) == ["began in place", "missed taken over", "resumed", "left", "ended"]
            missed = next(record for record in notes.records if record.kind == "missed")
            assert missed.thread != me
            assert all(record.thread == me for record in notes.records if record.kind != "missed")
            again = Gate()
            asyncio.get_running_loop().call_later(0.005, again.open)
            with blocking():
                again()
            assert notes.of(None) == ["missed taken over", "resumed"]

    hands(main)


def test_what_does_not_end_well_is_told_with_its_error_and_stays_unretrieved(once: Run) -> None:
    """Failures, cancels, what was shed or was too late: the record has the error, and the loop is still told of it."""

    async def main() -> None:
        notes = Notes()
        with subscribe(notes):
            failed = fail()
            await asyncio.wait([failed])
            async with Pool(Concurrency(1), capacity=2, overflow="shed") as pool:
                running = pool.start(asyncio.sleep, 1)
                queued = pool.start(add, 1, 2)
                newcomer = pool.start(add, 1, 2, priority=5)
                late = pool.start(add, 1, 2, deadline=-1)
                queued.cancel("not wanted")
                running.cancel("nor this")
                assert isinstance(late.exception(), DeadlineExceeded)  # or the scope would raise it
        assert notes.of(queued) == ["queued pool", "ended"]
        assert notes.of(newcomer) == notes.of(late) == ["queued pool", "ended"]
        assert isinstance(notes.error(failed), LookupError)
        for each, reason in ((queued, "not wanted"), (running, "nor this")):
            error = notes.error(each)
            assert isinstance(error, CancelledError)
            assert error.args == (reason,)
        assert isinstance(notes.error(newcomer), Shed)
        assert isinstance(notes.error(late), DeadlineExceeded)
        notes.records.clear()

    once(main)
    assert [type(report["exception"]) for report in once.told()] == [LookupError]


def test_moves_and_cleanups_are_told(once: Run) -> None:
    """A coroutine that goes to a worker and home, a threadlet that goes to another pool, and what is deferred."""

    @threadlet
    async def leave() -> None:
        defer(checkpoint)
        async with offload():
            pass

    async def main() -> None:
        notes = Notes()
        with subscribe(notes):
            gone = leave()
            await gone
            other = Pool(name="other")
            async with Pool(Concurrency(1)) as pool:
                pool.start(add_later, 1, 2)
                moved = pool.start(add, 1, 2)
                assert pool.select(state="queued").move(other) == 1
                await moved
        told = notes.of(gone)
        assert sorted(told[:3]) == ["began in place", "missed suspended", "moved worker"]  # on 3.11 in another order
        assert told[3:] == ["moved home", "cleaning", "ended"]
        assert notes.of(moved)[:3] == ["queued pool", "moved 'other'", "admitted"]

    once(main)


def test_an_abandoned_function_has_ended_before_it_is_left(once: Run) -> None:
    """Nobody waits for it, so its end is told first; what was set for it is taken back when it is left."""

    async def main() -> None:
        gate, notes, left = Gate(), Notes(), asyncio.Event()
        loop = asyncio.get_running_loop()

        @threadlet(contract=Contract(blocks="always", cancel="abandon"))
        def hang() -> None:
            gate()

        def tell(record: Record) -> None:
            notes(record)
            if record.kind == "left":
                loop.call_soon_threadsafe(left.set)

        with subscribe(tell):
            handle = hang()
            await until(lambda: handle.state == "running")
            handle.cancel()
            gate.open()
            await left.wait()
        assert notes.of(handle) == ["queued worker", "began worker", "ended", "left"]

    once(main)


def test_equal_calls_and_chains_are_told_as_what_runs(once: Run) -> None:
    """Calls that share a run are that run, once; a chain is a threadlet, and what is left of it on a worker another."""

    @threadlet(contract=Contract(blocks="always", pure=True))
    def square(n: int) -> int:
        return n * n

    chain = Chain().then(add, arg("n"), 1).then(add_elsewhere, 1, 2)

    async def main() -> None:
        notes = Notes()
        with subscribe(notes, "began", "ended"):
            assert await asyncio.gather(*(square(3) for _ in range(5))) == [9] * 5
            assert [record.kind for record in notes.records] == ["began", "ended"]
            notes.records.clear()
            assert await chain(n=1) == 3
            names = [(str(record.kind), record.threadlet.entrypoint.is_coroutine) for record in notes.records]
            assert names == [("began", True), ("began", False), ("ended", False), ("ended", True)]

    once(main)


def test_where_no_loop_runs_it_is_told_too() -> None:
    """A call right here begins, is left, and ends; also one that lets an exit out."""

    @threadlet
    def leave() -> None:
        raise SystemExit(3)

    notes = Notes()
    with subscribe(notes):
        handle = add(1, 2)
        assert handle.result() == 3
        assert notes.of(handle) == ["began right here", "left", "ended"]
        notes.records.clear()
        with pytest.raises(SystemExit):
            leave()
    assert [record.kind for record in notes.records] == ["began", "left", "ended"]
    assert isinstance(notes.records[-1].error, SystemExit)


@pytest.mark.parametrize("error", [ValueError("mine"), CancelledError(), SystemExit(1)], ids=lambda error: repr(error))
@pytest.mark.parametrize("kind", [*events.Kind])
def test_a_listener_that_raises_is_dropped_and_logged(
    kind: str, error: BaseException, once: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it raises, and whenever, nobody else notices: what runs goes on, and other listeners are told."""

    async def main() -> None:
        def broken(record: Record) -> None:
            raise error

        notes = Notes()
        with subscribe(broken, kind) as dropped, subscribe(notes):
            async with Pool(Concurrency(1)) as pool:
                handles = [pool.start(each, 1, 2) for each in (add, add_elsewhere, add_later, add, add_elsewhere)]
            assert [await handle for handle in handles] == [3] * 5
            told = {record.kind for record in notes.records}
            assert (dropped.failure is error) == (kind in told)
            assert sum(record.kind == "ended" for record in notes.records) == 5
        assert len(caplog.records) == (kind in told)

    once(main)


def test_what_a_listener_does_itself_is_not_told(once: Run) -> None:
    """A listener that calls a threadlet does not listen to itself."""

    async def main() -> None:
        notes = Notes()

        def listen(record: Record) -> None:
            notes(record)
            assert add(1, 1).done()

        with subscribe(listen) as subscription:
            handle = add(1, 2)
            assert await handle == 3
        assert notes.of(handle) == ["began in place", "left", "ended"]
        assert len(notes.records) == 3
        assert subscription.failure is None

    once(main)


def test_a_listener_hears_what_it_wants_until_it_is_closed() -> None:
    """Kinds are chosen by their words; two listeners do not disturb each other; closing twice is closing once."""
    ends, everything = Notes(), Notes()
    one = subscribe(ends, "ended")
    with subscribe(everything) as other:
        add(1, 2)
        one.close()
        one.close()
        add(1, 2)
        assert set(events.listeners) == set(events.Kind)
    add(1, 2)
    assert [record.kind for record in ends.records] == ["ended"]
    assert len(everything.records) == 6
    assert other.kinds == set(events.Kind)
    with pytest.raises(TypeError, match="expected a function"):
        subscribe("print")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'begun' is not a valid Kind: expected some of queued, admitted"):
        subscribe(print, "begun")


def test_thousands_on_many_threads_are_told_of_completely(once: Run) -> None:
    """While others subscribe and leave all the time, one listener misses nothing."""

    async def main() -> None:
        notes, stop = Notes(), threading.Event()

        def come_and_go() -> None:
            while not stop.is_set():
                with subscribe(lambda record: None, "began", "left"):
                    pass

        others = threading.Thread(target=come_and_go)
        with subscribe(notes, "began", "left", "ended"):
            others.start()
            try:
                await asyncio.gather(*(add_elsewhere(n, 1) for n in range(2000)))
            finally:
                stop.set()
                others.join()
        assert len(notes.records) == 6000
        assert len({(record.kind, record.threadlet) for record in notes.records}) == 6000

    once(main)
