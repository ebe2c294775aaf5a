"""The virtual clock: time passes when everybody waits for it, and holds still or goes its pace otherwise."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic, monotonic_ns

import pytest

from threadlets import Contract, Pool, Rate, blocking, call_async, offload, threadlet, trials
from threadlets.adapters.pytest_clock import VirtualClock
from threadlets.errors import CloseTimeout, DeadlineExceeded

from .conftest import run_on
from .plugins import suite

pytest_plugins = ["pytester"]

ALWAYS = Contract(blocks="always")
Test = Callable[[VirtualClock], Awaitable[None]]


@pytest.fixture(params=["asyncio", "asyncio-debug", "hands"])
def turn(request: pytest.FixtureRequest) -> Iterator[Callable[[Test], float]]:
    """Return what calls a coroutine function with a clock that its loop goes by, and says how long it really took."""
    runs = run_on(request.param)
    run = next(runs)

    def timed(test: Test) -> float:
        async def main() -> None:
            clock = VirtualClock()
            with clock.running(asyncio.get_running_loop()):
                await test(clock)

        began = monotonic()
        with asyncio.Runner(loop_factory=run.new_loop, debug=run.debug) as runner:
            runner.run(main())  # not run(main): that has an alarm, and time would leap there
        return monotonic() - began

    yield timed
    next(runs, None)


@threadlet
async def pause(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


def test_sleeps_end_at_once_and_in_order(turn: Callable[[Test], float]) -> None:
    """Whoever sleeps less wakes first, and sees the time that it should be; days take no time."""

    async def test(clock: VirtualClock) -> None:
        loop, woken = asyncio.get_running_loop(), []
        began = loop.time()

        async def sleeper(seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken.append((seconds, round(loop.time() - began, 6)))

        await asyncio.gather(*map(sleeper, (3600, 0.5, 200_000, 60)))
        assert woken == [(0.5, 0.5), (60, 60), (3600, 3600), (200_000, 200_000)]
        assert clock.elapsed == pytest.approx(200_000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(50):
                await asyncio.Event().wait()
        assert clock.elapsed == pytest.approx(200_050)
        loop.call_later(10, woken.clear)
        clock.advance(9.9)
        await asyncio.sleep(0)
        assert woken
        clock.advance(0.1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not woken

    assert turn(test) < 20


def test_pools_go_by_it(turn: Callable[[Test], float]) -> None:
    """So do rates, deadlines, ages, aging, and the times that a pool is given to close."""

    async def test(clock: VirtualClock) -> None:
        async with Pool(Rate(2, per=60)) as pool:
            handles = [pool.start(pause, 0) for _ in range(9)]
            late = pool.start(pause, 0, deadline=100)
            await asyncio.gather(*handles)
            assert clock.elapsed == pytest.approx(8 * 30)
            assert handles[-1].age == pytest.approx(240, abs=1)
            with pytest.raises(DeadlineExceeded):
                await late
            running = pool.start(pause, 3600, deadline=1000)
            with pytest.raises(DeadlineExceeded):
                await running
            assert clock.elapsed == pytest.approx(270 + 1000, abs=31)
        pool = Pool(Rate(1, per=100), aging=10.0)
        order: list[str] = []
        pool.start(pause, 0)
        pool.start(pause, 0, priority=50).add_done_callback(lambda _: order.append("old"))
        await asyncio.sleep(550)
        assert order
        pool = Pool()
        pool.start(pause, 400)
        began = clock.elapsed
        await pool.aclose(finish=1000)
        assert clock.elapsed - began == pytest.approx(400)

    assert turn(test) < 20


def test_whoever_works_holds_it_up(turn: Callable[[Test], float]) -> None:
    """While a worker, a call in an executor or a region is at it, an hour does not pass."""

    async def test(clock: VirtualClock) -> None:
        async with asyncio.timeout(1800):
            await threadlet(contract=ALWAYS)(time.sleep)(0.01)
            await asyncio.to_thread(time.sleep, 0.01)
            with blocking():
                time.sleep(0.01)
            with clock.held():
                came = asyncio.Event()
                threading.Timer(0.01, asyncio.get_running_loop().call_soon_threadsafe, [came.set]).start()
                await came.wait()
        assert clock.elapsed < 1800

    assert turn(test) < 20


def test_whoever_waits_for_the_loop_does_not(turn: Callable[[Test], float]) -> None:
    """A worker that waits in call_async, and a coroutine that is away, sleep as long as they like."""

    async def test(clock: VirtualClock) -> None:
        @threadlet(contract=ALWAYS)
        def away() -> float:
            return call_async(asyncio.sleep, 3600, 1.0)

        assert await away() == 1.0
        async with offload() as trip:
            async with trip.home():
                await asyncio.sleep(3600)
        assert clock.elapsed >= 7200

    assert turn(test) < 20


def test_a_region_may_wait_for_a_timer(hands_clock: VirtualClock) -> None:
    """On a loop that changes hands, call_async in a region lets the time leap, too."""

    async def main() -> None:
        with blocking():
            call_async(asyncio.sleep, 3600)
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.02)  # closing the loop waits for that

    with asyncio.Runner(loop_factory=hands_clock.new_event_loop) as runner:
        runner.run(main())
    assert hands_clock.elapsed >= 3600


@pytest.fixture
def hands_clock() -> VirtualClock:
    """Return a clock by which no loop goes yet."""
    return VirtualClock()


def test_threads_of_anyio_hold_it_up(turn: Callable[[Test], float]) -> None:
    """Under whatever limiter, and whenever anyio was imported."""

    async def test(clock: VirtualClock) -> None:
        anyio = pytest.importorskip("anyio")
        to_thread = pytest.importorskip("anyio.to_thread")
        with anyio.fail_after(100):
            await to_thread.run_sync(time.sleep, 0.01, limiter=anyio.CapacityLimiter(1))
        assert clock.elapsed < 100

    turn(test)


def test_patience_waits_for_others(turn: Callable[[Test], float]) -> None:
    """With patience the time leaps only when really nothing has come for so long."""

    async def test(clock: VirtualClock) -> None:
        loop, came = asyncio.get_running_loop(), asyncio.Event()
        clock.patience = 15.0
        threading.Timer(0.01, loop.call_soon_threadsafe, [came.set]).start()
        async with asyncio.timeout(3600):
            await came.wait()
        assert clock.elapsed < 3600
        clock.patience = 0.0

    assert turn(test) < 10


def test_it_goes_on_and_is_gone_afterwards() -> None:
    """Afterwards the loop is ahead by what has passed, and takes its time again; pools go by the machine's clock."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        selector = loop._selector  # type: ignore[attr-defined]
        clock, called = VirtualClock(), asyncio.Event()
        with clock.running(loop):
            assert trials.now() == clock.now() and repr(clock) == "<VirtualClock: 0.000 s have passed, in 0 leaps>"
            await asyncio.sleep(3600)
            later = loop.time() + 0.01
            loop.call_at(later, called.set)
        assert trials.now is monotonic_ns and loop._selector is selector  # type: ignore[attr-defined]
        assert loop.time() >= later - 0.01
        async with asyncio.timeout(20):
            await called.wait()
        assert loop.time() >= later - 0.001

    asyncio.run(main())


def test_one_loop_for_many_tests() -> None:
    """Each goes on where the one before has ended; a thousand of them leave no more behind than one."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        for _ in range(1100):
            with VirtualClock().running(loop):
                assert loop.time() >= last
                await asyncio.sleep(3600)
                assert (last := loop.time()) >= last
        assert loop.time() >= last

    asyncio.run(main())


def test_a_loop_that_does_not_go_by_it() -> None:
    """For pools there time passes as it does on a wall: they do not wait for ever for a clock that nobody moves."""

    async def main() -> None:
        async with Pool(Rate(1, per=0.01)) as pool:
            for _ in range(3):
                pool.start(pause, 0)

    clock = VirtualClock()
    with clock.running():
        asyncio.run(main())
        assert 0.02 <= clock.elapsed < 100
        before = clock.elapsed
        loop = clock.new_event_loop()
        loop.run_until_complete(asyncio.sleep(3600))
        loop.close()
        assert clock.elapsed >= before + 3600


def test_what_makes_no_sense_is_told() -> None:
    """Time does not go back, and uvloop's is not ours to move."""
    clock = VirtualClock()
    for seconds in (-1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="time does not go back"):
            clock.advance(seconds)
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    try:
        with pytest.raises(RuntimeError, match=r"cannot move uvloop.Loop: the timers of uvloop"):
            with clock.running(loop):
                raise AssertionError("it says that it can")
    finally:
        loop.close()
    assert trials.now is monotonic_ns


def test_a_pool_is_not_patient_for_real() -> None:
    """A pool that waits for one that does not stop gives up after virtual seconds."""

    async def main() -> None:
        @threadlet
        async def stubborn() -> None:
            for _ in range(4):
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    pass

        clock, pool = VirtualClock(), Pool()
        with clock.running(asyncio.get_running_loop()):
            pool.start(stubborn)
            with pytest.raises(CloseTimeout):
                await pool.aclose(timeout=2)
            assert clock.elapsed == pytest.approx(2)
            await pool.drain()

    asyncio.run(main())


SUITE = """
    import asyncio, time, pytest, threadlets

    async def test_ours(virtual_clock):
        await asyncio.sleep(3600)
        assert 3600 <= virtual_clock.elapsed < 3601

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.anyio
    async def test_anyio(virtual_clock):
        import anyio
        with anyio.move_on_after(60):
            await anyio.sleep(3600)
        assert 60 <= virtual_clock.elapsed < 61
        with anyio.fail_after(60):
            await anyio.to_thread.run_sync(time.sleep, 0.01)

    def test_loop_of_its_own(virtual_clock):
        with asyncio.Runner(loop_factory=virtual_clock.new_event_loop) as runner:
            runner.run(asyncio.sleep(3600))
        assert 3600 <= virtual_clock.elapsed < 3601

    async def test_time_starts_anew(virtual_clock):
        assert virtual_clock.elapsed == 0
"""


@pytest.mark.parametrize("loop", [None, "asyncio", "uvloop"])
def test_fixture(pytester: pytest.Pytester, loop: str | None) -> None:
    """Each test has a clock of its own; where uvloop was asked for, a loop of asyncio's is taken, if we may choose."""
    pytest.importorskip("anyio")
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    options = [] if loop is None else [f"--threadlets-loop={loop}"]
    beside = ["-p", "no:asyncio", "-p", "no:hypothesispytest", "-p", "no:xdist"]
    result = suite(pytester, SUITE, *options, beside=beside)
    result.assert_outcomes(passed=3 if loop == "uvloop" else 4, skipped=int(loop == "uvloop"))
