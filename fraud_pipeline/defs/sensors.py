"""What starts or reports from outside the conditions: drift episodes, and runs that failed."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.new_frauds import NewFrauds
from fraud_pipeline.adapters.promotions import current_challenger, current_champion
from fraud_pipeline.defs.automation import IN_PROGRESS, SENSOR_EVERY_S, retrain
from fraud_pipeline.defs.monitoring import newest_drift
from fraud_pipeline.domain.drift_episode import DriftEpisode, DriftObservation, EpisodeAction, RunState, next_action
from fraud_pipeline.domain.new_labels import label_shortage
from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline.domain.shadow_trial import is_trial
from fraud_pipeline.settings import Settings

EPISODE_TAG = "fraud/drift_episode"
GATES_STEP = "gates"
"""The step of the blocking checks between a candidate and its promotion."""
StartTraining = Callable[[EpisodeAction], Any]
"""From an action that asks for a training to what the sensor returns to have one started."""


def request_retrain(action: EpisodeAction) -> dg.RunRequest:
    """One run of `retrain`; Dagster starts no second one of the same key."""
    return dg.RunRequest(run_key=action.run_key, tags={EPISODE_TAG: action.run_key})


@dg.sensor(
    job=retrain,
    minimum_interval_seconds=SENSOR_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="One retraining per drift episode: reads the newest drift report, keeps the episode in the ledger.",
)
def drift_retrain(
    context: dg.SensorEvaluationContext,
    ledger: dg.ResourceParam[Ledger],
    new_frauds: dg.ResourceParam[NewFrauds],
    settings: dg.ResourceParam[Settings],
    start_training: dg.ResourceParam[StartTraining],
) -> Any:
    """Ask for a retraining where the newest drift report calls for one that nobody has asked for yet."""
    champion, found = current_champion(ledger), newest_drift(context.instance)
    if champion is None or found is None:
        return dg.SkipReason("There is no champion with a drift report yet.")
    observation = DriftObservation(
        as_of=datetime.combine(found["as_of"], time.min, UTC),
        champion_version=found["champion"],
        drifted=found["status"] == "drift",
        broken_input=found["status"] == "broken_input",
        reason="; ".join(found["reasons"]),
    )
    last, now = ledger.last_episode(), datetime.now(UTC)
    action = next_action(
        last,
        observation,
        champion_version=champion.version,
        now=now,
        last_run=_last_run(context.instance, last),
        training_in_progress=_training(context.instance),
        shortage=_shortage(new_frauds, champion, observation, settings),
        trial=_trial(ledger),
    )
    if not ledger.apply_episode_action(action, observation, verdict=found["verdict"], now=now):
        return dg.SkipReason("Another daemon has just acted on this drift.")
    if not action.starts_run:
        return dg.SkipReason(action.reason)
    context.log.info("Retraining %s: %s", action.run_key, action.reason)
    return start_training(action)


@dg.run_status_sensor(
    run_status=DagsterRunStatus.SUCCESS,
    monitored_jobs=[retrain],
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Writes beside a drift episode that its retraining has ended.",
)
def drift_retrain_done(context: dg.RunStatusSensorContext, ledger: dg.ResourceParam[Ledger]) -> None:
    """Note the end of a run that an episode asked for."""
    _note(ledger, context.dagster_run, "succeeded")


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports failed runs; notes those that a drift episode asked for.",
)
def failed_runs(context: dg.RunFailureSensorContext, ledger: dg.ResourceParam[Ledger]) -> None:
    """Say which run failed and why, in the daemon's log, where an alerting system picks it up."""
    run = context.dagster_run
    context.log.error("Run %s of %s failed: %s", run.run_id, run.job_name, context.failure_event.message)
    _note(ledger, run, "succeeded" if stopped_by_gates(context.instance, run.run_id) else "failed")


def _shortage(new_frauds: NewFrauds, champion: Promotion, observation: DriftObservation, settings: Settings) -> str:
    """Which labels a retraining lacks; nothing is counted where no retraining is called for."""
    if not observation.drifted or observation.champion_version != champion.version:
        return ""
    new = new_frauds.since(champion, as_of=observation.as_of.date())
    return "" if new is None else label_shortage(new, wanted=settings.retrain_min_frauds)


def stopped_by_gates(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the run ended because its candidate did not pass: it is a failure to Dagster, and an answer to whoever asked for it."""
    found = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    events = [record.event_log_entry.dagster_event for record in found]
    return bool(events) and all(
        event is not None
        and event.step_key == GATES_STEP
        and event.step_failure_data.error is not None
        and event.step_failure_data.error.cls_name == "DagsterAssetCheckFailedError"
        for event in events
    )


def has_just_ended(records: Sequence[dg.RunRecord], now: datetime, *, within: timedelta) -> bool:
    """Whether one of these runs ended less than `within` ago. An end that lies ahead is of a clock that was set back since."""
    ends = [
        datetime.fromtimestamp(r.end_time, UTC) if r.end_time else r.update_timestamp.replace(tzinfo=UTC)
        for r in records
    ]
    return any(timedelta(0) <= now - ended < within for ended in ends)


def _trial(ledger: Ledger) -> str:
    """The candidate that the automation has put into shadow; empty where there is none."""
    challenger = current_challenger(ledger)
    return f"version {challenger.version} decides in shadow" if challenger is not None and is_trial(challenger) else ""


def _note(ledger: Ledger, run: dg.DagsterRun, outcome: RunState) -> None:
    key = run.tags.get(EPISODE_TAG)
    if key is not None:
        ledger.note_run(key, outcome=outcome, run_id=run.run_id)


def _last_run(instance: dg.DagsterInstance, last: DriftEpisode | None) -> RunState | None:
    """How the run of the newest attempt stands; None where none is known."""
    if last is None or not last.attempts:
        return None
    runs = instance.get_runs(RunsFilter(tags={EPISODE_TAG: last.attempts[-1].run_key}), limit=1)
    if not runs:
        return None
    if runs[0].status in IN_PROGRESS:
        return "running"
    ended_well = runs[0].status == DagsterRunStatus.SUCCESS or stopped_by_gates(instance, runs[0].run_id)
    return "succeeded" if ended_well else "failed"


def _training(instance: dg.DagsterInstance) -> bool:
    """Whether a training runs or waits to."""
    return bool(instance.get_run_ids(RunsFilter(job_name=retrain.name, statuses=IN_PROGRESS), limit=1))
