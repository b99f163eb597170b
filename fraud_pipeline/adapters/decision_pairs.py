"""Payments that two versions decided, the one as the answer and the other in shadow, read from the ledger as columns.

Reads only; what the pairs say is `domain.shadow_comparison`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import sqlalchemy as sa

from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_schema import decisions, labels
from fraud_pipeline.domain.shadow_comparison import NO_LABEL, VERDICTS, ModelDecisions, PairedDecisions

PAGE: Final = 5_000
"""Rows per fetch: a payload is about 1 kB."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def paired_decisions(
    database: LedgerDatabase,
    left: str,
    right: str,
    *,
    as_of: datetime,
    since: datetime | None = None,
    until: datetime | None = None,
) -> PairedDecisions:
    """Every payment answered in [since, until) that both versions decided, by time, with the labels known at `as_of`."""
    answer, shadow = decisions.alias("answer"), decisions.alias("shadow")
    query = (
        sa.select(
            answer.c.model_version, answer.c.decision, answer.c.fraud_probability, answer.c.payload,
            shadow.c.decision.label("shadow_decision"), shadow.c.fraud_probability.label("shadow_probability"),
            shadow.c.payload.label("shadow_payload"),
        )
        .join_from(answer, shadow, answer.c.transaction_id == shadow.c.transaction_id)
        .where(
            answer.c.role == "decided",
            shadow.c.role == "shadow",
            sa.tuple_(answer.c.model_version, shadow.c.model_version).in_([(left, right), (right, left)]),
        )
        .order_by(answer.c.decided_at, answer.c.transaction_id)
    )  # fmt: skip
    if since is not None:
        query = query.where(answer.c.decided_at >= since)
    if until is not None:
        query = query.where(answer.c.decided_at < until)
    newest = _newest_labels(as_of)
    query = query.add_columns(newest.c.is_fraud).outerjoin(
        newest, sa.and_(newest.c.transaction_id == answer.c.transaction_id, newest.c.place == 1)
    )
    with database.reading() as connection:
        rows = connection.execution_options(yield_per=PAGE).execute(query)
        found = [_row(row, left) for row in rows]
    return _columns(found)


def _newest_labels(as_of: datetime) -> sa.Subquery:
    """Each transaction's labels, numbered from the newest one known at `as_of`."""
    order = (labels.c.known_at.desc(), labels.c.label_id.desc())
    place = sa.func.row_number().over(partition_by=labels.c.transaction_id, order_by=order).label("place")
    return sa.select(labels.c.transaction_id, labels.c.is_fraud, place).where(labels.c.known_at <= as_of).subquery()


def _row(row: Any, left: str) -> tuple[Any, ...]:
    """Left's verdict, probability and raw score; right's; the moment, who answered, the control share, the label."""
    answered, shadow = orjson.loads(row.payload), orjson.loads(row.shadow_payload)
    first = (VERDICTS.index(row.decision), row.fraud_probability, answered["raw_score"])
    second = (VERDICTS.index(row.shadow_decision), row.shadow_probability, shadow["raw_score"])
    left_answered = row.model_version == left
    moment = (datetime.fromisoformat(answered["event_time"]) - _EPOCH) // _MICROSECOND
    label = NO_LABEL if row.is_fraud is None else int(row.is_fraud)
    sides = (*first, *second) if left_answered else (*second, *first)
    return (*sides, moment, left_answered, answered["control"], label)


def _columns(rows: Iterable[tuple[Any, ...]]) -> PairedDecisions:
    columns = list(zip(*rows, strict=True)) or [()] * 10
    types = (np.int8, np.float64, np.float64, np.int8, np.float64, np.float64, np.int64, np.bool_, np.bool_, np.int8)
    arrays: list[npt.NDArray[Any]] = [np.array(column, dtype=kind) for column, kind in zip(columns, types, strict=True)]
    return PairedDecisions(ModelDecisions(*arrays[:3]), ModelDecisions(*arrays[3:6]), *arrays[6:])
