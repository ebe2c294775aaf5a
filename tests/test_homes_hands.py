"""Placement on loops that change hands: entrypoints start in place, and those that often block learn to leave."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from tests.conftest import Run, factory_of
from tests.workbench import PATIENCE
from threadlets import blocking, threadlet
from threadlets.placements import SWITCHES, TAKEOVER, Fixed, Learner


def test_trust_is_given_once() -> None:
    """A learner that knows nothing moves in place where that is safe, and one that was sent back does not."""
    fresh, experienced = Learner(), Learner()
    experienced.ran_on_worker(1_000, None, 0, True)
    assert fresh.trust()
    assert fresh.in_place
    assert not experienced.trust()
    assert Fixed(in_place=True).trust()
    assert not Fixed(in_place=False).trust()
    assert SWITCHES < TAKEOVER


def test_starts_in_place(hands: Run) -> None:
    """The first call of an entrypoint runs where it is called, not on a worker."""

    @threadlet
    def where() -> int:
        return threading.get_ident()

    async def main() -> None:
        assert await where() == threading.get_ident()
        assert where.statistics().in_place == 1
        assert where.statistics().placement == "in place"

    hands(main)


def test_one_that_always_blocks_leaves(hands: Run) -> None:
    """Calls that block again and again go straight to workers, and the loop is no longer taken over for them."""
    goes_on = threading.Event()

    @threadlet
    def wait() -> bool:
        return goes_on.wait(PATIENCE)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(100):
            goes_on.clear()
            loop.call_later(0.001, goes_on.set)
            assert await wait()
            if wait.statistics().placement == "worker":
                break
        seen = wait.statistics()
        assert seen.placement == "worker"
        assert seen.missed == loop.statistics().takeovers > 0  # type: ignore[attr-defined]

    hands(main)


def test_one_that_rarely_blocks_stays(hands: Run) -> None:
    """One miss is not held against an entrypoint that is awaited at once."""
    goes_on = threading.Event()

    @threadlet
    def maybe(blocks: bool) -> bool:
        return not blocks or goes_on.wait(PATIENCE)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for turn in range(300):
            if turn == 150:
                loop.call_later(0.001, goes_on.set)
            assert await maybe(turn == 150)
        seen = maybe.statistics()
        assert seen.in_place == 300
        assert seen.missed >= 1  # a busy machine may make others miss, too
        assert seen.placement == "in place"

    hands(main)


def test_fan_out_leaves_at_the_first_miss(hands: Run) -> None:
    """Blocking calls that are started side by side are to run side by side."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        @threadlet
        def wait() -> bool:
            goes_on = threading.Event()
            loop.call_soon_threadsafe(goes_on.set)
            return goes_on.wait(PATIENCE)

        assert all(await asyncio.gather(*(wait() for _ in range(3))))
        assert wait.statistics().placement == "worker"

    hands(main)


@pytest.mark.parametrize("kind", ["hands", "uvhands"])
def test_switched_off(kind: str) -> None:
    """With takeovers off it is a loop like others: an entrypoint starts on workers, and a region is only a block."""

    @threadlet
    def where() -> int:
        return threading.get_ident()

    async def main() -> None:
        with blocking():
            assert where().result() == threading.get_ident()
        assert await where() != threading.get_ident()
        assert asyncio.get_running_loop().statistics().takeovers == 0  # type: ignore[attr-defined]

    with asyncio.Runner(loop_factory=partial(factory_of(kind), threshold=float("inf"))) as runner:
        runner.run(main())


@pytest.mark.parametrize("threshold", [0, -1, float("nan")])
@pytest.mark.parametrize("kind", ["hands", "uvhands"])
def test_bad_threshold(kind: str, threshold: float) -> None:
    """A threshold that is none is refused at once, and leaves nothing behind."""
    with pytest.raises(ValueError, match="expected seconds"):
        factory_of(kind)(threshold=threshold)  # type: ignore[call-arg]
