"""The ways of a function that touches files, when it cannot be done at once: to a worker, or as learned of a device.

Why by device: what a write costs is a property of where it goes. A function that has proven fast on a local disk must
not be sent to the workers since it is slow on a network file system, nor be trusted there since it is fast here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any, Generic, Literal, ParamSpec, TypeVar

from .contracts import Contract
from .entrypoints import Entrypoint
from .probes import ABSENT, MISS
from .syscalls import has_openat2

__all__ = ["Ways", "stats"]

P = ParamSpec("P")
R = TypeVar("R")


class Ways(Generic[P, R]):
    """One function, with an entrypoint for each way. Thread: loop.

    Args:
        function: What is to be done; a plain function.
        cancel: As that of ``Contract``.

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
            contract = Contract(cancel=self.away.contract.cancel)
            entrypoint: Entrypoint[P, R] = Entrypoint(self._function, contract=contract)
            return self._learned.setdefault(device, entrypoint)

    async def to(self, path: Any, status: Any) -> Entrypoint[P, R]:
        """Return the entrypoint for a path, of which a glance has said this: away for whatever may wait for ever.

        Where no glance is to be had, the status is asked for first: that ends, and a FIFO is not opened in place.
        """
        if status is MISS and not has_openat2():
            try:
                status = await stats.on()(path)
            except (OSError, TypeError, ValueError):  # which the function will raise, too
                status = ABSENT
        if isinstance(status, os.stat_result):
            known = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
            return self.on(status.st_dev) if known else self.away
        return self.away if status is MISS else self.on()


stats = Ways(os.stat, cancel="abandon")
