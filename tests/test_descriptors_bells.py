"""What ends a wait for a descriptor: bells are used again, disturb nobody, and none is left open or shared."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import time
from asyncio import CancelledError
from typing import Any

import pytest

from tests.bells import Pair, bells, open_descriptors, pair, rings, waits
from tests.conftest import Run
from tests.takeovers import program
from tests.waiters import outcome, start
from tests.workbench import IN_PLACE, forever, until
from threadlets import Pool, cancellation, descriptors, threadlet
from threadlets.descriptors import FREE, checkpoint_wait

__all__ = ["bells", "pair"]  # fixtures


class Interrupt(Exception):
    """What a signal handler raises."""


def test_a_bell_rings_in_vain(run: Run, pair: Pair, bells: list[Any]) -> None:
    """Who is woken without a reason waits on, as long as he was to wait."""

    async def main() -> None:
        bell = descriptors._Bell.take()
        bell.give_back()  # it will be this one
        for timeout in (0.03, None):
            began = time.monotonic()
            handle = start("worker", lambda timeout=timeout: checkpoint_wait(pair[0], timeout), forever)
            await waits(handle)
            wake = cancellation._wakes[handle]
            for _ in range(10):
                wake()
                await asyncio.sleep(0.0001)
            if timeout is None:
                await until(lambda: not rings(bell))  # it looks for whom, and does not turn round and round
                assert not handle.done()
                pair[1].send(b"x")
                assert await handle is True
            else:
                assert await handle is False
                assert time.monotonic() - began >= timeout

    run(main)
    assert len(bells) == 1 and not rings(bells[0])


def test_a_late_ring(run: Run, pair: Pair, bells: list[Any]) -> None:
    """Who rings for a wait that is over is not heard, whoever has the bell by now, and if it was closed.

    main: takes the wake-up of the first       first: is done, gives the bell back
    main: rings for it                         second: has the same bell
    """
    near, far = pair

    async def main() -> None:
        first = start("worker", lambda: checkpoint_wait(near), forever)
        await waits(first)
        late = cancellation._wakes[first]
        far.send(b"x")
        assert await first is True
        (bell,) = bells
        near.recv(1)
        second = start("worker", lambda: checkpoint_wait(near), forever)
        await waits(second)
        assert not bells
        late()
        assert not rings(bell)
        cancellation._wakes[second]()
        far.send(b"x")
        assert await second is True
        late()
        bells.clear()
        bell.close()
        stranger = os.memfd_create("has the number of the bell now")
        late()
        assert os.fstat(stranger).st_size == 0
        os.close(stranger)

    run(main)


def test_rung_more_often_than_it_holds(bells: list[Any]) -> None:
    """A bell that rings already takes any number of rings, and one look hushes it."""
    bell = descriptors._Bell.take()
    for _ in range(20_000):  # a pipe holds fewer
        bell.ring(bell.turn)
    assert rings(bell)
    bell.hush()
    assert not rings(bell)
    bell.hush()
    bell.ring(bell.turn)
    bell.give_back()
    assert bells == [bell] and not rings(bell)


def test_nothing_is_left_open(run: Run, bells: list[Any]) -> None:
    """Thousands of waits that end in any way leave no descriptor behind but a few bells."""
    sockets = [socket.socketpair() for _ in range(3)]
    sockets[0][1].send(b"x")
    sockets[1][1].close()

    async def main() -> None:
        pool = Pool()

        def work() -> None:
            for _ in range(250):
                assert checkpoint_wait(sockets[0][0]) and checkpoint_wait(sockets[1][0])
                assert not checkpoint_wait(sockets[2][0], 0.00001)
                with pytest.raises(TypeError):
                    checkpoint_wait("x")  # type: ignore[arg-type]
            checkpoint_wait(sockets[2][0])

        await asyncio.to_thread(lambda: None)
        before = open_descriptors()
        handles = [start("worker", work, forever, pool) for _ in range(8)]
        for handle in handles:
            await waits(handle)
            handle.cancel()
            assert isinstance(await outcome(handle), CancelledError)
        each = 1 if hasattr(os, "eventfd") else 2
        assert len(bells) <= 8 and open_descriptors() <= before + each * len(bells)

    run(main)
    for ours, theirs in sockets:
        ours.close()
        theirs.close()


def test_many_at_once(run: Run, pair: Pair, bells: list[Any]) -> None:
    """More threads than bells are kept wait at the same time; each is woken, and what is too much is closed."""

    async def main() -> None:
        pool = Pool()
        await asyncio.to_thread(lambda: None)
        before = open_descriptors()
        handles = [start("worker", lambda: checkpoint_wait(pair[0]), forever, pool) for _ in range(2 * FREE)]
        for handle in handles:
            await waits(handle)
        for handle in handles[::2]:
            handle.cancel()
        for handle in handles[::2]:
            assert isinstance(await outcome(handle), CancelledError)
        assert not any(handle.done() for handle in handles[1::2])
        pair[1].send(b"x")
        assert await asyncio.gather(*handles[1::2]) == [True] * FREE
        each = 1 if hasattr(os, "eventfd") else 2
        assert FREE <= len(bells) <= FREE + 8 and open_descriptors() == before + each * len(bells)

    run(main)


def test_no_descriptor_can_be_had(pair: Pair, bells: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """If the process has no descriptor left for a bell, that is an error at the call."""

    def full(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "eventfd" if hasattr(os, "eventfd") else "pipe", full)

    async def main() -> None:
        with pytest.raises(OSError, match="Too many open files"):
            await start("worker", lambda: checkpoint_wait(pair[0]), forever)
        assert await start("worker", lambda: checkpoint_wait(pair[0], 0), forever) is False

    asyncio.run(main())
    gc.collect()


def test_signals(pair: Pair, bells: list[Any]) -> None:
    """A handler that returns neither ends nor prolongs the wait, one that raises ends it; the bell is not lost."""
    near, far = pair
    seen: list[str] = []

    def interrupt() -> None:
        raise Interrupt

    def wait(timeout: float | None, handler: Any) -> bool:
        signal.signal(signal.SIGALRM, lambda *_: handler())
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        return checkpoint_wait(near, timeout)

    async def main() -> None:
        in_place = threadlet(contract=IN_PLACE)(wait)
        began = time.monotonic()
        assert await in_place(0.03, lambda: seen.append("a")) is False
        assert seen == ["a"] and time.monotonic() - began >= 0.03
        with pytest.raises(Interrupt):
            await in_place(None, interrupt)
        assert await in_place(None, lambda: far.send(b"x")) is True

    before = signal.getsignal(signal.SIGALRM)
    try:
        with pytest.raises(Interrupt):
            wait(None, interrupt)
        asyncio.run(main())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(bells) == 1 and not rings(bells[0])


FORK = """
import select, socket
from threadlets import Contract, threadlet, descriptors
from threadlets.descriptors import checkpoint_wait

near, far = socket.socketpair()

@threadlet(contract=Contract(blocks="never"))
def wait(timeout):
    return checkpoint_wait(near, timeout)

async def main(*timeouts):
    return [await wait(timeout) for timeout in timeouts]

assert asyncio.run(main(0.001)) == [False]
(bell,) = descriptors._free
number = bell.reads
child = os.fork()
if not child:
    assert not descriptors._free and bell.reads == -1
    try:
        os.fstat(number)
    except OSError as error:
        print("closed", flush=True)
    assert asyncio.run(main(0.001)) == [False]
    print(len(descriptors._free), flush=True)
    far.send(b"x")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert descriptors._free == [bell] and bell.reads == number
os.fstat(number)
assert asyncio.run(main(None, 0.001)) == [True, True]
print("parent")
"""


def test_fork() -> None:
    """A forked child has no bell of its parent's, and makes its own; the parent keeps its bells."""
    result = program(FORK, "hands")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["closed", "1", "parent"]


FORK_IN_A_WAIT = """
import signal, socket
from threadlets import Contract, threadlet, descriptors
from threadlets.descriptors import checkpoint_wait

near, far = socket.socketpair()
children = []

@threadlet(contract=Contract(blocks="never"))
def wait():
    return checkpoint_wait(near)

async def main():
    return await wait()

def fork(*_):
    children.append(os.fork())
    if children == [0]:
        far.send(b"x")

signal.signal(signal.SIGALRM, fork)
signal.setitimer(signal.ITIMER_REAL, 0.01)
assert asyncio.run(main()) is True
if children == [0]:
    assert not descriptors._free, "the bell that it has waited with is the parent's, too"
    os._exit(0)
assert os.waitpid(children[0], 0)[1] == 0
assert len(descriptors._free) == 1
print("parent")
"""


def test_fork_in_a_wait() -> None:
    """A signal handler may fork in the middle of a wait: both go on, and the child does not keep that bell."""
    result = program(FORK_IN_A_WAIT, "hands")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["parent"]
