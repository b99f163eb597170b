"""Many payments decided at once, by column: the verdicts, answers and vectors that `decide` gives one by one.

A `Decision` of its own is made only where one is asked for. REST batches and the stream's scorer call this one function.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, Self, overload

import numpy as np
import orjson
from numpy.typing import NDArray

from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import (
    CONTROL_SHARE,
    LITTLE_ENDIAN_FLOAT,
    UNEXPLAINED,
    Decision,
    Explained,
    Verdict,
    explained,
    verdict_on,
)
from fraud_pipeline.domain.transaction import Transaction


@dataclass(slots=True, eq=False)
class DecisionBatch(Sequence[Decision]):
    """Decisions on payments in their order; every list has one value for each.

    `answers` are `Decision.to_json`, to the byte. `features` are the input vectors, float32, little-endian. `alerts` has the
    places of those with a REVIEW or a BLOCK, rising, and what was said of each.
    """

    transactions: list[Transaction]
    answers: list[bytes] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    anomalies: list[float] = field(default_factory=list)
    raw_scores: list[float] = field(default_factory=list)
    features: list[bytes] = field(default_factory=list)
    decided_at: list[datetime] = field(default_factory=list)
    model_versions: list[str] = field(default_factory=list)
    feature_schemas: list[str] = field(default_factory=list)
    processing_times_ms: list[float] = field(default_factory=list)
    alerts: dict[int, Explained] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.transactions)

    @overload
    def __getitem__(self, place: int) -> Decision: ...
    @overload
    def __getitem__(self, place: slice) -> list[Decision]: ...
    def __getitem__(self, place: int | slice) -> Decision | list[Decision]:
        if isinstance(place, slice):
            return [self._decision(each) for each in range(*place.indices(len(self)))]
        return self._decision(range(len(self))[place])

    def _decision(self, place: int) -> Decision:
        payment, why = self.transactions[place], self.alerts.get(place, UNEXPLAINED)
        return Decision(
            transaction_id=payment.transaction_id,
            event_time=payment.event_time,
            decided_at=self.decided_at[place],
            fraud_probability=self.probabilities[place],
            anomaly_score=self.anomalies[place],
            raw_score=self.raw_scores[place],
            decision=self.verdicts[place],
            risk_factors=why.risk_factors,
            reasons=why.reasons,
            model_version=self.model_versions[place],
            feature_schema=self.feature_schemas[place],
            processing_time_ms=self.processing_times_ms[place],
            features=self.features[place],
            control=why.control,
            degraded=self.degraded,
        )

    @classmethod
    def merged(cls, parts: Sequence[tuple[Self, Sequence[int]]]) -> Self:
        """One batch of several, which are equally degraded; each comes with the places of its payments in the whole."""
        columns: dict[str, list[Any]] = {}
        for name in _COLUMNS:
            columns[name] = [None] * sum(len(part) for part, _ in parts)
            for part, places in parts:
                for place, value in zip(places, getattr(part, name), strict=True):
                    columns[name][place] = value
        alerts = {places[place]: why for part, places in parts for place, why in part.alerts.items()}
        return cls(**columns, alerts=dict(sorted(alerts.items())), degraded=parts[0][0].degraded)


_COLUMNS: Final = [each.name for each in fields(DecisionBatch) if each.name not in ("alerts", "degraded")]


def decide_many(
    computed: NDArray[np.float32],
    bundle: ModelBundle,
    transactions: Sequence[Transaction],
    *,
    decided_at: datetime,
    control_share: float = CONTROL_SHARE,
    degraded: tuple[str, ...] = (),
    clock: Callable[[], int] = time.perf_counter_ns,
) -> DecisionBatch:
    """Decide n payments whose features [n, len(FEATURES)] were read each at its turn: the same bits as one by one.

    Each one's `processing_time_ms` is its share of the whole.
    """
    started, count = clock(), len(transactions)
    if not count:
        return DecisionBatch([], degraded=degraded)
    vectors = bundle.inputs.vectors(computed, transactions)
    scores = bundle.score(vectors)
    raw, anomalies, ids = scores.raw.tolist(), scores.anomaly.tolist(), [t.transaction_id for t in transactions]
    verdicts: list[Verdict] = ["APPROVE"] * count
    alerts: dict[int, Explained] = {}
    lowest = min(bundle.thresholds.review, bundle.thresholds.block)
    for place in np.flatnonzero(scores.raw.astype(np.float64) >= lowest).tolist():
        verdicts[place], control = verdict_on(raw[place], bundle, ids[place], control_share=control_share)
        alerts[place] = explained(vectors[place], bundle, anomaly=anomalies[place], control=control)
    content, width = vectors.astype(LITTLE_ENDIAN_FLOAT, copy=False).tobytes(), vectors.shape[1] * 4
    made = DecisionBatch(
        transactions=list(transactions),
        verdicts=verdicts,
        probabilities=scores.probability.tolist(),
        anomalies=anomalies,
        raw_scores=raw,
        features=[content[start : start + width] for start in range(0, len(content), width)],
        decided_at=[decided_at] * count,
        model_versions=[bundle.version] * count,
        feature_schemas=[bundle.feature_schema] * count,
        processing_times_ms=[(clock() - started) / count / 1e6] * count,
        alerts=alerts,
        degraded=degraded,
    )
    made.answers = _answers(made, ids)
    return made


def _answers(batch: DecisionBatch, ids: list[str]) -> list[bytes]:
    """`Decision.to_json` of each, of a batch decided by one bundle at one moment.

    The numbers, times and ids are written by the same library, only many at a time.
    """
    times = [each.event_time.astimezone(UTC) for each in batch.transactions]
    (decided,) = _texts([batch.decided_at[0].astimezone(UTC)])
    usual = _ending(batch, 0, "APPROVE", UNEXPLAINED)
    endings = [usual] * len(batch)
    for place, why in batch.alerts.items():
        endings[place] = _ending(batch, place, batch.verdicts[place], why)
    middle = b',"decided_at":' + decided + b',"fraud_probability":'
    return [
        b"".join(
            (
                b'{"transaction_id":', identity, b',"event_time":', moment, middle, probability, b',"anomaly_score":',
                anomaly, b',"raw_score":', raw, ending,
            )
        )
        for identity, moment, probability, anomaly, raw, ending in zip(
            _texts(ids), _texts(times), _texts(batch.probabilities), _texts(batch.anomalies), _texts(batch.raw_scores),
            endings, strict=True,
        )
    ]  # fmt: skip


def _texts(values: Sequence[Any]) -> list[bytes]:
    """The JSON of each value, none of which holds others."""
    found = orjson.dumps(values, option=orjson.OPT_UTC_Z)[1:-1].split(b",")
    if len(found) != len(values):  # a text with a comma
        return [orjson.dumps(value, option=orjson.OPT_UTC_Z) for value in values]
    return found


def _ending(batch: DecisionBatch, place: int, verdict: Verdict, why: Explained) -> bytes:
    """The members from `decision` on."""
    members = {
        "decision": verdict,
        "risk_factors": list(why.risk_factors),
        "reasons": [{"feature": r.feature, "value": r.value, "contribution": r.contribution} for r in why.reasons],
        "model_version": batch.model_versions[place],
        "feature_schema": batch.feature_schemas[place],
        "processing_time_ms": batch.processing_times_ms[place],
        "control": why.control,
        "degraded": list(batch.degraded),
    }
    return b"," + orjson.dumps(members)[1:]
