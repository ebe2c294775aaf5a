"""FastAPI and Starlette with anyio's worker threads as threadlets: what their users write as plain functions."""

from __future__ import annotations

import asyncio
import importlib
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from tests.conftest import Run
from threadlets import Concurrency, Contract, Pool, threadlet

fastapi = pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
pytest.importorskip("python_multipart")
adapter = importlib.import_module("threadlets.adapters.anyio")

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, UploadFile  # noqa: E402
from starlette.responses import StreamingResponse  # noqa: E402

who: ContextVar[str] = ContextVar("who", default="nobody")


class Log:
    """What happened, and on which threads."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __call__(self, word: str) -> None:
        self.words.append(word)


def make_app(log: Log) -> FastAPI:
    """Make an application that has one of each."""
    app = FastAPI()

    def connection() -> Iterator[str]:
        log("open")
        try:
            yield "connection"
        except HTTPException:
            log("failed")
            raise
        finally:
            log("close")

    @app.get("/item/{number}")
    def item(number: int, tasks: BackgroundTasks, by: str = Depends(connection)) -> dict[str, object]:
        if number < 0:
            raise HTTPException(404, "no such item")
        tasks.add_task(log, "background")
        return {"number": number, "by": by, "who": who.get()}

    @app.post("/upload")
    def upload(file: UploadFile) -> int:
        return len(file.file.read())

    @app.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(str(number) for number in range(5))

    @app.get("/sleep")
    def sleep() -> bool:
        time.sleep(0.01)
        return True

    @app.get("/away")
    @threadlet(contract=Contract(blocks="always"), tags={"away"})
    def away(number: int) -> list[int]:
        return [number, threading.get_ident()]

    @app.get("/thread")
    def thread() -> int:
        return threading.get_ident()

    return app


def test_what_is_written_as_plain_functions_works(run: Run) -> None:
    """Endpoints, dependencies with cleanup, background tasks, uploads, and generators that are streamed."""
    log = Log()

    async def main() -> None:
        who.set("somebody")
        transport = httpx.ASGITransport(make_app(log))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            for _ in range(10):
                log.words.clear()
                answer = await client.get("/item/3")
                assert answer.json() == {"number": 3, "by": "connection", "who": "somebody"}
                assert sorted(log.words) == ["background", "close", "open"]
                log.words.clear()
                answer = await client.get("/item/-1")
                assert (answer.status_code, log.words) == (404, ["open", "failed", "close"])
            assert (await client.post("/upload", files={"file": b"x" * 3_000_000})).json() == 3_000_000
            assert (await client.get("/stream")).text == "01234"
            assert (await client.get("/item/x")).status_code == 422

    with adapter.install():
        run(main)


def test_blocking_endpoints_go_on_side_by_side(run: Run) -> None:
    """Twenty that block for 10 ms each take less than one after the other, and quick ones come to the loop's thread."""

    async def main() -> None:
        transport = httpx.ASGITransport(make_app(Log()))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            assert (await client.get("/sleep")).json()
            pool = Pool(Concurrency(20))
            with adapter.install(pool):
                answers = await asyncio.gather(*[client.get("/sleep") for _ in range(20)])
            assert [answer.json() for answer in answers] == [True] * 20
            assert pool.statistics().done >= 20  # FastAPI has answers written there, too
            for _ in range(2000):
                if (await client.get("/thread")).json() == threading.get_ident():
                    break
            else:
                raise AssertionError("it never ran in place")

    with adapter.install():
        run(main)


def test_endpoints_may_be_entrypoints(run: Run) -> None:
    """The contract of an endpoint that is decorated with ``@threadlet`` counts, and so do its tags."""

    async def main() -> None:
        transport = httpx.ASGITransport(make_app(Log()))
        pool = Pool()
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            with adapter.install(pool):
                for _ in range(20):
                    number, thread = (await client.get("/away?number=7")).json()
                    assert (number, thread == threading.get_ident()) == (7, False)
        assert "away" in pool.statistics().entrypoints

    with adapter.install():
        run(main)
