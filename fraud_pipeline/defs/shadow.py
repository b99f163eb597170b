"""The shadow period between gates and promotion, where FRAUD_SHADOW_DAYS asks for one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster import RunsFilter

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.promotions import current_challenger
from fraud_pipeline.adapters.shadow_trial import end_trial, trial_progress
from fraud_pipeline.defs.automation import IN_PROGRESS, SENSOR_EVERY_S
from fraud_pipeline.defs.pages import OWNERS, table
from fraud_pipeline.defs.sensors import has_just_ended
from fraud_pipeline.domain.gates import REQUIRED_GATES
from fraud_pipeline.domain.shadow_trial import TrialLimits, is_trial, waiting_for
from fraud_pipeline.settings import Settings

TRIAL_RUN_TAG = "fraud/shadow_trial"
AGAIN_AFTER = timedelta(minutes=5)
"""A run that failed, because MLflow or the ledger was away, is asked for again then."""


@dg.asset(group_name="promotion", kinds={"python"}, owners=OWNERS, code_version="1", deps=["candidate_bundle"])
def shadow_trial(
    context: dg.AssetExecutionContext, registry: dg.ResourceParam[Any], ledger: dg.ResourceParam[Ledger],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:  # fmt: skip
    """What a candidate said of real payments beside the champion, and what became of it: promoted, or dismissed.

    With FRAUD_SHADOW_DAYS a candidate that passed its gates becomes challenger first and decides in shadow. When its days of
    data are over, this compares both on the same payments; every number is kept with the promotion, or with the version.
    """
    ended = end_trial(
        ledger, registry, limits=trial_limits(settings), required_gates=REQUIRED_GATES,
        maturity=timedelta(days=settings.label_maturity_days), control_share=settings.control_share,
        who=f"dagster run {context.run.run_id}", now=datetime.now(UTC),
    )  # fmt: skip
    finding, compared = ended.finding, ended.comparison
    checks = () if finding is None else finding.checks
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": 0 if compared is None else compared.payments,
            "challenger": 0 if ended.challenger is None else ended.challenger.version or 0,
            "outcome": "promoted" if ended.promotion is not None else "not promoted",
            "why": ended.said,
            "limits": table(
                [
                    {
                        "limit": c.name.replace("_", " "),
                        "result": "kept" if c.passed else "BROKEN",
                        "in words": c.explanation,
                    }
                    for c in checks
                ]
            ),
        }
    )


end_shadow_trial = dg.define_asset_job(
    "end_shadow_trial",
    selection=dg.AssetSelection.assets("shadow_trial"),
    description="Ends a challenger's shadow period: compares it with the champion, promotes or dismisses it.",
)


@dg.sensor(
    job=end_shadow_trial,
    minimum_interval_seconds=SENSOR_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for the end of a challenger's shadow period when its days of data are over.",
)
def shadow_period(
    context: dg.SensorEvaluationContext, ledger: dg.ResourceParam[Ledger], settings: dg.ResourceParam[Settings]
) -> Any:
    """Look how far the challenger's shadow period is."""
    challenger, now = current_challenger(ledger), datetime.now(UTC)
    if challenger is None:
        return dg.SkipReason("There is no challenger.")
    if not is_trial(challenger):
        return dg.SkipReason(f"Version {challenger.version} challenges by {challenger.who}, who ends it too.")
    limits = trial_limits(settings)
    progress = trial_progress(ledger.database, challenger, enough=limits.least, now=now)
    if waits := waiting_for(progress, limits):
        return dg.SkipReason(f"Version {challenger.version} decides in shadow: {waits}")
    name = str(challenger.challenger_id)
    records = context.instance.get_run_records(RunsFilter(job_name=end_shadow_trial.name, tags={TRIAL_RUN_TAG: name}))
    if any(r.dagster_run.status in IN_PROGRESS for r in records):
        return dg.SkipReason(f"The shadow period of version {challenger.version} is being judged.")
    if has_just_ended(records, now, within=AGAIN_AFTER):
        return dg.SkipReason(f"The run that ends the shadow period of version {challenger.version} has just ended.")
    return dg.RunRequest(run_key=f"trial:{name}:{len(records) + 1}", tags={TRIAL_RUN_TAG: name})


def trial_limits(settings: Settings) -> TrialLimits:
    """How long, and what it must keep."""
    return TrialLimits(days=settings.shadow_days, budget=settings.alert_budget)
