"""Histories as columns: what the batch executor reads. Ids are codes into a vocabulary of the distinct ones.

Tables are taken by their methods alone (an Arrow table's), so nothing here loads Arrow, or pandas.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.feature_layout import NOTHING
from fraud_pipeline.errors import DatasetError

Codes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_QUARTER_HOUR_S: Final = 900


@dataclass(frozen=True)
class Ids:
    """One id column: `codes` [n] point into `vocabulary`; -1 where missing."""

    codes: Codes
    vocabulary: tuple[str, ...]

    def take(self, rows: Any) -> Ids:
        """The same vocabulary, for a selection of rows."""
        return Ids(self.codes[rows], self.vocabulary)


@dataclass(frozen=True)
class EventColumns:
    """Transactions in log order. Times are µs since 1970 UTC, amounts hundredths, degrees NaN where missing; all [n]."""

    time: Ints
    amount: Ints
    latitude: Floats
    longitude: Floats
    utc_offset_s: Codes
    customer: Ids
    merchant: Ids
    category: Ids
    country: Ids
    channel: Ids
    device: Ids
    time_zone: str = "UTC"

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: Any) -> EventColumns:
        """A selection of rows (a slice, a mask or positions), in that order."""
        return EventColumns(
            **{name: getattr(self, name)[rows] for name in ("time", "amount", "latitude", "longitude", "utc_offset_s")},
            **{name: getattr(self, name).take(rows) for name in ("customer", "merchant", "category", "country", "channel", "device")},
            time_zone=self.time_zone,
        )  # fmt: skip

    @classmethod
    def from_table(cls, table: Any, time_zone: str = "UTC") -> EventColumns:
        """From an Arrow table with the columns of the Transaction contract."""
        time = _times(table, "event_time")
        return cls(
            time=time,
            amount=_numbers(table, "amount_minor").astype(np.int64, copy=False),
            latitude=_numbers(table, "latitude"),
            longitude=_numbers(table, "longitude"),
            utc_offset_s=utc_offsets(time, time_zone),
            customer=_ids(table, "customer_id"),
            merchant=_ids(table, "merchant_id"),
            category=_ids(table, "merchant_category"),
            country=_ids(table, "country"),
            channel=_ids(table, "channel"),
            device=_ids(table, "device_id"),
            time_zone=time_zone,
        )


@dataclass(frozen=True)
class LabelColumns:
    """Label changes with their transactions' own fields; all [n].

    `position` says before which transaction (by its row) each is applied; without it, before the first one that is not
    older than `known_at`.
    """

    known_at: Ints
    event_time: Ints
    change: npt.NDArray[np.int8]
    merchant: Ids
    category: Ids
    country: Ids
    channel: Ids
    position: Ints | None = None

    def __len__(self) -> int:
        return len(self.known_at)

    def take(self, rows: Any) -> LabelColumns:
        """A selection of rows (a slice, a mask or positions), in that order."""
        return LabelColumns(
            known_at=self.known_at[rows],
            event_time=self.event_time[rows],
            change=self.change[rows],
            merchant=self.merchant.take(rows),
            category=self.category.take(rows),
            country=self.country.take(rows),
            channel=self.channel.take(rows),
            position=None if self.position is None else self.position[rows],
        )

    def in_log_order(self, transactions: EventColumns) -> LabelColumns:
        """Sorted by where they stand among these transactions, with `position` filled in."""
        position = self.position
        order = np.argsort(self.known_at, kind="stable") if position is None else np.argsort(position, kind="stable")
        ordered = self.take(order)
        if ordered.position is None:
            newest = np.maximum.accumulate(transactions.time) if len(transactions) else transactions.time
            ordered = replace(ordered, position=np.searchsorted(newest, ordered.known_at, side="left").astype(np.int64))
        return ordered

    @classmethod
    def empty(cls) -> LabelColumns:
        """No label at all."""
        none, nobody = np.empty(0, np.int64), Ids(np.empty(0, np.int32), ())
        return cls(none, none, np.empty(0, np.int8), nobody, nobody, nobody, nobody)

    @classmethod
    def from_table(cls, table: Any) -> LabelColumns:
        """From an Arrow table with the columns of the Label contract."""
        return cls(
            known_at=_times(table, "known_at"),
            event_time=_times(table, "event_time"),
            change=_numbers(table, "change").astype(np.int8, copy=False),
            merchant=_ids(table, "merchant_id"),
            category=_ids(table, "merchant_category"),
            country=_ids(table, "country"),
            channel=_ids(table, "channel"),
        )


def utc_offsets(time: Ints, time_zone: str) -> Codes:
    """Seconds east of UTC at each moment (zones change at quarter hours at the finest)."""
    if time_zone == "UTC" or len(time) == 0:
        return np.zeros(len(time), np.int32)
    zone = ZoneInfo(time_zone)
    quarters, where = np.unique(time // (_QUARTER_HOUR_S * 1_000_000), return_inverse=True)
    offsets = [utc_offset_s(datetime.fromtimestamp(int(q) * _QUARTER_HOUR_S, timezone.utc), zone) for q in quarters]  # noqa: UP017
    return np.asarray(offsets, np.int32)[where]


def utc_offset_s(moment: datetime, zone: ZoneInfo) -> int:
    """Seconds east of UTC at one moment."""
    offset = moment.astimezone(zone).utcoffset()
    return 0 if offset is None else offset.days * 86_400 + offset.seconds


def _column(table: Any, name: str) -> Any:
    if name not in table.column_names:
        raise DatasetError(f"Column {name} is missing; there are {', '.join(table.column_names)}.")
    return table.column(name)


def _times(table: Any, name: str) -> Ints:
    column = _column(table, name)
    if not str(column.type).startswith("timestamp[us"):
        raise DatasetError(f"Column {name} is {column.type}; it must be timestamp[us, UTC].")
    return np.asarray(column.cast("int64").to_numpy(), np.int64)


def _numbers(table: Any, name: str) -> npt.NDArray[Any]:
    return np.asarray(_column(table, name).to_numpy())


def _ids(table: Any, name: str) -> Ids:
    column = _column(table, name)
    if column.num_chunks == 0:
        return Ids(np.empty(0, np.int32), ())
    encoded = column.unify_dictionaries().combine_chunks() if str(column.type).startswith("dictionary") else None
    encoded = encoded if encoded is not None else column.combine_chunks().dictionary_encode()
    if hasattr(encoded, "num_chunks"):  # older Arrow gives a chunked array of one chunk
        encoded = encoded.chunk(0)
    codes = np.asarray(encoded.indices.fill_null(NOTHING).to_numpy(zero_copy_only=False)).astype(np.int32, copy=False)
    return Ids(codes, tuple(encoded.dictionary.to_pylist()))
