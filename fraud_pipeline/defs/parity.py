"""One feature computation everywhere: batch against the live computation, and against what was logged when it was served."""

from collections.abc import Callable
from datetime import date
from functools import cache
from typing import Any

import dagster as dg

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.parity_source import check_parity
from fraud_pipeline.adapters.served_skew import Skew, compare_days, live_days
from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
from fraud_pipeline.defs.automation import REPORTS
from fraud_pipeline.defs.pages import OWNERS, table
from fraud_pipeline.defs.patience import patient
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.errors import NotFound
from fraud_pipeline.settings import Settings

PARITY_ROWS = 20_000
"""Half a second online; `fraud parity` compares millions."""


@dg.asset(
    group_name="monitoring", kinds={"numba"}, owners=OWNERS, code_version="2", deps=["features"],
    automation_condition=REPORTS,
)  # fmt: skip
@patient
def parity_report(
    context: dg.AssetExecutionContext, builder: dg.ResourceParam[TrainingSetBuilder], registry: dg.ResourceParam[Any],
    ledger: dg.ResourceParam[Ledger], settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:  # fmt: skip
    """The same payments through the batch and the live computation of features, compared bit for bit.

    And what was logged when they were served against what batch makes of them: a sample of each live day since the last
    report. Values that a decision says it lacked (shared state that lagged) are counted apart.
    """
    name, report = check_parity(rows=PARITY_ROWS, data=settings.home, time_zone=settings.time_zone)
    days = live_days(builder.store, world_end=builder.reader.source.manifest().end, after=_compared_through(context))
    skew = compare_days(builder.store, days, bundles_of(registry), ledger=ledger)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": report.rows + skew.rows,
            "history": name,
            "compared values": report.compared_values,
            "differing values": report.differing_values,
            "served days": f"{skew.days[0]} to {skew.through}" if skew.days else "nothing was served yet",
            "served through": skew.through or "",
            "served values": skew.compared_values,
            "served differing values": skew.differing_values,
            "served, lacked something": table([_apart(skew)]),
            "differing features": table([{"feature": f, "values": n} for f, n in skew.by_feature.most_common()]),
            "examples": table(skew.examples),
            "report": dg.MetadataValue.json(report.to_json()),
            "served report": dg.MetadataValue.json(skew.to_json()),
        }
    )


@dg.asset_check(asset="parity_report")
def batch_equals_online(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """Not one value differs between what models are trained on and what they are served: computed live, and as logged."""
    event = context.instance.get_latest_materialization_event(dg.AssetKey("parity_report"))
    found = event.asset_materialization.metadata if event and event.asset_materialization else {}
    live, logged = (_count(found, name) for name in ("differing values", "served differing values"))
    told = f"{live} values differ of those computed live, {logged} of those that were logged when served."
    worst = _count_by_feature(found)
    return dg.AssetCheckResult(
        passed=not live and not logged, description=told, metadata={"differing features": worst} if worst else {}
    )


def bundles_of(registry: Any) -> Callable[[str], ModelBundle]:
    """Bundles by the version that decisions carry, each loaded once. NotFound for what is no version of the registry."""

    @cache
    def bundle_of(version: str) -> ModelBundle:
        if not version.isdigit():
            raise NotFound(f"There is no version {version!r}.", remedy="Decisions carry a version's number.")
        return ModelBundle.load(registry.fetch(int(version)), version=version)

    return bundle_of


def _compared_through(context: dg.AssetExecutionContext) -> date | None:
    event = context.instance.get_latest_materialization_event(dg.AssetKey("parity_report"))
    if event is None or event.asset_materialization is None:
        return None
    through = event.asset_materialization.metadata.get("served through")
    return date.fromisoformat(str(through.value)) if through is not None and through.value else None


def _apart(skew: Skew) -> dict[str, Any]:
    return {
        "decisions": skew.lagging_rows,
        "values that differ there": skew.lagging_differing_values,
        "payments without decision": skew.undecided,
        "by versions that are gone": sum(skew.unreadable.values()),
    }


def _count(found: Any, name: str) -> int:
    return int(found[name].value) if name in found else 0


def _count_by_feature(found: Any) -> str:
    report: Any = found["served report"].value if "served report" in found else {}
    return ", ".join(f"{feature} ({count})" for feature, count in report.get("by_feature", {}).items())
