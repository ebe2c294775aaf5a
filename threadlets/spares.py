"""Threads that wait to run an event loop when its thread blocks; the one that watches for that is the sentinel.

Why: the thread that finds a loop stalled should be the one that goes on with it: each further thread that has a part in
a takeover costs a switch, 50 us or more. So the sentinel becomes the driver, and another spare becomes the sentinel.

How the sentinel watches: it waits for an alarm. Whoever opens a region later than ``covered`` sets the alarm anew, by a
little more than the threshold, so that regions within the next ``SLACK`` need not. As long as regions are opened and
closed the alarm is put off, and wakes nobody. It goes off if a region lasts, or if none has been opened for a while.

The race, between a sentinel whose alarm has gone off and a driver that opens a region:

    sentinel: covered = 0                       driver: appends its mark to the cell
    sentinel: reads the cell                    driver: reads covered
1. The sentinel does not see the mark: then the driver sees that nothing is covered, and sets the alarm.
2. The driver reads the old ``covered``: then its mark is in the cell that the sentinel reads
   (``test_region_opened_while_the_alarm_goes_off``).

Spares wait on a bench, and the last to come is the first to go. Spares, and a sentinel, that have not been needed for
a while end. When the sentinel leaves its post it is the same race, with ``sentinel = None`` and ``covered``. Two may
result; the one that is not on record goes to the bench when it is woken.

Assumes: ``list.append``, ``list.pop`` and ``list.remove`` are atomic, and threads see each other's writes in order (the
interpreter lock, or what a free-threaded build puts in its place).
"""

from __future__ import annotations

import threading
from time import monotonic_ns
from typing import Protocol

from .alarms import KernelAlarm, SleepingAlarm, make_alarm
from .thresholds import Threshold

__all__ = ["NEVER", "Spares", "Watched"]

IDLE_SECONDS = 10.0  # arbitrary: as long as a worker thread stays
SLACK = 2_000_000  # ns; measured: at 0.5 ms, setting the alarm costs a busy loop 4 %, at 2 ms 0: benchmarks/takeover.py
NEVER = 1 << 62  # ns; later than any time


class Watched(Protocol):
    """What spares watch, and run: a run token. Thread: a spare, for both methods."""

    cell: list[int]  # when the open region was opened, in nanoseconds, if there is one
    covered: int  # until when a region may be opened so that the alarm, as it is set, will go off in time
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
        """Know no threads and no alarm: there are none yet, or they are the parent process's."""
        self._bench: list[Spare] = []
        self._sentinel: Spare | None = None
        self._alarm: KernelAlarm | SleepingAlarm | None = None

    def rouse(self, now: int) -> None:
        """Set the alarm for a region that was opened now, in nanoseconds, and is not covered."""
        watched = self._watched
        alarm = self._alarm
        if alarm is None:
            alarm = self._alarm = make_alarm()
        watched.covered = covered = now + SLACK if watched.covered else now  # the first one is watched precisely
        alarm.set(covered + watched.threshold.after)
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
                    self._watched.covered = 0
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
        if self._alarm is not None:
            self._alarm.set(1)

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
        """Wait until a region is too old; True if it was taken. Thread: the sentinel."""
        watched, threshold, alarm = self._watched, self._watched.threshold, self._alarm
        assert alarm is not None
        while True:
            rang = alarm.wait(IDLE_SECONDS)
            if self._closed or self._sentinel is not spare:
                alarm.set(1)  # it was meant for somebody else
                return False
            now = monotonic_ns()
            covered, watched.covered = watched.covered, 0
            if covered and rang:
                threshold.looked(now - covered - threshold.after)
            cell = watched.cell
            for since in cell:  # none or one; cell[0] could fail
                wait = since + threshold.after - now
                if wait > 0:
                    alarm.set(now + wait)
                elif watched.take(cell):
                    self._sentinel = None
                    self.post(drives=False)
                    return True
            if not rang and not covered:
                self._sentinel = None
                if watched.covered:  # somebody has just opened a region, and believed it to be watched
                    self._sentinel = spare
                else:
                    return False

    def _rest(self, spare: Spare) -> bool:
        """Wait on the bench to be posted again; False if this was in vain. Thread: a spare.

        Whoever takes a spare from the bench opens its gate: so one that finds itself gone when it wants to leave waits
        for that.
        """
        self._bench.append(spare)
        if self._closed or not spare.gate.acquire(timeout=IDLE_SECONDS):
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
