"""A pool as a ``concurrent.futures`` executor: old code is throttled, ordered, counted and cancelled like all the rest.

Why: ``loop.run_in_executor``, ``asyncio.to_thread``, ``loop.getaddrinfo``, aiofiles and countless libraries hand their
blocking calls to an executor and to nothing else. What they hand to this one is a threadlet of a pool.

*Where a call runs.* Always on a worker thread, whatever is known of the function: who submits to an executor counts on
another thread, on ``submit`` not running the function, and on being able to wait for the loop there.

*Who does what.* The loop lets a call start, since pools belong to their loops; the worker that has run it settles its
future (``submissions``). So a future whose call has reached a worker can be waited for anywhere, also on the loop's own
thread, which merely blocks.

    submit on the loop's thread:   the pool starts or queues the call at once
    submit elsewhere:              into a mailbox; the loop has the pool start or queue the call
    the loop shuts down:           what has not arrived is cancelled; what comes later is refused

The last two do not miss each other: a call is posted, and the executor closed, under one lock.

Rejected: to run in place what has been quick (see above); an executor with threads of its own (the workers are shared,
and what a pool limits is how many of its calls run); ``initializer=`` (the threads are not the executor's); to hand the
loop on by itself when its thread waits for a future (callbacks would run in the middle of code that did not ask for it:
``with blocking():`` asks).

Assumes, of asyncio: that ``set_default_executor`` wants a ``ThreadPoolExecutor``.
"""

from __future__ import annotations

import os
import threading
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload
from weakref import WeakSet

from .definitions import Definition, Prepared, check_priority, check_tags
from .errors import NoRunningLoop, PoolClosed
from .handles import Threadlet
from .hosts import Hosting
from .ledgers import UNBOUND
from .lifecycles import State
from .mailboxes import Mailbox
from .placements import TURN
from .selections import Criteria, Selection
from .submissions import PENDING, Submitted, calls_of, innermost
from .tasks import running_loop
from .workers import shared_group

if TYPE_CHECKING:
    from .entrypoints import Call, Entrypoint
    from .pools import Pool

__all__ = ["Executing", "PoolExecutor"]

P = ParamSpec("P")
T = TypeVar("T")

NO_TAGS: frozenset[Hashable] = frozenset()

# What the loop is to call, with what; in which context, if a future's call arrives.
Letter = tuple[Callable[..., object], tuple[Any, ...], "Context | None"]

_options: ContextVar[tuple[float | None, frozenset[Hashable]]] = ContextVar("threadlets-executor-options")


class PoolExecutor(ThreadPoolExecutor):
    """A pool as an executor: what is submitted is a threadlet of the pool, on a worker. Made by ``Pool.executor``.

    It goes wherever a ``ThreadPoolExecutor`` does - ``loop.run_in_executor``, ``loop.set_default_executor`` - and has
    no threads of its own. A call runs in a copy of the context of whoever submits it; what it sets does not come back.

    Args:
        pool: The pool.
        priority: That of its calls; None: the default.
        tags: Those of its calls.

    Thread: any, for every method.
    """

    def __init__(self, pool: Pool, *, priority: float | None = None, tags: Iterable[Hashable] = ()) -> None:
        super().__init__(max_workers=shared_group().limit, thread_name_prefix="none")
        self._pool = pool
        self._priority = None if priority is None else check_priority(priority)
        self._tags = check_tags(tags)
        self._unfinished: set[Submitted[Any]] = set()
        self._closed = ""  # why it takes no more calls
        self._lock = threading.RLock()  # a __del__ that the collector calls in here may submit, too
        self._mailbox: Mailbox[Letter] | None = None
        self._arrived: deque[Letter] = deque()
        self._works = False  # what has arrived is being seen to
        self._process = 0
        loop = running_loop()
        if loop is not None and pool._loop is UNBOUND:
            pool._bind()
        if loop is not None and loop is pool._loop:
            self._bind(loop)

    def __repr__(self) -> str:
        return f"<PoolExecutor of {self._pool!r}: {len(self._unfinished)} unfinished>"

    @overload  # an entrypoint gives its value, not a handle
    def submit(self, fn: Entrypoint[P, T] | Call[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...

    @overload
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a worker thread call ``fn(*args, **kwargs)`` as soon as the pool lets it start. Never waits.

        Raises:
            RuntimeError: After ``shutdown``, or when the event loop has shut down; in a forked child that does not run
                the loop. As ``PoolClosed`` if the pool is closed.
            PoolFull: If its capacity is reached. (A call that was submitted by another thread than the loop's may also
                end with that.)
            NoRunningLoop: If the pool was not used yet, so that it has no event loop, and none runs here.
            TypeError: For an asynchronous function, which would do nothing on a worker thread.
        """
        self._admit()
        function = innermost(fn, args)
        priority, tags = self._priority, self._tags
        if isinstance(function, (Definition, Prepared)):
            priority, tags = function.priority if priority is None else priority, tags | function.tags
        options = _options.get(None)
        if options is not None:
            priority, tags = priority if options[0] is None else options[0], tags | options[1]
        calls = calls_of(function)
        future: Submitted[Any] = Submitted(self, (fn, args, kwargs), calls, 0 if priority is None else priority, tags)
        self._unfinished.add(future)
        try:
            if self._may_touch_loop():
                future._enter_pool()
            else:
                with self._lock:
                    self._admit()
                    if self._pool._closed:
                        raise PoolClosed(f"{self._pool!r} takes no more work: its executors refuse new calls")
                    if not self._post(future._enter_pool, (), copy_context()):
                        raise NoRunningLoop(f"the event loop of {self._pool!r} is closed: nothing starts any more")
        except BaseException:
            self._unfinished.discard(future)
            raise
        return future

    @staticmethod
    @contextmanager
    def options(*, priority: float | None = None, tags: Iterable[Hashable] = ()) -> Iterator[None]:
        """Give a priority, and further tags, to what is submitted in this block to executors of pools.

        For calls of which only others see the executor: ``with executor.options(tags={"tenant:7"}): await
        asyncio.to_thread(load)``. It is a context variable: it holds for what is called and awaited in the block, for
        tasks started there, and for what the submitted functions submit. Inner blocks add tags.

        Args:
            priority: Lower numbers start first; None: that of the block around, or the executor's.
            tags: Added to those of the block around, the executor's, and the entrypoint's.

        Raises:
            TypeError: If one is of a wrong type.
            ValueError: If the priority is NaN.
        """
        outer = _options.get((None, NO_TAGS))
        own = outer[0] if priority is None else check_priority(priority)
        token = _options.set((own, outer[1] | check_tags(tags)))
        try:
            yield
        finally:
            _options.reset(token)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the pool itself stays open. May be called again.

        Args:
            wait: Whether to wait until the calls that were submitted to this executor have ended.
            cancel_futures: Whether those are cancelled that do not run yet.

        Raises:
            RuntimeError: With ``wait``: on the thread of the event loop, if there are calls that only the loop can let
                start; in one of these calls.
        """
        with self._lock:
            self._close("cannot schedule new futures after shutdown")
        left = list(self._unfinished)
        for future in left:
            if cancel_futures or (self._pool._loop is not UNBOUND and self._pool._loop.is_closed()):
                future.cancel()
        if not wait:
            return
        stuck = [future for future in left if not future.done() and not future._gets_on()]
        if any(future._thread == threading.get_ident() for future in left):
            raise RuntimeError(f"shutdown() of {self!r} in one of its calls would wait for itself: say wait=False")
        if stuck and self._is_loops_thread():
            raise RuntimeError(
                f"shutdown() of {self!r} on the thread of its event loop would wait for ever: {len(stuck)} of its "
                f"calls wait for the loop to let them start. Say wait=False, or cancel_futures=True; and wait for them "
                f"with 'await pool.drain()', or by 'async with pool:'"
            )
        for future in left:
            with suppress(CancelledError):
                future.exception()

    # ------------------------------------------------------------------------------------------------- the way in

    def _admit(self) -> None:
        """Raise an error if nothing can be submitted; have the pool belong to a loop."""
        if self._closed:
            raise RuntimeError(f"{self._closed} ({self!r})")
        pool = self._pool
        if pool._loop is UNBOUND:
            if running_loop() is None:
                raise NoRunningLoop(
                    f"{pool!r} has no event loop yet, and none runs on this thread: make the executor, or submit "
                    f"something first, in a coroutine"
                )
            pool._bind()
        if self._mailbox is None:
            self._bind(pool._loop)
        elif os.getpid() != self._process:
            raise RuntimeError(f"{self!r} belongs to an event loop of the process that this one was forked from")

    def _close(self, why: str) -> None:
        self._closed = self._closed or why
        self._shutdown = True  # some code looks at this of a ThreadPoolExecutor

    def _bind(self, loop: AbstractEventLoop) -> None:
        with self._lock:
            if self._mailbox is None:
                self._process = os.getpid()
                self._mailbox = Mailbox(loop, self._take_in)
                self._tell(_watch, loop, self)

    def _is_loops_thread(self) -> bool:
        """Say whether this is the thread that runs the loop, or would, so that the loop cannot go on if it waits."""
        loop = self._pool._loop
        if loop is UNBOUND:
            return False
        home = self._pool._home
        return running_loop() is loop or (
            home.thread == threading.get_ident() and not (home.changes_hands and loop.is_running())
        )

    def _may_touch_loop(self) -> bool:
        """Say whether what belongs to the loop may be touched here."""
        return self._is_loops_thread() and self._pool._loop.is_running()

    def _tell(self, function: Callable[..., object], *args: Any) -> None:
        """Have the loop call a function: at once if this is its thread; never, if it is closed."""
        if self._may_touch_loop():
            function(*args)
        else:
            self._post(function, args, None)

    def _post(self, function: Callable[..., object], args: tuple[Any, ...], context: Context | None) -> bool:
        """Have the loop call a function soon, in the order posted; False if it is closed."""
        return self._mailbox is not None and self._mailbox.post((function, args, context))

    def _take_in(self, burst: list[Letter]) -> None:
        """See to what other threads have posted. Thread: loop."""
        self._arrived.extend(burst)
        if not self._works:
            self._go_on()

    def _go_on(self) -> None:
        """See to what has arrived, for as long as one turn allows. Thread: loop."""
        until = monotonic_ns() + TURN
        arrived = self._arrived
        self._works = True
        try:
            while arrived and monotonic_ns() < until:
                function, args, context = arrived.popleft()
                if context is None:
                    function(*args)
                    continue
                try:
                    context.run(function, *args)
                except Exception as error:
                    # Without the frames that it has come through, which refer to the future.
                    function.__self__._fail(BaseException.with_traceback(error, None))  # type: ignore[attr-defined]
        finally:
            self._works = bool(arrived)
            if arrived:
                self._pool._loop.call_soon(self._go_on)

    def _end(self) -> None:
        """Take no more calls, since the loop shuts down; cancel what has not arrived yet. Thread: loop."""
        with self._lock:
            self._close("cannot schedule new futures: the event loop has shut down")
        for future in list(self._unfinished):
            if future._handle is None:
                future._cancel(PENDING)


def _watch(loop: AbstractEventLoop, executor: PoolExecutor) -> None:
    """Have an executor be told when its loop shuts down. Thread: loop."""
    watched: WeakSet[PoolExecutor] | None = getattr(loop, "_threadlets_executors", None)
    if watched is None:
        watched = WeakSet()
        loop._threadlets_executors = watched  # type: ignore[attr-defined]
        watch = loop._threadlets_executors_watch = _until_shutdown(watched)  # type: ignore[attr-defined]
        with suppress(StopIteration):
            watch.__anext__().send(None)
    watched.add(executor)


async def _until_shutdown(watched: WeakSet[PoolExecutor]) -> AsyncGenerator[None, None]:
    """Wait for ``loop.shutdown_asyncgens()``, as ``Home`` does."""
    try:
        yield
    finally:
        for executor in list(watched):
            executor._end()


class Executing(Hosting):
    """The part of a pool that is about its executors. Thread: loop, unless a method says otherwise."""

    _executes = False  # some pool has had an executor; its calls may be in any, for they can be moved

    def executor(self, *, priority: float | None = None, tags: Iterable[Hashable] = ()) -> PoolExecutor:
        """Return the pool as an executor of ``concurrent.futures``; each call makes another one.

        Args:
            priority: That of what is submitted to it; None: the entrypoint's own, or 0.
            tags: Added to those of what is submitted to it.

        Raises:
            TypeError: If an option is of a wrong type.
            ValueError: If the priority is NaN; or if the pool's work runs at a host, where no submitted call can.

        Thread: any. In a coroutine, a pool that was not used yet belongs to its loop from now on.
        """
        if self._host is not None:
            raise ValueError(f"{self!r} runs its work at {self._host!r}: an executor's calls run in this process")
        Executing._executes = True
        return PoolExecutor(cast("Pool", self), priority=priority, tags=tags)

    def _criteria(
        self,
        definition: Definition[Any] | None,
        tag: Hashable | None,
        state: State | None,
        where: Callable[[Threadlet[Any]], object] | None,
    ) -> Selection:
        """Return a view of those that meet all criteria, also of calls that executors were given."""
        pool = cast("Pool", self)
        found = Criteria(pool, definition, tag, state, where)
        if definition is None or definition.is_coroutine or not self._executes:
            return found
        return found | Criteria(pool, calls_of(definition), tag, state, where)
