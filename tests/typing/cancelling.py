"""What type checkers say of locks, cleanup and the end of programs."""

from __future__ import annotations

import socket
from typing import assert_type

from threadlets import (
    Condition,
    Contract,
    Event,
    Lock,
    Pool,
    Semaphore,
    checkpoint,
    checkpoint_wait,
    defer,
    errors,
    holding,
    run,
    threadlet,
)

lock = Lock("files", grace=1.5)
semaphore = Semaphore(3, max_value=3)
condition = Condition(lock)
event = Event()


def close(name: str, code: int) -> bool:
    return bool(name) and code == 0


async def close_slowly(name: str) -> None:
    del name


@threadlet(contract=Contract(cleanup=2))
def plain(connection: socket.socket) -> int:
    defer(close, "a", 3)
    defer(connection.close)
    defer(close, "a")  # type: ignore[arg-type]  # an argument is missing
    defer(close, 3, "a")  # type: ignore[arg-type]  # in the wrong order
    checkpoint()
    assert_type(checkpoint_wait(connection, 1.5, write=True), bool)
    checkpoint_wait("a")  # type: ignore[arg-type]
    with lock, holding("the last write"), semaphore, condition:
        assert_type(condition.wait(1), bool)
        assert_type(condition.wait_for(lambda: 3), int)
    assert_type(lock.acquire(timeout=1), bool)
    assert_type(semaphore.acquire(), bool)
    assert_type(event.wait(1), bool)
    return 3


@threadlet
async def coroutine() -> str:
    defer(close_slowly, "a")
    async with lock, semaphore, condition:
        await condition.wait_async()
        assert_type(await condition.wait_for_async(lambda: "a"), str)
    await event.wait_async()
    return "a"


async def main() -> str:
    pool = Pool()
    try:
        await pool.aclose(finish=1, timeout=2.5)
    except errors.CloseTimeout as error:
        assert_type(error, errors.CloseTimeout)
    handle = coroutine()
    assert_type(handle.cancel("why"), bool)
    return await handle


assert_type(run(main(), finish=1.5, timeout=3), str)
