"""What a drift verdict is made of: the limits, the outcomes of alerts, each feature's finding, and their sum."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Literal

from fraud_pipeline.domain.drift_measures import Measures

Status = Literal["stable", "watch", "drift", "broken_input"]
Fault = Literal["missing", "range", "constant", "codes", "scale"]
"""How a source fails: no values, impossible ones, always the same one, codes that mean something else, another unit."""


@dataclass(frozen=True, slots=True)
class DriftLimits:
    """When a difference is too much.

    `wasserstein` (standard deviations) and `jensen_shannon` are the usual 0.1, `missing_rise` the change of a missing rate
    at which a feature drifts. `share` is the share of the counted features that must drift, `prediction` the distance of
    the scores in standard deviations. From `broken_missing_rise` or `broken_wasserstein` on a feature's source is broken
    rather than changed: no habit changes that much in a week; likewise from `broken_outside` impossible values,
    `broken_unseen` codes that never occurred or `broken_jensen_shannon` on, and where a value that varied is constant.
    Among mature labels, `missed_ratio` is how many times more
    frauds per payment the alerts may miss, `fraud_rate_ratio` how many times the fraud rate may rise,
    `precision_drop` the share points that the alerts' precision may lose. `significance` is the p-value below which
    chance is ruled out; frauds come in campaigns, so that `fraud_cluster` of them weigh as one (1.2 to 4.8 by world,
    measured from week to week). `min_rows` and `min_customers` are the smallest sample that says anything (customers are
    counted as equally active ones, so that one script does not pass for a crowd), `min_day_rows` the smallest day that is
    judged by itself.

    Chosen on simulated worlds (docs/drift.md): weekly verdicts for 9 weeks after a training called no stable world of
    1,500 customers drifted, and every kind of drift what it is.
    """

    wasserstein: float = 0.1
    jensen_shannon: float = 0.1
    missing_rise: float = 0.1
    share: float = 0.1
    prediction: float = 0.2
    broken_missing_rise: float = 0.3
    broken_wasserstein: float = 3.0
    broken_jensen_shannon: float = 0.6
    broken_outside: float = 0.05
    broken_unseen: float = 0.3
    missed_ratio: float = 1.4
    fraud_rate_ratio: float = 2.0
    precision_drop: float = 0.2
    significance: float = 0.01
    fraud_cluster: float = 3.0
    min_rows: int = 200
    min_customers: int = 30
    min_day_rows: int = 50


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Payments whose labels are mature, and what the champion's alerts (REVIEW and BLOCK) did among them.

    The reference's come from out-of-time scores: a model recalls nearly all of the frauds it was fitted on.
    """

    payments: int
    frauds: int
    alerts: int
    caught: int

    @property
    def fraud_rate(self) -> float:
        return self.frauds / self.payments if self.payments else math.nan

    @property
    def precision(self) -> float:
        return self.caught / self.alerts if self.alerts else math.nan

    @property
    def recall(self) -> float:
        return self.caught / self.frauds if self.frauds else math.nan

    @property
    def missed(self) -> int:
        """Frauds without an alert."""
        return self.frauds - self.caught

    @property
    def missed_rate(self) -> float:
        return self.missed / self.payments if self.payments else math.nan


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """One feature's measures and what they mean.

    `broken`: its source seems to have failed rather than changed, by which `fault`, from day `since` to day `until` (None:
    no single day shows it). `counted` is False for what is made from fraud labels: a handful of values that every campaign
    moves, so shown, and judged by the outcomes instead. `lone_day`: it would have drifted, but only because of this one
    day, a holiday say; then it has not.
    """

    feature: str
    drift_detected: bool
    broken: bool
    counted: bool
    measures: Measures
    fault: Fault | None = None
    since: date | None = None
    until: date | None = None
    lone_day: date | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, under the names that users of other drift APIs know; NaN is null."""
        measured = asdict(self.measures)
        return {
            "feature": self.feature,
            "drift_detected": self.drift_detected,
            "drift_score": self.measures.score,
            **{name: _json(value) for name, value in measured.items()},
            "broken": self.broken,
            "counted": self.counted,
            "fault": self.fault,
            "broken_since": _day(self.since),
            "broken_until": _day(self.until),
            "lone_day": _day(self.lone_day),
        }


@dataclass(frozen=True, slots=True)
class DriftVerdict:
    """What was found. `status` sums it up; `reasons` say it in words, the gravest first.

    "drift" asks for retraining, "broken_input" for somebody who mends the source (retraining would learn the fault),
    "watch" is half way to drift by the features, or a sample that says too little (`judged` is False then): such a verdict
    neither begins nor ends anything.
    """

    status: Status
    reasons: tuple[str, ...]
    features: tuple[FeatureDrift, ...]
    prediction: FeatureDrift | None
    reference_rows: int
    current_rows: int
    reference_outcomes: Outcomes | None
    current_outcomes: Outcomes | None
    limits: DriftLimits
    judged: bool = True

    @property
    def drifted(self) -> bool:
        """Whether retraining is called for."""
        return self.status == "drift"

    @property
    def drifted_features(self) -> tuple[str, ...]:
        """Those that count, the furthest first."""
        found = [f for f in self.features if f.counted and f.drift_detected]
        return tuple(f.feature for f in sorted(found, key=lambda f: -f.measures.score))

    @property
    def broken_features(self) -> tuple[str, ...]:
        return tuple(f.feature for f in self.features if f.broken)

    @property
    def checked(self) -> int:
        """Features that count."""
        return sum(f.counted for f in self.features)

    @property
    def share(self) -> float:
        """Drifted features among those that count."""
        return len(self.drifted_features) / self.checked if self.checked else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, under the names that users of other drift APIs know."""
        return {
            "status": self.status,
            "reasons": list(self.reasons),
            "judged": self.judged,
            "dataset_drift_detected": self.share >= self.limits.share,
            "dataset_drift_share": self.share,
            "num_features_checked": self.checked,
            "num_features_drifted": len(self.drifted_features),
            "reference_rows": self.reference_rows,
            "current_rows": self.current_rows,
            "drifted_features": list(self.drifted_features),
            "broken_features": list(self.broken_features),
            "broken_since": {f.feature: _day(f.since) for f in self.features if f.broken},
            "feature_details": [f.to_dict() for f in self.features],
            "prediction": None if self.prediction is None else self.prediction.to_dict(),
            "reference_outcomes": _outcomes(self.reference_outcomes),
            "current_outcomes": _outcomes(self.current_outcomes),
            "limits": asdict(self.limits),
        }


def _day(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _outcomes(outcomes: Outcomes | None) -> dict[str, Any] | None:
    if outcomes is None:
        return None
    rates = {name: _json(getattr(outcomes, name)) for name in ("fraud_rate", "precision", "recall", "missed_rate")}
    return {**asdict(outcomes), **rates}
