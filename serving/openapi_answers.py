"""What the service answers, as JSON Schema 2020-12."""

from __future__ import annotations

from typing import Any, Final, get_args

from fraud_pipeline.domain.decision import Verdict
from serving.openapi_schemas import transaction_id_schema
from serving.openapi_shapes import (
    COUNT,
    NUMBER_OR_NULL,
    TEXT,
    TEXT_OR_NULL,
    TIME,
    TIME_OR_NULL,
    Schema,
    list_of,
    record,
)  # fmt: skip
from serving.openapi_states import state_schemas

VERDICTS: Final = list(get_args(Verdict))


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
    return record(
        "What was decided about a transaction; the same bytes whenever it is asked again.",
        {
            "transaction_id": transaction_id_schema(),
            "event_time": TIME,
            "decided_at": TIME,
            "fraud_probability": {"type": "number", "minimum": 0, "maximum": 1, "description": "Calibrated."},
            "anomaly_score": {"type": "number", "description": "Higher is stranger."},
            "raw_score": {"type": "number", "description": "What the thresholds are compared with."},
            "decision": {"type": "string", "enum": VERDICTS},
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
        {
            "feature": TEXT,
            "value": {**NUMBER_OR_NULL, "description": "null: missing."},
            "text": {**TEXT, "description": "The value as people say it."},
            "contribution": {"type": "number"},
            "meaning": TEXT,
            "unit": TEXT,
        },
    )
    return record(
        "Exact tree SHAP values of the vector that was decided on, under the model that decided: "
        "`raw_score` = `base_value` + all contributions + `rounding`.",
        {
            "transaction_id": transaction_id_schema(),
            "model_version": TEXT,
            "method": TEXT,
            "score_unit": TEXT,
            "base_value": {"type": "number", "description": "The mean raw score of the training payments."},
            "raw_score": {"type": "number"},
            "rounding": {"type": "number", "description": "float32 against float64, about 1e-6."},
            "fraud_probability": {"type": "number", "minimum": 0, "maximum": 1},
            "review": {**NUMBER_OR_NULL, "description": "The raw score from which on it is REVIEW; null: none."},
            "block": {**NUMBER_OR_NULL, "description": "The raw score from which on it is BLOCK; null: none."},
            "contributions": list_of(contribution, "Every input, the largest effect first."),
        },
    )


def recorded_transaction_schema() -> Schema:
    """A transaction as it was recorded."""
    return record(
        "A transaction as it was recorded; optional fields that were not given are null.",
        {
            "transaction_id": transaction_id_schema(),
            "event_time": TIME,
            "customer_id": TEXT,
            "merchant_id": TEXT,
            "amount": {"type": "string", "pattern": "^[0-9]+\\.[0-9]{2}$", "description": "With two decimals."},
            "currency": TEXT,
            "merchant_category": TEXT,
            "channel": TEXT,
            "country": TEXT_OR_NULL,
            "device_id": TEXT_OR_NULL,
            "latitude": NUMBER_OR_NULL,
            "longitude": NUMBER_OR_NULL,
            "attributes": {"type": "object", "additionalProperties": {"type": "number"}},
            "received_at": {**TIME_OR_NULL, "description": "null: of the history, not live."},
            "writer": {**TEXT, "description": "Who wrote it into the log; `history` where nobody did."},
        },
        optional=("writer",),
    )


def recent_schema() -> Schema:
    """A customer's newest transactions."""
    decided: Schema = {
        "allOf": [ref("RecordedTransaction")],
        "properties": {
            "decision": {"type": "string", "enum": VERDICTS},
            "fraud_probability": {"type": "number"},
            "model_version": TEXT,
        },
    }
    return record(
        "Newest first; empty for a customer without live transactions. Those that were decided say how.",
        {"customer_id": TEXT, "transactions": list_of(decided)},
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
        **state_schemas(),
    }
