"""REST replicas beside the real scorer and the real sink, on real servers; and what their topics hold against batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from zlib import crc32

import orjson
from confluent_kafka import Producer

from fraud_pipeline.adapters.kafka.connection import consumer_config, producer_config
from fraud_pipeline.adapters.kafka.kafka_log import record_of
from fraud_pipeline.adapters.kafka.messages import ROLE, SOURCE, Place, header_text, read_decision, transaction_message
from fraud_pipeline.adapters.kafka.sink_metrics import SinkMetrics
from fraud_pipeline.adapters.kafka.sink_opening import open_sink
from fraud_pipeline.adapters.kafka.topic_reader import read_topic
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.stream.event_log import writer_of
from fraud_pipeline.adapters.stream.stream_parity import StreamParity, Written, compare_stream
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.replica_runtime import ReplicaRuntime
from fraud_pipeline.settings import Settings
from fraud_pipeline.stream_runtime import StreamRuntime, kafka_log
from fraud_pipeline_tests.replica_rig import now
from fraud_pipeline_tests.replica_stream import PARTITIONS, PATIENCE_S, until

GROUP = "replicas-judge"


class Running:
    """Something with `run` and `stop` in a thread; what it raised is raised again at the end."""

    def __init__(self, service: Any) -> None:
        self.failure: BaseException | None = None
        self._service = service
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._service.stop()
        self._thread.join(timeout=PATIENCE_S)
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            self._service.run()
        except BaseException as err:  # noqa: BLE001 it is raised again where the test waits
            self.failure = err


@dataclass
class Stream:
    """A scorer with its sink."""

    scorer: StreamRuntime
    running: list[Running]

    @property
    def failed(self) -> bool:
        return any(each.failure is not None for each in self.running)


@contextmanager
def stream_running(settings: Settings) -> Iterator[Stream]:
    """A scorer, and a sink that brings the topics into the ledger."""
    topics = Topics(settings.topic_prefix)
    scorer = StreamRuntime(settings, kafka_log)
    with Ledger.open(settings.ledger_url) as ledger:
        group = f"{settings.topic_prefix}fraud-sink"
        sink = open_sink(
            ledger, topics, metrics=SinkMetrics(), currency="USD", consumer=consumer_config(settings, group=group),
            producer=producer_config(settings), retention_days=0, skip_lost=False, now=now,
        )  # fmt: skip
        running = [Running(scorer), Running(sink)]
        try:
            yield Stream(scorer, running)
        finally:
            for each in running:
                each.end()


def past_payments(count: int, *, customers: int, seed: int = 5) -> list[Transaction]:
    """An hour's payments, the last one now."""
    chance, end = Random(seed), now()
    step = timedelta(hours=1) / count
    return [payment_of(f"h-{number}", end - step * (count - 1 - number), chance, customers) for number in range(count)]


def payment_of(identity: str, at: datetime, chance: Random, customers: int, kind: str = "c") -> Transaction:
    return Transaction(
        identity, at, f"{kind}-{chance.randrange(customers)}", f"merchant-{chance.randrange(4)}", chance.randrange(1, 90_000),
        channel=chance.choice(["pos", "online"]), country=chance.choice(["DE", "FR", None]),
        device_id=chance.choice([None, "d-1", "d-2"]),
    )  # fmt: skip


def routed(replicas: Sequence[Any], payment: Transaction) -> Any:
    """The replica that a customer's payments go to."""
    return replicas[crc32(payment.customer_id.encode()) % len(replicas)]


def produce(settings: Settings, payments: Sequence[Transaction]) -> None:
    """Straight into `transactions`; returns when the broker has them."""
    producer = Producer({**producer_config(settings), "linger.ms": 2})
    for payment in payments:
        message = transaction_message(payment)
        topic = Topics(settings.topic_prefix).transactions
        producer.produce(topic, message.value, message.key, headers=list(message.headers))
    assert producer.flush(PATIENCE_S) == 0


async def caught_up(stream: Stream, replica: ReplicaRuntime) -> None:
    """The view has all that the log has, and the replica reads minutes that a payment of now needs."""
    scorer = stream.scorer

    def whole() -> bool:
        assert not stream.failed
        view, follower = replica.view, replica.follower
        if scorer.loop is None or view is None or follower is None or len(scorer.loop.owned) < PARTITIONS:
            return False
        lag = sum(scorer.metrics.lag.values()) if len(scorer.metrics.lag) == PARTITIONS else 1
        places = {state.writer: state.offset for state in scorer.loop.owned.values()}
        needed = (datetime.now(UTC).timestamp() - 120) // 60 - 1
        return not lag and view.reaches() == places and follower.merged.readable >= needed

    await until(whole)


@dataclass
class Content:
    """What the topics hold: batch's verdict on it, and each payment's decision."""

    parity: StreamParity
    decisions: dict[str, Decision]
    passed_on: set[str]
    """Payments that came with a replica's decision."""


def judged(settings: Settings) -> Content:
    """Everything that was committed, against batch."""
    topics = Topics(settings.topic_prefix)
    records: dict[int, list[Any]] = {each: [] for each in range(PARTITIONS)}
    passed_on = set()
    for message in read_topic(settings, topics.transactions, group=GROUP):
        records[int(message.partition() or 0)].append(record_of(message))
        if _header(message, "decision"):
            passed_on.add(orjson.loads(message.value() or b"")["transaction_id"])
    closings = [orjson.loads(m.value() or b"") for m in read_topic(settings, topics.shared_state, group=GROUP)]
    written, decisions = [], {}
    for message in read_topic(settings, topics.decisions, group=GROUP):
        place, decision = Place.parse(_header(message, SOURCE)), read_decision(message.value() or b"")[0]
        written.append(Written(place.partition, place.offset, _header(message, ROLE), decision))
        decisions[decision.transaction_id] = decision
    writers = [writer_of(topics.transactions, each) for each in range(PARTITIONS)]
    merged = MergedState(writers)
    (bundle,) = [ModelBundle.load(each) for each in settings.bundles_dir.iterdir()]
    parity = compare_stream(
        records, closings, written, topic=topics.transactions,
        states={writer: WriterState(writer, merged.state) for writer in writers}, merged=merged,
        bundle_of=lambda _: bundle, currency="USD",
    )  # fmt: skip
    return Content(parity, decisions, passed_on)


def _header(message: Any, name: str) -> str:
    return header_text(message.headers(), name) or ""


def ledger_answers(settings: Settings) -> dict[str, bytes]:
    """The payload of each decision in the ledger."""
    query = "SELECT transaction_id, payload FROM decisions WHERE role = 'decided'"
    with Ledger.open(settings.ledger_url) as ledger, ledger.database.reading() as connection:
        return {row[0]: row[1].encode() for row in connection.exec_driver_sql(query)}
