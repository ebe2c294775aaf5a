"""One request between a server and an application that runs as a threadlet: what is received ahead, and who has gone.

Why: only ``receive()`` tells that a client has gone, and it is the application's: what is read there is a part of its
body. So whoever watches keeps what comes, and the application takes it from there.

How: as long as a request does not wait, the application reads by itself, and nobody watches; that costs nothing. When
it waits - in the queue of its pool, or for more than ``SOON`` at awaits - a task reads ahead, until
``http.disconnect``, or until the application has ``AHEAD`` bytes or more to take. The end of the body is read past: so
a request without a body, and any small one, is watched from the beginning.

Who asks is told, who does not ask is cancelled: see ``asgi``.

Rejected: to watch every request (a task for each); to drive ``receive()`` by hand from a callback (it may wait for
anything); to hand on the parts of a body as they came (a queue of them needs a bound of its own, and hypercorn sends
the end of a body as one more part).

Invariants: one reader of the server's ``receive()`` at a time, as far as the application has one; no message is lost,
or comes twice; the order is kept.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from threadlets import Threadlet, threadlet

__all__ = ["App", "Exchange", "Message", "Receive", "Scope", "Send", "request"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SOON = 0.005  # seconds; arbitrary: what runs and has ended by then is not watched, which costs 5 to 40 us
AHEAD = 64 * 1024  # bytes; borrowed: uvicorn's own bound of what it reads and nobody has taken


@threadlet
async def request(app: App, scope: Scope, exchange: Exchange) -> None:
    """Run the application for one request: what is in the pool."""
    try:
        await app(scope, exchange.receive, exchange.send)
    except CancelledError:
        raise  # its own, or the pool's: the handle knows
    except BaseException:
        exchange.failed = True
        raise


class Exchange:
    """What one request's application receives and sends, and what is known of it from that. Thread: loop.

    Attributes:
        began: The response has begun.
        complete: It is complete.
        gone: The client is: the server has said ``http.disconnect``.
        failed: The application has raised an exception of its own.
    """

    began = complete = gone = failed = False
    _handle: Threadlet[None] | None = None
    _left = False  # the threadlet has ended
    _ended = False  # the last part of the body was read
    _asks = False  # the application has asked for what comes after it
    _inside = 0  # how often it waits in receive() now
    _reading = 0  # how often it reads by itself
    _kept: Message | None = None  # what was read ahead
    _odd = False  # there was more after the end of the body, as from receive() of a test: that may have no end at all
    _error: Exception | None = None  # what receive() has raised then
    _watcher: asyncio.Task[None] | None = None  # who reads ahead
    _timer: asyncio.TimerHandle | None = None  # begins the watch
    _watches = False  # it has begun
    _news: asyncio.Event  # something has come, or nobody reads ahead any more

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send

    def send(self, message: Message) -> Awaitable[None]:
        """Send what the application sends, and note how far it is."""
        kind = message["type"]
        if kind == "http.response.start":
            self.began = True
        elif (kind == "http.response.body" and not message.get("more_body")) or kind == "http.response.pathsend":
            self.complete = True
            if self._handle is not None:
                self._handle.deadline = None  # it was for the answer
        return self._send(message)

    async def receive(self) -> Message:
        """Return the next message: what was read ahead, or what is read now."""
        while self._kept is None:
            if self._error is not None:
                raise self._error
            if self.gone:
                return {"type": "http.disconnect"}
            self._asks = self._asks or self._ended
            if self._watcher is None:
                return await self._read()
            self._inside += 1
            self._news.clear()
            try:
                await self._news.wait()
            finally:
                self._inside -= 1
        message, self._kept = self._kept, None
        if isinstance(message.get("body"), bytearray):
            message["body"] = bytes(message["body"])
        self._watch_on()
        return message

    async def _read(self) -> Message:
        """Read a message for the application, which is told what it says."""
        self._reading += 1
        try:
            message = await self._receive()
            self._note(message)
        finally:
            self._reading -= 1
            self._watch_on()
        return message

    def _note(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self.gone = True
        elif not message.get("more_body"):
            self._ended = True

    # ------------------------------------------------------------------------------------------------ watching

    def watch(self, handle: Threadlet[None], scope: Scope) -> None:
        """Look out for the client while the threadlet waits: read ahead."""
        self._handle = handle
        self._news = asyncio.Event()
        if self.complete:
            handle.deadline = None
        if not self._ended and any(name == b"expect" for name, _ in scope["headers"]):
            self._watches = True  # the client waits for the application to read: that begins it
        elif handle.state == "queued":
            self._begin()
        else:
            self._timer = handle.get_loop().call_later(SOON, self._begin)

    def leave(self) -> None:
        """Stop that: the threadlet has ended."""
        self._handle = None
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _begin(self) -> None:
        self._watches = True
        self._watch_on()

    def _watch_on(self) -> None:
        """Read ahead from now on, if somebody is to watch, and nobody reads."""
        if not self._watches or self._handle is None or self._watcher is not None:
            return
        if self._reading or self.complete or not self._is_short():
            return
        self._watcher = self._handle.get_loop().create_task(self._read_ahead())
        self._watcher.add_done_callback(self._stopped)

    def _is_short(self) -> bool:
        """Say whether there may be more to read ahead, and room for it."""
        if self.gone or self._odd or self._error is not None:
            return False
        return self._kept is None or self._ended or len(self._kept.get("body", b"")) < AHEAD

    async def _read_ahead(self) -> None:
        """Read until the client has gone, or until so much was read that the application has to take it first."""
        try:
            while self._is_short():
                over = self._ended
                message = await self._receive()
                self._note(message)
                if not self.gone:
                    self._keep(message)
                    self._odd = over
                elif self._handle is not None and not (self.complete or self._asks or self._inside):
                    self._handle.cancel("the client has disconnected")
                self._news.set()
        except Exception as error:  # it is for whoever asks
            self._error = error

    def _keep(self, message: Message) -> None:
        """Keep a part of the body; parts become one, so that a queue of them needs no bound of its own."""
        if self._kept is not None:
            body = self._kept.get("body", b"")
            if not isinstance(body, bytearray):
                body = bytearray(body)
            body += message.get("body", b"")
            message = {**message, "body": body}
        self._kept = message

    def _stopped(self, watcher: asyncio.Task[None]) -> None:
        self._watcher = None
        if not watcher.cancelled():
            self._watch_on()  # the application may have taken what was too much
        self._news.set()
