"""What can be measured of threadlets: names, words, units, and how it is read; for Prometheus and OpenTelemetry alike.

Why here: both adapters are to show the same figures under the same names, so what a figure is called and where it comes
from is written once. Each adapter says only how its library wants to be handed it.

How: a ``Reader`` looks when it is asked, and nothing is done in between: the figures are those that pools, entrypoints,
worker groups and loops count anyway (``threadlets/snapshots.py``). It may be asked on any thread.

Figures of objects that have the same name are taken together, as ``Pool.statistics()`` does. A counter must not go down
when one of them dies, or it would look like a restart: so what it was last seen to have counted is kept, as long as
there is another one of its name. When the last one is gone, so are the figures: names that come and go do not pile up.

Pools without a name are not looked at: they are scopes of one request, say, and there may be many of them. What their
threadlets do is in the figures of the entrypoints. A pool's figures contain those of its parts.

Rejected: to have the event loop read them (a stalled loop would have none, just when they are wanted); to count by
listening to ``threadlets.events`` (it costs something for each call, and these figures are there already); tags as
labels (there may be a thousand).
"""

from __future__ import annotations

import logging
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any, Literal, NamedTuple
from weakref import ref

from threadlets import Entrypoint, Percentiles, Pool
from threadlets.entrypoints import known_entrypoints
from threadlets.pools import named_pools
from threadlets.takeover import RunToken, tokens
from threadlets.workers import WorkerGroup, worker_groups

__all__ = ["MEASURES", "Figures", "Measure", "Reader"]

logger = logging.getLogger("threadlets")

Value = float | Percentiles
Labels = tuple[str, ...]


class Measure(NamedTuple):
    """One thing that is measured.

    Attributes:
        name: Its words, joined by dots; the unit is not part of it.
        kind: A counter never goes down, as long as what is counted lives; a gauge is true of one moment; a summary has
            a count, a total, and quantiles since the beginning.
        help: What it is, in a sentence.
        labels: The names of what tells its values apart.
        unit: "seconds", or "" for a number of something.
    """

    name: str
    kind: Literal["counter", "gauge", "summary"]
    help: str
    labels: tuple[str, ...]
    unit: Literal["", "seconds"] = ""


_POOL, _CALLS = ("pool",), ("pool", "entrypoint")
QUEUED = Measure("pool.queued", "gauge", "Threadlets that wait for the throttles of their pool, or their turn.", _POOL)
ADMITTED = Measure("pool.admitted", "gauge", "Threadlets that wait for a worker, run, or are suspended.", _POOL)
ABANDONED = Measure("pool.abandoned", "gauge", "Functions of cancelled threadlets that still run.", _POOL)
SHED = Measure("pool.shed", "counter", "Threadlets that were dropped because their pool was full.", _POOL)
REJECTED = Measure("pool.rejected", "counter", "Starts that were refused because the pool was full.", _POOL)
ENDED = Measure("pool.ended", "counter", "Threadlets that have ended, by how.", (*_CALLS, "outcome"))
WAITS = Measure("pool.wait", "summary", "How long threadlets were in the queue of their pool.", _CALLS, "seconds")
RUNS = Measure(
    "pool.run", "summary", "How long threadlets ran; of plain functions in place, one in 16.", _CALLS, "seconds"
)

_ENTRYPOINT, _PLACE = ("entrypoint",), ("entrypoint", "place")
CALLS = Measure("entrypoint.calls", "counter", "Calls, and first steps of coroutines, by where they ran.", _PLACE)
SPENT = Measure("entrypoint.spent", "counter", "What plain functions took, by where they ran.", _PLACE, "seconds")
MISSED = Measure("entrypoint.missed", "counter", "Calls that began in place and could not finish there.", _ENTRYPOINT)
FAILED = Measure("entrypoint.failed", "counter", "Calls that ended with an exception.", _ENTRYPOINT)
CANCELLED = Measure("entrypoint.cancelled", "counter", "Calls that were cancelled.", _ENTRYPOINT)
OVERDRAFTS = Measure(
    "entrypoint.overdrafts", "counter", "Returns to the workers, since calls in place took too long.", _ENTRYPOINT
)
IN_PLACE = Measure("entrypoint.in_place", "gauge", "Whether the next call will run in place: 1 or 0.", _ENTRYPOINT)

_GROUP = ("group",)
THREADS = Measure("workers.threads", "gauge", "Worker threads.", _GROUP)
BUSY = Measure("workers.busy", "gauge", "Worker threads that are not idle.", _GROUP)
WAITING = Measure("workers.waiting", "gauge", "Jobs that wait for a worker thread.", _GROUP)
LIMIT = Measure("workers.limit", "gauge", "The most worker threads there may be.", _GROUP)

_LOOP = ("loop",)
TAKEOVERS = Measure("loop.takeovers", "counter", "Blocking calls during which another thread went on.", _LOOP)
STALLS = Measure("loop.stalls", "counter", "Blocking calls that stalled the event loop.", _LOOP)
ASIDE = Measure("loop.set_aside", "counter", "Callbacks that had to wait for a thread to come back.", _LOOP)
AWAY = Measure("loop.away", "gauge", "Threads that are blocked while the event loop goes on without them.", _LOOP)
SPENT_AWAY = Measure("loop.away.spent", "counter", "How long threads were away in all.", _LOOP, "seconds")
LONGEST = Measure("loop.away.longest", "gauge", "The longest time that a thread was away.", _LOOP, "seconds")
THRESHOLD = Measure("loop.threshold", "gauge", "How long a call may block until it is taken over.", _LOOP, "seconds")

MEASURES = (
    *(QUEUED, ADMITTED, ABANDONED, SHED, REJECTED, ENDED, WAITS, RUNS),
    *(CALLS, SPENT, MISSED, FAILED, CANCELLED, OVERDRAFTS, IN_PLACE),
    *(THREADS, BUSY, WAITING, LIMIT),
    *(TAKEOVERS, STALLS, ASIDE, AWAY, SPENT_AWAY, LONGEST, THRESHOLD),
)

# What was read: by measure, and by the values of its labels.
Figures = dict[Measure, dict[Labels, Value]]
_Row = tuple[Measure, Labels, Value]


def _of_pool(pool: Pool) -> Iterator[_Row]:
    name, seen = str(pool.name or ""), pool.statistics()
    yield QUEUED, (name,), seen.queued
    yield ADMITTED, (name,), seen.admitted
    yield ABANDONED, (name,), seen.abandoned
    yield SHED, (name,), seen.shed
    yield REJECTED, (name,), seen.rejected
    for entrypoint, group in seen.entrypoints.items():
        for outcome in ("done", "failed", "cancelled"):
            yield ENDED, (name, entrypoint, outcome), getattr(group, outcome)
        yield WAITS, (name, entrypoint), group.waits
        yield RUNS, (name, entrypoint), group.runs


def _of_entrypoint(entrypoint: Entrypoint[..., Any]) -> Iterator[_Row]:
    name, seen = entrypoint.name, entrypoint.statistics()
    if not (seen.in_place or seen.on_workers or seen.on_hosts or seen.failed or seen.cancelled):
        return
    yield CALLS, (name, "in place"), seen.in_place
    yield CALLS, (name, "worker"), seen.on_workers
    yield CALLS, (name, "host"), seen.on_hosts
    yield SPENT, (name, "in place"), seen.seconds_in_place
    yield SPENT, (name, "worker"), seen.seconds_on_workers
    yield MISSED, (name,), seen.missed
    yield FAILED, (name,), seen.failed
    yield CANCELLED, (name,), seen.cancelled
    yield OVERDRAFTS, (name,), seen.overdrafts
    yield IN_PLACE, (name,), seen.placement == "in place"


def _of_group(group: WorkerGroup) -> Iterator[_Row]:
    yield THREADS, (group.name,), group.threads
    yield BUSY, (group.name,), group.busy
    yield WAITING, (group.name,), group.waiting
    yield LIMIT, (group.name,), group.limit


def _of_loop(token: RunToken) -> Iterator[_Row]:
    if not token.home:  # it never ran
        return
    seen = token.statistics()
    name = next((thread.name for thread in threading.enumerate() if thread.ident == token.home), "ended")
    yield TAKEOVERS, (name,), seen.takeovers
    yield STALLS, (name,), sum(seen.stalls.values())
    yield ASIDE, (name,), seen.set_aside
    yield AWAY, (name,), seen.away
    yield SPENT_AWAY, (name,), seen.seconds_away
    yield LONGEST, (name,), seen.longest_away
    yield THRESHOLD, (name,), seen.threshold


def _tokens() -> list[RunToken]:
    while True:
        try:
            return list(tokens)
        except RuntimeError:  # another thread has just made a loop
            continue


_GREATEST = {LONGEST, THRESHOLD, IN_PLACE}  # of several with one name, the greatest is told; of others, the sum


def _together(measure: Measure, one: Value | None, other: Value) -> Value:
    if one is None:
        return other
    if isinstance(one, Percentiles) and isinstance(other, Percentiles):  # quantiles cannot be added: the worse is told
        p50, p90, p99, most = (max(getattr(one, name), getattr(other, name)) for name in ("p50", "p90", "p99", "most"))
        return Percentiles(one.count + other.count, p50, p90, p99, most, one.total + other.total)
    assert not isinstance(one, Percentiles) and not isinstance(other, Percentiles)
    return max(one, other) if measure in _GREATEST else one + other


class _Seen(NamedTuple):
    """What one object was last seen to have counted."""

    alive: Callable[[], object]
    rows: list[_Row]


class Reader:
    """Reads all figures. Thread: any.

    Args:
        pools: Which pools; None: all that have a name. A function is asked each time.
        entrypoints: Which entrypoints; None: all that were decorated, and called.
    """

    def __init__(
        self,
        pools: Iterable[Pool] | Callable[[], Iterable[Pool]] | None = None,
        entrypoints: Iterable[Entrypoint[..., Any]] | Callable[[], Iterable[Entrypoint[..., Any]]] | None = None,
    ) -> None:
        self._pools = _asked(pools, named_pools, Pool, "pools")
        self._entrypoints = _asked(entrypoints, known_entrypoints, Entrypoint, "entrypoints")
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._seen: dict[int, _Seen] = {}  # by id()
        self._gone: dict[tuple[Measure, Labels], Value] = {}  # counted by those that died
        self._latest: Figures = {}
        self._read_at = -float("inf")

    def read(self, *, age: float = 0.0) -> Figures:
        """Read all figures.

        Args:
            age: How many seconds old they may be, if they were read before.
        """
        if self._process != os.getpid():  # forked, perhaps while another thread was reading
            self._process, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            if monotonic() - self._read_at >= age:
                self._latest = self._read()
                self._read_at = monotonic()
            return self._latest

    def _read(self) -> Figures:
        rows: dict[int, list[_Row]] = {}
        kept: list[object] = []  # so that no id() is given away meanwhile
        for every, figures_of in self._sources():
            try:
                found = list(every())
            except Exception:
                logger.exception("nobody could say what to measure: %r", every)
                continue
            for each in found:
                kept.append(each)
                try:
                    rows[id(each)] = list(figures_of(each))
                except Exception:  # the others are wanted all the same
                    logger.exception("%r could not be measured", each)
        for key, seen in list(self._seen.items()):
            if seen.alive() is None:
                del self._seen[key]
                for measure, labels, value in seen.rows:
                    self._gone[measure, labels] = _together(measure, self._gone.get((measure, labels)), value)
        for each in kept:
            counted = [row for row in rows.get(id(each), ()) if row[0].kind != "gauge"]
            if counted:
                self._seen[id(each)] = _Seen(ref(each), counted)
        figures: Figures = defaultdict(dict)
        for measure, labels, value in (row for each in rows.values() for row in each):
            figures[measure][labels] = _together(measure, figures[measure].get(labels), value)
        names = {(measure.labels[0], labels[0]) for measure, of in figures.items() for labels in of}
        for measure, labels in list(self._gone):
            if (measure.labels[0], labels[0]) in names:  # one of its name lives
                figures[measure][labels] = _together(measure, figures[measure].get(labels), self._gone[measure, labels])
            else:
                del self._gone[measure, labels]
        return dict(figures)

    def _sources(self) -> list[tuple[Callable[[], Iterable[Any]], Callable[[Any], Iterator[_Row]]]]:
        return [
            (self._pools, _of_pool),
            (self._entrypoints, _of_entrypoint),
            (worker_groups, _of_group),
            (_tokens, _of_loop),
        ]


def _asked(given: Any, default: Callable[[], Iterable[Any]], kind: type, what: str) -> Callable[[], Iterable[Any]]:
    if given is None:
        return default
    if callable(given):
        return given  # type: ignore[no-any-return]
    if not isinstance(given, Iterable):
        raise TypeError(
            f"{what}={given!r}: expected some of threadlets.{kind.__name__}, or a function that returns them"
        )
    references = []
    for each in given:
        if not isinstance(each, kind):
            raise TypeError(f"{what} has {each!r}: expected a threadlets.{kind.__name__}")
        references.append(ref(each))
    return lambda: [each for reference in references if (each := reference()) is not None]
