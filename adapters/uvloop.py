"""uvloop's event loop with a run token: another thread goes on with it while a call in a region blocks.

Why it takes more than a subclass: uvloop runs its queue of callbacks inside one of its own handles, which has then
entered its context; a second thread that ran the loop meanwhile could not run that handle again. So this loop keeps a
queue of its own, and runs it in a *prepare* handle of libuv, right before each poll. uvloop has none of these, and
libuv can run the loop again, on another thread, while such a callback has not returned. uvloop's extension module
exports libuv's functions, which ctypes finds.

Order: callbacks are to run in the order in which they were asked for, and there are two queues now. What users hand to
``call_soon`` is in ours; what uvloop's own transports need is in uvloop's. A number in our queue says: "so many of
uvloop's have been asked for before what follows". To run uvloop's up to that number, the rest is taken out of its
queue, and its own idle callback is called, which runs what it finds.

    call_soon(a)         ours: a                       uvloop's:
    a transport closes   ours: a                       uvloop's: connection_lost
    call_soon(b)         ours: a, 1, b                 uvloop's: connection_lost
    the prepare handle   runs a; then one of uvloop's; then b

uvloop starts its idle handle when it has something to run, and stops it when its queue is empty. Here libuv must never
run it, it would be too early. So uvloop believes it to be running always, since its queue is never empty when it looks;
and libuv does not know it to be active.

What cannot be taken over: callbacks that uvloop calls itself, those of timers (``call_later``), of transports and of
``add_reader``.

Assumes, and checks when a loop is made: libuv 1.x, whose functions are exported; ``gc.get_referents`` shows one deque
in a loop, its queue. If not, ``new_event_loop`` falls back to uvloop's own loop, with a warning. Tested with uvloop
0.21, 0.22 and 0.23; what is needed of others is checked in the same way.

A little over 400 lines: an adapter is one file for each library.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from importlib.metadata import version
from typing import Any, TypeVarTuple

from threadlets.loops import ChangesHands, check_threshold, in_protocol, is_excused, run_timed
from threadlets.takeover import RunToken

try:
    import uvloop
    import uvloop.loop
except ImportError as error:
    raise ImportError("uvloop is not installed: pip install 'threadlets[uvloop]'") from error

__all__ = ["TESTED", "EventLoop", "Unsupported", "new_event_loop"]

TESTED = ("0.21", "0.22", "0.23")  # versions of uvloop

Ts = TypeVarTuple("Ts")

NATIVE: Any = uvloop.loop  # has more than its stub file tells
VERSION = version("uvloop")

IDLE, PREPARE, ANY_HANDLE, RUN_ONCE = 6, 9, 5, 1  # libuv: uv_handle_type, uv_run_mode
Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
Visitor = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.py_object)
IdleCallback = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)  # called with the interpreter lock held


class Unsupported(RuntimeError):
    """Raised by making an ``EventLoop`` when this build of uvloop is not one that we can drive."""


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, name, None)
    if function is None:
        raise Unsupported(f"uvloop {VERSION} does not export libuv's {name}")
    function.restype, function.argtypes = result, arguments
    return function


class _Libuv:
    """libuv's functions, as uvloop's extension module exports them."""

    def __init__(self) -> None:
        holding = ctypes.PyDLL(NATIVE.__file__)  # with the interpreter lock: for what cannot wait
        pointer = ctypes.c_void_p
        self.run = _function(ctypes.CDLL(NATIVE.__file__), "uv_run", ctypes.c_int, pointer, ctypes.c_int)
        self.version = _function(holding, "uv_version", ctypes.c_uint)
        self.handle_size = _function(holding, "uv_handle_size", ctypes.c_size_t, ctypes.c_int)
        self.walk = _function(holding, "uv_walk", None, pointer, Visitor, ctypes.py_object)
        self.idle_init = _function(holding, "uv_idle_init", ctypes.c_int, pointer, pointer)
        self.idle_start = _function(holding, "uv_idle_start", ctypes.c_int, pointer, pointer)
        self.idle_stop = _function(holding, "uv_idle_stop", ctypes.c_int, pointer)
        self.prepare_init = _function(holding, "uv_prepare_init", ctypes.c_int, pointer, pointer)
        self.prepare_start = _function(holding, "uv_prepare_start", ctypes.c_int, pointer, Callback)
        self.close = _function(holding, "uv_close", None, pointer, pointer)
        self.unref = _function(holding, "uv_unref", None, pointer)
        self.is_active = _function(holding, "uv_is_active", ctypes.c_int, pointer)
        self.nothing = ctypes.cast(self.is_active, pointer)  # serves as a callback that does nothing
        if self.version() >> 16 != 1:
            raise Unsupported(f"uvloop {VERSION} has another libuv than 1.x")

    def pointer(self, loop: uvloop.Loop) -> int:
        """Return the address of a loop's ``uv_loop_t``."""
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        return int(get(NATIVE.libuv_get_loop_t_ptr(loop), None))

    def inactive(self, loop: int) -> list[int]:
        """Return the addresses of a loop's handles that are not active."""
        found: list[int] = []
        self.walk(loop, Visitor(lambda handle, found: found.append(handle)), found)
        return [handle for handle in found if not self.is_active(handle)]


class _Driver:
    """What the run token needs of uvloop; see ``threadlets.takeover.Driver``."""

    def __init__(self, loop: EventLoop, address: int, queue: deque[asyncio.Handle | int]) -> None:
        self.loop = loop
        self.stop_asked = False
        self._address = address
        self._queue = queue

    def adopt(self) -> None:
        loop: Any = self.loop
        asyncio._set_running_loop(loop)
        if threading.get_ident() != loop._threadlets_token.home:
            sys.set_asyncgen_hooks(firstiter=loop._asyncgen_firstiter_hook, finalizer=loop._asyncgen_finalizer_hook)
            if loop.get_debug():
                sys.set_coroutine_origin_tracking_depth(1)

    def disown(self) -> None:
        asyncio._set_running_loop(None)

    def wake(self) -> None:
        try:
            uvloop.Loop.call_soon_threadsafe(self.loop, _nothing)
        except RuntimeError:  # closed
            pass

    def stop(self) -> None:
        self.loop.stop()

    def stopping(self) -> bool:
        return self.stop_asked

    def obstacle(self, handle: Any) -> str | None:
        return "in a callback that uvloop calls itself" if handle is None else in_protocol(handle)

    def put_back(self, handles: Iterable[asyncio.Handle]) -> None:
        self._queue.extendleft(reversed(list(handles)))

    def round(self) -> None:
        _libuv().run(self._address, RUN_ONCE)


class EventLoop(ChangesHands, uvloop.Loop):  # type: ignore[misc]  # its stub is at odds with typeshed's
    """uvloop's event loop, which another thread goes on with while a call in a region blocks.

    Args:
        threshold: As for ``threadlets.EventLoop``.
        main_at_home: As for ``threadlets.EventLoop``.

    Raises:
        Unsupported: If this build of uvloop does not allow it; ``new_event_loop()`` falls back.
    """

    _closed: bool  # uvloop's
    _threadlets_token: RunToken

    def __init__(self, *, threshold: float | None = None, main_at_home: bool = False) -> None:
        check_threshold(threshold)
        super().__init__()
        libuv = _libuv()
        address = libuv.pointer(self)
        queues = [one for one in gc.get_referents(self) if type(one) is deque]
        inactive = libuv.inactive(address)
        last = super().call_soon(self._put_rest_back)
        idle = [handle for handle in inactive if libuv.is_active(handle)]
        if len(queues) != 1 or len(idle) != 1 or list(queues[0]) != [last]:
            super().close()
            raise Unsupported(f"uvloop {VERSION} has other queues and handles than we know")
        self._queue: deque[asyncio.Handle | int] = deque()  # what is to be called, and numbers, see above
        self._number = 0  # the last one in there
        self._own: deque[Any] = queues[0]  # what uvloop is to call
        self._own_run = 0  # how much of that has been called
        self._own_all = 0  # while some of it is being called: how much there was before
        self._rest: list[Any] | None = None  # what was taken out meanwhile
        self._last = self._own.pop()  # a handle of uvloop's, to be called last
        self._idle = idle[0]
        idle_cb = ctypes.c_void_p.from_address(self._idle + libuv.handle_size(ANY_HANDLE))  # its first own field
        self._run_idle = IdleCallback(idle_cb.value or 0)
        libuv.idle_stop(self._idle)
        # Handles of our own: one that is called before each poll, and one that keeps the poll from waiting.
        self._memory = [ctypes.create_string_buffer(libuv.handle_size(kind)) for kind in (PREPARE, IDLE)]
        self._prepare, self._spin = map(ctypes.addressof, self._memory)
        self._spins = False
        self._drains = Callback(self._drain)  # ctypes keeps no reference
        libuv.prepare_init(address, self._prepare)
        libuv.prepare_start(self._prepare, self._drains)
        libuv.idle_init(address, self._spin)
        self._raised: BaseException | None = None  # what run_forever is to be left with
        self._main_at_home = main_at_home
        self._driver = _Driver(self, address, self._queue)
        self._threadlets_token = RunToken(self._driver, threshold)

    # ------------------------------------------------------------------------------------------ asking for a call

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Arrange for a callback to be called in the next round of the loop."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        if self.get_debug():
            self._check_driver()
        own = self._own
        if own:
            number = self._own_run + len(own)
            if self._rest is not None:  # uvloop's are being called right now
                number = self._number_within()
            if number != self._number:
                self._queue.append(number)
                self._number = number
        handle = asyncio.Handle(callback, args, self, context)
        self._queue.append(_without_us(handle))
        return handle

    def _number_within(self) -> int:
        """Return how many of uvloop's callbacks were asked for, while some of them are being called."""
        own = self._own
        try:
            return self._own_all + len(own) - own.index(self._last) - 1
        except (RuntimeError, ValueError):  # by a signal handler, on another thread than the loop
            return self._own_all

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """Like ``call_soon``. Thread: any."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        handle = asyncio.Handle(callback, args, self, context)
        self._queue.append(_without_us(handle))
        super().call_soon_threadsafe(_nothing)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> Any:
        """Arrange for a callback to be called after a delay in seconds, to the millisecond."""
        if 0 < delay < 0.0005 or delay <= 0:
            return _without_us(self.call_soon(callback, *args, context=context))
        if context is not None:  # it may be entered on a thread that is away
            return self.call_later(delay, self._run_timer, asyncio.Handle(callback, args, self, context))
        if self._threadlets_token.thread != self._threadlets_token.home and self.get_debug() and not self._closed:
            self._check_driver()  # uvloop would want home to be the driver
            return _without_us(NATIVE.TimerHandle(self, callback, args, round(delay * 1000), None))
        return _without_us(super().call_later(delay, callback, *args))

    def _run_timer(self, handle: asyncio.Handle) -> None:
        token = self._threadlets_token
        if not token.away or token.keeps(handle):
            handle._run()

    def _check_driver(self) -> None:
        if self.is_running() and self._threadlets_token.thread != threading.get_ident() and not is_excused():
            raise RuntimeError("Non-thread-safe operation invoked on an event loop other than the current one")

    # ------------------------------------------------------------------------------------------ running

    def run_forever(self) -> None:
        """Run until ``stop()``. Before it returns, it waits for calls that block, and lets them end."""
        token, driver = self._threadlets_token, self._driver
        if self.is_running() or self._closed:
            super().run_forever()  # raises
        token.begin()
        super().call_soon(_nothing)  # uvloop believes its idle handle to be running, ...
        self._own.pop()
        _libuv().idle_stop(self._idle)  # ... and libuv does not run it
        try:
            super().run_forever()
            if self._raised is not None:
                raise self._raised
        finally:
            driver.stop_asked = False
            self._raised = None
            token.finish()
            driver.disown()

    def stop(self) -> None:
        """Stop running the loop."""
        self._driver.stop_asked = True
        super().stop()

    def close(self) -> None:
        """Close the loop."""
        if not self._closed and not self.is_running():
            for handle in self._queue:
                if not isinstance(handle, int):
                    handle.cancel()
            self._queue.clear()
            for address in (self._prepare, self._spin):
                _libuv().close(address, None)  # freed with this object; super().close() lets libuv forget them
            self._threadlets_token.spares.close()
        super().close()

    def _drain(self, _: int | None) -> None:
        """Run what was asked for until now, ours and uvloop's in order. Called by libuv, before each poll."""
        token, queue, own = self._threadlets_token, self._queue, self._own
        try:
            self._run_all(token, queue)
            if self._driver.stop_asked and token.away and token.thread == token.home:
                token.finish()
        except BaseException as error:
            self._raised = error
            self.stop()  # which is one of uvloop's own callbacks, and waits for the next round
        finally:
            spins = bool(queue or own or token.claims)
            if spins != self._spins:
                self._spins = spins
                if spins:
                    _libuv().idle_start(self._spin, _libuv().nothing)
                else:
                    _libuv().idle_stop(self._spin)

    def _run_all(self, token: RunToken, queue: deque[asyncio.Handle | int]) -> None:
        own_end, end = self._own_run + len(self._own), 0  # 0: none of uvloop's while some of ours are left
        debug = self.get_debug()
        cell = token.cell
        try:
            for _ in range(0 if self._raised else len(queue)):
                if token.claims:
                    if not token.boundary():
                        return
                    cell = token.cell
                try:
                    handle = queue.popleft()
                except IndexError:  # somebody has run them meanwhile
                    break
                if isinstance(handle, int):
                    self._run_own(handle)
                    continue
                if handle._cancelled or (token.away and not token.keeps(handle)):
                    continue
                token.current = handle
                try:
                    if debug:
                        run_timed(self, handle, token)
                    else:
                        handle._run()
                finally:
                    if cell or token.cell is not cell or token.region is not None:  # rare, see threadlets.loops
                        token.settle()
                        cell = token.cell
                token.current = None
                del handle
            end = own_end
        finally:
            token.current = None
            self._run_own(end)  # and uvloop writes what was to be written, and stops if it was stopped
        if token.claims:
            token.boundary()

    def _run_own(self, number: int) -> None:
        """Run uvloop's own callbacks, up to a number."""
        own, last = self._own, self._last
        count = max(0, number - self._own_run)
        self._own_all = self._own_run + len(own)
        rest = self._rest = [own.pop() for _ in range(len(own) - count)]
        own.append(last)
        try:
            self._run_idle(self._idle)
        finally:
            if self._rest is not None:  # it was left early, by SystemExit or the like
                self._rest = None
                left = own.index(last)
                count -= left
                own.rotate(-left)
                own.extendleft(rest)
                own.rotate(left)
            own.remove(last)
            self._own_run += count

    def _put_rest_back(self) -> None:
        """Put back what was not to be called yet; the last of what is called."""
        assert self._rest is not None
        self._own.extendleft(self._rest)
        self._rest = None
        self._own.append(self._last)  # so that uvloop does not find its queue empty


def _without_us(handle: Any) -> Any:
    """In debug mode, let a callback's traceback end with who asked for it."""
    if handle._source_traceback:
        del handle._source_traceback[-1]
    return handle


def _nothing(*_: object) -> None:
    pass


_loaded: list[_Libuv] = []


def _libuv() -> _Libuv:
    if not _loaded:
        _loaded.append(_Libuv())
    return _loaded[0]


def new_event_loop(*, main_at_home: bool = True) -> uvloop.Loop:
    """Make an ``EventLoop`` for a server: ``uvicorn --loop threadlets.adapters.uvloop:new_event_loop``.

    If this build of uvloop cannot be driven, it is uvloop's own loop, with a warning.
    """
    try:
        return EventLoop(main_at_home=main_at_home)
    except Unsupported as error:
        warnings.warn(f"{error}: the loop cannot go on while a call blocks", RuntimeWarning, stacklevel=2)
        return uvloop.new_event_loop()
