"""Has the world moved away from what the champion learned: the drift report, on what was really served."""

from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from fraud_pipeline import policies
from fraud_pipeline.adapters.champion import load_champion
from fraud_pipeline.adapters.champion_watch import RecentDays, current_week, judge_drift, mature_days_since, recent_days
from fraud_pipeline.adapters.drift_report import render, write_verdict
from fraud_pipeline.adapters.drift_results import FOLDER
from fraud_pipeline.adapters.history_plots import history_chart
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.monitoring_history import read_history
from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
from fraud_pipeline.defs.automation import REPORTS
from fraud_pipeline.defs.pages import OWNERS, plots, table
from fraud_pipeline.defs.partitions import EVERY_DAY
from fraud_pipeline.defs.patience import patient
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.drift_verdict import DriftVerdict, FeatureDrift
from fraud_pipeline.settings import Settings

INPUTS = [dg.AssetDep("features", partition_mapping=EVERY_DAY), dg.AssetDep("champion_bundle")]


class ReportConfig(dg.Config):
    """`as_of` (YYYY-MM-DD): the report is of what was known at that midnight; empty for the newest day."""

    as_of: str = ""


@dg.asset(
    group_name="monitoring", kinds={"evidently"}, owners=OWNERS, code_version="3", deps=INPUTS,
    automation_condition=REPORTS,
)  # fmt: skip
@patient
def drift_report(
    context: dg.AssetExecutionContext, config: ReportConfig, builder: dg.ResourceParam[TrainingSetBuilder],
    registry: dg.ResourceParam[Any], ledger: dg.ResourceParam[Ledger], settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:  # fmt: skip
    """Has the world moved away from what the champion learned? The newest week against the champion's reference week.

    Inputs one by one, the scores, and, where labels are mature, what the alerts came to; of days that were served live,
    the logged vectors and the scores that were answered. A verdict by explicit limits, a history, and the Evidently page
    for looking closer (`page` opens it while the scoring service runs).
    """
    champion, as_of = load_champion(ledger, registry), report_day(config, builder)
    current = current_week(builder, champion, as_of=as_of, ledger=ledger)
    mature = mature_sample(builder, champion, as_of, settings=settings, ledger=ledger)
    verdict, samples = judge_drift(champion, current, mature=mature, limits=policies.drift_limits(settings))
    page = render(
        verdict, settings.reports_dir / FOLDER / f"{as_of}-version-{champion.version}.html", **samples, seed=settings.seed,
        title=f"Drift of version {champion.version} as of {as_of}",
    )  # fmt: skip
    told = page.with_suffix(".json")
    write_verdict(told, verdict, champion=int(champion.version), as_of=as_of, now=datetime.now(UTC))
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": verdict.current_rows,
            "status": verdict.status,
            "champion": int(champion.version),
            "as of": str(as_of),
            "why": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in verdict.reasons)),
            "drifted share of inputs": verdict.share,
            "broken inputs": table([_fault_row(f) for f in verdict.features if f.broken]),
            "furthest inputs": table([_input_row(f) for f in _furthest(verdict.features)]),
            "payments compared": table(_sample_rows(current, mature)),
            "page": dg.MetadataValue.url(page_link(settings, page.stem)),
            "Evidently page": dg.MetadataValue.path(page),  # a browser opens no file:// link of an http page
            "history": plots({"history": draw_history(settings)}),
            "verdict": dg.MetadataValue.json(verdict.to_dict()),
        }
    )


@dg.asset_check(asset="drift_report")
def champion_knows_this_world(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The newest week looks like the one that the champion was referenced on; a warning, which the drift sensor acts on."""
    newest = newest_drift(context.instance)
    status = "stable" if newest is None else newest["status"]
    return dg.AssetCheckResult(
        passed=status in ("stable", "watch"), severity=dg.AssetCheckSeverity.WARN, description=f"Status: {status}."
    )


def newest_drift(instance: dg.DagsterInstance) -> dict[str, Any] | None:
    """What the newest drift report found: `status`, `champion`, `as_of`, `reasons` and the whole `verdict`.

    `judged` is False where too little came to say anything: such a verdict neither begins nor ends an episode.
    """
    event = instance.get_latest_materialization_event(dg.AssetKey("drift_report"))
    if event is None or event.asset_materialization is None:
        return None
    metadata = event.asset_materialization.metadata
    verdict: Any = metadata["verdict"].value
    return {
        "status": metadata["status"].value,
        "champion": metadata["champion"].value,
        "as_of": date.fromisoformat(str(metadata["as of"].value)),
        "reasons": verdict["reasons"],
        "judged": verdict.get("judged", True),
        "verdict": verdict,
    }


def _furthest(features: tuple[FeatureDrift, ...], shown: int = 8) -> list[FeatureDrift]:
    return sorted(features, key=lambda f: -f.measures.score)[:shown]


def _input_row(found: FeatureDrift) -> dict[str, Any]:
    measures = found.measures
    return {
        "input": found.feature,
        "distance": measures.score,
        "mean then": measures.reference_mean,
        "now": measures.current_mean,
        "drifted": found.drift_detected,
    }


def _fault_row(found: FeatureDrift) -> dict[str, Any]:
    return {"input": found.feature, "fault": found.fault, "since": found.since, "until": found.until}


def _sample_rows(current: RecentDays | DriftVerdict, mature: RecentDays | None) -> list[dict[str, Any]]:
    samples = {"this week": current, "with mature labels": mature}
    return [{"sample": name, **s.counts.to_json()} for name, s in samples.items() if isinstance(s, RecentDays)]


def report_day(config: ReportConfig, builder: TrainingSetBuilder) -> date:
    """The day that the report is as of."""
    return date.fromisoformat(config.as_of) if config.as_of else builder.default_as_of()


def mature_sample(
    builder: TrainingSetBuilder, champion: ModelBundle, as_of: date, *, settings: Settings, ledger: Ledger
) -> RecentDays | None:
    """Payments that the champion has not learned from and whose labels have matured; None where there are none."""
    days = mature_days_since(champion, as_of=as_of, maturity_days=settings.label_maturity_days)
    return recent_days(builder, champion, days, as_of=as_of, ledger=ledger, control_share=settings.control_share)


def draw_history(settings: Settings) -> bytes:
    """The chart of all reports so far, whichever was written last."""
    return history_chart(
        read_history(settings.reports_dir), share_limit=settings.drift_share, score_limit=settings.drift_prediction
    )


def page_link(settings: Settings, report: str) -> str:
    """Where a browser gets a drift report's page: from the scoring service, since it opens no file of ours."""
    service = settings.service_url.rstrip("/") or f"http://{settings.rest_host}:{settings.rest_port}"
    return f"{service}/drift/report?report={report}"
