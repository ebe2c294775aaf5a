"""anyio's worker threads as threadlets: ``anyio.to_thread.run_sync`` in place if that is quick, on a worker if not.

    import threadlets.adapters.anyio
    threadlets.adapters.anyio.install()        # before the first request, or anywhere: what is under way stays as it is

Why: ``def`` endpoints and dependencies of FastAPI and Starlette, their background tasks, uploads and static files,
``anyio.open_file`` and ``anyio.Path`` all go through this one function, and each call costs a thread and back, 100 us
and more, although most would have returned within five.

How: of anyio's asyncio backend one method is exchanged, which all of these reach. Each function is an entrypoint of its
own, known by its code (see ``callables``), so it is learned where its calls are best done. What anyio promises holds:

- *Limiters*. A token is taken before, and given back when the function has ended; so ``CapacityLimiter(1)`` keeps
  functions apart, and ``current_default_thread_limiter().total_tokens`` bounds how many run.
- *Cancelling*. Without ``abandon_on_cancel`` a cancelled scope waits until the function has ended, and its value is
  returned; with it, it is left behind. ``from_thread.check_cancelled()`` is told of it.
- *Context variables*. The function sees those of its caller; what it sets stays with it.
- *from_thread*. ``run``, ``run_sync`` and the portals work in the function, wherever it runs.

What is different:

- A task that is cancelled by ``Task.cancel()``, not by a scope, waits for its function, too; it was left behind.
- In place, a function runs on the event loop's thread: it finds the thread-locals of that one, as all others there.
- A call that ends in place is a checkpoint for cancels, but the loop goes round only once in a while, not each time.
- While a function runs in place its task runs, and is not blocked: ``anyio.testing.wait_all_tasks_blocked`` waits.
- On an event loop that cannot go on meanwhile, a function that waits for it would wait for ever, if it ran in place.
  One that says so is kept on workers there: waits of the standard library as ``Event.wait``, and whatever names, in its
  code, ``from_thread``, ``wait``, ``result`` and their like (see ``callables``). So is one that was seen to use
  ``from_thread``: if it does so for the first time in place, a ``RuntimeError`` says what to do. What waits by
  a way that nobody sees, ``on_worker`` keeps away from the loop. On a loop that changes hands, all works in place.
- With ``abandon_on_cancel`` a function is always on a worker.

A *pool* may rule over all of it: ``install(pool=pool)``. Calls without ``limiter=`` then start by its throttles and
its queue, instead of the default limiter's; what its overflow raises, ``PoolFull`` or ``Shed``, comes out of
``run_sync``. For single calls, ``PoolLimiter(pool, concurrency)`` is a ``CapacityLimiter`` that is a view of a pool's
``Concurrency``.

A function that is an entrypoint itself, as an endpoint under ``@threadlet``, goes its own way: its contract, priority
and tags count, and changes of context variables come back.

Rejected: to exchange ``anyio.to_thread.run_sync`` (many have imported it by name).

Assumes, and checks when installed: the names of anyio's asyncio backend below. Trio's is left alone.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable
from contextvars import Context, copy_context
from importlib import metadata
from threading import get_ident
from threading import local as ThreadLocal
from typing import Any, TypeVar

from threadlets import Call, Contract, Entrypoint, Pool, Threadlet
from threadlets.loops import ChangesHands
from threadlets.workers import shared_group

from .callables import Site, carried_by, site_of, unwrap
from .installations import Changes, Installation, check_version

try:
    import anyio.from_thread
    import anyio.lowlevel
    from anyio import CancelScope, CapacityLimiter, WouldBlock
except ImportError as error:
    raise ImportError("threadlets.adapters.anyio needs anyio: pip install 'threadlets[anyio]'") from error

from .anyio_limiters import PoolLimiter

__all__ = ["TESTED", "Installation", "PoolLimiter", "install", "on_worker", "uninstall"]

TESTED = ("4.12", "4.13", "4.14", "4.15", "4.16")  # versions of anyio

F = TypeVar("F", bound=Callable[..., Any])
LEARNED, AWAY = Contract(), Contract(blocks="always")
ABANDON = Contract(blocks="always", cancel="abandon")  # who asks for it expects a long wait
MOST = 1000  # threads; arbitrary: what an infinite limiter means


def install(pool: Pool | None = None) -> Installation[Pool | None]:
    """Have ``anyio.to_thread.run_sync``, and all that uses it, run functions as threadlets, on asyncio's loops.

    It may be called several times, and lasts until each of them was undone; the pool is that of the newest one.

    Args:
        pool: Where they are started, unless a call has a ``limiter=``; None: in the default pool of the loop, under the
            default limiter of anyio.

    Returns:
        What undoes it; also a context manager.

    Raises:
        TypeError: If that is no pool.
        RuntimeError: If this version of anyio is not made as we know it.

    Warns:
        RuntimeWarning: If it was not tested with this version of anyio.

    Thread: any.
    """
    if pool is not None and not isinstance(pool, Pool):
        raise TypeError(f"install(pool={pool!r}): expected a threadlets.Pool")
    return _changes.install(pool)


def uninstall() -> None:
    """Undo the last ``install()`` that was not undone; nothing, if there is none. Thread: any."""
    _changes.uninstall()


def on_worker(function: F) -> F:
    """Keep a function away from the event loop's thread: a decorator, and a call for functions of others.

    For those that wait for the event loop by a way that nobody sees. It returns the function as it was.

    Thread: any.
    """
    site = site_of(function)
    site.away = True
    _kept_away.add(site)
    return function


_kept_away: set[Site] = set()  # so that they are not forgotten
_here = ThreadLocal()  # job: what run_sync calls on this thread now


class _Job:
    """One call of a function by ``run_sync``."""

    __slots__ = ("args", "begun", "context", "function", "loop", "scope", "site", "thread", "token")

    def __init__(
        self, site: Site, function: Callable[..., Any], args: tuple[Any, ...], loop: Any, token: Any, scope: Any
    ) -> None:
        self.site = site
        self.function = function
        self.args = args
        self.loop = loop
        self.token = token
        self.scope = scope  # that check_cancelled() looks at
        self.thread = get_ident()  # of the loop, now
        self.context: Context = copy_context()
        self.begun: asyncio.Future[None] | None = None

    @property
    def blocks_loop(self) -> bool:
        """Whether the loop cannot go on before this has ended. Thread: the one that runs it."""
        return self.thread == get_ident() and not _changes_hands(self.loop)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _changes_hands(loop: Any) -> bool:
    return isinstance(loop, ChangesHands) and loop.statistics().threshold < math.inf


async def _wait_begun(handle: Threadlet[Any], job: _Job) -> None:
    """Wait until a threadlet that is in a pool's queue has begun. Cancel: point; if it has begun, when it has ended."""
    job.begun = job.loop.create_future()
    handle.add_done_callback(lambda _: _set(job.begun))  # type: ignore[arg-type]
    while handle.state == "queued" and not job.begun.done():  # one that has begun before it could see job.begun says so
        try:
            await asyncio.shield(job.begun)
        except asyncio.CancelledError:
            handle.cancel()
            if not handle.cancelled():
                with CancelScope(shield=True):
                    await asyncio.wait([handle])  # type: ignore[type-var]
            raise


def _change(changes: Changes[Pool | None]) -> None:
    version = metadata.version("anyio")
    check_version("threadlets.adapters.anyio", "anyio", version, TESTED, "uninstall() this")
    try:
        from anyio._backends import _asyncio as theirs
        from anyio._core import _eventloop as core

        backend: Any = theirs.AsyncIOBackend
        task_states, locals_of_thread = theirs._task_states, core.threadlocals
        Token: Any = anyio.lowlevel.EventLoopToken
        set_library = core.set_current_async_library
        run_async, run_sync = backend.run_async_from_thread.__func__, backend.run_sync_from_thread.__func__
        before = backend.run_sync_in_worker_thread.__func__
        check_running = anyio.from_thread.BlockingPortal._check_running
        default_limiter = backend.current_default_thread_limiter
    except (ImportError, AttributeError) as error:
        raise RuntimeError(
            f"anyio {version} is not made as threadlets.adapters.anyio knows it ({error}): install anyio {TESTED[-1]}, "
            f"or do without this adapter"
        ) from error
    del before  # it has to be there

    def look_up(loop: Any) -> tuple[CapacityLimiter, Any]:
        found = loop._threadlets_anyio = default_limiter(), Token(backend, loop)
        return found

    def run(job: _Job) -> Any:
        """Call the function as anyio's worker threads do. Thread: worker, or loop in place."""
        if job.begun is not None:
            job.loop.call_soon_threadsafe(_set, job.begun)
        return job.context.run(claim, job)

    def run_final(job: _Job) -> Any:
        """Run an entrypoint that somebody else's function calls: no loop is to be seen there, so it is final."""
        handle = run(job)
        return handle.result() if isinstance(handle, Threadlet) else handle

    def claim(job: _Job) -> Any:
        """Call the function with what anyio's modules look for on a worker thread."""
        set_library(None)
        outer: _Job | None = getattr(_here, "job", None)  # which runs a loop of its own, here
        locals_of_thread.current_token = job.token
        locals_of_thread.current_cancel_scope = job.scope
        _here.job = job
        try:
            return job.function(*job.args)
        finally:
            if outer is None:
                del locals_of_thread.current_token, locals_of_thread.current_cancel_scope, _here.job
            else:
                locals_of_thread.current_token = outer.token
                locals_of_thread.current_cancel_scope = outer.scope
                _here.job = outer

    async def run_sync_in_worker_thread(
        cls: Any,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        abandon_on_cancel: bool = False,
        limiter: CapacityLimiter | None = None,
    ) -> Any:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        state = task_states.get(task)
        scope = None if state is None else state.cancel_scope
        if scope is not None:
            await cls.checkpoint_if_cancelled()
        if task.cancelling():
            await cls.checkpoint()
        default, token = getattr(loop, "_threadlets_anyio", None) or look_up(loop)  # its limiter, and its token
        pool = changes.value
        if limiter is None:
            limiter = default if pool is None else None
        elif type(limiter) is PoolLimiter:
            pool, limiter = limiter.pool, None
        else:
            pool = None
        if limiter is not None:
            try:
                limiter.acquire_on_behalf_of_nowait(task)
            except WouldBlock:
                await limiter.acquire_on_behalf_of(task)
        try:
            site = site_of(func, args)
            job = _Job(site, func, args, loop, token, scope)
            if abandon_on_cancel:
                scope = None  # which may cancel it
            if scope is not None and isinstance(loop, ChangesHands):
                with CancelScope(shield=True):  # noqa: ASYNC100  # while another thread runs the loop, it may cancel
                    handle = start(site, job, pool, abandon_on_cancel)
            else:
                handle = start(site, job, pool, abandon_on_cancel)
            if not handle.done():
                if pool is not None and handle.pool is pool:
                    await _wait_begun(handle, job)
                elif limiter is not None and limiter.total_tokens > group.limit:
                    group.limit = int(min(limiter.total_tokens, MOST))
            if scope is None:
                return await handle
            if handle.done():
                try:
                    handle.__await__().send(None)
                except StopIteration as end:
                    return end.value
            with CancelScope(shield=True):  # what is done is returned, whoever is cancelled meanwhile
                return await handle
        finally:
            if limiter is not None:
                limiter.release_on_behalf_of(task)

    def start(site: Site, job: _Job, pool: Pool | None, abandon: bool) -> Threadlet[Any]:
        """Start the function as a threadlet."""
        own: Any
        if site.has_entrypoint and isinstance(unwrap(job.function), (Entrypoint, Call)):
            handle: Threadlet[Any] = job.function(*job.args)
            return handle
        carried = carried_by(job.function) if site.has_entrypoint else None
        if isinstance(carried, (Entrypoint, Call)):
            own = site.entrypoint(carried.contract, run_final, carried.contract)
            own = own.using(priority=carried.priority, tags=carried.tags)
        elif abandon:
            own = site.entrypoint("abandon", run, ABANDON)
        elif site.away or (site.waits and not _changes_hands(job.loop)):
            own = site.entrypoint("away", run, AWAY)
        else:
            own = site.entrypoint("learned", run, LEARNED)
        return own(job) if pool is None else pool.start(own, job)

    def waits_for_loop(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def checked(cls: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            job: _Job | None = getattr(_here, "job", None)
            if job is not None:
                job.site.waits = True
                token = kwargs.get("token", args[1] if len(args) > 1 else None)
                if token in (None, job.loop) and job.blocks_loop:
                    raise RuntimeError(
                        f"{job.site.name}() waits for the event loop by anyio.from_thread, and it runs in place, on a "
                        f"loop that cannot go on meanwhile. From now on it is kept on workers. To have that from the "
                        f"beginning, decorate it with threadlets.adapters.anyio.on_worker, or use a loop that changes "
                        f"hands: uvicorn --loop threadlets:new_event_loop"
                    )
            return function(cls, func, *args, **kwargs)

        return checked

    def portal_is_running(portal: Any) -> None:
        """Let functions use a portal on the loop's own thread, if the loop goes on without that."""
        job: _Job | None = getattr(_here, "job", None)
        if job is not None:
            job.site.waits = True
        if job is None or job.blocks_loop or portal._event_loop_thread_id is None:
            check_running(portal)

    group = shared_group()
    changes.exchange(anyio.from_thread.BlockingPortal, "_check_running", portal_is_running)
    changes.exchange(backend, "run_sync_in_worker_thread", classmethod(run_sync_in_worker_thread))
    changes.exchange(backend, "run_async_from_thread", classmethod(waits_for_loop(run_async)))
    changes.exchange(backend, "run_sync_from_thread", classmethod(waits_for_loop(run_sync)))


_changes = Changes(_change)
