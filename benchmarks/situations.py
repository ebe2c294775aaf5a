"""What asyncio, anyio, trio, aiojobs, concurrent.futures and threadlets do in twelve cancellations, side by side.

``python -m benchmarks.situations`` brings each about with each library, and prints the table of what was seen.
``--write docs/cancellation.md`` puts it into that page, between two markers; ``tests/test_situations.py`` holds it
to what is seen by the Python that runs the test.

Why by running: a table that somebody has written says what he believes, of the versions that he knows. Here the text of
a cell is made from facts (``situations_facts``), in the same way for all, and none is written for a library. A cell is
"-" where the library has no such thing; its side of this says why, in ``absent``.

How: each cell is a process of its own, so that none disturbs another and a thread that never ends may stay. What may
never happen is waited for with patience, and what does happen is waited for no longer than it takes.

Fair: each situation is first as one writes it straight away, in the way that the library's documentation shows. Then
*with* the library's own tool for it, if it has one. What its users can build by themselves - an event that the thread
looks at, a callback that releases the lock - is shown for none of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

from .situations_facts import LONG, PATIENCE, Cells, be_patient
from .situations_signals import observe_signals

__all__ = [
    "BEGIN",
    "END",
    "LIBRARIES",
    "SITUATIONS",
    "is_installed",
    "observe",
    "observe_all",
    "put",
    "table",
    "text_of",
]

LIMIT = 120.0  # seconds; arbitrary: more than any cell may take, with all its patience
AT_A_TIME = 12  # arbitrary: most of them wait
WIDTH = 120  # columns
BEGIN, END = "<!-- situations: begin -->", "<!-- situations: end -->"
ROOT = Path(__file__).resolve().parent.parent

LIBRARIES = {
    "asyncio": ("situations_tasks", "Asyncio"),
    "anyio": ("situations_scopes", "AnyIO"),
    "trio": ("situations_scopes", "Trio"),
    "aiojobs": ("situations_jobs", "AioJobs"),
    "concurrent.futures": ("situations_futures", "ConcurrentFutures"),
    "threadlets": ("situations_threadlets", "Threadlets"),
}
PACKAGES = ("anyio", "trio", "aiojobs", "threadlets")  # what does not come with Python


class Situation(NamedTuple):
    """One line of the table."""

    title: str
    about: str


SITUATIONS = {
    "queued": Situation(
        "its turn has not come",
        "A function for which there is no thread yet is cancelled: the only one of an executor is busy (asyncio, "
        "concurrent.futures), the only place is taken in a limiter (anyio, trio), a scheduler (aiojobs), a pool "
        "(threadlets). Does it run later? Is its argument freed before it would have been its turn?",
    ),
    "suspended": Situation(
        "a coroutine that waits",
        "It is cancelled at an `await`, with a reason. Does its `finally` run? Does its `except` see the reason?",
    ),
    "thread": Situation(
        "a function that blocks",
        "Who waits for a function on a thread is cancelled. Does the wait end, while the function goes on? If so: does "
        "the next one start beside it, where only one may run at a time, by the same limits?",
    ),
    "returned": Situation(
        "a function that has just returned",
        "The same, but the function has returned, and the event loop has not heard of that yet. Is the result lost, an "
        "open file for instance?",
    ),
    "loop": Situation(
        "a long loop on a thread",
        "Does it stop when who waits for it is cancelled? It *goes on*: it has gone round 20 times more.",
    ),
    "recv": Situation(
        "`recv()` on a thread",
        "Nothing arrives, and who waits for that is cancelled. Does his wait end, does the thread leave the call?",
    ),
    "lock": Situation(
        "a thread that waits for a lock",
        "It is a `threading.Lock`, for threadlets a `Lock`, and somebody holds it when the wait is cancelled. Does the "
        "wait end? When its holder has released it, and nobody uses it: is it free?",
    ),
    "section": Situation(
        "two steps under a lock",
        "A coroutine that holds the library's own lock is cancelled where it awaits, between two steps. Is the second "
        "one done? *Told before its end*: who was cancelled has ended before that.",
    ),
    "again": Situation(
        "a second cancel during cleanup",
        "A `finally` awaits something when its coroutine is cancelled once more. Does it come to its end? *Told before "
        "its end*: as above.",
    ),
    "hangs": Situation(
        "cleanup that hangs",
        f"A `finally` awaits what never comes. It *hangs*: it has not ended after {LONG:.0f} seconds. *Cut off*: the "
        "await has raised an error by then; which one is seen by who waits for it, if it is more than the cancel.",
    ),
    "errors": Situation(
        "two errors in cleanup",
        "A coroutine is cancelled, and two callbacks of its `AsyncExitStack` raise errors. Which are raised to "
        "who waits for it?",
    ),
    "signals": Situation(
        "Ctrl-C and SIGTERM",
        "They come while a coroutine waits for a thread that is stuck. Does its `finally` run, before the thread has "
        "ended? Does the program end without the thread, with which exit code? *With the thread*: not within "
        f"{LONG:.0f} seconds, and then when the thread has ended. *Says where*: it has written where the thread is "
        "stuck.",
    ),
}


def side_of(library: str) -> Any:
    """Return what brings the situations about with a library."""
    module, name = LIBRARIES[library]
    return getattr(import_module(f"{__package__}.{module}"), name)()


def text_of(cells: Cells) -> str:
    """Return the text of a cell."""
    if not isinstance(cells, dict):
        return cells.words()
    return "<br>".join((f"with {tool}: " if tool else "") + facts.words() for tool, facts in cells.items())


def be_cell(library: str, key: str) -> None:
    """Bring a situation about in this process, print what was seen, and end."""

    def report(cells: Cells) -> None:
        print(json.dumps(text_of(cells)), flush=True)
        os._exit(0)  # whatever may hang here

    side = side_of(library)
    if key in side.absent:
        print(json.dumps("-"))
    elif key == "signals":
        report(observe_signals(library, side.tool))
    else:
        side.run(getattr(side, key), report)


def observe(library: str, key: str, factor: float = 1.0) -> str:
    """Return the text of a cell, from a process of its own.

    Args:
        library: One of ``LIBRARIES``.
        key: One of ``SITUATIONS``.
        factor: Be so much more patient than usual, for a machine that is busy.

    Raises:
        RuntimeError: If the process failed.
        subprocess.TimeoutExpired: If it did not end.
    """
    command = [sys.executable, "-m", f"{__package__}.situations", "--cell", library, key, "--patience", str(factor)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT * factor, cwd=ROOT, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{library}, {key}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    text: str = json.loads(done.stdout.splitlines()[-1])
    return text


def observe_all(libraries: Iterable[str], executor: ThreadPoolExecutor) -> dict[tuple[str, str], Future[str]]:
    """Begin with all cells of some libraries; by library and situation."""
    slow_first = sorted(SITUATIONS, key=lambda key: key not in ("hangs", "signals"))
    return {(library, key): executor.submit(observe, library, key) for key in slow_first for library in libraries}


def is_installed(library: str) -> bool:
    """Say whether a library can be run here."""
    return find_spec(library) is not None


def versions() -> str:
    """Say what the table was made with."""
    packages = [f"{name} {version(name)}" for name in PACKAGES if is_installed(name)]
    system = platform.system()
    return f"{platform.python_implementation()} {platform.python_version()} on {system}, {', '.join(packages)}"


def table(libraries: list[str], cell: Callable[[str, str], str]) -> str:
    """Return all of it, as Markdown."""
    lines = [["", *libraries], ["---"] * (1 + len(libraries))]
    for number, (key, situation) in enumerate(SITUATIONS.items(), 1):
        lines.append([f"{number}. {situation.title}", *[cell(library, key) for library in libraries]])
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    abouts = [
        fill(f"{number}. *{situation.title}:* {situation.about}", WIDTH, subsequent_indent="   ")
        for number, situation in enumerate(SITUATIONS.values(), 1)
    ]
    seen = fill(f"Seen with {versions()}. *At once* is within {PATIENCE:.0f} second.", WIDTH)
    return "\n".join([rows, "", *abouts, "", seen])


def put(page: str, text: str) -> str:
    r"""Return a page with this between its markers.

    >>> put(f"before {BEGIN} old {END} behind", "new").split("\n\n")
    ['before <!-- situations: begin -->', 'new', '<!-- situations: end --> behind']
    """
    before, rest = page.split(BEGIN)
    _, behind = rest.split(END)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{behind}"


def main() -> int:
    """Do what the command line says."""
    options = _options()
    if options.program:
        library, tool = options.program
        side_of(library).program(tool)
        return 0
    if options.cell:
        be_patient(options.patience)
        be_cell(*options.cell)
        return 0
    libraries = [library for library in LIBRARIES if is_installed(library)]
    missing = [library for library in LIBRARIES if library not in libraries]
    if missing:
        print(f"not installed, and left out: {', '.join(missing)}", file=sys.stderr)
        if options.write:
            print("nothing is written: the page shows them all", file=sys.stderr)
            return 1
    with ThreadPoolExecutor(AT_A_TIME) as executor:
        found = observe_all(libraries, executor)
        text = table(libraries, lambda library, key: found[library, key].result())
    if not options.write:
        print(text)
        return 0
    options.write.write_text(put(options.write.read_text(encoding="utf-8"), text), encoding="utf-8")
    return 0


def _options() -> argparse.Namespace:
    about = "Show what libraries do in twelve cancellations, by running them."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.situations", description=about)
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into a page, between its markers")
    parser.add_argument("--cell", nargs=2, metavar=("LIBRARY", "SITUATION"), help="show one cell")
    parser.add_argument("--patience", type=float, default=1.0, help=argparse.SUPPRESS)
    parser.add_argument("--program", nargs=2, help=argparse.SUPPRESS)  # be what gets a signal
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
