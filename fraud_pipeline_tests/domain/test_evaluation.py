import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, f1_score, roc_auc_score

from fraud_pipeline.domain.evaluation import EvaluationSettings, evaluate
from fraud_pipeline.domain.net_value import compare_net_value
from fraud_pipeline.domain.thresholds import NEVER, Costs, Thresholds
from fraud_pipeline.errors import TrainingDataError
from fraud_pipeline_tests.domain.learning_worlds import payments

COSTS = Costs(review_cost=5, false_block_cost=20)
THRESHOLDS = Thresholds(review=0.0, block=2.0, review_probability=0.5, block_probability=0.9)
SETTINGS = EvaluationSettings(budget=0.02, replicates=200, slice_replicates=50)


def scored(seed=0, **world):
    data = payments(start=date(2026, 1, 1), days=20, per_day=200, fraud_rate=0.03, seed=seed, **world)
    rng = np.random.default_rng(seed)
    raw = rng.normal(-2.5, 1.2, len(data)) + 3.0 * data.is_fraud
    return data, raw, 1 / (1 + np.exp(-raw))


def test_metrics_are_scikit_learns():
    data, raw, p = scored()
    weight = np.random.default_rng(5).uniform(0.5, 3, len(data)).astype(np.float32)
    data = replace(data, weight=weight)
    found = evaluate(data, raw, p, thresholds=THRESHOLDS, costs=COSTS, settings=SETTINGS)
    y, alert = data.is_fraud, raw >= 0
    expected = {
        "roc_auc": roc_auc_score(y, raw, sample_weight=weight),
        "pr_auc": average_precision_score(y, raw, sample_weight=weight),
        "brier": brier_score_loss(y, p, sample_weight=weight),
        "f1": f1_score(y, alert, sample_weight=weight),
        "alert_share": np.average(alert, weights=weight),
        "recall": np.average(alert[y], weights=weight[y]),
        "precision": np.average(y[alert], weights=weight[alert]),
        "expected_over_observed": (p * weight)[alert].sum() / (weight * y)[alert].sum(),
        "net_value": (weight * THRESHOLDS.row_values(raw, y, data.amount, COSTS)).sum(),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-6), name
    counted = confusion_matrix(y, alert, sample_weight=weight)
    assert found.confusion.approved_legitimate == pytest.approx(counted[0, 0])
    assert found.confusion.reviewed_fraud + found.confusion.blocked_fraud == pytest.approx(counted[1, 1])


def test_every_metric_lies_in_its_interval_and_intervals_shrink_with_customers():
    wide, narrow = (
        evaluate(*scored(customers=n), thresholds=THRESHOLDS, costs=COSTS, settings=SETTINGS) for n in (20, 2_000)
    )
    for name, metric in narrow.metrics.items():
        if name != "calibration_error":  # an absolute value: resampling can only raise it
            assert metric.low <= metric.value <= metric.high, name
    assert narrow.cards == round(0.02 * narrow.customers)
    assert wide.cards == 1


def test_calibration_error_sees_probabilities_twice_too_high():
    data, raw, _ = scored()
    honest = np.full(len(data), data.is_fraud.mean())
    good = evaluate(data, raw, honest, thresholds=THRESHOLDS, costs=COSTS, settings=SETTINGS)
    bad = evaluate(data, raw, 2 * honest, thresholds=THRESHOLDS, costs=COSTS, settings=SETTINGS)
    assert good["calibration_error"].value == pytest.approx(0, abs=1e-9)
    assert bad["calibration_error"].value == pytest.approx(data.is_fraud.mean())
    assert bad["expected_over_observed"].value == pytest.approx(2 * good["expected_over_observed"].value)


def test_slices_are_metrics_of_their_part():
    data, raw, p = scored()
    found = evaluate(data, raw, p, thresholds=THRESHOLDS, costs=COSTS, settings=SETTINGS)
    assert set(found.slices) == {"channel", "amount", "kind"}
    online = data.channel == 0
    part = found.slices["channel"]["online"]
    assert part.rows == online.sum()
    assert part.metrics["pr_auc"].value == pytest.approx(average_precision_score(data.is_fraud[online], raw[online]))
    ring = found.slices["kind"]["fraud_ring"]
    own = data.kind == 2
    assert ring.frauds == own.sum()
    assert ring.metrics["recall"].value == pytest.approx((raw[own] >= 0).mean())
    assert ring.metrics["recall"].low <= ring.metrics["recall"].value <= ring.metrics["recall"].high
    assert sum(band.rows for band in found.slices["amount"].values()) == len(data)
    assert next(iter(found.slices["amount"])) == "up to 10"


def test_a_slice_with_hardly_any_fraud_has_no_metrics():
    data, raw, p = scored()
    rare = replace(data, channel=np.where(np.arange(len(data)) < 40, 0, 1).astype(np.int32))
    part = evaluate(rare, raw, p, thresholds=THRESHOLDS, costs=COSTS, settings=SETTINGS).slices["channel"]["online"]
    assert part.rows == 40
    assert part.metrics == {}


def test_curves_end_where_they_must():
    data, raw, p = scored()
    curves = evaluate(data, raw, p, thresholds=THRESHOLDS, costs=COSTS, settings=SETTINGS).curves
    assert curves.recall[-1] == 1
    assert curves.precision[-1] == pytest.approx(data.is_fraud.mean())
    assert (curves.false_positive_rate[0], curves.true_positive_rate[0]) == (0, 0)
    assert (curves.false_positive_rate[-1], curves.true_positive_rate[-1]) == (1, 1)
    assert len(curves.recall) <= 400
    assert curves.score_fraud.sum() == data.is_fraud.sum()
    assert curves.score_legitimate.sum() == (~data.is_fraud).sum()
    assert np.average(curves.calibration_expected, weights=curves.calibration_weight) == pytest.approx(p.mean())
    assert np.average(curves.calibration_observed, weights=curves.calibration_weight) == pytest.approx(
        data.is_fraud.mean()
    )


def test_constant_scores_are_judged_as_guesses():
    data, _, _ = scored()
    raw = np.zeros(len(data))
    found = evaluate(data, raw, raw + 0.03, thresholds=THRESHOLDS, costs=COSTS, settings=SETTINGS)
    assert found["roc_auc"].value == pytest.approx(0.5)
    assert found["pr_auc"].value == pytest.approx(data.is_fraud.mean())
    assert found["recall_at_budget"].value == pytest.approx(0.02)


def test_without_alerts_ratios_are_undefined_and_the_rest_is_not():
    data, raw, p = scored()
    never = replace(THRESHOLDS, review=1e30, block=1e30)
    found = evaluate(data, raw, p, thresholds=never, costs=COSTS, settings=SETTINGS)
    assert np.isnan(found["precision"].value)
    assert np.isnan(found["expected_over_observed"].value)
    assert found["recall"].value == found["net_value"].value == 0


def test_it_travels_as_json():
    found = evaluate(*scored(), thresholds=THRESHOLDS, costs=COSTS, settings=SETTINGS)
    again = json.loads(json.dumps(found.as_dict()))
    assert again["metrics"]["pr_auc"]["value"] == found["pr_auc"].value
    assert again["slices"]["kind"]["fraud_ring"]["frauds"] > 0


@pytest.mark.parametrize("fraud", [True, False])
def test_one_class_cannot_be_judged(fraud):
    data, raw, p = scored()
    part = data.is_fraud == fraud
    with pytest.raises(TrainingDataError, match="both classes are needed"):
        evaluate(data.rows(part), raw[part], p[part], thresholds=THRESHOLDS, costs=COSTS)


def test_a_model_against_itself_differs_by_nothing():
    data, raw, _ = scored()
    same = compare_net_value(data, (raw, THRESHOLDS), (raw, THRESHOLDS), costs=COSTS)
    assert (same.difference, same.low) == (0, 0)
    assert same.candidate == same.champion > 0


def test_the_comparison_is_paired():
    data, raw, _ = scored(customers=500)
    rng = np.random.default_rng(2)
    close = raw + rng.normal(0, 0.05, len(raw))
    compared = compare_net_value(data, (close, THRESHOLDS), (raw, THRESHOLDS), costs=COSTS)
    assert compared.low < compared.difference
    # Two independent samples of such frauds would differ by far more than these two models do.
    assert compared.difference - compared.low < 0.1 * compared.champion
    blind = compare_net_value(data, (rng.normal(size=len(raw)) - 2, THRESHOLDS), (raw, THRESHOLDS), costs=COSTS)
    assert blind.low < blind.difference < -0.5 * blind.champion


def test_alerts_beyond_the_budget_are_worth_nothing_to_either_side():
    """Equal scores, but one side alerts far more than there are analysts: it is no better for that."""
    data, raw, _ = scored(customers=500)
    budget = 0.01
    kept = replace(THRESHOLDS, review=NEVER, block=NEVER).within(raw, data.weight, budget)
    assert kept.review == NEVER
    eager = replace(THRESHOLDS, review=float(np.quantile(raw, 0.8)), block=float(np.quantile(raw, 0.999)))
    modest = eager.within(raw, data.weight, budget)
    assert 0.8 * budget < (raw >= modest.review).mean() <= budget
    assert modest.block >= modest.review
    free = compare_net_value(data, (raw, modest), (raw, eager), costs=Costs(review_cost=0.0))
    bound = compare_net_value(data, (raw, modest), (raw, eager), costs=Costs(review_cost=0.0), budget=budget)
    assert free.difference < 0
    assert bound.difference == 0


def test_equal_scores_are_alerted_together_or_not_at_all():
    raw = np.array([3.0, 2.0, 2.0, 2.0, 1.0])
    low = replace(THRESHOLDS, review=0.0, block=9.0)
    assert low.within(raw, np.ones(5), 0.4).review == 3.0
    assert low.within(raw, np.ones(5), 0.8).review == 2.0
    assert low.within(raw, np.ones(5), 0.1).review == NEVER
    assert low.within(raw, np.ones(5), 1.0) is low


def test_the_lower_bound_holds_nineteen_times_in_twenty():
    """Candidates that are truly worth the same: their lower bound lies below 0 about 95 % of the time."""
    below = 0
    for seed in range(60):
        data, raw, _ = scored(seed=seed, customers=200)
        noise = np.random.default_rng(seed + 1_000).normal(size=(2, len(raw)))
        one, other = raw + 0.7 * noise[0], raw + 0.7 * noise[1]
        below += compare_net_value(data, (one, THRESHOLDS), (other, THRESHOLDS), costs=COSTS, replicates=300).low < 0
    assert 52 <= below <= 60
