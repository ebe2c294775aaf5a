"""Runs CPython's own tests of executors on that of a pool, and tells which fail.

``concurrent.futures.ThreadPoolExecutor`` is replaced by the executor of a pool whose ``Concurrency`` is the number of
workers asked for; the pool's loop runs in a thread of its own. With --compare they run on CPython's executor first.
The tests must be installed, as for tests/cpython_suite.py, whose machinery this is; Debian's python3 lacks them.

What is known to fail is in KNOWN, with its reason. Tests that start a Python of their own, to see how one ends, see
CPython's executor there, in both runs.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cpython_suite

from threadlets import Concurrency, EventLoop, Pool
from threadlets.executors import PoolExecutor

PACKAGE = "test.test_concurrent_futures"
MODULES = ("as_completed", "init", "shutdown", "thread_pool", "wait")  # the others are about processes and futures

NO_THREADS = "an executor of a pool has no threads of its own: the test counts those in executor._threads"
NO_INITIALIZER = "the threads are not the executor's: there is no initializer"
KNOWN = {
    "test_init.ThreadPoolFailingInitializerTest.test_initializer": NO_INITIALIZER,
    "test_init.ThreadPoolInitializerTest.test_initializer": NO_INITIALIZER,
    "test_shutdown.ThreadPoolShutdownTest.test_cancel_futures": "cancels all 50, before the loop has let any start",
    "test_shutdown.ThreadPoolShutdownTest.test_threads_terminate": NO_THREADS,
    "test_thread_pool.ThreadPoolExecutorTest.test_default_workers": "what limits a pool's calls is the pool",
    "test_thread_pool.ThreadPoolExecutorTest.test_idle_thread_reuse": NO_THREADS,
    "test_thread_pool.ThreadPoolExecutorTest.test_saturation": NO_THREADS,
}


def replace(loop: Any, module: str, report: Callable[..., None]) -> None:
    """Put the executor of a pool in the place of CPython's, unless that is to be tested itself."""
    if loop is not EventLoop:
        return

    class Served(PoolExecutor):
        """The executor of a pool that has a loop in a thread of its own."""

        def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "", **options: Any) -> None:
            if options.get("initializer") is not None:
                raise NotImplementedError(NO_INITIALIZER)
            if max_workers is not None and max_workers <= 0:
                raise ValueError("max_workers must be greater than 0")
            self._own_loop = EventLoop()
            report(loop="wanted")
            ready = threading.Event()

            def serve() -> None:
                self._own_loop.call_soon(begin)
                self._own_loop.run_forever()
                self._own_loop.run_until_complete(self._own_loop.shutdown_asyncgens())
                self._own_loop.close()

            def begin() -> None:
                super(Served, self).__init__(Pool(Concurrency(max_workers or 32)))
                ready.set()

            self._server = threading.Thread(target=serve, daemon=True)
            self._server.start()
            ready.wait()

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait, cancel_futures=cancel_futures)
            if wait and self._server.is_alive():
                self._own_loop.call_soon_threadsafe(self._own_loop.stop)
                self._server.join()

    Served.__name__ = "ThreadPoolExecutor"  # tests that start a Python import it by its name
    concurrent.futures.ThreadPoolExecutor = Served  # type: ignore[misc]


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    if sys.argv[1:2] == ["--child"]:
        return cpython_suite.run_child(replace)
    parser = cpython_suite.parser("Run CPython's tests of executors on that of a pool.", "threadlets:EventLoop")
    parser.set_defaults(only="ThreadPool", timeout=20)
    options = parser.parse_args()
    options.list = [*options.list, *KNOWN]
    try:
        (folder,) = importlib.import_module(PACKAGE).__path__
    except (ModuleNotFoundError, AttributeError):
        print(f"skipped: this Python comes without the package {PACKAGE}, CPython's tests of executors.")
        return 0
    options.modules = options.modules or [f"test_{name}" for name in MODULES]
    title = f"tests of executors of CPython {sys.version.split()[0]}"
    return cpython_suite.Suite(title, PACKAGE, options).run(Path(folder), "asyncio:SelectorEventLoop")


if __name__ == "__main__":
    sys.exit(main())
