"""Spare threads: who watches, who drives, who rests. The alarm goes off when the test says so; the races are forced."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic_ns

import pytest

from tests.spares import Alarm, Bench, Token, alarm, threads, token
from tests.support import eventually
from threadlets import spares as module
from threadlets.spares import SLACK
from threadlets.thresholds import Threshold

__all__ = ["alarm", "token"]  # fixtures


def watched(token: Token, alarm: Alarm) -> None:
    """Have a sentinel that waits for its alarm, and no region."""
    token.open()
    token.close()
    alarm.wait_for_a_sentinel()


def uncovered(token: Token, alarm: Alarm) -> None:
    """Have one that has looked, and found nothing."""
    watched(token, alarm)
    alarm.look()
    assert token.covered == 0


def test_first_region_posts_a_sentinel(token: Token, alarm: Alarm) -> None:
    """There is no thread until a region is opened; then there is one, whose alarm is set for just that region."""
    assert not threads()
    before = monotonic_ns()
    token.open()
    alarm.wait_for_a_sentinel()
    assert len(threads()) == 1
    assert before <= token.covered <= monotonic_ns()
    assert alarm.times == [token.covered + token.threshold.after]


def test_covered_regions_leave_the_alarm_alone(token: Token, alarm: Alarm) -> None:
    """A later region puts the alarm off by a little more than it needs, so that the next ones need not."""
    watched(token, alarm)
    now = monotonic_ns()
    token.spares.rouse(now)
    assert token.covered == now + SLACK
    assert alarm.times[1:] == [now + SLACK + token.threshold.after]
    token.covered = monotonic_ns() + 10**12
    for _ in range(10):
        token.open()
        token.close()
    assert len(alarm.times) == 2
    assert len(threads()) == 1


def test_who_takes_drives(token: Token, alarm: Alarm) -> None:
    """The sentinel that takes a region drives, and another spare watches; claimed, it goes to the bench."""
    token.open()
    alarm.wait_for_a_sentinel()
    (first,) = threads()
    alarm.ring()
    token.wait_driven(1)
    assert token.drivers == [first.ident]
    alarm.wait_for_a_sentinel()
    assert len(threads()) == 2
    token.claim.release()
    token.wait_resting(1)
    token.open()
    alarm.ring()
    token.wait_driven(2)
    assert token.drivers[1] != token.drivers[0]
    alarm.wait_for_a_sentinel()
    assert len(threads()) == 2, "the one on the bench watches now"


def test_young_region_is_looked_at_when_it_is_old_enough(token: Token, alarm: Alarm) -> None:
    """A region that is too young when the alarm goes off is not taken, and the alarm is set for it."""
    token.threshold = Threshold(10**12)
    watched(token, alarm)
    mark = monotonic_ns()
    token.open(mark)
    alarm.look()
    assert token.drivers == []
    assert abs(alarm.times[-1] - (mark + 10**12)) < 10
    token.threshold.after = 1000
    alarm.ring()
    token.wait_driven(1)


def test_alarm_without_a_region(token: Token, alarm: Alarm) -> None:
    """An alarm that finds nothing covers nothing any more: the next region sets it again, for itself."""
    uncovered(token, alarm)
    sets = len(alarm.times)
    token.open()
    assert len(alarm.times) == sets + 1
    assert alarm.times[-1] == token.covered + token.threshold.after
    assert len(threads()) == 1


def test_stalled_region_is_looked_at_once(token: Token, alarm: Alarm) -> None:
    """One that cannot be taken is left alone; the next one is watched."""
    watched(token, alarm)
    take, token.take = token.take, lambda cell: False  # type: ignore[method-assign]
    token.open()
    alarm.look()
    sets = len(alarm.times)
    token.close()
    token.take = take  # type: ignore[method-assign]
    token.open()
    assert len(alarm.times) == sets + 1
    alarm.ring()
    token.wait_driven(1)


def open_before_uncovering(token: Token) -> None:
    """2. The driver reads the old ``covered``: its mark is in the cell."""
    token.covered = monotonic_ns() + 10**12
    token.before_uncovering = token.open


def open_after_reading(token: Token) -> None:
    """1. The sentinel does not see the mark: the driver sees that nothing is covered."""
    token.cell.after_reading = token.open


@pytest.mark.parametrize("race", [open_before_uncovering, open_after_reading])
def test_region_opened_while_the_alarm_goes_off(token: Token, alarm: Alarm, race: Callable[[Token], None]) -> None:
    """Wherever the driver opens its region while the sentinel looks: it is taken now, or the alarm was set for it."""
    uncovered(token, alarm)
    race(token)
    sets = len(alarm.times)
    alarm.ring()
    if race is open_after_reading:
        alarm.wait_for_a_sentinel()
        assert len(alarm.times) == sets + 1
        alarm.ring()
    token.wait_driven(1)


def test_sentinel_leaves_its_post(token: Token, alarm: Alarm) -> None:
    """One that has waited in vain for long goes to the bench; the next region posts the same thread again."""
    uncovered(token, alarm)
    alarm.time_out()
    token.wait_resting(1)
    assert token.spares._sentinel is None
    token.open()
    alarm.wait_for_a_sentinel()
    assert not token.bench
    assert len(threads()) == 1
    alarm.ring()
    token.wait_driven(1)


def test_sentinel_stays_if_there_were_regions(token: Token, alarm: Alarm) -> None:
    """One that has waited for long since the alarm was put off again and again stays."""
    watched(token, alarm)
    alarm.look(rang=False)
    assert token.spares._sentinel is not None
    assert not token.bench


def test_region_opened_while_the_sentinel_leaves(token: Token, alarm: Alarm) -> None:
    """A driver that believes the sentinel to be there is seen by it.

    sentinel: covered = 0, finds no mark        driver: appends its mark, sets the alarm
                                                driver: reads sentinel: it is there
    sentinel: sentinel = None, reads covered: stays
    """
    uncovered(token, alarm)
    token.cell.after_reading = token.open
    alarm.time_out()
    alarm.wait_for_a_sentinel()
    assert token.spares._sentinel is not None
    assert len(threads()) == 1
    alarm.ring()
    token.wait_driven(1)


def test_region_opened_when_the_sentinel_has_left(token: Token, alarm: Alarm) -> None:
    """A driver that finds no sentinel, while that one is on its way to the bench, starts another thread."""
    uncovered(token, alarm)
    token.bench.before_append = token.open
    alarm.time_out()
    alarm.wait_for_a_sentinel()
    assert len(threads()) == 2
    alarm.ring()
    token.wait_driven(1)


def test_two_sentinels(token: Token, alarm: Alarm) -> None:
    """One that is not on record passes the alarm on, and goes to the bench."""
    watched(token, alarm)
    first = token.spares._sentinel
    assert token.spares.post(drives=False)
    alarm.wait_for_a_sentinel()
    second = token.spares._sentinel
    assert second is not first
    token.open()
    alarm.ring()
    token.wait_driven(1)
    alarm.ring()
    eventually(lambda: first in token.bench or token.spares._sentinel is first)


def test_spare_leaves_after_a_while(token: Token, alarm: Alarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """One on the bench that is not needed ends, and a new one is started when it is."""
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.001)
    uncovered(token, alarm)
    alarm.time_out()
    eventually(lambda: not threads())
    assert not token.bench
    token.open()
    alarm.wait_for_a_sentinel()


@pytest.mark.parametrize("drives", [False, True])
def test_posted_just_when_it_leaves(token: Token, alarm: Alarm, monkeypatch: pytest.MonkeyPatch, drives: bool) -> None:
    """A spare that is taken from the bench when it has waited long enough does what it is posted for.

    spare: waited in vain                       driver: pops it, opens its gate
    spare: is not on the bench any more: waits for the gate
    """
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.001)
    uncovered(token, alarm)
    token.bench.before_remove = lambda: token.spares.post(drives=drives)
    alarm.time_out()
    if drives:
        token.wait_driven(1)
    else:
        alarm.wait_for_a_sentinel()
        assert token.spares._sentinel is not None
    assert len(threads()) == 1


def test_posted_to_drive(token: Token, alarm: Alarm) -> None:
    """A spare that is posted to drive does so at once; then it becomes the sentinel, if there is none."""
    uncovered(token, alarm)
    alarm.time_out()
    token.wait_resting(1)
    assert token.spares.post(drives=True)
    token.wait_driven(1)
    assert token.spares._sentinel is None
    token.claim.release()
    alarm.wait_for_a_sentinel()
    assert token.spares._sentinel is not None
    assert len(threads()) == 1


def test_no_thread_can_be_started(token: Token, alarm: Alarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, and tried again with the next region; a driver that has nobody to watch does that when it is back."""
    start = threading.Thread.start
    refused = []

    def refuse(thread: threading.Thread) -> None:
        refused.append(thread)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(2):
        token.open()
        token.close()
        assert token.covered == 0
        assert token.spares._sentinel is None
    assert not token.spares.post(drives=True)
    assert len(refused) == 3
    monkeypatch.setattr(threading.Thread, "start", start)
    token.open()
    alarm.wait_for_a_sentinel()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    alarm.ring()
    token.wait_driven(1)
    eventually(lambda: len(refused) == 4)
    assert token.spares._sentinel is None
    token.claim.release()
    alarm.wait_for_a_sentinel()
    assert token.spares._sentinel is not None
    token.spares._check()


@pytest.mark.parametrize("place", ["bench", "on the way", "at its post", "driving"])
def test_close_ends_all(token: Token, alarm: Alarm, place: str) -> None:
    """Wherever a spare is, it ends: on the bench, on its way there, at its post, and when the token is claimed."""
    uncovered(token, alarm)
    if place == "at its post":
        token.spares.close()
    elif place == "on the way":
        token.bench.before_append = token.spares.close
        alarm.time_out()
    elif place == "bench":
        alarm.time_out()
        token.wait_resting(1)
        token.spares.close()
    else:
        token.open()
        alarm.ring()
        token.wait_driven(1)
        alarm.wait_for_a_sentinel()
        token.spares.close()
        token.claim.release()
    eventually(lambda: not threads())


def test_close_ends_several_sentinels(token: Token, alarm: Alarm) -> None:
    """Each passes the alarm on to the next one."""
    watched(token, alarm)
    for _ in range(3):
        token.spares.post(drives=False)
        alarm.wait_for_a_sentinel()
    token.spares.close()
    eventually(lambda: not threads())


def test_forgotten_threads(token: Token, alarm: Alarm) -> None:
    """After a fork there are no spares and no alarm: the next region makes them."""
    uncovered(token, alarm)
    token.spares.forget()
    token.bench = token.spares._bench = Bench()
    assert token.spares._alarm is None
    token.open()
    alarm.wait_for_a_sentinel()
    assert token.spares._alarm is alarm
    assert len(threads()) == 2, "the old one is there in this test"
