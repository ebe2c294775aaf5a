"""Where a region may be opened, and what becomes of it: a test for each row of ``takeover.CASES``, on both loops."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import Run
from tests.takeovers import Away, at_home, observe, token_of, uvloops
from tests.workbench import ON_WORKER, PATIENCE, until
from threadlets import blocking, threadlet
from threadlets.spares import NEVER
from threadlets.takeover import CASES

Play = Callable[[Run], tuple[str, Any]]


def in_loop(function: Callable[[Any, Callable[[], None]], Any]) -> Play:
    """Make a play of a function that has the region opened in a callback; the callback is given to it."""

    def play(hands: Run) -> tuple[str, Any]:
        async def main() -> tuple[str, Any]:
            loop: Any = asyncio.get_running_loop()
            with blocking():  # start the sentinel: a stall is to be in the user's code, and not in that
                pass
            found: list[str] = []
            before = loop.statistics().takeovers
            ended = function(loop, lambda: found.append(observe(loop)))
            if ended is not None:
                await ended
            await until(lambda: found)
            statistics = loop.statistics()
            return found[0], dataclasses.replace(statistics, takeovers=statistics.takeovers - before)

        return hands(main)

    return play


def in_a_task(loop: Any, callback: Callable[[], None]) -> Any:
    async def call() -> None:
        callback()

    return loop.create_task(call())


def in_a_plain_callback(loop: Any, callback: Callable[[], None]) -> None:
    loop.call_soon(callback)


def in_a_timer(loop: Any, callback: Callable[[], None]) -> None:
    loop.call_later(0.002, callback)


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


async def in_a_descriptors(loop: Any, callback: Callable[[], None]) -> None:
    with pair() as (ours, theirs):
        ended = asyncio.Event()

        def read() -> None:
            ours.recv(10)
            callback()
            loop.remove_reader(ours)
            ended.set()

        loop.add_reader(ours, read)
        theirs.send(b"x")
        await ended.wait()


class Protocol(asyncio.Protocol):
    """Calls something in one of its methods."""

    def __init__(self, method: str, callback: Callable[[], None]) -> None:
        self.calls: list[str] = []
        self.ended = asyncio.Event()
        self._call_in = method, callback

    def _called(self, method: str) -> None:
        if method == self._call_in[0]:
            self._call_in[1]()
        self.calls.append(method)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._called("connection_made")

    def data_received(self, data: bytes) -> None:
        self._called("data_received")

    def eof_received(self) -> None:
        self._called("eof_received")

    def connection_lost(self, error: Exception | None) -> None:
        self._called("connection_lost")
        self.ended.set()


METHODS = ["connection_made", "data_received", "eof_received", "connection_lost"]


def in_a_protocol(method: str) -> Callable[[Any, Callable[[], None]], Any]:
    async def connect(loop: Any, callback: Callable[[], None]) -> None:
        with pair() as (ours, theirs):
            theirs.send(b"x")
            theirs.shutdown(socket.SHUT_WR)
            _, protocol = await loop.create_unix_connection(lambda: Protocol(method, callback), sock=ours)
            await protocol.ended.wait()
            assert protocol.calls == METHODS, "each method is called when the one before has returned"

    return connect


def in_another_region(loop: Any, callback: Callable[[], None]) -> None:
    def outer() -> None:
        with blocking():
            callback()

    loop.call_soon(outer)


async def on_a_worker(loop: Any, callback: Callable[[], None]) -> None:
    await loop.run_in_executor(None, callback)
    assert await threadlet(contract=ON_WORKER)(observe)(loop) == "free"


def on_no_loop(hands: Run) -> tuple[str, Any]:
    loop: Any = hands.new_loop()
    try:
        return observe(loop), loop.statistics()
    finally:
        loop.close()


def when_it_is_to_stop(hands: Run) -> tuple[str, Any]:
    loop: Any = hands.new_loop()
    order = []

    def stop_and_block() -> None:
        loop.call_soon(order.append, "later")
        loop.stop()
        order.append(observe(loop))
        order.append("later" in order)

    loop.call_soon(stop_and_block)
    loop.call_soon(order.append, "next")
    loop.run_forever()
    assert order[1:3] == [False, "next"], "nothing ran before it had ended; then home ended its round"
    assert not loop.statistics().away
    loop.close()
    return order[0], loop.statistics()


def after_it_was_closed(hands: Run) -> tuple[str, Any]:
    loop: Any = hands.new_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    return observe(loop), loop.statistics()


PLAYS: dict[str, Play] = {
    "in a task": in_loop(in_a_task),
    "in a plain callback": in_loop(in_a_plain_callback),
    "in the callback of a timer": in_loop(in_a_timer),
    "in the callback of a file descriptor": in_loop(in_a_descriptors),
    "in a protocol's method": in_loop(in_a_protocol("data_received")),
    "in another region": in_loop(in_another_region),
    "on a worker": in_loop(on_a_worker),
    "on no loop": on_no_loop,
    "when the loop is to stop": when_it_is_to_stop,
    "after the loop was closed": after_it_was_closed,
}


DESCRIPTOR = "in the callback of a file descriptor"  # which owns most of a protocol's methods, too


def test_every_row_is_played() -> None:
    """There is a test for each row of the table, and none for a row that is gone."""
    assert PLAYS.keys() == CASES.keys()


@pytest.mark.parametrize("row", CASES)
def test_row(hands: Run, row: str) -> None:
    """What the table says of a region in this place is what becomes of it, and it is counted as that."""
    expected = CASES[row]
    if row == "in the callback of a timer" and uvloops(hands):
        expected = "stalls"  # uvloop calls it itself
    found, statistics = PLAYS[row](hands)
    assert found == expected
    assert statistics.away == 0
    assert statistics.takeovers == (expected == "taken")
    assert list(statistics.stalls.values()) == [1] * (expected == "stalls")
    if expected == "stalls":
        (stall,) = statistics.stalls
        reason, _, place = stall.partition(", at ")
        assert reason == ("in a callback that uvloop calls itself" if uvloops(hands) else DESCRIPTOR)
        assert place.startswith(observe.__code__.co_filename), "the place is where the user's code blocks"


@pytest.mark.parametrize("method", METHODS)
def test_methods_of_protocols(hands: Run, method: str) -> None:
    """No method of a protocol is taken if another one may follow: it is not called before this one has returned."""
    found, statistics = in_loop(in_a_protocol(method))(hands)
    may_be = method == "connection_lost" and not uvloops(hands)
    assert found == ("taken" if may_be else "stalls")
    assert statistics.takeovers == may_be


def test_signal_handler(hands: Run) -> None:
    """The callback of a signal is a plain one on asyncio's loop; uvloop calls it itself."""

    def send(loop: Any, callback: Callable[[], None]) -> None:
        loop.add_signal_handler(signal.SIGUSR1, callback)
        os.kill(os.getpid(), signal.SIGUSR1)

    found, _ = in_loop(send)(hands)
    assert found == ("stalls" if uvloops(hands) else "taken")


def test_a_region_in_a_region_is_one(hands: Run) -> None:
    """Only the outermost region is watched: however deep they are, one takeover, and the loop is back at its end."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        with blocking():
            assert observe(loop) == "free"
            with blocking():
                with blocking():
                    await_taken(loop)
                assert asyncio._get_running_loop() is None
            assert asyncio._get_running_loop() is None
        assert asyncio.get_running_loop() is loop
        assert loop.statistics().takeovers == 1
        token_of(loop)._check()

    def await_taken(loop: Any) -> None:
        taken = threading.Event()
        loop.call_soon_threadsafe(taken.set)
        assert taken.wait(PATIENCE)

    hands(main)


def test_two_loops_in_two_threads(hands: Run) -> None:
    """Each loop has its own token: both are taken at the same time, and each gets its own thread back."""
    both = threading.Barrier(2)
    found: dict[int, Any] = {}

    async def main(number: int) -> None:
        loop: Any = asyncio.get_running_loop()
        async with Away():
            both.wait(PATIENCE)
            assert not at_home()
            assert loop.statistics().away == 1
            both.wait(PATIENCE)
        assert at_home()
        found[number] = loop.statistics().takeovers

    def run(number: int) -> None:
        with asyncio.Runner(loop_factory=hands.new_loop, debug=hands.debug) as runner:
            runner.run(main(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == {0: 1, 1: 1}


def test_switched_off(hands: Run) -> None:
    """With threshold=inf nothing is taken, counted or watched."""
    first = hands.new_loop()
    first.close()
    loop: Any = type(first)(threshold=float("inf"))

    async def main() -> None:
        with blocking():
            assert token_of(loop).covered == NEVER
        assert token_of(loop).spares._sentinel is None
        assert loop.statistics().threshold == float("inf")

    with asyncio.Runner(loop_factory=lambda: loop, debug=hands.debug) as runner:
        runner.run(main())
