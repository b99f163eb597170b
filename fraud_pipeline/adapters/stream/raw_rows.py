"""The ledger's raw rows as records of a log: what recovery reads where the log itself holds no more.

A row says what its record said; the record's bytes, and places that said nothing (markers, repeats, bad messages), are gone.
An id that came again after DEDUP_HORIZON was a new payment to its scorer, and is no row: ids are to be unique.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import pyarrow as pa

from fraud_pipeline.adapters import ledger_raw
from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_log import LogPage
from fraud_pipeline.adapters.stream.event_log import LogRecord
from fraud_pipeline.adapters.stream.intake import Item
from fraud_pipeline.domain.feature_state import microseconds
from fraud_pipeline.domain.transaction import LabelChange, Transaction

_EXTRA: Final = ("transaction_id", "currency", "attributes", "received_at")
_PAYMENT: Final = (
    "transaction_id", "event_time", "customer_id", "merchant_id", "amount_minor", "currency", "merchant_category",
    "channel", "country", "device_id", "latitude", "longitude",
)  # fmt: skip
_LABEL: Final = ("known_at", "event_time", "change", "merchant_id", "merchant_category", "country", "channel")


class LedgerRawRows:
    """`RawRows` over a ledger that a sink fills."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    def items(self, writer: str, first: int, until: int) -> Iterator[list[Item]]:
        """What the records at [first, until) say, page by page, without those that say nothing. StateError for a gap."""
        for page in ledger_raw.raw_pages(self._database, writer, first - 1, until - 1, extra=_EXTRA):
            items = items_of_page(page, writer)
            if items:
                yield items

    def clock_closings(self, writer: str, first: int, until: int) -> list[tuple[int, int]]:
        """Where in [first, until] the writer's clock closed minutes: (offset, minute), in their order."""
        closings = ledger_raw.closings(self._database, writer, first - 1)
        return [(each.offset, each.minute) for each in closings if each.by_clock and each.offset <= until]


def items_of_page(page: LogPage, writer: str) -> list[Item]:
    """A page's payments and label changes in the log's order."""
    partition = int(writer[:-1].rpartition("[")[2])
    payments, labels = payments_of(page.events), _labels_of(page.labels)
    places, received = page.events["sequence"].to_pylist(), page.events["received_at"].to_pylist()
    items = [
        Item.of_payment(_record(partition, place, microseconds(moment)), payment)
        for place, moment, payment in zip(places, received, payments, strict=True)
    ]
    if labels:
        of_labels = zip(page.labels["sequence"].to_pylist(), labels, strict=True)
        items += [Item(_record(partition, place, 0), label=label) for place, label in of_labels]
        items.sort(key=_offset)
    return items


def payments_of(events: pa.Table) -> list[Transaction]:
    """The rows of a page that was read with all columns of a payment."""
    columns: list[list[Any]] = [events[name].to_pylist() for name in _PAYMENT]
    columns[1] = [_utc(moment) for moment in columns[1]]
    stored = events["attributes"].to_pylist()
    attributes = [orjson.loads(text) if isinstance(text, str | bytes) else dict(text or {}) for text in stored]
    return [Transaction(*row) for row in zip(*columns, attributes, strict=True)]


def _labels_of(changes: pa.Table) -> list[LabelChange]:
    """Without the ids of payment and customer, which no state reads."""
    known, happened, change, merchant, category, country, channel = (changes[name].to_pylist() for name in _LABEL)
    return [
        LabelChange(
            transaction_id="", change=int(each), known_at=_utc(known[row]), event_time=_utc(happened[row]), customer_id="",
            merchant_id=merchant[row], merchant_category=category[row], channel=channel[row], country=country[row],
        )
        for row, each in enumerate(change)
    ]  # fmt: skip


def _record(partition: int, offset: int, received_us: int) -> LogRecord:
    return LogRecord(partition, offset, received_us, None, None, None)


def _offset(item: Item) -> int:
    return item.record.offset


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
