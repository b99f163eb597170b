"""What the service answers, as JSON Schema 2020-12."""

from __future__ import annotations

from typing import Any, Final, get_args

from fraud_pipeline.domain.decision import Verdict
from fraud_pipeline.domain.drift_verdict import Status
from serving.openapi_schemas import Schema, transaction_id_schema

TIME: Final[Schema] = {"type": "string", "format": "date-time"}
NUMBER_OR_NULL: Final[Schema] = {"type": ["number", "null"]}
TEXT: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}


def record(description: str, properties: Schema, *, optional: tuple[str, ...] = ()) -> Schema:
    """An object whose properties are all there but for the optional ones; more may come with later versions."""
    return {
        "type": "object",
        "description": description,
        "required": [name for name in properties if name not in optional],
        "properties": properties,
        "additionalProperties": True,
    }


def list_of(items: Schema, description: str = "") -> Schema:
    """An array."""
    return {"type": "array", "items": items} | ({"description": description} if description else {})


def ref(name: str) -> Schema:
    """A component."""
    return {"$ref": f"#/components/schemas/{name}"}


def reason_schema() -> Schema:
    """One reason of a decision."""
    return record(
        "An input of the model and what it added to the raw score.",
        {
            "feature": TEXT,
            "value": {**NUMBER_OR_NULL, "description": "null: missing."},
            "contribution": {"type": "number"},
        },
    )


def decision_schema() -> Schema:
    """A decision, as `Decision.as_dict` has it."""
    verdicts = list(get_args(Verdict))
    return record(
        "What was decided about a transaction; the same bytes whenever it is asked again.",
        {
            "transaction_id": transaction_id_schema(),
            "event_time": TIME,
            "decided_at": TIME,
            "fraud_probability": {"type": "number", "minimum": 0, "maximum": 1, "description": "Calibrated."},
            "anomaly_score": {"type": "number", "description": "Higher is stranger."},
            "raw_score": {"type": "number", "description": "What the thresholds are compared with."},
            "decision": {"type": "string", "enum": verdicts},
            "risk_factors": list_of(TEXT, "Short codes, strongest first; with REVIEW and BLOCK."),
            "reasons": list_of(ref("Reason"), "Strongest first; with REVIEW and BLOCK."),
            "model_version": TEXT,
            "feature_schema": {**TEXT, "description": "Hash of the features' definitions."},
            "processing_time_ms": {"type": "number", "minimum": 0},
            "control": {
                "type": "boolean",
                "description": "The score says BLOCK, and the payment was let through as REVIEW to learn from it.",
            },
            "degraded": list_of(TEXT, "What the decision had to do without; empty when all was well."),
        },
    )


def batch_result_schema() -> Schema:
    """Results of a batch."""
    decided = record("Decided.", {"decision": ref("Decision")})
    refused = record("Not decided.", {"error": ref("Problem")})
    return record("Results in the order given.", {"results": list_of({"anyOf": [decided, refused]})})


def label_result_schema() -> Schema:
    """What became of labels."""
    change = record(
        "What a label changed: +1 fraud, -1 no fraud any more, 0 nothing.",
        {"transaction_id": transaction_id_schema(), "change": {"type": "integer", "enum": [-1, 0, 1]}},
    )
    error = record("A label that was not recorded.", {"index": COUNT, "problem": ref("Problem")})
    return record(
        "What became of the labels.",
        {
            "recorded": {**COUNT, "description": "New labels, those that wait for their transaction included."},
            "waiting": list_of(transaction_id_schema(), "Transactions not seen yet: released when they show up."),
            "repeated": {**COUNT, "description": "Labels that were recorded before."},
            "changes": list_of(change),
            "errors": list_of(error),
        },
    )


def problem_schema() -> Schema:
    """RFC 9457 problem details."""
    broken = record(
        "A broken rule.",
        {"field": TEXT, "value": {**TEXT, "description": "What was sent, shortened."}, "reason": TEXT},
        optional=("value",),
    )
    return record(
        "What went wrong (RFC 9457), and what to do.",
        {
            "type": {"type": "string", "description": "`about:blank`, or `urn:fraud-pipeline:` and a short name."},
            "title": TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": TEXT,
            "remedy": TEXT,
            "errors": list_of(broken, "Every broken rule."),
        },
        optional=("detail", "remedy", "errors"),
    )


def explanation_schema() -> Schema:
    """Why a transaction got its score."""
    contribution = record(
        "One input of the model.",
        {"feature": TEXT, "value": NUMBER_OR_NULL, "contribution": {"type": "number"}, "meaning": TEXT},
        optional=("meaning",),
    )
    return record(
        "Exact tree SHAP values of the vector that was decided on, under the model that decided: they add up to the raw score.",
        {
            "transaction_id": transaction_id_schema(),
            "model_version": TEXT,
            "raw_score": {"type": "number"},
            "base_value": {"type": "number", "description": "The raw score without any input."},
            "contributions": list_of(contribution, "Strongest first."),
        },
    )


def recorded_transaction_schema() -> Schema:
    """A transaction as it was recorded."""
    return record(
        "A transaction as it was recorded; fields that were not given are absent or null.",
        {
            "transaction_id": transaction_id_schema(),
            "event_time": TIME,
            "customer_id": TEXT,
            "merchant_id": TEXT,
            "amount": {"type": ["number", "string"]},
            "currency": TEXT,
            "merchant_category": TEXT,
            "channel": TEXT,
        },
    )


def recent_schema() -> Schema:
    """A customer's newest transactions."""
    decided: Schema = {
        "allOf": [ref("RecordedTransaction")],
        "properties": {"decision": {"type": ["string", "null"]}, "fraud_probability": NUMBER_OR_NULL},
    }
    return record("Newest first.", {"customer_id": TEXT, "transactions": list_of(decided)})


def model_schema() -> Schema:
    """The model that decides."""
    promoted: Schema = {"type": ["object", "null"], "description": "When, by whom, why, instead of which version."}
    return record(
        "The model that decides.",
        {
            "version": TEXT,
            "feature_schema": TEXT,
            "thresholds": {"type": "object", "description": "Raw scores from which on the answer is REVIEW and BLOCK."},
            "metrics": {"type": "object", "description": "Of its test period, with intervals."},
            "promotion": promoted,
        },
        optional=("promotion",),
    )


def health_schema() -> Schema:
    """Every dependency."""
    dependency = record(
        "One dependency.",
        {"status": TEXT, "latency_ms": NUMBER_OR_NULL, "detail": TEXT, "remedy": TEXT},
        optional=("latency_ms", "detail", "remedy"),
    )
    return record(
        "Every dependency with its latency, and what to do about those that are away.",
        {"status": TEXT, "dependencies": {"type": "object", "additionalProperties": dependency}},
        optional=("dependencies",),
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


def answer_schemas() -> dict[str, Any]:
    """All of them, by component name."""
    return {
        "Reason": reason_schema(),
        "Decision": decision_schema(),
        "BatchResult": batch_result_schema(),
        "LabelResult": label_result_schema(),
        "Problem": problem_schema(),
        "Explanation": explanation_schema(),
        "RecordedTransaction": recorded_transaction_schema(),
        "Recent": recent_schema(),
        "Model": model_schema(),
        "Health": health_schema(),
        "DriftStatus": drift_status_schema(),
        "DriftStats": {"type": "object", "description": "The newest reports in figures, and the present episode."},
        "DriftRun": record("The run that was started.", {"run_id": TEXT, "url": TEXT}),
    }
