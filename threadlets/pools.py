"""The pool: a data structure that holds work which is not finished, and lets it start by rule."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from itertools import count
from types import MappingProxyType, TracebackType
from typing import Any, Literal, NoReturn, TypeVar, TypeVarTuple, cast
from weakref import WeakValueDictionary

from .definitions import check_seconds, check_tags, resolve
from .departures import depart, tell
from .errors import CloseTimeout, PoolClosed
from .executors import Executing
from .handles import Threadlet
from .hosts import Host
from .ledgers import UNBOUND, Tally, summary
from .lifecycles import FINAL, LISTED, State
from .scopes import Scope
from .selections import Selection
from .snapshots import PoolStatistics
from .tasks import running_loop
from .throttles import Throttle
from .topology import Node

__all__ = ["Pool", "default_pool", "named_pools"]

T = TypeVar("T")
S = TypeVar("S")
_NO_TAGS: Iterable[Hashable] = ()
Ts = TypeVarTuple("Ts")

# The pools that have a name, as long as they live. A scope made for one request has none, and does not pay for this.
_named: WeakValueDictionary[int, Pool] = WeakValueDictionary()
_numbers = count()


class Pool(Executing):
    """Work that is not finished, under throttles.

    Use it as a scope, ``async with Pool(...) as pool:``, which waits for everything at its end; or make it outside of
    one, at import time if you like: it then lives until ``aclose()``, or until its loop shuts down.

    Args:
        throttles: Rules that must all agree before a threadlet may start. One rule may be shared by several pools.
        name: Shown in messages.
        parent: A pool that this one becomes a part of. What is in the part is in the whole, too: it is counted and
            throttled there, selected, waited for and cancelled; and there is one queue for all.
        capacity: The most threadlets that it holds unfinished; None: no bound. A plain function that ends in place is
            never held.
        tag_capacity: By prefix, the most that it holds unfinished with the same tag: ``{"tenant:": 100}``.
        overflow: What ``start`` does beyond that: ``"reject"`` raises ``PoolFull``; ``"shed"`` drops the least urgent
            queued threadlet, which may be the new one. (Without throttles the queue is that of the workers, where
            finding the least urgent one takes a look at all of them; so it does among those with one tag.)
        order: Who starts first: ``"priority"``; or ``"deadline"``: whose deadline is the earliest, those without one
            last, and of equal ones by priority.
        aging: Seconds in the queue that make a threadlet as urgent as one whose number is smaller by 1, so that nothing
            waits for ever; None: priorities are strict. (For a worker they are; a throttle keeps that queue short.)
        node: Where its plain functions run that are not run in place: on the workers of one of
            ``topology.machine().nodes``. Or a ``Host``: all that is started then runs there, when it has a slot free.
            None: where the pool has it that this one is a part of; on any worker.
        on_failure: In a scope: ``"collect"`` lets the others go on; ``"cancel"`` cancels them and the body at the first
            failure, as ``asyncio.TaskGroup`` does.

    Raises:
        TypeError: For something that is no throttle, no node, or a number of a wrong type.
        ValueError: For a number that is not above 0, an unknown word, a throttle that is there already, or what only
            the outermost pool can have: order, aging, and throttles that rank, as ``FairShare``; or if it is to be
            elsewhere than the host's pool that it is a part of.
        PoolClosed: If the parent is closed.

    Thread: loop, for every method but ``statistics()``. A pool belongs to the loop on which it is first used.
    """

    def __init__(
        self,
        *throttles: Throttle,
        name: str | None = None,
        parent: Pool | None = None,
        capacity: int | None = None,
        tag_capacity: Mapping[str, int] = MappingProxyType({}),
        overflow: Literal["reject", "shed"] = "reject",
        order: Literal["priority", "deadline"] = "priority",
        aging: float | None = None,
        node: Node | Host | None = None,
        on_failure: Literal["collect", "cancel"] = "collect",
    ) -> None:
        if parent is not None and not isinstance(parent, Pool):
            raise TypeError(f"parent={parent!r}: expected a threadlets.Pool")
        throttles = self._settle_at(node, parent, throttles)
        for throttle in throttles:
            if not isinstance(throttle, Throttle):
                raise TypeError(f"{throttle!r} is no throttle: expected an object like Concurrency(8)")
        for place, throttle in enumerate(throttles):
            if throttle in throttles[:place] or (parent is not None and throttle in parent._throttles):
                raise ValueError(
                    f"{throttle!r} would count each threadlet twice: a parent's throttles hold for its parts"
                )
        if capacity is not None:
            _check_capacity("capacity", capacity)
        if not isinstance(tag_capacity, Mapping):
            raise TypeError(f"tag_capacity={tag_capacity!r}: expected a mapping from prefixes to whole numbers")
        for prefix, each in tag_capacity.items():
            if not isinstance(prefix, str):
                raise TypeError(f"tag_capacity has {prefix!r}: expected the beginning of a tag")
            _check_capacity(f"tag_capacity[{prefix!r}]", each)
        if order not in ("priority", "deadline"):
            raise ValueError(f"order={order!r}: expected 'priority' or 'deadline'")
        if aging is not None:
            if isinstance(aging, bool) or not isinstance(aging, (int, float)):
                raise TypeError(f"aging={aging!r}: expected seconds, or None")
            if not 0 < aging < float("inf"):
                raise ValueError(f"aging={aging!r}: expected a finite number of seconds above 0")
        if parent is not None:
            if order != "priority" or aging is not None or any(throttle.ranks for throttle in throttles):
                raise ValueError(
                    "a pool with a parent has one queue with it: order, aging and throttles like FairShare belong to "
                    "the outermost pool"
                )
            if parent._closed:
                raise PoolClosed(f"{parent!r} is closed: it takes no more work, and no pool as its part")
        if overflow not in ("reject", "shed"):
            raise ValueError(f"overflow={overflow!r}: expected 'reject' or 'shed'")
        if on_failure not in ("collect", "cancel"):
            raise ValueError(f"on_failure={on_failure!r}: expected 'collect' or 'cancel'")
        sheds = overflow == "shed"
        self.name = name
        self._sheds = sheds
        super().__init__(throttles, parent, capacity, tag_capacity, sheds, order == "deadline", aging)
        self._cancels_on_failure = on_failure == "cancel"
        if name is not None:
            _named[next(_numbers)] = self

    def _part_at(self, host: Host) -> Pool:
        """Return the part of this pool for those that are moved to a host. It may be made although this is closed."""
        part = self._parts.get(id(host))
        if part is None or part not in self._children:
            for other in [key for key, each in self._parts.items() if not each._index]:
                self._parts.pop(other).close()  # its host may be gone for good
            closed, self._closed = self._closed, False
            try:
                part = Pool(parent=self, node=host, name=f"{self.name or 'a pool'} at {host!r}")
            finally:
                self._closed = closed
            try:
                part._belong_to(self)
            except BaseException:  # the slots are another loop's
                part.close()
                raise
            self._parts[id(host)] = part
            if closed:
                part.close()
        return part

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        closed = ", closed" if self._closed else ""
        queued = self._queued()
        return f"<Pool{name}: {queued} queued, {len(self) - queued} admitted{closed}>"

    def __bool__(self) -> bool:
        """Return True, so that an empty pool is not taken for none."""
        return True

    def __iter__(self) -> Iterator[Threadlet[Any]]:
        """Iterate over the threadlets that are not finished; what happens during the iteration does not disturb it."""
        return iter(list(self._index))

    def __contains__(self, handle: object) -> bool:
        if not isinstance(handle, Threadlet) or not handle._marks & LISTED:
            return False
        return handle.pool is self or (handle.pool is not None and self in handle.pool._line)

    # ------------------------------------------------------------------------------------------ look and change

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be copied or pickled: it belongs to its event loop")

    def select(
        self,
        *,
        entrypoint: Callable[..., Any] | None = None,
        tag: Hashable | None = None,
        state: str | None = None,
        where: Callable[[Threadlet[Any]], object] | None = None,
    ) -> Selection:
        """Return a live view of the unfinished threadlets that meet all criteria given; of all, if none is.

        Args:
            entrypoint: What they are calls of.
            tag: A tag that they carry.
            state: "queued", "running", "missed" or "cleaning".
            where: A predicate that is true of them.

        Raises:
            TypeError: If ``entrypoint`` is no function, ``tag`` not hashable, or ``where`` not callable.
            ValueError: If there is no such state.
        """
        hash(tag)
        if where is not None and not callable(where):
            raise TypeError(f"where={where!r}: expected a function of one threadlet")
        unfinished = [str(word) for word in State if word not in FINAL]
        if state is not None and state not in unfinished:
            raise ValueError(f"state={state!r}: expected one of {', '.join(map(repr, unfinished))}")
        definition = None
        if entrypoint is not None:
            prepared = resolve(entrypoint, ())[0]
            definition = prepared.definition
            if prepared.args:
                raise TypeError(
                    f"entrypoint={entrypoint!r}: its arguments are no criterion; name {definition!r} itself"
                )
        if self._loop is not UNBOUND and running_loop() is not self._loop:
            self._bind()
        return self._criteria(definition, tag, None if state is None else State(state), where)

    def cancel(self, reason: object = None) -> int:
        """Cancel everything in the pool; return how many threadlets could be cancelled. New ones may be started."""
        return self.select().cancel(reason)

    def statistics(self) -> PoolStatistics:
        """Return a frozen snapshot; times and counts are those of the parts, too. O(entrypoints + tags).

        Thread: any. To another one than the loop's, a threadlet that just goes on may be in two figures, or in none.
        """
        by_definition, by_tag, shed, rejected, abandoned = self._figures()
        total, by_name = Tally(), dict[str, Tally]()
        for definition, tally in by_definition.items():
            total.merge(tally)
            by_name.setdefault(definition.name, Tally()).merge(tally)
        size = len(self._index)
        try:
            queued = self._queued()
        except RuntimeError:  # another thread has looked, and the loop has changed the queue meanwhile
            queued = size - len(self._work) - len(self._tasks) - len(self._followers)
        queued = max(0, min(queued, size))
        return PoolStatistics(
            queued=queued,
            admitted=size - queued,
            done=total.done,
            failed=total.failed,
            cancelled=total.cancelled,
            shed=shed,
            rejected=rejected,
            abandoned=abandoned,
            unretrieved=len(self._failures),
            waits=summary(total.waits),
            runs=summary(total.runs),
            entrypoints={name: tally.snapshot() for name, tally in by_name.items()},
            tags={tag: tally.snapshot() for tag, tally in by_tag.items()},
        )

    def get_loop(self) -> AbstractEventLoop:
        """Return the event loop that the pool belongs to.

        Raises:
            NoRunningLoop: If it was not used yet, and none runs here.
        """
        if self._loop is UNBOUND:
            self._bind()
        return self._home.loop

    # ------------------------------------------------------------------------------------------------- waiting

    async def room(self, *, tags: Iterable[Hashable] = ()) -> None:
        """Wait until a start would not meet the capacity: backpressure. Returns at once if there is no capacity.

        Another task may take the place first; ``start`` tells. Cancel: point.

        Args:
            tags: Those of what is to be started, where there is a capacity per tag.
        """
        self._bind()
        wanted, woken = check_tags(tags), False
        while (full := self._full(wanted)) is not None:
            pool, entry = full[0], (self._home.loop.create_future(), wanted)
            if woken:  # somebody else was quicker: whoever has waited longer is before those who came later
                pool._room_waiters.appendleft(entry)
            else:
                pool._room_waiters.append(entry)
            woken = True
            try:
                await entry[0]
            except BaseException:
                if entry in pool._room_waiters:
                    pool._room_waiters.remove(entry)
                else:
                    pool._tell_room()  # woken, but not able to use it: the next one may
                raise
        for pool in self._line:
            if pool._room_waiters:
                # What is started here may end at once, or nothing may be started: then there is room for the next one.
                self._home.loop.call_soon(pool._tell_room)

    async def drain(self) -> None:
        """Wait until the pool is empty. It may be used meanwhile. Cancel: point."""
        self._bind()
        me, waits = self._home.awaiter(), self._home.waits
        while self._index:
            for handle in self._index if me is not None else ():
                waits.begin(me, handle)  # type: ignore[arg-type]
            waiter = self._home.loop.create_future()
            self._drain_waiters[waiter] = me
            try:
                await waiter
            finally:
                del self._drain_waiters[waiter]
                for handle in self._index if me is not None else ():
                    waits.end(me, handle)  # type: ignore[arg-type]

    def close(self) -> None:
        """Take no more work, nor do its parts; what is in the pool goes on. May be called again."""
        self._closed = True
        self._direct = False
        for child in list(self._children):
            cast(Pool, child).close()
        if not self._index:
            self._fold()

    async def aclose(self, *, finish: float = 0.0, timeout: float = float("inf")) -> None:
        """Take no more work, cancel what is in the pool, and wait until it has stopped.

        What is queued never runs. Those that take over 5 seconds to stop are named on stderr, with what they are doing.

        Args:
            finish: How many seconds what runs may take to finish by itself, before it is cancelled; ``inf``: any time.
            timeout: How many seconds it may then take to stop.

        Raises:
            CloseTimeout: If some have not stopped by then; they are named on stderr, and still in the pool.
            TypeError: If a time is no number.
            ValueError: If it is NaN or below 0.
            RuntimeError: With ``finish``, in a threadlet of this pool.

        Cancel: point; what is in the pool is cancelled by then.
        """
        check_seconds("finish", finish)
        check_seconds("timeout", timeout)
        if finish and self._loop is not UNBOUND and running_loop() is self._loop and self._home.awaiter() in self:
            raise RuntimeError(f"aclose(finish=...) of {self!r} in one of its threadlets would wait for itself")
        self.close()
        reason = f"{self!r} was closed"
        left = await depart(lambda: [self] if self._index else [], reason, finish=finish, timeout=timeout)
        if left:
            what = f"{self!r} was not empty {timeout:g} s after everything in it was told to stop"
            tell(what, left)
            raise CloseTimeout(f"{what}: {', '.join(map(repr, left[:3]))}{' and others' * (len(left) > 3)}")

    async def __aenter__(self) -> Pool:
        """Begin a scope.

        Raises:
            PoolClosed: If the pool is closed.
            RuntimeError: If the pool is in a scope already.
        """
        self._bind()
        if self._closed:
            raise PoolClosed(f"{self!r} is closed: make a new one for each scope")
        if self._scope is not None:
            raise RuntimeError(f"{self!r} is in a scope already")
        self._scope = Scope(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the scope: wait for everything, or cancel everything if the body failed. See ``scopes.py``."""
        assert self._scope is not None
        try:
            await self._scope.leave(error)
        finally:
            self.close()
            self._scope = None


def _check_capacity(what: str, capacity: int) -> None:
    if isinstance(capacity, bool) or not isinstance(capacity, int):
        raise TypeError(f"{what}={capacity!r}: expected a whole number, or None for no bound")
    if capacity < 1:
        raise ValueError(f"{what}={capacity}: at least 1 is needed, or nothing would ever start")


def default_pool(loop: AbstractEventLoop) -> Pool:
    """Return the pool of calls that name none: one for each loop, kept with it as its home is. Thread: loop."""
    pool: Pool | None = getattr(loop, "_threadlets_pool", None)
    if pool is None:
        pool = Pool(name="default")
        pool._bind()
        loop._threadlets_pool = pool  # type: ignore[attr-defined]
    return pool


def named_pools() -> list[Pool]:
    """Return the pools that have a name, also those of calls that name none ("default"), oldest first. Thread: any."""
    return [pool for reference in _named.valuerefs() if (pool := reference()) is not None]
