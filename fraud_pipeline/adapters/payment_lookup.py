"""One stored payment with the features that were computed for it, found by its id.

There is no index: a day's ids are one small column, and the question is asked by a person, one payment at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fraud_pipeline.adapters.dataset_store import ATTRIBUTE_PREFIX, DatasetStore
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import NotFound


@dataclass(frozen=True, slots=True, eq=False)
class StoredPayment:
    """A payment, the day it is stored under, and its computed features float32 [len(FEATURES)]."""

    day: date
    transaction: Transaction
    computed: NDArray[np.float32]


def find_payment(store: DatasetStore, transaction_id: str) -> StoredPayment:
    """Look through the stored days, the newest first. Raises NotFound where no day with features has the id."""
    for day in reversed(store.days("features")):
        place = _place(store.read_day("features", day, ["transaction_id"]), transaction_id)
        if place is None:
            continue
        computed = store.read_day("features", day, FEATURE_NAMES).slice(place, 1).to_pylist()[0]
        row = store.read_day("transactions", day).slice(place, 1).to_pylist()[0]
        values = np.array([computed[name] for name in FEATURE_NAMES], dtype=np.float32)
        return StoredPayment(day, transaction_of(row), values)
    raise NotFound(
        f"There is no payment {transaction_id} among {len(store.days('features'))} days of features.",
        remedy="Check the id; `fraud status` shows which days there are.",
    )


def _place(ids: pa.Table, transaction_id: str) -> int | None:
    place = pc.index(ids["transaction_id"], value=transaction_id).as_py()
    return None if place < 0 else place


def transaction_of(row: dict[str, Any]) -> Transaction:
    """A stored row as a Transaction."""
    attributes = {
        name.removeprefix(ATTRIBUTE_PREFIX): value
        for name, value in row.items()
        if name.startswith(ATTRIBUTE_PREFIX) and value is not None and not math.isnan(value)
    }
    names = Transaction.__dataclass_fields__
    return Transaction(**{n: row[n] for n in names if n in row and n != "attributes"}, attributes=attributes)
