"""The types of what leaves the event loop, as users write it."""

from __future__ import annotations

import asyncio
from typing import assert_type

from threadlets import migrate, offload, topology


async def leaves(number: int) -> str:
    """Go to a worker, home, and to other loops."""
    node = topology.machine().nodes[0]
    async with offload() as away:
        async with away.home():
            await asyncio.sleep(0)
    async with offload(node):
        pass
    await migrate(node)
    await migrate(node.loop())
    await migrate(asyncio.get_running_loop())
    assert_type(await migrate(None), None)
    assert_type(node.loop(), asyncio.AbstractEventLoop)
    return str(number)


async def mistakes() -> None:
    """Be told by the type checker."""
    async with offload("node 0"):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        pass
    await migrate(0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with offload():  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportAttributeAccessIssue]
        pass
