"""Is the champion still as it should be: drift, performance on matured labels, and one feature computation everywhere."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from fraud_pipeline import policies
from fraud_pipeline.adapters.champion import load_champion
from fraud_pipeline.adapters.champion_watch import (
    CURRENT_DAYS,
    evaluate_champion,
    judge_drift,
    mature_days_since,
    recent_days,
)
from fraud_pipeline.adapters.drift_report import render, write_verdict
from fraud_pipeline.adapters.drift_results import FOLDER
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.parity_source import check_parity
from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
from fraud_pipeline.defs.automation import REPORTS
from fraud_pipeline.defs.pages import OWNERS, table
from fraud_pipeline.defs.partitions import EVERY_DAY
from fraud_pipeline.defs.training import experiment_settings
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.drift_verdict import FeatureDrift
from fraud_pipeline.errors import DatasetError
from fraud_pipeline.settings import Settings

PARITY_ROWS = 20_000
"""Half a second online; `fraud parity` compares millions."""

INPUTS = [dg.AssetDep("features", partition_mapping=EVERY_DAY), dg.AssetDep("champion_bundle")]


class ReportConfig(dg.Config):
    """`as_of` (YYYY-MM-DD): the report is of what was known at that midnight; empty for the newest day."""

    as_of: str = ""


@dg.asset(
    group_name="monitoring", kinds={"evidently"}, owners=OWNERS, code_version="2", deps=INPUTS,
    automation_condition=REPORTS,
)  # fmt: skip
def drift_report(
    context: dg.AssetExecutionContext, config: ReportConfig, builder: dg.ResourceParam[TrainingSetBuilder],
    registry: dg.ResourceParam[Any], ledger: dg.ResourceParam[Ledger], settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:  # fmt: skip
    """Has the world moved away from what the champion learned? The newest week against the champion's reference week.

    Inputs one by one, the scores, and, where labels are mature, what the alerts came to; a verdict by explicit limits, and
    the Evidently page for looking closer.
    """
    champion, as_of = load_champion(ledger, registry), _as_of(config, builder)
    week = [as_of - timedelta(days=back) for back in range(1, CURRENT_DAYS + 1)]
    current = recent_days(builder, champion, week, as_of=as_of)
    if current is None:
        raise DatasetError(f"There is no payment in the week before {as_of}.", remedy="Materialize its days first.")
    verdict, samples = judge_drift(
        champion, current, mature=_mature(builder, champion, as_of, settings), seed=settings.seed,
        limits=policies.drift_limits(settings),
    )  # fmt: skip
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
            "furthest inputs": table([_input_row(f) for f in _furthest(verdict.features)]),
            "Evidently page": dg.MetadataValue.path(page),  # a browser opens no file:// link of an http page
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


@dg.asset(
    group_name="monitoring",
    kinds={"python"},
    owners=OWNERS,
    code_version="1",
    deps=INPUTS,
    automation_condition=REPORTS,
)
def performance_report(
    context: dg.AssetExecutionContext, config: ReportConfig, builder: dg.ResourceParam[TrainingSetBuilder],
    registry: dg.ResourceParam[Any], ledger: dg.ResourceParam[Ledger], settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:  # fmt: skip
    """How the champion did on days that it has not learned from and whose labels have matured since."""
    champion, as_of = load_champion(ledger, registry), _as_of(config, builder)
    recent = _mature(builder, champion, as_of, settings)
    experiment = experiment_settings(settings)
    found = recent and evaluate_champion(
        champion, recent, costs=experiment.costs, budget=settings.alert_budget, seed=settings.seed
    )
    promised = champion.facts.metrics.get("evaluation", {}).get("metrics", {})
    rows = [
        {"metric": name, "promised": promised.get(name, {}).get("value"), "found": found and found.metrics[name].value}
        for name in (found.metrics if found else promised)
    ]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(recent.data) if recent else 0,
            "champion": int(champion.version),
            "as of": str(as_of),
            "days": f"{recent.first} to {recent.last}" if recent else "none has matured since the champion was fitted",
            "known frauds": int(recent.data.is_fraud.sum()) if recent else 0,
            "metrics": table(rows),
        }
    )


@dg.asset(
    group_name="monitoring", kinds={"numba"}, owners=OWNERS, code_version="1", deps=["features"],
    automation_condition=REPORTS,
)  # fmt: skip
def parity_report(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
    """The same payments through the batch and the live computation of features, compared bit for bit."""
    name, report = check_parity(rows=PARITY_ROWS, data=settings.home, time_zone=settings.time_zone)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": report.rows,
            "history": name,
            "compared values": report.compared_values,
            "differing values": report.differing_values,
            "report": dg.MetadataValue.json(report.to_json()),
        }
    )


@dg.asset_check(asset="parity_report")
def batch_equals_online(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Not one value differs between what models are trained on and what they are served."""
    event = context.instance.get_latest_materialization_event(dg.AssetKey("parity_report"))
    differing = (
        event.asset_materialization.metadata["differing values"].value if event and event.asset_materialization else 0
    )
    return dg.AssetCheckResult(passed=differing == 0, description=f"{differing} values differ.")


def newest_drift(instance: dg.DagsterInstance) -> dict[str, Any] | None:
    """What the newest drift report found: `status`, `champion`, `as_of`, `reasons` and the whole `verdict`."""
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


def _as_of(config: ReportConfig, builder: TrainingSetBuilder) -> date:
    return date.fromisoformat(config.as_of) if config.as_of else builder.default_as_of()


def _mature(builder: TrainingSetBuilder, champion: ModelBundle, as_of: date, settings: Settings) -> Any:
    days = mature_days_since(champion, as_of=as_of, maturity_days=settings.label_maturity_days)
    return recent_days(builder, champion, days, as_of=as_of, control_share=settings.control_share)
