"""Inheritance without a loop: random waits, against the definition of what counts as a priority."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from threadlets.lifecycles import State
from threadlets.waits import Waits


class FakeHandle:
    """What ``Waits`` asks of a threadlet."""

    pool = None
    _state = State.RUNNING

    def __init__(self, name: int) -> None:
        self.name = name
        self._priority: float = name % 5
        self.final = False

    def __repr__(self) -> str:
        return f"<{self.name}: {self._priority}>"

    def done(self) -> bool:
        return self.final

    def holds_place(self) -> bool:
        return False

    def is_queued_in_pool(self) -> bool:
        return False

    def tie(self) -> None:
        pass


NAMES = st.integers(0, 7)


class InheritanceMachine(RuleBasedStateMachine):
    """Random waits without circles, against the definition: one's own, or that of the most urgent who waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = Waits(lambda handle: None)
        self.handles = [FakeHandle(name) for name in range(8)]
        self.own = {name: handle._priority for name, handle in enumerate(self.handles)}
        self.model: dict[tuple[int, int], int] = {}

    def of(self, name: int) -> Any:
        return cast(Any, self.handles[name])

    @rule(one=NAMES, other=NAMES)
    def begin(self, one: int, other: int) -> None:
        waiter, awaited = sorted((one, other))
        if not (self.handles[one].final or self.handles[other].final):
            self.waits.begin(self.of(waiter), self.of(awaited))
            if waiter != awaited:
                self.model[waiter, awaited] = self.model.get((waiter, awaited), 0) + 1

    @rule(one=NAMES, other=NAMES)
    def end(self, one: int, other: int) -> None:
        pair = min(one, other), max(one, other)
        self.waits.end(self.of(pair[0]), self.of(pair[1]))
        self.model[pair] = self.model.get(pair, 0) - 1
        if self.model[pair] < 1:
            del self.model[pair]

    @rule(name=NAMES, priority=st.integers(-3, 9))
    def prioritize(self, name: int, priority: int) -> None:
        if not self.handles[name].final:
            self.own[name] = priority
            self.waits.prioritize(self.of(name), priority)

    @rule(name=NAMES)
    def finish(self, name: int) -> None:
        self.handles[name].final = True
        self.waits.gone(self.of(name))
        self.model = {pair: count for pair, count in self.model.items() if name not in pair}

    @rule(name=NAMES)
    def replace(self, name: int) -> None:
        if self.handles[name].final:
            self.handles[name] = FakeHandle(name)
            self.own[name] = self.handles[name]._priority

    @invariant()
    def agrees(self) -> None:
        self.waits._check()
        effective: dict[int, float] = {}
        for name in range(8):
            awaiters = [effective[waiter] for waiter, awaited in self.model if awaited == name]
            effective[name] = min([self.own[name], *awaiters])
        assert [handle._priority for handle in self.handles] == list(effective.values())
        assert [self.waits.own(self.of(name)) for name in range(8)] == list(self.own.values())
        assert len(self.waits) == len({name for pair in self.model for name in pair})


TestInheritance = InheritanceMachine.TestCase
TestInheritance.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
