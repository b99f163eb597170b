"""From payments and the live state to decisions that wait for their commit. Counts and times what it does; commits nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.adapters.decided_payments import DecidedPayments
from fraud_pipeline.adapters.group_commit import Outcome
from fraud_pipeline.adapters.ledger_records import DecisionRecord, LedgerEntry
from fraud_pipeline.adapters.live_metrics import LiveMetrics
from fraud_pipeline.adapters.model_slot import ModelSlot
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import Decision, decide_on
from fraud_pipeline.domain.decision_batch import DecisionBatch, decide_many
from fraud_pipeline.domain.feature_batch import read_update_many
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import DependencyError

LEDGER_AWAY: Final = "ledger"
"""What a decision lacks that stands in the journal and not in the ledger."""

Computed = npt.NDArray[np.float32]
Rows = Computed | Sequence[Computed]
Shadow = Callable[[Sequence[Transaction], Rows, Sequence[str]], None]
"""Gets the payments that were decided, their features and the versions that decided them; returns at once."""


@dataclass(slots=True)
class Made:
    """Decided payments and their answers until they are durable."""

    transactions: list[Transaction]
    decisions: Sequence[Decision]
    answers: list[bytes]
    received_at: datetime
    outcome: asyncio.Future[Outcome]
    degraded_late: int = 0
    """Decisions that were made with the ledger and kept without it."""

    def entries(self) -> Sequence[LedgerEntry]:
        """What the ledger is to keep."""
        if isinstance(self.decisions, DecisionBatch):
            return DecidedPayments(self.decisions, self.received_at)
        return [
            LedgerEntry(transaction, self.received_at, decision=DecisionRecord.of(decision, answer=answer))
            for transaction, decision, answer in zip(self.transactions, self.decisions, self.answers, strict=True)
        ]

    def without_ledger(self) -> Sequence[LedgerEntry]:
        """What the journal is to keep: decisions that do not say so yet say that the ledger was away."""
        missing = [LEDGER_AWAY not in decision.degraded for decision in self.decisions]
        self.decisions = [
            replace(decision, degraded=(*decision.degraded, LEDGER_AWAY)) if late else decision
            for decision, late in zip(self.decisions, missing, strict=True)
        ]
        self.answers = [decision.to_json() for decision in self.decisions]
        self.degraded_late += sum(missing)
        return self.entries()


class DecisionMaker:
    """Decides with whatever model is in the slot at that moment."""

    def __init__(
        self,
        models: ModelSlot,
        metrics: LiveMetrics,
        *,
        control_share: float,
        now: Callable[[], datetime],
        shadow: Shadow | None = None,
    ) -> None:
        self._models = models
        self._metrics = metrics
        self._control_share = control_share
        self._now = now
        self._shadow = shadow

    def require_model(self) -> None:
        """DependencyError where there is nothing to decide with."""
        _required(self._models.bundle_for(""))

    def one(
        self,
        state: FeatureState,
        transaction: Transaction,
        received_at: datetime,
        *,
        degraded: tuple[str, ...],
        take_in: bool = True,
    ) -> Made:
        """Decide a payment and, unless the caller does, take it into the state. An error leaves the state as it was."""
        started = time.perf_counter()
        bundle = self._bundle(transaction)
        computed = state.read(transaction)
        read_at = time.perf_counter()
        decision = self._decide(bundle, transaction, computed, degraded)
        if take_in:
            state.update(transaction)
        self._observe(1, started, read_at)
        metrics = self._metrics
        metrics.decisions[decision.decision, decision.model_version] += 1
        metrics.degraded += bool(decision.degraded)
        metrics.scores.observe(decision.fraud_probability)
        if self._shadow is not None:
            self._shadow([transaction], [computed], [decision.model_version])
        return self._made([transaction], [decision], [decision.to_json()], received_at)

    def many(
        self,
        state: FeatureState,
        transactions: list[Transaction],
        received_at: datetime,
        *,
        degraded: tuple[str, ...],
    ) -> Made:
        """Decide payments, taking each into the state before the next is read. An error leaves the state beyond use."""
        started = time.perf_counter()
        rows = read_update_many(state, transactions)
        read_at = time.perf_counter()
        batch = self.given(rows, transactions, degraded=degraded, started=started, read_at=read_at)
        return self._made(transactions, batch, batch.answers, received_at)

    def given(
        self,
        rows: Computed,
        transactions: list[Transaction],
        *,
        degraded: tuple[str, ...],
        started: float,
        read_at: float,
    ) -> DecisionBatch:
        """Decide payments whose features [n, F] were read between the two moments."""
        batch = self._decide_rows(rows, transactions, degraded)
        self._observe(len(batch), started, read_at)
        metrics = self._metrics
        metrics.decisions.update(zip(batch.verdicts, batch.model_versions, strict=True))
        metrics.degraded += len(batch) if batch.degraded else 0
        metrics.scores.observe_all(batch.probabilities)
        if self._shadow is not None:
            self._shadow(transactions, rows, batch.model_versions)
        return batch

    def aside(self, transaction: Transaction, computed: Computed) -> Decision:
        """Decide a payment that stands in the log already, from its features."""
        return self._decide(self._bundle(transaction), transaction, computed, ())

    def _decide(
        self, bundle: ModelBundle, transaction: Transaction, computed: Computed, degraded: tuple[str, ...]
    ) -> Decision:
        return decide_on(
            bundle.inputs.vector(computed, transaction), bundle, transaction_id=transaction.transaction_id,
            event_time=transaction.event_time, decided_at=self._now(), control_share=self._control_share,
            degraded=degraded,
        )  # fmt: skip

    def _decide_rows(
        self, rows: Computed, transactions: Sequence[Transaction], degraded: tuple[str, ...]
    ) -> DecisionBatch:
        """By model: the challenger may have its share of the customers."""
        places: dict[int, tuple[ModelBundle, list[int]]] = {}
        bundles = self._models.bundles_for([transaction.customer_id for transaction in transactions])
        if bundles.count(bundles[0]) == len(bundles):
            return self._decide_with(_required(bundles[0]), rows, transactions, degraded)
        for place, bundle in enumerate(bundles):
            places.setdefault(id(bundle), (_required(bundle), []))[1].append(place)
        return DecisionBatch.merged(
            [
                (self._decide_with(bundle, rows[chosen], [transactions[place] for place in chosen], degraded), chosen)
                for bundle, chosen in places.values()
            ]
        )

    def _decide_with(
        self, bundle: ModelBundle, rows: Computed, transactions: Sequence[Transaction], degraded: tuple[str, ...]
    ) -> DecisionBatch:
        return decide_many(
            rows, bundle, transactions, decided_at=self._now(), control_share=self._control_share, degraded=degraded
        )

    def _observe(self, count: int, started: float, read_at: float) -> None:
        stages = self._metrics.stages
        stages["features"].observe((read_at - started) / count, count)
        stages["model"].observe((time.perf_counter() - read_at) / count, count)

    def _made(
        self,
        transactions: list[Transaction],
        decisions: Sequence[Decision],
        answers: list[bytes],
        received_at: datetime,
    ) -> Made:
        return Made(transactions, decisions, answers, received_at, asyncio.get_running_loop().create_future())

    def _bundle(self, transaction: Transaction) -> ModelBundle:
        return _required(self._models.bundle_for(transaction.customer_id))


def _required(bundle: ModelBundle | None) -> ModelBundle:
    if bundle is None:
        raise DependencyError("There is no champion to decide with.", remedy="Train and promote one: `fraud run`.")
    return bundle
