"""Two models on the same payments: how often they agree, how far their probabilities lie apart, what each would have caught.

Both decided each payment from the same features; one of them answered. What is known of outcomes follows the rules of
`learning_data`: no label after maturity means legitimate, except for a payment that was blocked, and a payment of the control
share stands for those that were. Knows nothing of where decisions are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.ranking import average_precision
from fraud_pipeline.errors import InputError

VERDICTS: Final = ("APPROVE", "REVIEW", "BLOCK")
APPROVE, REVIEW, BLOCK = range(3)
NO_LABEL: Final = -1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class ModelDecisions:
    """What one model said of n payments. `verdict` are places in VERDICTS; a payment of the control share is REVIEW."""

    verdict: npt.NDArray[np.int8]
    probability: npt.NDArray[np.float64]
    raw_score: npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairedDecisions:
    """n payments that both models decided. `label`: 1 fraud, 0 legitimate, NO_LABEL; `control`: as it was answered."""

    left: ModelDecisions
    right: ModelDecisions
    event_time: npt.NDArray[np.int64]  # us since the epoch, UTC
    left_answered: npt.NDArray[np.bool_]
    control: npt.NDArray[np.bool_]
    label: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.event_time)

    @property
    def held(self) -> npt.NDArray[np.bool_]:
        """Blocked in fact: such a payment can have no chargeback."""
        return np.where(self.left_answered, self.left.verdict, self.right.verdict) == BLOCK


@dataclass(frozen=True, slots=True)
class Caught:
    """What one model's alerts come to among payments of known outcome; None where nothing can be said.

    `alerts` and `caught` are counts; the shares and the average precision (of the raw score) weigh the control share.
    """

    alerts: int
    caught: int
    recall: float | None
    precision: float | None
    average_precision: float | None


@dataclass(frozen=True, slots=True)
class KnownOutcomes:
    """Payments of known outcome: those labelled, and those that are old enough for a label and were not held."""

    payments: int
    labelled: int
    frauds: int
    left: Caught
    right: Caught


@dataclass(frozen=True, slots=True)
class ShadowComparison:
    """`agreement[left verdict][right verdict]` counts payments; `difference` is left's probability less right's."""

    payments: int
    left_answered: int
    right_answered: int
    agreement: dict[str, dict[str, int]]
    agreed: float
    left_alert_rate: float
    right_alert_rate: float
    mean_difference: float
    difference_quantiles: dict[str, float]
    outcomes: KnownOutcomes


def compare_decisions(
    pairs: PairedDecisions, *, as_of: datetime, maturity: timedelta, control_share: float
) -> ShadowComparison | None:
    """Compare; None where no payment was decided by both. Labels in `pairs` are those known at `as_of`.

    `control_share` is the share of BLOCKs that was let through; InputError where it is 0 and there are such payments.
    """
    if not len(pairs):
        return None
    left, right = pairs.left, pairs.right
    counts = np.bincount(left.verdict.astype(np.int64) * 3 + right.verdict, minlength=9).reshape(3, 3)
    difference = left.probability - right.probability
    quantiles = np.quantile(difference, QUANTILES)
    return ShadowComparison(
        payments=len(pairs),
        left_answered=int(pairs.left_answered.sum()),
        right_answered=int((~pairs.left_answered).sum()),
        agreement={
            ours: {theirs: int(count) for theirs, count in zip(VERDICTS, row, strict=True)}
            for ours, row in zip(VERDICTS, counts, strict=True)
        },
        agreed=float(np.trace(counts) / len(pairs)),
        left_alert_rate=float(np.mean(left.verdict != APPROVE)),
        right_alert_rate=float(np.mean(right.verdict != APPROVE)),
        mean_difference=float(difference.mean()),
        difference_quantiles={f"{at:g}": float(value) for at, value in zip(QUANTILES, quantiles, strict=True)},
        outcomes=_outcomes(pairs, mature_at=as_of - maturity, control_share=control_share),
    )


def _outcomes(pairs: PairedDecisions, *, mature_at: datetime, control_share: float) -> KnownOutcomes:
    if pairs.control.any() and not 0 < control_share <= 1:
        raise InputError(
            f"{int(pairs.control.sum())} payments are marked as the control share, and the share given is {control_share}.",
            remedy="Set FRAUD_CONTROL_SHARE to the share with which they were let through.",
        )
    labelled = pairs.label != NO_LABEL
    known = labelled | ((pairs.event_time <= (mature_at - _EPOCH) // timedelta(microseconds=1)) & ~pairs.held)
    is_fraud = pairs.label[known] == 1
    weight = np.where(pairs.control[known], 1.0 / (control_share or 1.0), 1.0)
    return KnownOutcomes(
        payments=int(known.sum()),
        labelled=int(labelled.sum()),
        frauds=int(is_fraud.sum()),
        left=_caught(pairs.left, known, is_fraud, weight),
        right=_caught(pairs.right, known, is_fraud, weight),
    )


def _caught(
    model: ModelDecisions,
    known: npt.NDArray[np.bool_],
    is_fraud: npt.NDArray[np.bool_],
    weight: npt.NDArray[np.float64],
) -> Caught:
    alert = model.verdict[known] != APPROVE
    caught, frauds, alerts = (float(weight[chosen].sum()) for chosen in (alert & is_fraud, is_fraud, alert))
    both_kinds = is_fraud.any() and not is_fraud.all()
    return Caught(
        alerts=int(alert.sum()),
        caught=int((alert & is_fraud).sum()),
        recall=caught / frauds if frauds else None,
        precision=caught / alerts if alerts else None,
        average_precision=average_precision(model.raw_score[known], is_fraud, weight) if both_kinds else None,
    )
