"""When things run by themselves: conditions for the daily assets, a weekly training.

Bare `eager()` and `on_cron` see only the newest day: with the daemon off for a day, `feature_state` was never asked for
again. So every condition looks 30 days back. From `training_set` on nothing has a condition: the schedule below and the
drift sensor start a training.
"""

from datetime import timedelta

import dagster as dg
from dagster import DagsterRunStatus

SENSOR_EVERY_S = 60
"""What FRAUD_SENSOR_INTERVAL_S is when nobody sets it; `definitions` puts the home's own in its place."""
IN_PROGRESS = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]

TRAINING_POOL = "training"
"""One run at a time that trains: it takes all cores and up to 3 GiB. The limit stands in `dagster.yaml`."""
PRIORITY = "dagster/priority"
BEFORE_TRAINING = {PRIORITY: "1"}
"""Days and reports go first where a training waits, too; of the two slots of production a training takes one."""

LOOK_BACK = timedelta(days=30)
"""A daemon that was off for longer is a matter for `fraud run`."""

_MISSING_DAYS = (
    dg.AutomationCondition.in_latest_time_window(LOOK_BACK)
    & dg.AutomationCondition.missing()
    & ~dg.AutomationCondition.in_progress()
    & ~dg.AutomationCondition.execution_failed()
)

ROOT_DAYS = _MISSING_DAYS.with_label("closed days that are missing")

# The day before is not waited for: state is replayed from the newest checkpoint there is, so all missing days are asked for
# at once and run as one range.
DOWNSTREAM_DAYS = (
    _MISSING_DAYS
    & ~dg.AutomationCondition.any_deps_missing().ignore(dg.AssetSelection.assets("feature_state"))
    & ~dg.AutomationCondition.any_deps_in_progress()
    & dg.AutomationCondition.all_deps_blocking_checks_passed()
).with_label("days whose inputs are there and passed their checks")

REPORTS = (
    dg.AutomationCondition.any_deps_updated().since(
        dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
    )
    & ~dg.AutomationCondition.any_deps_missing().allow(dg.AssetSelection.assets("champion_bundle"))
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("new days or a new champion")

DAILY = dg.AssetSelection.assets("transactions", "labels", "features", "feature_state")
REPORT_ASSETS = dg.AssetSelection.assets("drift_report", "performance_report", "parity_report")
TRAINING = dg.AssetSelection.assets(
    "training_set", "xgboost_model", "isolation_forest_model", "candidate_bundle", "champion_bundle"
)

ingest_days = dg.define_asset_job(
    "ingest_days",
    selection=DAILY,
    tags=BEFORE_TRAINING,
    description="Payments, labels, features and feature state of a range of days, as one run.",
)
retrain = dg.define_asset_job(
    "retrain",
    selection=TRAINING | REPORT_ASSETS,
    description="From the newest days to a champion: train, judge by the gates, promote what passes, report.",
)
monitor = dg.define_asset_job(
    "monitor",
    selection=REPORT_ASSETS,
    tags=BEFORE_TRAINING,
    description="Is the champion still as it should be: drift, performance, parity.",
)

weekly_retrain = dg.ScheduleDefinition(
    name="weekly_retrain",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    job=retrain,
    cron_schedule="0 4 * * 1",
    execution_timezone="UTC",
    description="Every Monday at 04:00 UTC, when the weekend's payments are in.",
)

day_automation = dg.AutomationConditionSensorDefinition(
    "day_automation",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    run_tags=BEFORE_TRAINING,
    minimum_interval_seconds=SENSOR_EVERY_S,
    description="Asks for missing days and, when new ones are in, for the reports.",
)
