"""How work ends when a program, a loop or a pool does: what may finish, what is cancelled, and who is still there.

The order is always the same: nothing more is let in; what is queued never runs; what runs may finish for some time, if
that was asked for; then it is cancelled, and cleans up. Whoever has not stopped after a while is named on stderr, with
what it is doing, and again after twice as long; a deadline ends the wait, and so does Ctrl-C.

A loop ends its pools when its asynchronous generators are shut down: that is what ``asyncio.run`` and its like do last,
and the one thing that they call for everybody. ``run`` does so earlier, before the runner cancels every task: what a
threadlet of ours is in the middle of is then ended by the rules of ours.

Worker threads are daemons: the interpreter does not wait for them when it exits, whatever they do.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from asyncio import CancelledError
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from functools import partial
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from .cancellation import check_seconds, why
from .loops import EventLoop
from .takeover import SAY_SECONDS
from .tasks import running_loop
from .whereabouts import stack_of, stack_of_task

if TYPE_CHECKING:
    from .handles import Threadlet
    from .homes import Home
    from .pools import Pool

__all__ = ["PATIENCE", "depart", "leave", "run", "tell", "wait_out"]

T = TypeVar("T")

PATIENCE = 300.0  # seconds; borrowed: how long asyncio waits for the threads of its executor
MANY = 10  # arbitrary: so many are named
TERMINATED = 128 + signal.SIGTERM  # what shells say of a program that this signal has ended
DEFAULTS: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


async def depart(
    pools: Callable[[], Collection[Pool]], reason: str, *, finish: float = 0.0, timeout: float = PATIENCE
) -> list[Threadlet[Any]]:
    """Close pools and end what is in them; return who is left after that time.

    Args:
        pools: Returns those that hold work; asked again when they are empty, for what ends may start more elsewhere.
        reason: That of the cancels.
        finish: How many seconds what runs may take to finish by itself.
        timeout: How many more seconds it may then take to stop.

    Thread: loop. Cancel: point; everything is cancelled by then.
    """
    finished = monotonic() + finish
    deadline = finished + timeout
    left: list[Threadlet[Any]] = []
    while not left and (busy := list(pools())):
        for pool in busy:
            pool.close()
            pool.select(state="queued").cancel(reason)
        if monotonic() < finished:
            try:
                left = await wait_out(busy, finished)
            except BaseException:
                for pool in busy:
                    pool.cancel(reason)
                raise
        for pool in busy:
            pool.cancel(reason)
        left = await wait_out(busy, deadline, reason)
    return left


async def wait_out(pools: Collection[Pool], until: float, reason: str | None = None) -> list[Threadlet[Any]]:
    """Wait until pools are empty; return who is left at that time of ``time.monotonic()``.

    Args:
        pools: For whom to wait.
        until: When to give up.
        reason: Why they were told to end: those that take long to do so are named on stderr. None: they were not.

    Thread: loop. Cancel: point.
    """
    began, patience = monotonic(), SAY_SECONDS
    for pool in pools:
        while pool._index:
            now = monotonic()
            if now >= until:
                return [handle for each in pools for handle in each]
            try:
                async with asyncio.timeout(min(until - now, began + patience - now) if reason else until - now):
                    await pool.drain()
            except TimeoutError:
                if reason and monotonic() >= began + patience:
                    patience *= 2
                    left = dict.fromkeys(handle for each in pools for handle in each)
                    tell(f"still waiting for {_count(left)}, after {monotonic() - began:.0f} s ({reason})", left)
    return []


def tell(what: str, left: Collection[Threadlet[Any]], where: str = "") -> None:
    """Say on stderr who is left, and what each is doing; ``where`` is what comes before that. Thread: any."""
    if sys.stderr is None:
        return
    lines = [f"threadlets: {what}:\n", where]
    for handle in list(left)[:MANY]:
        inside = why(handle)
        lines.append(f"  {handle!r}, for {handle.age:.1f} s{', ' + inside if inside else ''}\n")
        lines += ["  " + line.replace("\n  ", "\n    ") for line in stack_of(handle)] or ["    not on any thread\n"]
    if len(left) > MANY:
        lines.append(f"  and {len(left) - MANY} more\n")
    sys.stderr.write("".join(lines))


def leave(left: Collection[Threadlet[Any]]) -> None:
    """Have nobody wait any more for those that are held up on workers. Thread: loop."""
    for handle in left:
        if handle.pool is not None:
            handle.pool._abandon(handle, "left behind")


def _count(left: Collection[Any]) -> str:
    return f"{len(left)} threadlet{'s' * (len(left) != 1)}"


def _busy(loop: asyncio.AbstractEventLoop) -> list[Threadlet[Any]]:
    home: Home | None = getattr(loop, "_threadlets_home", None)
    pools: Any = () if home is None else list(home.busy)
    return list(dict.fromkeys(handle for pool in pools for handle in pool))


async def _depart_from(loop: asyncio.AbstractEventLoop, finish: float, timeout: float) -> None:
    """End what is left of a program whose main task has ended."""
    home: Home | None = getattr(loop, "_threadlets_home", None)
    if home is None:
        return
    home.patience, why = 0.0, ""
    try:
        if await depart(lambda: cast("Any", home.busy), "the program ends", finish=finish, timeout=timeout):
            why = f", which did not stop within {timeout:g} s" if timeout else ""
    finally:
        left = _busy(loop)
        if left:
            tell(f"left behind {_count(left)}{why}", left)
            leave(left)
        else:
            home.patience = timeout


def run(
    main: Coroutine[Any, Any, T],
    *,
    loop: Literal["asyncio", "uvloop"] | Callable[[], asyncio.AbstractEventLoop] = "asyncio",
    debug: bool | None = None,
    finish: float = 0.0,
    timeout: float = PATIENCE,
) -> T:
    """Run a coroutine as ``asyncio.run`` does, on a loop that changes hands; then end all threadlets.

    When ``main`` has ended, what is queued never runs, and what runs is cancelled, or may finish first. Those that take
    over 5 seconds to stop are named on stderr, with what they are doing.

    Ctrl-C, and SIGTERM, cancel ``main``, once; the same again leaves at once. Then ``KeyboardInterrupt`` is raised, or,
    after SIGTERM, ``SystemExit(143)``: what a shell, or a supervisor, knows as "ended by SIGTERM". (In the main thread,
    and where nobody else handles that signal.)

    Args:
        main: What to run.
        loop: ``"asyncio"``: on ``EventLoop``. ``"uvloop"``: on ``threadlets.adapters.uvloop.EventLoop``. Or a factory.
        debug: Whether in asyncio's debug mode; None: as the environment says.
        finish: How many seconds threadlets that run when ``main`` has ended may take to finish; ``inf``: any time.
        timeout: How many more seconds they may take to stop when they are told to, and so ``main`` after a signal; then
            they are left behind.

    Raises:
        ImportError: For ``"uvloop"``, if it is not installed.
        RuntimeError: If an event loop runs in this thread.
        TypeError: If ``main`` is no coroutine, or a time no number.
        ValueError: For another ``loop``, or a time below 0 or NaN.
    """
    if not asyncio.iscoroutine(main):
        raise TypeError(f"run({main!r}): expected a coroutine, as main() is if main is an async function")
    try:
        check_seconds("finish", finish)
        check_seconds("timeout", timeout)
        if running_loop() is not None:
            raise RuntimeError("threadlets.run() is called where an event loop runs already: await the coroutine there")
        with asyncio.Runner(loop_factory=_factory(loop), debug=debug) as runner, _Ending(runner, timeout) as ending:
            try:
                return cast(T, ending.run(main))
            finally:
                ending.run(_depart_from(runner.get_loop(), *((0.0, 0.0) if ending.is_left else (finish, timeout))))
    finally:
        main.close()


class _Ending:
    """Has Ctrl-C and SIGTERM end what a runner runs: cancelled the first time, left at once the second time.

    As ``asyncio.Runner`` does for Ctrl-C; but who does not stop then is named, and left when his time is over.
    """

    def __init__(self, runner: asyncio.Runner, timeout: float) -> None:
        self._runner = runner
        self._timeout = timeout
        self._process = os.getpid()
        self._coroutine: Any = None  # what runs
        self._asked: signal.Signals | None = None  # by which signal it was asked to end
        self._watched: asyncio.TimerHandle | None = None
        self.is_left = False  # nobody waits for anything any more

    def __enter__(self) -> _Ending:
        loop = self._runner.get_loop()  # it is made now; what its factory raises is raised here
        self._handled = []
        if threading.current_thread() is threading.main_thread():
            for number, default in DEFAULTS.items():
                if signal.getsignal(number) is default:
                    # A signal that comes right before the loop waits for descriptors would not be heard before it has
                    # waited. So the loop has a handler, too, which does nothing: to have itself woken by any signal.
                    with suppress(NotImplementedError):  # Windows
                        loop.add_signal_handler(number, int)
                    signal.signal(number, self._hear)
                    self._handled.append(number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._handled:
            if signal.getsignal(number) == self._hear:
                with suppress(NotImplementedError):
                    self._runner.get_loop().remove_signal_handler(number)
                signal.signal(number, DEFAULTS[number])

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run it, until it is told to end."""
        self._coroutine, self._asked = coroutine, None
        try:
            return self._runner.run(coroutine)
        except CancelledError:
            if self._asked is not None:
                raise self._exit() from None
            raise
        finally:
            if self._watched is not None:
                self._watched.cancel()

    def _exit(self) -> BaseException:
        return KeyboardInterrupt() if self._asked is signal.SIGINT else SystemExit(TERMINATED)

    def _hear(self, number: int, frame: object) -> None:
        """Handle a signal. Thread: the main one, anywhere in what it does."""
        if os.getpid() != self._process:  # a forked child has this handler, too, but not the loop
            signal.signal(number, DEFAULTS[signal.Signals(number)])
            signal.raise_signal(number)
        elif self._asked is None:
            self._asked = signal.Signals(number)
            self._runner.get_loop().call_soon_threadsafe(self._cancel)
        else:
            self._asked = signal.Signals(number)
            self.is_left = True
            raise self._exit()

    def _task(self) -> asyncio.Task[Any] | None:
        return next((task for task in asyncio.all_tasks() if task.get_coro() is self._coroutine), None)

    def _cancel(self) -> None:
        task = self._task()
        if task is not None and self._asked is not None:
            task.cancel(self._asked.name)
            self._watch(monotonic(), min(SAY_SECONDS, self._timeout))

    def _watch(self, began: float, patience: float) -> None:
        """Look after a while whether it has ended."""
        self._watched = asyncio.get_running_loop().call_later(patience, self._look, began, patience)

    def _look(self, began: float, patience: float) -> None:
        task, spent = self._task(), monotonic() - began
        if task is None or task.done() or self._asked is None:
            return
        left, where = _busy(task.get_loop()), "".join(stack_of_task(task))
        what = f"{getattr(self._coroutine, '__qualname__', 'the main task')}() and {_count(left)}"
        self.is_left = spent >= self._timeout
        verb = "left behind" if self.is_left else "still waiting for"
        tell(f"{verb} {what}, {spent:.0f} s after {self._asked.name}", left, where)
        if self.is_left:
            raise self._exit()
        self._watch(began, min(2 * patience, max(self._timeout - spent, 0)))


def _factory(loop: Any) -> Callable[[], asyncio.AbstractEventLoop]:
    if loop == "asyncio":
        return EventLoop
    if loop == "uvloop":
        return partial(import_module("threadlets.adapters.uvloop").new_event_loop, main_at_home=False)
    if callable(loop):
        return cast("Callable[[], asyncio.AbstractEventLoop]", loop)
    raise ValueError(f"loop={loop!r}: expected 'asyncio', 'uvloop', or a function that makes a loop")
