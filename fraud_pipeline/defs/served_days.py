"""Days of a stream: asked for when they have ended in its log, whatever the machine's clock says.

Where a stream fills the ledger, the daily assets have no condition (`definitions` takes them off): a simulated day may pass
in seconds, and a real one ends when the last partition has closed its last minute, not at midnight.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from fraud_pipeline.adapters.dataset_schemas import days_between
from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.day_source import DaySource
from fraud_pipeline.adapters.feature_store import FeatureStore
from fraud_pipeline.defs.automation import IN_PROGRESS, SENSOR_EVERY_S, ingest_days
from fraud_pipeline.defs.partitions import has_stream, range_tags
from fraud_pipeline.errors import FraudError
from fraud_pipeline.settings import Settings

RANGE_TAG: Final = "fraud/served_days"
FIRST_RETRY: Final = timedelta(minutes=1)
LONGEST_RETRY: Final = timedelta(hours=1)
"""A range whose run has failed is asked for again: it doubles from the first to this, and never gives up. What fails for good is
told of as a failed run."""


@dg.sensor(
    job=ingest_days,
    minimum_interval_seconds=SENSOR_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for days that have ended in the stream's log and are not there yet, and for stale ones, all as one run.",
)
def served_days(
    context: dg.SensorEvaluationContext, source: dg.ResourceParam[DaySource], store: dg.ResourceParam[DatasetStore],
    feature_store: dg.ResourceParam[FeatureStore], settings: dg.ResourceParam[Settings],
) -> dg.SkipReason | dg.RunRequest:  # fmt: skip
    """One run for the range of ended and missing days; none while one runs. Without a stream, only for stale days."""
    if not source.source.exists():
        return dg.SkipReason("This home holds no world yet: `fraud simulate`, or `fraud import`.")
    if not has_stream(settings):
        return _mended(context.instance, store, feature_store)
    running = context.instance.get_run_ids(RunsFilter(job_name=ingest_days.name, statuses=IN_PROGRESS), limit=1)
    if running:
        return dg.SkipReason(f"Run {running[0][:8]} brings days in; the next look is after it.")
    try:
        ended = source.ended_through()
        writers = source.closed_through()
    except FraudError as err:
        return dg.SkipReason(f"The days of the log cannot be told: {err}")
    last = max(ended or date.min, source.source.manifest().end - timedelta(days=1))
    missing = missing_days(store, feature_store, first=source.source.manifest().start, last=last)
    if not missing:
        return dg.SkipReason(f"All days up to {last} are there. {_how_far(writers)}")
    return _request(context.instance, missing[0], missing[-1], now=datetime.now(UTC))


@dg.sensor(
    minimum_interval_seconds=SENSOR_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells the stream's log the labels of the landed history when the log's clock has come to their time.",
)
def history_labels(
    context: dg.SensorEvaluationContext, source: dg.ResourceParam[DaySource], settings: dg.ResourceParam[Settings]
) -> dg.SkipReason:
    """Record what became known after the history's end; the sink produces it to the customers' logs. Asks for no run."""
    if not has_stream(settings) or not source.source.exists():
        return dg.SkipReason("There is no stream, or no history that it continues.")
    after = None if context.cursor is None else datetime.fromisoformat(context.cursor)
    try:
        clock, told = source.tell_history(after=after)
    except FraudError as err:
        return dg.SkipReason(f"Nothing could be told: {err}")
    if clock is None:
        return dg.SkipReason("The stream has not begun.")
    context.update_cursor(clock.isoformat())
    return dg.SkipReason(
        f"{told} labels of the history were told; the log's clock stands at {clock:%Y-%m-%d %H:%M} UTC."
    )


def _mended(
    instance: dg.DagsterInstance, store: DatasetStore, feature_store: FeatureStore
) -> dg.SkipReason | dg.RunRequest:
    """A run for stored days whose features are of another history, since a day before them was mended or stopped.

    Conditions ask for missing days only. Features may be missing because a run is just making them: so none while any runs.
    """
    stale = feature_store.stale_days(store.days("transactions"))
    if not stale:
        return dg.SkipReason(
            "No stream fills this home's ledger: its days follow by their conditions, and none is stale."
        )
    if running := instance.get_run_ids(RunsFilter(statuses=IN_PROGRESS), limit=1):
        return dg.SkipReason(
            f"{len(stale)} days are stale; run {running[0][:8]} is under way, the next look is after it."
        )
    return _request(instance, stale[0], stale[-1], now=datetime.now(UTC))


def missing_days(store: DatasetStore, feature_store: FeatureStore, *, first: date, last: date) -> list[date]:
    """The days up to `last` that are not stored, or whose features are missing or of another history.

    What is older than the oldest stored day was deleted by the retention, and is not asked for again.
    """
    stored = set(store.days("transactions")) & set(store.days("labels"))
    days = days_between(min(stored, default=first), last + timedelta(days=1))
    stale = set(feature_store.stale_days(days))
    return [day for day in days if day not in stored or day in stale]


def _request(instance: dg.DagsterInstance, first: date, last: date, *, now: datetime) -> dg.SkipReason | dg.RunRequest:
    """A run for the range; after failed ones, when it is time to try again."""
    named = f"{first}..{last}"
    before = instance.get_run_records(RunsFilter(job_name=ingest_days.name, tags={RANGE_TAG: named}))
    failed = [record for record in before if record.dagster_run.status == DagsterRunStatus.FAILURE]
    if failed and failed[0].end_time is not None:
        again = datetime.fromtimestamp(failed[0].end_time, UTC) + min(
            FIRST_RETRY * 2 ** min(len(failed) - 1, 10), LONGEST_RETRY
        )
        if now < again:
            return dg.SkipReason(
                f"Run {failed[0].dagster_run.run_id[:8]} for {named} has failed, the {len(failed)}. of its kind; the next"
                f" begins at {again:%Y-%m-%d %H:%M:%S} UTC, or mend it and run `ingest_days` by hand."
            )
    return dg.RunRequest(run_key=f"{named}#{len(before) + 1}", tags={**range_tags(first, last), RANGE_TAG: named})


def _how_far(writers: Mapping[str, date | None]) -> str:
    """Which writer the newest day waits for."""
    if not writers:
        return "The sink has written nothing of the log yet."
    behind: Sequence[str] = [writer for writer, day in writers.items() if day is None]
    if behind:
        return f"No day has ended yet in {', '.join(behind)}."
    slowest, day = min(((writer, day) for writer, day in writers.items() if day is not None), key=lambda each: each[1])
    return f"The next one ends when {slowest}, which has ended {day}, has."
