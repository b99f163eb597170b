"""A sample of some days' payments as the champion met them: the vectors and scores that were logged where they were served.

Days of the landed history have no decisions: their stored features are read and scored. A live payment brings its logged
vector and the score that was answered, where the champion decided it; where another version with the same inputs did, the
champion scores the logged vector; where neither is to be had, the stored features stand in, and the sample says how often.

The sample is drawn by a hash of the payment's id, so it does not depend on the days' order, sizes or contents; its size bounds
the memory. Knows nothing of Dagster and of limits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES, INDEX
from fraud_pipeline.domain.model_input import CODED_FIELDS
from fraud_pipeline.domain.transaction import ATTRIBUTE_PREFIX
from fraud_pipeline.errors import DatasetError

Rows = npt.NDArray[np.int64]

_SALT: Final = b"monitoring"
"""The control share and the challenger's share are drawn by hashes of ids too: by the same one, a sample would miss them."""
IDS_AT_ONCE: Final = 5_000
"""Decisions held at a time: about 10 MB."""
_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Where a sample comes from. `rows` are in the days, `sampled` in the sample, `live` of those came through the service.

    `answered`: logged vector and answered score of the champion; `rescored`: logged vector of another version, scored by the
    champion; `degraded` of both lacked something when they were decided; `undecided` have no decision in the ledger.
    """

    rows: int
    sampled: int
    live: int = 0
    answered: int = 0
    rescored: int = 0
    degraded: int = 0
    undecided: int = 0

    @property
    def recomputed(self) -> int:
        """Those whose stored features stand in for what was served, or that were never served."""
        return self.sampled - self.answered - self.rescored

    def to_json(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in (*self.__slots__, "recomputed")}


@dataclass(frozen=True, slots=True, eq=False)
class SampledDays:
    """n payments in the order of their days. `vectors` float32 [n, F'] as the champion reads them, `raw` its scores.

    `day` counts days since 1970; `payments` has the columns that were stored, one row for each.
    """

    payments: pa.Table
    vectors: npt.NDArray[np.float32]
    raw: npt.NDArray[np.float64]
    day: Rows
    blocked: npt.NDArray[np.bool_]
    control: npt.NDArray[np.bool_]
    counts: SampleCounts


def read_sample(
    store: DatasetStore, champion: ModelBundle, days: Sequence[date], *, ledger: Ledger, at_most: int
) -> SampledDays | None:
    """At most so many payments of days that have features; None where they hold no payment."""
    chosen = choose(store, days, at_most=at_most)
    rows = sum(store.manifest("transactions", day).rows for day in days)
    if not chosen:
        return None
    tables, matrices = zip(
        *(stored_vectors(store, champion, day, places) for day, places in chosen.items()), strict=True
    )
    payments = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    sample = SampledDays(
        payments=payments,
        vectors=np.concatenate(matrices),
        raw=np.full(payments.num_rows, np.nan),
        day=np.repeat([(day - _EPOCH).days for day in chosen], [len(places) for places in chosen.values()]),
        blocked=np.zeros(payments.num_rows, dtype=bool),
        control=np.zeros(payments.num_rows, dtype=bool),
        counts=SampleCounts(rows, payments.num_rows),
    )
    counts = _put_in_what_was_served(sample, champion, ledger)
    unscored = np.flatnonzero(np.isnan(sample.raw))
    if len(unscored):
        sample.raw[unscored] = champion.score(np.ascontiguousarray(sample.vectors[unscored])).raw
    return replace(sample, counts=counts)


def choose(store: DatasetStore, days: Sequence[date], *, at_most: int) -> dict[date, Rows]:
    """The rows of each day that are in the sample: all, or those whose ids have the smallest hashes."""
    sizes = {day: store.manifest("transactions", day).rows for day in days}
    if sum(sizes.values()) <= at_most:
        return {day: np.arange(size) for day, size in sizes.items() if size}
    hashes: dict[date, npt.NDArray[np.uint64]] = {}
    smallest = np.empty(0, np.uint64)
    for day in days:
        hashes[day] = id_hashes(store.read_day("transactions", day, ["transaction_id"])["transaction_id"].to_pylist())
        smallest = np.partition(joined := np.concatenate([smallest, hashes[day]]), min(at_most, len(joined)) - 1)[
            :at_most
        ]
    limit = smallest.max()
    found = {day: np.flatnonzero(of_day <= limit) for day, of_day in hashes.items()}
    return {day: rows for day, rows in found.items() if len(rows)}


def id_hashes(ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each id, independent of every other use of ids' hashes."""
    digests = (hashlib.blake2b(each.encode(), digest_size=8, key=_SALT).digest() for each in ids)
    return np.frombuffer(b"".join(digests), dtype="<u8")


def day_of(count: int) -> date:
    """The date that is so many days after 1970-01-01."""
    return _EPOCH + timedelta(days=int(count))


def stored_vectors(
    store: DatasetStore, bundle: ModelBundle, day: date, places: Rows
) -> tuple[pa.Table, npt.NDArray[np.float32]]:
    """Some rows of a day: their payments, and the vectors that the bundle reads, from the stored features."""
    attributes = bundle.facts.model_input.attributes
    columns = ["transaction_id", "event_time", "customer_id", "amount_minor", "writer", *CODED_FIELDS]
    payments = store.read_day("transactions", day, [*columns, *(ATTRIBUTE_PREFIX + name for name in attributes)])
    names = [name for name, _ in bundle.facts.model_input.computed]
    features = store.read_day("features", day, names)
    if features.num_rows != payments.num_rows:
        raise DatasetError(
            f"The features of {day} are not those of its payments.", remedy="Materialize them again: `fraud run`."
        )
    payments = payments.take(pa.array(places))
    computed = np.full((len(places), len(FEATURE_NAMES)), np.nan, np.float32)
    for name in names:
        computed[:, INDEX[name]] = features[name].to_numpy()[places]
    given = {name: payments[ATTRIBUTE_PREFIX + name].cast(pa.float64()).to_numpy() for name in attributes}
    fields = {name: payments[name].to_pylist() for name in bundle.facts.model_input.codes}
    return payments, bundle.inputs.matrix(computed, attributes=given, fields=fields)


def _put_in_what_was_served(sample: SampledDays, champion: ModelBundle, ledger: Ledger) -> SampleCounts:
    """Replace the stored vectors of live payments by the logged ones, and set the scores that the champion answered."""
    live = np.flatnonzero(~sample.payments["writer"].is_null().to_numpy())
    answered = rescored = degraded = decided = 0
    for place, record in _decisions(sample.payments, live, ledger):
        decided += 1
        answer: Mapping[str, Any] = orjson.loads(record.payload)
        sample.blocked[place] = record.decision == "BLOCK"
        sample.control[place] = bool(answer.get("control"))
        vector = np.frombuffer(record.features, dtype="<f4")
        same_inputs = answer["feature_schema"] == champion.feature_schema
        if not same_inputs or len(vector) != len(champion.input_names):
            continue
        sample.vectors[place] = vector
        degraded += bool(answer["degraded"])
        if record.model_version == champion.version:
            sample.raw[place] = answer["raw_score"]
            answered += 1
        else:
            rescored += 1
    return SampleCounts(
        sample.counts.rows, sample.counts.sampled, len(live), answered, rescored, degraded, len(live) - decided
    )  # fmt: skip


def _decisions(payments: pa.Table, live: npt.NDArray[np.intp], ledger: Ledger) -> Iterator[tuple[int, DecisionRecord]]:
    for start in range(0, len(live), IDS_AT_ONCE):
        part = live[start : start + IDS_AT_ONCE]
        ids = payments["transaction_id"].take(pa.array(part)).to_pylist()
        place = dict(zip(ids, part.tolist(), strict=True))
        for record in ledger.decided(ids):
            yield place[record.transaction_id], record
