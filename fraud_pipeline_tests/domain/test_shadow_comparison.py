from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from fraud_pipeline.domain.shadow_comparison import (
    APPROVE,
    BLOCK,
    NO_LABEL,
    REVIEW,
    ModelDecisions,
    PairedDecisions,
    ShadowComparison,
    compare_decisions,
)
from fraud_pipeline.errors import InputError

NOW = datetime(2026, 3, 20, tzinfo=UTC)
MATURITY = timedelta(days=7)
OLD = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp()) * 1_000_000
YOUNG = int(datetime(2026, 3, 19, tzinfo=UTC).timestamp()) * 1_000_000


def model(verdict: Sequence[int], probability: Sequence[float]) -> ModelDecisions:
    scores = np.array(probability, dtype=np.float64)
    return ModelDecisions(np.array(verdict, dtype=np.int8), scores, scores * 10)


def pairs(left: ModelDecisions, right: ModelDecisions, **changes: object) -> PairedDecisions:
    n = len(left.verdict)
    plain = PairedDecisions(
        left=left,
        right=right,
        event_time=np.full(n, OLD),
        left_answered=np.ones(n, dtype=bool),
        control=np.zeros(n, dtype=bool),
        label=np.full(n, NO_LABEL, dtype=np.int8),
    )
    return replace(plain, **{name: np.array(value) for name, value in changes.items()})  # type: ignore[arg-type]


def compared(given: PairedDecisions, *, control_share: float = 0.01) -> ShadowComparison:
    found = compare_decisions(given, as_of=NOW, maturity=MATURITY, control_share=control_share)
    assert found is not None
    return found


def test_nothing_is_said_where_no_payment_was_decided_by_both():
    empty = pairs(model([], []), model([], []))
    assert compare_decisions(empty, as_of=NOW, maturity=MATURITY, control_share=0.01) is None


def test_verdicts_are_counted_against_each_other():
    left = model([APPROVE, APPROVE, REVIEW, BLOCK, BLOCK], [0.1, 0.1, 0.5, 0.9, 0.9])
    right = model([APPROVE, REVIEW, REVIEW, BLOCK, APPROVE], [0.1, 0.4, 0.5, 0.9, 0.1])
    found = compared(pairs(left, right, left_answered=[True, True, False, True, True]))
    assert found.agreement == {
        "APPROVE": {"APPROVE": 1, "REVIEW": 1, "BLOCK": 0},
        "REVIEW": {"APPROVE": 0, "REVIEW": 1, "BLOCK": 0},
        "BLOCK": {"APPROVE": 1, "REVIEW": 0, "BLOCK": 1},
    }
    assert (found.payments, found.left_answered, found.right_answered, found.agreed) == (5, 4, 1, 0.6)
    assert (found.left_alert_rate, found.right_alert_rate) == (0.6, 0.6)


def test_differences_of_probability_are_left_less_right():
    left = model([APPROVE] * 101, np.linspace(0.0, 1.0, 101).tolist())
    found = compared(pairs(left, model([APPROVE] * 101, [0.25] * 101)))
    assert found.mean_difference == pytest.approx(0.25)
    assert found.difference_quantiles == pytest.approx(
        {"0.01": -0.24, "0.05": -0.2, "0.25": 0.0, "0.5": 0.25, "0.75": 0.5, "0.95": 0.7, "0.99": 0.74}
    )


def test_what_each_would_have_caught_among_mature_payments():
    rng = np.random.default_rng(3)
    is_fraud = rng.random(400) < 0.1
    scores = [np.clip(is_fraud * lift + rng.random(400) * 0.6, 0, 1) for lift in (0.4, 0.1)]
    sides = [model(np.where(each > 0.5, REVIEW, APPROVE).tolist(), each.tolist()) for each in scores]
    found = compared(pairs(*sides, label=np.where(is_fraud, 1, NO_LABEL))).outcomes
    assert (found.payments, found.labelled, found.frauds) == (400, int(is_fraud.sum()), int(is_fraud.sum()))
    for side, each in ((found.left, scores[0]), (found.right, scores[1])):
        alert = each > 0.5
        assert (side.alerts, side.caught) == (int(alert.sum()), int((alert & is_fraud).sum()))
        assert side.recall == pytest.approx((alert & is_fraud).sum() / is_fraud.sum())
        assert side.precision == pytest.approx((alert & is_fraud).sum() / alert.sum())
        assert side.average_precision == pytest.approx(average_precision_score(is_fraud, each))


def test_a_young_payment_counts_only_where_it_is_labelled():
    both = model([REVIEW, REVIEW, REVIEW], [0.5, 0.6, 0.7])
    found = compared(pairs(both, both, event_time=[OLD, YOUNG, YOUNG], label=[NO_LABEL, NO_LABEL, 1])).outcomes
    assert (found.payments, found.labelled, found.frauds) == (2, 1, 1)
    assert (found.left.alerts, found.left.caught, found.left.precision) == (2, 1, 0.5)


def test_a_blocked_payment_counts_only_where_it_is_labelled_whoever_blocked_it():
    left, right = model([BLOCK, BLOCK, APPROVE, APPROVE], [0.9] * 4), model([APPROVE, APPROVE, BLOCK, BLOCK], [0.9] * 4)
    given = pairs(left, right, left_answered=[True, True, False, True], label=[NO_LABEL, 1, NO_LABEL, NO_LABEL])
    found = compared(given).outcomes
    assert (found.payments, found.labelled, found.frauds) == (2, 1, 1)
    assert (found.left.alerts, found.right.alerts) == (1, 1)
    assert (found.left.recall, found.right.recall) == (1.0, 0.0)


def test_a_payment_of_the_control_share_stands_for_those_that_were_blocked():
    both = model([REVIEW, REVIEW, APPROVE], [0.9, 0.5, 0.1])
    given = pairs(both, both, control=[True, False, False], label=[1, 0, 1])
    found = compared(given, control_share=0.1).outcomes
    assert found.left.precision == pytest.approx(10 / 11)
    assert found.left.recall == pytest.approx(10 / 11)
    with pytest.raises(InputError, match="1 payments are marked as the control share"):
        compared(given, control_share=0.0)


@pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
def test_one_kind_of_outcome_has_no_average_precision(labels: list[int]):
    both = model([APPROVE, APPROVE], [0.2, 0.1])
    found = compared(pairs(both, both, label=labels)).outcomes.left
    assert (found.average_precision, found.precision) == (None, None)
    assert found.recall == (0.0 if labels[0] else None)
