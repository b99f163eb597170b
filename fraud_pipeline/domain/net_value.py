"""Is a candidate worth as much as the champion? Net value over the same payments, by a paired bootstrap.

Paired, because most of the difference between two periods' values is which frauds happened: both models see the same
ones, and only where they decide differently does a customer count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fraud_pipeline.domain.learning_data import LearningData
from fraud_pipeline.domain.ranking import bootstrap_sums
from fraud_pipeline.domain.thresholds import Costs, Thresholds


@dataclass(frozen=True)
class ValueComparison:
    """Net value over the same payments, candidate minus champion. `low` is the 95 % lower bound of the difference
    (one-sided).
    """

    candidate: float
    champion: float
    difference: float
    low: float


def compare_net_value(
    data: LearningData,
    candidate: tuple[np.ndarray, Thresholds],
    champion: tuple[np.ndarray, Thresholds],
    *,
    costs: Costs,
    budget: float = 1.0,
    replicates: int = 1_000,
    seed: int = 0,
) -> ValueComparison:
    """Paired bootstrap by customer over the same payments; each side is (raw scores of `data`, its own thresholds).

    Alerts beyond the `budget` (a share of the payments' weight) count for neither side: a champion whose scores a drift has
    raised would else be worth what nobody has the hands to collect.
    """
    codes = np.unique(data.customer, return_inverse=True)[1]
    weight = data.weight.astype(np.float64)
    values = [
        weight * thresholds.within(raw, weight, budget).row_values(raw, data.is_fraud, data.amount, costs)
        for raw, thresholds in (candidate, champion)
    ]
    sums = np.stack([np.bincount(codes, values[0] - values[1]), np.bincount(codes, weight)], axis=1)
    drawn = bootstrap_sums(sums, replicates=replicates, seed=seed)
    differences = drawn[:, 0] * (weight.sum() / np.maximum(drawn[:, 1], 1e-12))
    return ValueComparison(
        candidate=float(values[0].sum()),
        champion=float(values[1].sum()),
        difference=float((values[0] - values[1]).sum()),
        low=float(np.quantile(differences, 0.05)),
    )
