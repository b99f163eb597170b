from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_pipeline.domain.promotion_watch import WatchLimits, WatchPromise, judge_watch, share_bounds
from fraud_pipeline.domain.watch_tally import SCORE_BINS, WatchTally, psi

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
LIMITS = WatchLimits()
EDGES = tuple(float(x) for x in range(SCORE_BINS - 1))
PROMISE = WatchPromise(0.005, 0.005, EDGES, 10_000, compared_with=1, other_edges=EDGES)


def tally(decisions: int, *, days: float = 2.0, alerts: int | None = None, **changes: Any) -> WatchTally:
    """A model that does what it promised, and what the one before did, but for `changes`."""
    alerted = round(decisions * 0.005) if alerts is None else alerts
    known = {
        "decisions": decisions, "alerts": alerted, "compared": decisions, "both": alerted,
        "scores": (decisions // SCORE_BINS,) * SCORE_BINS, "other_scores": (decisions // SCORE_BINS,) * SCORE_BINS,
        "first_event": MONDAY, "newest_event": MONDAY + timedelta(days=days),
    }  # fmt: skip
    return WatchTally(**{**known, **changes})


def breaches(seen: WatchTally, promise: WatchPromise = PROMISE, limits: WatchLimits = LIMITS) -> list[str]:
    return [check.name for check in judge_watch(seen, promise, limits).breaches]


def test_a_model_that_keeps_its_promise_is_watched_until_the_days_are_over_and_then_passes():
    assert judge_watch(tally(5_000, days=6.9), PROMISE).verdict == "watching"
    passed = judge_watch(tally(5_000, days=7), PROMISE)
    assert (passed.verdict, passed.breaches) == ("passed", ())
    assert "5,000 decisions over 7.0 days" in passed.reason


def test_days_alone_do_not_pass_a_model_that_hardly_decided():
    assert judge_watch(tally(499, days=30), PROMISE).verdict == "watching"
    assert judge_watch(WatchTally(), PROMISE).verdict == "watching"


def test_a_flood_of_alerts_ends_the_watch_after_500_decisions():
    flood = tally(500, days=0.02, alerts=50, both=2, new_only=48)
    found = judge_watch(flood, PROMISE)
    assert (found.verdict, [check.name for check in found.breaches]) == ("breached", ["alerts_within_the_budget"])
    assert "10.00% of 500 payments were alerted" in found.reason
    assert "version 1 would have alerted 0.40% of the same payments" in found.reason
    assert judge_watch(replace(flood, decisions=499), PROMISE).verdict == "watching"


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (tally(500, days=0.1, alerts=33, both=30, new_only=3), "a campaign: the one before raises it too"),
        (tally(500, days=0.1, alerts=33, both=1, new_only=32), "a burst of 13 times in an hour, as honest models have"),
        (tally(3_000, days=1.0, alerts=38, both=10, new_only=28), "a day of 2.5 times the budget"),
        (tally(20_000, days=5, alerts=400, both=390, new_only=10), "the world is 4 times over budget for both"),
        (tally(20_000, days=5, alerts=20, both=20, old_only=10), "few alerts, as the one before"),
        (tally(20_000, days=0.9, alerts=0, both=0, old_only=100), "a morning without alerts"),
        (tally(2_000, days=2, alerts=0, both=0, old_only=8), "too few payments to miss an alert"),
    ],
)  # fmt: skip
def test_what_is_the_worlds_or_chances_takes_no_model_back(seen: WatchTally, why: str):
    assert breaches(seen) == [], why


def test_four_times_the_budget_over_days_is_too_much_where_the_one_before_keeps_it():
    assert breaches(tally(20_000, alerts=400, both=90, new_only=310)) == ["alerts_within_the_budget"]


def test_without_one_before_the_budget_alone_judges():
    alone = replace(PROMISE, compared_with=None, other_edges=())
    seen = tally(20_000, alerts=400, compared=0, both=0, other_scores=(0,) * SCORE_BINS)
    assert breaches(seen, alone) == ["alerts_within_the_budget"]


def test_a_model_that_has_gone_blind_is_found_by_its_missing_alerts():
    assert breaches(tally(20_000, alerts=1, both=1, old_only=80)) == ["alerts_not_gone"]


def test_a_forced_model_is_held_to_the_budget_not_to_what_it_says_of_itself():
    blind = replace(PROMISE, alert_share=0.0)
    seen = tally(20_000, alerts=0, both=0, old_only=80)
    assert breaches(seen, blind) == []
    assert breaches(seen, replace(blind, alert_share=None)) == ["alerts_not_gone"]


def test_shifted_scores_are_the_models_where_the_one_before_sees_the_same_world():
    shifted = (4_000, 3_000, 2_000, 500, 100, 100, 100, 100, 50, 50)
    seen = tally(10_000, scores=shifted)
    assert breaches(seen) == ["scores_as_in_the_reference"]
    assert breaches(replace(seen, other_scores=shifted)) == [], "the world has moved, under both"
    assert breaches(replace(seen, newest_event=MONDAY + timedelta(hours=5))) == [], "a night differs from a day"


def test_a_shift_that_chance_explains_is_none():
    few = (20, 11, 9, 4, 3, 2, 1, 1, 0, 0)
    assert psi(few) > 0.25
    assert breaches(tally(51, scores=few), limits=WatchLimits(least_decisions=50)) == []


def test_frauds_that_only_the_one_before_would_have_found_take_the_model_back():
    seen = tally(20_000, frauds=60, caught=20, labelled=60, old_only=45, old_only_frauds=40)
    found = judge_watch(seen, PROMISE)
    assert [check.name for check in found.breaches] == ["no_fraud_lost_to_the_champion_before"]
    assert "Of 60 known frauds 20 were alerted; version 1 alone would have alerted 40 more" in found.reason
    for gain in ({"new_only_frauds": 30}, {"held_gain": 30.0}):
        assert breaches(replace(seen, **gain)) == [], gain
    assert breaches(replace(seen, old_only_frauds=8)) == [], "8 frauds are chance"


@given(st.integers(0, 2_000), st.integers(1, 2_000))
def test_the_bounds_hold_the_share_and_close_in_with_more_of_it(count: int, more: int):
    of = count + more
    low, high = share_bounds(count, of, z=3.3, cluster=2.0)
    assert 0.0 <= low <= count / of <= high <= 1.0
    narrower = share_bounds(10 * count, 10 * of, z=3.3, cluster=2.0)
    assert narrower[1] - narrower[0] < high - low


def test_the_bounds_of_nothing_are_everything():
    assert share_bounds(0, 0, z=3.3, cluster=2.0) == (0.0, 1.0)


def test_psi_is_nothing_for_equal_bins_and_finite_for_empty_ones():
    assert psi((100,) * SCORE_BINS) == pytest.approx(0.0)
    assert psi((1_000, *(0,) * (SCORE_BINS - 1))) < 20
    assert psi((0,) * SCORE_BINS) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_two_equal_models_pass_a_year_of_weeks_that_are_asked_at_every_tick(seed: int):
    """Clustered alerts, twenty payments a tick: a model like the one before is never taken back."""
    rng = np.random.default_rng(seed)
    seen = WatchTally(first_event=MONDAY, newest_event=MONDAY)
    for tick in range(840):
        campaign = rng.random() < 0.02
        share = 0.08 if campaign else 0.004
        both, ours, theirs = rng.multinomial(20, [share * 0.7, share * 0.3, share * 0.3, 1 - share * 1.3])[:3]
        scores = tuple(int(n) for n in rng.multinomial(20, [1 / SCORE_BINS] * SCORE_BINS))
        part = WatchTally(
            decisions=20, alerts=int(both + ours), compared=20, both=int(both), new_only=int(ours), old_only=int(theirs),
            frauds=int(ours + theirs), new_only_frauds=int(ours), old_only_frauds=int(theirs), scores=scores,
            other_scores=scores, first_event=MONDAY, newest_event=MONDAY + timedelta(minutes=12 * (tick + 1)),
        )  # fmt: skip
        seen = seen.plus(part)
        assert judge_watch(seen, PROMISE).verdict != "breached", judge_watch(seen, PROMISE).reason
    assert judge_watch(seen, PROMISE).verdict == "passed"


def test_a_tally_adds_up_and_survives_json():
    first = tally(600, days=1, labelled=3, frauds=2, held_gain=0.5)
    both = first.plus(tally(400, days=3, first_event=MONDAY + timedelta(days=2), held_gain=0.25))
    assert (both.decisions, both.alerts, both.days, both.held_gain) == (1_000, 5, 3.0, 0.75)
    assert WatchTally().plus(first) == first
    assert WatchTally.from_dict(json.loads(json.dumps(both.to_dict()))) == both
