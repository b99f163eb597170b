"""Has the world moved away from what the champion was trained on? A verdict by explicit limits.

Two samples in, one verdict out: inputs feature by feature, the champion's predictions, and, where labels are mature,
fraud rate and the alerts' precision and recall. A difference counts where it is both large (its limit) and not chance
(its p-value). Pure numpy: sampling, files and clocks are the caller's.

The current sample should span whole weeks, so that it holds the same weekdays as the reference; day and hour features of
a part of a week differ from a whole one's without anything being wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from numpy.typing import NDArray

from fraud_pipeline.domain.drift_measures import Measures, measure, proportions_differ
from fraud_pipeline.domain.drift_verdict import DriftLimits, DriftVerdict, FeatureDrift, Outcomes, Status
from fraud_pipeline.errors import InputError

__all__ = ["DriftLimits", "DriftVerdict", "FeatureDrift", "Outcomes", "Status", "follows_labels", "judge"]

PREDICTION: Final = "prediction"


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
        _judge_feature(name, measure(values, current[name], rows_per_entity=repeated), limits)
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


def _judge_feature(name: str, found: Measures, limits: DriftLimits) -> FeatureDrift:
    level = limits.significance
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
    if before is None or now is None or not before.frauds:
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
    ratio = now.fraud_rate / before.fraud_rate
    if (ratio >= limits.fraud_rate_ratio or ratio <= 1 / limits.fraud_rate_ratio) and (
        differ((before.frauds, before.payments), (now.frauds, now.payments))
    ):
        reasons.append(f"the fraud rate is {now.fraud_rate:.2%}, it was {before.fraud_rate:.2%}")
    if (
        now.alerts
        and before.precision - now.precision >= limits.precision_drop
        and (differ((before.caught, before.alerts), (now.caught, now.alerts)))
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
    reasons = [_fault(f, limits) for f in broken]
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


def _fault(broken: FeatureDrift, limits: DriftLimits) -> str:
    found = broken.measures
    if found.missing_rise >= limits.broken_missing_rise:
        return f"{broken.feature} is missing in {found.current_missing:.0%}, it was in {found.reference_missing:.0%}"
    return f"{broken.feature} moved by {found.score:.1f} standard deviations, more than any habit does"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
