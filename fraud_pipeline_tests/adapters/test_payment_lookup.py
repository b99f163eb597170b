"""Finding one stored payment by its id."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.payment_lookup import find_payment
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import NotFound


def payment(name: str, day: int, **more: object) -> dict[str, object]:
    required = {"transaction_id": name, "event_time": datetime(2026, 1, day, 12, tzinfo=UTC), "amount_minor": 1234}
    return {
        **required,
        "customer_id": "c",
        "merchant_id": "m",
        "currency": "USD",
        "merchant_category": "fuel",
        "channel": "pos",
        **more,
    }


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    store = DatasetStore(tmp_path)
    for day in (1, 2):
        rows = [
            payment(f"t{day}{n}", day, country="DE", **{"attributes.ip_risk": 0.5 * n if n else None}) for n in range(3)
        ]
        store.write_day("transactions", date(2026, 1, day), pa.Table.from_pylist(rows))
        values = {name: np.arange(3, dtype=np.float32) + column for column, name in enumerate(FEATURE_NAMES)}
        ids = {"transaction_id": [str(row["transaction_id"]) for row in rows]}
        store.write_day("features", date(2026, 1, day), pa.table({**ids, **values}))
    return store


def test_a_payment_is_found_with_its_features(store: DatasetStore) -> None:
    found = find_payment(store, "t12")
    assert found.day == date(2026, 1, 1)
    assert found.transaction == Transaction(
        "t12",
        datetime(2026, 1, 1, 12, tzinfo=UTC),
        "c",
        "m",
        1234,
        merchant_category="fuel",
        channel="pos",
        country="DE",
        attributes={"ip_risk": 1.0},
    )
    assert found.computed.dtype == np.float32
    assert found.computed.tolist() == [2.0 + column for column in range(len(FEATURE_NAMES))]


def test_an_absent_attribute_is_no_attribute(store: DatasetStore) -> None:
    assert find_payment(store, "t20").transaction.attributes == {}


def test_an_unknown_id_is_named(store: DatasetStore) -> None:
    with pytest.raises(NotFound, match="no payment t99 among 2 days"):
        find_payment(store, "t99")
