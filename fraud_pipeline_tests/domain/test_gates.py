import json
from datetime import date

import pytest

from fraud_pipeline.domain.evaluation import Metric
from fraud_pipeline.domain.gates import REQUIRED_GATES, GateSettings, all_passed, champion_form, judge
from fraud_pipeline.domain.net_value import ValueComparison

GOOD = {
    "pr_auc": Metric(0.45, 0.40, 0.50),
    "recall_at_budget": Metric(0.35, 0.30, 0.40),
    "expected_over_observed": Metric(1.05, 0.9, 1.2),
}


def judged(comparison=None, *, difference=1e-6, decision_ms=0.2, settings=None, **changes):
    results = judge(
        {**GOOD, **changes}, comparison, max_score_difference=difference, decision_ms=decision_ms, settings=settings
    )
    return {result.name: result for result in results}


def test_a_good_first_candidate_passes_every_gate():
    results = judged()
    assert all(result.passed for result in results.values())
    assert set(REQUIRED_GATES) == {name for name, result in results.items() if result.severity == "error"}
    assert "no champion yet" in results["net_value_not_worse_than_champion"].explanation
    json.dumps([result.as_dict() for result in results.values()], allow_nan=False)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("pr_auc_above_floor", {"pr_auc": Metric(0.149, 0.1, 0.2)}),
        ("pr_auc_above_floor", {"pr_auc": Metric(float("nan"), float("nan"), float("nan"))}),
        ("recall_at_budget_above_floor", {"recall_at_budget": Metric(0.29, 0.2, 0.4)}),
        ("expected_frauds_match_observed", {"expected_over_observed": Metric(0.69, 0.5, 0.9)}),
        ("expected_frauds_match_observed", {"expected_over_observed": Metric(1.41, 1.2, 1.7)}),
        (
            "expected_frauds_match_observed",
            {"expected_over_observed": Metric(float("nan"), float("nan"), float("nan"))},
        ),
        ("served_scores_equal_training_scores", {"difference": 0.01}),
        ("served_scores_equal_training_scores", {"difference": float("nan")}),
        ("net_value_not_worse_than_champion", {"comparison": ValueComparison(900, 1_000, -100, -150)}),
        ("net_value_not_worse_than_champion", {"comparison": ValueComparison(900, 1_000, -100, float("nan"))}),
    ],
)
def test_each_gate_stops_what_it_is_for(name, changes):
    results = judged(**changes)
    assert [gate for gate, result in results.items() if not result.passed] == [name]
    assert not all_passed(tuple(results.values()))
    json.dumps(results[name].as_dict(), allow_nan=False)


def test_a_candidate_may_fall_below_the_champion_by_a_twentieth_at_the_lower_bound():
    within = judged(ValueComparison(candidate=990, champion=1_000, difference=-10, low=-49))
    assert within["net_value_not_worse_than_champion"].passed
    below = judged(ValueComparison(candidate=990, champion=1_000, difference=-10, low=-51))
    assert not below["net_value_not_worse_than_champion"].passed
    assert "must be above -50" in below["net_value_not_worse_than_champion"].explanation


def test_a_champion_that_loses_money_is_measured_by_its_size():
    assert judged(ValueComparison(-90, -100, 10, -4))["net_value_not_worse_than_champion"].passed
    assert not judged(ValueComparison(-110, -100, -10, -6))["net_value_not_worse_than_champion"].passed


def test_a_slow_decision_warns_and_does_not_stop():
    results = judged(decision_ms=3.0)
    assert not results["decision_within_latency_budget"].passed
    assert results["decision_within_latency_budget"].severity == "warn"
    assert all_passed(tuple(results.values()))
    assert judged(decision_ms=None)["decision_within_latency_budget"].passed


def test_limits_are_settings():
    strict = GateSettings(min_pr_auc=0.5, min_recall=0.5, max_decision_ms=0.1)
    failed = [name for name, result in judged(settings=strict).items() if not result.passed]
    assert failed == ["pr_auc_above_floor", "recall_at_budget_above_floor", "decision_within_latency_budget"]


def test_a_champion_that_has_seen_the_test_days_is_compared_by_its_evaluation_model():
    assert champion_form(date(2026, 5, 1), date(2026, 5, 1)) == "served"
    assert champion_form(date(2026, 5, 2), date(2026, 5, 1)) == "evaluation"
