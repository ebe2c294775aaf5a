"""Static files for aiohttp: its own ``StaticResource`` and ``FileResponse``, without a thread for each step.

    from threadlets.adapters.aiohttp import FileResponse, add_static

    add_static(app.router, "/static", "static")         # instead of app.router.add_static(...)

Why: aiohttp sends three steps of each request to a thread: to resolve the name, to open the file, to close it; and
where the loop has no ``sendfile``, as uvloop has not, each read too.

How: subclasses. A name is looked up and the file read as ``threadlets.folders`` does it: in place if it is in memory,
elsewhere if not. The answer goes through aiohttp's ``StreamResponse``. What decides between 200, 206, 304, 412 and 416
is written again here, since aiohttp has it in the middle of private functions that change with its versions; the tests
hold it to the same results.

What is different, for good: what is sent is what was looked up, also if the name means something else by then; nothing
outside of the folder is opened, also if a link is put there after the check; a file that is cut off while it is sent
ends the connection with an ``EOFError`` in the log. FIFOs and devices are not waited for.

What is large is sent by the kernel (``sendfile``) where the loop can do that, as aiohttp does, which saves a copy; but
only what is known to be in memory, since ``sendfile`` waits for the disk on the loop's thread.

Assumes of aiohttp's private names, 3.10 and later: ``StreamResponse._compression`` and ``_length_check``, and
``StaticResource._handle``, ``_resolve_path_to_response``, ``_directory``, ``_follow_symlinks`` and ``_chunk_size``.
Tested with aiohttp 3.14, and answers as that does, also beside an older one (from 3.10).
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from threadlets import Contract, threadlet
from threadlets.folders import Found, find, open_file

from .installations import check_names

try:
    from aiohttp import hdrs, web, web_fileresponse, web_urldispatcher
    from aiohttp.abc import AbstractStreamWriter
except ImportError as error:
    raise ImportError("threadlets.adapters.aiohttp needs aiohttp: pip install 'threadlets[aiohttp]'") from error

__all__ = ["TESTED", "FileResponse", "StaticResource", "add_static"]

TESTED = ("3.14",)  # versions of aiohttp
check_names(
    __name__,
    "aiohttp",
    TESTED,
    (web.StreamResponse, "_compression"),
    (web.StreamResponse, "_length_check"),
    (web_urldispatcher.StaticResource, "_handle"),
    (web_urldispatcher.StaticResource, "_resolve_path_to_response"),
)

WINDOW = 1 << 20  # bytes; arbitrary: that are looked for in memory, and sent by the kernel, at a time
CHUNK = 128 * 1024  # bytes; as that of threadlets.adapters.starlette
ENCODINGS = web_fileresponse.ENCODING_EXTENSIONS  # "br" and "gzip", by the end of a name
TYPES = web_fileresponse.CONTENT_TYPES
TYPE_OF: Callable[[str], tuple[str | None, str | None]] = getattr(TYPES, "guess_file_type", TYPES.guess_type)  # 3.13


class FileResponse(web.FileResponse):
    """aiohttp's ``FileResponse``: the same arguments, headers and bodies.

    Raises:
        EOFError: When it is prepared, if the file was cut off since it was looked up.
        OSError: The same, if it cannot be read.

    Thread: loop. Cancel: point.
    """

    _given: tuple[Found | None, str | None] | None = None

    def __init__(self, path: str | os.PathLike[str], chunk_size: int = CHUNK, **options: Any) -> None:
        super().__init__(path, chunk_size, **options)
        self._place = path
        self._piece = chunk_size

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Answer a request."""
        try:
            found, encoding = self._given or await self._look_up(accepted(request))
        except PermissionError:
            return await self._end(request, 403)
        except OSError:
            return await self._end(request, 404)
        self._given = None
        if found is None:
            return await self._end(request, 404)
        try:
            return await self._answer(request, found, encoding)
        finally:
            found.close()

    def give(self, found: Found | None, encoding: str | None) -> None:
        """Let it send this, or say that there is nothing, and not look anything up."""
        self._given = found, encoding

    async def _look_up(self, encodings: list[tuple[str, str]]) -> tuple[Found | None, str | None]:
        path = os.fspath(self._place)
        for end, encoding in encodings:
            try:
                found = await open_file(path + end, follow=False)
            except OSError:
                continue
            if found.is_file:
                return found, encoding
            found.close()
        return await open_file(path), None

    async def _end(self, request: web.BaseRequest, status: int) -> AbstractStreamWriter | None:
        """Answer without a body."""
        self.set_status(status)
        return await web.StreamResponse.prepare(self, request)

    async def _answer(
        self, request: web.BaseRequest, found: Found, encoding: str | None
    ) -> AbstractStreamWriter | None:
        if not found.is_file:
            return await self._end(request, 403)
        status = found.status
        etag = f"{status.st_mtime_ns:x}-{status.st_size:x}"
        code = _precondition(request, etag, status.st_mtime)
        if code == 412:
            self.content_length = 0
            return await self._end(request, 412)
        if code == 304:
            self._length_check = False  # whatever length somebody has set, there is no body
            self.etag = etag
            self.last_modified = status.st_mtime
            return await self._end(request, 304)
        try:
            found.reader()
        except PermissionError:
            return await self._end(request, 403)
        try:
            part = _part(request, status)
        except ValueError:
            self.headers[hdrs.CONTENT_RANGE] = f"bytes */{status.st_size}"
            return await self._end(request, 416)
        start, end = part or (0, status.st_size)
        if hdrs.CONTENT_TYPE not in self.headers:
            self.content_type = TYPE_OF(os.fspath(self._place))[0] or web_fileresponse.FALLBACK_CONTENT_TYPE
        if encoding:
            self.headers[hdrs.CONTENT_ENCODING] = encoding
            self.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
            self._compression = False
        self.etag = etag
        self.last_modified = status.st_mtime
        self.content_length = end - start
        self.headers[hdrs.ACCEPT_RANGES] = "bytes"
        if part is not None:
            self.set_status(206)
            self.headers[hdrs.CONTENT_RANGE] = f"bytes {start}-{end - 1}/{status.st_size}"
        if start == end or request.method == hdrs.METH_HEAD or self.status in (204, 304):
            return await web.StreamResponse.prepare(self, request)
        return await self._send(request, found, start, end)

    async def _send(self, request: web.BaseRequest, found: Found, start: int, end: int) -> AbstractStreamWriter | None:
        """Send a part of the file. If it fits into one piece, that is read before the answer begins."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("Connection lost")  # in the words of aiohttp
        if end - start <= self._piece:
            body = await found.read(start, end - start)
            writer = await web.StreamResponse.prepare(self, request)
            await self.write_eof(body)
            return writer
        writer = await web.StreamResponse.prepare(self, request)
        try:
            if not self.compression and transport.get_extra_info("sslcontext") is None:
                start = await self._send_by_kernel(transport, found, start, end)
            while start < end:
                body = await found.read(start, min(self._piece, end - start))
                await self.write(body)
                start += len(body)
        except EOFError:
            transport.abort()  # so that nobody takes it for the end
            raise
        await self.write_eof()
        return writer

    async def _send_by_kernel(self, transport: asyncio.Transport, found: Found, start: int, end: int) -> int:
        """Let the kernel send what is in memory, and return how far it went."""
        loop = asyncio.get_running_loop()
        with io.FileIO(found.reader(), closefd=False) as file:
            while start < end:
                window = min(WINDOW, end - start)
                if found.is_at_hand(start, window):
                    try:
                        sent = await loop.sendfile(transport, file, start, window, fallback=False)
                    except (NotImplementedError, asyncio.SendfileNotAvailableError):
                        break
                    if sent < window:
                        raise EOFError(f"{found.path} was cut off at {start + sent} bytes while it was sent")
                else:
                    body = await found.read(start, window)
                    await self.write(body)
                start += window
        return start


def accepted(request: web.BaseRequest) -> list[tuple[str, str]]:
    """Return which compressed files would do instead: the ends of their names, and what they are called."""
    asked = request.headers.get(hdrs.ACCEPT_ENCODING, "").lower()
    return [(end, encoding) for end, encoding in ENCODINGS.items() if encoding in asked] if asked else []


def _precondition(request: web.BaseRequest, etag: str, modified: float) -> int:
    """Return what conditions of the request make of it: 412, 304, or 200."""
    headers = request.headers
    match = request.if_match if hdrs.IF_MATCH in headers else None
    if match is not None and not _matches(etag, match, False):
        return 412
    if hdrs.IF_UNMODIFIED_SINCE in headers and match is None:
        since = request.if_unmodified_since
        if since is not None and modified > since.timestamp():
            return 412
    none = request.if_none_match if hdrs.IF_NONE_MATCH in headers else None
    if none is not None and _matches(etag, none, True):
        return 304
    if hdrs.IF_MODIFIED_SINCE in headers and none is None:
        since = request.if_modified_since
        if since is not None and modified <= since.timestamp():
            return 304
    return 200


def _matches(etag: str, etags: tuple[Any, ...], weak: bool) -> bool:
    if len(etags) == 1 and etags[0].value == "*":
        return True
    return any(each.value == etag for each in etags if weak or not each.is_weak)


def _part(request: web.BaseRequest, status: os.stat_result) -> tuple[int, int] | None:
    """Return which bytes are asked for; None: all.

    Raises:
        ValueError: If there are none of these.
    """
    if hdrs.RANGE not in request.headers:
        return None
    known, size = request.if_range, status.st_size
    if known is not None and status.st_mtime > known.timestamp():
        return None
    asked = request.http_range
    start, end = asked.start, asked.stop
    if start is None:
        return None
    if start < 0 and end is None:
        start = max(start + size, 0)
    if start >= size:
        raise ValueError(f"{size} bytes are less than {start}")
    return start, size if end is None else min(end, size)


# ------------------------------------------------------------------------------------------------------------- folders


class StaticResource(web_urldispatcher.StaticResource):
    """aiohttp's ``StaticResource``: the same arguments, answers and methods. Thread: loop. Cancel: point."""

    def __init__(
        self, prefix: str, directory: str | os.PathLike[str], *, chunk_size: int = CHUNK, **options: Any
    ) -> None:
        super().__init__(prefix, directory, chunk_size=chunk_size, **options)
        self._resolve = threadlet(contract=Contract(blocks="always", cancel="abandon"))(self._resolve_path_to_response)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        name, folder = PurePath(request.match_info["filename"]), str(self._directory)
        if name.is_absolute():
            raise web.HTTPNotFound
        found = None
        if not self._follow_symlinks:
            try:
                found = await find(folder, str(name))
            except (OSError, ValueError):
                pass  # the other way says what that is
        if found is None or found.is_dir:
            answer = await self._resolve(self._directory.joinpath(name))
            if not isinstance(answer, web.FileResponse):
                return answer
            if self._follow_symlinks:
                return FileResponse(answer._path, self._chunk_size)
            path, found = str(answer._path), None  # within the folder, and not there
        else:
            path = found.path
        response = FileResponse(path, self._chunk_size)
        response.give(found, None)
        for end, encoding in accepted(request):
            sibling = await find(folder, path.removeprefix(folder).lstrip(os.sep) + end)
            if sibling is not None and sibling.is_file and sibling.path == path + end:  # not a link
                response.give(sibling, encoding)
                break
        return response


def add_static(
    router: web.UrlDispatcher, prefix: str, path: str | os.PathLike[str], **options: Any
) -> web_urldispatcher.AbstractResource:
    """Serve the files of a folder: ``app.router.add_static(prefix, path, **options)``.

    Args:
        router: That of an application, ``app.router``.
        prefix: What their URLs begin with.
        path: The folder.
        options: As there: ``name``, ``expect_handler``, ``chunk_size``, ``show_index``, ``follow_symlinks`` (each
            request then has one journey to a thread) and ``append_version``.

    Returns:
        The resource, whose ``url_for(filename=...)`` makes URLs.

    Raises:
        ValueError: If it is no folder.

    Thread: loop.
    """
    resource = StaticResource(prefix.removesuffix("/"), path, **options)
    router.register_resource(resource)
    return resource
