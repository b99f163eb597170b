"""Drift to one retraining per episode, over a real ledger and Dagster's own bookkeeping of run keys."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_schema import drift_attempts
from fraud_pipeline.defs.automation import retrain
from fraud_pipeline.defs.sensors import EPISODE_TAG, drift_retrain, drift_retrain_done, failed_runs, request_retrain
from fraud_pipeline.domain.drift_episode import EpisodeAction
from fraud_pipeline.domain.new_labels import NewLabels
from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline.settings import Settings

CHAMPION = 3


class KnownFrauds:
    """Stands for the stored days: what is known since the champion learned."""

    def __init__(self, frauds: int = 500, days: int = 10) -> None:
        self.new = NewLabels(frauds, days, date(2026, 2, 20))

    def since(self, champion: Promotion, *, as_of: date) -> NewLabels:
        assert champion.version == CHAMPION or as_of > date(2026, 3, 1)
        return self.new


def promote(ledger: Ledger, version: int) -> None:
    before = ledger.current_promotion()
    previous = before.promotion_id if before else 0
    ledger.append_promotion(
        Promotion(previous + 1, previous, "promotion", version, f"f{version}", None, "test", "", datetime.now(UTC))
    )


def report(
    instance: dg.DagsterInstance, status: str, *, as_of: date = date(2026, 3, 1), champion: int = CHAMPION
) -> None:
    verdict = {"status": status, "reasons": ["12 of 65 features drifted"]}
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            "drift_report",
            metadata={
                "status": status,
                "champion": champion,
                "as of": str(as_of),
                "verdict": dg.MetadataValue.json(verdict),
            },
        )
    )


def tick(
    instance: dg.DagsterInstance, ledger: Ledger, *, known: KnownFrauds | None = None, start: Any = request_retrain
) -> Any:
    resources = {
        "ledger": ledger, "settings": Settings(), "new_frauds": known or KnownFrauds(), "start_training": start,
    }  # fmt: skip
    with dg.build_sensor_context(instance=instance, resources=resources) as context:
        return drift_retrain(context)


def run_of(instance: dg.DagsterInstance, key: str, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    run = dg.DagsterRun(job_name=retrain.name, tags={EPISODE_TAG: key}, status=status)
    return instance.add_run(run)


def test_nothing_is_asked_for_without_a_champion_or_a_report(instance: dg.DagsterInstance, ledger: Ledger) -> None:
    assert isinstance(tick(instance, ledger), dg.SkipReason)
    promote(ledger, CHAMPION)
    assert isinstance(tick(instance, ledger), dg.SkipReason)


@pytest.mark.parametrize("status", ["stable", "watch", "broken_input"])
def test_only_drift_starts_a_training(instance: dg.DagsterInstance, ledger: Ledger, status: str) -> None:
    promote(ledger, CHAMPION)
    report(instance, status)
    assert isinstance(tick(instance, ledger), dg.SkipReason)
    assert ledger.last_episode() is None


def test_drift_asks_once_and_the_same_drift_never_again(instance: dg.DagsterInstance, ledger: Ledger) -> None:
    promote(ledger, CHAMPION)
    report(instance, "drift")
    request = tick(instance, ledger)
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == "1:1"
    assert request.tags[EPISODE_TAG] == "1:1"
    run_of(instance, "1:1", dg.DagsterRunStatus.STARTED)
    again = tick(instance, ledger)
    assert isinstance(again, dg.SkipReason)
    assert "running" in str(again.skip_message)
    episode = ledger.last_episode()
    assert episode is not None
    assert [attempt.run_key for attempt in episode.attempts] == ["1:1"]


def ask_long_ago(ledger: Ledger, *, ago: timedelta) -> None:
    """The newest request, made that much earlier by the machine's clock; below zero it lies ahead of it."""
    with ledger.database.writing() as connection:
        connection.execute(sa.update(drift_attempts).values(requested_at=datetime.now(UTC) - ago))


@pytest.mark.parametrize(
    "ago", [timedelta(minutes=2), timedelta(days=-400)], ids=["a while ago", "the clock was set back"]
)
def test_a_request_that_never_became_a_run_is_repeated_under_the_same_key(
    instance: dg.DagsterInstance, ledger: Ledger, ago: timedelta
) -> None:
    promote(ledger, CHAMPION)
    report(instance, "drift")
    assert tick(instance, ledger).run_key == "1:1"
    assert "a moment ago" in str(tick(instance, ledger).skip_message)
    ask_long_ago(ledger, ago=ago)
    assert tick(instance, ledger).run_key == "1:1"
    assert "a moment ago" in str(tick(instance, ledger).skip_message), "another daemon that looks now leaves it alone"


def test_of_two_daemons_that_ask_at_once_one_does_and_the_other_says_so(
    instance: dg.DagsterInstance, ledger: Ledger
) -> None:
    class Slow(Ledger):
        """Between its look at the episode and its write the other daemon has its whole tick."""

        def last_episode(self) -> Any:
            seen = super().last_episode()
            told.append(tick(instance, ledger))
            return seen

    promote(ledger, CHAMPION)
    report(instance, "drift")
    told: list[Any] = []
    for again in (False, True):
        if again:
            ask_long_ago(ledger, ago=timedelta(minutes=2))
        late = tick(instance, Slow(ledger.database))
        assert "Another daemon has just acted" in str(late.skip_message)
    assert [request.run_key for request in told] == ["1:1", "1:1"]


def test_an_episode_waits_for_enough_new_frauds_and_says_how_many_it_has(
    instance: dg.DagsterInstance, ledger: Ledger
) -> None:
    promote(ledger, CHAMPION)
    report(instance, "drift")
    few = KnownFrauds(12, 3)
    first = tick(instance, ledger, known=few)
    assert "Episode 1 opens and waits for labels: 12 of 30 new mature frauds are known" in str(first.skip_message)
    assert "about 5 more days of data are needed" in str(tick(instance, ledger, known=few).skip_message)
    episode = ledger.last_episode()
    assert episode is not None
    assert (episode.closed_at, episode.attempts) == (None, ())
    assert tick(instance, ledger, known=KnownFrauds(30, 7)).run_key == "1:1"


def test_what_starts_the_training_is_the_callers(instance: dg.DagsterInstance, ledger: Ledger) -> None:
    started: list[EpisodeAction] = []

    def start(action: EpisodeAction) -> dg.SkipReason:
        started.append(action)
        return dg.SkipReason("started elsewhere")

    promote(ledger, CHAMPION)
    report(instance, "drift")
    assert tick(instance, ledger, start=start).skip_message == "started elsewhere"
    assert [(action.run_key, action.reason) for action in started] == [("1:1", "12 of 65 features drifted")]


def test_a_failed_run_waits_an_hour_by_a_clock_that_may_jump(instance: dg.DagsterInstance, ledger: Ledger) -> None:
    promote(ledger, CHAMPION)
    report(instance, "drift")
    tick(instance, ledger)
    run_of(instance, "1:1", dg.DagsterRunStatus.FAILURE)
    assert "its run failed; again after" in str(tick(instance, ledger).skip_message)
    ask_long_ago(ledger, ago=timedelta(days=-30))
    assert tick(instance, ledger).run_key == "1:2"


def test_a_promotion_closes_the_episode(instance: dg.DagsterInstance, ledger: Ledger) -> None:
    promote(ledger, CHAMPION)
    report(instance, "drift")
    tick(instance, ledger)
    run_of(instance, "1:1", dg.DagsterRunStatus.SUCCESS)
    promote(ledger, CHAMPION + 1)
    assert isinstance(tick(instance, ledger), dg.SkipReason)
    episode = ledger.last_episode()
    assert episode is not None
    assert episode.closed_at is not None
    report(instance, "drift", champion=CHAMPION + 1, as_of=date(2026, 3, 3))
    assert "cools down" in str(tick(instance, ledger).skip_message)
    report(instance, "drift", champion=CHAMPION + 1, as_of=date(2026, 3, 20))
    assert tick(instance, ledger).run_key == "2:1"


def test_a_training_already_running_is_waited_for(instance: dg.DagsterInstance, ledger: Ledger) -> None:
    promote(ledger, CHAMPION)
    report(instance, "drift")
    instance.add_run(dg.DagsterRun(job_name=retrain.name, status=dg.DagsterRunStatus.STARTED))
    assert "already running" in str(tick(instance, ledger).skip_message)


def test_a_candidate_that_failed_is_tried_again_with_a_week_more_of_data(
    instance: dg.DagsterInstance, ledger: Ledger
) -> None:
    promote(ledger, CHAMPION)
    report(instance, "drift")
    tick(instance, ledger)
    run_of(instance, "1:1", dg.DagsterRunStatus.SUCCESS)
    assert isinstance(tick(instance, ledger), dg.SkipReason)
    report(instance, "drift", as_of=date(2026, 3, 1) + timedelta(days=7))
    assert tick(instance, ledger).run_key == "1:2"


def test_the_end_of_a_run_is_written_beside_its_attempt(instance: dg.DagsterInstance, ledger: Ledger) -> None:
    promote(ledger, CHAMPION)
    report(instance, "drift")
    tick(instance, ledger)
    run = run_of(instance, "1:1", dg.DagsterRunStatus.FAILURE)
    event = dg.DagsterEvent(event_type_value="PIPELINE_FAILURE", job_name=retrain.name, message="it broke")
    context = dg.build_run_status_sensor_context(
        sensor_name="failed_runs", dagster_event=event, dagster_instance=instance, dagster_run=run,
        resources={"ledger": ledger},
    )  # fmt: skip
    failed_runs(context.for_run_failure())
    episode = ledger.last_episode()
    assert episode is not None
    assert (episode.attempts[0].outcome, episode.attempts[0].run_id) == ("failed", run.run_id)


def test_the_success_of_a_run_is_written_beside_its_attempt(instance: dg.DagsterInstance, ledger: Ledger) -> None:
    promote(ledger, CHAMPION)
    report(instance, "drift")
    tick(instance, ledger)
    run = run_of(instance, "1:1", dg.DagsterRunStatus.SUCCESS)
    event = dg.DagsterEvent(event_type_value="PIPELINE_SUCCESS", job_name=retrain.name)
    context = dg.build_run_status_sensor_context(
        sensor_name="drift_retrain_done", dagster_event=event, dagster_instance=instance, dagster_run=run,
        resources={"ledger": ledger},
    )  # fmt: skip
    drift_retrain_done(context)
    episode = ledger.last_episode()
    assert episode is not None
    assert episode.attempts[0].outcome == "succeeded"
