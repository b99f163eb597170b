"""What other decisions would have been worth: by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fraud_pipeline.domain.thresholds import Costs
from fraud_pipeline.domain.what_if import WhatIf

APPROVE, REVIEW, BLOCK = 0, 1, 2
COSTS = Costs(review_cost=5.0, false_block_cost=20.0, fraud_loss_share=1.0)


def added(rows: list[tuple[int, int, int, bool, float]]) -> WhatIf:
    """Rows of (then, now, label, mature, amount)."""
    then, now, label, mature, amount = zip(*rows, strict=True)
    found = WhatIf()
    found.add(
        np.array(then, np.int8), np.array(now, np.int8), label=np.array(label, np.int8), mature=np.array(mature),
        amount=np.array(amount), costs=COSTS,
    )  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("then", "now", "label", "difference"),
    [
        (APPROVE, REVIEW, 1, 95.0),  # the fraud's 100, less the review
        (APPROVE, BLOCK, 1, 100.0),
        (BLOCK, APPROVE, 1, -100.0),
        (APPROVE, REVIEW, 0, -5.0),
        (REVIEW, BLOCK, 0, -15.0),
        (APPROVE, APPROVE, 1, 0.0),
    ],
)
def test_a_changed_decision_is_worth_the_difference(then: int, now: int, label: int, difference: float) -> None:
    found = added([(then, now, label, False, 100.0)])
    assert found.value_difference == difference
    assert found.changed == int(then != now)
    assert (found.known, found.frauds) == (1, label)


def test_without_a_label_only_mature_payments_that_went_through_are_known() -> None:
    assert added([(APPROVE, BLOCK, -1, True, 100.0)]).value_difference == -20.0
    assert added([(APPROVE, BLOCK, -1, False, 100.0)]).known == 0
    assert added([(BLOCK, APPROVE, -1, True, 100.0)]).known == 0


def test_pages_add_up() -> None:
    rows = [(APPROVE, BLOCK, 1, True, 10.0), (REVIEW, REVIEW, 0, True, 3.0), (APPROVE, BLOCK, 0, True, 7.0)]
    once, twice = added(rows), added(rows)
    twice.add(
        np.array([2], np.int8), np.array([0], np.int8), label=np.array([1], np.int8), mature=np.array([True]),
        amount=np.array([50.0]), costs=COSTS,
    )  # fmt: skip
    assert once.decisions == {"APPROVE -> BLOCK": 2, "REVIEW -> REVIEW": 1}
    assert twice.decisions == {"APPROVE -> BLOCK": 2, "REVIEW -> REVIEW": 1, "BLOCK -> APPROVE": 1}
    assert twice.value_difference == once.value_difference - 50.0
    assert twice.as_dict()["changed"] == 3
