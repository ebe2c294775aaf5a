"""Threads that wait to run an event loop when its thread blocks; the one that watches for that is the sentinel.

Why: the thread that finds a loop stalled should be the one that goes on with it: each further thread that has a part in
a takeover costs a switch, 50 us or more. So the sentinel becomes the driver, and another spare becomes the sentinel.

Spares wait on a bench, and the last to come is the first to go; one that has not been needed for a while ends. The
sentinel is on its way to the bench, too, once no region has been opened for a while: an idle program is not woken. The
first region after each look of the sentinel resets ``unseen``, and calls ``rouse()`` for that.

The race, between a sentinel that goes to sleep and a driver that opens a region:

    sentinel: looks, finds nothing              driver: appends its mark to the cell
    sentinel: unseen = True                     driver: reads unseen
    sentinel: sentinel = None                   driver: unseen = False
    sentinel: is on the bench, reads unseen     driver: reads sentinel
1. The driver reads ``sentinel`` as None: it posts one, this one or another.
2. It reads it before that was written: then ``unseen`` is False when the sentinel reads it, and it stays awake.
3. It reads ``unseen`` before the sentinel has written it: then its mark is in the cell that the sentinel reads after
   that (``test_region_opened_while_the_sentinel_goes_to_sleep``).
Two sentinels may result; the one that is not on record goes to the bench at its next look.

Assumes: ``list.append``, ``list.pop`` and ``list.remove`` are atomic.
"""

from __future__ import annotations

import threading
from time import monotonic_ns, sleep
from typing import Protocol

from .thresholds import Threshold

__all__ = ["Spares", "Watched"]

IDLE_SECONDS = 10.0  # arbitrary: as long as a worker thread stays
QUIET = 40  # looks without any region between them, after which the sentinel sleeps; arbitrary: about 100 ms


class Watched(Protocol):
    """What spares watch, and run: a run token. Thread: a spare, for both methods."""

    cell: list[int]  # when the open region was opened, in nanoseconds, if there is one
    unseen: bool  # no region was opened since the sentinel has looked
    threshold: Threshold

    def take(self, cell: list[int]) -> bool:
        """Take the open region, which is old enough; True if this thread is the driver now."""

    def drive(self) -> None:
        """Run the loop until somebody claims it."""


class Spare:
    """One thread's place to wait."""

    __slots__ = ("drives", "gate")

    def __init__(self, drives: bool) -> None:
        self.drives = drives  # what it is posted for: to drive, or to watch
        self.gate = threading.Lock()
        self.gate.acquire()


class Spares:
    """The spare threads of one run token. Thread: who holds the token, unless a method says otherwise."""

    def __init__(self, watched: Watched, name: str) -> None:
        self._watched = watched
        self._name = name
        self._closed = False
        self.forget()

    def forget(self) -> None:
        """Know no threads: there are none yet, or not in this process."""
        self._bench: list[Spare] = []
        self._sentinel: Spare | None = None

    def rouse(self) -> None:
        """Let the sentinel know that regions are opened."""
        self._watched.unseen = False
        if self._sentinel is None:
            self.post(drives=False)

    def post(self, *, drives: bool) -> bool:
        """Set a spare to work, as the driver or as the sentinel; False if there is none and none can be started."""
        try:
            spare = self._bench.pop()
        except IndexError:
            spare = Spare(drives)
            if not drives:
                self._sentinel = spare
            try:
                threading.Thread(target=self._serve, args=(spare,), name=self._name, daemon=True).start()
            except RuntimeError:  # no further thread can be started: the next region, or the next driver, tries again
                if not drives:
                    self._sentinel = None
                    self._watched.unseen = True
                return False
        else:
            spare.drives = drives
            if not drives:
                self._sentinel = spare
            spare.gate.release()
        return True

    def close(self) -> None:
        """End all threads: the loop is closed."""
        self._closed = True
        while self._bench:
            self._bench.pop().gate.release()

    def _serve(self, spare: Spare) -> None:
        """Watch, drive, and wait for more of it: the life of one thread. Thread: a spare."""
        while not self._closed:
            if spare.drives or self._watch(spare):
                spare.drives = False
                self._watched.drive()
                if self._sentinel is None and not self._closed:  # there was no thread for another one
                    self._sentinel = spare
                    continue
            if not self._rest(spare):
                return

    def _watch(self, spare: Spare) -> bool:
        """Look at the open region now and then; True if it was taken. Thread: the sentinel."""
        watched, threshold = self._watched, self._watched.threshold
        quiet = 0
        pause = threshold.after
        while True:
            due = monotonic_ns() + pause
            sleep(pause / 1e9)
            if self._closed or self._sentinel is not spare:
                return False
            now = monotonic_ns()
            threshold.looked(now - due)
            pause = threshold.pause
            cell = watched.cell
            for since in cell:  # none or one; cell[0] could fail
                wait = since + threshold.after - now
                if wait > 0:
                    pause = wait
                elif watched.take(cell):
                    self._sentinel = None
                    self.post(drives=False)
                    return True
            quiet = quiet + 1 if watched.unseen else 0
            watched.unseen = True
            if quiet > QUIET and not watched.cell:
                self._sentinel = None
                return False

    def _rest(self, spare: Spare) -> bool:
        """Wait on the bench to be posted again; False if this was in vain. Thread: a spare.

        Whoever takes a spare from the bench opens its gate: so one that finds itself gone when it wants to leave waits
        for that.
        """
        self._bench.append(spare)
        if self._closed or (self._sentinel is None and not self._watched.unseen):
            try:
                self._bench.remove(spare)
            except ValueError:
                pass  # posted just now
            else:
                self._sentinel = spare
                return not self._closed
        if not spare.gate.acquire(timeout=IDLE_SECONDS):
            try:
                self._bench.remove(spare)
                return False
            except ValueError:
                spare.gate.acquire()
        return True

    def _check(self) -> None:
        """Assert every invariant; while no thread is on its way to or from the bench."""
        assert all(spare.gate.locked() for spare in self._bench), "spares on the bench wait"
        assert self._sentinel not in self._bench, "the sentinel is awake"
