"""Whole programs: Ctrl-C in a region, and processes that are forked in one."""

from __future__ import annotations

import pytest

from tests.takeovers import program

LOOPS = ["hands", "uvhands"]
RUNS = {
    "runner": "with asyncio.Runner(loop_factory=EventLoop, debug=DEBUG) as runner:\n    runner.run(main())\n",
    "threadlets.run": "threadlets.run(main(), loop=EventLoop, debug=DEBUG)\n",
}


def indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    if request.param == "uvhands":
        pytest.importorskip("uvloop")
    return str(request.param)


FIRST = """
def say(*words): print(*words, flush=True)

gone_on = threading.Event()

async def blocks():
    try:
        with blocking():
            WAIT
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(100): time.sleep(0.0001)
            say("region ends")
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        say("blocks is cancelled")
        raise

async def main():
    task = asyncio.create_task(blocks())
    asyncio.get_running_loop().call_soon(gone_on.set)
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        say("main is cancelled")
        await asyncio.wait([task], timeout=0.05)
        raise

try:
RUN
except KeyboardInterrupt:
    say("interrupted")
"""


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("wait", ["pass", "gone_on.wait(20)"], ids=["in place", "taken"])
def test_first_interrupt_cancels_main(loop: str, run: str, debug: bool, wait: str) -> None:
    """Ctrl-C while home is in a region: the region goes on; main is cancelled, then the rest, as asyncio has it."""
    text = FIRST.replace("WAIT", wait).replace("RUN", indented(RUNS[run]).rstrip()).replace("DEBUG", str(debug))
    ended = program(text, loop)
    assert ended.stderr == ""
    assert ended.stdout.splitlines()[-1] == "interrupted"
    assert sorted(ended.stdout.splitlines()) == [
        "blocks is cancelled",
        "interrupted",
        "main is cancelled",
        "region ends",
    ]


SECOND = """
def say(*words): print(*words, flush=True)

gone_on = threading.Event()

async def main():
    asyncio.get_running_loop().call_soon(gone_on.set)
    try:
        with blocking():
            WAIT
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(10): time.sleep(0.0001)
            say("first")
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(10): time.sleep(0.0001)
            say("never")
    finally:
        say(type(sys.exc_info()[1]).__name__, asyncio.current_task() is not None, threading.current_thread().name)

try:
RUN
except KeyboardInterrupt:
    say("interrupted")
"""


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("wait", ["pass", "gone_on.wait(20)"], ids=["in place", "taken"])
def test_second_interrupt_is_raised_in_the_region(loop: str, run: str, debug: bool, wait: str) -> None:
    """The second Ctrl-C is raised where home is: in its region; what is outside of it sees the loop again."""
    text = SECOND.replace("WAIT", wait).replace("RUN", indented(RUNS[run]).rstrip()).replace("DEBUG", str(debug))
    ended = program(text, loop)
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == ["first", "KeyboardInterrupt True MainThread", "interrupted"]


WAITING = """
def say(*words): print(*words, flush=True)

async def blocks(arrived, go):
    with blocking():
        arrived.set()
        go.wait(20)

async def main():
    gates = [(threading.Event(), threading.Event()) for _ in range(2)]
    tasks = [asyncio.create_task(blocks(*gate)) for gate in gates]
    await asyncio.sleep(0)
    while not all(arrived.is_set() for arrived, _ in gates): await asyncio.sleep(0)
    gates[0][1].set()
    await tasks[0]      # home is back, a spare is away
    threading.Timer(0.05, interrupt, [gates[1][1]]).start()

def interrupt(go):      # home waits for the spare
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)
    go.set()

try:
    loop = EventLoop()
    try:
        loop.run_until_complete(main())
    finally:
        say(loop.is_running(), len(asyncio.all_tasks(loop)))
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.close()
except KeyboardInterrupt:
    say("interrupted")
"""


def test_interrupt_while_home_waits_for_a_spare(loop: str) -> None:
    """Ctrl-C when home is about to leave run_forever and waits for others: it leaves, and nobody is lost."""
    ended = program(WAITING, loop)
    assert ended.stderr == ""
    assert ended.stdout.splitlines()[-1] == "interrupted"


FORK = """
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def fork(where):
    if os.fork() == 0:
        return "child"
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 7, where
    return "parent"

async def other():
    await asyncio.sleep(0.001)
    return "other"

async def main():
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    gone_on = threading.Event()
    EXTRA
    loop.call_soon(gone_on.set)
    with blocking():
        WAIT
        who = fork("WAIT")
    assert asyncio.get_running_loop() is loop and asyncio.current_task() is task
    say(who, "has the loop", loop.statistics().away)
    if who == "child":
        CHILD
    await asyncio.sleep(0.01)
    say(await asyncio.create_task(other()))
    with blocking():
        time.sleep(0.02)
    say("parent ends", threading.current_thread().name)

threadlets.run(main(), loop=EventLoop, debug=DEBUG)
"""


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("wait", ["pass", "gone_on.wait(20)"], ids=["in place", "taken"])
def test_fork_in_a_region(loop: str, debug: bool, wait: str) -> None:
    """The child's only thread goes on behind the region with the loop in its hands; the parent notices nothing."""
    text = FORK.replace("WAIT", wait).replace("DEBUG", str(debug)).replace("EXTRA", "pass")
    ended = program(text.replace("CHILD", "os._exit(7)"), loop, "-W", "ignore::DeprecationWarning")
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        "child has the loop 0",
        "parent has the loop 0",
        "other",
        "parent ends MainThread",
    ]


def test_fork_while_others_are_away(loop: str) -> None:
    """A child forgets the threads that it does not have, and what waits aside for them."""
    extra = """
    other_gate = threading.Event()
    async def block():
        with blocking(): other_gate.wait(20)
    away = asyncio.create_task(block())
    await asyncio.sleep(0)
    """.strip()
    text = FORK.replace("WAIT", "gone_on.wait(20)").replace("DEBUG", "False").replace("EXTRA", extra)
    text = text.replace("CHILD", "os._exit(7)").replace(
        'say("parent ends", threading.current_thread().name)',
        'other_gate.set(); await away; say("parent ends", threading.current_thread().name)',
    )
    text = text.replace('"has the loop", loop.statistics().away', '"has the loop"')
    ended = program(text, loop, "-W", "ignore::DeprecationWarning")
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == ["child has the loop", "parent has the loop", "other", "parent ends MainThread"]
