"""The event loops of nodes: threads that run for as long as the process does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import eventually
from threadlets import residences, topology
from threadlets.nodes import Node, read_machine
from threadlets.residences import loop_at

NODE = topology.machine().nodes[0]


def test_there_is_one_loop_for_a_node() -> None:
    """It runs when it is handed out, in a daemon thread that has the node's name; everybody gets the same."""
    with ThreadPoolExecutor(8) as threads:
        loops = set(threads.map(lambda _: NODE.loop(), range(50)))
    assert loops == {loop_at(NODE)} and NODE.loop().is_running()
    thread = next(thread for thread in threading.enumerate() if thread.name == f"threadlets-node-{NODE.number}")
    assert thread.daemon


def test_its_thread_is_bound_to_the_cpus_of_the_node() -> None:
    """Where the system can do that; and CPUs that are not there are no error."""

    async def cpus() -> set[int]:
        return os.sched_getaffinity(0)

    assert asyncio.run_coroutine_threadsafe(cpus(), NODE.loop()).result(20) == NODE.allowed
    made_up = Node(7, frozenset({4000}), frozenset({4000}))
    loop = loop_at(made_up)
    assert loop is not NODE.loop()
    assert asyncio.run_coroutine_threadsafe(cpus(), loop).result(20)
    close(loop)


def close(loop: asyncio.AbstractEventLoop) -> None:
    """End a loop for good: its thread lets go of it when it is closed."""
    threads = [each for each in threading.enumerate() if each.name == "threadlets-node-7"]
    run_forever = loop.run_forever

    def close_instead() -> None:
        loop.run_forever = run_forever  # type: ignore[method-assign]
        loop.close()

    loop.run_forever = close_instead  # type: ignore[method-assign]
    loop.call_soon_threadsafe(loop.stop)
    eventually(lambda: not any(thread.is_alive() for thread in threads))


def test_who_stops_it_stops_nobody() -> None:
    """It belongs to all who go there: it runs on after stop()."""
    loop = NODE.loop()
    loop.call_soon_threadsafe(loop.stop)
    for _ in range(3):
        assert asyncio.run_coroutine_threadsafe(asyncio.sleep(0, 5), loop).result(20) == 5


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said, the loop is closed, and the next time it is tried again."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    node = Node(7, NODE.cpus, NODE.allowed)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            loop_at(node)
    assert (7, NODE.allowed) not in residences._loops
    close(loop_at(node))


def test_a_node_that_was_read_from_files_has_none(tmp_path: Path) -> None:
    """Its machine is not the one that the program runs on; unless somebody says where its loops are."""
    with pytest.raises(RuntimeError, match=r"topology.machine\(\)"):
        read_machine(tmp_path).nodes[0].loop()
    loop = asyncio.new_event_loop()
    assert read_machine(tmp_path, loops=lambda node: loop).nodes[0].loop() is loop
    loop.close()


def test_a_forked_child_starts_its_own() -> None:
    """It does not have the thread of its parent's, and the program ends although the loop runs."""
    program = """
import asyncio, os, warnings
from threadlets import migrate, run, topology
warnings.simplefilter("ignore")
node = topology.machine().nodes[0]

async def visit():
    await migrate(node)
    assert asyncio.get_running_loop() is node.loop()
    await asyncio.sleep(0)

run(visit())
child = os.fork()
run(visit())
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)
