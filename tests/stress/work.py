"""What the stress of pools starts: functions of all kinds, and records of them that the library knows nothing of."""

from __future__ import annotations

import asyncio
from typing import Any

from threadlets import Concurrency, Contract, Host, Threadlet, threadlet
from threadlets.nodes import Machine, Node


class Planned(Exception):
    """What some of the functions raise."""


class Record:
    """What is known outside of the library about one start."""

    __slots__ = ("handle", "kind", "number", "over", "runs")

    def __init__(self, number: int, kind: str) -> None:
        self.number, self.kind = number, kind
        self.runs = 0
        self.over = False  # it may not run any more
        self.handle: Threadlet[Any] | None = None

    def run(self) -> None:
        """Note that the function runs. Thread: any."""
        self.runs += 1
        if self.over or self.runs > 1:
            raise AssertionError(f"{self!r} has run though it was over, or twice")

    def __repr__(self) -> str:
        return f"<Record {self.number} {self.kind}, {self.runs} runs, over={self.over}: {self.handle!r}>"


@threadlet(contract=Contract(blocks="never"))
def in_place(record: Record) -> int:
    """Run in place."""
    record.run()
    return record.number


@threadlet(contract=Contract(blocks="always"))
def on_worker(record: Record) -> int:
    """Run on a worker."""
    record.run()
    return record.number


@threadlet
def anywhere(record: Record) -> int:
    """Run wherever it is best."""
    record.run()
    return record.number


@threadlet(contract=Contract(blocks="always"))
def raises(record: Record) -> int:
    """Fail on a worker."""
    record.run()
    raise Planned(record.number)


@threadlet
async def at_once(record: Record) -> int:
    """End in the first step."""
    record.run()
    return record.number


@threadlet
async def pauses(record: Record) -> int:
    """Let the loop go round, and fail one time out of eight."""
    record.run()
    await asyncio.sleep(0)
    if record.number % 8 == 0:
        raise Planned(record.number)
    return record.number


@threadlet(contract=Contract(blocks="always", pure=True))
def shared_on_worker(number: int) -> int:
    """Be equal to others."""
    return number


@threadlet(contract=Contract(pure=True))
async def shared_later(number: int) -> int:
    """Be equal to others, and take a while."""
    await asyncio.sleep(0.0005)
    return number


class Beside(Host):
    """A host that runs functions right here, a little later."""

    def __init__(self) -> None:
        self.slots = Concurrency(4)

    async def run(self, entrypoint: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, priority: float) -> Any:
        """Call the function when the loop has gone round."""
        await asyncio.sleep(0)
        return entrypoint.function(*args, **kwargs)


# A machine of two nodes; wherever CPU 1 is not, threads are not bound to it.
TWO = Machine(tuple(Node(number, frozenset({number}), frozenset({number})) for number in range(2)))

ALONE = [in_place, on_worker, anywhere, raises, at_once, pauses]
SHARED = [shared_on_worker, shared_later]
