"""Two decisions on the same payments, what was decided and what would be: which changed, and what the change is worth.

An outcome is known where a label says so, or where there was time for one and the payment went through.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.shadow_comparison import BLOCK, NO_LABEL, REVIEW, VERDICTS
from fraud_pipeline.domain.thresholds import Costs

ARROW: Final = " -> "


@dataclass
class WhatIf:
    """Sums over payments that were decided by one bundle and decided again by another.

    `decisions` counts by `APPROVE -> REVIEW`; values are in major units of the currency, over payments of known outcome.
    """

    payments: int = 0
    changed: int = 0
    decisions: dict[str, int] = field(default_factory=dict)
    known: int = 0
    frauds: int = 0
    value_then: float = 0.0
    value_now: float = 0.0

    @property
    def value_difference(self) -> float:
        """What the other decisions would have been worth more."""
        return self.value_now - self.value_then

    def add(
        self, then: npt.NDArray[np.int8], now: npt.NDArray[np.int8], *, label: npt.NDArray[np.int8],
        mature: npt.NDArray[np.bool_], amount: npt.NDArray[np.float64], costs: Costs,
    ) -> None:  # fmt: skip
        """Take in n more payments: verdicts as places in VERDICTS, labels 1, 0 NO_LABEL; `mature`: a label had its time."""
        self.payments += len(then)
        self.changed += int((then != now).sum())
        for pair, number in zip(*np.unique(then.astype(np.int64) * 3 + now, return_counts=True), strict=True):
            name = VERDICTS[pair // 3] + ARROW + VERDICTS[pair % 3]
            self.decisions[name] = self.decisions.get(name, 0) + int(number)
        known = (label != NO_LABEL) | (mature & (then != BLOCK))
        is_fraud = label == 1
        self.known += int(known.sum())
        self.frauds += int(is_fraud.sum())
        self.value_then += float(_values(then, is_fraud, amount, costs)[known].sum())
        self.value_now += float(_values(now, is_fraud, amount, costs)[known].sum())

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; only pairs that differ are changes."""
        return {
            "payments": self.payments,
            "changed": self.changed,
            "decisions": dict(sorted(self.decisions.items())),
            "known_outcomes": self.known,
            "frauds": self.frauds,
            "value_then": round(self.value_then, 2),
            "value_now": round(self.value_now, 2),
            "value_difference": round(self.value_difference, 2),
        }


def _values(
    verdict: npt.NDArray[np.int8], is_fraud: npt.NDArray[np.bool_], amount: npt.NDArray[np.float64], costs: Costs
) -> npt.NDArray[np.float64]:
    reviewed = np.where(verdict == REVIEW, costs.review_value(is_fraud, amount), 0.0)
    return np.where(verdict == BLOCK, costs.block_value(is_fraud, amount), reviewed)
