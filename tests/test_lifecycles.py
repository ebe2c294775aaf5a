"""The table of a threadlet's life: every step it has, and none that it has not."""

from __future__ import annotations

import itertools

import pytest

from threadlets.errors import IllegalTransition, ThreadletError
from threadlets.lifecycles import FINAL, INITIAL, STEPS, State, drawing, step

# The law, written a second time and by hand: old and new state, as users read them.
ALLOWED = {
    ("queued", "running"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "missed"),
    ("running", "cleaning"),
    ("running", "done"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("missed", "cleaning"),
    ("missed", "done"),
    ("missed", "failed"),
    ("missed", "cancelled"),
    ("cleaning", "done"),
    ("cleaning", "failed"),
    ("cleaning", "cancelled"),
}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(State, State)))
def test_steps(old: State, new: State) -> None:
    """Each of the 49 pairs of states is a step of the table, or an error that has both words."""
    if (str(old), str(new)) in ALLOWED:
        assert step(old, new) is new
    else:
        with pytest.raises(IllegalTransition, match=f"that is {old} cannot become {new}"):
            step(old, new)


def test_error_says_what_is_allowed() -> None:
    """The error names the steps that there are, or says that there are none."""
    with pytest.raises(IllegalTransition, match=r"\(it can become cleaning or done or failed or cancelled\)"):
        step(State.MISSED, State.QUEUED)
    with pytest.raises(IllegalTransition, match=r"\(it is final\)"):
        step(State.FAILED, State.DONE)
    assert issubclass(IllegalTransition, (ThreadletError, RuntimeError))


def test_every_life_ends() -> None:
    """Every state is reached from an initial one, none is entered twice, and every way ends in a final state."""
    assert set(STEPS) == set(State)
    assert {"done", "failed", "cancelled"} == FINAL
    seen: set[State] = set()

    def live(state: State, before: tuple[State, ...]) -> None:
        assert state not in before
        seen.add(state)
        assert bool(STEPS[state]) == (state not in FINAL)
        for following in STEPS[state]:
            live(following, (*before, state))

    for state in INITIAL:
        live(state, ())
    assert seen == set(State)


def test_states_are_words() -> None:
    """A state compares with the word that users write, and prints as it."""
    assert [str(state) for state in State] == "queued running missed cleaning done failed cancelled".split()
    assert State.DONE == "done"
    assert f"{State.MISSED}" == "missed"


def test_drawing_shows_every_step() -> None:
    """The drawing has a line for each state, with the steps that the table has."""
    lines = dict(line.split(maxsplit=1) for line in drawing().splitlines())
    assert set(lines) == set(State)
    drawn = {(old, new) for old, news in lines.items() for new in news.removeprefix("-> ").split(" | ")}
    assert {(old, new) for old, new in drawn if new != "(final)"} == ALLOWED
