"""What the tests of takeovers share: a task that is away, a region that tells what becomes of it, where we are.

No sleep is needed: while a task is blocked in a region, nothing else of its loop runs unless the loop was taken over.
So a line after ``async with Away():`` is reached on another thread, or never.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from contextvars import Context
from pathlib import Path
from typing import Any

from tests.workbench import PATIENCE, Gate
from threadlets import blocking

ROOT = Path(__file__).resolve().parent.parent


class Away:
    """A task that is blocked in a region as long as the block lasts: ``async with Away() as task:``."""

    def __init__(self, context: Context | None = None, gate: Gate | None = None) -> None:
        self.gate = gate or Gate()
        self._context = context

    async def __aenter__(self) -> asyncio.Task[int]:
        self._task = asyncio.create_task(self._block(), context=self._context)
        await asyncio.sleep(0)
        self.gate.wait_arrived()
        return self._task

    async def __aexit__(self, *_: object) -> None:
        self.gate.open()
        await asyncio.wait([self._task])

    async def _block(self) -> int:
        with blocking():
            self.gate()
        return threading.get_ident()


def observe(loop: Any) -> str:
    """Open a region here, wait for what becomes of it, and say so in the words of ``CASES``."""
    before = loop.statistics()
    region = blocking()
    with region:
        if region._token is None:
            return "free"
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            now = loop.statistics()
            if now.takeovers > before.takeovers:
                return "taken"
            if now.stalls != before.stalls:
                return "stalls"
            time.sleep(0.0005)
    return "nothing has happened"


def token_of(loop: Any) -> Any:
    """Return the run token of a loop."""
    return loop._threadlets_token


def at_home() -> bool:
    """Say whether the loop that runs here does so on its own thread."""
    return bool(token_of(asyncio.get_running_loop()).home == threading.get_ident())


def uvloops(hands: Any) -> bool:
    """Say whether the loops of this round of a test are uvloop's."""
    return "uvloop" in hands.factory.__module__


def program(text: str, loop: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end, in which ``EventLoop`` is of this kind."""
    module = "threadlets.adapters.uvloop" if loop == "uvhands" else "threadlets"
    head = f"import asyncio, os, signal, sys, threading, time\nimport threadlets\nfrom {module} import EventLoop\n"
    head += "from threadlets import blocking, call_async\n"
    return subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", head + text],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
