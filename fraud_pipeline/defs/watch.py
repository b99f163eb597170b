"""The watch over a promoted model: counted and judged by a sensor, told on an asset's page, rolled back where it must be."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster import RunsFilter

from fraud_pipeline import policies
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.promotion_watch import WatchPolicy, WatchStep, watch_step
from fraud_pipeline.adapters.promotions import repair_alias
from fraud_pipeline.adapters.watched_models import Fetch
from fraud_pipeline.defs.automation import IN_PROGRESS, SENSOR_EVERY_S
from fraud_pipeline.defs.monitoring import newest_drift
from fraud_pipeline.defs.pages import OWNERS, table
from fraud_pipeline.defs.sensors import has_just_ended
from fraud_pipeline.domain.notice import Notice
from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline.settings import Settings

WHO = "promotion watch"
ALIAS_TAG = "fraud/alias_of_promotion"
ALIAS_AGAIN_AFTER = timedelta(minutes=5)
"""An MLflow that was away is asked again then; the ledger says who is champion meanwhile."""

promotion_watch = dg.AssetSpec(
    "promotion_watch",
    deps=["champion_bundle"],
    group_name="promotion",
    kinds={"python"},
    owners=OWNERS,
    code_version="1",
    description=(
        "Is a model that was just promoted what it promised to be? For FRAUD_WATCH_DAYS days of data its answers are held "
        "against its promise, and against what the champion before would have said of the very same payments: alerts, scores, and "
        "frauds as labels come. Where a limit breaks, the sensor `watch_promotion` rolls back by itself and says why here."
    ),
)


@dg.op(
    retry_policy=dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL),
    description="Sets MLflow's aliases to what the ledger says.",
)
def projected_aliases(
    context: dg.OpExecutionContext, registry: dg.ResourceParam[Any], ledger: dg.ResourceParam[Ledger]
) -> None:
    """MLflow's champion and challenger, as the ledger has them."""
    wrong = repair_alias(ledger, registry)
    context.log.info("MLflow's aliases %s.", "were wrong and are set" if wrong else "were right")


@dg.job(description="MLflow's aliases are a projection of the ledger's promotions: set them to it.")
def repair_aliases() -> None:
    """One op: the ledger's champion and challenger become MLflow's aliases."""
    projected_aliases()


@dg.sensor(
    job=repair_aliases,
    minimum_interval_seconds=SENSOR_EVERY_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Watches a promoted model for FRAUD_WATCH_DAYS days of data, and rolls it back where it breaks its limits.",
)
def watch_promotion(
    context: dg.SensorEvaluationContext, ledger: dg.ResourceParam[Ledger], fetch_bundle: dg.ResourceParam[Fetch],
    settings: dg.ResourceParam[Settings],
) -> Any:  # fmt: skip
    """Take one step of the watch: at most a second, everything it knows is in the ledger."""
    if not settings.watch_days:
        return dg.SkipReason("FRAUD_WATCH_DAYS is 0: promoted models are not watched.")
    now = datetime.now(UTC)
    step = watch_step(
        ledger, fetch_bundle, now=now,
        policy=WatchPolicy(policies.watch_limits(settings), settings.alert_budget, WHO),
        broken_input=_broken_input(context.instance),
    )  # fmt: skip
    _tell(ledger, step, now)
    page = _page_key(step)
    asked = _alias_request(context.instance, ledger.current_promotion(), now)
    return dg.SensorResult(
        run_requests=[] if asked is None else [asked],
        skip_reason=None if asked is not None else dg.SkipReason(step.said),
        cursor=page,
        asset_events=[] if page == context.cursor or step.record is None else [_materialization(step)],
    )


def _broken_input(instance: dg.DagsterInstance) -> str:
    """What upstream is broken by the newest drift report; empty where nothing is."""
    newest = newest_drift(instance)
    return "; ".join(newest["reasons"]) if newest is not None and newest["status"] == "broken_input" else ""


def _page_key(step: WatchStep) -> str:
    """Another one where there is something new to show: a verdict, a limit that breaks, a further day of data."""
    if step.record is None or step.tally is None:
        return ""
    broken = [check["name"] for check in step.record.evidence.get("checks", ()) if not check["passed"]]
    return f"{step.record.promotion_id}:{step.record.verdict}:{int(step.tally.days)}:{','.join(broken)}"


def _materialization(step: WatchStep) -> dg.AssetMaterialization:
    promotion, record, tally = step.promotion, step.record, step.tally
    if promotion is None or record is None or tally is None:
        raise ValueError("a step without a record has no page")
    evidence = record.evidence
    rows = [
        {
            "limit": check["name"].replace("_", " "),
            "result": "kept" if check["passed"] else "BROKEN",
            "value": check["value"],
            "bound": check["limit"],
            "in words": check["explanation"],
        }
        for check in evidence.get("checks", ())
    ]
    return dg.AssetMaterialization(
        "promotion_watch",
        description=str(evidence.get("reason", "")),
        metadata={
            "dagster/row_count": tally.decisions,
            "verdict": record.verdict,
            "version": promotion.version,
            "promotion": f"{promotion.kind} {promotion.promotion_id} by {promotion.who}: {promotion.reason}",
            "compared with": f"version {record.state['promise']['compared_with']}",
            "limits": table(rows),
            "days of data": round(tally.days, 2),
            "counted": table([{"what": name, "count": value} for name, value in evidence.get("counted", {}).items()]),
            "what was done": str(evidence.get("action") or "nothing was to be done"),
        },
    )


def _tell(ledger: Ledger, step: WatchStep, now: datetime) -> None:
    """What only the watch knows: how it ended, and what a person must see to. Promotions and rollbacks are told from their rows."""
    promotion = step.promotion
    if promotion is None:
        return
    missing = f"champion-bundle-{promotion.promotion_id}"
    if step.alarm:
        gone = step.finding is None
        ledger.tell(
            Notice(
                kind="champion_missing" if gone else "watch", severity="critical", at=now, link=None,
                episode=missing if gone else f"breach-{promotion.promotion_id}",
                title=f"Champion {promotion.version} {'has no bundle' if gone else 'breaks its limits and stays'}",
                text=step.alarm, facts={"version": promotion.version, "promotion_id": promotion.promotion_id},
            ),
            now=now,
        )  # fmt: skip
    elif step.finding is not None and step.finding.verdict == "passed":
        ledger.tell(
            Notice(
                kind="watch", severity="info", episode=f"passed-{promotion.promotion_id}", at=now, link=None,
                title=f"Version {promotion.version} has passed its watch", text=step.finding.reason,
                facts={"version": promotion.version, "promotion_id": promotion.promotion_id},
            ),
            now=now,
        )  # fmt: skip


def _alias_request(instance: dg.DagsterInstance, champion: Promotion | None, now: datetime) -> dg.RunRequest | None:
    """A run that sets MLflow's alias after a rollback of the watch's, until one has succeeded.

    The rollback itself asks nothing of MLflow: it must work while MLflow is away, and its client takes seconds to load.
    """
    if champion is None or "watch" not in champion.evidence:
        return None
    name = str(champion.promotion_id)
    records = instance.get_run_records(RunsFilter(job_name=repair_aliases.name, tags={ALIAS_TAG: name}))
    if any(r.dagster_run.is_success or r.dagster_run.status in IN_PROGRESS for r in records):
        return None
    if has_just_ended(records, now, within=ALIAS_AGAIN_AFTER):
        return None
    return dg.RunRequest(run_key=f"alias:{name}:{len(records) + 1}", tags={ALIAS_TAG: name})
