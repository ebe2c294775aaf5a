"""The errors that users of the library meet; each class says who raises it and what to do."""

from __future__ import annotations

__all__ = [
    "CleanupTimeout",
    "CloseTimeout",
    "ContractViolation",
    "DeadlineExceeded",
    "Deadlock",
    "IllegalTransition",
    "LockPoisoned",
    "NoRunningLoop",
    "NodeLost",
    "PoolClosed",
    "PoolFull",
    "Shed",
    "ThreadletError",
    "WrongLoop",
]


class ThreadletError(Exception):
    """Base of every error that this library raises on its own account."""


class NoRunningLoop(ThreadletError, RuntimeError):
    """Raised by calling a coroutine threadlet, or using a pool, on a thread where no event loop runs.

    Plain functions do not need a loop: without one, an entrypoint calls its function right there.
    """


class WrongLoop(ThreadletError, RuntimeError):
    """Raised by a pool that is used on another event loop than the one it was first used on."""


class NodeLost(ThreadletError, ConnectionError):
    """Raised by awaiting a threadlet whose host is gone: whether its function has run there is not known."""


class PoolFull(ThreadletError):
    """Raised by ``Pool.start`` when ``capacity`` is reached and ``overflow="reject"``.

    Wait for a place with ``await pool.room()``, or choose ``overflow="shed"``.
    """


class PoolClosed(ThreadletError, RuntimeError):
    """Raised by ``Pool.start`` after ``close()``, after ``aclose()``, or after the pool's scope has ended."""


class Shed(ThreadletError):
    """Raised by awaiting a threadlet that a full pool with ``overflow="shed"`` dropped before it ran."""


class CloseTimeout(ThreadletError, TimeoutError):
    """Raised by ``pool.aclose(timeout=...)`` if there are threadlets that have not stopped by then."""


class DeadlineExceeded(ThreadletError, TimeoutError):
    """Raised by awaiting a threadlet that did not start, or did not end, before its ``deadline``."""


class CleanupTimeout(ThreadletError, TimeoutError):
    """Raised by awaiting a threadlet whose deferred cleanup took longer than its ``Contract(cleanup=...)`` allows."""


class Deadlock(ThreadletError, RuntimeError):
    """Raised by acquiring a lock, or by an ``await``, that would close a circle of waits; it names all of it."""


class LockPoisoned(ThreadletError):
    """Raised by acquiring a lock whose last holder was cancelled by force, after its ``grace`` had run out.

    What the lock protects may be half done. Look at it, mend it, then call ``lock.repair()``.
    """


class IllegalTransition(ThreadletError, RuntimeError):
    """Raised when a threadlet is to take a step that its lifecycle does not have: a bug in this library."""


class ContractViolation(RuntimeWarning):
    """Warned in asyncio's debug mode when a function with ``Contract(blocks="never")`` blocked its thread."""
