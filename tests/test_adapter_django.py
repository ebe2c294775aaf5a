"""A real Django project, served with and without the adapter for asgiref: it says the same, in the same threads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from threadlets import Concurrency, Pool

from .conftest import Run

pytest.importorskip("django")
adapter = pytest.importorskip("threadlets.adapters.asgiref")

SYNC, ASYNC = "with synchronous middleware", "without"
PAGES = ["/plain/?text=first", "/modern/", "/stream/", "/bridge/", "/two/", "/fails/", "/missing/"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The project with its database, and two applications: with synchronous middleware, and without."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.django_project.settings"
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.db import connection
    from django.test.utils import override_settings

    settings.DATABASES["default"]["NAME"] = str(tmp_path_factory.mktemp("site") / "notes.sqlite3")
    django.setup()
    from .django_project.notes import views
    from .django_project.notes.models import Note

    with connection.schema_editor() as editor:
        editor.create_model(Note)
    Note.objects.bulk_create(Note(text=text) for text in ("first", "second", "third"))
    Note.objects.filter(text="first").update(read=1)
    connection.close()
    with_sync = get_asgi_application()
    with override_settings(MIDDLEWARE=settings.ASYNC_MIDDLEWARE):
        without = get_asgi_application()
    apps = {SYNC: with_sync, ASYNC: without}
    yield SimpleNamespace(apps=apps, views=views, expected=asyncio.run(tour(apps)))
    connection.close()


async def ask(app: Any, target: str, gone: asyncio.Event | None = None) -> tuple[int, dict[str, str], bytes]:
    """Send one request, as a server does; with ``gone``, a client that goes away."""
    path, _, query = target.partition("?")
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []}
    waiting = gone or asyncio.Event()
    received = iter([{"type": "http.request"}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        for message in received:
            return message
        await waiting.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if not sent:
        return 0, {}, b""
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent)


async def tour(apps: dict[str, Any]) -> list[Any]:
    """What each page answers."""
    answers = []
    for app in apps.values():
        for status, headers, body in await asyncio.gather(*(ask(app, page) for page in PAGES)):
            stamps = sorted(name for name in headers if name.startswith("X-"))
            answers.append((status, stamps, body if status == 200 else None))
    return answers


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Django logs each error 500, and that is a page here."""
    caplog.set_level("CRITICAL", "django.request")


@pytest.mark.parametrize("mode", ["worker", "home"])
def test_it_says_the_same(run: Run, site: SimpleNamespace, mode: Any) -> None:
    """Every page, several at a time, answers what it does without the adapter."""
    from django.db import connection

    assert [status for status, _, _ in site.expected] == 2 * [200, 200, 200, 200, 200, 500, 404]
    with adapter.install(thread_sensitive=mode):
        assert run(tour, site.apps) == site.expected
    connection.close()  # that of the home thread


def test_a_request_has_one_thread_and_its_own_connection(run: Run, site: SimpleNamespace) -> None:
    """By default requests at the same time are in several threads, which serve others later; and none is left over."""

    async def main() -> None:
        threads = set()
        for _ in range(5):
            bodies = await asyncio.gather(*(ask(site.apps[ASYNC], "/threads/?meet") for _ in range(3)))
            answers = [json.loads(body) for _, _, body in bodies]
            assert len({answer["thread"] for answer in answers}) == 3
            assert len({answer["connection"] for answer in answers}) == 3
            threads |= {answer["thread"] for answer in answers}
        assert threading.get_ident() not in threads and len(threads) < 9

    with adapter.install():
        run(main)


def test_at_home_there_is_one_thread(run: Run, site: SimpleNamespace) -> None:
    """In the other mode all requests are on the thread of the loop."""
    from django.db import connection

    async def main() -> None:
        answers = await asyncio.gather(*(ask(site.apps[ASYNC], "/threads/") for _ in range(5)))
        assert {json.loads(body)["thread"] for _, _, body in answers} == {threading.get_ident()}

    with adapter.install(thread_sensitive="home"):
        run(main)
    connection.close()


@pytest.mark.parametrize("mode", ["worker", "home"])
def test_a_client_that_goes_away(hands: Run, site: SimpleNamespace, mode: Any) -> None:
    """An asynchronous view is cancelled when nobody waits for it, also below synchronous middleware."""

    async def main() -> None:
        for app in site.apps.values():
            gone = asyncio.Event()
            site.views.waits.append(asyncio.Event())
            request = asyncio.create_task(ask(app, "/forever/", gone))
            await site.views.waits[-1].wait()
            gone.set()
            with contextlib.suppress(asyncio.CancelledError):
                await request
            assert site.views.cancelled.pop()

    with adapter.install(thread_sensitive=mode):
        hands(main)
    # asgiref leaves futures behind whose exception nobody has looked at
    assert all(isinstance(report["exception"], asyncio.CancelledError) for report in hands.told())


def test_rules_of_a_pool(once: Run, site: SimpleNamespace) -> None:
    """With a pool, no more synchronous code runs at a time than it allows, and what is nested does not wait for it."""

    async def main() -> None:
        pool = Pool(Concurrency(1))
        with adapter.install(pool):
            assert await tour(site.apps) == site.expected
        assert pool.statistics().done > 10

    once(main)
