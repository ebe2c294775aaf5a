"""Another order of what may run in any: ``--threadlets-seed`` of the pytest plugin.

Why: threadlets of one priority start in the order in which they came, and tasks go on in the order in which they were
woken. Nobody has promised that, and a program that is right in this order only will meet the other one in production.

How: a pool that holds threadlets back has a number drawn for each, which is looked at where priorities are equal
(``trials.tie``); and before each round of a loop the steps of tasks that are ready are shuffled among the places that
they have. Other callbacks stay where they are: transports and protocols may count on their order.

Each test has a seed of its own, made from the number and the name of the test; so a test by itself, or on another
worker of pytest-xdist, has the same order as in the whole suite. What threads do is not decided by this.

On uvloop's loops only pools are shuffled: their ready callbacks are not for others to see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from random import Random, SystemRandom
from typing import Any

import pytest

from threadlets.trials import trial

from .pytest_clock import Front, has_selector

__all__ = ["Seeds", "seed_of"]


def seed_of(config: pytest.Config) -> int:
    """Return the number that was asked for; any, for "random"; in a worker of pytest-xdist, the one that was drawn."""
    drawn: dict[str, Any] = getattr(config, "workerinput", {})
    asked = drawn.get("threadlets_seed", config.getoption("threadlets_seed"))
    return SystemRandom().randrange(1_000_000) if asked == "random" else int(asked)


class Seeds:
    """Draws for the test that is running. The hooks of ``--threadlets-seed``."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._ties = self._steps = Random()

    def tie(self) -> float:
        """Draw for one that waits in a pool."""
        return self._ties.random()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of pytest-xdist what was drawn."""
        node.workerinput["threadlets_seed"] = self.seed

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Begin anew for each test, its fixtures too; pools of an earlier one draw from the same."""
        self._ties = Random(f"{self.seed} ties {item.nodeid}")
        self._steps = Random(f"{self.seed} steps {item.nodeid}")
        with trial(ties=self.tie):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Say with each failure how to have the same order again."""
        report = yield
        if report.failed:
            report.sections.append(("threadlets", f"this order again: --threadlets-seed={self.seed} '{item.nodeid}'"))
        return report

    @contextmanager
    def shuffled(self, loop: Any) -> Iterator[None]:
        """Shuffle the tasks that are ready, before each round of a loop."""
        if not has_selector(loop):
            yield
            return

        def select(selector: Any, timeout: float | None) -> Any:
            events = selector.select(timeout)
            self._shuffle(loop._ready)
            return events

        front = Front(loop, select)
        try:
            yield
        finally:
            front.remove()

    def _shuffle(self, ready: Any) -> None:
        """Shuffle the steps of tasks among their places. Other threads may append meanwhile: no place moves by that."""
        places = [place for place, handle in enumerate(ready.copy()) if _is_step(handle)]
        if len(places) > 1:
            steps = [ready[place] for place in places]
            self._steps.shuffle(steps)
            for place, step in zip(places, steps, strict=True):
                ready[place] = step


def _is_step(handle: Any) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)
