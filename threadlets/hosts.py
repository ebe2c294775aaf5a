"""Places outside of this process where threadlets can run: other machines, a cluster, a pool of processes.

Why: the pool is where work is held back, put in order, selected, cancelled. So it stays here, and what leaves is one
function with its arguments, at the moment at which a place for it is free there. Whatever runs over there - Dask, Ray,
a queue of one's own - need not know priorities, throttles or deadlines.

How: a ``Host`` says how many may be there (``slots``, one more throttle of the pools that use it), what can be sent
(``check``), and how (``run``). An admitted threadlet is a task of ``run``: it ends as that does, and to cancel it is to
cancel the task.

Only plain functions with ``Contract(pure=True)`` are sent: what a function changes over there would not be changed
here, and one whose host is gone may have to run again.

Those that are *moved* to a host go to a part of their pool, which is made for that: they are held back by the throttles
that held them back before, and by the slots. The part has its runs that equal calls share (``sharings``) together with
the whole.

Rejected: a threadlet of its own for what runs over there: two handles for one call. To ask the host when something is
to start: then it would need a queue of its own, and what is in that could not be put in order here.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .definitions import Definition
from .groups import site_at
from .handles import Threadlet
from .lifecycles import FOLLOWS, KEPT, QUEUED
from .starts import Starts
from .throttles import Throttle
from .topology import Node

if TYPE_CHECKING:
    from .entrypoints import Entrypoint
    from .pools import Pool

__all__ = ["Host", "Hosting"]

T = TypeVar("T")


class Host:
    """A place outside of this process where plain functions can run: the base class of such. Thread: loop.

    Attributes:
        slots: How many may be there at a time: a throttle, such as ``Concurrency(16)``. All pools that use the host
            share it, so they belong to one event loop.
    """

    slots: Throttle

    def check(self, entrypoint: Entrypoint[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise an exception if a call cannot be sent; whoever starts it, or moves it, gets that."""

    async def run(
        self, entrypoint: Entrypoint[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, priority: float
    ) -> Any:
        """Have a call run there, and return what it returns.

        It runs as the threadlet's task. When that is cancelled, a ``CancelledError`` is raised in here: stop what runs
        over there, and let it out.

        Args:
            entrypoint: What is called; ``entrypoint.function`` is the function itself.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            priority: How urgent it is; lower numbers are more so.

        Raises:
            threadlets.errors.NodeLost: If the host is gone.
            BaseException: What the function raises.
        """
        raise NotImplementedError(f"{type(self).__name__}.run")

    def _fitting(self, handles: Iterable[Threadlet[Any]]) -> list[Threadlet[Any]]:
        """Return those that wait for their start and can run here; raise what the host says to one of them."""
        fitting = []
        for handle in handles:
            run = handle._task.carrier if handle._marks & FOLLOWS else handle
            if run is not None and run._state is QUEUED and run._marks & KEPT and _travels(handle.entrypoint):
                self.check(cast(Any, run.entrypoint), run._args, run._kwargs or {})
                fitting.append(handle)
        return fitting

    def _take_in(self, handles: Iterable[Threadlet[Any]], there: Pool | None = None) -> int:
        """Move threadlets here; return how many.

        Args:
            handles: Of those, the ones that can be moved.
            there: A pool at this host; None: into parts of the pools that they are in.
        """
        moved = 0
        for handle in self._fitting(handle for handle in handles if there is not None or self._is_for(handle)):
            pool = cast("Pool", handle.pool)
            if pool is there or (there is None and pool._host is self):
                moved += 1  # just now, with one that shares its run
            else:
                moved += pool._move(handle, there or (pool._whole or pool)._part_at(self))
        return moved

    def _is_for(self, handle: Threadlet[Any]) -> bool:
        """Say whether one is elsewhere, and not in a pool that was made for another host."""
        pool = handle.pool
        return pool is not None and (pool._host is None or (pool._host is not self and pool._whole is not None))


def _travels(definition: Definition[Any]) -> bool:
    return definition.shares and definition.roams


class Hosting(Starts):
    """A pool that may be at a node, or at a host. Thread: loop.

    Attributes:
        node: Where its plain functions run; None: anywhere.
    """

    node: Node | Host | None = None
    _parts: dict[int, Pool]  # for those that were moved to a host, by its id()
    _whole: Pool | None = None  # what this is a part of, made for those that were moved to its host

    def _settle_at(
        self, node: Node | Host | None, parent: Hosting | None, throttles: tuple[Throttle, ...]
    ) -> tuple[Throttle, ...]:
        """Be at a place, and return the throttles with those that hold there."""
        self._parts: dict[int, Pool] = {}
        if parent is not None and parent._host not in (None, node):
            if node is not None:
                raise ValueError(f"node={node!r}: a part of {parent!r}, which is at {parent._host!r}, is there, too")
            node = parent._host
        if isinstance(node, Host):
            if not isinstance(getattr(node, "slots", None), Throttle):
                raise TypeError(f"{node!r} has no throttle as its 'slots': self.slots = Concurrency(16), for one")
            self._host = node
            self._begin = self._begin_there  # type: ignore[method-assign]  # others need not look where they are
            self._begin_shared = self._begin_shared_there  # type: ignore[method-assign]
            if node.slots not in throttles and (parent is None or node.slots not in parent._throttles):
                throttles = (*throttles, node.slots)
        elif node is not None:
            if not isinstance(node, Node):
                raise TypeError(f"node={node!r}: expected a node of topology.machine(), or a threadlets.Host")
            site = site_at(node)
            self._site = site if site.workers.cpus is not None else None  # there is no choice: nothing to look at
        elif parent is not None:
            node, self._site = parent.node, parent._site
        self.node = node
        return throttles

    def _belong_to(self, whole: Pool) -> None:
        """Be the part of a pool for those that were moved: equal calls share a run wherever it is."""
        self._whole = whole
        self._sharable, self._runs = whole._sharable, whole._runs
        self._bind()

    def _begin_there(
        self,
        definition: Definition[T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        priority: float,
        tags: frozenset[Hashable],
    ) -> Threadlet[T]:
        """Queue a call for a host: nothing of it is done here."""
        _check_travels(definition, self)
        home = self._home
        turn, home.turn = home.turn, -1  # as if the loop had to go round before anything else may start
        try:
            return super()._begin(definition, args, kwargs, priority, tags)
        finally:
            home.turn = turn

    def _begin_shared_there(
        self,
        definition: Definition[T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        priority: float,
        tags: frozenset[Hashable],
    ) -> Threadlet[T]:
        """Queue a call for a host, or let it share the run of an equal one."""
        _check_travels(definition, self)
        cast(Host, self._host).check(cast(Any, definition), args, kwargs or {})
        return super()._begin_shared(definition, args, kwargs, priority, tags)


def _check_travels(definition: Definition[Any], pool: Hosting) -> None:
    if not _travels(definition):
        raise TypeError(
            f"{definition.name} cannot run in {pool!r}, at {pool._host!r}: only plain functions with "
            f"Contract(pure=True), and without an affinity, leave this process"
        )
