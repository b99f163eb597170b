"""Labels that were recorded and do not stand in their payment's log yet: what the sink has still to produce.

A recorded label of a Kafka writer has a change and no sequence, until it is read back from that writer's log. So the table
of labels is itself the outbox, whoever recorded them: the sink, or the service.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from fraud_pipeline.adapters import ledger_labels
from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_schema import labels
from fraud_pipeline.adapters.ledger_sink import positions
from fraud_pipeline.adapters.ledger_sink_rows import TopicPartition
from fraud_pipeline.adapters.ledger_transactions import chunks
from fraud_pipeline.domain.transaction import Label, LabelChange


@dataclass(frozen=True, slots=True)
class UnsentLabel:
    """A label, its change, and the log that it belongs into."""

    label_id: int
    label: Label
    change: LabelChange
    writer: str


class LedgerOutbox:
    """Threads may share one."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    def unsent(self, writers: Collection[str], *, limit: int) -> list[UnsentLabel]:
        """Recorded labels of these writers that were not read back yet, in the order in which they were recorded."""
        with self._database.reading() as connection:
            found = ledger_labels.select_unplaced(connection, writers, limit=limit)
            return [UnsentLabel(*each) for each in found]

    def placed(self, label_ids: Collection[int]) -> set[int]:
        """Those of the labels that were read back."""
        found: set[int] = set()
        with self._database.reading() as connection:
            for ids in chunks(sorted(label_ids)):
                query = sa.select(labels.c.label_id).where(labels.c.label_id.in_(ids), labels.c.sequence.is_not(None))
                found.update(connection.execute(query).scalars())
        return found

    def positions(self) -> dict[TopicPartition, int]:
        """How far the sinks have read each partition."""
        with self._database.reading() as connection:
            return positions(connection)

    def counts(self) -> tuple[int, int]:
        """Labels that wait for a payment that is unknown, and labels that wait for their place in a log."""
        unplaced = sa.select(labels.c.writer.is_(None), sa.func.count()).where(labels.c.sequence.is_(None))
        with self._database.reading() as connection:
            by_kind = {bool(unknown): int(n) for unknown, n in connection.execute(unplaced.group_by(sa.text("1")))}
        return by_kind.get(True, 0), by_kind.get(False, 0)
