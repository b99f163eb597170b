"""From stored days to a training set: which days, which periods, and a name for all that it depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.feature_store import FeatureStore
from fraud_pipeline.adapters.training_rows import TrainingRowReader, TrainingRows
from fraud_pipeline.adapters.training_store import TrainingSet, TrainingStore, shuffled_labels, training_fingerprint
from fraud_pipeline.domain.feature_spec import SCHEMA_HASH
from fraud_pipeline.domain.model_input import ModelInput
from fraud_pipeline.domain.splits import split_data
from fraud_pipeline.errors import DatasetError, TrainingDataError


class TrainingSetBuilder:
    """Builds training sets of one home, or finds the one that is already there."""

    def __init__(
        self, store: DatasetStore, feature_store: FeatureStore, reader: TrainingRowReader, training_sets: TrainingStore
    ) -> None:
        self.store = store
        self.feature_store = feature_store
        self.reader = reader
        self.training_sets = training_sets

    def default_as_of(self) -> date:
        """The day after the newest one with features."""
        days = self.store.days("features")
        if not days:
            raise TrainingDataError("There is no day with features.", remedy="Materialize some first: `fraud run`.")
        return days[-1] + timedelta(days=1)

    def fingerprint(self, as_of: date, *, limits: Mapping[str, int], shuffle_seed: int | None = None) -> str:
        """The name of the training set as of a day; no row is read. DatasetError where a day's features are not current."""
        days, histories = self._days(as_of)
        labels = [f"{day} {self.store.manifest('labels', day).fingerprint}" for day in self._label_days(as_of)]
        options = {
            "limits": dict(limits),
            "shuffle_seed": shuffle_seed,
            "features": SCHEMA_HASH,
            "days": [day.isoformat() for day in days],
        }
        return training_fingerprint(histories[days[-1]], labels, as_of=as_of, options=options)

    def build(self, as_of: date, *, limits: Mapping[str, int], shuffle_seed: int | None = None) -> TrainingSet:
        """All payments before `as_of` with the labels known by then, split into periods. Found again where it was built before.

        `limits` are those of `splits.plan_split`. With `shuffle_seed` the labels before the test period are dealt anew: a
        drill that the gates must stop. TrainingDataError says how many days or frauds are missing.
        """
        name = self.fingerprint(as_of, limits=limits, shuffle_seed=shuffle_seed)
        if self.training_sets.has(name):
            return self.training_sets.use(name)
        days, histories = self._days(as_of)
        rows = self.reader.read(days, as_of=as_of)
        split = split_data(rows.data, as_of=as_of, **limits)
        if shuffle_seed is not None:
            rows = TrainingRows(shuffled_labels(rows.data, before=split.test, seed=shuffle_seed), rows.model_input)
        lineage = {
            "history": histories[days[-1]],
            "days": len(days),
            "first_day": days[0].isoformat(),
            "last_day": days[-1].isoformat(),
            "feature_schema": SCHEMA_HASH,
            "shuffled_labels": shuffle_seed is not None,
        }
        return self.training_sets.write(name, rows, split, lineage=lineage)

    def rows(self, days: Sequence[date], *, as_of: date, model_input: ModelInput | None = None) -> TrainingRows:
        """The rows of some days as a bundle reads them (see `TrainingRowReader.read`)."""
        return self.reader.read(days, as_of=as_of, model_input=model_input)

    def usable_days(self, before: date) -> list[date]:
        """The days before one that have current features."""
        histories = self.feature_store.histories()
        return [
            day
            for day, history in histories.items()
            if day < before and self.feature_store.is_current(day, history) and self._passed(day)
        ]

    def _days(self, as_of: date) -> tuple[list[date], dict[date, str]]:
        histories, retired = self.feature_store.histories(), self.feature_store.retired_days()
        days = [day for day in histories if day < as_of and day not in retired]
        stale = [day for day in days if not self.feature_store.is_current(day, histories[day])]
        if stale:
            raise DatasetError(
                f"{len(stale)} days from {stale[0]} on have no features, or features of another history.",
                remedy="Materialize `features` for them: `fraud run`.",
            )
        days = [day for day in days if self._passed(day)]
        if not days:
            raise TrainingDataError(
                f"There is no day with features before {as_of}.", remedy="Choose a later as-of date."
            )
        return days, histories

    def _passed(self, day: date) -> bool:
        return self.store.manifest("features", day).verdict != "failed"

    def _label_days(self, as_of: date) -> list[date]:
        return [day for day in self.store.days("labels") if day < as_of]
