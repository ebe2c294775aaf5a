"""A Django site under uvicorn, four ways: as it is, and with its synchronous code as threadlets.

    python examples/django_site.py [--quick]

The site is in this file: a page, and a page that reads from its database (SQLite). Both views are synchronous, as most
of Django is. Under ASGI, Django sends each of their calls to a thread, and makes a thread for each request. With

    threadlets.adapters.asgiref.install()                               # threads are used again
    threadlets.adapters.asgiref.install(thread_sensitive="home")        # all of it in place, on the loop's thread

it does not. The program serves the site in a process of its own, asks for the pages as fast as they come, and prints
how many it got.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
PLAIN, HANDS = "uvloop", "threadlets.adapters.uvloop:new_event_loop"
WAYS = {  # what is installed, and the loop
    "Django as it is": ("", PLAIN),
    "thread_sensitive='worker'": ("worker", PLAIN),
    "thread_sensitive='home'": ("home", PLAIN),
    "'home', loop that changes hands": ("home", HANDS),
}
PAGES = {"a page": "/", "with a query": "/notes/"}
CONNECTIONS = (1, 32)


def make_app(database: str, keep: int | None) -> Any:
    """Make the site; Django wants to be told of everything first.

    Args:
        database: A file.
        keep: How long a connection to it stays open in its thread, in seconds; None: as long as the thread lives.
    """
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="an example",
        ALLOWED_HOSTS=[HOST],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database, "CONN_MAX_AGE": keep}},
    )
    django.setup()
    from django.core.asgi import get_asgi_application
    from django.db import connection, models
    from django.http import HttpResponse
    from django.urls import path

    class Note(models.Model):  # type: ignore[misc]
        text = models.CharField(max_length=100)

        class Meta:
            app_label = "site"

    def home(request: Any) -> Any:
        return HttpResponse("<h1>Notes</h1>")

    def notes(request: Any) -> Any:
        return HttpResponse(Note.objects.get(pk=1).text)

    globals()["urlpatterns"] = [path("", home), path("notes/", notes)]
    with connection.schema_editor() as editor:
        editor.create_model(Note)
    Note.objects.create(text="threads are not free")
    connection.close()
    return get_asgi_application()


def serve(installed: str, loop: str, database: str) -> None:
    """Serve the site until the process is ended; print the port first."""
    import uvicorn

    if installed:
        import threadlets.adapters.asgiref

        threadlets.adapters.asgiref.install(thread_sensitive=installed)  # type: ignore[arg-type]
    app = make_app(database, None if installed else 0)  # 0 is what Django's documentation advises under ASGI
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind((HOST, 0))
        listener.listen(1024)
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(app, loop=loop, lifespan="off", access_log=False, log_level="warning")
        threading.Thread(target=end_with_parent, daemon=True).start()
        uvicorn.Server(config).run(sockets=[listener])


def end_with_parent() -> None:
    """Interrupt this process when the one that has started it closes the pipe, or is gone."""
    import signal

    sys.stdin.read()
    signal.raise_signal(signal.SIGINT)


async def ask_for(port: int, page: str, connections: int, seconds: float) -> float:
    """Ask for a page over some connections for some seconds; return how many answers came in a second."""
    request = f"GET {page} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    count = 0
    end = time.monotonic() + seconds

    async def client() -> None:
        nonlocal count
        reader, writer = await asyncio.open_connection(HOST, port)
        with contextlib.closing(writer):
            while True:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"{page} was answered with {head.decode()}")
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                count += 1
                if time.monotonic() >= end:
                    break

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(client())
    return count / (time.monotonic() - began)


def measure(installed: str, loop: str, seconds: float) -> list[float]:
    """Serve the site in one way; return requests a second for each page and number of connections."""
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, __file__, "--serve", installed, loop, str(Path(folder) / "notes.sqlite3")]
        with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdin is not None
            port = process.stdout.readline()
            if not port:
                sys.exit("the site could not be served")
            rates = []
            for page in PAGES.values():
                for connections in CONNECTIONS:
                    asyncio.run(ask_for(int(port), page, connections, seconds / 5))  # to warm up
                    rates.append(asyncio.run(ask_for(int(port), page, connections, seconds)))
            process.stdin.close()
            if process.wait(20):
                sys.exit(f"the server ended with status {process.returncode}")
            return rates


def main() -> None:
    """Measure each way in turn, and print one table."""
    parser = argparse.ArgumentParser(description="Serves a Django site four ways, and counts the requests.")
    parser.add_argument("--quick", action="store_true", help="shorter, and less exact")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        with contextlib.suppress(KeyboardInterrupt):
            serve(*options.serve)
        return
    try:
        import django
        import uvicorn
        import uvloop
    except ModuleNotFoundError as missing:
        sys.exit(f"the package {missing.name!r} is missing: pip install 'threadlets[demo,django]'")
    print(f"Django {django.__version__}, uvicorn {uvicorn.__version__} on uvloop {uvloop.__version__}: requests/s\n")
    heads = [f"{page}, {connections}" for page in PAGES for connections in CONNECTIONS]
    print(f"{'':32}" + "".join(f"{head:>17}" for head in heads))
    first: list[float] = []
    for way, (installed, loop) in WAYS.items():
        rates = measure(installed, loop, 0.1 if options.quick else 0.25)
        first = first or rates
        cells = (f"{rate:8,.0f}{f'{rate / base:.1f} x':>9}" for rate, base in zip(rates, first, strict=True))
        print(f"{way:32}" + "".join(cells), flush=True)
    print("\nThe numbers behind the pages are connections. A request is five calls of sync_to_async here.")


if __name__ == "__main__":
    main()
