"""REST replicas on a log and a state view that are in memory, with a scorer that follows: everything can be away or lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import numpy as np

from fraud_pipeline.adapters.kafka.messages import Message, attached_decision, read_log_message
from fraud_pipeline.adapters.kafka.partitions import partition_of
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.live_decisions import DecisionMaker
from fraud_pipeline.adapters.live_metrics import LiveMetrics
from fraud_pipeline.adapters.model_slot import ModelSlot, fetcher
from fraud_pipeline.adapters.replica import Replica
from fraud_pipeline.domain.customer_record import CustomerRecords
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES, FEATURES
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.fake_state_view import FakeStateView, FakeStateViewReader, FakeViewServer

TOPIC = "transactions"
DEADLINE_S = 30.0


def now() -> datetime:
    return datetime.now(UTC)


class FakeLog:
    """Partitions of messages; while `away` it confirms nothing."""

    def __init__(self, partitions: int = 2) -> None:
        self.partitions: list[list[Message]] = [[] for _ in range(partitions)]
        self.away = False

    def producer(self) -> FakeProducer:
        return FakeProducer(self)

    def payments(self) -> list[Transaction]:
        return [payment for partition in range(len(self.partitions)) for payment in self.payments_of(partition)]

    def payments_of(self, partition: int) -> list[Transaction]:
        return [self.read(message) for message in self.partitions[partition]]

    def decisions(self) -> dict[str, Decision]:
        """What a scorer passes on: of each id the first."""
        found: dict[str, Decision] = {}
        for messages in self.partitions:
            for message in messages:
                decision = attached_decision(message.headers)
                assert decision is not None
                found.setdefault(decision.transaction_id, decision)
        return found

    @staticmethod
    def read(message: Message) -> Transaction:
        event = read_log_message(message.key, message.value, message.headers, currency="USD", received_at=now())
        assert isinstance(event, Transaction)
        return event


class FakeProducer:
    """Delivers when it is polled, in order; a message that nobody confirmed before a purge may have arrived all the same."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log
        self._waiting: list[tuple[Message, Any]] = []

    def produce(self, topic: str, value: bytes, key: bytes, *, headers: Any, on_delivery: Any) -> None:
        assert topic == TOPIC
        self._waiting.append((Message(key, value, tuple(headers)), on_delivery))

    def poll(self, timeout: float) -> int:
        if self._log.away:
            time.sleep(min(timeout, 0.001))
            return 0
        waiting, self._waiting = self._waiting, []
        for message, on_delivery in waiting:
            partition = partition_of(message.key, len(self._log.partitions))
            self._log.partitions[partition].append(message)
            on_delivery(None, FakeDelivery(partition, len(self._log.partitions[partition]) - 1))
        return len(waiting)

    def flush(self, timeout: float) -> int:
        return self.poll(timeout)

    def purge(self) -> None:
        self._waiting.clear()


class FakeDelivery:
    def __init__(self, partition: int, offset: int) -> None:
        self._partition, self._offset = partition, offset

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset


class FakeScorer:
    """Follows the log, drops repeats, and writes the view: after each `follow` it is whole."""

    def __init__(self, log: FakeLog, server: FakeViewServer) -> None:
        self._log = log
        self._view = FakeStateView(server)
        self.states = [FeatureState.empty() for _ in log.partitions]
        self._seen: set[str] = set()
        self._at = [0] * len(log.partitions)

    def follow(self, *, most: int = 1_000_000) -> None:
        for partition, messages in enumerate(self._log.partitions):
            state, changed = self.states[partition], set()
            for message in messages[self._at[partition] :][:most]:
                self._at[partition] += 1
                payment = self._log.read(message)
                if payment.transaction_id not in self._seen:
                    self._seen.add(payment.transaction_id)
                    state.update(payment)
                    changed.add(payment.customer_id)
            writer, offset = f"{TOPIC}[{partition}]", self._at[partition]
            token = self._view.begin(writer)
            names = list(state.customers)
            self._view.write_only(writer, offset, list(zip(names, CustomerRecords(state).of(names), strict=True)))
            assert self._view.complete(writer, token, offset)


class NoShared:
    """Shared state in which everything is readable, and nothing known."""

    def __init__(self) -> None:
        self.closed: dict[str, int] = {}
        self.exact = True

    def features(self, transactions: Sequence[Transaction], times: Any) -> tuple[Any, Any]:
        count = len(transactions)
        return np.full((count, len(FEATURES)), np.nan, np.float32), np.full(count, self.exact)


class ReplicaRig:
    """One home, one log, one view, one scorer and as many replicas as a test starts."""

    def __init__(self, settings: Settings, *, journal_limit: int = 10_000) -> None:
        self.settings = settings
        self.server = FakeViewServer()
        self.log = FakeLog()
        self.scorer = FakeScorer(self.log, self.server)
        self.shared = NoShared()
        self.ledger = Ledger.open(settings.ledger_url)
        fetch = fetcher(settings.bundles_dir, settings.mlflow_tracking_uri, settings.artifacts_dir)
        self.models = ModelSlot(self.ledger, fetch, now=now)
        self.models.refresh()
        self.metrics = LiveMetrics()
        self._journal_limit = journal_limit
        self.scorer.follow()

    def close(self) -> None:
        self.models.close()
        self.ledger.close()

    def make(self) -> Replica:
        decisions = DecisionMaker(self.models, self.metrics, control_share=0.01, now=now)
        return Replica(
            self.ledger, decisions, self.metrics,
            view=FakeStateView(self.server), reader=FakeStateViewReader(self.server), shared=self.shared,
            producer=self.log.producer, topic=TOPIC, partitions=len(self.log.partitions),
            journals=self.settings.home / "replicas", journal_limit=self._journal_limit, currency="USD",
        )  # fmt: skip

    @asynccontextmanager
    async def replica(self) -> Any:
        made = self.make()
        await made.start()
        try:
            yield made
        finally:
            await made.close()

    async def relayed(self, *replicas: Replica) -> None:
        """Wait until the log has all that was answered."""
        await until(lambda: all(not len(each.journal) and not each.scorer.journalled for each in replicas))

    def own_part(self, decision: Decision) -> dict[str, int]:
        """The bits of what a decision's vector has of own history."""
        champion = self.models.champion
        assert champion is not None
        bits = decision.vector.view(np.uint32).tolist()
        return {name: value for name, value in zip(champion.bundle.input_names, bits, strict=True) if name in OWN_NAMES}

    def expected(self, payments: Sequence[Transaction]) -> dict[str, dict[str, int]]:
        """The same of a state that took all payments in, in this order."""
        state, found = FeatureState.empty(), {}
        champion = self.models.champion
        assert champion is not None
        for payment in payments:
            row = state.read_update(payment)
            vector = champion.bundle.inputs.vector(row, payment).astype(np.float32).view(np.uint32).tolist()
            names = champion.bundle.input_names
            found[payment.transaction_id] = {n: v for n, v in zip(names, vector, strict=True) if n in OWN_NAMES}
        return found


OWN_NAMES = frozenset(
    name for name, feature in zip(FEATURE_NAMES, FEATURES, strict=True) if feature.entity in ("transaction", "customer")
)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
