"""Completions on their way from worker threads to an event loop: a burst of them costs the loop one wake-up.

Why: ``call_soon_threadsafe`` per completion costs 5-6 us on asyncio's loop, most of it the write to the self-pipe.

The race, in steps, between a worker that posts and the loop that delivers:

    worker: append(letter)                      loop:
    worker: reads armed                         loop: armed = False
                                                loop: pops until empty
1. The worker reads ``armed`` as True: the loop has not yet run ``armed = False``, and it pops after that, so it finds
the    letter (``test_post_while_armed_is_delivered``).
2. The worker reads it as False: it arms the box itself. The loop may have popped the letter already; then it is woken
   once for nothing (``test_post_during_delivery_wakes_again``).
Two workers may both read False and wake the loop twice: harmless.

Assumes: deque.append, deque.popleft and attribute access are atomic (the interpreter lock, or the locks that a
free-threaded build puts in their place).
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Generic, TypeAlias, TypeVar

__all__ = ["Mailbox", "calls_of"]

L = TypeVar("L")


class Mailbox(Generic[L]):
    """Letters from any thread, delivered together on the thread of ``loop``.

    Args:
        loop: Where ``deliver`` is called.
        deliver: Called with each burst, in the order posted.
    """

    __slots__ = ("_armed", "_deliver", "_letters", "_loop")

    def __init__(self, loop: AbstractEventLoop, deliver: Callable[[list[L]], None]) -> None:
        self._loop = loop
        self._deliver = deliver
        self._letters: deque[L] = deque()
        self._armed = False

    @property
    def pending(self) -> bool:
        """Whether there are letters that have not been delivered."""
        return bool(self._letters)

    def post(self, letter: L) -> bool:
        """Leave a letter; False if the loop is closed and nobody will ever read it. Thread: any."""
        self._letters.append(letter)
        if not self._armed:
            self._armed = True
            try:
                self._loop.call_soon_threadsafe(self._open)
            except RuntimeError:
                self._armed = False
        if self._loop.is_closed():
            self._letters.clear()
            return False
        return True

    def _open(self) -> None:
        """Deliver what has arrived. Thread: loop."""
        self._armed = False
        burst: list[L] = []
        letters = self._letters
        while letters:
            burst.append(letters.popleft())
        if burst:
            self._deliver(burst)


# What a loop is to call, with what, in which context.
Call: TypeAlias = "tuple[Callable[..., object], tuple[Any, ...], Context]"


def calls_of(loop: AbstractEventLoop) -> Mailbox[Call]:
    """Return the mailbox of a loop for what it is to call: ``call_soon_threadsafe``, but for bursts. Thread: loop."""
    mailbox: Mailbox[Call] | None = getattr(loop, "_threadlets_calls", None)
    if mailbox is None:

        def deliver(burst: list[Call]) -> None:
            if len(burst) == 1:
                function, args, context = burst.pop()
                try:
                    context.run(function, *args)
                finally:
                    del function, args, context  # a traceback may refer to this frame
            else:  # each in a callback of its own: one may block, and the loop go on without it
                for function, args, context in burst:
                    loop.call_soon(function, *args, context=context)

        mailbox = Mailbox(loop, deliver)
        loop._threadlets_calls = mailbox  # type: ignore[attr-defined]
    return mailbox
