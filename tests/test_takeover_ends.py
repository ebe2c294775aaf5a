"""How loops end while somebody is away: nothing is lost, home alone leaves run_forever, mistakes harm nobody else."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from typing import Any

import pytest

from tests.conftest import Run
from tests.support import eventually
from tests.takeovers import Away, at_home, token_of
from tests.workbench import PATIENCE, Gate, until
from threadlets import blocking, call_async, takeover
from threadlets.claims import Claim


@pytest.fixture
def loop(hands: Run) -> Any:
    """Make a loop that the test runs itself, and close it."""
    loop = hands.new_loop()
    yield loop
    loop.close()


class Region:
    """A callback that is away until it is let go, and notes when it has ended."""

    def __init__(self, order: list[Any], name: str = "region") -> None:
        self.gate = Gate()
        self._order, self._name = order, name

    def __call__(self) -> None:
        with blocking():
            self.gate()
        self._order.append(self._name)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt("by hand")], ids=["exit", "interrupt"])
def test_exit_on_a_spare(loop: Any, error: BaseException) -> None:
    """What ends a callback on a spare for good is what home leaves run_forever with, when its own step has ended."""
    order: list[Any] = []
    region = Region(order)

    def end() -> None:
        region.gate.wait_arrived()
        order.append(at_home())
        loop.call_soon(region.gate.open)
        raise error

    def let_go() -> None:  # a spare runs no callbacks any more
        eventually(lambda: token_of(loop)._carried or loop.is_closed() or stopping(loop))
        region.gate.open()

    loop.call_soon(region)
    loop.call_soon(end)
    loop.call_soon(order.append, "later")
    thread = threading.Thread(target=let_go)
    thread.start()
    with pytest.raises(type(error)) as caught:
        loop.run_forever()
    thread.join()
    assert caught.value is error
    assert order[:2] == [False, "region"]
    assert token_of(loop).home == threading.get_ident()
    assert not loop.is_running()
    assert asyncio._get_running_loop() is None
    loop.run_until_complete(asyncio.sleep(0))
    assert order == [False, "region", "later"], "nothing is lost"
    token_of(loop)._check()


def stopping(loop: Any) -> bool:
    return bool(token_of(loop).driver.stopping())


def test_exit_out_of_a_task_on_a_spare(hands: Run) -> None:
    """A task that exits on a spare ends the program as one at home does: the others are cancelled and cleaned up."""
    order: list[Any] = []

    async def leave(gate: Gate) -> None:
        order.append(at_home())
        threading.Timer(0.005, gate.open).start()
        raise SystemExit(4)

    async def wait() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            order.append("cleaned up")

    async def main() -> None:
        away = Away()
        other = asyncio.create_task(wait())
        task = await away.__aenter__()
        await asyncio.wait([task, other, asyncio.create_task(leave(away.gate))])

    with pytest.raises(SystemExit, match="4"):
        hands(main)
    hands.told()  # asyncio tells of the task whose SystemExit nobody has retrieved
    assert order == [False, "cleaned up"]


def test_exit_after_a_region(loop: Any) -> None:
    """What a step raises when it is back leaves run_forever as ever, with everybody else who is away."""
    order: list[Any] = []
    other = Region(order, "other")

    def leave() -> None:
        with blocking():
            other.gate.wait_arrived()
        thread.start()
        order.append(threading.get_ident() == token_of(loop).home)
        raise SystemExit(5)

    thread = threading.Timer(0.01, other.gate.open)  # home leaves while it is away, or after that
    loop.call_soon(leave)
    loop.call_soon(other)
    with pytest.raises(SystemExit, match="5"):
        loop.run_forever()
    assert sorted(order, key=str) == [True, "other"]
    loop.run_until_complete(asyncio.sleep(0))


@pytest.mark.parametrize("place", ["home", "spare", "thread"])
def test_stop_while_home_is_away(loop: Any, place: str) -> None:
    """stop() by anybody ends run_forever when home's step has ended; what was ready waits for the next run."""
    order: list[Any] = []
    region = Region(order)

    def stop() -> None:
        region.gate.wait_arrived()
        if place == "spare":
            loop.stop()
        elif place == "thread":
            threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,)).start()

    def let_go() -> None:
        eventually(lambda: stopping(loop))
        region.gate.open()

    if place == "home":
        loop.call_soon(loop.stop)
    loop.call_soon(region)
    loop.call_soon(stop)
    thread = threading.Thread(target=let_go)
    thread.start()
    loop.run_forever()
    thread.join()
    assert order == ["region"]
    assert loop.statistics().away == 0
    assert not loop.is_running()
    loop.call_soon(order.append, "next")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert order == ["region", "next"]
    token_of(loop)._check()


def test_main_ends_first(hands: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """asyncio.run waits for regions of other tasks, says for whom, and cancels these tasks when they are back."""
    order: list[str] = []
    monkeypatch.setattr(takeover, "SAY_SECONDS", 0.005)
    aways: list[Away] = []

    async def block(gate: Gate) -> None:
        try:
            with blocking():
                gate()
            order.append("region")
            await asyncio.sleep(100)
        finally:
            order.append("finally")

    async def main() -> str:
        gates.extend([Gate(), Gate()])
        for number, gate in enumerate(gates):
            tasks.append(asyncio.create_task(block(gate), name=f"blocks-{number}"))
        await asyncio.sleep(0)
        for gate in gates:
            await until(lambda gate=gate: gate._arrived.acquire(blocking=False))
        thread.start()
        return "main"

    def let_go() -> None:
        eventually(lambda: caplog.text.count("waits for") >= 2)
        for gate in gates:
            gate.open()

    gates: list[Gate] = []
    tasks: list[asyncio.Task[None]] = []
    thread = threading.Thread(target=let_go)
    with caplog.at_level(logging.WARNING, "threadlets"):
        assert hands(main) == "main"
    thread.join()
    assert not aways
    assert sorted(order) == ["finally"] * 2 + ["region"] * 2
    assert all(task.cancelled() for task in tasks)
    assert "an event loop waits for task 'blocks-" in caplog.text
    assert "threading.py:" in caplog.text, "the innermost line that is not ours"


def test_main_ends_while_a_region_waits_for_the_loop(hands: Run) -> None:
    """A region that waits in call_async is no hindrance: what it waits for is cancelled, and that is what it raises."""
    order: list[str] = []

    async def block() -> None:
        try:
            with blocking():
                call_async(asyncio.sleep, 1)
        except asyncio.CancelledError:
            order.append("cancelled")
            raise

    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        tasks.append(asyncio.create_task(block()))
        await asyncio.sleep(0)

    hands(main)
    assert order == ["cancelled"]


def test_call_async_when_the_loop_is_to_stop_already(hands: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A region that was away when main ended, and only then calls back, is cancelled just so."""
    monkeypatch.setattr(takeover, "SAY_SECONDS", 1000.0)  # who waits looks again then
    order: list[str] = []

    async def block() -> None:
        with blocking():
            eventually(lambda: stopping(loop))
            try:
                call_async(asyncio.sleep, 1)
            except asyncio.CancelledError:
                order.append("cancelled")

    async def main() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        tasks.append(asyncio.create_task(block()))
        await asyncio.sleep(0)

    loop: Any = None
    tasks: list[asyncio.Task[None]] = []
    hands(main)
    assert order == ["cancelled"]


class Alarm(Exception):
    """Raised by a signal handler."""


def test_signal_handler_raises_while_home_waits_for_the_token(loop: Any) -> None:
    """What it raises comes out of run_forever once home has the token, and whoever had it has ended its step."""
    order: list[str] = []

    def handler(*_: object) -> None:
        if not raised.is_set():
            raised.set()
            raise Alarm

    async def block(gate: Gate, then: Gate) -> None:
        with blocking():
            gate()
        then()  # no region: home waits for the end of this step
        order.append("step")

    def interrupt() -> None:
        gates[3].wait_arrived()
        eventually(lambda: sys._current_frames()[home].f_code is Claim.wait.__code__)
        while not raised.wait(0.001):  # one that comes just before the wait is handled with the next one only
            signal.pthread_kill(home, signal.SIGUSR1)
        gates[3].open()

    async def main() -> None:
        gates[1].open()
        tasks = [asyncio.create_task(block(*gates[:2])), asyncio.create_task(block(*gates[2:]))]
        await asyncio.sleep(0)
        gates[0].open()
        await tasks[0]
        thread.start()
        gates[2].open()
        await asyncio.wait(tasks)

    raised, home = threading.Event(), threading.get_ident()
    gates = [Gate() for _ in range(4)]
    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGUSR1, handler)
    task = loop.create_task(main())
    try:
        with pytest.raises(Alarm):
            loop.run_forever()
    finally:
        signal.signal(signal.SIGUSR1, before)
    thread.join()
    assert order == ["step", "step"]
    loop.run_until_complete(task)
    token_of(loop)._check()


def test_run_again_in_another_thread(loop: Any) -> None:
    """A loop may have another home in each run; the one that runs it now is it."""

    async def main() -> bool:
        async with Away():
            assert not at_home()
        return at_home()

    assert loop.run_until_complete(main())
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(loop.run_until_complete(main())))
    thread.start()
    thread.join(PATIENCE)
    assert found == [True]
    assert loop.run_until_complete(main())


def test_close_ends_the_spares(hands: Run) -> None:
    """When the loop is closed its spares end, also those on the bench."""
    loop: Any = hands.new_loop()

    async def main() -> None:
        async with Away(), Away():
            pass

    loop.run_until_complete(main())
    name = token_of(loop).spares._name
    assert any(thread.name == name for thread in threading.enumerate())
    loop.close()
    eventually(lambda: all(thread.name != name for thread in threading.enumerate()))


def test_no_thread_can_be_started(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without threads regions stall the loop and nothing else; with the next thread takeovers go on."""
    really = threading.Thread.start
    refused: list[threading.Thread] = []

    def refuse(thread: threading.Thread) -> None:
        if not thread.name.startswith("threadlets-spare"):
            really(thread)
            return
        refused.append(thread)
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with blocking():
                pass
        assert len(refused) == 3
        with blocking():
            with pytest.raises(RuntimeError, match="no thread can be started"):
                call_async(asyncio.sleep, 0)
            assert asyncio._get_running_loop() is None
        assert asyncio.current_task() is not None
        token_of(loop)._check()
        monkeypatch.setattr(threading.Thread, "start", really)
        async with Away():
            monkeypatch.setattr(threading.Thread, "start", refuse)
            gate = Gate()
            gate.open()
            async with Away(gate=gate):
                pass
        monkeypatch.setattr(threading.Thread, "start", really)
        async with Away(), Away():
            pass

    loop.run_until_complete(main())
    assert loop.statistics().away == 0
