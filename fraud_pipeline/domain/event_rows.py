"""Transactions as the kernels' rows, many at once: what `FeatureState.write_event` writes of each, in half the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.feature_columns import utc_offset_s, utc_offsets
from fraud_pipeline.domain.feature_layout import CATEGORY, CHANNEL, COUNTRY, DEVICE, EVENT, MERCHANT, NOTHING
from fraud_pipeline.domain.feature_state import FeatureState, microseconds
from fraud_pipeline.domain.payment_columns import PaymentColumns
from fraud_pipeline.domain.transaction import Transaction

_COLUMN_KINDS: Final = (
    ("merchant", MERCHANT), ("category", CATEGORY), ("channel", CHANNEL), ("country", COUNTRY), ("device", DEVICE),
)  # fmt: skip
"""In the order of the columns' fields, after the customer."""
_FIELDS: Final = attrgetter(
    "event_time", "amount_minor", "latitude", "longitude", "customer_id", "merchant_id", "merchant_category", "country",
    "channel", "device_id",
)  # fmt: skip


def event_rows(state: FeatureState, transactions: Sequence[Transaction]) -> npt.NDArray[Any]:
    """EVENT rows [n], with slots of this state, made where an id is new."""
    rows = np.zeros(len(transactions), EVENT)
    if not transactions:
        return rows
    columns = zip(*map(_FIELDS, transactions), strict=True)
    times, amounts, latitudes, longitudes, customers, merchants, categories, countries, channels, devices = columns
    rows["time"] = [microseconds(moment) for moment in times]
    rows["amount"] = amounts
    rows["latitude"], rows["longitude"] = np.array(latitudes, np.float64), np.array(longitudes, np.float64)
    rows["customer"] = _slots(state.customers, customers, state.customer_slot)
    for name, kind, ids in (
        ("merchant", MERCHANT, merchants),
        ("category", CATEGORY, categories),
        ("country", COUNTRY, countries),
        ("channel", CHANNEL, channels),
        ("device", DEVICE, devices),
    ):
        rows[name] = _slots(state.entities[kind], ids, partial(state.entity_slot, kind))
    zone = state.zone
    if zone is not None:
        rows["utc_offset_s"] = [utc_offset_s(moment, zone) for moment in times]
    return rows


def column_rows(state: FeatureState, columns: PaymentColumns, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """`event_rows` of these rows of the columns: a name is looked up once, not for each payment."""
    found = np.zeros(len(rows), EVENT)
    found["time"], found["amount"] = columns.times[rows], columns.amounts[rows]
    found["latitude"], found["longitude"] = columns.places[rows, 0], columns.places[rows, 1]
    fields: tuple[tuple[str, dict[str, int], Callable[[str], int]], ...] = (
        ("customer", state.customers, state.customer_slot),
        *((name, state.entities[kind], partial(state.entity_slot, kind)) for name, kind in _COLUMN_KINDS),
    )
    for field, (name, known, make) in enumerate(fields):
        codes = columns.codes[rows, field]
        used = np.unique(codes[codes != NOTHING])  # a repeat's names make no slots
        slots = np.full(len(columns.names[field]) + 1, NOTHING, np.int32)  # the last answers for none, which is -1
        names = columns.names[field]
        slots[used] = _slots(known, [names[code] for code in used.tolist()], make)
        found[name] = slots[codes]
    if state.zone is not None:
        found["utc_offset_s"] = utc_offsets(found["time"], state.time_zone)
    return found


def _slots(known: dict[str, int], ids: Sequence[str | None], make: Callable[[str], int]) -> list[int]:
    found: list[Any] = list(map(known.get, ids))  # type: ignore[arg-type]  # None is in no such dict
    if None not in found:
        return found
    return [
        slot if slot is not None else NOTHING if identifier is None else make(identifier)
        for slot, identifier in zip(found, ids, strict=True)
    ]
