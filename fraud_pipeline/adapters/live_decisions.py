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

from fraud_pipeline.adapters.group_commit import Outcome
from fraud_pipeline.adapters.ledger_records import DecisionRecord, LedgerEntry
from fraud_pipeline.adapters.live_metrics import LiveMetrics
from fraud_pipeline.adapters.model_slot import ModelSlot
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import Decision, decide_many, decide_on
from fraud_pipeline.domain.feature_batch import read_update_many
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import DependencyError

LEDGER_AWAY: Final = "ledger"
"""What a decision lacks that stands in the journal and not in the ledger."""

Computed = npt.NDArray[np.float32]
Shadow = Callable[[Transaction, Computed, Decision], None]
"""Gets each payment that was decided, its features and its decision; returns at once."""


@dataclass(slots=True)
class Made:
    """Decided payments and their answers until they are durable."""

    transactions: list[Transaction]
    decisions: list[Decision]
    answers: list[bytes]
    received_at: datetime
    outcome: asyncio.Future[Outcome]
    degraded_late: int = 0
    """Decisions that were made with the ledger and kept without it."""

    def entries(self) -> list[LedgerEntry]:
        """What the ledger is to keep."""
        return [
            LedgerEntry(transaction, self.received_at, decision=DecisionRecord.of(decision, answer=answer))
            for transaction, decision, answer in zip(self.transactions, self.decisions, self.answers, strict=True)
        ]

    def without_ledger(self) -> list[LedgerEntry]:
        """What the journal is to keep: decisions that do not say so yet say that the ledger was away."""
        for place, decision in enumerate(self.decisions):
            if LEDGER_AWAY not in decision.degraded:
                self.degraded_late += 1
                self.decisions[place] = replace(decision, degraded=(*decision.degraded, LEDGER_AWAY))
                self.answers[place] = self.decisions[place].to_json()
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
        self._bundle_of("")

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
        return self._made([transaction], [computed], [decision], received_at, started, read_at)

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
        decisions = self._decide_rows(rows, transactions, degraded)
        return self._made(transactions, rows, decisions, received_at, started, read_at)

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
    ) -> list[Decision]:
        """By model: the challenger may have its share of the customers."""
        bundles = [self._bundle(transaction) for transaction in transactions]
        if all(bundle is bundles[0] for bundle in bundles):
            return decide_many(
                rows,
                bundles[0],
                transactions,
                decided_at=self._now(),
                control_share=self._control_share,
                degraded=degraded,
            )
        places: dict[int, tuple[ModelBundle, list[int]]] = {}
        for place, bundle in enumerate(bundles):
            places.setdefault(id(bundle), (bundle, []))[1].append(place)
        found: dict[int, Decision] = {}
        for bundle, chosen in places.values():
            made = decide_many(
                rows[chosen], bundle, [transactions[place] for place in chosen],
                decided_at=self._now(), control_share=self._control_share, degraded=degraded,
            )  # fmt: skip
            found.update(zip(chosen, made, strict=True))
        return [found[place] for place in range(len(transactions))]

    def _made(
        self, transactions: list[Transaction], rows: Computed | Sequence[Computed], decisions: list[Decision],
        received_at: datetime, started: float, read_at: float,
    ) -> Made:  # fmt: skip
        metrics, count, decided = self._metrics, len(transactions), time.perf_counter()
        metrics.stages["features"].observe((read_at - started) / count, count)
        metrics.stages["model"].observe((decided - read_at) / count, count)
        metrics.decisions.update((decision.decision, decision.model_version) for decision in decisions)
        metrics.degraded += sum(1 for decision in decisions if decision.degraded)
        for decision in decisions:
            metrics.scores.observe(decision.fraud_probability)
        if self._shadow is not None:
            for transaction, row, decision in zip(transactions, rows, decisions, strict=True):
                self._shadow(transaction, row, decision)
        answers = [decision.to_json() for decision in decisions]
        return Made(transactions, decisions, answers, received_at, asyncio.get_running_loop().create_future())

    def _bundle(self, transaction: Transaction) -> ModelBundle:
        return self._bundle_of(transaction.customer_id)

    def _bundle_of(self, customer_id: str) -> ModelBundle:
        bundle = self._models.bundle_for(customer_id)
        if bundle is None:
            raise DependencyError("There is no champion to decide with.", remedy="Train and promote one: `fraud run`.")
        return bundle
