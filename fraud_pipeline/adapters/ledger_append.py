"""Decided payments as rows, in the driver's own form: the statements by which the live writer appends in groups.

SQLAlchemy's inserts take five times as long for a single payment; what is written is the same. Knows no connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import chain, repeat
from operator import attrgetter
from typing import Any, Final

import sqlalchemy as sa

from fraud_pipeline.adapters.decided_payments import DecidedPayments
from fraud_pipeline.adapters.ledger_decisions import ALERTING
from fraud_pipeline.adapters.ledger_records import DecisionRecord, LedgerEntry
from fraud_pipeline.adapters.ledger_schema import microseconds, writers
from fraud_pipeline.adapters.ledger_transactions import CONTENT

Row = tuple[Any, ...]
Moment = Callable[[datetime], Any]
_IDENTITY: Final = attrgetter("transaction_id")
_CONTENT: Final = attrgetter(*CONTENT)
"""All fields of a transaction, in the order of the table's first columns."""
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

    def transaction_rows(self, entries: Sequence[LedgerEntry], writer: str, first: int) -> Iterable[Row]:
        """Their rows at this place of the writer's log and the next ones."""
        places = range(first, first + len(entries))
        if isinstance(entries, DecidedPayments):
            return self._by_column(entries, writer, places)
        return [self._transaction_row(entry, writer, place) for entry, place in zip(entries, places, strict=True)]

    def _by_column(self, entries: DecidedPayments, writer: str, places: Sequence[int]) -> Iterable[Row]:
        payments = entries.batch.transactions
        columns = zip(*map(_CONTENT, payments), strict=True)
        ids, moments, *others, attributes = columns
        return zip(
            ids, map(self.moment, moments), *others, map(_attributes, attributes), repeat(writer), places,
            repeat(self.moment(entries.received_at)),
        )  # fmt: skip

    def _transaction_row(self, entry: LedgerEntry, writer: str, sequence: int) -> Row:
        identity, moment, *others, attributes = _CONTENT(entry.transaction)
        return (
            identity, self.moment(moment), *others, _attributes(attributes), writer, sequence,
            self.moment(entry.received_at),
        )  # fmt: skip

    def decision_rows(self, entries: Sequence[LedgerEntry]) -> Iterable[Row]:
        """Those of the entries that were decided."""
        if isinstance(entries, DecidedPayments):
            batch = entries.batch
            return zip(
                map(_IDENTITY, batch.transactions), repeat("decided"), batch.model_versions,
                map(self.moment, batch.decided_at), batch.verdicts, batch.probabilities,
                map(bytes.decode, batch.answers), batch.features,
            )  # fmt: skip
        return [
            (
                r.transaction_id, r.role, r.model_version, self.moment(r.decided_at), r.decision, r.fraud_probability,
                r.payload, r.features,
            )
            for r in _decided(entries)
        ]  # fmt: skip

    def alert_rows(self, entries: Sequence[LedgerEntry]) -> Iterable[Row]:
        """One for each REVIEW or BLOCK that was given."""
        if isinstance(entries, DecidedPayments):
            batch = entries.batch
            return [
                (
                    batch.transactions[place].transaction_id, self.moment(batch.decided_at[place]),
                    batch.verdicts[place], batch.probabilities[place], None, None,
                )
                for place in batch.alerts
            ]  # fmt: skip
        return [
            (r.transaction_id, self.moment(r.decided_at), r.decision, r.fraud_probability, None, None)
            for r in _decided(entries)
            if r.decision in ALERTING and r.role == "decided"
        ]


def _decided(entries: Sequence[LedgerEntry]) -> list[DecisionRecord]:
    return [entry.decision for entry in entries if entry.decision is not None]


def _attributes(values: Mapping[str, float]) -> str:
    return json.dumps(dict(values), allow_nan=False, separators=(",", ":")) if values else "{}"


@cache
def _insert(table: str, columns: int, mark: str, rows: int) -> str:
    """An INSERT of so many whole rows."""
    row = f"({', '.join([mark] * columns)})"
    return f"INSERT INTO {table} VALUES {', '.join([row] * rows)}"  # our own table's name


def _as_it_is(moment: datetime) -> datetime:
    return moment
