"""The types of class methods and static methods that are entrypoints. Checked by pyright, never run.

Not by mypy: it takes ``@classmethod`` and ``@staticmethod`` off before it looks at the decorators above them.
"""

# mypy: ignore-errors

from __future__ import annotations

from typing import assert_type

from threadlets import Threadlet, threadlet


class Shelf:
    @threadlet
    @classmethod
    def of_class(cls, number: int) -> str:
        return str(number)

    @threadlet
    @staticmethod
    def of_nothing(number: int) -> bytes:
        return bytes(number)

    @threadlet(priority=3)
    @staticmethod
    async def of_nothing_later(number: int) -> bytes:
        return bytes(number)


async def calls(shelf: Shelf) -> None:
    assert_type(Shelf.of_class(3), Threadlet[str])
    assert_type(shelf.of_class(3), Threadlet[str])
    assert_type(Shelf.of_nothing(3), Threadlet[bytes])
    assert_type(shelf.of_nothing(3), Threadlet[bytes])
    assert_type(Shelf.of_nothing_later(3), Threadlet[bytes])
