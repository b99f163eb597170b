"""The parity proof: features of a whole history in batch against the live state fed one event at a time, bit for bit.

The online side goes the way of the service (read, then update; labels where they stand in the log) and is saved and
restored in the middle. A proof that cannot fail is worth nothing, so each `Mutation` harms the online side on purpose and
must be found. Knows nothing of where the history came from; a clock is given by whoever wants to know the seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.column_events import label_changes_of, moment, transactions_of
from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_columns import EventColumns, LabelColumns
from fraud_pipeline.domain.feature_spec import DAY_US, FEATURE_NAMES, KEPT_EVENTS, KEPT_FOR_US, MINUTE_US, READ_AFTER_US
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.errors import InputError

Mutation = Literal["ulp", "drop_event", "drop_label"]
Progress = Callable[[int, int], None]
"""Called with rows compared and rows in all."""

_CHUNK: Final = 8_192
"""Rows whose online vectors are held before they are compared."""
_SHOWS_FOR_US: Final = 27 * DAY_US
"""A fraud label is read for 28 days; one day less leaves the hours at the border aside."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs. The bits are shown too: two floats may print alike and differ."""

    row: int
    feature: str
    event_time: datetime
    customer_id: str
    batch: float | None
    online: float | None
    batch_bits: str
    online_bits: str


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What was compared and what differed; `states_equal` compares the two final states as snapshots."""

    rows: int
    labels: int
    features: int
    compared_values: int
    differing_values: int
    first_difference: Difference | None
    differing_by_feature: dict[str, int]
    states_equal: bool
    snapshot_row: int
    snapshot_bytes: int
    mutation: Mutation | None
    batch_seconds: float | None
    online_seconds: float | None

    @property
    def equal(self) -> bool:
        """No value differs, and both executors end in the same state."""
        return self.differing_values == 0 and self.states_equal

    def to_json(self) -> dict[str, Any]:
        """Plain values, NaN as null."""
        content = asdict(self)
        if self.first_difference is not None:
            content["first_difference"]["event_time"] = self.first_difference.event_time.isoformat()
        return {**content, "equal": self.equal}


@dataclass(frozen=True, slots=True)
class _Harm:
    """What a mutation does to the online side: -1 leaves it alone."""

    ulp_row: int = -1
    dropped_row: int = -1
    dropped_label: int = -1


def run_parity(
    events: EventColumns,
    labels: LabelColumns,
    *,
    mutate: Mutation | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] | None = None,
) -> ParityReport:
    """Compare batch and online features of a history in log order; `clock` is monotonic, in seconds.

    Raises InputError for an empty history, and where a mutation has nothing to act on.
    """
    if len(events) == 0:
        raise InputError("There is no payment to compare.", remedy="Ask for at least one row.")
    labels = labels.in_log_order(events)
    harm = _harm(mutate, events, labels)
    start = clock() if clock else math.nan
    batch = compute_features(events, labels)
    between = clock() if clock else math.nan
    online = _Online(events, labels, harm)
    tally = _Tally(events)
    for first in range(0, len(events), _CHUNK):
        stop = min(first + _CHUNK, len(events))
        tally.compare(first, batch.values[first:stop], online.vectors(first, stop))
        if progress is not None:
            progress(stop, len(events))
    online.finish()
    end = clock() if clock else math.nan
    return ParityReport(
        rows=len(events),
        labels=len(labels),
        features=len(FEATURE_NAMES),
        compared_values=tally.compared,
        differing_values=int(tally.by_feature.sum()),
        first_difference=tally.first,
        differing_by_feature={FEATURE_NAMES[j]: int(tally.by_feature[j]) for j in np.flatnonzero(tally.by_feature)},
        states_equal=batch.state.snapshot() == online.state.snapshot(),
        snapshot_row=online.snapshot_row,
        snapshot_bytes=online.snapshot_bytes,
        mutation=mutate,
        batch_seconds=between - start if clock else None,
        online_seconds=end - between if clock else None,
    )


class _Online:
    """The live state, fed as the service feeds it."""

    def __init__(self, events: EventColumns, labels: LabelColumns, harm: _Harm) -> None:
        assert labels.position is not None
        self.state = FeatureState.empty(events.time_zone)
        self.snapshot_row = len(events) // 2
        self.snapshot_bytes = 0
        self._rows = len(events)
        self._harm = harm
        self._transactions = transactions_of(events)
        self._changes = label_changes_of(labels)
        self._positions = [*labels.position.tolist(), len(events) + 1]
        self._label = 0

    def vectors(self, first: int, stop: int) -> npt.NDArray[np.float32]:
        """Read and apply rows first to stop - 1; their features [stop - first, len(FEATURES)]."""
        out = np.empty((stop - first, len(FEATURE_NAMES)), np.float32)
        for row in range(first, stop):
            self._apply_labels(row)
            if row == self.snapshot_row:
                self._save_and_restore()
            transaction = next(self._transactions)
            out[row - first] = self.state.read(transaction)
            if row != self._harm.dropped_row:
                self.state.update(transaction)
        if first <= self._harm.ulp_row < stop:
            vector = out[self._harm.ulp_row - first]
            vector[0] = np.nextafter(vector[0], np.float32(np.inf))
        return out

    def finish(self) -> None:
        """Apply the labels after the last payment."""
        self._apply_labels(self._rows)

    def _apply_labels(self, row: int) -> None:
        while self._positions[self._label] <= row:
            change = next(self._changes)
            if self._label != self._harm.dropped_label:
                self.state.apply_label(change)
            self._label += 1

    def _save_and_restore(self) -> None:
        snapshot = self.state.snapshot()
        self.snapshot_bytes = len(snapshot)
        self.state = FeatureState.restore(snapshot)


class _Tally:
    """Counts differing bits. Every NaN is the same missing value, whatever its payload."""

    def __init__(self, events: EventColumns) -> None:
        self.events = events
        self.compared = 0
        self.by_feature = np.zeros(len(FEATURE_NAMES), np.int64)
        self.first: Difference | None = None

    def compare(self, first: int, batch: npt.NDArray[np.float32], online: npt.NDArray[np.float32]) -> None:
        differs = (batch.view(np.uint32) != online.view(np.uint32)) & ~(np.isnan(batch) & np.isnan(online))
        self.compared += batch.size
        self.by_feature += differs.sum(axis=0)
        if self.first is None and differs.any():
            row, feature = divmod(int(np.flatnonzero(differs)[0]), batch.shape[1])
            self.first = self._difference(first + row, feature, batch[row, feature], online[row, feature])

    def _difference(self, row: int, feature: int, batch: np.float32, online: np.float32) -> Difference:
        customer = self.events.customer
        return Difference(
            row=row,
            feature=FEATURE_NAMES[feature],
            event_time=moment(int(self.events.time[row])),
            customer_id=customer.vocabulary[int(customer.codes[row])],
            batch=None if np.isnan(batch) else float(batch),
            online=None if np.isnan(online) else float(online),
            batch_bits=f"{int(batch.view(np.uint32)):08x}",
            online_bits=f"{int(online.view(np.uint32)):08x}",
        )


def _harm(mutate: Mutation | None, events: EventColumns, labels: LabelColumns) -> _Harm:
    if mutate == "ulp":
        return _Harm(ulp_row=len(events) // 2)
    if mutate == "drop_event":
        return _Harm(dropped_row=_event_that_shows(events))
    if mutate == "drop_label":
        return _Harm(dropped_label=_label_that_shows(events, labels))
    return _Harm()


def _event_that_shows(events: EventColumns) -> int:
    """A payment near the middle whose customer pays again within 30 days and whose events are all kept."""
    order = np.argsort(events.customer.codes, kind="stable")
    customer, time = events.customer.codes[order], events.time[order]
    gap = np.diff(time)
    kept = np.bincount(customer, minlength=1)[customer[:-1]] < KEPT_EVENTS
    shows = order[:-1][(customer[1:] == customer[:-1]) & (gap >= 0) & (gap < KEPT_FOR_US) & kept]
    if len(shows) == 0:
        raise InputError(
            "drop_event: no customer pays twice within 30 days, so dropping a payment cannot show.",
            remedy="Use more rows.",
        )
    return int(shows[np.argmin(np.abs(shows - len(events) // 2))])


def _label_that_shows(events: EventColumns, labels: LabelColumns) -> int:
    """A fraud label near the middle that is the newest of its merchant when the merchant is next read."""
    assert labels.position is not None
    code_of = {name: code for code, name in enumerate(events.merchant.vocabulary)}
    merchant = np.array([code_of.get(name, -2) for name in labels.merchant.vocabulary] or [-2])[labels.merchant.codes]
    by_merchant = np.argsort(events.merchant.codes, kind="stable")
    sorted_codes = events.merchant.codes[by_merchant]
    for label in np.argsort(np.abs(labels.position - len(events) // 2), kind="stable").tolist():
        if labels.change[label] != 1:
            continue
        left, right = np.searchsorted(sorted_codes, [merchant[label], merchant[label] + 1])
        rows = by_merchant[left:right]
        readable = (int(labels.known_at[label]) // MINUTE_US + 1) * MINUTE_US + READ_AFTER_US
        readers = rows[(rows >= labels.position[label]) & (events.time[rows] >= readable)]
        if len(readers) == 0 or events.time[readers[0]] > labels.known_at[label] + _SHOWS_FOR_US:
            continue
        rivals = (merchant == merchant[label]) & (labels.change == 1) & (np.arange(len(labels)) != label)
        since = labels.known_at // MINUTE_US >= labels.known_at[label] // MINUTE_US
        if not np.any(rivals & since & (labels.position <= readers[0])):
            return int(label)
    raise InputError(
        "drop_label: no fraud label is read by a later payment at its merchant, so dropping one cannot show.",
        remedy="Use more rows, or a history with labels.",
    )
