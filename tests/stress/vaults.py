"""What the jobs of the fault harness change together: things that must be whole whenever nobody is inside."""

from __future__ import annotations

import sqlite3
import threading
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager

from tests.stress.injector import Job
from threadlets import Contract, Lock, threadlet
from threadlets.conditions import Condition, Event, Semaphore
from threadlets.workers import named_group

ROWS = 4  # arbitrary: so many belong together
ONE = Contract(affinity="one:faults")  # the thread of the connection that coroutines use


class Vault:
    """Two numbers that are equal, and the lock that protects them."""

    def __init__(self, name: str, grace: float) -> None:
        self.lock = Lock(name, grace=grace)
        self.left = self.right = 0
        self.mended = 0
        self._mending = threading.Lock()

    @contextmanager
    def half(self, job: Job) -> Iterator[None]:
        """Change one number, then the other, with the lock held; who is cancelled by force in between leaves it so."""
        if self.left != self.right:
            job.world.violate(f"{job!r} finds {self.lock!r} half done, and was not told")
        self.left += 1
        try:
            yield
        except CancelledError as error:
            job.is_told(error)
            if job.is_alone or job.is_limited:  # nobody keeps such a cancel out
                self.right = self.left
            raise
        except BaseException:
            self.right = self.left
            raise
        self.right += 1

    def mend(self) -> None:
        """Make it whole after LockPoisoned; somebody else may have been quicker. Thread: any."""
        with self._mending:
            if self.lock.poisoned:
                self._make_whole()
                self.mended += 1
                self.lock.repair()

    def _make_whole(self) -> None:
        self.right = self.left


class Bank(Vault):
    """A database in a file: rows of a job are there as a whole, or not at all.

    There is a connection for each thread, and one for coroutines, on a thread of its own. So a coroutine that is
    cancelled by force may leave a transaction open.
    """

    def __init__(self, path: str, grace: float) -> None:
        super().__init__("bank", grace)
        self._path = path
        self._connections: dict[int, sqlite3.Connection] = {}  # by thread
        connection = self.connection()
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE rows (job INTEGER, number INTEGER)")
        self.close()

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection."""
        thread = threading.get_ident()
        connection = self._connections.get(thread)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=1, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA synchronous=OFF")
            self._connections[thread] = connection
        return connection

    def write(self, job: Job) -> None:
        """Make one transaction; the lock is held. Thread: any."""
        connection = self.connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            for number in range(ROWS):
                connection.execute("INSERT INTO rows VALUES (?, ?)", (job.number, number))
                job.point("transaction: a row")
            connection.execute("COMMIT")
            job.committed = True
        except BaseException as error:
            job.is_told(error)
            connection.execute("ROLLBACK")
            job.world.tell("rolled back")
            raise
        job.world.tell("committed")

    async def write_in_steps(self, job: Job) -> None:
        """Make one transaction, each step on the connection's own thread; the lock is held."""
        await begin(self)
        try:
            for number in range(ROWS):
                await insert(self, job.number, number)
                await job.apoint("ledger: a row")
            await commit(self, job)
        except BaseException as error:
            job.is_told(error)
            await roll_back(self)
            job.world.tell("rolled back, in steps")
            raise
        job.world.tell("committed, in steps")

    def undo(self) -> None:
        """End a transaction that is open."""
        if self.connection().in_transaction:
            self.connection().execute("ROLLBACK")

    def _make_whole(self) -> None:
        named_group("faults").call(self.undo)

    def rows(self) -> dict[int, int]:
        """Return how many rows each job has, of those that have any, and forget them."""
        rows = dict(self.connection().execute("SELECT job, COUNT(DISTINCT number) FROM rows GROUP BY job"))
        self.connection().execute("DELETE FROM rows")
        return rows

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


@threadlet(contract=ONE)
def begin(bank: Bank) -> None:
    """Begin a transaction, on the connection's own thread, as all of these."""
    bank.connection().execute("BEGIN IMMEDIATE")


@threadlet(contract=ONE)
def insert(bank: Bank, job: int, number: int) -> None:
    """Write one row."""
    bank.connection().execute("INSERT INTO rows VALUES (?, ?)", (job, number))


@threadlet(contract=ONE)
def commit(bank: Bank, job: Job) -> None:
    """Make it true."""
    bank.connection().execute("COMMIT")
    job.committed = True


@threadlet(contract=ONE)
def roll_back(bank: Bank) -> None:
    """Make it not have been."""
    bank.undo()


class Shop:
    """Things that are waited for: so many tokens, goods on a shelf, a bell."""

    TOKENS = 2

    def __init__(self) -> None:
        self.tokens = Semaphore(self.TOKENS, max_value=self.TOKENS, name="tokens")
        self.inside: list[Job] = []
        self.shelf = Condition(Lock("shelf"))
        self.goods: list[int] = []
        self.brought = self.taken = 0  # under the shelf's lock
        self.bell = Event("bell")

    def enter(self, job: Job) -> None:
        """Have a token. Thread: any."""
        self.inside.append(job)
        if len(self.inside) > self.TOKENS:
            job.world.violate(f"{len(self.inside)} have one of {self.TOKENS} tokens: {self.inside}")

    def bring(self, number: int) -> None:
        """Put something on the shelf, which is held. Thread: any."""
        self.goods.append(number)
        self.brought += 1
        self.shelf.notify()

    def ring(self) -> None:
        """Wake those that wait for the bell. Thread: any."""
        self.bell.set()
        self.bell.clear()

    def take(self, job: Job) -> None:
        """Take something from the shelf, which is held. Thread: any."""
        if not self.goods:
            job.world.violate(f"{job!r} was told that there is something, and there is not")
        else:
            self.goods.pop()
            self.taken += 1

    def check(self) -> None:
        """Assert that nobody is inside, and nothing was lost."""
        for each in (self.tokens, self.shelf, self.shelf.lock, self.bell):
            each._check()
        assert self.tokens.value == self.TOKENS and not self.inside, f"each token is back: {self.tokens}, {self.inside}"
        assert not any(len(each._line) for each in (self.tokens, self.shelf, self.bell)), "nobody waits"
        assert self.brought == self.taken + len(self.goods), "no goods are lost, and none made"
