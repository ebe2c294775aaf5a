"""Mailboxes: no letter is lost or delivered twice, and a burst wakes the loop once. The races are forced."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.conftest import Run
from threadlets.mailboxes import Mailbox


class Loop:
    """A loop that goes round when it is told to."""

    def __init__(self) -> None:
        self.scheduled: list[Callable[[], None]] = []
        self.wakes = 0
        self.closed = False

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.wakes += 1
        self.scheduled.append(callback)

    def is_closed(self) -> bool:
        return self.closed

    def go_round(self) -> None:
        scheduled, self.scheduled = self.scheduled, []
        for callback in scheduled:
            callback()


class Hooked(deque[Any]):
    """Letters, with a hook after each append and before each look for more."""

    def __init__(self) -> None:
        super().__init__()
        self.after_append: Callable[[], None] | None = None
        self.before_look: Callable[[], None] | None = None

    def append(self, letter: Any) -> None:
        super().append(letter)
        if (hook := self.after_append) is not None:
            self.after_append = None
            hook()

    def __bool__(self) -> bool:
        there = len(self) > 0
        if not there and (hook := self.before_look) is not None:  # it looked, saw nothing, and is about to say so
            self.before_look = None
            hook()
        return there


def box_of(loop: Loop) -> tuple[Mailbox[int], list[list[int]]]:
    """Return a mailbox and the bursts that it delivers."""
    bursts: list[list[int]] = []
    box: Mailbox[int] = Mailbox(loop, bursts.append)  # type: ignore[arg-type]
    return box, bursts


def test_burst_wakes_once() -> None:
    """Letters posted before the loop goes round are delivered together, in order, for one wake-up; then again."""
    loop = Loop()
    box, bursts = box_of(loop)
    for start in (0, 100):
        assert all(box.post(letter) for letter in range(start, start + 100))
        loop.go_round()
    assert bursts == [list(range(100)), list(range(100, 200))]
    assert loop.wakes == 2
    assert not loop.scheduled


def test_post_while_armed_is_delivered() -> None:
    """A letter posted when the loop has been woken, and has not yet looked, needs no other wake-up.

    worker: append(2)                           loop: (woken by 1)
    worker: reads armed: True
                                                loop: armed = False, pops 1 and 2
    """
    loop = Loop()
    box, bursts = box_of(loop)
    box.post(1)
    assert box.post(2)
    assert loop.wakes == 1
    loop.go_round()
    assert bursts == [[1, 2]]


def test_post_overtaken_by_the_loop_wakes_for_nothing() -> None:
    """A letter that the loop has fetched before its worker reads ``armed`` costs an empty wake-up, and no empty burst.

    worker: append(2)                           loop: (woken by 1)
                                                loop: armed = False, pops 1 and 2
    worker: reads armed: False, wakes
    """
    loop = Loop()
    box, bursts = box_of(loop)
    box._letters = letters = Hooked()
    box.post(1)
    letters.after_append = loop.go_round
    assert box.post(2)
    assert loop.wakes == 2
    loop.go_round()
    assert bursts == [[1, 2]]
    box.post(3)
    loop.go_round()
    assert bursts == [[1, 2], [3]]


def test_post_during_delivery_wakes_again() -> None:
    """A letter posted when the loop has looked for the last time is delivered in the next round.

    worker:                                     loop: armed = False, pops 1, sees that nothing is left
    worker: append(2)
    worker: reads armed: False, wakes
                                                loop: delivers 1
    """
    loop = Loop()
    box, bursts = box_of(loop)
    box._letters = letters = Hooked()
    box.post(1)
    letters.before_look = lambda: box.post(2)
    loop.go_round()
    assert bursts == [[1]]
    assert loop.wakes == 2
    loop.go_round()
    assert bursts == [[1], [2]]


def test_post_from_within_the_delivery() -> None:
    """What a delivery posts itself comes with the next round, so that the loop is not held up."""
    loop = Loop()
    bursts: list[list[int]] = []

    def deliver(burst: list[int]) -> None:
        bursts.append(burst)
        if burst[0] < 3:
            box.post(burst[0] + 1)

    box: Mailbox[int] = Mailbox(loop, deliver)  # type: ignore[arg-type]
    box.post(1)
    for rounds in range(1, 4):
        loop.go_round()
        assert bursts == [[number] for number in range(1, rounds + 1)]


def test_closed_loop_takes_no_letters() -> None:
    """Posting to a closed loop says so each time, raises nothing, and keeps nothing."""
    loop = Loop()
    box, bursts = box_of(loop)
    loop.closed = True
    assert [box.post(letter) for letter in range(3)] == [False] * 3
    assert not box._letters
    assert bursts == []


def test_loop_closed_with_letters_under_way() -> None:
    """A loop that is closed before it went round reads nothing any more: later letters are refused and not kept."""
    loop = Loop()
    box, _ = box_of(loop)
    assert box.post(1)
    loop.closed = True
    loop.scheduled.clear()  # as a loop does that is closed
    assert not box.post(2)
    assert not box._letters


def test_every_letter_arrives_once(run: Run) -> None:
    """Of thousands of letters from many threads, each arrives exactly once, those of one thread in their order."""

    async def main() -> None:
        arrived: list[tuple[int, int]] = []
        ended = asyncio.Event()

        def deliver(burst: list[tuple[int, int]]) -> None:
            assert burst
            assert threading.get_ident() == home
            arrived.extend(burst)
            if len(arrived) >= 8000:
                ended.set()

        home = threading.get_ident()
        box: Mailbox[tuple[int, int]] = Mailbox(asyncio.get_running_loop(), deliver)

        def post(name: int) -> None:
            for number in range(1000):
                assert box.post((name, number))

        threads = [threading.Thread(target=post, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        await ended.wait()
        for thread in threads:
            thread.join()
        assert sorted(arrived) == [(name, number) for name in range(8) for number in range(1000)]
        for name in range(8):
            assert [number for sender, number in arrived if sender == name] == list(range(1000))

    run(main)
