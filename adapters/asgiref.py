"""asgiref's ``sync_to_async``, and so Django under ASGI: functions in place while they are quick, threads used again.

    import threadlets.adapters.asgiref
    threadlets.adapters.asgiref.install()           # in asgi.py, before get_asgi_application()

What each call of ``sync_to_async`` becomes:

- ``thread_sensitive=False``: a threadlet of its function, in place once that is known to be quick, on a worker if not.
  In "home" mode, see below, always on a worker: it must not be in the way of what has to be at home.
- ``thread_sensitive=True``, Django's default: all such code of a request runs in one thread. ``install()`` says which:

  ``"worker"``, the default, keeps asgiref's promise as it is: each ``ThreadSensitiveContext`` has a thread of its own,
  and Django makes one for each request. asgiref starts and joins a thread for each; here it is borrowed, and given back
  when the context ends. Idle ones end after ten seconds. So a thread serves one request after the other, as a threaded
  WSGI server's does: thread-locals, and database connections that Django is told to keep (``CONN_MAX_AGE``), are there
  for the next one. What has no context stays on the one thread that asgiref has for it.

  ``"home"`` runs all of it on the thread of the event loop, in place: nothing is handed over, nobody waits. It is one
  thread, so thread-locals and connections hold, but all requests share them: let ``CONN_MAX_AGE`` be None, or each one
  that ends closes the connection for all; and leave out ``QuerySet.aiterator()``, which keeps a cursor open between
  calls. A call that blocks holds up the other sensitive ones, which wait until home is back; and on a loop that does
  not change hands it holds up everything.

What has begun in a thread comes back to it, in both modes: in ``async_to_sync``, sensitive code goes to the thread that
waits there. That, ``ThreadSensitiveContext(executor=...)`` and ``sync_to_async(executor=...)`` are left to asgiref.

``async_to_sync`` in a function that runs in place: a loop that changes hands goes on at once. Any other cannot, since
this is the thread that runs it. So functions that use it are noticed on the worker threads where they start, and stay
there. One that did not in its first calls, and then does, has its coroutine run on a loop of its own in another thread,
as asgiref does where there is no loop, while the server stands still; a warning is logged; from then on it is on
workers. In "home" mode it cannot leave, so that is what happens at each call. What remains: if such a coroutine waits
for something that only the loop that stands still can do, it waits for ever. So "home" on a loop that does not change
hands is not for synchronous middleware around async views.

With a ``pool`` its rules hold for all calls, but for those from inside of ``async_to_sync``: who waits for them has a
place in it already. A loop that the pool does not belong to does without.

*Cancelling* is as in asgiref: what waits never runs; in a function that waits in ``async_to_sync`` the coroutine is
cancelled, and the function waited for; any other one runs on, and nobody waits for it but the end of its context.
Different: where a function is a threadlet, what it raises after that is told to the loop's exception handler, and what
it returns in spite of it is not dropped; one that blocks in place on a loop that changes hands ends before its caller
is told, unless it was known to use ``async_to_sync``.

*asgiref.local.Local* of asgiref 3.13 shows nothing to a thread that has not set it; on a loop that changes hands a task
may go on in another thread. For these all threads that run the loop count as one.

Rejected: sending what uses ``async_to_sync`` to other threads in "home" mode (one request would have two connections);
sensitive code in place on whichever thread the request has (there is none before the first hop).

Assumes, and checks when installed: ``SyncToAsync.thread_handler`` as of asgiref 3.8 and later. Its private names that
are used, here and in ``asgiref_calls``: ``_restore_context``, ``_executor``, ``_thread_sensitive``, ``_exited``.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from asyncio import CancelledError
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Literal

from threadlets import Entrypoint, Pool, Threadlet
from threadlets.errors import WrongLoop
from threadlets.regions import region_here

from .installations import Changes, Installation, check_version

try:
    import asgiref.local
    import asgiref.sync
    from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext

    from .asgiref_calls import AWAY, HOME, LEARNED, Call, entry_of, make_way
    from .asgiref_leases import Lease
except ImportError as error:
    raise ImportError("sync_to_async needs asgiref: pip install 'threadlets[django]'") from error

__all__ = ["TESTED", "Installation", "Wishes", "install", "uninstall"]

TESTED = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")  # versions of asgiref

PARAMETERS = ("self", "loop", "exc_info", "task_context", "func")  # of thread_handler


class Wishes:
    """What an ``install()`` has said."""

    __slots__ = ("pool", "thread_sensitive")

    def __init__(self, pool: Pool | None, thread_sensitive: str) -> None:
        self.pool = pool
        self.thread_sensitive = thread_sensitive


def install(
    pool: Pool | None = None, *, thread_sensitive: Literal["worker", "home"] = "worker"
) -> Installation[Wishes]:
    """Let ``sync_to_async`` make threadlets, everywhere in this process. What the newest one has said holds.

    Install it before there are requests, and uninstall it after them: a request that is under way may change threads.

    Args:
        pool: Whose rules hold for the calls; None: none but those of the loop's default pool.
        thread_sensitive: Where thread-sensitive code runs: on a ``"worker"`` of its context, or on the loop's own
            thread, at ``"home"``.

    Returns:
        What undoes it; also a context manager.

    Raises:
        TypeError: If ``pool`` is no pool.
        ValueError: If ``thread_sensitive`` is another word.
        RuntimeError: If this version of asgiref is not made as we know it.

    Warns:
        RuntimeWarning: If it was not tested with this version of asgiref.

    Thread: any.
    """
    if pool is not None and not isinstance(pool, Pool):
        raise TypeError(f"pool={pool!r}: expected a threadlets.Pool")
    if thread_sensitive not in ("worker", "home"):
        raise ValueError(f"thread_sensitive={thread_sensitive!r}: expected 'worker' or 'home'")
    return _changes.install(Wishes(pool, thread_sensitive))


def uninstall() -> None:
    """Undo the last ``install()`` that was not undone; nothing, if there is none. Thread: any."""
    _changes.uninstall()


# -------------------------------------------------------------------------------------------------- what is changed


async def _call(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand for ``SyncToAsync.__call__``."""
    __traceback_hide__ = True
    wishes = _changes.value
    if wishes is None or self._executor is not None:
        return await _stock.call(self, *args, **kwargs)
    nested = getattr(AsyncToSync.executors, "current", None)
    if self._thread_sensitive:
        if nested:
            return await _stock.call(self, *args, **kwargs)
        loop = asyncio.get_running_loop()
        context = self.thread_sensitive_context.get(None)
        table = self.context_to_thread_executor
        free = loop not in AsyncToSync.loop_thread_executors if context is None else context not in table
        if context is not None and getattr(context, "_exited", False):
            free = False
        if wishes.thread_sensitive == "worker" or not free:
            if free and context is not None:
                table[context] = Lease()
            if wishes.pool is None:
                return await _stock.call(self, *args, **kwargs)
            return await _in_pool(wishes.pool, self, args, kwargs)
        entry = entry_of(self.func, HOME)
    else:
        loop = asyncio.get_running_loop()
        entry = entry_of(self.func, LEARNED if wishes.thread_sensitive == "worker" else AWAY)
    call = Call(self, entry, args, kwargs, loop)
    pool = None if nested else wishes.pool
    if entry.apart:
        entry.apart = False  # unless it is found to have to
        left: list[Context] = []
        try:
            return await _outcome(call, loop.create_task(_leaving(left, _start, pool, entry.entrypoint, call)))
        finally:
            _restore(left)
    return await _outcome(call, _start(pool, entry.entrypoint, call))


def _start(pool: Pool | None, entrypoint: Entrypoint[..., Any], *args: Any) -> Threadlet[Any]:
    if pool is not None:
        try:
            return pool.start(entrypoint, *args)
        except WrongLoop:
            pass
    handle: Threadlet[Any] = entrypoint(*args)
    return handle


async def _outcome(call: Call, handle: Threadlet[Any] | asyncio.Task[Any]) -> Any:
    """Wait for a call; cancelled meanwhile, do what asgiref does."""
    __traceback_hide__ = True
    try:
        if handle.done():
            return await handle  # which lets the loop go round if it has to
        try:
            await asyncio.shield(handle)
        except CancelledError:
            if handle.done():
                raise
            listens = False
            if call.tasks:
                task = call.tasks[0]
                task.cancel()
                try:
                    await task
                    listens = True
                except CancelledError:
                    pass
            if not listens:
                handle.cancel()
        except BaseException:  # raised again by the next line, which brings context variables back
            pass
        return await handle
    finally:
        del handle  # its failure leads to this frame, and that to it
        call.restore()


async def _in_pool(pool: Pool, wrapper: Any, args: Any, kwargs: Any) -> Any:
    """Call what has a thread of its own as a coroutine in a pool."""
    __traceback_hide__ = True
    left: list[Context] = []
    try:
        return await _start(pool, _through, left, functools.partial(_stock.call, wrapper, *args, **kwargs))
    finally:
        _restore(left)


async def _leaving(left: list[Context], function: Callable[..., Any], *args: Any) -> Any:
    """Await what a function returns; leave the context for who waits for it in another task."""
    __traceback_hide__ = True
    try:
        return await function(*args)
    finally:
        left.append(copy_context())


def _restore(left: list[Context]) -> None:
    for context in left:
        asgiref.sync._restore_context(context)


_through: Entrypoint[..., Any] = Entrypoint(_leaving)
_through.name = "sync_to_async"


async def _leave_context(self: Any, exc: Any, value: Any, tb: Any) -> Any:
    """Stand for ``ThreadSensitiveContext.__aexit__``, which starts a thread to join the one of the context."""
    table = SyncToAsync.context_to_thread_executor
    lease = table.get(self) if self.token else None
    if not isinstance(lease, Lease):
        return await _stock.leave_context(self, exc, value, tb)
    del table[self]
    try:
        return await _stock.leave_context(self, exc, value, tb)
    finally:
        await lease.leave()


def _await(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand for ``AsyncToSync.__call__``."""
    __traceback_hide__ = True
    if not self.force_new_loop:
        make_way(self.awaitable)
    return _stock.awaits(self, *args, **kwargs)


class _Threading:
    """Stands for the module ``threading`` in ``asgiref.local``: the threads that run one loop are one."""

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)

    @staticmethod
    def get_ident() -> int:
        try:
            token = getattr(asyncio.get_running_loop(), "_threadlets_token", None)
        except RuntimeError:
            region = region_here()
            token = None if region is None else region[0]
        return threading.get_ident() if token is None else token.home


class _Stock:
    """What stands for asgiref's own, as it was found when ours was installed."""

    call: Callable[..., Any]
    awaits: Callable[..., Any]
    leave_context: Callable[..., Any]


_stock = _Stock()


def _change(changes: Changes[Wishes]) -> None:
    check_version("threadlets.adapters.asgiref", "asgiref", asgiref.__version__, TESTED, "leave install() out")
    code = getattr(getattr(SyncToAsync, "thread_handler", None), "__code__", None)
    if (
        code is None
        or code.co_varnames[: len(PARAMETERS)] != PARAMETERS
        or not hasattr(asgiref.sync, "_restore_context")
    ):
        raise RuntimeError(
            f"asgiref {asgiref.__version__} has no SyncToAsync that threadlets.adapters.asgiref can change: leave "
            f"install() out, or install asgiref {TESTED[-1]}"
        )
    _stock.call = SyncToAsync.__call__
    _stock.awaits = AsyncToSync.__call__
    _stock.leave_context = ThreadSensitiveContext.__aexit__
    if hasattr(asgiref.local, "_rehome"):
        changes.exchange(asgiref.local, "threading", _Threading())
    changes.exchange(ThreadSensitiveContext, "__aexit__", _leave_context)
    changes.exchange(AsyncToSync, "__call__", _await)
    changes.exchange(SyncToAsync, "__call__", _call)


_changes = Changes(_change)
