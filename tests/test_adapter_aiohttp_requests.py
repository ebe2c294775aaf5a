"""Requests of aiohttp's server in a pool: over real connections, with aiohttp's own client.

Over 400 lines: an adapter has one file of tests, as it is one file.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("aiohttp")

import aiohttp
from aiohttp import web

from tests.conftest import Run
from tests.workbench import forever, rounds, until
from threadlets import Concurrency, PerTag, Pool, Threadlet, current_threadlet
from threadlets.adapters import aiohttp_requests as adapter
from threadlets.adapters.aiohttp_requests import (
    Answer,
    BadOption,
    Refusal,
    RequestOptions,
    Rules,
    add_pool,
    pool_context,
    pooled,
    request_options,
    unpooled,
)

WORD: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="unset")


@asynccontextmanager
async def served(app: web.Application, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve an application, and yield a client of it."""
    runner = web.AppRunner(app, access_log=None, **options)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession(f"http://{host}:{port}") as client:
            yield client
    finally:
        await runner.cleanup()


async def asked(client: aiohttp.ClientSession, path: str = "/", method: str = "GET", **options: Any) -> tuple[int, str]:
    """Send a request; return the status and the text of the answer."""
    async with client.request(method, path, **options) as answer:
        return answer.status, await answer.text()


class Desk:
    """An application whose requests wait until they are let go, and what is known of them."""

    def __init__(self, *throttles: Any, capacity: int | None = None, overflow: Any = "reject", **options: Any) -> None:
        self.pool = Pool(*throttles, capacity=capacity, overflow=overflow)
        self.app = web.Application(middlewares=[pooled(self.pool, **options)])
        self.app.router.add_get("/", self.work)
        self.begun: list[str] = []
        self.stopped: list[str] = []
        self.gate = asyncio.Event()

    async def asking(self, client: aiohttp.ClientSession, name: str) -> asyncio.Task[tuple[int, str]]:
        """Send a request that waits, and wait until it is in the pool."""
        count = len(self.pool)
        task = asyncio.create_task(asked(client, f"/?name={name}"))
        await until(lambda: len(self.pool) > count)
        return task

    async def work(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "")
        self.begun.append(name)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.stopped.append(name)
            raise
        return web.Response(text=f"served {name}")


def me() -> Threadlet[Any]:
    """Return the threadlet of the request."""
    handle = current_threadlet()
    assert handle is not None
    return handle


def application(pool: Pool) -> web.Application:
    """Make an application with a handler of each kind."""
    app = web.Application(middlewares=[set_word, pooled(pool, tag_header="x-tenant", routes=ROUTES)])
    inner = web.Application()
    inner.router.add_get("/{id}", show)
    app.add_subapp("/inner", inner)
    app.router.add_get("/", show)
    app.router.add_get("/named", show, name="reports")
    app.router.add_view("/view", View)
    app.router.add_post("/echo", echo)
    app.router.add_get("/missing", missing)
    app.router.add_get("/broken", broken)
    app.router.add_get("/stream", stream)
    app.router.add_get("/socket", talk)
    app.router.add_get("/outside", outside)
    return app


@web.middleware
async def set_word(request: web.Request, handler: Any) -> web.StreamResponse:
    WORD.set("outer")
    return await handler(request)  # type: ignore[no-any-return]


ROUTES = {"reports": RequestOptions(priority=5), "/inner/{id}": RequestOptions(priority=7, tags={"inner"})}


async def show(request: web.Request) -> web.Response:
    await asyncio.sleep(0)
    handle = me()
    assert asyncio.current_task() is not request.task
    return web.Response(text=f"{handle.priority:g} {sorted(handle.tags)} {WORD.get()}")  # type: ignore[type-var]


@request_options(priority=-1, tags={"view"}, deadline=30)
class View(web.View):
    async def get(self) -> web.Response:
        answer = await show(self.request)
        assert me().deadline is not None
        return answer


async def echo(request: web.Request) -> web.Response:
    me()
    return web.Response(body=await request.read())


async def missing(request: web.Request) -> web.Response:
    me()
    raise web.HTTPGone(text="it was here", headers={"x-why": "moved"})


async def broken(request: web.Request) -> web.Response:
    me()
    raise ZeroDivisionError("of the handler's own")


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(3):
        await response.write(b"%d" % number)
        await asyncio.sleep(0)
    return response


async def talk(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(f"{message.data} {sorted(me().tags)}")  # type: ignore[type-var]
    return socket


@unpooled
async def outside(request: web.Request) -> web.Response:
    return web.Response(text=f"{current_threadlet()}")


# ------------------------------------------------------------------------------------------------- what is served


def test_every_kind_of_handler_works_in_a_pool(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Views, sub-applications, bodies, streams, websockets, errors; options from header, route and handler."""

    async def main() -> None:
        pool = Pool(Concurrency(4))
        async with served(application(pool)) as client:
            headers = {"x-tenant": "a"}
            assert await asked(client, headers=headers) == (200, "0 ['tenant:a'] outer")
            assert await asked(client, "/named", headers=headers) == (200, "5 ['tenant:a'] outer")
            assert await asked(client, "/inner/3") == (200, "7 ['inner', 'tenant:?'] outer")
            assert await asked(client, "/view") == (200, "-1 ['tenant:?', 'view'] outer")
            body = bytes(range(256)) * 2000
            async with client.post("/echo", data=body) as answer:
                assert await answer.read() == body
            async with client.get("/missing") as answer:
                assert (answer.status, answer.headers["x-why"], await answer.text()) == (410, "moved", "it was here")
            assert (await asked(client, "/nowhere"))[0] == 404
            assert await asked(client, "/stream") == (200, "012")
            assert await asked(client, "/outside") == (200, "None")
            async with client.ws_connect("/socket", headers=headers) as socket:
                await socket.send_str("hello")
                assert await socket.receive_str() == "hello ['tenant:a']"
            await until(lambda: not len(pool))
            seen = pool.statistics()
            assert (seen.done, seen.failed, seen.cancelled) == (9, 0, 0), "an HTTPException is an answer"
            assert (await asked(client, "/broken"))[0] == 500
            assert pool.statistics().failed == 1
            assert (await asked(client, headers={"x-tenant": "a b"}))[0] == 400

    run(main)
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["of the handler's own"]


def test_many_requests_at_once(run: Run) -> None:
    """As many as may run at a time, and never more; all are served in the end."""

    async def main() -> None:
        desk = Desk(Concurrency(3))
        async with served(desk.app) as client:
            asking = [asyncio.create_task(asked(client)) for _ in range(20)]
            await until(lambda: len(desk.pool) == 20 and len(desk.begun) == 3)
            await rounds()
            assert len(desk.begun) == 3
            desk.gate.set()
            assert await asyncio.gather(*asking) == [(200, "served ")] * 20

    run(main)


# ------------------------------------------------------------------------------------------------- what is refused


def test_what_is_too_much_is_answered_with_503(run: Run) -> None:
    """A full pool rejects, or sheds the least urgent request; the client is told when to come back."""

    async def main() -> None:
        for overflow in ("reject", "shed"):
            desk = Desk(
                Concurrency(1),
                capacity=2,
                overflow=overflow,
                options=lambda request: RequestOptions(priority=float(request.query.get("priority", 0))),
            )
            async with served(desk.app) as client:
                first = asyncio.create_task(asked(client, "/?name=first"))
                await until(lambda desk=desk: desk.begun)
                second = asyncio.create_task(asked(client, "/?name=second&priority=5"))
                await until(lambda desk=desk: len(desk.pool) == 2)
                third = asyncio.create_task(asked(client, "/?name=third&priority=1"))
                refused = third if overflow == "reject" else second
                assert await refused == (503, "Service Unavailable: there is too much to do\n")
                async with client.get("/?priority=9") as answer:
                    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                desk.gate.set()
                assert await first == (200, "served first")
                assert (await (second if overflow == "reject" else third))[0] == 200

    run(main)


def test_deadlines(once: Run) -> None:
    """Of all deadlines the shortest counts; a request that is late is answered with 503, queued or not."""

    async def main() -> None:
        rules = Rules(deadline=60, deadline_header="x-timeout")
        desk = Desk(Concurrency(1), options=rules, routes={"/": RequestOptions(deadline=30)})
        async with served(desk.app) as client:
            running = asyncio.create_task(asked(client, "/?name=running"))
            await until(lambda: desk.begun)
            assert all(29 < (handle.deadline or 0) <= 30 for handle in desk.pool)
            late = await asked(client, "/?name=queued", headers={"x-timeout": "0.01"})
            assert late == (503, "Service Unavailable: there was no time left\n")
            next(iter(desk.pool)).deadline = 0.01
            assert (await running)[0] == 503
            assert (desk.begun, desk.stopped) == (["running"], ["running"])
            assert (await asked(client, headers={"x-timeout": "soon"}))[0] == 400

    once(main)


def test_who_is_stopped_is_told(once: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Before the response has begun with 503; after it, since nothing else is left, by an end in the middle."""

    async def main() -> None:
        pool = Pool()
        begun: asyncio.Queue[str] = asyncio.Queue()

        async def handler(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            if "prepare" in request.query:
                await response.prepare(request)
            if "write" in request.query:
                await response.write(b"some")
            begun.put_nowait("")
            await forever()
            return response

        app = web.Application(middlewares=[pooled(pool)])
        app.router.add_get("/", handler)
        async with served(app) as client:
            for query in ("", "?prepare", "?prepare&write"):
                asking = asyncio.create_task(asked(client, "/" + query))
                await begun.get()
                assert pool.cancel("the operator wants it so") == 1
                if query:
                    with pytest.raises(aiohttp.ClientError):
                        await asking
                else:
                    assert await asking == (503, "Service Unavailable: the request was stopped\n")

    once(main)
    told = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert len(told) == 2
    assert all("was stopped after its response had begun: the operator wants it so" in words for words in told)


def test_errors_of_the_handlers_own(once: Run, caplog: pytest.LogCaptureFixture) -> None:
    """What a handler raises is its own, also if it looks like the pool's; and a cancel that nobody asked for."""
    other = Pool(capacity=1)

    async def main() -> None:
        async def full(request: web.Request) -> web.Response:
            waiting = [other.start(asyncio.sleep, 0.001) for _ in range(2)]
            return web.Response(text=f"{waiting}")

        async def cancelled(request: web.Request) -> web.Response:
            raise asyncio.CancelledError

        app = web.Application(middlewares=[pooled(Pool())])
        app.router.add_get("/full", full)
        app.router.add_get("/cancelled", cancelled)
        async with served(app) as client:
            assert (await asked(client, "/full"))[0] == 500
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await asked(client, "/cancelled")
        await other.drain()

    once(main)
    assert "PoolFull" in caplog.text


def test_the_answer_may_be_another(once: Run) -> None:
    """``answer`` says what a client is sent; functions say in which pool, and with which options."""

    async def main() -> None:
        def answer(request: web.Request, refusal: Refusal, answer: Answer) -> Answer:
            return Answer(429, (*answer.headers, ("x-why", refusal)), b"%s no" % request.path.encode())

        def options(request: web.Request) -> RequestOptions | None:
            if "bad" in request.query:
                raise BadOption("it is bad")
            return RequestOptions(priority=int(request.query["n"])) if "n" in request.query else None

        pool = Pool()
        app = web.Application(
            middlewares=[
                pooled(
                    lambda request: None if "free" in request.query else pool,
                    options=options,
                    answer=answer,
                    retry_after=7,
                )
            ]
        )
        app.router.add_get("/", show)
        app.router.add_get("/free", outside)
        async with served(app) as client:
            assert await asked(client, "/?n=3") == (200, "3 [] unset")
            assert await asked(client, "/free?free") == (200, "None")
            assert await asked(client, "/?n=x") == (429, "/ no")
            pool.close()
            async with client.get("/") as refused:
                assert (refused.headers["retry-after"], refused.headers["x-why"]) == ("7", "closed")
            async with client.get("/?bad") as refused:
                assert refused.headers["x-why"] == "bad"

    once(main)


# ------------------------------------------------------------------------------------------------- who goes away


def test_clients_that_go_away(run: Run) -> None:
    """A request that is queued never begins, one that runs is cancelled; the others are served."""

    async def main() -> None:
        desk = Desk(Concurrency(1))
        async with served(desk.app) as client:
            asking = [await desk.asking(client, name) for name in ("running", "queued", "last")]
            for task in asking[:2]:
                task.cancel()
            await until(lambda: desk.begun == ["running", "last"])
            assert desk.stopped == ["running"]
            desk.gate.set()
            assert await asking[2] == (200, "served last")
        seen = desk.pool.statistics()
        assert (seen.cancelled, seen.done) == (2, 1)

    run(main)


@pytest.mark.parametrize(("word", "begun"), [("drop", ["running", "last"]), ("ignore", ["running", "queued", "last"])])
def test_what_has_begun_may_go_on(once: Run, word: Any, begun: list[str]) -> None:
    """``on_disconnect`` says whether requests whose clients have gone go on, and whether they begin."""

    async def main() -> None:
        desk = Desk(Concurrency(1), on_disconnect=word)
        async with served(desk.app) as client:
            asking = [await desk.asking(client, name) for name in ("running", "queued", "last")]
            for task in asking[:2]:
                task.cancel()
            await asyncio.wait(asking[:2])
            if word == "drop":
                await until(lambda: len(desk.pool) == 2)  # the queued one has gone
            await rounds()
            desk.gate.set()
            assert await asking[2] == (200, "served last")
            assert (desk.begun, desk.stopped) == (begun, [])

    once(main)


def test_a_server_that_cancels_by_itself(once: Run) -> None:
    """With ``handler_cancellation=True`` the threadlets are cancelled at once; nobody has to look."""

    async def main() -> None:
        desk = Desk(Concurrency(1), on_disconnect="ignore")
        async with served(desk.app, handler_cancellation=True) as client:
            asking = [asyncio.create_task(asked(client, f"/?name={name}")) for name in ("a", "b")]
            await until(lambda: len(desk.pool) == 2)
            for task in asking:
                task.cancel()
            await until(lambda: not len(desk.pool))
            assert len(desk.begun) == len(desk.stopped) == 1

    once(main)


def test_a_websocket_is_told_and_not_cancelled(once: Run) -> None:
    """Its handler goes on after its client has gone, as aiohttp has it."""

    async def main() -> None:
        ended: asyncio.Queue[str] = asyncio.Queue()

        async def handler(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for _ in socket:
                pass
            await asyncio.sleep(2.5 * adapter.LOOK)
            ended.put_nowait("by itself")
            return socket

        pool = Pool()
        app = web.Application(middlewares=[pooled(pool)])
        app.router.add_get("/", handler)
        async with served(app) as client:
            socket = await client.ws_connect("/")
            await socket.send_str("hello")
            socket._response.close()  # without a word
            assert await ended.get() == "by itself"

    once(main)


# ------------------------------------------------------------------------------------------------- the end


def test_shutting_down(run: Run) -> None:
    """What is queued is answered at once, what runs may finish, what does not is cancelled; then nothing is left."""

    async def main() -> None:
        for drain in (20.0, 0.0):
            desk = Desk(Concurrency(1))
            add_pool(desk.app, desk.pool, drain=drain)
            async with served(desk.app) as client:
                asking = [asyncio.create_task(asked(client, f"/?name={name}")) for name in ("runs", "waits")]
                await until(lambda desk=desk: len(desk.pool) == 2)
                closing = asyncio.create_task(desk.app.shutdown())
                stopped = "Service Unavailable: the request was stopped\n"
                if drain:
                    assert await (asking[1] if "runs" in desk.begun else asking[0]) == (503, stopped)
                    assert (await asked(client))[1] == "Service Unavailable: the server shuts down\n"
                    desk.gate.set()
                await closing
                answers = sorted(await asyncio.gather(*asking))
                first = (200, f"served {desk.begun[0]}") if drain else (503, stopped)
                assert answers == [first, (503, stopped)]

    run(main)


def test_a_context_closes_its_pools(once: Run) -> None:
    """``pool_context`` is for what is no request: it ends after the handlers have."""

    async def main() -> None:
        pools = Pool(), Pool()
        app = web.Application()
        app.cleanup_ctx.append(pool_context(*pools, drain=20.0))
        async with served(app):
            handles = [pool.start(asyncio.sleep, 0.001, "finished") for pool in pools]
        assert [handle.result() for handle in handles] == ["finished"] * 2
        assert not any(len(pool) for pool in pools)

    once(main)


# ------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"pool": 3}, TypeError, "pool=3"),
        ({"options": 3}, TypeError, "options=3"),
        ({"options": Rules(), "tag_header": "x"}, ValueError, "both"),
        ({"routes": {"/": 3}}, TypeError, "routes has '/'"),
        ({"on_disconnect": "go"}, ValueError, "on_disconnect='go'"),
        ({"retry_after": 1.5}, TypeError, "retry_after=1.5"),
    ],
)
def test_mistakes_are_told_when_the_middleware_is_made(options: dict[str, Any], error: Any, words: str) -> None:
    """What cannot work is refused at once, with the name of what is wrong."""
    with pytest.raises(error, match=words):
        pooled(options.pop("pool", Pool()), **options)


def test_other_mistakes(once: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Something that is no pool is told where it comes from."""
    with pytest.raises(TypeError, match="3 is no threadlets"):
        pool_context(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="deadline='x'"):
        request_options(deadline="x")  # type: ignore[arg-type]

    async def main() -> None:
        app = web.Application(middlewares=[pooled(lambda request: 3)])  # type: ignore[arg-type, return-value]
        async with served(app) as client:
            assert (await asked(client))[0] == 500

    with caplog.at_level(logging.ERROR):
        once(main)
    assert "pool(request) returned 3" in caplog.text


def test_limits_by_tag_are_not_escaped(once: Run) -> None:
    """Who leaves the header out, or claims what nobody knows, shares one place with all the others of that kind."""

    async def main() -> None:
        rules = Rules(tag_header="x-tenant", known={"a"}, bad="share")
        desk = Desk(PerTag("tenant:", Concurrency(1)), options=rules)
        async with served(desk.app) as client:
            headers = [{}, {"x-tenant": "b"}, {"x-tenant": "?"}, {"x-tenant": "a"}]
            asking = [asyncio.create_task(asked(client, headers=each)) for each in headers]
            await until(lambda: len(desk.pool) == 4 and len(desk.begun) == 2)
            await rounds()
            assert len(desk.begun) == 2
            desk.gate.set()
            await asyncio.gather(*asking)

    once(main)


def test_a_missing_library_is_told() -> None:
    """Without aiohttp, importing the adapter says what to install."""
    program = "import sys; sys.modules['aiohttp'] = None; import threadlets.adapters.aiohttp_requests"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: pooled requests of aiohttp need aiohttp: pip install 'threadlets[aiohttp]'"
    )
