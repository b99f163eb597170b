"""Payments with their vectors, joined to every stored version of their labels: rows to learn from, or to judge a model by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.domain.learning_data import NEVER_KNOWN, LabelVersions, LearningData
from fraud_pipeline.domain.model_input import CODED_FIELDS

MINOR_UNITS = 100.0
Codes = tuple[npt.NDArray[np.int32], tuple[str, ...]]
"""A code for each row, -1 for null, and what the codes stand for."""


def labelled_rows(
    store: DatasetStore, payments: pa.Table, features: npt.NDArray[np.float32], names: Sequence[str], *, as_of: date,
    blocked: npt.NDArray[np.bool_], control: npt.NDArray[np.bool_], codes: Mapping[str, Codes] | None = None,
) -> LearningData:  # fmt: skip
    """Rows of `payments` with `features` [n, len(names)] and all label versions recorded before `as_of`; none counts as known yet.

    `codes` are those of CODED_FIELDS, where somebody has them already.
    """
    codes = codes or {name: codes_of(payments[name]) for name in CODED_FIELDS}
    rows = payments.num_rows
    return LearningData(
        transaction_id=payments["transaction_id"].to_numpy(),
        event_time=payments["event_time"].cast(pa.int64()).to_numpy(),
        customer=codes_of(payments["customer_id"])[0],
        amount=payments["amount_minor"].to_numpy() / MINOR_UNITS,
        channel=codes["channel"][0],
        country=codes["country"][0],
        category=codes["merchant_category"][0],
        channel_names=codes["channel"][1],
        country_names=codes["country"][1],
        category_names=codes["merchant_category"][1],
        features=features,
        feature_names=tuple(names),
        is_fraud=np.zeros(rows, dtype=bool),
        label_known_at=np.full(rows, NEVER_KNOWN),
        labelled=np.zeros(rows, dtype=bool),
        blocked=blocked,
        control=control,
        weight=np.ones(rows, dtype=np.float32),
        label_versions=_label_versions(store, payments["transaction_id"], as_of),
    )


def codes_of(column: pa.ChunkedArray) -> Codes:
    """Codes in the sorted order of the values that occur."""
    encoded = column.combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], pa.string())
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    occurring = np.unique(codes[codes >= 0])
    order = sorted(occurring, key=lambda code: values[code])
    place = np.full(len(values) + 1, -1, dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return place[codes], tuple(values[code] for code in order)


def _label_versions(store: DatasetStore, ids: pa.ChunkedArray, as_of: date) -> LabelVersions:
    """Every version of a label of these payments that was recorded before `as_of`, in recorded order, a day in memory at a time."""
    value_set = pa.array(ids.to_pylist(), pa.string())
    parts: list[tuple[Any, Any, Any]] = []
    for day in store.days("labels"):
        if day >= as_of:
            break
        table = store.read_day("labels", day, ("transaction_id", "is_fraud", "known_at"))
        row = pc.index_in(table["transaction_id"].cast(pa.string()), value_set=value_set)
        known = table.filter(row.is_valid())
        moments = known["known_at"].cast(pa.int64()).to_numpy()
        parts.append((pc.drop_null(row).to_numpy().astype(np.int64), known["is_fraud"].to_numpy(), moments))
    if not parts:
        empty = np.empty(0, np.int64)
        return LabelVersions(empty, np.empty(0, bool), empty)
    return LabelVersions(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
