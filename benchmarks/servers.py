"""Endpoints written as plain ``def``, of FastAPI and Starlette: stock, and with the adapter to anyio installed.

What they do: compute for about 5 us; read one row of SQLite that is in memory; sleep for 20 ms. The first is there as
``async def``, too, which no thread can be quicker than. All servers are up at the same time, and one at a time is
asked, by 1 and by 64 connections from another process.

A server alone, as the parent runs it: ``python -m benchmarks.servers KIND LOOP``.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .harness import Comparison, Effort, has
from .serving import LOOPS, listening, load, server

__all__ = ["measure"]

CONNECTIONS = (1, 64)
ENDPOINTS = {"5 us": "/quick", "SQLite, hot": "/row", "blocks for 20 ms": "/slow"}
ASYNC = "async def"  # the contender, and what it serves is /async
WAYS = {"ours": ("ours", "plain"), "ours, changes hands": ("ours", "ours"), "stock": ("stock", "plain")}
SLACK = 0.95  # times what stock serves: nothing may be slower by more than 5 %
QUICK_FLOORS = {"stock": 1.9, ASYNC: 0.85}  # FastAPI's endpoint of 5 us


def measure(loop: str, effort: Effort) -> list[Comparison]:
    """Measure all of it for one kind of loop."""
    rounds, seconds = (1, 0.7) if effort.quick else (7, 1.0)
    found: list[Comparison] = []
    if has("uvicorn"):
        found += _compare("FastAPI", loop, rounds, seconds) if has("fastapi") else []
        found += _compare("Starlette", loop, rounds, seconds) if has("starlette") else []
    return found


def _compare(framework: str, loop: str, rounds: int, seconds: float) -> list[Comparison]:
    samples: dict[tuple[str, int], dict[str, list[float]]] = {
        (name, connections): {way: [] for way in [*WAYS, ASYNC][: 4 if name == "5 us" else 3]}
        for name in ENDPOINTS
        for connections in CONNECTIONS
    }
    with ExitStack() as stack:
        urls = {
            way: stack.enter_context(server(__name__, f"{framework}-{kind}", LOOPS[loop][which]))
            for way, (kind, which) in WAYS.items()
        }
        for _ in range(rounds):
            for (name, connections), lists in samples.items():
                for way, figures in lists.items():
                    url, path = (urls["stock"], "/async") if way == ASYNC else (urls[way], ENDPOINTS[name])
                    figures.append(load(url, path, connections, seconds))
    budget = framework == "FastAPI" and loop == "uvloop"
    return [
        Comparison(
            f"{name}, {connections} connection{'s'[: connections - 1]}",
            "ours",
            lists,
            floors=QUICK_FLOORS if budget and name == "5 us" else {"stock": SLACK},
            against="stock",
            unit="/s",
            note="Plain def endpoints, under uvicorn.",
            table=f"requests/s of {framework}'s def endpoints" + ", beside async def" * (ASYNC in lists),
        )
        for (name, connections), lists in samples.items()
    ]


# ---------------------------------------------------------------------------------------------------- a server, alone

here = threading.local()


def quick() -> dict[str, int]:
    """Compute for about 5 us."""
    return {"sum": sum(range(400))}


def row(database: str) -> dict[str, str]:
    """Read a row, by the thread's own connection."""
    try:
        connection = here.connection
    except AttributeError:
        connection = here.connection = sqlite3.connect(database)
    (word,) = connection.execute("select word from words where number = ?", (500,)).fetchone()
    return {"word": word}


def slow() -> dict[str, str]:
    """Block."""
    time.sleep(0.02)
    return {"slept": "well"}


def make_app(framework: str, database: str) -> Any:
    """Make the application, with ``def`` endpoints, and one that is ``async def``."""

    def of_database() -> dict[str, str]:
        return row(database)

    async def not_plain() -> dict[str, int]:
        return quick()

    if framework == "FastAPI":
        from fastapi import FastAPI

        app = FastAPI()
        app.get("/quick")(quick)
        app.get("/row")(of_database)
        app.get("/slow")(slow)
        app.get("/async")(not_plain)
        return app
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def answer_async(request: Any) -> JSONResponse:
        return JSONResponse(quick())

    def plain(function: Any) -> Any:
        def answer(request: Any) -> JSONResponse:
            return JSONResponse(function())

        return answer

    answers = {"/quick": plain(quick), "/row": plain(of_database), "/slow": plain(slow), "/async": answer_async}
    return Starlette(routes=[Route(path, answer) for path, answer in answers.items()])


def main() -> None:
    """Serve until terminated."""
    import uvicorn

    (framework, _, kind), loop = sys.argv[1].partition("-"), sys.argv[2]
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        database = str(Path(folder, "words"))
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("create table words (number integer primary key, word text)")
            connection.executemany(
                "insert into words values (?, ?)", [(number, f"w{number}") for number in range(1000)]
            )
        if kind == "ours":
            from threadlets.adapters import anyio

            anyio.install()
        listener, url = listening()
        print(url, flush=True)
        app = make_app(framework, database)
        config = uvicorn.Config(app, loop=loop, http="httptools", access_log=False, log_level="warning", lifespan="off")
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
