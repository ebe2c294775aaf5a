"""The books of a pool: who is in it, how many more may come, what has become of the others, and who waits for what.

A threadlet is on the books of its pool, and of the pools that this one is part of, if it does not end within the call
that starts it. While it waits for its start it is in the queue; then it is either at *work* - sent to a worker, or held
up in place - or among the *tasks*, which are suspended coroutines. *Followers* share the run of
another one, and are where that is.

Invariants: see ``_check()``. Thread: loop.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .cleanups import deferred
from .handles import Threadlet
from .histograms import Histogram
from .lifecycles import ABANDONED, AT_WORKER, CANCELLED, CARRIES, DONE, FOLLOWS, LISTED, MISSED, SUSPENDED, State
from .queues import Index
from .snapshots import NOTHING, GroupStatistics, Percentiles

if TYPE_CHECKING:
    from .definitions import Definition
    from .groups import Site
    from .homes import Home
    from .hosts import Host
    from .scopes import Scope

__all__ = ["UNBOUND", "Ledger", "Tally"]

TAGS = 1_000  # arbitrary: how many tags are counted one by one; beyond that the oldest one is forgotten

FUNCTIONS = 1_000  # arbitrary: how many entrypoints are counted one by one, and kept by that

TRIES = 8  # arbitrary: how often figures are read again that were being handed over meanwhile

MANY = 1_000  # arbitrary: so many times are all noted
SAMPLE = 7  # of the others one in so many, for as many; a prime, not to keep step with what comes in turns

UNBOUND: Any = object()  # the loop of a pool that was not used yet; not None, which is the loop where none runs


class Tally:
    """What has become of the threadlets of one entrypoint, or of those with one tag."""

    __slots__ = ("cancelled", "done", "failed", "runs", "waits")

    def __init__(self) -> None:
        self.done = self.failed = self.cancelled = 0
        self.waits = Histogram()  # ns in the pool's queue
        self.runs = Histogram()  # ns

    def count(self, state: State) -> None:
        """Count one that ended in this state."""
        if state is DONE:
            self.done += 1
        elif state is CANCELLED:
            self.cancelled += 1
        else:
            self.failed += 1

    def merge(self, other: Tally) -> None:
        """Add what another one has counted."""
        self.done += other.done
        self.failed += other.failed
        self.cancelled += other.cancelled
        self.waits.merge(other.waits)
        self.runs.merge(other.runs)

    def snapshot(self) -> GroupStatistics:
        """Return what users see of it."""
        return GroupStatistics(self.done, self.failed, self.cancelled, summary(self.waits), summary(self.runs))


def summary(histogram: Histogram) -> Percentiles:
    """Return the percentiles that users see, in seconds."""
    if not (histogram.count or histogram.largest):
        return NOTHING
    p50, p90, p99 = (histogram.percentile(percent) / 1e9 for percent in (50, 90, 99))
    return Percentiles(histogram.count, p50, p90, p99, histogram.largest / 1e9, histogram.total / 1e9)


class Former:
    """Stands for entrypoints of one name that are counted together, and are not kept: a lambda made for each call."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Tallies(dict["Definition[Any] | Former", Tally]):
    """A tally for each entrypoint, made when it is asked for; beyond ``FUNCTIONS`` the oldest goes by its name."""

    __slots__ = ("_formers", "_ledger")

    def __init__(self, ledger: Ledger | None = None) -> None:
        self._ledger = ledger  # None: nobody else reads this one
        self._formers: dict[str, Former] = {}

    def __missing__(self, definition: Definition[Any] | Former) -> Tally:
        if self._ledger is not None and len(self) >= FUNCTIONS + len(self._formers):
            self._forget(self._ledger._line[-1])
        tally = self[definition] = Tally()
        return tally

    def _forget(self, whole: Ledger) -> None:
        oldest = next(each for each in self if type(each) is not Former)
        former = self._formers.setdefault(oldest.name, Former(oldest.name))
        whole._folds += 1
        self.setdefault(former, Tally()).merge(self.pop(oldest))
        whole._folds += 1


class Ledger:
    """Who is in a pool, and what has become of the others. Thread: loop.

    Args:
        parent: The pool that this one is part of.
        capacity: The most that may be on the books; None: no bound.
        tag_capacity: By prefix: the most with the same tag.
    """

    _home: Home  # set with _loop, before anything else
    _site: Site | None = None  # the node whose workers its plain functions go to
    _host: Host | None = None  # the place outside of this process where they run

    def __init__(self, parent: Ledger | None, capacity: int | None, tag_capacity: Mapping[str, int]) -> None:
        self._loop: AbstractEventLoop = UNBOUND
        self._parent = parent
        self._line: tuple[Ledger, ...] = (self,) if parent is None else (self, *parent._line)
        self._children: dict[Ledger, None] = {}
        self._capacity = capacity
        self._tag_capacity = dict(tag_capacity)
        self._bounded = any(each._capacity is not None or each._tag_capacity for each in self._line)
        self._index: Index[Threadlet[Any]] = Index()
        self._work: dict[Threadlet[Any], None] = {}
        self._tasks: dict[Threadlet[Any], None] = {}
        self._followers: dict[Threadlet[Any], None] = {}
        self._failures: dict[Threadlet[Any], None] = {}  # in a scope: those that nobody has retrieved
        self._scope: Scope | None = None
        self._closed = False
        self._ends = False  # closed by what ends it: those that are in it may still need it
        self._room_waiters: deque[tuple[Future[None], frozenset[Hashable]]] = deque()
        self._drain_waiters: dict[Future[None], Threadlet[Any] | None] = {}
        self._tallies = Tallies(self)
        self._tag_tallies: dict[Hashable, Tally] = {}
        self._shed = self._rejected = self._abandoned = 0
        self._measured = 0  # times that could have been noted
        self._folds = 0  # of the outermost pool: how often parts have begun to hand over, and have done so; odd: now
        if parent is not None:
            parent._children[self] = None

    def __len__(self) -> int:
        """Return how many threadlets are not finished."""
        return len(self._index)

    # ------------------------------------------------------------------------------------------- in and out

    def _enroll(self, handle: Threadlet[Any]) -> None:
        """Put a threadlet on the books."""
        handle._marks |= LISTED
        if deferred:
            self._home.shelter(handle)
        for pool in self._line:
            pool._index.add(handle, handle.entrypoint, handle._tags)
            if pool._index.size == 1:
                self._home.busy.add(pool)
            for waiter in pool._drain_waiters.values():
                if waiter is not None:
                    self._home.waits.begin(waiter, handle)

    def _list(self, handle: Threadlet[Any]) -> None:
        """Have a threadlet on the books that will not end within the call that starts it."""
        if handle._marks & CARRIES:
            return
        if not handle._marks & LISTED:
            self._enroll(handle)
        if handle._marks & FOLLOWS:
            for pool in self._line:
                pool._followers[handle] = None
        elif handle._state is SUSPENDED:
            for pool in self._line:
                pool._work.pop(handle, None)
                pool._tasks[handle] = None
        else:
            for pool in self._line:
                pool._work[handle] = None

    def _strike(self, handle: Threadlet[Any]) -> None:
        """Take a threadlet off the books."""
        marks = handle._marks
        handle._marks = marks & ~LISTED
        if self._home.sheltered:
            self._home.sheltered.discard(handle)
        started = marks & (AT_WORKER | MISSED | FOLLOWS) or handle.entrypoint.at_home
        for pool in self._line:
            pool._index.remove(handle, handle.entrypoint, handle._tags)
            if started:
                pool._work.pop(handle, None)
                pool._tasks.pop(handle, None)
                pool._followers.pop(handle, None)
            if pool._drain_waiters and not handle.done():  # it goes on elsewhere, and a drain waits for it no more
                for waiter in pool._drain_waiters.values():
                    if waiter is not None:
                        self._home.waits.end(waiter, handle)
            if pool._room_waiters:
                pool._tell_room()
            if not pool._index.size:
                self._home.busy.discard(pool)
                for future in pool._drain_waiters:
                    if not future.done():
                        future.set_result(None)
                if pool._closed:
                    pool._fold()

    def _retag(self, handle: Threadlet[Any], tags: frozenset[Hashable]) -> None:
        """Change a threadlet's tags on the books."""
        if handle._marks & LISTED:
            for pool in self._line:
                pool._index.retag(handle, handle._tags, tags)
            for pool in self._line:
                if pool._room_waiters:  # there may be room for one more with a tag that it had
                    pool._tell_room()
        handle._tags = tags

    def _fold(self) -> None:
        """Leave the figures of a pool to the one that it is part of, once it is closed and nothing can change them.

        Not at once: what has closed it may be a call in place that is on no books, and is still to be counted.
        """
        if self._parent is None or not self._closed or self._index.size:
            return
        if self._loop is UNBOUND:
            self._hand_over()
        elif not self._home.loop.is_closed():
            self._home.loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        """Add the figures to those of the pool that this one is part of, and be no part of it any more."""
        parent = self._parent
        if parent is None or self not in parent._children or self._children or self._index.size or self._abandoned:
            return
        whole = self._line[-1]
        whole._folds += 1
        del parent._children[self]
        for definition, tally in self._tallies.items():
            parent._tallies[definition].merge(tally)
        for tag, tally in self._tag_tallies.items():
            parent._tally_of(tag).merge(tally)
        parent._shed += self._shed
        parent._rejected += self._rejected
        whole._folds += 1
        parent._fold()

    # -------------------------------------------------------------------------------------------- capacity

    def is_full(self, tags: frozenset[Hashable] = frozenset()) -> bool:
        """Say whether the capacity is reached, here or in a pool that this one is part of. Thread: any.

        Args:
            tags: Those of what is to be started, where there is a capacity per tag.
        """
        return self._bounded and self._full(tags) is not None

    def _full(self, tags: Iterable[Hashable], but: Iterable[Ledger] = ()) -> tuple[Ledger, Hashable] | None:
        """Return which pool is full - of the line, but for some - and for which tag; None for the whole of it."""
        for pool in self._line:
            if pool in but:
                continue
            if pool._capacity is not None and len(pool._index) >= pool._capacity:
                return pool, None
            for prefix, capacity in pool._tag_capacity.items():
                for tag in tags:
                    if isinstance(tag, str) and tag.startswith(prefix) and len(pool._index.tagged(tag)) >= capacity:
                        return pool, tag
        return None

    def _tell_room(self) -> None:
        """Wake one who waits for room, if there is some. O(1); O(those who wait) with a capacity per tag."""
        waiters, passed = self._room_waiters, []
        while waiters:
            entry = waiters.popleft()
            if entry[0].done():
                continue
            if self._full(entry[1]) is None:
                entry[0].set_result(None)
                break
            passed.append(entry)
            if not self._tag_capacity:
                break  # the others wait for the same
        waiters.extendleft(reversed(passed))

    # ---------------------------------------------------------------------------------------------- figures

    def _tally_of(self, tag: Hashable) -> Tally:
        tally = self._tag_tallies.get(tag)
        if tally is None:
            if len(self._tag_tallies) >= TAGS:
                del self._tag_tallies[next(iter(self._tag_tallies))]
            tally = self._tag_tallies[tag] = Tally()
        return tally

    def _waited(self, handle: Threadlet[Any], spent: int) -> None:
        """Note how long a threadlet was in the queue, in ns."""
        times = self._times()
        self._tallies[handle.entrypoint].waits.add(spent, times)
        for tag in handle._tags:
            self._tally_of(tag).waits.add(spent, times)

    def _ran(self, handle: Threadlet[Any], spent: int) -> None:
        """Note how long a threadlet ran, in ns."""
        times = self._times()
        self._tallies[handle.entrypoint].runs.add(spent, times)
        for tag in handle._tags:
            self._tally_of(tag).runs.add(spent, times)

    def _times(self) -> int:
        """Return for how many the next time that is measured stands; 0: another one stands for it."""
        self._measured += 1
        if self._measured <= MANY:
            return 1
        return 0 if self._measured % SAMPLE else SAMPLE

    def _keep_failure(self, handle: Threadlet[Any]) -> None:
        """Keep a failure for the scope that it is in."""
        for pool in self._line:
            if pool._scope is not None:
                pool._scope.failed(handle)
                return

    def _figures(self) -> tuple[Tallies, dict[Hashable, Tally], int, int, int]:
        """Return what ``_all`` does, and count nothing twice, and leave nothing out. Thread: any.

        Another thread than the loop's may read what a part is just handing over to the whole:
            reader: reads the whole          loop: adds the part to it, forgets the part
            reader: finds no part: its figures are in neither
        So it reads again what has been handed over meanwhile.
        """
        whole = self._line[-1]
        for _ in range(TRIES):
            before = whole._folds
            figures = self._all()
            if whole._folds == before and not before & 1:
                break
        return figures

    def _all(self) -> tuple[Tallies, dict[Hashable, Tally], int, int, int]:
        """Return the figures of this pool and its parts, by entrypoint and by tag; shed, rejected, abandoned."""
        entrypoints, tags = Tallies(), dict[Hashable, Tally]()
        shed, rejected, abandoned = self._shed, self._rejected, self._abandoned
        for definition, tally in self._tallies.copy().items():  # copies: the loop may change them meanwhile
            entrypoints[definition].merge(tally)
        for tag, tally in self._tag_tallies.copy().items():
            tags.setdefault(tag, Tally()).merge(tally)
        for child in self._children.copy():
            theirs = child._all()
            for definition, tally in theirs[0].items():
                entrypoints[definition].merge(tally)
            for tag, tally in theirs[1].items():
                tags.setdefault(tag, Tally()).merge(tally)
            shed, rejected, abandoned = shed + theirs[2], rejected + theirs[3], abandoned + theirs[4]
        return entrypoints, tags, shed, rejected, abandoned

    def _check(self) -> None:
        """Assert every invariant. O(n)."""
        self._index._check()
        for handle in self._index:
            assert handle._marks & LISTED, "the index has what is listed"
            assert not handle.done() or handle._marks & ABANDONED, "the pool holds nothing that is final"
            assert self in handle.pool._line, "each is in its pool, and in those that this one is part of"  # type: ignore[union-attr]
        for handle in [*self._work, *self._tasks]:
            assert handle._marks & LISTED, "what is at work is listed"
        assert not self._work.keys() & self._tasks.keys(), "a threadlet is in one place"
        assert not self._followers.keys() & (self._work.keys() | self._tasks.keys()), "so it is"
        for child in self._children:
            assert child._parent is self, "the pools know each other"
