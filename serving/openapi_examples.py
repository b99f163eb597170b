"""Examples of the OpenAPI document: a purchase at home, one far away at night, and what the service answers to them.

The event times are of the moment the document is made, so that a request copied out of it is accepted.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

VERSION: Final = "3"
SCHEMA: Final = "0d0f3b9a6c1e4f27"
CODE: Final = "usual-purchase-1"


def transaction(now: datetime) -> dict[str, Any]:
    """A usual purchase."""
    return {
        "transaction_id": CODE,
        "event_time": moment(now),
        "customer_id": "C0000042",
        "merchant_id": "M00000007",
        "amount": 50.25,
        "currency": "USD",
        "merchant_category": "grocery",
        "channel": "pos",
        "country": "US",
        "device_id": "d0123456789ab",
        "latitude": 40.71,
        "longitude": -74.01,
        "attributes": {"ip_risk": 0.12},
    }


def suspicious(now: datetime) -> dict[str, Any]:
    """A large payment in another country; the amount as a decimal string, optional fields left out."""
    return {
        "transaction_id": "far-away-1",
        "event_time": moment(now),
        "customer_id": "C0000042",
        "merchant_id": "M00099999",
        "amount": "3500.00",
        "channel": "online",
        "country": "NG",
    }


def approval(now: datetime) -> dict[str, Any]:
    """What the usual purchase is answered."""
    return {
        "transaction_id": CODE,
        "event_time": moment(now),
        "decided_at": moment(now),
        "fraud_probability": 0.0004,
        "anomaly_score": 0.41,
        "raw_score": -7.9,
        "decision": "APPROVE",
        "risk_factors": [],
        "reasons": [],
        "model_version": VERSION,
        "feature_schema": SCHEMA,
        "processing_time_ms": 0.184,
        "control": False,
        "degraded": [],
    }


def block(now: datetime) -> dict[str, Any]:
    """What the suspicious payment is answered."""
    return {
        **approval(now),
        "transaction_id": "far-away-1",
        "fraud_probability": 0.93,
        "anomaly_score": 0.71,
        "raw_score": 3.2,
        "decision": "BLOCK",
        "risk_factors": ["high_amount", "new_merchant", "unusual_country"],
        "reasons": [
            {"feature": "amount_zscore_30d", "value": 8.7, "contribution": 2.1},
            {"feature": "first_time_at_merchant", "value": 1.0, "contribution": 0.9},
        ],
    }


def problem(status: int, title: str, detail: str, **extra: Any) -> dict[str, Any]:
    """A problem document."""
    return {"type": extra.pop("type", "about:blank"), "title": title, "status": status, "detail": detail, **extra}


def broken_fields() -> dict[str, Any]:
    """What a transaction with two broken fields is answered."""
    return problem(
        422,
        "The transaction breaks the contract",
        "Broken: amount, event_time.",
        type="urn:fraud-pipeline:invalid-transaction",
        remedy="Correct the named fields and send it again.",
        errors=[
            {"field": "amount", "value": "12.345", "reason": "must have at most 2 decimals"},
            {
                "field": "event_time",
                "value": "'2026-01-31T12:00:00'",
                "reason": "must be an RFC 3339 time with its zone, as 2026-01-31T12:00:00Z",
            },
        ],
    )


def moment(now: datetime) -> str:
    """A time as the service writes it."""
    return now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def label() -> dict[str, Any]:
    """A chargeback."""
    return {"transaction_id": "far-away-1", "is_fraud": True, "source": "chargeback"}


def cleared() -> dict[str, Any]:
    """An analyst's word."""
    return {"transaction_id": CODE, "is_fraud": False, "source": "analyst", "author": "jordan"}


def label_result() -> dict[str, Any]:
    """Two labels recorded."""
    return {
        "recorded": 2,
        "waiting": [],
        "repeated": 0,
        "changes": [{"transaction_id": "far-away-1", "change": 1}, {"transaction_id": CODE, "change": 0}],
        "errors": [],
    }


def explanation() -> dict[str, Any]:
    """Why the suspicious payment was blocked; two of its inputs."""
    return {
        "transaction_id": "far-away-1",
        "model_version": VERSION,
        "method": "tree_path_dependent",
        "score_unit": "log odds",
        "base_value": -4.1,
        "raw_score": 3.2,
        "rounding": 2e-7,
        "fraud_probability": 0.93,
        "review": 0.4,
        "block": 2.1,
        "contributions": [
            {
                "feature": "amount_zscore_30d",
                "value": 8.7,
                "text": "8.7",
                "contribution": 5.2,
                "meaning": "Standard deviations of the amount from the customer's mean of 30 days.",
                "unit": "",
            },
            {
                "feature": "first_time_at_merchant",
                "value": 1.0,
                "text": "yes",
                "contribution": 2.1,
                "meaning": "1 where the customer never paid here within 90 days.",
                "unit": "flag",
            },
        ],
    }


def recorded(now: datetime) -> dict[str, Any]:
    """The usual purchase as it was recorded."""
    return {**transaction(now), "amount": "50.25", "received_at": moment(now), "writer": "local"}


def recent(now: datetime) -> dict[str, Any]:
    """A customer's only transaction."""
    shown = {**recorded(now), "decision": "APPROVE", "fraud_probability": 0.0004, "model_version": VERSION}
    return {"customer_id": "C0000042", "transactions": [shown]}
