"""Payments that came through a stream, as its sink keeps them, with the features that they were decided on (`PastLog`).

All writers' logs are run from their beginning, since what merchants and devices share comes from all of them. Knows no
broker: the ledger's rows, its closed minutes, and what the layout began with are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from fraud_pipeline.adapters import ledger_raw
from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_schema import minute_closings, sink_positions, transactions
from fraud_pipeline.adapters.past_log import PastPayments, Progress
from fraud_pipeline.adapters.stream.intake import Item
from fraud_pipeline.adapters.stream.past_run import PastRun, cursor
from fraud_pipeline.adapters.stream.raw_rows import LedgerRawRows
from fraud_pipeline.adapters.stream.stream_checkpoints import StreamCheckpoints
from fraud_pipeline.domain.feature_state import microseconds
from fraud_pipeline.errors import StateError

_IN_ORDER: Final = (
    "The sink writes payments and closed minutes apart from each other: run this again when it has caught up."
)


class StreamPast:
    """The payments of one topic. `kept_for(partitions)` gives what such a layout began with."""

    def __init__(self, database: LedgerDatabase, topic: str, kept_for: Callable[[int], StreamCheckpoints]) -> None:
        self._database = database
        self._topic = topic
        self._kept_for = kept_for
        self._raw = LedgerRawRows(database)

    def payments(self, since: datetime, until: datetime, progress: Progress | None = None) -> Iterator[PastPayments]:
        """Those received in [since, until), some of a writer at a time. StateError for a gap."""
        first, last = microseconds(since), microseconds(until)
        received = sa.and_(transactions.c.received_at >= since, transactions.c.received_at < until)
        yield from self._run(received, lambda item: first <= item.record.received_us < last, progress)

    def payment(self, transaction_id: str) -> PastPayments | None:
        """One of them; None where it did not come through this topic."""
        for found in self._run(
            transactions.c.transaction_id == transaction_id,
            lambda item: item.payment is not None and item.payment.transaction_id == transaction_id,
            None,
        ):
            return found
        return None

    def _run(
        self, condition: sa.ColumnElement[bool], wanted: Callable[[Item], bool], progress: Progress | None
    ) -> Iterator[PastPayments]:
        held = self._held()
        missing = self._count(condition, list(held))
        if not missing:
            return
        whole = missing
        kept = self._kept_for(len(held))
        merged, _ = kept.merged_beginning()
        states = {writer: kept.writer_beginning(place, merged) for place, writer in enumerate(kept.writers)}
        cursors = {
            writer: cursor(
                self._raw.items(writer, states[writer].offset, until),
                self._raw.clock_closings(writer, states[writer].offset, until),
            )
            for writer, until in held.items()
        }
        run = PastRun(states, merged, cursors, check=lambda writer, minute: self._check(writer, minute, held[writer]))
        for found in run.run(wanted):
            payments = [item.payment for item in found.items if item.payment is not None]
            places = [item.record.offset for item in found.items]
            yield PastPayments(payments, found.writer, places, found.values)
            missing -= len(payments)
            if progress is not None:
                progress(whole - missing, whole)
            if missing <= 0:
                return
        if missing:
            raise StateError(
                f"{missing:,} of these payments of {self._topic} stand before the place at which its partitions were changed.",
                remedy="Payments from before `fraud state repartition` cannot be computed anew; name a later range.",
            )

    def _held(self) -> dict[str, int]:
        """Each writer, and the place before which the ledger has all of it."""
        table = sink_positions.c
        query = (
            sa.select(table.partition, table.next_offset).where(table.topic == self._topic).order_by(table.partition)
        )
        with self._database.reading() as connection:
            found = [tuple(row) for row in connection.execute(query)]
        partitions = [partition for partition, _ in found]
        if partitions != list(range(len(partitions))):
            raise StateError(
                f"The ledger holds only partitions {partitions} of {self._topic}.",
                remedy="Start as many sinks as read all of its partitions.",
            )
        return {f"{self._topic}[{partition}]": next_offset for partition, next_offset in found}

    def _count(self, condition: sa.ColumnElement[bool], writers: list[str]) -> int:
        query = sa.select(sa.func.count()).where(transactions.c.writer.in_(writers), condition)
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one()) if writers else 0

    def _check(self, writer: str, minute: int, held: int) -> None:
        """StateError where the writer closed the minute further on than the ledger's payments reach.

        One that has not closed it, as far as the ledger knows, was not waited for: such decisions say so.
        """
        table = minute_closings.c
        query = sa.select(sa.func.min(table.sequence)).where(table.writer == writer, table.minute >= minute)
        with self._database.reading() as connection:
            closed_at = connection.execute(query).scalar()
        if closed_at is not None and closed_at > held:
            raise StateError(
                f"{writer} closed minute {minute} at offset {closed_at}, and the ledger has it up to {held - 1}.",
                remedy=_IN_ORDER,
            )


def is_of_a_stream(database: LedgerDatabase, topic: str) -> bool:
    """Whether a sink has written any of this topic."""
    return ledger_raw.raw_through(database, f"{topic}[0]") >= 0
