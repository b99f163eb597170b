from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fraud_pipeline.domain.promotion import Challenger
from fraud_pipeline.domain.shadow_comparison import Caught, KnownOutcomes, ShadowComparison
from fraud_pipeline.domain.shadow_trial import TRIAL, TrialLimits, TrialProgress, is_trial, judge_trial, waiting_for

LIMITS = TrialLimits(days=3, budget=0.005)


def compared(
    *, payments: int = 20_000, ours: float = 0.005, theirs: float = 0.005, caught: tuple[int, int] = (40, 40)
) -> ShadowComparison:
    sides = [Caught(100, count, 0.5, 0.5, 0.5) for count in caught]
    return ShadowComparison(
        payments, 0, payments, {}, 0.99, ours, theirs, 0.0, {}, KnownOutcomes(payments, 60, 60, sides[0], sides[1])
    )


def test_as_good_as_the_champion_is_good_enough():
    found = judge_trial(compared(), LIMITS)
    assert found.promoted
    assert "would have caught 40 of 60 known frauds (the champion 40)" in found.reason


@pytest.mark.parametrize(
    ("comparison", "broken"),
    [
        (compared(ours=0.05), "alerts_within_the_budget"),
        (compared(ours=0.0), "alerts_not_gone"),
        (compared(caught=(5, 50)), "no_fraud_lost"),
    ],
)
def test_what_breaks_a_limit_is_dismissed_with_the_reason(comparison: ShadowComparison, broken: str):
    found = judge_trial(comparison, LIMITS)
    assert (found.promoted, [check.name for check in found.checks if not check.passed]) == (False, [broken])


@pytest.mark.parametrize(
    "comparison",
    [
        compared(ours=0.05, theirs=0.04),
        compared(payments=600, ours=0.02),
        compared(payments=600, ours=0.0),
        compared(caught=(38, 45)),
    ],
    ids=["the world's alerts", "a burst", "too few to be blind", "chance"],
)
def test_what_the_world_or_chance_explains_is_no_reason(comparison: ShadowComparison):
    assert judge_trial(comparison, LIMITS).promoted


@pytest.mark.parametrize("comparison", [None, compared(payments=499)])
def test_without_shadow_decisions_nothing_is_promoted(comparison: ShadowComparison | None):
    found = judge_trial(comparison, LIMITS)
    assert not found.promoted
    assert "payments were scored in shadow" in found.reason


@pytest.mark.parametrize(
    ("payments", "days", "over"),
    [(500, 3.0, True), (499, 3.0, False), (500, 2.9, False), (0, 5.9, False), (0, 6.0, True)],
)
def test_it_is_over_after_days_and_decisions_or_when_patience_is(payments: int, days: float, over: bool):
    said = waiting_for(TrialProgress(payments, days), LIMITS)
    assert (said == "") is over
    assert over or f"{days:.1f} of 3 days of data" in said


def test_only_what_the_automation_appointed_is_ended_by_it():
    ours = Challenger(
        1, 2, "f", "dagster run x", f"{TRIAL} of 3 days: all gates passed", datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert is_trial(ours)
    assert not is_trial(replace(ours, reason="a trial of mine"))
    assert not is_trial(replace(ours, version=None, fingerprint=None))
