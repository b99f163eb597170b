"""How good scores are on payments whose outcome is known: metrics with intervals, slices, and the comparison with a
champion.

Every number is weighted (the control share stands for the blocked) and every interval is a 95 % bootstrap by
customer. Scores come in as arrays: nothing here knows which model made them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from fraud_pipeline.domain.curves import CALIBRATION_BINS, Curves, calibration_bins, draw_curves
from fraud_pipeline.domain.learning_data import LearningData
from fraud_pipeline.domain.ranking import RANK_COLUMNS, CardDays, Ranking, bootstrap_sums
from fraud_pipeline.domain.thresholds import Costs, Thresholds
from fraud_pipeline.errors import TrainingDataError

AMOUNT_BANDS = (10.0, 50.0, 200.0, 1_000.0)
"""Upper edges in major units; the last band is open."""

CARDS_SHARE = 0.02
"""k of card precision@k as a share of the customers: the handbook's 100 cards a day of 5,000."""

SLICE_MIN_FRAUDS = 5
"""With fewer frauds an interval spans nearly everything and is not shown."""


@dataclass(frozen=True)
class Metric:
    """A value and its 95 % interval; NaN where it is not defined (a ratio over nothing)."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class EvaluationSettings:
    """`cards` is k of card precision@k; None takes 2 % of the period's customers."""

    budget: float = 0.005
    cards: int | None = None
    replicates: int = 1_000
    slice_replicates: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Slice:
    """One part of the payments: its size and metrics (a subset of the whole's)."""

    rows: int
    frauds: int
    metrics: Mapping[str, Metric]


@dataclass(frozen=True)
class Confusion:
    """Payments by decision and outcome, as weights."""

    approved_legitimate: float
    approved_fraud: float
    reviewed_legitimate: float
    reviewed_fraud: float
    blocked_legitimate: float
    blocked_fraud: float


@dataclass(frozen=True)
class Evaluation:
    """`metrics` by name; `slices` by dimension (channel, amount, kind) and value; `curves` are arrays for plots."""

    rows: int
    frauds: int
    customers: int
    cards: int
    metrics: Mapping[str, Metric]
    slices: Mapping[str, Mapping[str, Slice]]
    confusion: Confusion
    curves: Curves = field(repr=False)

    def __getitem__(self, name: str) -> Metric:
        return self.metrics[name]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without the curves."""
        slices = {
            dimension: {
                name: {
                    "rows": part.rows,
                    "frauds": part.frauds,
                    "metrics": {key: metric.as_dict() for key, metric in part.metrics.items()},
                }
                for name, part in parts.items()
            }
            for dimension, parts in self.slices.items()
        }
        return {
            "rows": self.rows,
            "frauds": self.frauds,
            "customers": self.customers,
            "cards": self.cards,
            "metrics": {name: metric.as_dict() for name, metric in self.metrics.items()},
            "confusion": asdict(self.confusion),
            "slices": slices,
        }


def evaluate(
    data: LearningData,
    raw: np.ndarray,
    probability: np.ndarray,
    *,
    thresholds: Thresholds,
    costs: Costs,
    settings: EvaluationSettings | None = None,
) -> Evaluation:
    """Judge scores of `data` (rows that count: `eligible`, mature labels). `raw` ranks, `probability` is calibrated.

    Metrics: roc_auc, pr_auc, recall_at_budget, precision_at_budget (the top `budget` of payments by score),
    card_precision_at_k, brier, calibration_error, and at the thresholds expected_over_observed (frauds among alerts),
    recall, precision, f1, alert_share, net_value (major units over the period).
    """
    settings = settings or EvaluationSettings()
    if not len(data) or not data.is_fraud.any() or data.is_fraud.all():
        raise TrainingDataError(
            f"There are {int(data.is_fraud.sum())} frauds among the {len(data)} payments to judge on: both classes are needed.",
            remedy="Choose a period with known frauds.",
        )
    cards = settings.cards or max(1, round(CARDS_SHARE * len(np.unique(data.customer))))
    metrics = _metrics(
        data, raw, probability, thresholds=thresholds, costs=costs, settings=settings, replicates=settings.replicates
    )
    by_day = CardDays.of(raw, data.is_fraud, data.customer, data.day)
    drawn = by_day.bootstrap(cards, replicates=settings.replicates, seed=settings.seed)
    metrics["card_precision_at_k"] = _metric(by_day.precision(cards), drawn)
    return Evaluation(
        rows=len(data),
        frauds=int(data.is_fraud.sum()),
        customers=len(np.unique(data.customer)),
        cards=cards,
        metrics=metrics,
        slices=_slices(data, raw, probability, thresholds=thresholds, costs=costs, settings=settings),
        confusion=_confusion(data, raw, thresholds),
        curves=draw_curves(data, raw, probability, costs=costs),
    )


_SUMS = ("weight", "fraud", "brier", "alert", "alert_fraud", "alert_expected", "value")


def _metrics(
    data: LearningData,
    raw: np.ndarray,
    probability: np.ndarray,
    *,
    thresholds: Thresholds,
    costs: Costs,
    settings: EvaluationSettings,
    replicates: int,
) -> dict[str, Metric]:
    """All metrics but card precision: rank metrics by passes over the ranking, the others from sums by customer."""
    ranking = Ranking.of(raw, data.is_fraud, data.weight, data.customer)
    ranks = ranking.metrics(settings.budget)
    drawn_ranks = ranking.bootstrap(settings.budget, replicates=replicates, seed=settings.seed)
    sums = _customer_sums(data, raw, probability, thresholds=thresholds, costs=costs)
    of_sums = _from_sums(sums.sum(axis=0)[None, :], total_weight=float(data.weight.sum(dtype=np.float64)))
    drawn_sums = bootstrap_sums(sums, replicates=replicates, seed=settings.seed)
    drawn = _from_sums(drawn_sums, total_weight=float(data.weight.sum(dtype=np.float64)))
    ranked = {name: _metric(ranks[i], drawn_ranks[:, i]) for i, name in enumerate(RANK_COLUMNS)}
    return ranked | {name: _metric(of_sums[name][0], drawn[name]) for name in of_sums}


def _customer_sums(
    data: LearningData, raw: np.ndarray, probability: np.ndarray, *, thresholds: Thresholds, costs: Costs
) -> np.ndarray:
    """float64 [customers, len(_SUMS) + 3 * CALIBRATION_BINS]: everything that adds up, by customer."""
    codes = np.unique(data.customer, return_inverse=True)[1]
    weight, fraud = data.weight.astype(np.float64), data.is_fraud
    alert, _ = thresholds.decide(raw)
    value = thresholds.row_values(raw, fraud, data.amount, costs)
    rows = [
        weight, weight * fraud, weight * (probability - fraud) ** 2,
        weight * alert, weight * alert * fraud, weight * alert * probability, weight * value,
    ]  # fmt: skip
    sums = np.stack([np.bincount(codes, column) for column in rows], axis=1)
    bins = calibration_bins(probability, weight)
    cell = codes * CALIBRATION_BINS + bins
    cells = [
        np.bincount(cell, column, minlength=(codes.max() + 1) * CALIBRATION_BINS).reshape(-1, CALIBRATION_BINS)
        for column in (weight, weight * probability, weight * fraud)
    ]
    return np.concatenate([sums, *cells], axis=1)


def _from_sums(sums: np.ndarray, *, total_weight: float) -> dict[str, np.ndarray]:
    """Metrics of each row of sums [r, m]; a ratio over nothing is NaN."""
    s = {name: sums[:, i] for i, name in enumerate(_SUMS)}
    _, expected, observed = np.split(sums[:, len(_SUMS) :], 3, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, precision = s["alert_fraud"] / s["fraud"], s["alert_fraud"] / s["alert"]
        metrics = {
            "brier": s["brier"] / s["weight"],
            "calibration_error": np.abs(expected - observed).sum(axis=1) / s["weight"],
            "expected_over_observed": s["alert_expected"] / s["alert_fraud"],
            "recall": recall,
            "precision": precision,
            "f1": 2 * s["alert_fraud"] / (s["alert"] + s["fraud"]),
            "alert_share": s["alert"] / s["weight"],
            # Per unit of weight drawn, so that the chance number of copies does not widen a sum's interval.
            "net_value": s["value"] * (total_weight / s["weight"]),
        }
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in metrics.items()}


def _metric(value: float, drawn: np.ndarray) -> Metric:
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Metric(float(value), float(low), float(high))


def _slices(
    data: LearningData,
    raw: np.ndarray,
    probability: np.ndarray,
    *,
    thresholds: Thresholds,
    costs: Costs,
    settings: EvaluationSettings,
) -> dict[str, dict[str, Slice]]:
    """Slices by channel, by amount band and, where kinds are known, by campaign kind (its frauds against all
    legitimate payments).
    """
    band = np.searchsorted(AMOUNT_BANDS, data.amount, side="left")
    parts = {
        "channel": {name: data.channel == code for code, name in enumerate(data.channel_names)},
        "amount": {name: band == code for code, name in enumerate(_band_names())},
    }
    if data.kind is not None:
        parts["kind"] = {name: ~data.is_fraud | (data.kind == code + 1) for code, name in enumerate(data.kind_names)}
    return {
        dimension: {
            name: _slice(data, rows, raw, probability, thresholds=thresholds, costs=costs, settings=settings)
            for name, rows in masks.items()
            if rows.any() and (dimension != "kind" or (rows & data.is_fraud).any())
        }
        for dimension, masks in parts.items()
    }


def _slice(
    data: LearningData,
    rows: np.ndarray,
    raw: np.ndarray,
    probability: np.ndarray,
    *,
    thresholds: Thresholds,
    costs: Costs,
    settings: EvaluationSettings,
) -> Slice:
    part = data.rows(rows)
    frauds = int(part.is_fraud.sum())
    if frauds < SLICE_MIN_FRAUDS or frauds == len(part):
        return Slice(len(part), frauds, {})
    metrics = _metrics(
        part,
        raw[rows],
        probability[rows],
        thresholds=thresholds,
        costs=costs,
        settings=settings,
        replicates=settings.slice_replicates,
    )
    return Slice(
        len(part), frauds, {name: metrics[name] for name in ("roc_auc", "pr_auc", "recall", "precision", "net_value")}
    )


def _band_names() -> tuple[str, ...]:
    edges = [f"{edge:g}" for edge in AMOUNT_BANDS]
    between = [f"{low} to {high}" for low, high in pairwise(edges)]
    return (f"up to {edges[0]}", *between, f"over {edges[-1]}")


def _confusion(data: LearningData, raw: np.ndarray, thresholds: Thresholds) -> Confusion:
    alert, block = thresholds.decide(raw)
    weight = data.weight.astype(np.float64)

    def count(decided: np.ndarray, fraud: bool) -> float:
        return float(weight[decided & (data.is_fraud == fraud)].sum())

    return Confusion(
        approved_legitimate=count(~alert, False),
        approved_fraud=count(~alert, True),
        reviewed_legitimate=count(alert & ~block, False),
        reviewed_fraud=count(alert & ~block, True),
        blocked_legitimate=count(block, False),
        blocked_fraud=count(block, True),
    )
