"""The situations with concurrent.futures: what runs there cannot be cancelled, and is never broken off."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

from .situations_facts import PATIENCE, Cells, Facts, Gate, Queued, Refused, Returned, Spin, patient, stuck, watched

__all__ = ["ConcurrentFutures"]


def until(condition: Callable[[], object]) -> bool:
    """Wait until a condition holds; False if it does not."""
    end = time.monotonic() + patient(PATIENCE)
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


class ConcurrentFutures:
    """A ``ThreadPoolExecutor``."""

    tool = ""
    absent: ClassVar[dict[str, str]] = {
        "suspended": "it has no coroutines",
        "section": "it has no coroutines; a function is never broken off",
        "again": "a function is never cancelled, and so has no cleanup for that",
        "hangs": "the same",
        "errors": "the same",
    }

    def run(self, situation: Callable[[], Cells], report: Callable[[Cells], None]) -> None:
        report(situation())

    def refused(self, future: Future[Any], release: Callable[[], object]) -> Facts:
        """Cancel what runs; see that this does nothing."""
        refused = not future.cancel()
        still = future.running()
        release()
        future.result()
        if not (refused and still):
            raise AssertionError("a function that runs was cancelled")
        return Refused()

    # ---------------------------------------------------------------------------------------------------- situations

    def queued(self) -> Cells:
        executor, gate = ThreadPoolExecutor(1), Gate()
        ran: list[object] = []
        executor.submit(gate)
        token, freed = watched()
        second = executor.submit(ran.append, token)
        del token
        until(lambda: gate.arrived)
        second.cancel()
        is_freed = freed()
        gate.open()
        executor.submit(int).result()
        return Queued(bool(ran), is_freed)

    def thread(self) -> Cells:
        gate = Gate()
        future = ThreadPoolExecutor(1).submit(gate)
        until(lambda: gate.arrived)
        return self.refused(future, gate.open)

    def returned(self) -> Cells:
        gate = Gate()
        future = ThreadPoolExecutor(1).submit(gate, "result")
        until(lambda: gate.arrived)
        gate.open()
        gate.returned.wait()
        future.cancel()
        return Returned(not future.cancelled() and future.result() == "result", future.cancelled())

    def loop(self) -> Cells:
        spin = Spin()
        future = ThreadPoolExecutor(1).submit(spin)
        until(lambda: spin.rounds)
        return self.refused(future, spin.out.set)

    def recv(self) -> Cells:
        here, there = socket.socketpair()
        future = ThreadPoolExecutor(1).submit(here.recv, 1)
        until(future.running)
        return self.refused(future, lambda: there.send(b"x"))

    def lock(self) -> Cells:
        lock = threading.Lock()
        lock.acquire()
        future = ThreadPoolExecutor(1).submit(lock.acquire)
        until(future.running)
        return self.refused(future, lock.release)

    def program(self, tool: str) -> None:
        """Wait for a thread, as a program, until a signal comes."""
        with ThreadPoolExecutor() as executor:
            try:
                executor.submit(stuck).result()
            finally:
                print("cleaned", flush=True)
