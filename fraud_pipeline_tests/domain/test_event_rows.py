"""Rows for the kernels, many at once: the very bytes of those that are written one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from fraud_pipeline.domain.event_rows import event_rows
from fraud_pipeline.domain.feature_layout import EVENT
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.transaction import Transaction

NOON = datetime(2026, 3, 28, 12, 30, 0, 123_457, tzinfo=UTC)
PAYMENTS = [
    Transaction(
        f"t{number}",
        NOON + timedelta(hours=number, microseconds=number),
        f"c{number % 7}",
        f"m{number % 5}",
        number * 37,
        channel=("online", "pos", "unknown")[number % 3],
        country=(None, "DE", "FR")[number % 3],
        device_id=None if number % 4 else f"d{number}",
        latitude=None if number % 2 else 52.5,
        longitude=None if number % 2 else -number / 3,
    )
    for number in range(60)
]


@pytest.mark.parametrize("time_zone", ["UTC", "Europe/Berlin"])
def test_rows_written_at_once_are_those_written_one_by_one(time_zone: str) -> None:
    state = FeatureState.empty(time_zone)
    at_once = event_rows(state, PAYMENTS)
    one_by_one = np.empty(len(PAYMENTS), EVENT)
    for place, payment in enumerate(PAYMENTS):
        state.write_event(payment, one_by_one, place)
    assert at_once.tobytes() == one_by_one.tobytes()
    assert event_rows(state, PAYMENTS).tobytes() == at_once.tobytes()


def test_an_id_that_is_new_gets_one_slot_however_often_it_comes() -> None:
    state = FeatureState.empty()
    rows = event_rows(state, PAYMENTS)
    assert len(state.customers) == 7
    assert [int(slot) for slot in rows["customer"][:8]] == [state.customers[f"c{number % 7}"] for number in range(8)]


def test_no_payments_are_no_rows() -> None:
    assert len(event_rows(FeatureState.empty(), [])) == 0
