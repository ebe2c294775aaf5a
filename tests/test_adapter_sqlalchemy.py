"""The SQLAlchemy adapter: transactions of a real database go on while the event loop changes threads all the time.

And what needs no adapter: the synchronous engine in threadlets, with SQLite and PostgreSQL.

Over 400 lines: an adapter has one file of tests, as it is one file, and this one brings two databases.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")
greenlet = pytest.importorskip("greenlet")
pytest.importorskip("aiosqlite")

import sqlalchemy as sa  # noqa: E402
from sqlalchemy import orm  # noqa: E402
from sqlalchemy.ext.asyncio import (  # noqa: E402
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.util import await_only, concurrency, greenlet_spawn  # noqa: E402

from tests.conftest import Run  # noqa: E402
from tests.postgres import serving  # noqa: E402
from tests.workbench import IN_PLACE, ON_WORKER, PATIENCE, Gate, ended, rounds, until  # noqa: E402
from threadlets import Concurrency, Contract, Pool, blocking, call_async, checkpoint, pinned, threadlet  # noqa: E402
from threadlets.adapters import sqlalchemy as adapter  # noqa: E402

ACCOUNTS, EACH, TRANSFERS = 10, 100, 15
changing = pytest.mark.parametrize("run", ["hands", "hands-debug", "uvhands", "uvhands-debug"], indirect=True)


class Base(orm.DeclarativeBase):
    """The tables."""


class Account(Base):
    """Somebody's money."""

    __tablename__ = "account"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    balance: orm.Mapped[int]
    notes: orm.Mapped[list[Note]] = orm.relationship(back_populates="account")


class Note(Base):
    """What has happened to it."""

    __tablename__ = "note"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    account_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("account.id"))
    account: orm.Mapped[Account] = orm.relationship(back_populates="notes")
    text: orm.Mapped[str]


@pytest.fixture
def installed() -> Iterator[None]:
    """Install the adapter for a test."""
    with adapter.install():
        yield


@asynccontextmanager
async def database(folder: Path, **options: Any) -> AsyncIterator[AsyncEngine]:
    """Make a database with some accounts; writers wait for each other."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/accounts.db", connect_args={"timeout": 30}, **options)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = OFF")
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(
                sa.insert(Account), [{"id": number, "balance": EACH} for number in range(ACCOUNTS)]
            )
        yield engine
    finally:
        await engine.dispose()


async def total(engine: AsyncEngine) -> int:
    """Add up all money."""
    async with engine.connect() as connection:
        return int(await connection.scalar(sa.select(sa.func.sum(Account.balance))) or 0)


@asynccontextmanager
async def takeovers() -> AsyncIterator[None]:
    """Have other tasks block meanwhile, so that the loop changes threads all the time, and see that it did."""
    ended = False

    async def block() -> None:
        while not ended:
            with blocking():
                time.sleep(0.002)
            await rounds(5)

    blockers = [asyncio.create_task(block()) for _ in range(2)]
    loop: Any = asyncio.get_running_loop()
    before = loop.statistics().takeovers
    await until(lambda: loop.statistics().takeovers > before)
    try:
        yield
    finally:
        ended = True
        await asyncio.gather(*blockers)


class Away:
    """A task that keeps home blocked in a region, until ``come_back()``."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.home = threading.get_ident()

    async def __aenter__(self) -> Away:
        self.task = asyncio.create_task(self.block())
        await until(lambda: threading.get_ident() != self.home)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.come_back()
        await self.task

    async def block(self) -> None:
        with blocking():
            self.gate()

    def come_back(self) -> None:
        self.gate.open()


async def switch_twice() -> list[int]:
    """Begin to use a greenlet while home is away, and end when it is back; return the threads that it ran on."""
    threads = []
    asked = threading.Event()
    home = threading.get_ident()
    back = asyncio.get_running_loop().create_future()

    async def block() -> None:
        with blocking():
            assert asked.wait(PATIENCE)
        back.set_result(None)

    def synchronous() -> None:
        threads.append(threading.get_ident())
        await_only(back)
        threads.append(threading.get_ident())

    async def query() -> None:
        await until(lambda: threading.get_ident() != home)
        asked.set()
        await greenlet_spawn(synchronous)

    await asyncio.gather(block(), query())
    return [thread - home for thread in threads]


# ------------------------------------------------------------------------------------------- what it is for


@changing
def test_without_it_a_greenlet_changes_threads_and_fails(run: Run) -> None:
    """A task that began to use a greenlet on a spare thread, and goes on at home, fails with greenlet.error."""

    async def main() -> None:
        with pytest.raises(greenlet.error, match="different thread"):
            await switch_twice()

    run(main)


@changing
def test_with_it_a_greenlet_stays_at_home(run: Run, installed: None) -> None:
    """The same task waits for home before it makes its greenlet, and stays there."""
    assert run(switch_twice) == [0, 0]


@changing
def test_transactions_while_the_loop_changes_threads(run: Run, installed: None, tmp_path: Path) -> None:
    """Many sessions move money in transactions of many awaits; none fails, and no money is lost."""

    async def main() -> None:
        async with database(tmp_path, pool_size=5) as engine:
            session_of = async_sessionmaker(engine, expire_on_commit=False)

            async def transfer(number: int) -> None:
                async with session_of() as session, session.begin():
                    payer = await session.get_one(Account, number % ACCOUNTS)
                    payee = await session.get_one(Account, (number * 3 + 1) % ACCOUNTS)
                    await asyncio.sleep(0)
                    payer.balance -= number
                    await session.flush()
                    payee.balance += number
                    session.add(Note(account=payee, text=f"{number} from {payer.id}"))

            async with takeovers():
                await asyncio.gather(*(transfer(number) for number in range(TRANSFERS)))
                assert await total(engine) == ACCOUNTS * EACH
                async with session_of() as session:
                    notes = await session.scalars(sa.select(Note.text))
                    assert len({int(text.split()[0]) for text in notes}) == TRANSFERS

    run(main)


@changing
def test_results_are_streamed(run: Run, installed: None, tmp_path: Path) -> None:
    """Rows, partitions and lazy attributes arrive in full, each step of them maybe after a takeover."""

    async def main() -> None:
        async with database(tmp_path) as engine, takeovers():

            async def stream(size: int) -> None:
                async with engine.connect() as connection:
                    query = sa.select(Account.id).order_by(Account.id)
                    async with connection.stream(query, execution_options={"yield_per": size}) as result:
                        rows = [row.id async for row in result]
                    assert rows == list(range(ACCOUNTS))
                    parts = (await connection.stream(query)).partitions(size)
                    lengths = [len(part) async for part in parts]
                    assert sum(lengths) == ACCOUNTS and max(lengths) == size

            for size in (1, 2, 3):
                await stream(size)
            async with AsyncSession(engine) as session:
                account = await session.get_one(Account, 3)
                assert await session.run_sync(lambda session: account.notes) == []
                await session.refresh(account, ["balance"])

    run(main)


@changing
def test_a_region_in_a_greenlet(run: Run, installed: None, tmp_path: Path) -> None:
    """What ``run_sync`` calls may block in a region: the loop goes on without it, and then the greenlet does."""

    async def main() -> None:
        async with database(tmp_path) as engine:
            gate, ticks = Gate(), 0

            def synchronous(connection: sa.Connection) -> int:
                before = connection.scalar(sa.select(sa.func.count(Account.id)))
                with blocking():
                    gate()
                return int(before + connection.scalar(sa.select(sa.func.count(Account.id))))

            async def ask() -> int:
                async with engine.connect() as connection:
                    return await connection.run_sync(synchronous)

            asking = asyncio.create_task(ask())
            home = threading.get_ident()
            await until(lambda: threading.get_ident() != home)
            while ticks < 10:
                await asyncio.sleep(0)
                ticks += 1
            gate.open()
            assert await asking == 2 * ACCOUNTS

    run(main)


@changing
def test_scoped_sessions(run: Run, installed: None, tmp_path: Path) -> None:
    """Each task has its session, wherever it runs."""

    async def main() -> None:
        async with database(tmp_path) as engine:
            scoped = async_scoped_session(async_sessionmaker(engine), asyncio.current_task)

            async def add(number: int) -> None:
                session = scoped()
                assert scoped() is session
                (await scoped.get_one(Account, number)).balance += 1
                await scoped.commit()
                assert scoped() is session
                await scoped.remove()

            async with takeovers():
                await asyncio.gather(*(add(number) for number in range(ACCOUNTS)))
            assert await total(engine) == ACCOUNTS * (EACH + 1)

    run(main)


# ------------------------------------------------------------------------------------------- cancellation, the end


@changing
def test_cancelled_before_home_is_back(run: Run, installed: None, tmp_path: Path) -> None:
    """A query that waits for home and is cancelled has not begun; the connection stays in the pool."""

    async def main() -> None:
        async with database(tmp_path) as engine:
            home = threading.get_ident()
            async with Away() as away:
                query = asyncio.create_task(total(engine))
                await rounds()
                query.cancel()
                await rounds()
                away.come_back()
                await asyncio.wait([query])
            assert query.cancelled() and threading.get_ident() == home
            assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
            assert await total(engine) == ACCOUNTS * EACH

    run(main)


@changing
def test_cancelled_in_the_middle(run: Run, installed: None, tmp_path: Path) -> None:
    """Transactions that are cancelled after some await are rolled back, and their connections come back."""

    async def main() -> None:
        async with database(tmp_path, pool_size=4) as engine:

            async def spend(steps: int) -> None:
                async with engine.begin() as connection:
                    for number in range(ACCOUNTS):
                        await connection.execute(
                            sa.update(Account).where(Account.id == number).values(balance=Account.balance - 1)
                        )
                        if number == steps:
                            asyncio.current_task().cancel()  # type: ignore[union-attr]

            async with takeovers():
                tasks = [asyncio.create_task(spend(steps)) for steps in range(ACCOUNTS - 1)]
                late = [asyncio.create_task(spend(-1)) for _ in range(4)]
                await rounds(50)
                for task in late:
                    task.cancel()
                await asyncio.wait([*tasks, *late])
                assert all(task.cancelled() for task in tasks)
                await until(lambda: engine.pool.checkedout() == 0)  # type: ignore[attr-defined]
                assert await total(engine) % ACCOUNTS == 0, "each transaction was made in full, or not at all"

    run(main)


@changing
def test_disposed_while_home_is_away(run: Run, installed: None, tmp_path: Path) -> None:
    """``dispose()`` waits for home, and closes every connection there."""

    async def main() -> None:
        threads = threading.active_count()
        async with database(tmp_path) as engine:
            connections = [await engine.connect() for _ in range(3)]
            for connection in connections:
                await connection.close()
            async with Away() as away:
                disposing = asyncio.create_task(engine.dispose())
                await rounds()
                assert not disposing.done()
                away.come_back()
                await disposing
        spares = sum(thread.name.startswith("threadlets") for thread in threading.enumerate())
        await until(lambda: threading.active_count() <= threads + spares)

    run(main)


def test_on_other_loops_nothing_changes(run: Run, installed: None, tmp_path: Path) -> None:
    """The database works on every loop."""

    async def main() -> None:
        async with database(tmp_path) as engine:
            assert await asyncio.gather(*(total(engine) for _ in range(5))) == [ACCOUNTS * EACH] * 5

    run(main)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Run a server of PostgreSQL; return what follows the driver in its URL."""
    with serving() as url:
        yield url


@pytest.mark.parametrize("run", ["hands", "uvhands"], indirect=True)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_drivers_of_postgresql(run: Run, installed: None, postgres: str, driver: str) -> None:
    """Rows that are locked and changed by concurrent transactions, of which some are cancelled, add up."""
    pytest.importorskip(driver)

    async def transfer(session: AsyncSession, number: int) -> None:
        pair = sorted((number % ACCOUNTS, (number * 3 + 1) % ACCOUNTS))
        payer, payee = [await session.get_one(Account, each, with_for_update=True) for each in pair]
        payer.balance -= number
        await session.flush()
        if number % 3 == 2:
            asyncio.current_task().cancel()  # type: ignore[union-attr]
        payee.balance += number
        session.add(Note(account=payee, text=f"{number}"))
        await session.flush()  # here it is told: the commit would not be, since SQLAlchemy shields it

    async def main() -> None:
        engine = create_async_engine(f"postgresql+{driver}://{postgres}", pool_size=3, max_overflow=0)
        session_of = async_sessionmaker(engine)

        async def make(number: int) -> None:
            async with session_of.begin() as session:
                await transfer(session, number)

        numbers = [number for number in range(18) if number % ACCOUNTS != (number * 3 + 1) % ACCOUNTS]
        try:
            async with engine.begin() as connection:
                await connection.run_sync(fill)
            async with takeovers():
                results = await asyncio.gather(*map(make, numbers), return_exceptions=True)
                assert await total(engine) == ACCOUNTS * EACH
            assert [result is None for result in results] == [number % 3 != 2 for number in numbers], results
            async with session_of() as session:
                made = {int(text) async for text in await session.stream_scalars(sa.select(Note.text))}
            assert made == {number for number in numbers if number % 3 != 2}
            assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        finally:
            await engine.dispose()

    run(main)


# ------------------------------------------------------------------------------------------- the synchronous engine


def fill(connection: sa.Connection) -> None:
    """Make the tables anew, with some accounts."""
    Base.metadata.drop_all(connection)
    Base.metadata.create_all(connection)
    connection.execute(sa.insert(Account), [{"id": number, "balance": EACH} for number in range(ACCOUNTS)])


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """Return a synchronous engine with two connections, all of which have to come back."""
    url = f"sqlite:///{tmp_path}/accounts.db"
    if request.param == "postgresql":
        pytest.importorskip("psycopg")
        url = f"postgresql+psycopg://{request.getfixturevalue('postgres')}"
    engine = sa.create_engine(url, pool_size=2, max_overflow=0)
    with engine.begin() as connection:
        fill(connection)
    yield engine
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    engine.dispose()


def test_a_session_may_change_threads_between_calls(once: Run, engine: sa.Engine) -> None:
    """One transaction, partly in place, partly on a worker thread."""
    session = orm.Session(engine)

    def spend(amount: int) -> int:
        session.get_one(Account, 3).balance -= amount
        session.flush()
        return threading.get_ident()

    async def main() -> None:
        threads = [await threadlet(contract=contract)(spend)(5) for contract in (IN_PLACE, ON_WORKER, IN_PLACE)]
        assert threads[0] == threads[2] == threading.get_ident() != threads[1]
        await threadlet(contract=ON_WORKER)(session.commit)()
        assert await threadlet(contract=ON_WORKER)(session.get_one)(Account, 3) is session.get_one(Account, 3)
        assert session.get_one(Account, 3).balance == EACH - 15
        session.close()

    once(main)


@pytest.mark.parametrize("before", ["a statement", "the commit"])
def test_a_cancel_rolls_back(once: Run, engine: sa.Engine, before: str) -> None:
    """With checkpoints before statements and commits, what was cancelled has not happened; no connection is lost."""
    invalidated: list[object] = []
    sa.event.listen(engine, "before_execute", lambda *_, **options: checkpoint())
    sa.event.listen(engine, "commit", lambda connection: checkpoint())
    sa.event.listen(engine, "invalidate", lambda *args: invalidated.append(args))
    gate = Gate()

    @threadlet(contract=ON_WORKER)
    def spend() -> None:
        with orm.Session(engine) as session, session.begin():
            session.get_one(Account, 3).balance -= 5
            session.flush()
            gate()
            if before == "a statement":
                session.get_one(Account, 4)

    async def main() -> None:
        spending = spend()
        await asyncio.to_thread(gate.wait_arrived)
        spending.cancel("changed their mind")
        gate.open()
        assert isinstance(await ended(spending), asyncio.CancelledError)
        with engine.connect() as connection:
            assert connection.scalar(sa.select(Account.balance).where(Account.id == 3)) == EACH
        assert not invalidated

    once(main)


@pytest.mark.parametrize("run", ["asyncio", "hands", "uvhands"], indirect=True)
def test_more_threadlets_than_connections(run: Run, engine: sa.Engine) -> None:
    """Each holds its connection while it waits for the loop; those that wait for one do not stop the loop."""

    async def main() -> None:
        changes_hands = hasattr(asyncio.get_running_loop(), "statistics")

        @threadlet(contract=Contract() if changes_hands else ON_WORKER)
        def count() -> int:
            with engine.connect() as connection:
                call_async(asyncio.sleep, 0)
                return int(connection.scalar(sa.select(sa.func.count(Account.id))) or 0)

        assert await asyncio.gather(*(count() for _ in range(20))) == [ACCOUNTS] * 20

    run(main)


def test_a_pool_of_threadlets_for_a_pool_of_connections(once: Run, engine: sa.Engine) -> None:
    """Those who have a connection get a worker thread, too, since no thread waits for a connection."""

    @threadlet(contract=ON_WORKER)
    def work() -> int:
        return 1

    async def have_it_done() -> int:
        return await work()

    @threadlet(contract=ON_WORKER)
    def task() -> int:
        with engine.connect():
            return call_async(have_it_done)

    async def main() -> None:
        async with Pool(Concurrency(2)) as pool:
            assert await asyncio.gather(*(pool.start(task) for _ in range(100))) == [1] * 100

    once(main)


@pytest.mark.parametrize("run", ["hands", "uvhands"], indirect=True)
def test_a_coroutine_may_hold_a_connection_over_an_await(run: Run, engine: sa.Engine) -> None:
    """If the loop changes hands: whoever waits for that connection in place is left behind, and the holder goes on."""

    async def main() -> None:
        home = threading.get_ident()

        async def hold() -> None:
            with engine.connect():
                await until(lambda: threading.get_ident() != home)

        holding = [asyncio.create_task(hold()) for _ in range(2)]
        await rounds()
        with blocking(), engine.connect():
            pass
        await asyncio.gather(*holding)

    run(main)


# ------------------------------------------------------------------------------------------- installing it


def state() -> tuple[object, ...]:
    """Return what an installation may change."""
    return greenlet_spawn.__code__, greenlet_spawn.__kwdefaults__, greenlet_spawn.__defaults__


def test_the_last_uninstall_restores_everything() -> None:
    """``install()`` is counted; after as many undoings everything is as before, whatever their order."""
    before = state()
    first, second = adapter.install(), adapter.install()
    assert state() != before
    first.uninstall()
    first.uninstall()
    assert state() != before
    adapter.uninstall()
    second.uninstall()
    adapter.uninstall()
    assert state() == before
    with pytest.raises(KeyError), adapter.install():
        assert state() != before
        raise KeyError
    assert state() == before


def test_every_name_of_the_function_has_it() -> None:
    """Names that were imported before, by SQLAlchemy or by others, and names that are imported later."""
    from sqlalchemy.ext.asyncio import engine, result, session

    with adapter.install():
        later = ModuleType("later")
        exec("from sqlalchemy.util.concurrency import greenlet_spawn", vars(later))
        names = [module.greenlet_spawn for module in (engine, result, session, later, concurrency)]  # type: ignore[attr-defined]
        assert all(name is greenlet_spawn for name in names)
        assert asyncio.iscoroutinefunction(greenlet_spawn)


def test_what_the_function_promises_is_kept(run: Run, installed: None) -> None:
    """Arguments, results, failures and SQLAlchemy's own option arrive as before."""

    async def main() -> None:
        def function(*args: object, **kwargs: object) -> object:
            return args, kwargs

        assert await greenlet_spawn(function, 1, a=2) == ((1,), {"a": 2})
        with pytest.raises(sa.exc.AwaitRequired):
            await greenlet_spawn(function, _require_await=True)
        assert await greenlet_spawn(lambda: await_only(asyncio.sleep(0, "x")), _require_await=True) == "x"
        with pytest.raises(ZeroDivisionError):
            await greenlet_spawn(lambda: 1 / 0)
        async with pinned():
            assert await greenlet_spawn(lambda: await_only(greenlet_spawn(int, "7"))) == 7

    run(main)


def test_without_a_task() -> None:
    """A coroutine that is driven by hand works as it did without the adapter."""
    with adapter.install():
        coroutine = greenlet_spawn(int, "3")
        with pytest.raises(StopIteration) as stop:
            coroutine.send(None)
        assert stop.value.value == 3


def test_an_unknown_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a version that was not tested one is told what to do should it fail; it is installed all the same."""
    before = state()
    monkeypatch.setattr(adapter, "VERSION", "3.0.1")
    with pytest.warns(RuntimeWarning, match=r"tested with SQLAlchemy 2\.0 and 2\.1, and this is 3\.0\.1.*pinned"):
        adapter.install()
    assert state() != before
    adapter.uninstall()
    assert state() == before


def test_a_version_that_cannot_be_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """If ``greenlet_spawn`` is no coroutine function in Python, nothing is changed and nothing counted."""
    before = state()
    monkeypatch.setattr(adapter, "_spawn", print)
    with pytest.raises(RuntimeError, match="can change: put"):
        adapter.install()
    monkeypatch.undo()
    adapter.uninstall()
    assert state() == before


@pytest.mark.parametrize("missing", ["sqlalchemy", "greenlet"])
def test_a_missing_library_is_told(missing: str) -> None:
    """Without SQLAlchemy, or without greenlet, importing the adapter says what to install."""
    program = f"import sys; sys.modules[{missing!r}] = None; import threadlets.adapters.sqlalchemy"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: SQLAlchemy's async engine needs sqlalchemy and greenlet: pip install 'threadlets[sqlalchemy]'"
    )
