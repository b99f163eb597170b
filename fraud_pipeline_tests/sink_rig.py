"""A sink on a real broker: topics with known content, the sink in a thread or a process of its own, and what is in the ledger."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its stub forgets the second

from fraud_pipeline.adapters.kafka.messages import (
    Message,
    Place,
    alert_message,
    decision_message,
    decision_value,
    inbox_message,
    transaction_message,
)
from fraud_pipeline.adapters.kafka.sink_metrics import SinkMetrics
from fraud_pipeline.adapters.kafka.sink_opening import open_sink
from fraud_pipeline.adapters.kafka.sink_service import Sink
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.transaction import Label, Transaction

NOW = datetime.now(UTC).replace(microsecond=0)
PATIENCE_S = 60.0
"""The machine may be busy; a test that waits this long has failed."""


def until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait for it."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about in {PATIENCE_S:g} s"
        time.sleep(0.02)


def payment(number: int, **changes: object) -> Transaction:
    plain = Transaction(
        f"t{number}", NOW + timedelta(milliseconds=number), f"c{number % 50}", f"m{number % 7}", 100 + number
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def decision(t: Transaction, verdict: Any = "APPROVE") -> Decision:
    return Decision(
        transaction_id=t.transaction_id, event_time=t.event_time, decided_at=t.event_time + timedelta(milliseconds=7),
        fraud_probability=0.25, anomaly_score=0.5, raw_score=0.125, decision=verdict, risk_factors=("high_amount",),
        reasons=(), model_version="3", feature_schema="s1", processing_time_ms=0.1, features=b"\0\0\x80?" * 55,
    )  # fmt: skip


def label(number: int, *, is_fraud: bool = True, author: str = "bank") -> Label:
    return Label(f"t{number}", is_fraud, "chargeback", author, NOW)


class Stream:
    """Topics of `partitions` partitions, and a producer into them that confirms what it produced."""

    def __init__(self, address: str, *, partitions: int = 2) -> None:
        self.address = address
        self.names = Topics(f"s{uuid4().hex[:8]}.")
        self.partitions = partitions
        admin = AdminClient({"bootstrap.servers": address})
        made = admin.create_topics(
            [NewTopic(name, num_partitions=partitions, replication_factor=1) for name in _every(self.names)]
        )
        for each in made.values():
            each.result(timeout=PATIENCE_S)
        self._producer = Producer({"bootstrap.servers": address, "linger.ms": 5, "enable.idempotence": True})

    def send(self, topic: str, messages: Sequence[Message], *, partition: int | None = None) -> None:
        """Returns when the broker has them. Without a partition the first byte of the key's number chooses one."""
        for place, message in enumerate(messages):
            chosen = partition if partition is not None else self.partition_of(message.key)
            self._producer.produce(
                topic, key=message.key, value=message.value, headers=list(message.headers), partition=chosen
            )
            if place % 10_000 == 9_999:
                self._producer.flush(PATIENCE_S)
        assert self._producer.flush(PATIENCE_S) == 0

    def partition_of(self, key: bytes) -> int:
        return sum(key) % self.partitions

    def pay(self, payments: Sequence[Transaction]) -> None:
        self.send(self.names.transactions, [transaction_message(t) for t in payments])

    def decide(self, payments: Sequence[Transaction], verdict: str = "APPROVE", role: str = "decided") -> None:
        made = []
        for t in payments:
            value = decision_value(decision(t, verdict), customer_id=t.customer_id)
            made.append(decision_message(value, customer_id=t.customer_id, source=Place("x", 0, 0), role=role))
        self.send(self.names.decisions, made)

    def alert(self, payments: Sequence[Transaction]) -> None:
        source = Place("x", 0, 0)
        self.send(self.names.alerts, [alert_message(decision(t, "REVIEW"), t, source=source) for t in payments])

    def label(self, labels: Sequence[Label]) -> None:
        self.send(self.names.labels, [inbox_message(each) for each in labels])

    def close_minute(self, partition: int, minute: int, offset: int, *, by_clock: bool = False) -> None:
        writer = f"{self.names.transactions}[{partition}]"
        value = {
            "writer": writer, "partition": partition, "minute": minute, "offset": offset, "by_clock": by_clock, "part": 1,
            "parts": 1,
        }  # fmt: skip
        self.send(
            self.names.shared_state, [Message(writer.encode(), orjson.dumps(value), (("type", b"minutes"),))],
            partition=partition,
        )  # fmt: skip

    def content(self, topic: str) -> list[Any]:
        """All committed messages, partition by partition."""
        reader = Consumer({
            "bootstrap.servers": self.address, "group.id": uuid4().hex, "isolation.level": "read_committed",
            "enable.partition.eof": True, "auto.offset.reset": "earliest",
        })  # fmt: skip
        reader.assign([TopicPartition(topic, partition, 0) for partition in range(self.partitions)])
        found, ended = [], 0
        deadline = time.monotonic() + PATIENCE_S
        while ended < self.partitions:
            assert time.monotonic() < deadline
            message = reader.poll(1.0)
            if message is None:
                continue
            if message.error() is None:
                found.append(message)
            else:
                ended += 1
        reader.close()
        return sorted(found, key=lambda m: (m.partition(), m.offset()))

    def labels_sent(self) -> list[tuple[str, int, int]]:
        """The label changes in `transactions`: id, change and partition."""
        changes = [m for m in self.content(self.names.transactions) if dict(m.headers() or ()).get("type") == b"label"]
        return [
            (orjson.loads(m.value())["transaction_id"], orjson.loads(m.value())["change"], m.partition())
            for m in changes
        ]

    def sink(self, ledger: Ledger, metrics: SinkMetrics, **options: Any) -> Sink:
        more = {"retention_days": 0, "skip_lost": False, "now": lambda: datetime.now(UTC), **options}
        group = f"{self.names.prefix}fraud-sink"
        return open_sink(
            ledger, self.names, metrics=metrics, currency="USD",
            consumer={"bootstrap.servers": self.address, "group.id": group, "session.timeout.ms": 6_000},
            producer={"bootstrap.servers": self.address}, **more,
        )  # fmt: skip


class RunningSink:
    """A sink in a thread; what it raised is raised again by `end`."""

    def __init__(self, stream: Stream, ledger: Ledger, **options: Any) -> None:
        self.metrics = SinkMetrics()
        self.sink = stream.sink(ledger, self.metrics, **options)
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.sink.run()
        except BaseException as err:  # noqa: BLE001 it is raised again where the test waits
            self.failure = err

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def end(self) -> None:
        self.sink.stop()
        self._thread.join(timeout=PATIENCE_S)
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure


@contextmanager
def running(stream: Stream, ledger: Ledger, **options: Any) -> Iterator[RunningSink]:
    sink = RunningSink(stream, ledger, **options)
    try:
        yield sink
    finally:
        sink.end()


def counts(ledger: Ledger) -> dict[str, int]:
    """Rows by table."""
    tables = ("transactions", "decisions", "alerts", "labels", "minute_closings")
    with ledger.database.reading() as connection:
        return {t: int(connection.exec_driver_sql(f"SELECT count(*) FROM {t}").scalar_one()) for t in tables}


def sink_process(stream: Stream, ledger_url: str, **environment: str) -> subprocess.Popen[str]:
    """`python -m streaming.sink`, as a supervisor starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "streaming.sink"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=_environment(stream, ledger_url) | environment,
    )  # fmt: skip


def _environment(stream: Stream, ledger_url: str) -> dict[str, str]:
    return {
        **os.environ, "FRAUD_KAFKA_BOOTSTRAP_SERVERS": stream.address, "FRAUD_TOPIC_PREFIX": stream.names.prefix,
        "FRAUD_LEDGER_URL": ledger_url, "FRAUD_SINK_METRICS_PORT": "0", "FRAUD_KAFKA_SESSION_TIMEOUT_MS": "6000",
    }  # fmt: skip


def _every(topics: Topics) -> tuple[str, ...]:
    return (
        topics.transactions, topics.decisions, topics.alerts, topics.labels, topics.shared_state, topics.dead_letters,
    )  # fmt: skip
