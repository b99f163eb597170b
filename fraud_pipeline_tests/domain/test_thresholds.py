import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_pipeline.domain.calibration import Platt
from fraud_pipeline.domain.thresholds import NEVER, Costs, choose_thresholds, thresholds_at, value_curve
from fraud_pipeline.errors import TrainingDataError

COSTS = Costs(review_cost=5, false_block_cost=20)


def value_of(review, block, raw, fraud, amount, costs, weight):
    """The slow, obvious sum."""
    total = 0.0
    for r, f, a, w in zip(raw, fraud, amount, weight, strict=True):
        if r >= block:
            total += w * (a * costs.fraud_loss_share if f else -costs.false_block_cost)
        elif r >= review:
            total += w * ((a * costs.fraud_loss_share if f else 0) - costs.review_cost)
    return total / sum(weight)


def best_by_trying_all(raw, fraud, amount, costs, budget, weight):
    cuts = [*np.unique(raw), np.inf]
    best = 0.0
    for review in cuts:
        if weight[raw >= review].sum() <= budget * weight.sum() * (1 + 1e-9):
            for block in cuts:
                if block >= review:
                    best = max(best, value_of(review, block, raw, fraud, amount, costs, weight))
    return best


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.2, 0.6]), st.booleans())
def test_no_other_pair_of_thresholds_within_the_budget_is_worth_more(seed, budget, ties):
    rng = np.random.default_rng(seed)
    n = 40
    fraud = rng.random(n) < 0.3
    raw = np.round(rng.normal(size=n) + fraud, 0 if ties else 6)
    amount, weight = rng.uniform(1, 80, n), rng.uniform(0.5, 2, n)
    chosen = choose_thresholds(raw, raw, is_fraud=fraud, amount=amount, costs=COSTS, budget=budget, weight=weight)
    assert chosen.review <= chosen.block
    assert weight[raw >= chosen.review].sum() <= budget * weight.sum() + 1e-9
    assert chosen.expected_value == pytest.approx(best_by_trying_all(raw, fraud, amount, COSTS, budget, weight))
    assert chosen.expected_value == pytest.approx(
        value_of(chosen.review, chosen.block, raw, fraud, amount, COSTS, weight)
    )


def test_sure_frauds_are_blocked_and_likely_ones_reviewed():
    raw = np.repeat([3.0, 2.0, 1.0, 0.0], [100, 100, 100, 9_700])
    fraud = np.zeros(10_000, dtype=bool)
    fraud[:95] = fraud[100:140] = fraud[200:202] = True
    chosen = choose_thresholds(raw, raw / 4, is_fraud=fraud, amount=np.full(10_000, 100.0), costs=COSTS, budget=0.05)
    assert (chosen.block, chosen.review) == (2.5, 1.5)
    assert chosen.alert_share == pytest.approx(0.02)
    assert chosen.block_share == pytest.approx(0.01)
    assert (chosen.block_probability, chosen.review_probability) == (0.75, 0.5)


def test_the_budget_includes_blocks():
    raw = np.arange(1_000.0)
    fraud = raw >= 900
    chosen = choose_thresholds(raw, raw, is_fraud=fraud, amount=np.full(1_000, 100.0), costs=COSTS, budget=0.02)
    assert (raw >= chosen.review).sum() == 20
    assert chosen.review == 979.5


def test_where_nothing_pays_nothing_is_alerted():
    raw = np.arange(100.0)
    chosen = choose_thresholds(raw, raw, is_fraud=raw < 2, amount=np.full(100, 50.0), costs=COSTS, budget=0.5)
    assert chosen.review == chosen.block == NEVER
    assert chosen.alert_share == 0
    assert chosen.expected_value == 0
    assert json.loads(json.dumps(chosen.as_dict(), allow_nan=False)) == asdict(chosen)


def test_a_constant_score_alerts_everyone_or_no_one():
    fraud = np.arange(100) < 50
    raw, amount = np.zeros(100), np.full(100, 500.0)
    assert choose_thresholds(raw, raw, is_fraud=fraud, amount=amount, costs=COSTS, budget=0.1).review == NEVER
    curve = value_curve(raw, is_fraud=fraud, amount=amount, costs=COSTS)
    assert curve.alert_share.tolist() == [0.0]


def test_row_values_are_those_of_the_decisions():
    chosen = choose_thresholds(
        np.array([3.0, 2.0, 1.0]), np.ones(3), is_fraud=np.array([True, True, False]), amount=np.array([50.0, 50.0, 9.0]),
        costs=COSTS, budget=0.9,
    )  # fmt: skip
    assert (chosen.review, chosen.block) == (1.5, 1.5)
    values = chosen.row_values(
        np.array([9.0, 1.6, 0.0]), np.array([True, False, True]), np.array([50.0, 50.0, 9.0]), COSTS
    )
    assert values.tolist() == [50.0, -20.0, 0.0]


def test_thresholds_by_hand_are_probabilities():
    chosen = thresholds_at(Platt(slope=2.0, intercept=-1.0), review=0.3, block=0.7)
    assert Platt(2.0, -1.0).apply(np.array([chosen.review, chosen.block])) == pytest.approx([0.3, 0.7])
    assert chosen.budget is None
    with pytest.raises(TrainingDataError, match=r"REVIEW at 0.7 and BLOCK at 0.3"):
        thresholds_at(Platt(2.0, -1.0), review=0.7, block=0.3)
    assert thresholds_at(Platt(0.0, -5.0)).block == NEVER


def test_the_value_curve_meets_the_chosen_value():
    rng = np.random.default_rng(1)
    fraud = rng.random(20_000) < 0.01
    raw, amount = rng.normal(size=20_000) + 3 * fraud, rng.uniform(5, 200, 20_000)
    curve = value_curve(raw, is_fraud=fraud, amount=amount, costs=COSTS, largest_share=0.02)
    chosen = choose_thresholds(raw, raw, is_fraud=fraud, amount=amount, costs=COSTS, budget=0.02)
    assert curve.alert_share.max() <= 0.02
    assert curve.value.max() == pytest.approx(chosen.expected_value, rel=0.02)
    assert (np.diff(curve.threshold) < 0).all()


def test_senseless_costs_and_budgets_are_refused():
    with pytest.raises(TrainingDataError, match="costs make no sense"):
        Costs(review_cost=-1)
    with pytest.raises(TrainingDataError, match="alert budget is 0"):
        choose_thresholds(
            np.zeros(2), np.zeros(2), is_fraud=np.zeros(2, dtype=bool), amount=np.ones(2), costs=COSTS, budget=0
        )
