"""The curves that people look at, as plain arrays: thin enough to draw and to keep, exact at the points they have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fraud_pipeline.domain.learning_data import LearningData
from fraud_pipeline.domain.thresholds import Costs, ValueCurve, value_curve

CALIBRATION_BINS = 10
CURVE_POINTS = 400
SCORE_BINS = 60


@dataclass(frozen=True)
class Curves:
    """`recall`/`precision`: the PR curve from the highest score down. `false_positive_rate`/`true_positive_rate`: the
    ROC curve.

    `calibration_*`: mean probability, observed share of fraud and payments by bin. `score_edges` [b + 1] with the
    weight of legitimate payments and frauds [b] in each: the raw scores' histogram.
    """

    recall: np.ndarray
    precision: np.ndarray
    base_rate: float
    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    calibration_expected: np.ndarray
    calibration_observed: np.ndarray
    calibration_weight: np.ndarray
    score_edges: np.ndarray
    score_legitimate: np.ndarray
    score_fraud: np.ndarray
    value: ValueCurve


def draw_curves(data: LearningData, raw: np.ndarray, probability: np.ndarray, *, costs: Costs) -> Curves:
    """All curves of scored payments with known outcome."""
    weight = data.weight.astype(np.float64)
    order = np.argsort(-raw, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(raw[order]) != 0, True])
    tp = np.cumsum((weight * data.is_fraud)[order])[ends]
    fp = np.cumsum((weight * ~data.is_fraud)[order])[ends]
    share = tp / (tp + fp)
    recall, precision = _thin(np.r_[0.0, tp / tp[-1]], np.r_[share[0], share])
    tpr, fpr = _thin(np.r_[0.0, tp / tp[-1]], np.r_[0.0, fp / fp[-1]])
    bins = calibration_bins(probability, weight)
    sums = [
        np.bincount(bins, column, minlength=CALIBRATION_BINS)
        for column in (weight, weight * probability, weight * data.is_fraud)
    ]
    used = sums[0] > 0
    edges = np.linspace(raw.min(), max(raw.max(), raw.min() + 1e-9), SCORE_BINS + 1)
    return Curves(
        recall=recall,
        precision=precision,
        base_rate=float(tp[-1] / weight.sum()),
        false_positive_rate=fpr,
        true_positive_rate=tpr,
        calibration_expected=sums[1][used] / sums[0][used],
        calibration_observed=sums[2][used] / sums[0][used],
        calibration_weight=sums[0][used],
        score_edges=edges,
        score_legitimate=np.histogram(raw[~data.is_fraud], edges, weights=weight[~data.is_fraud])[0],
        score_fraud=np.histogram(raw[data.is_fraud], edges, weights=weight[data.is_fraud])[0],
        value=value_curve(raw, is_fraud=data.is_fraud, amount=data.amount, costs=costs, weight=weight),
    )


def calibration_bins(probability: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Bin 0 .. CALIBRATION_BINS - 1 of each payment: bins that hold equal shares of the *expected frauds*.

    Bins of equal numbers of payments would put the top decile of a 1 % problem, all of its frauds, into a single bin.
    """
    order = np.argsort(probability, kind="stable")
    mass = np.cumsum((probability * weight)[order])
    cuts = np.searchsorted(mass, mass[-1] * np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS)
    edges = probability[order][np.minimum(cuts, len(order) - 1)]
    return np.searchsorted(edges, probability, side="left")  # by value, so that equal probabilities stay together


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most CURVE_POINTS points, evenly along x, the ends kept."""
    if len(x) <= CURVE_POINTS:
        return x, y
    picked = np.unique(np.r_[0, np.searchsorted(x, np.linspace(x[0], x[-1], CURVE_POINTS - 2)), len(x) - 1])
    return x[picked], y[picked]
