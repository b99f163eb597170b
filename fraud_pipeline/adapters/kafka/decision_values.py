"""A decision as JSON with its customer and its vector, and back: field by field, since others may write to the topics."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any, Final

import orjson

from fraud_pipeline.adapters.kafka.envelope import BadMessage
from fraud_pipeline.adapters.ledger_records import Alert
from fraud_pipeline.domain.decision import Decision, Verdict
from fraud_pipeline.domain.explanation import Reason

_VERDICTS: Final[dict[str, Verdict]] = {"APPROVE": "APPROVE", "REVIEW": "REVIEW", "BLOCK": "BLOCK"}


def decision_value(d: Decision, *, customer_id: str) -> bytes:
    """A decision with its customer and its input vector: the value in `decisions`, and what a replica attaches."""
    return answered_value(d.to_json(), d.features, customer_id=customer_id)


def answered_value(answer: bytes, features: bytes, *, customer_id: str) -> bytes:
    """`decision_value` of a decision whose JSON was written already."""
    return b'%b,"customer_id":%b,"features":"%b"}' % (
        answer[:-1],
        orjson.dumps(customer_id),
        base64.b64encode(features),
    )


def read_decision(value: bytes | None) -> tuple[Decision, str]:
    """A decision and its customer. Raises BadMessage (`invalid_decision`) for what is not whole."""
    try:
        stored = orjson.loads(value or b"")
        return _decision(stored), _text(stored, "customer_id")
    except KeyError as err:
        raise BadMessage("invalid_decision", f"The decision lacks {err.args[0]!a}.") from err
    except (TypeError, ValueError, binascii.Error) as err:
        raise BadMessage("invalid_decision", f"This is no decision: {str(err)[:200]}.") from err


def read_alert(value: bytes | None) -> Alert:
    """An alert as the ledger keeps it. Raises BadMessage (`invalid_decision`)."""
    try:
        stored = orjson.loads(value or b"")
        probability = _number(stored, "fraud_probability")
        return Alert(_text(stored, "transaction_id"), _moment(stored, "decided_at"), _verdict(stored), probability)
    except KeyError as err:
        raise BadMessage("invalid_decision", f"The alert lacks {err.args[0]!a}.") from err
    except (TypeError, ValueError) as err:
        raise BadMessage("invalid_decision", f"This is no alert: {str(err)[:200]}.") from err


def _decision(stored: dict[str, Any]) -> Decision:
    features = base64.b64decode(stored["features"], validate=True)
    if not features or len(features) % 4:
        raise ValueError(f"its vector takes {len(features)} bytes")
    if type(stored["control"]) is not bool:
        raise TypeError("control is not true or false")
    if type(stored["reasons"]) is not list:
        raise TypeError("reasons is no list")
    return Decision(
        transaction_id=_text(stored, "transaction_id"),
        event_time=_moment(stored, "event_time"),
        decided_at=_moment(stored, "decided_at"),
        fraud_probability=_number(stored, "fraud_probability"),
        anomaly_score=_number(stored, "anomaly_score"),
        raw_score=_number(stored, "raw_score"),
        decision=_verdict(stored),
        risk_factors=_texts(stored, "risk_factors"),
        reasons=tuple(_reason(reason) for reason in stored["reasons"]),
        model_version=_text(stored, "model_version"),
        feature_schema=_text(stored, "feature_schema"),
        processing_time_ms=_number(stored, "processing_time_ms"),
        features=features,
        control=stored["control"],
        degraded=_texts(stored, "degraded"),
    )


def _reason(stored: dict[str, Any]) -> Reason:
    value = None if stored["value"] is None else _number(stored, "value")
    return Reason(_text(stored, "feature"), value, _number(stored, "contribution"))


def _verdict(stored: dict[str, Any]) -> Verdict:
    found = _VERDICTS.get(_text(stored, "decision"))
    if found is None:
        raise ValueError(f"its verdict is {stored['decision'][:40]!a}")
    return found


def _text(stored: dict[str, Any], name: str) -> str:
    value = stored[name]
    if type(value) is not str or not value:
        raise TypeError(f"{name} is no text")
    return value


def _number(stored: dict[str, Any], name: str) -> float:
    value = stored[name]
    if type(value) is not float and type(value) is not int:
        raise TypeError(f"{name} is no number")
    return float(value)


def _texts(stored: dict[str, Any], name: str) -> tuple[str, ...]:
    values = stored[name]
    if type(values) is not list or not all(type(value) is str for value in values):
        raise TypeError(f"{name} is no list of texts")
    return tuple(values)


def _moment(stored: dict[str, Any], name: str) -> datetime:
    moment = datetime.fromisoformat(stored[name])
    if moment.tzinfo is None:
        raise ValueError(f"{name} has no zone")
    return moment
