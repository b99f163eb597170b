"""The kernels of the payment and its customer's own history alone: what pandas and Polars can be compared with fairly.

The production loop always computes all features; this one leaves the shared entities out.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.feature_batch import _event_rows, _roomy
from fraud_pipeline.domain.feature_columns import EventColumns
from fraud_pipeline.domain.feature_kernels import has_room
from fraud_pipeline.domain.feature_lists import borrowed, entry_point, unowned
from fraud_pipeline.domain.feature_own_history import apply_to_customer, own_time, read_customer
from fraud_pipeline.domain.feature_spec import FEATURES, INDEX
from fraud_pipeline.domain.feature_state import FeatureState

AMOUNT, HOUR = INDEX["amount"], INDEX["hour"]


@entry_point
def _run(state, events, out, row):  # type: ignore[no-untyped-def]  # compiled
    state, events, out = borrowed(state), unowned(events), unowned(out)
    while row < events.shape[0] and has_room(state, events[row]):
        event = events[row]
        t = own_time(state, event)
        amount = event.amount / 100.0
        out[row, AMOUNT], out[row, AMOUNT + 1], out[row, AMOUNT + 2] = (
            amount,
            math.log1p(amount),
            event.amount % 100 == 0,
        )
        read_customer(state, event, t, out[row])
        seconds = event.time // 1_000_000 + event.utc_offset_s
        hour, weekday = seconds // 3600 % 24, (seconds // 86400 + 3) % 7
        out[row, HOUR], out[row, HOUR + 1], out[row, HOUR + 2] = hour, weekday, weekday >= 5
        out[row, HOUR + 3], out[row, HOUR + 4] = hour < 6, weekday < 5 and 9 <= hour < 17
        apply_to_customer(state, event, t)
        row += 1
    return row


def own_history_features(columns: EventColumns) -> npt.NDArray[np.float32]:
    """float32 [n, len(FEATURES)]; columns of the shared entities stay NaN."""
    state = FeatureState.empty(columns.time_zone)
    events = _event_rows(columns, state)
    out = np.full((len(events), len(FEATURES)), np.nan, np.float32)
    state.arrays = _roomy(state, len(events))
    row = _run(state.arrays, events, out, 0)
    while row < len(events):
        state.make_room()
        row = _run(state.arrays, events, out, row)
    return out
