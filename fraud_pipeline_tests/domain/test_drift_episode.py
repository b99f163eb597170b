from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fraud_pipeline.domain.drift_episode import (
    DriftAttempt,
    DriftEpisode,
    DriftObservation,
    EpisodeAction,
    EpisodePolicy,
    RunState,
    next_action,
)

AS_OF = datetime(2026, 5, 1, tzinfo=UTC)
NOW = datetime(2027, 1, 1, 8, 0, tzinfo=UTC)
DAY = timedelta(days=1)
DRIFT = DriftObservation(AS_OF, champion_version=3, drifted=True, reason="15 of 30 features drifted")
CALM = replace(DRIFT, drifted=False, reason="stable")
POLICY = EpisodePolicy(cooldown=7 * DAY, new_evidence_after=7 * DAY, retry_after=timedelta(hours=1), max_attempts=3)


def attempt(number: int, outcome: RunState | None = None, *, as_of: datetime = AS_OF) -> DriftAttempt:
    return DriftAttempt(number, f"1:{number}", as_of, NOW, outcome)


def episode(*attempts: DriftAttempt, **changes: Any) -> DriftEpisode:
    return replace(DriftEpisode(1, AS_OF, champion_version=3, attempts=attempts), **changes)


def act(
    last: DriftEpisode | None, observation: DriftObservation, *, champion: int = 3, **changes: Any
) -> EpisodeAction:
    return next_action(last, observation, champion_version=champion, policy=POLICY, **{"now": NOW, **changes})


def test_without_drift_nothing_happens():
    assert act(None, CALM).kind == "none"


def test_drift_opens_an_episode_and_asks_for_a_run():
    action = act(None, DRIFT)
    assert (action.kind, action.run_key, action.starts_run) == ("open", "1:1", True)
    assert action.reason == "15 of 30 features drifted"


def test_a_broken_input_neither_starts_a_training_nor_ends_an_episode():
    broken = replace(CALM, broken_input=True, reason="country_code is missing in 40%, it was in 2%")
    for last in (None, episode(attempt(1, "running")), episode(attempt(1, "failed"))):
        action = act(last, broken, now=NOW + DAY)
        assert action.kind == "none"
        assert "country_code is missing" in action.reason
    assert act(episode(attempt(1)), broken, champion=4).kind == "close"


def test_a_second_look_at_the_same_verdict_asks_for_nothing():
    assert act(episode(attempt(1, "running")), DRIFT).kind == "none"
    assert act(episode(attempt(1)), DRIFT, last_run="running").kind == "none"


def test_a_request_whose_run_never_started_is_made_again_under_the_same_key():
    just_asked = episode(attempt(1))
    assert act(just_asked, DRIFT, now=NOW + timedelta(seconds=59)).kind == "none"
    action = act(just_asked, DRIFT, now=NOW + timedelta(minutes=1))
    assert (action.kind, action.run_key, action.renews) == ("request", "1:1", NOW)


def test_an_episode_opens_at_once_and_its_training_waits_for_labels():
    action = act(None, DRIFT, shortage="3 of 30 new mature frauds are known")
    assert (action.kind, action.starts_run) == ("open", False)
    assert "Episode 1 opens and waits for labels: 3 of 30" in action.reason
    waiting = act(episode(), DRIFT, shortage="20 of 30 new mature frauds are known")
    assert (waiting.kind, "waits for labels: 20 of 30" in waiting.reason) == ("none", True)
    assert act(episode(), DRIFT).run_key == "1:1"
    failed = episode(attempt(1, "failed"))
    assert "waits for labels" in act(failed, DRIFT, now=NOW + DAY, shortage="5 of 30").reason


def test_an_open_episode_waits_for_a_training_that_runs_for_another_reason():
    assert "a training is running" in act(episode(), DRIFT, training_in_progress=True).reason


@pytest.mark.parametrize("set_back", [timedelta(minutes=1), 30 * DAY, 400 * DAY])
def test_a_clock_that_was_set_back_holds_nothing_up(set_back: timedelta):
    assert act(episode(attempt(1, "failed")), DRIFT, now=NOW - set_back).run_key == "1:2"
    assert act(episode(attempt(1)), DRIFT, now=NOW - set_back).run_key == "1:1"


def test_a_clock_that_was_set_ahead_starts_one_attempt_and_no_more_than_three():
    ahead = NOW + 3_000 * DAY
    assert act(episode(attempt(1, "failed")), DRIFT, now=ahead).run_key == "1:2"
    assert act(episode(attempt(1, "succeeded")), DRIFT, now=ahead).kind == "none"
    assert act(episode(*(attempt(n, "failed") for n in (1, 2, 3))), DRIFT, now=ahead).kind == "none"
    closed = episode(attempt(1, "succeeded"), closed_at=AS_OF)
    assert "cools down" in act(closed, DRIFT, now=ahead).reason


def test_a_candidate_that_decides_in_shadow_is_waited_for():
    later = replace(DRIFT, as_of=AS_OF + 30 * DAY)
    for last in (None, episode(attempt(1, "succeeded"))):
        action = act(last, later, trial="version 4 decides in shadow")
        assert (action.kind, action.reason) == (
            "none", "Drift, but version 4 decides in shadow: the end of its shadow period is waited for.",
        )  # fmt: skip
    assert act(episode(attempt(1, "succeeded")), CALM, trial="version 4 decides in shadow").kind == "close"


def test_a_report_of_an_older_day_neither_closes_nor_asks():
    for older in (replace(DRIFT, as_of=AS_OF - DAY), replace(CALM, as_of=AS_OF - DAY)):
        action = act(episode(attempt(1, "failed")), older, now=NOW + DAY)
        assert (action.kind, "before the episode opened" in action.reason) == ("none", True)


def test_an_episode_opened_just_before_a_crash_still_gets_its_first_run():
    action = act(episode(), DRIFT)
    assert (action.kind, action.run_key) == ("request", "1:1")


def test_another_training_is_waited_for():
    assert "already running" in act(None, DRIFT, training_in_progress=True).reason
    assert act(episode(attempt(1, "failed")), DRIFT, now=NOW + DAY, training_in_progress=True).kind == "none"


def test_a_failed_run_is_tried_again_after_a_while_and_not_for_ever():
    failed = episode(attempt(1, "failed"))
    assert act(failed, DRIFT, now=NOW + timedelta(minutes=59)).kind == "none"
    assert act(failed, DRIFT, now=NOW + timedelta(hours=1)).run_key == "1:2"
    last = act(episode(attempt(1, "failed"), attempt(2, "failed"), attempt(3, "failed")), DRIFT, now=NOW + DAY)
    assert (last.kind, "a person is needed" in last.reason) == ("none", True)


def test_a_candidate_that_was_not_promoted_is_tried_again_only_with_new_data():
    unpromoted = episode(attempt(1, "succeeded"))
    assert act(unpromoted, DRIFT, now=NOW + 30 * DAY).kind == "none"
    later = replace(DRIFT, as_of=AS_OF + 7 * DAY)
    assert act(unpromoted, later, now=NOW + timedelta(minutes=1)).run_key == "1:2"


def test_the_state_that_the_runner_knows_counts_before_the_one_written_down():
    assert act(episode(attempt(1, "running")), DRIFT, last_run="failed", now=NOW + DAY).run_key == "1:2"


def test_a_promotion_closes_the_episode_whatever_the_verdict():
    for observation in (DRIFT, CALM, replace(DRIFT, champion_version=4)):
        action = act(episode(attempt(1, "succeeded")), observation, champion=4)
        assert (action.kind, action.episode_id, action.reason) == ("close", 1, "Version 4 was promoted.")


def test_the_end_of_the_drift_closes_the_episode():
    action = act(episode(attempt(1, "failed")), CALM)
    assert (action.kind, action.reason) == ("close", "The drift is over.")


def test_a_verdict_about_an_old_champion_says_nothing_of_the_new_one():
    closed = episode(attempt(1, "succeeded"), closed_at=AS_OF, close_reason="Version 4 was promoted.")
    action = act(closed, DRIFT, champion=4)
    assert (action.kind, "about version 3" in action.reason) == ("none", True)


def test_after_an_episode_drift_is_left_alone_until_it_has_cooled_down():
    closed = episode(attempt(1, "succeeded"), closed_at=AS_OF)
    assert "cools down until 2026-05-08" in act(closed, replace(DRIFT, as_of=AS_OF + 6 * DAY)).reason
    again = act(closed, replace(DRIFT, as_of=AS_OF + 7 * DAY))
    assert (again.kind, again.run_key) == ("open", "2:1")


@pytest.mark.parametrize("ticks_per_day", [1, 24])
def test_a_drift_that_no_training_ends_costs_three_runs_at_most(ticks_per_day: int):
    """Sixty days of ticks against a small fake of the ledger and of Dagster: every run succeeds, none is promoted."""
    state: DriftEpisode | None = None
    runs: list[str] = []
    for tick in range(60 * ticks_per_day):
        seen = replace(DRIFT, as_of=AS_OF + DAY * (tick // ticks_per_day))
        action = act(state, seen, now=NOW + tick * DAY / ticks_per_day, last_run="succeeded" if runs else None)
        if action.kind == "open":
            state = DriftEpisode(action.episode_id, seen.as_of, 3)
        if action.starts_run:
            assert state is not None
            runs.append(action.run_key)
            made = DriftAttempt(action.attempt, action.run_key, seen.as_of, NOW)
            state = replace(state, attempts=(*state.attempts, made))
    assert runs == ["1:1", "1:2", "1:3"]
