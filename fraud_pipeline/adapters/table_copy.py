"""All rows of a set of tables from one database into another, SQLite or PostgreSQL alike: one snapshot read, one transaction written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

ROWS: Final = 5_000
"""Read and written at once: a few MB of decisions with their features."""

Change = Callable[[str, dict[str, Any]], dict[str, Any]]
"""(table, row) -> the row as the target is to have it."""


def snapshot(connection: Connection) -> None:
    """Have everything that this connection reads come from one moment; call it before the first read."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def copy_tables(
    source: Connection, target: Connection, metadata: sa.MetaData, *, change: Change = lambda _, row: row
) -> dict[str, int]:
    """Copy tables that both databases have, in the order of their foreign keys; returns rows by table."""
    copied = {}
    for table in metadata.sorted_tables:
        count = 0
        rows = source.execution_options(stream_results=True).execute(sa.select(table))
        for batch in rows.mappings().partitions(ROWS):
            target.execute(sa.insert(table), [change(table.name, dict(row)) for row in batch])
            count += len(batch)
        copied[table.name] = count
    if target.dialect.name == "postgresql":
        for table in metadata.sorted_tables:
            _set_sequences(target, table)
    return copied


def count_rows(connection: Connection, metadata: sa.MetaData) -> dict[str, int]:
    """How many rows each table has."""
    return {
        table.name: int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
        for table in metadata.sorted_tables
    }


def _set_sequences(target: Connection, table: sa.Table) -> None:
    """Numbers that the database gives go on after those that were copied."""
    for column in table.primary_key.columns:
        if not isinstance(column.type, sa.Integer):
            continue
        named: Mapping[str, Any] = {"table": f'"{table.name}"', "column": column.name}
        sequence = target.execute(sa.text("SELECT pg_get_serial_sequence(:table, :column)"), named).scalar()
        if sequence is not None:
            newest = target.execute(sa.select(sa.func.max(column))).scalar()
            target.execute(sa.text("SELECT setval(:name, :value, :used)"), {
                "name": sequence, "value": newest or 1, "used": newest is not None,
            })  # fmt: skip
