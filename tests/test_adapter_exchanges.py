"""One request between a server and its threadlet: who has gone, who is told, and that no byte is lost."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import Run
from tests.wires import GET, GONE, App, Wire, answer, part
from tests.workbench import forever, rounds, until
from threadlets import Concurrency, Pool
from threadlets.adapters import exchanges
from threadlets.adapters.asgi import PoolMiddleware

# ------------------------------------------------------------------------------------------------- who has gone


def test_a_client_that_goes(run: Run) -> None:
    """Its request never runs if it is queued, and is cancelled if it runs: nobody is answered, no error is told."""

    async def main() -> None:
        app, pool = App(), Pool(Concurrency(1))
        served = PoolMiddleware(app, pool)
        wires = [Wire(GET, path="/runs"), Wire(part(b"a"), part(b"b", False), path="/queued"), Wire(GET, path="/last")]
        tasks = [wire.serve(served) for wire in wires]
        await until(lambda: len(pool) == 3)
        wires[1].come(GONE)
        await tasks[1]
        wires[0].come(GONE)
        await tasks[0]
        app.gate.set()
        await tasks[2]
        assert app.started == ["/runs", "/last"] and app.cancelled == ["the client has disconnected"]
        assert [wire.status for wire in wires] == [499, 499, 200]  # nobody reads the first two

    run(main)


def test_who_asks_is_told(run: Run) -> None:
    """An application that waits for the client to go, or has looked for that, is told and not cancelled."""

    async def main() -> None:
        looked, go = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert await receive() == GET
            if scope["path"] == "/polls":
                try:
                    async with asyncio.timeout(0.001):
                        await receive()
                except TimeoutError:
                    looked.set()
                await go.wait()
            scope["told"] = [await receive(), await receive()]

        served = PoolMiddleware(app, Pool(Concurrency(2)))
        waits, polls = Wire(GET, path="/waits"), Wire(GET, path="/polls")
        tasks = [wire.serve(served) for wire in (waits, polls)]
        await looked.wait()
        for wire in (waits, polls):
            wire.come(GONE)
        await tasks[0]
        go.set()
        await tasks[1]
        assert waits.scope["told"] == polls.scope["told"] == [GONE] * 2

    run(main)


def test_background_work_outlives_its_client(run: Run) -> None:
    """After the response is complete nobody is cancelled who goes on working, whoever goes."""

    async def main() -> None:
        go, worked = asyncio.Event(), []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(0)
            await answer(scope, receive, send)
            await go.wait()
            worked.extend([await receive(), await receive()])

        wire = Wire(GET)
        task = wire.serve(PoolMiddleware(app, Pool(Concurrency(1))))
        await until(lambda: len(wire.sent) == 2)
        wire.come(GONE)
        await rounds()
        go.set()
        await task
        assert worked == [GET, GONE]

    run(main)


def test_a_server_that_cancels(run: Run) -> None:
    """If the server cancels its task, the request's threadlet has stopped before that task has."""

    async def main() -> None:
        pool, stopped = Pool(), []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            try:
                await forever()
            finally:
                await asyncio.sleep(0.001)
                stopped.append(True)

        task = Wire(GET).serve(PoolMiddleware(app, pool))
        await until(lambda: len(pool))
        task.cancel()
        with pytest.raises(CancelledError):
            await task
        assert stopped and not len(pool)

    run(main)


# ------------------------------------------------------------------------------------------------- what is read


@given(
    st.lists(st.binary(max_size=60), min_size=1, max_size=12),
    st.lists(st.sampled_from("rwq"), max_size=24),
    st.integers(0, 12),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_every_byte_once(parts: list[bytes], steps: list[str], early: int, queued: bool) -> None:
    """Whoever reads when, a body arrives whole, in order, once, and then that the client has gone, or nothing."""
    messages = [part(body, more=place < len(parts) - 1) for place, body in enumerate(parts)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more, last = b"", True, False
        while more:
            step = steps.pop(0) if steps else "r"
            if step == "w":
                await asyncio.sleep(0)
            elif step == "q":  # is_disconnected() as Starlette has it: a look that may be cancelled
                reading = asyncio.create_task(receive())
                await asyncio.sleep(0)
                reading.cancel()
                message = (await asyncio.gather(reading, return_exceptions=True))[0]
            if step == "r" or (step == "q" and isinstance(message, dict)):
                message = await receive() if step == "r" else message
                assert message["type"] == "http.request" and not last and type(message["body"]) is bytes
                body, more = body + message["body"], message["more_body"]
                last = not more
        scope["body"] = body

    async def main() -> None:
        pool = Pool(Concurrency(1))
        busy = pool.start(forever) if queued else None
        wire = Wire(*messages[:early])
        task = wire.serve(PoolMiddleware(app, pool))
        await rounds(3)
        kept = sum(map(len, parts[:early]))
        if queued:
            assert wire.asked <= early + 1
        if busy is not None:
            busy.cancel()
        for message in messages[early:]:
            wire.come(message)
            await rounds(1)
        await task
        assert wire.scope["body"] == b"".join(parts), kept

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchanges, "AHEAD", 100)
        patch.setattr(exchanges, "SOON", 0)
        asyncio.run(asyncio.wait_for(main(), 10))


def test_no_more_is_read_ahead_than_there_is_room_for(once: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queued upload waits with the client: some bytes and one message; reading on makes room for more."""
    monkeypatch.setattr(exchanges, "AHEAD", 100)

    async def main() -> None:
        app, pool = App(), Pool(Concurrency(1))
        go = app.gate

        async def upload(scope: Any, receive: Any, send: Any) -> None:
            got = [await receive() for _ in range(3)]
            assert [len(each["body"]) for each in got] == [120, 120, 120]
            await go.wait()

        busy = pool.start(forever)
        wire = Wire(*[part(b"x" * 30) for _ in range(40)])
        task = wire.serve(PoolMiddleware(upload, pool))
        await rounds(20)
        assert wire.asked == 4
        busy.cancel()
        await rounds(20)
        assert wire.asked == 16
        go.set()
        await task

    once(main)


def test_a_client_that_waits_for_100(once: Run) -> None:
    """It is not told to send its body before the application wants it; then it is watched."""

    async def main() -> None:
        app, pool = App(), Pool(Concurrency(1))

        async def upload(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await app(scope, receive, send)

        busy = pool.start(forever)
        wire = Wire(GET, expect="100-continue")
        task = wire.serve(PoolMiddleware(upload, pool))
        await rounds()
        assert wire.asked == 0
        busy.cancel()
        await until(lambda: app.started)
        wire.come(GONE)
        await task
        assert app.cancelled

    once(main)


def test_odd_servers(once: Run) -> None:
    """A receive() that has no end is not read for ever; what it raises is for the application."""

    async def main() -> None:
        async def endless() -> dict[str, Any]:
            return GET

        async def broken() -> dict[str, Any]:
            raise OSError("broken")

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(0.001)
            with pytest.raises(OSError, match="broken"):
                assert await receive() == GET
                raise OSError("broken")
            await answer(scope, receive, send)

        served = PoolMiddleware(app, Pool(Concurrency(1)))
        for receive in (endless, broken):
            wire = Wire()
            await served(wire.scope, receive, wire.send)
            assert wire.status == 200

    once(main)
