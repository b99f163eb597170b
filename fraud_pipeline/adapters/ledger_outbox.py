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
from fraud_pipeline.domain.transaction import Label, LabelChange


@dataclass(frozen=True, slots=True)
class UnsentLabel:
    """A label, its change, and the log that it belongs into."""

    label_id: int
    label: Label
    change: LabelChange
    writer: str


def unsent(database: LedgerDatabase, writers: Collection[str], *, limit: int) -> list[UnsentLabel]:
    """Recorded labels of these writers that were not read back yet, in the order in which they were recorded."""
    with database.reading() as connection:
        found = ledger_labels.select_unplaced(connection, writers, limit=limit)
        return [UnsentLabel(*each) for each in found]


def waiting(database: LedgerDatabase) -> int:
    """How many labels wait for a payment that is unknown."""
    query = sa.select(sa.func.count()).where(labels.c.sequence.is_(None), labels.c.writer.is_(None))
    with database.reading() as connection:
        return int(connection.execute(query).scalar_one())
