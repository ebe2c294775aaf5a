"""A full-text index over the files of a folder, in SQLite FTS5: built once, then only read, by any number of threads.

Why passages: a file is stored as passages of about twenty lines. A hit then has a line number, and the excerpt around
it costs microseconds; over whole files SQLite would split every file of the result into words again, on each search.

Invariants: every connection opened for searching is read-only and belongs to one thread; it is closed when that
thread ends.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from folders import Folder, looks_binary

LARGEST = 1024 * 1024  # bytes; arbitrary: larger text files are mostly data
PASSAGE_LINES = 20  # arbitrary: about what a reader takes in at a glance
PASSAGE_CHARACTERS = 2_000  # arbitrary: cuts files that are one long line
HITS = 20  # arbitrary: one page of results
START, END = "\x02", "\x03"  # around the words found, in an excerpt


class NoFullTextSearch(RuntimeError):
    """Raised by `build` when this Python's SQLite has no FTS5."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage that holds all the words: where it is, and an excerpt with the words between `START` and `END`."""

    path: str
    line: int
    excerpt: str


@dataclass(frozen=True, slots=True)
class Built:
    """What `build` did: the files it found with their sizes in bytes, and how many of them hold text to search."""

    files: dict[str, int]
    searchable: int


def build(folder: Folder, database: Path, warn: Callable[[str, str], None], step: Callable[[int, int], None]) -> Built:
    """Write a new index of all text files of a folder.

    Args:
        folder: what to index.
        database: a file that does not exist yet.
        warn: called with a path and a reason for each file that had to be left out.
        step: called after each file with how many are done and how many there are.

    Raises:
        NoFullTextSearch: this Python's SQLite has no FTS5.

    Thread: any. Cancel: none.
    """
    paths = list(folder.files(warn))
    sizes: dict[str, int] = {}
    searchable = 0
    connection = sqlite3.connect(database)
    try:
        try:
            connection.execute("CREATE VIRTUAL TABLE passages USING fts5(body, path UNINDEXED, line UNINDEXED)")
            connection.execute("CREATE VIRTUAL TABLE words USING fts5vocab(passages, row)")
        except sqlite3.OperationalError as error:
            raise NoFullTextSearch(
                f"this Python's SQLite {sqlite3.sqlite_version} has no full-text search ({error}): "
                "use a Python whose sqlite3 was built with FTS5"
            ) from error
        for done, path in enumerate(paths, 1):
            try:
                with open(os.path.join(folder.root, path), "rb") as file:
                    sizes[path] = os.fstat(file.fileno()).st_size
                    body = file.read(LARGEST + 1)
            except OSError as error:
                warn(path, error.strerror or str(error))
            else:
                rows = [(path, path, 1)]  # so that any file is found by its name
                if len(body) <= LARGEST and not looks_binary(body):
                    searchable += 1
                    rows += [(text, path, line) for line, text in passages(body.decode(errors="replace"))]
                connection.executemany("INSERT INTO passages VALUES (?, ?, ?)", rows)
            step(done, len(paths))
        connection.execute("INSERT INTO passages(passages) VALUES ('optimize')")
        connection.commit()
    finally:
        connection.close()
    return Built(sizes, searchable)


def passages(text: str) -> Iterator[tuple[int, str]]:
    r"""Cut a text into passages; yield each with the number of its first line.

    >>> [line for line, _ in passages("a\n" * 50)]
    [1, 21, 41]
    """
    lines: list[str] = []
    characters = 0
    first = 1
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        for start in range(0, len(line), PASSAGE_CHARACTERS):
            piece = line[start : start + PASSAGE_CHARACTERS]
            if lines and (len(lines) >= PASSAGE_LINES or characters + len(piece) > PASSAGE_CHARACTERS):
                yield first, "".join(lines)
                lines, characters = [], 0
            if not lines:
                first = number
            lines.append(piece)
            characters += len(piece)
    if lines:
        yield first, "".join(lines)


class Index:
    """An index that `build` has written, opened for searching.

    Args:
        database: the file that `build` wrote. It must not change while it is open.
    """

    def __init__(self, database: Path) -> None:
        # immutable: SQLite need not lock a file that nobody changes
        self._uri = f"{database.absolute().as_uri()}?mode=ro&immutable=1"
        self._local = threading.local()

    def search(self, words: str) -> list[Hit]:
        """Find the passages that hold all the words, best first.

        Args:
            words: as a person types them; they have no operators, so no input is an error.

        Thread: any. Cancel: none.
        """
        question = " ".join('"' + word.replace('"', '""') + '"' for word in words.replace("\0", " ").split())
        if not question:
            return []
        rows = self._connection().execute(
            "SELECT path, line, snippet(passages, 0, ?, ?, '…', 24) FROM passages WHERE passages MATCH ? "
            "ORDER BY rank LIMIT ?",
            (START, END, question, HITS),
        )
        return [Hit(*row) for row in rows]

    def words(self) -> list[str]:
        """Return the plain words that more than one passage holds, the most frequent first.

        Thread: any. Cancel: none.
        """
        rows = self._connection().execute("SELECT term FROM words WHERE doc > 1 ORDER BY doc DESC, term")
        return [word for (word,) in rows if len(word) > 3 and word.isascii() and word.isalpha()]

    def _connection(self) -> sqlite3.Connection:
        opened: _Opened | None = getattr(self._local, "opened", None)
        if opened is None:
            # check_same_thread is off for the close alone: a thread-local value may be dropped by another thread
            opened = self._local.opened = _Opened(sqlite3.connect(self._uri, uri=True, check_same_thread=False))
        return opened.connection


class _Opened:
    """A connection that is closed with the thread that opened it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()
