"""The ways of a function that touches files, when it cannot be done at once: to a worker, or as learned of a device.

Why by device: what a write costs is a property of where it goes. A function that has proven fast on a local disk must
not be sent to the workers since it is slow on a network file system, nor be trusted there since it is fast here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, ParamSpec, TypeVar

from .contracts import Contract
from .entrypoints import Entrypoint

__all__ = ["Ways"]

P = ParamSpec("P")
R = TypeVar("R")


class Ways(Generic[P, R]):
    """One function, with an entrypoint for each way. Thread: loop.

    Args:
        function: What is to be done; a plain function.
        cancel: As that of ``Contract``, for calls that are sent away.

    Attributes:
        away: For a call that is known to wait: to a worker, at once.
    """

    __slots__ = ("_function", "_learned", "away")

    def __init__(self, function: Callable[P, R], cancel: Literal["wait", "abandon"] = "wait") -> None:
        self._function = function
        self._learned: dict[int, Entrypoint[P, R]] = {}
        self.away: Entrypoint[P, R] = Entrypoint(function, contract=Contract(blocks="always", cancel=cancel))

    def on(self, device: int = 0) -> Entrypoint[P, R]:
        """Return the entrypoint that has learned where its calls on a device are best done; 0: on any."""
        try:
            return self._learned[device]
        except KeyError:
            entrypoint: Entrypoint[P, R] = Entrypoint(self._function)
            return self._learned.setdefault(device, entrypoint)
