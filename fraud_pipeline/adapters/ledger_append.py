"""Decided payments as rows, in the driver's own form: the statements by which the live writer appends in groups.

SQLAlchemy's inserts take five times as long for a single payment; what is written is the same. Knows no connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import chain
from typing import Any, Final

import sqlalchemy as sa

from fraud_pipeline.adapters.ledger_decisions import ALERTING
from fraud_pipeline.adapters.ledger_records import DecisionRecord, LedgerEntry
from fraud_pipeline.adapters.ledger_schema import microseconds, writers

Row = tuple[Any, ...]
Moment = Callable[[datetime], Any]
SQLITE_ROWS: Final = (256, 32, 4, 1)
"""The driver lets other threads run at each statement and must then wait for its turn again: few statements for many rows."""


@dataclass(frozen=True, slots=True)
class AppendStatements:
    """The SQL of one dialect, and how it holds a moment (see `ledger_schema.UtcTime`)."""

    take_sequences: str
    begin_writer: str
    mark: str
    many_rows: tuple[int, ...]
    """How many rows one INSERT takes, the most first."""
    moment: Moment

    @classmethod
    def of(cls, dialect: str) -> AppendStatements:
        """For `sqlite` or `postgresql`."""
        mark = "?" if dialect == "sqlite" else "%s"
        return cls(
            take_sequences=f"UPDATE {writers.name} SET last_sequence = last_sequence + {mark} "  # our own names
            f"WHERE writer = {mark} RETURNING last_sequence",
            begin_writer=_insert(writers.name, len(writers.c), mark, 1),
            mark=mark,
            many_rows=SQLITE_ROWS if dialect == "sqlite" else (),
            moment=microseconds if dialect == "sqlite" else _as_it_is,
        )

    def insert(self, cursor: Any, table: sa.Table, rows: Sequence[Row]) -> None:
        """Insert rows of all columns in their order."""
        name, width = table.name, len(table.c)
        if not self.many_rows:
            cursor.executemany(_insert(name, width, self.mark, 1), rows)  # psycopg sends them in one go
            return
        start = 0
        for size in self.many_rows:
            while len(rows) - start >= size:
                cursor.execute(
                    _insert(name, width, self.mark, size), list(chain.from_iterable(rows[start : start + size]))
                )
                start += size

    def transaction_row(self, entry: LedgerEntry, writer: str, sequence: int) -> Row:
        t = entry.transaction
        attributes = json.dumps(dict(t.attributes), allow_nan=False, separators=(",", ":")) if t.attributes else "{}"
        return (
            t.transaction_id, self.moment(t.event_time), t.customer_id, t.merchant_id, t.amount_minor, t.currency,
            t.merchant_category, t.channel, t.country, t.device_id, t.latitude, t.longitude, attributes, writer,
            sequence, self.moment(entry.received_at),
        )  # fmt: skip

    def decision_row(self, record: DecisionRecord) -> Row:
        return (
            record.transaction_id, record.role, record.model_version, self.moment(record.decided_at), record.decision,
            record.fraud_probability, record.payload, record.features,
        )  # fmt: skip

    def alert_rows(self, records: Sequence[DecisionRecord]) -> list[Row]:
        """One for each REVIEW or BLOCK that was given."""
        return [
            (r.transaction_id, self.moment(r.decided_at), r.decision, r.fraud_probability, None, None)
            for r in records
            if r.decision in ALERTING and r.role == "decided"
        ]


@cache
def _insert(table: str, columns: int, mark: str, rows: int) -> str:
    """An INSERT of so many whole rows."""
    row = f"({', '.join([mark] * columns)})"
    return f"INSERT INTO {table} VALUES {', '.join([row] * rows)}"  # our own table's name


def _as_it_is(moment: datetime) -> datetime:
    return moment
