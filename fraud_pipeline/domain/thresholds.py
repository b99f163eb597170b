"""From which score on a payment is reviewed, and from which it is blocked.

A payment of amount a, fraud with probability p, is worth to us

    APPROVE   0
    REVIEW    p * loss_share * a - review_cost
    BLOCK     p * loss_share * a - (1 - p) * false_block_cost

measured against letting everything pass: an analyst is taken to be right, a block needs none. Thresholds are raw
scores, one for all amounts, so that a decision stays a statement about suspicion; they maximize the sum of the above
over payments with known outcome (p is then 0 or 1, whose mean is the expectation) with no more alerts, BLOCK
included, than the budget allows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from fraud_pipeline.domain.calibration import Calibrator
from fraud_pipeline.errors import TrainingDataError

NEVER = float(np.finfo(np.float32).max)
"""A threshold that no score reaches; finite, so that it is JSON."""

CURVE_POINTS = 200


@dataclass(frozen=True)
class Costs:
    """In major units of the currency; `fraud_loss_share` is the share of a fraud's amount that is lost when it
    passes.
    """

    review_cost: float = 5.0
    false_block_cost: float = 20.0
    fraud_loss_share: float = 1.0

    def __post_init__(self) -> None:
        if min(self.review_cost, self.false_block_cost) < 0 or not 0 < self.fraud_loss_share <= 1:
            raise TrainingDataError(
                f"These costs make no sense: {asdict(self)}.",
                remedy="Costs are 0 or more, the loss share is in (0, 1].",
            )

    def review_value(self, is_fraud: np.ndarray, amount: np.ndarray) -> np.ndarray:
        """What reviewing each payment is worth."""
        return is_fraud * self.fraud_loss_share * amount - self.review_cost

    def block_value(self, is_fraud: np.ndarray, amount: np.ndarray) -> np.ndarray:
        """What blocking each payment is worth."""
        return np.where(is_fraud, self.fraud_loss_share * amount, -self.false_block_cost)


@dataclass(frozen=True)
class Thresholds:
    """REVIEW from `review` on, BLOCK from `block` on (raw scores, review <= block), with what they brought where they
    were chosen.

    `*_probability` say the same to people. `alert_share` and `block_share` are shares of payments; `expected_value`
    is the net value a payment, in major units. All but the two raw scores are None where the thresholds were set by
    hand.
    """

    review: float
    block: float
    review_probability: float
    block_probability: float
    budget: float | None = None
    alert_share: float | None = None
    block_share: float | None = None
    expected_value: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)

    def decide(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(alert, block) as booleans; a block is an alert too."""
        return raw >= self.review, raw >= self.block

    def within(self, raw: np.ndarray, weight: np.ndarray, budget: float) -> Thresholds:
        """These, raised until no more than `budget` of the payments' weight is alerted; unchanged where it is not more.

        What is alerted beyond it, nobody has the hands to work.
        """
        alert, _ = self.decide(raw)
        allowed = budget * weight.sum()
        if weight[alert].sum() <= allowed:
            return self
        order = np.argsort(-raw, kind="stable")
        too_much = raw[order[np.searchsorted(np.cumsum(weight[order]), allowed, side="right")]]
        above = raw[raw > too_much]  # payments of equal score are alerted together or not at all
        review = float(above.min()) if len(above) else NEVER
        return replace(self, review=review, block=max(self.block, review))

    def row_values(self, raw: np.ndarray, is_fraud: np.ndarray, amount: np.ndarray, costs: Costs) -> np.ndarray:
        """What the decision on each payment was worth: float64 [n]."""
        alert, block = self.decide(raw)
        reviewed = np.where(alert, costs.review_value(is_fraud, amount), 0.0)
        return np.where(block, costs.block_value(is_fraud, amount), reviewed)


@dataclass(frozen=True)
class ValueCurve:
    """Net value a payment for each share of payments alerted, with the best block threshold inside it; for the plot."""

    alert_share: np.ndarray
    threshold: np.ndarray
    value: np.ndarray


def choose_thresholds(
    raw: np.ndarray,
    probability: np.ndarray,
    *,
    is_fraud: np.ndarray,
    amount: np.ndarray,
    costs: Costs,
    budget: float,
    weight: np.ndarray | None = None,
) -> Thresholds:
    """The thresholds of the highest net value within the budget (a share of the payments' weight), over scores the
    model did not learn from.

    Where no alert pays, REVIEW is NEVER, and likewise BLOCK. A threshold lies half-way to the next lower score:
    served scores may differ from these by rounding. Tied scores are alerted together or not at all.
    """
    if not 0 < budget < 1:
        raise TrainingDataError(
            f"The alert budget is {budget}; it is a share of payments above 0 and below 1.",
            remedy="Set FRAUD_ALERT_BUDGET.",
        )
    ladder = _Ladder.of(raw, is_fraud, amount, costs, weight)
    affordable = int(np.searchsorted(ladder.share, budget * (1 + 1e-9), side="right"))  # how many cuts fit
    value, block_cut = ladder.best_block()
    review = int(np.argmax(value[:affordable])) if affordable else 0
    block = int(block_cut[review])

    def probability_at(threshold: float) -> float:
        above = np.asarray(probability)[np.asarray(raw) >= threshold]
        return float(above.min()) if len(above) else 1.0

    return Thresholds(
        review=ladder.threshold(review),
        block=ladder.threshold(block),
        review_probability=probability_at(ladder.threshold(review)),
        block_probability=probability_at(ladder.threshold(block)),
        budget=budget,
        alert_share=float(ladder.share[review]),
        block_share=float(ladder.share[block]),
        expected_value=float(value[review]),
    )


def thresholds_at(calibrator: Calibrator, *, review: float = 0.3, block: float = 0.7) -> Thresholds:
    """Thresholds set by hand, as probabilities."""
    if not 0 < review <= block < 1:
        raise TrainingDataError(
            f"REVIEW at {review} and BLOCK at {block} make no sense.",
            remedy="Give probabilities with 0 < review <= block < 1.",
        )
    raw_review, raw_block = (float(np.clip(calibrator.raw_at(p), -NEVER, NEVER)) for p in (review, block))
    return Thresholds(review=raw_review, block=raw_block, review_probability=review, block_probability=block)


def value_curve(
    raw: np.ndarray,
    *,
    is_fraud: np.ndarray,
    amount: np.ndarray,
    costs: Costs,
    weight: np.ndarray | None = None,
    largest_share: float = 0.03,
) -> ValueCurve:
    """Net value a payment against the share of payments alerted, up to `largest_share`, at most CURVE_POINTS of them."""
    ladder = _Ladder.of(raw, is_fraud, amount, costs, weight)
    value, _ = ladder.best_block()
    cuts = int(np.searchsorted(ladder.share, largest_share, side="right"))
    picked = np.unique(np.linspace(0, max(cuts - 1, 0), CURVE_POINTS).astype(int))
    return ValueCurve(ladder.share[picked], np.array([ladder.threshold(int(cut)) for cut in picked]), value[picked])


@dataclass(frozen=True)
class _Ladder:
    """Cut c alerts the c highest distinct scores (cut 0: none): share of weight above it, and value a payment if all
    above are reviewed or all blocked.
    """

    scores: np.ndarray  # distinct, falling
    share: np.ndarray  # [cuts + 1]
    reviewed: np.ndarray
    blocked: np.ndarray

    @classmethod
    def of(
        cls, raw: np.ndarray, is_fraud: np.ndarray, amount: np.ndarray, costs: Costs, weight: np.ndarray | None
    ) -> _Ladder:
        raw = np.asarray(raw, dtype=np.float64)
        if not len(raw):
            raise TrainingDataError(
                "There is no scored payment to choose thresholds on.", remedy="Use a longer validation period."
            )
        w = np.ones(len(raw)) if weight is None else np.asarray(weight, dtype=np.float64)
        order = np.argsort(-raw, kind="stable")
        ranked = raw[order]
        ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])

        def above(values: np.ndarray) -> np.ndarray:
            return np.r_[0.0, np.cumsum(values[order])[ends]] / w.sum()

        fraud = np.asarray(is_fraud, dtype=bool)
        return cls(
            scores=ranked[ends],
            share=above(w),
            reviewed=above(w * costs.review_value(fraud, amount)),
            blocked=above(w * costs.block_value(fraud, amount)),
        )

    def best_block(self) -> tuple[np.ndarray, np.ndarray]:
        """For each cut of REVIEW: the best value, and the cut of BLOCK (at or above it) that gives it."""
        gain = self.blocked - self.reviewed  # blocking rather than reviewing all above a cut
        best = np.maximum.accumulate(gain)
        is_new = np.r_[True, gain[1:] > best[:-1]]
        where = np.maximum.accumulate(np.where(is_new, np.arange(len(gain)), 0))
        return self.reviewed + best, where

    def threshold(self, cut: int) -> float:
        if cut == 0:
            return NEVER
        last = float(self.scores[cut - 1])
        return 0.5 * (last + float(self.scores[cut])) if cut < len(self.scores) else last
