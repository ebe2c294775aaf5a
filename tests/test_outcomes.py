"""What is left of a failure: told once, to whoever asks or else to the loop, and raised without growing."""

from __future__ import annotations

import asyncio
import gc
import logging
import traceback
from typing import Any

import pytest

from tests.conftest import Run
from threadlets.outcomes import Failure, as_awaitable


def raised(error: BaseException) -> BaseException:
    """Return an exception that has been raised, and so has a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def test_unretrieved_failure_is_told_to_the_loop(run: Run) -> None:
    """A failure that is collected before anybody looked at it is told to the loop's exception handler, once."""

    async def main() -> None:
        error = raised(ValueError("lost"))
        failure = Failure(error, "load", asyncio.get_running_loop())
        assert run.told() == []
        del failure
        [report] = run.told()
        assert report["message"] == "threadlet load() failed, and nobody awaited it or asked for its exception"
        assert report["exception"] is error
        error.__traceback__ = None

    run(main)


def test_retrieved_failure_is_not_told(run: Run) -> None:
    """A failure that somebody has seen is nobody else's business."""

    async def main() -> None:
        failure = Failure(ValueError("seen"), "load", asyncio.get_running_loop())
        failure.retrieved = True
        del failure
        assert run.told() == []

    run(main)


def test_failure_without_a_loop_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Where there is no loop to tell, an unretrieved failure is logged with its exception."""
    error = raised(ValueError("lost"))
    with caplog.at_level(logging.ERROR, logger="threadlets"):
        failure = Failure(error, "load", None)
        del failure
        gc.collect()
    [record] = caplog.records
    assert record.name == "threadlets"
    assert "load() failed" in record.getMessage()
    assert record.exc_info is not None and record.exc_info[1] is error


def test_raising_again_does_not_grow_the_traceback() -> None:
    """An exception that is raised many times over has the traceback of its origin, and of who asked, each time."""
    failure = Failure(raised(ValueError("again")), "load", None)
    failure.retrieved = True
    frames = []
    for _ in range(5):
        with pytest.raises(ValueError, match="again") as caught:
            raise failure.fresh()
        frames.append([frame.name for frame in traceback.extract_tb(caught.value.__traceback__)])
    assert frames == [["test_raising_again_does_not_grow_the_traceback", "raised"]] * 5


@pytest.mark.parametrize("error", [ValueError(1), KeyboardInterrupt(), StopAsyncIteration(), GeneratorExit()])
def test_most_exceptions_can_be_awaited(error: BaseException) -> None:
    """All exceptions but one are raised by an await as they are."""
    assert as_awaitable(error, "load") is error


class OwnStop(StopIteration):
    """A kind of StopIteration."""


@pytest.mark.parametrize("error", [StopIteration(1), OwnStop(2)])
def test_stop_iteration_cannot_be_awaited(error: Any) -> None:
    """StopIteration, which would end the awaiting coroutine as a return does, becomes the cause of a RuntimeError."""
    error = raised(error)
    changed = as_awaitable(error, "load")
    assert type(changed) is RuntimeError
    assert str(changed) == "load() raised StopIteration"
    assert changed.__cause__ is error
    assert changed.__traceback__ is error.__traceback__ is not None
