"""The rows that models learn from and are judged on: features, labels as known at a moment, and what was blocked.

It knows nothing of files, of Dagster or of models. Two rules of the design page live here, because every later step
must keep them:

* a label counts from the moment we knew it (`known_at`), never from the payment's time (`LearningData.as_known_at`);
* a blocked payment can have no chargeback, so of BLOCKs only those that were labelled count, and the control share
  (BLOCKs let through and marked) stands for the others by inverse propensity (`eligible`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from fraud_pipeline.errors import TrainingDataError

NEVER_KNOWN = np.iinfo(np.int64).max
"""`label_known_at` of a payment that carries no label."""

US_PER_DAY = 86_400_000_000


@dataclass(frozen=True)
class LabelVersions:
    """Every version of every label, in the order in which they were recorded; `row` indexes the rows of a
    LearningData.
    """

    row: np.ndarray  # int64
    is_fraud: np.ndarray  # bool
    known_at: np.ndarray  # int64, us since the epoch, UTC

    def known_by(self, as_of: int) -> LabelVersions:
        """The newest version of each label among those known at `as_of` (us), one a row, sorted by row."""
        known = np.flatnonzero(self.known_at <= as_of)
        order = known[np.lexsort((known, self.known_at[known], self.row[known]))]
        rows = self.row[order]
        newest = order[np.r_[rows[1:] != rows[:-1], True]] if len(order) else order
        return LabelVersions(self.row[newest], self.is_fraud[newest], self.known_at[newest])

    def reindexed(self, kept: np.ndarray, row_count: int) -> LabelVersions:
        """The versions of the rows in `kept` (row numbers), renumbered to their place in it."""
        place = np.full(row_count, -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        row = place[self.row]
        return LabelVersions(row[row >= 0], self.is_fraud[row >= 0], self.known_at[row >= 0])


@dataclass(frozen=True)
class LearningData:
    """n payments in event order. Arrays have n entries; `features` is float32 [n, F], NaN where missing, never inf.

    `channel`, `country` and `category` are codes into the name tuples. `blocked`: the decision was BLOCK and held.
    `control`: it would have been BLOCK and was let through for the control share. `labelled`: a label (fraud or not)
    is known. `kind` is the campaign's code + 1, or 0, for analysis of simulated worlds only; no model sees it.
    """

    transaction_id: np.ndarray
    event_time: np.ndarray  # int64, us since the epoch, UTC
    customer: np.ndarray  # int32
    amount: np.ndarray  # float64, major units
    channel: np.ndarray
    country: np.ndarray
    category: np.ndarray
    features: np.ndarray
    feature_names: tuple[str, ...]
    is_fraud: np.ndarray  # bool
    label_known_at: np.ndarray  # int64 us; NEVER_KNOWN without a label
    blocked: np.ndarray
    labelled: np.ndarray
    control: np.ndarray
    weight: np.ndarray  # float32
    channel_names: tuple[str, ...] = ()
    country_names: tuple[str, ...] = ()
    category_names: tuple[str, ...] = ()
    kind: np.ndarray | None = None
    kind_names: tuple[str, ...] = ()
    label_versions: LabelVersions | None = None

    def __post_init__(self) -> None:
        n = len(self.event_time)
        if self.features.shape != (n, len(self.feature_names)):
            raise TrainingDataError(
                f"The features have shape {self.features.shape} for {n} payments and {len(self.feature_names)} names.",
                remedy="Build the features and the transactions from the same days.",
            )
        for field in _ROW_FIELDS:
            array = getattr(self, field)
            if array is not None and len(array) != n:
                raise TrainingDataError(
                    f"{field} has {len(array)} entries for {n} payments.", remedy="Pass one entry for each payment."
                )

    def __len__(self) -> int:
        return len(self.event_time)

    @property
    def day(self) -> np.ndarray:
        """The UTC day of each payment, int32 days since the epoch."""
        return (self.event_time // US_PER_DAY).astype(np.int32)

    def rows(self, which: np.ndarray | slice) -> LearningData:
        """The rows of a boolean mask, of row numbers, or of a slice."""
        kept = np.arange(len(self))[which]
        arrays = {field: getattr(self, field)[which] for field in _ROW_FIELDS if getattr(self, field) is not None}
        versions = None if self.label_versions is None else self.label_versions.reindexed(kept, len(self))
        return dataclasses.replace(self, **arrays, features=self.features[which], label_versions=versions)

    def as_known_at(self, as_of: int) -> LearningData:
        """The same payments with the labels that were known at `as_of` (us): a later label, or a later correction, is
        not there yet.
        """
        versions = self.label_versions
        if versions is None:
            row = np.flatnonzero(self.labelled)
            versions = LabelVersions(row, self.is_fraud[row], self.label_known_at[row])
        known = versions.known_by(as_of)
        is_fraud = np.zeros(len(self), dtype=bool)
        labelled = np.zeros(len(self), dtype=bool)
        label_known_at = np.full(len(self), NEVER_KNOWN, dtype=np.int64)
        is_fraud[known.row], labelled[known.row], label_known_at[known.row] = known.is_fraud, True, known.known_at
        return dataclasses.replace(
            self, is_fraud=is_fraud, labelled=labelled, label_known_at=label_known_at, label_versions=versions
        )

    def frauds_by_day(self) -> tuple[np.ndarray, np.ndarray]:
        """(datetime64[D] days from the first to the last, frauds on each): what `splits.plan_split` asks for."""
        if not len(self):
            return np.empty(0, dtype="datetime64[D]"), np.empty(0, dtype=np.int64)
        day = self.day
        first, last = int(day.min()), int(day.max())
        frauds = np.bincount(day[self.is_fraud] - first, minlength=last - first + 1)
        return np.arange(first, last + 1).astype("datetime64[D]"), frauds


_ROW_FIELDS = (
    "transaction_id", "event_time", "customer", "amount", "channel", "country", "category", "is_fraud", "label_known_at", "blocked",
    "labelled", "control", "weight", "kind",
)  # fmt: skip


def labels_as_of(
    transaction_id: np.ndarray, is_fraud: np.ndarray, known_at: np.ndarray, *, as_of: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From label rows in recorded order (one a version) to what is known at `as_of` (us): (transaction_id, is_fraud,
    known_at), one a label.

    Of versions known at the same moment the one recorded last holds.
    """
    ids, row = np.unique(np.asarray(transaction_id), return_inverse=True)
    known = LabelVersions(row, np.asarray(is_fraud, dtype=bool), np.asarray(known_at, dtype=np.int64)).known_by(as_of)
    return ids[known.row], known.is_fraud, known.known_at


def eligible(data: LearningData, *, control_share: float) -> LearningData:
    """What may be learned from and judged on: BLOCKs without a label fall out, the control share weighs
    1/`control_share`.

    A payment let through for the control share had its chance of a chargeback, so it counts with or without a label.
    Apply it after `as_known_at`, since `labelled` depends on the moment.
    """
    if not data.blocked.any() and not data.control.any():
        return data
    if data.control.any() and not 0 < control_share <= 1:
        raise TrainingDataError(
            f"{int(data.control.sum())} payments are marked as the control share, and the share given is {control_share}.",
            remedy="Give the share (above 0, at most 1) with which they were let through.",
        )
    kept = data.rows(~data.blocked | data.labelled | data.control)
    weight = np.where(kept.control, kept.weight / control_share, kept.weight).astype(np.float32)
    return dataclasses.replace(kept, weight=weight)
