"""Watches of promoted models in the ledger: one row per promotion, and the rollback that one may end with.

A rollback and the verdict that it rests on are one database transaction: killed in between, neither is there. Knows nothing
of limits or models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError as ConstraintViolated

from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_history import insert_promotion
from fraud_pipeline.adapters.ledger_schema import promotion_watches
from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline.domain.promotion_watch import WatchVerdict


@dataclass(frozen=True, slots=True)
class WatchRecord:
    """One promotion's watch. `revision` is 0 before it is first written; `state` and `evidence` are JSON."""

    promotion_id: int
    verdict: WatchVerdict
    started_at: datetime
    updated_at: datetime
    state: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    revision: int = 0


def find_watch(database: LedgerDatabase, promotion_id: int) -> WatchRecord | None:
    """The watch of a promotion; None where there is none yet."""
    with database.reading() as connection:
        query = sa.select(promotion_watches).where(promotion_watches.c.promotion_id == promotion_id)
        row = connection.execute(query).mappings().first()
    return None if row is None else WatchRecord(**row)


def all_watches(database: LedgerDatabase) -> dict[int, WatchRecord]:
    """Every watch by its promotion."""
    with database.reading() as connection:
        rows = connection.execute(sa.select(promotion_watches)).mappings().all()
    return {row["promotion_id"]: WatchRecord(**row) for row in rows}


def open_watches(database: LedgerDatabase) -> list[WatchRecord]:
    """Those without a verdict, the oldest first."""
    query = sa.select(promotion_watches).where(promotion_watches.c.verdict == "watching")
    with database.reading() as connection:
        rows = connection.execute(query.order_by(promotion_watches.c.promotion_id)).mappings().all()
    return [WatchRecord(**row) for row in rows]


def write_watch(database: LedgerDatabase, record: WatchRecord, *, rollback: Promotion | None = None) -> bool:
    """Write what follows on the revision that `record` holds, with the rollback that it ends with.

    False where somebody else wrote first, or has promoted another version meanwhile: then nothing is written.
    """
    values = {c.name: getattr(record, c.name) for c in promotion_watches.c}
    values |= {"state": dict(record.state), "evidence": dict(record.evidence), "revision": record.revision + 1}
    try:
        with database.writing() as connection:
            if record.revision == 0:
                connection.execute(sa.insert(promotion_watches).values(**values))
            else:
                seen = sa.and_(
                    promotion_watches.c.promotion_id == record.promotion_id,
                    promotion_watches.c.revision == record.revision,
                )
                if connection.execute(sa.update(promotion_watches).where(seen).values(**values)).rowcount != 1:
                    return False
            if rollback is not None:
                insert_promotion(connection, rollback)
    except ConstraintViolated:
        return False
    return True
