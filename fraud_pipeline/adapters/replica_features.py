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
from fraud_pipeline.domain.feature_batch import read_update_many
from fraud_pipeline.domain.feature_layout import NEVER
from fraud_pipeline.domain.feature_spec import CLOSE_AFTER_US, FEATURES, LATE_READ_US, MINUTE_US
from fraud_pipeline.domain.feature_state import FeatureState, microseconds
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import StateError

SCRATCH_CUSTOMERS: Final = 200
"""In one state before another is made: to make one takes as long as to load three, and to look through ever more ids would take
longer."""
STATE_VIEW: Final = "state_view"
SHARED_LAG: Final = "shared_state_lag"
SHARED: Final = np.array(
    [feature.entity not in ("transaction", "customer") and feature.family != "time" for feature in FEATURES]
)
"""Which features are of shared entities."""

Computed = npt.NDArray[np.float32]
Times = npt.NDArray[np.int64]


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
        rows, lacking = self.read_many([transaction], [seen])
        return rows[0], lacking[0]

    def read_many(
        self, transactions: Sequence[Transaction], seen: Sequence[Seen | None]
    ) -> tuple[Computed, list[tuple[str, ...]]]:
        """The features [n, F] of payments, each as if those before it were own ones already, and what each lacks.

        What the view said of a customer's first one counts for its others.
        """
        first: dict[str, tuple[Transaction, Seen | None]] = {}
        for transaction, said in zip(transactions, seen, strict=True):
            first.setdefault(transaction.customer_id, (transaction, said))
        state, damaged = self._loaded(first)
        for customer_id, (transaction, said) in first.items():
            through = {} if customer_id in damaged else self._through(transaction, said)
            for event in self._own.missing(customer_id, through, state):
                state.update(event)
        degraded: list[set[str]] = [set() for _ in transactions]
        for transaction, lacks in zip(transactions, degraded, strict=True):
            said = first[transaction.customer_id][1]
            if said is None or said.reach is None or transaction.customer_id in damaged:
                lacks.add(STATE_VIEW)
        times = self._times(transactions, state)
        rows = read_update_many(state, transactions)
        rows[:, SHARED] = self._shared_rows(transactions, times, degraded)
        return rows, [tuple(sorted(lacks)) for lacks in degraded]

    def _loaded(self, first: Mapping[str, tuple[Transaction, Seen | None]]) -> tuple[FeatureState, set[str]]:
        """A state with these customers' records (a load replaces what it has of a customer), and whose were damaged."""
        records = {
            name: said.record for name, (_, said) in first.items() if said is not None and said.record is not None
        }
        known = self._scratch.customers
        crowded = len(known) + len(first) > SCRATCH_CUSTOMERS
        if crowded or any(name in known and name not in records for name in first):
            self._scratch = FeatureState.empty(self._time_zone)
        try:
            load_customers(self._scratch, list(records.items()))
        except StateError:
            return self._loaded_singly(records)
        return self._scratch, set()

    def _loaded_singly(self, records: Mapping[str, bytes]) -> tuple[FeatureState, set[str]]:
        damaged = set()
        self._scratch = FeatureState.empty(self._time_zone)
        for name, record in records.items():
            try:
                load_customers(self._scratch, [(name, record)])
            except StateError:
                self.damaged += 1
                damaged.add(name)
        return self._scratch, damaged

    def _through(self, transaction: Transaction, seen: Seen | None) -> dict[str, int]:
        if seen is None:
            return {}
        writer = self._writer_of(transaction.customer_id)
        through = {writer: -1 if seen.reach is None else seen.reach}
        if seen.record is not None:
            through[seen.record_writer] = max(through.get(seen.record_writer, -1), seen.offset)
        return through

    def _times(self, transactions: Sequence[Transaction], state: FeatureState) -> Times:
        """The customers' own times (µs) at which each payment is read: its own, or that of a later one before it."""
        newest: dict[str, int] = {}
        times = np.empty(len(transactions), np.int64)
        for place, transaction in enumerate(transactions):
            customer_id = transaction.customer_id
            last = newest.get(customer_id)
            if last is None:
                slot = state.customers.get(customer_id)
                last = NEVER if slot is None else int(state.arrays.customers["last_time"][slot])
            times[place] = newest[customer_id] = max(microseconds(transaction.event_time), last)
        return times

    def _shared_rows(self, transactions: Sequence[Transaction], times: Times, degraded: Sequence[set[str]]) -> Computed:
        """The shared features as of the customers' own times, or 10 minutes before what their writer has closed for sure."""
        closed = self._shared.closed
        ends = np.array([closed.get(self._writer_of(each.customer_id), NEVER) for each in transactions], np.int64)
        earliest = np.where(ends > 0, (ends + 1) * MINUTE_US + CLOSE_AFTER_US - LATE_READ_US, NEVER)
        rows, exact = self._shared.features(transactions, np.maximum(times, earliest))
        # How late such a payment reads, only its writer knows to the minute.
        for place in np.flatnonzero(~exact | (times < earliest + MINUTE_US)).tolist():
            degraded[place].add(SHARED_LAG)
        return rows[:, SHARED]
