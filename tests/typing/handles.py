"""The types of handles, and of asyncio's functions that take them. Checked by mypy and pyright, never run."""

from __future__ import annotations

import asyncio
from typing import assert_type

from threadlets import Threadlet, threadlet


@threadlet
def number() -> int:
    return 1


@threadlet
async def word() -> str:
    return ""


async def awaiting() -> None:
    handle = number()
    assert_type(await handle, int)
    assert_type(handle.result(), int)
    assert_type(handle.exception(), BaseException | None)
    assert_type(handle.cancel("reason"), bool)
    assert_type(handle.done(), bool)
    assert_type(handle.priority, float)
    handle.priority = 3.5

    def called(handle: Threadlet[int]) -> None: ...
    def called_wrongly(handle: Threadlet[str]) -> None: ...

    handle.add_done_callback(called)
    handle.add_done_callback(called_wrongly)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(handle.remove_done_callback(called), int)


async def with_asyncio() -> None:
    assert_type(await asyncio.gather(number(), word()), tuple[int, str])
    both = await asyncio.gather(number(), word(), return_exceptions=True)
    assert_type(both, tuple[int | BaseException, str | BaseException])
    assert_type(await asyncio.gather(*[number() for _ in range(3)]), list[int])
    assert_type(await asyncio.wait_for(number(), 3), int)
    assert_type(await asyncio.shield(word()), str)
    for each in asyncio.as_completed([number(), number()]):
        assert_type(await each, int)
    async with asyncio.timeout(3):
        assert_type(await word(), str)
