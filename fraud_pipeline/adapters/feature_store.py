"""Features of stored days: days of transactions and labels in, days of features and a state checkpoint out.

A day's features depend on all the days before it, so each is stored with the *history* it was computed from: a hash over
the fingerprints of every day up to it. A changed, added or removed day changes the histories after it, and with them what
`stale_days` names. Knows nothing of Dagster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.dataset_store import DatasetStore, DayManifest
from fraud_pipeline.adapters.parquet_files import read_json, write_json
from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_columns import EventColumns, LabelColumns
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES, SCHEMA_HASH
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.errors import DatasetError, StateError

ROWS_AT_ONCE = 500_000
"""About 120 MB of features in memory; the state goes on from one portion to the next."""

CHECKPOINTS_KEPT = 7
"""A week of daily runs: a mended day within it is replayed from close by."""

_EVENT_COLUMNS = (
    "event_time", "amount_minor", "latitude", "longitude", "customer_id", "merchant_id", "merchant_category", "country",
    "channel", "device_id",
)  # fmt: skip
_LABEL_COLUMNS = (
    "known_at",
    "event_time",
    "change",
    "merchant_id",
    "merchant_category",
    "country",
    "channel",
)


@dataclass(frozen=True, slots=True)
class FeatureDay:
    """One day's stored features: the manifest, and the transactions' ids and values they were made from."""

    day: date
    manifest: DayManifest
    values: npt.NDArray[np.float32]
    """[n, len(FEATURE_NAMES)]"""


class FeatureStore:
    """Computes and keeps features day by day. `time_zone` is the one in which hour and weekday are meant."""

    def __init__(self, store: DatasetStore, checkpoints: CheckpointStore, *, time_zone: str = "UTC") -> None:
        self.store = store
        self.checkpoints = checkpoints
        self.time_zone = time_zone
        self._folder = f"history/{SCHEMA_HASH}"

    def usable_days(self) -> list[date]:
        """The days with transactions and labels whose transactions no data check has failed, deleted ones among them."""
        return list(self._manifests())

    def _manifests(self) -> dict[date, tuple[DayManifest, DayManifest]]:
        """Those of the usable days' transactions and labels, in order."""
        found: dict[str, dict[date, DayManifest]] = {}
        for dataset in ("transactions", "labels"):
            stored = {day: self.store.manifest(dataset, day) for day in self.store.days(dataset)}
            retired = {day: self.store.retired(dataset, day) for day in self.store.retired_days(dataset)}
            found[dataset] = retired | stored
        payments, labels = found["transactions"], found["labels"]
        return {
            day: (payments[day], labels[day])
            for day in sorted(payments)
            if day in labels and payments[day].verdict != "failed"
        }

    def histories(self) -> dict[date, str]:
        """The history of each usable day: what its features are a function of."""
        histories: dict[date, str] = {}
        before = f"{SCHEMA_HASH} {self.time_zone}"
        for day, manifests in self._manifests().items():
            parts = (each.fingerprint for each in manifests)
            before = hashlib.blake2b(" ".join([before, day.isoformat(), *parts]).encode(), digest_size=16).hexdigest()
            histories[day] = before
        return histories

    def stale_days(self, days: Iterable[date]) -> list[date]:
        """Those of `days` that are usable and whose stored features are missing or were computed from another history."""
        histories, retired = self.histories(), self.retired_days()
        return [
            day for day in days if day in histories and day not in retired and not self.is_current(day, histories[day])
        ]

    def retired_days(self) -> set[date]:
        """The days whose rows were deleted: the state after them is all that is left of them."""
        return {*self.store.retired_days("transactions"), *self.store.retired_days("labels")}

    def retire(self, through: date, *, base: date | None) -> int:
        """Delete the rows of all days up to `through`; returns the bytes that were freed.

        The state after them is kept first, since no days give it again, and so is that of `base`, the day that a live log
        continues. StateError where it cannot be made: then nothing is deleted.
        """
        histories = self.histories()
        ends = [day for day in histories if day <= through]
        pinned = {ends[-1]} if ends else set()
        if base is not None and base <= through and base in histories:
            pinned.add(base)
        names = {day.isoformat() for day in pinned}
        write_json(self._pins, {"days": sorted(names | self._pinned_days())})  # before: making one forgets others
        for day in sorted(pinned):
            self.checkpoint(day)
        write_json(self._pins, {"days": sorted(names)})
        freed = 0
        for dataset in ("labels", "transactions", "features"):  # with its labels a day counts as deleted
            for day in [*self.store.days(dataset), *self.store.retired_days(dataset)]:
                if day <= through:
                    freed += self.store.retire_day(dataset, day)
        return freed

    @property
    def _pins(self) -> Path:
        return self.store.root / "data" / "kept_states.json"

    def _pinned_days(self) -> set[str]:
        """Days whose states cannot be made again."""
        return set(read_json(self._pins)["days"]) if self._pins.exists() else set()

    def is_current(self, day: date, history: str) -> bool:
        """Whether the stored features of `day` were computed from this history."""
        path = self._history_path(day)
        return self.store.has_day("features", day) and path.exists() and read_json(path).get("history") == history

    def materialize(self, days: Sequence[date]) -> Iterator[FeatureDay]:
        """Compute and store the features of the usable ones among `days` (sorted), and checkpoint the state after the last.

        Days between the newest checkpoint before them and the first of them are replayed. Yields each day when it is
        stored. Raises DatasetError where none is usable.
        """
        histories = self.histories()
        retired = self.retired_days()
        wanted = [day for day in days if day in histories and day not in retired]
        if not wanted:
            raise DatasetError(
                f"No day from {days[0]} to {days[-1]} has transactions and labels that passed their checks.",
                remedy="Look at the checks of `transactions` in the Dagster UI, or at its manifests.",
            )
        state, walked = self._state_before(wanted[0], histories)
        due = [day for day in histories if (walked is None or day > walked) and day <= wanted[-1]]
        keep = set(wanted)
        for portion in self._portions(due):
            for day, ids, values in self._walk(portion, state):
                if day in keep:
                    yield FeatureDay(day, self._write(day, ids, values, history=histories[day]), values)
        self._keep(state, wanted[-1], histories)

    def checkpoint(self, day: date) -> tuple[str, FeatureState]:
        """The name and content of the checkpoint after `day`; made by replay from the newest one before where it is missing.

        StateError where the day is not usable.
        """
        histories = self.histories()
        if day not in histories:
            raise StateError(
                f"{day} has no usable transactions and labels.", remedy="Materialize them first: `fraud run`."
            )
        state, walked = self._state_before(day, histories, including=True)
        due = [other for other in histories if (walked is None or other > walked) and other <= day]
        for portion in self._portions(due):
            for _ in self._walk(portion, state):
                pass
        return self._keep(state, day, histories), state

    def _walk(
        self, days: Sequence[date], state: FeatureState
    ) -> Iterator[tuple[date, pa.Array, npt.NDArray[np.float32]]]:
        """Advance `state` over some days and yield each day's transaction ids and feature values."""
        columns = ("transaction_id", *_EVENT_COLUMNS)
        if gone := self.retired_days() & set(days):
            raise StateError(
                f"The state after {max(gone)} is not there, and its days were deleted: it cannot be made again.",
                remedy="Restore the checkpoints from a backup (`fraud restore`).",
            )
        tables = [self.store.read_day("transactions", day, columns, dictionary=True) for day in days]
        labels = [self.store.read_day("labels", day, _LABEL_COLUMNS, dictionary=True) for day in days]
        events = pa.concat_tables(tables).unify_dictionaries()
        known = pa.concat_tables(labels).unify_dictionaries()
        matrix = compute_features(
            EventColumns.from_table(events, self.time_zone), LabelColumns.from_table(known), state=state
        )
        start = 0
        for day, table in zip(days, tables, strict=True):
            end = start + table.num_rows
            yield day, table.column("transaction_id"), matrix.values[start:end]
            start = end

    def _portions(self, days: Sequence[date]) -> Iterator[list[date]]:
        portion: list[date] = []
        rows = 0
        for day in days:
            portion.append(day)
            rows += self.store.manifest("transactions", day).rows if self.store.has_day("transactions", day) else 0
            if rows >= ROWS_AT_ONCE:
                yield portion
                portion, rows = [], 0
        if portion:
            yield portion

    def _write(self, day: date, ids: pa.Array, values: npt.NDArray[np.float32], *, history: str) -> DayManifest:
        by_column = np.asfortranarray(values)
        table = pa.table(
            {"transaction_id": ids.cast(pa.string()), **{n: by_column[:, i] for i, n in enumerate(FEATURE_NAMES)}}
        )
        manifest = self.store.write_day("features", day, table, replace=True)
        write_json(self._history_path(day), {"history": history, "feature_schema": SCHEMA_HASH})
        return manifest

    def _state_before(
        self, day: date, histories: dict[date, str], *, including: bool = False
    ) -> tuple[FeatureState, date | None]:
        """The newest checkpointed state of this very history before `day` (or of it), and its day; or an empty one."""
        for name in reversed(self.checkpoints.names(self._folder)):
            kept = date.fromisoformat(name[:10])
            if (kept < day or (including and kept == day)) and name == _name(kept, histories.get(kept, "")):
                return FeatureState.restore(self.checkpoints.read(f"{self._folder}/{name}")), kept
        return FeatureState.empty(self.time_zone), None

    def _keep(self, state: FeatureState, day: date, histories: dict[date, str]) -> str:
        """Write the checkpoint, and forget old ones and those of histories that are no more."""
        name = f"{self._folder}/{_name(day, histories[day])}"
        if not self.checkpoints.has(name):
            self.checkpoints.write(name, state.snapshot())
        current = {_name(each, history) for each, history in histories.items()}
        stored = self.checkpoints.names(self._folder)
        pinned = self._pinned_days()
        kept = set([other for other in stored if other in current][-CHECKPOINTS_KEPT:]) | {_name(day, histories[day])}
        kept |= {other for other in stored if other in current and other[:10] in pinned}
        for other in stored:
            if other not in kept:
                self.checkpoints.remove(f"{self._folder}/{other}")
        return name

    def _history_path(self, day: date) -> Path:
        return self.store.root / "data" / "features" / f"day={day.isoformat()}" / "history.json"


def _name(day: date, history: str) -> str:
    return f"{day.isoformat()}-{history}.state"
