"""Middleware of each kind: asynchronous, synchronous, and one that adapts itself."""

from __future__ import annotations

import threading
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.utils.decorators import async_only_middleware, sync_and_async_middleware


@async_only_middleware
def async_stamp(get_response: Any) -> Any:
    async def middleware(request: Any) -> Any:
        response = await get_response(request)
        response["X-Async"] = "yes"
        return response

    return middleware


class SyncStamp:
    """One as they were before Django knew of asyncio."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: Any) -> Any:
        request.middleware_thread = threading.get_ident()
        response = self.get_response(request)
        response["X-Sync"] = "yes"
        return response


@sync_and_async_middleware
def both(get_response: Any) -> Any:
    if iscoroutinefunction(get_response):

        async def middleware(request: Any) -> Any:
            response = await get_response(request)
            response["X-Both"] = "yes"
            return response

        return middleware

    def plain_middleware(request: Any) -> Any:
        response = get_response(request)
        response["X-Both"] = "yes"
        return response

    return plain_middleware
