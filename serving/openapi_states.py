"""What the service answers about its model, its health and drift, as JSON Schema 2020-12."""

from __future__ import annotations

from typing import get_args

from fraud_pipeline.domain.drift_verdict import Status
from fraud_pipeline.domain.promotion import PromotionKind
from serving.openapi_shapes import (
    COUNT,
    NULL,
    NUMBER_OR_NULL,
    TEXT,
    TIME,
    TIME_OR_NULL,
    Schema,
    list_of,
    record,
)  # fmt: skip


def model_schema() -> Schema:
    """The model that decides."""
    other = record("Another version.", {"model_version": TEXT, "loaded_at": TIME})
    refused = record("A promoted or appointed version that is not served.", {"model_version": TEXT, "reason": TEXT})
    challenger = record(
        "Decides each payment too, in shadow; the payments of its share of the customers it decides itself.",
        {
            "model_version": TEXT,
            "fingerprint": TEXT,
            "appointed_at": TIME,
            "appointed_by": TEXT,
            "reason": TEXT,
            "loaded_at": TIME,
            "share": {"type": "number", "minimum": 0, "maximum": 1},
        },
    )
    thresholds = record(
        "Raw scores from which on the answer is REVIEW and BLOCK.", {"review": NUMBER_OR_NULL, "block": NUMBER_OR_NULL}
    )
    return record(
        "The model that decides.",
        {
            "model_version": TEXT,
            "fingerprint": TEXT,
            "kind": TEXT,
            "trees": COUNT,
            "feature_schema": TEXT,
            "features": list_of(TEXT, "The inputs, in their order."),
            "thresholds": thresholds,
            "metrics": {"type": "object", "description": "As it was judged and as it is served, with intervals."},
            "trained_as_of": TIME,
            "periods": {"type": "object", "description": "First and last day of each period."},
            "promoted_at": TIME,
            "promoted_by": TEXT,
            "promotion": {"type": "string", "enum": list(get_args(PromotionKind))},
            "reason": TEXT,
            "loaded_at": TIME,
            "age_days": {"type": "number", "description": "Since the moment of its training."},
            "previous": {"anyOf": [other, NULL], "description": "Kept loaded for a rollback."},
            "refused": {"anyOf": [refused, NULL]},
            "challenger": {"anyOf": [challenger, NULL]},
            "refused_challenger": {"anyOf": [refused, NULL]},
        },
    )


def health_schema() -> Schema:
    """Every dependency."""
    dependency = record(
        "One dependency; more is said by some.",
        {"status": TEXT, "latency_ms": NUMBER_OR_NULL, "error": TEXT, "remedy": TEXT},
        optional=("status", "latency_ms", "error", "remedy"),
    )
    return record(
        "Every dependency with its latency, and what to do about those that are away.",
        {
            "status": {"type": "string", "enum": ["ok", "degraded", "unavailable"]},
            "problems": list_of(TEXT, "Why a payment would not be decided now."),
            "started_at": TIME,
            "dependencies": {"type": "object", "additionalProperties": dependency},
        },
    )


def drift_status_schema() -> Schema:
    """The newest drift report."""
    detail = record(
        "One feature.",
        {
            "feature": TEXT,
            "drift_detected": {"type": "boolean"},
            "drift_score": NUMBER_OR_NULL,
            "stattest": TEXT,
            "reference_mean": NUMBER_OR_NULL,
            "current_mean": NUMBER_OR_NULL,
        },
        optional=("stattest", "reference_mean", "current_mean"),
    )
    return record(
        "The newest drift report.",
        {
            "timestamp": TIME,
            "status": {"type": "string", "enum": list(get_args(Status))},
            "reasons": list_of(TEXT, "In words, the gravest first."),
            "dataset_drift_detected": {"type": "boolean"},
            "dataset_drift_share": {"type": "number"},
            "num_features_checked": COUNT,
            "num_features_drifted": COUNT,
            "reference_rows": COUNT,
            "current_rows": COUNT,
            "drifted_features": list_of(TEXT),
            "feature_details": list_of(detail),
        },
        optional=("reasons",),
    )


def drift_stats_schema() -> Schema:
    """Drift over time."""
    return record(
        "The reports so far in figures, and the episodes that they opened.",
        {
            "reports": COUNT,
            "by_status": {"type": "object", "additionalProperties": COUNT},
            "drift_detected": {**COUNT, "description": "Reports that found the data drifted."},
            "first_timestamp": TIME_OR_NULL,
            "last_timestamp": TIME_OR_NULL,
            "mean_drift_share": NUMBER_OR_NULL,
            "max_drift_share": NUMBER_OR_NULL,
            "most_drifted_features": list_of(record("A feature.", {"feature": TEXT, "reports": COUNT})),
            "history": list_of({"type": "object"}, "One for each report, the newest first."),
            "open_episode": {"type": ["integer", "string", "null"]},
            "episodes": list_of(
                {"type": "object"}, "From the first report of a drift to its end, with the retrainings."
            ),
        },
    )


def state_schemas() -> dict[str, Schema]:
    """All of them, by component name."""
    return {
        "Model": model_schema(),
        "Health": health_schema(),
        "DriftStatus": drift_status_schema(),
        "DriftStats": drift_stats_schema(),
        "DriftRun": record(
            "The run that was started; it is queued or runs.", {"run_id": TEXT, "status": TEXT, "url": TEXT}
        ),
    }
