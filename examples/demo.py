"""The demo: one server, the same blocking functions, five ways to run them, under load; a table, a plot, three lines.

    python examples/demo.py

Each way is a server process of its own, started anew for each round, and the load comes from another process. Rounds
take turns and begin with another way each time, so that a slow spell of the machine does not hit one way only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import platform
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

try:
    from figures import Result, Round, findings, number
    from folders import FIRST_PIECE
    from indexes import Built, Index
    from load import LAST_ANSWERS, Measured, fetch
    from plots import FORMATS, draw
    from preparations import build_with_progress, fail, open_folder
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
except ModuleNotFoundError as missing:
    sys.exit(f"the package {str(missing.name).partition('.')[0]!r} is missing: pip install 'threadlets[demo]'")

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the server: what it is called, and the `--mode` and `--loop` of `server.py`."""

    name: str
    mode: str
    loop: str = "auto"


VARIANTS = (
    Variant("direct", "direct"),
    Variant("to_thread", "to_thread"),
    Variant("threadlets", "threadlets"),
    Variant("threadlets.run on asyncio", "threadlets", "threadlets:new_event_loop"),
    *(
        [Variant("threadlets.run on uvloop", "threadlets", "threadlets.adapters.uvloop:new_event_loop")]
        if find_spec("uvloop") is not None
        else []
    ),
)
LEGEND = (
    "threadlets.run: an event loop that another thread goes on with while a call blocks; the others: that of {loop}."
)
SUBJECT = VARIANTS[-1].name  # the one that the three lines are about

MIX = {"file": 70, "search": 20, "sometimes": 10}  # percent of the requests
CYCLE = 1000  # requests in one cycle of the plan
START = 20.0  # seconds that a server may take to start
STOP = 5.0  # seconds that a server may take to stop, before it is killed


class Broken(RuntimeError):
    """Raised when a server or the load ended before its time; its text has what that process said."""


def make_plan(built: Built, words: Sequence[str]) -> list[tuple[str, str]]:
    """Choose what is asked for: pairs of group and path, the same for every way and every run over the same folder.

    Args:
        built: the files there are.
        words: words that occur in them, the most frequent first; frequent ones are slower to search for.
    """
    small = sorted(path for path, size in built.files.items() if size <= FIRST_PIECE) or sorted(built.files)[:1]
    targets = {
        "file": ["/files/" + quote(path) for path in spaced(small, 64)],
        "search": ["/api/search?q=" + quote(word) for word in spaced(words, 64)],
        "sometimes": ["/sometimes"],
    }
    plan = [
        (group, targets[group][turn % len(targets[group])])
        for group, percent in MIX.items()
        if targets[group]
        for turn in range(CYCLE * percent // 100)
    ]
    random.Random(2007).shuffle(plan)
    return plan


def spaced(values: Sequence[str], most: int) -> list[str]:
    """Pick at most this many values, evenly spaced.

    >>> spaced("abcdefgh", 4)
    ['a', 'c', 'e', 'g']
    """
    count = min(most, len(values))
    return [values[place * len(values) // count] for place in range(count)]


@contextlib.asynccontextmanager
async def running(*command: str, feed: bool = False) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    """Run a Python program of this folder; yield the process, and the file that gets what it says on standard error.

    However the body ends, the process has ended when this does: asked politely first, then killed.
    """
    with tempfile.TemporaryDirectory(prefix="threadlets-") as place:
        said = Path(place) / "stderr"
        with said.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                stdin=asyncio.subprocess.PIPE if feed else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
            )
        try:
            yield process, said
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP)
            except TimeoutError:
                process.kill()
                await process.wait()


@contextlib.asynccontextmanager
async def serving(variant: Variant, folder: str, database: Path) -> AsyncIterator[str]:
    """Run the server one way; yield its URL when it answers.

    Raises:
        Broken: it did not start, or ended while it was needed.
    """
    command = [str(HERE / "server.py"), folder, "--port", "0", "--index", str(database)]
    async with running(*command, "--mode", variant.mode, "--loop", variant.loop) as (process, said):
        assert process.stdout is not None
        try:
            first = await asyncio.wait_for(process.stdout.readline(), START)
        except TimeoutError:
            raise Broken(f"the server ({variant.name}) did not start within {START:.0f} s\n{tail(said)}") from None
        if not first.startswith(b"http://"):
            code = await process.wait()
            raise Broken(f"the server ({variant.name}) ended with exit code {code} instead of starting\n{tail(said)}")
        try:
            yield first.decode().strip()
        except (Broken, OSError, ValueError) as error:
            raise Broken(f"{variant.name}: {error}\nthe server said:\n{tail(said)}") from error


def tail(said: Path) -> str:
    """Return the last lines that a process wrote to standard error."""
    lines = said.read_text(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-20:]) or "    (it said nothing)"


async def under_load(url: str, plan: Sequence[tuple[str, str]], options: argparse.Namespace) -> Measured:
    """Run the load generator in a process of its own, and return what it measured.

    Raises:
        Broken: it failed.
    """
    numbers = ["--connections", options.connections, "--seconds", options.seconds, "--warm-up", options.warm_up]
    command = [str(HERE / "load.py"), url, "--plan", "--latencies", *map(str, numbers)]
    async with running(*command, feed=True) as (process, said):
        try:
            async with asyncio.timeout(options.seconds + options.warm_up + START + 2 * LAST_ANSWERS):
                written, _ = await process.communicate(json.dumps(plan).encode())
        except TimeoutError:
            raise Broken(f"the load does not come to an end\n{tail(said)}") from None
        if process.returncode:
            raise Broken(f"the load failed\n{tail(said)}")
        return Measured(**json.loads(written))


async def one_round(
    variant: Variant, folder: str, database: Path, plan: Sequence[tuple[str, str]], options: argparse.Namespace
) -> tuple[Round, str]:
    """Start a server one way and put it under load; return what both measured, and which package the loop is from."""
    async with serving(variant, folder, database) as url:
        measured = await under_load(url, plan, options)

        async def statistics(since: float, until: float) -> dict[str, Any]:
            status, body = await fetch(url, f"/statistics?since={since}&until={until}")
            if status != 200:
                raise ValueError(f"status {status} for the statistics")
            return cast(dict[str, Any], json.loads(body))

        learning = await statistics(measured.since - options.warm_up, measured.since)
        found = await statistics(measured.since, measured.until)
    latencies = sorted(micros / 1000 for values in measured.latencies.values() for micros in values)
    return Round(
        per_second=measured.answered / options.seconds,
        latencies=tuple(latencies),
        worst_lag=found["lag"]["worst_ms"],
        learning_lag=learning["lag"]["worst_ms"],
        timeline=tuple(found["lag"]["timeline_ms"]),
        errors=measured.errors,
        first_error=measured.first_error,
    ), found["loop"].partition(".")[0]


async def all_rounds(
    folder: str, database: Path, plan: Sequence[tuple[str, str]], options: argparse.Namespace, console: Console
) -> tuple[list[Result], dict[str, str]]:
    """Run every way in every round; return the results in the order of `VARIANTS`, and whose loop each ran on."""
    with contextlib.suppress(NotImplementedError):  # Windows
        this = cast(asyncio.Task[None], asyncio.current_task())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    rounds: dict[str, list[Round]] = {variant.name: [] for variant in VARIANTS}
    loops: dict[str, str] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=options.rounds * len(VARIANTS))
        for turn in range(options.rounds):
            first = turn % len(VARIANTS)
            for variant in VARIANTS[first:] + VARIANTS[:first]:
                progress.update(bar, description=f"round {turn + 1} of {options.rounds}: {variant.name}")
                found, loops[variant.name] = await one_round(variant, folder, database, plan, options)
                rounds[variant.name].append(found)
                progress.advance(bar)
    return [Result(name, tuple(found)) for name, found in rounds.items()], loops


def table(results: Sequence[Result]) -> Table:
    """Lay out the one table."""
    made = Table("", "requests/s", "p50", "p99", "worst loop lag")
    for column in made.columns[1:]:
        column.justify = "right"
    for result in results:
        times = [result.p50.value, result.p99.value, result.worst_lag.value]
        made.add_row(result.name, number(result.per_second.value), *(f"{number(value)} ms" for value in times))
    return made


def complaints(results: Sequence[Result]) -> list[str]:
    """Say what went wrong under load, if anything did: one line for each way."""
    lines = []
    for result in results:
        if wrong := [found for found in result.rounds if found.errors]:
            lines.append(f"{result.name}: {sum(found.errors for found in wrong)} errors, first: {wrong[0].first_error}")
        if not result.latencies:
            lines.append(f"{result.name}: no request was answered in time; measure for longer with --seconds")
    return lines


def main() -> None:
    """Read the command line, measure, and show."""
    options = read_options()
    console = Console()
    folder = open_folder(options.folder)
    with tempfile.TemporaryDirectory(prefix="threadlets-") as place:
        database = Path(place) / "index.sqlite"
        built = build_with_progress(folder, database)
        plan = make_plan(built, Index(database).words())
        expected = options.rounds * len(VARIANTS) * (options.seconds + options.warm_up + 1)
        console.print(
            f"{folder.root}: {len(built.files)} files, {built.searchable} of them searchable. "
            f"{options.rounds} rounds of {len(VARIANTS)} ways: about {expected:.0f} s.",
            highlight=False,
            soft_wrap=True,
        )
        results, loops = asyncio.run(all_rounds(folder.root, database, plan, options, console))
    plain = loops[VARIANTS[0].name]
    console.print(table(results))
    console.print(LEGEND.format(loop=plain), highlight=False)
    wrong = complaints(results)
    if wrong:
        fail("; ".join(wrong))
    for variant in VARIANTS:
        if ":" in variant.loop and loops[variant.name] != "threadlets":
            console.print(f"{variant.name}: cannot be had here, it ran on the loop of {loops[variant.name]}.")
    for line in findings(results, SUBJECT):
        console.print(line, highlight=False)
    conditions = (
        f"{options.connections} connections asking for files, searches, and a call of which 1 % block for 100 ms. "
        f"uvicorn, Starlette, {plain}, Python {platform.python_version()}, {os.cpu_count()} CPUs"
    )
    try:
        draw(results, "One server, five ways to run its blocking calls", conditions, options.seconds, options.output)
    except OSError as error:
        fail(f"the plot cannot be written to {options.output}: {error.strerror}")
    console.print(f"The plot: {options.output}", highlight=False, soft_wrap=True)


def read_options() -> argparse.Namespace:
    """Read the command line, and refuse now what would fail a minute later."""
    parser = argparse.ArgumentParser(description="Runs one server in several ways under load, and compares them.")
    parser.add_argument("--seconds", type=float, default=4.0, help="measured in each round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each way (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=HERE.parent, help="what is served (default: this repository)")
    parser.add_argument("--output", type=Path, default=Path("demo.svg"), help="the plot (default: %(default)s)")
    options = parser.parse_args()
    if not (0 < options.seconds < math.inf) or options.rounds < 1 or options.connections < 1:
        parser.error("--seconds, --rounds and --connections must be above 0")
    if options.output.suffix not in FORMATS:
        parser.error(f"--output must end in {', '.join(FORMATS)}, not {options.output.name!r}")
    if not options.output.absolute().parent.is_dir():
        parser.error(f"--output: there is no folder {options.output.absolute().parent}")
    if absent := [name for name in ("starlette", "uvicorn", "threadlets") if find_spec(name) is None]:
        fail(f"missing packages: {', '.join(absent)}: pip install 'threadlets[demo]'")
    options.warm_up = min(1.5, max(0.25, options.seconds / 2))
    return options


if __name__ == "__main__":
    try:
        main()
    except Broken as broken:
        fail(str(broken))
    except KeyboardInterrupt:
        sys.exit(130)
    except asyncio.CancelledError:
        sys.exit(143)
