"""The peer of the stream's benchmarks moves each message once, and says how quickly."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, TopicPartition

from benchmarks import bare_loop
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer

MESSAGES = 400


@pytest.mark.parametrize("producers", [1, 2])
def test_each_message_is_moved_once_to_its_partition(kafka: KafkaServer, producers: int) -> None:
    source, target = f"{uuid4().hex}.in", f"{uuid4().hex}.out"
    bare_loop.make_topics(kafka.address, 2, source, target)
    bare_loop.fill(kafka.address, source, MESSAGES, b"{}", partitions=2)
    result = bare_loop.run(
        kafka.address, source, target, messages=MESSAGES, batch=50, value=b"decision", producers=producers
    )
    assert 0 < result.messages < MESSAGES, "the first transaction is not counted"
    reader = Consumer({"bootstrap.servers": kafka.address, "group.id": source, "enable.partition.eof": True})
    keys: list[bytes] = []
    try:
        reader.assign([TopicPartition(target, number, 0) for number in range(2)])
        ends = 0
        while ends < 2:
            message = reader.poll(30)
            assert message is not None
            if message.error():
                ends += 1
                continue
            assert int(message.key() or b"") % 2 == message.partition()
            keys.append(message.key() or b"")
    finally:
        reader.close()
    assert sorted(keys, key=int) == [str(number).encode() for number in range(MESSAGES)]


def test_the_command_prints_json(kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_KAFKA_BOOTSTRAP_SERVERS", kafka.address)
    said: list[str] = []
    bare_loop.main(["--messages", "300", "--batch", "50", "--producers", "2", "--json"], said.append)
    assert json.loads(said[0])["rows_per_s"] > 0
