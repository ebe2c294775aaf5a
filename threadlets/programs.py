"""Programs: a coroutine run on a loop that changes hands, from its begin to its end, whatever ends it.

When the main task has ended, the threadlets are ended by their own rules (``departures``), while the plain tasks still
run; these are cancelled then. So nothing is left when asyncio's runner cancels all that there is, and asks nobody.

Signals: Ctrl-C and SIGTERM are heard in the same way. The handler runs in the main thread, between any two operations,
so it only notes the signal and has the loop cancel what runs. The second one of them raises, wherever that is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from asyncio import CancelledError
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from functools import partial
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from .definitions import check_seconds
from .departures import MANY, PATIENCE, busy_on, count_of, depart, leave, tell
from .loops import EventLoop
from .takeover import SAY_SECONDS
from .tasks import running_loop, unlist
from .whereabouts import stack_of_task

if TYPE_CHECKING:
    from .homes import Home

__all__ = ["run"]

T = TypeVar("T")

LAST = 1.0  # seconds; arbitrary: how long tasks may take to end that are not waited for otherwise
TERMINATED = 128 + signal.SIGTERM  # what shells say of a program that this signal has ended
DEFAULTS: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


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

    Ctrl-C, and SIGTERM, cancel ``main``, once; the same again leaves at once. If ``main`` ends by that,
    ``KeyboardInterrupt`` is raised, or, after SIGTERM, ``SystemExit(143)``: what a shell, or a supervisor, knows as
    "ended by SIGTERM". (In the main thread, and where nobody else handles that signal.)

    Args:
        main: What to run.
        loop: ``"asyncio"``: on ``EventLoop``. ``"uvloop"``: on ``threadlets.adapters.uvloop.EventLoop``. Or a factory.
        debug: Whether in asyncio's debug mode; None: as the environment says.
        finish: How many seconds threadlets that run when ``main`` has ended may take to finish; ``inf``: any time.
        timeout: How many more seconds they may take to stop when they are told to, and so ``main`` after a signal, and
            all other tasks; then they are left behind. (What asyncio itself waits for, as the threads of its executor,
            takes its own time.)

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
        runner = asyncio.Runner(loop_factory=_factory(loop), debug=debug)
        with _Ending(runner, timeout) as ending, runner:
            try:
                return cast(T, ending.run(main))
            finally:
                left = ending.is_left
                ending.depart(_depart_from(runner.get_loop(), 0.0 if left else finish, 0.0 if left else timeout))
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
        self._handled: list[signal.Signals] = []
        self._coroutine: Any = None  # what runs; None: nothing of which somebody could be told to end
        self._told: list[Any] = []  # those that were told to end
        self._asked: signal.Signals | None = None  # by which signal we were asked, last
        self._closes = False  # all that was to be run has ended
        self._is_heard = False  # that was passed on to a task, which ends by it as it likes
        self._watched: asyncio.TimerHandle | None = None
        self._alarm: threading.Timer | None = None
        self.is_left = False  # nobody waits for anything any more

    def __enter__(self) -> _Ending:
        loop = self._runner.get_loop()  # it is made now; what its factory raises is raised here
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

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number in self._handled:
            if signal.getsignal(number) in (self._hear, signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, DEFAULTS[number])
        if kind is None and self._asked is not None and not self._is_heard:  # it came when there was nobody to tell
            raise self._exit()

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Run the main task, until it is told to end."""
        self._coroutine = main
        try:
            return self._runner.run(main)
        except CancelledError:
            if main in self._told:
                raise self._exit() from None
            raise
        finally:
            self._coroutine = None
            for timer in (self._watched, self._alarm):
                if timer is not None:
                    timer.cancel()

    def depart(self, departure: Coroutine[Any, Any, None]) -> None:
        """Run what comes after it, until we are told not to wait."""
        self._coroutine = departure
        try:
            if self.is_left:  # asyncio has left a callback behind, which would stop the loop too early
                loop = self._runner.get_loop()
                loop.call_soon(loop.stop)
                loop.run_forever()
            self._runner.run(departure)
        except CancelledError:
            raise self._exit() from None
        finally:
            departure.close()
            self._coroutine, self._closes = None, True

    def _exit(self) -> BaseException:
        return SystemExit(TERMINATED) if self._asked is signal.SIGTERM else KeyboardInterrupt()

    def _hear(self, number: int, frame: object) -> None:
        """Handle a signal. Thread: the main one, anywhere in what it does."""
        if os.getpid() != self._process:  # a forked child has this handler, too, but not the loop
            signal.signal(number, DEFAULTS[signal.Signals(number)])
            signal.raise_signal(number)
            return
        first, self._asked = self._asked is None, signal.Signals(number)
        coroutine, loop = self._coroutine, self._runner.get_loop()
        if (first or coroutine is not None) and coroutine not in self._told and not self._closes:
            self._told.append(coroutine)
            loop.call_soon_threadsafe(self._cancel, coroutine)
        else:
            self.is_left = True
            self._is_heard = True
            raise self._exit()

    def _task(self, coroutine: Any) -> asyncio.Task[Any] | None:
        return next((task for task in asyncio.all_tasks() if task.get_coro() is coroutine), None)

    def _cancel(self, coroutine: Any) -> None:
        """Cancel what runs, and see that it ends in time."""
        task = self._task(coroutine)
        if task is not None and self._asked is not None and task.cancel(self._asked.name):
            self._is_heard = True
            self._watched = task.get_loop().call_later(SAY_SECONDS, self._look, monotonic(), SAY_SECONDS)
            if self._timeout < threading.TIMEOUT_MAX:
                self._alarm = threading.Timer(self._timeout, self._break_in, [coroutine])
                self._alarm.daemon = True
                self._alarm.start()

    def _look(self, began: float, patience: float) -> None:
        """Say that it has not ended yet."""
        task, spent = self._task(self._coroutine), monotonic() - began
        if task is None or task.done() or self._asked is None:
            return
        left, where = busy_on(task.get_loop()), "".join(stack_of_task(task))
        what = f"{getattr(self._coroutine, '__qualname__', 'the main task')}() and {count_of(left)}"
        tell(f"still waiting for {what}, {spent:.0f} s after {self._asked.name}", left, where)
        self._watched = task.get_loop().call_later(2 * patience, self._look, began, 2 * patience)

    def _break_in(self, coroutine: Any) -> None:
        """Leave what has not ended in time, as the same signal again would. Thread: one of its own.

        The loop may be run by another thread than the main one, which is blocked then: only a signal gets that out.
        """
        main = threading.main_thread().ident
        if self._coroutine is coroutine and self._asked is not None and main is not None:
            signal.pthread_kill(main, self._asked)


def _factory(loop: Any) -> Callable[[], asyncio.AbstractEventLoop]:
    if loop == "asyncio":
        return EventLoop
    if loop == "uvloop":
        return partial(import_module("threadlets.adapters.uvloop").new_event_loop, main_at_home=False)
    if callable(loop):
        return cast("Callable[[], asyncio.AbstractEventLoop]", loop)
    raise ValueError(f"loop={loop!r}: expected 'asyncio', 'uvloop', or a function that makes a loop")


async def _depart_from(loop: asyncio.AbstractEventLoop, finish: float, timeout: float) -> None:
    """End what is left of a program whose main task has ended: its threadlets, then all other tasks."""
    home: Home | None = getattr(loop, "_threadlets_home", None)
    until = monotonic() + finish + timeout
    if home is not None:
        home.patience, why = 0.0, ""
        try:
            if await depart(lambda: cast("Any", home.busy), "the program ends", finish=finish, timeout=timeout):
                why = f", which did not stop within {timeout:g} s" if timeout else ""
        finally:
            left = busy_on(loop)
            if left:
                tell(f"left behind {count_of(left)}{why}", left)
                leave(left)
            else:
                home.patience = timeout
    await _end_tasks(max(until - monotonic(), LAST))


async def _end_tasks(seconds: float) -> None:
    """Cancel all other tasks, as ``asyncio.run`` does; but do not wait for ever for those that do not stop."""
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel("the program ends")
    until, patience = monotonic() + seconds, SAY_SECONDS
    try:
        while tasks and (wait := min(patience, until - monotonic())) > 0:
            ended, tasks = await asyncio.wait(tasks, timeout=wait)
            for task in ended:
                if not task.cancelled() and (error := task.exception()) is not None:
                    message = "unhandled exception during threadlets.run() shutdown"
                    loop.call_exception_handler({"message": message, "exception": error, "task": task})
            if tasks and monotonic() < until:
                _tell_tasks("still waiting for", tasks)
                patience *= 2
    finally:
        tasks = {task for task in tasks if not task.done()}
        if tasks:
            _tell_tasks("left behind", tasks)
        for task in tasks:
            unlist(task)  # the runner would wait for them
        _left.extend(tasks)


_left: list[asyncio.Task[Any]] = []  # those that asyncio would complain of if they were collected


def _tell_tasks(verb: str, tasks: Collection[asyncio.Task[Any]]) -> None:
    where = "".join(
        f"  task {task.get_name()!r}\n" + "".join("  " + line for line in stack_of_task(task))
        for task in list(tasks)[:MANY]
    )
    tell(f"{verb} {len(tasks)} task{'s' * (len(tasks) != 1)}, told to stop since the program ends", (), where)
