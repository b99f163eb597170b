"""Training-serving skew: what was logged when payments were decided, against the batch features of the same payments.

A sample of each live day's decisions, compared bit for bit with what the deciding bundle would read from the stored
features, which are what the next model learns from. What a decision says that it lacked (`degraded`: shared state that
lagged) may differ in the inputs that it touches: those values are counted apart. A mutation harms the batch side and must
be found. Knows nothing of Dagster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.decision_check import SHARED_INPUTS, may_differ
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord
from fraud_pipeline.adapters.sampled_days import choose, stored_vectors
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.errors import BundleError, NotFound, SchemaMismatch

BundleOf = Callable[[str], ModelBundle]
"""A bundle by the version that decisions carry; NotFound, BundleError or SchemaMismatch where it cannot be had."""
A_DAY: Final = 2_000
"""Payments of each day: a fault that strikes one payment in 500 is found with 98 %, in less than a second a day."""
EXAMPLES: Final = 5
MOST_DAYS: Final = 30
"""Looked back on at most, as the daily automation does."""


@dataclass
class Skew:
    """Values compared and differing; the `lagging` ones apart, which decisions say they lacked (`lagging_rows`)."""

    days: list[str] = field(default_factory=list)
    rows: int = 0
    compared_values: int = 0
    differing_values: int = 0
    differing_rows: int = 0
    lagging_rows: int = 0
    lagging_differing_values: int = 0
    undecided: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    by_feature: Counter[str] = field(default_factory=Counter)
    by_day: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def through(self) -> str | None:
        """The newest day that was compared."""
        return self.days[-1] if self.days else None

    def to_json(self) -> dict[str, Any]:
        """`unreadable` are decisions by the version whose bundle cannot be had."""
        told = {name: getattr(self, name) for name in self.__dataclass_fields__}
        counters = {name: dict(getattr(self, name).most_common()) for name in ("unreadable", "by_feature", "by_day")}
        return {**told, **counters, "through": self.through}


def live_days(store: DatasetStore, *, world_end: date, after: date | None) -> list[date]:
    """The newest days with features that were served live: those after `after`, and always the newest of them."""
    live = [day for day in store.days("features") if day >= world_end][-MOST_DAYS:]
    return [day for day in live if after is None or day > after] or live[-1:]


def compare_days(
    store: DatasetStore,
    days: Sequence[date],
    bundle_of: BundleOf,
    *,
    ledger: Ledger,
    a_day: int = A_DAY,
    harm: Callable[[npt.NDArray[np.float32]], None] | None = None,
) -> Skew:
    """Compare a sample of each day; `harm` changes the batch side in place, and has to be found."""
    skew = Skew()
    for day in days:
        skew.days.append(day.isoformat())
        for place in choose(store, [day], at_most=a_day).values():
            ids = store.read_day("transactions", day, ["transaction_id"])["transaction_id"].take(place).to_pylist()
            decided = {record.transaction_id: record for record in ledger.decided(ids)}
            skew.undecided += len(ids) - len(decided)
            by_version: dict[str, list[tuple[int, DecisionRecord]]] = {}
            for row, each in zip(place.tolist(), ids, strict=True):
                if each in decided:
                    by_version.setdefault(decided[each].model_version, []).append((row, decided[each]))
            for version, rows in by_version.items():
                _compare(skew, store, day, version, rows, bundle_of, harm)
    return skew


def _compare(
    skew: Skew,
    store: DatasetStore,
    day: date,
    version: str,
    rows: Sequence[tuple[int, DecisionRecord]],
    bundle_of: BundleOf,
    harm: Callable[[npt.NDArray[np.float32]], None] | None,
) -> None:
    """Compare the payments of a day that one version decided."""
    try:
        bundle = bundle_of(version)
    except (NotFound, BundleError, SchemaMismatch):
        skew.unreadable[version] += len(rows)
        return
    _, batch = stored_vectors(store, bundle, day, np.array([row for row, _ in rows]))
    if harm is not None:
        harm(batch)
    served = _logged(rows, bundle)
    differing = batch.view(np.uint32) != served.view(np.uint32)
    said = [orjson.loads(record.payload)["degraded"] for _, record in rows]
    allowed = np.array([[may_differ(each, is_shared=shared) for shared in (False, True)] for each in said])
    allowed = allowed[:, np.array([name in SHARED_INPUTS for name in bundle.input_names], np.intp)]
    strict = differing & ~allowed
    skew.rows += len(rows)
    skew.lagging_rows += sum(map(bool, said))
    skew.lagging_differing_values += int((differing & allowed).sum())
    skew.compared_values += int((~allowed).sum())
    skew.differing_values += int(strict.sum())
    skew.differing_rows += int(strict.any(axis=1).sum())
    if strict.any():
        skew.by_day[day.isoformat()] += int(strict.sum())
    for name, count in zip(bundle.input_names, strict.sum(axis=0).tolist(), strict=True):
        if count:
            skew.by_feature[name] += count
    for row, column in np.argwhere(strict)[: EXAMPLES - len(skew.examples)].tolist():
        skew.examples.append(
            {
                "transaction_id": rows[row][1].transaction_id,
                "day": day.isoformat(),
                "model_version": version,
                "feature": bundle.input_names[column],
                "batch": _number(batch[row, column]),
                "served": _number(served[row, column]),
            }
        )


def _logged(rows: Sequence[tuple[int, DecisionRecord]], bundle: ModelBundle) -> npt.NDArray[np.float32]:
    """The logged vectors; one of another length than the bundle's differs in every value."""
    out = np.full((len(rows), len(bundle.input_names)), np.inf, np.float32)
    for place, (_, record) in enumerate(rows):
        vector = np.frombuffer(record.features, dtype="<f4")
        if len(vector) == out.shape[1]:
            out[place] = vector
    return out


def _number(value: np.floating[Any]) -> float | None:
    return float(value) if np.isfinite(value) else None
