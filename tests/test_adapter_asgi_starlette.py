"""The middleware for ASGI applications, around and inside of Starlette's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Run
from tests.wires import GONE, Wire, part
from tests.workbench import rounds, until
from threadlets import Pool
from threadlets.adapters.asgi import PoolMiddleware, RequestOptions

pytest.importorskip("starlette")

from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


class Plain(BaseHTTPMiddleware):
    """Starlette's own, which runs what is inside of it in a task group of anyio's."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        answered: Response = await call_next(request)
        return answered


def make_app(pool: Pool, inside: bool, **options: Any) -> Starlette:
    """Make an application with a middleware inside of ours, or around it."""

    async def upload(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    async def wait(request: Request) -> Response:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    app = Starlette(routes=[Route("/", upload, methods=["POST"]), Route("/wait", wait)])
    if inside:
        app.add_middleware(Plain)
    app.add_middleware(PoolMiddleware, pool=pool, **options)
    if not inside:
        app.add_middleware(Plain)
    return app


def scope(wire: Wire, method: str, path: str) -> dict[str, Any]:
    """Complete what a server says of a request."""
    more = {"method": method, "path": path, "query_string": b"", "root_path": "", "scheme": "http", "server": ("a", 80)}
    return {**wire.scope, **more}


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_an_upload_that_is_stopped_is_answered_503(run: Run, how: str) -> None:
    """Also where anyio believes that the cancel was its own, and takes it back: what the handle knows counts."""

    async def main() -> None:
        pool = Pool()
        app = make_app(pool, True, options=RequestOptions(deadline=0.02 if how == "deadline" else None))
        wire = Wire(part(b"half"))
        serving = asyncio.ensure_future(app(scope(wire, "POST", "/"), wire.receive, wire.send))
        await until(lambda: wire.asked > 1)
        if how == "cancel":
            assert pool.select().cancel("enough") == 1
        await serving
        assert (wire.status, wire.headers[b"retry-after"]) == (503, b"1")
        await pool.aclose()

    run(main)


def test_a_client_that_goes_is_no_error_of_what_is_around(run: Run) -> None:
    """A middleware around the pool sees an answer, 499, that nobody reads; not an exception."""

    async def main() -> None:
        pool = Pool()
        app = make_app(pool, False)
        wire = Wire(part(b"", more=False))
        serving = asyncio.ensure_future(app(scope(wire, "GET", "/wait"), wire.receive, wire.send))
        await until(lambda: len(pool) == 1)
        await rounds()
        wire.come(GONE)
        await serving
        assert wire.status == 499
        await pool.aclose()

    run(main)
