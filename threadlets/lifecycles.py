"""The law of a threadlet's life: its states, and the only steps between them.

One table drives the code, the error for a step that the table does not have, and the drawing in the documentation.

>>> print(drawing())
queued   -> running | failed | cancelled
running  -> missed | done | failed | cancelled
missed   -> done | failed | cancelled
done     (final)
failed   (final)
cancelled (final)
>>> step(State.QUEUED, State.RUNNING)
<State.RUNNING: 'running'>
>>> step(State.DONE, State.RUNNING)
Traceback (most recent call last):
    ...
threadlets.errors.IllegalTransition: a threadlet that is done cannot become running (it is final)
"""

from __future__ import annotations

from enum import StrEnum

from .errors import IllegalTransition

__all__ = ["FINAL", "INITIAL", "STEPS", "State", "drawing", "step"]


class State(StrEnum):
    """Where a threadlet is in its life; the values are the words that users read and may compare with."""

    QUEUED = "queued"  # waits for its pool's throttles, or for a worker thread
    RUNNING = "running"  # its code runs: in place, or on a worker that it was sent to at its start
    MISSED = "missed"  # started in place and could not finish there: a coroutine that is suspended on the loop
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


STEPS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.FAILED, State.CANCELLED}),  # failed: shed before it ran
    State.RUNNING: frozenset({State.MISSED, State.DONE, State.FAILED, State.CANCELLED}),
    State.MISSED: frozenset({State.DONE, State.FAILED, State.CANCELLED}),
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}

INITIAL = frozenset({State.QUEUED, State.RUNNING})  # running: started in place, inside the call that made it
FINAL = frozenset(state for state, following in STEPS.items() if not following)


def step(old: State, new: State) -> State:
    """Return ``new`` if a threadlet in state ``old`` may become that.

    Raises:
        IllegalTransition: If the table has no such step; the message has both words.
    """
    if new not in STEPS[old]:
        allowed = " or ".join(state for state in State if state in STEPS[old])
        why = f"it can become {allowed}" if allowed else "it is final"
        raise IllegalTransition(f"a threadlet that is {old} cannot become {new} ({why})")
    return new


def drawing() -> str:
    """Return the table as text, one line per state."""
    return "\n".join(
        f"{old:8} -> {' | '.join(new for new in State if new in STEPS[old])}" if STEPS[old] else f"{old:8} (final)"
        for old in State
    )
