"""Drift to one retraining per episode, over a real ledger and Dagster's own bookkeeping of run keys."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.defs.automation import retrain
from fraud_pipeline.defs.sensors import EPISODE_TAG, drift_retrain, drift_retrain_done, failed_runs
from fraud_pipeline.domain.promotion import Promotion

CHAMPION = 3


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


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


def tick(instance: dg.DagsterInstance, ledger: Ledger) -> Any:
    with dg.build_sensor_context(instance=instance, resources={"ledger": ledger}) as context:
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


def test_a_request_that_never_became_a_run_is_repeated_under_the_same_key(
    instance: dg.DagsterInstance, ledger: Ledger
) -> None:
    promote(ledger, CHAMPION)
    report(instance, "drift")
    assert tick(instance, ledger).run_key == tick(instance, ledger).run_key == "1:1"


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
