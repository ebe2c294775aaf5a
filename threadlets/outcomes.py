"""What is left of a threadlet that failed: the exception, and whether anybody has looked at it."""

from __future__ import annotations

import logging
from asyncio import AbstractEventLoop
from types import TracebackType

__all__ = ["Failure", "as_awaitable", "without_caller"]

logger = logging.getLogger("threadlets")


class Failure:
    """An exception that waits to be retrieved; if nobody does before it is collected, the loop's handler is told.

    The handle itself has no ``__del__``: only failures pay for being watched.
    """

    __slots__ = ("exception", "loop", "name", "retrieved", "traceback")

    def __init__(self, exception: BaseException, name: str, loop: AbstractEventLoop | None) -> None:
        self.exception = exception
        self.traceback: TracebackType | None = exception.__traceback__
        self.name = name
        self.loop = loop
        self.retrieved = False

    def fresh(self) -> BaseException:
        """Return the exception with the traceback it came with, so that raising it twice does not grow it."""
        return BaseException.with_traceback(self.exception, self.traceback)

    def __del__(self) -> None:
        """Tell of an exception that would otherwise vanish, as asyncio does for its futures."""
        if self.retrieved:
            return
        message = f"threadlet {self.name}() failed, and nobody awaited it or asked for its exception"
        if self.loop is None:
            logger.error(message, exc_info=self.exception)
        else:
            self.loop.call_exception_handler({"message": message, "exception": self.exception})


def without_caller(exception: BaseException) -> BaseException:
    """Take the frame that caught an exception out of its traceback: it is ours, and would keep the handle alive."""
    if exception.__traceback__ is not None:
        # Not by assignment: an exception class may forbid that, as a frozen dataclass does.
        BaseException.with_traceback(exception, exception.__traceback__.tb_next)
    return exception


def as_awaitable(exception: BaseException, name: str) -> BaseException:
    """Return what awaiting may raise: ``StopIteration`` would end the awaiting coroutine instead of failing it.

    >>> as_awaitable(StopIteration(1), "load")
    RuntimeError('load() raised StopIteration')
    """
    if isinstance(exception, StopIteration):
        error = RuntimeError(f"{name}() raised StopIteration")
        error.__cause__ = exception
        error.__traceback__ = exception.__traceback__
        return error
    return exception
