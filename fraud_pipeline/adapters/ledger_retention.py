"""Deleting what is old from a ledger that a stream fills, in small steps: nobody waits for a deletion of a million rows.

Deleted: raw payments of the stream (but not those that have a label: the label's change is told with their fields),
decisions, closed alerts, closings of minutes. Kept for ever: labels, promotions, the log of `local`. What still needs old rows: a
recovery from before Kafka's retention, training, drift and performance reports, `fraud decision verify`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_schema import (
    alerts,
    decisions,
    labels,
    minute_closings,
    sink_positions,
    transactions,
)

STEP: Final = 5_000
"""Rows of one database transaction: some 50 ms, in which SQLite has no other writer."""


def delete_before(database: LedgerDatabase, cutoff: datetime, topic: str) -> Iterator[tuple[str, int]]:
    """Delete step by step what is older; yields the table and the rows after each step.

    `topic` is the one of the transactions. The caller may stop between any two steps.
    """
    for partition in _partitions(database, topic):
        while (deleted := _delete_raw(database, topic, partition, cutoff)) is not None:
            yield transactions.name, deleted
    old_decision = decisions.c.decided_at < cutoff
    old_alert = sa.and_(alerts.c.closed_at.is_not(None), alerts.c.closed_at < cutoff)
    yield from _delete(database, decisions, (decisions.c.transaction_id, decisions.c.role), old_decision)
    yield from _delete(database, alerts, (alerts.c.transaction_id,), old_alert)


def _partitions(database: LedgerDatabase, topic: str) -> list[int]:
    query = sa.select(sink_positions.c.partition).where(sink_positions.c.topic == topic)
    with database.reading() as connection:
        return sorted(connection.execute(query).scalars())


def _delete_raw(database: LedgerDatabase, topic: str, partition: int, cutoff: datetime) -> int | None:
    """The next old rows at the beginning of a partition's log; None where the rest is younger, or there is none.

    In the log's order, so that what is left is whole from `first_offset` on.
    """
    writer = f"{topic}[{partition}]"
    position = (sink_positions.c.topic == topic, sink_positions.c.partition == partition)
    with database.writing() as connection:
        database.lock_labels(connection, exclusive=False)  # or a payment could go while a label for it comes
        first = connection.execute(sa.select(sink_positions.c.first_offset).where(*position)).scalar_one()
        last = _last_old(connection, writer, first, cutoff)
        if last is None:
            return None
        rows = (transactions.c.writer == writer, transactions.c.sequence >= first, transactions.c.sequence <= last)
        unlabelled = ~sa.exists().where(labels.c.transaction_id == transactions.c.transaction_id)
        deleted = connection.execute(sa.delete(transactions).where(*rows, unlabelled)).rowcount
        closed = (minute_closings.c.writer == writer, minute_closings.c.sequence <= last)
        connection.execute(sa.delete(minute_closings).where(*closed))
        connection.execute(sa.update(sink_positions).where(*position).values(first_offset=last + 1))
    return int(deleted)


def _last_old(connection: Connection, writer: str, first: int, cutoff: datetime) -> int | None:
    """The last of the next rows before the first one that is young."""
    query = (
        sa.select(transactions.c.sequence, transactions.c.received_at)
        .where(transactions.c.writer == writer, transactions.c.sequence >= first)
        .order_by(transactions.c.sequence)
        .limit(STEP)
    )
    last = None
    for sequence, received_at in connection.execute(query):
        if received_at >= cutoff:
            break
        last = int(sequence)
    return last


def _delete(
    database: LedgerDatabase, table: sa.Table, key: tuple[sa.Column[Any], ...], old: sa.ColumnElement[bool]
) -> Iterator[tuple[str, int]]:
    chosen = sa.select(*key).where(old).limit(STEP)
    statement = sa.delete(table).where(sa.tuple_(*key).in_(chosen))
    while True:
        with database.writing() as connection:
            deleted = connection.execute(statement).rowcount
        if not deleted:
            return
        yield table.name, deleted
