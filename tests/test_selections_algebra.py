"""Selections as sets: and, or, without; across pools; and how few threadlets each of them looks at."""

from __future__ import annotations

import asyncio
import operator
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import forever
from threadlets import Concurrency, Pool, Selection, Threadlet, threadlet

MANY = 10_000


@threadlet
async def wait() -> None:
    await forever()


@threadlet
async def rest() -> None:
    await forever()


async def emptied(*pools: Pool) -> None:
    for pool in pools:
        pool._check()
        pool.cancel()
        await pool.drain()
        pool._check()


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {"&": operator.and_, "|": operator.or_, "-": operator.sub}


@pytest.mark.parametrize("seed", range(5))
def test_combinations_are_those_of_sets(run: Run, seed: int) -> None:
    """Whatever is combined, however deep and across pools, has the members that sets of handles would have."""

    async def main() -> None:
        chance = random.Random(seed)
        whole = Pool(Concurrency(20))
        pools = whole, Pool(parent=whole), Pool()
        handles = []
        for _ in range(60):
            tags, priority = chance.sample("abc", chance.randint(0, 3)), chance.randint(0, 3)
            handles.append(chance.choice(pools).start(chance.choice((wait, rest)), tags=tags, priority=priority))

        def one() -> tuple[Selection, set[Threadlet[Any]]]:
            pool, tag = chance.choice(pools), chance.choice([None, *"abcd"])
            state = chance.choice([None, "queued", "missed"])
            function: Any = chance.choice([None, wait, rest])
            most = chance.randint(0, 3)
            selection = pool.select(entrypoint=function, tag=tag, state=state, where=lambda t: t.priority <= most)
            members = {
                handle
                for handle in handles
                if (handle.pool is pool or (pool is whole and handle.pool is pools[1]))
                and (function is None or handle.entrypoint is function)
                and (tag is None or tag in handle.tags)
                and (state is None or handle.state == state)
                and handle.priority <= most
            }
            return selection, members

        for _ in range(100):
            selection, members = one()
            for _ in range(chance.randint(0, 4)):
                other, others = one()
                operation = chance.choice(list(OPERATORS.values()))
                if chance.random() < 0.5:
                    selection, other, members, others = other, selection, others, members
                selection, members = operation(selection, other), operation(members, others)
            found = list(selection)
            assert len(found) == len(set(found)) == len(selection) and set(found) == members
            assert bool(selection) == bool(members)
            assert {handle for handle in handles if handle in selection} == members
            assert repr(len(members)) in repr(selection)
        await emptied(*pools)

    run(main)


def test_bulk_operations_of_combinations(run: Run) -> None:
    """A combination can be reprioritized, moved, cancelled and waited for, each member once, and stays live."""

    async def main() -> None:
        pool, other = Pool(Concurrency(1)), Pool(Concurrency(1))
        pool.start(forever)
        other.start(forever)
        red = [pool.start(wait, tags={"red", "big"} if n % 2 else {"red"}) for n in range(6)]
        blue = [other.start(wait, tags={"blue", "big"} if n % 3 else {"blue"}) for n in range(6)]
        big = pool.select(tag="big") | other.select(tag="big") | pool.select(tag="big")
        assert len(big) == 3 + 4
        assert big.reprioritize(7) == 7
        assert [handle.priority for handle in red + blue].count(7) == 7
        small = (pool.select(tag="red") | other.select(tag="blue")) - big
        assert len(small) == 5
        assert small.move(other) == 3  # the others are there
        assert len(small) == 2  # it is live: those that moved are not in the pool that it is about
        assert len(other.select(entrypoint=wait)) == 9
        assert (big & other.select()).cancel("big") == 4
        assert len(big) == 3
        waiting = asyncio.create_task((big | small).wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert (big | small).cancel() == 5
        await waiting
        with pytest.raises(asyncio.CancelledError, match="big"):
            blue[1].result()
        await emptied(pool, other)

    run(main)


@pytest.mark.parametrize("other", [3, None, "red", [], {1}])
@pytest.mark.parametrize("sign", OPERATORS)
def test_only_selections_combine(run: Run, sign: str, other: Any) -> None:
    """Anything else on either side is a TypeError."""

    async def main() -> None:
        selection = Pool().select()
        for left, right in ((selection, other), (other, selection)):
            with pytest.raises(TypeError):
                OPERATORS[sign](left, right)

    run(main)


@pytest.mark.parametrize("sign", OPERATORS)
def test_a_predicate_that_raises_in_a_combination(run: Run, sign: str) -> None:
    """An error of a predicate comes out of every operation of a combination, and nothing has been done by then."""

    async def main() -> None:
        pool, other = Pool(Concurrency(1)), Pool(Concurrency(1))
        handles = [each.start(wait, priority=1, tags={"all"}) for each in (pool, other) * 5]
        calls = 0

        def where(handle: Threadlet[Any]) -> bool:
            nonlocal calls
            calls += 1
            return bool(1 // (4 - calls))

        for act in (list, len, Selection.cancel, lambda each: each.reprioritize(5), lambda each: each.move(other)):
            calls = 0
            everyone = pool.select() | other.select()
            combined = OPERATORS[sign](everyone, pool.select(where=where))
            if sign == "|":
                combined = OPERATORS[sign](pool.select(where=where), everyone)
            with pytest.raises(ZeroDivisionError):
                act(combined)
            assert [handle.priority for handle in handles] == [1] * 10
            assert not any(handle.done() for handle in handles)
            assert len(pool) == len(other) == 5
        calls = 0
        with pytest.raises(ZeroDivisionError):
            await pool.select(where=where).wait()
        await emptied(pool, other)

    run(main)


def test_different_loops_and_closed_pools(run: Run) -> None:
    """What is in a closed pool can be selected; a pool that was never used has nothing to select."""

    async def main() -> None:
        pool, unused = Pool(), Pool()
        handle = pool.start(wait)
        pool.close()
        both = unused.select() | pool.select()
        assert list(both) == [handle] and handle in both and None not in both
        await emptied(pool)
        assert not both and handle not in both

    run(main)


@pytest.fixture(scope="module")
def looks() -> Callable[[Any], int]:
    """Return what counts the threadlets that a selection looks at."""

    def count(act: Callable[[], Any]) -> int:
        seen = 0
        really = Pool.__contains__

        def look(pool: Pool, handle: object) -> bool:
            nonlocal seen
            seen += 1
            return really(pool, handle)

        Pool.__contains__ = look  # type: ignore[method-assign]
        try:
            act()
        finally:
            Pool.__contains__ = really  # type: ignore[method-assign]
        return seen

    return count


def test_a_selection_looks_at_few(looks: Callable[[Any], int]) -> None:
    """Three matches among ten thousand are found by looking at a few: by tag, state, entrypoint, and combinations."""

    async def main() -> None:
        pool = Pool(Concurrency(3))
        part = Pool(parent=pool)
        for _ in range(3):
            part.start(rest, tags={"rare", "all"})
        for n in range(MANY):
            pool.start(wait, tags={"all", f"of a hundred:{n % 100}"})
        selections = {
            "tag": pool.select(tag="rare"),
            "state": pool.select(state="missed"),
            "entrypoint": pool.select(entrypoint=rest),
            "pool": part.select(),
            "all of them": pool.select(tag="rare", state="missed", entrypoint=rest, where=lambda handle: True),
            "and": pool.select(tag="all") & pool.select(tag="rare") & pool.select(),
            "and, turned round": pool.select(tag="rare") & (pool.select() | pool.select(tag="all")),
            "or": pool.select(tag="rare") | pool.select(entrypoint=rest) | part.select(state="missed"),
            "without": pool.select(tag="rare") - pool.select(tag="of a hundred:5") - pool.select(state="queued"),
            "part and whole": pool.select(state="missed") & part.select(),
        }
        for name, selection in selections.items():
            for act in (list, len, bool):
                assert looks(partial(act, selection)) <= 30, name
            assert len(selection) == 3, name
        assert looks(lambda: pool.select(tag="none").cancel()) == 0
        assert looks(lambda: pool.select(state="running").cancel()) == 0
        assert looks(lambda: bool(pool.select())) == 1
        assert looks(lambda: bool(pool.select(state="queued"))) <= 1
        assert looks(lambda: pool.select(tag="of a hundred:7", state="queued").reprioritize(5)) == MANY // 100
        assert looks(lambda: selections["tag"].cancel()) == 3
        await emptied(pool)
        part.close()

    asyncio.run(main())
