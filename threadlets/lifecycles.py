"""The law of a threadlet's life: its states, and the only steps between them.

One table drives the code, the error for a step that the table does not have, and the drawing in the documentation.

>>> print(drawing())
queued   -> running | failed | cancelled
running  -> missed | cleaning | done | failed | cancelled
missed   -> cleaning | done | failed | cancelled
cleaning -> done | failed | cancelled
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
    CLEANING = "cleaning"  # its function has ended, and what it has deferred is called; see Threadlet.state
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


STEPS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.FAILED, State.CANCELLED}),  # failed: shed before it ran
    State.RUNNING: frozenset({State.MISSED, State.CLEANING, State.DONE, State.FAILED, State.CANCELLED}),
    State.MISSED: frozenset({State.CLEANING, State.DONE, State.FAILED, State.CANCELLED}),
    State.CLEANING: frozenset({State.DONE, State.FAILED, State.CANCELLED}),
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}

INITIAL = frozenset({State.QUEUED, State.RUNNING})  # running: started in place, inside the call that made it
FINAL = frozenset(state for state, following in STEPS.items() if not following)


QUEUED, RUNNING, SUSPENDED, CLEANING = State.QUEUED, State.RUNNING, State.MISSED, State.CLEANING
DONE, FAILED, CANCELLED = State.DONE, State.FAILED, State.CANCELLED

# Marks: what is true of a handle besides its state. The first ones are those of a threadlet that waits in a queue: the
# numbers up to 256 are there already, and a million handles share them.
LISTED = 1  # its pool's index has it
KEPT = 2  # it was not to end within the step that starts it, so it keeps what is needed to run later
TAGGED = 4  # it has, or has had, tags
WAITED = 8  # it has done callbacks
TIED = 16  # it waits for others, or they for it
ADMITTED = 32  # it holds a place in its pool's throttles
MISSED = 64  # it started in place and could not finish there
AT_WORKER = 128  # it was handed to its worker group
ASKED = 256  # its running function was asked to stop
ABANDONED = 512  # ... and nobody waits for that
CHANGED = 1024  # it has set context variables, which whoever awaits it is to see
HERE = 2048  # it ran where no event loop runs
EXPIRES = 4096  # it has, or has had, a deadline
OVERDUE = 8192  # it was asked to stop because of that
FOLLOWS = 16384  # it shares the run of another one
CARRIES = 32768  # it is that run, and on nobody's books
TOLD = 65536  # somebody has asked it to stop, whether or not it was told yet


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
