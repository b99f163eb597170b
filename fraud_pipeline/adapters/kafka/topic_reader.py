"""Everything that a topic holds and that was committed, from its first message to the end that it has when the reading begins."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from fraud_pipeline.adapters.kafka.connection import KafkaSettings, consumer_config, dependency_error
from fraud_pipeline.errors import DependencyError

AT_ONCE: Final = 10_000
ANSWER_S: Final = 10.0
SILENCE_S: Final = 30.0
"""A broker that sends nothing for so long while there is more is away."""


def read_topic(settings: KafkaSettings, topic: str, *, group: str) -> Iterator[Message]:
    """Its messages, of each partition in their order. DependencyError where the broker does not answer."""
    reader = Consumer(
        {**consumer_config(settings, group=group), "enable.partition.eof": True, "auto.offset.reset": "error"}
    )
    try:
        try:
            partitions = list(reader.list_topics(topic, timeout=ANSWER_S).topics[topic].partitions)
        except KafkaException as err:
            raise dependency_error(settings, err, f"look at {topic}") from err
        reader.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in partitions])
        open_partitions = set(partitions)
        deadline = time.monotonic() + SILENCE_S
        while open_partitions:
            for message in reader.consume(AT_ONCE, 0.2):
                deadline = time.monotonic() + SILENCE_S
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_partitions.discard(int(message.partition() or 0))
                elif not error.retriable():
                    raise dependency_error(settings, KafkaException(error), f"read {topic}")
            if time.monotonic() > deadline:
                raise DependencyError(f"{topic} could not be read to its end: the broker sends nothing.")
    finally:
        reader.close()
