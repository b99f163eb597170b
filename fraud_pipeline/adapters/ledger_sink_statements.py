"""Rows by the thousand into the ledger's tables, each once: how the sink inserts what may be there already.

Over a driver's cursor in an open transaction. PostgreSQL takes them by COPY into a temporary table and one INSERT from
there (50,000 payments/s here, against 25,000 by executemany and 13,000 by many rows to a statement), SQLite by many rows
to a statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any, Final, Protocol

import sqlalchemy as sa

from fraud_pipeline.adapters.ledger_schema import decisions, labels, sink_positions, transactions
from fraud_pipeline.adapters.ledger_sink_rows import Row

SQLITE_ROWS: Final = (256, 32, 4, 1)
"""How many rows one INSERT takes, the most first: each size is prepared once."""
STAGED: Final = (transactions, decisions)
"""Tables that are written by the thousand; a temporary table for a dozen rows would cost more than it saves."""
_LABEL_COLUMNS: Final = tuple(c.name for c in labels.c if c.name != "label_id")
_LABEL_KEY: Final = "transaction_id, is_fraud, source, author, known_at"


class InsertNew(Protocol):
    """Insert rows of all the table's columns that are not there yet; returns how many were new."""

    def __call__(self, cursor: Any, table: sa.Table, rows: Sequence[Row]) -> int: ...


class SinkStatements:
    """The SQL of one dialect: `sqlite` or `postgresql`."""

    def __init__(self, dialect: str) -> None:
        self._mark = "?" if dialect == "sqlite" else "%s"
        self.insert_new: InsertNew = self._insert_many if dialect == "sqlite" else self._insert_postgresql
        mark = self._mark
        self._move = (
            f"UPDATE {sink_positions.name} SET next_offset = {mark} "
            f"WHERE topic = {mark} AND partition = {mark} AND next_offset = {mark}"
        )
        self._place_label = (
            f"INSERT INTO {labels.name} ({', '.join(_LABEL_COLUMNS)}) VALUES ({_marks(mark, len(_LABEL_COLUMNS))}) "
            f"ON CONFLICT ({_LABEL_KEY}) DO UPDATE SET change = excluded.change, writer = excluded.writer, "
            f"sequence = excluded.sequence WHERE {labels.name}.sequence IS NULL"
        )

    def move(self, cursor: Any, moves: Sequence[tuple[int, str, int, int]]) -> bool:
        """Move (next, topic, partition, expected) positions; False where one of them is not as expected."""
        return _many(cursor, self._move, moves) == len(moves)

    def place_labels(self, cursor: Any, rows: Sequence[Row]) -> int:
        """Give recorded labels their places in the log, and insert those that are unknown; returns how many were neither."""
        return len(rows) - _many(cursor, self._place_label, rows)

    def _insert_postgresql(self, cursor: Any, table: sa.Table, rows: Sequence[Row]) -> int:
        if table not in STAGED:
            return _many(cursor, _insert(table.name, len(table.c), self._mark, 1), rows)
        stage = f"sink_{table.name}"
        cursor.execute(f"CREATE TEMPORARY TABLE IF NOT EXISTS {stage} (LIKE {table.name}) ON COMMIT DELETE ROWS")
        with cursor.copy(f"COPY {stage} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        cursor.execute(f"INSERT INTO {table.name} SELECT * FROM {stage} ON CONFLICT DO NOTHING")
        return int(cursor.rowcount)

    def _insert_many(self, cursor: Any, table: sa.Table, rows: Sequence[Row]) -> int:
        start = new = 0
        for size in SQLITE_ROWS:
            while len(rows) - start >= size:
                part = rows[start : start + size]
                cursor.execute(_insert(table.name, len(table.c), self._mark, size), list(chain.from_iterable(part)))
                new += cursor.rowcount
                start += size
        return new


def _many(cursor: Any, statement: str, rows: Sequence[Row]) -> int:
    """Rows that the statement changed in all: both drivers add them up."""
    if not rows:
        return 0
    cursor.executemany(statement, rows)
    return int(cursor.rowcount)


@cache
def _insert(table: str, columns: int, mark: str, rows: int) -> str:
    values = ", ".join([f"({_marks(mark, columns)})"] * rows)
    return f"INSERT INTO {table} VALUES {values} ON CONFLICT DO NOTHING"  # our own table's name


def _marks(mark: str, count: int) -> str:
    return ", ".join([mark] * count)
