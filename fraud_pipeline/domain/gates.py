"""The gates between a candidate and a promotion: each states a claim, the number it was judged by, and what that means.

They read numbers that others measured and change nothing. A gate of severity `error` blocks the promotion; `warn` is
shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:  # their modules load compiled kernels, which reading a gate's name does not need
    from fraud_pipeline.domain.evaluation import Metric
    from fraud_pipeline.domain.net_value import ValueComparison

Severity = Literal["error", "warn"]

REQUIRED_GATES: Final = (
    "pr_auc_above_floor",
    "recall_at_budget_above_floor",
    "expected_frauds_match_observed",
    "net_value_not_worse_than_champion",
    "served_scores_equal_training_scores",
)
"""The gates of severity `error`: a promotion needs a result of each."""

SCORE_TOLERANCE: Final = 1e-4
"""Largest difference of raw score between training library and served form: rounding of a sum of hundreds of trees
leaves about 1e-6; a lost tree or a wrong default direction differs by far more than this.
"""


@dataclass(frozen=True)
class GateSettings:
    """The limits; `value_loss` is the share of the champion's net value that a candidate's lower bound may fall below
    it.
    """

    min_pr_auc: float = 0.15
    min_recall: float = 0.30
    min_calibration_ratio: float = 0.7
    max_calibration_ratio: float = 1.4
    value_loss: float = 0.05
    max_decision_ms: float = 1.0


@dataclass(frozen=True)
class GateResult:
    """`value` is None where it could not be measured; `limit` is the bound as text."""

    name: str
    passed: bool
    severity: Severity
    value: float | None
    limit: str
    explanation: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(
    metrics: Mapping[str, Metric],
    comparison: ValueComparison | None,
    *,
    max_score_difference: float,
    decision_ms: float | None = None,
    settings: GateSettings | None = None,
) -> tuple[GateResult, ...]:
    """All gates for a candidate's evaluation model.

    `metrics` as `evaluation.evaluate` names them. `comparison` is None where there is no champion to compare with.
    `max_score_difference`: the largest absolute difference between the raw scores that training computed and those of
    the saved bundle. `decision_ms`: p99 of one decision in process, None where it was not measured.
    """
    limits = settings or GateSettings()
    return (
        _above("pr_auc_above_floor", metrics["pr_auc"], limits.min_pr_auc, "PR-AUC on the test period"),
        _above(
            "recall_at_budget_above_floor",
            metrics["recall_at_budget"],
            limits.min_recall,
            "Share of frauds within the alert budget",
        ),
        _calibration(metrics["expected_over_observed"], limits),
        _net_value(comparison, limits),
        _served_scores(max_score_difference),
        _latency(decision_ms, limits),
    )


def all_passed(results: tuple[GateResult, ...]) -> bool:
    """Whether no gate of severity `error` failed."""
    return all(result.passed for result in results if result.severity == "error")


def champion_form(champion_fitted_through: date, test_start: date) -> Literal["served", "evaluation"]:
    """Which form of the champion to compare with on a test period.

    As served where it learned from nothing of that period (`champion_fitted_through` is the first day it did not
    learn from), else its own evaluation model: the served one has seen the answers.
    """
    return "served" if champion_fitted_through <= test_start else "evaluation"


def _above(name: str, metric: Metric, floor: float, meaning: str) -> GateResult:
    passed = metric.value >= floor
    explanation = (
        f"{meaning}: {metric.value:.3f} (95 % interval {metric.low:.3f} to {metric.high:.3f}), "
        f"{'at or above' if passed else 'below'} the floor of {floor:.2f}."
    )
    return GateResult(name, passed, "error", _number(metric.value), f">= {floor:g}", explanation)


def _calibration(ratio: Metric, limits: GateSettings) -> GateResult:
    low, high = limits.min_calibration_ratio, limits.max_calibration_ratio
    limit = f"{low:g} to {high:g}"
    name = "expected_frauds_match_observed"
    if math.isnan(ratio.value):
        why = "No alert of the test period was a fraud, so the probabilities of alerts cannot be judged."
        return GateResult(name, False, "error", None, limit, why)
    passed = low <= ratio.value <= high
    explanation = f"The probabilities of the alerts promise {ratio.value:.2f} times the frauds observed among them; {limit} is allowed."
    return GateResult(name, passed, "error", ratio.value, limit, explanation)


def _net_value(comparison: ValueComparison | None, limits: GateSettings) -> GateResult:
    name = "net_value_not_worse_than_champion"
    if comparison is None:
        limit = f"lower bound >= -{limits.value_loss:.0%} of the champion's"
        return GateResult(name, True, "error", None, limit, "There is no champion yet: nothing to be worse than.")
    bound = -limits.value_loss * abs(comparison.champion)
    passed = comparison.low >= bound
    explanation = (
        f"Net value on the test period: candidate {comparison.candidate:,.0f}, champion {comparison.champion:,.0f}; the difference "
        f"{comparison.difference:+,.0f} is with 95 % confidence above {comparison.low:+,.0f}, and must be above {bound:+,.0f}."
    )
    return GateResult(name, passed, "error", _number(comparison.low), f">= {bound:.0f}", explanation)


def _served_scores(difference: float) -> GateResult:
    passed = difference <= SCORE_TOLERANCE
    explanation = f"The saved bundle's raw scores differ from training's by at most {difference:.2g}; {SCORE_TOLERANCE:g} is rounding."
    return GateResult(
        "served_scores_equal_training_scores",
        passed,
        "error",
        _number(difference),
        f"<= {SCORE_TOLERANCE:g}",
        explanation,
    )


def _latency(decision_ms: float | None, limits: GateSettings) -> GateResult:
    name, limit = "decision_within_latency_budget", f"<= {limits.max_decision_ms:g} ms"
    if decision_ms is None:
        return GateResult(name, True, "warn", None, limit, "The latency of a decision was not measured in this run.")
    passed = decision_ms <= limits.max_decision_ms
    explanation = f"99 % of single decisions in process take at most {decision_ms:.2f} ms; the budget is {limits.max_decision_ms:g} ms."
    return GateResult(name, passed, "warn", decision_ms, limit, explanation)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
