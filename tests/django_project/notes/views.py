"""Views of each kind. What they answer is the same wherever their code runs, but for ``threads``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, transaction
from django.db.models import F
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.utils import translation

from .models import Note


def plain(request: Any) -> HttpResponse:
    """A synchronous view, with the database."""
    with transaction.atomic():  # the change first: SQLite refuses one that follows a read while others write
        Note.objects.filter(text=request.GET["text"]).update(read=F("read") + 1)
        note = Note.objects.get(text=request.GET["text"])
    return HttpResponse(note.text)


async def modern(request: Any) -> JsonResponse:
    """An asynchronous view, with the database."""
    made = await Note.objects.acreate(text="new")
    found = await Note.objects.aget(pk=made.pk)
    texts = [note.text async for note in Note.objects.filter(read=0).order_by("pk") if note.text != "new"]
    deleted, _ = await found.adelete()
    return JsonResponse({"texts": texts, "deleted": deleted, "count": await Note.objects.filter(text="new").acount()})


async def stream(request: Any) -> StreamingHttpResponse:
    """An answer in pieces."""

    async def pieces() -> AsyncIterator[str]:
        async for note in Note.objects.exclude(text="new").order_by("pk"):
            yield f"{note.text}\n"

    return StreamingHttpResponse(pieces())


def bridge(request: Any) -> JsonResponse:
    """A synchronous view that awaits, and is called back in its own thread."""

    async def inner() -> int:
        return await sync_to_async(threading.get_ident)()

    with translation.override("de"):
        language = async_to_sync(sync_to_async(translation.get_language))()
    return JsonResponse({"same": async_to_sync(inner)() == threading.get_ident(), "language": language})


meeting = threading.Barrier(3)


def threads(request: Any) -> JsonResponse:
    """Where it runs, and with which connection to the database; three of them may meet there."""
    connection.ensure_connection()
    if "meet" in request.GET:
        meeting.wait(20)
    return JsonResponse({"thread": threading.get_ident(), "connection": id(connection.connection)})


async def two(request: Any) -> JsonResponse:
    """Where two calls of one request run."""
    first = await sync_to_async(threading.get_ident)()
    await asyncio.sleep(0)
    return JsonResponse({"same": first == await sync_to_async(threading.get_ident)()})


def fails(request: Any) -> HttpResponse:
    raise KeyError("no such thing")


waits: list[asyncio.Event] = []
cancelled: list[bool] = []


async def forever(request: Any) -> HttpResponse:
    """Wait until the client has gone."""
    waits[-1].set()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        cancelled.append(True)
        raise
    return HttpResponse()
