"""A second of the torture of migration, on each kind of loop; ``make hops`` does much more."""

from __future__ import annotations

import os
import random

import pytest

from tests.conftest import Run
from tests.stress.migrations import LOOPS, stress

COUNT = 3_000


@pytest.mark.parametrize("run", LOOPS, indirect=True)
def test_nothing_is_lost_by_hops(run: Run) -> None:
    """Whatever coroutines go to, and whenever they are cancelled or fail: each ends as it has to, where it has to."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**9))
    count = int(os.environ.get("COUNT") or COUNT)
    print(f"SEED={seed} COUNT={count}")
    done = run(stress, count, seed)
    assert done.hops >= count and done.told
    assert all(done.ends[word] for word in ("done", "failed", "cancelled")), "there are some of each"
