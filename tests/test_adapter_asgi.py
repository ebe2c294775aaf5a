"""The middleware for ASGI applications, against the protocol itself: what is pooled, refused, told, closed."""

from __future__ import annotations

import asyncio
import traceback
from asyncio import CancelledError
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from tests.conftest import Run
from tests.wires import GET, START, App, Wire, answer
from tests.workbench import forever, rounds, until
from threadlets import Concurrency, Pool, current_threadlet
from threadlets.adapters.asgi import (
    Answer,
    BadOption,
    Interrupted,
    PoolMiddleware,
    Refusal,
    RequestOptions,
    Rules,
    lifespan,
)
from threadlets.errors import DeadlineExceeded, PoolFull, Shed

# ------------------------------------------------------------------------------------------------- the road


def test_a_request_is_a_threadlet(run: Run) -> None:
    """It has the options that were asked for, ends in place if it can, and waits its turn if it must."""

    async def main() -> None:
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            handle = current_threadlet()
            assert handle is not None
            seen.append((handle.priority, set(handle.tags)))
            await answer(scope, receive, send)

        pool = Pool(Concurrency(1))
        served = PoolMiddleware(app, pool, options=Rules(tag_header="x-tenant", priorities={"/slow": 5}))
        wire = Wire(GET, path="/slow/1", x_tenant="abc")
        await served(wire.scope, wire.receive, wire.send)
        assert seen == [(5, {"tenant:abc"})] and wire.asked == 0 and wire.status == 200

        busy = pool.start(forever)
        wires = [Wire(GET, path=path) for path in ("/slow", "/quick")]
        tasks = [wire.serve(served) for wire in wires]
        await until(lambda: len(pool.select(state="queued")) == 2)
        busy.cancel()
        await asyncio.gather(*tasks)
        assert [priority for priority, _ in seen[1:]] == [0, 5]
        assert len(pool) == 0 and [wire.sent[1]["body"] for wire in wires] == [b"hello"] * 2

    run(main)


def test_what_is_no_request_passes_through(once: Run) -> None:
    """So do websockets, unless they are asked for, and requests for which there is no pool."""

    async def main() -> None:
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append((scope["type"], current_threadlet() is not None))

        pool = Pool()
        for served in (
            PoolMiddleware(app, pool),
            PoolMiddleware(app, pool, websockets=True),
            PoolMiddleware(app, lambda scope: None),
        ):
            for kind in ("http", "websocket", "lifespan"):
                await Wire(kind=kind).serve(served)
        assert [pooled for _, pooled in seen] == [True, False, False, True, True, False, False, False, False]
        await pool.aclose()
        wire = Wire(kind="websocket")
        await wire.serve(PoolMiddleware(app, pool, websockets=True))
        assert [(each["type"], each["code"]) for each in wire.sent] == [("websocket.close", 1013)]
        with pytest.raises(TypeError, match="returned 'pool'"):
            await Wire().serve(PoolMiddleware(app, lambda scope: "pool"))

    once(main)


def test_a_websocket_in_the_pool(run: Run) -> None:
    """It holds its place while it is open, and hears what comes; nobody reads for it."""

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"] * 2})

        pool = Pool(Concurrency(1))
        served = PoolMiddleware(app, pool, websockets=True)
        wire, waits = (Wire({"type": "websocket.connect"}, kind="websocket") for _ in range(2))
        tasks = [wire.serve(served), waits.serve(served)]
        wire.come({"type": "websocket.receive", "text": "ab"})
        await until(lambda: len(wire.sent) == 2)
        assert wire.sent[1]["text"] == "abab" and waits.asked == 0 and len(pool) == 2
        for each in (wire, waits):
            each.come({"type": "websocket.disconnect", "code": 1000})
        await asyncio.gather(*tasks)
        assert not len(pool) and len(waits.sent) == 1

    run(main)


variable = ContextVar("variable", default="unset")


def test_context_and_errors(run: Run) -> None:
    """What was set outside is seen inside. An error comes out as it is, whatever it is, from whichever step."""

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert (variable.get(), scope["state"]) == ("set", {})
            scope["state"]["user"] = "me"
            if scope["later"]:
                await asyncio.sleep(0)
            broken(scope["error"])

        def broken(error: BaseException) -> None:
            raise error

        served = PoolMiddleware(app, Pool(Concurrency(9)))
        variable.set("set")
        for later in (False, True):
            for error in (ValueError("x"), Shed("its own"), DeadlineExceeded(), PoolFull(), CancelledError("its own")):
                wire = Wire(GET)
                wire.scope |= {"error": error, "state": {}, "later": later}
                with pytest.raises(type(error)) as caught:
                    await served(wire.scope, wire.receive, wire.send)
                assert caught.value is error or isinstance(error, CancelledError)
                frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
                assert isinstance(error, CancelledError) or frames[-2:] == ["app", "broken"], frames
                assert not wire.sent and wire.scope["state"] == {"user": "me"}

    run(main)


# ------------------------------------------------------------------------------------------------- refused


def test_what_is_not_served_is_told_to_come_again(run: Run) -> None:
    """A full pool, shedding, a deadline in the queue or at work, a cancel, a closed pool: 503, and when."""

    async def main() -> None:
        app, told = App(), dict[str, str]()

        def note(scope: Any, refusal: Refusal, usual: Answer) -> Answer:
            told[scope["path"]] = refusal
            return usual

        def served(pool: Pool, options: RequestOptions | None = None) -> PoolMiddleware:
            return PoolMiddleware(app, pool, options=options, answer=note, retry_after=7)

        wires = [Wire(GET, path=f"/{number}") for number in range(7)]
        full, shedding = Pool(capacity=1), Pool(Concurrency(1), capacity=2, overflow="shed")
        tasks = [wires[0].serve(served(Pool(), RequestOptions(deadline=0.01)))]
        full.start(forever)
        await wires[1].serve(served(full))
        shedding.start(forever)
        tasks.append(wires[2].serve(served(shedding, RequestOptions(priority=5))))
        await rounds(2)
        await wires[3].serve(served(shedding, RequestOptions(priority=9)))
        tasks.append(wires[4].serve(served(shedding, RequestOptions(priority=1, deadline=0.01))))
        await asyncio.gather(*tasks)
        full.cancel()
        shedding.cancel()
        tasks = [wires[5].serve(served(shedding))]
        await until(lambda: "/5" in app.started)
        await shedding.aclose()
        await asyncio.gather(*tasks)
        await wires[6].serve(served(shedding))
        for wire in wires:
            assert (wire.status, wire.headers[b"retry-after"]) == (503, b"7"), wire.scope
            assert int(wire.headers[b"content-length"]) == len(wire.sent[1]["body"]) > 0 and len(wire.sent) == 2
        assert [told[f"/{n}"] for n in range(7)] == ["late", "full", "shed", "shed", "late", "stopped", "closed"]
        assert app.started == ["/0", "/5"]

    run(main)


def test_an_answer_of_ones_own(once: Run) -> None:
    """What the client is told may be something else; bad options are told as 400, other errors are errors."""

    async def main() -> None:
        def options(scope: Any) -> RequestOptions:
            path = scope["path"]
            if path == "/bad":
                raise BadOption("the path is bad")
            if path == "/bug":
                raise KeyError(path)
            return RequestOptions(priority=float(path[1:]))

        def json(scope: Any, refusal: Refusal, usual: Answer) -> Answer:
            return Answer(usual.status, (("content-type", "application/json"),), f'"{refusal}"'.encode())

        served = PoolMiddleware(answer, Pool(), options=options)
        asked = [Wire(GET, path=path) for path in ("/bad", "/x", "/nan", "/1")]
        for wire in asked:
            await wire.serve(served)
        assert [wire.status for wire in asked] == [400, 400, 400, 200]
        assert asked[0].sent[1]["body"] == b"Bad Request: the path is bad\n"
        assert b"float" not in asked[1].sent[1]["body"] and b"nan" not in asked[2].sent[1]["body"]
        with pytest.raises(KeyError):
            await Wire(GET, path="/bug").serve(served)
        closed = Pool()
        closed.close()
        wire = Wire(GET)
        await wire.serve(PoolMiddleware(answer, closed, answer=json))
        assert (wire.status, wire.sent[1]["body"]) == (503, b'"closed"')

    once(main)


def test_stopped_after_the_response_has_begun(run: Run) -> None:
    """The server is given an exception, so that it ends the connection; background work has no deadline."""

    async def main() -> None:
        finish = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send({"type": "http.response.body", "body": b"1", "more_body": scope["path"] == "/stream"})
            await finish.wait()
            scope["worked"] = True

        pool = Pool(Concurrency(3))
        served = PoolMiddleware(app, pool, options=RequestOptions(deadline=0.01))
        background, wire = Wire(GET, path="/background"), Wire(GET, path="/stream")
        working = background.serve(served)
        with pytest.raises(Interrupted, match="deadline has passed"):
            await wire.serve(served)
        assert len(wire.sent) == 2 and background.asked == 0
        finish.set()
        await working
        assert background.scope["worked"]

        finish.clear()
        task = Wire(GET, path="/stream").serve(PoolMiddleware(app, pool))
        await until(lambda: len(pool))
        pool.cancel("enough")
        with pytest.raises(Interrupted, match="enough"):
            await task

    run(main)


# ------------------------------------------------------------------------------------------------- lifespan


def test_lifespan_of_an_application_that_has_none(once: Run) -> None:
    """The server's questions are answered, and the pool is closed at the end."""

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert scope["type"] == "http"

        pool = Pool()
        wire = Wire({"type": "lifespan.startup"}, kind="lifespan")
        task = wire.serve(PoolMiddleware(app, pool, owns=True))
        await until(lambda: wire.sent)
        running = pool.start(asyncio.sleep, 0.001, "finished")
        wire.come({"type": "lifespan.shutdown"})
        await task
        assert [each["type"] for each in wire.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert running.result() == "finished"

    once(main)


def test_lifespan_of_an_application_that_has_one(once: Run) -> None:
    """Pools are empty before the application is told to shut down; an application that fails to start has failed."""

    async def main() -> None:
        pool = Pool(Concurrency(1))

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            if scope["path"] == "/fails":
                raise ValueError("no database")
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            scope["left"] = len(pool)
            await send({"type": "lifespan.shutdown.complete"})

        with pytest.raises(ValueError, match="no database"):
            await Wire({"type": "lifespan.startup"}, kind="lifespan", path="/fails").serve(
                PoolMiddleware(app, lambda scope: pool, owns=[pool])
            )
        wire = Wire({"type": "lifespan.startup"}, kind="lifespan")
        task = wire.serve(PoolMiddleware(app, pool, owns=True, finish=0))
        await until(lambda: wire.sent)
        running, queued = pool.start(forever), pool.start(forever)
        wire.come({"type": "lifespan.shutdown"})
        await task
        assert wire.scope["left"] == 0 and len(wire.sent) == 2
        assert running.cancelled() and queued.cancelled()

    once(main)


def test_lifespan_of_starlette(once: Run) -> None:
    """``lifespan(pool, around=...)`` closes it before the other lifespan ends, and hands its state on."""

    async def main() -> None:
        pool, order = Pool(), []

        @asynccontextmanager
        async def database(app: Any) -> AsyncIterator[dict[str, str]]:
            yield {"database": app}
            order.append(("database", running.done()))

        async with lifespan(pool, around=database, finish=0)("app") as state:
            running = pool.start(forever)
        assert state == {"database": "app"} and order == [("database", True)]
        async with lifespan(Pool())("app") as state:
            assert state is None

    once(main)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"pool": "pool"}, "pool='pool'"),
    ({"app": 3}, "app=3"),
    ({"options": "x"}, "options='x'"),
    ({"retry_after": 1.5}, "retry_after=1.5"),
    ({"pool": lambda scope: None, "owns": True}, r"owns=\[pool"),
    ({"owns": ["pool"]}, "owns has 'pool'"),
]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_wrong_arguments(options: dict[str, Any], words: str) -> None:
    """They are told when the middleware is made."""
    with pytest.raises(TypeError, match=words):
        PoolMiddleware(**{"app": answer, "pool": Pool(), **options})
