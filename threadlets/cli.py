"""The command line: ``python -m threadlets COMMAND``; without a command it says what there is."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from . import topology

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say, those of the program if None; return the exit code.

    Raises:
        SystemExit: With 2, if they are wrong: argparse has said so on stderr; with 0, after ``--help``.
    """
    options = _parser().parse_args(arguments)
    if options.command is None:
        _parser().print_help()
        return 0
    try:
        return int(options.command(options))
    except BrokenPipeError:  # somebody has read as much as they wanted, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain at its end
        return 0


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    parser = argparse.ArgumentParser(
        prog="python -m threadlets",
        description="asyncio functions that run in place until they would block.",
        epilog="How to use the library: its README, and help(threadlets).",
    )
    parser.add_argument("--version", action="version", version=f"threadlets {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    nodes = commands.add_parser(
        "topology", help="draw the nodes of this machine: CPUs, memory, and the disks and network cards that are near"
    )
    nodes.add_argument("--sysfs", type=Path, metavar="FOLDER", help="read another machine's /sys, copied there")
    nodes.set_defaults(command=_draw_topology)
    return parser


def _draw_topology(options: argparse.Namespace) -> int:
    if options.sysfs is None:
        machine = topology.machine()
    elif not options.sysfs.is_dir():
        print(f"python -m threadlets topology: {options.sysfs} is no folder: name a copy of /sys", file=sys.stderr)
        return 2
    else:
        machine = topology.read_machine(options.sysfs)
    print(machine.draw(shutil.get_terminal_size().columns, sys.stdout.encoding), flush=True)
    return 0
