"""Has the world moved away from what the champion was trained on? A verdict by explicit limits.

Two samples in, one verdict out: inputs feature by feature, the champion's predictions, and, where labels are mature,
fraud rate and the alerts' precision and recall. A difference counts where it is both large (its limit) and not chance
(its p-value). Pure numpy: sampling, files and clocks are the caller's.

The current sample should span whole weeks, so that it holds the same weekdays as the reference; day and hour features of
a part of a week differ from a whole one's without anything being wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from numpy.typing import NDArray

from fraud_pipeline.domain.drift_measures import Measures, measure, proportions_differ
from fraud_pipeline.errors import InputError

Status = Literal["stable", "watch", "drift", "broken_input"]
PREDICTION: Final = "prediction"


@dataclass(frozen=True, slots=True)
class DriftLimits:
    """When a difference is too much.

    `wasserstein` (standard deviations) and `jensen_shannon` are the usual 0.1, `missing_rise` the change of a missing rate
    at which a feature drifts. `share` is the share of the counted features that must drift, `prediction` the distance of
    the scores in standard deviations. From `broken_missing_rise` or `broken_wasserstein` on a feature's source is broken
    rather than changed: no habit changes that much in a week. Among mature labels, `missed_ratio` is how many times more
    frauds per payment the alerts may miss, `fraud_rate_ratio` how many times the fraud rate may rise or fall,
    `precision_drop` the share points that the alerts' precision may lose. `significance` is the p-value below which
    chance is ruled out, divided by the number of features where each is asked; frauds come in campaigns, so that
    `fraud_cluster` of them weigh as one (1.2 to 4.8 by world, measured from week to week). `min_rows` is the smallest
    sample that says anything.

    The defaults were chosen on simulated worlds of 2,500 payments a day: over 9 weeks after a training no counted feature
    of a stable world drifts and its scores move by up to 0.12; docs/operations.md has the table, by kind of drift.
    """

    wasserstein: float = 0.1
    jensen_shannon: float = 0.1
    missing_rise: float = 0.1
    share: float = 0.1
    prediction: float = 0.2
    broken_missing_rise: float = 0.3
    broken_wasserstein: float = 3.0
    missed_ratio: float = 1.4
    fraud_rate_ratio: float = 2.0
    precision_drop: float = 0.2
    significance: float = 0.01
    fraud_cluster: float = 3.0
    min_rows: int = 200


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

    `broken`: its source seems to have failed rather than changed. `counted` is False for what is made from fraud labels:
    a handful of values that every campaign moves, so shown, and judged by the outcomes instead.
    """

    feature: str
    drift_detected: bool
    broken: bool
    counted: bool
    measures: Measures

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
        }


@dataclass(frozen=True, slots=True)
class DriftVerdict:
    """What was found. `status` sums it up; `reasons` say it in words, the gravest first.

    "drift" asks for retraining, "broken_input" for somebody who mends the source (retraining would learn the fault),
    "watch" is half way to drift by the features.
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

    @property
    def drifted(self) -> bool:
        """Whether retraining is called for."""
        return self.status == "drift"

    @property
    def drifted_features(self) -> tuple[str, ...]:
        """The furthest first."""
        found = [f for f in self.features if f.drift_detected]
        return tuple(f.feature for f in sorted(found, key=lambda f: -f.measures.score))

    @property
    def broken_features(self) -> tuple[str, ...]:
        return tuple(f.feature for f in self.features if f.broken)

    @property
    def share(self) -> float:
        """Drifted features among those that count."""
        counted = [f.drift_detected for f in self.features if f.counted]
        return sum(counted) / len(counted) if counted else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, under the names that users of other drift APIs know."""
        return {
            "status": self.status,
            "reasons": list(self.reasons),
            "dataset_drift_detected": self.share >= self.limits.share,
            "dataset_drift_share": self.share,
            "num_features_checked": len(self.features),
            "num_features_drifted": len(self.drifted_features),
            "reference_rows": self.reference_rows,
            "current_rows": self.current_rows,
            "drifted_features": list(self.drifted_features),
            "broken_features": list(self.broken_features),
            "feature_details": [f.to_dict() for f in self.features],
            "prediction": None if self.prediction is None else self.prediction.to_dict(),
            "reference_outcomes": _outcomes(self.reference_outcomes),
            "current_outcomes": _outcomes(self.current_outcomes),
            "limits": asdict(self.limits),
        }


def follows_labels(feature: str) -> bool:
    """Whether a feature is made from fraud labels; their names say so."""
    return "fraud" in feature


def judge(
    reference: Mapping[str, NDArray[Any]],
    current: Mapping[str, NDArray[Any]],
    *,
    limits: DriftLimits | None = None,
    predictions: tuple[NDArray[Any], NDArray[Any]] | None = None,
    outcomes: tuple[Outcomes, Outcomes] | None = None,
    customers: int | None = None,
) -> DriftVerdict:
    """Compare samples column by column (name to 1-dimensional numbers, NaN where missing; columns of equal length).

    `predictions` are the champion's raw scores of both samples, `outcomes` mature labels of both periods, `customers` the
    number of different ones in the current sample: payments of one customer repeat each other, and without it a world of
    few customers seems to drift for ever. Raises InputError where a sample is too small or lacks a column of the
    reference.
    """
    limits = limits or DriftLimits()
    rows = (_rows(reference, "reference", limits), _rows(current, "current", limits))
    if lacking := sorted(set(reference) - set(current)):
        raise InputError(f"The current sample lacks {', '.join(lacking)}.", remedy="Compare what one bundle reads.")
    repeated = max(1.0, rows[1] / customers) if customers else 1.0
    features = tuple(
        _judge_feature(name, measure(values, current[name], rows_per_entity=repeated), limits, asked=len(reference))
        for name, values in reference.items()
    )
    prediction = None if predictions is None else _judge_prediction(predictions, limits, rows_per_entity=repeated)
    before, now = outcomes or (None, None)
    status, reasons = _sum_up(features, prediction, _outcome_reasons(before, now, limits), limits)
    return DriftVerdict(status, reasons, features, prediction, *rows, before, now, limits)


def _rows(sample: Mapping[str, NDArray[Any]], name: str, limits: DriftLimits) -> int:
    lengths = {len(values) for values in sample.values()}
    if len(lengths) != 1:
        raise InputError(f"The columns of the {name} sample have lengths {sorted(lengths)}.", remedy="Give whole rows.")
    (rows,) = lengths
    if rows < limits.min_rows:
        raise InputError(
            f"The {name} sample has {rows} payments, and fewer than {limits.min_rows} say nothing about drift.",
            remedy="Compare a longer period.",
        )
    return rows


def _judge_feature(name: str, found: Measures, limits: DriftLimits, *, asked: int) -> FeatureDrift:
    level = limits.significance / max(asked, 1)
    limit = limits.wasserstein if found.stattest == "wasserstein" else limits.jensen_shannon
    moved = found.score >= limit and found.ks_p < level
    emptier = found.missing_rise >= limits.missing_rise and found.missing_p < level
    vanished = found.missing_rise >= limits.broken_missing_rise and found.missing_p < level
    exploded = moved and found.stattest == "wasserstein" and found.score >= limits.broken_wasserstein
    fuller = found.missing_rise <= -limits.missing_rise and found.missing_p < level
    counted = not follows_labels(name)
    return FeatureDrift(name, moved or emptier or fuller, counted and (vanished or exploded), counted, found)


def _judge_prediction(
    predictions: tuple[NDArray[Any], NDArray[Any]], limits: DriftLimits, *, rows_per_entity: float
) -> FeatureDrift:
    if not all(len(scores) >= limits.min_rows for scores in predictions):
        raise InputError("There are too few predictions to compare.", remedy="Give one per payment of each sample.")
    found = measure(*predictions, rows_per_entity=rows_per_entity)
    moved = found.score >= limits.prediction and found.ks_p < limits.significance
    return FeatureDrift(PREDICTION, moved, False, True, found)


def _outcome_reasons(before: Outcomes | None, now: Outcomes | None, limits: DriftLimits) -> list[str]:
    """What mature labels say, in words; nothing where they do not say it clearly."""
    if before is None or now is None:
        return []

    def differ(one: tuple[int, int], other: tuple[int, int]) -> bool:
        return proportions_differ(one, other, cluster=limits.fraud_cluster) < limits.significance

    reasons = []
    if now.missed_rate >= limits.missed_ratio * before.missed_rate and (
        differ((before.missed, before.payments), (now.missed, now.payments))
    ):
        reasons.append(
            f"the alerts miss {now.missed_rate * 1000:.1f} frauds in 1,000 payments, they missed "
            f"{before.missed_rate * 1000:.1f} (recall {now.recall:.0%}, it was {before.recall:.0%})"
        )
    ratio = now.fraud_rate / before.fraud_rate if before.frauds else math.nan
    if (ratio >= limits.fraud_rate_ratio or ratio <= 1 / limits.fraud_rate_ratio) and (
        differ((before.frauds, before.payments), (now.frauds, now.payments))
    ):
        reasons.append(f"the fraud rate is {now.fraud_rate:.2%}, it was {before.fraud_rate:.2%}")
    if before.precision - now.precision >= limits.precision_drop and (
        differ((before.caught, before.alerts), (now.caught, now.alerts))
    ):
        reasons.append(f"{now.precision:.0%} of the alerts are fraud, it was {before.precision:.0%}")
    return reasons


def _sum_up(
    features: tuple[FeatureDrift, ...],
    prediction: FeatureDrift | None,
    outcome_reasons: list[str],
    limits: DriftLimits,
) -> tuple[Status, tuple[str, ...]]:
    counted = [f for f in features if f.counted]
    drifted = [f.feature for f in sorted(counted, key=lambda f: -f.measures.score) if f.drift_detected]
    broken = [f for f in features if f.broken]
    share = len(drifted) / len(counted) if counted else 0.0
    count = f"{len(drifted)} of {len(counted)} features drifted" + (f": {_some(drifted)}" if drifted else "")
    reasons = [_fault(f) for f in broken]
    reasons += outcome_reasons
    if counted and share >= limits.share:
        reasons.append(count)
    if prediction is not None and prediction.drift_detected:
        reasons.append(f"the scores moved by {prediction.measures.score:.2f} standard deviations")
    if broken:
        return "broken_input", tuple(reasons)
    if reasons:
        return "drift", tuple(reasons)
    return "watch" if share >= limits.share / 2 else "stable", (count,)


def _fault(broken: FeatureDrift) -> str:
    found = broken.measures
    if found.missing_rise > 0.01:
        return f"{broken.feature} is missing in {found.current_missing:.0%}, it was in {found.reference_missing:.0%}"
    return f"{broken.feature} moved by {found.score:.1f} standard deviations, more than any habit does"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _outcomes(outcomes: Outcomes | None) -> dict[str, Any] | None:
    if outcomes is None:
        return None
    rates = {name: _json(getattr(outcomes, name)) for name in ("fraud_rate", "precision", "recall", "missed_rate")}
    return {**asdict(outcomes), **rates}
