"""Alarms go off when they are due and not before, on both ways to make one; what is put off wakes nobody."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from time import monotonic_ns

import pytest

from threadlets import alarms
from threadlets.alarms import KernelAlarm, SleepingAlarm, make_alarm

KINDS: list[Callable[[], KernelAlarm | SleepingAlarm]] = [SleepingAlarm]
if sys.platform == "linux":
    KINDS.append(KernelAlarm)
MS = 1_000_000
LONG = 1000.0


@pytest.fixture(params=KINDS)
def alarm(request: pytest.FixtureRequest) -> KernelAlarm | SleepingAlarm:
    return request.param()


def test_goes_off_when_it_is_due(alarm: KernelAlarm | SleepingAlarm) -> None:
    """Not before its time, which may be in the past; and once for each time that it is set."""
    for after in (3 * MS, 0, -MS):
        due = monotonic_ns() + after
        alarm.set(due)
        assert alarm.wait(LONG)
        assert monotonic_ns() >= due
        assert not alarm.wait(0.001)
    alarm.set(1)
    assert alarm.wait(LONG)


def test_is_never_set(alarm: KernelAlarm | SleepingAlarm) -> None:
    """Who waits for an alarm that was not set waits in vain."""
    assert not alarm.wait(0)
    assert not alarm.wait(0.002)


def test_is_put_off(alarm: KernelAlarm | SleepingAlarm) -> None:
    """What counts is the last time that it was set to, also while somebody waits."""
    ends: list[int] = []
    alarm.set(monotonic_ns() + 300 * MS)
    thread = threading.Thread(target=lambda: (alarm.wait(LONG), ends.append(monotonic_ns())))
    thread.start()
    due = monotonic_ns() + 330 * MS
    alarm.set(due)
    thread.join()
    assert ends[0] >= due


def test_is_put_off_in_the_last_moment() -> None:
    """A timer that is set anew between the poll and the read does not make anybody wait."""
    if sys.platform != "linux":
        pytest.skip("KernelAlarm is for Linux")
    alarm = KernelAlarm()

    class Poll:
        def poll(self, milliseconds: float) -> list[object]:
            alarm.set(monotonic_ns() + 10**12)
            return [1]

    alarm._poll = Poll()  # type: ignore[assignment]
    assert alarm.wait(LONG)


@pytest.mark.skipif(sys.platform != "linux", reason="KernelAlarm is for Linux")
def test_makes_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer of the kernel where there is one; without descriptors, or in another system, a thread that sleeps."""
    assert isinstance(make_alarm(), KernelAlarm)

    class Libc:
        def __init__(self, *_: object) -> None:
            pass

    class Full(Libc):
        def timerfd_create(self, *_: object) -> int:
            return -1

    for libc in (Libc, Full):
        with monkeypatch.context() as patch:
            patch.setattr(alarms.ctypes, "PyDLL", libc)
            assert isinstance(make_alarm(), SleepingAlarm)
    monkeypatch.setattr(alarms.sys, "platform", "darwin")
    assert isinstance(make_alarm(), SleepingAlarm)


@pytest.mark.skipif(sys.platform != "linux", reason="KernelAlarm is for Linux")
def test_closes_its_descriptor() -> None:
    """Its descriptor is not inherited, and is closed with it."""
    alarm = KernelAlarm()
    number = alarm._fd
    assert not os.get_inheritable(number)
    del alarm
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)
