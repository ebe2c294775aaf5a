"""A wait for a descriptor: what is ready, what ends it besides, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
import time
from asyncio import CancelledError
from pathlib import Path
from typing import Any

import pytest

from tests.bells import Pair, bells, pair, rings, waits
from tests.conftest import Run
from tests.waiters import Step, outcome, start
from tests.workbench import ON_WORKER, Gate, forever, until
from threadlets import Pool, blocking, cancellation, checkpoint, holding, threadlet
from threadlets.descriptors import checkpoint_wait
from threadlets.errors import DeadlineExceeded

__all__ = ["bells", "pair"]  # fixtures


# ---------------------------------------------------------------------------------------------------- what is ready


def test_ready(pair: Pair) -> None:
    """Something to read, room to write, a hang-up, an error: each is told at once, on any thread."""
    near, far = pair
    assert checkpoint_wait(near, 0) is False and checkpoint_wait(near, timeout=0.001) is False
    assert checkpoint_wait(near, write=True) is True
    far.send(b"x")
    assert checkpoint_wait(near) is True and checkpoint_wait(near.fileno(), 0) is True
    assert near.recv(9) == b"x", "it is still there"
    near.setblocking(False)
    while checkpoint_wait(near, 0, write=True):
        near.send(bytes(10_000))
    assert checkpoint_wait(near, 0.001, write=True) is False
    far.close()
    for write in (False, True):
        assert checkpoint_wait(near, write=write, timeout=float("inf")) is True


def test_pipes_and_files(tmp_path: Path) -> None:
    """Pipes' ends, and files, which are always ready."""
    reads, writes = os.pipe()
    assert checkpoint_wait(writes, write=True) and not checkpoint_wait(reads, 0)
    os.close(writes)
    assert checkpoint_wait(reads) and os.read(reads, 1) == b""
    os.close(reads)
    with (tmp_path / "file").open("w") as file:
        assert checkpoint_wait(file, write=True) and checkpoint_wait(file)


def test_what_it_refuses(pair: Pair) -> None:
    """What is no descriptor, is none any more, and times that are none."""
    near, far = pair
    for bad, error, words in [
        (True, TypeError, "True is no descriptor"),
        ("0", TypeError, "expected a descriptor"),
        (1.0, TypeError, "expected a descriptor"),
        (None, TypeError, "expected a descriptor"),
        (-1, ValueError, "-1 is no descriptor; was it closed"),
        (2**40, ValueError, "is no descriptor"),
        (type("Odd", (), {"fileno": lambda self: True})(), TypeError, "True is no descriptor"),
        (type("Odd", (), {"fileno": lambda self: "3"})(), TypeError, "'3' is no descriptor"),
    ]:
        with pytest.raises(error, match=words):
            checkpoint_wait(bad)  # type: ignore[arg-type]
    for bad, error in [(float("nan"), ValueError), (-1, ValueError), (True, TypeError), ("1", TypeError)]:
        with pytest.raises(error, match="timeout="):
            checkpoint_wait(near, bad)  # type: ignore[arg-type]
    number = far.fileno()
    far.close()
    with pytest.raises(ValueError, match="-1 is no descriptor"):
        checkpoint_wait(far)
    with pytest.raises(OSError, match="there is no such descriptor; was it closed") as caught:
        checkpoint_wait(number)
    assert caught.value.errno == 9


def test_in_a_coroutine(run: Run, pair: Pair) -> None:
    """In a coroutine, or a callback, it is an error that says what to use there."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"loop\.sock_recv\(\) and its like, or loop\.add_reader\(\)"):
            checkpoint_wait(pair[0])
        result = asyncio.get_running_loop().create_future()

        def callback() -> None:
            with pytest.raises(RuntimeError, match="would stall it"):
                checkpoint_wait(pair[0], 0)
            result.set_result(None)

        asyncio.get_running_loop().call_soon(callback)
        await result

    run(main)


def test_without_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no ``poll``, it is an error that says so."""
    monkeypatch.delattr(select, "poll")
    with pytest.raises(NotImplementedError, match=r"needs select\.poll"):
        checkpoint_wait(0)


# ---------------------------------------------------------------------------------------------------------- cancels


class Reader:
    """Reads from a socket in a loop, and waits for each piece."""

    def __init__(self, near: socket.socket) -> None:
        self.near = near
        self.read: list[bytes] = []

    def __call__(self) -> None:
        while checkpoint_wait(self.near):
            self.read.append(self.near.recv(1))

    async def in_region(self) -> None:
        await asyncio.sleep(0)
        with blocking():
            self()


def test_a_cancel_reaches_a_recv_loop(run: Run, pair: Pair, bells: list[Any]) -> None:
    """A worker that waits for the next piece is told at once, with the reason; what comes later is left to others."""
    near, far = pair

    async def main() -> None:
        reader = Reader(near)
        handle = start("worker", reader, forever)
        for piece in (b"a", b"b"):
            await waits(handle)
            far.send(piece)
            await until(lambda piece=piece: reader.read[-1:] == [piece])
        await waits(handle)
        handle.cancel("tenant left")
        error = await outcome(handle)
        assert isinstance(error, CancelledError) and error.args == ("tenant left",)
        far.send(b"c")
        assert reader.read == [b"a", b"b"] and near.recv(9) == b"c"

    run(main)
    assert len(bells) == 1 and not rings(bells[0])


def test_in_place_and_in_regions(hands: Run, pair: Pair) -> None:
    """On a loop that changes hands it goes on meanwhile, and may send, or cancel; plain tasks notice as well."""
    near, far = pair

    async def main() -> None:
        reader = Reader(near)
        for kind, stop in (("region", "task"), ("coroutine", "handle"), ("coroutine", "task"), ("in place", "pool")):
            pool = Pool()

            async def drive(pool: Pool, kind: str, stop: str, read: int, victims: list[Any]) -> None:
                await asyncio.sleep(0)
                far.send(b"x")
                await until(lambda: len(reader.read) > read)
                if stop == "pool":
                    pool.cancel("stop")
                elif stop == "task" and kind == "coroutine":
                    victims[0]._task.cancel("stop")
                else:
                    victims[0].cancel("stop")

            victims: list[Any] = []
            driver = asyncio.create_task(drive(pool, kind, stop, len(reader.read), victims))
            if kind == "in place":
                victims.append(pool.start(threadlet(reader)))
            else:
                victims.append(start(kind if kind == "coroutine" else "task", reader, reader.in_region, pool))
            error = await outcome(victims[0])
            assert isinstance(error, CancelledError) and error.args == ("stop",), (kind, stop)
            await driver

    hands(main)


def test_a_deadline(run: Run, pair: Pair) -> None:
    """A deadline ends the wait, as a cancel does."""

    async def main() -> None:
        handle = Pool().start(threadlet(contract=ON_WORKER)(Reader(pair[0])), deadline=0.01)
        assert isinstance(await outcome(handle), DeadlineExceeded)

    run(main)


def test_asked_before_it_waits(run: Run, pair: Pair) -> None:
    """It is a place where a function listens, also if there is something to read, and if it is only to look."""
    near, far = pair
    far.send(b"x")

    async def main() -> None:
        for timeout in (None, 0, 1):
            gate, seen = Gate(), []

            def work(gate: Gate = gate, seen: list[bool] = seen, timeout: float | None = timeout) -> None:
                gate()
                seen.append(checkpoint_wait(near, timeout))

            handle = start("worker", work, forever)
            await asyncio.to_thread(gate.wait_arrived)
            handle.cancel()
            gate.open()
            assert isinstance(await outcome(handle), CancelledError) and not seen

    run(main)


def test_inside_of_holding(run: Run, pair: Pair) -> None:
    """In a ``holding`` the wait goes on; when its grace has run out it ends."""
    near, far = pair

    async def main() -> None:
        seen = []

        def patient() -> None:
            with holding("a message that has begun"):
                seen.append(checkpoint_wait(near))
            checkpoint()
            seen.append(False)

        def slow() -> None:
            with holding("a message that never ends", grace=0.01):
                checkpoint_wait(near)

        handle = start("worker", patient, forever)
        await waits(handle)
        handle.cancel()
        far.send(b"x")
        assert isinstance(await outcome(handle), CancelledError) and seen == [True]
        near.recv(1)
        handle = start("worker", slow, forever)
        await waits(handle)
        handle.cancel("now")
        error = await outcome(handle)
        assert isinstance(error, CancelledError) and error.args == ("now",)

    run(main)


def test_a_function_that_another_one_has_called(run: Run, pair: Pair) -> None:
    """A threadlet that a function on a worker has called, right there, is told what that function is asked."""

    async def main() -> None:
        inner = threadlet(Reader(pair[0]))
        handle = start("worker", lambda: inner().result(), forever)
        await waits(handle)
        handle.cancel("both")
        error = await outcome(handle)
        assert isinstance(error, CancelledError) and error.args == ("both",)

    run(main)


def test_cancel_at_every_step_of_a_wait(run: Run, pair: Pair) -> None:
    """Whatever line the wait is at when it is cancelled, it ends."""

    async def main() -> None:
        number, lines = 0, 20
        while number <= lines:
            step = Step(number, "descriptors", "cancellation")
            handle = start("worker", step.around(Reader(pair[0])), forever)
            await step.arrived()
            handle.cancel()
            step.go()
            assert isinstance(await outcome(handle), CancelledError)
            number, lines = number + 1, max(lines, step.lines)

    run(main)


def test_a_wait_at_every_step_of_a_cancel(pair: Pair) -> None:
    """Whatever line the cancel is at when the wait begins, the wait ends."""

    async def main() -> None:
        number, lines = 0, 10
        while number <= lines:
            gate, step = Gate(), Step(number, "cancellation", "admissions", "handles")

            def work(gate: Gate = gate) -> None:
                gate()
                checkpoint_wait(pair[0])

            handle = start("worker", work, forever)
            await asyncio.to_thread(gate.wait_arrived)

            def let_both_go(gate: Gate = gate, step: Step = step, handle: Any = handle) -> None:
                asyncio.run(step.arrived())
                gate.open()
                for _ in range(50):
                    if handle in cancellation._wakes or handle.done():
                        break
                    time.sleep(0.0001)  # until it waits, or knows already, and has ended
                step.go()

            helper = threading.Thread(target=let_both_go)
            helper.start()
            step.around(handle.cancel)()
            helper.join()
            assert isinstance(await outcome(handle), CancelledError)
            number, lines = number + 1, max(lines, step.lines)

    asyncio.run(main())
