"""A training set as one Parquet file, for training elsewhere."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fraud_pipeline.adapters.parquet_files import write_parquet
from fraud_pipeline.adapters.training_set_builder import TrainingSetBuilder
from fraud_pipeline.domain.learning_data import NEVER_KNOWN


def write_training_set(builder: TrainingSetBuilder, *, as_of: date, path: Path) -> dict[str, Any]:
    """One row a payment before `as_of`: id, time, features (as at its moment), `is_fraud` and `label_known_at` as known then."""
    days = builder.usable_days(as_of)
    data = builder.rows(days, as_of=as_of).data
    known = data.label_known_at != NEVER_KNOWN
    microseconds = pa.timestamp("us", tz="UTC")
    columns: dict[str, Any] = {
        "transaction_id": pa.array(data.transaction_id, pa.string()),
        "event_time": pa.array(data.event_time).cast(microseconds),
        "amount": data.amount,
        "is_fraud": data.is_fraud,
        "labelled": data.labelled,
        "label_known_at": pa.array(np.where(known, data.label_known_at, 0), mask=~known).cast(microseconds),
        "blocked": data.blocked,
        "control": data.control,
    }
    taken = {name: name if name not in columns else f"feature.{name}" for name in data.feature_names}
    features = np.asfortranarray(data.features)
    columns |= {taken[name]: features[:, place] for place, name in enumerate(data.feature_names)}
    path = path.expanduser().absolute()
    write_parquet(path, pa.table(columns))
    return {
        "file": path,
        "rows": len(data),
        "frauds": int(data.is_fraud.sum()),
        "features": len(data.feature_names),
        "first_day": days[0],
        "last_day": days[-1],
        "as_of": as_of,
    }
