"""Static files for Starlette and FastAPI: its own ``StaticFiles`` and ``FileResponse``, without a thread for each step.

    from threadlets.adapters.starlette import FileResponse, StaticFiles

    app.mount("/static", StaticFiles(directory="static"))

Why: Starlette sends each step to a thread: to resolve the name, to open the file, each read of 64 KiB, to close it.
With files that are in memory, as those of a busy site are, the journeys cost twenty times what the steps do.

How: subclasses. What a response says, and when, is still Starlette's own code: what it computes from a file's type and
status is computed once for each state of a file (``_Templates``), and its methods are there to be overridden. A name is
looked up and the file read as ``threadlets.folders`` does it: in place if it is in memory, elsewhere if not. A file
that fits into one piece is read before the first byte goes out, so that what goes wrong is still an error 500.

What is different, for good:

- What is sent is what was looked up: one descriptor, and the headers are those of its status. A file that is replaced
  meanwhile is sent as it was, one that grows to the length that was announced. If it is cut off, an ``EOFError`` ends
  the connection, where Starlette's answer may look complete, or be someone else's end.
- Nothing outside of the folder is opened, also if a link is put there after the check. FIFOs and devices are not waited
  for, and not found.

Rejected: keeping bodies in memory (the page cache does, for all processes, and knows when they change); one response
object for many requests (middleware and subclasses change its headers).

Assumes of Starlette's private names: ``FileResponse._parse_range_header``, of 0.40 and later; there is nothing
else that can tell which ranges it would send. Needs asyncio: with trio use Starlette's own. Tested with Starlette 1.10,
and answers as that does, also beside an older one (from 0.40): that may answer otherwise to ranges and to links.
"""

from __future__ import annotations

import asyncio
import errno
import mimetypes
import os
import posixpath
from collections.abc import Awaitable, Iterator, Sequence
from secrets import token_hex
from typing import Any

from threadlets.folders import Found, find, open_file

from .installations import check_names

try:
    import anyio.to_thread
    from starlette import responses, staticfiles
    from starlette.datastructures import URL, Headers, MutableHeaders
    from starlette.exceptions import HTTPException
    from starlette.responses import (
        MalformedRangeHeader,
        PlainTextResponse,
        RangeNotSatisfiable,
        RedirectResponse,
        Response,
    )
    from starlette.types import Receive, Scope, Send
except ImportError as error:
    raise ImportError(
        "threadlets.adapters.starlette needs Starlette 0.40 or newer: pip install 'threadlets[starlette]'"
    ) from error

__all__ = ["TESTED", "FileResponse", "StaticFiles"]

TESTED = ("1.10",)  # versions of Starlette
check_names(__name__, "Starlette", TESTED, (responses.FileResponse, "_parse_range_header"))

Range = tuple[int, int]  # first byte, and the one after the last

STATES = 2048  # arbitrary: of files, whose headers are kept; 1 KiB each
CONDITIONS = {b"if-none-match", b"if-modified-since"}
LOOK_UP, IS_NOT_MODIFIED = staticfiles.StaticFiles.lookup_path, staticfiles.StaticFiles.is_not_modified  # if nobody's


class FileResponse(responses.FileResponse):
    """Starlette's ``FileResponse``: the same arguments, headers and bodies.

    Attributes:
        chunk_size: Bytes that are read and sent at a time; each response that is under way has so many in memory.

    Raises:
        RuntimeError: When it is called: there is no such file, or it is not a file.
        EOFError: The same, if the file was cut off since it was looked up.
        OSError: The same, if it cannot be read.

    Thread: loop. Cancel: point.
    """

    chunk_size = 128 * 1024  # measured: benchmarks/static.py; larger ones cost as much processor time per byte

    _found: Found | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":  # a websocket that is denied
            await super().__call__(scope, receive, send)
            return
        try:
            if not await self._answer(scope, receive, send):
                return
        finally:
            found, self._found = self._found, None
            if found is not None:
                found.close()
        if self.background is not None:
            await self.background()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer, and say whether the request has been understood."""
        method = scope["method"].upper()
        wanted = [header for header in scope["headers"] if header[0] == b"range" or header[0] == b"if-range"]
        by_path = "http.response.pathsend" in scope.get("extensions", ())
        if self._found is None and (self.stat_result is None or wanted or not (by_path or method == "HEAD")):
            self._found = await self._open()
        status = self.stat_result if self._found is None else self._meet(self._found.status)
        assert status is not None
        size, code, headers = status.st_size, self.status_code, self.raw_headers
        plan: Sequence[Range | bytes] = [(0, size)]
        if wanted and code == 200 and method in ("GET", "HEAD"):
            try:
                ranges = self._ranges(Headers(raw=wanted), size)
            except MalformedRangeHeader as error:
                await PlainTextResponse(error.content, status_code=400)(scope, receive, send)
                return False
            except RangeNotSatisfiable as error:
                about = {"Content-Range": f"bytes */{error.max_size}"}
                await PlainTextResponse(status_code=416, headers=about)(scope, receive, send)
                return False
            if ranges:
                code, by_path = 206, False
                plan, headers = self._planned(ranges, size)
        start = {"type": "http.response.start", "status": code, "headers": headers}
        if method == "HEAD":
            await send(start)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif by_path:
            await send(start)
            await send({"type": "http.response.pathsend", "path": str(self.path)})
        elif len(plan) == 1 and size <= self.chunk_size:
            ((first, end),) = plan
            body = await self._opened().read(first, end - first)
            await send(start)
            await send({"type": "http.response.body", "body": body, "more_body": False})
        else:
            sending = self._send(start, plan, send)
            spec = scope.get("asgi", {}).get("spec_version", "2.0")
            if tuple(map(int, spec.split("."))) >= (2, 4):  # there, sending fails if nobody listens any more
                await sending
            else:
                await _unless_gone(sending, receive)
        return True

    def _opened(self) -> Found:
        assert self._found is not None
        return self._found

    async def _open(self) -> Found:
        try:
            found = await open_file(self.path)
        except FileNotFoundError:
            raise RuntimeError(f"File at path {self.path} does not exist.") from None
        if not found.is_file:
            raise RuntimeError(f"File at path {self.path} is not a file.")
        return found

    def _meet(self, status: os.stat_result) -> os.stat_result:
        """Let the headers say what is true of the file that is open."""
        before, self.stat_result = self.stat_result, status
        if before is not status:
            if before is not None and _state(before) != _state(status):
                then = responses.FileResponse(self.path, stat_result=before, media_type=self.media_type).headers
                for name in ("content-length", "last-modified", "etag"):
                    if self.headers.get(name) == then[name]:  # not one that somebody else has set
                        del self.headers[name]
            self.set_stat_headers(status)
        return status

    def _ranges(self, asked: Headers, size: int) -> list[Range]:
        """Return which parts of the file are asked for, or nothing: all of it."""
        if "range" not in asked:
            return []
        known = asked.get("if-range")
        if known is not None and (
            known.startswith("W/") or known not in (self.headers["last-modified"], self.headers["etag"])
        ):
            return []
        return self._parse_range_header(asked["range"], size)

    def _planned(self, ranges: list[Range], size: int) -> tuple[Sequence[Range | bytes], list[tuple[bytes, bytes]]]:
        """Return what is sent for ranges, and the headers."""
        headers = MutableHeaders(raw=list(self.raw_headers))
        if len(ranges) == 1:
            ((start, end),) = ranges
            headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
            headers["content-length"] = str(end - start)
            return ranges, headers.raw
        boundary, kind = token_hex(13), headers["content-type"]
        plan: list[Range | bytes] = []
        for start, end in ranges:
            about = f"Content-Type: {kind}\r\nContent-Range: bytes {start}-{end - 1}/{size}\r\n\r\n"
            plan += [f"--{boundary}\r\n{about}".encode("latin-1"), (start, end), b"\r\n"]
        plan.append(f"--{boundary}--".encode("latin-1"))
        headers["content-type"] = f"multipart/byteranges; boundary={boundary}"
        headers["content-length"] = str(
            sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in plan)
        )
        return plan, headers.raw

    async def _send(self, start: dict[str, Any], plan: Sequence[Range | bytes], send: Send) -> None:
        """Send a body piece by piece; the first one is read before the answer begins."""
        waiting: dict[str, Any] | None = None
        for part in self._pieces(plan):
            body = part if isinstance(part, bytes) else await self._opened().read(part[0], part[1] - part[0])
            if waiting is None:
                await send(start)
            else:
                await send(waiting)
            waiting = {"type": "http.response.body", "body": body, "more_body": True}
        assert waiting is not None
        waiting["more_body"] = False
        await send(waiting)

    def _pieces(self, plan: Sequence[Range | bytes]) -> Iterator[Range | bytes]:
        for part in plan:
            if isinstance(part, bytes):
                yield part
            else:
                for start in range(part[0], part[1], self.chunk_size):
                    yield start, min(start + self.chunk_size, part[1])


async def _unless_gone(sending: Awaitable[None], receive: Receive) -> None:
    """Send; stop if the server says that nobody listens any more."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(sending), asyncio.ensure_future(gone())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class StaticFiles(staticfiles.StaticFiles):
    """Starlette's ``StaticFiles``: the same arguments, answers and methods.

    A subclass may override ``get_response``, ``file_response``, ``is_not_modified`` and ``lookup_path``, as there; an
    own ``lookup_path`` is called in a thread.

    Raises:
        starlette.exceptions.HTTPException: When it is called: 401, 404, 405.

    Thread: loop. Cancel: point.
    """

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the answer to a request for a path, relative to the folder."""
        if scope["method"] not in ("GET", "HEAD"):
            return await super().get_response(path, scope)  # raises
        try:
            found = await self._look_up(path)
            if found is not None and found.is_dir and self.html:
                found = await self._look_up(os.path.join(path, "index.html"))
                if found is not None and found.is_file and not scope["path"].endswith("/"):
                    found.close()
                    url = URL(scope=scope)
                    return RedirectResponse(url=url.replace(path=url.path + "/"))
            if found is not None and found.is_file:
                return _given(found, self.file_response(found.path, found.status, scope))
            if self.html:
                found = await self._look_up("404.html")
                if found is not None and found.is_file:
                    return _given(found, _like_template(found.path, found.status, 404))
        except PermissionError:
            raise HTTPException(status_code=401) from None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
        except ValueError:  # no name for the system
            pass
        raise HTTPException(status_code=404)

    def file_response(
        self, full_path: staticfiles.PathLike, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """Return the answer for a file, which may be that it is not modified."""
        response = _like_template(full_path, stat_result, status_code)
        for name, _ in scope["headers"]:
            if name in CONDITIONS:
                break
        else:
            if type(self).is_not_modified is IS_NOT_MODIFIED:
                return response
        if self.is_not_modified(response.headers, Headers(scope=scope)):
            return staticfiles.NotModifiedResponse(response.headers)
        return response

    async def _look_up(self, path: str) -> Found | None:
        if type(self).lookup_path is not LOOK_UP:
            full_path, status = await anyio.to_thread.run_sync(self.lookup_path, path)
            return await open_file(full_path) if status is not None else None
        if path.startswith(("/", "\\")):
            return None
        for folder in self.all_directories:
            found = await find(os.fspath(folder), path, self.follow_symlink)
            if found is not None:
                return found
        return None


def _given(found: Found, response: Response) -> Response:
    """Let a response send what was found, if it is one that sends files."""
    if isinstance(response, FileResponse) and response.path == found.path:
        response._found = found
    else:
        found.close()
    return response


# ----------------------------------------------------------------------------------------- what is said of a file

_templates: dict[tuple[Any, ...], dict[str, Any]] = {}


def _state(status: os.stat_result) -> tuple[int, ...]:
    """Return what is another one if the file has changed."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _like_template(path: staticfiles.PathLike, status: os.stat_result, code: int) -> FileResponse:
    """Return what ``FileResponse(path, code, stat_result=status)`` would; most of it as it was made before."""
    path = os.fspath(path)
    key = (_kind(path), code, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    template = _templates.get(key)
    if template is None:
        if len(_templates) >= STATES:
            _templates.clear()
        made = FileResponse(path, status_code=code, stat_result=status)
        # what is not public is made again when it is needed: the view of the headers
        template = _templates[key] = {name: value for name, value in vars(made).items() if name[0] != "_"}
    response = FileResponse.__new__(FileResponse)
    response.__dict__.update(template, path=path, stat_result=status, raw_headers=template["raw_headers"].copy())
    return response


def _kind(path: str) -> str | None:
    """Return ``mimetypes.guess_type(path)[0]``; for the usual endings from the same tables, without its detours."""
    end = posixpath.splitext(path)[1]
    known = mimetypes.types_map.get(end) if mimetypes.inited and end.islower() and path[:1] == "/" else None
    if known and end not in mimetypes.suffix_map and end not in mimetypes.encodings_map:
        return known
    return mimetypes.guess_type(path)[0]
