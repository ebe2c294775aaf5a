"""Requests of aiohttp's server in a pool: a middleware that lets them start by rule, refuses them, and cancels them.

    pool = Pool(Concurrency(64), FairShare("tenant:"), capacity=500, overflow="shed")
    app = web.Application(middlewares=[pooled(pool, tag_header="x-tenant")])
    add_pool(app, pool, drain=5.0)

Why: as for ``threadlets.adapters.asgi``, which has the same words. In a pool a request has a priority, a tenant and a
deadline, waits for its turn, is refused while that costs nothing, and is not worked on when nobody waits for it.

How: the handler, with the middlewares that come after this one, is one coroutine threadlet. If it may start, it does so
in place. aiohttp knows the route by then, so options may be those of a route, by its name or its path, and those that
stand at the handler itself. What the pool does not serve is answered with 503 and ``Retry-After``; if its response had
begun, the connection is cut, since there is no other way left to tell. A ``web.HTTPException`` is an answer: for the
pool, and its statistics, such a request is done. Other errors are the handler's own, and reach aiohttp.

Clients that go away: aiohttp tells nobody. Since 3.7 it lets a handler go on, unless the server is made with
``handler_cancellation=True``; then its request's threadlet is cancelled at once, queued or not. Without that, all that
is public is ``request.transport``, which is None afterwards. So that is looked at: before the handler begins, so that
none is begun in vain; and of all requests that wait for anything each ``LOOK`` seconds, which one timer does for all.
Those are cancelled, unless ``on_disconnect`` says that only the queued ones are, or none: as it should for a handler
that works on after ``write_eof()``. A websocket that is open is left alone: its handler is told by ``receive()``.

Rejected: to watch the socket beside aiohttp (a descriptor each, and of no use with TLS); a protocol of our own before
aiohttp's (what it would have to pass on is not public); to leave out websockets by the header that asks for them (which
anybody can send): ``@unpooled`` says that of a handler.

What is different inside: a handler runs in a task of its own. It sees context variables that were set outside; what it
sets is not seen outside. ``request.task`` is the connection's task, as ever. What a handler returns is sent when its
place in the pool is free again: a slow client holds none, but where the handler itself writes. While a request is
queued, aiohttp keeps the first 64 KiB of its body, and reads no more; ``100 Continue`` was sent before. Handlers have
to be coroutine functions, as aiohttp wants it, and no entrypoints: ``return await entrypoint(request)`` in one.

Assumes of aiohttp, 3.10 and later: ``request.writer`` has ``output_size``, ``chunked`` and ``length``, which tell
whether a response has begun. Everything else is documented.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Mapping
from time import monotonic
from typing import Any, Literal, TypeVar, cast
from weakref import WeakKeyDictionary

from threadlets import Pool, Threadlet, threadlet
from threadlets.errors import DeadlineExceeded, PoolClosed, PoolFull, Shed

from .serving import (
    NO_OPTIONS,
    Answer,
    BadOption,
    Clearance,
    Interrupted,
    Refusal,
    RequestOptions,
    Rules,
    refusal_of,
    refused,
    shut_down,
)

try:
    from aiohttp import hdrs, web
except ImportError as error:
    raise ImportError("pooled requests of aiohttp need aiohttp: pip install 'threadlets[aiohttp]'") from error

__all__ = [
    "TESTED",
    "Answer",
    "BadOption",
    "Interrupted",
    "Refusal",
    "RequestOptions",
    "Rules",
    "add_pool",
    "pool_context",
    "pooled",
    "read",
    "request_options",
    "unpooled",
]

H = TypeVar("H", bound=Callable[..., Any])
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Options = Callable[[web.Request], RequestOptions | None]

TESTED = ("3.10", "3.11", "3.12", "3.13", "3.14")  # versions of aiohttp
LOOK = 0.1  # seconds; arbitrary: how often it is looked whether clients have gone
DRAIN = 10.0  # seconds; arbitrary: what requests that run may take to finish at the end
TIMEOUT = 10.0  # seconds; arbitrary: what they may then take to stop
OPTIONS, OUTSIDE = "__threadlets_options__", "__threadlets_outside__"  # what a handler says of itself


class _Turn:
    """One request, as it goes through the pool. Thread: loop."""

    def __init__(self, handler: Handler, request: web.Request) -> None:
        self.handler, self.request = handler, request
        self.failed = self.gone = self.raised = False
        self.handle: Threadlet[web.StreamResponse] | None = None

    def began(self) -> bool:
        """Say whether its response has: the headers are sent, or are to be sent with the first of the body."""
        writer: Any = self.request.writer
        return bool(writer.output_size > 0 or writer.chunked or writer.length is not None)

    def leave(self, only_queued: bool) -> None:
        """Cancel it if its client has gone, unless it may go on, or is a websocket, which is told by itself."""
        handle = self.handle
        if self.request.transport is not None or handle is None or self.gone:
            return
        if handle.state == "queued" or not (only_queued or hdrs.UPGRADE in self.request.headers):
            self.gone = True
            handle.cancel("its client has gone")


@threadlet
async def request(turn: _Turn, watched: bool) -> web.StreamResponse:
    """Run the handler of one request: what is in the pool."""
    if watched and turn.request.transport is None:
        turn.gone = True
        raise CancelledError("its client has gone")
    try:
        return await turn.handler(turn.request)
    except web.HTTPException as answer:
        turn.raised = True
        return answer
    except CancelledError:
        raise  # its own, or the pool's: the handle knows
    except BaseException:
        turn.failed = True
        raise


class _Watch:
    """The requests of one event loop that wait for anything, and a timer that looks who has gone. Thread: loop."""

    def __init__(self, only_queued: bool) -> None:
        self.turns: dict[_Turn, None] = {}
        self._only_queued = only_queued
        self._armed = False

    def arm(self) -> None:
        """Look again, and again, while there is somebody to look at."""
        if self.turns and not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_later(LOOK, self._look)

    def _look(self) -> None:
        self._armed = False
        for turn in list(self.turns):
            turn.leave(self._only_queued)
        self.arm()


def pooled(
    pool: Pool | Callable[[web.Request], Pool | None],
    *,
    options: RequestOptions | Rules | Options | None = None,
    tag_header: str | None = None,
    routes: Mapping[str, RequestOptions] | None = None,
    on_disconnect: Literal["cancel", "drop", "ignore"] = "cancel",
    retry_after: int | None = None,
    answer: Callable[[web.Request, Refusal, Answer], Answer] | None = None,
) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
    """Make a middleware that runs each request in a pool: ``web.Application(middlewares=[pooled(pool)])``.

    Middlewares before it run outside of the pool, those after it inside. In a sub-application it is for that alone.
    Options come from the handler (``@request_options``), from its route, and from what is given here: later ones add
    tags, and have the last word on the priority; of deadlines the shortest counts.

    Args:
        pool: The pool; or a function of the request that returns one, or None: this request runs outside of pools.
        options: Priority, tags and deadline: for all; or ``Rules``; or a function of the request. If it raises a
            ``ValueError``, the client is answered 400; the message of a ``BadOption`` is shown to it.
        tag_header: The same as ``options=Rules(tag_header=...)``: the header's value becomes a tag.
        routes: Options by the name of a route, or by its path as it was added: ``{"/reports/{id}": ...}``; in a
            sub-application with the prefix of that.
        on_disconnect: What becomes of a request whose client has gone away: ``"cancel"``: it is cancelled;
            ``"drop"``: if it has not begun, it never does; ``"ignore"``: nothing.
        retry_after: Seconds that a client is told which is not served; None: estimated, by how fast the pool works off
            its queue.
        answer: Called with the request, why it is not served, and the answer that would be sent: returns another.

    Raises:
        TypeError: If something is of a wrong type.
        ValueError: If ``on_disconnect`` is another word, or there are both ``options`` and a ``tag_header``.

    Thread: loop. Cancel: point; the request's threadlet has stopped by then.
    """
    if not isinstance(pool, Pool) and not callable(pool):
        raise TypeError(f"pool={pool!r}: expected a threadlets.Pool, or a function of the request that returns one")
    if on_disconnect not in ("cancel", "drop", "ignore"):
        raise ValueError(f"on_disconnect={on_disconnect!r}: expected 'cancel', 'drop' or 'ignore'")
    if retry_after is not None and (isinstance(retry_after, bool) or not isinstance(retry_after, int)):
        raise TypeError(f"retry_after={retry_after!r}: expected whole seconds, or None")
    options_of = _reader(options, tag_header, dict(routes or {}))
    watched = on_disconnect != "ignore"
    watches: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch] = WeakKeyDictionary()
    clearances: WeakKeyDictionary[Pool, Clearance] = WeakKeyDictionary()

    @web.middleware
    async def middleware(http: web.Request, handler: Handler) -> web.StreamResponse:
        chosen = pool if isinstance(pool, Pool) else pool(http)
        if chosen is None or getattr(http.match_info.handler, OUTSIDE, False):
            return await handler(http)
        if not isinstance(chosen, Pool):
            raise TypeError(f"pool(request) returned {chosen!r}: expected a threadlets.Pool, or None")
        try:
            found = options_of(http)
        except ValueError as error:
            said = str(error) if isinstance(error, BadOption) else "a header or the path is wrong"
            return refuse(http, chosen, Refusal.BAD, said)
        turn = _Turn(handler, http)
        try:
            turn.handle = handle = chosen.start(
                request, turn, watched, priority=found.priority, tags=found.tags, deadline=found.deadline
            )
        except (PoolFull, PoolClosed) as error:
            return refuse(http, chosen, Refusal.FULL if isinstance(error, PoolFull) else Refusal.CLOSED)
        if not handle.done() or not (turn.failed or handle.state == "done"):
            refusal = await ended(turn, handle)
            if refusal is not None:
                return refuse(http, chosen, Refusal.GONE if turn.gone else refusal)
        answered = handle.result()
        if turn.raised:
            raise cast(web.HTTPException, answered)
        return answered

    async def ended(turn: _Turn, handle: Threadlet[web.StreamResponse]) -> Refusal | None:
        """Wait until a threadlet has ended; return why it was not served, if it was not."""
        task = asyncio.current_task()
        cancels = task.cancelling() if task is not None else 0
        watch = watches.setdefault(asyncio.get_running_loop(), _Watch(on_disconnect == "drop"))
        if watched:
            watch.turns[turn] = None
            watch.arm()
        try:
            await handle
            return None
        except (Shed, DeadlineExceeded) as error:
            refusal, cause = refusal_of(error), str(error)
            if turn.failed:
                raise
        except CancelledError as error:
            if not (handle.cancelling() or turn.gone) or (task is not None and task.cancelling() > cancels):
                raise
            refusal, cause = Refusal.STOPPED, str(error) or "it was cancelled"
        finally:
            watch.turns.pop(turn, None)
        if turn.began() and not turn.gone:
            if turn.request.transport is not None:
                turn.request.transport.abort()  # so that nobody takes what there is for the whole
            raise Interrupted(f"{handle!r} was stopped after its response had begun: {cause}")
        return refusal

    def refuse(http: web.Request, chosen: Pool, refusal: Refusal, message: str = "") -> web.Response:
        """Tell the client that it is not served."""
        seconds = retry_after
        if seconds is None:
            seconds = clearances.setdefault(chosen, Clearance()).seconds_of(chosen, monotonic())
        said = refused(refusal, seconds, message)
        said = said if answer is None else answer(http, refusal, said)
        return web.Response(status=said.status, headers=list(said.headers), body=said.body)

    return middleware


def _reader(
    options: RequestOptions | Rules | Options | None, tag_header: str | None, routes: dict[str, RequestOptions]
) -> Callable[[web.Request], RequestOptions]:
    """Return a function that says with which options a request is started."""
    if tag_header is not None:
        if options is not None:
            raise ValueError("both options and tag_header: write options=Rules(tag_header=...), or a function")
        options = Rules(tag_header=tag_header)
    if options is not None and not isinstance(options, (RequestOptions, Rules)) and not callable(options):
        raise TypeError(f"options={options!r}: expected RequestOptions, Rules, or a function of the request")
    for name, each in routes.items():
        if not isinstance(name, str) or not isinstance(each, RequestOptions):
            raise TypeError(f"routes has {name!r}: {each!r}: expected RequestOptions by a route's name or path")

    def options_of(http: web.Request) -> RequestOptions:
        match = http.match_info
        found: RequestOptions = getattr(match.handler, OPTIONS, NO_OPTIONS)
        if routes:
            resource = match.route.resource
            for name in (None if resource is None else resource.canonical, match.route.name):
                if name in routes:
                    found = _both(found, routes[name])
        if options is None or isinstance(options, RequestOptions):
            return found if options is None else _both(found, options)
        return _both(found, (read(options, http) if isinstance(options, Rules) else options(http)) or NO_OPTIONS)

    return options_of


def _both(one: RequestOptions, other: RequestOptions) -> RequestOptions:
    if one is NO_OPTIONS or other is NO_OPTIONS:
        return other if one is NO_OPTIONS else one
    both = one | other
    deadlines = [each.deadline for each in (one, other) if each.deadline is not None]
    return RequestOptions(both.priority, both.tags, min(deadlines, default=None))


def read(rules: Rules, request: web.Request) -> RequestOptions:
    """Say what rules make of a request; for functions that add to it.

    Raises:
        BadOption: If the client is to be told that a header is wrong.
    """
    headers = request.headers
    return rules.read(request.path, lambda name: headers.getall(name, ()), monotonic())


def request_options(
    *, priority: float | None = None, tags: Iterable[Hashable] = (), deadline: float | None = None
) -> Callable[[H], H]:
    """Say how the requests of a handler are started, at the handler: ``@request_options(priority=5, deadline=2.0)``.

    For a coroutine function, a method, or a ``web.View``. Decorators above it have to use ``functools.wraps``.

    Args:
        priority: Lower numbers start first; None: what is said elsewhere.
        tags: What throttles and selections know it by; added to others.
        deadline: Seconds from now until which its handler has to end; None: no limit.

    Raises:
        TypeError: If one is of a wrong type.
        ValueError: For a number that is NaN, or a deadline that is infinite.
    """
    options = RequestOptions(priority, tags, deadline)

    def decorate(handler: H) -> H:
        setattr(handler, OPTIONS, options)
        return handler

    return decorate


def unpooled(handler: H) -> H:
    """Have the requests of a handler run outside of pools: websockets, which would hold a place; health checks."""
    setattr(handler, OUTSIDE, True)
    return handler


def pool_context(
    *pools: Pool, drain: float = DRAIN, timeout: float = TIMEOUT
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Make a context that closes pools at an application's end: ``app.cleanup_ctx.append(pool_context(pool))``.

    They take no more work, what is queued never runs, what runs may finish, and is then cancelled. aiohttp does that
    when it has waited for its handlers, up to ``shutdown_timeout``: for a pool of requests use ``add_pool``.

    Args:
        pools: The pools. They may be made at import time.
        drain: How many seconds what runs may take to finish by itself.
        timeout: How many seconds it may take to stop after that.

    Raises:
        TypeError: If one is no pool.
    """
    for each in pools:
        if not isinstance(each, Pool):
            raise TypeError(f"{each!r} is no threadlets.Pool")

    async def context(app: web.Application) -> AsyncIterator[None]:
        yield
        await shut_down(pools, drain, timeout)

    return context


def add_pool(app: web.Application, *pools: Pool, drain: float = DRAIN, timeout: float = TIMEOUT) -> None:
    """Close pools of requests as an application begins to shut down, before aiohttp waits for its handlers.

    Queued requests are answered with 503 at once. What closes websockets and other long answers at that time should be
    in ``app.on_shutdown`` before this.

    Args:
        app: The application, or a sub-application of it.
        pools: The pools.
        drain: As ``pool_context`` has it.
        timeout: The same.

    Raises:
        TypeError: If one is no pool.
        RuntimeError: If the application has started.
    """
    app.cleanup_ctx.append(pool_context(*pools, drain=drain, timeout=timeout))

    async def close(app: web.Application) -> None:
        await shut_down(pools, drain, timeout)

    app.on_shutdown.append(close)
