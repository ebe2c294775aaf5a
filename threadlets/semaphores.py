"""Semaphores for threads and coroutines at the same time.

Why: see ``locks``; those of ``threading`` and ``asyncio`` know only one kind each, and no order. How: see ``grants``. A
token that is released while somebody waits goes to the first in line, and is never free in between.

Invariants: see ``_check()``.
"""

from __future__ import annotations

from .definitions import check_seconds
from .grants import Granted, check_count, check_in_task, check_on_thread, named

__all__ = ["Semaphore"]


class Semaphore(Granted):
    """So many at a time: ``with semaphore:`` in plain functions and on threads, ``async with`` it in coroutines.

    The same object may be used from both, and from several event loops, at the same time. A token that is released goes
    to the most urgent threadlet that waits, and among equals to the first; what is no threadlet has priority 0.

    It is a limiter, not a lock: nobody owns a token, and anybody may release one. So a cancel is not put off while a
    threadlet has one, and circles of waits are not found. To protect something that must not be left half done, use
    ``Lock``, or ``holding`` inside.

    A wait may be cancelled, time out or be interrupted at any moment: then it has taken no token.

    Args:
        value: How many tokens there are.
        max_value: How many there may ever be; None: any number.
        name: Shown in messages.

    Raises:
        TypeError: If a number is no integer.
        ValueError: If ``value`` is below 0, or beyond ``max_value``.

    Thread: any, for all methods.
    """

    __slots__ = ("_max_value", "_value", "name")

    def __init__(self, value: int = 1, *, max_value: int | None = None, name: str | None = None) -> None:
        super().__init__()
        check_count("value", value)
        if max_value is not None:
            check_count("max_value", max_value)
            if value > max_value:
                raise ValueError(f"value={value!r} is more than max_value={max_value!r}")
        self.name = name
        self._value = value
        self._max_value = max_value

    def __repr__(self) -> str:
        most = "" if self._max_value is None else f" of {self._max_value}"
        return f"<Semaphore{named(self.name)}: {self._value}{most} free{self._waiting()}>"

    @property
    def value(self) -> int:
        """How many tokens are free; 0 if somebody waits."""
        return self._value

    def locked(self) -> bool:
        """Say whether there is none, so that whoever wants one has to wait."""
        return self._value == 0

    def acquire(self, timeout: float | None = None) -> bool:
        """Wait for a token on this thread, and take it; False if none has come in ``timeout`` seconds.

        In place on an event loop that cannot go on meanwhile, a token has to come from elsewhere: a thread, or another
        loop. If it is to come from the same loop this waits for ever; the log says so after five seconds.

        Cancel: point, whether it has to wait or not; not inside of ``holding``.

        Raises:
            asyncio.CancelledError: If the threadlet is asked to stop.
            RuntimeError: In a coroutine.
            TypeError, ValueError: For a timeout that is none.
        """
        if timeout is not None:
            check_seconds("timeout", timeout)
        check_on_thread(self, "acquire()", "acquire_async()")
        return self._take() or (timeout != 0 and self._wait_on_thread(timeout))

    async def acquire_async(self) -> None:
        """Wait for a token in a coroutine, and take it. Cancel: point, if it has to wait.

        Raises:
            RuntimeError: Outside of a task.
        """
        check_in_task(self, "acquire_async()", "acquire()")
        if not self._take():
            await self._wait_in_task()

    def release(self) -> None:
        """Give a token to the first who waits, or back. Anybody may; also a signal handler, or a finalizer.

        Raises:
            ValueError: If there would be more than ``max_value``.
        """
        with self._mutex:
            if self._value == self._max_value:
                raise ValueError(
                    f"{self!r} is released although no token is taken: there would be {self._value + 1}, and max_value "
                    f"is {self._max_value}. A release must belong to an acquire"
                )
            if self._busy or len(self._line):
                self._do(self._hand_on)
            else:
                self._value += 1

    def __enter__(self) -> None:
        check_on_thread(self, "'with'", "'async with'")
        if not self._take():
            self._wait_on_thread(None)

    def __exit__(self, *_: object) -> None:
        self.release()

    async def __aenter__(self) -> None:
        check_in_task(self, "'async with'", "'with'")
        if not self._take():
            await self._wait_in_task()

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def _take(self) -> bool:
        with self._mutex:
            return self._take_now()

    def _take_now(self) -> bool:
        if not self._value:
            return False
        self._value -= 1
        return True

    def _hand_on(self) -> None:
        while (waiter := self._line.pop()) is not None:
            if self._grant(waiter):
                return
        self._value += 1

    def _check(self) -> None:
        """Assert every invariant."""
        super()._check()
        with self._mutex:
            assert self._value >= 0 and (self._max_value is None or self._value <= self._max_value)
            assert not self._value or not len(self._line), "nobody waits while there is a token"
