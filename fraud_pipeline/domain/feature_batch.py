"""The batch executor: the kernels over a whole history, in log order, from an empty state or from a restored one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain import feature_state
from fraud_pipeline.domain.event_rows import event_rows
from fraud_pipeline.domain.feature_columns import EventColumns, LabelColumns
from fraud_pipeline.domain.feature_kernels import (
    apply_event,
    apply_label,
    fetch_lists,
    fetch_records,
    has_room,
    has_room_for_label,
    read_event,
)
from fraud_pipeline.domain.feature_layout import (
    CATEGORY,
    CHANNEL,
    COUNTRY,
    DEVICE,
    EVENT,
    LABEL,
    MERCHANT,
    FeatureArrays,
    grown,
)
from fraud_pipeline.domain.feature_lists import borrowed, entry_point, unowned
from fraud_pipeline.domain.feature_spec import FEATURES
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import StateError

FAR, NEAR = 16, 6
"""How many events ahead memory is asked for: records first, then the ends of the lists that they point to."""
WORDS_PER_EVENT = 16
"""What a history takes of the heap, generously: untouched pages cost nothing, growing copies everything."""
_CHUNK = 65_536
"""Rows between two reports of progress."""


_NO_LABELS, _NO_POSITIONS = np.zeros(0, LABEL), np.zeros(0, np.int64)


@dataclass(frozen=True)
class FeatureMatrix:
    """`values` float32 [n, len(FEATURES)] in the order of the transactions, and the state after the last of them."""

    values: npt.NDArray[np.float32]
    state: FeatureState


@entry_point
def _run(state, events, labels, positions, out, row, label, stop):
    """Read and apply from (row, label) on; returns where it stopped: at `stop`, or where there was no room."""
    state, events, labels, out = borrowed(state), unowned(events), unowned(labels), unowned(out)
    while True:
        while label < labels.shape[0] and positions[label] <= row:
            if not has_room_for_label(state, labels[label]):
                return row, label
            apply_label(state, labels[label])
            label += 1
        if row >= stop:
            return row, label
        if not has_room(state, events[row]):
            return row, label
        if row + FAR < events.shape[0]:
            fetch_records(state, events[row + FAR])
            fetch_lists(state, events[row + NEAR])
        read_event(state, events[row], out[row])
        apply_event(state, events[row])
        row += 1


def compute_features(
    transactions: EventColumns,
    labels: LabelColumns,
    *,
    state: FeatureState | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureMatrix:
    """Features of each transaction from what came before it, labels applied where they stand in the log.

    A given `state` is advanced in place; `progress(rows done, rows)` is called now and then.
    Raises StateError where the state and the transactions were made for different time zones.
    """
    state = state if state is not None else FeatureState.empty(transactions.time_zone)
    if state.time_zone != transactions.time_zone:
        raise StateError(
            f"The state's hours are those of {state.time_zone}, the transactions' those of {transactions.time_zone}.",
            remedy="Use one FRAUD_TIME_ZONE, or rebuild the state for the new one.",
        )
    labels = labels.in_log_order(transactions)
    events, label_rows = _event_rows(transactions, state), _label_rows(labels, state)
    assert labels.position is not None
    out = np.empty((len(events), len(FEATURES)), np.float32)
    state.arrays = _roomy(state, len(events))
    row = label = 0
    while True:
        stop = min(row + _CHUNK, len(events)) if progress else len(events)
        before = (row, label)
        row, label = _run(state.arrays, events, label_rows, labels.position, out, row, label, stop)
        if row == len(events) and label == _before(labels.position, row):
            break
        if (row, label) == before or row < stop:
            state.make_room()
        elif progress:
            progress(row, len(events))
    if progress:
        progress(row, len(events))
    return FeatureMatrix(out, state)


def read_update_many(state: FeatureState, transactions: Sequence[Transaction]) -> npt.NDArray[np.float32]:
    """`FeatureState.read_update` of each in this order, in one call of the kernels: [n, len(FEATURES)]."""
    events = event_rows(state, transactions)
    out = np.empty((len(transactions), len(FEATURES)), np.float32)
    row = 0
    while row < len(transactions):
        row, _ = _run(state.arrays, events, _NO_LABELS, _NO_POSITIONS, out, row, 0, len(transactions))
        if row < len(transactions):
            state.make_room()
    return out


def _before(positions: npt.NDArray[np.int64], row: int) -> int:
    return int(np.searchsorted(positions, row, side="right"))


def _roomy(state: FeatureState, events: int) -> FeatureArrays:
    """Room for a typical history at once; what is more grows as it goes."""
    return grown(state.arrays, words=int(state.arrays.allocator[0]) + WORDS_PER_EVENT * events + 4096)


def _event_rows(columns: EventColumns, state: FeatureState) -> npt.NDArray[Any]:
    rows = np.zeros(len(columns), EVENT)
    for name in ("time", "amount", "latitude", "longitude", "utc_offset_s"):
        rows[name] = getattr(columns, name)
    rows["customer"] = state.customer_slots(columns.customer)
    rows["merchant"] = state.entity_slots(MERCHANT, columns.merchant)
    rows["category"] = state.entity_slots(CATEGORY, columns.category)
    rows["country"] = state.entity_slots(COUNTRY, columns.country)
    rows["channel"] = state.entity_slots(CHANNEL, columns.channel)
    rows["device"] = state.entity_slots(DEVICE, columns.device)
    return rows


def _label_rows(columns: LabelColumns, state: FeatureState) -> npt.NDArray[Any]:
    rows = np.zeros(len(columns), LABEL)
    for name in ("known_at", "event_time", "change"):
        rows[name] = getattr(columns, name)
    rows["merchant"] = state.entity_slots(MERCHANT, columns.merchant)
    rows["category"] = state.entity_slots(CATEGORY, columns.category)
    rows["country"] = state.entity_slots(COUNTRY, columns.country)
    rows["channel"] = state.entity_slots(CHANNEL, columns.channel)
    return rows


def warm() -> None:
    """Compile (or load) all feature kernels with one made-up event."""
    feature_state.warm()
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    read_update_many(FeatureState.empty(), [Transaction("warm", moment, "warm", "warm", 100)])
