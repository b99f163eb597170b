"""Stored days joined to the rows that a model learns from: payments, their features, and every version of their labels.

Point in time: a row's features are those of its moment, its labels those that were known by the day asked for. Knows
nothing of splits, models or Dagster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.labelled_rows import Codes, codes_of, labelled_rows
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.domain.learning_data import LearningData
from fraud_pipeline.domain.model_input import CODED_FIELDS, ModelInput
from fraud_pipeline.domain.splits import midnight_us
from fraud_pipeline.domain.transaction import ATTRIBUTE_PREFIX
from fraud_pipeline.errors import DatasetError, TrainingDataError

_COLUMNS = ("transaction_id", "event_time", "customer_id", "amount_minor", "writer", *CODED_FIELDS)


@dataclass(frozen=True)
class TrainingRows:
    """`data` with the labels as known at the end of the last day asked for, and what the columns of its features are."""

    data: LearningData
    model_input: ModelInput


class TrainingRowReader:
    """Reads rows from a home's days. `open_ledger` is called only where live payments are among them."""

    def __init__(self, store: DatasetStore, source: SourceStore, open_ledger: Callable[[], Ledger]) -> None:
        self.store = store
        self.source = source
        self._open_ledger = open_ledger

    def read(self, days: Sequence[date], *, as_of: date, model_input: ModelInput | None = None) -> TrainingRows:
        """The payments of `days` with the labels known by the midnight that begins `as_of`.

        `model_input` are the columns that a bundle reads; without one they are all features, all attributes of the world,
        and codes for what occurs on these days.
        """
        if not days:
            raise TrainingDataError("There is no day with features.", remedy="Materialize some first: `fraud run`.")
        attributes = self.source.manifest().attributes if model_input is None else model_input.attributes
        payments = self._payments(days, [ATTRIBUTE_PREFIX + name for name in attributes])
        codes = {name: codes_of(payments[name]) for name in CODED_FIELDS}
        if model_input is None:
            model_input = ModelInput.of(
                attributes=attributes, codes={name: names for name, (_, names) in codes.items()}
            )
        matrix = self._matrix(days, payments, codes, model_input)
        blocked, control = self._decided(payments, days)
        data = labelled_rows(
            self.store, payments, matrix, model_input.names, as_of=as_of, blocked=blocked, control=control, codes=codes
        )
        data = replace(data, **self._kinds(days, payments["transaction_id"]))
        return TrainingRows(data.as_known_at(midnight_us(as_of) - 1), model_input)

    def _payments(self, days: Sequence[date], attributes: Sequence[str]) -> pa.Table:
        columns = (*_COLUMNS, *attributes)
        tables = [self.store.read_day("transactions", day, columns, dictionary=True) for day in days]
        table = pa.concat_tables(tables).unify_dictionaries()
        ids = table["transaction_id"].cast(pa.string())
        return table.set_column(0, "transaction_id", ids).combine_chunks()

    def _matrix(
        self,
        days: Sequence[date],
        payments: pa.Table,
        codes: Mapping[str, Codes],
        model_input: ModelInput,
    ) -> npt.NDArray[np.float32]:
        """float32 [n, F'] in the order of `model_input.names`: computed features, attributes, codes."""
        out = np.full((payments.num_rows, len(model_input.names)), np.nan, dtype=np.float32)
        computed = [name for name, _ in model_input.computed]
        start = 0
        for day in days:
            table = self.store.read_day("features", day, computed)
            end = start + table.num_rows
            if end > len(out) or table.num_rows != self.store.manifest("transactions", day).rows:
                raise DatasetError(
                    f"The features of {day} are not those of its payments.",
                    remedy="Materialize them again: `fraud run`.",
                )
            for column in range(len(computed)):
                out[start:end, column] = table.column(column).to_numpy()
            start = end
        column = len(computed)
        for name in model_input.attributes:
            out[:, column] = payments[ATTRIBUTE_PREFIX + name].to_numpy()
            column += 1
        for name, names in model_input.codes.items():
            own, own_names = codes[name]
            place = {value: float(code) for code, value in enumerate(names)}
            out[:, column] = np.array([*(place.get(value, np.nan) for value in own_names), np.nan], np.float32)[own]
            column += 1
        return out

    def _decided(self, payments: pa.Table, days: Sequence[date]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """(blocked, let through for the control share) of each payment; a history has no decisions."""
        blocked, control = (np.zeros(payments.num_rows, dtype=bool) for _ in range(2))
        if payments["writer"].null_count == payments.num_rows:
            return blocked, control
        place = {identifier: row for row, identifier in enumerate(payments["transaction_id"].to_pylist())}
        since = datetime.combine(days[0], time.min, UTC)
        with self._open_ledger() as ledger:
            for record in ledger.decisions(since, datetime.combine(days[-1], time.min, UTC) + timedelta(days=1)):
                row = place.get(record.transaction_id)
                if row is not None:
                    blocked[row] = record.decision == "BLOCK"
                    control[row] = bool(orjson.loads(record.payload).get("control"))
        return blocked, control

    def _kinds(self, days: Sequence[date], ids: pa.ChunkedArray) -> dict[str, Any]:
        """The campaign's kind of each simulated fraud, for analysis; nothing for worlds that do not know it."""
        if not self.source.has_dataset("truth"):
            return {}
        inside = [day for day in days if day < self.source.manifest().end]
        tables = [self.source.read_day("truth", day, ["transaction_id", "kind"]) for day in inside]
        if not tables:
            return {}
        truth = pa.concat_tables(tables).combine_chunks()
        code, names = codes_of(truth["kind"])
        row = pc.index_in(truth["transaction_id"], value_set=ids.combine_chunks()).to_numpy(zero_copy_only=False)
        kind = np.zeros(len(ids), dtype=np.int32)
        there = ~np.isnan(row) if row.dtype.kind == "f" else np.ones(len(row), bool)
        kind[row[there].astype(np.int64)] = code[there] + 1
        return {"kind": kind, "kind_names": names}
