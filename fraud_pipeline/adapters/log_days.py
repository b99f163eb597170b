"""The days of a log: which of a stream's days have ended, and a day's payments and labels as its scorers saw them.

A payment belongs to the day of its writer's clock: of the largest event time that the writer had seen by then. So a day of
a writer is a contiguous range of its log. It ends where the writer's clock passes midnight, or where the writer closed the
day's last minute while it was idle. Days of all writers, merged in the order of those clocks, are one log whose features
are those that were served (docs/automation.md says why, and where not). Knows only the ledger's tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from fraud_pipeline.adapters import ledger_raw
from fraud_pipeline.adapters.dataset_schemas import LABEL_SCHEMA, TIMESTAMP, transaction_schema
from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_schema import (
    labels,
    microseconds,
    minute_closings,
    moment_of,
    sink_positions,
    transactions,
)
from fraud_pipeline.domain.feature_spec import CLOSE_AFTER_US, MINUTE_US
from fraud_pipeline.domain.transaction import ATTRIBUTE_PREFIX
from fraud_pipeline.errors import DatasetError

DAY_MINUTES: Final = 24 * 60
SEARCH_FROM_MINUTES: Final = 60
"""The first payment of a day is searched from where the writer closed a minute this long before the day's beginning: at a
closing, its clock was at most two minutes further."""
_EXTRA: Final = ("transaction_id", "currency", "received_at")
_PLAIN: Final = (
    "transaction_id", "event_time", "customer_id", "merchant_id", "amount_minor", "currency", "merchant_category",
    "channel", "country", "device_id", "latitude", "longitude",
)  # fmt: skip
_OF_PAYMENT: Final = (
    "event_time", "customer_id", "merchant_id", "merchant_category", "channel", "country", "device_id",
)  # fmt: skip

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class WriterDay:
    """A writer's day: its payments are those of places [first, end); it closed the day's last minute at place `closed_at`."""

    writer: str
    first: int
    end: int
    closed_at: int


class LogDays:
    """The days of one topic from `first_day` on: what came before it belongs to that day."""

    def __init__(self, database: LedgerDatabase, topic: str, *, first_day: date) -> None:
        self._database = database
        self._topic = topic
        self._first_day = first_day

    def writers(self) -> list[str]:
        """The partitions that the ledger knows, in order; none where no sink has written any of the topic."""
        return list(self._held())

    def ended_through(self) -> date | None:
        """The newest day that all writers have ended and the ledger has whole; None before the first."""
        through = self.closed_through()
        if not through or None in through.values():
            return None
        newest = min(day for day in through.values() if day is not None)
        return newest if newest >= self._first_day else None

    def closed_through(self) -> dict[str, date | None]:
        """By writer, the newest day whose last minute it has closed, at a place that the ledger has reached."""
        minutes = self._closed_minutes().items()
        return {writer: None if minute is None else _day_closed_with(minute) for writer, minute in minutes}

    def clock(self) -> datetime | None:
        """The end of the newest minute that all writers have closed: what the time is in the log. None before the first."""
        minutes = list(self._closed_minutes().values())
        if not minutes or None in minutes:
            return None
        closed = min(minute for minute in minutes if minute is not None)
        return moment_of((closed + 1) * MINUTE_US)

    def _closed_minutes(self) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        table = minute_closings.c
        with self._database.reading() as connection:
            for writer, (_, held) in self._held(connection).items():
                query = (  # by the index, from the newest on: a sensor asks every few seconds
                    sa.select(table.minute)
                    .where(table.writer == writer, table.sequence <= held)
                    .order_by(table.minute.desc())
                    .limit(1)
                )
                minute = connection.execute(query).scalar()
                found[writer] = None if minute is None else int(minute)
        return found

    def days(self, day: date) -> list[WriterDay]:
        """Where each writer's day lies. DatasetError where it has not ended, or the ledger has it no more."""
        with self._database.reading() as connection:
            held = self._held(connection)
            if not held:
                raise DatasetError(f"The ledger holds nothing of {self._topic}.", remedy="Start `fraud sink`.")
            return [self._writer_day(connection, writer, day, *places) for writer, places in held.items()]

    def transactions(self, day: date, attributes: Sequence[str] = ()) -> pa.Table:
        """The day's payments, all writers' merged in the order of their clocks, each writer's in its own order."""
        parts, clocks = [], []
        for each in self.days(day):
            part = self._payments(each, attributes)
            parts.append(part)
            clocks.append(np.maximum.accumulate(_times(part, "event_time")))
        table = pa.concat_tables(parts)
        return table.take(pa.array(np.argsort(np.concatenate(clocks), kind="stable")))

    def labels(self, day: date) -> pa.Table:
        """The label changes that the log told on the day, each with the minute from which it counted.

        A label that the log told after its minute was closed there counts from the oldest open one: that is its `known_at`
        then. One that became known later than the writer's clock stood belongs to the day of its `known_at`.
        """
        found = [self._labels(each, day) for each in self.days(day)]
        table = pa.concat_tables(found)
        return table.sort_by([("known_at", "ascending"), ("transaction_id", "ascending")])

    # Places

    def _held(self, connection: Connection | None = None) -> dict[str, tuple[int, int]]:
        """By writer, the range [first, next) of places that the ledger has."""
        if connection is None:
            with self._database.reading() as opened:
                return self._held(opened)
        table = sink_positions.c
        query = (
            sa.select(table.partition, table.first_offset, table.next_offset)
            .where(table.topic == self._topic)
            .order_by(table.partition)
        )
        return {f"{self._topic}[{partition}]": (first, end) for partition, first, end in connection.execute(query)}

    def _writer_day(self, connection: Connection, writer: str, day: date, begins: int, held: int) -> WriterDay:
        closed_at = self._closed_at(connection, writer, day)
        if closed_at is None or closed_at > held:
            raise DatasetError(
                f"{day} has not ended in {writer}: its last minute is not closed there, or the ledger has not got so far.",
                remedy="Wait for it: the sensor `served_days` asks for a day when all writers have ended it.",
            )
        if day <= self._first_day:
            return WriterDay(writer, begins, self._end(connection, writer, day, begins, closed_at), closed_at)
        before = self._closed_at(connection, writer, day - timedelta(days=1))
        assert before is not None  # it is the closing of this day, or an earlier one
        first = self._end(connection, writer, day - timedelta(days=1), begins, before)
        if begins > 0 and self._is_cut(connection, writer, day, begins):
            raise DatasetError(
                f"The ledger holds {writer} from offset {begins} on, and {day} begins before.",
                remedy="Its rows were deleted (FRAUD_LEDGER_RETENTION_DAYS): such a day cannot be made any more.",
            )
        return WriterDay(writer, first, self._end(connection, writer, day, first, closed_at), closed_at)

    @staticmethod
    def _closed_at(connection: Connection, writer: str, day: date) -> int | None:
        """The place at which the writer closed the day's last minute."""
        table = minute_closings.c
        last = _first_minute(day) + DAY_MINUTES - 1
        query = sa.select(table.sequence).where(table.writer == writer, table.minute >= last).order_by(table.minute)
        found = connection.execute(query.limit(1)).scalar()
        return None if found is None else int(found)

    @staticmethod
    def _end(connection: Connection, writer: str, day: date, lower: int, closed_at: int) -> int:
        """The place before which the writer's day ends: of its first payment after midnight, or where it was closed before."""
        table, midnight = minute_closings.c, _midnight(day + timedelta(days=1))
        early = _first_minute(day) + DAY_MINUTES - SEARCH_FROM_MINUTES
        query = (
            sa.select(table.sequence).where(table.writer == writer, table.minute < early).order_by(table.minute.desc())
        )
        lower = max(lower, int(connection.execute(query.limit(1)).scalar() or 0))
        first = (
            sa.select(transactions.c.sequence)
            .where(
                transactions.c.writer == writer,
                transactions.c.sequence >= lower,
                transactions.c.sequence < closed_at,
                transactions.c.event_time >= midnight,
            )
            .order_by(transactions.c.sequence)
            .limit(1)
        )
        found = connection.execute(first).scalar()
        return closed_at if found is None else int(found)

    @staticmethod
    def _is_cut(connection: Connection, writer: str, day: date, begins: int) -> bool:
        """Whether rows of the log's beginning were deleted, and with them the closings before the day: who knows where it began.

        What is left before `begins` are payments that have a label.
        """
        deleted = sa.select(transactions.c.sequence).where(
            transactions.c.writer == writer, transactions.c.sequence < begins
        )
        if connection.execute(deleted.limit(1)).first() is None:
            return False
        query = sa.select(sa.func.min(minute_closings.c.minute)).where(minute_closings.c.writer == writer)
        oldest = connection.execute(query).scalar()
        return oldest is None or int(oldest) >= _first_minute(day)

    # Rows

    def _payments(self, each: WriterDay, attributes: Sequence[str]) -> pa.Table:
        pages = ledger_raw.raw_pages(self._database, each.writer, each.first - 1, each.end - 1, extra=_EXTRA)
        found = [page.events for page in pages]
        schema = transaction_schema(attributes)
        if not found:
            return schema.empty_table()
        events = pa.concat_tables(found)
        columns = {name: events[name] for name in _PLAIN}
        columns["writer"] = pa.nulls(len(events), pa.string()).fill_null(each.writer)
        columns["sequence"] = events["sequence"]
        given = self._attributes(each) if attributes else {}
        for name in attributes:
            values = [given[sequence].get(name) for sequence in events["sequence"].to_pylist()]
            columns[ATTRIBUTE_PREFIX + name] = pa.array(values, pa.float64())
        return pa.table(columns, schema=schema)

    def _attributes(self, each: WriterDay) -> dict[int, Mapping[str, float]]:
        table = transactions.c
        query = sa.select(table.sequence, table.attributes).where(
            table.writer == each.writer, table.sequence >= each.first, table.sequence < each.end
        )
        with self._database.reading() as connection:
            return {sequence: given for sequence, given in connection.execute(query)}  # noqa: C416 (rows are no pairs)

    def _labels(self, each: WriterDay, day: date) -> pa.Table:
        rows = self._label_rows(each, day)
        if not rows:
            return LABEL_SCHEMA.empty_table()
        places = np.array([row.sequence for row in rows], np.int64)
        known = np.array([microseconds(row.known_at) for row in rows], np.int64)
        known = np.maximum(known, self._open_minutes(each, places) * MINUTE_US)
        # What is in its own minute keeps its exact time; only what came later is moved to the beginning of the oldest open one.
        first, last = microseconds(_midnight(day)), microseconds(_midnight(day + timedelta(days=1)))
        chosen = [
            (row, at)
            for row, at in zip(rows, known.tolist(), strict=True)
            if at < last and (at >= first or day <= self._first_day)
        ]
        columns: dict[str, pa.Array] = {}
        for field in LABEL_SCHEMA:
            if field.name == "known_at":
                columns[field.name] = pa.array([at for _, at in chosen], pa.int64()).cast(TIMESTAMP)
            else:
                columns[field.name] = pa.array([getattr(row, field.name) for row, _ in chosen], field.type)
        return pa.table(columns, schema=LABEL_SCHEMA)

    def _label_rows(self, each: WriterDay, day: date) -> list[sa.Row[tuple[object, ...]]]:
        """Labels of the writer that may count from this day on: told in it, or told before and known in it."""
        midnight, next_one = _midnight(day), _midnight(day + timedelta(days=1))
        told_in_it = labels.c.sequence >= each.first
        told_before = sa.and_(labels.c.sequence < each.first, labels.c.known_at >= midnight)
        own = (labels.c.sequence, labels.c.known_at, labels.c.transaction_id, labels.c.is_fraud, labels.c.source,
               labels.c.author, labels.c.change)  # fmt: skip
        found: list[sa.Row[tuple[object, ...]]] = []
        with self._database.reading() as connection:
            for part in (told_in_it, told_before):
                query = (
                    sa.select(*own, *(transactions.c[name] for name in _OF_PAYMENT))
                    .join_from(labels, transactions, labels.c.transaction_id == transactions.c.transaction_id)
                    .where(
                        labels.c.writer == each.writer,
                        labels.c.sequence < each.closed_at,
                        labels.c.known_at < next_one,
                        part,
                    )
                    .order_by(labels.c.sequence)
                )
                found += connection.execute(query).all()
        return found

    def _open_minutes(self, each: WriterDay, places: Ints) -> Ints:
        """The oldest minute that the writer had open at each of these places."""
        with self._database.reading() as connection:
            table = transactions.c
            query = (
                sa.select(table.sequence, table.event_time)
                .where(table.writer == each.writer, table.sequence >= each.first, table.sequence < each.closed_at)
                .order_by(table.sequence)
            )
            seen = [(sequence, microseconds(moment)) for sequence, moment in connection.execute(query)]
            closed = minute_closings.c
            by_clock = (
                sa.select(closed.sequence, closed.minute)
                .where(
                    closed.writer == each.writer,
                    closed.sequence >= each.first,
                    closed.sequence < each.closed_at,
                    closed.by_clock,
                )
                .order_by(closed.sequence, closed.minute)
            )
            cuts = [(sequence, minute + 1) for sequence, minute in connection.execute(by_clock)]
        clocks = [(sequence, (time_us - CLOSE_AFTER_US) // MINUTE_US) for sequence, time_us in seen]
        # A closing at a place comes before the record there, a payment counts for the records after it.
        return np.maximum(
            _newest_before(places, clocks, including=False),
            _newest_before(places, cuts, including=True),
        )


def _newest_before(places: Ints, marks: Sequence[tuple[int, int]], *, including: bool) -> Ints:
    """The largest value of the marks (place, value; by place) before each place; 0 where there is none."""
    if not marks:
        return np.zeros(len(places), np.int64)
    at, values = np.array(marks, np.int64).T
    largest = np.r_[0, np.maximum.accumulate(values)]
    return np.asarray(largest[np.searchsorted(at, places, side="right" if including else "left")], np.int64)


def _times(table: pa.Table, name: str) -> Ints:
    return np.asarray(table[name].cast(pa.int64()).to_numpy(), np.int64)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


def _first_minute(day: date) -> int:
    return microseconds(_midnight(day)) // MINUTE_US


def _day_closed_with(minute: int) -> date:
    """The newest day whose last minute is not after this one."""
    return date(1970, 1, 1) + timedelta(days=(minute + 1) // DAY_MINUTES - 1)
