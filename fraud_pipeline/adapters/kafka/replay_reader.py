"""A range of one partition's log read at once, as a recovery wants it: in large pieces, by a client of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, Message, TopicPartition

from fraud_pipeline.adapters.kafka.connection import KafkaSettings, consumer_config, dependency_error
from fraud_pipeline.adapters.stream.event_log import RecordColumns
from fraud_pipeline.errors import DependencyError, FraudError, StateError

REPLAY_BATCH: Final = 10_000
"""Records at a time: what a batch costs besides (a few ms) is then little of each, and they take 10 MB."""
SILENCE_S: Final = 10.0
"""Without a record for so long the broker does not answer: a leader election takes seconds."""
POLL_S: Final = 0.05
"""A piece that is not full waits so long for more."""
_CONSUMER: Final[dict[str, Any]] = {
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "fetch.wait.max.ms": 20,
    "fetch.message.max.bytes": 4_194_304,
    # Fetched while the last piece is taken in: with 20,000 it waits for the broker half of the time (measured).
    "queued.min.messages": 200_000,
    "queued.max.messages.kbytes": 131_072,
}
_log: Final = logging.getLogger(__name__)


def replayed(
    settings: KafkaSettings, topic: str, partition: int, first: int, until: int, *, group: str
) -> Iterator[RecordColumns]:
    """The records at [first, until), in their order. DependencyError where the broker goes silent; StateError for a gap."""
    if first >= until:
        return
    reader = Consumer({**consumer_config(settings, group=group), **_CONSUMER}, logger=_log)
    try:
        reader.assign([TopicPartition(topic, partition, first)])
        yield from _until(reader, settings, f"{topic}[{partition}]", partition, first, until)
    finally:
        reader.close()


def _until(
    reader: Consumer, settings: KafkaSettings, name: str, partition: int, first: int, until: int
) -> Iterator[RecordColumns]:
    deadline = time.monotonic() + SILENCE_S
    at = first
    while at < until:
        received = reader.consume(min(REPLAY_BATCH, until - at), POLL_S)
        messages = [message for message in received if message.error() is None]
        if len(messages) < len(received):
            at = max(at, _judged(received, settings, name))
        if messages:
            records = columns_of(messages, partition)
            at = max(at, records.offsets[-1] + 1)
            if records.offsets[-1] >= until:
                records = records.before(until)
            if len(records):
                yield records
            deadline = time.monotonic() + SILENCE_S
        if time.monotonic() > deadline:
            raise DependencyError(f"{name} could not be read up to {until}: the broker sends nothing.")


def _judged(received: Sequence[Message], settings: KafkaSettings, name: str) -> int:
    """What the messages that are errors say: the place at which the partition ends, or 0."""
    end = 0
    for message in received:
        error = message.error()
        if error is None:
            continue
        if error.code() == KafkaError._PARTITION_EOF:
            end = int(message.offset() or 0)
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise StateError(
                f"{name} holds its next place no more: {error.str()}.",
                remedy="Payments were lost to the topic's retention: see docs/streaming.md, Recovery.",
            )
        elif error.code() in REFUSED:
            raise dependency_error(settings, KafkaException(error), f"read {name}")
        else:
            _log.warning("Kafka: %s", error.str())
    return end


def columns_of(messages: Sequence[Any], partition: int) -> RecordColumns:
    """Messages of one partition as the scorer reads them. FraudError for one without a time, which no broker of today appends."""
    offsets = [message.offset() for message in messages]
    stamps = [message.timestamp() for message in messages]
    kinds = {kind for kind, _ in stamps}
    if TIMESTAMP_NOT_AVAILABLE in kinds:
        place = offsets[[kind for kind, _ in stamps].index(TIMESTAMP_NOT_AVAILABLE)]
        raise FraudError(f"{messages[0].topic()}[{partition}]@{place} has no time of its own: it is too old.")
    return RecordColumns(
        partition, offsets, [milliseconds * 1_000 for _, milliseconds in stamps],
        [message.key() for message in messages], [message.value() for message in messages],
        [message.headers() for message in messages],
    )  # fmt: skip


REFUSED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_VERSION,
    }
)  # fmt: skip
"""Asking again will not help."""
