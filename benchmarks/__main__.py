"""The command line: ``python -m benchmarks [NAME ...] [--quick] [--json FILE]``; the names are ``BENCHMARKS``.

Each benchmark runs in a fresh process for each kind of loop, so that none finds threads, caches or garbage of another.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import pool
from .harness import LOOPS, Comparison, Effort, environment, has, run_on
from .tables import headline, rows, show, verdicts

BENCHMARKS = (
    "calls",
    "coroutines",
    "workers",
    "memory",
    "pool",
    "takeover",
    "cancel",
    "files",
    "static",
    "servers",
    "offload",
    "nodes",
    "cluster",
)
ONE_LOOP = ("memory", "pool", "cluster")  # what waits is not in the loop; Dask is made for asyncio's


def main() -> int:
    """Measure what was asked for; 1 if a benchmark could not run. A missed budget is no failure: it is shown."""
    options = _options()
    if options.child is not None:
        return _be_child(options)
    around = environment()
    print(headline(around))
    print("Ratios are medians over rounds in which all contenders took turns; times are for orientation.")
    began, found, broken = time.monotonic(), [], 0
    for name in options.names or BENCHMARKS:
        for loop in options.loop or (LOOPS[:1] if name in ONE_LOOP else LOOPS):
            if loop == "uvloop" and not has("uvloop"):
                print(f"\n{name} on uvloop is left out: uvloop is not installed")
                continue
            comparisons = _in_process(name, loop, options.quick)
            if comparisons is None:
                print(f"\n{name} on {loop} could not be measured: see above", file=sys.stderr)
                broken += 1
                continue
            (pool.show if name == "pool" else show)(loop, comparisons)
            if name == "pool" and options.plot is not None:
                pool.plot(options.plot, headline(around), comparisons)
            found.append((name, loop, comparisons))
    met, missed = verdicts([comparison for _, _, comparisons in found for comparison in comparisons])
    print(f"\n{met} budgets met, {missed} missed, in {time.monotonic() - began:.0f} s")
    if options.json is not None:
        _write(options.json, {"environment": around, "quick": options.quick, "comparisons": _document(found)})
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    about = "Measure threadlets beside its alternatives."
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=about)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument(
        "--loop", choices=LOOPS, action="append", help="on this kind of loop alone; memory, pool: asyncio"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there, too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="pool: draw what it has measured, as SVG")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)  # measure here, write the samples to this file
    options = parser.parse_args()
    for name in options.names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark is called {name!r}: choose from {', '.join(BENCHMARKS)}")
    return options


def _in_process(name: str, loop: str, quick: bool) -> list[Comparison] | None:
    """Run one benchmark in a process of its own; None if that failed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "samples.json")
        command = [sys.executable, "-m", __package__, name, "--loop", loop, "--child", str(file)]
        if subprocess.run(command + ["--quick"] * quick, check=False).returncode:
            return None
        return [Comparison(**each) for each in json.loads(file.read_text(encoding="utf-8"))]


def _be_child(options: argparse.Namespace) -> int:
    (name,), (loop,), effort = options.names, options.loop, Effort.of(options.quick)
    _write(options.child, [asdict(comparison) for comparison in _measure(name, loop, effort)])
    return 0


def _measure(name: str, loop: str, effort: Effort) -> list[Comparison]:
    from . import calls, cancel, cluster, coroutines, files, memory, nodes, offload, servers, static, takeover, workers

    by_themselves = {
        "memory": memory.measure,
        "pool": pool.measure,
        "takeover": takeover.measure,
        "files": files.measure,
        "static": static.measure,
        "servers": servers.measure,
    }
    if name in by_themselves:  # these choose their loops themselves
        return by_themselves[name](loop, effort)
    on_loop = {
        "calls": calls.measure,
        "coroutines": coroutines.measure,
        "workers": workers.measure,
        "cancel": cancel.measure,
        "offload": offload.measure,
        "nodes": nodes.measure,
        "cluster": cluster.measure,
    }
    return run_on(loop, on_loop[name](effort))


def _document(found: list[tuple[str, str, list[Comparison]]]) -> list[dict[str, Any]]:
    """Return samples and verdicts, for machines to read."""
    return [
        {
            "benchmark": name,
            "loop": loop,
            **asdict(comparison),
            "ratios": {name: asdict(comparison.ratio(name)) for name in comparison.samples if name != comparison.ours},
            "verdicts": {row.name: row.verdict for row in rows(comparison) if row.verdict},
        }
        for name, loop, comparisons in found
        for comparison in comparisons
    ]


def _write(file: Path, document: Any) -> None:
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
