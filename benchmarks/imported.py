"""A public data file as this project would use it: through its import mapping, with our features and delayed labels."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fraud_pipeline.adapters.import_mapping import load_mapping
from fraud_pipeline.adapters.importer import import_file
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_columns import EventColumns, LabelColumns
from fraud_pipeline.domain.model_input import InputAssembler, ModelInput
from fraud_pipeline.domain.transaction import ATTRIBUTE_PREFIX

US_PER_DAY = 86_400_000_000
MAX_REJECT_SHARE = 0.01


@dataclass(frozen=True)
class ImportedWorld:
    """Payments in event order: `features` float32 [n, F] named by `feature_names`, and what a protocol needs of them."""

    features: npt.NDArray[np.float32]
    feature_names: tuple[str, ...]
    event_time: npt.NDArray[np.int64]
    customer: npt.NDArray[np.int32]
    is_fraud: npt.NDArray[np.bool_]

    @property
    def day(self) -> npt.NDArray[np.int64]:
        """UTC days since the epoch."""
        return self.event_time // US_PER_DAY


def read_world(path: Path, mapping: str, *, codes: tuple[str, ...] = ()) -> ImportedWorld:
    """Import `path` into a temporary home and compute all features; `codes` are fields that join as codes of their values.

    A payment is a fraud where the file says so, also where its label came after the file's end.
    """
    with tempfile.TemporaryDirectory() as home:
        import_file(path, load_mapping(mapping), home=Path(home), max_reject_share=MAX_REJECT_SHARE)
        source = SourceStore(Path(home))
        manifest = source.manifest()
        payments = _all_days(source, "transactions")
        labels = _all_days(source, "labels")
    payments = payments.sort_by([("event_time", "ascending"), ("transaction_id", "ascending")])
    computed = compute_features(EventColumns.from_table(payments), LabelColumns.from_table(labels)).values
    fields = {name: payments[name].to_pylist() for name in codes}
    inputs = ModelInput.of(
        attributes=manifest.attributes,
        codes={name: sorted({value for value in values if value is not None}) for name, values in fields.items()},
    )
    attributes = {name: payments[ATTRIBUTE_PREFIX + name].to_numpy(zero_copy_only=False) for name in inputs.attributes}
    features = InputAssembler(inputs).matrix(computed, attributes=attributes, fields=fields)
    frauds = labels.filter(labels["is_fraud"])["transaction_id"]
    return ImportedWorld(
        features=features,
        feature_names=inputs.names,
        event_time=payments["event_time"].cast(pa.int64()).to_numpy(),
        customer=np.unique(payments["customer_id"].to_numpy(zero_copy_only=False), return_inverse=True)[1].astype(
            np.int32
        ),
        is_fraud=pc.is_in(payments["transaction_id"], value_set=frauds.combine_chunks()).to_numpy(),
    )


def _all_days(source: SourceStore, dataset: Any) -> pa.Table:
    return pa.concat_tables([source.read_day(dataset, day) for day in source.days(dataset)]).combine_chunks()
