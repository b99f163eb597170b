"""What the sink writes, as typed values, and as rows in the driver's own form. Knows no connection."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fraud_pipeline.adapters.ledger_records import Alert, DecisionRecord
from fraud_pipeline.adapters.ledger_schema import microseconds
from fraud_pipeline.domain.transaction import Label, Transaction

Row = tuple[Any, ...]
TopicPartition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RawTransaction:
    """A payment at its place in a partition; `received_at` is the broker's time."""

    transaction: Transaction
    writer: str
    sequence: int
    received_at: datetime


@dataclass(frozen=True, slots=True)
class RawLabel:
    """A label's change at its place in a partition."""

    label: Label
    change: int
    writer: str
    sequence: int


@dataclass(frozen=True, slots=True)
class ClosedMinute:
    """A minute (since 1970) that a writer closed, and the place in its log at which it did; `by_clock` while it was idle."""

    writer: str
    minute: int
    offset: int
    by_clock: bool


@dataclass(frozen=True, slots=True)
class Move:
    """How far a batch brings a partition: from the offset where it began to the next one to read."""

    expected: int
    next_offset: int


@dataclass
class SinkBatch:
    """What one read of the topics brings to the ledger, whole or not at all."""

    transactions: list[RawTransaction] = field(default_factory=list)
    labels: list[RawLabel] = field(default_factory=list)
    decisions: list[DecisionRecord] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    inbox: list[Label] = field(default_factory=list)
    closings: list[ClosedMinute] = field(default_factory=list)
    moves: dict[TopicPartition, Move] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows brought; whether they are new is the ledger's matter."""
        return (
            len(self.transactions) + len(self.labels) + len(self.decisions) + len(self.alerts) + len(self.inbox)
            + len(self.closings)
        )  # fmt: skip


@dataclass(slots=True)
class Written:
    """What a batch did, by table where it is counted by table."""

    rows: dict[str, int] = field(default_factory=dict)
    repeats: dict[str, int] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()
    """Ids that came again with other content; the first one stayed."""
    released: int = 0
    """Labels that had waited for a payment of the batch."""


class RowMaker:
    """Rows of all columns in the tables' order, as one dialect's driver takes them."""

    def __init__(self, dialect: str) -> None:
        self.moment: Callable[[datetime], Any] = microseconds if dialect == "sqlite" else _as_it_is

    def transaction(self, raw: RawTransaction) -> Row:
        t = raw.transaction
        attributes = json.dumps(dict(t.attributes), allow_nan=False, separators=(",", ":")) if t.attributes else "{}"
        return (
            t.transaction_id, self.moment(t.event_time), t.customer_id, t.merchant_id, t.amount_minor, t.currency,
            t.merchant_category, t.channel, t.country, t.device_id, t.latitude, t.longitude, attributes, raw.writer,
            raw.sequence, self.moment(raw.received_at),
        )  # fmt: skip

    def decision(self, record: DecisionRecord) -> Row:
        return (
            record.transaction_id, record.role, record.model_version, self.moment(record.decided_at), record.decision,
            record.fraud_probability, record.payload, record.features,
        )  # fmt: skip

    def alert(self, alert: Alert) -> Row:
        return (
            alert.transaction_id, self.moment(alert.created_at), alert.decision, alert.fraud_probability, None, None,
        )  # fmt: skip

    def label(self, raw: RawLabel) -> Row:
        """Without the number, which the ledger gives."""
        kept = raw.label
        return (
            kept.transaction_id, kept.is_fraud, kept.source, kept.author, self.moment(kept.known_at), raw.change,
            raw.writer, raw.sequence,
        )  # fmt: skip

    def closing(self, closing: ClosedMinute) -> Row:
        return (closing.writer, closing.minute, closing.offset, closing.by_clock)


def _as_it_is(moment: datetime) -> datetime:
    return moment
