"""From fitted models to a champion, through the gates."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import dagster as dg

from fraud_pipeline import policies
from fraud_pipeline.adapters.candidate import (
    CANDIDATE,
    EVALUATION_BUNDLE,
    build_candidate,
    compare_with_champion,
    draw_candidate,
    judge_candidate,
    register_candidate,
)
from fraud_pipeline.adapters.champion import load_opponent
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.model_store import ModelStore
from fraud_pipeline.adapters.promotions import appoint_challenger, current_champion, promote
from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
from fraud_pipeline.adapters.training_store import TrainingStore
from fraud_pipeline.defs.pages import OWNERS, plots, run_link, table
from fraud_pipeline.defs.patience import patient
from fraud_pipeline.defs.training import experiment_settings, recipe_options, recipe_tag
from fraud_pipeline.domain.gates import REQUIRED_GATES
from fraud_pipeline.domain.shadow_trial import TRIAL
from fraud_pipeline.errors import NotFound, PromotionRefused
from fraud_pipeline.settings import Settings

FITTED = ("xgboost_model", "isolation_forest_model")
GATES = {
    "pr_auc_above_floor": "The area under the precision-recall curve on the test period is at least FRAUD_MIN_PR_AUC.",
    "recall_at_budget_above_floor": "Within the alert budget it finds at least FRAUD_MIN_RECALL of the frauds.",
    "expected_frauds_match_observed": "The probabilities of its alerts promise about as many frauds as were found.",
    "net_value_not_worse_than_champion": "It is worth about as much as the champion on the same payments, or more.",
    "served_scores_equal_training_scores": "The saved bundle gives the scores that training computed.",
    "decision_within_latency_budget": "99 of 100 decisions take at most FRAUD_MAX_DECISION_MS; a warning only.",
}
"""What each gate claims."""


@dg.asset(
    group_name="promotion", kinds={"onnx", "mlflow"}, owners=OWNERS, code_version="1",
    deps=["xgboost_model", "isolation_forest_model"],
)  # fmt: skip
@patient
def candidate_bundle(
    context: dg.AssetExecutionContext, training_sets: dg.ResourceParam[TrainingStore],
    models: dg.ResourceParam[ModelStore], builder: dg.ResourceParam[TrainingSetBuilder],
    registry: dg.ResourceParam[Any], ledger: dg.ResourceParam[Ledger], settings: dg.ResourceParam[Settings],
    mlflow: dg.ResourceParam[Any],
) -> dg.MaterializeResult[None]:  # fmt: skip
    """What might be served next: classifier, anomaly detector, calibration, thresholds and model card in one bundle.

    It is judged on days after those it learned from, side by side with the champion, and registered whatever the gates say,
    with their results as tags. The checks below are those gates.
    """
    chosen = training_sets.read(training_sets.newest())
    pair, detectors = (models.read(chosen.fingerprint, n, options=recipe_options(settings)) for n in FITTED)
    experiment = experiment_settings(settings)
    candidate = build_candidate(
        chosen, pair, detectors.served, settings=experiment, code_version=version_of("fraud-pipeline"),
        created_at=datetime.now(UTC), root=settings.bundles_dir,
    )  # fmt: skip
    opponent = load_opponent(ledger, registry, tracking_uri=settings.mlflow_tracking_uri, bundles=settings.bundles_dir)
    comparison = None
    if opponent is not None:
        comparison = compare_with_champion(candidate, opponent, chosen, builder=builder, settings=experiment)
    results = judge_candidate(candidate, comparison, limits=policies.gate_settings(settings))
    pictures = draw_candidate(candidate, folder=settings.plots_dir, budget=settings.alert_budget)
    version = register_candidate(
        registry, candidate, results, run_id=mlflow.active_run().info.run_id, against=opponent,
        tags={"dagster_run_id": context.run.run_id, "training_set": chosen.fingerprint, "recipe": recipe_tag(settings)},
    )  # fmt: skip
    metrics = candidate.judgement.evaluation.metrics
    mlflow.log_artifacts(str(candidate.evaluation_bundle.path), EVALUATION_BUNDLE)
    mlflow.log_artifacts(str(settings.plots_dir / candidate.bundle.fingerprint[:16]), "plots")
    mlflow.log_metrics({f"evaluation.{name}": m.value for name, m in metrics.items() if math.isfinite(m.value)})
    return dg.MaterializeResult(
        metadata={
            "version": version.version,
            "verdict": version.verdict,
            "fingerprint": version.fingerprint[:16],
            "compared with": f"version {opponent.version}" if opponent else "no champion yet",
            "gates": table([_gate_row(result) for result in results]),
            "in words": dg.MetadataValue.md("\n".join(f"- {result.explanation}" for result in results)),
            "metrics": table([_metric_row(name, metric) for name, metric in metrics.items()]),
            "MLflow run": run_link(settings.mlflow_tracking_uri, registry.experiment_id, version.run_id),
            "plots": plots(pictures),
            "model card": dg.MetadataValue.md(candidate.bundle.model_card()),
        }
    )


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(name, asset="candidate_bundle", blocking=name in REQUIRED_GATES, description=claim)
        for name, claim in GATES.items()
    ]
)
def gates(registry: dg.ResourceParam[Any]) -> Iterator[dg.AssetCheckResult]:
    """The gates between the candidate and its promotion, as they were judged and written to its version."""
    version = judged_candidate(registry)
    evidence = version.gates
    for result in () if evidence is None else evidence.results:
        yield dg.AssetCheckResult(
            asset_key="candidate_bundle",
            check_name=result.name,
            passed=result.passed,
            severity=dg.AssetCheckSeverity.WARN if result.severity.startswith("warn") else dg.AssetCheckSeverity.ERROR,
            description=result.explanation,
            metadata={"version": version.version, "value": result.value or 0.0, "limit": str(result.limit)},
        )


@dg.asset(group_name="promotion", kinds={"onnx", "mlflow"}, owners=OWNERS, code_version="1", deps=["candidate_bundle"])
@patient
def champion_bundle(
    context: dg.AssetExecutionContext, registry: dg.ResourceParam[Any], ledger: dg.ResourceParam[Ledger],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[None]:  # fmt: skip
    """The bundle that decides payments. A candidate becomes it only with every required gate passed.

    The results are read once more here, for this very version and content: materializing this asset alone promotes nothing
    that the gates have not passed. Every promotion is a row in the ledger that is never rewritten. With FRAUD_SHADOW_DAYS it
    becomes challenger first, and `shadow_trial` promotes or dismisses it.
    """
    version = judged_candidate(registry)
    path = registry.fetch(version.version)
    who, champion = f"dagster run {context.run.run_id}", current_champion(ledger)
    if settings.shadow_days and champion is not None and champion.version != version.version:
        return _in_shadow(ledger, registry, version, who=who, days=settings.shadow_days)
    promotion = promote(
        ledger, registry, version.version, who=who, required_gates=REQUIRED_GATES, reason="all gates passed"
    )
    return dg.MaterializeResult(
        metadata={
            "version": promotion.version,
            "fingerprint": promotion.fingerprint[:16],
            "promoted at": dg.MetadataValue.timestamp(promotion.promoted_at),
            "in place of": f"version {promotion.previous_version}" if promotion.previous_version else "none",
            "training window": version.training_window,
            "bundle": dg.MetadataValue.path(str(path)),
            "model card": dg.MetadataValue.md((Path(path) / "model_card.md").read_text()),
        }
    )


def _in_shadow(ledger: Ledger, registry: Any, version: Any, *, who: str, days: int) -> dg.MaterializeResult[None]:
    """Make it challenger: what was judged against another champion than the present one is refused now, not after days."""
    champion = current_champion(ledger)
    against = None if version.gates is None else version.gates.against_version
    if champion is not None and against != champion.version:
        raise PromotionRefused(
            f"Version {version.version} was judged against version {against}, and the champion is {champion.version} now.",
            remedy="Train and judge a new candidate: `fraud run`.",
        )
    reason = f"{TRIAL} of {days} days: all gates passed"
    challenger = appoint_challenger(
        ledger, registry, version.version, who=who, reason=reason, required_gates=REQUIRED_GATES
    )
    return dg.MaterializeResult(
        metadata={
            "version": version.version,
            "in shadow since": dg.MetadataValue.timestamp(challenger.appointed_at),
            "for days of data": days,
            "beside": f"version {champion.version}" if champion else "none",
            "training window": version.training_window,
        }
    )


def judged_candidate(registry: Any) -> Any:
    """The version that was judged last."""
    found = [version for version in registry.versions() if CANDIDATE in version.aliases]
    if not found:
        raise NotFound("There is no candidate.", remedy="Materialize `candidate_bundle`: `fraud run`.")
    return found[0]


def _gate_row(result: Any) -> dict[str, Any]:
    passed = "passed" if result.passed else "warned" if result.severity == "warn" else "FAILED"
    return {"gate": result.name, "result": passed, "value": result.value, "limit": result.limit}


def _metric_row(name: str, metric: Any) -> dict[str, Any]:
    return {"metric": name, "value": metric.value, "95 % from": metric.low, "to": metric.high}
