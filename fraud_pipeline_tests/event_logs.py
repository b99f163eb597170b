"""The logs that a scorer may read, each with a way to append to it and to see what stands in it: for tests of any of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from fraud_pipeline.adapters.embedded.embedded_log import EmbeddedLog
from fraud_pipeline.adapters.embedded.stream_file import StreamFile, read_headers
from fraud_pipeline.adapters.embedded.topics import embedded_topics
from fraud_pipeline.adapters.kafka.envelope import Headers
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.stream.event_log import EventLog, LogRecord, Output
from fraud_pipeline.settings import Settings

Stored = tuple[bytes | None, bytes | None, Headers]
"""Key, value, headers."""
PARTITIONS = 3
GROUP = "scorers"


class LogRig(Protocol):
    """One log with its topics, made anew."""

    topics: Topics
    partitions: int

    def open(self, *, topic: str | None = None) -> EventLog: ...
    def append(self, topic: str, partition: int, messages: Sequence[Stored]) -> None: ...
    def content(self, topic: str) -> dict[int, list[LogRecord]]: ...


class EmbeddedRig:
    """A file."""

    def __init__(self, folder: Path, *, partitions: int = PARTITIONS) -> None:
        self.topics = Topics(f"s{uuid4().hex[:8]}.")
        self.path = folder / "stream.db"
        self.partitions = partitions
        self.file = StreamFile(self.path)
        self.file.create(embedded_topics(self.topics, partitions))

    def open(self, *, topic: str | None = None) -> EmbeddedLog:
        shared = self.topics.shared_state
        return EmbeddedLog(self.path, topic=topic or self.topics.transactions, shared_topic=shared, group=GROUP)

    def append(self, topic: str, partition: int, messages: Sequence[Stored]) -> None:
        self.file.append([Output(topic, partition, *message) for message in messages])  # type: ignore[arg-type]

    def content(self, topic: str) -> dict[int, list[LogRecord]]:
        return {
            partition: [
                LogRecord(partition, each.offset, each.received_us, each.key, each.value, read_headers(each.headers))
                for each in self.file.read(topic, partition, 0, 1_000_000)
            ]
            for partition in range(self.file.partition_count(topic))
        }


class KafkaRig:
    """Topics of their own on a real broker."""

    def __init__(self, address: str, folder: Path, *, partitions: int = PARTITIONS) -> None:
        from confluent_kafka import Producer

        from fraud_pipeline.adapters.kafka.connection import producer_config
        from fraud_pipeline.adapters.kafka.topic_admin import create

        prefix = f"s{uuid4().hex[:8]}."
        self.topics = Topics(prefix)
        self.partitions = partitions
        self.settings = Settings(home=folder, kafka_bootstrap_servers=address, topic_prefix=prefix)
        create(self.settings, self.topics, partitions=partitions)
        self._producer = Producer(producer_config(self.settings))

    def open(self, *, topic: str | None = None) -> EventLog:
        from fraud_pipeline.adapters.kafka.kafka_log import KafkaLog

        return KafkaLog(
            self.settings, topic=topic or self.topics.transactions, shared_topic=self.topics.shared_state,
            group=f"{self.topics.prefix}{GROUP}", instance=uuid4().hex[:8],
        )  # fmt: skip

    def append(self, topic: str, partition: int, messages: Sequence[Stored]) -> None:
        for key, value, headers in messages:
            more: dict[str, Any] = {} if headers is None else {"headers": list(headers)}
            self._producer.produce(topic, value, key, partition, **more)
        assert self._producer.flush(30) == 0

    def content(self, topic: str) -> dict[int, list[LogRecord]]:
        from fraud_pipeline.adapters.kafka.kafka_log import record_of
        from fraud_pipeline.adapters.kafka.topic_reader import read_topic

        found: dict[int, list[LogRecord]] = {partition: [] for partition in range(self.partitions)}
        for message in read_topic(self.settings, topic, group="look"):
            record = record_of(message)
            found[record.partition].append(record)
        return found
