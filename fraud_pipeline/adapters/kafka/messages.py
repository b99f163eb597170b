"""The wire format: what stands in each topic's messages, and what is wrong with one that goes to the dead letters.

Values are JSON, headers UTF-8 text. Knows no network and no client: bytes in, typed values out. docs/streaming.md has the
tables. All that others need of the wire format is imported from here.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, Final, cast

import orjson

from fraud_pipeline.adapters.kafka.decision_values import decision_value, read_alert, read_decision
from fraud_pipeline.adapters.kafka.envelope import (
    HEADERS,
    MAX_VALUE_BYTES,
    REQUEUED_FROM,
    BadCode,
    BadMessage,
    Headers,
    Message,
    Place,
    dead_letter,
    header_text,
    kind_of,
    last_header,
    object_of,
    shown,
    unknown_type,
)
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.label import parse_label
from fraud_pipeline.domain.transaction import CHANNELS, FieldReader, Label, LabelChange, Transaction, parse_transaction
from fraud_pipeline.errors import InvalidTransaction, Violation

__all__ = [
    "ATTACHED", "HEADERS", "MAX_VALUE_BYTES", "REQUEUED_FROM", "ROLE", "SOURCE", "BadCode", "BadMessage", "Headers",
    "Message", "Place", "alert_message", "attached_decision", "dead_letter", "decision_message", "decision_value",
    "header_text", "inbox_message", "label_message", "read_alert", "read_decision", "read_inbox_label",
    "read_log_message", "transaction_message",
]  # fmt: skip

ROLE: Final = "role"
SOURCE: Final = "source"
ATTACHED: Final = "decision"
OF_A_HISTORY: Final = ("simulation", "import")
"""Sources whose labels may bring the time at which they became known: it lies in the data, not on the recorder's clock."""


def transaction_message(t: Transaction, *, decision: bytes | None = None) -> Message:
    """A payment for `transactions`; `decision` is the value of its decision where one was given already."""
    value: dict[str, Any] = {
        "transaction_id": t.transaction_id,
        "event_time": t.event_time,
        "customer_id": t.customer_id,
        "merchant_id": t.merchant_id,
        "amount": t.amount_minor / 100,
        "currency": t.currency,
        "merchant_category": t.merchant_category,
        "channel": t.channel,
    }
    if t.country is not None:
        value["country"] = t.country
    if t.device_id is not None:
        value["device_id"] = t.device_id
    if t.latitude is not None:
        value["latitude"], value["longitude"] = t.latitude, t.longitude
    if t.attributes:
        value["attributes"] = dict(t.attributes)
    headers = HEADERS["transaction"] if decision is None else (*HEADERS["transaction"], (ATTACHED, decision))
    return Message(t.customer_id.encode(), _json(value), headers)


def label_message(change: LabelChange, label: Label) -> Message:
    """A label's change for the very partition of its payment, with what it came from."""
    value = {
        "transaction_id": change.transaction_id,
        "change": change.change,
        "known_at": change.known_at,
        "event_time": change.event_time,
        "customer_id": change.customer_id,
        "merchant_id": change.merchant_id,
        "merchant_category": change.merchant_category,
        "channel": change.channel,
        "country": change.country,
        "device_id": change.device_id,
        "is_fraud": label.is_fraud,
        "source": label.source,
        "author": label.author,
    }
    return Message(change.customer_id.encode(), _json(value), HEADERS["label"])


def inbox_message(label: Label, *, with_time: bool = False) -> Message:
    """A label for the inbox `labels`. Its `known_at` stays behind, since the recorder stamps its own; but a history that is
    told again has times of its own (`with_time`).
    """
    named = ("transaction_id", "is_fraud", "source", "author", *(("known_at",) if with_time else ()))
    value = {name: getattr(label, name) for name in named}
    return Message(label.transaction_id.encode(), _json(value), HEADERS["label"])


def decision_message(value: bytes, *, customer_id: str, source: Place, role: str = "decided") -> Message:
    """A decision for `decisions`; `source` is the place of its payment."""
    headers = (*HEADERS["decision"], (ROLE, role.encode()), (SOURCE, str(source).encode()))
    return Message(customer_id.encode(), value, headers)


def alert_message(d: Decision, t: Transaction, *, source: Place) -> Message:
    """A payment for an analyst's eyes, for `alerts`."""
    payment = {
        "customer_id": t.customer_id, "merchant_id": t.merchant_id, "amount": t.amount_minor / 100, "currency": t.currency,
    }  # fmt: skip
    value = d.to_json()[:-1] + b"," + orjson.dumps(payment)[1:]
    return Message(t.customer_id.encode(), value, (*HEADERS["alert"], (SOURCE, str(source).encode())))


def read_log_message(
    key: bytes | None, value: bytes | None, headers: Headers, *, currency: str, received_at: datetime
) -> Transaction | LabelChange:
    """What a message of `transactions` says; `received_at` (UTC-aware) is when the broker appended it. Raises BadMessage."""
    kind = kind_of(headers, b"transaction")
    event: Transaction | LabelChange
    if kind == b"transaction":
        try:
            event = parse_transaction(object_of(value), currency=currency, received_at=received_at)
        except InvalidTransaction as err:
            raise BadMessage("invalid_transaction", err.message, remedy=err.remedy) from err
    elif kind == b"label":
        event = _label_change(object_of(value))
    else:
        raise unknown_type(kind, "transaction or label")
    if key != event.customer_id.encode():
        raise BadMessage(
            "wrong_key", f"The key is {shown(key)}, and customer_id is {event.customer_id!a}.",
            remedy="Produce each payment under its customer_id in UTF-8, so that a customer stays on one partition.",
        )  # fmt: skip
    return event


def attached_decision(headers: Headers, *, transaction: Transaction | None = None) -> Decision | None:
    """The decision that a replica attached to a payment; None where there is none.

    Raises BadMessage (`invalid_decision`), also where it is about another payment than `transaction`.
    """
    value = last_header(headers, ATTACHED)
    if value is None:
        return None
    decision, customer_id = read_decision(value)
    if transaction is not None:
        given = (decision.transaction_id, customer_id, decision.event_time)
        if given != (transaction.transaction_id, transaction.customer_id, transaction.event_time):
            raise BadMessage("invalid_decision", f"The attached decision is about {shown(given[0].encode())}.")
    return decision


def read_inbox_label(
    value: bytes | None, headers: Headers, *, known_at: datetime, default_author: str = "unknown"
) -> Label:
    """A label of the inbox; `known_at` is the recorder's clock. Raises BadMessage.

    A label of a simulated or imported history may bring the time at which it became known; of all others the recorder knows
    better.
    """
    kind = kind_of(headers, b"label")
    if kind != b"label":
        raise unknown_type(kind, "label")
    payload = object_of(value)
    try:
        label = parse_label(payload, known_at=known_at, default_author=default_author)
    except InvalidTransaction as err:
        raise BadMessage("invalid_label", err.message, remedy=err.remedy) from err
    if label.source not in OF_A_HISTORY or payload.get("known_at") is None:
        return label
    return replace(label, known_at=_told_time(payload["known_at"], recorded_at=known_at))


def _told_time(value: object, *, recorded_at: datetime) -> datetime:
    """When a history's label became known, as its sender says."""
    reader = FieldReader({"event_time": value})
    moment = reader.event_time(None)
    violations = [replace(violation, field="known_at") for violation in reader.violations]
    if not violations and moment is not None and moment > recorded_at:
        violations = [
            Violation(
                "known_at", str(value)[:80], f"is later than the recorder's clock, {recorded_at:%Y-%m-%dT%H:%M:%SZ}"
            )
        ]
    if violations:
        raise BadMessage(
            "invalid_label", "; ".join(str(violation) for violation in violations),
            remedy="Send the time at which the label became known, or none: then it is that of its arrival.",
        )  # fmt: skip
    assert moment is not None
    return moment


def _label_change(payload: dict[str, Any]) -> LabelChange:
    """A label's change, field by field; only the recorder of labels produces these."""
    reader = FieldReader(payload)
    known = FieldReader({"event_time": payload.get("known_at")})
    known_at = known.event_time(None)
    reader.violations += [replace(violation, field="known_at") for violation in known.violations]
    change = payload.get("change")
    if type(change) is not int or not -1 <= change <= 1:
        reader.reject("change", change, "must be -1, 0 or 1")
    fields: dict[str, Any] = {
        "transaction_id": reader.identifier("transaction_id"),
        "event_time": reader.event_time(None),
        "customer_id": reader.text("customer_id", 64),
        "merchant_id": reader.text("merchant_id", 64),
        "merchant_category": reader.text("merchant_category", 32, default="unknown"),
        "channel": reader.choice("channel", CHANNELS, default="unknown"),
        "country": reader.country(),
        "device_id": reader.text("device_id", 64, optional=True),
    }
    if reader.violations:
        raise BadMessage("invalid_label", "; ".join(str(violation) for violation in reader.violations))
    return LabelChange(change=cast("int", change), known_at=cast("datetime", known_at), **fields)


def _json(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)
