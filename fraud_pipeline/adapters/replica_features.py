"""Features at a REST replica: own history from the state view and the replica's own payments, shared ones from closed minutes.

The same kernels as everywhere, on a small state that is loaded for the question. Says what it had to do
without. One event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from fraud_pipeline.adapters.own_events import OwnEvents
from fraud_pipeline.adapters.state_view_reader import Seen
from fraud_pipeline.domain.customer_record import load_customers
from fraud_pipeline.domain.feature_layout import NEVER
from fraud_pipeline.domain.feature_spec import CLOSE_AFTER_US, FEATURES, LATE_READ_US, MINUTE_US
from fraud_pipeline.domain.feature_state import FeatureState, microseconds
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import StateError

SCRATCH_CUSTOMERS: Final = 200
"""Loaded into one state before another is made: to make one takes as long as to load three, and to look through ever more ids
would take longer."""
STATE_VIEW: Final = "state_view"
SHARED_LAG: Final = "shared_state_lag"
SHARED: Final = np.array(
    [feature.entity not in ("transaction", "customer") and feature.family != "time" for feature in FEATURES]
)
"""Which features are of shared entities."""

Computed = npt.NDArray[np.float32]


class SharedFeatures(Protocol):
    """The merged shared state of all writers, as its topic tells it (`feature_merged.MergedState`)."""

    @property
    def closed(self) -> Mapping[str, int]:
        """By writer, the newest minute that it has closed."""

    def features(
        self, transactions: Sequence[Transaction], times: npt.NDArray[np.int64]
    ) -> tuple[Computed, npt.NDArray[np.bool_]]:
        """[n, F] with the shared columns as of the times (µs), and which rows are exact."""


class ReplicaFeatures:
    """`writer_of` says whose log a customer's payments go to."""

    def __init__(
        self, own: OwnEvents, shared: SharedFeatures, *, writer_of: Callable[[str], str], time_zone: str = "UTC"
    ) -> None:
        self.damaged = 0
        """Records that could not be read: of another schema, or not whole."""
        self._own = own
        self._shared = shared
        self._writer_of = writer_of
        self._time_zone = time_zone
        self._scratch = FeatureState.empty(time_zone)

    def read(self, transaction: Transaction, seen: Seen | None) -> tuple[Computed, tuple[str, ...]]:
        """The features [F] of one payment, and what they lack. `seen` None: the view is away."""
        record = None if seen is None else seen.record
        state = self._scratch_for(transaction.customer_id, record)
        degraded: set[str] = set()
        if seen is None or seen.reach is None:
            degraded.add(STATE_VIEW)
        if record is not None:
            try:
                load_customers(state, [(transaction.customer_id, record)])
            except StateError:
                self.damaged += 1
                degraded.add(STATE_VIEW)
                state = self._scratch_for(transaction.customer_id, None)
        for event in self._own.missing(transaction.customer_id, self._through(transaction, seen), state):
            state.update(event)
        row = state.read(transaction)
        row[SHARED] = self._shared_row(transaction, state, degraded)
        return row, tuple(sorted(degraded))

    def _scratch_for(self, customer_id: str, record: bytes | None) -> FeatureState:
        """A state to load the record into (a load replaces what it has of the customer), or one that knows no such customer."""
        held = len(self._scratch.customers)
        if held >= SCRATCH_CUSTOMERS or (record is None and customer_id in self._scratch.customers):
            self._scratch = FeatureState.empty(self._time_zone)
        return self._scratch

    def _through(self, transaction: Transaction, seen: Seen | None) -> dict[str, int]:
        if seen is None:
            return {}
        writer = self._writer_of(transaction.customer_id)
        through = {writer: -1 if seen.reach is None else seen.reach}
        if seen.record is not None:
            through[seen.record_writer] = max(through.get(seen.record_writer, -1), seen.offset)
        return through

    def _shared_row(self, transaction: Transaction, state: FeatureState, degraded: set[str]) -> Computed:
        """The shared features as of the customer's own time, or 10 minutes before what its writer has closed for sure."""
        moment = microseconds(transaction.event_time)
        slot = state.customers.get(transaction.customer_id)
        own = moment if slot is None else max(moment, int(state.arrays.customers["last_time"][slot]))
        closed = self._shared.closed.get(self._writer_of(transaction.customer_id), NEVER)
        earliest = (closed + 1) * MINUTE_US + CLOSE_AFTER_US - LATE_READ_US if closed > 0 else NEVER
        rows, exact = self._shared.features([transaction], np.array([max(own, earliest)], np.int64))
        if (
            not exact[0] or own < earliest + MINUTE_US
        ):  # how late such a payment reads, only its writer knows to the minute
            degraded.add(SHARED_LAG)
        return rows[0][SHARED]
