"""The workers of a Dask cluster as places where a pool's pure threadlets run.

    nodes = await cluster_nodes(client)                 # client = await Client(..., asynchronous=True)
    async with Pool(Rate(100), node=nodes) as pool:     # every worker; nodes[0] is one of them
        pool.start(crunch, 1, priority=3, tags={"tenant:7"}, deadline=60)

Why: Dask has no throttles, no deadlines, no selection by tag, and what was submitted to it cannot be put in another
order. So work stays in the pool until a *slot* is free at the cluster; what is there is a task of Dask's, like any.

How: what leaves within one round of the event loop is submitted together. What has finished is gathered in batches:
the next takes all that has finished while one was under way. It does not wait for one that takes long: Dask may have to
compute a result again whose worker has died.

*Priorities*: lower numbers run first here, higher ones at Dask: they are negated on the way. Later changes reach what
is still in the pool.

*Where*: Dask decides, by its own hints: arguments that are Dask futures are handed on as such, and the call goes to
where their data is. One node is a preference: Dask may have an idle worker take over what waits there.

*Cancelling*: the future is released, so Dask forgets the task. A function that runs there already cannot be stopped:
its slot is free at once, its worker is not.

*Faults*: when a worker dies, Dask runs what was there elsewhere - it is pure - as often as its ``allowed-failures``
allow; that is counted and logged. When the cluster is gone, ``NodeLost`` is raised; or what was sent, and is still to
be sent, runs in worker threads here, with ``fallback="local"``.

*Pickles*: the function goes by value, with the globals that it refers to; so its module need not be there, but what
that imports does. Whoever can reach a Dask scheduler can run code on its workers, and what comes from there is
unpickled here: use TLS, or a network of your own.

Rejected: to submit each call, and to fetch each result, by itself (a message each: up to 40 % more for small calls).

Assumes: ``distributed`` 2024.8 or later. Tested with the two in ``TESTED``.

Over 400 lines: an adapter is one file, so that whoever looks after it for a new version has one to read.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import warnings
import weakref
from asyncio import CancelledError
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError as Dropped  # what Dask raises for a task that is forgotten
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from threadlets import Concurrency, Entrypoint, Host, offload
from threadlets.errors import NodeLost

try:
    import cloudpickle
    import distributed
    from dask.utils import apply
    from distributed import Client, Future, KilledWorker, futures_of
except ImportError as error:
    raise ImportError("threadlets.adapters.dask needs distributed: pip install 'threadlets[dask]'") from error

__all__ = ["TESTED", "ClusterNode", "ClusterNodes", "ClusterStatistics", "cluster_nodes"]

TESTED = ("2024.8", "2026.8")  # versions of distributed: the oldest and the newest
VERSION: str = distributed.__version__  # type: ignore[attr-defined]

logger = logging.getLogger("threadlets")

SLOTS = 16  # per thread of a worker; measured, benchmarks/cluster.py: with fewer, workers wait for round trips
LOOK = 1.0  # seconds; arbitrary: how often to ask who the workers are
PATIENCE = 0.05  # seconds; arbitrary: how long others wait for a batch, in which one may have to be computed again
SMALL = frozenset({int, float, complex, bool, str, bytes, type(None)})  # what can be sent, without a look


@dataclass(frozen=True, slots=True)
class ClusterStatistics:
    """What became of the calls that were sent to a cluster.

    Attributes:
        sent: How many were submitted.
        done: How many have returned.
        failed: How many have raised.
        cancelled: How many were cancelled here.
        rerun: How many times a worker's end made Dask run one again.
        lost: How many ended with ``NodeLost``.
        fallen_back: How many ran here, since the cluster was gone.
    """

    sent: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    rerun: int = 0
    lost: int = 0
    fallen_back: int = 0


@dataclass(frozen=True, slots=True)
class _Call:
    """What is to be submitted."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    priority: float
    address: str | None

    def alike(self) -> object:
        """Return what those have in common that can be submitted together."""
        if self.kwargs or not self.args:
            return object()
        return id(self.function), len(self.args), self.priority, self.address


class ClusterNode(Host):
    """One worker of a cluster. Thread: loop.

    If that worker is gone, what is sent here goes to any other one.

    Attributes:
        address: Where Dask finds it.
        threads: How many threads it has for tasks.
        slots: How many calls may be there at a time; the limit may be set.
    """

    slots: Concurrency

    def __init__(self, cluster: ClusterNodes, address: str, threads: int) -> None:
        self._cluster = cluster
        self.address = address
        self.threads = threads
        self.slots = Concurrency(max(1, threads * cluster.slots_per_thread))

    def __repr__(self) -> str:
        return f"<ClusterNode {self.address}, {self.threads} threads>"

    def check(self, entrypoint: Entrypoint[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise TypeError for what cannot be pickled."""
        self._cluster.check(entrypoint, args, kwargs)

    async def run(
        self, entrypoint: Entrypoint[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, priority: float
    ) -> Any:
        """Have a call run on this worker; see ``ClusterNodes.run``."""
        return await self._cluster.send(entrypoint, args, kwargs, priority, self)


class ClusterNodes(Host, Sequence[ClusterNode]):
    """All workers of a cluster: a host, and the sequence of those that there are now. Thread: loop.

    Attributes:
        client: Dask's client.
        slots: How many calls may be at the cluster at a time; its limit follows the number of threads there.
        slots_per_thread: How many for each of them.
        fallback: What to do when the cluster is gone.
    """

    slots: Concurrency

    def __init__(self, client: Any, slots_per_thread: int, fallback: Literal["local"] | None) -> None:
        self.client = client
        self.slots_per_thread = slots_per_thread
        self.fallback = fallback
        self.slots = Concurrency(1)
        self._nodes: dict[str, ClusterNode] = {}
        self._live: dict[str, Any] = {}  # Dask's keys of what is there, and its futures
        self._outgoing: list[tuple[_Call, asyncio.Future[Any]]] = []  # to be submitted
        self._finished: list[tuple[Any, asyncio.Future[Any]]] = []  # to be gathered
        self._gathers: asyncio.Task[None] | None = None
        self._fetches: set[asyncio.Task[None]] = set()
        self._look_again = asyncio.Event()
        self._told = False
        self._counts = dict.fromkeys(ClusterStatistics.__slots__, 0)
        _listeners.setdefault(client, weakref.WeakSet()).add(self)
        self._watch = asyncio.create_task(self._keep_looking(), name=f"threadlets looks at {client.id}")

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, place: Any) -> Any:
        return list(self._nodes.values())[place]

    def __iter__(self) -> Iterator[ClusterNode]:
        return iter(list(self._nodes.values()))

    def __bool__(self) -> bool:
        """Return True, also if there is no worker now."""
        return True

    def __repr__(self) -> str:
        return f"<ClusterNodes: {len(self)} workers, {len(self._live)} of {self.slots.limit} slots taken>"

    def statistics(self) -> ClusterStatistics:
        """Return a frozen snapshot."""
        return ClusterStatistics(**self._counts)

    def close(self) -> None:
        """Look no more who the workers are; what is there goes on. It is done, too, when the client is closed."""
        self._watch.cancel()
        _listeners[self.client].discard(self)
        if self.client.status == "running":
            for address in self._nodes:
                _unsubscribe(self.client, address)

    # ------------------------------------------------------------------------------------------------- a call

    def check(self, entrypoint: Entrypoint[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise TypeError for what cannot be pickled."""
        _check_function(entrypoint)
        for name, value in [*enumerate(args, 1), *kwargs.items()]:
            if type(value) not in SMALL and not isinstance(value, Future):
                _check_argument(entrypoint, name, value)

    async def run(
        self, entrypoint: Entrypoint[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, priority: float
    ) -> Any:
        """Have a call run on any worker, and return what it returns.

        Raises:
            NodeLost: If the cluster is gone, and there is no fallback; or if the call has ended as many workers as
                Dask allows one task to.
            BaseException: What the function raises, with its traceback.
        """
        return await self.send(entrypoint, args, kwargs, priority, None)

    async def send(
        self,
        entrypoint: Entrypoint[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        priority: float,
        node: ClusterNode | None,
    ) -> Any:
        """Do that on one worker, or on any."""
        if self.client.status != "running":
            return await self._without_cluster(entrypoint, args, kwargs, f"it is {self.client.status}")
        call = _Call(entrypoint.function, args, kwargs, priority, None if node is None else node.address)
        try:
            future = await self._submitted(call)
        except Exception:
            if self.client.status == "running":
                raise
            return await self._without_cluster(entrypoint, args, kwargs, f"it is {self.client.status}")
        self._counts["sent"] += 1
        self._live[future.key] = future
        why = ""
        try:
            failure = await future.exception()
            if failure is None and future.status == "finished":
                value = await self._gathered(future)
                self._counts["done"] += 1
                return value
        except CancelledError:
            if _is_cancelled_here():
                self._counts["cancelled"] += 1
                raise
            failure = None  # by Dask: the connection was lost while the result was fetched
        except (Dropped, OSError) as error:  # the function has returned, so it is the way that failed
            failure, why = None, str(error) or repr(error)
        except Exception:  # it has returned what cannot be pickled, or not be unpickled here
            self._counts["failed"] += 1
            raise
        finally:
            del self._live[future.key]
            future.release()
        if failure is None:
            return await self._without_cluster(entrypoint, args, kwargs, why or f"the task is {future.status}")
        if isinstance(failure, KilledWorker):
            self._counts["lost"] += 1
            raise NodeLost(f"{entrypoint.name}() has ended the workers that ran it: {failure}") from failure
        self._counts["failed"] += 1
        return await future  # raises it, with its traceback

    async def _without_cluster(
        self, entrypoint: Entrypoint[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], why: str
    ) -> Any:
        """Do without the cluster."""
        there = _is_there((args, kwargs))
        if self.fallback is None or there:
            self._counts["lost"] += 1
            what = f"an argument of {entrypoint.name}()" if there else f"a call of {entrypoint.name}()"
            instead = "" if self.fallback else ": start it elsewhere, or say cluster_nodes(client, fallback='local')"
            raise NodeLost(f"the cluster of {self.client!r} is gone ({why}), and with it {what}{instead}")
        if not self._told:
            self._told = True
            logger.warning("the cluster of %r is gone (%s): what is pure runs in worker threads here", self.client, why)
        self._counts["fallen_back"] += 1
        async with offload():
            return entrypoint.function(*args, **kwargs)

    # ------------------------------------------------------------------------------------- there, and back, in bursts

    async def _submitted(self, call: _Call) -> Any:
        """Return Dask's future of a call, which was submitted with those that are to be sent about now."""
        answer = asyncio.get_running_loop().create_future()
        self._outgoing.append((call, answer))
        if len(self._outgoing) == 1:
            asyncio.get_running_loop().call_soon(self._submit)
        try:
            return await answer
        except CancelledError:
            if answer.done() and not answer.cancelled():
                answer.result().release()
            raise

    def _submit(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        alike: dict[object, list[tuple[_Call, asyncio.Future[Any]]]] = {}
        for each in outgoing:
            if not each[1].done():
                alike.setdefault(each[0].alike(), []).append(each)
        for burst in alike.values():
            self._submit_burst(burst)

    def _submit_burst(self, burst: list[tuple[_Call, asyncio.Future[Any]]]) -> None:
        """Submit calls that are alike, together."""
        call = burst[0][0]
        options: dict[str, Any] = {"pure": False, "priority": -call.priority}
        if call.address is not None:
            options |= {"workers": [call.address], "allow_other_workers": True}
        try:
            if call.kwargs:  # not among the client's own, which has some of the same names
                futures = [self.client.submit(apply, call.function, list(call.args), call.kwargs, **options)]
            elif len(burst) == 1:
                futures = [self.client.submit(call.function, *call.args, **options)]
            else:
                futures = self.client.map(
                    call.function, *zip(*(each.args for each, _ in burst), strict=True), **options
                )
        except Exception as error:
            if len(burst) == 1:
                burst[0][1].set_exception(error)
            else:  # one of them cannot be pickled any more
                for each in burst:
                    self._submit_burst([each])
            return
        for (_, answer), future in zip(burst, futures, strict=True):
            answer.set_result(future)

    async def _gathered(self, future: Any) -> Any:
        """Return the result of a future that has finished, gathered with those that finish about now."""
        answer = asyncio.get_running_loop().create_future()
        self._finished.append((future, answer))
        if self._gathers is None:
            self._gathers = asyncio.create_task(self._gather())
        return await answer

    async def _gather(self) -> None:
        try:
            while self._finished:
                batch, self._finished = self._finished, []
                fetch = asyncio.create_task(self._fetch(batch))
                self._fetches.add(fetch)
                fetch.add_done_callback(self._fetches.discard)
                await asyncio.wait([fetch], timeout=PATIENCE)
        finally:
            self._gathers = None
            for _, answer in self._finished:
                answer.cancel()
            self._finished = []

    async def _fetch(self, batch: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        batch = [(future, answer) for future, answer in batch if not answer.done()]
        try:
            try:
                values = await self.client.gather([future for future, _ in batch])
                outcomes: list[tuple[Any, BaseException | None]] = [(value, None) for value in values]
            except (Exception, CancelledError):  # of one of them: ask for each
                if _is_cancelled_here():
                    raise
                outcomes = [await _outcome(future) for future, _ in batch]
            for (_, answer), (value, error) in zip(batch, outcomes, strict=True):
                if answer.done() or isinstance(error, CancelledError):
                    continue
                if error is None:
                    answer.set_result(value)
                else:
                    answer.set_exception(error)
        finally:
            for _, answer in batch:
                answer.cancel()

    # ----------------------------------------------------------------------------------------------- workers

    async def look(self) -> None:
        """Ask who the workers are. It is done every second; and at once when one that is known goes."""
        threads: dict[str, int] = await self.client.nthreads()
        for address in [each for each in self._nodes if each not in threads]:
            del self._nodes[address]
            _unsubscribe(self.client, address)
        for address, count in threads.items():
            if address not in self._nodes:
                self._nodes[address] = ClusterNode(self, address, count)
                self.client.subscribe_topic(address, partial(_tell, _listeners[self.client], address))
        self.slots.limit = max(1, sum(threads.values()) * self.slots_per_thread)

    async def _keep_looking(self) -> None:
        while self.client.status in ("running", "connecting"):
            try:
                async with asyncio.timeout(LOOK):
                    await self._look_again.wait()
            except TimeoutError:
                pass
            self._look_again.clear()
            try:
                if self.client.status == "running":
                    await self.look()
            except Exception as error:  # the scheduler is gone, or about to be
                logger.debug("%r could not be asked for its workers: %r", self.client, error)

    def hear(self, address: str, event: tuple[float, Any]) -> None:
        """Hear of what happens to a worker."""
        message = event[1]
        if not isinstance(message, dict) or message.get("action") != "remove-worker":
            return
        self._look_again.set()
        keys = {*message.get("processing-tasks", ()), *message.get("lost-computed-tasks", ())}
        ours = len(keys & self._live.keys())
        if ours:
            self._counts["rerun"] += ours
            logger.warning("worker %s is gone: %d pure calls run again elsewhere", address, ours)


async def cluster_nodes(
    client: Any, *, slots_per_thread: int = SLOTS, fallback: Literal["local"] | None = None
) -> ClusterNodes:
    """Return the workers of a Dask cluster as places for pools: ``Pool(node=nodes)``, ``pool.select(...).move(nodes)``.

    Args:
        client: Dask's, of the event loop that runs here: ``await Client(address, asynchronous=True)``. It is subscribed
            to the topics that are the addresses of workers.
        slots_per_thread: How many calls may be at the cluster for each thread there: more keep its workers busy, fewer
            are put in order here.
        fallback: What to do with calls when the cluster is gone: ``"local"`` runs them in worker threads here; None
            raises ``NodeLost``.

    Raises:
        TypeError: If it is no client, or the number is none.
        ValueError: For a client that blocks, or belongs to another event loop; for less than 1 slot, or an unknown
            fallback.
        RuntimeError: If the client is closed.

    Warns:
        RuntimeWarning: If it was not tested with this version of ``distributed``.

    Thread: loop. Cancel: point.
    """
    if not isinstance(client, Client):
        raise TypeError(f"{client!r}: expected a distributed.Client")
    if isinstance(slots_per_thread, bool) or not isinstance(slots_per_thread, int):
        raise TypeError(f"slots_per_thread={slots_per_thread!r}: expected a whole number")
    if slots_per_thread < 1:
        raise ValueError(f"slots_per_thread={slots_per_thread}: at least 1 is needed, or nothing would ever start")
    if fallback not in (None, "local"):
        raise ValueError(f"fallback={fallback!r}: expected 'local', or None")
    if not client.asynchronous:  # it says so only on its own event loop
        raise ValueError(
            f"{client!r} is none of this event loop: 'await Client(..., asynchronous=True)' makes one here"
        )
    if client.status != "running":
        raise RuntimeError(f"{client!r} is {client.status}: 'await Client(...)' makes one that is connected")
    if not _release(TESTED[0]) <= _release(VERSION) <= _release(TESTED[1]):
        warnings.warn(
            f"threadlets.adapters.dask was tested with distributed {' to '.join(TESTED)}, and this is {VERSION}",
            RuntimeWarning,
            stacklevel=2,
        )
    nodes = ClusterNodes(client, slots_per_thread, fallback)
    await nodes.look()
    return nodes


def _release(version: str) -> tuple[int, ...]:
    """Return year and month of a version of distributed."""
    return tuple(int(word) for word in version.split(".")[:2] if word.isdecimal())


# Who wants to know of a client's workers: it has one handler for each.
_listeners: weakref.WeakKeyDictionary[Any, weakref.WeakSet[ClusterNodes]] = weakref.WeakKeyDictionary()


def _tell(listeners: weakref.WeakSet[ClusterNodes], address: str, event: tuple[float, Any]) -> None:
    for nodes in list(listeners):
        nodes.hear(address, event)


def _unsubscribe(client: Any, address: str) -> None:
    if not any(address in nodes._nodes for nodes in _listeners[client]):
        with suppress(ValueError):  # nobody is subscribed any more
            client.unsubscribe_topic(address)


def _is_there(arguments: object) -> bool:
    """Say whether some of a call's arguments, or of what is in them, are Dask's futures."""
    find: Any = futures_of
    try:
        return bool(find(arguments))
    except (Dropped, CancelledError):  # of those that were
        return True


async def _outcome(future: Any) -> tuple[Any, BaseException | None]:
    try:
        return await future, None
    except (Exception, CancelledError) as error:
        if _is_cancelled_here():
            raise
        return None, error


def _is_cancelled_here() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


_sendable: weakref.WeakSet[Any] = weakref.WeakSet()  # entrypoints whose functions can be pickled


def _check_function(entrypoint: Any) -> None:
    if entrypoint in _sendable:
        return
    try:
        cloudpickle.dumps(entrypoint.function)
    except Exception as error:
        raise TypeError(
            f"{entrypoint.name}() cannot be sent to another process ({error}): what it refers to, other than its "
            f"arguments, must be picklable"
        ) from error
    _sendable.add(entrypoint)


def _check_argument(entrypoint: Any, name: object, value: object) -> None:
    try:
        try:
            pickle.dumps(value, protocol=5, buffer_callback=_keep)  # arrays are not copied
        except Exception:
            cloudpickle.dumps(value)  # functions, and classes, that have no module
    except Exception as error:
        raise TypeError(
            f"argument {name} of {entrypoint.name}() cannot be sent to another process ({error}): {value!r}"
        ) from error


def _keep(buffer: Any) -> bool:
    return False
