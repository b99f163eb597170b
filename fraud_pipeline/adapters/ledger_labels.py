"""Labels in the ledger: every version kept, only the change passed on, and a place to wait for unknown transactions.

Functions over an open connection: `ledger.Ledger` decides where a database transaction begins and ends, and keeps
labels and arriving transactions from missing each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fraud_pipeline.adapters.kafka.partitions import partition_of
from fraud_pipeline.adapters.ledger_decisions import close_labelled_alerts
from fraud_pipeline.adapters.ledger_records import (
    HISTORY_WRITER,
    LOCAL_WRITER,
    RecordedLabels,
    RecordedTransaction,
    ReleasedLabel,
)
from fraud_pipeline.adapters.ledger_schema import labels, minute_closings, sink_positions, transactions, writers
from fraud_pipeline.adapters.ledger_transactions import chunks, find, recorded_from_row, reserve_sequences
from fraud_pipeline.domain.transaction import Label, LabelChange, Transaction

_TRANSACTION_COLUMNS: Final = tuple(column.label(f"transaction_{column.name}") for column in transactions.c)


def record(connection: Connection, new_labels: Sequence[Label]) -> RecordedLabels:
    """Keep every label that is not there already. See `Ledger.record_labels`."""
    ids = list(dict.fromkeys(label.transaction_id for label in new_labels))
    known = {t.transaction.transaction_id: t for t in find(connection, ids)}
    there = {_key(label): None for label in _versions(connection, ids)}
    is_fraud = {label.transaction_id: label.is_fraud for label in _versions(connection, ids)}  # the newest version wins
    rows: list[dict[str, Any]] = []
    repeats: list[Label] = []
    continued_by = _history_goes_on(connection)
    for label in new_labels:
        if _key(label) in there:
            repeats.append(label)
            continue
        there[_key(label)] = None
        row = _row(label)
        recorded = known.get(label.transaction_id)
        if recorded is not None:
            row["writer"] = recorded.writer if recorded.writer != HISTORY_WRITER else continued_by(recorded.transaction)
            row["change"] = int(label.is_fraud) - int(is_fraud.get(label.transaction_id, False))
            is_fraud[label.transaction_id] = label.is_fraud
        rows.append(row)
    _number([row for row in rows if row["writer"] is not None], connection)
    released = _insert(connection, rows, known)
    close_labelled_alerts(connection, ids)
    waiting = tuple(row["transaction_id"] for row in rows if row["writer"] is None)
    return RecordedLabels(tuple(released), waiting, tuple(repeats))


def _history_goes_on(connection: Connection) -> Callable[[Transaction], str]:
    """Whose log tells the labels of the history: the partition of the customer where a stream fills the ledger, else `local`."""
    closed = connection.execute(sa.select(minute_closings.c.writer).limit(1)).scalar()
    if closed is None:
        return lambda _: LOCAL_WRITER
    topic = closed.rpartition("[")[0]
    counted = sa.select(sa.func.count()).where(sink_positions.c.topic == topic)
    partitions = int(connection.execute(counted).scalar_one())
    return lambda payment: f"{topic}[{partition_of(payment.customer_id.encode(), partitions)}]"


def release_waiting(connection: Connection, arrived: Sequence[RecordedTransaction]) -> list[ReleasedLabel]:
    """The labels that had come before these transactions, in the order in which they came."""
    by_id = {t.transaction.transaction_id: t for t in arrived}
    rows: list[dict[str, Any]] = []
    is_fraud: dict[str, bool] = {}
    for ids in chunks(list(by_id)):
        query = (
            sa.select(labels)
            .where(labels.c.transaction_id.in_(ids), labels.c.change.is_(None))
            .order_by(labels.c.label_id)
        )
        for found in connection.execute(query).mappings():
            row = dict(found)
            row["writer"] = by_id[row["transaction_id"]].writer
            row["change"] = int(row["is_fraud"]) - int(is_fraud.get(row["transaction_id"], False))
            is_fraud[row["transaction_id"]] = row["is_fraud"]
            rows.append(row)
    _number(rows, connection)
    if rows:
        release = (
            sa.update(labels)
            .where(labels.c.label_id == sa.bindparam("id"))
            .values(change=sa.bindparam("to"), writer=sa.bindparam("of"), sequence=sa.bindparam("at"))
        )
        connection.execute(
            release, [{"id": r["label_id"], "to": r["change"], "of": r["writer"], "at": r["sequence"]} for r in rows]
        )
    return [_released(row, by_id[row["transaction_id"]].transaction) for row in rows]


def select_known(connection: Connection, since: datetime, until: datetime) -> Iterator[tuple[Label, LabelChange]]:
    """Labels of known transactions with `known_at` in [since, until), with their changes, by time."""
    query = (
        sa.select(labels, *_TRANSACTION_COLUMNS)
        .join_from(labels, transactions, labels.c.transaction_id == transactions.c.transaction_id)
        .where(labels.c.change.is_not(None), labels.c.known_at >= since, labels.c.known_at < until)
        .order_by(labels.c.known_at, labels.c.label_id)
    )
    for row in connection.execution_options(yield_per=5_000).execute(query).mappings():
        yield _label(row), _change(row, _joined_transaction(row))


def select_after(connection: Connection, writer: str, after: int, *, limit: int) -> list[tuple[int, LabelChange]]:
    """The writer's next label changes after a sequence."""
    query = (
        sa.select(labels, *_TRANSACTION_COLUMNS)
        .join_from(labels, transactions, labels.c.transaction_id == transactions.c.transaction_id)
        .where(labels.c.writer == writer, labels.c.sequence > after)
        .order_by(labels.c.sequence)
        .limit(limit)
    )
    rows = connection.execute(query).mappings()
    return [(row["sequence"], _change(row, _joined_transaction(row))) for row in rows]


def select_unplaced(
    connection: Connection, of_writers: Collection[str], *, limit: int
) -> list[tuple[int, Label, LabelChange, str]]:
    """Labels of known transactions that have no place in these writers' logs yet: number, label, change and writer."""
    query = (
        sa.select(labels, *_TRANSACTION_COLUMNS)
        .join_from(labels, transactions, labels.c.transaction_id == transactions.c.transaction_id)
        .where(labels.c.sequence.is_(None), labels.c.writer.in_(sorted(of_writers)))
        .order_by(labels.c.label_id)
        .limit(limit)
    )
    rows = connection.execute(query).mappings()
    return [(row["label_id"], _label(row), _change(row, _joined_transaction(row)), row["writer"]) for row in rows]


def waiting_ids(connection: Connection) -> set[str]:
    """Ids of unknown transactions that a label waits for."""
    return set(connection.execute(sa.select(labels.c.transaction_id).where(labels.c.change.is_(None))).scalars())


def _versions(connection: Connection, transaction_ids: Sequence[str]) -> Iterator[Label]:
    """All recorded labels of these transactions, oldest version first."""
    for ids in chunks(transaction_ids):
        query = sa.select(labels).where(labels.c.transaction_id.in_(ids)).order_by(labels.c.label_id)
        yield from (_label(row) for row in connection.execute(query).mappings())


def _number(rows: Sequence[dict[str, Any]], connection: Connection) -> None:
    """Give rows of writers whose log is the ledger their places in it; the others' logs number them elsewhere."""
    names = {row["writer"] for row in rows}
    if not names:
        return
    ours = connection.execute(sa.select(writers.c.writer).where(writers.c.writer.in_(sorted(names)))).scalars()
    for writer in sorted(ours):
        mine = [row for row in rows if row["writer"] == writer]
        first = reserve_sequences(connection, writer, len(mine))
        for sequence, row in enumerate(mine, start=first):
            row["sequence"] = sequence


def _insert(
    connection: Connection, rows: Sequence[dict[str, Any]], known: dict[str, RecordedTransaction]
) -> list[ReleasedLabel]:
    if not rows:
        return []
    insert = sa.insert(labels).returning(labels.c.label_id, sort_by_parameter_order=True)
    released = []
    for label_id, row in zip(connection.execute(insert, list(rows)).scalars(), rows, strict=True):
        if row["change"] is not None:
            row["label_id"] = label_id
            released.append(_released(row, known[row["transaction_id"]].transaction))
    return released


def _joined_transaction(row: Any) -> Transaction:
    return recorded_from_row([row[column.name] for column in _TRANSACTION_COLUMNS]).transaction


def _released(row: dict[str, Any], transaction: Transaction) -> ReleasedLabel:
    return ReleasedLabel(row["label_id"], _change(row, transaction), row["writer"], row["sequence"])


def _row(label: Label) -> dict[str, Any]:
    return {
        "transaction_id": label.transaction_id,
        "is_fraud": label.is_fraud,
        "source": label.source,
        "author": label.author,
        "known_at": label.known_at,
        "change": None,
        "writer": None,
        "sequence": None,
    }


def _label(row: Any) -> Label:
    return Label(row["transaction_id"], row["is_fraud"], row["source"], row["author"], row["known_at"])


def _change(row: Any, transaction: Transaction) -> LabelChange:
    return LabelChange(
        transaction_id=transaction.transaction_id,
        change=row["change"],
        known_at=row["known_at"],
        event_time=transaction.event_time,
        customer_id=transaction.customer_id,
        merchant_id=transaction.merchant_id,
        merchant_category=transaction.merchant_category,
        channel=transaction.channel,
        country=transaction.country,
        device_id=transaction.device_id,
    )


def _key(label: Label) -> tuple[object, ...]:
    return (label.transaction_id, label.is_fraud, label.source, label.author, label.known_at)
