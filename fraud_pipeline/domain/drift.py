"""Has the world moved away from what the champion was trained on? A verdict by explicit limits.

Two samples in, one verdict out: inputs feature by feature, the champion's predictions, and, where labels are mature,
fraud rate and the alerts' precision and recall. A difference counts where it is large (its limit), not chance (its
p-value), and not the work of one single day. Pure numpy: sampling, files and clocks are the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from numpy.typing import NDArray

from fraud_pipeline.domain.drift_comparison import Comparison, Window
from fraud_pipeline.domain.drift_features import describe_fault, follows_labels, judge_feature, lone_day
from fraud_pipeline.domain.drift_measures import Measures, proportions_differ
from fraud_pipeline.domain.drift_verdict import DriftLimits, DriftVerdict, FeatureDrift, Outcomes, Status
from fraud_pipeline.errors import InputError

__all__ = [
    "Comparison",
    "DriftLimits",
    "DriftVerdict",
    "FeatureDrift",
    "Outcomes",
    "Status",
    "Window",
    "compare",
    "follows_labels",
    "judge",
    "judge_comparison",
    "nothing_came",
]

Sample = Mapping[str, NDArray[Any]]
PREDICTION: Final = "prediction"


def judge(
    reference: Sample,
    current: Sample,
    *,
    limits: DriftLimits | None = None,
    predictions: tuple[NDArray[Any], NDArray[Any]] | None = None,
    outcomes: tuple[Outcomes, Outcomes] | None = None,
    customers: int | None = None,
    window: Window | None = None,
) -> DriftVerdict:
    """Compare samples column by column (name to 1-dimensional numbers, NaN where missing; columns of equal length).

    `predictions` are the champion's raw scores of both samples, `outcomes` mature labels of both periods. `window` says
    whose and when the current rows are; without it `customers` is the number of different ones: payments of one customer
    repeat each other, and without either a world of few customers seems to drift for ever. A current sample that is too
    small is not judged. Raises InputError where the reference is, or where a column of it is lacking.
    """
    limits = limits or DriftLimits()
    return judge_comparison(
        compare(reference, current, predictions=predictions, customers=customers, window=window),
        limits=limits,
        outcomes=outcomes,
    )


def compare(
    reference: Sample,
    current: Sample,
    *,
    predictions: tuple[NDArray[Any], NDArray[Any]] | None = None,
    customers: int | None = None,
    window: Window | None = None,
) -> Comparison:
    """The samples side by side, checked, to be judged by as many limits as one likes."""
    rows = (_rows(reference, "reference"), _rows(current, "current"))
    if lacking := sorted(set(reference) - set(current)):
        raise InputError(f"The current sample lacks {', '.join(lacking)}.", remedy="Compare what one bundle reads.")
    if window is not None and {len(window.day), len(window.customer)} != {rows[1]}:
        raise InputError(
            "The window is not that of the current sample.", remedy="Give a day and a customer per payment."
        )
    if predictions is not None:
        if tuple(len(scores) for scores in predictions) != rows:
            raise InputError("There are too few predictions to compare.", remedy="Give one per payment of each sample.")
        reference, current = {**reference, PREDICTION: predictions[0]}, {**current, PREDICTION: predictions[1]}
    return Comparison(reference, current, window=window, customers=customers)


def judge_comparison(
    comparison: Comparison, *, limits: DriftLimits, outcomes: tuple[Outcomes, Outcomes] | None = None
) -> DriftVerdict:
    """`judge` of what is compared already."""
    rows = (len(next(iter(comparison.reference.values()))), comparison.rows)
    if rows[0] < limits.min_rows:
        raise InputError(
            f"The reference sample has {rows[0]} payments, and fewer than {limits.min_rows} say nothing about drift.",
            remedy="Train the champion on more payments.",
        )
    before, now = outcomes or (None, None)
    if says_nothing := _too_small(comparison, limits):
        return DriftVerdict("watch", (says_nothing,), (), None, *rows, before, now, limits, judged=False)
    features = tuple(judge_feature(comparison, name, limits) for name in comparison.reference if name != PREDICTION)
    prediction = _judge_prediction(comparison, limits) if PREDICTION in comparison.reference else None
    status, reasons = _sum_up(features, prediction, _outcome_reasons(before, now, limits), limits)
    return DriftVerdict(status, reasons, features, prediction, *rows, before, now, limits)


def nothing_came(*, first: date, last: date, reference_rows: int, limits: DriftLimits | None = None) -> DriftVerdict:
    """The verdict on days that were closed and hold not one payment: whoever sends them has stopped."""
    reason = f"not one payment came from {first} to {last}"
    return DriftVerdict(
        "broken_input", (reason,), (), None, reference_rows, 0, None, None, limits or DriftLimits(), False
    )


def _rows(sample: Sample, name: str) -> int:
    lengths = {len(values) for values in sample.values()}
    if len(lengths) != 1:
        raise InputError(f"The columns of the {name} sample have lengths {sorted(lengths)}.", remedy="Give whole rows.")
    (rows,) = lengths
    if not rows:
        raise InputError(f"The {name} sample has 0 payments.", remedy="Compare days that have payments.")
    return rows


def _too_small(comparison: Comparison, limits: DriftLimits) -> str | None:
    """Why the current sample cannot be judged, in words."""
    if comparison.rows < limits.min_rows:
        return f"{comparison.rows} payments say nothing about drift: at least {limits.min_rows} are needed"
    if comparison.window is not None and comparison.window.effective_customers < limits.min_customers:
        return (
            f"the payments of {comparison.window.customers} customers, most of them of a few, say nothing about drift: at "
            f"least {limits.min_customers} equally active ones are needed"
        )
    return None


def _judge_prediction(comparison: Comparison, limits: DriftLimits) -> FeatureDrift:
    def moved(found: Measures) -> bool:
        return found.score >= limits.prediction and found.ks_p < limits.significance

    found = comparison.whole(PREDICTION)
    lone = lone_day(comparison, PREDICTION, moved) if moved(found) else None
    return FeatureDrift(PREDICTION, moved(found) and lone is None, False, True, found, lone_day=lone)


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
    # A fall is no reason to retrain: the reference period ends when it holds enough frauds, so its rate is on the high side
    # by choice, and what a fall costs the alerts' precision says.
    if ratio >= limits.fraud_rate_ratio and (differ((before.frauds, before.payments), (now.frauds, now.payments))):
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
    reasons = [describe_fault(f) for f in broken]
    reasons += outcome_reasons
    if counted and share >= limits.share:
        reasons.append(count)
    if prediction is not None and prediction.drift_detected:
        reasons.append(f"the scores moved by {prediction.measures.score:.2f} standard deviations")
    if broken:
        return "broken_input", tuple(reasons)
    if reasons:
        return "drift", tuple(reasons)
    alone = _of_one_day([*counted, *([] if prediction is None else [prediction])])
    lone_share = sum(f.lone_day is not None for f in counted) / len(counted) if counted else 0.0
    watched = share + lone_share >= limits.share / 2 or (prediction is not None and prediction.lone_day is not None)
    return "watch" if watched else "stable", (count, *alone)


def _of_one_day(found: list[FeatureDrift]) -> list[str]:
    """What would have drifted but for one day, in words."""
    by_day: dict[date, list[str]] = {}
    for feature in found:
        if feature.lone_day is not None:
            by_day.setdefault(feature.lone_day, []).append(feature.feature)
    return [f"only because of {day}, so not counted: {_some(names)}" for day, names in sorted(by_day.items())]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
