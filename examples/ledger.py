"""A bank: transfers with SQLAlchemy's ORM, as plain functions, some of which are cancelled half-way; no money is lost.

    python examples/ledger.py
    python examples/ledger.py --url postgresql+psycopg://localhost/test

Nothing here is async but the program around it: sessions, queries and transactions are SQLAlchemy's ordinary ones, in
functions that are threadlets. A transfer takes money from one account, and gives it to another by a statement of its
own: between the two it is nowhere. Meanwhile customers change their minds, and the auditor adds up everything.

Two lines make a transaction that can be cancelled: SQLAlchemy's events call ``checkpoint()`` before each statement and
before each commit. If it raises there, the transaction is rolled back, and the connection comes back to its pool. After
that it is too late: the threadlet ends as cancelled, and the money has moved. So what has happened is what the ledger
says, and nothing else: this is why each transfer has a number.

The pool lets as many start as there are connections: so nobody waits for one with a thread in its hands, and those who
wait can be cancelled, and have an order.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tables import aligned

from threadlets import Concurrency, Pool, checkpoint, run, threadlet

CONNECTIONS = 4
EACH = 1000  # in each account at first
PAUSE = 0.001  # seconds between two cancels, and between two audits


@dataclass
class Account:
    """Somebody's money."""

    id: int
    balance: int


@dataclass
class Entry:
    """A transfer that was made."""

    number: int
    payer: int
    payee: int
    amount: int


class Refused(Exception):
    """Raised by a transfer of more than there is."""


@dataclass
class Bank:
    """The database, and what is known beside it."""

    engine: Any
    sessions: Any
    accounts: int
    begun: set[int] = field(default_factory=set)  # the numbers of the transfers that have run


def open_bank(url: str, accounts: int) -> Bank:
    """Make the tables anew, and fill them."""
    import sqlalchemy as sa
    from sqlalchemy import event, orm

    engine = sa.create_engine(url, pool_size=CONNECTIONS, max_overflow=0)
    if engine.dialect.name == "sqlite":  # transactions as other databases have them: of writers one at a time
        event.listen(engine, "connect", prepare)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    mapper = orm.registry()
    for kind in (Account, Entry):
        key, *others = kind.__dataclass_fields__
        columns = [sa.Column(key, sa.Integer, primary_key=True), *(sa.Column(name, sa.Integer) for name in others)]
        mapper.map_imperatively(kind, sa.Table(f"bank_{kind.__name__.lower()}", mapper.metadata, *columns))
    mapper.metadata.drop_all(engine)
    mapper.metadata.create_all(engine)
    sessions = orm.sessionmaker(engine)
    with sessions.begin() as session:
        session.add_all(Account(number, EACH) for number in range(accounts))
    event.listen(engine, "before_execute", lambda *_, **options: checkpoint())
    event.listen(engine, "commit", lambda connection: checkpoint())
    return Bank(engine, sessions, accounts)


def prepare(connection: Any, record: object) -> None:
    """Set up a connection of SQLite."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA busy_timeout = 30000")


@threadlet
def transfer(bank: Bank, number: int, payer: int, payee: int, amount: int) -> None:
    """Move money from one account to another, or do nothing at all."""
    bank.begun.add(number)
    with bank.sessions.begin() as session:
        for each in sorted((payer, payee)):  # all lock them in this order: nobody waits in a circle
            session.get(Account, each, with_for_update=True)
        giver, taker = session.get(Account, payer), session.get(Account, payee)
        if giver.balance < amount:
            raise Refused(f"{giver} has no {amount}")
        giver.balance -= amount
        session.flush()
        taker.balance += amount
        session.add(Entry(number, payer, payee, amount))


@threadlet
def audit(bank: Bank) -> tuple[dict[int, int], list[Entry]]:
    """Return the balances and the ledger, of one moment."""
    import sqlalchemy as sa

    with bank.sessions() as session:
        session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
        balances = {account.id: account.balance for account in session.scalars(sa.select(Account))}
        entries = session.scalars(sa.select(Entry)).all()
        session.expunge_all()
    return balances, entries


async def regret(pool: Pool, wishes: int) -> None:
    """Cancel some transfers, one after the other: those that wait, and those that run, in turns."""
    asked: set[object] = set()
    for turn in range(wishes):
        state = "running" if turn % 2 else "queued"
        found = [handle for handle in pool.select(entrypoint=transfer, state=state) if handle not in asked]
        for handle in random.sample(found, min(1, len(found))):
            asked.add(handle)
            handle.cancel("the customer has changed their mind")
        await asyncio.sleep(PAUSE)


async def look(pool: Pool, bank: Bank, transfers: asyncio.Future[Any]) -> Counter[int]:
    """Audit until all is done; return which sums were found how often."""
    sums = Counter[int]()
    while not transfers.done():
        balances, _ = await pool.start(audit, bank, priority=-1)
        sums[sum(balances.values())] += 1
        await asyncio.sleep(PAUSE)
    return sums


async def work(bank: Bank, transfers: int, wishes: int) -> tuple[list[BaseException | None], Counter[int]]:
    """Make all transfers; return what came of each, and the sums that were found meanwhile."""
    async with Pool(Concurrency(CONNECTIONS), name="bank") as pool:
        handles = []
        for number in range(transfers):
            payer, payee = random.sample(range(bank.accounts), 2)
            handles.append(pool.start(transfer, bank, number, payer, payee, random.randrange(1, EACH)))
        together = asyncio.gather(*handles, return_exceptions=True)
        sums, _ = await asyncio.gather(look(pool, bank, together), regret(pool, wishes))
        return await together, sums


def outcome(error: BaseException | None, begun: bool, booked: bool) -> str:
    """Say in words what has become of a transfer.

    >>> outcome(None, True, True), outcome(asyncio.CancelledError(), True, True)
    ('made', 'made, since the cancel came too late')
    >>> outcome(None, True, False)
    'WRONG: it ended, and is not in the ledger'
    """
    if isinstance(error, asyncio.CancelledError):
        if booked:
            return "made, since the cancel came too late"
        return "cancelled half-way, and rolled back" if begun else "cancelled before it began"
    if isinstance(error, Refused):
        return "WRONG: refused, and in the ledger" if booked else "refused: not enough money"
    if error is not None:
        return f"WRONG: {error!r}"
    return "made" if booked else "WRONG: it ended, and is not in the ledger"


def adds_up(balances: dict[int, int], entries: list[Entry]) -> bool:
    """Say whether the balances are those at first, and what the ledger says.

    >>> adds_up({0: EACH - 5, 1: EACH + 5}, [Entry(0, 0, 1, 5)]), adds_up({0: EACH - 5, 1: EACH}, [Entry(0, 0, 1, 5)])
    (True, False)
    """
    expected = Counter(dict.fromkeys(balances, EACH))
    for entry in entries:
        expected[entry.payer] -= entry.amount
        expected[entry.payee] += entry.amount
    return all(expected[number] == balance for number, balance in balances.items())


def main() -> None:
    """Read the command line, make the transfers, tell what has happened."""
    options = read_options()
    try:
        import sqlalchemy
    except ModuleNotFoundError:
        sys.exit("the package 'sqlalchemy' is missing: pip install 'threadlets[sqlalchemy]'")
    with tempfile.TemporaryDirectory() as folder:
        try:
            bank = open_bank(options.url or f"sqlite:///{folder}/bank.db", options.accounts)
        except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.OperationalError, ModuleNotFoundError) as error:
            sys.exit(f"ledger.py: the database cannot be used: {error}")
        whole = options.accounts * EACH
        print(
            f"{options.transfers} transfers between {options.accounts} accounts with {whole:,} in all, over "
            f"{CONNECTIONS} connections. Customers change their minds {options.cancels} times.\n"
        )
        results, sums = run(work(bank, options.transfers, options.cancels))
        balances, entries = audit.function(bank)
        booked = {entry.number for entry in entries}
        rows = Counter(outcome(error, number in bank.begun, number in booked) for number, error in enumerate(results))
        print(aligned([[f"  {words}", str(count)] for words, count in sorted(rows.items())]))
        out = bank.engine.pool.checkedout()
        print(f"\nAudits meanwhile: {sums.total()}, which found {' and '.join(f'{each:,}' for each in sorted(sums))}.")
        print(f"In the end: {sum(balances.values()):,}, and {len(entries)} entries in the ledger.")
        print(f"Connections that were not given back: {out}.")
        bank.engine.dispose()
        right = sum(balances.values()) == whole and not set(sums) - {whole} and not out
        if not right or not adds_up(balances, entries) or any(words.startswith("WRONG") for words in rows):
            sys.exit("THE BALANCES ARE WRONG")
        print("Each account has what it had at first, and what the ledger says.")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Moves money between accounts of a database, and cancels some of it.")
    parser.add_argument("--transfers", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--cancels", type=int, default=60, help="at most (default: %(default)s)")
    parser.add_argument("--accounts", type=int, default=20, help="how many (default: %(default)s)")
    parser.add_argument("--url", help="of the database, whose tables bank_* are made anew (default: a file of SQLite)")
    options = parser.parse_args()
    if options.transfers < 1 or options.cancels < 0 or options.accounts < 2:
        parser.error("at least one transfer and two accounts are needed, and no negative number of cancels")
    return options


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
