"""Everything that a topic holds and that was committed, from its first message to the end that it has when the reading begins."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from fraud_pipeline.adapters.kafka.connection import KafkaSettings, consumer_config, dependency_error
from fraud_pipeline.errors import DependencyError

AT_ONCE: Final = 10_000
ANSWER_S: Final = 10.0
SILENCE_S: Final = 30.0
"""A broker that sends nothing for so long while there is more is away."""


FETCHED_KB: Final = 16_384
"""Messages that a reader has at hand: several read at once stay within what a laptop has."""


def read_topic(
    settings: KafkaSettings, topic: str, *, group: str, only: Sequence[int] | None = None
) -> Iterator[Message]:
    """Its messages (of some partitions only), of each in their order. DependencyError where the broker does not answer."""
    reader = Consumer({
        **consumer_config(settings, group=group), "enable.partition.eof": True, "auto.offset.reset": "error",
        "queued.max.messages.kbytes": FETCHED_KB,
    })  # fmt: skip
    try:
        try:
            known = list(reader.list_topics(topic, timeout=ANSWER_S).topics[topic].partitions)
        except KafkaException as err:
            raise dependency_error(settings, err, f"look at {topic}") from err
        partitions = known if only is None else list(only)
        reader.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in partitions])
        open_partitions = set(partitions)
        deadline = time.monotonic() + SILENCE_S
        while open_partitions:
            for message in reader.consume(AT_ONCE, 0.2):
                deadline = time.monotonic() + SILENCE_S
                error = message.error()
                if error is None:
                    yield message
                    deadline = time.monotonic() + SILENCE_S  # whoever reads may take its time
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_partitions.discard(int(message.partition() or 0))
                elif not error.retriable():
                    raise dependency_error(settings, KafkaException(error), f"read {topic}")
            if time.monotonic() > deadline:
                raise DependencyError(f"{topic} could not be read to its end: the broker sends nothing.")
    finally:
        reader.close()


def beginnings(settings: KafkaSettings, topic: str, *, group: str) -> dict[int, int]:
    """The oldest place of each partition that the topic still holds."""
    reader = Consumer(consumer_config(settings, group=group))
    try:
        partitions = reader.list_topics(topic, timeout=ANSWER_S).topics[topic].partitions
        found = {}
        for each in partitions:
            marks = reader.get_watermark_offsets(TopicPartition(topic, each), timeout=ANSWER_S)
            if marks is None:
                raise DependencyError(f"The broker says nothing of {topic}[{each}].")
            found[each] = int(marks[0])
        return found
    except KafkaException as err:
        raise dependency_error(settings, err, f"look at {topic}") from err
    finally:
        reader.close()
