"""How the champion does before any label says so: what its calibrated probabilities promise of its alerts.

Confidence-based performance estimation (CBPE; NannyML's name for it, described in Bialek et al. 2024, "Estimating Model
Performance Under Covariate Shift Without Labels", arXiv:2401.08348). A payment of probability p is p of a fraud and 1 - p
of a legitimate one, so over payments i with alert a_i in {0, 1}

    frauds        E[F]  = sum p_i                     frauds among alerts  E[TP] = sum a_i p_i
    precision  ~  E[TP] / sum a_i                     recall            ~  E[TP] / E[F]
    PR-AUC     ~  sum_k p_(k) (1/k) sum_{j<=k} p_(j) / sum p      by falling score

It is as good as the calibration: where the inputs move it follows, where the meaning of the inputs changes (a new kind of
fraud) it does not notice. So it stands beside the measured performance and never in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.evaluation import Metric
from fraud_pipeline.domain.ranking import bootstrap_sums
from fraud_pipeline.domain.thresholds import Thresholds

Floats = npt.NDArray[np.float64]

REPLICATES: Final = 1_000
ESTIMATED: Final = ("pr_auc", "precision", "recall", "frauds_among_alerts", "frauds", "alert_share")
"""Frauds are shares of the payments, so that samples of any size compare."""


@dataclass(frozen=True)
class Estimate:
    """What is expected of `rows` payments, by name, with 95 % intervals (NaN: a ratio over nothing, or none is made)."""

    rows: int
    alerts: int
    metrics: Mapping[str, Metric]

    def __getitem__(self, name: str) -> Metric:
        return self.metrics[name]

    def as_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "alerts": self.alerts, "metrics": {n: asdict(m) for n, m in self.metrics.items()}}


def estimate_performance(
    raw: Floats, probability: Floats, customer: npt.NDArray[np.integer[Any]], *, thresholds: Thresholds, seed: int = 0
) -> Estimate:
    """The expected performance on n payments with these scores, calibrated probabilities and customers' codes.

    The intervals are for what labels will say: a bootstrap by customer, with the chance of outcomes (variance p (1 - p))
    added. Frauds that come in campaigns scatter more than that.
    """
    alert = thresholds.decide(raw)[0]
    doubt = probability * (1 - probability)
    columns = (np.ones(len(raw)), alert, alert * probability, probability, alert * doubt, ~alert * doubt)
    codes = np.unique(customer, return_inverse=True)[1]
    by_customer = np.stack([np.bincount(codes, column.astype(np.float64)) for column in columns], axis=1)
    whole = by_customer.sum(axis=0)
    drawn = bootstrap_sums(by_customer, replicates=REPLICATES, seed=seed)
    rng = np.random.default_rng(seed)
    caught = drawn[:, 2] + rng.normal(size=REPLICATES) * np.sqrt(drawn[:, 4])
    missed = drawn[:, 3] - drawn[:, 2] + rng.normal(size=REPLICATES) * np.sqrt(drawn[:, 5])
    caught, missed = np.clip(caught, 0, drawn[:, 1]), np.maximum(missed, 0)
    values = _ratios(whole[None, 0], whole[None, 1], whole[None, 2], (whole[3] - whole[2])[None])
    replicas = _ratios(drawn[:, 0], drawn[:, 1], caught, missed)
    metrics = {name: _interval(float(values[name][0]), replicas[name]) for name in values}
    metrics["pr_auc"] = Metric(expected_average_precision(raw, probability), float("nan"), float("nan"))
    return Estimate(len(raw), int(alert.sum()), {name: metrics[name] for name in ESTIMATED})


def expected_average_precision(raw: Floats, probability: Floats) -> float:
    """PR-AUC that the probabilities promise; payments of one score stand in the ranking as they come."""
    p = probability[np.argsort(-raw, kind="stable")]
    frauds = p.sum()
    if frauds <= 0:
        return float("nan")
    return float(np.sum(p * np.cumsum(p) / np.arange(1, len(p) + 1)) / frauds)


def _ratios(rows: Floats, alerts: Floats, caught: Floats, missed: Floats) -> dict[str, Floats]:
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "precision": caught / alerts,
            "recall": caught / (caught + missed),
            "frauds_among_alerts": caught / rows,
            "frauds": (caught + missed) / rows,
            "alert_share": alerts / rows,
        }
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in found.items()}


def _interval(value: float, drawn: Floats) -> Metric:
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Metric(value, float(low), float(high))
