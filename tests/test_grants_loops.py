"""Loops that are closed, and processes that fork, while somebody waits: what is granted goes to those who are there."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Run
from tests.support import eventually
from tests.takeovers import program
from tests.waiters import Interrupted, Waiting, in_line
from tests.workbench import rounds
from threadlets.conditions import Condition, Semaphore
from threadlets.grants import Granted
from threadlets.parking import Line


class Lost:
    """A loop of its own in which a coroutine waits, and which is closed before that has ended."""

    def __init__(self, wait_async: Callable[[], Any]) -> None:
        self.loop = asyncio.SelectorEventLoop()
        self.loop.set_exception_handler(lambda *_: None)  # it tells of the task when that is collected
        self._task: Any = self.loop.create_task(wait_async())
        self.go_round()

    def go_round(self) -> None:
        """Let the loop go round."""
        self.loop.run_until_complete(rounds())

    def collect(self) -> None:
        """Have the garbage collector throw the coroutine away."""
        self._task = None
        gc.collect()

    def close_coroutine(self) -> None:
        """Do what the garbage collector would do, if nothing else knew of the coroutine."""
        self._task.get_coro().close()


class Closing(Line):
    """A line that closes a loop right when somebody who waits on it was taken out."""

    def __init__(self, what: Granted) -> None:
        super().__init__()
        self.lost: Lost | None = None
        what._line = self

    def pop(self) -> Any:
        waiter, lost = super().pop(), self.lost
        if lost is not None:
            self.lost = None
            lost.loop.close()
        return waiter


def test_in_line() -> None:
    """Who stands in line on a loop that is closed gets no token."""
    semaphore = Semaphore(0)
    lost = Lost(semaphore.acquire_async)
    lost.loop.close()
    assert len(semaphore._line) == 1
    semaphore.release()
    assert semaphore.value == 1 and not len(semaphore._line)
    lost.collect()
    assert semaphore.value == 1
    semaphore._check()


def test_granted() -> None:
    """A token that was granted to somebody whose loop is closed then is free once he is thrown away."""
    semaphore = Semaphore(0)
    lost = Lost(semaphore.acquire_async)
    semaphore.release()
    lost.loop.close()
    assert semaphore.value == 0
    lost.collect()
    assert semaphore.value == 1
    semaphore._check()


def test_closed_in_the_middle_of_a_release() -> None:
    """If a loop is closed right after it was known to be open, the token is somebody else's, and there is one of it."""
    semaphore = Semaphore(0)
    line = Closing(semaphore)
    line.lost = lost = Lost(semaphore.acquire_async)
    semaphore.release()
    assert semaphore.value == 1
    lost.collect()
    assert semaphore.value == 1
    semaphore._check()


def test_closed_in_the_middle_of_a_notification(run: Run) -> None:
    """The same with a notification."""

    async def main() -> None:
        condition = Condition()
        line = Closing(condition)
        lost = await asyncio.to_thread(Lost, Waiting(condition).wait_async)
        waiting = Waiting(condition)
        task = waiting.start("task")
        await in_line(condition, 2)
        line.lost = lost
        async with condition:
            condition.notify()
        await task
        assert waiting.ended == [(True, True)]
        lost.collect()
        condition._check()

    run(main)


def test_thrown_away_in_the_middle_of_a_release() -> None:
    """The garbage collector runs in the middle of a release, and what it throws away gives a token back."""
    semaphore = Semaphore(0)
    lost = Lost(semaphore.acquire_async)
    semaphore.release()
    lost.loop.close()
    thread = threading.Thread(target=semaphore.acquire)
    thread.start()
    eventually(lambda: len(semaphore._line))
    Interrupted(semaphore, lost.collect)
    semaphore.release()
    thread.join()
    assert semaphore.value == 1
    semaphore._check()


@pytest.mark.parametrize("place", ["in line", "notified", "on the way back"])
def test_a_coroutine_that_is_thrown_away(run: Run, place: str) -> None:
    """A coroutine whose loop was closed while it waited is collected in the middle of a task that holds the lock.

    It must leave that task the lock, and whoever waits the notification that it was given.
    """
    condition = Condition()

    async def main(lost: Lost) -> None:
        waiting = Waiting(condition)
        task = waiting.start("task")
        await in_line(condition, 2 if place == "in line" else 1)
        async with condition:
            lost.close_coroutine() if place == "on the way back" else lost.collect()
            condition.notify(0)  # it is held
            await rounds()
            assert not waiting.ended
            if place == "in line":
                condition.notify()
        await task
        assert waiting.ended == [(True, True)]
        condition._check()

    lost = Lost(Waiting(condition).wait_async)
    with condition:
        if place != "in line":
            condition.notify()
        if place == "on the way back":
            lost.go_round()
            assert len(condition.lock._line) == 1
        lost.loop.close()
    run(main, lost)


FORK = """
import warnings
from threadlets.conditions import Condition, Event, Semaphore

warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads
semaphore, event, condition = Semaphore(0), Event(), Condition()

def wait():
    with condition:
        condition.wait()

threads = [threading.Thread(target=target) for target in (semaphore.acquire, event.wait, wait)]
for thread in threads:
    thread.start()
while not (len(semaphore._line) and len(event._line) and len(condition._line)):
    time.sleep(0.001)
child = os.fork()
if not child:
    semaphore.release()
    event.set()
    with condition:
        condition.notify()
    for each in (semaphore, event, condition):
        each._check()
    print(semaphore.acquire(5), event.wait(5), len(condition._line), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
semaphore.release()
event.set()
with condition:
    condition.notify()
for thread in threads:
    thread.join()
print("parent")
"""


def test_fork() -> None:
    """In a forked child nothing is granted to the parent's threads, which are not there."""
    result = program(FORK, "hands")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["True", "True", "0", "parent"]
