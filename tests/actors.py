"""Actors for a machine that forces interleavings: each does one thing when told to, and stands still in between.

An actor is a threadlet on a worker ("worker"; "abandoned" with ``cancel="abandon"``), a coroutine threadlet
("coroutine"), or a plain task ("task"). What it enters - a block, a lock, a timeout, its cleanup - it is inside of
until it is told to leave, or until an error takes it out. It knows the law, and notes each breach of it: nobody is told
to stop inside of a block that protects him, unless by force; whoever is to stop, and listens, is told.
"""

from __future__ import annotations

import asyncio
import queue
from asyncio import CancelledError
from collections.abc import Callable
from typing import Any

from threadlets import Contract, Lock, Pool, Threadlet, checkpoint, defer, holding, threadlet
from threadlets.cancellation import asked
from threadlets.errors import Deadlock, LockPoisoned
from threadlets.lifecycles import ABANDONED

KINDS = ["worker", "worker", "coroutine", "coroutine", "abandoned", "task"]
FAR = 1e6  # seconds: a time that is over when the machine says so
WORKER = Contract(blocks="always", cleanup=FAR)
ABANDON = Contract(blocks="always", cleanup=FAR, cancel="abandon")
COROUTINE = Contract(cleanup=FAR)
Word = tuple[Any, ...]


class Planned(Exception):
    """What actors raise when they are told to."""


class Actor:
    """Somebody who does as he is told.

    Attributes:
        future: Its threadlet, or its task.
        blocks: What it is inside of, outermost first: locks, and words for the rest.
        poisons: Locks that it has left by force.
        breaches: What was against the law.
        deferred: How many callbacks it has deferred.
        called: The numbers of those that were called, in order.
        asked: Whether it was asked to stop before its cleanup; the machine says so.
        forced: Whether it is told although it is inside of a block; the machine says so, until it has left all of them.
        late: Whether the time for its cleanup is over; the machine says so.
        ended: How its function has ended: "returned", "raised", "told"; "": it has not.
        over: Whether all of it is over, its cleanup too; of a worker.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.on_thread = kind in ("worker", "abandoned")
        self.future: Any = None
        self.blocks: list[Any] = []
        self.limits: list[asyncio.Timeout] = []
        self.poisons: list[Lock] = []
        self.breaches: list[str] = []
        self.deferred = 0
        self.called: list[int] = []
        self.asked = self.forced = self.late = False
        self.ended = ""
        self.over = False
        self.stands = False  # it waits to be told something
        self.wants: Lock | None = None  # the lock that it waits for, if it has to wait
        self._timed_out = False
        self._words: queue.SimpleQueue[Word] = queue.SimpleQueue()  # of one on a thread
        self._word: asyncio.Future[Word] | None = None  # of any other

    def __repr__(self) -> str:
        return f"<{self.kind} inside of {self.blocks}, {self.called} of {self.deferred} called: {self.future!r}>"

    def start(self, pool: Pool, priority: float) -> None:
        """Let it begin: in a pool, if it is a threadlet."""
        if self.kind == "task":
            self.future = asyncio.ensure_future(self.work_async())
        elif self.kind == "coroutine":
            self.future = pool.start(threadlet(contract=COROUTINE)(self.work_async), priority=priority)
        else:
            contract = WORKER if self.kind == "worker" else ABANDON
            self.future = pool.start(threadlet(contract=contract)(self.work), priority=priority)

    # ------------------------------------------------------------------------------------------- what the machine asks

    @property
    def handle(self) -> Threadlet[Any] | None:
        """Its threadlet, if it is one."""
        return None if self.kind == "task" else self.future

    @property
    def was_left(self) -> bool:
        """Whether its threadlet was final before its function had ended."""
        return self.handle is not None and bool(self.handle._marks & ABANDONED)

    @property
    def is_left(self) -> bool:
        """Whether its function goes on although its threadlet is final."""
        return self.was_left and not self.over

    def is_quiet(self) -> bool:
        """Say whether nothing comes of it before somebody does something. Thread: loop."""
        if self.future.done() and not self.is_left:
            return True
        if self.stands:
            return not (self._word is not None and self._word.done())
        lock = self.wants
        if lock is not None:
            with lock._mutex:
                in_line = any(waiter.owner is self.future for waiter in lock._line)
            return in_line and not (self.on_thread and asked(self.future))
        return self.handle is not None and self.handle.is_queued_in_pool()

    def tell(self, *word: Any) -> None:
        """Tell it what to do. Thread: loop."""
        assert self.stands
        self.stands = False
        if self.on_thread:
            self._words.put(word)
        else:
            assert self._word is not None
            self._word.set_result(word)

    def let_go(self) -> None:
        """Let it leave all that it may be inside of, if it is on a thread."""
        for _ in range(100):
            self._words.put(("leave",))

    def ask(self) -> bool:
        """Note that it is asked to stop now; False if that is in vain: it is final, or cleans up. Thread: loop."""
        if self.handle is None or self.handle.done() or self.handle.state == "cleaning":
            return self.handle is None
        self.asked = True
        return True

    def fire(self) -> None:
        """Let the time of its innermost timeout be over. Thread: loop."""
        self._timed_out = True
        self.limits[-1].reschedule(asyncio.get_running_loop().time() - 1)

    # ------------------------------------------------------------------------------------------------ the law

    def _is_told(self) -> None:
        """See that it may be told to stop here. Thread: its own."""
        if self.blocks and self.kind != "task" and not (self._timed_out or self.forced or self.late):
            self.breaches.append("it was told, and not by force")

    def is_to_stop(self) -> bool:
        """Say whether it is told to stop where it listens."""
        return self.late or (self.asked and (self.forced or not self.blocks))

    def _enter(self, block: Any) -> None:
        self.blocks.append(block)

    def _leave(self, block: Any) -> None:
        self.blocks.remove(block)
        self.forced = self.forced and bool(self.blocks)

    def _leave_lock(self, lock: Lock, error: BaseException | None) -> None:
        if isinstance(error, CancelledError) and self.kind != "task" and (self.forced or self.late):
            self.poisons.append(lock)
        self._leave(lock)

    def _ends(self, error: BaseException | None) -> None:
        self.ended = "returned" if error is None else "told" if isinstance(error, CancelledError) else "raised"

    # --------------------------------------------------------------------------------------------------- on a thread

    def work(self) -> None:
        """Do as it is told, until it is told to leave."""
        defer(self._end)
        self._law(self._ends, self._serve)

    def _end(self) -> None:
        self.over = True

    def _law(self, note: Callable[[BaseException | None], object], function: Callable[[], object]) -> None:
        error: BaseException | None = None
        try:
            function()
        except BaseException as raised:
            error = raised
            raise
        finally:
            note(error)
            del error

    def _serve(self) -> None:
        while True:
            self.stands = True
            word, *what = self._words.get()
            if word == "leave":
                return
            getattr(self, f"_do_{word}")(*what)

    def _listen(self) -> None:
        try:
            checkpoint()
        except CancelledError:
            self._is_told()
            raise
        if self.is_to_stop():
            self.breaches.append("it was not told, and is to stop")

    def _do_look(self) -> None:
        self._listen()

    def _do_fail(self) -> None:
        raise Planned

    def _do_hold(self) -> None:
        with holding("a block", grace=FAR):
            self._enter("block")
            try:
                self._serve()
            finally:
                self._leave("block")

    def _do_take(self, lock: Lock) -> None:
        self.wants = lock
        try:
            with lock:
                self.wants = None
                self._enter(lock)
                self._law(lambda error: self._leave_lock(lock, error), self._serve)
        except (LockPoisoned, Deadlock):
            pass
        except CancelledError:
            if self.wants is not None:
                self._is_told()
            raise
        finally:
            self.wants = None

    def _do_defer(self) -> None:
        self.deferred += 1
        defer(self._clean_up, self.deferred)

    def _clean_up(self, number: int) -> None:
        self.called.append(number)
        self._enter("cleanup")
        try:
            self._serve()
        finally:
            self._leave("cleanup")

    # ------------------------------------------------------------------------------------------------- in a coroutine

    async def work_async(self) -> None:
        """Do as it is told, until it is told to leave."""
        await self._law_async(self._ends, self._serve_async)

    async def _law_async(self, note: Callable[[BaseException | None], object], function: Callable[[], Any]) -> None:
        error: BaseException | None = None
        try:
            await function()
        except BaseException as raised:
            error = raised
            raise
        finally:
            note(error)
            del error

    async def _serve_async(self) -> None:
        while True:
            self._word = asyncio.get_running_loop().create_future()
            self.stands = True
            try:
                word, *what = await self._word
            except CancelledError:
                self._is_told()
                raise
            finally:
                self.stands = False
            if word == "leave":
                return
            await getattr(self, f"_do_{word}_async")(*what)

    async def _do_look_async(self) -> None:
        try:
            await asyncio.sleep(0)
        except CancelledError:
            self._is_told()
            raise

    async def _do_fail_async(self) -> None:
        raise Planned

    async def _do_hold_async(self) -> None:
        with holding("a block", grace=FAR):
            self._enter("block")
            try:
                await self._serve_async()
            finally:
                self._leave("block")

    async def _do_take_async(self, lock: Lock) -> None:
        self.wants = lock
        try:
            async with lock:
                self.wants = None
                self._enter(lock)
                await self._law_async(lambda error: self._leave_lock(lock, error), self._serve_async)
        except (LockPoisoned, Deadlock):
            pass
        except CancelledError:
            if self.wants is not None:
                self._is_told()
            raise
        finally:
            self.wants = None

    async def _do_limit_async(self) -> None:
        try:
            async with asyncio.timeout(None) as limit:
                self.limits.append(limit)
                try:
                    await self._serve_async()
                finally:
                    self.limits.pop()
        except TimeoutError:
            self._timed_out = False

    async def _do_defer_async(self) -> None:
        self.deferred += 1
        defer(self._clean_up_async, self.deferred)

    async def _clean_up_async(self, number: int) -> None:
        self.called.append(number)
        self._enter("cleanup")
        try:
            await self._serve_async()
        finally:
            self._leave("cleanup")
