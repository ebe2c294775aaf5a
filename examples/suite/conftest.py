"""What the tests of the shop share."""

from __future__ import annotations

import pytest


class Courier:
    """One who is out the first times."""

    def __init__(self, out: int) -> None:
        self.out = out
        self.delivered: list[str] = []

    async def send(self, order: str) -> None:
        if self.out:
            self.out -= 1
            raise ConnectionError("nobody there")
        self.delivered.append(order)


@pytest.fixture
def courier() -> Courier:
    return Courier(out=3)
