"""How whole programs end: by themselves, by Ctrl-C, by SIGTERM, and by the same again; and what they say meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 40  # seconds; arbitrary: a program that takes longer hangs

RUNNERS = {
    "asyncio.run": "asyncio.run(main())",
    "threadlets.run": "threadlets.run(main(), **OPTIONS)",
    "on uvloop": "threadlets.run(main(), loop='uvloop', **OPTIONS)",
}
BEGINNING = """
import asyncio, os, sys, time, threading
import threadlets
from threadlets import Contract, Pool, checkpoint, defer, threadlet
import threadlets.departures, threadlets.programs
threadlets.departures.SAY_SECONDS = threadlets.programs.SAY_SECONDS = 0.05

WORKER = Contract(blocks="always")

def say(*words):  # in one piece: print writes two
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


def source(text: str, runner: str, options: str = "{}") -> str:
    if runner == "on uvloop" and find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    run = RUNNERS[runner].replace("OPTIONS", options)
    return BEGINNING + textwrap.dedent(text).replace("RUN", run)


class Program:
    """A program that says on its output where it is."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def reach(self, *words: str) -> None:
        """Wait until it says all of these, in any order."""
        assert self.process.stdout is not None
        missing = set(words)
        for line in self.process.stdout:
            missing.discard(line.strip())
            if not missing:
                return
        raise AssertionError(f"it ended without saying {words!r}: {self.process.communicate()[1]}")

    def reach_error(self, words: str) -> str:
        """Wait until it says something like this on stderr; return all until then."""
        assert self.process.stderr is not None
        said = ""
        for line in self.process.stderr:
            said += line
            if words in line:
                return said
        raise AssertionError(f"it ended without saying {words!r}: {said}")

    def send(self, signal: int) -> None:
        self.process.send_signal(signal)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; return the exit code, and what it has said since."""
        output, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output, errors


@contextmanager
def running(text: str) -> Iterator[Program]:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield Program(process)
    finally:
        process.kill()
        process.wait()


ENDS = """
async def suspended():
    defer(say, "suspended cleaned")
    await asyncio.Event().wait()

def listens():
    defer(say, "worker cleaned")
    say("listening")
    while True:
        checkpoint()

async def main():
    threadlet(suspended)()
    threadlet(contract=WORKER)(listens)()
    say("main waits")
    try:
        await asyncio.Event().wait()
    finally:
        say("main ends")

try:
    RUN
finally:
    say("finally")
"""


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_one_signal_ends_a_program(runner: str, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM cancel main; threadlets stop and clean up; the exit code is the one that a shell knows."""
    if runner == "asyncio.run" and number is signal.SIGTERM:
        pytest.skip("asyncio.run leaves SIGTERM alone: the process is gone at once")
    with running(source(ENDS, runner)) as program:
        program.reach("main waits", "listening")
        program.send(number)
        code, output, errors = program.end()
    lines = output.splitlines()
    assert {"main ends", "suspended cleaned", "worker cleaned"} <= set(lines) and lines[-1] == "finally"
    if number is signal.SIGINT:
        assert code in (-signal.SIGINT, 130) and errors.rstrip().endswith("KeyboardInterrupt")
    else:
        assert code == 143 and errors == ""


SLEEPS = """
def sleeps():
    say("asleep")
    time.sleep(1000)

async def main():
    threadlet(contract=WORKER)(sleeps)()
    await asyncio.sleep(ASLEEP)
    say("main ends")

RUN
"""


@pytest.mark.parametrize("runner", RUNNERS)
def test_who_does_not_stop_is_named(runner: str) -> None:
    """A worker that sleeps is named on stderr with its stack; Ctrl-C leaves without it."""
    with running(source(SLEEPS.replace("ASLEEP", "0.01"), runner)) as program:
        program.reach("main ends")
        said = program.reach_error("in sleeps")
        assert "still waiting for 1 threadlet" in said and "<Threadlet sleeps running>" in said
        program.send(signal.SIGINT)
        code, _, errors = program.end()
    assert code in (-signal.SIGINT, 130), errors
    if runner != "asyncio.run":
        assert "left behind 1 threadlet" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_the_same_again_leaves(number: signal.Signals) -> None:
    """The first signal ends main; the second one ends the wait for a worker that sleeps."""
    with running(source(SLEEPS.replace("ASLEEP", "1000"), "threadlets.run")) as program:
        program.reach("asleep")
        program.send(number)
        program.reach_error("still waiting for 1 threadlet")
        program.send(number)
        code, _, errors = program.end()
    assert code in ((-signal.SIGINT, 130) if number is signal.SIGINT else (143,)), errors
    assert "left behind 1 threadlet" in errors


def test_a_deadline_ends_the_wait() -> None:
    """After ``timeout`` seconds who sleeps is left behind, and the program ends as it would have."""
    text = source(SLEEPS.replace("ASLEEP", "0.01"), "threadlets.run", "dict(timeout=0.1)")
    with running(text) as program:
        code, _, errors = program.end()
    assert code == 0
    assert "left behind 1 threadlet, which did not stop within 0.1 s" in errors
    assert errors.count("left behind") == 1


STUCK = """
def sleeps():
    say("asleep")
    time.sleep(1000)

async def main():
    await threadlet(contract=WORKER)(sleeps)()

RUN
"""


@pytest.mark.parametrize("runner", ["threadlets.run", "on uvloop"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("ends_by", ["the same again", "timeout"])
def test_a_main_that_is_stuck(runner: str, number: signal.Signals, ends_by: str) -> None:
    """If main waits for a worker that sleeps, this is said, too; the same signal again, or the timeout, leaves both."""
    options = "{}" if ends_by == "the same again" else "dict(timeout=0.2)"
    with running(source(STUCK, runner, options)) as program:
        program.reach("asleep")
        program.send(number)
        said = program.reach_error("in sleeps")
        assert f"still waiting for main() and 1 threadlet, 0 s after {number.name}" in said
        assert "in main\n" in said and "<Threadlet sleeps running>" in said
        if ends_by == "the same again":
            program.send(number)
        code, _, errors = program.end()
    assert code in ((-signal.SIGINT, 130) if number is signal.SIGINT else (143,)), errors
    assert "left behind" in errors


FINISHES = """
async def finishes(seconds):
    try:
        await asyncio.sleep(seconds)
        say("finished")
    except asyncio.CancelledError as error:
        say("cancelled:", error)

async def main():
    threadlet(finishes)(0.01)
    threadlet(finishes)(1000)
    say("main ends")
    return "result"

say(RUN)
"""


def test_what_runs_may_finish() -> None:
    """With ``finish`` what runs when main ends has this time; then it is cancelled."""
    with running(source(FINISHES, "threadlets.run", "dict(finish=0.3)")) as program:
        code, output, errors = program.end()
    assert (code, errors) == (0, "")
    assert output.splitlines() == ["main ends", "finished", "cancelled: the program ends", "result"]


CHILD = """
async def main():
    child = os.fork()
    if not child:
        say("child runs")
        time.sleep(1000)
        os._exit(1)
    say(f"child {child}")
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    say("child ended by", os.WTERMSIG(status))

RUN
"""


def test_a_forked_child_can_be_terminated() -> None:
    """A child that was forked while the loop runs does not keep the handler of its parent's loop."""
    with running("import warnings; warnings.simplefilter('ignore')\n" + source(CHILD, "threadlets.run")) as program:
        assert program.process.stdout is not None
        said = [program.process.stdout.readline().strip() for _ in range(2)]
        assert "child runs" in said
        child = next(int(line.split()[1]) for line in said if line != "child runs")
        subprocess.run(["kill", "-TERM", str(child)], check=True)
        code, output, errors = program.end()
    assert (code, output.strip(), errors) == (0, f"child ended by {signal.SIGTERM.value}", "")


OWN = """
import signal

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    say("ready")
    await stop.wait()
    say("stopped by my own handler")

RUN
say("_Ending" in repr(signal.getsignal(signal.SIGTERM)))
"""


@pytest.mark.parametrize("runner", ["threadlets.run", "on uvloop"])
def test_a_handler_of_the_program(runner: str) -> None:
    """A program that handles SIGTERM itself is not disturbed."""
    with running(source(OWN, runner)) as program:
        program.reach("ready")
        program.send(signal.SIGTERM)
        code, output, errors = program.end()
    assert (code, errors) == (0, "")
    assert output.splitlines() == ["stopped by my own handler", "False"]


LAST_STEP = """
async def main():
    await asyncio.sleep(0)
    os.kill(os.getpid(), SIGNAL)
    return "result"

RUN
"""


@pytest.mark.parametrize("runner", ["threadlets.run", "on uvloop"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_in_the_last_step(runner: str, number: signal.Signals) -> None:
    """A signal that comes too late to cancel main ends the program all the same."""
    with running(source(LAST_STEP.replace("SIGNAL", str(number.value)), runner)) as program:
        code, _, errors = program.end()
    assert code in ((-signal.SIGINT, 130) if number is signal.SIGINT else (143,)), errors


SWALLOWS = """
async def swallows():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

async def main():
    work = KIND
    say("ready")
    await LAST

RUN
"""
KINDS = {"task": "asyncio.create_task(swallows())", "threadlet": "threadlet(swallows)()", "main": None}


@pytest.mark.parametrize("kind", KINDS)
def test_who_swallows_every_cancel(kind: str) -> None:
    """A task, a threadlet, a main that go on whenever they are cancelled are left behind after a second signal."""
    text = SWALLOWS.replace("KIND", KINDS[kind] or "None").replace(
        "LAST", "swallows()" if kind == "main" else "asyncio.sleep(1000)"
    )
    with running(source(text, "threadlets.run")) as program:
        program.reach("ready")
        program.send(signal.SIGTERM)
        program.reach_error("still waiting for")
        program.send(signal.SIGTERM)
        code, _, errors = program.end()
    assert code == 143 and "left behind" in errors


BLOCKED = """
async def blocks():
    threadlet(time.sleep)(1000)

async def main():
    work = asyncio.create_task(blocks())
    asyncio.get_running_loop().call_later(0.1, say, "the loop goes on")
    await asyncio.sleep(1000)

RUN
"""


@pytest.mark.parametrize("runner", ["threadlets.run", "on uvloop"])
def test_home_is_blocked(runner: str) -> None:
    """If the main thread itself is held up, in place, and another one runs the loop, it is got out of there in time."""
    with running(source(BLOCKED, runner, "dict(timeout=0.2)")) as program:
        program.reach("the loop goes on")
        program.send(signal.SIGTERM)
        code, _, errors = program.end()
    assert code == 143, errors


def test_stderr_is_full() -> None:
    """A report that cannot be written does no harm."""
    text = source(SLEEPS.replace("ASLEEP", "0.01"), "threadlets.run", "dict(timeout=0.2)")
    with open("/dev/full", "w") as full:
        ended = subprocess.run([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=full, cwd=ROOT, check=False)
    assert (ended.returncode, ended.stdout.split(b"\n")[-2]) == (0, b"main ends")
