"""Some seconds of the fault harness, on each kind of loop; ``python -m tests.stress.faults`` does much more."""

from __future__ import annotations

import os
import random

import pytest

from tests.conftest import Run
from tests.stress.faults import LOOPS, stress

COUNT = 8_000


@pytest.mark.parametrize("run", LOOPS, indirect=True)
def test_nothing_is_left_behind_by_faults(run: Run) -> None:
    """Whatever is cancelled, fails, or comes too late, and wherever: all is whole, and nothing is kept or stuck."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**9))
    count = int(os.environ.get("COUNT") or COUNT)
    print(f"SEED={seed} COUNT={count}")
    world = run(stress, count, seed, 1_000)
    assert world.started >= count
    assert min(world.ends[word] for word in ("done", "failed", "cancelled")) > count / 20, "there are some of each"
    assert len(world.pairs) > 300, "a good part of the faults has been met at a good part of the points"
