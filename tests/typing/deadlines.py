"""The types of deadlines, priorities, tags and combined selections. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import UTC, datetime
from typing import assert_type

from threadlets import Contract, GroupStatistics, Percentiles, Pool, Selection, Threadlet, threadlet


@threadlet(contract=Contract(pure=True))
def parse(text: str) -> list[str]:
    return text.split()


async def deadlines(pool: Pool) -> None:
    handle = pool.start(parse, "a b", deadline=3)
    assert_type(handle, Threadlet[list[str]])
    assert_type(pool.start(parse, "a b", deadline=datetime.now(UTC)), Threadlet[list[str]])
    assert_type(parse.using(deadline=0.5)("a"), Threadlet[list[str]])
    assert_type(parse.using(deadline=datetime.now(UTC), pool=pool)("a"), Threadlet[list[str]])
    assert_type(handle.deadline, float | None)
    handle.deadline = 0.5
    handle.deadline = None
    handle.deadline = "soon"  # type: ignore[assignment]  # pyright: ignore
    pool.start(parse, "a", deadline="soon")  # type: ignore[call-overload]  # pyright: ignore
    parse.using(deadline="soon")  # type: ignore[arg-type]  # pyright: ignore


async def priorities(handle: Threadlet[int]) -> None:
    assert_type(handle.priority, float)
    assert_type(handle.effective_priority, float)
    handle.priority = 3
    handle.effective_priority = 3  # type: ignore[misc]  # pyright: ignore
    assert_type(handle.tags, frozenset[Hashable])


async def selections(pool: Pool, other: Pool) -> None:
    one, two = pool.select(tag="a"), other.select(state="queued")
    assert_type(one & two, Selection)
    assert_type(one | two, Selection)
    assert_type(one - two, Selection)
    assert_type(one.move(other), int)
    assert_type(3 in one, bool)
    one & 3  # type: ignore[operator]  # pyright: ignore


def statistics(pool: Pool) -> None:
    assert_type(pool.statistics().waits, Percentiles)
    assert_type(pool.statistics().runs.p99, float)
    assert_type(pool.statistics().entrypoints["parse"], GroupStatistics)
    assert_type(pool.statistics().tags[3].done, int)
