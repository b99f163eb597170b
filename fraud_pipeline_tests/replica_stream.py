"""REST replicas on a real broker and a real Valkey: a small scorer that follows the log, and replicas in this process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, TopicPartition

from fraud_pipeline.adapters.kafka.messages import attached_decision, read_log_message
from fraud_pipeline.adapters.kafka.topic_admin import create
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.state_view import FEED_TIMEOUT_S, StateView, view_prefix
from fraud_pipeline.adapters.view_feed import ViewFeed
from fraud_pipeline.domain.customer_record import CustomerRecords
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.live_runtime import LiveRuntime
from fraud_pipeline.replica_runtime import ReplicaRuntime
from fraud_pipeline.runtime_choice import runtime_for
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.replica_rig import now
from fraud_pipeline_tests.serving.home import empty_home

PARTITIONS = 2
PATIENCE_S = 60.0


class Follower:
    """Takes each payment of the log in once, in its order, and feeds the view: what a scorer does, without deciding."""

    def __init__(self, settings: Settings) -> None:
        self.topic = Topics(settings.topic_prefix).transactions
        self.payments: list[list[Transaction]] = [[] for _ in range(PARTITIONS)]
        self.decisions: dict[str, Decision] = {}
        self.repeats = 0
        self._consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": uuid4().hex})
        self._consumer.assign([TopicPartition(self.topic, each, 0) for each in range(PARTITIONS)])
        prefix = view_prefix(settings.state_view_prefix, settings.topic_prefix)
        self._view = StateView(settings.state_view_url, prefix=prefix, timeout_s=FEED_TIMEOUT_S)
        self._states = [FeatureState.empty() for _ in range(PARTITIONS)]
        self.feeds = [self._feed(each) for each in range(PARTITIONS)]
        self._offsets = [0] * PARTITIONS
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for feed in self.feeds:
            feed.close()
        self._consumer.close()
        self._view.close()

    @property
    def ids(self) -> set[str]:
        return set(self.decisions)

    def _feed(self, partition: int) -> ViewFeed:
        state = self._states[partition]
        writer, records = f"{self.topic}[{partition}]", CustomerRecords(state)
        return ViewFeed(self._view, writer, customers=lambda: state.customers, records=records)

    def _run(self) -> None:
        while not self._stop.is_set():
            changed: list[set[str]] = [set() for _ in range(PARTITIONS)]
            for message in self._consumer.consume(100, 0.05):
                if message.error() is None:
                    self._take(message, changed)
            for feed, offset, customers in zip(self.feeds, self._offsets, changed, strict=True):
                feed.committed(offset, customers)

    def _take(self, message: Any, changed: list[set[str]]) -> None:
        partition, headers = message.partition(), message.headers()
        payment = read_log_message(message.key(), message.value(), headers, currency="USD", received_at=now())
        decision = attached_decision(headers)
        assert isinstance(payment, Transaction)
        assert decision is not None
        self._offsets[partition] = message.offset() + 1
        if payment.transaction_id in self.decisions:
            self.repeats += 1
            return
        self.decisions[payment.transaction_id] = decision
        self.payments[partition].append(payment)
        self._states[partition].update(payment)
        changed[partition].add(payment.customer_id)


def replica_settings(folder: Path, *, kafka: str, valkey: str) -> Settings:
    """A home with a champion, topics of its own and keys of its own."""
    home = empty_home(folder / "home")
    settings = Settings(
        home=home.home, kafka_bootstrap_servers=kafka, state_view_url=valkey, topic_prefix=f"r{uuid4().hex[:8]}."
    )
    create(settings, Topics(settings.topic_prefix), partitions=PARTITIONS, replicas=1)
    return settings


@contextmanager
def following(settings: Settings) -> Iterator[Follower]:
    follower = Follower(settings)
    try:
        yield follower
    finally:
        follower.close()


@asynccontextmanager
async def replica_running(settings: Settings) -> AsyncIterator[ReplicaRuntime]:
    """A replica that decides."""
    runtime: LiveRuntime = runtime_for(settings)
    assert isinstance(runtime, ReplicaRuntime)
    await runtime.start()
    try:
        await until(lambda: not runtime.problems)
        yield runtime
    finally:
        await runtime.stop()


async def until(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
