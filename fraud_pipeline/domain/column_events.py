"""Columns of a history back to single events, as the live state takes them. The way there is `feature_columns`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from fraud_pipeline.domain.feature_columns import EventColumns, LabelColumns
from fraud_pipeline.domain.transaction import LabelChange, Transaction

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CHUNK: Final = 8_192
"""Rows that are turned into Python numbers at a time."""


def transactions_of(events: EventColumns) -> Iterator[Transaction]:
    """The events as the service sees them; ids of transactions are their row numbers (no feature reads them)."""
    ids = (events.customer, events.merchant, events.category, events.channel, events.country, events.device)
    # A code of -1 (missing) reads the None behind the end.
    names = [(*column.vocabulary, None) for column in ids]
    for first in range(0, len(events), _CHUNK):
        rows = slice(first, first + _CHUNK)
        columns = [column.codes[rows].tolist() for column in ids]
        numbers = [getattr(events, name)[rows].tolist() for name in ("time", "amount", "latitude", "longitude")]
        for i, (time, amount, latitude, longitude) in enumerate(zip(*numbers, strict=True)):
            customer, merchant, category, channel, country, device = (
                vocabulary[codes[i]] for vocabulary, codes in zip(names, columns, strict=True)
            )
            yield Transaction(
                transaction_id=str(first + i),
                event_time=moment(time),
                customer_id=customer,
                merchant_id=merchant,
                amount_minor=amount,
                merchant_category=category,
                channel=channel,
                country=country,
                device_id=device,
                latitude=None if math.isnan(latitude) else latitude,
                longitude=None if math.isnan(longitude) else longitude,
            )


def label_changes_of(labels: LabelColumns) -> Iterator[LabelChange]:
    """The label changes one by one; neither the transaction nor the customer of a label is read by any feature."""
    country_names = (*labels.country.vocabulary, None)
    for i in range(len(labels)):
        yield LabelChange(
            transaction_id="",
            change=int(labels.change[i]),
            known_at=moment(int(labels.known_at[i])),
            event_time=moment(int(labels.event_time[i])),
            customer_id="",
            merchant_id=labels.merchant.vocabulary[labels.merchant.codes[i]],
            merchant_category=labels.category.vocabulary[labels.category.codes[i]],
            channel=labels.channel.vocabulary[labels.channel.codes[i]],
            country=country_names[labels.country.codes[i]],
        )


def moment(microseconds: int) -> datetime:
    """The UTC time that is so many microseconds after 1970, exactly."""
    return _EPOCH + timedelta(microseconds=microseconds)
