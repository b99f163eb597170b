"""Ranking metrics over weighted payments, and their bootstrap by customer.

A customer's payments rise and fall together (one stolen card is many frauds), so whole customers are drawn, not
payments: each gets a Poisson(1) number of copies, the usual stand-in for drawing with replacement. Scores are sorted
once; a replicate is one pass over them. Tied scores are one group: no metric depends on the order inside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fraud_pipeline.domain.ranking_kernels import (
    bootstrap_card_precision,
    bootstrap_columns,
    bootstrap_ranks,
    card_precision,
    rank_metrics,
)

RANK_COLUMNS = ("roc_auc", "pr_auc", "recall_at_budget", "precision_at_budget")


@dataclass(frozen=True)
class Ranking:
    """n payments sorted by falling score. `group_end[i]`: the score falls after i. `customer` are codes from 0."""

    group_end: np.ndarray
    is_fraud: np.ndarray
    weight: np.ndarray
    customer: np.ndarray
    customers: int

    @classmethod
    def of(
        cls, raw: np.ndarray, is_fraud: np.ndarray, weight: np.ndarray, customer: np.ndarray | None = None
    ) -> Ranking:
        """Sort by score; without `customer` each payment is its own."""
        order = np.argsort(-np.asarray(raw, dtype=np.float64), kind="stable")
        ranked = np.asarray(raw, dtype=np.float64)[order]
        codes = np.arange(len(order)) if customer is None else np.unique(customer, return_inverse=True)[1]
        return cls(
            group_end=np.r_[ranked[1:] != ranked[:-1], True][: len(ranked)],
            is_fraud=np.asarray(is_fraud, dtype=bool)[order],
            weight=np.asarray(weight, dtype=np.float64)[order],
            customer=codes[order].astype(np.int32),
            customers=int(codes.max()) + 1 if len(codes) else 0,
        )

    def metrics(self, budget: float) -> np.ndarray:
        """RANK_COLUMNS; NaN where there are no frauds or only frauds. `budget` is a share of the payments' weight."""
        return rank_metrics(self.group_end, self.is_fraud, self.weight, self.customer, np.ones(self.customers), budget)

    def bootstrap(self, budget: float, *, replicates: int, seed: int) -> np.ndarray:
        """float64 [replicates, len(RANK_COLUMNS)]; the same seed and customers draw the same copies as
        `bootstrap_sums`.
        """
        return bootstrap_ranks(
            self.group_end,
            self.is_fraud,
            self.weight,
            self.customer,
            self.customers,
            budget,
            replicates,
            np.uint64(seed),
        )


def average_precision(raw: np.ndarray, is_fraud: np.ndarray, weight: np.ndarray) -> float:
    """Weighted average precision, as scikit-learn defines it: sum of (rise in recall) x precision over falling
    thresholds.
    """
    return float(Ranking.of(raw, is_fraud, weight).metrics(0.5)[1])


def roc_auc(raw: np.ndarray, is_fraud: np.ndarray, weight: np.ndarray) -> float:
    """Weighted area under the ROC curve; a tie counts half."""
    return float(Ranking.of(raw, is_fraud, weight).metrics(0.5)[0])


def bootstrap_sums(columns: np.ndarray, *, replicates: int, seed: int) -> np.ndarray:
    """float64 [replicates, m]: sums over resampled customers of `columns` (float64 [customers, m], a customer's
    sums).
    """
    return bootstrap_columns(np.ascontiguousarray(columns, dtype=np.float64), replicates, np.uint64(seed))


@dataclass(frozen=True)
class CardDays:
    """For each day the customers with payments on it, by falling highest score: what card precision@k needs.

    `start` [days + 1] indexes `customer` and `compromised` (a fraud on that day).
    """

    start: np.ndarray
    customer: np.ndarray
    compromised: np.ndarray
    customers: int

    @classmethod
    def of(cls, raw: np.ndarray, is_fraud: np.ndarray, customer: np.ndarray, day: np.ndarray) -> CardDays:
        codes = np.unique(customer, return_inverse=True)[1]
        order = np.lexsort((-np.asarray(raw, dtype=np.float64), codes, day))
        first = (
            np.r_[True, (np.diff(codes[order]) != 0) | (np.diff(day[order]) != 0)]
            if len(order)
            else np.empty(0, dtype=bool)
        )
        begins = np.flatnonzero(first)
        card = codes[order][begins]
        card_day = day[order][begins]
        best = np.asarray(raw, dtype=np.float64)[order][begins]
        compromised = np.logical_or.reduceat(np.asarray(is_fraud, dtype=bool)[order], begins) if len(begins) else first
        by_score = np.lexsort((card, -best, card_day))
        days = np.flatnonzero(np.r_[True, np.diff(card_day[by_score]) != 0]) if len(begins) else begins
        customers = int(codes.max()) + 1 if len(codes) else 0
        return cls(
            np.r_[days, len(begins)].astype(np.int64), card[by_score].astype(np.int32), compromised[by_score], customers
        )

    def precision(self, k: int) -> float:
        """Mean over days of (compromised cards among the k most suspect) / k; a card found on one day is not ranked
        on later ones.
        """
        return float(card_precision(self.start, self.customer, self.compromised, np.ones(self.customers), k))

    def bootstrap(self, k: int, *, replicates: int, seed: int) -> np.ndarray:
        """float64 [replicates], with the copies of customers that `Ranking.bootstrap` draws."""
        return bootstrap_card_precision(
            self.start, self.customer, self.compromised, self.customers, k, replicates, np.uint64(seed)
        )
