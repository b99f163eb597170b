"""From records to what they say: a payment, a label change, or a message that goes to the dead letters.

Each record is judged alone and alike whenever it is read, so a replay sees what the first reading saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from fraud_pipeline.adapters.kafka.messages import (
    HEADERS,
    MAX_VALUE_BYTES,
    BadMessage,
    Headers,
    attached_decision,
    read_log_message,
)
from fraud_pipeline.adapters.stream.event_log import LogRecord
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.feature_layout import NEVER
from fraud_pipeline.domain.feature_state import microseconds
from fraud_pipeline.domain.payment_columns import payment_columns
from fraud_pipeline.domain.seen_ids import content_hash, id_hash
from fraud_pipeline.domain.strict_json import plain_objects
from fraud_pipeline.domain.transaction import MAX_AGE, LabelChange, Transaction
from fraud_pipeline.domain.transaction_batch import parse_transactions

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
PLAIN: Final = list(HEADERS["transaction"])
"""The headers of nearly every record."""


@dataclass(slots=True)
class Item:
    """One record and what it says: exactly one of `payment`, `label` and `bad`."""

    record: LogRecord
    payment: Transaction | None = None
    label: LabelChange | None = None
    bad: BadMessage | None = None
    decided: Decision | None = None
    """The decision that came with a payment: it is passed on."""
    time_us: int = 0
    """A payment's event time, µs; then the hashes of its id and of its content."""
    identity: int = 0
    content: int = 0
    needs: int = NEVER
    """The newest shared minute that it may read."""

    @classmethod
    def of_payment(cls, record: LogRecord, payment: Transaction) -> Item:
        item = cls(record, payment)
        item.note(payment)
        return item

    def note(self, payment: Transaction) -> None:
        """Work out what a state tells payments apart by."""
        self.time_us = microseconds(payment.event_time)
        self.identity = id_hash(payment.transaction_id)
        self.content = content_hash(payment, self.time_us)


def read_records(records: Sequence[LogRecord], *, currency: str) -> list[Item]:
    """What each record says, in their order."""
    items = [Item(record) for record in records]
    usual = [item for item in items if is_plain(item.record.headers, item.record.value)]
    _read_plain(usual, currency)
    _read_together([item for item in usual if item.payment is None], currency)
    for item in items:
        if item.payment is None:
            _read_closely(item, currency)
    return items


def is_plain(headers: Headers, value: bytes | None) -> bool:
    """Whether these are the headers of nearly every record, and its size."""
    return headers == PLAIN and value is not None and len(value) <= MAX_VALUE_BYTES


def _read_plain(items: Sequence[Item], currency: str) -> None:
    """Read many payments at once from their bytes; what is not plainly one, or not under its key, is left."""
    if not items:
        return
    columns = payment_columns(
        [item.record.value or b"" for item in items], [item.record.key or b"" for item in items],
        np.array([item.record.received_us for item in items], np.int64), currency=currency,
    )  # fmt: skip
    rows = np.flatnonzero(columns.plain)
    found = zip(
        rows.tolist(), columns.transactions(rows, currency=currency), columns.times[rows].tolist(),
        columns.identities[rows].tolist(), columns.contents[rows].tolist(), strict=True,
    )  # fmt: skip
    for row, payment, time_us, identity, content in found:
        item = items[row]
        item.payment, item.time_us, item.identity, item.content = payment, time_us, identity, content


def _read_together(items: Sequence[Item], currency: str) -> None:
    """The same of what has other letters, attributes or unknown fields."""
    payloads = plain_objects([item.record.value or b"" for item in items])
    if not payloads:
        return
    first = min(item.record.received_us for item in items)
    newest = max(item.record.received_us for item in items)
    # Judged as of the earliest receipt no event may lie further ahead than it may; as of the latest, none is too old.
    oldest = _moment(newest) - MAX_AGE
    for item, found in zip(
        items, parse_transactions(payloads, currency=currency, received_at=_moment(first)).items, strict=True
    ):
        if (
            isinstance(found, Transaction)
            and found.event_time >= oldest
            and item.record.key == found.customer_id.encode()
        ):
            item.payment = found
            item.note(found)


def _read_closely(item: Item, currency: str) -> None:
    record = item.record
    try:
        said = read_log_message(
            record.key, record.value, record.headers, currency=currency, received_at=_moment(record.received_us)
        )
        if isinstance(said, LabelChange):
            item.label = said
        else:
            item.decided = attached_decision(record.headers, transaction=said)
            item.payment = said
            item.note(said)
    except BadMessage as err:
        item.bad = err


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
