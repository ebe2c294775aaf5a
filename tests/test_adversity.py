"""What users would run into first: found by trying to break the whole, each with the law that it broke."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import io
import pickle
import weakref
from typing import Any

import pytest

from tests.conftest import Run
from tests.workbench import IN_PLACE, ON_WORKER
from threadlets import Concurrency, Pool, threadlet
from threadlets.errors import WrongLoop


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    """An exception that forbids assignment to its attributes, ``__traceback__`` too."""

    number: int


@pytest.mark.parametrize("contract", [IN_PLACE, ON_WORKER], ids=["in place", "worker"])
def test_an_exception_that_cannot_be_changed_arrives(run: Run, contract: Any) -> None:
    """A failure arrives whatever its class forbids, and so do all others of its burst."""

    @threadlet(contract=contract)
    def fail(number: int) -> None:
        raise FrozenError(number)

    async def main() -> None:
        async with Pool() as pool:
            results = await asyncio.gather(*[pool.start(fail, n) for n in range(5)], return_exceptions=True)
        assert results == [FrozenError(n) for n in range(5)]

    run(main)


def test_work_between_awaits_does_not_keep_the_loop(run: Run) -> None:
    """What a coroutine does between awaits of finished threadlets counts, too: others get their turn."""
    ticks = 0

    async def main() -> None:
        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticker = asyncio.create_task(tick())
        loop, load = asyncio.get_running_loop(), threadlet(contract=IN_PLACE)(int)
        until = loop.time() + 0.1
        while loop.time() < until:
            await load()
            sum(range(1_000))
        ticker.cancel()

    run(main)
    assert ticks >= 5


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exit_leaves_a_scope_as_it_is(run: Run, error: type[BaseException]) -> None:
    """An exit that nobody has retrieved comes out of a scope by itself, not in a group."""

    @threadlet(contract=ON_WORKER)
    def leave() -> None:
        raise error(3)

    async def main() -> None:
        with pytest.raises(error, match="3"):
            async with Pool() as pool:
                pool.start(leave)

    run(main)


def test_a_throttle_serves_one_loop_after_the_other() -> None:
    """A throttle belongs to one loop at a time; the next one gets it with all its places free."""
    throttle = Concurrency(1)

    async def main() -> None:
        pool = Pool(throttle)
        assert await pool.start(int) == 0
        throttle.take(None, 0)  # by something that ends only when the loop is closed

    asyncio.run(main())
    asyncio.run(main())

    async def outer() -> None:
        Pool(throttle).start(int)

        def other_loop() -> None:
            asyncio.run(main())

        with pytest.raises(WrongLoop, match="belongs to another event loop"):
            await asyncio.to_thread(other_loop)

    asyncio.run(outer())


def test_methods_of_builtin_objects_let_these_go(run: Run) -> None:
    """``pool.start(file.read)`` does not keep the file, and all files share what is learned of ``read``."""

    class File(io.BytesIO):
        pass

    async def main() -> None:
        pool = Pool()
        file = File(b"text")
        handle = pool.start(file.read)
        assert await handle == b"text"
        assert handle.entrypoint is pool.start(File(b"").read).entrypoint
        gone = weakref.ref(file)
        del file, handle
        await pool.drain()
        await asyncio.sleep(0)
        assert gone() is None

    run(main)


def test_callable_objects_are_learned_from(run: Run) -> None:
    """An object that is called again and again has one definition, by which its calls can be selected."""

    class Adder:
        def __call__(self, number: int) -> int:
            return number + 1

    async def main() -> None:
        pool, adder = Pool(), Adder()
        for number in range(20):
            assert await pool.start(adder, number) == number + 1
        assert pool.start(adder, 1).entrypoint.statistics().in_place > 0

    run(main)


def test_a_method_looks_like_its_entrypoint() -> None:
    """Statistics and contract are reached through an object, and equal methods are equal."""

    class Shelf:
        @threadlet(priority=3)
        def load(self) -> None:
            """Load it."""

    shelf = Shelf()
    assert shelf.load.statistics() == Shelf.load.statistics()
    assert shelf.load.contract is Shelf.load.contract
    assert shelf.load == shelf.load
    assert shelf.load != Shelf().load
    assert hash(shelf.load) == hash(shelf.load)
    with pytest.raises(TypeError, match="threadlet already"):
        threadlet(shelf.load)


def test_attributes_of_a_function_hide_nothing() -> None:
    """A function's own attributes are kept, but not in place of the entrypoint's."""

    def load() -> None: ...

    load.statistics, load.author = "mine", "me"  # type: ignore[attr-defined]
    entrypoint: Any = threadlet(load)
    assert entrypoint.statistics().in_place == 0
    assert entrypoint.author == "me"


def test_handles_and_pools_are_not_copied(run: Run) -> None:
    """A second handle of one call, or a second pool of one queue, would ruin the books."""

    async def main() -> None:
        pool = Pool()
        for thing in (pool, pool.start(int)):
            for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="cannot be copied"):
                    attempt(thing)

    run(main)


def test_bad_options_are_told_where_they_are_given() -> None:
    """The decorator with options complains itself, not when it is applied."""
    with pytest.raises(TypeError, match="priority"):
        threadlet(priority="1")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="one tag per character"):
        threadlet(tags="abc")
