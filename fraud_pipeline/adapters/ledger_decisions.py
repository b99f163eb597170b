"""Decisions and alerts in the ledger: one answer per transaction, one shadow answer beside it.

Functions over an open connection: `ledger.Ledger` decides where a database transaction begins and ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fraud_pipeline.adapters.ledger_records import Alert, DecisionRecord, DecisionRole, RecordedTransaction
from fraud_pipeline.adapters.ledger_schema import alerts, decisions, labels, transactions
from fraud_pipeline.adapters.ledger_transactions import chunks, recorded_from_row

ALERTING: Final = ("REVIEW", "BLOCK")
_FIELDS: Final = tuple(f.name for f in fields(DecisionRecord))


def insert_new(connection: Connection, records: Sequence[DecisionRecord]) -> int:
    """Insert the decisions that are not there yet, with an alert for each REVIEW or BLOCK; returns how many."""
    there = {(r.transaction_id, r.role) for r in find(connection, [r.transaction_id for r in records])}
    new: dict[tuple[str, str], DecisionRecord] = {}
    for record in records:
        if (record.transaction_id, record.role) not in there:
            new.setdefault((record.transaction_id, record.role), record)
    if not new:
        return 0
    connection.execute(sa.insert(decisions), [_row(r) for r in new.values()])
    alerting = [r for r in new.values() if r.role == "decided" and r.decision in ALERTING]
    if alerting:
        connection.execute(sa.insert(alerts), [_alert_row(r) for r in alerting])
        close_labelled_alerts(connection, [r.transaction_id for r in alerting])
    return len(new)


def find(connection: Connection, transaction_ids: Sequence[str]) -> Iterator[DecisionRecord]:
    """All decisions, of both roles, about these transactions."""
    for ids in chunks(transaction_ids):
        for row in connection.execute(sa.select(decisions).where(decisions.c.transaction_id.in_(ids))).mappings():
            yield DecisionRecord(**{name: row[name] for name in _FIELDS})


def select_decided(
    connection: Connection, since: datetime, until: datetime, *, role: DecisionRole
) -> Iterator[DecisionRecord]:
    """Decisions made in [since, until), by time and id."""
    query = (
        sa.select(decisions)
        .where(decisions.c.role == role, decisions.c.decided_at >= since, decisions.c.decided_at < until)
        .order_by(decisions.c.decided_at, decisions.c.transaction_id)
    )
    for row in connection.execution_options(yield_per=5_000).execute(query).mappings():
        yield DecisionRecord(**{name: row[name] for name in _FIELDS})


def select_recent(
    connection: Connection, customer_id: str, *, limit: int
) -> list[tuple[RecordedTransaction, DecisionRecord | None]]:
    """A customer's newest payments with the decisions that were given, the newest first."""
    query = (
        sa.select(transactions)
        .where(transactions.c.customer_id == customer_id)
        .order_by(transactions.c.event_time.desc(), transactions.c.transaction_id)
        .limit(limit)
    )
    payments = [recorded_from_row(row) for row in connection.execute(query)]
    ids = [payment.transaction.transaction_id for payment in payments]
    decided = {record.transaction_id: record for record in find(connection, ids) if record.role == "decided"}
    return [(payment, decided.get(payment.transaction.transaction_id)) for payment in payments]


def select_open_alerts(connection: Connection, *, limit: int) -> Iterator[Alert]:
    """Open alerts, the most probable fraud first."""
    query = (
        sa.select(alerts)
        .where(alerts.c.closed_at.is_(None))
        .order_by(alerts.c.fraud_probability.desc(), alerts.c.transaction_id)
        .limit(limit)
    )
    for row in connection.execute(query).mappings():
        yield Alert(**row)


def close_labelled_alerts(connection: Connection, transaction_ids: Sequence[str]) -> None:
    """Close these transactions' open alerts with their first label, where they have one."""
    for ids in chunks(transaction_ids):
        first = (
            sa.select(sa.func.min(labels.c.label_id))
            .where(labels.c.transaction_id.in_(ids))
            .group_by(labels.c.transaction_id)
        )
        rows = connection.execute(sa.select(labels).where(labels.c.label_id.in_(first))).all()
        if not rows:
            continue
        close = (
            sa.update(alerts)
            .where(alerts.c.transaction_id == sa.bindparam("labelled"), alerts.c.closed_at.is_(None))
            .values(closed_at=sa.bindparam("at"), closed_by=sa.bindparam("by"))
        )
        connection.execute(close, [{"labelled": r.transaction_id, "at": r.known_at, "by": r.author} for r in rows])


def _row(record: DecisionRecord) -> dict[str, Any]:
    if not math.isfinite(record.fraud_probability):
        raise ValueError(f"decision {record.transaction_id}: fraud_probability is {record.fraud_probability}")
    return {name: getattr(record, name) for name in _FIELDS}


def _alert_row(record: DecisionRecord) -> dict[str, Any]:
    return {
        "transaction_id": record.transaction_id,
        "created_at": record.decided_at,
        "decision": record.decision,
        "fraud_probability": record.fraud_probability,
    }
