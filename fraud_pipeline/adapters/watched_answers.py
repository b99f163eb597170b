"""What a promoted model answered, and the labels that came since, read from the ledger part by part and counted.

Each read is bounded, so that a tick stays short however much was decided; where it is, is kept between two of them. Reads
only. Knows nothing of limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import orjson
import sqlalchemy as sa

from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_schema import decisions, labels
from fraud_pipeline.adapters.watched_models import WatchedModels, binned
from fraud_pipeline.domain.decision import LITTLE_ENDIAN_FLOAT
from fraud_pipeline.domain.promotion_watch import WatchPromise
from fraud_pipeline.domain.watch_tally import WatchTally

PAGE: Final = 2_000
"""Decisions at once: read, parsed and scored by the other model in about 0.1 s."""
LABEL_PAGE: Final = 20_000
"""Labels at once: most are looked up in vain, being of other versions' payments."""
FIRST_ANSWERS: Final = 20
"""The newest of so many is when the watch begins by the data's clock: one late payment does not make it begin weeks ago."""
BACKWARDS: Final = timedelta(minutes=5)
"""A place that lies further ahead of the clock than this was reached before the clock was set back: it is read on from now."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far was read: everything up to this decision and this label."""

    decided_at: datetime
    transaction_id: str = ""
    label_id: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "decided_at": self.decided_at.isoformat(), "transaction_id": self.transaction_id, "label_id": self.label_id,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Place:
        return cls(**{**stored, "decided_at": datetime.fromisoformat(stored["decided_at"])})

    def not_ahead_of(self, now: datetime) -> Place:
        """Itself, or the moment `now` where the clock has been set back since."""
        return replace(self, decided_at=now, transaction_id="") if self.decided_at > now + BACKWARDS else self


@dataclass(frozen=True, slots=True)
class Answers:
    """Some decisions of one version as columns; `alert` is REVIEW or BLOCK, `held` BLOCK."""

    alert: np.ndarray
    held: np.ndarray
    probability: np.ndarray
    raw: np.ndarray
    event_time: list[datetime]
    degraded: np.ndarray
    features: list[bytes]


def count_answers(
    database: LedgerDatabase,
    version: int,
    place: Place,
    *,
    until: datetime,
    models: WatchedModels,
    promise: WatchPromise,
) -> tuple[WatchTally, Place, bool]:
    """The next PAGE of decisions after `place`, counted; the place after them, and whether more may wait."""
    query = (
        sa.select(decisions)
        .where(
            decisions.c.role == "decided",
            decisions.c.model_version == str(version),
            decisions.c.decided_at >= place.decided_at,
            decisions.c.decided_at <= until,
            sa.or_(decisions.c.decided_at > place.decided_at, decisions.c.transaction_id > place.transaction_id),
        )
        .order_by(decisions.c.decided_at, decisions.c.transaction_id)
        .limit(PAGE)
    )
    with database.reading() as connection:
        rows = connection.execute(query).all()
    if not rows:
        return WatchTally(), place, False
    after = replace(place, decided_at=rows[-1].decided_at, transaction_id=rows[-1].transaction_id)
    return _tally(_answers(rows), models, promise), after, len(rows) == PAGE


def count_labels(
    database: LedgerDatabase, version: int, place: Place, *, since: datetime, models: WatchedModels
) -> tuple[WatchTally, Place, bool]:
    """What the next LABEL_PAGE of labels say of the version's decisions since its promotion; the place, and whether more wait."""
    earlier = labels.alias("earlier")
    with database.reading() as connection:
        newest = connection.execute(sa.select(sa.func.max(labels.c.label_id))).scalar() or 0
        upto = min(newest, place.label_id + LABEL_PAGE)
        if upto <= place.label_id:
            return WatchTally(), place, False
        same = sa.and_(earlier.c.transaction_id == labels.c.transaction_id, earlier.c.label_id < labels.c.label_id)
        again = sa.exists().where(same).label("again")
        query = (
            sa.select(labels.c.is_fraud, labels.c.change, again, decisions)
            .join_from(labels, decisions, decisions.c.transaction_id == labels.c.transaction_id)
            .where(
                labels.c.label_id > place.label_id,
                labels.c.label_id <= upto,
                decisions.c.role == "decided",
                decisions.c.model_version == str(version),
                decisions.c.decided_at >= since,
            )
        )
        rows = connection.execute(query).all()
    return _outcomes(rows, models), replace(place, label_id=upto), upto < newest


def _answers(rows: Sequence[Any]) -> Answers:
    payloads = [orjson.loads(row.payload) for row in rows]
    return Answers(
        alert=np.array([row.decision != "APPROVE" for row in rows]),
        held=np.array([row.decision == "BLOCK" for row in rows]),
        probability=np.array([row.fraud_probability for row in rows]),
        raw=np.array([payload["raw_score"] for payload in payloads], dtype=np.float64),
        event_time=[datetime.fromisoformat(payload["event_time"]) for payload in payloads],
        degraded=np.array([bool(payload["degraded"]) for payload in payloads]),
        features=[row.features for row in rows],
    )


def _other(answers: Answers, models: WatchedModels) -> tuple[np.ndarray, np.ndarray] | None:
    """(raw score, alert) of the model before for each answer; None where it cannot be asked."""
    width = len(models.promoted.input_names)
    vectors = np.frombuffer(b"".join(answers.features), dtype=LITTLE_ENDIAN_FLOAT).reshape(-1, width)
    raw = models.other_raw(vectors.astype(np.float32, copy=False))
    if raw is None or models.other is None:
        return None
    alert, _ = models.other.thresholds.decide(raw)
    return raw, alert


def _tally(answers: Answers, models: WatchedModels, promise: WatchPromise) -> WatchTally:
    sound = ~answers.degraded
    counted: dict[str, Any] = {
        "decisions": int(sound.sum()),
        "alerts": int(answers.alert[sound].sum()),
        "degraded": int(answers.degraded.sum()),
        "scores": binned(answers.raw[sound], promise.score_edges),
    }
    if (other := _other(answers, models)) is not None:
        raw, theirs = other
        ours, theirs = answers.alert[sound], theirs[sound]
        only = ours & ~theirs
        counted |= {
            "compared": int(sound.sum()),
            "both": int((ours & theirs).sum()),
            "new_only": int(only.sum()),
            "old_only": int((theirs & ~ours).sum()),
            "held_gain": float(answers.probability[sound][only & answers.held[sound]].sum()),
            "other_scores": binned(raw[sound], promise.other_edges),
        }
    return WatchTally(
        **counted, first_event=max(answers.event_time[:FIRST_ANSWERS]), newest_event=max(answers.event_time)
    )


def _outcomes(rows: Sequence[Any], models: WatchedModels) -> WatchTally:
    if not rows:
        return WatchTally()
    answers = _answers(rows)
    sound = ~answers.degraded
    change = np.array([int(row.is_fraud) if row.change is None else row.change for row in rows]) * sound
    first = np.array([not row.again for row in rows]) & sound
    ours = answers.alert
    counted: dict[str, Any] = {
        "labelled": int(first.sum()),
        "labelled_alerts": int((first & ours).sum()),
        "frauds": int(change.sum()),
        "caught": int(change[ours].sum()),
    }
    if (other := _other(answers, models)) is not None:
        _, theirs = other
        free = ~answers.held  # what is blocked gets a label by chance only
        counted["new_only_frauds"] = int(change[free & ours & ~theirs].sum())
        counted["old_only_frauds"] = int(change[free & theirs & ~ours].sum())
    return WatchTally(**counted)
