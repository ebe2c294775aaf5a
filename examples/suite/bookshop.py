"""What this suite tests: a shop that takes orders, has them paid, and writes them down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from threadlets import Contract, Lock, Pool, Rate, threadlet

TILL = Lock("the till")


@threadlet
async def deliver(send: Callable[[str], Awaitable[None]], order: str, attempts: int = 5) -> int:
    """Hand an order to a courier, who may be out: after a minute try again, then after two, four, ..."""
    for attempt in range(attempts):
        try:
            await send(order)
            return attempt + 1
        except ConnectionError:
            await asyncio.sleep(60 * 2**attempt)
    raise ConnectionError(f"{order} could not be delivered in {attempts} attempts")


@threadlet(contract=Contract(blocks="always"))
def write_down(path: Path, order: str) -> None:
    """Write an order into the book."""
    with path.open("a") as book:
        book.write(order + "\n")


def couriers() -> Pool:
    """Return a pool for deliveries: the couriers take ten an hour."""
    return Pool(Rate(10, per=3600), name="couriers")


class Account:
    """What a customer has."""

    def __init__(self, balance: int) -> None:
        self.balance = balance

    async def pay(self, amount: int) -> bool:
        """Take from the balance, if there is enough."""
        if self.balance < amount:
            return False
        self.balance -= amount  # not after the await below: somebody else may pay meanwhile
        await asyncio.sleep(0)  # the bank is told
        return True


def print_bill(seconds: float) -> None:
    """Talk to a slow printer: what must not be called in a coroutine."""
    time.sleep(seconds)
