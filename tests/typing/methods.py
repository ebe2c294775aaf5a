"""The types of static methods that are entrypoints. Checked by mypy and pyright, never run.

Type checkers take ``@classmethod`` and ``@staticmethod`` off before they look at other decorators, and then bind
the first parameter. So there are no types for class methods here, nor for static methods that are reached through an
object.
"""

from __future__ import annotations

from typing import assert_type

from threadlets import Threadlet, threadlet


class Shelf:
    @threadlet
    @staticmethod
    def of_nothing(number: int) -> bytes:
        return bytes(number)

    @threadlet(priority=3)
    @staticmethod
    async def of_nothing_later(number: int) -> bytes:
        return bytes(number)


async def calls() -> None:
    assert_type(Shelf.of_nothing(3), Threadlet[bytes])
    assert_type(Shelf.of_nothing_later(3), Threadlet[bytes])
    assert_type(Shelf.of_nothing.using(priority=2)(3), Threadlet[bytes])
