"""A few seconds of the stress of pools, on every kind of loop."""

from __future__ import annotations

import os
import random

from tests.conftest import Run
from tests.stress.pools import stress


def test_nothing_is_lost_and_nothing_is_doubled(run: Run) -> None:
    """20,000 random operations leave no threadlet behind, run none twice, and give every place back."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**9))
    print(f"seed={seed}")
    operations = 2_000 if run.debug else 20_000
    world = run(stress, operations, seed, 1_000)
    assert sum(world.ends[name] for name in ("done", "failed", "cancelled", "shed")) > operations // 10
