"""Generic functions stay generic as entrypoints. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, assert_type

from threadlets import Threadlet, threadlet

T = TypeVar("T")


@threadlet
def first(items: Sequence[T]) -> T:
    return items[0]


@threadlet
async def first_later(items: Sequence[T]) -> T:
    return items[0]


@threadlet(priority=1)
def first_with_options(items: Sequence[T]) -> T:
    return items[0]


async def generics() -> None:
    assert_type(first([1, 2]), Threadlet[int])
    assert_type(await first(["a"]), str)
    assert_type(await first_later([b"a"]), bytes)
    assert_type(await first_with_options([1.5]), float)
