"""The types of chains: a chain is generic in the value of its last step. Checked by mypy and pyright, never run."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from typing import Any, assert_type

from threadlets import Pool, Threadlet, threadlet
from threadlets.chainings import Chain, Chaining
from threadlets.chains import AEIOU, NaP, arg, ref


def parse(data: bytes, encoding: str = "utf-8") -> list[str]:
    return data.decode(encoding).split()


@threadlet
def count(words: list[str]) -> int:
    return len(words)


async def coroutine(number: int) -> str:
    return str(number)


opened = Chain("index", priority=3, tags={"files"}).then(os.open, arg("path"), os.O_RDONLY).named("fd")
read = opened.then(os.read, ref("fd"), 100).finally_(os.close, ref("fd", int))

assert_type(Chain(), Chain[None])
assert_type(opened, Chain[int])
assert_type(read, Chain[bytes])
assert_type(read.then(parse), Chain[list[str]])
assert_type(read.then(parse, ref(), encoding="ascii"), Chain[list[str]])
assert_type(read.then(parse, ref(), arg("encoding", str)), Chain[list[str]])
assert_type(read.then(parse).then(count, ref()), Chain[int])
assert_type(read.then(parse).then(count), Chain[int])
assert_type(arg("path"), Any)
assert_type(arg("path", str), str)
assert_type(ref("fd", int), int)
assert_type(ref(), Any)


def is_empty(data: bytes) -> bool:
    return not data


def nothing(nap: NaP) -> None:
    print(nap.step, nap.cause)


assert_type(read.stop_if(is_empty).skip_if(is_empty).repeat_while(is_empty, limit=3), Chain[bytes])
assert_type(read.recover(nothing), Chain[bytes | None])
assert_type(read.inline, Chain[bytes | NaP])
assert_type(read.explain(), str)


async def calls(pool: Pool) -> None:
    assert_type(read(path="a"), Threadlet[bytes])
    assert_type(await read({"path": "a"}), bytes)
    assert_type(await read.inline(path="a"), bytes | NaP)
    assert_type(read.using(priority=3, tags={"a"}, deadline=3, pool=pool), Chaining[bytes])
    assert_type(await read.using()(path="a"), bytes)
    assert_type(read.map([{"path": "a"}], limit=3), AsyncGenerator[bytes, None])
    assert_type(read.map([{"path": "a"}], return_exceptions=True), AsyncGenerator[bytes | BaseException, None])
    assert_type(read.inline.map([{"path": "a"}]), AsyncGenerator[bytes | NaP, None])
    assert_type(pool.start(read, {"path": "a"}), Threadlet[bytes])
    try:
        await read(path="a")
    except AEIOU as error:
        assert_type(error.nap, NaP)


def mistakes() -> None:
    Chain().then(parse, 3)  # type: ignore[call-overload]  # pyright: ignore
    Chain().then(parse)  # type: ignore[arg-type]  # pyright: ignore
    opened.then(parse)  # type: ignore[arg-type]  # pyright: ignore
    read.stop_if(count)  # type: ignore[arg-type]  # pyright: ignore
    read.finally_(os.close, "fd")  # type: ignore[arg-type]  # pyright: ignore
    Chain("a", prioritys=3)  # type: ignore[call-arg]  # pyright: ignore
