"""A server's side of the ASGI protocol, moved by hand, and applications to serve: for the tests of middleware."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from typing import Any

GET: dict[str, Any] = {"type": "http.request", "body": b"", "more_body": False}
START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
GONE: dict[str, Any] = {"type": "http.disconnect"}


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    """Return a part of a request's body."""
    return {"type": "http.request", "body": body, "more_body": more}


class Wire:
    """A server's side of one request: what it has received, and what it was given to send."""

    def __init__(self, *messages: dict[str, Any], path: str = "/", kind: str = "http", **headers: str) -> None:
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.scope = {"type": kind, "path": path, "headers": pairs}
        self.sent: list[dict[str, Any]] = []
        self.asked = 0
        self._reading = False
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.come(*messages)

    def come(self, *messages: dict[str, Any]) -> None:
        """Let the client have sent more."""
        for message in messages:
            self._queue.put_nowait(message)

    async def receive(self) -> dict[str, Any]:
        """Be asked by the application: by one reader at a time."""
        assert not self._reading, "two read at once"
        self._reading = True
        self.asked += 1
        try:
            return await self._queue.get()
        finally:
            self._reading = False

    async def send(self, message: dict[str, Any]) -> None:
        """Send what the application sends."""
        self.sent.append(dict(message))

    def serve(self, app: Any) -> asyncio.Task[None]:
        """Have an application serve it."""
        return asyncio.create_task(app(self.scope, self.receive, self.send))

    @property
    def status(self) -> int:
        """The status that was sent."""
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The headers that were sent."""
        return dict(self.sent[0]["headers"])


class App:
    """An application that answers once its gate is open, and notes what becomes of its requests."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.started: list[str] = []
        self.cancelled: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.started.append(scope["path"])
        try:
            await self.gate.wait()
        except CancelledError as error:
            self.cancelled.append(str(error))
            raise
        await answer(scope, receive, send)


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Answer at once."""
    await send(START)
    await send({"type": "http.response.body", "body": b"hello"})
