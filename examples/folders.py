"""The folder that the example serves: which of its files are shown, and how one is read without ever leaving it.

Why a class of blocking functions: this is the code that most servers already have, written with `os` and no thought of
an event loop. The server calls the same functions in every mode; only the way in which they are run differs.

Invariants: what `find` returns lies inside the folder after every symbolic link is followed; version control and caches
are neither shown nor served; virtual environments are not shown.

Assumes: nobody swaps a folder for a symbolic link between the check and the open. The last part of the path is opened
with O_NOFOLLOW; guarding the others as well takes `openat2`, which is the library's business and not an example's.
"""

from __future__ import annotations

import errno
import mimetypes
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HIDDEN = frozenset(
    ".git .hg .svn .venv venv node_modules __pycache__ "
    ".mypy_cache .pytest_cache .ruff_cache .tox .nox .hypothesis".split()
)
FIRST_PIECE = 64 * 1024  # bytes read together with the open: whole answers for nearly every file of a source tree
OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)  # so that the open of a named pipe does not wait for a writer
    | getattr(os, "O_BINARY", 0)
)

TYPES = mimetypes.MimeTypes()  # its own tables, not the machine's: the same answers everywhere
for _ending, _type in {
    ".md": "text/markdown",
    ".toml": "text/plain",
    ".yml": "text/plain",
    ".yaml": "text/plain",
    ".ini": "text/plain",
    ".cfg": "text/plain",
    ".rst": "text/plain",
    ".py": "text/plain",
    ".pyi": "text/plain",
    ".woff2": "font/woff2",
}.items():
    TYPES.add_type(_type, _ending)


class Outside(PermissionError):
    """Raised by `Folder.find` for a path that leads out of the folder, through `..` or through a symbolic link."""


@dataclass(frozen=True, slots=True)
class Document:
    """One file, opened: its size, its type and its first piece.

    `rest` is the file descriptor from which the other pieces are read, for the caller to close; None if the first piece
    is all there is.
    """

    size: int
    media_type: str
    first: bytes
    rest: int | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing. `size` is in bytes, None for a folder."""

    name: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Listing:
    """The folders and files directly inside one folder; `path` is relative, "" for the top."""

    path: str
    entries: tuple[Entry, ...]


class Folder:
    """A folder on disk, seen as the set of files below it that may be served.

    Args:
        root: an existing folder.

    Raises:
        OSError: there is no such folder, it is not one, or it cannot be opened.
    """

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root, strict=True)
        self._inside = os.path.join(self.root, "")
        with os.scandir(self.root):
            pass

    def find(self, relative: str) -> Document | Listing:
        """Open a file, or list a folder.

        Args:
            relative: a path below the root with "/" between its parts, as it stands in a URL.

        Raises:
            Outside: it leads out of the folder, whether or not anything is there.
            OSError: there is nothing to serve under that name, or it cannot be read.

        Thread: any. Cancel: none.
        """
        path = self._resolve(relative)
        try:
            descriptor = os.open(path, OPEN_FLAGS)
        except IsADirectoryError:  # where a folder cannot be opened as a file
            return self._listing(path)
        keep = False
        try:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                return self._listing(path)
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a file", relative)
            first = os.read(descriptor, min(status.st_size, FIRST_PIECE))
            keep = len(first) < status.st_size
            size = status.st_size
            return Document(size, media_type(path, first), first, descriptor if keep else None)
        finally:
            if not keep:
                os.close(descriptor)

    def files(self, warn: Callable[[str, str], None]) -> Iterator[str]:
        """Yield the relative path of every file that is shown, in a stable order.

        Args:
            warn: called with a relative path and a reason for each thing that had to be left out.

        Thread: any. Cancel: none.
        """

        def failed(error: OSError) -> None:
            warn(os.path.relpath(error.filename or self.root, self.root), error.strerror or str(error))

        for folder, folders, names in os.walk(self.root, onerror=failed):
            folders[:] = sorted(name for name in folders if self._shown(folder, name))
            for name in sorted(names):
                path = os.path.join(folder, name)
                relative = os.path.relpath(path, self.root).replace(os.sep, "/")
                if name in HIDDEN:  # a file of that name, as `.git` is in a worktree
                    continue
                try:
                    relative.encode()
                    self._resolve(relative)
                    regular = stat.S_ISREG(os.stat(path).st_mode)
                except UnicodeEncodeError:
                    warn(relative, "its name is not UTF-8")
                except OSError as error:
                    warn(relative, error.strerror or str(error))
                else:
                    if regular:
                        yield relative

    def _resolve(self, relative: str) -> str:
        """Turn a path from a URL into a real one, with no symbolic link left in it."""
        if "\0" in relative:
            raise FileNotFoundError(errno.ENOENT, "not a path", relative)
        path = os.path.realpath(self._inside + relative)
        if path != self.root and not path.startswith(self._inside):
            raise Outside(errno.EACCES, "leads out of the folder", relative)
        if not HIDDEN.isdisjoint(path[len(self._inside) :].split(os.sep)):
            raise FileNotFoundError(errno.ENOENT, "not served", relative)
        return path

    def _listing(self, path: str) -> Listing:
        entries = []
        with os.scandir(path) as found:
            for entry in found:
                if not self._shown(path, entry.name):
                    continue
                try:
                    status = entry.stat()
                except OSError:
                    continue  # a link to nowhere, or gone since
                if stat.S_ISDIR(status.st_mode):
                    entries.append(Entry(entry.name, None))
                elif stat.S_ISREG(status.st_mode):
                    entries.append(Entry(entry.name, status.st_size))
        entries.sort(key=lambda entry: (entry.size is not None, entry.name.lower(), entry.name))
        relative = "" if path == self.root else os.path.relpath(path, self.root).replace(os.sep, "/")
        return Listing(relative, tuple(entries))

    def _shown(self, folder: str, name: str) -> bool:
        """Whether a name directly inside `folder` appears in listings and is walked into."""
        path = os.path.join(folder, name)
        try:
            name.encode()
            self._resolve(os.path.relpath(path, self.root).replace(os.sep, "/"))
        except (UnicodeEncodeError, OSError):
            return False
        return not os.path.exists(os.path.join(path, "pyvenv.cfg"))


def media_type(path: str, start: bytes) -> str:
    """Say what a file holds, from its name and, where that tells nothing, from its first bytes.

    Thread: any. Cancel: none.
    """
    guess, packed = TYPES.guess_type(path)
    if packed:
        return f"application/{packed}"
    if guess is None:
        return "application/octet-stream" if looks_binary(start) else "text/plain; charset=utf-8"
    return f"{guess}; charset=utf-8" if guess.startswith("text/") else guess


def looks_binary(start: bytes) -> bool:
    """Whether the first bytes of a file are not text: they hold a NUL byte, as git decides it.

    Thread: any. Cancel: none.
    """
    return b"\0" in start[:8000]
