"""A folder as a web site: its files, with ranges and conditions, read in place while they are in memory.

    python examples/static_site.py docs --port 8000

All there is to it is `StaticFiles` from `threadlets.adapters.starlette` instead of Starlette's own, and a list of files
where there is no `index.html`. It listens on 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import signal
import socket
import sys
from pathlib import Path
from urllib.parse import quote

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, Response
    from starlette.routing import Mount, Route

    from threadlets import files
    from threadlets.adapters.starlette import FileResponse, StaticFiles
except ModuleNotFoundError as missing:
    sys.exit(f"the package {str(missing.name).partition('.')[0]!r} is missing: pip install 'threadlets[demo]'")

HOST = "127.0.0.1"
DOCS = Path(__file__).resolve().parent.parent / "docs"
LOOP = "threadlets.adapters.uvloop:new_event_loop"


def make_app(folder: Path) -> Starlette:
    """Make the application."""

    async def home(request: Request) -> Response:
        if await files.is_file(folder / "index.html"):
            return FileResponse(folder / "index.html")
        entries = sorted(await files.scandir(folder), key=lambda entry: entry.name)
        lines = [f'<li><a href="{quote(entry.name)}">{html.escape(entry.name)}</a></li>' for entry in entries]
        return HTMLResponse(f"<!doctype html><title>{html.escape(folder.name)}</title><ul>{''.join(lines)}</ul>")

    return Starlette(routes=[Route("/", home), Mount("/", StaticFiles(directory=folder, html=True))])


def main() -> None:
    """Read the command line and serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serves the files of a folder.")
    parser.add_argument("folder", type=Path, nargs="?", default=DOCS, metavar="FOLDER", help="(default: docs)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one (default: %(default)s)")
    parser.add_argument("--loop", default=LOOP, help="as uvicorn has it (default: %(default)s)")
    options = parser.parse_args()
    folder = options.folder.resolve()
    if not folder.is_dir():
        parser.error(f"there is no folder {options.folder}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, options.port))
        except OSError as error:
            parser.error(f"port {options.port} on {HOST} cannot be used: {error.strerror}")
        listener.listen(1024)
        print(f"http://{HOST}:{listener.getsockname()[1]}/", flush=True)
        config = uvicorn.Config(make_app(folder), loop=options.loop, access_log=False, log_level="warning")
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
