"""Requests in a pool: middleware for Starlette, FastAPI and any other ASGI application, on any ASGI server.

    pool = Pool(Concurrency(64), FairShare("tenant:"), capacity=500, overflow="shed")
    app.add_middleware(PoolMiddleware, pool=pool, options=Rules(tag_header="x-tenant"), owns=True)
    app = PoolMiddleware(app, pool)                     # or around any ASGI application

Why: a server starts what comes. Under more load than it can bear everything is late, for everybody. In a pool a request
has a priority, a tenant and a deadline, waits for its turn, is refused while that costs nothing, and is not worked on
when nobody waits for it any more.

How: each http request is one coroutine threadlet. If it may start, it does so in place, and one that never has to wait
costs 3 to 8 us more than the application. What the pool does not serve is answered with 503 and ``Retry-After``; if its
response had begun, the server is given an exception, and ends the connection. Errors of the application are its own:
they reach the server as they would without the middleware, also if they are called ``Shed``.

Who asks is told, who does not ask is cancelled. A request that has to wait is watched: if its client goes away while it
is queued, it never runs; if it runs, it is cancelled. But an application that asks for itself - it waits in
``receive()``, or has asked there for what comes after the body, as ``request.is_disconnected()``, streaming responses,
Django and Quart do - is told ``http.disconnect``, and goes on as it likes. Once the response is complete, nobody is
cancelled: background tasks run to their end, and hold their place in the pool meanwhile.

Watching means to read. Of a body at most ``AHEAD`` bytes and one message more are read before the application wants
them; if there is more, nobody watches until it has read that: the server itself has stopped reading then, and does not
know either. A client that waits for ``100 Continue`` is not read from before the application does.

Rejected: to have the application in the server's own task and only count it (cancelling it would be cancelling the
server's task); a copy of ``scope`` (frameworks write into it for others).

What is different inside: the application runs in a task of its own. It sees context variables that were set outside;
what it sets is not seen outside, as below Starlette's ``BaseHTTPMiddleware``. Routes are not known yet in a middleware:
``scope["route"]`` comes later. Go by the path: ``Rules(priorities={"/reports": 5})``.

Assumes: ASGI 3, and asyncio. It imports no server and no framework; tested with uvicorn 0.54, hypercorn 0.18, Starlette
1.10 and FastAPI 0.165.

Invariants: nothing is sent after the application has begun its response but by itself; the threadlet has ended when
the middleware returns.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from threadlets import Pool, Threadlet
from threadlets.definitions import check_seconds
from threadlets.errors import DeadlineExceeded, PoolClosed, PoolFull, Shed

from .exchanges import App, Exchange, Message, Receive, Scope, Send, request
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

__all__ = [
    "Answer",
    "BadOption",
    "Interrupted",
    "PoolMiddleware",
    "Refusal",
    "RequestOptions",
    "Rules",
    "lifespan",
    "read",
]

Options = Callable[[Scope], RequestOptions | None]

FINISH = 10.0  # seconds; arbitrary: what requests that run may take to finish at the end
TIMEOUT = 10.0  # seconds; arbitrary: what they may then take to stop


class PoolMiddleware:
    """An ASGI application that runs each request of another one as a threadlet of a pool.

    Args:
        app: The application.
        pool: The pool; or a function of the scope that returns one, or None: this request runs outside of pools.
        options: Priority, tags and deadline: for all; or ``Rules``; or a function of the scope. If it raises a
            ``ValueError``, the client is answered 400; the message of a ``BadOption`` is shown to it.
        retry_after: Seconds that a client is told which is not served; None: estimated, by how fast the pool works off
            its queue.
        answer: Called with the scope, why a request is not served, and the answer that would be sent: returns another.
        owns: Whether the pool is closed when the server shuts down, before the application is told to: what is queued
            never runs, what runs may finish. Several pools, if ``pool`` is a function.
        finish: How many seconds it may take to finish then.
        timeout: How many seconds it may take to stop after that.
        websockets: Whether they run in the pool, too: each holds its place as long as it is open. They are not watched;
            what is not served is closed with code 1013.

    Raises:
        TypeError: If something is of a wrong type.

    Thread: loop. Cancel: point; the request's threadlet has stopped by then.
    """

    def __init__(
        self,
        app: App,
        pool: Pool | Callable[[Scope], Pool | None],
        *,
        options: RequestOptions | Rules | Options | None = None,
        retry_after: int | None = None,
        answer: Callable[[Scope, Refusal, Answer], Answer] | None = None,
        owns: bool | Iterable[Pool] = False,
        finish: float = FINISH,
        timeout: float = TIMEOUT,
        websockets: bool = False,
    ) -> None:
        if not callable(app):
            raise TypeError(f"app={app!r}: expected an ASGI application")
        if not isinstance(pool, Pool) and not callable(pool):
            raise TypeError(f"pool={pool!r}: expected a threadlets.Pool, or a function of the scope that returns one")
        if retry_after is not None and (isinstance(retry_after, bool) or not isinstance(retry_after, int)):
            raise TypeError(f"retry_after={retry_after!r}: expected whole seconds, or None")
        if answer is not None and not callable(answer):
            raise TypeError(f"answer={answer!r}: expected a function of the scope, the refusal and the answer")
        check_seconds("finish", finish)
        check_seconds("timeout", timeout)
        self.app = app
        self._pool = pool
        self._always = options if isinstance(options, RequestOptions) else NO_OPTIONS
        self._options: Options | None = None
        if isinstance(options, Rules):
            rules = options
            self._options = lambda scope: read(rules, scope)
        elif options is not None and not isinstance(options, RequestOptions):
            if not callable(options):
                raise TypeError(f"options={options!r}: expected RequestOptions, Rules, or a function of the scope")
            self._options = options
        self._retry_after = retry_after
        self._answer = answer
        self._owns = _owned(pool, owns)
        self._finish, self._timeout = finish, timeout
        self._kinds = ("http", "websocket") if websockets else ("http",)
        self._clearances: WeakKeyDictionary[Pool, Clearance] = WeakKeyDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or whatever else the server asks for."""
        kind = scope["type"]
        if kind not in self._kinds:
            if kind == "lifespan" and self._owns:
                await self._live(scope, receive, send)
            else:
                await self.app(scope, receive, send)
            return
        pool = self._pool if isinstance(self._pool, Pool) else self._pool(scope)
        if pool is None:
            await self.app(scope, receive, send)
            return
        if not isinstance(pool, Pool):
            raise TypeError(f"pool(scope) returned {pool!r}: expected a threadlets.Pool, or None")
        options = self._always
        if self._options is not None:
            try:
                options = self._options(scope) or NO_OPTIONS
            except ValueError as error:
                said = str(error) if isinstance(error, BadOption) else "a header or the path is wrong"
                await self._refuse(scope, send, Refusal.BAD, pool, said)
                return
            if not isinstance(options, RequestOptions):
                raise TypeError(f"options(scope) returned {options!r}: expected RequestOptions, or None")
        exchange = Exchange(receive, send)
        try:
            if options is NO_OPTIONS:
                handle = pool.start(request, self.app, scope, exchange)
            else:
                priority, tags, deadline = options.priority, options.tags, options.deadline
                handle = pool.start(request, self.app, scope, exchange, priority=priority, tags=tags, deadline=deadline)
        except (PoolFull, PoolClosed) as error:
            await self._refuse(scope, send, refusal_of(error), pool)
            return
        if handle.done() and (exchange.failed or handle.state == "done"):  # it ended in its first step
            handle.result()  # or the application's exception
            return
        refusal = await self._ended(handle, exchange, scope)
        if refusal is not None:
            await self._refuse(scope, send, refusal, pool)

    async def _ended(self, handle: Threadlet[None], exchange: Exchange, scope: Scope) -> Refusal | None:
        """Wait until a threadlet has ended; return why it was not served, if it was not.

        Raises:
            Interrupted: If its response had begun.
            BaseException: What the application has raised.
        """
        task = asyncio.current_task()
        cancels = task.cancelling() if task is not None else 0
        if scope["type"] == "http":
            exchange.watch(handle, scope)
        try:
            await handle
            return None
        except (Shed, DeadlineExceeded) as error:
            if exchange.failed:
                raise
            refusal, cause = refusal_of(error), str(error)
        except CancelledError as error:
            if not handle.cancelling() or (task is not None and task.cancelling() > cancels):
                raise
            refusal, cause = Refusal.STOPPED, str(error) or "it was cancelled"
        finally:
            exchange.leave()
        if exchange.gone and not exchange.complete:
            return None if exchange.began else Refusal.GONE
        if exchange.began:
            raise Interrupted(f"{handle!r} was stopped after its response had begun: {cause}")
        return refusal

    async def _refuse(self, scope: Scope, send: Send, refusal: Refusal | None, pool: Pool, message: str = "") -> None:
        """Tell the client that it is not served."""
        assert refusal is not None
        seconds = self._retry_after
        if seconds is None:
            clearance = self._clearances.setdefault(pool, Clearance())
            seconds = clearance.seconds_of(pool, monotonic())
        answer = refused(refusal, seconds, message)
        if self._answer is not None:
            answer = self._answer(scope, refusal, answer)
            if not isinstance(answer, Answer):
                raise TypeError(f"answer(...) returned {answer!r}: expected an Answer")
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1013, "reason": "try again later"})
            return
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
        headers.append((b"content-length", str(len(answer.body)).encode()))
        with suppress(OSError) if refusal is Refusal.GONE else nullcontext():  # which some servers tell by that
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await send({"type": "http.response.body", "body": answer.body})

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the server's lifespan on; close the pools before the application is told to shut down.

        An application that knows no lifespan raises, before it has asked for anything: then there is only ours.
        """
        asked = False

        async def received() -> Message:
            nonlocal asked
            asked = True
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await shut_down(self._owns, self._finish, self._timeout)
            return message

        try:
            await self.app(scope, received, send)
        except Exception:
            if asked:
                raise
        if not asked:
            await received()
            await send({"type": "lifespan.startup.complete"})
            await received()
            await send({"type": "lifespan.shutdown.complete"})


def _owned(pool: object, owns: bool | Iterable[Pool]) -> Collection[Pool]:
    if owns is False:
        return ()
    if owns is True:
        if not isinstance(pool, Pool):
            raise TypeError("owns=True says nothing if pool is a function: write owns=[pool, ...]")
        return (pool,)
    if isinstance(owns, Iterable):
        pools = tuple(owns)
    else:
        raise TypeError(f"owns={owns!r}: expected pools, or True or False")
    for each in pools:
        if not isinstance(each, Pool):
            raise TypeError(f"owns has {each!r}: expected pools, or True or False")
    return pools


def read(rules: Rules, scope: Scope) -> RequestOptions:
    """Ask rules what they make of a request, in a function that adds to it: ``read(rules, scope) | more``.

    Raises:
        BadOption: If the client is to be told that a header is wrong.

    Thread: loop.
    """

    def values(name: str) -> list[str]:
        wanted = name.encode("latin-1")
        return [
            value.decode("latin-1") for key, value in scope["headers"] if key == wanted
        ]  # ASGI has them in small letters

    return rules.read(scope["path"], values, monotonic())


def lifespan(
    *pools: Pool,
    around: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
    finish: float = FINISH,
    timeout: float = TIMEOUT,
) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    """Return a lifespan for ``Starlette(lifespan=...)`` and ``FastAPI(lifespan=...)`` that closes pools at the end.

    Args:
        pools: The pools. They may be made at import time.
        around: Another lifespan: its start comes first, its end when the pools are empty.
        finish: How many seconds what runs may take to finish by itself.
        timeout: How many seconds it may take to stop after that.
    """
    check_seconds("finish", finish)
    check_seconds("timeout", timeout)

    @asynccontextmanager
    async def live(app: Any) -> AsyncIterator[Any]:
        async with nullcontext() if around is None else around(app) as state:
            try:
                yield state
            finally:
                await shut_down(pools, finish, timeout)

    return live
