"""Transactions in the ledger: appended once per id, numbered per writer.

Functions over an open connection: `ledger.Ledger` decides where a database transaction begins and ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fraud_pipeline.adapters.ledger_records import HISTORY_WRITER, LOCAL_WRITER, LedgerEntry, RecordedTransaction
from fraud_pipeline.adapters.ledger_schema import transactions, writers
from fraud_pipeline.domain.transaction import Transaction

CHUNK: Final = 500
"""Ids per query: SQLite's oldest limit on bound values is 999."""
CONTENT: Final = tuple(f.name for f in fields(Transaction))
_WIDTH: Final = len(CONTENT)
if tuple(transactions.c.keys()) != (*CONTENT, "writer", "sequence", "received_at"):
    raise AssertionError("the transactions table and Transaction must name the same fields in the same order")

T = TypeVar("T")


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in runs of CHUNK."""
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def differing_fields(one: Transaction, other: Transaction) -> tuple[str, ...]:
    """The names of the fields in which two transactions of the same id differ."""
    return tuple(name for name in CONTENT if _comparable(getattr(one, name)) != _comparable(getattr(other, name)))


def reserve_sequences(connection: Connection, writer: str, count: int) -> int:
    """Take the next `count` numbers of a writer whose log is the ledger; returns the first.

    The row stays locked until the commit, so numbers become visible in their order and without gaps.
    """
    taken = sa.update(writers).where(writers.c.writer == writer).values(last_sequence=writers.c.last_sequence + count)
    last = connection.execute(taken.returning(writers.c.last_sequence)).scalar()
    if last is None:
        connection.execute(sa.insert(writers).values(writer=writer, last_sequence=count))
        last = count
    return int(last) - count + 1


def find(connection: Connection, transaction_ids: Sequence[str]) -> Iterator[RecordedTransaction]:
    """The recorded ones among these ids, in no particular order."""
    for ids in chunks(transaction_ids):
        rows = connection.execute(sa.select(transactions).where(transactions.c.transaction_id.in_(ids)))
        yield from (recorded_from_row(row) for row in rows)


def select_received(connection: Connection, since: datetime, until: datetime) -> Iterator[RecordedTransaction]:
    """What was received in [since, until), in each writer's order."""
    query = (
        sa.select(transactions)
        .where(
            transactions.c.received_at >= since,
            transactions.c.received_at < until,
            transactions.c.writer != HISTORY_WRITER,
        )
        .order_by(transactions.c.writer, transactions.c.sequence)
    )
    rows = connection.execution_options(yield_per=5_000).execute(query)
    yield from (recorded_from_row(row) for row in rows)


def select_after(connection: Connection, writer: str, after: int, *, limit: int) -> list[RecordedTransaction]:
    """The writer's next transactions after a sequence."""
    query = (
        sa.select(transactions)
        .where(transactions.c.writer == writer, transactions.c.sequence > after)
        .order_by(transactions.c.sequence)
        .limit(limit)
    )
    return [recorded_from_row(row) for row in connection.execute(query)]


def insert(connection: Connection, entries: Sequence[LedgerEntry], *, writer: str) -> list[RecordedTransaction]:
    """Insert entries whose ids are new, numbering them where they bring no sequence."""
    if not entries:
        return []
    given = [e.sequence for e in entries if e.sequence is not None]
    if given and len(given) != len(entries):
        raise ValueError("either every entry has a sequence or none has")
    first = 0 if given else reserve_sequences(connection, writer, len(entries))
    sequences: Iterable[int] = given or range(first, first + len(entries))
    recorded = [
        RecordedTransaction(entry.transaction, writer, sequence, entry.received_at)
        for entry, sequence in zip(entries, sequences, strict=True)
    ]
    connection.execute(sa.insert(transactions), [_transaction_row(r) for r in recorded])
    return recorded


def adopt(connection: Connection, past: Sequence[Transaction]) -> int:
    """Insert payments of the history that are not there yet, so that labels may refer to them; returns how many."""
    there = {t.transaction.transaction_id for t in find(connection, [t.transaction_id for t in past])}
    new = {t.transaction_id: t for t in past if t.transaction_id not in there}
    if connection.execute(sa.select(writers.c.writer).where(writers.c.writer == LOCAL_WRITER)).first() is None:
        connection.execute(sa.insert(writers).values(writer=LOCAL_WRITER, last_sequence=0))
    newest = sa.select(sa.func.max(transactions.c.sequence)).where(transactions.c.writer == HISTORY_WRITER)
    first = int(connection.execute(newest).scalar() or 0) + 1
    rows = [
        RecordedTransaction(transaction, HISTORY_WRITER, place, transaction.event_time)
        for place, transaction in enumerate(new.values(), start=first)
    ]
    if rows:
        connection.execute(sa.insert(transactions), [_transaction_row(row) for row in rows])
    return len(rows)


def recorded_from_row(row: Sequence[Any]) -> RecordedTransaction:
    """A transaction and its place, from the table's columns in their order (by place: a log is read in millions)."""
    return RecordedTransaction(Transaction(*row[:_WIDTH]), *row[_WIDTH:])


def _transaction_row(recorded: RecordedTransaction) -> dict[str, Any]:
    row = {name: getattr(recorded.transaction, name) for name in CONTENT}
    row["attributes"] = dict(recorded.transaction.attributes)
    return row | {"writer": recorded.writer, "sequence": recorded.sequence, "received_at": recorded.received_at}


def _comparable(value: object) -> object:
    return {k: float(v) for k, v in value.items()} if isinstance(value, Mapping) else value
