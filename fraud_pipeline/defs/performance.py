"""How the champion does: measured where labels have matured, estimated where they have not."""

from typing import Any

import dagster as dg

from fraud_pipeline.adapters.champion import load_champion
from fraud_pipeline.adapters.champion_watch import evaluate_champion, expect_of, recent_days, unlabelled_days
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.monitoring_history import write_performance
from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
from fraud_pipeline.defs.automation import REPORTS
from fraud_pipeline.defs.monitoring import INPUTS, ReportConfig, draw_history, mature_sample, report_day
from fraud_pipeline.defs.pages import OWNERS, plots, table
from fraud_pipeline.defs.patience import patient
from fraud_pipeline.defs.training import experiment_settings
from fraud_pipeline.domain.evaluation import Evaluation, Metric
from fraud_pipeline.domain.performance_estimate import Estimate
from fraud_pipeline.settings import Settings


@dg.asset(
    group_name="monitoring", kinds={"python"}, owners=OWNERS, code_version="2", deps=INPUTS,
    automation_condition=REPORTS,
)  # fmt: skip
@patient
def performance_report(
    context: dg.AssetExecutionContext, config: ReportConfig, builder: dg.ResourceParam[TrainingSetBuilder],
    registry: dg.ResourceParam[Any], ledger: dg.ResourceParam[Ledger], settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:  # fmt: skip
    """How the champion did on days that it has not learned from, and how it probably does on those that have no labels yet.

    Measured with 95 % intervals (bootstrap by customer) where labels have matured; beside it what the calibrated
    probabilities promise of the same days (so that the promise can be judged) and of the newest ones.
    """
    champion, as_of = load_champion(ledger, registry), report_day(config, builder)
    mature = mature_sample(builder, champion, as_of, settings=settings, ledger=ledger)
    days = unlabelled_days(champion, as_of=as_of, maturity_days=settings.label_maturity_days)
    newest = recent_days(builder, champion, days, as_of=as_of, ledger=ledger)
    experiment = experiment_settings(settings)
    found = mature and evaluate_champion(
        champion, mature, costs=experiment.costs, budget=settings.alert_budget, seed=settings.seed
    )
    expected, coming = (sample and expect_of(champion, sample, seed=settings.seed) for sample in (mature, newest))
    promised = champion.facts.metrics.get("evaluation", {}).get("metrics", {})
    told = {
        "found": found and {name: metric.as_dict() for name, metric in found.metrics.items()},
        "expected_of_mature": expected and expected.as_dict()["metrics"],
        "expected_of_newest": coming and coming.as_dict()["metrics"],
    }
    write_performance(settings.reports_dir, told, champion=int(champion.version), as_of=as_of)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(mature.data) if mature else 0,
            "champion": int(champion.version),
            "as of": str(as_of),
            "days": f"{mature.first} to {mature.last}" if mature else "none has matured since the champion was fitted",
            "days without mature labels": f"{newest.first} to {newest.last}" if newest else "none",
            "known frauds": int(mature.data.is_fraud.sum()) if mature else 0,
            "metrics": table(_rows(promised, found or None, expected or None, coming or None)),
            "history": plots({"history": draw_history(settings)}),
        }
    )


def _rows(
    promised: dict[str, Any], found: Evaluation | None, expected: Estimate | None, coming: Estimate | None
) -> list[dict[str, Any]]:
    """A row for each metric: what training promised, what was found, what the probabilities say."""
    names = list(dict.fromkeys([*(found.metrics if found else promised), *(expected.metrics if expected else ())]))
    return [
        {
            "metric": name,
            "promised in training": (promised.get(name) or {}).get("value"),
            "measured": _text(found.metrics.get(name) if found else None),
            "expected of the same days": _text(expected.metrics.get(name) if expected else None),
            "expected of the newest days": _text(coming.metrics.get(name) if coming else None),
        }
        for name in names
    ]


def _text(metric: Metric | None) -> str | None:
    if metric is None or metric.value != metric.value:
        return None
    interval = "" if metric.low != metric.low else f" ({metric.low:.4g} to {metric.high:.4g})"
    return f"{metric.value:.4g}{interval}"
