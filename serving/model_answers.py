"""The models as answers say them. Read from the model slot; HTTP itself is the handlers'."""

from __future__ import annotations

from typing import Any

from fraud_pipeline.adapters.model_slot import ModelSlot, RefusedModel, ServedModel
from fraud_pipeline.live_runtime import LiveRuntime, utc_now


def served_model(served: ServedModel) -> dict[str, Any]:
    """What decides, since when and why."""
    facts, promotion = served.bundle.facts, served.promotion
    return {
        "model_version": served.bundle.version,
        "fingerprint": served.bundle.fingerprint,
        "kind": facts.kind,
        "trees": facts.n_trees,
        "feature_schema": served.bundle.feature_schema,
        "features": list(served.bundle.input_names),
        "thresholds": {"review": facts.thresholds.review, "block": facts.thresholds.block, "of": "raw_score"},
        "metrics": facts.metrics,
        "trained_as_of": facts.lineage.as_of,
        "periods": facts.lineage.periods,
        "promoted_at": promotion.promoted_at,
        "promoted_by": promotion.who,
        "promotion": promotion.kind,
        "reason": promotion.reason,
        "loaded_at": served.loaded_at,
        "age_days": round((utc_now() - facts.lineage.as_of).total_seconds() / 86_400, 2),
    }


def previous_model(served: ServedModel | None) -> dict[str, Any] | None:
    """What is kept loaded for a rollback."""
    return None if served is None else {"model_version": served.bundle.version, "loaded_at": served.loaded_at}


def challenger_model(models: ModelSlot) -> dict[str, Any] | None:
    """Who challenges, since when and why."""
    challenger = models.challenger
    if challenger is None:
        return None
    appointment = challenger.appointment
    return {
        "model_version": challenger.bundle.version,
        "fingerprint": challenger.bundle.fingerprint,
        "appointed_at": appointment.appointed_at,
        "appointed_by": appointment.who,
        "reason": appointment.reason,
        "loaded_at": challenger.loaded_at,
        "share": models.challenger_share,
    }


def challenger_health(runtime: LiveRuntime) -> dict[str, Any]:
    """There need not be one; one that is refused wants somebody's eyes."""
    models, metrics = runtime.models, runtime.metrics
    challenger = None if models is None else models.challenger
    refused = None if models is None else models.refused_challenger
    return {
        "status": "refused" if refused is not None else ("none" if challenger is None else "ok"),
        "version": None if challenger is None else challenger.bundle.version,
        "refused": refused_model(refused),
        "shadow_decisions": metrics.shadow_decisions,
        "shadow_dropped": metrics.shadow_dropped,
        "remedy": "" if refused is None else "Appoint another one, or none: `fraud models challenge --none`.",
    }


def refused_model(refused: RefusedModel | None) -> dict[str, Any] | None:
    """Which version is not served, and why."""
    return None if refused is None else {"model_version": str(refused.version), "reason": refused.reason}
