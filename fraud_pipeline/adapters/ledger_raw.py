"""A partition's log as the sink wrote it into the ledger: what recovery reads where Kafka's retention has passed.

Knows only tables. What of a log the ledger holds is said by the sink's positions, not by counting: a partition has places
that are no payment and no label (markers of transactions, repeats, bad messages).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fraud_pipeline.adapters import ledger_log
from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_log import LogPage
from fraud_pipeline.adapters.ledger_schema import labels, minute_closings, sink_positions
from fraud_pipeline.adapters.ledger_sink_rows import ClosedMinute
from fraud_pipeline.errors import StateError

NOTHING: Final = -1
"""The place before a partition's first."""
_WRITER: Final = re.compile(r"(?P<topic>[A-Za-z0-9._-]+)\[(?P<partition>\d+)\]", re.ASCII)


def raw_through(database: LedgerDatabase, writer: str) -> int:
    """The offset up to and with which the ledger has all of `transactions[3]`; -1 where it has nothing of it."""
    with database.reading() as connection:
        return _held(connection, writer)[1] - 1


def raw_from(database: LedgerDatabase, writer: str) -> int:
    """The first offset from which on the ledger has all of it: later than the log's first where rows were deleted."""
    with database.reading() as connection:
        return _held(connection, writer)[0]


def raw_pages(
    database: LedgerDatabase, writer: str, after: int, until: int, *, extra: tuple[str, ...] = ()
) -> Iterator[LogPage]:
    """Payments and label changes with `after` < offset <= `until`, in the log's order, page by page.

    `extra` names more columns of the payments. Raises StateError where the ledger does not hold all of that range.
    """
    while after < until:
        with database.reading() as connection:
            _check(connection, writer, after, until)  # at each page: the retention deletes meanwhile
            page = ledger_log.read_places(connection, writer, after, until=until, extra=extra)
            _check_labels(connection, writer, page)
        yield page
        after = page.last


def closings(database: LedgerDatabase, writer: str, after: int) -> list[ClosedMinute]:
    """The minutes that the writer closed at places after `after`, in the order of the places and minutes."""
    table = minute_closings.c
    query = (
        sa.select(table.writer, table.minute, table.sequence, table.by_clock)
        .where(table.writer == writer, table.sequence > after)
        .order_by(table.sequence, table.minute)
    )
    with database.reading() as connection:
        return [ClosedMinute(*row) for row in connection.execute(query)]


def _held(connection: Connection, writer: str) -> tuple[int, int]:
    """The range [first, next) of offsets; (0, 0) where the ledger knows nothing of the partition."""
    named = _WRITER.fullmatch(writer)
    if named is None:
        raise StateError(f"{writer!a} is no partition.", remedy="Name it as transactions[3].")
    table = sink_positions.c
    query = sa.select(table.first_offset, table.next_offset).where(
        table.topic == named["topic"], table.partition == int(named["partition"])
    )
    row = connection.execute(query).first()
    return (0, 0) if row is None else (row.first_offset, row.next_offset)


def _check(connection: Connection, writer: str, after: int, until: int) -> None:
    first, next_offset = _held(connection, writer)
    if after + 1 < first or until >= next_offset:
        raise StateError(
            f"The ledger holds {writer} from offset {first} to {next_offset - 1}, not all of {after + 1} to {until}.",
            remedy="Wait until the sink has caught up, or recover from a newer checkpoint. A gap is never skipped.",
        )


def _check_labels(connection: Connection, writer: str, page: LogPage) -> None:
    """A label's change is told with its payment's fields; that payment is kept as long as the label."""
    table = labels.c
    query = sa.select(sa.func.count()).where(
        table.writer == writer, table.sequence > page.after, table.sequence <= page.last
    )
    there = connection.execute(query).scalar_one()
    if there != len(page.labels):
        raise StateError(
            f"{there - len(page.labels)} labels of {writer} after offset {page.after} have no payment in the ledger.",
            remedy="Rows were removed from the ledger: restore it from a backup. A gap is never skipped.",
        )
